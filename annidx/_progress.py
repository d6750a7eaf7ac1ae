"""Owns progress bars: what `progress=` accepts, and how True looks on a terminal.

It must not know what work is reported; the core calls with (stage, done, total).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from annidx._core import described

Progress = Callable[[str, int, int], object]

# Seconds between two drawings of the simple bar.
_REDRAW_SECONDS = 0.1


@contextmanager
def reporter(progress: bool | Progress | None) -> Iterator[Progress | None]:
    """Give the callable that the core reports to, and end the bar afterwards."""
    if progress is None or progress is False:
        yield None
    elif progress is True:
        bar = _make_bar()
        try:
            yield bar.report
        finally:
            bar.close()
    elif callable(progress):
        yield progress
    else:
        raise ValueError(
            "progress: expected True, None or a callable (stage, done, total), "
            f"got {described(progress)}"
        )


def _make_bar() -> _TqdmBar | _PlainBar:
    try:
        from tqdm import tqdm
    except ImportError:
        return _PlainBar()
    return _TqdmBar(tqdm)


class _TqdmBar:
    """One tqdm bar a stage."""

    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._bar: Any = None
        self._stage: str | None = None

    def report(self, stage: str, done: int, total: int) -> None:
        """Show where the work is."""
        if stage != self._stage:
            self.close()
            self._bar = self._tqdm(total=total, desc=stage, unit_scale=True)
            self._stage = stage
        self._bar.total = total
        self._bar.update(max(0, done - self._bar.n))

    def close(self) -> None:
        """End the bar of the present stage."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _PlainBar:
    """One line a stage on stderr, for when tqdm is not installed.

    On a terminal it is drawn anew as the work goes on; elsewhere it is written at the stage's end.
    """

    def __init__(self) -> None:
        self._stage: str | None = None
        self._line = ""
        self._shown = ""
        self._drawn = 0.0
        self._is_drawn = sys.stderr.isatty()

    def report(self, stage: str, done: int, total: int) -> None:
        """Show where the work is, at most ten times a second."""
        now = time.monotonic()
        if stage != self._stage:
            self.close()
            self._stage = stage
            self._drawn = 0.0
        share = 100 * done // total if total else 100
        self._line = f"{stage}: {share:3d} %"
        is_due = done >= total or now - self._drawn >= _REDRAW_SECONDS
        # A stage of several rounds reports its end several times.
        if self._is_drawn and is_due and self._line != self._shown:
            sys.stderr.write(f"\r{self._line}")
            sys.stderr.flush()
            self._shown, self._drawn = self._line, now

    def close(self) -> None:
        """End the line of the present stage."""
        if self._stage is not None:
            sys.stderr.write("\n" if self._is_drawn else f"{self._line}\n")
            sys.stderr.flush()
            self._stage = None
            self._shown = ""
