"""Owns the tests of `annidx.AnnoyIndex` beside Annoy: what a program that uses Annoy relies on.

They run against both packages where `annoy` is installed, so that they say what Annoy does and not
what we think it does.
"""

from __future__ import annotations

import array
import copy
import gc
import itertools
import os
import pickle
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from annoy_suite import (
    EVERYTHING,
    GOLDEN,
    Array,
    built,
    distance,
    filled,
    raises,
    resident_bytes,
    vectors,
)

import annidx
import annidx.annoy

# ---- beside Annoy ----------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["angular", "euclidean", "dot"])
def test_finds_no_less_in_a_file_no_larger(metric: str) -> None:
    """For the same trees and search_k, on clustered vectors."""
    theirs = pytest.importorskip("annoy")
    source = np.random.default_rng(5)
    centres = source.normal(size=(200, 100))
    rows = centres[source.integers(200, size=20_100)] + source.normal(size=(20_100, 100))
    rows, queries = rows[:-100], rows[-100:]
    exact = annidx.Index(100, metric)
    exact.add_items(rows)
    exact.build(recall=None)
    truth = exact.query_exact(queries, k=10)[0]
    sizes, found = [], []
    for package in (theirs, annidx.annoy):
        index = built(package, metric, rows)
        index.save("index.ann")
        sizes.append(os.path.getsize("index.ann"))
        found.append(
            [
                sum(
                    len(set(index.get_nns_by_vector(query, 10, search_k)) & set(near))
                    for query, near in zip(queries, truth.tolist(), strict=True)
                )
                for search_k in (200, 1_000, 5_000, 19_000)
            ]
        )
    assert all(ours >= annoys for annoys, ours in zip(*found, strict=True))
    assert sizes[1] <= sizes[0]


# ---- making one ------------------------------------------------------------------------------


def test_construction(package: ModuleType, metric: str) -> None:
    index = package.AnnoyIndex(7, metric)
    assert index.f == 7
    assert package.AnnoyIndex(f=3, metric=metric).f == 3
    assert (index.get_n_items(), index.get_n_trees()) == (0, 0)
    assert type(index.get_n_items()) is int and type(index.get_n_trees()) is int


def test_omitted_metric_is_angular_with_a_warning(package: ModuleType) -> None:
    with pytest.warns(FutureWarning, match="default argument for metric will be removed"):
        index = package.AnnoyIndex(2)
    index.add_item(0, [0, 1])
    index.add_item(1, [1, 1])
    assert index.get_distance(0, 1) == pytest.approx((2 * (1.0 - 2**-0.5)) ** 0.5)


@pytest.mark.filterwarnings("error::FutureWarning")
def test_given_metric_does_not_warn(package: ModuleType) -> None:
    package.AnnoyIndex(2, "angular")
    package.AnnoyIndex(2, metric="angular")


@pytest.mark.parametrize(
    "arguments", [(), ("a", "dot"), (3.0, "dot"), (3, 5), (3, None), (3, "dot", 1)]
)
def test_construction_type_errors(package: ModuleType, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        package.AnnoyIndex(*arguments)


def test_unknown_metric(package: ModuleType) -> None:
    with pytest.raises(ValueError, match="No such metric"):
        package.AnnoyIndex(10, "banana")


def test_f_beyond_c(package: ModuleType) -> None:
    with pytest.raises(OverflowError):
        package.AnnoyIndex(2**40, "dot")


def test_subclasses(package: ModuleType) -> None:
    class Mine(package.AnnoyIndex):  # type: ignore[misc, name-defined]
        note = "mine"

    index = Mine(2, "euclidean")
    index.label = "x"
    index.add_item(0, [1, 2])
    assert index.get_item_vector(0) == [1.0, 2.0]


def test_cannot_be_pickled_or_copied(package: ModuleType) -> None:
    index = built(package, "dot", vectors(5, 3))
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot pickle"):
            attempt(index)


# ---- adding ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        lambda row: np.array(row, dtype=np.float64),
        lambda row: np.array(row, dtype=np.float32),
        lambda row: np.array(row, dtype=np.float16),
        lambda row: np.array(row, dtype=np.uint8),
        lambda row: np.array(row, dtype=np.int16),
        lambda row: np.array(row, dtype=">f8"),
        lambda row: np.array([row, row], dtype=np.float64).T[:, 1],
        lambda row: np.array(row[::-1], dtype=np.float32)[::-1],
        lambda row: array.array("d", row),
        lambda row: [np.float32(value) for value in row],
        lambda row: [bool(value) for value in row],
        lambda row: dict(enumerate(row)),
    ],
)
def test_kinds_of_vectors(package: ModuleType, make: Callable[[list[int]], Any]) -> None:
    index = package.AnnoyIndex(4, "euclidean")
    assert index.add_item(0, make([1, 0, 1, 1])) is None
    assert index.get_item_vector(0) == [1.0, 0.0, 1.0, 1.0]
    assert index.build(2) is True
    assert index.get_nns_by_vector(make([1, 0, 1, 1]), 1) == [0]


