"""Exact distances in float64, exact neighbours by brute force, and what counts as a hit.

Every distance here is "smaller is nearer": an inner product is negated. A hit is a
returned item, counted once, whose true distance is not above the true k-th distance by
more than a relative 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.contestant import Array

RELATIVE_TOLERANCE = 1e-6
BLOCK_ROWS = 65_536
GATHER_BYTES = 1 << 28
BITS_IN_BYTE = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)


def _unit(rows: Array) -> Array:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def _euclidean(rows: Array, query: Array) -> Array:
    return np.asarray(np.linalg.norm(rows - query, axis=-1))


def _manhattan(rows: Array, query: Array) -> Array:
    return np.asarray(np.abs(rows - query).sum(axis=-1))


def _negated_dot(rows: Array, query: Array) -> Array:
    return np.asarray(-np.einsum("...d,...d->...", rows, query))


def _angular(rows: Array, query: Array) -> Array:
    """|a/|a| - b/|b||, which is sqrt(2 - 2 cos) without its cancellation."""
    has_length = np.any(rows != 0, axis=-1) & np.any(query != 0, axis=-1)
    return np.where(has_length, _euclidean(_unit(rows), _unit(query)), np.sqrt(2))


def _cosine(rows: Array, query: Array) -> Array:
    return _angular(rows, query) ** 2 / 2


DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "angular": _angular,
    "cosine": _cosine,
    "euclidean": _euclidean,
    "manhattan": _manhattan,
    "dot": _negated_dot,
}


def true_distances(metric: str, base: Array, queries: Array, ids: Array) -> Array:
    """Exact distance of ``base[ids[i, j]]`` to ``queries[i]``; infinity for id -1."""
    distances = np.full(ids.shape, np.inf)
    rows_at_once = max(1, GATHER_BYTES // max(1, ids.shape[1] * base.shape[1] * 8))
    for first in range(0, len(ids), rows_at_once):
        block = slice(first, first + rows_at_once)
        valid = ids[block] >= 0
        rows = base[np.where(valid, ids[block], 0)]
        query = queries[block][:, None, :]
        if metric == "hamming":
            exact: Array = BITS_IN_BYTE[rows ^ query].sum(axis=-1).astype(np.float64)
        else:
            exact = DISTANCES[metric](rows.astype(np.float64), query.astype(np.float64))
        distances[block] = np.where(valid, exact, np.inf)
    return distances


def without_repeats(ids: Array) -> Array:
    """Every repetition of an id within a row becomes -1, so that it counts once."""
    order = np.argsort(ids, axis=1, kind="stable")
    in_order = np.take_along_axis(ids, order, axis=1)
    repeated = np.zeros(ids.shape, dtype=bool)
    repeated[:, 1:] = in_order[:, 1:] == in_order[:, :-1]
    unique: Array = ids.copy()
    np.put_along_axis(unique, order, np.where(repeated, -1, in_order), axis=1)
    return unique


def as_id_matrix(answers: Sequence[Any], k: int) -> Array:
    """Answers of any shape a library returns as (m, k) int64, missing ones -1."""
    matrix = np.full((len(answers), k), -1, dtype=np.int64)
    for row, answer in enumerate(answers):
        found = np.asarray(answer)[:k].astype(np.int64)
        matrix[row, : len(found)] = found
    return matrix


def recall(metric: str, base: Array, queries: Array, ids: Array, kth: Array) -> float:
    """Mean share of hits among k, given the true k-th distance of each query."""
    in_range = np.where(ids < len(base), ids, -1)
    distances = true_distances(metric, base, queries, without_repeats(in_range))
    limit = kth + np.abs(kth) * RELATIVE_TOLERANCE
    return float(np.mean(distances <= limit[:, None]))


def kth_distances(metric: str, base: Array, queries: Array, exact_ids: Array, k: int) -> Array:
    """True distance of the k-th nearest item, recomputed from the exact ids."""
    nearest = true_distances(metric, base, queries, exact_ids[:, :k].astype(np.int64))
    return np.asarray(nearest.max(axis=1))


def _block_scores(metric: str, rows: Array, queries: Array) -> Array:
    """float32 scores of a block, in the order of the true distances: (m, rows)."""
    if metric == "hamming":
        row_bits = np.unpackbits(rows, axis=1).astype(np.float32) * 2 - 1
        query_bits = np.unpackbits(queries, axis=1).astype(np.float32) * 2 - 1
        return np.asarray((row_bits.shape[1] - query_bits @ row_bits.T) / 2)
    rows = rows.astype(np.float32)
    queries = queries.astype(np.float32)
    if metric == "manhattan":
        return np.stack([np.abs(rows - query).sum(axis=1) for query in queries])
    if metric in {"angular", "cosine"}:
        return np.asarray(1 - _unit(queries) @ _unit(rows).T)
    products: Array = queries @ rows.T
    if metric == "dot":
        return -products
    return np.asarray(np.einsum("rd,rd->r", rows, rows)[None, :] - 2 * products)


def _comparable(metric: str, distances: Array, queries: Array) -> Array:
    """True distances on the scale of ``_block_scores``."""
    if metric == "angular":
        return distances**2 / 2
    if metric == "euclidean":
        lengths = np.einsum("md,md->m", queries, queries, dtype=np.float64)
        return np.asarray(distances**2 - lengths[:, None])
    return distances


def _nearest_by_score(metric: str, base: Array, queries: Array, count: int) -> tuple[Array, Array]:
    """The ``count`` best float32 scores of each query and their rows, unordered."""
    scores = np.full((len(queries), count), np.inf, dtype=np.float32)
    ids = np.full((len(queries), count), -1, dtype=np.int64)
    for first in range(0, len(base), BLOCK_ROWS):
        block = _block_scores(metric, np.asarray(base[first : first + BLOCK_ROWS]), queries)
        worst = scores.max(axis=1)
        for row in range(len(queries)):
            better = np.flatnonzero(block[row] < worst[row])
            if len(better) == 0:
                continue
            merged_scores = np.concatenate([scores[row], block[row, better]])
            merged_ids = np.concatenate([ids[row], better + first])
            best = np.argpartition(merged_scores, count - 1)[:count]
            scores[row], ids[row] = merged_scores[best], merged_ids[best]
    return scores, ids


def exact_neighbours(metric: str, base: Array, queries: Array, count: int) -> Array:
    """Rows of the ``count`` nearest by float64 distance, nearest first.

    float32 scores choose the candidates; the result is accepted only if the rounding seen
    on them cannot have hidden a nearer item, else more candidates are taken.
    """
    count = min(count, len(base))
    kept = min(len(base), 2 * count + 32)
    while True:
        scores, ids = _nearest_by_score(metric, base, queries, kept)
        distances = true_distances(metric, base, queries, ids)
        comparable = _comparable(metric, distances, queries)
        rounding = 4 * np.abs(comparable - scores).max(axis=1)
        order = np.lexsort((ids, distances))[:, :count]
        kth = np.take_along_axis(comparable, order[:, -1:], axis=1)[:, 0]
        if kept == len(base) or np.all(kth + rounding <= scores.max(axis=1)):
            return np.take_along_axis(ids, order, axis=1)
        kept = min(len(base), 4 * kept)
