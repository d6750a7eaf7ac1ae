"""Owns `annidx graph`: the neighbours of all items of an index into files."""

from __future__ import annotations

import argparse
import time

import annidx
from annidx._terminal import human_seconds
from annidx.cli.arguments import Command, add_index, add_jobs, positive, share
from annidx.cli.output import progress_bar


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    add = parser.add_argument
    add(
        "-o",
        "--output",
        required=True,
        metavar="PATH",
        help="a .parquet file, or a folder for .npy files, to write",
    )
    add("-k", type=positive, default=15, help="neighbours of each item (15)")
    add("--include-self", action="store_true", help="each item is the first of its neighbours")
    add("--rows", action="store_true", help="name neighbours by row instead of id")
    add("--recall", type=share, metavar="R", help="share of true neighbours to find (the index's)")
    add("--force", action="store_true", help="replace files that exist")
    add_jobs(parser)


def _run(arguments: argparse.Namespace) -> None:
    start = time.monotonic()
    with annidx.load(arguments.index) as index, progress_bar() as progress:
        index.knn_graph(
            arguments.k,
            arguments.include_self,
            "rows" if arguments.rows else "ids",
            out=arguments.output,
            recall=arguments.recall,
            n_jobs=arguments.jobs,
            progress=progress,
            force=arguments.force,
        )
        count = len(index)
    seconds = human_seconds(time.monotonic() - start)
    print(f"{arguments.output}: {arguments.k} neighbours of {count:,} items, in {seconds}")


COMMAND = Command("Write the neighbours of all items to a file.", _add_arguments, _run)
