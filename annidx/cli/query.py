"""Owns `annidx query`: neighbours of items or of the vectors of a file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import annidx
from annidx._terminal import Style, table
from annidx.cli.arguments import (
    IDS,
    INPUTS,
    Command,
    add_index,
    add_jobs,
    add_selection,
    positive,
    require_one_standard_input,
    selection,
    share,
)
from annidx.cli.queries import ids_of, known_ids, read_queries

_BATCH = 1_024  # vectors of a query file that are answered at a time
_Answer = tuple[int | str, list[Any], list[float]]  # what was asked, ids, distances


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_index(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--item", nargs="+", metavar="ID", help="neighbours of these items")
    what.add_argument("--vectors", metavar="FILE", help=f"neighbours of vectors: {INPUTS}")
    add_selection(parser)
    add("-k", type=_neighbours, default=10, help="neighbours of each (10); all, with --radius")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--recall", type=share, metavar="R", help="target (that of the build)")
    effort.add_argument("--search-k", type=positive, metavar="N", help="candidates to inspect")
    add("--radius", type=float, metavar="D", help="only items at this distance or nearer")
    for name, may in (("allow", "may"), ("deny", "may not")):
        filters = parser.add_mutually_exclusive_group()
        filters.add_argument(f"--{name}", metavar="FILE", help=f"ids that {may} be returned: {IDS}")
        filters.add_argument(
            f"--{name}-set", metavar="NAME", help=f"a set of the index that {may} be returned"
        )
    add_jobs(parser)
    add("--json", action="store_true", help="a line of JSON for each query")


def _neighbours(text: str) -> int | None:
    return None if text == "all" else positive(text)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.k is None and arguments.radius is None:
        arguments.parser.error("argument -k: expected a number, all needs --radius")
    require_one_standard_input(arguments, arguments.vectors, arguments.allow, arguments.deny)
    style = Style(sys.stdout)
    with annidx.load(arguments.index) as index:
        for number, (asked, ids, distances) in enumerate(_answers(index, arguments)):
            if arguments.json:
                print(json.dumps({"query": asked, "ids": ids, "distances": distances}))
                continue
            if number:
                print()
            print(style(f"nearest to {asked}", "bold"))
            rows = [
                [str(rank), str(item), f"{distance:.6g}"]
                for rank, (item, distance) in enumerate(zip(ids, distances, strict=True), 1)
            ]
            print("\n".join(table(("rank", "id", "distance"), rows, "><>", style)))


def _answers(index: annidx.Index, arguments: argparse.Namespace) -> Iterator[_Answer]:
    options = _search_options(index, arguments)
    asked: Sequence[int | str]
    if arguments.item is not None:
        asked = ids_of(index, arguments.item, "--item")
        ask: Callable[..., Any] = index.query_items
        queries: Any = asked
    else:
        queries = read_queries(index, arguments.vectors, selection(arguments))
        asked = range(len(queries))
        ask = index.query
    for start in range(0, len(asked), _BATCH):
        part = slice(start, start + _BATCH)
        ids, distances = ask(queries[part], **options)
        yield from _unpacked(asked[part], ids, distances)


def _search_options(index: annidx.Index, arguments: argparse.Namespace) -> dict[str, Any]:
    """Collect what all kinds of queries take; what was not given stays the API's default."""
    options: dict[str, Any] = {"k": arguments.k, "n_jobs": arguments.jobs}
    for name in ("recall", "search_k", "radius"):
        if getattr(arguments, name) is not None:
            options[name] = getattr(arguments, name)
    for name in ("allow", "deny"):
        path, named = getattr(arguments, name), getattr(arguments, f"{name}_set")
        if path is not None:
            ids = known_ids(index, path, may_be_unknown=name == "deny")
            options[name] = annidx.IdSet(index, ids)
        elif named is not None:
            options[name] = named
    return options


def _unpacked(
    asked: Iterable[int | str], ids: npt.NDArray[Any], distances: npt.NDArray[np.float64]
) -> Iterator[_Answer]:
    """Split a batch into answers, without the empty places of its rows."""
    for one, row, far in zip(asked, ids, distances, strict=True):
        found = ~np.isnan(far)
        yield one, row[found].tolist(), far[found].tolist()


COMMAND = Command("Find nearest neighbours in an index file.", _add_arguments, _run)
