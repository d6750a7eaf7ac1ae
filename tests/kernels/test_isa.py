"""Owns the proof that answers do not depend on the level of the processor's instructions.

The same files are asked the same questions on every level that this machine has, each in a process
of its own; ids and distances must agree bit for bit. As a program this file asks all questions of
the files in a folder: `python tests/kernels/test_isa.py FOLDER ANSWERS.npz`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import isa_levels
import make_golden
import numpy as np
import numpy.typing as npt
import oracle
import pytest

import annidx

Array = npt.NDArray[Any]
LEVELS = isa_levels.levels()
# Dimensions around the widths of vector registers, and those of codes and byte rows.
DIMS = (1, 3, 8, 15, 16, 17, 31, 63, 65, 100, 513)


def made_files() -> list[tuple[str, Array, str, str]]:
    """Return name, vectors, metric and storage of the files that are made for the test."""
    files = []
    for number, (metric, dtype) in enumerate(oracle.KINDS):
        random = np.random.default_rng(number)
        for dim in (DIMS[number % len(DIMS)], DIMS[(number + 4) % len(DIMS)]):
            given = oracle.make_vectors(random, 180, dim, metric, dtype)[0]
            files.append((f"{metric}-{dtype}-{dim}", given, metric, dtype))
        given = oracle.make_vectors(random, 2500, 37, metric, dtype)[0]
        files.append((f"{metric}-{dtype}-coded", given, metric, dtype))
        if dtype == "int8":
            floats = random.standard_normal((2200, 20))
            files.append((f"{metric}-{dtype}-scaled", floats, metric, dtype))
        if dtype == "float32":
            sizes = 10.0 ** random.integers(-25, 25, (200, 1))
            files.append(
                (f"{metric}-wild", random.standard_normal((200, 19)) * sizes, metric, dtype)
            )
    return files


def questions(index: annidx.Index) -> dict[str, tuple[Array, Array]]:
    """Ask an index in all ways; the name tells which."""
    random = np.random.default_rng(index.dim)
    if index.metric == "hamming":
        queries = random.integers(0, 2, (24, index.dim)).astype(np.uint8)
    else:
        size = 40 if index.dtype in ("int8", "uint8") else 1
        queries = (random.standard_normal((24, index.dim)) * size).astype(np.float32)
        queries[3] = 0
        queries[4] *= np.float32(1e20)
    exact = index.query_exact(queries, k=20)
    allowed = random.random(len(index)) < 0.3
    return {
        "exact": exact,
        "default": index.query(queries, k=10),
        "low": index.query(queries, k=10, recall=0.3),
        "high": index.query(queries, k=100, recall=0.99),
        "one": index.query(queries, k=1, recall=0.9),
        "effort": index.query(queries, k=7, search_k=300),
        "single": index.query(queries[0], k=10),
        "allowed": index.query(queries, k=10, allow=allowed),
        "radius": index.query(queries[1], k=50, radius=float(exact[1][1, min(9, len(index) - 1)])),
        "items": index.query_items(exact[0][0, :1].tolist() * 2, k=9),
        "itself": index.query_items(exact[0][1, :1].tolist(), k=9, include_self=True),
    }


def answer_all(folder: Path, out: Path) -> None:
    """Write the answers to all questions of all files as one archive."""
    answers = {}
    for path in sorted(folder.glob("*.annidx")):
        with annidx.load(path) as index:
            for name, (ids, distances) in questions(index).items():
                key = f"{path.stem} {name}"
                answers[f"{key} ids"] = ids.astype(str) if ids.dtype == object else ids
                answers[f"{key} distances"] = distances.view(np.uint64)
    np.savez(out, **answers)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Array]]:
    """All answers of each level."""
    folder = tmp_path_factory.mktemp("isa")
    for name, given, metric, dtype in made_files():
        index = annidx.Index(given.shape[1], metric, dtype)
        index.add_items(given)
        index.build(queries=given[:8])
        index.save(folder / f"{name}.annidx")
    for path in make_golden.FOLDER.glob("*.annidx"):
        (folder / path.name).symlink_to(path)
    running = [
        isa_levels.start(level, __file__, str(folder), str(folder / f"{level}.npz"))
        for level in LEVELS
    ]
    for process in running:
        isa_levels.finish(process)
    return {level: dict(np.load(folder / f"{level}.npz")) for level in LEVELS}


@pytest.mark.skipif(len(LEVELS) == 1, reason="this machine has the scalar level only")
@pytest.mark.parametrize("level", LEVELS[1:])
def test_answers_agree_bit_for_bit(level: str, answers: dict[str, dict[str, Array]]) -> None:
    scalar, other = answers["scalar"], answers[level]
    assert scalar.keys() == other.keys()
    assert [name for name in scalar if not np.array_equal(scalar[name], other[name])] == []


@pytest.mark.parametrize(("metric", "dtype"), oracle.KINDS)
def test_every_kind_is_asked(metric: str, dtype: str, answers: dict[str, dict[str, Array]]) -> None:
    files = {name.split()[0] for name in answers["scalar"]}
    assert len([name for name in files if name.startswith(f"{metric}-{dtype}-")]) >= 3
    assert answers["scalar"][f"{metric}-{dtype}-coded exact ids"].shape == (24, 20)


if __name__ == "__main__":
    answer_all(Path(sys.argv[1]), Path(sys.argv[2]))
