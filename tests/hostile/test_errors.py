"""Owns the tests of refusals: each wrong call raises the right type and says what to do.

A message is held to name the argument, and to say what was expected and what came. After each
refusal the index is as it was.
"""

from __future__ import annotations

import errno
import inspect
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import annidx
from annidx.io import inputs

VECTORS = np.random.default_rng(3).standard_normal((40, 4)).astype(np.float32)
ONE = VECTORS[0]
NAN = float("nan")
INF = float("inf")


def spoiled(value: float, row: int = 7, dtype: Any = np.float32) -> Any:
    """Vectors of which one holds a bad value."""
    vectors = VECTORS.astype(dtype)
    vectors[row, 2] = value
    return vectors


@pytest.fixture
def filling() -> annidx.Index:
    """An index with 40 items that is not built."""
    index = annidx.Index(4, "euclidean")
    index.add_items(VECTORS)
    return index


@pytest.fixture(scope="module")
def index() -> annidx.Index:
    """The same, built."""
    index = annidx.Index(4, "euclidean")
    index.add_items(VECTORS)
    index.build()
    return index


@pytest.fixture(scope="module")
def bits() -> annidx.Index:
    """A hamming index of 13 bits."""
    index = annidx.Index(13, "hamming")
    index.add_items(np.eye(13))
    index.build()
    return index


def test_error_types() -> None:
    assert issubclass(annidx.FormatError, ValueError)
    assert issubclass(annidx.StateError, RuntimeError)