def test_item_vectors_are_floats_as_given(package: ModuleType, metric: str) -> None:
    rows = vectors(20, 13, metric)
    index = filled(package, metric, rows)
    for _ in range(2):
        for item, row in enumerate(rows):
            got = index.get_item_vector(item)
            assert type(got) is list and all(type(value) is float for value in got)
            assert got == row.tolist()
        index.build(3)
        if index.get_n_trees():
            break


def test_float64_is_rounded_to_float32(package: ModuleType) -> None:
    index = package.AnnoyIndex(3, "angular")
    index.add_item(0, [1.1, 2.2, 3.3])
    assert index.get_item_vector(0) == np.array([1.1, 2.2, 3.3], np.float32).tolist()


def test_keywords(package: ModuleType) -> None:
    index = package.AnnoyIndex(2, "euclidean")
    index.add_item(i=0, vector=[1, 2])
    index.add_item(1, vector=[3, 2])
    assert index.build(n_trees=2, n_jobs=1) is True
    assert index.get_nns_by_item(i=0, n=2, search_k=10, include_distances=False) == [0, 1]
    assert index.get_nns_by_vector(vector=[1, 2], n=2, search_k=10, include_distances=True) == (
        [0, 1],
        [0.0, 2.0],
    )
    assert index.save(fn="x.ann", prefault=False) is True
    assert index.load(fn="x.ann", prefault=True) is True
    with pytest.raises(TypeError):
        index.get_item_vector(i=0)
    with pytest.raises(TypeError):
        index.get_distance(i=0, j=1)


@pytest.mark.parametrize("wrong", [[], [1.0], [1.0] * 4, [0.5] * 1003, np.zeros(2), ()])
def test_wrong_length(package: ModuleType, wrong: Any) -> None:
    index = package.AnnoyIndex(3, "euclidean")
    index.add_item(0, [1, 2, 3])
    message = rf"Vector has wrong length \(expected 3, got {len(wrong)}\)"
    with pytest.raises(IndexError, match=message):
        index.add_item(1, wrong)
    with pytest.raises(IndexError, match=message):
        index.get_nns_by_vector(wrong, 1)
    assert index.get_n_items() == 1


class Nothing:
    """Has neither length nor elements."""


class OnlyLength:
    """Has a length, and no elements."""

    def __len__(self) -> int:
        return 3


class TooShort(OnlyLength):
    """Says three elements, has one."""

    def __getitem__(self, place: int) -> float:
        if place > 0:
            raise IndexError("no more")
        return 1.0


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (Nothing(), TypeError, "object of type 'Nothing' has no len()"),
        (OnlyLength(), TypeError, "'OnlyLength' object is not subscriptable"),
        (TooShort(), IndexError, "no more"),
        (["1", "2", "3"], TypeError, "must be real number, not str"),
        ("123", TypeError, "must be real number, not str"),
        ([1, None, 3], TypeError, "must be real number, not NoneType"),
        ((1, 2, 3j), TypeError, "must be real number, not complex"),
        ([1, 2, 10**400], OverflowError, "int too large to convert to float"),
        (np.zeros((3, 2)), TypeError, None),
        (5, TypeError, "object of type 'int' has no len()"),
        (None, TypeError, "object of type 'NoneType' has no len()"),
        (iter([1, 2, 3]), TypeError, None),
    ],
)
def test_what_is_no_vector(
    package: ModuleType, wrong: Any, error: type[Exception], message: str | None
) -> None:
    index = package.AnnoyIndex(3, "euclidean")
    for call in (lambda: index.add_item(1, wrong), lambda: index.get_nns_by_vector(wrong, 1)):
        with pytest.raises(error) as caught:
            call()
        if message is not None:
            assert str(caught.value) == message
    assert index.get_n_items() == 0


@pytest.mark.parametrize(
    ("item", "error"),
    [
        (-1, IndexError),
        (-1000, IndexError),
        (0.5, TypeError),
        ("0", TypeError),
        (2**31, OverflowError),
    ],
)
def test_wrong_items(package: ModuleType, item: Any, error: type[Exception]) -> None:
    index = package.AnnoyIndex(2, "euclidean")
    with pytest.raises(error):
        index.add_item(item, [1, 2])
    assert index.get_n_items() == 0


def test_numpy_integers_are_items(package: ModuleType) -> None:
    index = package.AnnoyIndex(2, "euclidean")
    index.add_item(np.int64(1), [1, 2])
    index.add_item(np.uint8(0), [1, 1])
    index.build(1)
    assert index.get_nns_by_item(np.int32(1), np.int64(2)) == [1, 0]


