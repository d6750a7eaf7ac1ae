"""Owns `annidx convert`: a file of Annoy into an index file."""

from __future__ import annotations

import argparse
import time

from annidx.cli.arguments import (
    Command,
    add_build_options,
    add_force,
    build_options,
    metric,
    positive,
)
from annidx.cli.output import progress_bar, report_built

METRICS = ("angular", "euclidean", "manhattan", "dot", "hamming")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", metavar="OLD", help="a file that Annoy wrote")
    add("output", metavar="NEW", help="the index file to write")
    add("--dim", type=positive, required=True, metavar="N", help="dimension of its vectors")
    names = ", ".join(METRICS)
    what = f"that it was built with: {names}"
    add("--metric", type=metric(METRICS), required=True, metavar="M", help=what)
    add_build_options(parser)
    add_force(parser)


def _run(arguments: argparse.Namespace) -> None:
    from annidx import annoy

    start = time.monotonic()
    with progress_bar() as progress:
        count = annoy.convert(
            arguments.input,
            arguments.output,
            arguments.dim,
            arguments.metric,
            progress=progress,
            force=arguments.force,
            **build_options(arguments),
        )
    report_built(arguments.output, count, start)


COMMAND = Command("Turn a file of Annoy into an annidx index.", _add_arguments, _run)
