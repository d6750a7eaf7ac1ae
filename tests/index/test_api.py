"""Owns the tests of the Python face: each call of `annidx.Index` does what its documentation says.

Answers are compared with the brute force of oracle.py. Errors are in test_errors.py.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from oracle import KINDS, check_answer, distances, make_vectors

import annidx
from annidx import _progress
from annidx.io import inputs

DIMS = (1, 2, 3, 5, 7, 13, 100, 1000, 4097)
Array = npt.NDArray[Any]
Rng = np.random.Generator


def built(
    vectors: Any, metric: str = "euclidean", dtype: str | None = None, **options: Any
) -> annidx.Index:
    """Build an index of these vectors."""
    ids = options.pop("ids", None)
    index = annidx.Index(np.shape(vectors)[1], metric, dtype)
    index.add_items(vectors, ids)
    index.build(**options)
    return index


@pytest.fixture(scope="module")
def points() -> Array:
    """Vectors of whole numbers, so that distances have no rounding and ties are real."""
    return np.random.default_rng(5).integers(-4, 5, (300, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def index(points: Array) -> annidx.Index:
    """A euclidean index of them with ids 0..299."""
    return built(points)


@pytest.fixture(scope="module")
def named(points: Array) -> annidx.Index:
    """The same with text ids."""
    return built(points, ids=[name(row) for row in range(len(points))])


def name(row: int) -> str:
    """Text ids of different lengths and alphabets."""
    return ("", "song:", "élan ", "歌\0", "🎵")[row % 5] + (str(row) if row else "")


# ---- exact answers -------------------------------------------------------------------------


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize(("metric", "dtype"), KINDS)
def test_exact_answers_are_the_oracles(rng: Rng, metric: str, dtype: str, dim: int) -> None:
    given, kept = make_vectors(rng, 70, dim, metric, dtype)
    queries, queries64 = make_vectors(rng, 6, dim, metric, dtype)
    queries[0] = given[2]
    queries[1] = 0
    queries64[:2] = queries[:2]
    index = built(given, metric, dtype)
    exact_order = dtype in ("bits", "int8", "uint8") and metric not in ("angular", "cosine")
    for ask in (index.query_exact, index.query):
        ids, distances = ask(queries, k=12)
        assert ids.shape == distances.shape == (6, 12)
        for query, rows, found in zip(queries64, ids, distances, strict=True):
            if ask == index.query_exact:
                check_answer(rows, found, query, kept, metric, 12, exact_order=exact_order)
            signed = -found if metric == "dot" else found
            assert (np.diff(signed) >= 0).all()
    one, near = index.query_exact(queries[2], k=200)
    check_answer(one, near, queries64[2], kept, metric, 200, exact_order=exact_order)


@pytest.mark.parametrize(("metric", "dtype"), KINDS)
def test_get_vectors_returns_what_was_given(rng: Rng, metric: str, dtype: str) -> None:
    given, kept = make_vectors(rng, 40, 13, metric, dtype)
    index = built(given, metric, dtype)
    rows = [39, 0, 3, 3, 17]
    found = index.get_vectors(rows)
    assert found.dtype == (np.uint8 if metric == "hamming" else np.float32)
    np.testing.assert_array_equal(found, kept[rows].astype(found.dtype))
    np.testing.assert_array_equal(index.get_vectors(7), found.dtype.type(0) + kept[7])


@pytest.mark.parametrize("metric", ["angular", "cosine", "euclidean", "manhattan", "dot"])
@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e12, 1e18])
def test_extreme_magnitudes(rng: Rng, metric: str, size: float) -> None:
    given = (rng.standard_normal((50, 24)) * size).astype(np.float32)
    given[7] *= np.float32(1e-6)
    index = built(given, metric)
    kept = given.astype(np.float64)
    for query in (given[3], given[7], (rng.standard_normal(24) * size).astype(np.float32)):
        rows, found = index.query_exact(query, k=50)
        check_answer(rows, found, query.astype(np.float64), kept, metric, 50)
        assert np.isfinite(found).all()
        assert len(index.query(query, k=50)[0]) == 50


LARGEST = """
import sys
import numpy as np
import annidx

