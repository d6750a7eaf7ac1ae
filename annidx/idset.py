"""Owns filters: which items a query may return, from what callers pass to sets the core reads.

It must not run queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from annidx import _core
from annidx._core.types import Items
from annidx.io.inputs import read_ids

__all__ = ["IdSet"]

# Bytes of sets held at one time for a batch in which each query has its own.
_SETS_BYTES = 64 << 20


class IdSet(_core.SlotBits):
    """A set of items of one index, prepared once and used as filter of many queries.

    Parameters
    ----------
    index : Index
        A built index. The set belongs to this index's content: it also works with another object
        that maps the same file, and is refused by any other index.
    items : ids or mask
        A list, array or set of ids (those that the index does not hold are ignored), or a boolean
        array over the rows in insertion order.

    Raises
    ------
    ValueError
        The items are neither ids nor a mask of one element for each row, or two sets of different
        indexes are combined.
    StateError
        The index is not built, or closed.

    Notes
    -----
    Takes one bit for each item of the index. A set never changes: `&`, `|`, `-` and `~` give new
    ones. `len(s)` counts the items, `id in s` asks for one. Safe to share between threads. Keeps
    its index alive.
    """

    def __init__(self, index: _core.CoreIndex, items: Items) -> None:
        if not isinstance(index, _core.CoreIndex):
            raise ValueError(f"index: expected an Index, got {_core.described(index)}")
        self._fill(index, _rows_of(index, items, "items"))

    def __repr__(self) -> str:
        return f"IdSet({len(self)} of {len(self.index)} items)"


def _rows_of(index: _core.CoreIndex, items: object, name: str) -> npt.NDArray[np.int64]:
    """Resolve ids (unknown ones are -1) or a mask to rows."""
    if isinstance(items, (list, tuple)) and items and isinstance(items[0], (bool, np.bool_)):
        items = np.asarray(items)
    if isinstance(items, np.ndarray) and items.dtype == np.bool_:
        if items.shape != (len(index),):
            raise ValueError(
                f"{name}: expected a mask of shape ({len(index)},), one for each row, "
                f"got {items.shape}"
            )
        return np.flatnonzero(items).astype(np.int64, copy=False)
    return find_rows(index, items, name)


def find_rows(index: _core.CoreIndex, ids: object, name: str) -> npt.NDArray[np.int64]:
    """Resolve several ids to rows, -1 for those that the index does not hold."""
    batch = read_ids(ids, name)
    if batch.ints is not None:
        return index._find_ints(batch.ints)
    assert batch.text is not None and batch.offsets is not None
    return index._find_texts(batch.text, batch.offsets)


def _one_set(index: _core.CoreIndex, items: Any, name: str) -> _core.SlotBits:
    if isinstance(items, _core.SlotBits):
        return items
    result = _core.SlotBits()
    result._fill(index, _rows_of(index, items, name))
    return result


def _is_one_per_query(items: object) -> bool:
    """Tell a list of filters from a list of ids, by its first element."""
    if isinstance(items, np.ndarray):
        return items.ndim == 2
    if not isinstance(items, (list, tuple)) or not items:
        return False
    first = items[0]
    if isinstance(first, np.ndarray):
        return first.ndim > 0
    return first is None or isinstance(first, (_core.SlotBits, list, tuple, set, frozenset, range))


def _check_length(items: Any, name: str, queries: int) -> None:
    if len(items) != queries:
        raise ValueError(
            f"{name}: expected one filter for each of the {queries} queries, got {len(items)}"
        )


def eligible_parts(
    index: _core.CoreIndex, allow: Any, deny: Any, queries: int
) -> Iterator[tuple[slice, list[_core.SlotBits] | None]]:
    """Split a batch so that the sets of one part fit in bounded memory.

    Yields the queries of each part (at least one part) and its sets: None (no filter), one, or one
    for each query.
    """
    allow_each = _is_one_per_query(allow)
    deny_each = _is_one_per_query(deny)
    if allow_each:
        _check_length(allow, "allow", queries)
    if deny_each:
        _check_length(deny, "deny", queries)
    if not allow_each:
        allow = None if allow is None else _one_set(index, allow, "allow")
    if not deny_each:
        deny = None if deny is None else _one_set(index, deny, "deny")
    if not (allow_each or deny_each):
        shared = _combined(allow, deny)
        yield slice(0, queries), None if shared is None else [shared]
        return
    everything = ~_one_set(index, [], "allow")
    step = max(1, _SETS_BYTES // (len(index) // 8 + 64))
    for first in range(0, max(queries, 1), step):
        part = range(first, min(queries, first + step))
        sets = []
        for query in part:
            allowed = allow[query] if allow_each else allow
            denied = deny[query] if deny_each else deny
            if allowed is not None:
                allowed = _one_set(index, allowed, f"allow[{query}]")
            if denied is not None:
                denied = _one_set(index, denied, f"deny[{query}]")
            one = _combined(allowed, denied)
            sets.append(everything if one is None else one)
        yield slice(part.start, part.stop), sets


def _combined(allow: _core.SlotBits | None, deny: _core.SlotBits | None) -> _core.SlotBits | None:
    if deny is None:
        return allow
    return ~deny if allow is None else allow - deny