def test_adding_an_item_again_replaces_it(package: ModuleType, metric: str) -> None:
    rows = vectors(6, 8, metric)
    index = filled(package, metric, rows[:5])
    index.add_item(2, rows[5])
    assert index.get_n_items() == 5
    assert index.get_item_vector(2) == rows[5].tolist()
    index.build(3)
    assert index.get_item_vector(2) == rows[5].tolist()
    assert index.get_item_vector(3) == rows[3].tolist()
    assert sorted(index.get_nns_by_item(0, 10)) == [0, 1, 2, 3, 4]


def test_hamming_takes_numbers_above_a_half_as_ones(package: ModuleType) -> None:
    index = package.AnnoyIndex(5, "hamming")
    index.add_item(0, [0.2, 0.5, 0.6, -3, 7])
    assert index.get_item_vector(0) == [0.0, 0.0, 1.0, 0.0, 1.0]


# ---- distances -------------------------------------------------------------------------------


@pytest.mark.parametrize("f", [1, 2, 3, 7, 8, 16, 63, 64, 65, 100, 257])
def test_distances(package: ModuleType, metric: str, f: int) -> None:
    rows = vectors(12, f, metric)
    index = filled(package, metric, rows)
    for state in ("filling", "built", "saved"):
        if state == "built":
            index.build(2)
        if state == "saved":
            index.save("x.ann")
        for i, j in itertools.product(range(12), repeat=2):
            got = index.get_distance(i, j)
            assert type(got) is float
            assert got == pytest.approx(distance(metric, rows[i], rows[j]), rel=1e-4, abs=2e-3)


def test_particular_distances(package: ModuleType) -> None:
    def of(metric: str, a: list[float], b: list[float]) -> float:
        index = filled(package, metric, np.array([a, b]))
        return float(index.get_distance(0, 1))

    assert of("angular", [1000, 0], [10, 0]) == pytest.approx(0)
    assert of("angular", [97, 0], [42, 42]) == pytest.approx(
        ((1 - 2**-0.5) ** 2 + (2**-0.5) ** 2) ** 0.5
    )
    assert of("angular", [1, 0], [0, 0]) == pytest.approx(2**0.5)
    assert of("angular", [1, 0], [-3, 0]) == pytest.approx(2.0)
    assert of("manhattan", [1, 1], [0, 0]) == 2.0
    assert of("dot", [0, 1], [1, 1]) == 1.0
    assert of("dot", [1, 1], [0, 0]) == 0.0
    # Nearby numbers must not cancel to zero.
    assert of("euclidean", [0.7125930], [0.7123166]) > 0.0


@pytest.mark.parametrize("bad", [-1000, -1, 30, 1030])
@pytest.mark.parametrize("is_built", [False, True])
def test_items_out_of_range(package: ModuleType, bad: int, is_built: bool) -> None:
    index = filled(package, "euclidean", vectors(30, 4))
    if is_built:
        index.build(3)
    message = "can not be negative" if bad < 0 else "larger than the largest item index"
    for call in (
        lambda: index.get_distance(0, bad),
        lambda: index.get_distance(bad, 0),
        lambda: index.get_nns_by_item(bad, 1),
        lambda: index.get_item_vector(bad),
    ):
        with pytest.raises(IndexError, match="Item index " + message):
            call()


