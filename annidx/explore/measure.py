"""Owns the live measurement: recall against microseconds, with points beside its items."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import annidx

__all__ = ["Stopwatch"]

# Seconds that the exact answers may take; fewer queries are measured where they are slow.
_EXACT_BUDGET = 3.0
_ROUNDS = 3
# Neighbours of an item that make a query of it: its ranks.
_PARTNERS = (5, 9)
_SEED = 11


class Stopwatch:
    """Measures an index with points beside its items, whose true neighbours it finds once.

    Parameters
    ----------
    index : Index
        A built index; it is kept open.
    ids : sequence of ids
        Items to make queries of, in any order.
    k : int
        Neighbours a query asks for.

    Notes
    -----
    A query lies on the other side of an item's neighbours, seen from the item: near the data, and
    none of it, so that no list of neighbours was made for it. One query a call, on one thread.
    """

    def __init__(self, index: annidx.Index, ids: Sequence[Any], k: int) -> None:
        self._index = index
        self._k = min(k, len(index))
        self._sign = -1.0 if index.metric == "dot" else 1.0
        points = _beside(index, ids)
        start = time.perf_counter()
        bounds = [self._truth(points[0])]
        first_took = time.perf_counter() - start
        most = max(1, int(_EXACT_BUDGET / max(first_took, 1e-9)))
        self._points = points[:most]
        bounds += [self._truth(point) for point in self._points[1:]]
        self._bounds = bounds
        self.exact_seconds = (time.perf_counter() - start) / len(bounds)

    @property
    def queries(self) -> int:
        """How many queries are asked."""
        return len(self._points)

    def _truth(self, point: npt.NDArray[Any]) -> float:
        """Tell how far the last of the true neighbours is, smaller being nearer."""
        return self._sign * float(self._index.query_exact(point, k=self._k)[1][-1])

    def measure(self, target: float) -> dict[str, float]:
        """Ask all queries for a target recall.

        Returns
        -------
        dict
            "target"; "recall" that was reached, 0..1, equal distances counting as found;
            "microseconds" of the median query, best of three rounds.
        """
        hits = 0
        for point, bound in zip(self._points, self._bounds, strict=True):
            found = self._index.query(point, k=self._k, recall=target)[1]
            hits += int(np.count_nonzero(self._sign * found <= bound + 1e-6 * abs(bound)))
        medians = [self._median_seconds(target) for _ in range(_ROUNDS)]
        return {
            "target": target,
            "recall": hits / (len(self._points) * self._k),
            "microseconds": min(medians) * 1e6,
        }

    def _median_seconds(self, target: float) -> float:
        ask, k = self._index.query, self._k
        took = []
        for point in self._points:
            start = time.perf_counter()
            ask(point, k=k, recall=target)
            took.append(time.perf_counter() - start)
        return float(np.median(took))


def _beside(index: annidx.Index, ids: Sequence[Any]) -> npt.NDArray[Any]:
    """Return a point for each item: two of its neighbours less itself; of bits a mixture."""
    ones = index.get_vectors(list(ids))
    if len(index) <= max(_PARTNERS):
        return ones
    near = index.query_items(list(ids), k=max(_PARTNERS))[0]
    first, second = (index.get_vectors(near[:, rank - 1].tolist()) for rank in _PARTNERS)
    if index.metric == "hamming":
        mine = np.random.default_rng(_SEED).random(ones.shape) < 0.5
        return np.where(mine, first, second)
    if index.metric in ("angular", "cosine"):
        ones, first, second = (_unit(vectors) for vectors in (ones, first, second))
    return np.asarray(first + second - ones)


def _unit(vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))
