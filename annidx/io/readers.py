"""Owns which format an input of the command line has, and what each format can be asked for.

It must not know what an index is. An input that cannot be read as asked is an InputError of one
line that names it; errors of the operating system pass through.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from annidx.io import binary, columns, jsonl, text
from annidx.io.source import STANDARD_INPUT, AnyPath, InputError, Source
from annidx.io.table import EVERYTHING, Ids, Selection, Table, ids_from_integers


@dataclass(frozen=True)
class Format:
    """A format: how it is read, and which options it understands."""

    read: Callable[[Source, Selection], Table]
    read_ids: Callable[[Source], Ids] | None = None
    has_keys: bool = False
    has_columns: bool = False
    may_be_packed: bool = False


def _read_npy_ids(source: Source) -> Ids:
    loaded = binary.load_npy(source)
    if loaded.ndim != 1 or loaded.dtype.kind not in "iuU":
        raise InputError(
            f"{source.name}: expected a list of integers or strings, "
            f"found shape {loaded.shape} of {loaded.dtype}"
        )
    if loaded.dtype.kind == "U":
        return [str(i) for i in loaded]
    return ids_from_integers(source.name, loaded)


def _vecs(element: str) -> Format:
    return Format(partial(binary.read_vecs, element=element))


def _bin(element: str) -> Format:
    return Format(partial(binary.read_bin, element=element))


def _columns(
    read: Callable[[Source, Selection], Table],
    read_ids: Callable[[Source], Ids],
    may_be_packed: bool = False,
) -> Format:
    return Format(read, read_ids, has_columns=True, may_be_packed=may_be_packed)


_TEXT = _columns(text.read_text, text.read_text_ids, may_be_packed=True)
_CSV = _columns(text.read_text, text.read_csv_ids, may_be_packed=True)
_JSONL = _columns(jsonl.read_jsonl, jsonl.read_jsonl_ids, may_be_packed=True)
_FEATHER = _columns(columns.read_feather, columns.read_feather_ids)

# By what a name ends with, without the dot; also what --format takes.
FORMATS = {
    "npy": Format(binary.read_npy, _read_npy_ids),
    "npz": Format(binary.read_npz, has_keys=True),
    "hdf5": Format(binary.read_hdf5, has_keys=True),
    "h5": Format(binary.read_hdf5, has_keys=True),
    "fvecs": _vecs("<f4"),
    "bvecs": _vecs("u1"),
    "ivecs": _vecs("<i4"),
    "fbin": _bin("<f4"),
    "u8bin": _bin("u1"),
    "i8bin": _bin("i1"),
    "bin": Format(binary.read_word2vec, may_be_packed=True),
    "parquet": _columns(columns.read_parquet, columns.read_parquet_ids),
    "feather": _FEATHER,
    "arrow": _FEATHER,
    "jsonl": _JSONL,
    "ndjson": _JSONL,
    "csv": _CSV,
    "tsv": _CSV,
    "text": _TEXT,
}


def read_table(path: AnyPath, wanted: Selection = EVERYTHING) -> Table:
    """Read vectors from a file, or from standard input.

    Parameters
    ----------
    path : path
        A file of one of `FORMATS`, text of other endings, or "-" for standard input.
    wanted : Selection, optional
        Which part of it. Its format is what the name ends with, unless that says otherwise;
        standard input is text, or JSON Lines when it begins with a bracket.

    Returns
    -------
    Table
        At least one vector, and the ids where a column was named or words are the ids.
    """
    source = Source.of(path)
    table = _read(source, wanted)
    if 0 in table.vectors.shape:
        raise _not_rows(source, table)
    return table


def read_tables(
    paths: Sequence[AnyPath], wanted: Selection = EVERYTHING
) -> Iterator[tuple[str, Table]]:
    """Read several files, and the Parquet files of folders, one after the other.

    Yields the name and the content of each; the dimension is that of the first. Parts of a folder
    may be empty, not all of them.
    """
    dim: int | None = None
    for path in paths:
        is_folder = os.fspath(path) != STANDARD_INPUT and os.path.isdir(path)
        found = False
        for part in parts_of(os.fspath(path)) if is_folder else [path]:
            source = Source.of(part)
            table = _read(source, wanted)
            if is_folder and len(table.vectors) == 0:
                continue
            if 0 in table.vectors.shape:
                raise _not_rows(source, table)
            found = True
            width = table.vectors.shape[1]
            if dim is not None and width != dim:
                raise InputError(
                    f"{source.name}: {width} dimensions, the files before it have {dim}"
                )
            dim = width
            yield source.name, table
        if not found:
            raise InputError(f"{path}: expected a folder of .parquet files, found no vectors in it")


def read_ids(path: AnyPath) -> Ids:
    """Read ids: one a line of text, CSV or JSON Lines, an .npy, or the column of a table."""
    source = Source.of(path)
    format = _format_of(source, None)
    if format.read_ids is None:
        raise InputError(f"{source.name}: expected ids, found a format of vectors")
    _check_packing(source, format)
    return format.read_ids(source)


def _read(source: Source, wanted: Selection) -> Table:
    format = _format_of(source, wanted.format)
    _check_packing(source, format)
    if wanted.key is not None and not format.has_keys:
        raise InputError(f"{source.name}: a key needs an .npz or .hdf5 file")
    for what, column in (("an id", wanted.id_column), ("a vector", wanted.vector_column)):
        if column is not None and not format.has_columns:
            kinds = "text, .jsonl, .parquet or .feather"
            raise InputError(f"{source.name}: {what} column needs {kinds}")
    table = format.read(source, wanted)
    if table.vectors.ndim != 2:
        raise _not_rows(source, table)
    if table.vectors.dtype.kind not in "fiub":
        raise InputError(f"{source.name}: expected numbers, found {table.vectors.dtype}")
    return table


def _format_of(source: Source, name: str | None) -> Format:
    if name is not None:
        return FORMATS[name]
    if source.path is None:
        return _JSONL if source.first_byte_of_standard_input() in (b"[", b"{") else _TEXT
    return FORMATS.get(source.ending.removeprefix("."), _TEXT)


def _check_packing(source: Source, format: Format) -> None:
    if source.is_packed and not format.may_be_packed:
        raise InputError(f"{source.name}: expected text or word2vec's .bin in .gz: unpack it first")


def _not_rows(source: Source, table: Table) -> InputError:
    shape = table.vectors.shape
    found = "none" if len(shape) == 2 and shape[0] == 0 else f"shape {shape}"
    return InputError(f"{source.name}: expected rows of vectors, an array (n, dim), found {found}")


def parts_of(folder: str, endings: tuple[str, ...] = (".parquet",)) -> list[str]:
    """List the data files of a folder; names that begin with . or _ are not data."""
    found: list[str] = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        parts = [name for name in names if name.endswith(endings) and name[0] not in "._"]
        found += [os.path.join(where, name) for name in parts]
    return sorted(found)
