"""Owns the tests of Index.evaluate: its recall is the one that is counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import oracle
import pytest

import annidx

DIM = 20


@pytest.fixture(scope="module", params=["angular", "euclidean", "dot", "hamming"])
def case(request: pytest.FixtureRequest) -> tuple[annidx.Index, npt.NDArray[Any], Any]:
    rng = np.random.default_rng(12)
    if request.param == "hamming":
        vectors = rng.integers(0, 2, (5_060, DIM), dtype=np.uint8)
    else:
        vectors = rng.normal(size=(5_060, DIM)).astype(np.float32)
    index = annidx.Index(DIM, request.param)
    index.add_items(vectors[60:])
    index.build()
    return index, vectors[60:], vectors[:60]


def counted(index: annidx.Index, vectors: Any, queries: Any, k: int, target: float) -> float:
    hits = 0.0
    for query in queries:
        ids, _ = index.query(query, k=k, recall=target)
        found = oracle.distances(query, vectors[ids], index.metric)
        last = oracle.nearest(query, vectors, index.metric, k)[1][-1]
        slack = 1e-6
        good = found >= last - slack if index.metric == "dot" else found <= last + slack
        hits += good.mean()
    return hits / len(queries)


def test_recall_is_what_one_counts(case: tuple[annidx.Index, Any, Any]) -> None:
    index, vectors, queries = case
    table = index.evaluate(queries, k=5, recall=(0.4, 0.9, 1.0))
    assert [row["target"] for row in table] == [0.4, 0.9, 1.0]
    for row in table:
        assert set(row) == {"k", "target", "recall", "microseconds", "candidates"}
        want = counted(index, vectors, queries, 5, row["target"])
        assert row["recall"] == pytest.approx(want, abs=1e-3) and row["k"] == 5
        assert row["microseconds"] > 0
    assert table[2]["recall"] == 1.0 and table[2]["candidates"] == 5_000
    assert 0 < table[0]["candidates"] <= table[1]["candidates"]


def test_candidates_are_those_of_the_curve(case: tuple[annidx.Index, Any, Any]) -> None:
    index, _, queries = case
    if index.metric == "hamming":
        pytest.skip("ties of so few bits need no effort")
    curve = index.tune(k=10)
    (row,) = index.evaluate(queries[:3], recall=curve[-1]["recall"] - 0.05)
    assert row["candidates"] in {point["candidates"] for point in curve}


def test_fewer_items_than_k() -> None:
    index = annidx.Index(3, "euclidean")
    index.add_items(np.eye(3))
    index.build()
    (row,) = index.evaluate(np.eye(3), k=10, recall=0.9)
    assert row["recall"] == 1.0


def test_wrong_answers_are_noticed(case: tuple[annidx.Index, Any, Any]) -> None:
    """With a search that returns other items, recall falls."""
    index, vectors, queries = case
    if index.metric == "hamming":
        pytest.skip("ties of so few bits make the next five as good")

    class Worse(annidx.Index):
        def query(self, *args: Any, **kwargs: Any) -> Any:
            ids, distances = index.query_exact(args[0], 15, packed=kwargs["packed"])
            return ids[5:], distances[5:]

    worse = Worse(DIM, index.metric)
    worse.add_items(vectors)
    worse.build()
    (row,) = worse.evaluate(queries, k=10)[:1]
    assert row["recall"] == pytest.approx(0.5)


def test_bad_arguments(case: tuple[annidx.Index, Any, Any]) -> None:
    index, _, queries = case
    for arguments, message in (
        ({"recall": []}, "recall: expected at least one target, got none"),
        ({"recall": [0.9, 1.5]}, "recall: expected a number above 0 and at most 1, got 1.5"),
        ({"recall": "high"}, "recall: expected a number above 0"),
        ({"k": 0}, "k: expected a whole number"),
        ({"queries": queries[0]}, "queries: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            index.evaluate(**{"queries": queries, **arguments})
    with pytest.raises(annidx.StateError, match="not built"):
        annidx.Index(DIM, "dot").evaluate(queries)
