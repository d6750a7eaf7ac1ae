"""Owns the input formats of the command line: files of vectors and files of ids, into NumPy arrays.

It must not know what an index is. A file that cannot be read as asked is an InputError whose text
is one line and names the file; errors of the operating system pass through.
"""

from __future__ import annotations

import csv
import itertools
import os
import zipfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64] | list[str]
AnyPath = str | os.PathLike[str]
_Record = tuple[int, list[str]]  # the line's number in the file, its fields

_INT64 = np.iinfo(np.int64)


class InputError(ValueError):
    """A file of vectors or ids does not hold what was asked for."""


@dataclass(frozen=True)
class Table:
    """Vectors read from a file.

    Attributes
    ----------
    vectors : array
        (n, dim); memory-mapped where the format allows it.
    ids : array of int64, list of str, or None
        An id a row, when the file has a column for them that was asked for.
    """

    vectors: npt.NDArray[Any]
    ids: Ids | None = None


def read_table(path: AnyPath, key: str | None = None, id_column: str | None = None) -> Table:
    """Read vectors from a file; its name's ending tells the format.

    Parameters
    ----------
    path : path
        .npy, .npz, .fvecs, .bvecs, .ivecs, .parquet, .hdf5 / .h5, or text: numbers separated by
        commas, semicolons, tabs or blanks.
    key : str, optional
        The array in an .npz or .hdf5 file, the column in a .parquet file.
    id_column : str, optional
        The column of a text or .parquet file that holds the ids: its name, or its number from 1.

    Returns
    -------
    Table
        The vectors, and the ids where a column was named.
    """
    name = os.fspath(path)
    ending = Path(name).suffix.lower()
    if id_column is not None and (ending in _BINARY_READERS or ending in _KEYED_READERS):
        raise InputError(f"{name}: an id column needs a text or .parquet file")
    if key is not None and ending != ".parquet" and ending not in _KEYED_READERS:
        raise InputError(f"{name}: a key needs an .npz, .hdf5 or .parquet file")
    with open(name, "rb"):
        pass  # a file that is not there: the system's own error, whatever the reader
    if ending == ".parquet":
        table = _read_parquet(name, key, id_column)
    elif ending in _KEYED_READERS:
        table = Table(_KEYED_READERS[ending](name, key))
    elif ending in _BINARY_READERS:
        table = Table(_BINARY_READERS[ending](name))
    else:
        table = _read_text(name, id_column)
    shape = table.vectors.shape
    if len(shape) != 2 or 0 in shape:
        raise InputError(
            f"{name}: expected rows of vectors, an array (n, dim), found shape {shape}"
        )
    if table.vectors.dtype.kind not in "fiub":
        raise InputError(f"{name}: expected numbers, found {table.vectors.dtype}")
    return table


def read_ids(path: AnyPath) -> Ids:
    """Read ids from an .npy file of integers or strings, or from a text file, one a line.

    Lines that are all integers become int64 ids; otherwise all are text ids.
    """
    name = os.fspath(path)
    if Path(name).suffix.lower() == ".npy":
        loaded = _load_npy(name)
        if loaded.ndim != 1 or loaded.dtype.kind not in "iuU":
            raise InputError(
                f"{name}: expected a list of integers or strings, "
                f"found shape {loaded.shape} of {loaded.dtype}"
            )
        return [str(i) for i in loaded] if loaded.dtype.kind == "U" else _as_int64(name, loaded)
    with open(name, encoding="utf-8") as file:
        try:
            lines = [line.rstrip("\r\n") for line in file]
        except UnicodeDecodeError as error:
            raise InputError(f"{name}: expected UTF-8 text, one id a line ({error})") from error
    return ids_from_text(lines)


def ids_from_text(texts: Sequence[str]) -> Ids:
    """Take texts as int64 ids when each is an integer as Python prints it; else as they are."""
    numbers = np.empty(len(texts), dtype=np.int64)
    for row, text in enumerate(texts):
        digits = text.removeprefix("-")
        if not (digits.isdecimal() and digits.isascii() and len(digits) <= 19):
            return list(texts)
        number = int(text)
        if str(number) != text or not _INT64.min <= number <= _INT64.max:
            return list(texts)
        numbers[row] = number
    return numbers


