"""Owns what `Index.evaluate` measures: recall against the truth, and the time of one query a call.

It asks an index as any caller does, so that what it measures is what callers get.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Evaluated", "evaluate"]

Found = tuple[npt.NDArray[Any], npt.NDArray[np.float64]]

# Rounds through all targets, with all queries each: at least (unless they take ten times the
# seconds) and at most, until so many seconds a target were measured. The fastest counts, because
# whatever else a machine does only makes one slower, and in turns, because it does not do it all
# the time.
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 10
_SECONDS = 0.3


class Evaluated(Protocol):
    """What is asked of a built index."""

    @property
    def metric(self) -> str:
        """Name of the metric."""

    def __len__(self) -> int: ...
    def query(self, vectors: Any, k: int, *, recall: float, packed: bool) -> Found:
        """Answer one query."""

    def query_exact(self, vectors: Any, k: int, *, n_jobs: int, packed: bool) -> Found:
        """Answer a batch with the truth."""

    def _setting(self, k: int, recall: float) -> dict[str, Any]:
        """Tell the effort that a target asks for."""


def evaluate(
    index: Evaluated, queries: npt.NDArray[Any], k: int, targets: Sequence[float], n_jobs: int
) -> list[dict[str, Any]]:
    """Measure each target with all queries; see `Index.evaluate`. Queries are as the core's."""
    packed = index.metric == "hamming"
    _, truth = index.query_exact(queries, k, n_jobs=n_jobs, packed=packed)
    found = min(k, len(index))
    # An item as near as the last of the truth is as good as it: what counts is the distance.
    bounds = truth[:, found - 1]
    answers = [_answers(index, queries, k, target, packed) for target in targets]
    seconds = _fastest(index, queries, k, targets, packed)
    table = []
    for target, near, took in zip(targets, answers, seconds, strict=True):
        inside = near >= bounds[:, np.newaxis]
        if index.metric != "dot":
            inside = near <= bounds[:, np.newaxis]
        effort = index._setting(k, target)
        table.append(
            {
                "k": k,
                "target": target,
                "recall": float(inside.sum() / (found * len(queries))),
                "microseconds": 1e6 * took / len(queries),
                "candidates": len(index) if target >= 1.0 else effort["candidates"],
            }
        )
    return table


def _answers(
    index: Evaluated, queries: npt.NDArray[Any], k: int, target: float, packed: bool
) -> npt.NDArray[np.float64]:
    """Distances of all answers, NaN in empty places. Makes pages and buffers warm, too."""
    distances = np.full((len(queries), k), np.nan)
    for row, query in enumerate(queries):
        near = index.query(query, k, recall=target, packed=packed)[1]
        distances[row, : len(near)] = near
    return distances


def _fastest(
    index: Evaluated,
    queries: npt.NDArray[Any],
    k: int,
    targets: Sequence[float],
    packed: bool,
) -> list[float]:
    """Seconds that all queries of each target took, one a call, in the fastest round."""
    fastest = [np.inf] * len(targets)
    measured = 0.0
    for number in range(_MOST_ROUNDS):
        enough = _SECONDS * len(targets) * (1 if number >= _LEAST_ROUNDS else 10)
        if measured > enough:
            break
        for place, target in enumerate(targets):
            start = time.perf_counter()
            for query in queries:
                index.query(query, k, recall=target, packed=packed)
            took = time.perf_counter() - start
            fastest[place] = min(fastest[place], took)
            measured += took
    return fastest