@pytest.mark.parametrize("bad", [1.0, "1", None])
def test_items_that_are_no_integers(package: ModuleType, bad: Any) -> None:
    index = built(package, "euclidean", vectors(30, 4))
    for call in (
        lambda: index.get_distance(0, bad),
        lambda: index.get_nns_by_item(bad, 1),
        lambda: index.get_nns_by_item(0, bad),
        lambda: index.get_nns_by_item(0, 1, bad),
        lambda: index.get_item_vector(bad),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(OverflowError):
        index.get_nns_by_item(0, 1, 2**40)


# ---- neighbours ------------------------------------------------------------------------------


def check_neighbours(metric: str, rows: Array, query: Array, ids: Any, far: Any) -> None:
    """Check that an answer over everything is every item, in order, with right distances."""
    truth = np.array([distance(metric, query, row) for row in rows])
    assert type(ids) is list and type(far) is list
    assert all(type(i) is int for i in ids) and all(type(value) is float for value in far)
    assert sorted(ids) == list(range(len(rows)))
    assert far == pytest.approx(truth[ids].tolist(), rel=1e-4, abs=2e-3)
    assert far == sorted(far, reverse=metric == "dot")


@pytest.mark.parametrize("count", [1, 2, 3, 11, 60, 500])
def test_all_neighbours(package: ModuleType, metric: str, count: int) -> None:
    rows = vectors(count, 9, metric)
    index = built(package, metric, rows)
    for query in vectors(5, 9, metric, seed=8):
        ids, far = index.get_nns_by_vector(query, count, EVERYTHING, include_distances=True)
        check_neighbours(metric, rows, query, ids, far)
        assert index.get_nns_by_vector(query, count, EVERYTHING) == ids
        assert index.get_nns_by_vector(query, min(count, 4), EVERYTHING) == ids[:4]


def test_neighbours_of_items(package: ModuleType, metric: str) -> None:
    rows = vectors(200, 12, metric)
    index = built(package, metric, rows)
    for item in range(0, 200, 9):
        answer = index.get_nns_by_item(item, 200, EVERYTHING, True)
        assert type(answer) is tuple
        check_neighbours(metric, rows, rows[item], *answer)
        assert answer == index.get_nns_by_vector(rows[item], 200, EVERYTHING, True)
        if metric != "dot":
            assert answer[1][0] == pytest.approx(0.0)
        if metric not in ("dot", "hamming"):
            assert answer[0][0] == item
        for i, far in zip(*answer, strict=False):
            assert far == pytest.approx(index.get_distance(item, i), rel=1e-4, abs=1e-3)


def test_three_axes(package: ModuleType) -> None:
    index = built(package, "angular", np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]))
    assert index.get_nns_by_vector([3, 2, 1], 3) == [2, 1, 0]
    assert index.get_nns_by_vector([1, 2, 3], 3) == [0, 1, 2]
    assert index.get_nns_by_vector([2, 0, 1], 3) == [2, 0, 1]
    assert index.get_nns_by_item(0, 3, 10) == [0, 1, 2]


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "dot"])
def test_three_points(package: ModuleType, metric: str) -> None:
    index = built(package, metric, np.array([[2, 2], [3, 2], [3, 3]]))
    assert index.get_nns_by_vector([4, 4], 3) == [2, 1, 0]
    assert index.get_nns_by_item(2, 3) == [2, 1, 0]
    if metric != "dot":
        assert index.get_nns_by_vector([1, 1], 3) == [0, 1, 2]
        assert index.get_nns_by_item(0, 3) == [0, 1, 2]


def test_equal_distances_are_answered_by_id(package: ModuleType, metric: str) -> None:
    row = vectors(1, 6, metric)[0]
    index = built(package, metric, np.tile(row, (50, 1)), ids=range(49, -1, -1))
    assert index.get_nns_by_vector(row, 50, EVERYTHING) == list(range(50))


def test_dot_returns_inner_products_largest_first(package: ModuleType) -> None:
    index = built(package, "dot", np.array([[0, 0, 2], [0, 1, 1], [1, 0, 0]]))
    assert index.get_nns_by_item(0, 3, -1, True) == ([0, 1, 2], [4.0, 2.0, 0.0])
    assert index.get_nns_by_vector([2, 2, 2], 3, -1, True) == ([0, 1, 2], [4.0, 4.0, 2.0])


def test_how_many(package: ModuleType) -> None:
    index = built(package, "euclidean", vectors(20, 4))
    everything = index.get_nns_by_item(3, 20, EVERYTHING)
    assert index.get_nns_by_item(3, 999_999_999) == everything
    assert index.get_nns_by_item(3, -1) == everything
    assert index.get_nns_by_item(3, 0) == []
    assert index.get_nns_by_item(3, 0, include_distances=True) == ([], [])
    assert index.get_nns_by_item(3, 5, 0) == []
    assert index.get_nns_by_item(3, 5, -2) == everything[:5]
    assert len(index.get_nns_by_item(3, 5, 1)) >= 1


@pytest.mark.parametrize("state", ["empty", "filling", "unbuilt"])
def test_no_neighbours_before_the_build(package: ModuleType, state: str) -> None:
    index = package.AnnoyIndex(3, "angular")
    if state != "empty":
        index.add_item(0, [1, 2, 3])
    if state == "unbuilt":
        index.build(2)
        index.unbuild()
    assert index.get_nns_by_vector([1, 2, 3], 10) == []
    assert index.get_nns_by_vector([1, 2, 3], 10, include_distances=True) == ([], [])
    assert index.get_n_trees() == 0


