"""Owns JSON Lines: a line of JSON for each vector or id."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

from annidx.io.source import InputError, Source
from annidx.io.table import INT64, Ids, Selection, Table, pick


def read_jsonl(source: Source, wanted: Selection) -> Table:
    """Read lines that are lists of numbers, or objects with such a list among their fields."""
    values = array("f")
    ids: list[Any] = []
    column = wanted.vector_column
    dim = 0
    for where, record in _lines(source):
        vector = record
        if isinstance(record, dict):
            column = column or _column_of(where, record)
            vector = _field(where, record, column)
            if wanted.id_column is not None:
                ids.append(_field(where, record, wanted.id_column))
        elif wanted.id_column is not None or column is not None:
            raise InputError(f"{where}: expected an object with fields, found {_kind(record)}")
        if not isinstance(vector, list):
            raise InputError(f"{where}: expected a list of numbers, found {_kind(vector)}")
        dim = dim or len(vector)
        if len(vector) != dim:
            raise InputError(f"{where}: expected {dim} numbers, found {len(vector)}")
        _extend(values, vector, where)
    vectors = np.frombuffer(values, dtype=np.float32).reshape(-1, max(dim, 1))
    return Table(vectors, None if wanted.id_column is None else _as_ids(source.name, ids))


def read_jsonl_ids(source: Source) -> Ids:
    """Read lines that are each a string or an integer."""
    ids: list[Any] = []
    for where, record in _lines(source):
        if isinstance(record, bool) or not isinstance(record, (int, str)):
            raise InputError(
                f"{where}: expected an id, a string or an integer, found {_kind(record)}"
            )
        ids.append(record)
    return _as_ids(source.name, ids)


def _lines(source: Source) -> Iterator[tuple[str, Any]]:
    """Give each line's place, for messages, and what it holds; blank lines left out."""
    with source.text() as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{source.name}, line {number}"
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = getattr(error, "msg", None) or "nested too deeply"
                raise InputError(f"{where}: not JSON ({reason})") from None


def _column_of(where: str, record: dict[str, Any]) -> str:
    lists = [key for key, value in record.items() if isinstance(value, list)]
    return pick(where, "list", lists, None, "--vector-column")


def _field(where: str, record: dict[str, Any], column: str) -> Any:
    if column not in record:
        listed = ", ".join(list(record)[:8])
        raise InputError(f"{where}: holds no field {column!r} (it has: {listed})")
    return record[column]


def _extend(values: array[float], vector: list[Any], where: str) -> None:
    try:
        values.extend(vector)
    except (TypeError, OverflowError):
        wrong = next(v for v in vector if not isinstance(v, (int, float)) or abs(v) > 1e300)
        raise InputError(f"{where}: expected numbers, found {_kind(wrong)}") from None


def _as_ids(name: str, ids: list[Any]) -> Ids:
    """Take values as ids: all integers, or all strings."""
    for row, item in enumerate(ids):
        if type(item) is not type(ids[0]) or type(item) not in (int, str):
            raise InputError(
                f"{name}: expected ids that are all integers or all strings, row {row} holds "
                f"{_kind(item)}"
            )
    if ids and isinstance(ids[0], str):
        return ids
    wide = next((item for item in ids if not INT64.min <= item <= INT64.max), None)
    if wide is not None:
        raise InputError(f"{name}: expected ids that fit int64, found {wide}")
    return np.array(ids, dtype=np.int64)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    shown = json.dumps(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
