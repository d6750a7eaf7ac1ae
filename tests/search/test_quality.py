"""Holds the promises about recall, on real data: the word set that comes with the package.

1,000 words are kept out of each index and asked as queries. A hit is an item whose distance is not
above the true k-th distance, so that ties count however they fall.
"""

from __future__ import annotations

import itertools
import pickle
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import annidx
from annidx.demo import load_words

HELD_OUT = 1_000


# What 1,000 queries leave to chance: with k = 1 each is one yes or no.
CHANCE = {1: 0.02, 10: 0.01, 100: 0.01}
MOST = max(CHANCE)


@dataclass(frozen=True)
class Built:
    """An index, vectors that are not in it, and the distances of their true neighbours."""

    index: annidx.Index
    queries: npt.NDArray[Any]
    truth: npt.NDArray[np.float64]

    def recall(self, k: int, **effort: Any) -> float:
        """Measure the share of answers that are as near as the true k nearest."""
        found = self.index.query(self.queries, k=k, n_jobs=-1, **effort)[1]
        return share_found(self.index, found, self.truth[:, :k])

    def half(self, second: bool) -> Built:
        """Keep half of the queries."""
        part = slice(int(second), None, 2)
        return Built(self.index, self.queries[part], self.truth[part])


def share_found(
    index: annidx.Index, found: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]
) -> float:
    """Count the distances that are not beyond the last of the true ones."""
    sign = -1.0 if index.metric == "dot" else 1.0
    last = sign * truth[:, -1:]
    return float((sign * found <= last + 1e-6 * np.abs(last)).mean())


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
    queries = vectors[held].astype(np.float32)
    return Built(index, queries, index.query_exact(queries, k=MOST, n_jobs=-1)[1])


@pytest.mark.parametrize("k", CHANCE)
def test_default_target_is_reached(built: Built, k: int) -> None:
    assert built.recall(k) >= 0.95 - CHANCE[k]


@pytest.mark.parametrize("target", [0.8, 0.9, 0.99])
def test_target_is_reached(built: Built, target: float) -> None:
    assert built.recall(10, recall=target) >= target - CHANCE[10]


def test_more_effort_finds_more(built: Built) -> None:
    recalls = [built.recall(10, search_k=effort) for effort in (50, 500, 5_000, 29_000)]
    assert all(more >= less - 0.002 for less, more in itertools.pairwise(recalls))
    assert recalls[-1] >= 0.999


@pytest.mark.parametrize("share", [0.5, 0.05, 0.01])
def test_filters_cost_no_neighbours(built: Built, share: float) -> None:
    mask = np.random.default_rng(8).random(len(built.index)) < share
    allowed = annidx.IdSet(built.index, mask)
    queries = built.queries[:300]
    ids, found = built.index.query(queries, k=10, allow=allowed, n_jobs=-1)
    assert not np.isnan(found).any()
    assert mask[ids].all()
    truth = built.index.query_exact(queries, k=10, allow=allowed, n_jobs=-1)[1]
    assert share_found(built.index, found, truth) >= 0.92


def test_queries_of_the_users_own_set_the_target(built: Built) -> None:
    copied = pickle.loads(pickle.dumps(built.index))
    points = copied.tune(built.half(False).queries, k=10)
    assert points == sorted(points, key=lambda point: point["recall"])
    rest = replace(built.half(True), index=copied)
    assert rest.recall(10, recall=0.95) >= 0.93
