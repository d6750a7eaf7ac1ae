"""Owns `annidx train`: a model from a sample of vectors."""

from __future__ import annotations

import argparse
import time

import annidx
from annidx.cli.arguments import Command, add_force, add_jobs, metric, not_negative, positive
from annidx.cli.build import DTYPES, METRICS
from annidx.cli.output import progress_bar, report_built
from annidx.cli.vectors import add_vectors, read_vectors
from annidx.io.inputs import require_replaceable


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_vectors(parser, with_ids=False)
    add("-o", "--output", required=True, metavar="FILE", help="the model file to write")
    add("--metric", required=True, type=metric(METRICS), metavar="M", help=", ".join(METRICS))
    add("--dtype", choices=DTYPES, help="how vectors are kept (float32, bits)")
    add(
        "--expected-items",
        type=positive,
        metavar="N",
        help="how many the index will hold (as many as the sample)",
    )
    add("--seed", type=not_negative, default=0, metavar="N", help="same seed, same file (0)")
    add_jobs(parser)
    add_force(parser)


def _run(arguments: argparse.Namespace) -> None:
    start = time.monotonic()
    require_replaceable(arguments.output, force=arguments.force)
    sample, _ = read_vectors(arguments)
    with progress_bar() as progress:
        model = annidx.train(
            sample,
            arguments.metric,
            arguments.dtype,
            expected_items=arguments.expected_items,
            n_jobs=arguments.jobs,
            seed=arguments.seed,
            progress=progress,
            packed=arguments.packed,
        )
    model.save(arguments.output, force=arguments.force)
    report_built(arguments.output, len(model), start)


COMMAND = Command("Learn from a sample how vectors are divided and coded.", _add_arguments, _run)