# ---- making ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, "dot"), "dim.*from 1.*0"),
        ((-3, "dot"), "dim.*-3"),
        ((65536, "dot"), "dim.*65535.*65536"),
        ((2.5, "dot"), "dim.*whole number.*2.5.*float"),
        ((True, "dot"), "dim.*True"),
        (("8", "dot"), "dim.*'8'"),
        ((None, "dot"), "dim.*None"),
        ((8, "l2"), 'metric.*"angular".*"hamming".*l2'),
        ((8, None), "metric.*None"),
        ((8, 3), "metric.*3"),
        ((8, ["dot"]), "metric"),
        ((8, "dot", "float64"), 'dtype.*"float32".*float64'),
        ((8, "dot", np.float32), "dtype.*float32"),
        ((8, "dot", "bits"), "dot.*bits|bits.*dot"),
        ((8, "dot", "uint8"), "dot.*uint8|uint8.*dot"),
        ((8, "angular", "uint8"), "angular.*uint8|uint8.*angular"),
        ((8, "hamming", "float32"), "hamming.*float32|float32.*hamming"),
    ],
)
def test_bad_index_arguments(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        annidx.Index(*arguments)


def test_an_index_is_made_once(index: annidx.Index) -> None:
    with pytest.raises(annidx.StateError, match="made already"):
        index.__init__(4, "dot")  # type: ignore[misc]
    assert index.metric == "euclidean" and len(index) == 40


# ---- adding ----------------------------------------------------------------------------------


BAD_VECTORS: list[tuple[Any, str]] = [
    (spoiled(NAN), "vectors.*row 7.*(nan|NaN)"),
    (spoiled(INF, 39), "vectors.*row 39.*inf"),
    (spoiled(NAN, 3, np.float64), "vectors.*row 3.*nan"),
    (spoiled(-INF, 3, np.float16), "row 3.*inf"),
    (spoiled(1e39, 5, np.float64), r"vectors.*row 5.*1e\+39.*float32"),
    (VECTORS[:, :3], r"vectors.*\(n, 4\).*\(40, 3\)"),
    (VECTORS[0], r"vectors.*\(n, 4\).*\(4,\)"),
    (VECTORS[None], r"vectors.*\(n, 4\).*\(1, 40, 4\)"),
    (3.0, r"vectors.*\(n, 4\).*\(\)"),
    ([], r"vectors.*\(n, 4\)"),
    ([[1, 2, 3, 4], [1, 2]], "vectors: expected 4 numbers in a row, row 1 has 2"),
    ([["a", "b", "c", "d"]], "vectors.*numbers.*<U1"),
    ([[1, 2, None, "x"]], "vectors: expected numbers, row 0 holds"),
    (VECTORS.astype(complex), "vectors.*complex"),
    (np.zeros((2, 4), "M8[s]"), "vectors.*datetime64"),
    (np.ma.masked_less(VECTORS, 0), "vectors.*masked"),
    (None, "vectors"),
    ("text", "vectors"),
]


@pytest.mark.parametrize("vectors_and_words", BAD_VECTORS, ids=lambda pair: pair[1])
@pytest.mark.parametrize("chunk", [1 << 20, 16])
def test_bad_vectors(
    filling: annidx.Index,
    vectors_and_words: tuple[Any, str],
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors, words = vectors_and_words
    monkeypatch.setattr(inputs, "CHUNK_BYTES", chunk)
    with pytest.raises(ValueError, match=words):
        filling.add_items(vectors)
    assert len(filling) == 40
    filling.add_items(VECTORS)
    filling.build()
    assert filling.query_exact(ONE, k=100)[0][:2].tolist() == [0, 40]


@pytest.mark.parametrize(
    ("dtype", "value", "given_as", "words"),
    [
        ("int8", 128, np.int64, "row 7.*128.*from -128 to 127"),
        ("int8", 200, np.uint8, "row 7.*200.*-128 to 127"),
        ("uint8", 256, np.int32, "row 7.*256.*from 0 to 255"),
        ("uint8", -1, np.int8, "row 7.*-1.*0 to 255"),
        ("uint8", 2**64 - 1, np.uint64, "row 7.*18446744073709551615"),
        ("uint8", 1.5, np.float32, "row 7.*1.5.*whole numbers"),
        ("uint8", NAN, np.float64, "row 7.*nan"),
        ("uint8", INF, np.float32, "row 7.*inf"),
        ("int8", NAN, np.float32, "row 7.*(nan|NaN)"),
        ("float16", 1e6, np.float32, "row 7.*1e.*6|row 7.*float16"),
        ("float16", 1e6, np.float64, "row 7.*1e.*6|row 7.*float16"),
        ("float16", INF, np.float16, "row 7.*inf"),
    ],
)
@pytest.mark.parametrize("chunk", [1 << 20, 8])
def test_values_that_the_dtype_cannot_hold(
    dtype: str, value: Any, given_as: Any, words: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "CHUNK_BYTES", chunk)
    index = annidx.Index(4, "euclidean", dtype)
    vectors = np.ones((10, 4), given_as)
    vectors[7, 3] = value
    with pytest.raises(ValueError, match=words):
        index.add_items(vectors)
    assert len(index) == 0


@pytest.mark.parametrize(
    ("vectors", "options", "words"),
    [
        (np.full((3, 13), 2), {}, "row 0.*2.*0 or 1"),
        ([[0.5] * 13], {}, "row 0.*0.5.*0 or 1"),
        ([[0] * 13, [NAN] * 13], {}, "row 1.*nan.*0 or 1"),
        ([[0] * 16], {}, r"\(n, 13\)"),
        (np.zeros((2, 13), np.uint8), {"packed": True}, r"\(n, 2\).*\(2, 13\)"),
        (np.zeros((2, 2), np.int64), {"packed": True}, "uint8.*int64"),
        (np.array([[0, 0], [0, 4]], np.uint8), {"packed": True}, "row 1.*bit 13.*zeros"),
    ],
)
def test_bad_bits(vectors: Any, options: dict[str, Any], words: str) -> None:
    index = annidx.Index(13, "hamming")
    with pytest.raises(ValueError, match=words):
        index.add_items(vectors, **options)
    assert len(index) == 0


def test_packed_is_for_hamming_only(filling: annidx.Index, index: annidx.Index) -> None:
    for call in (
        lambda: filling.add_items(np.zeros((2, 4), np.uint8), packed=True),
        lambda: index.query(ONE, packed=True),
        lambda: index.get_vectors([1], packed=True),
    ):
        with pytest.raises(ValueError, match="packed.*hamming"):
            call()


BAD_IDS: list[tuple[Any, str]] = [
    (range(39), "ids.*40 vectors.*39"),
    ([], "ids.*40 vectors.*0"),
    (5, "ids.*list or array.*5"),
    ("abc", "ids.*list or array.*'abc'"),
    (b"abc", "ids.*list or array"),
    (np.zeros((40, 1), int), r"ids.*\(n,\).*\(40, 1\)"),
    (np.arange(40.0), "ids.*integers or strings.*float64"),
    (np.arange(40) > 3, "ids.*integers or strings.*bool"),
    ([1.5] * 40, "ids.*1.5.*place 0"),
    ([True, *range(39)], "ids.*True.*place 0"),
    ([0, False, *range(38)], "ids.*False.*place 1"),
    ([*range(39), "a"], "ids.*'a'.*place 39"),
    (["a", *range(39)], "ids.*0 .int.*place 1"),
    ([b"a"] * 40, "ids.*b'a'.*place 0"),
    (np.array([b"a"] * 40), "ids.*S1"),
    ([None] * 40, "ids.*None.*place 0"),
    ([2**63, *range(39)], "ids.*int64"),
    (np.array([2**63] * 40, np.uint64), "ids.*int64.*9223372036854775808"),
    ([7, *range(39)], "7"),
    (["x", *"xyz", *(str(i) for i in range(36))], "x"),
    ([*(str(i) for i in range(39)), "\ud800"], "ids.*place 39.*UTF-8"),
    (np.array([4] * 40), "4"),
]


@pytest.mark.parametrize("ids_and_words", BAD_IDS, ids=lambda pair: pair[1])
@pytest.mark.parametrize("chunk", [1 << 20, 16])
@pytest.mark.parametrize("vectors", [VECTORS, VECTORS.astype(np.float64)], ids=["f4", "f8"])
def test_bad_ids(
    ids_and_words: tuple[Any, str], chunk: int, vectors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, words = ids_and_words
    monkeypatch.setattr(inputs, "CHUNK_BYTES", chunk)
    index = annidx.Index(4, "euclidean")
    with pytest.raises(ValueError, match=words):
        index.add_items(vectors, ids)
    assert len(index) == 0
    index.add_items(VECTORS, range(40))
    assert 39 in index


@pytest.mark.parametrize("chunk", [1 << 20, 16])
@pytest.mark.parametrize("vectors", [VECTORS, VECTORS.astype(np.float64)], ids=["f4", "f8"])
@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (range(40), range(39, 79), "39"),
        ([str(i) for i in range(40)], [str(i) for i in range(39, 79)], "39"),
        (range(40), [str(i) for i in range(40)], "kind|str|text|int"),
        ([str(i) for i in range(40)], range(40), "kind|str|text|int"),
        (None, range(100, 140), "id"),
        (range(40), None, "id"),
        ([str(i) for i in range(40)], None, "id"),
    ],
)
def test_ids_that_do_not_go_with_earlier_ones(
    first: Any, second: Any, words: str, chunk: int, vectors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "CHUNK_BYTES", chunk)
    index = annidx.Index(4, "euclidean")
    index.add_items(vectors, first)
    with pytest.raises(ValueError, match=words):
        index.add_items(vectors, second)
    assert len(index) == 40
    index.build()
    assert len(index.query(ONE, k=100)[0]) == 40


# ---- building --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_trees": 0}, "n_trees.*from 1.*0"),
        ({"n_trees": -1}, "n_trees.*-1"),
        ({"n_trees": 1.5}, "n_trees.*whole number.*1.5"),
        ({"n_trees": True}, "n_trees.*True"),
        ({"recall": 0}, "recall.*above 0.*0"),
        ({"recall": 1.01}, "recall.*1.01"),
        ({"recall": NAN}, "recall.*nan"),
        ({"recall": "0.9"}, "recall.*'0.9'"),
        ({"n_jobs": 0}, "n_jobs.*at least 1, or -1.*0"),
        ({"n_jobs": -2}, "n_jobs.*-2"),
        ({"n_jobs": 1.0}, "n_jobs.*1.0"),
        ({"n_jobs": True}, "n_jobs.*True"),
        ({"n_jobs": None}, "n_jobs.*None"),
        ({"seed": -1}, "seed.*-1"),
        ({"seed": 2**64}, "seed.*18446744073709551616"),
        ({"seed": 0.5}, "seed.*0.5"),
        ({"queries": VECTORS[:, :3]}, r"queries.*\(m, 4\).*\(40, 3\)"),
        ({"queries": VECTORS[0]}, r"queries.*\(m, 4\)"),
        ({"queries": VECTORS[:0]}, r"queries.*at least 1"),
        ({"queries": spoiled(NAN)}, "row 7.*(NaN|nan)"),
        ({"queries": spoiled(1e300, 7, np.float64)}, r"queries.*row 7.*1e\+300"),
        ({"progress": 3}, "progress.*callable.*3"),
        ({"out": 3}, "out.*PathLike.*3"),
        ({"out": b"x"}, "out.*str.*b'x'"),
        ({"out": ""}, "out.*name of a file.*''"),
        ({"out": "a\0b"}, "out.*name of a file"),
        ({"memory_limit": 1 << 30}, "memory_limit.*out="),
        ({"memory_limit": 0, "out": "x"}, "memory_limit.*0"),
        ({"memory_limit": "1GB", "out": "x"}, "memory_limit.*'1GB'"),
    ],
)
def test_bad_build_options(
    filling: annidx.Index,
    options: dict[str, Any],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        filling.build(**options)
    assert not filling.built and os.listdir(tmp_path) == []
    filling.build()


def test_an_empty_index_cannot_be_built() -> None:
    index = annidx.Index(4, "dot")
    with pytest.raises(ValueError, match="empty|no items|no vectors"):
        index.build()
    index.add_items(VECTORS)
    index.build()


# ---- asking ----------------------------------------------------------------------------------


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"k": 0}, "k: .*at least 1.*0"),
    ({"k": -5}, "k: .*-5"),
    ({"k": 2.0}, "k: .*whole number.*2.0"),
    ({"k": True}, "k: .*True"),
    ({"k": None}, "k: .*None"),
    ({"k": "10"}, "k: .*'10'"),
    ({"recall": 0}, "recall.*above 0.*0"),
    ({"recall": 1.5}, "recall.*at most 1.*1.5"),
    ({"recall": -0.1}, "recall.*-0.1"),
    ({"recall": NAN}, "recall.*nan"),
    ({"recall": "0.9"}, "recall.*'0.9'"),
    ({"recall": True}, "recall.*True"),
    ({"search_k": 0}, "search_k.*at least 1.*0"),
    ({"search_k": 1.5}, "search_k.*1.5"),
    ({"search_k": -1}, "search_k.*-1"),
    ({"radius": NAN}, "radius.*NaN"),
    ({"radius": "1"}, "radius.*number.*'1'"),
    ({"radius": [1]}, r"radius.*number.*\[1\]"),
    ({"n_jobs": 0}, "n_jobs.*0"),
    ({"n_jobs": -2}, "n_jobs.*-2"),
    ({"n_jobs": None}, "n_jobs.*None"),
    ({"n_jobs": 1.5}, "n_jobs.*1.5"),
    ({"allow": 5}, "allow.*list or array.*5"),
    ({"allow": "abc"}, "allow: expected ids, a mask, or the name of a set.*abc"),
    ({"deny": [1.5]}, "deny.*1.5.*place 0"),
    ({"allow": [1, "a"]}, "allow.*'a'.*place 1"),
    ({"allow": np.zeros(39, bool)}, r"allow.*mask.*\(40,\).*\(39,\)"),
    ({"deny": [True, False]}, r"deny.*mask.*\(40,\).*\(2,\)"),
    ({"allow": np.zeros(40)}, "allow.*float64"),
    ({"allow": [[1], [2], [3]]}, "allow.*each of the .* quer.*3"),
    ({"deny": [[1], None, [3]]}, "deny.*each of the .* quer.*3"),
]


