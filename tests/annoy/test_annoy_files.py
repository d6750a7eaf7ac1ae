"""Owns the tests of files that Annoy wrote: read, refused when damaged, converted."""

from __future__ import annotations

import itertools
import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from annoy_suite import EVERYTHING, GOLDEN, GOLDEN_NAMES, built, check_damaged, raises, vectors

import annidx
import annidx.annoy


def golden(name: str) -> tuple[str, int, int, int, list[tuple[int, int, list[float], Any, Any]]]:
    """Read what Annoy answered from a golden file: see golden/annoy/make.py."""
    lines = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").split("\n")
    metric, *numbers = lines[0].split()
    f, n_items, n_trees = map(int, numbers)
    questions = []
    for asked, ids, far in zip(lines[1::3], lines[2::3], lines[3::3], strict=False):
        search_k, n, *query = asked.split()
        questions.append(
            (
                int(search_k),
                int(n),
                list(map(float, query)),
                list(map(int, ids.split())),
                list(map(float, far.split())),
            )
        )
    return metric, f, n_items, n_trees, questions


@pytest.mark.parametrize("name", GOLDEN_NAMES)
@pytest.mark.parametrize("prefault", [False, True])
def test_golden_files(package: ModuleType, name: str, prefault: bool) -> None:
    metric, f, n_items, n_trees, questions = golden(name)
    index = package.AnnoyIndex(f, metric)
    assert index.load(str(GOLDEN / f"{name}.ann"), prefault=prefault) is True
    assert (index.get_n_items(), index.get_n_trees()) == (n_items, n_trees)
    assert len(questions) == 12
    for search_k, n, query, ids, far in questions:
        got = index.get_nns_by_vector(query, n, search_k, include_distances=True)
        assert got[0] == ids
        assert got[1] == pytest.approx(far, rel=1e-5, abs=1e-3)
    if n_items:
        raises(
            lambda: index.add_item(0, [0.0] * f),
            Exception,
            "You can't add an item to a loaded index",
        )
        assert len(index.get_item_vector(n_items - 1)) == f


@pytest.mark.parametrize("f", [1, 2, 5, 16, 33, 64, 130])
@pytest.mark.parametrize("count", [2, 30, 3000])
def test_files_of_annoy_answer_as_in_annoy(metric: str, f: int, count: int) -> None:
    annoy = pytest.importorskip("annoy")
    rows = vectors(count, f, metric)
    theirs = built(annoy, metric, rows, 6)
    theirs.save("x.ann")
    index = annidx.annoy.AnnoyIndex(f, metric)
    index.load("x.ann")
    assert index.get_n_items() == theirs.get_n_items()
    assert index.get_n_trees() == theirs.get_n_trees()
    assert index.get_item_vector(count - 1) == theirs.get_item_vector(count - 1)
    same = 0
    queries = vectors(40, f, metric, seed=5)
    for query, search_k in itertools.product(queries, (-1, 1, 40, 400, EVERYTHING)):
        got, far = index.get_nns_by_vector(query, 10, search_k, True)
        expected, their_far = theirs.get_nns_by_vector(query, 10, search_k, True)
        same += got == expected
        assert far == pytest.approx(their_far, rel=1e-4, abs=2e-3)
    # Neighbours at distances that only rounding tells apart may change places; in a few dimensions
    # that is many of them.
    assert same >= (0.97 if f > 2 else 0.1) * 200


def test_a_file_of_annoy_is_saved_as_it_is(ours: ModuleType) -> None:
    index = ours.AnnoyIndex(5, "angular")
    index.load(str(GOLDEN / "angular.ann"))
    before = index.get_nns_by_item(3, 10, include_distances=True)
    index.save("copy.ann")
    assert Path("copy.ann").read_bytes() == (GOLDEN / "angular.ann").read_bytes()
    assert index.get_nns_by_item(3, 10, include_distances=True) == before


@pytest.mark.parametrize("name", ["angular", "euclidean", "manhattan", "dot", "hamming", "holes"])
def test_wrong_f_for_files_of_annoy(ours: ModuleType, name: str) -> None:
    metric, f, *_ = golden(name)
    for wrong in range(1, 4 * f):
        if wrong == f or (metric == "hamming" and f < wrong <= 128):
            continue
        with pytest.raises(OSError):
            ours.AnnoyIndex(wrong, metric).load(str(GOLDEN / f"{name}.ann"))


