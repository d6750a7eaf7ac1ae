"""Owns the types of ids and filters as callers pass them, for the signatures of all rooms above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from annidx._core.binding import CoreIndex, SlotBits

__all__ = ["Filter", "Follower", "Id", "Ids", "Items", "Lookup"]


class Lookup:
    """A filter that is looked up anew in each index that is asked."""

    def bits_in(self, index: CoreIndex) -> SlotBits:
        """Return the items of an index that are meant."""
        raise NotImplementedError


class Follower:
    """Something that stands for one index now, and perhaps for another one later."""

    @property
    def current(self) -> CoreIndex:
        """The index that it stands for now."""
        raise NotImplementedError


Id: TypeAlias = "int | str | np.integer[Any]"
Ids: TypeAlias = "Sequence[int] | Sequence[str] | npt.NDArray[Any]"
Items: TypeAlias = (
    "SlotBits | Lookup | str | npt.NDArray[Any] | Sequence[Any] | set[int] | set[str] | "
    "frozenset[int] | frozenset[str] | range"
)
Filter: TypeAlias = "Items | Sequence[Items | None] | None"
