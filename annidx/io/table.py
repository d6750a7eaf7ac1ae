"""Owns what reading a file gives: vectors and ids, and which part of a file is wanted.

It must not know any format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from annidx.io.source import InputError

Ids = npt.NDArray[np.int64] | list[str]

INT64 = np.iinfo(np.int64)


@dataclass(frozen=True)
class Table:
    """Vectors read from a file.

    Attributes
    ----------
    vectors : array
        (n, dim); memory-mapped where the format allows it.
    ids : array of int64, list of str, or None
        An id a row, when a column was asked for, or the format has no other use for its words.
    """

    vectors: npt.NDArray[Any]
    ids: Ids | None = None


@dataclass(frozen=True)
class Selection:
    """Which part of a file is wanted; None leaves it to the file.

    Attributes
    ----------
    key : str, optional
        The array of an .npz or .hdf5 file.
    vector_column : str, optional
        The column of lists, where there are several.
    id_column : str, optional
        The column of ids: its name, or in all but JSON Lines its number from 1.
    format : str, optional
        What the file is, where its name does not say so: a key of `readers.FORMATS`.
    """

    key: str | None = None
    vector_column: str | None = None
    id_column: str | None = None
    format: str | None = None


EVERYTHING = Selection()


def pick(name: str, what: str, found: Sequence[str], wanted: str | None, option: str) -> str:
    """Choose the only entry of a file, or the one that an option names."""
    if wanted is None and len(found) == 1:
        return found[0]
    if wanted is not None and wanted in found:
        return wanted
    listed = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
    if wanted is None:
        several = what.replace(" ", "s ", 1) if " " in what else f"{what}s"
        raise InputError(f"{name}: holds {len(found)} {several}, name one with {option} ({listed})")
    raise InputError(f"{name}: holds no {what} {wanted!r} (it has: {listed})")


def column_number(name: str, header: Sequence[str], wanted: str) -> int:
    """Find a column by its name, or by its number from 1."""
    if wanted in header:
        return list(header).index(wanted)
    if wanted.isdecimal() and 1 <= int(wanted) <= len(header):
        return int(wanted) - 1
    raise InputError(
        f"{name}: no column {wanted!r} (a column's name, or its number from 1 to {len(header)})"
    )


def ids_from_text(texts: Sequence[str]) -> Ids:
    """Take texts as int64 ids when each is an integer as Python prints it; else as they are."""
    numbers = np.empty(len(texts), dtype=np.int64)
    for row, text in enumerate(texts):
        digits = text.removeprefix("-")
        if not (digits.isdecimal() and digits.isascii() and len(digits) <= 19):
            return list(texts)
        number = int(text)
        if str(number) != text or not INT64.min <= number <= INT64.max:
            return list(texts)
        numbers[row] = number
    return numbers


def ids_from_integers(name: str, ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Take integers of any type as int64 ids."""
    if ids.dtype.kind == "u" and ids.size and int(ids.max()) > INT64.max:
        raise InputError(f"{name}: an id is larger than {INT64.max}")
    return np.ascontiguousarray(ids, dtype=np.int64)