@pytest.mark.parametrize("name", ["angular", "euclidean", "manhattan", "dot", "hamming", "holes"])
def test_damaged_files_of_annoy(ours: ModuleType, name: str) -> None:
    metric, f, *_ = golden(name)
    whole = (GOLDEN / f"{name}.ann").read_bytes()
    index = ours.AnnoyIndex(f, metric)
    assert check_damaged(index, whole)
    node = node_bytes(metric, f)
    for length in range(node, len(whole), node):
        assert not check_damaged(index, whole[:length])
        assert not check_damaged(index, whole[: length - 1])
    source = random.Random(name)
    answered = 0
    for _ in range(250):
        damaged = bytearray(whole)
        place = source.randrange(len(whole) // 4) * 4
        kind = source.randrange(4)
        if kind == 0:
            damaged[place : place + 4] = struct.pack(
                "<i", source.choice([-1, 0, 1, 2**31 - 1, 149])
            )
        elif kind == 1:
            damaged[place] ^= 1 << source.randrange(8)
        elif kind == 2:
            damaged[place : place + 64] = source.choice([b"\0", b"\xff"]) * len(
                damaged[place : place + 64]
            )
        else:
            other = source.randrange(len(whole) // 4) * 4
            damaged[place : place + 8] = whole[other : other + len(damaged[place : place + 8])]
        answered += check_damaged(index, bytes(damaged))
    assert answered > 0


def node_bytes(metric: str, f: int) -> int:
    """Size of one node of Annoy's file."""
    if metric == "hamming":
        return 16 + (f + 63) // 64 * 8
    return (12 if metric == "angular" else 16) + 4 * f


def test_circles_in_files_of_annoy(ours: ModuleType) -> None:
    """Every split leads back to the last root: a query ends all the same."""
    metric, f, n_items, *_ = golden("euclidean")
    whole = bytearray((GOLDEN / "euclidean.ann").read_bytes())
    node = node_bytes(metric, f)
    last = len(whole) // node - 1
    for number in range(n_items, last + 1):
        (descendants,) = struct.unpack_from("<i", whole, number * node)
        if descendants > f + 2:
            struct.pack_into("<ii", whole, number * node + 8, last, last)
    check_damaged(ours.AnnoyIndex(f, metric), bytes(whole))


# ---- convert ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in GOLDEN_NAMES if name != "no_items"])
def test_convert(ours: ModuleType, name: str) -> None:
    metric, f, n_items, _, questions = golden(name)
    stages: list[str] = []
    count = ours.convert(
        GOLDEN / f"{name}.ann",
        "new.annidx",
        f,
        metric,
        progress=lambda stage, done, total: stages.append(stage),
    )
    assert stages
    annidx.verify("new.annidx")
    old = ours.AnnoyIndex(f, metric)
    old.load(str(GOLDEN / f"{name}.ann"))
    new = ours.AnnoyIndex(f, metric)
    new.load("new.annidx")
    assert new.get_n_items() == n_items
    with annidx.load("new.annidx") as index:
        assert len(index) == count
    for item in range(n_items):
        assert new.get_item_vector(item) == old.get_item_vector(item)
    for _, n, query, _, _ in questions:
        got = new.get_nns_by_vector(query, n, EVERYTHING, True)
        expected = old.get_nns_by_vector(query, n, EVERYTHING, True)
        assert got[0] == expected[0]
        assert got[1] == pytest.approx(expected[1], rel=1e-5, abs=1e-3)


def test_convert_refuses(ours: ModuleType) -> None:
    old = GOLDEN / "angular.ann"
    with pytest.raises(ValueError, match=r"metric: expected one of .*, got 'cosine'"):
        ours.convert(old, "x", 5, "cosine")
    with pytest.raises(ValueError, match="dim"):
        ours.convert(old, "x", 0, "angular")
    with pytest.raises(OSError):
        ours.convert(old, "x", 7, "angular")
    with pytest.raises(FileNotFoundError):
        ours.convert("nonexists", "x", 7, "angular")
    with pytest.raises(ValueError, match="holds no items"):
        ours.convert(GOLDEN / "no_items.ann", "x", 4, "angular")
    assert os.listdir(".") == []


def test_convert_on_the_command_line() -> None:
    command = [sys.executable, "-m", "annidx", "convert", str(GOLDEN / "dot.ann"), "new.annidx"]
    subprocess.run([*command, "--dim", "5", "--metric", "dot"], check=True, capture_output=True)
    with annidx.load("new.annidx") as index:
        assert (len(index), index.dim, index.metric) == (150, 5, "dot")
    command += ["--dim", "6", "--metric", "dot"]
    wrong = subprocess.run(command, check=False, capture_output=True, text=True)
    assert wrong.returncode != 0
    assert "Traceback" not in wrong.stderr and "dot.ann" in wrong.stderr


def test_metadata_is_kept(ours: ModuleType) -> None:
    index = annidx.Index(3, "dot")
    index.add_items(vectors(10, 3))
    index.build()
    index.save("x.annidx", metadata={"model": "7"})
    other = ours.AnnoyIndex(3, "dot")
    other.load("x.annidx")
    other.save("y.annidx")
    with annidx.load("y.annidx") as saved:
        assert json.dumps(saved.metadata) == '{"model": "7"}'
