"""Recall against queries a second, one figure a set, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from bench.contestant import Array
from bench.pareto import Point, front

OURS = "annidx"
RECALL_TICKS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)
LEAST_RECALL = 0.75
LEAST_MISS = 4e-4
"""Smaller misses share one place at the right, where recall 1 is drawn."""
RIGHT_MARGIN = 0.06
STYLES = {
    "annidx": ("#d62728", "o"),
    "annoy": ("#7f7f7f", "v"),
    "hnswlib": ("#1f77b4", "s"),
    "faiss-hnsw": ("#17becf", "D"),
    "faiss-ivfpqfs": ("#2ca02c", "^"),
    "faiss-binary-hnsw": ("#17becf", "D"),
    "faiss-binary-ivf": ("#2ca02c", "^"),
    "scann": ("#ff7f0e", "P"),
    "usearch": ("#9467bd", "X"),
    "voyager": ("#8c564b", "<"),
    "pynndescent": ("#e377c2", ">"),
    "mrpt": ("#bcbd22", "p"),
    "ngt": ("#393b79", "h"),
    "svs": ("#637939", "d"),
    "symphonyqg": ("#000000", "*"),
    "lorann": ("#e6ab02", "H"),
    "diskann": ("#0a9396", "d"),
    "annidx-avx2": ("#f28e8e", "o"),
}


def _spread(recall: Sequence[float]) -> Array:
    """Place on the axis: equal room for every halving of the misses."""
    return np.asarray(-np.log10(np.maximum(LEAST_MISS, 1 - np.asarray(recall, dtype=float))))


def front_points(one: Mapping[str, Any]) -> list[Point]:
    """The contestant's front over medians, from the recall of interest up."""
    points = [Point(point["recall"], point["single"]["median"]) for point in one["points"]]
    return [point for point in front(points) if point.recall >= LEAST_RECALL]


def draw_set(result: Mapping[str, Any], machine: str, folder: Path) -> list[Path]:
    """Write ``<set>-<dtype>.png`` and ``.svg``; their paths."""
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    axes = figure.add_subplot()
    for one in sorted(result["contestants"], key=_speed_for_legend):
        _draw_contestant(axes, one)
    axes.set_yscale("log")
    axes.set_xlim(*_spread([LEAST_RECALL, 1.0]) + np.array([0, RIGHT_MARGIN]))
    axes.set_xticks(_spread(RECALL_TICKS), [f"{tick:g}" for tick in RECALL_TICKS])
    axes.grid(which="major", color="#dddddd")
    axes.grid(which="minor", axis="y", color="#f0f0f0")
    axes.set_axisbelow(True)
    axes.set_xlabel(f"recall@{result['k']}")
    axes.set_ylabel("queries a second, one query a call, one core")
    axes.set_title(
        f"{result['name']}, {result['dtype']}: {result['rows']:,} x {result['dim']}\n{machine}",
        fontsize=11,
    )
    if axes.has_data():
        figure.legend(loc="outside right upper", frameon=False)
    return _save(figure, folder / f"{result['name']}-{result['dtype']}")


def _speed_for_legend(one: Mapping[str, Any]) -> float:
    figure = one["at_recall"]["0.95"]["single"]
    return -figure["queries_per_second"] if figure else 0.0


def _draw_contestant(axes: Any, one: Mapping[str, Any]) -> None:
    points = front_points(one)
    if not points:
        return
    color, marker = STYLES.get(one["name"], ("#444444", "."))
    ours = one["name"] == OURS
    axes.plot(
        _spread([point.recall for point in points]),
        [point.queries_per_second for point in points],
        label=one["name"],
        color=color,
        marker=marker,
        linewidth=2.8 if ours else 1.3,
        markersize=7 if ours else 5,
        zorder=3 if ours else 2,
    )


def _save(figure: Figure, stem: Path) -> list[Path]:
    """The same figures give the same SVG: no random identifiers, no date."""
    paths = [stem.with_name(stem.name + suffix) for suffix in (".png", ".svg")]
    figure.savefig(paths[0], dpi=130)
    with mpl.rc_context({"svg.hashsalt": OURS}):
        figure.savefig(paths[1], metadata={"Date": None})
    return paths
