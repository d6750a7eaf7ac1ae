"""Owns how vectors and ids of a command's files are brought to the form that an index takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import annidx
from annidx.io.readers import read_ids, read_table
from annidx.io.source import InputError
from annidx.io.table import EVERYTHING, Ids, Selection, ids_from_text


def read_queries(
    index: annidx.Index, path: str, wanted: Selection = EVERYTHING
) -> npt.NDArray[Any]:
    """Read vectors that fit an index; packed bits are recognised by their number."""
    vectors = read_table(path, wanted).vectors
    columns = vectors.shape[1]
    if index.metric == "hamming" and columns == (index.dim + 7) // 8 < index.dim:
        if vectors.dtype != np.uint8:
            raise InputError(f"{path}: packed bits are uint8, found {vectors.dtype}")
        return np.unpackbits(vectors, axis=1, count=index.dim)
    if columns != index.dim:
        raise InputError(f"{path}: {columns} dimensions, the index has {index.dim}")
    return vectors


def ids_of(index: annidx.Index, ids: Ids, where: str) -> list[Any]:
    """Bring ids as they were read to the kind that the index has."""
    texts = [str(item) for item in ids]
    if index.info()["ids"] == "str":
        return texts
    numbers = ids_from_text(texts)
    if isinstance(numbers, np.ndarray):
        return [int(number) for number in numbers]
    wrong = next(text for text in texts if isinstance(ids_from_text([text]), list))
    raise InputError(f"{where}: {wrong!r} is no id of this index, whose ids are integers")


def known_ids(index: annidx.Index, path: str, *, may_be_unknown: bool = False) -> list[Any]:
    """Read a file of ids, of which the index should hold at least one."""
    ids = ids_of(index, read_ids(path), path)
    if ids and not may_be_unknown and not any(item in index for item in ids):
        raise InputError(f"{path}: the index has none of these {len(ids):,} ids")
    return ids
