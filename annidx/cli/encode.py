"""Owns `annidx encode`: vectors into a part, by a model."""

from __future__ import annotations

import argparse
import time

import annidx
from annidx.cli.arguments import Command, add_force, add_jobs, size
from annidx.cli.output import progress_bar, report_built
from annidx.cli.vectors import add_vectors, read_vectors
from annidx.io.inputs import require_replaceable


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help="what `annidx train` wrote")
    add_vectors(parser, with_ids=True)
    add("-o", "--output", required=True, metavar="FILE", help="the part to write")
    add("--memory-limit", type=size, metavar="SIZE", help="memory to stay below, such as 2G")
    add_jobs(parser)
    add_force(parser)


def _run(arguments: argparse.Namespace) -> None:
    start = time.monotonic()
    require_replaceable(arguments.output, force=arguments.force)
    vectors, ids = read_vectors(arguments)
    with progress_bar() as progress:
        annidx.encode(
            arguments.model,
            vectors,
            ids,
            out=arguments.output,
            n_jobs=arguments.jobs,
            memory_limit=arguments.memory_limit,
            progress=progress,
            packed=arguments.packed,
            force=arguments.force,
        )
    report_built(arguments.output, len(vectors), start)


COMMAND = Command("Code vectors by a model, into a part to be merged.", _add_arguments, _run)
