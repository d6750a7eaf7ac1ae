"""Owns the tests of building by executors: the bytes of a build, whoever dies meanwhile."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import annidx
from annidx import parallel

COUNT, DIM = 6_000, 20
VECTORS = np.random.default_rng(1).standard_normal((COUNT, DIM), dtype=np.float32)


class Rows:
    """Vectors of a file; a marked part ends the worker that reads it, once."""

    def __init__(self, path: Path, deadly: Path | None = None) -> None:
        self.path, self.deadly = path, deadly

    def __call__(self, first: int, last: int) -> npt.NDArray[Any]:
        if self.deadly is not None and last - first < COUNT and first > COUNT // 2:
            try:
                self.deadly.unlink()
            except FileNotFoundError:
                pass
            else:
                os._exit(1)
        return np.load(self.path, mmap_mode="r")[first:last]


def names(first: int, last: int) -> list[str]:
    return [f"t{i}" for i in range(first, last)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    index = annidx.Index(DIM, "euclidean")
    index.add_items(VECTORS, names(0, COUNT))
    index.build(seed=5)
    path = tmp_path_factory.mktemp("whole") / "index.annidx"
    index.save(path)
    return path.read_bytes()


def processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


def test_processes_give_the_bytes_of_a_build(whole: bytes, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VECTORS)
    out = tmp_path / "index.annidx"
    told: list[tuple[str, int, int]] = []
    with processes() as pool:
        parallel.build(
            tmp_path / "x.npy", out, metric="euclidean", executor=pool, ids=names, n_parts=5,
            seed=5, progress=lambda *step: told.append(step),
        )  # fmt: skip
    assert out.read_bytes() == whole
    assert sorted(os.listdir(tmp_path)) == ["index.annidx", "x.npy"]
    assert ("parts", 5, 5) in told


def test_a_killed_worker_costs_its_part_only(whole: bytes, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VECTORS)
    (tmp_path / "deadly").touch()
    out = tmp_path / "index.annidx"
    how: dict[str, Any] = {"metric": "euclidean", "count": COUNT, "ids": names, "seed": 5}
    rows = Rows(tmp_path / "x.npy", tmp_path / "deadly")
    with pytest.raises(BrokenProcessPool), processes() as pool:
        parallel.build(rows, out, executor=pool, n_parts=8, **how)
    assert not out.exists() and (tmp_path / "index.annidx.parts" / "model.annidx").exists()
    with pytest.raises(ValueError, match="expected parts of"), ThreadPoolExecutor(1) as threads:
        parallel.build(rows, out, executor=threads, n_parts=3, **how)
    with ThreadPoolExecutor(2) as threads:
        parallel.build(rows, out, executor=threads, n_parts=8, **how)
    assert out.read_bytes() == whole


def test_parts_of_a_file_that_has_changed_since_are_not_taken_up(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VECTORS)
    out = tmp_path / "index.annidx"

    def no_ids(first: int, last: int) -> list[str]:
        raise RuntimeError("no ids yet")

    def build(ids: Any) -> None:
        with ThreadPoolExecutor(1) as threads:
            parallel.build(
                tmp_path / "x.npy", out, metric="euclidean", executor=threads, ids=ids, n_parts=2
            )

    with pytest.raises(RuntimeError, match="no ids yet"):
        build(no_ids)
    np.save(tmp_path / "x.npy", VECTORS[::-1])
    os.utime(tmp_path / "x.npy", (1, 1))
    with pytest.raises(ValueError, match="expected parts of"):
        build(names)
    shutil.rmtree(tmp_path / "index.annidx.parts")
    build(names)
    with annidx.load(out) as index:
        assert np.array_equal(index.get_vectors(["t0"])[0], VECTORS[-1])


def test_a_model_of_a_sample(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VECTORS)
    with ThreadPoolExecutor(2) as threads:
        parallel.build(
            tmp_path / "x.npy", tmp_path / "index.annidx", metric="euclidean", executor=threads,
            n_parts=3, sample=1_000,
        )  # fmt: skip
    index = annidx.load(tmp_path / "index.annidx")
    assert index.ids.tolist() == list(range(COUNT))
    found, _ = index.query(VECTORS[:200], k=1)
    assert (found[:, 0] == np.arange(200)).mean() > 0.95


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(ValueError, match="count: expected the number of rows"):
            parallel.build(Rows(tmp_path / "x.npy"), tmp_path / "o", metric="dot", executor=threads)
        with pytest.raises(FileNotFoundError):
            parallel.build(tmp_path / "no.npy", tmp_path / "o", metric="dot", executor=threads)
        np.save(tmp_path / "none.npy", VECTORS[:0])
        with pytest.raises(ValueError, match="expected rows of vectors"):
            parallel.build(tmp_path / "none.npy", tmp_path / "o", metric="dot", executor=threads)
