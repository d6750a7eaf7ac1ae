"""Owns `annidx evaluate`: recall and time for the user's queries, as a table and as a curve."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

import annidx
from annidx._terminal import Style, table
from annidx.cli.arguments import (
    INPUTS,
    Command,
    add_index,
    add_jobs,
    add_selection,
    positive,
    selection,
    share,
)
from annidx.cli.plots import add_plot, new_figure, require_plottable, save_figure
from annidx.cli.queries import read_queries

_TARGETS = (0.8, 0.9, 0.95, 0.99, 0.999)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_index(parser)
    add("--queries", required=True, metavar="FILE", help=f"typical queries: {INPUTS}")
    add_selection(parser)
    add("-k", type=positive, default=10, help="neighbours that recall counts (10)")
    shown = " ".join(f"{target:g}" for target in _TARGETS)
    add(
        "--recall",
        nargs="+",
        type=share,
        default=_TARGETS,
        metavar="R",
        help=f"targets to measure ({shown})",
    )
    add_jobs(parser)
    add("--json", action="store_true", help="a line of JSON for each target")
    add_plot(parser, "the curve, too")


def _run(arguments: argparse.Namespace) -> None:
    if arguments.plot is not None:
        require_plottable(arguments.plot, arguments.force)
    with annidx.load(arguments.index) as index:
        queries = read_queries(index, arguments.queries, selection(arguments))
        rows = index.evaluate(queries, arguments.k, arguments.recall, n_jobs=arguments.jobs)
        title = f"{os.path.basename(arguments.index)}: {len(index):,} x {index.dim}, {index.metric}"
    if arguments.json:
        print("\n".join(json.dumps(row) for row in rows))
    else:
        print("\n".join(_laid_out(rows, Style(sys.stdout))))
    if arguments.plot is not None:
        _plot(rows, arguments.plot, title)


def _laid_out(rows: list[dict[str, Any]], style: Style) -> list[str]:
    cells = [
        [
            f"{row['target']:g}",
            f"{row['recall']:.4f}",
            f"{row['microseconds']:,.1f}",
            f"{1e6 / row['microseconds']:,.0f}",
            f"{row['candidates']:,}",
        ]
        for row in rows
    ]
    heads = ("target", "recall", "microseconds", "queries a second", "candidates")
    return table(heads, cells, ">>>>>", style)


def _plot(rows: list[dict[str, Any]], path: str, title: str) -> None:
    """Draw recall against the time of a query; each point tells its target."""
    rows = sorted(rows, key=lambda row: row["target"])
    figure = new_figure(7, 4.5)
    axes = figure.add_subplot()
    times = [row["microseconds"] for row in rows]
    axes.plot([row["recall"] for row in rows], times, marker="o", color="#1f5fa8")
    # Targets that reach the same recall share a label.
    for recall in {row["recall"] for row in rows}:
        same = [row for row in rows if row["recall"] == recall]
        axes.annotate(
            ", ".join(f"{row['target']:g}" for row in same),
            (recall, max(row["microseconds"] for row in same)),
            textcoords="offset points",
            xytext=(-6, 6),
            ha="right",
        )
    axes.margins(x=0.12)
    axes.set_ylim(0, 1.15 * max(times))
    axes.set_title(title)
    axes.set_xlabel(f"recall@{rows[0]['k']} measured (beside each point: the target)")
    axes.set_ylabel("microseconds a query, one a call")
    axes.grid(alpha=0.3)
    save_figure(figure, path)


COMMAND = Command("Measure recall and time with your own queries.", _add_arguments, _run)
