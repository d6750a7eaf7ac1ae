"""Owns the files that an index's vectors are written to for other programs: .npy and .parquet.

It must not touch the binding: whatever it writes, a program can ask of the index.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# Rows in memory at a time.
_CHUNK_ROWS = 16_384


class Exported(Protocol):
    """What is asked of a built index."""

    @property
    def metric(self) -> str:
        """Name of the metric."""

    @property
    def path(self) -> str | None:
        """The index's own file."""

    @property
    def ids(self) -> npt.NDArray[Any] | Sequence[str]:
        """Ids in row order."""

    def __len__(self) -> int: ...
    def get_vectors(self, ids: Any, *, packed: bool) -> npt.NDArray[Any]:
        """Vectors of some ids."""


def write_export(index: Exported, path: str, *, packed: bool, force: bool) -> None:
    """Write the vectors of a built index; the ending of the path says how."""
    if packed and index.metric != "hamming":
        raise ValueError("packed: expected False: only a hamming index has packed bits")
    ending = os.path.splitext(path)[1]
    writers = {".npy": _write_npy, ".parquet": _write_parquet}
    if ending not in writers:
        raise ValueError(f"path: expected an ending of .npy or .parquet, got {path!r}")
    if packed and ending != ".npy":
        raise ValueError(f"packed: expected False for a {ending} file")
    if index.path and os.path.exists(path) and os.path.samefile(path, index.path):
        raise ValueError(f"path: expected another file than the index's own, got {path!r}")
    if os.path.exists(path) and not force:
        raise FileExistsError(
            errno.EEXIST, "expected a new file (force=True or --force replaces this one)", path
        )
    with complete_or_not_at_all(path) as unfinished:
        writers[ending](index, unfinished, packed)


@contextlib.contextmanager
def complete_or_not_at_all(path: str) -> Iterator[str]:
    """Give a name beside the path; what is written there takes the path's place at the end."""
    destination = os.path.realpath(path)
    folder, name = os.path.split(destination)
    unfinished = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, destination)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise


def _chunks(index: Exported, packed: bool) -> Iterator[tuple[list[Any], npt.NDArray[Any]]]:
    """Ids and vectors of some rows at a time, in row order."""
    ids = index.ids
    for first in range(0, len(index), _CHUNK_ROWS):
        some = ids[first : first + _CHUNK_ROWS]
        yield list(some), index.get_vectors(some, packed=packed)


def _write_npy(index: Exported, path: str, packed: bool) -> None:
    first = index.get_vectors(index.ids[:1], packed=packed)
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (len(index), first.shape[1]),
    }
    with open(path, "xb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _, vectors in _chunks(index, packed):
            file.write(np.ascontiguousarray(vectors).data)


def _write_parquet(index: Exported, path: str, packed: bool) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError("path: a .parquet file needs pyarrow: pip install pyarrow") from error
    writer = None
    try:
        for ids, vectors in _chunks(index, packed):
            values = pyarrow.array(vectors.reshape(-1))
            columns = {
                "id": pyarrow.array(ids),
                "vector": pyarrow.FixedSizeListArray.from_arrays(values, vectors.shape[1]),
            }
            table = pyarrow.table(columns)
            if writer is None:
                writer = parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
