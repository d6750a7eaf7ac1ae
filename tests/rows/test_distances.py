"""Owns the proof that distances are right: NumPy in float64 is the judge, over the vectors as kept.

Every metric and storage type at odd dimensions, with zeros, duplicates, negative zeros, denormal
numbers and magnitudes from 1e-38 to 3e38. `query`, `query_exact` and `query_items` must name the
true distance of each item they return, and `query_exact` the true nearest ones. Ordinary numbers
are in test_api.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import oracle
import pytest

import annidx

Array = npt.NDArray[Any]
Rng = np.random.Generator

DIMS = (1, 2, 3, 5, 7, 13, 100, 1000, 4097)
NEIGHBOURS = 12
LARGEST = float(np.finfo(np.float32).max)


# ---- the numbers -------------------------------------------------------------------------------


def with_zeros(random: Rng, shape: tuple[int, int]) -> Array:
    """Zeros of both signs among ordinary numbers, and whole vectors of them."""
    numbers = random.standard_normal(shape)
    numbers[random.random(shape) < 0.3] = 0.0
    numbers[random.random(shape) < 0.3] = -0.0
    numbers[1], numbers[2] = 0.0, -0.0
    return numbers


def sizes(low: int, high: int, random: Rng, shape: tuple[int, int]) -> Array:
    """Numbers of any size between two powers of ten, one for each element."""
    return random.standard_normal(shape) * 10.0 ** random.integers(low, high + 1, shape)


def row_sizes(random: Rng, shape: tuple[int, int]) -> Array:
    """Vectors of sizes from 1e-30 to 1e30."""
    return random.standard_normal(shape) * 10.0 ** random.integers(-30, 31, (shape[0], 1))


def close_together(random: Rng, shape: tuple[int, int]) -> Array:
    """Differences far smaller than the numbers themselves."""
    return 1000 + random.integers(0, 3, shape) * 2.0**-13


# float32 can hold all of them.
KINDS_OF_NUMBERS: dict[str, Callable[[Rng, tuple[int, int]], Array]] = {
    "zeros": with_zeros,
    "tiny": lambda random, shape: random.standard_normal(shape) * 1e-30,
    "huge": lambda random, shape: random.standard_normal(shape) * 1e30,
    "mixed": lambda random, shape: sizes(-30, 30, random, shape),
    "mixed rows": row_sizes,
    "denormal": lambda random, shape: random.standard_normal(shape) * 1e-41,
    "largest": lambda random, shape: random.choice([-LARGEST, LARGEST], shape),
    "large": lambda random, shape: random.choice([-3e38, 3e38, 1e38], shape),
    "close": close_together,
}
# float16 can hold these.
HALF: dict[str, Callable[[Rng, tuple[int, int]], Array]] = {
    "zeros": with_zeros,
    "half denormal": lambda random, shape: random.integers(-3, 4, shape) * 2.0**-24,
    "half largest": lambda random, shape: random.choice([-65504.0, 65504.0, 1.0], shape),
}


def items_for(dim: int) -> int:
    """How many vectors are enough."""
    return 90 if dim <= 100 else 30


def make(random: Rng, maker: Callable[[Rng, tuple[int, int]], Array], dim: int) -> Array:
    """Make vectors of such numbers, some of them equal."""
    vectors = maker(random, (items_for(dim), dim)).astype(np.float32)
    vectors[[4, -1]] = vectors[3]
    return vectors


def queries_for(random: Rng, vectors: Array, larger: bool) -> Array:
    """Items, mixtures of them, vectors of ordinary numbers, zero and extremes."""
    dim = vectors.shape[1]
    queries = [vectors[3], vectors[0], vectors[5] * np.float32(0.5), random.standard_normal(dim)]
    queries += [np.zeros(dim), np.full(dim, -0.0), np.full(dim, 1e-42), np.full(dim, 1e15)]
    if larger:
        queries += [np.full(dim, 1e30), random.choice([-LARGEST, LARGEST], dim)]
    return np.array(queries, dtype=np.float32)


# ---- the checks --------------------------------------------------------------------------------


def built(vectors: Array, metric: str, dtype: str) -> annidx.Index:
    """Build an index of them; its curve is of no interest here."""
    index = annidx.Index(vectors.shape[1], metric, dtype)
    index.add_items(vectors)
    index.build(queries=vectors[:2], n_jobs=1)
    return index


class Judge:
    """The true distances from one query, and how far a distance may be off.

    Sums of float64 products are off by some 1e-16 of their terms. In an int8 index whose vectors
    were scaled, the query divided by the scale may be rounded to float32 once more.
    """

    def __init__(self, index: annidx.Index, base: Array, query: Array) -> None:
        self.index = index
        self.true = oracle.distances(query, base, index.metric)
        scale = index.info()["value_scale"]
        relative, absolute = (2e-14, 0.0) if scale == 1 else (2.0**-23, 2.0**-149 * scale)
        size = np.abs(query.astype(np.float64))
        if index.metric == "cosine":
            self.slack = np.full(len(base), 10 * relative)
        elif index.metric == "angular":
            self.slack = np.sqrt(self.true**2 + 20 * relative) - self.true + 1e-15
        elif index.metric == "dot":
            self.slack = np.abs(base) @ (relative * size + absolute) + 1e-300
        elif scale == 1:
            self.slack = relative * self.true
        else:
            self.slack = relative * self.true + (relative * size + absolute).sum()

    def check(self, ids: Array, found: Array, complete: bool, leading: int = 0) -> None:
        """Assert that distances are those of the items named, and if complete of the nearest.

        `leading` of them come first whatever their distances are.
        """
        assert len(ids) == len(found) == min(NEIGHBOURS, len(self.true))
        assert len(set(ids.tolist())) == len(ids)
        assert np.isfinite(found).all()
        assert (np.abs(found - self.true[ids]) <= self.slack[ids]).all()
        sign = -1.0 if self.index.metric == "dot" else 1.0
        assert (np.diff(sign * found[leading:]) >= 0).all()
        if complete:
            nearest = np.sort(sign * self.true)[: len(found)]
            assert (np.abs(sign * found - nearest) <= self.slack.max()).all()


def check_all_ways(vectors: Array, metric: str, dtype: str, queries: Array) -> None:
    """Ask an index of these vectors, by vector and by item."""
    index = built(vectors, metric, dtype)
    base = index.get_vectors(range(len(vectors))).astype(np.float64)
    for query in queries:
        judge = Judge(index, base, query)
        judge.check(*index.query_exact(query, k=NEIGHBOURS), complete=True)
        judge.check(*index.query(query, k=NEIGHBOURS, recall=1.0), complete=True)
        judge.check(*index.query(query, k=NEIGHBOURS), complete=False)
    check_items(index, base)


def check_items(index: annidx.Index, base: Array) -> None:
    """Ask for the neighbours of items; each is the first of its own."""
    rows = [0, 1, 2, 3, 4, len(base) // 2, len(base) - 1]
    answers = zip(*index.query_items(rows, k=NEIGHBOURS, include_self=True), strict=True)
    for row, (ids, found) in zip(rows, answers, strict=True):
        assert ids[0] == row
        Judge(index, base, base[row].astype(np.float32)).check(ids, found, False, leading=1)
        if index.metric != "dot" and not is_zero_direction(index.metric, base[row]):
            assert found[0] == 0
    ids, _ = index.query_items([3, 5], k=NEIGHBOURS)
    assert 3 not in ids[0] and 5 not in ids[1]


def is_zero_direction(metric: str, vector: Array) -> bool:
    """Tell whether a vector has no angle to itself."""
    return metric in ("angular", "cosine") and not vector.any()


# ---- the tests ---------------------------------------------------------------------------------

REAL = ("angular", "cosine", "euclidean", "manhattan", "dot")


@pytest.mark.parametrize("numbers", KINDS_OF_NUMBERS)
@pytest.mark.parametrize("metric", REAL)
def test_float32(rng: Rng, metric: str, numbers: str) -> None:
    for dim in DIMS:
        vectors = make(rng, KINDS_OF_NUMBERS[numbers], dim)
        check_all_ways(vectors, metric, "float32", queries_for(rng, vectors, larger=True))


@pytest.mark.parametrize("numbers", HALF)
@pytest.mark.parametrize("metric", REAL)
def test_float16(rng: Rng, metric: str, numbers: str) -> None:
    for dim in DIMS:
        vectors = make(rng, HALF[numbers], dim)
        check_all_ways(vectors, metric, "float16", queries_for(rng, vectors, larger=True))


@pytest.mark.parametrize("numbers", [name for name in KINDS_OF_NUMBERS if name != "largest"])
@pytest.mark.parametrize("metric", REAL)
def test_scaled_int8(rng: Rng, metric: str, numbers: str) -> None:
    for dim in DIMS:
        vectors = make(rng, KINDS_OF_NUMBERS[numbers], dim)
        check_all_ways(vectors, metric, "int8", queries_for(rng, vectors, larger=True))


@pytest.mark.parametrize(
    ("metric", "dtype"), [kind for kind in oracle.KINDS if kind[1] in ("int8", "uint8")]
)
def test_bytes_as_given(rng: Rng, metric: str, dtype: str) -> None:
    limits = np.iinfo(dtype)
    for dim in DIMS:
        vectors = rng.choice([limits.min, limits.max, 0, 1], (items_for(dim), dim)).astype(dtype)
        vectors[[4, -1]] = vectors[3]
        vectors[7] = limits.min
        vectors[8] = limits.max
        queries = queries_for(rng, vectors.astype(np.float32), larger=True)
        check_all_ways(vectors, metric, dtype, queries)


@pytest.mark.parametrize("packed", [False, True])
def test_bits(rng: Rng, packed: bool) -> None:
    for dim in (*DIMS, 8, 63, 64, 65, 512):
        bits = rng.integers(0, 2, (items_for(dim), dim), dtype=np.uint8)
        bits[1], bits[2] = 0, 1
        bits[[4, -1]] = bits[3]
        form = (lambda rows: np.packbits(rows, axis=-1)) if packed else (lambda rows: rows)
        index = annidx.Index(dim, "hamming")
        index.add_items(form(bits), packed=packed)
        index.build(queries=bits[:2])
        for query in (bits[3], bits[1], bits[2], rng.integers(0, 2, dim, dtype=np.uint8)):
            rows, wanted = oracle.nearest(query, bits, "hamming", NEIGHBOURS)
            ids, found = index.query_exact(form(query), k=NEIGHBOURS, packed=packed)
            assert ids.tolist() == rows.tolist() and found.tolist() == wanted.tolist()
            found_near = index.query(form(query), k=NEIGHBOURS, packed=packed)
            Judge(index, bits, query).check(*found_near, complete=False)
        check_items(index, bits)


@pytest.mark.parametrize("metric", REAL)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_a_large_index_of_each_kind(rng: Rng, metric: str, dtype: str) -> None:
    """Codes and byte rows only choose what is compared: distances stay exact."""
    vectors = rng.standard_normal((2300, 21)).astype(np.float32)
    vectors[::7] *= 30
    vectors[5] = 0
    vectors[2000:2030] = vectors[4]
    queries = np.concatenate([queries_for(rng, vectors, larger=True), vectors[100:120]])
    check_all_ways(vectors, metric, dtype, queries)


@pytest.mark.parametrize(("metric", "dtype"), oracle.KINDS)
def test_the_layout_of_queries_does_not_matter(rng: Rng, metric: str, dtype: str) -> None:
    given = oracle.make_vectors(rng, 90, 19, metric, dtype)[0]
    index = annidx.Index(19, metric, dtype)
    index.add_items(given)
    index.build()
    queries = given[20:44]
    forms = [np.asfortranarray(queries), queries.astype(np.float64), queries.tolist()]
    forms += [np.repeat(queries, 3, axis=1)[:, ::3], np.flip(np.flip(queries, 0).copy(), 0)]
    for ask in (index.query, index.query_exact):
        wanted = ask(np.ascontiguousarray(queries), k=5)
        for form in forms:
            for got, want in zip(ask(form, k=5), wanted, strict=True):
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("metric", REAL)
def test_equal_distances_come_in_row_order(rng: Rng, metric: str, dtype: str) -> None:
    """From far away many items are equally far, as float64 can tell."""
    vectors = rng.standard_normal((300, 3)).astype(np.float32)
    index = built(vectors, metric, dtype)
    for far in (1e3, 1e8, 1e15, 1e30):
        for ask in (index.query_exact, index.query):
            ids, found = ask(np.full(3, far, dtype=np.float32), k=200)
            assert (np.diff(ids)[np.diff(found) == 0] > 0).all()


@pytest.mark.parametrize("metric", REAL)
def test_signs_of_zero_are_one_value(metric: str) -> None:
    vectors = np.array([[0.0, 1.0], [-0.0, 1.0], [-0.0, -0.0], [1.0, 0.0]], dtype=np.float32)
    index = built(vectors, metric, "float32")
    one = index.query_exact(np.array([0.0, 1.0]), k=4)
    other = index.query_exact(np.array([-0.0, 1.0]), k=4)
    assert one[0].tolist() == other[0].tolist()
    assert one[1].tolist() == other[1].tolist()
    assert not np.signbit(one[1][one[1] == 0]).any()
