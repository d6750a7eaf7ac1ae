"""Owns the proof that a build chooses how much the radii of leaves count in routing.

The weight is read from the file, by a reader that shares nothing with the library: a leaf's bias is
the square of its centroid plus the weight times the mean squared distance of its points.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import format_reader
import numpy as np
import numpy.typing as npt
import pytest

import annidx

Array = npt.NDArray[Any]
DIM, ITEMS = 24, 20_000


def clusters(random: np.random.Generator, widest: float) -> Array:
    """Clusters at random places, from a width of 1 / widest to one of widest."""
    widths = np.geomspace(1 / widest, widest, 60)
    places = random.standard_normal((60, DIM)) * 2
    chosen = random.integers(60, size=ITEMS)
    noise = random.standard_normal((ITEMS, DIM))
    vectors: Array = places[chosen] + widths[chosen, None] * noise
    return vectors.astype(np.float32)


def weight_in(path: Path) -> float:
    """Return the weight that explains the biases of a file."""
    file = format_reader.read(path)
    ranges, work, rows = file.array("leaf_ranges"), file.work, file.array("slot_rows")
    centroids = file.centroids() * file.array("leaf_mults")[:, None] / 2
    rest, spreads = [], []
    for entry in np.flatnonzero(ranges["count"]):
        first, count = int(ranges["first"][entry]), int(ranges["count"][entry])
        points = work[rows[first : first + count]]
        rest.append(file.array("leaf_biases")[entry] - (centroids[entry] ** 2).sum())
        spreads.append(((points - centroids[entry]) ** 2).sum(axis=1).mean())
    weight = float(np.dot(rest, spreads) / np.dot(spreads, spreads))
    assert np.allclose(rest, weight * np.array(spreads), atol=1e-4 * max(spreads))
    return weight


def build(path: Path, vectors: Array, **options: Any) -> annidx.Index:
    """Build, save and load an index."""
    index = annidx.Index(DIM, "euclidean")
    index.add_items(vectors)
    index.build(**options)
    index.save(path)
    return annidx.load(path)


def test_without_queries_radii_count_as_usual(rng: np.random.Generator, tmp_path: Path) -> None:
    build(tmp_path / "index.annidx", clusters(rng, 1.0), recall=None)
    assert weight_in(tmp_path / "index.annidx") == pytest.approx(0.3, abs=1e-3)


def test_radii_that_vary_count_less(rng: np.random.Generator, tmp_path: Path) -> None:
    vectors = clusters(rng, 4.0)
    asked, kept = vectors[:200], vectors[200:]
    usual = build(tmp_path / "usual.annidx", kept, recall=None)
    chosen = build(tmp_path / "chosen.annidx", kept)
    assert weight_in(tmp_path / "chosen.annidx") < 0.25
    truth = usual.query_exact(asked, k=10)[1]

    def share_found(index: annidx.Index) -> float:
        found = index.query(asked, k=10, search_k=2_000)[1]
        return float((found <= truth[:, -1:] * (1 + 1e-6)).mean())

    assert share_found(chosen) > share_found(usual)
