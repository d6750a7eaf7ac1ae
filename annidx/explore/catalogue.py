"""Owns finding items by a part of their id or title, in bounded time and memory.

All texts stand in one block of bytes, one a line, and a search is a search in those bytes: some
milliseconds for a million items, whatever is asked. It must not know queries or the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np

__all__ = ["Catalogue"]

# Beyond these, completion ends and only whole ids are found: memory stays bounded.
_MOST_ITEMS = 5_000_000
_MOST_BYTES = 256 << 20
# Of a very long id the beginning is searched.
_MOST_CHARACTERS = 120
# Matches that are looked at before the shortest come first.
_CONSIDERED = 200
_CHUNK_ROWS = 50_000
_BLANKS = {ord(mark): " " for mark in "\n\t\r"}


class Catalogue:
    """The searchable texts of items.

    Parameters
    ----------
    ids : iterable of str
        Ids as text, in row order.
    title_of : callable
        Gives the title of an id, or None.

    Notes
    -----
    Case is ignored. Built in about a second for a million items; safe from many threads.
    """

    def __init__(self, ids: Iterable[str], title_of: Callable[[str], str | None]) -> None:
        lines = (_line(item, title_of(item)) for item in islice(ids, _MOST_ITEMS))
        block = bytearray()
        while len(block) < _MOST_BYTES:
            chunk = list(islice(lines, _CHUNK_ROWS))
            if not chunk:
                break
            block += "".join(chunk).lower().encode("utf-8", "replace")
        self._block = bytes(block)
        self._starts = np.flatnonzero(np.frombuffer(self._block, dtype=np.uint8) == ord("\n"))

    def __len__(self) -> int:
        """Count the items that are searched: the first ones of the file."""
        return len(self._starts)

    def find(self, text: str, limit: int) -> list[int]:
        """Return rows of items whose id or title has this text.

        Parameters
        ----------
        text : str
            What to look for; the empty text finds the first items.
        limit : int
            The most rows to return.

        Returns
        -------
        list of int
            Those that begin with the text come first, the shorter ones ahead.
        """
        wanted = (
            text.translate(_BLANKS)[:_MOST_CHARACTERS].strip().lower().encode("utf-8", "replace")
        )
        if not wanted:
            return list(range(min(limit, len(self))))
        found: dict[int, None] = {}
        for needle in (b"\n" + wanted, b"\t" + wanted, wanted):
            rows = list(islice(self._rows_with(needle), _CONSIDERED))
            found.update(dict.fromkeys(sorted(rows, key=self._length)))
            if len(found) >= limit:
                break
        return list(found)[:limit]

    def _rows_with(self, needle: bytes) -> Iterator[int]:
        place = self._block.find(needle)
        while place >= 0:
            row = int(np.searchsorted(self._starts, place, side="right")) - 1
            yield row
            if row + 1 == len(self._starts):
                return
            place = self._block.find(needle, int(self._starts[row + 1]))

    def _length(self, row: int) -> int:
        end = self._starts[row + 1] if row + 1 < len(self._starts) else len(self._block)
        return int(end - self._starts[row])


def _line(item: str, title: str | None) -> str:
    text = item[:_MOST_CHARACTERS].translate(_BLANKS)
    if title is not None:
        text += "\t" + title[:_MOST_CHARACTERS].translate(_BLANKS)
    return "\n" + text
