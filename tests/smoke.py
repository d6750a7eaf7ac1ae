"""Owns the question whether an installed annidx works: run as a program, with NumPy alone.

    python tests/smoke.py

It is what every wheel is tested with, on machines that have neither pytest nor a compiler. It
compares with brute force, on both sides of a file, and prints one line.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import platform
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

import annidx
from annidx import cli

ROWS, DIM, QUERIES, K = 5_000, 32, 50, 10


def nearest(vectors: npt.NDArray[np.float32], query: npt.NDArray[np.float32]) -> list[int]:
    """Find the K nearest rows by brute force."""
    return np.argsort(((vectors - query).astype(np.float64) ** 2).sum(axis=1))[:K].tolist()


def check_index(folder: Path) -> None:
    """Build, save, load and ask an index of many leaves, also from threads."""
    draw = np.random.default_rng(1)
    centroids = draw.normal(size=(50, DIM)) * 3
    vectors = centroids[draw.integers(50, size=ROWS)] + draw.normal(size=(ROWS, DIM))
    vectors = vectors.astype(np.float32)
    index = annidx.Index(DIM, "euclidean")
    index.add_items(vectors, [f"item {row}" for row in range(ROWS)])
    index.build(seed=1)
    path = folder / "smoke.annidx"
    index.save(path, {"made by": "smoke"})
    annidx.verify(path)
    index.save(path)  # a file that is mapped below is replaced, too
    with annidx.load(path, follow=True) as loaded:
        index.save(path)
        assert loaded.metadata == {"made by": "smoke"}
        queries = vectors[:QUERIES] + np.float32(0.1)
        expected = [[f"item {row}" for row in nearest(vectors, query)] for query in queries]
        found, _ = loaded.query_exact(queries, K)
        assert found.tolist() == expected
        answers: list[list[list[str]]] = []
        ask = threading.Thread(target=lambda: answers.append(loaded.query(queries, K)[0].tolist()))
        ask.start()
        answers.append(loaded.query(queries, K)[0].tolist())
        ask.join()
        assert answers[0] == answers[1]
        hits = sum(len(set(a) & set(b)) for a, b in zip(answers[0], expected, strict=True))
        assert hits >= 0.85 * QUERIES * K, hits


def check_others(folder: Path) -> None:
    """Ask the other faces: bits, Annoy's calls, the command line."""
    bits = np.random.default_rng(2).integers(2, size=(300, 100), dtype=np.uint8)
    index = annidx.Index(100, "hamming")
    index.add_items(bits)
    index.build()
    found, distances = index.query(bits[7], K)
    assert found[0] == 7
    assert distances.tolist() == sorted((bits != bits[7]).sum(axis=1).tolist())[:K]
    annoy = annidx.AnnoyIndex(3, "angular")
    for item in range(20):
        annoy.add_item(item, [1.0, item, 2.0])
    annoy.build(2)
    assert annoy.get_nns_by_item(4, 1) == [4]
    data, out = folder / "vectors.npy", folder / "cli.annidx"
    np.save(data, bits.astype(np.float32))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert cli.main(["build", str(data), "-o", str(out), "--metric", "cosine"]) == 0
        assert cli.main(["verify", str(out)]) == 0
    assert "300 vectors" in said.getvalue() and "sound" in said.getvalue()


def main() -> None:
    """Check all of it and say on what."""
    assert importlib.metadata.version("annidx") == annidx.__version__
    with tempfile.TemporaryDirectory() as name:
        check_index(Path(name))
        check_others(Path(name))
    lock = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", no GIL"
    print(
        f"smoke test passed: annidx {annidx.__version__}, Python {platform.python_version()}{lock}"
        f", NumPy {np.__version__}, {platform.system()} {platform.machine()}"
    )


if __name__ == "__main__":
    main()