metric, dtype, size = sys.argv[1], sys.argv[2], np.float32(sys.argv[3])
signs = np.random.default_rng(0).choice([-1, 1], (3000, 17)).astype(np.float32)
for count in (20, 3000):
    index = annidx.Index(17, metric, dtype)
    index.add_items(signs[:count] * size)
    index.build(n_jobs=1)
    index.verify()
    assert np.isfinite(index.get_vectors(range(count))).all()
    for ask in (index.query, index.query_exact):
        ids, distances = ask(signs[3] * size, k=count)
        assert ids[0] == 3 and len(ids) == count and np.isfinite(distances).all()
"""


@pytest.mark.parametrize("metric", ["angular", "cosine", "euclidean", "manhattan", "dot"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("size", ["3e38", "3.4028235e38"])
def test_the_largest_floats(run_python: Any, metric: str, dtype: str, size: str) -> None:
    result = run_python(LARGEST, metric, dtype, size, timeout=300)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("metric", ["angular", "cosine"])
def test_zero_vector_is_at_a_right_angle_to_all(rng: Rng, metric: str) -> None:
    given = rng.standard_normal((20, 5)).astype(np.float32)
    given[4] = 0
    right = np.sqrt(2) if metric == "angular" else 1.0
    index = built(given, metric)
    for ask in (index.query, index.query_exact):
        np.testing.assert_allclose(ask(np.zeros(5), k=20)[1], right)
        rows, found = ask(given[0], k=20)
        np.testing.assert_allclose(found[rows == 4], right)


@pytest.mark.parametrize("metric", ["angular", "cosine", "euclidean", "manhattan", "dot"])
def test_float_data_in_int8_are_scaled(rng: Rng, metric: str) -> None:
    given = rng.standard_normal((200, 20)).astype(np.float32) * 3
    index = built(given, metric, "int8")
    kept = index.get_vectors(np.arange(200)).astype(np.float64)
    step = index.info()["value_scale"]
    assert np.abs(kept - given).max() <= step * 0.51
    assert np.abs(kept / step - np.rint(kept / step)).max() < 1e-3
    rows, found = index.query_exact(given[5], k=30)
    expected = distances(given[5], kept, metric)
    ordered = -np.sort(-expected) if metric == "dot" else np.sort(expected)
    np.testing.assert_allclose(found, expected[rows], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found, ordered[:30], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("metric", "dtype"), KINDS)
def test_queries_find_most_true_neighbours(rng: Rng, metric: str, dtype: str) -> None:
    centres, _ = make_vectors(rng, 40, 32, metric, "bits" if dtype == "bits" else "float32")
    base = centres[rng.integers(0, 40, 4000)]
    if dtype == "bits":
        base = base ^ (rng.random(base.shape) < 0.1)
    else:
        base = base + 0.5 * rng.standard_normal(base.shape)
    if dtype in ("int8", "uint8"):
        base = np.clip(base * 20 + (128 if dtype == "uint8" else 0), *_limits(dtype)).round()
        base = base.astype(dtype)
    queries, base = base[:100], base[100:]
    index = built(base, metric, dtype, recall=0.95)
    ids, found = index.query(queries, k=10)
    _, truth = index.query_exact(queries, k=10)
    worst = truth[:, -1:]
    hits = found >= worst * (1 - 1e-6) if metric == "dot" else found <= worst * (1 + 1e-6)
    assert hits.mean() > 0.9
    assert all(len(set(row)) == 10 for row in ids.tolist())


def _limits(dtype: str) -> tuple[int, int]:
    limits = np.iinfo(dtype)  # type: ignore[type-var]
    return limits.min, limits.max


def test_ties_are_in_insertion_order_and_all_duplicates_are_found() -> None:
    given = np.zeros((500, 4), dtype=np.float32)
    given[::2] = 1
    index = built(given)
    for ask in (index.query, index.query_exact):
        ids, distances = ask(np.ones(4, np.float32), k=500)
        assert ids.tolist() == [*range(0, 500, 2), *range(1, 500, 2)]
        assert distances.tolist() == [0.0] * 250 + [2.0] * 250


# ---- shapes --------------------------------------------------------------------------------


def test_one_query_gives_flat_arrays(index: annidx.Index, points: Array) -> None:
    ids, distances = index.query(points[4], k=3)
    assert (ids.shape, ids.dtype) == ((3,), np.int64)
    assert (distances.shape, distances.dtype) == ((3,), np.float64)
    assert ids[0] <= 4 and distances[0] == 0


def test_many_queries_give_rows(index: annidx.Index, points: Array) -> None:
    ids, distances = index.query(points[:5], k=3, n_jobs=2)
    assert ids.shape == distances.shape == (5, 3)
    for row in range(5):
        one, near = index.query(points[row], k=3)
        assert one.tolist() == ids[row].tolist()
        assert near.tolist() == distances[row].tolist()


def test_a_batch_of_one_stays_a_batch(index: annidx.Index, points: Array) -> None:
    assert index.query(points[:1], k=3)[0].shape == (1, 3)


@pytest.mark.parametrize("ask", ["query", "query_exact"])
def test_a_batch_of_none_is_empty(index: annidx.Index, ask: str) -> None:
    ids, distances = getattr(index, ask)(np.empty((0, 6), np.float32), k=3)
    assert ids.shape == distances.shape == (0, 3)
    ids, _ = getattr(index, ask)(np.empty((0, 6), np.float32), k=3, allow=[1])
    assert ids.shape == (0, 3)


def test_k_above_the_number_of_items(index: annidx.Index, points: Array) -> None:
    ids, distances = index.query(points[0], k=10**12)
    assert sorted(ids.tolist()) == list(range(300))
    assert np.isfinite(distances).all()
    ids, distances = index.query(points[:2], k=310)
    assert ids.shape == distances.shape == (2, 310)
    assert (ids[:, 300:] == -1).all() and np.isnan(distances[:, 300:]).all()
    assert (ids[:, :300] >= 0).all() and not np.isnan(distances[:, :300]).any()


def test_text_ids_come_as_str_and_missing_ones_as_none(named: annidx.Index, points: Array) -> None:
    ids, distances = named.query(points[:2], k=302)
    assert ids.dtype == object and ids.shape == (2, 302)
    assert set(ids[0, :300]) == {name(row) for row in range(300)}
    assert list(ids[0, 300:]) == [None, None]
    one, _ = named.query(points[7], k=1, radius=0, deny=[name(row) for row in range(7)])
    assert one.tolist() == [name(7)]
    assert np.isnan(distances[0, 300:]).all()


# ---- what arrays may be --------------------------------------------------------------------


def _every_other(array: Array) -> Array:
    wide = np.zeros((2 * len(array), 2 * array.shape[1]), array.dtype)
    wide[::2, ::2] = array
    return wide[::2, ::2]


def _read_only(array: Array) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _unaligned(array: Array) -> Array:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[:] = array
    return view


FORMS: dict[str, Callable[[Array], Any]] = {
    "float32": lambda a: a,
    "float64": lambda a: a.astype(np.float64),
    "float16": lambda a: a.astype(np.float16),
    "longdouble": lambda a: a.astype(np.longdouble),
    "int64": lambda a: a.astype(np.int64),
    "int8": lambda a: a.astype(np.int8),
    "list": lambda a: a.tolist(),
    "tuple of lists": lambda a: tuple(a.tolist()),
    "list of arrays": list,
    "object": lambda a: a.astype(object),
    "Fortran order": np.asfortranarray,
    "strided": _every_other,
    "reversed twice": lambda a: a[::-1].copy()[::-1],
    "big-endian": lambda a: a.astype(">f4"),
    "big-endian float64": lambda a: a.astype(">f8"),
    "read-only": _read_only,
    "unaligned": _unaligned,
}


@pytest.mark.parametrize("form", FORMS)
def test_any_array_is_accepted(
    form: str, points: Array, index: annidx.Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = FORMS[form](points)
    expected = index.query(points[:9], k=4)
    one = index.query(points[8], k=4)
    for chunk in (1 << 20, 64):
        monkeypatch.setattr(inputs, "CHUNK_BYTES", chunk)
        copy = built(given)
        np.testing.assert_array_equal(copy.get_vectors(range(300)), points)
    for got, want in zip(copy.query(FORMS[form](points[:9]), k=4), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    for got, want in zip(copy.query(FORMS[form](points[8:9])[0], k=4), one, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_memory_maps(tmp_path: Path, points: Array, mode: Any) -> None:
    np.save(tmp_path / "v.npy", points)
    given = np.load(tmp_path / "v.npy", mmap_mode=mode)
    index = annidx.Index(6, "euclidean")
    index.add_items(given[:100])
    index.add_items(np.asarray(given)[100:])
    del given
    index.build()
    np.testing.assert_array_equal(index.get_vectors(range(300)), points)


def test_changes_after_adding_do_not_matter(points: Array) -> None:
    given = points.copy()
    index = annidx.Index(6, "euclidean")
    index.add_items(given)
    given[:] = 0
    index.build()
    np.testing.assert_array_equal(index.get_vectors(range(300)), points)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("given_as", ["int64", "uint16", "uint8", "int8", "list"])
def test_whole_numbers_are_kept_exactly(rng: Rng, dtype: str, given_as: str) -> None:
    values = rng.integers(0, 128, (30, 7))
    given = values.tolist() if given_as == "list" else values.astype(given_as)
    np.testing.assert_array_equal(built(given, "euclidean", dtype).get_vectors(range(30)), values)


def test_whole_floats_fit_uint8(rng: Rng) -> None:
    values = rng.integers(0, 256, (30, 7)).astype(np.float32)
    np.testing.assert_array_equal(
        built(values, "manhattan", "uint8").get_vectors(range(30)), values
    )


@pytest.mark.parametrize("dim", [1, 7, 8, 9, 64, 100])
def test_packed_bits_are_the_same_as_unpacked(rng: Rng, dim: int) -> None:
    bits = rng.integers(0, 2, (60, dim), dtype=np.uint8)
    packed = np.packbits(bits, axis=1)
    one = built(bits, "hamming")
    two = annidx.Index(dim, "hamming")
    two.add_items(packed[:30], packed=True)
    two.add_items(bits[30:].astype(bool))
    two.build()
    np.testing.assert_array_equal(two.get_vectors(range(60)), bits)
    np.testing.assert_array_equal(two.get_vectors(range(60), packed=True), packed)
    np.testing.assert_array_equal(two.get_vectors(59, packed=True), packed[59])
    for query in (0, slice(0, 5)):
        want = one.query(bits[query], k=9)
        for got in (
            two.query(packed[query], k=9, packed=True),
            two.query_exact(bits[query].astype(np.float64), k=9),
        ):
            np.testing.assert_array_equal(got[0], want[0])
            np.testing.assert_array_equal(got[1], want[1])


def test_adding_nothing(points: Array) -> None:
    index = annidx.Index(6, "euclidean")
    index.add_items(np.empty((0, 6)))
    index.add_items(np.empty((0, 6)), ids=[])
    assert len(index) == 0
    index.add_items(points)
    assert len(index) == 300


# ---- ids -----------------------------------------------------------------------------------


def test_ids_continue_over_calls(points: Array) -> None:
    index = annidx.Index(6, "euclidean")
    index.add_items(points[:10])
    index.add_items(points[10:30])
    index.build()
    assert index.query(points[25], k=30, radius=0)[0].tolist().count(25) == 1
    assert 29 in index and 30 not in index and -1 not in index


ID_FORMS: dict[str, Any] = {
    "int64": np.array([5, -7, 2**63 - 1, -(2**63), 0]),
    "uint8": np.array([5, 7, 255, 1, 0], np.uint8),
    "big-endian": np.array([5, 7, 255, 1, 0], ">i4"),
    "unaligned": np.frombuffer(b"x" + np.arange(5).tobytes(), np.int64, 5, 1),
    "list of int": [5, -7, 2**63 - 1, -(2**63), 0],
    "list of numpy ints": [np.int64(3), np.uint8(9), 4, 2, 1],
    "range": range(10, 15),
    "generator": (10 * i for i in range(5)),
    "object ints": np.array([3, 2, 1, 5, 4], object),
    "list of str": ["a", "", "ñ", "a\0", "🎵"],
    "numpy str": np.array(["a", "bb", "ñ", "d", "🎵"]),
    "object str": np.array(["a", "bb", "ñ", "d", "🎵"], object),
    "tuple of str": ("a", "bb", "ñ", "d", "🎵"),
    "numpy str scalars": [np.str_("a"), np.str_("b"), "c", "d", "e"],
}


@pytest.mark.parametrize("form", ID_FORMS)
@pytest.mark.parametrize("chunk", [1 << 20, 1])
def test_forms_of_ids(
    form: str, chunk: int, rng: Rng, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "CHUNK_BYTES", chunk)
    given = ID_FORMS[form]
    ids = [10 * i for i in range(5)] if form == "generator" else list(given)
    plain = [item.item() if isinstance(item, np.generic) else item for item in ids]
    vectors = rng.standard_normal((5, 3))
    index = built(vectors, ids=iter(plain) if form == "generator" else given)
    index.save(tmp_path / "ids.annidx")
    for one in (index, annidx.load(tmp_path / "ids.annidx")):
        found, _ = one.query(vectors, k=1)
        assert found[:, 0].tolist() == plain
        assert type(found[:, 0].tolist()[0]) is type(plain[0])
        assert all(item in one for item in ids)
        assert 123456 not in one and "absent" not in one and 1.5 not in one and None not in one
        np.testing.assert_array_equal(one.get_vectors(ids), vectors.astype(np.float32))
        neighbours, near = one.query_items(ids, k=1, include_self=True)
        assert neighbours[:, 0].tolist() == plain and (near == 0).all()


def test_ids_of_the_other_kind_are_not_found(index: annidx.Index, named: annidx.Index) -> None:
    assert "1" not in index and 1 not in named and True not in index
    assert name(1) in named and np.str_(name(1)) in named and np.int32(1) in index
    assert "\ud800" not in named


# ---- filters -------------------------------------------------------------------------------


def _filters(items: list[Any], mask: Array, made_for: annidx.Index) -> dict[str, Any]:
    return {
        "list": items,
        "tuple": tuple(items),
        "array": np.array(items, dtype=object if isinstance(items[0], str) else np.int64),
        "set": set(items),
        "frozenset": frozenset(items),
        "dict keys": dict.fromkeys(items).keys(),
        "mask": mask,
        "mask as list": mask.tolist(),
        "IdSet of ids": annidx.IdSet(made_for, items),
        "IdSet of mask": annidx.IdSet(made_for, mask),
    }


FILTER_FORMS = (
    "list",
    "tuple",
    "array",
    "set",
    "frozenset",
    "dict keys",
    "mask",
    "mask as list",
    "IdSet of ids",
    "IdSet of mask",
)


@pytest.mark.parametrize("form", FILTER_FORMS)
@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("allowed", [1, 5, 150, 299])
def test_filters(
    form: str,
    text: bool,
    allowed: int,
    index: annidx.Index,
    named: annidx.Index,
    points: Array,
    rng: Rng,
) -> None:
    asked = named if text else index
    rows = rng.permutation(300)[:allowed]
    mask = np.zeros(300, bool)
    mask[rows] = True
    items: list[Any] = [name(int(row)) if text else int(row) for row in rows]
    given = _filters(items, mask, asked)[form]
    row_of = {name(row) if text else row: row for row in range(300)}
    for option, eligible in (("allow", mask), ("deny", ~mask)):
        for ask in (asked.query, asked.query_exact):
            ids, found = ask(points[11], k=20, **{option: given})
            assert len(ids) == min(20, eligible.sum())
            found_rows = np.array([row_of[item] for item in ids.tolist()], dtype=np.int64)
            assert eligible[found_rows].all()
            if ask == asked.query_exact or eligible.sum() < 50:
                check_answer(
                    found_rows, found, points[11], points, "euclidean", 20, eligible, None, True
                )
        ids, found = asked.query(points[:3], k=20, n_jobs=2, **{option: given})
        missing = max(0, 20 - int(eligible.sum()))
        assert (np.isnan(found).sum(axis=1) == missing).all()
        empty = None if text else -1
        assert all(row[20 - missing :] == [empty] * missing for row in ids.tolist())


def test_allow_and_deny_together(index: annidx.Index, points: Array) -> None:
    ids, _ = index.query(points[0], k=10, allow=range(10), deny=annidx.IdSet(index, [2, 3, 4]))
    assert sorted(ids.tolist()) == [0, 1, 5, 6, 7, 8, 9]


def test_nothing_allowed(index: annidx.Index, named: annidx.Index, points: Array) -> None:
    empty = annidx.IdSet(index, [])
    for options in ({"allow": []}, {"allow": empty}, {"deny": ~empty}, {"allow": set()}):
        ids, distances = index.query(points[0], k=5, **options)
        assert ids.shape == distances.shape == (0,)
        ids, distances = index.query(points[:2], k=5, **options)
        assert (ids == -1).all() and np.isnan(distances).all()
    assert named.query(points[:1], k=2, allow=[])[0].tolist() == [[None, None]]


def test_unknown_ids_in_filters_are_ignored(
    index: annidx.Index, named: annidx.Index, points: Array
) -> None:
    assert index.query(points[0], k=5, allow=[7, 10**9, -3])[0].tolist() == [7]
    assert len(index.query(points[0], k=300, deny=[10**9])[0]) == 300
    assert named.query(points[0], k=5, allow=[name(7), "absent"])[0].tolist() == [name(7)]
    assert index.query(points[0], k=5, allow=["7"])[0].tolist() == []


@pytest.mark.parametrize("set_bytes", [1 << 20, 1])
def test_each_query_its_own_filter(
    index: annidx.Index, points: Array, set_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annidx.idset._SETS_BYTES", set_bytes)
    mask = np.arange(300) >= 298
    allow = [[1, 2], {3}, mask, annidx.IdSet(index, range(4, 6)), None, [], np.array([9])]
    ids, distances = index.query(points[:7], k=3, allow=allow, deny=[2])
    assert [sorted(i for i in row if i >= 0) for row in ids[:4].tolist()] == [
        [1],
        [3],
        [298, 299],
        [4, 5],
    ]
    assert (ids[4] >= 0).all() and (ids[5] == -1).all() and ids[6].tolist() == [9, -1, -1]
    assert np.isnan(distances).tolist() == (ids == -1).tolist()
    ids, _ = index.query(points[:2], k=2, allow=np.array([[1, 2], [3, 4]]))
    assert [sorted(row) for row in ids.tolist()] == [[1, 2], [3, 4]]
    ids, _ = index.query(points[:2], k=300, deny=[None, [5]])
    assert [5 in row for row in ids.tolist()] == [True, False]
    assert index.query(points[0], k=2, allow=[[5]])[0].tolist() == [5]
    ids, _ = index.query_items([5, 6], k=2, allow=[[7], [8, 9]])
    assert ids[0].tolist() == [7, -1] and sorted(ids[1].tolist()) == [8, 9]


@pytest.mark.parametrize("metric", ["euclidean", "dot"])
def test_radius(points: Array, metric: str) -> None:
    index = built(points, metric)
    for radius in (0, 3.0, np.float32(5), -2):
        for ask in (index.query, index.query_exact):
            ids, found = ask(points[20], k=300, radius=radius)
            check_answer(
                ids,
                found,
                points[20],
                points,
                metric,
                300,
                radius=float(radius),
                exact_order=True,
            )
    ids, found = index.query(points[:2], k=4, radius=-1e9 if metric == "euclidean" else 1e9)
    assert (ids == -1).all() and np.isnan(found).all()
    assert index.query(points[0], k=9, radius=float("inf") * (-1 if metric == "dot" else 1))[
        0
    ].shape == (9,)


def test_sets_of_ids(index: annidx.Index) -> None:
    low = annidx.IdSet(index, range(10))
    even = annidx.IdSet(index, np.arange(300) % 2 == 0)
    assert (len(low), len(even), len(~low)) == (10, 150, 290)
    assert [i for i in range(300) if i in low & even] == [0, 2, 4, 6, 8]
    assert [i for i in range(300) if i in low - even] == [1, 3, 5, 7, 9]
    assert len(low | even) == 155 and len(~(low | even)) == 145
    assert isinstance(~low & even | low - even, annidx.IdSet)
    assert 300 not in low and "1" not in low and len(low) == 10
    assert len(annidx.IdSet(index, [1, 1, 10**9])) == 1
    assert "10" in repr(low) and low.index is index


def test_a_set_fits_every_object_with_the_same_content(points: Array, tmp_path: Path) -> None:
    built(points).save(tmp_path / "same.annidx")
    one, two = annidx.load(tmp_path / "same.annidx"), annidx.load(tmp_path / "same.annidx")
    assert two.query(points[0], k=9, allow=annidx.IdSet(one, [4]))[0].tolist() == [4]


# ---- other questions -----------------------------------------------------------------------


def test_query_items(index: annidx.Index, points: Array) -> None:
    for include_self in (False, True):
        ids, found = index.query_items([4, 9], 30, include_self, recall=1.0)
        assert ids.shape == (2, 30)
        for item, row, near in zip((4, 9), ids, found, strict=True):
            eligible = np.arange(300) != (-1 if include_self else item)
            check_answer(row, near, points[item], points, "euclidean", 30, eligible)
    ids, found = index.query_items(np.int64(4), k=1000)
    assert ids.shape == found.shape == (299,) and 4 not in ids
    ids, found = index.query_items([4], k=300)
    assert ids[0, -1] == -1 and np.isnan(found[0, -1])


def test_query_items_by_text(named: annidx.Index, index: annidx.Index) -> None:
    want, near = index.query_items([4, 0], k=6)
    ids, found = named.query_items([name(4), name(0)], k=6)
    assert ids.tolist() == [[name(row) for row in rows] for rows in want.tolist()]
    np.testing.assert_array_equal(found, near)
    assert named.query_items(name(4), k=6)[0].tolist() == ids[0].tolist()


def test_effort(index: annidx.Index, points: Array) -> None:
    truth = index.query_exact(points[:20], k=5)[1]
    for options in ({"recall": 1.0}, {"search_k": 10**9}, {"recall": 0.1, "search_k": 300}):
        np.testing.assert_array_equal(index.query(points[:20], k=5, **options)[1], truth)
    for options in ({"recall": 0.01}, {"search_k": 1}, {"recall": np.float64(0.5)}):
        assert not np.isnan(index.query(points[:20], k=5, **options)[1]).any()


def test_tune(rng: Rng) -> None:
    index = built(rng.standard_normal((3000, 16)))
    queries = rng.standard_normal((100, 16))
    stages = []
    curve = index.tune(queries, k=7, progress=lambda *step: stages.append(step), n_jobs=1)
    assert curve and all(point["k"] == 7 for point in curve)
    recalls = [point["recall"] for point in curve]
    assert recalls == sorted(recalls) and recalls[0] >= 0 and recalls[-1] <= 1
    assert index.tune(k=7) == curve
    assert stages


# ---- the object ----------------------------------------------------------------------------


def test_properties_and_repr(index: annidx.Index) -> None:
    assert (index.dim, index.metric, index.dtype, len(index)) == (6, "euclidean", "float32", 300)
    assert index.built and not index.closed and index.path is None and index.metadata is None
    assert repr(index) == ("Index(dim=6, metric='euclidean', dtype='float32', 300 items, built)")
    empty = annidx.Index(3, "hamming")
    assert (empty.dtype, empty.built) == ("bits", False)
    assert "0 items, not built" in repr(empty)
    empty.close()
    assert repr(empty) == "Index(closed)" and empty.closed


def test_info(index: annidx.Index) -> None:
    facts = index.info()
    assert facts["items"] == 300 and facts["dim"] == 6 and facts["ids"] == "int"
    assert facts["n_trees"] >= 1 and len(facts["identity"]) == 32
    assert facts["library_version"] == annidx.__version__
    assert 0 < facts["default_recall"] <= 1
    assert {"k", "recall", "candidates"} <= set(facts["curve"][0])
    assert {"name", "offset", "bytes"} == set(facts["sections"][0])
    unbuilt = annidx.Index(2, "dot", "int8").info()
    assert unbuilt["items"] == 0 and not unbuilt["built"] and "identity" not in unbuilt


@pytest.mark.parametrize("as_path", [str, Path])
def test_save_and_load(
    index: annidx.Index, points: Array, tmp_path: Path, as_path: Callable[[str], Any]
) -> None:
    path = as_path(str(tmp_path / "größe.annidx"))
    copy = built(points)
    copy.save(path, metadata={"model": "2026", "tags": ["é", 1, None], "deep": {"a": 1.5}})
    assert copy.path == str(path)
    with annidx.load(path, warm=True) as loaded:
        assert loaded.metadata == {"model": "2026", "tags": ["é", 1, None], "deep": {"a": 1.5}}
        assert loaded.built and len(loaded) == 300 and loaded.path == str(path)
        assert repr(str(path)) in repr(loaded)
        assert 0 <= loaded.residency() <= 1
        loaded.verify()
        for got, want in zip(loaded.query(points, k=5), index.query(points, k=5), strict=True):
            np.testing.assert_array_equal(got, want)
        loaded.save(tmp_path / "again.annidx")
        loaded.save(tmp_path / "other.annidx", metadata={})
    assert loaded.closed
    annidx.verify(path)
    assert annidx.load(tmp_path / "again.annidx").metadata == copy.metadata
    assert annidx.load(tmp_path / "other.annidx").metadata == {}
    again = (tmp_path / "again.annidx").read_bytes()
    assert again == Path(path).read_bytes()


@pytest.mark.parametrize(("part", "offset"), [("header", 48), ("section table", 200)])
def test_verify_notices_that_the_head_was_overwritten(
    points: Array, tmp_path: Path, part: str, offset: int
) -> None:
    """An open index goes on with the head that was checked, and says so when asked."""
    path = tmp_path / "vectors.annidx"
    built(points).save(path)
    with annidx.load(path) as loaded:
        before = loaded.info
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"\xff" * 8)
        assert loaded.info == before
        with pytest.raises(annidx.FormatError, match=f"{part} at offset .* overwritten in place"):
            loaded.verify()


def test_relative_paths_are_remembered_as_absolute(
    points: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    index = built(points)
    index.save("here.annidx")
    assert index.path == os.path.join(os.getcwd(), "here.annidx")


def test_a_replaced_file_does_not_change_open_indexes(points: Array, tmp_path: Path) -> None:
    path = tmp_path / "one.annidx"
    built(points).save(path)
    old = annidx.load(path)
    built(points + 100).save(path)
    assert old.query_exact(points[3], k=1)[1][0] == 0
    assert annidx.load(path).query_exact(points[3], k=1)[1][0] > 100
    assert os.listdir(tmp_path) == ["one.annidx"]


def test_build_into_a_file(points: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", points)
    index = annidx.Index(6, "euclidean")
    index.add_items(np.load(tmp_path / "v.npy", mmap_mode="r"))
    index.build(out=tmp_path / "out.annidx", memory_limit=1 << 30)
    assert index.path == str(tmp_path / "out.annidx")
    built(points).save(tmp_path / "saved.annidx")
    assert (tmp_path / "out.annidx").read_bytes() == (tmp_path / "saved.annidx").read_bytes()
    np.testing.assert_array_equal(index.get_vectors(range(300)), points)


def test_the_number_of_threads_does_not_change_the_bytes(rng: Rng, tmp_path: Path) -> None:
    given = rng.standard_normal((3000, 20)).astype(np.float32)
    for jobs in (1, 2, -1):
        built(given, "angular", n_jobs=jobs, seed=3).save(tmp_path / f"{jobs}")
    assert len({(tmp_path / f"{jobs}").read_bytes() for jobs in (1, 2, -1)}) == 1


def test_build_options(rng: Rng) -> None:
    given = rng.standard_normal((500, 8)).astype(np.float32)
    index = built(given, n_trees=3, recall=0.8, seed=2**64 - 1, queries=given[:50] + 0.01)
    facts = index.info()
    assert (facts["n_trees"], facts["seed"]) == (3, 2**64 - 1)
    assert abs(facts["default_recall"] - 0.8) < 1e-6


# ---- progress and interruption ----------------------------------------------------------------


def test_progress_is_reported(rng: Rng) -> None:
    steps: list[tuple[str, int, int]] = []
    built(rng.standard_normal((3000, 8)), progress=lambda *step: steps.append(step))
    assert steps
    assert all(isinstance(stage, str) and 0 <= done <= total for stage, done, total in steps)


@pytest.mark.parametrize("with_tqdm", [False, True])
def test_progress_bar(
    rng: Rng, with_tqdm: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if with_tqdm:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    built(rng.standard_normal((3000, 8)), progress=True)
    captured = capsys.readouterr()
    assert "%" in captured.err and captured.out == ""


def test_the_simple_bar_goes_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", screen)
    with _progress.reporter(True) as report:
        assert report is not None
        for done in range(1001):
            report("first", done, 1000)
        report("second", 0, 0)
    lines = screen.getvalue().split("\n")
    assert lines[0].endswith("first: 100 %") and lines[1].endswith("second: 100 %")
    assert lines[0].count("\r") < 100


def test_an_exception_from_progress_stops_the_build(rng: Rng, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        raise Enough(stage)

    given = rng.standard_normal((3000, 8)).astype(np.float32)
    index = annidx.Index(8, "euclidean")
    index.add_items(given)
    with pytest.raises(Enough):
        index.build(progress=stop, out=tmp_path / "never")
    assert os.listdir(tmp_path) == []
    assert not index.built
    index.add_items(given[:1])
    index.build()
    assert len(index.query(given[0], k=5)[0]) == 5


INTERRUPTED = """
import sys
import numpy as np
import annidx

index = annidx.Index(64, "euclidean")
index.add_items(np.random.default_rng(0).standard_normal((400_000, 64), dtype=np.float32))
try:
    index.build(n_jobs=2, out=sys.argv[1], progress=lambda *step: print("building", flush=True))
except KeyboardInterrupt:
    print("interrupted", index.built)
"""


def test_ctrl_c_stops_a_build_and_leaves_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(folder / "never.annidx")],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=300)
    assert rest.splitlines()[-1] == "interrupted False"
    assert process.returncode == 0
    assert os.listdir(folder) == []
