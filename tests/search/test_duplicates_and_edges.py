"""Owns the tests at the edges: very few items, many equal ones, ties, odd values of the arguments.

Answers are compared with the brute force of oracle.py. Times are kept by a bound on the number of
leaves and on the size of the file, which degenerate trees would break; no test asserts a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import oracle
import pytest

import annidx

Array = npt.NDArray[Any]
Rng = np.random.Generator

EACH_KIND = pytest.mark.parametrize(("metric", "dtype"), oracle.KINDS)
EACH_METRIC = pytest.mark.parametrize("metric", oracle.METRICS)
DISTANCES = ("angular", "cosine", "euclidean", "manhattan", "hamming")


def build(given: Array, metric: str, dtype: str | None = None, **options: Any) -> annidx.Index:
    """Build an index of these vectors."""
    index = annidx.Index(given.shape[1], metric, dtype)
    index.add_items(given)
    index.build(**options)
    return index


def numbers(random: Rng, count: int, dim: int, metric: str) -> Array:
    """Small whole numbers, which every storage type keeps as they are, and none of them zero."""
    if metric == "hamming":
        return random.integers(0, 2, (count, dim), dtype=np.uint8)
    return random.integers(1, 100, (count, dim)).astype(np.float32)


def kept(index: annidx.Index) -> Array:
    """Return all vectors as the index keeps them."""
    return index.get_vectors(range(len(index)))


# ---- few items ---------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [1, 2, 3])
@EACH_KIND
def test_few_items(rng: Rng, metric: str, dtype: str, items: int, tmp_path: Any) -> None:
    given = numbers(rng, items, 5, metric)
    build(given, metric, dtype).save(tmp_path / "few.annidx")
    annidx.verify(tmp_path / "few.annidx")
    with annidx.load(tmp_path / "few.annidx") as index:
        for k in (1, items, items + 1, 1000):
            for options in ({}, {"recall": 0.01}, {"search_k": 1}, {"recall": 1.0}):
                ids, distances = index.query(given[0], k=k, **options)
                assert len(ids) == len(distances) == min(k, items)
                assert len(set(ids.tolist())) == len(ids)
        neighbours = index.query_items(0, k=9)[0]
        assert sorted(neighbours.tolist()) == list(range(1, items))
        assert index.info()["items"] == items


@EACH_METRIC
def test_one_item_and_its_filters(rng: Rng, metric: str) -> None:
    given = numbers(rng, 1, 9, metric)
    index = build(given, metric)
    assert index.query(given[0], k=3, deny=[0])[0].shape == (0,)
    assert index.query(given[0], k=3, allow=[0])[0].tolist() == [0]
    assert index.query_items(0, k=3, include_self=True)[0].tolist() == [0]
    assert index.query_items([0], k=2)[0].tolist() == [[-1, -1]]
    assert np.isnan(index.query_items([0], k=2)[1]).all()


# ---- many equal vectors ------------------------------------------------------------------------


def check_equal_vectors(metric: str, dtype: str, items: int, **options: Any) -> None:
    """Build from one vector many times over; find the first rows, all of them, and exactly k."""
    dim = 24
    vector = numbers(np.random.default_rng(1), 1, dim, metric)[0]
    index = build(np.broadcast_to(vector, (items, dim)), metric, dtype, **options)
    facts = index.info()
    assert facts["leaves"] <= items // 64 + 16
    assert facts["file_bytes"] <= items * (facts["vector_bytes"] + dim + 64) + 200_000
    for k in (1, 10, 1000):
        ids, distances = index.query(vector, k=k)
        assert ids.tolist() == list(range(k))
        assert len(set(distances.tolist())) == 1
    for other in numbers(np.random.default_rng(2), 5, dim, metric):
        assert index.query(other, k=5)[0].tolist() == [0, 1, 2, 3, 4]
    assert index.query_items(items - 1, k=3)[0].tolist() == [0, 1, 2]
    assert index.query(vector, k=3, deny=[0, 2])[0].tolist() == [1, 3, 4]
    ids, _ = index.query(vector, k=items, radius=float(distances[0]))
    assert ids.tolist() == list(range(items))


@pytest.mark.parametrize(
    ("metric", "dtype"),
    [
        ("euclidean", "float32"),
        ("angular", "int8"),
        ("dot", "float16"),
        ("manhattan", "uint8"),
        ("hamming", "bits"),
    ],
)
def test_a_hundred_thousand_equal_vectors(metric: str, dtype: str) -> None:
    typical = numbers(np.random.default_rng(3), 10, 24, metric)
    check_equal_vectors(metric, dtype, 100_000, queries=typical)


@pytest.mark.slow
@EACH_KIND
def test_a_million_equal_vectors(metric: str, dtype: str) -> None:
    check_equal_vectors(metric, dtype, 1_000_000)


@pytest.mark.parametrize("metric", DISTANCES)
def test_half_of_the_vectors_are_equal(rng: Rng, metric: str) -> None:
    given = numbers(rng, 5_000, 32, metric)
    copies = np.flatnonzero(rng.random(len(given)) < 0.5)
    given[copies] = given[copies[0]]
    index = build(given, metric)
    for k in (1, 10, 2_000):
        assert index.query(given[copies[0]], k=k)[0].tolist() == copies[:k].tolist()
    at = index.query(given[copies[0]], k=1)[1][0]
    within = index.query(given[copies[0]], k=len(given), radius=float(at))[0]
    assert within.tolist() == copies.tolist()
    others = np.setdiff1d(np.arange(len(given)), copies)[:300]
    found = index.query(given[others], k=1, n_jobs=-1)[1][:, 0]
    truth = index.query_exact(given[others], k=1, n_jobs=-1)[1][:, 0]
    assert (found <= truth * (1 + 1e-6)).mean() >= 0.9
    assert index.info()["leaves"] <= 5_000 // 64 + 16


@pytest.mark.parametrize("metric", DISTANCES)
def test_all_copies_of_each_vector_are_found(rng: Rng, metric: str) -> None:
    """150 vectors 40 times each: copies stay together, wherever their leaves were cut."""
    originals = np.unique(numbers(rng, 150, 40, metric), axis=0)
    place = np.repeat(np.arange(len(originals)), 40)[rng.permutation(40 * len(originals))]
    index = build(originals[place], metric, queries=originals[:20])
    for number in range(0, len(originals), 3):
        copies = np.flatnonzero(place == number)
        if metric not in ("angular", "cosine"):  # other vectors may have the same direction
            assert index.query(originals[number], k=40)[0].tolist() == copies.tolist()
        ids = index.query(originals[number], k=1_000, radius=1e-6)[0]
        assert set(copies.tolist()) <= set(ids.tolist())


# ---- ties --------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [500, 9_000])
def test_ties_go_to_the_smaller_row_with_bits(rng: Rng, items: int) -> None:
    """12 bits give thirteen distances only."""
    bits = rng.integers(0, 2, (items, 12), dtype=np.uint8)
    index = build(bits, "hamming", queries=bits[:50])
    for query in rng.integers(0, 2, (20, 12), dtype=np.uint8):
        for k in (1, 10, 300):
            rows, distances = oracle.nearest(query, bits, "hamming", k)
            exact = index.query_exact(query, k=k)
            assert exact[0].tolist() == rows.tolist() and exact[1].tolist() == distances.tolist()
            ids, found = index.query(query, k=k)
            order = np.lexsort((ids, found))
            assert order.tolist() == list(range(k))


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "dot"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_ties_go_to_the_smaller_row_with_whole_numbers(rng: Rng, metric: str, dtype: str) -> None:
    given = rng.integers(-1, 2, (5_000, 18)).astype(dtype)
    index = build(given, metric, dtype, queries=given[:50])
    for query in rng.integers(-1, 2, (10, 18)).astype(np.float32):
        for k in (1, 10, 300):
            rows, distances = oracle.nearest(query, given, metric, k)
            for options in ({"recall": 1.0}, {"search_k": 10**6}):
                ids, found = index.query(query, k=k, **options)
                np.testing.assert_allclose(found, distances, rtol=1e-12)
                assert ids.tolist() == rows.tolist(), options


# ---- zeros, constants, outliers ----------------------------------------------------------------


@pytest.mark.parametrize("metric", ["angular", "cosine", "dot", "euclidean", "manhattan"])
@pytest.mark.parametrize("items", [300, 2_500])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_all_vectors_zero(metric: str, items: int, dtype: str) -> None:
    index = build(np.zeros((items, 20), dtype=np.float32), metric, dtype)
    expected = {"angular": np.sqrt(2.0), "cosine": 1.0}
    for query in (np.zeros(20), np.ones(20), np.eye(20)[3]):
        ids, distances = index.query(query, k=7)
        assert ids.tolist() == [0, 1, 2, 3, 4, 5, 6]
        others = np.abs(query).sum() if metric == "manhattan" else np.sqrt((query**2).sum())
        wanted = expected.get(metric, 0.0 if metric == "dot" else others)
        # A float query of a scaled int8 index may be rounded to float32.
        np.testing.assert_allclose(distances, wanted, rtol=1e-7 if dtype == "int8" else 1e-12)
    assert len(index.query(np.ones(20), k=items + 5)[0]) == items


@pytest.mark.parametrize("metric", ["angular", "cosine"])
@pytest.mark.parametrize("items", [300, 2_500])
def test_zero_vectors_among_others(rng: Rng, metric: str, items: int) -> None:
    given = rng.standard_normal((items, 20)).astype(np.float32)
    zeros = np.flatnonzero(rng.random(items) < 0.2)
    given[zeros] = 0
    index = build(given, metric)
    away = np.sqrt(2.0) if metric == "angular" else 1.0
    ids, distances = index.query(np.zeros(20), k=50)
    assert ids.tolist() == list(range(50))
    np.testing.assert_allclose(distances, away, rtol=1e-12)
    ids, distances = index.query_exact(given[0] + 1, k=items)
    np.testing.assert_allclose(distances[np.isin(ids, zeros)], away, rtol=1e-12)
    item = int(zeros[-1])
    assert index.query_items(item, k=3, include_self=True)[0].tolist() == [item, 0, 1]


@EACH_METRIC
def test_zero_query(rng: Rng, metric: str) -> None:
    given = numbers(rng, 4_000, 20, metric)
    index = build(given, metric, queries=given[:10])
    zero = np.zeros(20, dtype=np.float32)
    rows, distances = oracle.nearest(zero, given, metric, 12)
    ids, found = index.query(zero, k=12, recall=1.0)
    np.testing.assert_allclose(found, distances, rtol=1e-12)
    assert ids.tolist() == rows.tolist()
    assert len(index.query(zero, k=12)[0]) == 12


@EACH_KIND
def test_constant_dimensions(rng: Rng, metric: str, dtype: str) -> None:
    given = numbers(rng, 2_200, 40, metric)
    given[:, 5:] = given[0, 5:]
    index = build(given, metric, dtype)
    base = kept(index)
    hits = 0
    for row in range(0, 2_100, 70):
        last = index.query_exact(base[row], k=10)[1][-1]
        found = index.query(base[row], k=10)[1]
        near = found >= last - 1e-6 * abs(last) if metric == "dot" else found <= last + 1e-6
        hits += int(near.sum())
    assert hits >= 0.9 * 300


@pytest.mark.parametrize("size", [1e4, 1e18, 1e37])
@pytest.mark.parametrize("metric", ["angular", "cosine", "euclidean", "manhattan", "dot"])
def test_one_huge_outlier_spoils_nothing(rng: Rng, metric: str, size: float) -> None:
    given = rng.standard_normal((2_500, 24)).astype(np.float32)
    given[1234] *= np.float32(size)
    index = build(given, metric)
    queries = given[2_000:2_100] + np.float32(0.01)
    found = index.query(queries, k=10)[1]
    truth = index.query_exact(queries, k=10)[1]
    assert np.isfinite(found).all()
    sign = -1.0 if metric == "dot" else 1.0
    last = sign * truth[:, -1:]
    assert (sign * found <= last + 1e-6 * np.abs(last)).mean() >= 0.94
    assert index.query(given[1234], k=1)[0].tolist() == [1234]


# ---- k, filters, radius ------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"recall": 0.5}, {"search_k": 1}, {"recall": 1.0}])
@EACH_METRIC
def test_k_of_all_items_is_a_permutation(rng: Rng, metric: str, options: Any) -> None:
    given = numbers(rng, 5_000, 20, metric)
    index = build(given, metric, queries=given[:10])
    for k in (5_000, 5_001, 7_000):
        ids, distances = index.query(given[17], k=k, **options)
        assert sorted(ids.tolist()) == list(range(5_000))
        order = np.diff(distances) if metric != "dot" else -np.diff(distances)
        assert (order >= 0).all()
        ids, distances = index.query(given[:2], k=k, **options)
        assert ids.shape == (2, k)
        assert (ids[:, 5_000:] == -1).all() and np.isnan(distances[:, 5_000:]).all()
    ids, _ = index.query_items(17, k=6_000, **options)
    assert sorted([*ids.tolist(), 17]) == list(range(5_000))


@EACH_METRIC
def test_allowing_none_one_or_all_but_one(rng: Rng, metric: str) -> None:
    given = numbers(rng, 4_000, 20, metric)
    index = build(given, metric, queries=given[:10])
    base = given.astype(np.float64)
    query = given[5]
    assert index.query(query, k=3, allow=[])[0].shape == (0,)
    assert index.query(query, k=3, allow=np.zeros(4_000, dtype=bool))[0].shape == (0,)
    assert index.query(query, k=3, deny=range(4_000))[0].shape == (0,)
    for only in (0, 3_999):
        ids, distances = index.query(query, k=3, allow=[only])
        assert ids.tolist() == [only]
        np.testing.assert_allclose(
            distances, oracle.distances(query, base, metric)[only], rtol=1e-9, atol=1e-9
        )
    ids, _ = index.query(query, k=4_000, deny=[77])
    assert sorted([*ids.tolist(), 77]) == list(range(4_000))
    assert index.query(query, k=9, allow=[3], deny=[3])[0].shape == (0,)


@pytest.mark.parametrize("items", [400, 5_000])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "hamming"])
def test_radius_zero_finds_all_duplicates(rng: Rng, metric: str, items: int) -> None:
    given = numbers(rng, items, 40, metric)
    copies = np.sort(rng.permutation(items)[:37])
    given[copies] = given[copies[0]]
    index = build(given, metric)
    for options in ({}, {"recall": 0.1}, {"search_k": 1}):
        ids, distances = index.query(given[copies[0]], k=100, radius=0, **options)
        assert ids.tolist() == copies.tolist() and (distances == 0).all()
        ids, _ = index.query_items(int(copies[3]), k=100, radius=0, **options)
        assert ids.tolist() == np.delete(copies, 3).tolist()
    assert index.query(given[copies[0]], k=9, radius=-0.5)[0].shape == (0,)


@pytest.mark.parametrize("items", [400, 5_000])
@EACH_KIND
def test_a_radius_finds_all_within_it(rng: Rng, metric: str, dtype: str, items: int) -> None:
    """However few candidates the search looks at: k is not reached, so it must go on."""
    given = oracle.make_vectors(rng, items, 20, metric, dtype)[0]
    index = build(given, metric, dtype, queries=given[:10])
    for query in given[[0, 3, 9]]:
        distances = np.sort(index.query_exact(query, k=items)[1])
        for rank in (0, 7, 60):
            radius = float(distances[-1 - rank] if metric == "dot" else distances[rank])
            wanted = index.query_exact(query, k=items, radius=radius)
            found = index.query(query, k=items, radius=radius, search_k=1)
            assert found[0].tolist() == wanted[0].tolist()
            assert found[1].tolist() == wanted[1].tolist()
            assert len(wanted[0]) > rank


@EACH_METRIC
def test_a_radius_beyond_all_changes_nothing(rng: Rng, metric: str) -> None:
    given = numbers(rng, 4_000, 20, metric)
    index = build(given, metric, queries=given[:10])
    beyond = -1e300 if metric == "dot" else 1e300
    for radius in (beyond, beyond * np.inf):
        plain = index.query(given[3], k=25)
        within = index.query(given[3], k=25, radius=radius)
        assert plain[0].tolist() == within[0].tolist()
        assert len(index.query(given[3], k=9_999, radius=radius)[0]) == 4_000
