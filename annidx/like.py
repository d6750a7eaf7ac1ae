"""Owns queries by example: what vector stands for several liked items, and which answers differ.

It must not search: it reads examples from an index, and all else is arithmetic on their vectors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from annidx import _core
from annidx.idset import find_rows
from annidx.io import inputs
from annidx.io.containers import as_numbers

__all__ = ["Examples", "blend", "diversified", "pool_size", "read_examples"]

Vectors = npt.NDArray[np.float64]

# Nearest items among which a diverse answer is chosen: for each one wanted, and at least. More make
# lists more varied and their items less near.
_POOL_PER_ITEM = 5
_POOL_LEAST = 50

# A mean of unit vectors that is shorter than this points nowhere but into rounding.
_LEAST_LENGTH = 1e-6


class Examples(NamedTuple):
    """Vectors that a query is made of, how much each counts, and the rows of those in the index."""

    vectors: Vectors
    weights: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]


# ---- reading -------------------------------------------------------------------------------


def read_examples(
    index: _core.CoreIndex, positive: object, negative: object, weights: object, missing: str
) -> tuple[Examples, Examples]:
    """Read what `query_like` was given, each as ids or as vectors."""
    skip = inputs.one_of(missing, "missing", ("raise", "skip")) == "skip"
    liked = _vectors_or_rows(index, positive, "positive")
    unliked = _vectors_or_rows(index, [] if negative is None else negative, "negative")
    if len(liked) == 0:
        raise ValueError("positive: expected at least one id or vector, got none")
    shares = _read_weights(weights, len(liked), len(unliked))
    first = _known(index, liked, positive, shares[: len(liked)], skip)
    if not first.weights.sum() > 0:
        raise ValueError("positive: expected at least one of a weight above 0 in the index")
    return first, _known(index, unliked, negative, shares[len(liked) :], skip)


def _vectors_or_rows(index: _core.CoreIndex, given: Any, name: str) -> npt.NDArray[Any]:
    """Read vectors as float64 (m, dim), ids as int64 rows (m,)."""
    if inputs.is_one_id(given):
        return find_rows(index, [given], name)
    if _are_vectors(given):
        bits = index.metric == "hamming"
        array, _ = inputs.as_queries(given, name, index.dim, bits=bits, packed=False)
        if bits:
            array = np.unpackbits(array, axis=1, count=index.dim)
        inputs.check_finite(array, array, name, 0)
        return array.astype(np.float64)
    return find_rows(index, given, name)


def _are_vectors(given: Any) -> bool:
    """Tell vectors from ids: they are rows, or hold fractions."""
    if isinstance(given, (list, tuple)):
        first = given[0] if len(given) else 0
        return isinstance(first, (float, np.floating)) or np.ndim(first) > 0
    if not hasattr(given, "__array__"):
        return False
    dtype = str(getattr(given, "dtype", ""))
    return len(getattr(given, "shape", ())) == 2 or "float" in dtype.lower()


def _read_weights(weights: Any, positives: int, negatives: int) -> npt.NDArray[np.float64]:
    if weights is None:
        return np.ones(positives + negatives)
    array = as_numbers(weights, "weights").astype(np.float64)
    if array.shape not in ((positives,), (positives + negatives,)):
        raise ValueError(
            f"weights: expected one for each of {positives} positives, or of all "
            f"{positives + negatives} examples, got shape {array.shape}"
        )
    if not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError("weights: expected finite numbers of 0 or more")
    return np.concatenate([array, np.ones(positives + negatives - len(array))])


def _known(
    index: _core.CoreIndex,
    found: npt.NDArray[Any],
    given: Any,
    weights: npt.NDArray[np.float64],
    skip: bool,
) -> Examples:
    """Give rows their vectors; unknown ids are left out, or an error."""
    if found.ndim == 2:
        return Examples(found, weights, np.empty(0, np.int64))
    known = found >= 0
    if not known.all() and not skip:
        ids = [given] if inputs.is_one_id(given) else list(given)
        raise KeyError(inputs.plain_id(ids[int(np.argmin(known))]))
    rows = found[known]
    vectors = index._vectors(rows.astype(np.uint32))
    if index.metric == "hamming":
        vectors = np.unpackbits(vectors, axis=1, count=index.dim)
    return Examples(vectors.astype(np.float64), weights[known], rows)


# ---- arithmetic ----------------------------------------------------------------------------


def _unit(vectors: Vectors) -> Vectors:
    """Scale rows to length 1; a row of zeros has no direction and stays."""
    lengths = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    scaled: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return scaled


def _mean(examples: Examples, metric: str) -> Vectors:
    by_direction = metric in ("angular", "cosine")
    vectors = _unit(examples.vectors) if by_direction else examples.vectors
    result: Vectors = examples.weights @ vectors / examples.weights.sum()
    return result


def blend(metric: str, positive: Examples, negative: Examples) -> npt.NDArray[Any]:
    """Make one query, (dim,), of examples: their mean, moved away from the mean of the negatives.

    It moves by the distance between the two means times the negatives' share of the weight, at most
    by all of it: the direction of Rocchio's feedback (1971), in a form that has a meaning for
    metrics without an origin too.
    """
    middle = _mean(positive, metric)
    away = negative.weights.sum()
    if away > 0:
        push = min(1.0, away / positive.weights.sum())
        middle = middle + push * (middle - _mean(negative, metric))
    if metric == "hamming":
        first = positive.vectors[int(np.argmax(positive.weights))]
        is_tie = np.abs(middle - 0.5) < 1e-9
        return np.asarray(np.where(is_tie, first, middle > 0.5), dtype=np.uint8)
    if metric in ("angular", "cosine") and np.sqrt(middle @ middle) < _LEAST_LENGTH:
        raise ValueError("positive: the examples cancel each other out: no direction is left")
    return middle


def pool_size(k: int, diversity: float) -> int:
    """How many of the nearest items an answer is chosen from."""
    return max(_POOL_LEAST, _POOL_PER_ITEM * k) if diversity > 0 else k


def _similarities(metric: str, vectors: Vectors, to: Vectors) -> npt.NDArray[np.float64]:
    """Cosine, inner product or negative distance, as the metric has it. Rows of unit length."""
    if metric in ("angular", "cosine", "dot"):
        return np.asarray(vectors @ to)
    difference = vectors - to
    if metric == "euclidean":
        return np.asarray(-np.sqrt((difference * difference).sum(axis=1)))
    return np.asarray(-np.abs(difference).sum(axis=1))


def diversified(
    metric: str, query: npt.NDArray[Any], vectors: npt.NDArray[Any], k: int, diversity: float
) -> npt.NDArray[np.int64]:
    """Choose k of the nearest items so that they differ: places in `vectors`, in order of choice.

    Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): the nearest comes first, then
    each time the one of the largest (1 - diversity) * similarity to the query - diversity *
    similarity to the most similar of those chosen.
    """
    items, target = vectors.astype(np.float64), query.astype(np.float64)
    if metric in ("angular", "cosine"):
        items, target = _unit(items), _unit(target)
    relevance = (1.0 - diversity) * _similarities(metric, items, target)
    closest = np.full(len(items), -np.inf)
    chosen: list[int] = [0] if len(items) else []
    while len(chosen) < min(k, len(items)):
        closest = np.maximum(closest, _similarities(metric, items, items[chosen[-1]]))
        score = relevance - diversity * closest
        score[chosen] = -np.inf
        chosen.append(int(np.argmax(score)))
    return np.array(chosen, dtype=np.int64)
