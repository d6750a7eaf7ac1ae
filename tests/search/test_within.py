"""Owns the tests of answers without a number: all within a radius, and an item first of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import oracle
import pytest

import annidx

Array = npt.NDArray[Any]
DIM = 24
ITEMS = 6_000
COPIES = [40, 900, 901, 5_500]  # of one vector


@pytest.fixture(scope="module", params=oracle.METRICS)
def case(request: pytest.FixtureRequest) -> tuple[annidx.Index, Array]:
    metric = request.param
    rng = np.random.default_rng(8)
    if metric == "hamming":
        centres = rng.integers(0, 2, (60, DIM), dtype=np.uint8)
        vectors = centres[rng.integers(60, size=ITEMS)] ^ (rng.random((ITEMS, DIM)) < 0.1)
    else:
        centres = rng.normal(size=(60, DIM))
        vectors = centres[rng.integers(60, size=ITEMS)] + 0.3 * rng.normal(size=(ITEMS, DIM))
        vectors = vectors.astype(np.float32)
    vectors[COPIES] = vectors[COPIES[0]]
    index = annidx.Index(DIM, metric)
    index.add_items(vectors)
    index.build()
    return index, vectors


def radius_of(query: Array, vectors: Array, metric: str, count: int) -> float:
    """Give a radius that leaves about so many, halfway between two distances."""
    _, found = oracle.nearest(query, vectors, metric, count + 1)
    return float(found[-2:].mean())


@pytest.mark.parametrize("count", [3, 40, 1_500])
def test_all_within_a_radius(case: tuple[annidx.Index, Array], count: int) -> None:
    index, vectors = case
    for query in vectors[[7, 1_234]]:
        radius = radius_of(query, vectors, index.metric, count)
        want, near = oracle.nearest(query, vectors, index.metric, ITEMS, radius=radius)
        for ask in (index.query, index.query_exact):
            ids, distances = ask(query, k=None, radius=radius)
            assert set(ids.tolist()) == set(want.tolist())
            np.testing.assert_allclose(distances, near, rtol=1e-6, atol=1e-6)
        ten, _ = index.query(query, radius=radius, recall=1.0)
        assert ten.tolist() == ids[:10].tolist()


def test_a_batch_is_as_wide_as_its_longest_answer(case: tuple[annidx.Index, Array]) -> None:
    index, vectors = case
    queries = vectors[[7, 1_234, 5_000]]
    radius = radius_of(queries[0], vectors, index.metric, 60)
    alone = [index.query(query, k=None, radius=radius) for query in queries]
    ids, distances = index.query(queries, k=None, radius=radius, n_jobs=2)
    assert ids.shape == distances.shape == (3, max(len(found) for found, _ in alone))
    for row, (want, near) in enumerate(alone):
        assert ids[row, : len(want)].tolist() == want.tolist()
        assert distances[row, : len(want)].tolist() == near.tolist()
        assert (ids[row, len(want) :] == -1).all() and np.isnan(distances[row, len(want) :]).all()


def test_all_within_a_radius_under_filters(case: tuple[annidx.Index, Array]) -> None:
    index, vectors = case
    query = vectors[7]
    radius = radius_of(query, vectors, index.metric, 900)
    whole = index.query(query, k=None, radius=radius)[0].tolist()
    allowed = np.arange(ITEMS) % 3 == 1
    ids, _ = index.query(query, k=None, radius=radius, allow=allowed, deny=[7])
    assert ids.tolist() == [item for item in whole if item % 3 == 1 and item != 7]
    own = [whole[:4], None, whole[2:900:5]]
    ids, _ = index.query(np.stack([query] * 3), k=None, radius=radius, deny=own)
    for row, hidden in enumerate(own):
        want = [item for item in whole if item not in (hidden or ())]
        assert ids[row][ids[row] >= 0].tolist() == want


def test_none_without_a_radius_is_refused(case: tuple[annidx.Index, Array]) -> None:
    index, vectors = case
    for ask, what in ((index.query, vectors[0]), (index.query_exact, vectors[:2])):
        with pytest.raises(ValueError, match="or None together with radius="):
            ask(what, k=None)
    with pytest.raises(ValueError, match="or None together with radius="):
        index.query_items(3, k=None)


def test_an_item_is_the_first_of_its_own(case: tuple[annidx.Index, Array]) -> None:
    index, vectors = case
    for k in (1, 2, 4, 30):
        ids, distances = index.query_items([*COPIES, 17], k, include_self=True, recall=1.0)
        assert ids[:, 0].tolist() == [*COPIES, 17]
        for item, row, far in zip([*COPIES, 17], ids, distances, strict=True):
            others = np.arange(ITEMS) != item
            _want, near = oracle.nearest(vectors[item], vectors, index.metric, k - 1, others)
            own = oracle.distances(vectors[item], vectors[[item]], index.metric)
            np.testing.assert_allclose(far, [*own, *near], rtol=1e-6, atol=1e-6)
            assert item not in row[1:] and len(set(row.tolist())) == k
            copies = min(len(COPIES), k) if item in COPIES and index.metric != "dot" else 1
            assert set(row[:copies].tolist()) <= {*COPIES, item}
        approximate, _ = index.query_items(COPIES[2], k, include_self=True)
        assert approximate[0] == COPIES[2]


def test_an_item_is_first_of_all_within_a_radius(case: tuple[annidx.Index, Array]) -> None:
    index, _vectors = case
    item = COPIES[2]
    own = float(index.query_items(item, 1, include_self=True)[1][0])
    ids, _ = index.query_items(item, None, include_self=True, radius=own)
    if index.metric == "dot":  # whatever has a larger inner product comes behind
        assert set(COPIES) <= set(ids.tolist())
    else:
        assert ids.tolist() == [item, *(copy for copy in COPIES if copy != item)]
    assert ids[0] == item


def test_an_item_that_may_not_be_returned_is_not_first(case: tuple[annidx.Index, Array]) -> None:
    index, _ = case
    ids, _ = index.query_items([900, 17], 5, include_self=True, deny=[900])
    assert 900 not in ids[0] and ids[1, 0] == 17
    beyond = 1e9 if index.metric == "dot" else -1.0
    assert len(index.query_items(17, 5, include_self=True, radius=beyond)[0]) == 0


def test_text_ids() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(300, 8)).astype(np.float32)
    index = annidx.Index(8, "euclidean")
    index.add_items(vectors, ids=[f"n{row}" for row in range(300)])
    index.build()
    radius = radius_of(vectors[5], vectors, "euclidean", 20)
    want = [f"n{row}" for row in oracle.nearest(vectors[5], vectors, "euclidean", 20)[0]]
    assert index.query(vectors[5], k=None, radius=radius)[0].tolist() == want
    ids, distances = index.query(vectors[[5, 6]], k=None, radius=radius)
    assert ids[0].tolist()[:20] == want
    assert [item is None for item in ids[1]] == np.isnan(distances[1]).tolist()
    assert index.query(vectors[:2], k=None, radius=-1)[0].shape == (2, 0)
