"""Writes the inputs that fuzzing starts from: small sound files of every kind.

Usage: python tests/fuzz/make_seeds.py FOLDER

Owns the choice of the kinds. Golden files join them as they are; Annoy's golden files get the two
bytes in front by which `fuzz_annoy.cpp` knows metric and dimension.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "fuzz")]

import images  # noqa: E402

import annidx  # noqa: E402

STORAGE = {
    "angular": ("float32", "float16", "int8"),
    "cosine": ("float32",),
    "euclidean": ("float32", "float16", "int8", "uint8"),
    "manhattan": ("float32", "uint8"),
    "dot": ("float32", "int8"),
    "hamming": ("bits",),
}
ANNOY_METRICS = ("angular", "euclidean", "manhattan", "dot", "hamming")
# From so many items and above so many dimensions on, codes and byte rows are scanned.
CODED_ITEMS = 2_200
CODED_DIM = 20
SMALL_POINTS = 60


def vectors_for(metric: str, dtype: str, count: int, dim: int, seed: int) -> np.ndarray:
    """Random vectors that an index of this kind takes."""
    rng = np.random.default_rng(seed)
    if metric == "hamming":
        return rng.integers(0, 2, (count, dim), dtype=np.uint8)
    if dtype == "uint8":
        return rng.integers(0, 256, (count, dim), dtype=np.uint8)
    return rng.standard_normal((count, dim), dtype=np.float32)


def ids_for(kind: str, count: int) -> list[int] | list[str] | None:
    """Ids of a kind, out of order."""
    if kind == "int":
        return [(7 * i) % count * 1_000_003 - count for i in range(count)]
    if kind == "str":
        return [f"{'long ' * (i % 3)}id:{(7 * i) % count}" for i in range(count)]
    return None


def sets_for(count: int) -> dict[str, np.ndarray]:
    """Masks of sets that are kept in both ways, if the items are enough for that."""
    return {
        "most": np.arange(count) % 5 > 0,
        "few": np.arange(count) % 50 == 1,
        "none": np.zeros(count, bool),
    }


def image_of(
    metric: str, dtype: str, count: int, dim: int, ids: str = "row", trees: int = 1
) -> bytes:
    """Build a small index and return its file."""
    index = annidx.Index(dim, metric, dtype)
    count -= count % 7 == 0  # so that ids_for makes no id twice
    index.add_items(vectors_for(metric, dtype, count, dim, 1), ids=ids_for(ids, count))
    index.build(n_trees=trees, n_jobs=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.annidx"
        index.save(
            path,
            metadata={"seed": 1} if ids == "str" else None,
            sets=sets_for(count) if ids == "int" else None,
        )
        return path.read_bytes()


def base_image(metric: str, dtype: str, ids: str = "int") -> bytes:
    """Build the small index that `living_images` has changes of."""
    return image_of(metric, dtype, 40, 6, ids)


def living_images(metric: str, dtype: str, ids: str = "int") -> list[bytes]:
    """Make a model, a part of it, and changes of the base image."""
    with tempfile.TemporaryDirectory() as folder:
        model, part, base, changes = (Path(folder) / name for name in ("m", "p", "b", "c"))
        vectors = vectors_for(metric, dtype, 60, 6, 2)
        annidx.train(vectors, metric, dtype, n_jobs=1).save(model)
        annidx.encode(model, vectors[:9], [f"id {i}" for i in range(9)], out=part, n_jobs=1)
        base.write_bytes(base_image(metric, dtype, ids))
        with annidx.load(base) as index:
            known = list(index.ids)
            index.remove_items(known[:5])
            fresh = [1, 2, 3] if ids == "int" else ["one", "two", "three"]
            index.update_items(vectors[:7], [*known[5:9], *fresh])
            index.save_changes(changes, n_jobs=1)
        return [path.read_bytes() for path in (model, part, changes)]


def index_seeds() -> Iterator[tuple[str, bytes]]:
    """Name and content of sound annidx files of every metric, storage, id kind and scan."""
    for metric, dtypes in STORAGE.items():
        for dtype, ids in zip(dtypes, itertools.cycle(("row", "int", "str")), strict=False):
            yield f"{metric}-{dtype}-{ids}", image_of(metric, dtype, 40, 6, ids)
        for name, image in zip(
            ("model", "part", "changes"), living_images(metric, dtypes[0]), strict=True
        ):
            yield f"{metric}-{name}", image
        yield f"{metric}-trees", image_of(metric, dtypes[0], 120, 9, "str", trees=3)
        yield f"{metric}-one", image_of(metric, dtypes[-1], 1, 1, "int")
        if metric == "hamming":
            continue
        for dtype in dtypes:
            large = image_of(metric, dtype, CODED_ITEMS, CODED_DIM)
            small = images.first_leaves(large, SMALL_POINTS)
            yield f"{metric}-{dtype}-coded", small
            yield f"{metric}-{dtype}-groups", images.with_groups(small)
    for path in sorted((TESTS / "golden").glob("*.annidx")):
        yield f"golden-{path.stem}", path.read_bytes()


def annoy_seeds() -> Iterator[tuple[str, bytes]]:
    """Name and content of inputs for fuzz_annoy."""
    for path in sorted((TESTS / "golden" / "annoy").glob("*.ann")):
        text = path.with_suffix(".txt").read_text(encoding="utf-8").split()
        metric = next(word for word in text if word in ANNOY_METRICS)
        f = int(next(word for word in text if word.isdigit()))
        yield path.stem, bytes([ANNOY_METRICS.index(metric), f - 1]) + path.read_bytes()


def write(folder: Path, seeds: Iterator[tuple[str, bytes]]) -> None:
    """Write one file for each seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in seeds:
        (folder / name).write_bytes(content)
        print(f"{folder.name}/{name}: {len(content)} bytes")


def main() -> None:
    """Write all seeds below the folder named on the command line."""
    folder = Path(sys.argv[1])
    import crashers  # it makes its files with what is here

    write(folder / "index", index_seeds())
    write(folder / "index", crashers.index_crashers())
    write(folder / "annoy", annoy_seeds())


if __name__ == "__main__":
    main()
