"""Owns `annidx build`: vectors of a file into an index file."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import annidx
from annidx.cli.arguments import (
    INPUTS,
    Command,
    add_build_options,
    add_force,
    add_key,
    build_options,
    metric,
    pair,
    size,
)
from annidx.cli.output import progress_bar, report_built
from annidx.cli.queries import read_queries
from annidx.io.inputs import require_replaceable
from annidx.io.readers import Ids, InputError, read_ids, read_table

METRICS = ("angular", "cosine", "euclidean", "manhattan", "dot", "hamming")
DTYPES = ("float32", "float16", "int8", "uint8", "bits")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", metavar="INPUT", help=f"vectors: {INPUTS}")
    add("-o", "--output", required=True, metavar="FILE", help="the index file to write")
    names = ", ".join(METRICS)
    add("--metric", required=True, type=metric(METRICS), metavar="M", help=f"one of {names}")
    add("--dtype", choices=DTYPES, help="how vectors are kept (as the input has them)")
    add("--packed", action="store_true", help="hamming: each byte of the input is eight bits")
    add_key(parser)
    ids = parser.add_mutually_exclusive_group()
    ids.add_argument("--ids", metavar="FILE", help="ids: text, one a line, or .npy")
    ids.add_argument(
        "--id-column", metavar="NAME", help="column of ids in a text or .parquet input, or number"
    )
    add("--queries", metavar="FILE", help="typical queries, to measure recall with")
    add_build_options(parser)
    add(
        "--metadata",
        type=pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="text to keep in the file; may be given several times",
    )
    add("--memory-limit", type=size, metavar="SIZE", help="memory to stay below, such as 2G")
    add_force(parser)


def _run(arguments: argparse.Namespace) -> None:
    start = time.monotonic()
    require_replaceable(arguments.output, force=arguments.force)
    index = _filled(arguments)
    queries = None
    if arguments.queries is not None:
        queries = read_queries(index, arguments.queries)
    options = build_options(arguments)
    if arguments.memory_limit is not None:
        options.update(
            out=arguments.output, memory_limit=arguments.memory_limit, force=arguments.force
        )
    with progress_bar() as progress:
        index.build(queries=queries, progress=progress, **options)
        if arguments.metadata or "out" not in options:
            metadata = dict(arguments.metadata) or None
            index.save(arguments.output, metadata, progress=progress, force=arguments.force)
    report_built(arguments.output, len(index), start)


def _filled(arguments: argparse.Namespace) -> annidx.Index:
    """Make an index of the input's form and put the input in."""
    table = read_table(arguments.input, arguments.key, arguments.id_column)
    ids: Ids | None = table.ids
    if arguments.ids is not None:
        ids = read_ids(arguments.ids)
        if len(ids) != len(table.vectors):
            raise InputError(
                f"{arguments.ids}: {len(ids):,} ids for {len(table.vectors):,} vectors"
            )
    columns = table.vectors.shape[1]
    index = annidx.Index(
        dim=columns * 8 if arguments.packed else columns,
        metric=arguments.metric,
        dtype=arguments.dtype or _natural_dtype(arguments.metric, table.vectors.dtype),
    )
    index.add_items(table.vectors, ids, packed=arguments.packed)
    return index


def _natural_dtype(metric: str, given: np.dtype[Any]) -> str | None:
    """Keep small numbers small where the metric can; for everything else the API's default."""
    if metric == "hamming":
        return None
    if given == np.uint8:
        return "uint8" if metric in ("euclidean", "manhattan") else None
    return str(given) if given in (np.int8, np.float16) else None


COMMAND = Command("Build an index file from a file of vectors.", _add_arguments, _run)