def _as_int64(name: str, ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if ids.dtype.kind == "u" and ids.size and int(ids.max()) > _INT64.max:
        raise InputError(f"{name}: an id is larger than {_INT64.max}")
    return np.ascontiguousarray(ids, dtype=np.int64)


def _load_npy(name: str) -> npt.NDArray[Any]:
    try:
        loaded: npt.NDArray[Any] = np.load(name, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{name}: not a readable .npy file ({_one_line(error)})") from error
    return loaded


def _read_npz(name: str, key: str | None) -> npt.NDArray[Any]:
    try:
        if not zipfile.is_zipfile(name):
            raise zipfile.BadZipFile("not a zip archive")
        with np.load(name, allow_pickle=False) as archive:
            loaded: npt.NDArray[Any] = archive[_pick(name, "array", list(archive.files), key)]
    except InputError:
        raise
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise InputError(f"{name}: not a readable .npz file ({_one_line(error)})") from error
    return loaded


def _pick(name: str, what: str, found: list[str], key: str | None) -> str:
    """Choose the only entry, or the one that `key` names."""
    if key is None and len(found) == 1:
        return found[0]
    if key in found:
        assert key is not None
        return key
    listed = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
    if key is None:
        several = what.replace(" ", "s ", 1) if " " in what else f"{what}s"
        raise InputError(f"{name}: holds {len(found)} {several}, name one with --key ({listed})")
    raise InputError(f"{name}: holds no {what} {key!r} (it has: {listed})")


def _read_vecs(name: str, element: type[np.generic]) -> npt.NDArray[Any]:
    """Map a .fvecs, .bvecs or .ivecs file: each row is its length as int32, then its elements."""
    size = os.path.getsize(name)
    if size < 4:
        raise InputError(f"{name}: too short for a row")
    dim = int(np.fromfile(name, dtype="<i4", count=1)[0])
    row = np.dtype(
        [("dim", "<i4"), ("vector", np.dtype(element).newbyteorder("<"), (max(dim, 1),))]
    )
    if dim < 1 or size % row.itemsize:
        raise InputError(f"{name}: {size} bytes are no whole number of rows of {dim} dimensions")
    rows = np.memmap(name, dtype=row, mode="r")
    if not (rows["dim"] == dim).all():
        raise InputError(f"{name}: rows of different lengths")
    vectors: npt.NDArray[Any] = rows["vector"]
    return vectors


def _read_fvecs(name: str) -> npt.NDArray[Any]:
    return _read_vecs(name, np.float32)


def _read_bvecs(name: str) -> npt.NDArray[Any]:
    return _read_vecs(name, np.uint8)


def _read_ivecs(name: str) -> npt.NDArray[Any]:
    return _read_vecs(name, np.int32)


def _read_hdf5(name: str, key: str | None) -> npt.NDArray[Any]:
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f"{name}: reading .hdf5 needs the package h5py (pip install h5py)"
        ) from error
    tables: list[str] = []

    def collect(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 2:
            tables.append(path)

    try:
        with h5py.File(name, "r") as file:
            file.visititems(collect)
            if key is None and "train" in tables:
                key = "train"  # the name that the common benchmark files use
            loaded: npt.NDArray[Any] = file[_pick(name, "table", tables, key)][()]
    except OSError as error:
        raise InputError(f"{name}: not a readable HDF5 file ({_one_line(error)})") from error
    return loaded


def _read_parquet(name: str, key: str | None, id_column: str | None) -> Table:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InputError(
            f"{name}: reading .parquet needs the package pyarrow (pip install pyarrow)"
        ) from error
    try:
        file = parquet.ParquetFile(name)
    except arrow.ArrowException as error:
        raise InputError(f"{name}: not a readable Parquet file ({_one_line(error)})") from error
    id_name = None
    if id_column is not None:
        columns = list(file.schema_arrow.names)
        id_name = columns[_column_number(name, columns, id_column)]
    vectors = _parquet_vectors(name, file, key, id_name)
    return Table(vectors, None if id_name is None else _parquet_ids(name, file, id_name))


def _parquet_vectors(
    name: str, file: Any, key: str | None, id_name: str | None
) -> npt.NDArray[Any]:
    """Take the column of lists; or, where there is none, all columns of numbers side by side."""
    from pyarrow import types

    fields = [field for field in file.schema_arrow if field.name != id_name]
    is_list = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    lists = [field.name for field in fields if any(test(field.type) for test in is_list)]
    if lists or key is not None:
        return _list_column(name, _column(file, _pick(name, "column of lists", lists, key)))
    is_number = (types.is_integer, types.is_floating)
    numbers = [field.name for field in fields if any(test(field.type) for test in is_number)]
    if not numbers:
        raise InputError(f"{name}: holds no column of lists and no columns of numbers")
    return np.column_stack([_column(file, column).to_numpy() for column in numbers])


def _parquet_ids(name: str, file: Any, id_name: str) -> Ids:
    from pyarrow import types

    ids = _column(file, id_name)
    if ids.null_count:
        raise InputError(f"{name}: column {id_name!r} has rows without an id")
    if types.is_integer(ids.type):
        return _as_int64(name, ids.to_numpy())
    return [str(i) for i in ids.to_pylist()]


def _column(file: Any, column: str) -> Any:
    return file.read([column]).column(0)


def _list_column(name: str, column: Any) -> npt.NDArray[Any]:
    """Turn a column of equally long lists into an array."""
    parts: list[npt.NDArray[Any]] = []
    for chunk in column.chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False)
        if len(chunk) == 0:
            continue
        dim = len(values) // len(chunk)
        lengths = chunk.value_lengths().to_numpy(zero_copy_only=False)
        if chunk.null_count or not (lengths == dim).all() or (parts and parts[0].shape[1] != dim):
            raise InputError(f"{name}: the lists of the column are of different lengths")
        parts.append(values.reshape(len(chunk), dim))
    return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)


