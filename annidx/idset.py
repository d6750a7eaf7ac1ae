"""Owns filters: which items a query may return, from what callers pass to sets the core reads.

It must not run queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from annidx import _core
from annidx._core.types import Follower, Items, Lookup
from annidx.io.inputs import plain_filter, read_ids

__all__ = ["IdSet", "NamedSets"]

# Bytes of sets held at one time for a batch in which each query has its own.
_SETS_BYTES = 64 << 20


class IdSet(_core.SlotBits):
    """A set of items of one index, prepared once and used as filter of many queries.

    Parameters
    ----------
    index : Index
        A built index. The set belongs to this index's content: it also works with another object
        that maps the same file, and is refused by any other index. Of one that follows its file,
        the present file is meant; `index.idset` makes sets that go along to the next.
    items : ids, mask or name
        A list, array or set of ids (those that the index does not hold are ignored), a boolean
        array over the rows in insertion order, or the name of a set that the index was saved with.

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
    ones. `len(s)` counts the items, `id in s` asks for one, and going through a set gives the ids
    in row order. Safe to share between threads. Keeps its index alive, and pickles with it.
    """

    def __init__(self, index: _core.CoreIndex | Follower, items: Items) -> None:
        present = index.current if isinstance(index, Follower) else index
        if not isinstance(present, _core.CoreIndex):
            raise ValueError(f"index: expected an Index, got {_core.described(index)}")
        if isinstance(items, (str, _core.SlotBits, Lookup)):
            self._fill(present, resolve(present, items, "items")._rows_in(present))
        else:
            self._fill(present, _rows_of(present, items, "items"))

    def __iter__(self) -> Iterator[int] | Iterator[str]:
        """Go through the ids of the items, in row order."""
        ids: list[Any] = ids_of(self.index, self._rows_in(self.index))
        return iter(ids)

    @property
    def index(self) -> _core.CoreIndex:
        """The index that the set belongs to."""
        return super().index

    def __repr__(self) -> str:
        return f"IdSet({len(self)} of {len(self.index)} items)"

    def __reduce__(self) -> tuple[Any, ...]:
        mask = np.zeros(len(self.index), np.bool_)
        mask[self._rows_in(self.index)] = True
        return _unpickled, (self.index, np.packbits(mask))


def _unpickled(index: _core.CoreIndex, packed: npt.NDArray[np.uint8]) -> IdSet:
    return IdSet(index, np.unpackbits(packed, count=len(index)).astype(np.bool_))


class NamedSets(Mapping[str, IdSet]):
    """The sets that an index was saved with, by name.

    An element is read from the index when it is asked for, as an `IdSet`. Names ascend.
    """

    __slots__ = ("_index",)

    def __init__(self, index: _core.CoreIndex) -> None:
        self._index = index

    def __getitem__(self, name: str) -> IdSet:
        found = IdSet.__new__(IdSet)
        if not isinstance(name, str) or not found._fill_named(self._index, name):
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._index._named_sets())

    def __len__(self) -> int:
        return len(self._index._named_sets())

    def __repr__(self) -> str:
        return f"NamedSets({self._index._named_sets()})"


def ids_of(index: _core.CoreIndex, rows: npt.NDArray[np.int64]) -> list[int] | list[str]:
    """Return the ids of rows."""
    if index._has_text_ids:
        return cast("list[str]", index._text_ids(rows).tolist())
    return cast("list[int]", index._int_ids()[rows].tolist())


def named_bits(index: _core.CoreIndex, sets: Mapping[str, Items]) -> dict[str, _core.SlotBits]:
    """Resolve the sets that an index is to be saved with."""
    if not isinstance(sets, Mapping):
        raise ValueError(f"sets: expected a dict of names and items, got {_core.described(sets)}")
    found = {}
    for name, items in sets.items():
        if not isinstance(name, str) or not _is_utf8(name):
            raise ValueError(f"sets: expected names that are text, got {_core.described(name)}")
        found[name] = resolve(index, items, f"sets[{name!r}]")
    return found


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_mask(items: object) -> bool:
    """Tell a mask over rows from ids."""
    if isinstance(items, (list, tuple)):
        return bool(items) and isinstance(items[0], (bool, np.bool_))
    return isinstance(items, np.ndarray) and items.dtype == np.bool_


def _rows_of(index: _core.CoreIndex, items: object, name: str) -> npt.NDArray[np.int64]:
    """Resolve ids (unknown ones are -1) or a mask to rows."""
    items = plain_filter(items, name)
    if is_mask(items):
        items = np.asarray(items)
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


def resolve(index: _core.CoreIndex, items: Any, name: str) -> _core.SlotBits:
    """Find the items of an index that one filter means."""
    if isinstance(items, _core.SlotBits):
        return items
    if isinstance(items, Lookup):
        return items.bits_in(index)
    if isinstance(items, str):
        named = index._named_bits(items)
        if named is None:
            known = ", ".join(map(repr, index._named_sets())) or "none"
            raise ValueError(
                f"{name}: expected ids, a mask, or the name of a set of this index ({known}), "
                f"got {items!r}"
            )
        return named
    result = _core.SlotBits()
    result._fill(index, _rows_of(index, items, name))
    return result


def is_one_per_query(items: object) -> bool:
    """Tell a list of filters from a list of ids, by its first element."""
    if isinstance(items, np.ndarray):
        return items.ndim == 2
    if not isinstance(items, (list, tuple)) or not items:
        return False
    first = items[0]
    if hasattr(first, "__array__"):  # an array or a column, but not one number of an array
        return not isinstance(first, np.generic) and np.ndim(first) > 0
    kinds = (_core.SlotBits, Lookup, list, tuple, set, frozenset, range)
    return first is None or isinstance(first, kinds)


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
    allow_each = is_one_per_query(allow)
    deny_each = is_one_per_query(deny)
    if allow_each:
        _check_length(allow, "allow", queries)
    if deny_each:
        _check_length(deny, "deny", queries)
    if not allow_each:
        allow = None if allow is None else resolve(index, allow, "allow")
    if not deny_each:
        deny = None if deny is None else resolve(index, deny, "deny")
    if not (allow_each or deny_each):
        shared = _combined(allow, deny)
        yield slice(0, queries), None if shared is None else [shared]
        return
    everything = ~resolve(index, [], "allow")
    step = max(1, _SETS_BYTES // (len(index) // 8 + 64))
    for first in range(0, max(queries, 1), step):
        part = range(first, min(queries, first + step))
        sets = []
        for query in part:
            allowed = allow[query] if allow_each else allow
            denied = deny[query] if deny_each else deny
            if allowed is not None:
                allowed = resolve(index, allowed, f"allow[{query}]")
            if denied is not None:
                denied = resolve(index, denied, f"deny[{query}]")
            one = _combined(allowed, denied)
            sets.append(everything if one is None else one)
        yield slice(part.start, part.stop), sets


def _combined(allow: _core.SlotBits | None, deny: _core.SlotBits | None) -> _core.SlotBits | None:
    if deny is None:
        return allow
    return ~deny if allow is None else allow - deny
