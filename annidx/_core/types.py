"""Owns the types of ids and filters as callers pass them, for the signatures of all rooms above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from annidx._core.binding import SlotBits

__all__ = ["Filter", "Id", "Ids", "Items"]

Id: TypeAlias = "int | str | np.integer[Any]"
Ids: TypeAlias = "Sequence[int] | Sequence[str] | npt.NDArray[Any]"
Items: TypeAlias = (
    "SlotBits | npt.NDArray[Any] | Sequence[Any] | set[int] | set[str] | "
    "frozenset[int] | frozenset[str] | range"
)
Filter: TypeAlias = "Items | Sequence[Items | None] | None"
