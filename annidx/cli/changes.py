"""Owns what commands that change an index share: what they open, and where the changes go."""

from __future__ import annotations

import argparse
import os
import time

import annidx
from annidx._terminal import human_bytes, human_seconds


def add_changes(parser: argparse.ArgumentParser) -> None:
    """Add the file of changes."""
    parser.add_argument(
        "--changes",
        metavar="FILE",
        help="leave the index as it is and keep the changes there, with those it holds already",
    )


def opened(arguments: argparse.Namespace) -> annidx.Index:
    """Open the index, with the changes that there are."""
    if arguments.changes is not None and os.path.exists(arguments.changes):
        return annidx.load([arguments.index, arguments.changes])
    return annidx.load(arguments.index)


def saved(index: annidx.Index, arguments: argparse.Namespace) -> str:
    """Write the changes, or the whole index; return where to."""
    if arguments.changes is not None:
        index.save_changes(arguments.changes)
        return str(arguments.changes)
    index.save(arguments.index)
    return str(arguments.index)


def report(path: str, done: str, count: int, start: float) -> None:
    """Tell what was done, and what came of it."""
    size = human_bytes(os.path.getsize(path))
    took = human_seconds(time.monotonic() - start)
    print(f"{path}: {done}, {count:,} items, {size}, in {took}")
