"""Owns the proof that the same input, parameters and seed give the same file, byte for byte.

Whatever the number of threads, the level of the processor's instructions, and whether the index is
built in memory or in a file with little memory. As a program this file builds all its cases:
`python tests/index/test_determinism.py FOLDER THREADS [large]`.

Groups of leaves are made from 6,144 leaves on, about 1.1 million items: the large case, which has
only two dimensions and so is marked slow for its size alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import isa_levels
import numpy as np
import numpy.typing as npt
import oracle
import pytest

import annidx

Array = npt.NDArray[Any]
JOBS = (1, 2, 3)


@dataclass(frozen=True)
class Case:
    """Parameters of one build."""

    metric: str
    dtype: str
    items: int
    dim: int
    n_trees: int | None = None
    text_ids: bool = False
    held_out: bool = False  # measure the curve on rows held out, which takes longer

    @property
    def name(self) -> str:
        """A name for the case's files."""
        return f"{self.metric}-{self.dtype}-{self.items}x{self.dim}-{self.n_trees}"

    def vectors(self) -> Array:
        """Return clustered data; numbers for a hamming index, or of the type that is kept."""
        random = np.random.RandomState(self.items + self.dim)
        centres = random.standard_normal((60, self.dim)).astype(np.float32)
        noise = random.standard_normal((self.items, self.dim)).astype(np.float32)
        values = centres[random.randint(0, 60, self.items)] + 0.5 * noise
        values[self.items // 3] = values[0]
        if self.metric == "hamming":
            return (values > 0).astype(np.uint8)
        if self.dtype == "uint8":
            return (values * 30 + 128).clip(0, 255).astype(np.uint8)
        if self.metric == "dot":
            values *= np.exp(random.standard_normal((self.items, 1)).astype(np.float32))
        return values

    def filled(self, vectors: Array) -> annidx.Index:
        """Return an index with the vectors, not built."""
        index = annidx.Index(self.dim, self.metric, self.dtype)
        ids = [f"id {row * 7919 % self.items}" for row in range(self.items)]
        index.add_items(vectors, ids if self.text_ids else None)
        return index

    def options(self, vectors: Array) -> dict[str, Any]:
        """Return what to build with, threads aside."""
        queries = None if self.held_out else vectors[:12]
        return {"n_trees": self.n_trees, "seed": 77, "queries": queries}

    def build(self, folder: Path, n_jobs: int) -> None:
        """Build and save."""
        vectors = self.vectors()
        index = self.filled(vectors)
        index.build(n_jobs=n_jobs, **self.options(vectors))
        index.save(folder / self.name)


# Codes and byte rows from 2,048 items of 17 dimensions on; vectors are scanned below.
KINDS = [
    Case(metric, dtype, 2600, 19, text_ids=number % 3 == 0)
    for number, (metric, dtype) in enumerate(oracle.KINDS)
]
CASES = [
    *KINDS,
    Case("angular", "float32", 2100, 40, held_out=True),
    Case("dot", "int8", 2100, 21, held_out=True),
    Case("manhattan", "float32", 2100, 33, held_out=True),
    Case("hamming", "bits", 2100, 130, held_out=True),
    Case("euclidean", "float32", 900, 7, held_out=True),
    Case("cosine", "float16", 2300, 18, n_trees=4, text_ids=True),
    Case("dot", "float32", 2300, 18, n_trees=3),
    Case("hamming", "bits", 1500, 70, n_trees=3),
    Case("manhattan", "uint8", 2300, 6, n_trees=2),
    Case("euclidean", "uint8", 70_000, 18),  # the tree is trained on a part of the rows
]
# More than tuning.h's kFlatLeaves leaves.
LARGE = Case("euclidean", "uint8", 20_000_000, 3)


def build_all(folder: Path, n_jobs: int, cases: list[Case]) -> None:
    """Build each case into a folder."""
    folder.mkdir()
    for case in cases:
        case.build(folder, n_jobs)


def build_on_all_levels(folder: Path, *more: str) -> list[Path]:
    """Build on each level with another number of threads, in processes of their own."""
    numbered = [(level, JOBS[place % 3]) for place, level in enumerate(isa_levels.levels())]
    folders = [folder / f"{level}-{jobs}" for level, jobs in numbered]
    running = [
        isa_levels.start(level, __file__, str(target), str(jobs), *more)
        for (level, jobs), target in zip(numbered, folders, strict=True)
    ]
    for process in running:
        isa_levels.finish(process)
    return folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All cases built on every level this machine has."""
    return build_on_all_levels(tmp_path_factory.mktemp("levels"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_levels_and_threads_do_not_change_a_byte(case: Case, folders: list[Path]) -> None:
    first, *others = [(folder / case.name).read_bytes() for folder in folders]
    for folder, other in zip(folders[1:], others, strict=True):
        assert difference(first, other) is None, folder.name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_files_are_sound(case: Case, folders: list[Path]) -> None:
    annidx.verify(folders[0] / case.name)


def difference(a: bytes, b: bytes) -> tuple[int, int] | None:
    """Return the first differing byte and how many differ; None if there is none."""
    if a == b:
        return None
    length = min(len(a), len(b))
    differs = np.frombuffer(a[:length], np.uint8) != np.frombuffer(b[:length], np.uint8)
    return int(np.argmax(differs)) if differs.any() else length, int(differs.sum())


@pytest.mark.parametrize("n_jobs", [*JOBS, 7, -1])
@pytest.mark.parametrize("case", [CASES[0], CASES[-5], CASES[-2]], ids=lambda case: case.name)
def test_threads_alone(case: Case, n_jobs: int, folders: list[Path], tmp_path: Path) -> None:
    case.build(tmp_path, n_jobs)
    built = (tmp_path / case.name).read_bytes()
    assert difference(built, (folders[0] / case.name).read_bytes()) is None


@pytest.mark.slow
def test_groups_of_leaves(tmp_path: Path) -> None:
    first, *others = [
        (folder / LARGE.name).read_bytes() for folder in build_on_all_levels(tmp_path, "large")
    ]
    with annidx.load(tmp_path / "scalar-1" / LARGE.name) as index:
        assert any(part["name"] == "group_ranges" for part in index.info()["sections"])
    assert all(difference(first, other) is None for other in others)


OUT_OF_MEMORY = [
    Case("angular", "float32", 40_000, 18),
    Case("manhattan", "uint8", 40_000, 20, text_ids=True),
    Case("dot", "float32", 40_000, 9, n_trees=2),
    Case("cosine", "float16", 20_000, 17),
    Case("euclidean", "int8", 20_000, 17),
]


@pytest.mark.parametrize("case", OUT_OF_MEMORY, ids=lambda case: case.name)
def test_building_in_a_file(case: Case, tmp_path: Path) -> None:
    vectors = case.vectors()
    case.build(tmp_path, 2)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    index = case.filled(mapped)
    index.build(out=tmp_path / "built", memory_limit=192 << 20, n_jobs=1, **case.options(vectors))
    index.close()
    wanted = (tmp_path / case.name).read_bytes()
    assert difference((tmp_path / "built").read_bytes(), wanted) is None


def pieces(vectors: Array) -> Iterator[Array]:
    """Cut an array into parts of several types and layouts."""
    yield vectors[:1]
    yield np.asfortranarray(vectors[1:700])
    yield vectors[700:1500].astype(np.float64)
    yield np.repeat(vectors[1500:1600], 2, axis=0)[::2]
    yield np.broadcast_to(vectors[1600], (1, len(vectors[1600])))
    yield vectors[1601:]


@pytest.mark.parametrize(
    "case", [case for case in KINDS if not case.text_ids], ids=lambda case: case.name
)
def test_the_way_vectors_are_added_does_not_matter(
    case: Case, folders: list[Path], tmp_path: Path
) -> None:
    vectors = case.vectors()
    index = annidx.Index(case.dim, case.metric, case.dtype)
    for part in pieces(vectors):
        index.add_items(part)
    index.build(**case.options(vectors))
    index.save(tmp_path / "parts")
    wanted = (folders[0] / case.name).read_bytes()
    assert difference((tmp_path / "parts").read_bytes(), wanted) is None


def test_another_seed_or_input_gives_other_bytes(tmp_path: Path) -> None:
    case = Case("euclidean", "float32", 900, 7)
    vectors = case.vectors()
    images = set()
    for seed, change in ((1, 0.0), (2, 0.0), (1, 0.5)):
        index = case.filled(vectors + np.float32(change) * (np.arange(900)[:, None] == 5))
        index.build(seed=seed)
        index.save(tmp_path / "one")
        images.add((tmp_path / "one").read_bytes())
    assert len(images) == 3


def test_a_saved_copy_of_a_loaded_index_is_the_same_file(
    folders: list[Path], tmp_path: Path
) -> None:
    for case in CASES:
        with annidx.load(folders[0] / case.name) as index:
            index.save(tmp_path / case.name)
        assert (tmp_path / case.name).read_bytes() == (folders[0] / case.name).read_bytes()


if __name__ == "__main__":
    build_all(Path(sys.argv[1]), int(sys.argv[2]), [LARGE] if sys.argv[3:] else CASES)
