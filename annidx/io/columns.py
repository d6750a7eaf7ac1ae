"""Owns files of typed columns, Parquet and Feather, which pyarrow reads.

What a column of lists is as an array is decided in `containers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from annidx.io.containers import from_arrow
from annidx.io.source import InputError, Source, one_line
from annidx.io.table import Ids, Selection, Table, column_number, ids_from_integers, pick

_Take = Callable[[str], Any]  # a column of a file, by its name


def read_parquet(source: Source, wanted: Selection, groups: Sequence[int] | None = None) -> Table:
    """Read the vectors of a Parquet file, or of its row groups so numbered, and ids of a column."""
    schema, take = _open_parquet(source, groups)
    return _read(source.name, schema, take, wanted)


def parquet_groups(source: Source) -> list[int]:
    """Tell how many rows each row group of a Parquet file has."""
    metadata = _parquet_file(source).metadata
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def read_feather(source: Source, wanted: Selection) -> Table:
    """Read the vectors of a Feather or Arrow file, mapped where it is not compressed."""
    schema, take = _open_feather(source)
    return _read(source.name, schema, take, wanted)


def read_parquet_ids(source: Source) -> Ids:
    """Read the only column of a Parquet file as ids."""
    return _only_column(source.name, *_open_parquet(source))


def read_feather_ids(source: Source) -> Ids:
    """Read the only column of a Feather file as ids."""
    return _only_column(source.name, *_open_feather(source))


def _parquet_file(source: Source) -> Any:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise _without_pyarrow(source, ".parquet") from error
    try:
        return parquet.ParquetFile(source.file())
    except (arrow.ArrowException, OSError) as error:
        raise _unreadable(source, "Parquet", error) from error


def _open_parquet(source: Source, groups: Sequence[int] | None = None) -> tuple[Any, _Take]:
    file = _parquet_file(source)
    import pyarrow as arrow

    def take(column: str) -> Any:
        try:
            if groups is None:
                return file.read([column]).column(0)
            return file.read_row_groups(list(groups), [column]).column(0)
        except (arrow.ArrowException, OSError) as error:
            raise _unreadable(source, "Parquet", error) from error

    return file.schema_arrow, take


def _open_feather(source: Source) -> tuple[Any, _Take]:
    try:
        import pyarrow as arrow
        from pyarrow import feather
    except ImportError as error:
        raise _without_pyarrow(source, ".feather") from error
    try:
        table = feather.read_table(source.file(), memory_map=source.path is not None)
    except (arrow.ArrowException, OSError) as error:
        raise _unreadable(source, "Feather", error) from error
    return table.schema, table.column


def _without_pyarrow(source: Source, ending: str) -> InputError:
    return InputError(
        f"{source.name}: reading {ending} needs the package pyarrow (pip install pyarrow)"
    )


def _unreadable(source: Source, kind: str, error: Exception) -> InputError:
    return InputError(f"{source.name}: not a readable {kind} file ({one_line(error)})")


def _read(name: str, schema: Any, take: _Take, wanted: Selection) -> Table:
    """Take the column of lists; or, where there is none, all columns of numbers side by side."""
    from pyarrow import types

    columns = list(schema.names)
    id_name = None
    if wanted.id_column is not None:
        id_name = columns[column_number(name, columns, wanted.id_column)]
    ids = None if id_name is None else _ids(name, take(id_name), id_name)
    fields = [field for field in schema if field.name != id_name]
    is_list = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    lists = [field.name for field in fields if any(test(field.type) for test in is_list)]
    if lists or wanted.vector_column is not None:
        chosen = pick(name, "column of lists", lists, wanted.vector_column, "--vector-column")
        try:
            return Table(from_arrow(take(chosen), f"{name}: column {chosen!r}"), ids)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(str(error)) from None
    is_number = (types.is_integer, types.is_floating)
    numbers = [field.name for field in fields if any(test(field.type) for test in is_number)]
    if not numbers:
        raise InputError(f"{name}: holds no column of lists and no columns of numbers")
    return Table(np.column_stack([take(column).to_numpy() for column in numbers]), ids)


def _only_column(name: str, schema: Any, take: _Take) -> Ids:
    if len(schema.names) != 1:
        listed = ", ".join(schema.names[:8])
        raise InputError(
            f"{name}: expected one column, of ids, found {len(schema.names)} ({listed})"
        )
    return _ids(name, take(schema.names[0]), schema.names[0])


def _ids(name: str, column: Any, id_name: str) -> Ids:
    from pyarrow import types

    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise InputError(f"{name}: column {id_name!r} has no id in row {row}")
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if types.is_integer(kind):
        return ids_from_integers(name, column.to_numpy())
    if not (types.is_string(kind) or types.is_large_string(kind) or _is_string_view(kind)):
        raise InputError(f"{name}: column {id_name!r} holds {kind}: expected integers or text")
    texts: list[str] = column.to_pylist()
    return texts


def _is_string_view(kind: Any) -> bool:
    return str(kind) == "string_view"
