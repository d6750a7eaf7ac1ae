"""Owns the radio: a playlist that starts at the first seed and wanders to the last.

It must not know the page. What is near, far and new is the index's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import annidx

__all__ = ["playlist"]

# Items chosen for one place of the way: few, so that it moves, and enough to differ.
_LEG = 4
# How much all dislikes together count beside the seeds.
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
        Items to stay away from.
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
    against = [_DISLIKE_WEIGHT / len(dislikes) for _ in dislikes]
    starts = range(0, length, _LEG)
    for start in starts:
        share = start / max(1, starts[-1])
        found = index.query_like(
            seeds,
            dislikes or None,
            k=min(_LEG, length - start),
            weights=_weights(len(seeds), share) + against,
            diversity=diversity,
            allow=allow,
            deny=[*seeds, *dislikes, *deny, *played],
        )[0].tolist()
        if not found:
            break
        played += found
    return played


def _weights(seeds: int, share: float) -> list[float]:
    """Weigh the seeds at a share, 0..1, of the way along them: the two that it lies between."""
    place = share * (seeds - 1)
    return [max(0.0, 1.0 - abs(place - seed)) for seed in range(seeds)]
