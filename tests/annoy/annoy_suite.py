"""Owns what the tests of `annidx.AnnoyIndex` share: both packages, vectors, indexes of them."""

from __future__ import annotations

import itertools
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

METRICS = ("angular", "euclidean", "manhattan", "dot", "hamming")
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "annoy"
GOLDEN_NAMES = sorted(path.stem for path in GOLDEN.glob("*.ann"))
EVERYTHING = 100_000_000
Array = npt.NDArray[Any]


def vectors(count: int, f: int, metric: str = "euclidean", seed: int = 3) -> Array:
    """Random vectors as float64 that float32 holds exactly; zeros and ones for hamming."""
    source = np.random.default_rng(seed)
    if metric == "hamming":
        return source.integers(0, 2, (count, f)).astype(np.float64)
    return source.normal(size=(count, f)).astype(np.float32).astype(np.float64)


def distance(metric: str, a: Array, b: Array) -> float:
    """Annoy's distance between two vectors, in plain NumPy."""
    if metric == "angular":
        norms = float(np.linalg.norm(a) * np.linalg.norm(b))
        return float(np.sqrt(max(0.0, 2 - 2 * float(a @ b) / norms))) if norms else 2**0.5
    if metric == "euclidean":
        return float(np.linalg.norm(a - b))
    if metric == "dot":
        return float(a @ b)
    return float(np.abs(a - b).sum())


def filled(package: ModuleType, metric: str, rows: Array, ids: Any = None) -> Any:
    """Make an index of these rows, not built."""
    index = package.AnnoyIndex(rows.shape[1], metric)
    for item, row in zip(itertools.count() if ids is None else ids, rows, strict=False):
        index.add_item(int(item), row)
    return index


def built(package: ModuleType, metric: str, rows: Array, n_trees: int = 10, ids: Any = None) -> Any:
    """Make an index of these rows, built."""
    index = filled(package, metric, rows, ids)
    index.build(n_trees)
    return index


def raises(call: Callable[[], object], error: type[Exception], message: str) -> None:
    """Check the very type of an exception, and its message."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert str(caught.value) == message


def resident_bytes() -> int:
    """Memory of this process now."""
    if sys.platform == "linux":
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def check_damaged(index: Any, content: bytes) -> bool:
    """Load a damaged file and ask it: OSError or answers. Tells whether it answered."""
    Path("damaged.ann").write_bytes(content)
    try:
        index.load("damaged.ann")
        n_items = index.get_n_items()
        index.get_nns_by_vector([0.5] * index.f, 10, 200)
        if n_items:
            index.get_nns_by_item(n_items - 1, 10, EVERYTHING, True)
            index.get_item_vector(n_items // 2)
            index.get_distance(0, n_items - 1)
    except OSError:
        return False
    return True
