"""Owns the map: where a sample of the items, and any vector beside them, lies in the plane.

It must not know an index: it gets vectors and the name of their metric.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["METHODS", "Projection", "sample_rows"]

_Matrix = npt.NDArray[np.float32]

# Items on the map, and the values of their vectors together: drawing and axes stay quick.
_MOST_POINTS = 5_000
_MOST_VALUES = 32 << 20
_SEED = 20_260
# Rounds of subspace iteration: the first axes of real data stand apart after a few.
_ROUNDS = 12
_AXES = 3
_SPARE_AXES = 5
# Neighbours on the map that give a vector its place where the map is no linear one.
_ANCHORS = 3


def _methods() -> tuple[str, ...]:
    return ("axes", "umap") if importlib.util.find_spec("umap") else ("axes",)


METHODS = _methods()


def sample_rows(count: int, dim: int) -> npt.NDArray[np.int64]:
    """Choose the rows that are drawn: all of a small file, the same sample at each call.

    Parameters
    ----------
    count, dim : int
        Items of the file and values of a vector.

    Returns
    -------
    ndarray
        int64, ascending.
    """
    most = max(2, min(_MOST_POINTS, _MOST_VALUES // dim))
    if count <= most:
        return np.arange(count)
    chosen = np.random.default_rng(_SEED).choice(count, most, replace=False)
    return np.sort(chosen).astype(np.int64)


class Projection:
    """A map of vectors.

    Parameters
    ----------
    vectors : ndarray
        (n, dim) vectors of the sample.
    metric : str
        Their metric: under angular and cosine only directions count.
    method : {"axes", "umap"}
        Two principal axes, or UMAP (needs umap-learn; takes seconds to minutes).

    Attributes
    ----------
    places : ndarray
        float32 (n, 2); all but outliers lie in [-1, 1].
    shades : ndarray
        float32 (n,), 0..1: rank along the third principal axis, for colours.

    Raises
    ------
    ValueError
        The method is unknown, or not installed.
    """

    def __init__(self, vectors: npt.NDArray[Any], metric: str, method: str) -> None:
        if method not in METHODS:
            raise ValueError(f"map: expected one of {', '.join(METHODS)}, found {method!r}")
        self._directions = metric in ("angular", "cosine")
        points = self._prepared(vectors)
        self._mean: _Matrix = points.mean(axis=0)
        points -= self._mean
        self._axes = _principal_axes(points)
        along = points @ self._axes
        self.shades = _ranks(along[:, 2])
        self._anchors: _Matrix | None = None
        flat: _Matrix = along[:, :2]
        if method == "umap":
            flat = _umap(points)
            self._anchors = points
        self._middle, self._half = _frame(flat)
        self.places: _Matrix = ((flat - self._middle) / self._half).astype(np.float32)

    def place(self, vectors: npt.NDArray[Any]) -> _Matrix:
        """Return the places of any vectors, float32 (m, 2)."""
        points = self._prepared(vectors) - self._mean
        if self._anchors is None:
            flat = (points @ self._axes[:, :2] - self._middle) / self._half
            return flat.astype(np.float32)
        return np.stack([self._beside_anchors(point) for point in points])

    def _beside_anchors(self, point: _Matrix) -> _Matrix:
        assert self._anchors is not None
        far = np.linalg.norm(self._anchors - point, axis=1)
        near = np.argsort(far, kind="stable")[:_ANCHORS]
        weights = 1 / (far[near] + 1e-6 * (1 + far[near].max()))
        placed = (weights[:, None] * self.places[near]).sum(axis=0) / weights.sum()
        return np.asarray(placed, dtype=np.float32)

    def _prepared(self, vectors: npt.NDArray[Any]) -> _Matrix:
        points = np.array(vectors, dtype=np.float32)
        if self._directions:
            largest = np.abs(points).max(axis=1, keepdims=True)
            points /= np.where(largest > 0, largest, 1)  # squares of huge values would overflow
            lengths = np.linalg.norm(points, axis=1, keepdims=True)
            points /= np.where(lengths > 0, lengths, 1)
        return points


def _principal_axes(points: _Matrix) -> _Matrix:
    """Find the first axes, (dim, 3), by subspace iteration: any dimension, any number of points."""
    dim = points.shape[1]
    scale = float(np.abs(points).max(initial=0.0)) or 1.0  # huge values must not overflow
    width = min(dim, _AXES + _SPARE_AXES)
    basis = np.random.default_rng(_SEED).standard_normal((dim, width)).astype(np.float32)
    scaled = points / scale
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(scaled.T @ (scaled @ basis))[0].astype(np.float32)
    _, _, turn = np.linalg.svd(scaled @ basis, full_matrices=False)
    axes = np.zeros((dim, _AXES), dtype=np.float32)
    found = (basis @ turn.T)[:, :_AXES]
    # The side an axis points to is chance: its largest part shall be positive.
    largest = np.abs(found).argmax(axis=0)
    signs = np.sign(found[largest, np.arange(found.shape[1])])
    axes[:, : found.shape[1]] = found * np.where(signs == 0, 1, signs)
    return axes


def _ranks(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return (order / max(1, len(values) - 1)).astype(np.float32)


def _frame(flat: _Matrix) -> tuple[_Matrix, np.float32]:
    """Tell the middle and half the width of where nearly all points lie."""
    low, high = np.percentile(flat, (1, 99), axis=0)
    half = float((high - low).max()) / 2 or 1.0
    return ((low + high) / 2).astype(np.float32), np.float32(half)


def _umap(points: _Matrix) -> _Matrix:
    import umap

    neighbours = max(2, min(15, len(points) - 1))
    if len(points) <= neighbours + 1:  # too few for it
        return points @ _principal_axes(points)[:, :2]
    made = umap.UMAP(n_components=2, n_neighbors=neighbours, random_state=_SEED)
    return np.asarray(made.fit_transform(points), dtype=np.float32)
