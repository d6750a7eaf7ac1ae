"""Owns `annidx merge`: parts, or an index and its changes, into one index, or into a manifest."""

from __future__ import annotations

import argparse
import time
from typing import Literal

import annidx
from annidx.cli.arguments import Command, add_force, add_jobs, not_negative, positive, share, size
from annidx.cli.output import progress_bar, report_built


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("parts", nargs="+", metavar="FILE", help="parts in order, or an index and its changes")
    add("-o", "--output", required=True, metavar="FILE", help="the index file to write")
    add(
        "--manifest",
        action="store_true",
        help="write a small file that names the parts, to be asked as one index as they are",
    )
    add("--n-trees", type=positive, metavar="N", help="trees (as the first file has)")
    add("--recall", type=share, metavar="R", help="what queries aim at (as the first file has)")
    add("--neighbours", type=not_negative, metavar="N", help="near items kept for each item")
    add("--newest", action="store_true", help="of an id in several files the last is taken")
    add("--memory-limit", type=size, metavar="SIZE", help="memory to stay below, such as 2G")
    add_jobs(parser)
    add_force(parser)


def _run(arguments: argparse.Namespace) -> None:
    start = time.monotonic()
    on_duplicate: Literal["raise", "newest"] = "newest" if arguments.newest else "raise"
    if arguments.manifest:
        _write_manifest(arguments, on_duplicate)
        return
    with progress_bar() as progress:
        annidx.merge(
            arguments.parts,
            out=arguments.output,
            recall=arguments.recall,
            n_trees=arguments.n_trees,
            neighbours=arguments.neighbours,
            n_jobs=arguments.jobs,
            memory_limit=arguments.memory_limit,
            on_duplicate=on_duplicate,
            progress=progress,
            force=arguments.force,
        )
    with annidx.load(arguments.output) as index:
        report_built(arguments.output, len(index), start)


def _write_manifest(
    arguments: argparse.Namespace, on_duplicate: Literal["raise", "newest"]
) -> None:
    for option in ("n_trees", "recall", "neighbours", "memory_limit"):
        if getattr(arguments, option) is not None:
            name = option.replace("_", "-")
            raise ValueError(f"--{name}: expected without --manifest, which merges nothing")
    annidx.write_manifest(
        arguments.parts, out=arguments.output, on_duplicate=on_duplicate, force=arguments.force
    )
    with annidx.load(arguments.output) as index:
        print(f"{arguments.output}: names {len(arguments.parts)} files, {len(index):,} items")


COMMAND = Command("Make one index of parts, or of an index and its changes.", _add_arguments, _run)
