"""Owns the files that the neighbours of all items are written to: folders of .npy, and .parquet.

It must not know how neighbours are found: it is handed rows and distances, some items at a time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from annidx.io.export import complete_or_not_at_all

__all__ = ["GraphFiles", "Piece"]

# Rows (int64, -1 where there is none) and distances of some items, one piece after another.
Piece = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]

# Ids that are brought into Arrow's form at a time.
_CHUNK_IDS = 65_536


class GraphFiles:
    """Where a graph goes, checked before it is made.

    Parameters
    ----------
    path : str
        A .parquet file, or a folder of .npy files.
    ids : ndarray or sequence of str, optional
        Ids of all rows, to name neighbours by; None leaves them rows.
    own_path : str, optional
        The index's own file, which is never replaced.
    force : bool
        Replace files that exist.
    """

    def __init__(
        self,
        path: str,
        ids: npt.NDArray[np.int64] | Sequence[str] | None,
        own_path: str | None,
        *,
        force: bool,
    ) -> None:
        self._path = path
        self._ids = ids
        self._is_parquet = os.path.splitext(path)[1] == ".parquet"
        if self._is_parquet:
            _require_pyarrow()
            files = [path]
        elif ids is not None and not isinstance(ids, np.ndarray):
            raise ValueError(f"out: text ids go into a .parquet file, or output='rows': {path!r}")
        else:
            name = "rows.npy" if ids is None else "ids.npy"
            files = [os.path.join(path, name), os.path.join(path, "distances.npy")]
        for file in files:
            _require_free(file, own_path, force)
        self._files = files

    def write(self, pieces: Iterable[Piece], count: int, k: int) -> None:
        """Write the neighbours of all `count` items, k each; all files are complete, or none."""
        if self._is_parquet:
            with complete_or_not_at_all(self._path) as unfinished:
                self._write_parquet(pieces, unfinished)
            return
        os.makedirs(self._path, exist_ok=True)
        with ExitStack() as unfinished_files:
            names = [unfinished_files.enter_context(complete_or_not_at_all(f)) for f in self._files]
            self._write_npy(pieces, names, (count, k))

    def _write_npy(self, pieces: Iterable[Piece], names: list[str], shape: tuple[int, int]) -> None:
        with open(names[0], "xb") as neighbours, open(names[1], "xb") as distances:
            for file, kind in ((neighbours, np.int64), (distances, np.float64)):
                header = {
                    "descr": np.lib.format.dtype_to_descr(np.dtype(kind)),
                    "fortran_order": False,
                    "shape": shape,
                }
                np.lib.format.write_array_header_1_0(file, header)
            for rows, some in pieces:
                neighbours.write(self._named(rows).data)
                distances.write(some.data)

    def _named(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if self._ids is None:
            return rows
        assert isinstance(self._ids, np.ndarray)
        named = self._ids[rows]
        named[rows < 0] = -1
        return named

    def _write_parquet(self, pieces: Iterable[Piece], unfinished: str) -> None:
        import pyarrow
        from pyarrow import parquet

        names = None if self._ids is None else _arrow_ids(self._ids)
        first = 0
        writer = None
        try:
            for rows, distances in pieces:
                present = rows.ravel() >= 0
                ends = np.concatenate(([0], np.cumsum((rows >= 0).sum(axis=1))))
                offsets = pyarrow.array(ends, pyarrow.int32())
                own = pyarrow.array(np.arange(first, first + len(rows)))
                others = pyarrow.array(rows.ravel()[present])
                first += len(rows)
                values = pyarrow.array(distances.ravel()[present])
                if names is not None:
                    own, others = names.take(own), names.take(others)
                table = pyarrow.table(
                    {
                        "id": own,
                        "neighbours": pyarrow.ListArray.from_arrays(offsets, others),
                        "distances": pyarrow.ListArray.from_arrays(offsets, values),
                    }
                )
                if writer is None:
                    writer = parquet.ParquetWriter(unfinished, table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()


def _require_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ValueError("out: a .parquet file needs pyarrow: pip install pyarrow") from error


def _require_free(file: str, own_path: str | None, force: bool) -> None:
    if own_path and os.path.exists(file) and os.path.samefile(file, own_path):
        raise ValueError(f"out: expected another file than the index's own, got {file!r}")
    if os.path.exists(file) and not force:
        raise FileExistsError(
            errno.EEXIST, "expected a new file (force=True or --force replaces this one)", file
        )


def _arrow_ids(ids: npt.NDArray[np.int64] | Sequence[str]) -> Any:
    """All ids as one Arrow array: of texts only some are Python strings at a time."""
    import pyarrow

    if isinstance(ids, np.ndarray):
        return pyarrow.array(ids)
    chunks = [
        pyarrow.array(ids[first : first + _CHUNK_IDS]) for first in range(0, len(ids), _CHUNK_IDS)
    ]
    return pyarrow.concat_arrays(chunks)
