"""Owns the radio: a playlist that starts at the first seed and wanders to the last.

It must not know the page. What is near, far and new is the index's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import annidx

__all__ = ["playlist"]

# Items chosen for one place of the way: enough for diversity to choose from.
_LEG = 4
# Candidates looked at for each item that is chosen.
_DEPTH = 12
# How much a dislike counts beside the seeds.
_DISLIKE_WEIGHT = 0.5


def playlist(
    index: annidx.Index,
    seeds: Sequence[Any],
    dislikes: Sequence[Any],
    *,
    length: int,
    diversity: float,
    allow: annidx.IdSet | None,
    deny: Sequence[Any],
) -> list[Any]:
    """Choose items to play after one another.

    Parameters
    ----------
    index : Index
        A built index.
    seeds : sequence of ids
        One at least; the way leads from each to the next.
    dislikes : sequence of ids
        Items to stay away from. Of bits: not to be played, no more.
    length : int
        Items to choose.
    diversity : float
        0: the nearest ones; towards 1: unlike each other.
    allow : IdSet, optional
        What may be played.
    deny : sequence of ids
        What may not: heard already.

    Returns
    -------
    list of ids
        Fewer than `length` when the index has no more.
    """
    played: list[Any] = []
    starts = range(0, length, _LEG)
    for start in starts:
        wanted = min(_LEG, length - start)
        share = start / max(1, starts[-1])
        hidden = [*seeds, *dislikes, *deny, *played]
        vector = _point_on_the_way(index, seeds, dislikes, share)
        found = index.query(vector, k=wanted * _DEPTH, allow=allow, deny=hidden)[0]
        if not len(found):
            break
        played += _diverse(index, vector, found.tolist(), wanted, diversity)
    return played


def _point_on_the_way(
    index: annidx.Index, seeds: Sequence[Any], dislikes: Sequence[Any], share: float
) -> npt.NDArray[np.float64]:
    """Return the vector at a share, 0..1, of the way along the seeds, off the dislikes."""
    near = _directions(index, seeds)
    place = share * (len(seeds) - 1)
    first = min(int(place), len(seeds) - 1)
    after = min(first + 1, len(seeds) - 1)
    vector = np.asarray((1 - (place - first)) * near[first] + (place - first) * near[after])
    if index.metric == "hamming":
        return (vector >= 0.5).astype(np.float64)
    if dislikes:
        vector += _DISLIKE_WEIGHT * (vector - _directions(index, dislikes).mean(axis=0))
    return vector


def _directions(index: annidx.Index, ids: Sequence[Any]) -> npt.NDArray[np.float64]:
    vectors = index.get_vectors(list(ids)).astype(np.float64)
    if index.metric not in ("angular", "cosine"):
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: npt.NDArray[np.float64] = vectors / np.where(lengths > 0, lengths, 1)
    return scaled


def _diverse(
    index: annidx.Index,
    vector: npt.NDArray[np.float64],
    candidates: list[Any],
    wanted: int,
    diversity: float,
) -> list[Any]:
    """Choose by maximal marginal relevance: near the vector, unlike what was chosen."""
    points = _directions(index, candidates)
    similar = _similarity(points, points)
    relevant = _similarity(points, vector[None])[:, 0]
    chosen: list[int] = []
    closest = np.full(len(candidates), -np.inf)
    for _ in range(min(wanted, len(candidates))):
        known = closest if chosen else np.zeros(len(candidates))
        score = (1 - diversity) * relevant - diversity * known
        score[chosen] = -np.inf
        best = int(score.argmax())
        chosen.append(best)
        closest = np.maximum(closest, similar[:, best])
    return [candidates[place] for place in chosen]


def _similarity(
    points: npt.NDArray[np.float64], others: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return minus the distance of each point to each other one."""
    apart: npt.NDArray[np.float64] = np.linalg.norm(points[:, None] - others[None], axis=2)
    return -apart
