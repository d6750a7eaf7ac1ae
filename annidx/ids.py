"""Owns the sequence of an index's text ids. It must not know how ids are stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from annidx import _core

__all__ = ["TextIds"]

# Rows whose texts are made together: enough that a call costs nothing beside them.
_CHUNK_ROWS = 4_096


class TextIds(Sequence[str]):
    """The text ids of an index, in row order, made as they are asked for.

    Nothing is copied when it is made: a million ids cost no memory until they are read. It keeps
    its index alive, and raises `StateError` once that is closed.

    Notes
    -----
    `in` and `index` look an id up as the index does, in logarithmic time; an element costs a
    microsecond. Safe from many threads.
    """

    __slots__ = ("_index",)

    def __init__(self, index: _core.CoreIndex) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return self._texts(range(*place.indices(len(self))))
        try:
            row = range(len(self))[place]
        except IndexError:
            raise IndexError(f"ids: expected a row below {len(self)}, got {place}") from None
        return self._texts(range(row, row + 1))[0]

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _CHUNK_ROWS):
            yield from self._texts(range(first, min(len(self), first + _CHUNK_ROWS)))

    def __contains__(self, item: object) -> bool:
        return item in self._index

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"TextIds([{shown}{', ...' if len(self) > 3 else ''}], {len(self)} ids)"

    def _texts(self, rows: range) -> list[str]:
        places = np.arange(rows.start, rows.stop, rows.step, dtype=np.int64)
        found: list[str] = self._index._text_ids(places).tolist()
        return found
