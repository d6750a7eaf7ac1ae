"""Owns the judgement whether a new index may take the place of the one that services read.

It must not know how an index is built, nor how it is published.
"""

from __future__ import annotations

import os
from typing import Any

import numpy.typing as npt

from annidx.index import Index
from annidx.opening import load

__all__ = ["RefusedError", "judge"]


class RefusedError(Exception):
    """An index is worse than what is asked of it; the message says in what and by how much."""


def judge(
    new: str,
    live: str | None,
    queries: npt.ArrayLike,
    k: int,
    *,
    least_recall: float,
    margin: float,
    agreement: float,
) -> dict[str, Any]:
    """Measure an index, alone and beside the live one; refuse it when it is worse than asked.

    Parameters
    ----------
    new, live : str
        Files. Without a live one, or where none stands, the new one is measured alone.
    queries : array_like
        (m, dim) vectors to ask both for.
    k : int
        Neighbours that count.
    least_recall : float
        Share of its own true neighbours that the new one must find, at its default target.
    margin : float
        How much less than the live one's recall is no loss.
    agreement : float
        Share of the true neighbours by the live one that the new one must find, by their ids.

    Returns
    -------
    dict
        "identity" and "recall", and of the live one "live_identity", "live_recall", "agreement".

    Raises
    ------
    RefusedError
        The new index is worse, or of another metric, dimension or kind of ids.
    ValueError, FormatError, OSError
        As for `Index.evaluate` and `annidx.load`.
    """
    with load(new) as index:
        recall = _recall(index, queries, k)
        _require("recall", recall, least_recall, new)
        judged = {"identity": index.info()["identity"], "recall": recall, "live_identity": None}
        if live is None or not os.path.exists(live):
            return judged
        with load(live) as other:
            _require_same_kind(index, other, live)
            theirs, shared = _recall(other, queries, k), _agreement(index, other, queries, k)
            judged |= {"live_identity": other.info()["identity"]}
        _require("recall", recall, theirs - margin, f"{new}, beside {theirs:.4f} of {live}")
        _require("agreement", shared, agreement, f"{new}, with {live}")
        return judged | {"live_recall": theirs, "agreement": shared}


def _recall(index: Index, queries: npt.ArrayLike, k: int) -> float:
    """Measure recall at the target that queries have by default."""
    target = index.info()["default_recall"]
    return float(index.evaluate(queries, k, target)[0]["recall"])


def _agreement(index: Index, live: Index, queries: npt.ArrayLike, k: int) -> float:
    truth = live.query_exact(queries, k)[0].tolist()
    found = index.query(queries, k)[0].tolist()
    shared = sum(len({*ours} & {*theirs}) for ours, theirs in zip(found, truth, strict=True))
    return shared / (len(truth) * min(k, len(live)))


def _require_same_kind(index: Index, live: Index, path: str) -> None:
    ours, theirs = index.info(), live.info()
    for name in ("metric", "dim", "ids"):
        if ours[name] != theirs[name]:
            raise RefusedError(
                f"{name}: expected {theirs[name]} as {path} has it, got {ours[name]}"
            )


def _require(name: str, found: float, least: float, where: str) -> None:
    if found < least:
        raise RefusedError(f"{name}: expected at least {least:.4f}, got {found:.4f} ({where})")
