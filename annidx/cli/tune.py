"""Owns `annidx tune`: recall measured with the user's queries."""

from __future__ import annotations

import argparse
import json
import sys

import annidx
from annidx._terminal import Style
from annidx.cli.arguments import (
    INPUTS,
    Command,
    add_force,
    add_index,
    add_jobs,
    add_selection,
    positive,
    selection,
)
from annidx.cli.output import curve_table, progress_bar
from annidx.cli.queries import read_queries
from annidx.io.inputs import require_replaceable


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_index(parser)
    add("--queries", required=True, metavar="FILE", help=f"typical queries: {INPUTS}")
    add_selection(parser)
    add("-k", type=positive, default=10, help="neighbours that recall counts (10)")
    add("-o", "--output", metavar="FILE", help="keep the measured curve: save the index there")
    add_force(parser)
    add_jobs(parser)
    add("--json", action="store_true", help="a line of JSON for each point")


def _run(arguments: argparse.Namespace) -> None:
    if arguments.output is not None:
        require_replaceable(arguments.output, force=arguments.force)
    with annidx.load(arguments.index) as index:
        queries = read_queries(index, arguments.queries, selection(arguments))
        with progress_bar() as progress:
            curve = index.tune(queries, arguments.k, n_jobs=arguments.jobs, progress=progress)
            if arguments.output is not None:
                index.save(arguments.output, force=arguments.force)
    if arguments.json:
        lines = [json.dumps(point) for point in curve]
    else:
        lines = curve_table(curve, Style(sys.stdout))
    print("\n".join(lines))


COMMAND = Command("Measure recall with your own queries.", _add_arguments, _run)
