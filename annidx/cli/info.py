"""Owns `annidx info`: what an index file holds."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import annidx
from annidx._terminal import Style, human_bytes
from annidx.cli.arguments import Command, add_index
from annidx.cli.output import curve_table
from annidx.cli.plots import add_plot, new_figure, require_plottable, save_figure

# A LeafRange of docs/FORMAT.md; only the count is read.
_LEAF_RANGE = np.dtype({"names": ["count"], "formats": ["<u4"], "offsets": [8], "itemsize": 24})
_MOST_NORMS = 20_000
_MOST_BINS, _LEAST_BINS = 40, 8
_COLOUR, _MARK = "#1f5fa8", "#c2480a"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    add_plot(parser, "sizes of leaves and lengths of vectors, too")


def _run(arguments: argparse.Namespace) -> None:
    if arguments.plot is not None:
        require_plottable(arguments.plot, arguments.force)
    with annidx.load(arguments.index) as index:
        info = index.info()
        if arguments.plot is not None:
            _plot(arguments.index, info, _norms(index), arguments.plot)
    if arguments.json:
        print(json.dumps(info, indent=2))
        return
    style = Style(sys.stdout)
    print(style(arguments.index, "bold"))
    for name, value in _facts(info):
        print(f"  {style(f'{name:<10}', 'dim')} {value}")
    print("\n  recall as measured, and points inspected for it")
    for line in curve_table(_steps_of(info["curve"]), style):
        print(f"  {line}")


def _facts(info: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Put what a person wants to know first into a few lines."""
    yield "vectors", f"{info['items']:,} of {info['dim']} dimensions, kept as {info['dtype']}"
    yield "metric", info["metric"]
    yield "ids", {"int": "integers", "str": "text"}[info["ids"]]
    rest = human_bytes(info["file_bytes"] - info["vector_bytes"])
    yield "file", f"{human_bytes(info['file_bytes'])}, of which the vectors leave {rest}"
    trees = "1 tree" if info["n_trees"] == 1 else f"{info['n_trees']} trees"
    yield "index", f"{trees}, {info['leaves']:,} leaves"
    yield "target", f"recall {info['default_recall']:g}"
    yield "format", f"{info['format_version']}, written by annidx {info['library_version']}"
    yield "identity", info["identity"]
    for name, count in info["sets"].items():
        yield "set", f"{name}: {count:,} items"
    for key, value in (info["metadata"] or {}).items():
        yield "metadata", f"{key} = {value if isinstance(value, str) else json.dumps(value)}"


def leaf_sizes(path: str, sections: Sequence[dict[str, Any]]) -> npt.NDArray[np.int64]:
    """Read how many items each leaf has, see leaf_ranges in docs/FORMAT.md.

    Parameters
    ----------
    path : str
        An index file.
    sections : sequence of dict
        Its sections, from `info`.

    Returns
    -------
    ndarray
        int64, of the leaves of all trees in the order of the file.
    """
    place = next(one for one in sections if one["name"] == "leaf_ranges")
    with open(path, "rb") as file:
        file.seek(place["offset"])
        ranges = np.frombuffer(file.read(place["bytes"]), dtype=_LEAF_RANGE)
    counts = ranges["count"].astype(np.int64)
    return counts[counts > 0]


def _norms(index: annidx.Index) -> npt.NDArray[np.float64]:
    """Measure the lengths of some vectors, spread over the file; of bits how many are set."""
    ids = index.ids
    step = max(1, len(ids) // _MOST_NORMS)
    vectors = index.get_vectors(list(ids[::step])).astype(np.float64)
    if index.metric == "hamming":
        return np.asarray(vectors.sum(axis=1))
    return np.asarray(np.linalg.norm(vectors, axis=1))


def _bins(values: npt.NDArray[Any]) -> int:
    return min(_MOST_BINS, max(_LEAST_BINS, int(2 * len(values) ** 0.5)))


def _plot(source: str, info: dict[str, Any], norms: npt.NDArray[np.float64], path: str) -> None:
    """Draw histograms of the sizes of leaves and of the lengths of vectors."""
    sizes = leaf_sizes(source, info["sections"])
    figure = new_figure(9, 3.8)
    left, right = figure.subplots(1, 2)
    left.hist(sizes, bins=_bins(sizes), color=_COLOUR)
    left.axvline(float(np.median(sizes)), color=_MARK, label=f"median {np.median(sizes):,.0f}")
    left.set_xlabel("items of a leaf")
    left.set_ylabel("leaves")
    right.hist(norms, bins=_bins(norms), color=_COLOUR)
    right.axvline(float(np.median(norms)), color=_MARK, label=f"median {np.median(norms):.4g}")
    bits = info["metric"] == "hamming"
    right.set_xlabel("bits set in a vector" if bits else "length of a vector")
    right.set_ylabel(f"vectors, of {len(norms):,}")
    for axes in (left, right):
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    name = os.path.basename(source)
    figure.suptitle(f"{name}: {info['items']:,} x {info['dim']}, {info['metric']}")
    save_figure(figure, path)


def _steps_of(curve: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose, for each k, the first point of a curve that reaches each of some round recalls."""
    steps: list[dict[str, Any]] = []
    for k in sorted({point["k"] for point in curve}):
        points = [point for point in curve if point["k"] == k]
        for target in (0.8, 0.9, 0.95, 0.99, 0.999):
            reached = next((point for point in points if point["recall"] >= target), None)
            if reached is not None and reached not in steps:
                steps.append(reached)
    return steps


COMMAND = Command("Tell what an index file holds.", _add_arguments, _run)
