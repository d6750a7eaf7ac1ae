"""Owns the tests of query_like, against means and marginal relevance written out in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import oracle
import pytest

import annidx

Array = npt.NDArray[Any]
DIM = 16
ITEMS = 3_000


def make(metric: str) -> tuple[annidx.Index, Array]:
    rng = np.random.default_rng(21)
    if metric == "hamming":
        vectors = rng.integers(0, 2, (ITEMS, DIM), dtype=np.uint8)
    else:
        vectors = (rng.normal(size=(ITEMS, DIM)) + 0.5).astype(np.float32)
    index = annidx.Index(DIM, metric)
    index.add_items(vectors)
    index.build()
    return index, vectors


@pytest.fixture(scope="module", params=oracle.METRICS)
def case(request: pytest.FixtureRequest) -> tuple[annidx.Index, Array]:
    return make(request.param)


@pytest.fixture(scope="module")
def euclidean() -> tuple[annidx.Index, Array]:
    return make("euclidean")


def mean_of(vectors: Array, weights: Array, metric: str) -> Array:
    total = np.zeros(DIM)
    for vector, weight in zip(vectors.astype(float), weights, strict=True):
        if metric in ("angular", "cosine"):
            vector = vector / np.linalg.norm(vector)
        total += weight * vector
    return total / np.sum(weights)


def blend_of(
    metric: str, liked: Array, unliked: Array, liked_weights: Array, unliked_weights: Array
) -> Array:
    query = mean_of(liked, liked_weights, metric)
    if len(unliked):
        push = min(1.0, np.sum(unliked_weights) / np.sum(liked_weights))
        query = query + push * (query - mean_of(unliked, unliked_weights, metric))
    if metric == "hamming":
        heaviest = liked[int(np.argmax(liked_weights))]
        return np.where(np.isclose(query, 0.5), heaviest, query > 0.5).astype(np.uint8)
    return query.astype(np.float32)


def similarity(metric: str, one: Array, other: Array) -> float:
    distance = float(oracle.distances(one, other[np.newaxis], metric)[0])
    if metric == "dot":
        return distance
    return 1 - distance**2 / 2 if metric == "angular" else 1 - distance


def marginal(
    metric: str, query: Array, pool: Array, vectors: Array, k: int, diversity: float
) -> list[int]:
    """Maximal marginal relevance, as the paper has it."""
    left, chosen = pool.tolist(), []
    while left and len(chosen) < k:
        scores = [
            (1 - diversity) * similarity(metric, query, vectors[item])
            - diversity
            * max((similarity(metric, vectors[item], vectors[one]) for one in chosen), default=0)
            for item in left
        ]
        chosen.append(left.pop(int(np.argmax(scores))))
    return chosen


WAYS: list[dict[str, Any]] = [
    {"positive": [5]},
    {"positive": [5, 80, 7]},
    {"positive": [5, 80, 7], "weights": [3, 0.5, 1]},
    {"positive": [5, 80, 7], "negative": [100, 9]},
    {"positive": [5], "negative": [100, 9, 12], "weights": [2, 0.5, 0, 1]},
    {"positive": [5, 6], "negative": [100], "weights": [1, 2]},
]


@pytest.mark.parametrize("way", WAYS, ids=range(len(WAYS)))
def test_the_mean_is_asked(case: tuple[annidx.Index, Array], way: dict[str, Any]) -> None:
    index, vectors = case
    liked, unliked = way["positive"], way.get("negative", [])
    weights = np.array(way.get("weights", [1] * len(liked)), dtype=float)
    weights = np.append(weights, np.ones(len(liked) + len(unliked) - len(weights)))
    query = blend_of(
        index.metric,
        vectors[liked],
        vectors[unliked],
        weights[: len(liked)],
        weights[len(liked) :],
    )
    allowed = ~np.isin(np.arange(ITEMS), liked + unliked)
    want, near = oracle.nearest(query, vectors, index.metric, 30, allowed)
    ids, distances = index.query_like(**way, k=30, recall=1.0)
    np.testing.assert_allclose(distances, near, rtol=1e-5, atol=1e-5)
    assert not set(ids.tolist()) & {*liked, *unliked}
    if index.metric not in ("hamming",):  # many ties, whose order is that of the rows
        assert len(set(ids.tolist()) & set(want.tolist())) >= 29
    # The same examples as vectors: nothing is left out.
    given = {**way, "positive": vectors[liked]}
    if unliked:
        given["negative"] = vectors[unliked]
    _, distances = index.query_like(**given, k=30, recall=1.0)
    near = oracle.nearest(query, vectors, index.metric, 30)[1]
    np.testing.assert_allclose(distances, near, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("diversity", [0.3, 0.8, 1.0])
def test_diversity_is_marginal_relevance(
    case: tuple[annidx.Index, Array], diversity: float
) -> None:
    index, vectors = case
    liked = [5, 80, 7]
    query = blend_of(index.metric, vectors[liked], vectors[[]], np.ones(3), np.ones(0))
    allowed = ~np.isin(np.arange(ITEMS), liked)
    pool, _ = oracle.nearest(query, vectors, index.metric, 60, allowed)
    want = marginal(index.metric, query, pool, vectors, 12, diversity)
    ids, distances = index.query_like(liked, k=12, diversity=diversity, recall=1.0)
    assert ids.tolist() == want
    np.testing.assert_allclose(
        distances, oracle.distances(query, vectors[ids], index.metric), rtol=1e-5, atol=1e-5
    )


def test_more_diversity_gives_less_alike_items(case: tuple[annidx.Index, Array]) -> None:
    index, vectors = case

    def spread(diversity: float) -> float:
        ids, _ = index.query_like([5, 80], k=10, diversity=diversity)
        pairs = [
            similarity(index.metric, vectors[one], vectors[two])
            for place, one in enumerate(ids)
            for two in ids[:place]
        ]
        return float(np.mean(pairs))

    assert spread(0.9) < spread(0.0)


def test_filters_and_few_items(euclidean: tuple[annidx.Index, Array]) -> None:
    index, _ = euclidean
    few = [5, 80, 7, 33, 21]
    for diversity in (0, 0.5):
        ids, _ = index.query_like([5, 80], k=20, diversity=diversity, allow=few)
        assert sorted(ids.tolist()) == [7, 21, 33]
        ids, _ = index.query_like([5, 80], k=20, diversity=diversity, allow=few, deny=[7])
        assert sorted(ids.tolist()) == [21, 33]
        assert len(index.query_like(5, k=20, diversity=diversity, allow=[5])[0]) == 0
    mask = np.arange(ITEMS) % 2 == 0
    ids, _ = index.query_like(5, k=20, deny=mask)
    assert (ids % 2 == 1).all() and 5 not in ids
    assert len(index.query_like([5, 6], k=ITEMS)[0]) == ITEMS - 2


def test_unknown_ids(euclidean: tuple[annidx.Index, Array]) -> None:
    index, _ = euclidean
    for way in ({"positive": [5, -3]}, {"positive": [5], "negative": np.array([-3])}):
        with pytest.raises(KeyError, match="-3"):
            index.query_like(**way)
        ids, _ = index.query_like(**way, missing="skip")
        assert ids.tolist() == index.query_like(5)[0].tolist()
    ids, _ = index.query_like([9, -3, 5], weights=[1, 7, 2], missing="skip")
    assert ids.tolist() == index.query_like([9, 5], weights=[1, 2])[0].tolist()
    with pytest.raises(ValueError, match="positive: expected at least one of a weight above 0"):
        index.query_like([-3], missing="skip")


def test_text_ids() -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    index = annidx.Index(8, "cosine")
    index.add_items(vectors, ids=[f"n{row}" for row in range(200)])
    index.build()
    ids, _ = index.query_like("n3", ["n4"], k=5, diversity=0.4)
    assert len(ids) == 5 and not {"n3", "n4"} & set(ids.tolist())
    alike, _ = index.query_like(vectors[3], k=1)
    assert alike.tolist() == ["n3"]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"positive": []}, "positive: expected at least one id or vector, got none"),
    ({"positive": [1], "diversity": 1.5}, "diversity: expected a number from 0 to 1, got 1.5"),
    ({"positive": [1], "diversity": None}, "diversity: expected a number from 0 to 1, got None"),
    ({"positive": [1], "k": 0}, "k: expected a whole number from 1"),
    ({"positive": [1], "missing": "drop"}, 'missing: expected one of "raise", "skip"'),
    ({"positive": [1, 2], "weights": [1]}, "weights: expected one for each of 2 positives"),
    ({"positive": [1, 2], "weights": [1, -1]}, "weights: expected finite numbers of 0 or more"),
    ({"positive": [1], "weights": [0]}, "positive: expected at least one of a weight above 0"),
    ({"positive": [0.5, 1.0]}, r"positive: expected shape \(16,\) or"),
    ({"positive": np.full(DIM, np.nan)}, "positive: row 0 holds nan"),
    ({"positive": [1], "negative": 1.5}, "negative: expected a list or array of ids"),
    ({"positive": None}, "positive: expected a list or array of ids"),
]


@pytest.mark.parametrize(("way", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_arguments(
    euclidean: tuple[annidx.Index, Array], way: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        euclidean[0].query_like(**way)


def test_opposite_directions_are_an_error() -> None:
    index = annidx.Index(3, "angular")
    index.add_items([[1, 2, 3], [-2, -4, -6], [1, 0, 0]])
    index.build()
    with pytest.raises(ValueError, match="cancel each other out"):
        index.query_like([0, 1])
    assert index.query_like([0, 2])[0].tolist() == [1]


# ---- missing= of items ---------------------------------------------------------------------


def test_unknown_items_have_no_neighbours(case: tuple[annidx.Index, Array]) -> None:
    index, _ = case
    asked = [4, -1, 9, 10**9]
    with pytest.raises(KeyError, match="-1"):
        index.query_items(asked)
    want, near = index.query_items([4, 9], k=7)
    ids, distances = index.query_items(asked, k=7, missing="skip")
    assert ids.shape == (4, 7)
    assert ids[[0, 2]].tolist() == want.tolist()
    assert (ids[[1, 3]] == -1).all() and np.isnan(distances[[1, 3]]).all()
    np.testing.assert_array_equal(distances[[0, 2]], near)
    ids, _ = index.query_items(asked, k=7, missing="skip", deny=[[], [1], want[1], None])
    assert not set(ids[2].tolist()) & set(want[1].tolist())
    assert [len(found) for found in index.query_items(-5, missing="skip")] == [0, 0]
    assert index.query_items(4, missing="skip")[0].tolist() == index.query_items(4)[0].tolist()


def test_unknown_items_within_a_radius(euclidean: tuple[annidx.Index, Array]) -> None:
    index, _ = euclidean
    widest = index.query_items(0, None, radius=6.0)[0]
    ids, _ = index.query_items([-7, 2_999], None, radius=0.0, include_self=True, missing="skip")
    assert len(widest) > 1 and ids.tolist() == [[-1], [2_999]]


def test_vectors_of_unknown_items_are_left_out(case: tuple[annidx.Index, Array]) -> None:
    index, vectors = case
    got = index.get_vectors([4, -1, 9], missing="skip")
    np.testing.assert_array_equal(got, vectors[[4, 9]])
    assert index.get_vectors([-1], missing="skip").shape == (0, DIM)
    for ids in (-1, [4, -1]):
        with pytest.raises(KeyError, match="-1"):
            index.get_vectors(ids)
    with pytest.raises(ValueError, match='missing: expected one of "raise", "skip"'):
        index.get_vectors([4], missing="ignore")
    with pytest.raises(ValueError, match='missing: expected one of "raise", "skip"'):
        index.query_items(4, missing=None)
