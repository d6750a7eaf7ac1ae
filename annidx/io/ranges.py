"""Owns vectors and ids of files that are read by ranges of rows: what a range needs, and no more.

It must not know what an index is. What cannot be read is an InputError of one line that names it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from annidx.io.columns import parquet_groups, read_parquet
from annidx.io.readers import parts_of, read_ids, read_table
from annidx.io.source import InputError, Source
from annidx.io.table import Ids, Selection, Table

__all__ = ["FileRows", "files_of", "state_of"]

_PARQUET = ".parquet"
_MAPPED = (".npy", ".fvecs", ".bvecs", ".fbin", ".u8bin", ".i8bin")
_ENDINGS = (*_MAPPED, _PARQUET)


@dataclass(frozen=True)
class _Piece:
    """Rows [first, last) of all, which are read together: a mapped file, or a row group."""

    path: str
    group: int | None
    first: int
    last: int


def files_of(path: str) -> list[str]:
    """List the files that a source is: itself, or the files of vectors in a folder."""
    files = parts_of(path, _ENDINGS) if os.path.isdir(path) else [path]
    if not files or not files[0].lower().endswith(_ENDINGS):
        listed = ", ".join(_ENDINGS)
        raise InputError(f"source: expected a file, or files in a folder, of {listed}, got {path}")
    return files


def state_of(path: str, *beside: str) -> list[list[str | int]]:
    """Tell the files of a source, and others beside it, as they are now: names, sizes and times."""
    found = [(name, os.stat(name)) for name in [*files_of(path), *beside]]
    return [
        [os.path.relpath(name, path), status.st_size, status.st_mtime_ns] for name, status in found
    ]


class FileRows:
    """Rows of a file, or of the files of a folder in the order of their names.

    Picklable: a worker opens for itself what it reads. The files must stay as they are meanwhile.

    Parameters
    ----------
    path : str
        A file that can be mapped, or Parquet, which is read by its row groups; or a folder.
    ids : str, optional
        A file of ids, one a row of all.
    vector_column, id_column : str, optional
        Columns of Parquet files, as the command line takes them.
    """

    def __init__(
        self,
        path: str,
        *,
        ids: str | None = None,
        vector_column: str | None = None,
        id_column: str | None = None,
    ) -> None:
        if ids is not None and id_column is not None:
            raise InputError(f"ids: expected a file or a column, got {ids!r} and {id_column!r}")
        self.path = path
        self._ids = ids
        self._wanted = Selection(vector_column=vector_column, id_column=id_column)
        self._pieces = list(self._found(files_of(path)))
        if not self._pieces:
            raise InputError(f"source: expected some rows, found none in {path!r}")

    def __len__(self) -> int:
        return self._pieces[-1].last

    def __call__(self, first: int, last: int) -> npt.NDArray[Any]:
        """Read the vectors of rows [first, last)."""
        return self._joined(self._tables(first, last))

    def table(self, first: int, last: int) -> Table:
        """Read the vectors of rows [first, last), and their ids where they have some."""
        tables = list(self._tables(first, last))
        ids: Ids | None = None
        if self._ids is not None:
            ids = self._ids_of_file(self._ids)[first:last]
        elif self._wanted.id_column is not None:
            ids = self._joined_ids([table.ids for table in tables])
        return Table(self._joined(iter(tables)), ids)

    def take(self, rows: Sequence[int]) -> npt.NDArray[Any]:
        """Read the vectors of some rows, which rise: no piece of a file twice."""
        wanted = np.asarray(rows)
        return self._joined(
            Table(self._read(piece).vectors[inside - piece.first])
            for piece in self._pieces
            if len(inside := wanted[(wanted >= piece.first) & (wanted < piece.last)])
        )

    def _found(self, files: list[str]) -> Iterator[_Piece]:
        """Look at how many rows there are; nothing but headers is read."""
        first = 0
        for path in files:
            source = Source.of(path)
            if source.ending == _PARQUET:
                groups: list[tuple[int | None, int]] = list(enumerate(parquet_groups(source)))
            elif self._wanted != Selection():
                raise InputError(f"{path}: columns of vectors and of ids need .parquet")
            else:
                groups = [(None, len(read_table(path).vectors))]
            for group, count in groups:
                if count:
                    yield _Piece(path, group, first, first + count)
                    first += count

    def _tables(self, first: int, last: int) -> Iterator[Table]:
        for piece in self._pieces:
            if piece.first < last and first < piece.last:
                inside = slice(max(first - piece.first, 0), last - piece.first)
                whole = self._read(piece)
                ids = None if whole.ids is None else whole.ids[inside]
                yield Table(whole.vectors[inside], ids)

    def _read(self, piece: _Piece) -> Table:
        if piece.group is None:
            return read_table(piece.path)
        return read_parquet(Source.of(piece.path), self._wanted, [piece.group])

    def _joined(self, tables: Iterator[Table]) -> npt.NDArray[Any]:
        blocks = [table.vectors for table in tables]
        widths = sorted({block.shape[1] for block in blocks})
        if len(widths) > 1:
            raise InputError(f"{self.path}: vectors of {widths[0]} and of {widths[1]} dimensions")
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _joined_ids(self, found: Sequence[Ids | None]) -> Ids:
        texts = [text for ids in found if isinstance(ids, list) for text in ids]
        numbers = [ids for ids in found if isinstance(ids, np.ndarray)]
        if texts and numbers:
            raise InputError(f"{self.path}: expected ids of one kind, found integers and text")
        return texts or np.concatenate(numbers)

    def _ids_of_file(self, path: str) -> Ids:
        ids = read_ids(path)
        if len(ids) != len(self):
            raise InputError(f"{path}: {len(ids):,} ids for {len(self):,} vectors")
        return ids
