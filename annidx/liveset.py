"""Owns sets of items that go along from file to file: what they mean, looked up in each one.

It must not know how a file is followed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from annidx import _core
from annidx._core.types import Follower, Items, Lookup
from annidx.idset import IdSet, ids_of, is_mask, resolve
from annidx.io import inputs

__all__ = ["LiveSet", "LiveSets", "set_of"]

Bits: TypeAlias = _core.SlotBits
Meaning: TypeAlias = Callable[[_core.CoreIndex], Bits]

# The files between which a follower goes over, of which some queries may still ask the older.
_FILES_AT_ONCE = 2


class LiveSet(Lookup):
    """A set of items of an index that follows its file; each new file is looked up anew.

    `index.idset(items)` and `index.sets[name]` of such an index make it. It goes where an `IdSet`
    goes, and `&`, `|`, `-` and `~` combine it with others, and with an `IdSet`.

    Notes
    -----
    It stands for ids or for a name: those of them that a file holds are in the set. `~` means the
    items of the file that is asked. `len(s)`, `id in s` and going through it ask the present file.
    Looking up takes time that grows with the ids, once for each file; a follower that runs in the
    background does it before it goes over. Safe to share between threads; pickles with its index.
    """

    def __init__(self, owner: LiveSetOwner, meaning: Meaning) -> None:
        self._owner = owner
        self._meaning = meaning
        # Filters by the file they were looked up in; a filter does not keep a file mapped.
        self._known: tuple[tuple[weakref.ref[_core.CoreIndex], Bits], ...] = ()
        owner.note_set(self)

    def bits_in(self, index: _core.CoreIndex) -> Bits:
        """Return the items of one file, as a filter."""
        for asked, bits in self._known:
            if asked() is index:
                return bits
        found = self._meaning(index)
        living = tuple(known for known in self._known if known[0]() is not None)
        self._known = ((weakref.ref(index), found), *living)[:_FILES_AT_ONCE]
        return found

    def _like_this(self, other: object) -> LiveSet | None:
        if isinstance(other, IdSet):
            return LiveSet(self._owner, _OfIds.of(list(other)))
        return other if isinstance(other, LiveSet) else None

    def __and__(self, other: object) -> LiveSet:
        also = self._like_this(other)
        return NotImplemented if also is None else LiveSet(self._owner, _Both(self, also))

    def __or__(self, other: object) -> LiveSet:
        also = self._like_this(other)
        return NotImplemented if also is None else LiveSet(self._owner, _Either(self, also))

    def __sub__(self, other: object) -> LiveSet:
        also = self._like_this(other)
        return NotImplemented if also is None else LiveSet(self._owner, _Without(self, also))

    __rand__ = __and__
    __ror__ = __or__

    def __rsub__(self, other: object) -> LiveSet:
        first = self._like_this(other)
        return NotImplemented if first is None else LiveSet(self._owner, _Without(first, self))

    def __invert__(self) -> LiveSet:
        return LiveSet(self._owner, _Others(self))

    def __len__(self) -> int:
        return len(self.bits_in(self._owner.current))

    def __contains__(self, item: object) -> bool:
        index = self._owner.current
        return self.bits_in(index)._holds(index, item)

    def __iter__(self) -> Iterator[int] | Iterator[str]:
        """Go through the ids of the items in the present file, in row order."""
        index = self._owner.current
        ids: list[Any] = ids_of(index, self.bits_in(index)._rows_in(index))
        return iter(ids)

    def __repr__(self) -> str:
        return f"LiveSet({len(self)} of {len(self._owner.current)} items)"

    def __reduce__(self) -> tuple[Any, ...]:
        return LiveSet, (self._owner, self._meaning)


class LiveSetOwner(Follower):
    """An index that goes over from file to file, and with it its sets."""

    def note_set(self, one: LiveSet) -> None:
        """Know a set, to look it up in a new file ahead of the first question."""
        raise NotImplementedError


class LiveSets(Mapping[str, LiveSet]):
    """The sets that the files of an index are saved with, by name: those of the present file.

    An element, once taken, is looked up by its name in each new file.
    """

    __slots__ = ("_owner",)

    def __init__(self, owner: LiveSetOwner) -> None:
        self._owner = owner

    def __getitem__(self, name: str) -> LiveSet:
        if not isinstance(name, str) or self._owner.current._named_bits(name) is None:
            raise KeyError(name)
        return LiveSet(self._owner, _OfName(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._owner.current._named_sets())

    def __len__(self) -> int:
        return len(self._owner.current._named_sets())

    def __repr__(self) -> str:
        return f"LiveSets({self._owner.current._named_sets()})"


def set_of(owner: LiveSetOwner, items: Items) -> LiveSet:
    """Make a set of ids, of a name, or of the ids that a mask means in the present file."""
    items = inputs.plain_filter(items, "items")
    if isinstance(items, LiveSet):
        return items
    if isinstance(items, str):
        return LiveSets(owner)[items]
    if is_mask(items):
        items = IdSet(owner.current, items)
    if isinstance(items, IdSet):
        return LiveSet(owner, _OfIds.of(list(items)))
    return LiveSet(owner, _OfIds(inputs.read_ids(items, "items")))


# ---- meanings: each finds its items in a file ----------------------------------------------------


@dataclass(frozen=True)
class _OfIds:
    ids: inputs.IdBatch

    @staticmethod
    def of(ids: list[Any]) -> _OfIds:
        return _OfIds(inputs.read_ids(ids, "items"))

    def __call__(self, index: _core.CoreIndex) -> Bits:
        found = _core.SlotBits()
        if self.ids.ints is not None:
            rows = index._find_ints(self.ids.ints)
        else:
            assert self.ids.text is not None and self.ids.offsets is not None
            rows = index._find_texts(self.ids.text, self.ids.offsets)
        found._fill(index, rows)
        return found._let_go()


@dataclass(frozen=True)
class _OfName:
    name: str

    def __call__(self, index: _core.CoreIndex) -> Bits:
        return resolve(index, self.name, "sets")


@dataclass(frozen=True)
class _Others:
    chosen: LiveSet

    def __call__(self, index: _core.CoreIndex) -> Bits:
        return ~self.chosen.bits_in(index)


@dataclass(frozen=True)
class _Both:
    first: LiveSet
    second: LiveSet

    def __call__(self, index: _core.CoreIndex) -> Bits:
        return self.first.bits_in(index) & self.second.bits_in(index)


@dataclass(frozen=True)
class _Either:
    first: LiveSet
    second: LiveSet

    def __call__(self, index: _core.CoreIndex) -> Bits:
        return self.first.bits_in(index) | self.second.bits_in(index)


@dataclass(frozen=True)
class _Without:
    chosen: LiveSet
    others: LiveSet

    def __call__(self, index: _core.CoreIndex) -> Bits:
        return self.chosen.bits_in(index) - self.others.bits_in(index)
