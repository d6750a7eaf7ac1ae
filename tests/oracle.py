"""Owns the truth that tests compare with: brute force in NumPy for every metric and storage type.

Written from the meaning in README and docs alone, in float64; it must not import annidx.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

METRICS = ("angular", "cosine", "euclidean", "manhattan", "dot", "hamming")
STORAGES: dict[str, tuple[str, ...]] = {
    "angular": ("float32", "float16", "int8"),
    "cosine": ("float32", "float16", "int8"),
    "euclidean": ("float32", "float16", "int8", "uint8"),
    "manhattan": ("float32", "float16", "int8", "uint8"),
    "dot": ("float32", "float16", "int8"),
    "hamming": ("bits",),
}
# Every metric with every type it can be stored as.
KINDS = [(metric, dtype) for metric in METRICS for dtype in STORAGES[metric]]


def _cosines(query: Array, base: Array) -> Array:
    norms = np.sqrt((base * base).sum(axis=1)) * np.sqrt((query * query).sum())
    products = base @ query
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0).clip(-1, 1)


def distances(query: Array, base: Array, metric: str) -> npt.NDArray[np.float64]:
    """Distances from one query to each row, as annidx returns them."""
    query = np.asarray(query, dtype=np.float64)
    base = np.asarray(base, dtype=np.float64)
    if metric == "angular":
        return np.sqrt(2 - 2 * _cosines(query, base))
    if metric == "cosine":
        return 1 - _cosines(query, base)
    if metric == "euclidean":
        return np.sqrt(((base - query) ** 2).sum(axis=1))
    if metric == "manhattan":
        return np.abs(base - query).sum(axis=1)
    if metric == "dot":
        return base @ query
    if metric == "hamming":
        return (base != query).sum(axis=1).astype(np.float64)
    raise ValueError(metric)


def nearest(
    query: Array,
    base: Array,
    metric: str,
    k: int,
    eligible: Array | None = None,
    radius: float | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Rows and distances of the k nearest: nearest first, ties by smaller row."""
    found = distances(query, base, metric)
    order = np.lexsort((np.arange(len(base)), -found if metric == "dot" else found))
    if eligible is not None:
        order = order[np.asarray(eligible, dtype=bool)[order]]
    if radius is not None:
        inside = found >= radius if metric == "dot" else found <= radius
        order = order[inside[order]]
    return order[:k].astype(np.int64), found[order[:k]]


def tolerance(metric: str, base: Array, query: Array) -> float:
    """How far a distance may be off: rounding of float64 sums, and of the root near zero."""
    if metric == "angular":
        return 1e-7
    if metric == "cosine":
        return 1e-13
    largest = max(float(np.abs(base).max(initial=0)), float(np.abs(query).max(initial=0)))
    scale = largest * largest if metric == "dot" else largest
    return 1e-13 * base.shape[1] * scale


def check_answer(
    rows: Array,
    found: Array,
    query: Array,
    base: Array,
    metric: str,
    k: int,
    eligible: Array | None = None,
    radius: float | None = None,
    exact_order: bool = False,
) -> None:
    """Assert that an answer is exact: the right distances, of the rows that it names.

    Rows whose distances differ by rounding only may change places, unless `exact_order` says that
    the arithmetic is exact: then the rows must be the oracle's own.
    """
    want_rows, want = nearest(query, base, metric, k, eligible, radius)
    slack = tolerance(metric, base, query)
    assert len(rows) == len(found)
    assert found.dtype == np.float64
    if exact_order or radius is None:
        assert len(rows) == len(want_rows)
    np.testing.assert_allclose(found, want[: len(found)], rtol=1e-9, atol=slack)
    truth = distances(query, base, metric)[rows]
    np.testing.assert_allclose(found, truth, rtol=1e-9, atol=slack)
    assert len(set(rows.tolist())) == len(rows)
    if eligible is not None:
        assert np.asarray(eligible)[rows].all()
    if exact_order:
        assert rows.tolist() == want_rows.tolist()


def make_vectors(
    rng: np.random.Generator, count: int, dim: int, metric: str, dtype: str
) -> tuple[Array, Array]:
    """Vectors as a caller would give them, and as float64 of what the index must keep.

    Among them are zero vectors and duplicates.
    """
    given: Array
    if dtype == "bits":
        given = rng.integers(0, 2, (count, dim), dtype=np.uint8)
    elif dtype == "int8":
        given = rng.integers(-128, 128, (count, dim), dtype=np.int8)
    elif dtype == "uint8":
        given = rng.integers(0, 256, (count, dim), dtype=np.uint8)
    else:
        given = rng.standard_normal((count, dim)).astype(dtype)
    if count > 8:
        given[3] = 0
        given[5] = given[2]
        given[count - 1] = given[2]
    return given, given.astype(np.float64)
