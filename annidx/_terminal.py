"""Owns how the command line looks: colour, progress bars, tables, numbers for people.

It must not know what an index is. Colour and bars appear on a terminal only; `NO_COLOR` and
`TERM=dumb` are honoured.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Sequence
from typing import TextIO

_STYLES = {"bold": "1", "dim": "2", "green": "32", "yellow": "33", "cyan": "36"}
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[mK]")
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def is_terminal(stream: TextIO) -> bool:
    """Tell whether a person looks at this stream through a terminal that moves its cursor."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def can_print(stream: TextIO, text: str) -> bool:
    """Tell whether the stream's encoding has all characters of a text."""
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def width_of(text: str) -> int:
    """Count the columns a text takes, colour codes left out."""
    return len(_ESCAPE.sub("", text))


def columns() -> int:
    """Return the width to write for: the terminal's, 100 at most, 80 where there is none."""
    return min(shutil.get_terminal_size().columns, 100)


class Style:
    """Paints text for one stream, or leaves it plain where colour is not wanted."""

    def __init__(self, stream: TextIO) -> None:
        self.enabled = is_terminal(stream) and not os.environ.get("NO_COLOR")

    def __call__(self, text: str, *styles: str) -> str:
        """Return the text in these styles (bold, dim, green, yellow, cyan)."""
        if not self.enabled or not text:
            return text
        codes = ";".join(_STYLES[style] for style in styles)
        return f"\x1b[{codes}m{text}\x1b[0m"


class ProgressBar:
    """A line that shows how far a stage of work is; nothing at all where no terminal is.

    Its `update` has the form that `Index.build(progress=...)` calls.
    """

    def __init__(self, stream: TextIO, indent: str = "") -> None:
        self._stream = stream
        self._enabled = is_terminal(stream)
        self._indent = indent
        self._style = Style(stream)
        self._marks = ("━", "─") if can_print(stream, "━─") else ("#", "-")
        self._shown = False
        self._last = ("", 0.0)

    def update(self, stage: str, done: int, total: int) -> None:
        """Show a stage at `done` of `total`; at most some twenty times a second."""
        now = time.monotonic()
        if not self._enabled or (
            stage == self._last[0] and done < total and now - self._last[1] < 0.05
        ):
            return
        self._last = (stage, now)
        share = min(done / total, 1.0) if total > 0 else 0.0
        length = 30
        full = round(share * length)
        bar = self._style(self._marks[0] * full, "cyan") + self._style(
            self._marks[1] * (length - full), "dim"
        )
        self._stream.write(f"\r\x1b[K{self._indent}{bar} {share:4.0%}  {stage}")
        self._stream.flush()
        self._shown = True

    def clear(self) -> None:
        """Take the line away, so that the next output starts where it stood."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], align: str, style: Style
) -> list[str]:
    """Lay out rows under a header.

    Parameters
    ----------
    header : sequence of str
        The columns' names.
    rows : sequence of sequences of str
        One text a column.
    align : str
        A letter a column: `<` for left, `>` for right.
    style : Style
        Paints the header.

    Returns
    -------
    list of str
        The lines, without trailing blanks.
    """
    widths = [max(width_of(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = []
        for cell, width, side in zip(cells, widths, align, strict=True):
            blanks = " " * (width - width_of(cell))
            padded.append(cell + blanks if side == "<" else blanks + cell)
        return "  ".join(padded).rstrip()

    return [style(line(header), "dim"), *(line(row) for row in rows)]


def human_bytes(count: float) -> str:
    """Write a number of bytes for people, in powers of ten: 4.2 MB."""
    for unit in _UNITS[:-1]:
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} {_UNITS[-1]}"


def human_seconds(seconds: float) -> str:
    """Write a duration for people: 0.3 ms, 1.4 s, 3 min 20 s."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 0.1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