def _column_number(name: str, header: Sequence[str], wanted: str) -> int:
    """Find a column by its name, or by its number from 1."""
    if wanted in header:
        return list(header).index(wanted)
    if wanted.isdecimal() and 1 <= int(wanted) <= len(header):
        return int(wanted) - 1
    raise InputError(
        f"{name}: no column {wanted!r} (a column's name, or its number from 1 to {len(header)})"
    )


def _read_text(name: str, id_column: str | None) -> Table:
    """Read lines of numbers; one column may hold ids."""
    with open(name, encoding="utf-8-sig", newline="") as file:
        try:
            first_line = file.readline()
            separator = next((s for s in ",;\t" if s in first_line), " ")
            lines = itertools.chain([first_line], file)
            return _read_records(name, _records(lines, separator), id_column)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}: expected text, found other bytes ({error.reason})"
            ) from error
        except csv.Error as error:
            raise InputError(f"{name}: {_one_line(error)}") from error


def _records(lines: Iterable[str], separator: str) -> Iterator[_Record]:
    """Split lines into fields, with the number of each line; blank lines left out."""
    if separator == " ":
        yield from ((number, line.split()) for number, line in enumerate(lines, 1) if line.strip())
    else:
        reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        yield from ((reader.line_num, fields) for fields in reader if fields)


def _read_records(name: str, records: Iterator[_Record], id_column: str | None) -> Table:
    """Turn records into vectors and ids, past a first record that only describes the others."""
    head = list(itertools.islice(records, 2))
    if not head:
        raise InputError(f"{name}: expected lines of numbers, found none")
    names = head[0][1]
    if _is_size_line(head):
        head.pop(0)
        names = head[0][1]
    id_at = None if id_column is None else _column_number(name, names, id_column)
    if not any(_is_number(field) for at, field in enumerate(names) if at != id_at):
        head.pop(0)
    values = array("f")
    ids: list[str] = []
    dim = 0
    for line, fields in itertools.chain(head, records):
        if id_at is not None:
            ids.append(fields.pop(id_at) if id_at < len(fields) else "")
        dim = dim or len(fields)
        if len(fields) != dim:
            raise InputError(f"{name}, line {line}: expected {dim} numbers, found {len(fields)}")
        try:
            values.extend(map(float, fields))
        except ValueError:
            wrong = next(field for field in fields if not _is_number(field))
            hint = "" if id_at is not None else "; does a column hold ids? --id-column names it"
            raise InputError(f"{name}, line {line}: {wrong!r} is not a number{hint}") from None
    vectors = np.frombuffer(values, dtype=np.float32).reshape(-1, max(dim, 1))
    return Table(vectors, None if id_at is None else ids_from_text(ids))


def _is_size_line(head: list[_Record]) -> bool:
    """Tell whether a file opens as word2vec's text files do: with its count and its dimension."""
    first = head[0][1]
    if len(head) < 2 or len(first) != 2 or not all(field.isdecimal() for field in first):
        return False
    return len(head[1][1]) == int(first[1]) + 1


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


_BINARY_READERS: dict[str, Callable[[str], npt.NDArray[Any]]] = {
    ".npy": _load_npy,
    ".fvecs": _read_fvecs,
    ".bvecs": _read_bvecs,
    ".ivecs": _read_ivecs,
}
_KEYED_READERS: dict[str, Callable[[str, str | None], npt.NDArray[Any]]] = {
    ".npz": _read_npz,
    ".hdf5": _read_hdf5,
    ".h5": _read_hdf5,
}
