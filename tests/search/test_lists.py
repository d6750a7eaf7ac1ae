"""Owns the tests of blocks and neighbour lists: what lists hold, what queries find along them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import format_reader
import numpy as np
import numpy.typing as npt
import oracle
import pytest

import annidx

Array = npt.NDArray[Any]
ITEMS, DIM = 4_000, 24
CODED = ("angular", "cosine", "euclidean")


def clustered(items: int, dim: int, seed: int = 3) -> Array:
    """Vectors in loose clusters, in float32."""
    centres = np.random.default_rng(dim).normal(size=(40, dim))
    source = np.random.default_rng(seed)
    rows = centres[source.integers(40, size=items)] + 0.6 * source.normal(size=(items, dim))
    return rows.astype(np.float32)


def built(metric: str, vectors: Array, **options: Any) -> annidx.Index:
    """Build an index of these vectors."""
    index = annidx.Index(vectors.shape[1], metric)
    index.add_items(vectors)
    index.build(**options)
    return index


def file_of(index: annidx.Index, folder: Path) -> format_reader.IndexFile:
    """Save an index and read it with the independent reader."""
    path = folder / "index.annidx"
    index.save(path)
    return format_reader.read(path, strict=True)


@pytest.mark.parametrize("metric", CODED)
def test_lists_hold_the_nearest(metric: str, tmp_path: Path) -> None:
    vectors = clustered(ITEMS, DIM)
    found = file_of(built(metric, vectors, recall=None), tmp_path)
    by_slot = vectors[found.array("slot_rows")]
    queries = by_slot[::97].astype(np.float64)
    rows = by_slot.astype(np.float64)
    if metric != "euclidean":
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    keys = ((queries[:, None] - rows[None]) ** 2).sum(axis=2)
    slots = np.arange(ITEMS)[::97]
    keys[np.arange(len(slots)), slots] = np.inf
    nearest = np.argsort(keys, axis=1)[:, :16]
    lists = found.neighbours[slots]
    hits = [len(set(a) & set(b)) for a, b in zip(lists.tolist(), nearest.tolist(), strict=True)]
    assert np.mean(hits) / 16 >= 0.9


@pytest.mark.parametrize("neighbours", [0, 1, 8, 40])
def test_neighbours_are_as_many_as_asked_for(neighbours: int, tmp_path: Path) -> None:
    vectors = clustered(ITEMS, DIM)
    index = built("euclidean", vectors, neighbours=neighbours)
    found = file_of(index, tmp_path)
    assert found.params["neighbour_count"] == neighbours
    assert ("neighbours" in found.entries) == (neighbours > 0)
    assert ("code_records" in found.entries) == (neighbours > 0)
    queries = clustered(200, DIM, seed=4)
    truth = index.query_exact(queries, k=10)[0]
    near = index.query(queries, k=10, recall=0.95)[0]
    hits = [len(set(a) & set(b)) for a, b in zip(near.tolist(), truth.tolist(), strict=True)]
    assert np.mean(hits) / 10 >= 0.92


@pytest.mark.parametrize("neighbours", [-1, 129, 2.5, True, "16"])
def test_wrong_numbers_of_neighbours_are_refused(neighbours: Any) -> None:
    index = annidx.Index(4, "euclidean")
    index.add_items(np.eye(4))
    with pytest.raises(ValueError, match="neighbours: expected a whole number from 0 to 128"):
        index.build(neighbours=neighbours)


def test_lists_are_made_where_they_pay(tmp_path: Path) -> None:
    few = file_of(built("euclidean", clustered(500, DIM)), tmp_path)
    flat = file_of(built("euclidean", clustered(ITEMS, 8)), tmp_path)
    inner = file_of(built("dot", clustered(ITEMS, DIM)), tmp_path)
    for found in (few, flat, inner):
        assert "neighbours" not in found.entries and "block_centroids" not in found.entries


def test_an_item_finds_its_neighbours_and_not_itself() -> None:
    vectors = clustered(ITEMS, DIM)
    index = built("euclidean", vectors)
    rows = np.arange(0, ITEMS, 211)
    ids, distances = index.query_items(rows, k=12)
    assert not (ids == rows[:, None]).any()
    assert (np.diff(distances, axis=1) >= 0).all()
    exact = np.sqrt(((vectors[ids] - vectors[rows][:, None]).astype(np.float64) ** 2).sum(axis=2))
    np.testing.assert_allclose(distances, exact, rtol=1e-6)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_what_a_filter_hides_is_not_found_along_lists(share: float) -> None:
    vectors = clustered(ITEMS, DIM)
    index = built("angular", vectors)
    allowed = np.random.default_rng(5).random(ITEMS) < share
    ids, _ = index.query(clustered(50, DIM, seed=6), k=10, allow=allowed)
    assert ids.shape == (50, 10) and allowed[ids].all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_higher_target_never_finds_less_where_many_are_equal(metric: str) -> None:
    """Sparse zeros and ones, many of them nothing but zeros, asked by the rows themselves."""
    vectors = (np.random.default_rng(7).normal(size=(6_000, 260)) > 2.5).astype(np.float32)
    vectors[::9] = 0
    index = built(metric, vectors)
    queries = vectors[1::40]
    for k in (10, 15):
        truth = index.query_exact(queries, k=k)[1][:, -1:]
        shares = []
        for target in (0.9, 0.95, 0.99):
            distances = index.query(queries, k=k, recall=target)[1]
            shares.append(float((distances <= truth * (1 + 1e-6) + 1e-9).mean()))
        assert shares == sorted(shares)
        assert all(
            share >= target - 0.02 for share, target in zip(shares, (0.9, 0.95, 0.99), strict=True)
        )


def test_targets_of_k_between_measured_ones() -> None:
    vectors = clustered(ITEMS, DIM)
    index = built("euclidean", vectors)
    queries = clustered(300, DIM, seed=8)
    for k in (2, 15, 47, 70):
        truth = np.sort(
            [oracle.distances(query, vectors, "euclidean") for query in queries], axis=1
        )
        distances = index.query(queries, k=k, recall=0.95)[1]
        assert (distances <= truth[:, k - 1 : k] * (1 + 1e-6)).mean() >= 0.93