def twins(metric: str, count: int, f: int, source: random.Random) -> Iterator[list[float]]:
    """Yield pairs of vectors that are each other's nearest."""
    for _ in range(count // 2):
        middle = [source.gauss(0, 1) for _ in range(f)]
        for _ in range(2):
            scale = source.random() + 1 if metric == "angular" else 1.0
            yield [scale * value + source.gauss(0, 1e-2) for value in middle]


@pytest.mark.parametrize("metric", ["angular", "euclidean", "manhattan"])
def test_twins_find_each_other_by_default(package: ModuleType, metric: str) -> None:
    count = 10_000
    index = package.AnnoyIndex(10, metric)
    for item, row in enumerate(twins(metric, count, 10, random.Random(metric))):
        index.add_item(item, row)
    index.build(10)
    for item in range(0, count, 2):
        assert index.get_nns_by_item(item, 2) == [item, item + 1]
        assert index.get_nns_by_item(item + 1, 2) == [item + 1, item]


@pytest.mark.parametrize("n", [1, 10, 100, 1000])
@pytest.mark.parametrize("metric", ["angular", "euclidean", "manhattan"])
def test_shells_around_the_query(package: ModuleType, metric: str, n: int) -> None:
    """Item j lies at distance j from the query: the first n items are the answer."""
    source = np.random.default_rng(n)
    directions = source.normal(size=(10_000, 9 if metric == "angular" else 10))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    reach = np.arange(10_000)[:, np.newaxis]
    rows = directions + reach if metric == "manhattan" else directions * reach
    query = np.zeros(10)
    if metric == "angular":
        rows = np.hstack([np.full((10_000, 1), 1000.0), rows])
        query[0] = 1000
    index = built(package, metric, rows)
    answer = index.get_nns_by_vector(query, n, 100_000)
    assert answer == sorted(answer)
    assert sum(item < n for item in answer) >= 0.98 * n


@pytest.mark.parametrize(("n", "least"), [(10, 0.65), (100, 0.95), (1000, 0.99)])
def test_default_recall_of_dot(package: ModuleType, n: int, least: float) -> None:
    rows = vectors(1000, 10)
    index = built(package, "dot", rows)
    found = 0
    for row in rows[:200]:
        truth = np.argsort(-(rows @ row), kind="stable")[:n]
        found += len(set(truth.tolist()) & set(index.get_nns_by_vector(row, n)))
    assert found >= least * n * 200


def test_many_equal_bit_vectors(package: ModuleType) -> None:
    f = 10
    index = built(package, "hamming", vectors(30_000, f, "hamming"))
    far = index.get_nns_by_vector([0] * f, 10_000, include_distances=True)[1]
    assert min(far) >= 0 and max(far) <= f
    queries = vectors(300, f, "hamming", seed=6)
    nearest = [index.get_nns_by_vector(q, 1, 1000, True)[1][0] for q in queries]
    assert sum(nearest) / len(nearest) <= 0.42


def test_one_million_candidates_of_small_vectors(package: ModuleType) -> None:
    rows = vectors(30_000, 3)
    index = built(package, "angular", rows)
    ids, far = index.get_nns_by_item(0, 30_000, include_distances=True)
    assert max(far) <= 2.0
    assert min(far) == pytest.approx(0.0)
    assert len(set(ids)) == len(ids)


# ---- building --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [-1, 1, 2, 4, 8])
def test_number_of_trees(package: ModuleType, n_jobs: int) -> None:
    index = filled(package, "euclidean", vectors(3000, 10))
    assert index.build(31, n_jobs=n_jobs) is True
    assert index.get_n_trees() == 31
    assert index.get_n_items() == 3000


@pytest.mark.parametrize("count", [1, 3, 50])
def test_number_of_trees_of_few_items(package: ModuleType, count: int) -> None:
    index = built(package, "angular", vectors(count, 5), n_trees=10)
    assert index.get_n_trees() == 10
    assert sorted(index.get_nns_by_vector([1, 0, 0, 0, 0], 100)) == list(range(count))


def test_as_many_trees_as_make_sense(package: ModuleType) -> None:
    index = built(package, "angular", vectors(1000, 8), n_trees=-1)
    assert index.get_n_trees() >= 1
    assert index.get_nns_by_item(7, 1) == [7]


def test_build_needs_a_number(package: ModuleType) -> None:
    index = filled(package, "angular", vectors(10, 3))
    for arguments in ((), ("x",), (2.0,), (None,)):
        with pytest.raises(TypeError):
            index.build(*arguments)
    assert index.build(1) is True


def test_a_built_index_is_not_built_again(package: ModuleType) -> None:
    index = built(package, "angular", vectors(10, 3))
    raises(lambda: index.build(2), Exception, "You can't build a built index")
    assert index.get_n_trees() == 10


def test_unbuild(package: ModuleType, metric: str) -> None:
    rows = vectors(60, 7, metric)
    index = filled(package, metric, rows[:50])
    assert index.unbuild() is True
    for n_trees in (3, 5):
        index.build(n_trees)
        assert index.get_n_trees() == n_trees
        assert index.unbuild() is True
        assert index.get_n_trees() == 0
        assert index.get_item_vector(49) == rows[49].tolist()
    for item in range(50, 60):
        index.add_item(item, rows[item])
    index.add_item(0, rows[1])
    index.build(4)
    assert index.get_n_items() == 60
    assert index.get_item_vector(55) == rows[55].tolist()
    assert index.get_item_vector(0) == rows[1].tolist()
    assert sorted(index.get_nns_by_item(55, 100, EVERYTHING)) == list(range(60))


def test_build_and_unbuild_again_and_again(package: ModuleType) -> None:
    index = filled(package, "euclidean", vectors(300, 10))
    for _ in range(20):
        index.build(10)
        index.unbuild()
    assert index.get_n_items() == 300


def test_the_same_seed_gives_the_same_answers(package: ModuleType) -> None:
    rows, queries = vectors(1000, 10), vectors(50, 10, seed=4)
    answers = []
    for _ in range(2):
        index = package.AnnoyIndex(10, "angular")
        assert index.set_seed(42) is None
        for item, row in enumerate(rows):
            index.add_item(item, row)
        index.build(10, n_jobs=2)
        answers.append([index.get_nns_by_vector(query, 100) for query in queries])
    assert answers[0] == answers[1]


def test_seed_and_verbosity_take_integers(package: ModuleType) -> None:
    index = package.AnnoyIndex(10, "angular")
    assert index.set_seed(-3) is None
    assert index.verbose(True) is True
    assert index.verbose(0) is True
    for wrong in ("1", 1.5):
        with pytest.raises(TypeError):
            index.set_seed(wrong)
        with pytest.raises(TypeError):
            index.verbose(wrong)


def test_verbose_changes_nothing_else(package: ModuleType) -> None:
    index = package.AnnoyIndex(3, "angular")
    index.verbose(True)
    for item, row in zip((1, 2, 3), np.eye(3), strict=False):
        index.add_item(item, row)
    index.build(-1)
    for _ in range(2):
        assert index.get_n_items() == 4
        assert index.get_item_vector(3) == [0.0, 0.0, 1.0]
        assert set(index.get_nns_by_item(1, 999)) == {1, 2, 3}
        index.save("x.ann")


def test_queries_from_many_threads(package: ModuleType) -> None:
    index = built(package, "euclidean", vectors(2000, 10))
    expected = [index.get_nns_by_item(item, 20) for item in range(100)]
    wrong: list[int] = []

    def ask(first: int) -> None:
        for item in range(100):
            at = (item + first) % 100
            if index.get_nns_by_item(at, 20) != expected[at]:
                wrong.append(at)

    threads = [threading.Thread(target=ask, args=(13 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- holes -----------------------------------------------------------------------------------


def test_one_item_far_out(package: ModuleType) -> None:
    index = package.AnnoyIndex(10, "angular")
    index.add_item(1000, vectors(1, 10)[0])
    assert index.get_n_items() == 1001
    index.build(10)
    assert index.get_nns_by_vector(vectors(1, 10, seed=1)[0], 100) == [1000]
    assert index.get_n_items() == 1001


def test_holes(package: ModuleType, metric: str) -> None:
    rows = vectors(300, 10, metric)
    ids = random.Random(5).sample(range(700), 300)
    index = filled(package, metric, rows, ids)
    for state in ("filling", "built", "saved", "loaded"):
        if state == "built":
            index.build(10)
        if state == "saved":
            index.save("x.ann")
        if state == "loaded":
            index = package.AnnoyIndex(10, metric)
            index.load("x.ann")
        assert index.get_n_items() == max(ids) + 1
        hole = next(i for i in range(700) if i not in ids)
        assert index.get_item_vector(hole) == [0.0] * 10
        assert index.get_distance(ids[0], hole) == pytest.approx(
            distance(metric, rows[0], np.zeros(10)), rel=1e-5
        )
        assert index.get_item_vector(ids[7]) == rows[7].tolist()
        if state == "filling":
            continue
        for item in [*ids[::30], hole]:
            assert sorted(index.get_nns_by_item(item, 10_000, EVERYTHING)) == sorted(ids)
            assert set(index.get_nns_by_item(item, 5)) <= set(ids)


# ---- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prefault", [None, False, True])
def test_save_and_load(package: ModuleType, metric: str, prefault: bool | None) -> None:
    options = {} if prefault is None else {"prefault": prefault}
    rows = vectors(300, 12, metric)
    index = built(package, metric, rows, n_trees=7)
    before = [index.get_nns_by_item(item, 10, 1000, True) for item in range(20)]
    assert index.save("x.ann", **options) is True
    other = package.AnnoyIndex(12, metric)
    assert other.load("x.ann", **options) is True
    for each in (index, other):
        assert each.get_n_items() == 300
        assert each.get_n_trees() == 7
        assert each.f == 12
        assert [each.get_nns_by_item(item, 10, 1000, True) for item in range(20)] == before
        assert each.get_item_vector(299) == rows[299].tolist()
        assert each.get_distance(0, 1) == index.get_distance(0, 1)


def test_a_saved_or_loaded_index_is_fixed(package: ModuleType) -> None:
    rows = vectors(30, 4)
    saved = built(package, "euclidean", rows)
    saved.save("x.ann")
    loaded = package.AnnoyIndex(4, "euclidean")
    loaded.load("x.ann")
    for index in (saved, loaded):
        raises(
            lambda: index.add_item(30, rows[0]),  # noqa: B023
            Exception,
            "You can't add an item to a loaded index",
        )
        raises(lambda: index.build(2), Exception, "You can't build a loaded index")  # noqa: B023
        raises(lambda: index.unbuild(), Exception, "You can't unbuild a loaded index")  # noqa: B023
        index.set_seed(5)
        with pytest.raises(IndexError):
            index.add_item(-1, rows[0])
        assert index.get_n_items() == 30


def test_unload(package: ModuleType) -> None:
    index = built(package, "euclidean", vectors(30, 4))
    index.save("x.ann")
    assert index.unload() is True
    assert (index.get_n_items(), index.get_n_trees()) == (0, 0)
    assert index.get_nns_by_vector([1, 2, 3, 4], 3) == []
    assert index.unload() is True
    index.load("x.ann")
    assert index.get_n_items() == 30
    index.load("x.ann")
    assert index.get_nns_by_item(3, 1) == [3]


def test_unloading_what_was_added(package: ModuleType) -> None:
    index = filled(package, "euclidean", vectors(30, 4))
    index.unload()
    assert index.get_n_items() == 0
    index.add_item(2, [1, 2, 3, 4])
    assert index.get_n_items() == 3
    index.build(1)
    assert index.get_nns_by_vector([1, 2, 3, 4], 3) == [2]


def test_save_twice_and_elsewhere(package: ModuleType) -> None:
    index = built(package, "angular", vectors(100, 10))
    vector = index.get_item_vector(99)
    for name in ("t.ann", "t.ann", "other.ann"):
        assert index.save(name) is True
        assert index.get_item_vector(99) == vector
    loaded = package.AnnoyIndex(10, "angular")
    loaded.load("t.ann")
    loaded.save("third.ann", True)
    again = package.AnnoyIndex(10, "angular")
    again.load("third.ann", True)
    assert again.get_item_vector(99) == loaded.get_item_vector(99) == vector


def test_saving_over_a_file_that_another_index_has_mapped(package: ModuleType) -> None:
    rows = vectors(1000, 40)
    first = built(package, "angular", rows)
    first.save("x.ann")
    reader = package.AnnoyIndex(40, "angular")
    reader.load("x.ann")
    expected = reader.get_nns_by_item(3, 100, EVERYTHING)
    built(package, "angular", rows[:500]).save("x.ann")
    assert reader.get_n_items() == 1000
    assert reader.get_nns_by_item(3, 100, EVERYTHING) == expected
    reader.load("x.ann")
    assert reader.get_n_items() == 500


@pytest.mark.parametrize("state", ["empty", "filling", "unbuilt"])
def test_saving_what_is_not_built(package: ModuleType, state: str) -> None:
    index = package.AnnoyIndex(3, "angular")
    if state != "empty":
        index.add_item(0, [1, 2, 3])
    if state == "unbuilt":
        index.build(2)
        index.unbuild()
    raises(lambda: index.save("x.ann"), OSError, "You can't save an index that hasn't been built")
    assert not os.path.exists("x.ann")


def test_places_that_cannot_be_written(package: ModuleType) -> None:
    index = built(package, "angular", vectors(30, 3))
    for place in ("", "/nonexistent/x.ann", "."):
        with pytest.raises(OSError):
            index.save(place)
    if package is annidx.annoy:
        assert index.get_nns_by_item(0, 1) == [0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("state", ["built", "empty", "theirs"])
def test_a_full_disk(state: str) -> None:
    # Not with Annoy: it removes the file first, and root may remove this one.
    index = annidx.annoy.AnnoyIndex(5, "angular")
    if state == "theirs":
        index.load(str(GOLDEN / "angular.ann"))
    else:
        index = built(annidx.annoy, "angular", vectors(1000 if state == "built" else 0, 5))
    with pytest.raises(OSError, match="No space left on device"):
        index.save("/dev/full")
    assert not os.path.isfile("/dev/full")
    assert index.get_n_items() in (0, 150, 1000)


def test_places_that_cannot_be_read(package: ModuleType) -> None:
    index = package.AnnoyIndex(10, "angular")
    with pytest.raises(OSError, match="No such file or directory"):
        index.load("nonexists.tree")
    Path("empty.ann").touch()
    with pytest.raises(OSError, match="Size of file is zero"):
        index.load("empty.ann")
    Path("odd.ann").write_bytes(b"1234567")
    with pytest.raises(OSError, match="Index size is not a multiple of vector size"):
        index.load("odd.ann")
    with pytest.raises(OSError):
        index.load(".")
    for wrong in (5, None, b"x.ann"):
        with pytest.raises(TypeError):
            index.load(wrong)
    with pytest.raises(ValueError, match="embedded null character"):
        index.load("a\0b")


def test_another_f(package: ModuleType) -> None:
    built(package, "angular", vectors(101, 10)).save("x.ann")
    index = package.AnnoyIndex(11, "angular")
    with pytest.raises(OSError):
        index.load("x.ann")


def test_one_item(package: ModuleType, metric: str) -> None:
    row = vectors(1, 100, metric)[0]
    index = built(package, metric, row[np.newaxis])
    index.save("x.ann")
    for each in (index, package.AnnoyIndex(100, metric)):
        each.load("x.ann")
        assert each.get_n_items() == 1
        assert each.get_nns_by_vector(vector=row, n=50, include_distances=False) == [0]
        assert each.get_nns_by_item(0, 999_999_999) == [0]


def test_no_items(package: ModuleType, metric: str) -> None:
    index = package.AnnoyIndex(100, metric)
    assert index.build(n_trees=10) is True
    assert index.get_nns_by_vector([1.0] * 100, 50) == []
    assert index.save("x.ann") is True
    loaded = package.AnnoyIndex(100, metric)
    loaded.load("x.ann")
    for each in (index, loaded):
        assert each.get_n_items() == 0
        assert each.get_nns_by_vector([1.0] * 100, 50) == []
        with pytest.raises(IndexError):
            each.get_item_vector(0)


def test_build_on_disk(package: ModuleType, metric: str) -> None:
    rows = vectors(200, 9, metric)
    index = package.AnnoyIndex(9, metric)
    assert index.on_disk_build("disk.ann") is True
    for item, row in enumerate(rows):
        index.add_item(item, row)
    assert index.get_item_vector(150) == rows[150].tolist()
    index.build(10)
    expected = index.get_nns_by_item(5, 20, EVERYTHING)
    assert os.path.getsize("disk.ann") > 0
    assert index.save("disk.ann") is True
    index.unload()
    other = package.AnnoyIndex(9, metric)
    for each in (index, other):
        assert each.load("disk.ann") is True
        assert each.get_nns_by_item(5, 20, EVERYTHING) == expected
        assert each.get_n_trees() == 10
        assert each.get_item_vector(150) == rows[150].tolist()


def test_build_on_disk_in_no_folder(package: ModuleType) -> None:
    index = package.AnnoyIndex(2, "euclidean")
    with pytest.raises(OSError, match="No such file or directory"):
        index.on_disk_build("/nonexistent/x.ann")


# ---- leaks -----------------------------------------------------------------------------------


def grows_no_more(step: Callable[[], object], times: int, allowed: int = 8 << 20) -> None:
    """Run a step many times and check that memory stays where the first tenth brought it."""
    for _ in range(times // 10):
        step()
    gc.collect()
    before = resident_bytes()
    for _ in range(times):
        step()
    gc.collect()
    assert resident_bytes() - before < allowed


def load_in_a_loop(file: str, times: int) -> None:
    """Make, load and drop indexes of a file of ours or of Annoy's."""
    path = str(GOLDEN / "angular.ann")
    if file == "ours":
        path = "x.annidx"
        built(annidx.annoy, "angular", vectors(100, 5)).save(path)
    kept = annidx.annoy.AnnoyIndex(5, "angular")

    def fresh() -> None:
        index = annidx.annoy.AnnoyIndex(5, "angular")
        index.load(path)

    def reused() -> None:
        kept.load(path)
        kept.unload()

    grows_no_more(fresh, times)
    grows_no_more(reused, times)
    assert len(os.listdir("/dev/fd")) < 100


@pytest.mark.parametrize("file", ["ours", "theirs"])
def test_load_leaks_nothing(file: str) -> None:
    load_in_a_loop(file, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["ours", "theirs"])
def test_load_one_hundred_thousand_times(file: str) -> None:
    load_in_a_loop(file, 100_000)


def test_construction_leaks_nothing() -> None:
    def step() -> None:
        annidx.annoy.AnnoyIndex(10, "angular").add_item(1000, [1.0] * 10)

    grows_no_more(step, 20_000)


@pytest.mark.parametrize("state", ["filling", "built", "holes", "theirs"])
@pytest.mark.parametrize("times", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_reading_items_leaks_nothing(state: str, times: int) -> None:
    index = filled(
        annidx.annoy, "euclidean", vectors(20, 5), range(0, 60, 3) if state == "holes" else None
    )
    if state == "theirs":
        index.load(str(GOLDEN / "euclidean.ann"))
    elif state != "filling":
        index.build(2)
    grows_no_more(lambda: index.get_item_vector(3), times)
    grows_no_more(lambda: index.get_distance(3, 6), times // 10)


@pytest.mark.parametrize("state", ["built", "theirs"])
def test_asking_leaks_nothing(state: str) -> None:
    index = built(annidx.annoy, "euclidean", vectors(20, 5))
    if state == "theirs":
        index.load(str(GOLDEN / "euclidean.ann"))
    grows_no_more(lambda: index.get_nns_by_item(3, 20, include_distances=True), 10_000)
    query = [1.0] * 5

    def wrong() -> None:
        with pytest.raises(IndexError):
            index.get_nns_by_vector(query[1:], 5)

    grows_no_more(wrong, 2000)
