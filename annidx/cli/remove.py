"""Owns `annidx remove`: items that go from an index."""

from __future__ import annotations

import argparse
import time

from annidx.cli.arguments import IDS, Command, add_index
from annidx.cli.changes import add_changes, opened, report, saved
from annidx.cli.queries import ids_of
from annidx.io.readers import read_ids


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    add = parser.add_argument
    add("items", nargs="*", metavar="ID", help="ids of items that go")
    add("--ids", metavar="FILE", help=f"more of them: {IDS}")
    add("--skip-missing", action="store_true", help="leave out ids that the index does not hold")
    add_changes(parser)


def _run(arguments: argparse.Namespace) -> None:
    start = time.monotonic()
    with opened(arguments) as index:
        ids = ids_of(index, arguments.items, "ID")
        if arguments.ids is not None:
            ids += ids_of(index, read_ids(arguments.ids), arguments.ids)
        if not ids:
            raise ValueError("expected ids of items that go, or --ids FILE, found none")
        before = len(index)
        index.remove_items(ids, missing="skip" if arguments.skip_missing else "raise")
        written = saved(index, arguments)
        report(written, f"{before - len(index):,} removed", len(index), start)


COMMAND = Command("Remove items from an index.", _add_arguments, _run)