def _calls_with_bad_options() -> list[Any]:
    return [
        pytest.param(ask, options, words, id=f"{ask}-{words}")
        for ask in ("query", "query_exact", "query_items")
        for options, words in BAD_OPTIONS
        if set(options) <= set(inspect.signature(getattr(annidx.Index, ask)).parameters)
    ]


@pytest.mark.parametrize(("ask", "options", "words"), _calls_with_bad_options())
@pytest.mark.parametrize("single", [True, False])
def test_bad_query_options(
    index: annidx.Index, ask: str, options: dict[str, Any], words: str, single: bool
) -> None:
    rows: Any = 3 if single else [3, 4]
    given = rows if ask == "query_items" else VECTORS[rows]
    with pytest.raises(ValueError, match=words):
        getattr(index, ask)(given, **options)


BAD_QUERIES: list[tuple[Any, str]] = [
    (ONE[:3], r"vectors.*\(4,\) or \(m, 4\).*\(3,\)"),
    (VECTORS[:, :2], r"vectors.*\(4,\) or \(m, 4\).*\(40, 2\)"),
    (VECTORS[None], r"vectors.*\(1, 40, 4\)"),
    (1.0, r"vectors.*\(\)"),
    ([], r"vectors.*\(0,\)"),
    (spoiled(NAN), "row 7.*(NaN|nan)"),
    (spoiled(-INF), "row 7.*inf"),
    (spoiled(NAN)[7], "(NaN|nan)"),
    (spoiled(INF, 7, np.float64), "vectors.*row 7.*inf"),
    (spoiled(1e100, 7, np.float64), r"vectors.*row 7.*1e\+100.*float32"),
    ("abcd", "vectors"),
    (None, "vectors"),
    (["a", "b", "c", "d"], "vectors.*numbers"),
]


