"""Owns the tests of `ids`, iteration, and what is written for other programs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import annidx

ITEMS, DIM = 300, 5
TEXTS = [f"käse {i * 7919 % 1000}" for i in range(ITEMS)]
NUMBERS = [(i * 7919) % 100_003 - 50_000 for i in range(ITEMS)]


def built(ids: Sequence[Any] | None, metric: str = "euclidean") -> annidx.Index:
    source = np.random.default_rng(1)
    index = annidx.Index(DIM, metric)
    if metric == "hamming":
        index.add_items(source.integers(2, size=(ITEMS, DIM), dtype=np.uint8), ids)
    else:
        index.add_items(source.normal(size=(ITEMS, DIM)).astype(np.float32), ids)
    index.build()
    return index


def test_integer_ids_are_an_array_in_row_order() -> None:
    for given, expected in ((None, list(range(ITEMS))), (NUMBERS, NUMBERS)):
        index = built(given)
        assert index.ids.dtype == np.int64
        assert index.ids.tolist() == expected and list(index) == expected
        index.ids[0] = 99  # a copy
        assert index.ids.tolist() == expected


def test_text_ids_are_a_sequence_that_makes_each_as_it_is_asked_for() -> None:
    index = built(TEXTS)
    ids = index.ids
    assert isinstance(ids, Sequence) and len(ids) == ITEMS
    assert list(ids) == TEXTS and list(index) == TEXTS and list(reversed(ids)) == TEXTS[::-1]
    for place in (0, 1, ITEMS - 1, -1, -ITEMS):
        assert ids[place] == TEXTS[place]
    for part in (slice(None), slice(10, 20), slice(None, None, -7), slice(5, 5), slice(-3, None)):
        assert ids[part] == TEXTS[part]
    for place in (ITEMS, -ITEMS - 1):
        with pytest.raises(IndexError, match=f"expected a row below {ITEMS}, got {place}"):
            ids[place]
    assert TEXTS[4] in ids and "no such" not in ids and 4 not in ids
    assert repr(ids).startswith("TextIds([") and repr(ids).endswith("300 ids)")
    index.close()
    with pytest.raises(annidx.StateError):
        ids[0]


def test_ids_need_a_built_index() -> None:
    index = annidx.Index(DIM, "euclidean")
    index.add_items(np.eye(DIM), [5, 6, 7, 8, 9])
    with pytest.raises(annidx.StateError):
        _ = index.ids


def test_a_following_index_gives_the_ids_of_its_file(tmp_path: Path) -> None:
    built(TEXTS).save(tmp_path / "x.annidx")
    with annidx.load(tmp_path / "x.annidx", follow=True) as live:
        assert list(live.ids) == TEXTS == list(live)


@pytest.mark.parametrize("ids", [None, NUMBERS, TEXTS], ids=["rows", "numbers", "texts"])
def test_exported_vectors_are_those_of_the_index(ids: Any, tmp_path: Path) -> None:
    index = built(ids)
    expected = index.get_vectors(index.ids if ids is not TEXTS else TEXTS)
    index.export(tmp_path / "x.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)
    parquet = pytest.importorskip("pyarrow.parquet")
    index.export(tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table["id"].to_pylist() == list(index)
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), expected)
    assert sorted(os.listdir(tmp_path)) == ["x.npy", "x.parquet"]


def test_exported_bits(tmp_path: Path) -> None:
    index = built(None, "hamming")
    index.export(tmp_path / "bits.npy")
    index.export(tmp_path / "packed.npy", packed=True)
    bits = np.load(tmp_path / "bits.npy")
    assert bits.shape == (ITEMS, DIM)
    np.testing.assert_array_equal(np.packbits(bits, axis=1), np.load(tmp_path / "packed.npy"))


def test_an_export_replaces_no_index_of_its_own_and_leaves_nothing(tmp_path: Path) -> None:
    index = built(None)
    index.save(tmp_path / "own.npy")
    loaded = annidx.load(tmp_path / "own.npy")
    os.link(tmp_path / "own.npy", tmp_path / "link.npy")
    for name in ("own.npy", "link.npy"):
        with pytest.raises(ValueError, match="another file than the index's own"):
            loaded.export(tmp_path / name)
    with pytest.raises(ValueError, match=r"an ending of \.npy or \.parquet"):
        loaded.export(tmp_path / "x.csv")
    with pytest.raises(ValueError, match="packed"):
        loaded.export(tmp_path / "x.npy", packed=True)
    with pytest.raises(OSError, match="missing"):
        loaded.export(tmp_path / "missing" / "x.npy")
    assert sorted(os.listdir(tmp_path)) == ["link.npy", "own.npy"]
    annidx.verify(tmp_path / "own.npy")
