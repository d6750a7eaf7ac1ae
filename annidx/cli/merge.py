"""Owns `annidx merge`: parts, or an index and its changes, into one index."""

from __future__ import annotations

import argparse
import time

import annidx
from annidx.cli.arguments import Command, add_force, add_jobs, not_negative, positive, share, size
from annidx.cli.output import progress_bar, report_built


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("parts", nargs="+", metavar="FILE", help="parts in order, or an index and its changes")
    add("-o", "--output", required=True, metavar="FILE", help="the index file to write")
    add("--n-trees", type=positive, metavar="N", help="trees (as the first file has)")
    add("--recall", type=share, metavar="R", help="what queries aim at (as the first file has)")
    add("--neighbours", type=not_negative, metavar="N", help="near items kept for each item")
    add("--newest", action="store_true", help="of an id in several files the last is taken")
    add("--memory-limit", type=size, metavar="SIZE", help="memory to stay below, such as 2G")
    add_jobs(parser)
    add_force(parser)


def _run(arguments: argparse.Namespace) -> None:
    start = time.monotonic()
    with progress_bar() as progress:
        annidx.merge(
            arguments.parts,
            out=arguments.output,
            recall=arguments.recall,
            n_trees=arguments.n_trees,
            neighbours=arguments.neighbours,
            n_jobs=arguments.jobs,
            memory_limit=arguments.memory_limit,
            on_duplicate="newest" if arguments.newest else "raise",
            progress=progress,
            force=arguments.force,
        )
    with annidx.load(arguments.output) as index:
        report_built(arguments.output, len(index), start)


COMMAND = Command("Make one index of parts, or of an index and its changes.", _add_arguments, _run)
