"""Tests the table of distances in docs/coming-from.md against the libraries that are installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import annidx

DIM, COUNT, K = 16, 400, 5
RNG = np.random.default_rng(6)
VECTORS = RNG.normal(size=(COUNT, DIM)).astype(np.float32)
QUERIES = VECTORS[:4] + 0.3 * RNG.normal(size=(4, DIM)).astype(np.float32)

Array = Any


def ours(metric: str) -> Array:
    index = annidx.Index(DIM, metric)
    index.add_items(VECTORS)
    index.build(n_jobs=1)
    return index.query(QUERIES, k=K, recall=1.0)[1]


def alike(theirs: Array, expected: Array) -> None:
    np.testing.assert_allclose(theirs, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["METRIC_L2", "METRIC_INNER_PRODUCT"])
def test_faiss(name: str) -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlat(DIM, getattr(faiss, name))
    index.add(VECTORS)
    theirs = index.search(QUERIES, K)[0]
    alike(theirs, ours("euclidean") ** 2 if name == "METRIC_L2" else ours("dot"))


def test_faiss_binary() -> None:
    faiss = pytest.importorskip("faiss")
    packed = np.packbits(VECTORS > 0, axis=1)
    theirs = faiss.IndexBinaryFlat(DIM)
    theirs.add(packed)
    index = annidx.Index(DIM, "hamming")
    index.add_items(packed, packed=True)
    index.build(n_jobs=1)
    found = index.query(packed[:4], k=K, packed=True, recall=1.0)[1]
    alike(theirs.search(packed[:4], K)[0], found)


@pytest.mark.parametrize("space", ["l2", "cosine", "ip"])
def test_hnswlib(space: str) -> None:
    hnswlib = pytest.importorskip("hnswlib")
    index = hnswlib.Index(space, DIM)
    index.init_index(COUNT, ef_construction=200, M=16)
    index.add_items(VECTORS)
    index.set_ef(COUNT)
    alike(index.knn_query(QUERIES, K)[1], converted(space))


@pytest.mark.parametrize(
    ("space", "short"), [("Euclidean", "l2"), ("Cosine", "cosine"), ("InnerProduct", "ip")]
)
def test_voyager(space: str, short: str) -> None:
    voyager = pytest.importorskip("voyager")
    index = voyager.Index(getattr(voyager.Space, space), num_dimensions=DIM)
    index.add_items(VECTORS)
    alike(index.query(QUERIES, K, query_ef=COUNT)[1], converted(short))


@pytest.mark.parametrize(("metric", "short"), [("l2sq", "l2"), ("cos", "cosine"), ("ip", "ip")])
def test_usearch(metric: str, short: str) -> None:
    usearch = pytest.importorskip("usearch.index")
    index = usearch.Index(ndim=DIM, metric=metric, dtype="f32")
    index.add(np.arange(COUNT), VECTORS)
    alike(index.search(QUERIES, K, exact=True).distances, converted(short))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_scikit_learn(metric: str) -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    index = neighbors.NearestNeighbors(n_neighbors=K, metric=metric).fit(VECTORS)
    alike(index.kneighbors(QUERIES)[0], ours(metric))


@pytest.mark.slow  # it compiles for minutes
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_pynndescent(metric: str) -> None:
    pynndescent = pytest.importorskip("pynndescent")
    index = pynndescent.NNDescent(VECTORS, metric=metric, random_state=1)
    alike(index.query(QUERIES, K, epsilon=0.5)[1], ours(metric))


def converted(space: str) -> Array:
    """Give annidx's distances in the way of hnswlib and its kin."""
    if space == "l2":
        return ours("euclidean") ** 2
    return ours("cosine") if space == "cosine" else 1 - ours("dot")
