"""Indexes that follow their file: what is answered from which file, and what ends when.

The file of generation g holds 40 vectors, all equal to g: a query of any vector tells by its
distances which file answered, and that one file answered all of it.
"""

from __future__ import annotations

import gc
import math
import os
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import annidx
from annidx import follow
from annidx.follow import FollowingIndex

DIM, ITEMS = 4, 40
ZERO = np.zeros(DIM, np.float32)


def publish(path: Path, generation: int, *, dim: int = DIM, ids: list[str] | None = None) -> None:
    """Replace the file by that of a generation."""
    index = annidx.Index(dim, "manhattan")
    index.add_items(np.full((ITEMS, dim), generation, np.float32), ids=ids)
    index.build(n_jobs=1)
    index.save(path, metadata={"generation": generation})


def generation_of(index: FollowingIndex | annidx.Index) -> int:
    """Ask, and tell from the answer which file gave it."""
    _, distances = index.query(ZERO, k=ITEMS)
    assert len(distances) == ITEMS
    assert (distances == distances[0]).all(), "an answer came from two files"
    return int(distances[0]) // DIM


def mapped(path: Path) -> int:
    """Count this process's mappings of the file, deleted ones of the same name included."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        return sum(str(path) in line for line in file)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of generation 1."""
    path = tmp_path / "index.annidx"
    publish(path, 1)
    return path


@pytest.fixture
def eager(path: Path) -> Iterator[FollowingIndex]:
    """Looks at the path before each question."""
    with FollowingIndex(path, interval=0.0) as index:
        yield index


@pytest.fixture
def manual(path: Path) -> Iterator[FollowingIndex]:
    """Looks at the path when told to."""
    with FollowingIndex(path, interval=math.inf) as index:
        yield index


def test_a_new_file_takes_over(path: Path, eager: FollowingIndex) -> None:
    for generation in (2, 3, 4):
        publish(path, generation)
        assert generation_of(eager) == generation
        assert eager.metadata == {"generation": generation}
        assert eager.info()["metadata"] == {"generation": generation}


def test_manual(path: Path, manual: FollowingIndex) -> None:
    publish(path, 2)
    assert generation_of(manual) == 1
    assert manual.reload_if_changed() is True
    assert generation_of(manual) == 2
    assert manual.reload_if_changed() is False


def test_looks_are_as_rare_as_asked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interval = 0.1
    looks: list[str] = []
    stamp_of = follow._stamp_of

    def counted(path: str) -> tuple[int, ...]:
        looks.append(path)
        return stamp_of(path)

    with annidx.load(path, follow=True, interval=interval) as index:
        monkeypatch.setattr(follow, "_stamp_of", counted)
        began = time.monotonic()
        while time.monotonic() < began + 0.35:
            index.query(ZERO)
        passed = time.monotonic() - began
        assert 1 <= len(looks) <= passed / interval + 1
        publish(path, 2)
        time.sleep(1.1 * interval)
        assert generation_of(index) == 2


def test_an_index_that_does_not_follow_says_how_to(path: Path) -> None:
    with annidx.load(path) as index, pytest.raises(annidx.StateError, match="follow=True"):
        index.reload_if_changed()


def test_a_generation_in_use_stays(path: Path, eager: FollowingIndex) -> None:
    old = eager.current
    publish(path, 2)
    assert generation_of(eager) == 2
    assert generation_of(old) == 1
    assert mapped(path) == 2
    del old
    gc.collect()
    assert mapped(path) == 1


def test_one_question_is_asked_of_one_file(path: Path, eager: FollowingIndex) -> None:
    """A batch that is under way when the file is replaced ends on its own file."""
    many = np.zeros((20_000, DIM), np.float32)
    answers: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: answers.append(eager.query(many, k=ITEMS)[1]))
    thread.start()
    for generation in range(2, 7):
        publish(path, generation)
        generation_of(eager)
    thread.join()
    assert (answers[0] == answers[0][0, 0]).all()


def bad_bytes(path: Path) -> None:
    """Replace the file by one that is damaged."""
    damaged = bytearray(path.read_bytes())
    damaged[50] ^= 1
    other = path.with_suffix(".new")
    other.write_bytes(damaged)
    os.replace(other, path)


UNFIT: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "damaged": (bad_bytes, annidx.FormatError, "damaged"),
    "missing": (Path.unlink, FileNotFoundError, "No such file"),
    "other dimension": (lambda path: publish(path, 2, dim=5), ValueError, "dim"),
    "other ids": (
        lambda path: publish(path, 2, ids=[f"id {i}" for i in range(ITEMS)]),
        ValueError,
        "ids",
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_an_unfit_file_does_not_take_over(path: Path, eager: FollowingIndex, kind: str) -> None:
    replace, error, words = UNFIT[kind]
    replace(path)
    with pytest.warns(RuntimeWarning, match=words):
        assert generation_of(eager) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert generation_of(eager) == 1  # told once
    with pytest.raises(error, match=words):
        eager.reload_if_changed()
    assert generation_of(eager) == 1
    publish(path, 3)
    assert generation_of(eager) == 3


def test_close(path: Path) -> None:
    index = FollowingIndex(path)
    assert not index.closed
    index.close()
    index.close()
    assert index.closed and mapped(path) == 0
    for question in (lambda: index.query(ZERO), lambda: len(index), index.reload_if_changed):
        with pytest.raises(annidx.StateError, match="closed"):
            question()
    assert "closed" in repr(index)


def test_it_is_asked_like_an_index(path: Path, eager: FollowingIndex) -> None:
    with annidx.load(path) as index:
        assert len(eager) == len(index) == ITEMS
        assert (3 in eager, 999 in eager) == (True, False)
        assert (eager.dim, eager.metric, eager.dtype) == (index.dim, index.metric, index.dtype)
        assert eager.path == index.path
        assert eager.info() == index.info()
        np.testing.assert_array_equal(eager.get_vectors([1, 2]), index.get_vectors([1, 2]))
        for name, arguments in (("query", ZERO), ("query_exact", ZERO), ("query_items", [1, 2])):
            found, expected = (getattr(one, name)(arguments, k=3) for one in (eager, index))
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])
        eager.verify()
        assert 0 <= eager.residency() <= 1
    assert "Find the nearest neighbours" in (FollowingIndex.query.__doc__ or "")


def test_pickle(path: Path, eager: FollowingIndex) -> None:
    with pickle.loads(pickle.dumps(eager)) as copy:
        publish(path, 2)
        assert generation_of(copy) == 2


@pytest.mark.parametrize("interval", [-1.0, math.nan, "often"])
def test_intervals_that_are_none(path: Path, interval: float) -> None:
    with pytest.raises(ValueError, match="interval"):
        FollowingIndex(path, interval=interval)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        annidx.load(tmp_path / "missing", follow=True)


def test_the_child_of_a_fork_follows_for_itself(path: Path, eager: FollowingIndex) -> None:
    """Also when a thread that does not exist in the child was just looking."""
    turn = eager._turn
    assert turn.acquire()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            publish(path, 2)
            assert generation_of(eager) == 2
            assert eager.reload_if_changed() is False
            status = 0
        finally:
            os._exit(status)
    turn.release()
    assert os.waitpid(child, 0)[1] == 0
    assert generation_of(eager) == 2
