"""Data sets: read a folder or an ann-benchmarks HDF5 file, derive, and prepare for a run.

A prepared set is a folder of .npy files in the type of the run, so that every worker maps
the same bytes whatever the source was.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.contestant import Array, normalized
from bench.truth import exact_neighbours

TRUTH_COUNT = 100
COPY_ROWS = 65_536
METRICS = frozenset({"angular", "cosine", "euclidean", "manhattan", "dot", "hamming"})
RUN_DTYPES = ("float32", "float16", "uint8", "int8")
DEFAULT_CACHE = Path.home() / ".cache" / "annidx-bench"
MAKER = "make.py"
HDF5_SUFFIXES = frozenset({".hdf5", ".h5"})


@dataclass(frozen=True)
class RawSet:
    """A set as found: ``base`` and ``queries`` are anything sliceable by rows."""

    name: str
    metric: str
    base: Any
    queries: Array
    exact_ids: Array | None


@dataclass(frozen=True)
class PreparedSet:
    """A set on disk in the type of the run."""

    folder: Path
    name: str
    metric: str
    dtype: str
    rows: int
    dim: int

    def base(self, in_memory: bool = False) -> Array:
        path = self.folder / "base.npy"
        return np.asarray(np.load(path) if in_memory else np.load(path, mmap_mode="r"))

    def queries(self) -> Array:
        return np.asarray(np.load(self.folder / "query.npy"))

    def exact_ids(self) -> Array:
        return np.asarray(np.load(self.folder / "gt_ids.npy"))


def read_set(path: Path, cache: Path = DEFAULT_CACHE) -> RawSet:
    """A folder with base.npy ... meta.json, one that makes such a folder, or an HDF5 file."""
    if path.is_dir():
        return _read_folder(path if (path / "base.npy").exists() else _made_by(path, cache))
    if path.suffix in HDF5_SUFFIXES:
        return _read_hdf5(path)
    raise ValueError(f"{path}: expected a folder with meta.json or an .hdf5 file")


def _made_by(folder: Path, cache: Path) -> Path:
    """What ``make.py OUT`` of the folder puts together, kept in the cache."""
    if not (folder / MAKER).exists():
        raise ValueError(f"{folder}: expected base.npy or {MAKER}")
    made = cache / folder.name
    if not (made / "meta.json").exists():
        subprocess.run([sys.executable, str(folder / MAKER), str(made)], check=True)
    return made


def _read_folder(folder: Path) -> RawSet:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    truth = folder / "gt_ids.npy"
    return RawSet(
        name=meta["name"],
        metric=_known_metric(meta["metric"], folder),
        base=np.load(folder / "base.npy", mmap_mode="r"),
        queries=np.load(folder / "query.npy"),
        exact_ids=np.load(truth) if truth.exists() else None,
    )


def _read_hdf5(path: Path) -> RawSet:
    """Bits come as booleans there: they are packed, most significant bit first."""
    import h5py

    file = h5py.File(path, "r")
    metric = _known_metric(str(file.attrs["distance"]), path)
    base: Any = file["train"]
    queries = np.asarray(file["test"])
    if metric == "hamming":
        base, queries = np.packbits(np.asarray(base), axis=1), np.packbits(queries, axis=1)
    return RawSet(path.stem, metric, base, queries, np.asarray(file["neighbors"]))


def _known_metric(metric: str, source: Path) -> str:
    if metric not in METRICS:
        raise ValueError(f"{source}: metric {metric!r} is not one of {sorted(METRICS)}")
    return metric


def with_log_normal_norms(raw: RawSet, sigma: float, seed: int) -> RawSet:
    """A dot set from an angular one: unit rows times log-normal lengths."""
    base = normalized(np.asarray(raw.base))
    lengths = np.random.default_rng(seed).lognormal(0.0, sigma, len(base))
    base *= lengths[:, None].astype(np.float32)
    name = f"{raw.name.removesuffix('-' + raw.metric)}-lognormal{sigma:g}-dot"
    return RawSet(name, "dot", base, normalized(raw.queries), None)


def run_dtype(raw: RawSet, asked: str) -> str:
    """The type a set is run in; bits are bits."""
    if raw.metric == "hamming":
        return "bits"
    if asked not in RUN_DTYPES:
        raise ValueError(f"--dtype {asked!r} is not one of {', '.join(RUN_DTYPES)}")
    given = (raw.base.dtype, raw.queries.dtype)
    if np.dtype(asked).kind in "iu" and not all(dtype == asked for dtype in given):
        raise ValueError(f"{raw.name}: {given[0]} vectors cannot be run as {asked}")
    return asked


def _storage(dtype: str) -> np.dtype[Any]:
    """float16 runs hand over float32 vectors: the type is how a library keeps them."""
    return np.dtype({"bits": "uint8", "float16": "float32"}.get(dtype, dtype))


def prepare(
    raw: RawSet,
    dtype: str,
    folder: Path,
    query_count: int | None,
    row_limit: int | None,
    seed: int,
) -> PreparedSet:
    """Write the set into ``folder`` in the run's type, with truth for the rows used."""
    folder.mkdir(parents=True)
    storage = _storage(dtype)
    rows = min(len(raw.base), row_limit or len(raw.base))
    _write_base(raw, rows, storage, folder / "base.npy")
    queries, exact_ids = _choose_queries(raw, query_count, seed)
    queries = np.ascontiguousarray(queries.astype(storage))
    if exact_ids is None or rows < len(raw.base):
        base = np.load(folder / "base.npy", mmap_mode="r")
        exact_ids = exact_neighbours(raw.metric, base, queries, TRUTH_COUNT)
    np.save(folder / "query.npy", queries)
    np.save(folder / "gt_ids.npy", exact_ids)
    dim = int(raw.base.shape[1]) * (8 if raw.metric == "hamming" else 1)
    return PreparedSet(folder, raw.name, raw.metric, dtype, rows, dim)


def _choose_queries(raw: RawSet, count: int | None, seed: int) -> tuple[Array, Array | None]:
    """A seeded sample, in the set's order."""
    total = len(raw.queries)
    if count is None or count >= total:
        return raw.queries, raw.exact_ids
    chosen = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    exact_ids = None if raw.exact_ids is None else raw.exact_ids[chosen]
    return raw.queries[chosen], exact_ids


def _write_base(raw: RawSet, rows: int, storage: np.dtype[Any], path: Path) -> None:
    """Copy by blocks, or link to the source's file where it is already right."""
    source = raw.base
    if isinstance(source, np.memmap) and source.dtype == storage and rows == len(source):
        path.symlink_to(Path(str(source.filename)).resolve())
        return
    shape = (rows, int(source.shape[1]))
    base = np.lib.format.open_memmap(path, mode="w+", dtype=storage, shape=shape)
    for first in range(0, rows, COPY_ROWS):
        last = min(rows, first + COPY_ROWS)
        base[first:last] = np.asarray(source[first:last])
    base.flush()
