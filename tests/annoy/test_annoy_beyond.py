"""Owns the tests of what `annidx.AnnoyIndex` does and Annoy does not."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from annoy_suite import GOLDEN, built, check_damaged, filled, resident_bytes, vectors

import annidx
import annidx.annoy


def test_it_is_in_the_public_face() -> None:
    assert annidx.AnnoyIndex is annidx.annoy.AnnoyIndex


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_numbers_that_are_none(ours: ModuleType, value: float) -> None:
    index = built(ours, "euclidean", vectors(10, 3))
    index.unbuild()
    for kind in (list, tuple, np.array):
        wrong = kind([1.0, value, 2.0])
        with pytest.raises(ValueError, match=r"vector: expected finite numbers .* at place 1"):
            index.add_item(10, wrong)
        with pytest.raises(ValueError, match="vector: expected finite"):
            index.get_nns_by_vector(wrong, 1)
    assert index.get_n_items() == 10


def test_adding_to_a_built_index(ours: ModuleType) -> None:
    index = built(ours, "euclidean", vectors(10, 3))
    with pytest.raises(Exception, match="You can't add an item to a built index"):
        index.add_item(10, [1, 2, 3])
    index.unbuild()
    index.add_item(10, [1, 2, 3])


@pytest.mark.parametrize("f", [0, -1, 65537])
def test_f_out_of_range(ours: ModuleType, f: int) -> None:
    with pytest.raises(ValueError, match=r"f: expected a whole number from 1 to 65535"):
        ours.AnnoyIndex(f, "angular")


def test_paths(ours: ModuleType, folder: Path) -> None:
    index = built(ours, "angular", vectors(10, 3))
    index.save(folder / "x.annidx")
    index.load(folder / "x.annidx")
    assert index.get_n_items() == 10


def test_a_vector_that_changes_while_it_is_read(ours: ModuleType) -> None:
    index = ours.AnnoyIndex(3, "euclidean")
    row: list[Any] = []

    class Shrinks:
        def __float__(self) -> float:
            row.clear()
            return 1.0

    row += [1.0, Shrinks(), 2.0]
    with pytest.raises(IndexError):
        index.add_item(0, row)

    class AddsMore:
        def __float__(self) -> float:
            index.add_item(0, [7, 8, 9])
            index.build(1)
            return 1.0

    with pytest.raises(Exception, match="built index"):
        index.add_item(1, [AddsMore(), 2.0, 3.0])
    assert index.get_item_vector(0) == [7.0, 8.0, 9.0]


def test_holes_cost_nothing(ours: ModuleType) -> None:
    index = ours.AnnoyIndex(8, "euclidean")
    before = resident_bytes()
    for item in (2**31 - 2, 5, 10**9):
        index.add_item(item, [item % 97] * 8)
    assert index.get_n_items() == 2**31 - 1
    index.build(10)
    index.save("x.annidx")
    assert resident_bytes() - before < 32 << 20
    assert os.path.getsize("x.annidx") < 16 << 10
    index.load("x.annidx")
    assert index.get_n_items() == 2**31 - 1
    assert index.get_nns_by_item(5, 1) == [5]
    assert sorted(index.get_nns_by_vector([0] * 8, 5)) == [5, 10**9, 2**31 - 2]
    assert index.get_item_vector(10**9) == [float(10**9 % 97)] * 8
    with pytest.raises(IndexError):
        index.add_item(2**31 - 1, [0] * 8)


def test_items_in_any_order_give_the_same_file(ours: ModuleType) -> None:
    rows = vectors(3000, 6)
    order = np.random.default_rng(1).permutation(3000)
    built(ours, "euclidean", rows, 3).save("sorted.annidx")
    index = filled(ours, "euclidean", rows[order], order)
    index.build(3)
    index.save("shuffled.annidx")
    assert Path("shuffled.annidx").read_bytes() == Path("sorted.annidx").read_bytes()
    for item in range(0, 3000, 100):
        assert index.get_item_vector(item) == rows[item].tolist()


@pytest.mark.parametrize("on_disk", [False, True])
def test_many_chunks(ours: ModuleType, metric: str, on_disk: bool) -> None:
    """Enough for chunks that are mapped, with replacements and out of order."""
    f, count = 3000, 600
    rows = vectors(count, f, metric)
    index = ours.AnnoyIndex(f, metric)
    if on_disk:
        index.on_disk_build("x.annidx")
    for item in range(count - 1, -1, -1):
        index.add_item(2 * item, rows[(item * 7) % count])
    for item in range(count):
        index.add_item(2 * item, rows[item])
    for state in ("filling", "built"):
        for item in range(0, count, 37):
            assert index.get_item_vector(2 * item) == rows[item].tolist()
        if state == "filling":
            index.build(1)
    assert index.get_nns_by_item(200, 1)[0] == 200 or metric == "dot"
    index.unbuild()
    assert index.get_item_vector(600) == rows[300].tolist()
    assert sorted(os.listdir(".")) == (["x.annidx"] if on_disk else [])


def test_on_disk_keeps_what_was_added_before(ours: ModuleType) -> None:
    rows = vectors(100, 5)
    index = filled(ours, "euclidean", rows[:40], range(0, 80, 2))
    index.on_disk_build("x.annidx")
    for item in range(40, 100):
        index.add_item(2 * item, rows[item])
    index.build(2)
    assert [index.get_item_vector(2 * item) for item in range(100)] == rows.tolist()
    index.save("y.annidx")
    other = ours.AnnoyIndex(5, "euclidean")
    other.load("y.annidx")
    assert other.get_n_items() == 199
    with pytest.raises(OSError):
        other.on_disk_build("z.annidx")


def test_a_failed_build_keeps_the_items(ours: ModuleType, folder: Path) -> None:
    rows = vectors(3000, 100)
    index = ours.AnnoyIndex(100, "euclidean")
    os.mkdir("sub")
    index.on_disk_build("sub/x.annidx")
    for item, row in enumerate(rows):
        index.add_item(item, row)
    os.rename("sub", "gone")
    with pytest.raises(OSError):
        index.build(2)
    os.rename("gone", "sub")
    index.add_item(3000, rows[0])
    assert index.build(2) is True
    assert index.get_item_vector(2999) == rows[2999].tolist()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_fills_its_own_copy(ours: ModuleType) -> None:
    rows = vectors(3000, 300)
    index = filled(ours, "euclidean", rows[:2000])
    context = multiprocessing.get_context("fork")
    done = context.Event()

    def child() -> None:
        for item in range(2000, 3000):
            index.add_item(item, rows[item])
        index.add_item(5, rows[2999])
        index.build(1)
        if index.get_item_vector(2500) == rows[2500].tolist():
            done.set()

    process = context.Process(target=child)
    process.start()
    process.join(60)
    assert done.is_set()
    assert index.get_item_vector(5) == rows[5].tolist()
    index.add_item(2000, rows[2001])
    assert index.get_item_vector(2000) == rows[2001].tolist()


def test_load_and_queries_from_many_threads(ours: ModuleType) -> None:
    names = []
    for number in (1, 2):
        name = f"{number}.annidx"
        built(ours, "euclidean", vectors(500 * number, 6)).save(name)
        names.append(name)
    names.append(str(GOLDEN / "holes.ann"))
    index = ours.AnnoyIndex(6, "euclidean")
    index.load(names[0])
    stop = threading.Event()
    trouble: list[Exception] = []

    def ask() -> None:
        try:
            while not stop.is_set():
                answer = index.get_nns_by_vector([0.0] * 6, 7)
                assert len(answer) in (0, 7)
                index.get_item_vector(100)
        except Exception as error:
            trouble.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(200):
        index.load(names[turn % 2])
    stop.set()
    for thread in threads:
        thread.join()
    assert trouble == []


def test_files_of_annidx_itself(ours: ModuleType) -> None:
    rows = vectors(200, 5)

    def saved(metric: str = "euclidean", **options: Any) -> None:
        index = annidx.Index(5, metric, dtype=options.pop("dtype", None))
        index.add_items(rows, options.pop("ids", None))
        index.build()
        index.save("x.annidx")

    index = ours.AnnoyIndex(5, "euclidean")
    saved()
    index.load("x.annidx")
    assert (index.get_n_items(), index.get_n_trees()) == (200, 1)
    saved(ids=np.arange(200) * 3 + 1)
    index.load("x.annidx")
    assert index.get_n_items() == 599
    assert index.get_nns_by_item(4, 1) == [4]
    assert index.get_item_vector(4) == rows[1].tolist()
    saved(dtype="float16")
    index.load("x.annidx")
    assert index.get_item_vector(4) == rows[4].astype(np.float16).tolist()
    saved(ids=np.arange(200) - 5)
    with pytest.raises(OSError, match="has ids from -5 to 194"):
        index.load("x.annidx")
    saved(ids=[str(i) for i in range(200)])
    with pytest.raises(OSError, match="has text ids"):
        index.load("x.annidx")
    saved("manhattan")
    with pytest.raises(OSError, match="'manhattan' with f=5, not 'euclidean' with f=5"):
        index.load("x.annidx")
    saved()
    with pytest.raises(OSError, match="f=5, not 'euclidean' with f=6"):
        ours.AnnoyIndex(6, "euclidean").load("x.annidx")
    # What could not be loaded left the index as it was.
    assert index.get_item_vector(4) == rows[4].astype(np.float16).tolist()


def test_files_can_be_opened_by_annidx(ours: ModuleType) -> None:
    rows = vectors(200, 5)
    built(ours, "euclidean", rows, ids=range(0, 600, 3)).save("x.annidx")
    with annidx.load("x.annidx") as index:
        assert (index.dim, index.metric, len(index)) == (5, "euclidean", 200)
        assert index.query(rows[7], k=1)[0].tolist() == [21]
        index.verify()
        assert index.metadata == {"annoy_n_items": 598}


def test_damaged_annidx_files(ours: ModuleType) -> None:
    built(ours, "euclidean", vectors(300, 5), ids=range(0, 600, 2)).save("x.annidx")
    whole = Path("x.annidx").read_bytes()
    source = random.Random(4)
    index = ours.AnnoyIndex(5, "euclidean")
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(source.randrange(1, 4)):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        check_damaged(index, bytes(damaged))
    for length in range(0, len(whole), 997):
        check_damaged(index, whole[:length])
