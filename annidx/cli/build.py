"""Owns `annidx build`: vectors of a file into an index file."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import annidx
from annidx.cli.arguments import (
    IDS,
    Command,
    add_build_options,
    add_force,
    add_selection,
    build_options,
    metric,
    pair,
    require_one_standard_input,
    selection,
    size,
)
from annidx.cli.output import progress_bar, report_built
from annidx.cli.queries import known_ids, read_queries
from annidx.io.inputs import require_replaceable
from annidx.io.readers import read_ids, read_tables
from annidx.io.source import InputError
from annidx.io.table import Ids

METRICS = ("angular", "cosine", "euclidean", "manhattan", "dot", "hamming")
DTYPES = ("float32", "float16", "int8", "uint8", "bits")
_INPUTS = (
    ".npy, .npz, .hdf5, .fvecs, .bvecs, .ivecs, .fbin, .u8bin, .i8bin, word2vec .bin, .parquet "
    "(several, and folders of them), .feather, .jsonl, or text: CSV and the like, word2vec, GloVe; "
    "text, .jsonl and .bin also with .gz"
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help=f"vectors: {_INPUTS}; - for standard input")
    add("-o", "--output", required=True, metavar="FILE", help="the index file to write")
    names = ", ".join(METRICS)
    add("--metric", required=True, type=metric(METRICS), metavar="M", help=f"one of {names}")
    add("--dtype", choices=DTYPES, help="how vectors are kept (as the input has them)")
    add("--packed", action="store_true", help="hamming: each byte of the input is eight bits")
    add_selection(parser)
    ids = parser.add_mutually_exclusive_group()
    ids.add_argument("--ids", metavar="FILE", help=f"ids: {IDS}")
    ids.add_argument(
        "--id-column", metavar="NAME", help="column of ids in the input: its name, or its number"
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
    add(
        "--set",
        dest="sets",
        type=pair,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="ids to keep in the file as a set, for filters; may be given several times",
    )
    add("--memory-limit", type=size, metavar="SIZE", help="memory to stay below, such as 2G")
    add_force(parser)


def _run(arguments: argparse.Namespace) -> None:
    start = time.monotonic()
    paths = [path for _, path in arguments.sets]
    require_one_standard_input(
        arguments, *arguments.inputs, arguments.ids, arguments.queries, *paths
    )
    require_replaceable(arguments.output, force=arguments.force)
    index = _filled(arguments)
    sets = {name: known_ids(index, path) for name, path in arguments.sets}
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
        if arguments.metadata or arguments.sets or "out" not in options:
            index.save(
                arguments.output,
                dict(arguments.metadata) or None,
                sets=sets or None,
                progress=progress,
                force=arguments.force,
            )
    report_built(arguments.output, len(index), start)


def _filled(arguments: argparse.Namespace) -> annidx.Index:
    """Make an index of the first input's form and put all inputs in, one after the other."""
    ids = None if arguments.ids is None else read_ids(arguments.ids)
    index: annidx.Index | None = None
    count = 0
    for name, table in read_tables(arguments.inputs, selection(arguments)):
        given = table.vectors.dtype
        dtype = arguments.dtype or _natural_dtype(arguments.metric, given)
        if index is None:
            first, kept = given, dtype
            index = _made(arguments, table.vectors.shape[1], dtype)
        elif dtype != kept:
            raise InputError(
                f"{name}: holds {given}, the inputs before it {first}: --dtype says what to keep"
            )
        start, count = count, count + len(table.vectors)
        if ids is not None and count > len(ids):
            raise _unequal(arguments, ids, count)
        try:
            index.add_items(
                table.vectors,
                table.ids if ids is None else ids[start:count],
                packed=arguments.packed,
            )
        except ValueError as error:
            raise InputError(f"{name}: {error}") from None
    assert index is not None  # no input is an error of its own
    if ids is not None and count < len(ids):
        raise _unequal(arguments, ids, count)
    return index


def _made(arguments: argparse.Namespace, columns: int, dtype: str | None) -> annidx.Index:
    dim = columns * 8 if arguments.packed else columns
    return annidx.Index(dim=dim, metric=arguments.metric, dtype=dtype)


def _unequal(arguments: argparse.Namespace, ids: Ids, count: int) -> InputError:
    return InputError(f"{arguments.ids}: {len(ids):,} ids for {count:,} vectors")


def _natural_dtype(metric: str, given: np.dtype[Any]) -> str | None:
    """Keep small numbers small where the metric can; for everything else the API's default."""
    if metric == "hamming":
        return None
    if given == np.uint8:
        return "uint8" if metric in ("euclidean", "manhattan") else None
    return str(given) if given in (np.int8, np.float16) else None


COMMAND = Command("Build an index file from a file of vectors.", _add_arguments, _run)
