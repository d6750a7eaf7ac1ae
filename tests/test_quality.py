"""Holds the promises about recall, on real data: the word set that comes with the package.

1,000 words are kept out of each index and asked as queries. A hit is an item whose distance is not
above the true k-th distance, so that ties count however they fall.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import annidx
from annidx.demo import load_words

HELD_OUT = 1_000


@dataclass(frozen=True)
class Built:
    """An index and vectors that are not in it."""

    index: annidx.Index
    queries: npt.NDArray[Any]


# Metric and storage; what becomes of the words' vectors is decided in `prepared`.
KINDS = [
    ("angular", "float32"),
    ("angular", "float16"),
    ("angular", "int8"),
    ("cosine", "int8"),
    ("euclidean", "float32"),
    ("euclidean", "uint8"),
    ("manhattan", "float32"),
    ("manhattan", "uint8"),
    ("dot", "float32"),
    ("dot", "int8"),
    ("hamming", "bits"),
]


def prepared(metric: str, dtype: str) -> npt.NDArray[Any]:
    """Return the words' vectors in a form that suits a metric and a storage type."""
    vectors = load_words().vectors
    if metric == "hamming":
        return (vectors > 0).astype(np.uint8)
    if dtype == "uint8":
        return (vectors.astype(np.int16) + 128).astype(np.uint8)
    if metric == "dot":
        # Norms that vary as popularity does.
        norms = np.random.default_rng(6).lognormal(sigma=0.5, size=(len(vectors), 1))
        return (vectors * norms).astype(np.float32)
    return vectors if dtype == "int8" else vectors.astype(np.float32)


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def built(request: pytest.FixtureRequest) -> Built:
    """Build an index of a kind, without the words that are asked."""
    metric, dtype = request.param
    vectors = prepared(metric, dtype)
    held = np.zeros(len(vectors), dtype=bool)
    held[:: len(vectors) // HELD_OUT] = True
    index = annidx.Index(dim=vectors.shape[1], metric=metric, dtype=dtype)
    index.add_items(vectors[~held])
    index.build()
    return Built(index, vectors[held].astype(np.float32))


def recall_of(built: Built, k: int, filters: dict[str, Any] | None = None, **effort: Any) -> float:
    """Measure the share of answers that are as near as the true k nearest."""
    filters = filters or {}
    found = built.index.query(built.queries, k=k, n_jobs=-1, **filters, **effort)[1]
    truth = built.index.query_exact(built.queries, k=k, n_jobs=-1, **filters)[1]
    if built.index.metric == "dot":
        found, truth = -found, -truth
    slack = 1e-6 * np.abs(truth[:, -1:])
    return float((found <= truth[:, -1:] + slack).mean())


@pytest.mark.parametrize("k", [1, 10, 100])
def test_default_target_is_reached(built: Built, k: int) -> None:
    assert recall_of(built, k) >= 0.94


@pytest.mark.parametrize("target", [0.8, 0.9, 0.99])
def test_target_is_reached(built: Built, target: float) -> None:
    assert recall_of(built, 10, recall=target) >= target - 0.01


def test_more_effort_finds_more(built: Built) -> None:
    recalls = [recall_of(built, 10, search_k=effort) for effort in (50, 500, 5_000, 29_000)]
    assert all(more >= less - 0.002 for less, more in zip(recalls, recalls[1:], strict=False))
    assert recalls[-1] >= 0.999


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.001])
def test_filters_cost_no_neighbours(built: Built, share: float) -> None:
    mask = np.random.default_rng(8).random(len(built.index)) < share
    allowed = annidx.IdSet(built.index, mask)
    ids, distances = built.index.query(built.queries, k=10, allow=allowed, n_jobs=-1)
    assert not np.isnan(distances).any()
    assert mask[ids].all()
    assert recall_of(built, 10, {"allow": allowed}) >= 0.92


def test_queries_of_the_users_own_set_the_target(built: Built) -> None:
    half = len(built.queries) // 2
    copied = pickle.loads(pickle.dumps(built.index))
    points = copied.tune(built.queries[:half], k=10)
    assert points == sorted(points, key=lambda point: point["recall"])
    rest = Built(copied, built.queries[half:])
    assert recall_of(rest, 10, recall=0.95) >= 0.93
