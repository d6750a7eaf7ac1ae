"""Owns what the installed annidx makes of fixed rows and of files: a line each.

    python tests/same_bytes.py FILE...

The lines are those of tests/cpp/same_bytes.cpp; where a build for another processor prints others,
it makes other files or gives other answers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import annidx

DIM, ROWS, QUERIES, NEAREST = 24, 3_000, 20, 5
CASES = (
    ("angular", "float32"),
    ("cosine", "float16"),
    ("euclidean", "float32"),
    ("euclidean", "uint8"),
    ("manhattan", "int8"),
    ("dot", "float32"),
    ("hamming", "bits"),
)


def numbers(count: int) -> npt.NDArray[np.uint8]:
    """Give the first numbers, 0..255, the same everywhere."""
    mixed = np.arange(1, count + 1, dtype=np.uint32) * np.uint32(2654435761)
    return (((mixed ^ (mixed >> np.uint32(15))) * np.uint32(2246822519)) >> np.uint32(24)).astype(
        np.uint8
    )


def rows_for(dtype: str) -> npt.NDArray[Any]:
    """Give the rows of a case: bytes as they are, all else as float32."""
    if dtype == "bits":
        return numbers(ROWS * DIM // 8).reshape(ROWS, -1)
    data = numbers(ROWS * DIM).reshape(ROWS, DIM)
    if dtype == "uint8":
        return data
    return (data.astype(np.float32) - np.float32(127.5)) / np.float32(64)


def line_of(title: str, index: annidx.Index, queries: int) -> str:
    """Tell the identity and the distances of the first rows' neighbours."""
    words = [title, index.info()["identity"]]
    if queries:
        _, distances = index.query_items(index.ids[:queries], NEAREST)
        words += [f"{bits:016x}" for bits in distances.ravel().view(np.uint64)]
    return " ".join(words)


def main() -> None:
    """Print all lines."""
    for metric, dtype in CASES:
        index = annidx.Index(DIM, metric, dtype)
        index.add_items(rows_for(dtype), packed=dtype == "bits")
        index.build(seed=5, n_jobs=1)
        print(line_of(f"built {metric} {dtype}", index, QUERIES))
    for path in map(Path, sys.argv[1:]):
        with annidx.load(path) as index:
            print(line_of(f"file {path.name}", index, min(1, len(index))))


if __name__ == "__main__":
    main()
