"""Owns what several commands print: errors, progress, what was built, a recall curve."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from annidx._terminal import ProgressBar, Style, human_bytes, human_seconds, table


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Give a callable that shows progress on a terminal, and wipe the bar away at the end."""
    bar = ProgressBar(sys.stderr)
    try:
        yield bar.update
    finally:
        bar.clear()


def report_error(message: str) -> None:
    """Print an error as one line on stderr."""
    print(f"annidx: error: {' '.join(message.split())}", file=sys.stderr)


def about_file(error: OSError) -> str:
    """Say what went wrong with which file."""
    reason = error.strerror or str(error)
    return f"{os.fspath(error.filename)}: {reason}" if error.filename else reason


def report_built(path: str, count: int, start: float) -> None:
    """Tell the size of a finished index file and the time since `start` (time.monotonic())."""
    size = human_bytes(os.path.getsize(path))
    print(f"{path}: {count:,} vectors, {size}, in {human_seconds(time.monotonic() - start)}")


def curve_table(curve: Sequence[dict[str, Any]], style: Style) -> list[str]:
    """Lay out the points of a recall curve."""
    rows = [
        [str(point["k"]), f"{point['recall']:.4f}"]
        + [f"{point[stage]:,}" for stage in ("candidates", "rerank", "exact")]
        for point in curve
    ]
    return table(("k", "recall", "candidates", "re-ranked", "exact"), rows, ">>>>>", style)