@pytest.mark.parametrize("vectors_and_words", BAD_QUERIES, ids=lambda pair: pair[1])
@pytest.mark.parametrize("ask", ["query", "query_exact"])
def test_bad_queries(index: annidx.Index, vectors_and_words: tuple[Any, str], ask: str) -> None:
    vectors, words = vectors_and_words
    with pytest.raises(ValueError, match=words):
        getattr(index, ask)(vectors)


@pytest.mark.parametrize(
    ("vectors", "options", "words"),
    [
        ([0.5] * 13, {}, "0.5.*0 or 1"),
        ([0] * 12, {}, r"\(13,\)"),
        (np.zeros(13, np.uint8), {"packed": True}, r"\(2,\).*\(13,\)"),
        (np.zeros(2), {"packed": True}, "uint8.*float64"),
        (np.array([0, 1], np.uint8), {"packed": True}, "bit 13"),
    ],
)
def test_bad_queries_of_bits(
    bits: annidx.Index, vectors: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        bits.query(vectors, **options)


def test_unknown_items(index: annidx.Index) -> None:
    named = annidx.Index(4, "euclidean")
    named.add_items(VECTORS[:2], ["a", "b"])
    named.build()
    for call in (index.query_items, index.get_vectors):
        for ids in (40, -1, [3, 40], np.array([40]), 10**18):
            with pytest.raises(KeyError, match=r"^(40|-1|10{18})$"):
                call(ids)
        with pytest.raises(KeyError, match="'a'"):
            call("a")
        for bad in (1.5, True, None, [1.5], [[1]]):
            with pytest.raises(ValueError, match="ids"):
                call(bad)
    for call in (named.query_items, named.get_vectors):
        with pytest.raises(KeyError, match="'c'"):
            call(["a", "c"])
        with pytest.raises(KeyError, match="0"):
            call(0)


def test_bad_sets(index: annidx.Index, filling: annidx.Index) -> None:
    other = annidx.Index(4, "euclidean")
    other.add_items(VECTORS + 1)
    other.build()
    theirs, ours = annidx.IdSet(other, [1]), annidx.IdSet(index, [1])
    for options in ({"allow": theirs}, {"deny": theirs}, {"allow": [theirs]}):
        for vectors in (ONE, VECTORS[:1]):
            with pytest.raises(ValueError, match="IdSet.*another index"):
                index.query(vectors, **options)
    for combine in (lambda: ours & theirs, lambda: ours | theirs, lambda: ours - theirs):
        with pytest.raises(ValueError, match="different indexes"):
            combine()
    with pytest.raises(TypeError):
        ours & {1}  # type: ignore[operator]
    with pytest.raises(annidx.StateError, match="not built"):
        annidx.IdSet(filling, [1])
    with pytest.raises(ValueError, match="expected an Index"):
        annidx.IdSet([1], [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="items.*mask"):
        annidx.IdSet(index, [True])
    with pytest.raises(annidx.StateError, match="made already"):
        ours.__init__(index, [2])  # type: ignore[misc]
    assert [i for i in range(40) if i in ours] == [1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((VECTORS[:, :2],), r"queries.*\(m, 4\)"),
        ((ONE,), r"queries.*\(m, 4\)"),
        ((VECTORS[:0],), "queries.*at least 1"),
        ((spoiled(NAN),), "row 7.*(NaN|nan)"),
        ((VECTORS, 0), "k: .*0"),
        ((VECTORS, 1.5), "k: .*1.5"),
    ],
)
def test_bad_tuning(index: annidx.Index, arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        index.tune(*arguments)


# ---- states ----------------------------------------------------------------------------------


def _uses(index: annidx.Index, folder: Path) -> dict[str, Callable[[], Any]]:
    return {
        "query": lambda: index.query(ONE),
        "query of many": lambda: index.query(VECTORS),
        "query_exact": lambda: index.query_exact(ONE),
        "query_items": lambda: index.query_items(3),
        "tune": lambda: index.tune(VECTORS),
        "save": lambda: index.save(folder / "x"),
        "verify": index.verify,
        "residency": index.residency,
        "pickle": lambda: pickle.dumps(index),
        "get_vectors": lambda: index.get_vectors([3]),
        "IdSet": lambda: annidx.IdSet(index, [1]),
        "empty IdSet": lambda: annidx.IdSet(index, []),
    }


USES = tuple(_uses(annidx.Index(4, "dot"), Path()))


@pytest.mark.parametrize("use", USES)
def test_use_before_build(filling: annidx.Index, use: str, tmp_path: Path) -> None:
    with pytest.raises(annidx.StateError, match=r"not built.*build\(\)"):
        _uses(filling, tmp_path)[use]()
    assert os.listdir(tmp_path) == []


def test_what_an_unbuilt_index_can_do(filling: annidx.Index) -> None:
    assert len(filling) == 40 and 3 in filling and 40 not in filling and not filling.built
    assert filling.metadata is None and filling.info()["items"] == 40


@pytest.mark.parametrize("use", [*USES, "add", "build", "len", "in", "info", "metadata"])
@pytest.mark.parametrize("loaded", [False, True])
def test_use_after_close(use: str, loaded: bool, filling: annidx.Index, tmp_path: Path) -> None:
    index = filling
    index.build()
    if loaded:
        index.save(tmp_path / "closed")
        index = annidx.load(tmp_path / "closed")
    uses = _uses(index, tmp_path) | {
        "add": lambda: index.add_items(VECTORS),
        "build": index.build,
        "len": lambda: len(index),
        "in": lambda: 3 in index,
        "info": index.info,
        "metadata": lambda: index.metadata,
    }
    index.close()
    index.close()
    with pytest.raises(annidx.StateError, match="closed"):
        uses[use]()
    assert index.dim == 4 and index.closed


def test_a_set_of_a_closed_index(filling: annidx.Index) -> None:
    filling.build()
    items = annidx.IdSet(filling, [1, 2])
    filling.close()
    with pytest.raises(annidx.StateError, match="closed"):
        1 in items  # noqa: B015
    assert len(items) == 2


@pytest.mark.parametrize("loaded", [False, True])
def test_changes_after_build(filling: annidx.Index, loaded: bool, tmp_path: Path) -> None:
    filling.build()
    filling.save(tmp_path / "x")
    index = annidx.load(tmp_path / "x") if loaded else filling
    with pytest.raises(ValueError, match="already in the index"):
        index.add_items(VECTORS[:1], [0])
    with pytest.raises(annidx.StateError, match="built"):
        index.build()
    assert len(index.query(ONE, k=100)[0]) == 40


def test_an_index_that_was_never_made() -> None:
    index = annidx.Index.__new__(annidx.Index)
    for call in (lambda: len(index), lambda: index.query(ONE), index.verify):
        with pytest.raises(annidx.StateError):
            call()
    assert len(annidx.IdSet.__new__(annidx.IdSet)) == 0
    assert 1 not in annidx.IdSet.__new__(annidx.IdSet)


# ---- files -----------------------------------------------------------------------------------


def test_files_that_are_not_there(index: annidx.Index, tmp_path: Path) -> None:
    missing = tmp_path / "no" / "such"
    calls: list[Callable[[], Any]] = [
        lambda: annidx.load(missing),
        lambda: annidx.verify(missing),
        lambda: index.save(missing),
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError, match="No such file") as caught:
            call()
        assert caught.value.errno == errno.ENOENT
        assert caught.value.filename == str(missing)
        assert str(caught.value).count(str(missing)) == 1


def test_folders_are_not_files(index: annidx.Index, tmp_path: Path) -> None:
    for call in (annidx.load, annidx.verify):
        with pytest.raises(OSError, match=re.escape(str(tmp_path))):
            call(tmp_path)
    with pytest.raises(OSError, match=re.escape(str(tmp_path))) as caught:
        index.save(tmp_path)
    assert caught.value.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_permissions(index: annidx.Index, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    (tmp_path / "x").chmod(0)
    with pytest.raises(PermissionError):
        annidx.load(tmp_path / "x")


@pytest.mark.parametrize("path", [3, None, b"bytes", "", "a\0b"])
def test_bad_paths(index: annidx.Index, path: Any) -> None:
    for call in (annidx.load, annidx.verify, index.save):
        # To load, bytes are an index.
        words = "path" if call != annidx.load or path != b"bytes" else "not an annidx file"
        with pytest.raises(ValueError, match=words):
            call(path)


def test_three_ways_of_not_being_a_file(index: annidx.Index, tmp_path: Path) -> None:
    index.save(tmp_path / "good")
    good = (tmp_path / "good").read_bytes()
    newer = bytearray(good)
    newer[8:12] = (99).to_bytes(4, "little")
    files = {
        "not an annidx file": b"PNG" + bytes(1000),
        "damaged|truncated|checksum|bytes": good[:-40],
        "newer|version 99|format 99": bytes(newer),
    }
    for place, (words, content) in enumerate(files.items()):
        path = tmp_path / f"bad{place}"
        path.write_bytes(content)
        for call in (annidx.load, annidx.verify):
            with pytest.raises(annidx.FormatError, match=words) as caught:
                call(path)
            assert str(path) in str(caught.value)
    for content in (b"", b"\x89ANNIDX\n", good[:100]):
        (tmp_path / "short").write_bytes(content)
        with pytest.raises(annidx.FormatError):
            annidx.load(tmp_path / "short")


def test_verify_finds_damage_that_loading_does_not_look_for(
    index: annidx.Index, tmp_path: Path
) -> None:
    index.save(tmp_path / "x", metadata={"a": "b"})
    content = bytearray((tmp_path / "x").read_bytes())
    section = next(s for s in index.info()["sections"] if s["name"] == "vectors")
    content[section["offset"] + 5] ^= 16
    (tmp_path / "x").write_bytes(content)
    damaged = annidx.load(tmp_path / "x")
    with pytest.raises(annidx.FormatError, match="vectors"):
        damaged.verify()
    with pytest.raises(annidx.FormatError, match="vectors"):
        annidx.verify(tmp_path / "x")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ([1], r"metadata.*dict.*\[1\]"),
        ("x", "metadata.*dict"),
        ({"a": {1, 2}}, "metadata.*JSON"),
        ({"a": NAN}, "metadata.*JSON"),
        ({(1, 2): 3}, "metadata.*JSON"),
        ({"a": "\ud800"}, "metadata.*JSON"),
        ({"a": b"bytes"}, "metadata.*JSON"),
    ],
)
def test_bad_metadata(index: annidx.Index, metadata: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        index.save(tmp_path / "x", metadata)
    endless: dict[str, Any] = {}
    endless["a"] = endless
    with pytest.raises(ValueError, match="metadata.*JSON"):
        index.save(tmp_path / "x", endless)
    assert os.listdir(tmp_path) == []


def test_pickle_of_a_replaced_file(filling: annidx.Index, tmp_path: Path) -> None:
    filling.build()
    filling.save(tmp_path / "x")
    pickled = pickle.dumps(annidx.load(tmp_path / "x"))
    other = annidx.Index(4, "euclidean")
    other.add_items(VECTORS * 2)
    other.build()
    other.save(tmp_path / "x")
    with pytest.raises(annidx.FormatError, match="another index"):
        pickle.loads(pickled)
    os.unlink(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickled)


def test_damaged_pickle() -> None:
    built = annidx.Index(4, "euclidean")
    built.add_items(VECTORS)
    built.build()
    rebuild, (image,) = built.__reduce__()
    assert len(rebuild(image)) == 40
    for damaged in (image[:-8], b"", b"x" + image[1:]):
        with pytest.raises(annidx.FormatError):
            rebuild(damaged)


LOW_MEMORY = """
import resource
import numpy as np
import annidx

vectors = np.random.default_rng(0).standard_normal((20_000, 64), dtype=np.float32)
index = annidx.Index(64, "euclidean")
index.add_items(vectors[:1000])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 20), limit[1]))
try:
    index.add_items(vectors)
except MemoryError:
    print("MemoryError", len(index))
resource.setrlimit(resource.RLIMIT_AS, limit)
index.add_items(vectors[:10])
index.build(n_jobs=1)
print(len(index.query(vectors[0], k=2000)[0]))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux")
def test_too_little_memory(run_python: Any) -> None:
    result = run_python(LOW_MEMORY)
    assert result.stdout.splitlines() == ["MemoryError 1000", "1010"], result.stderr
