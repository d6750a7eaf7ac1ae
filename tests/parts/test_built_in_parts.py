"""Owns the tests of building in parts: whoever encodes them, the bytes are those of a build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import format_reader
import numpy as np
import numpy.typing as npt
import pytest
from oracle import KINDS

import annidx

Array = npt.NDArray[Any]
COUNT, DIM = 2_600, 20


def vectors_for(metric: str, dtype: str, count: int = COUNT, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    if metric == "hamming":
        return rng.integers(0, 2, (count, DIM), dtype=np.uint8)
    if dtype == "uint8":
        return rng.integers(0, 256, (count, DIM), dtype=np.uint8)
    vectors = rng.standard_normal((count, DIM), dtype=np.float32)
    if metric in ("angular", "cosine"):
        vectors[::400] = 0  # vectors without a direction have leaves of their own
    return vectors


def encode_parts(folder: Path, vectors: Array, ids: list[str] | None, parts: int) -> list[Path]:
    """Encode in a shuffled order, some parts twice, some after a worker was killed half way."""
    cuts = np.linspace(0, len(vectors), parts + 1).astype(int)
    rng = np.random.default_rng(parts)
    order = rng.permutation(parts).tolist()

    def encode(part: int) -> None:
        begin, end = cuts[part], cuts[part + 1]
        own = None if ids is None else ids[begin:end]
        out = folder / f"{part}.annidx"
        annidx.encode(folder / "model.annidx", vectors[begin:end], own, out=out, n_jobs=1)

    for place, part in enumerate([*order, *order[:2]]):
        if place % 3 == 0:
            kill_half_way(lambda part=part: encode(part), rng.uniform(0, 0.01))  # type: ignore[misc]
        encode(part)
    return [folder / f"{part}.annidx" for part in range(parts)]


def kill_half_way(work: Callable[[], None], seconds: float) -> None:
    """Have a process do the work again and again, and kill it."""
    if not hasattr(os, "fork"):
        return
    read_end, write_end = os.pipe()
    victim = os.fork()
    if victim == 0:
        try:
            os.write(write_end, b".")
            while True:
                work()
        finally:
            os._exit(1)
    os.close(write_end)
    assert os.read(read_end, 1) == b"."
    time.sleep(seconds)
    os.kill(victim, signal.SIGKILL)
    status = os.waitpid(victim, 0)[1]
    os.close(read_end)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("parts", [1, 7, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("metric", "dtype"), KINDS)
def test_parts_give_the_bytes_of_a_build(
    metric: str, dtype: str, parts: int, tmp_path: Path
) -> None:
    vectors = vectors_for(metric, dtype)
    ids = None if parts == 1 else [f"item {i}" for i in range(len(vectors))]
    whole = annidx.Index(DIM, metric, dtype)
    whole.add_items(vectors, ids)
    whole.build(seed=3)
    whole.save(tmp_path / "whole.annidx")
    annidx.train(vectors, metric, dtype, seed=3).save(tmp_path / "model.annidx")
    paths = encode_parts(tmp_path, vectors, ids, parts)
    for path in [tmp_path / "model.annidx", *paths[:2]]:
        annidx.verify(path)
        format_reader.read(path, strict=True)
    annidx.merge(paths, out=tmp_path / "merged.annidx")
    assert (tmp_path / "merged.annidx").read_bytes() == (tmp_path / "whole.annidx").read_bytes()


@pytest.mark.parametrize("metric", ["euclidean", "angular", "hamming"])
def test_parts_with_overfull_leaves_are_of_the_model(metric: str, tmp_path: Path) -> None:
    """Equal vectors fall into one leaf, which a part keeps whole and an index cuts."""
    vectors = vectors_for(metric, "float32", 12_000)
    vectors[100:10_000] = vectors[7]
    whole = annidx.Index(DIM, metric)
    whole.add_items(vectors)
    whole.build()
    whole.save(tmp_path / "whole.annidx")
    annidx.train(vectors, metric).save(tmp_path / "model.annidx")
    paths = encode_parts(tmp_path, vectors, None, 2)
    for path in paths:
        annidx.verify(path)
        format_reader.read(path, strict=True)
    annidx.merge(paths, out=tmp_path / "merged.annidx")
    assert (tmp_path / "merged.annidx").read_bytes() == (tmp_path / "whole.annidx").read_bytes()


def test_a_killed_encode_leaves_nothing_and_may_run_again(tmp_path: Path) -> None:
    vectors = vectors_for("euclidean", "float32", 6_000)
    np.save(tmp_path / "x.npy", vectors)
    annidx.train(vectors, "euclidean").save(tmp_path / "model.annidx")
    script = (
        "import annidx, numpy as np, sys\n"
        "print('ready', flush=True)\n"
        "for _ in range(10_000):\n"
        "    annidx.encode('model.annidx', np.load('x.npy'), out='part.annidx')\n"
    )
    for wait in (0.0, 0.01, 0.05):
        child = subprocess.Popen(
            [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        names = set(os.listdir(tmp_path))
        assert names <= {"x.npy", "model.annidx", "part.annidx"}, "a temporary file stays behind"
        if "part.annidx" in names:
            annidx.verify(tmp_path / "part.annidx")
    annidx.encode(tmp_path / "model.annidx", vectors, out=tmp_path / "part.annidx")
    annidx.verify(tmp_path / "part.annidx")


def test_a_model_of_a_sample_fits_the_whole(tmp_path: Path) -> None:
    vectors = vectors_for("euclidean", "float32", 40_000)
    model = annidx.train(vectors[::8], "euclidean", expected_items=len(vectors))
    assert len(model) == 0 and model.built
    model.save(tmp_path / "model.annidx")
    paths = encode_parts(tmp_path, vectors, None, 3)
    annidx.merge(paths, out=tmp_path / "merged.annidx", n_jobs=2)
    index = annidx.load(tmp_path / "merged.annidx")
    assert len(index) == len(vectors)
    assert index.info()["leaves"] >= len(vectors) // 1024 * 0.7
    found, _ = index.query(vectors[:300], k=10)
    true, _ = index.query_exact(vectors[:300], k=10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, true, strict=True)])
    assert recall >= 0.94


def test_a_model_answers_nothing_and_takes_items() -> None:
    vectors = vectors_for("angular", "float32", 3_000)
    model = annidx.train(vectors, "angular")
    ids, distances = model.query(vectors[0], k=5)
    assert len(ids) == len(distances) == 0
    model.add_items(vectors, [f"t{i}" for i in range(3_000)])
    assert len(model) == 3_000
    assert model.query(vectors[7], k=1)[0].tolist() == ["t7"]


def test_merging_within_a_memory_limit_changes_nothing(tmp_path: Path) -> None:
    vectors = vectors_for("euclidean", "float32", 20_000)
    annidx.train(vectors, "euclidean").save(tmp_path / "model.annidx")
    paths = encode_parts(tmp_path, vectors, None, 4)
    annidx.merge(paths, out=tmp_path / "a.annidx")
    annidx.merge(paths, out=tmp_path / "b.annidx", memory_limit=200 << 20, n_jobs=1)
    assert (tmp_path / "a.annidx").read_bytes() == (tmp_path / "b.annidx").read_bytes()


def test_what_does_not_fit_together_is_named(tmp_path: Path) -> None:
    def saved(name: str, metric: str, dim: int, ids: list[Any], seed: int = 0) -> Path:
        index = annidx.Index(dim, metric)
        index.add_items(np.random.default_rng(seed).normal(size=(len(ids), dim)), ids)
        index.build()
        index.save(tmp_path / name)
        return tmp_path / name

    one = saved("one.annidx", "euclidean", 4, [1, 2, 3])
    for name, metric, dim, ids, what in (
        ("metric.annidx", "cosine", 4, [4, 5], "metric, found euclidean in .* and cosine in"),
        ("dim.annidx", "euclidean", 5, [4, 5], "dim, found 4 in .* and 5 in"),
        ("text.annidx", "euclidean", 4, ["4", "5"], "kind of ids, found int in .* and str in"),
        ("twice.annidx", "euclidean", 4, [9, 2], "found id 2 in .*one.annidx.*twice.annidx"),
    ):
        other = saved(name, metric, dim, ids)
        with pytest.raises(ValueError, match=what):
            annidx.load([one, other])
    other = saved("other.annidx", "euclidean", 4, [7, 8], seed=5)
    with pytest.raises(ValueError, match="parts of one model, found two: .*one.* and .*other"):
        annidx.merge([one, other], out=tmp_path / "out.annidx")
    both = annidx.load([one, other])
    assert sorted(both.ids) == [1, 2, 3, 7, 8]
    newest = annidx.load([one, tmp_path / "twice.annidx"], on_duplicate="newest")
    assert sorted(newest.ids) == [1, 2, 3, 9]
    np.testing.assert_array_equal(
        newest.get_vectors(2), annidx.load(tmp_path / "twice.annidx").get_vectors(2)
    )
    with pytest.raises(ValueError, match="at least one file"):
        annidx.load([])
    with pytest.raises(ValueError, match="at least one file"):
        annidx.merge([], out=tmp_path / "out.annidx")
    with pytest.raises(ValueError, match="on_duplicate: expected 'raise' with follow"):
        annidx.load([one], follow=True, on_duplicate="newest")  # type: ignore[call-overload]


@pytest.mark.parametrize("metric", ["euclidean", "dot", "hamming", "angular"])
def test_files_of_several_models_are_asked_as_one(metric: str, tmp_path: Path) -> None:
    vectors = vectors_for(metric, "float32", 6_000)
    paths = []
    for part in range(3):
        index = annidx.Index(DIM, metric)
        rows = slice(part * 2_000, (part + 1) * 2_000)
        index.add_items(vectors[rows], np.arange(6_000)[rows])
        index.build(seed=part)
        paths.append(tmp_path / f"{part}.annidx")
        index.save(paths[-1])
    whole = annidx.Index(DIM, metric)
    whole.add_items(vectors)
    whole.build()
    many = annidx.load(paths)
    many.verify()
    assert len(many) == 6_000 and many.info()["images"] == 3
    queries = vectors[:50]
    mask = np.arange(6_000) % 3 == 0
    for how in ({}, {"allow": mask}, {"deny": np.arange(0, 6_000, 2)}):
        expected = whole.query_exact(queries, k=7, **how)
        np.testing.assert_array_equal(many.query_exact(queries, k=7, **how)[1], expected[1])
    radius = float(whole.query_exact(queries[0], k=9)[1][-1])
    expected_ids = whole.query(queries[0], k=None, radius=radius)[0]
    assert set(many.query(queries[0], k=None, radius=radius)[0]) == set(expected_ids)
    assert many.query_items(4_321, k=1, include_self=True)[0].tolist() == [4_321]
    np.testing.assert_array_equal(many.get_vectors([5, 5_999]), whole.get_vectors([5, 5_999]))
    found, _ = many.query(queries, k=10, recall=0.95)
    distances = many.query(queries, k=10, recall=0.95)[1]
    true = whole.query_exact(queries, k=10)[1]
    worst = true[:, -1:]
    near = distances >= worst if metric == "dot" else distances <= worst
    assert found.shape == (50, 10) and near.mean() >= 0.9
