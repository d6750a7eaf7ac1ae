"""Owns `annidx add`: items that come to an index, into the file itself or into one of changes."""

from __future__ import annotations

import argparse
import time

from annidx.cli.arguments import Command, add_index, add_jobs
from annidx.cli.changes import add_changes, opened, report, saved
from annidx.cli.vectors import add_vectors, read_vectors


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    add_vectors(parser, with_ids=True)
    parser.add_argument("--update", action="store_true", help="replace what has the id already")
    add_changes(parser)
    add_jobs(parser)


def _run(arguments: argparse.Namespace) -> None:
    start = time.monotonic()
    vectors, ids = read_vectors(arguments)
    with opened(arguments) as index:
        packed, jobs = arguments.packed, arguments.jobs
        if not arguments.update:
            index.add_items(vectors, ids, packed=packed, n_jobs=jobs)
        elif ids is None:
            raise ValueError("--update: expected ids, by --ids or --id-column")
        else:
            index.update_items(vectors, ids, packed=packed, n_jobs=jobs)
        written = saved(index, arguments)
        report(written, f"{len(vectors):,} added", len(index), start)


COMMAND = Command("Add items to an index.", _add_arguments, _run)
