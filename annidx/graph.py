"""Owns the question for the neighbours of all items at once, and the forms of its answer in memory.

It must not know how neighbours are found, or how files are written: `io.graph` does that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from annidx import _core
from annidx._progress import Progress, reporter
from annidx.ids import TextIds
from annidx.io import inputs
from annidx.io.graph import GraphFiles, Piece

__all__ = ["GraphFace"]

# Items whose answers are in memory at a time when they go to a file.
_PIECE_ITEMS = 65_536

Path: TypeAlias = "str | os.PathLike[str]"
Answer: TypeAlias = tuple[npt.NDArray[Any], npt.NDArray[np.float64]]


class GraphFace(_core.CoreIndex):
    """What an index says of all its items at once."""

    _path: str | None

    @overload
    def knn_graph(
        self,
        k: int = 15,
        include_self: bool = False,
        output: Literal["rows", "ids"] = "rows",
        out: None = None,
        *,
        recall: float | None = None,
        n_jobs: int = -1,
        progress: bool | Progress | None = None,
        force: bool = False,
    ) -> Answer: ...
    @overload
    def knn_graph(
        self,
        k: int = 15,
        include_self: bool = False,
        *,
        output: Literal["csr"],
        out: None = None,
        recall: float | None = None,
        n_jobs: int = -1,
        progress: bool | Progress | None = None,
        force: bool = False,
    ) -> Any: ...
    @overload
    def knn_graph(
        self,
        k: int = 15,
        include_self: bool = False,
        output: Literal["rows", "ids"] = "rows",
        *,
        out: Path,
        recall: float | None = None,
        n_jobs: int = -1,
        progress: bool | Progress | None = None,
        force: bool = False,
    ) -> None: ...
    def knn_graph(
        self,
        k: int = 15,
        include_self: bool = False,
        output: Literal["rows", "ids", "csr"] = "rows",
        out: Path | None = None,
        *,
        recall: float | None = None,
        n_jobs: int = -1,
        progress: bool | Progress | None = None,
        force: bool = False,
    ) -> Any:
        """Find the nearest neighbours of all items.

        Parameters
        ----------
        k : int, default 15
            Neighbours of each item; the item itself is one of them if it is included.
        include_self : bool, default False
            Put each item first among its own neighbours.
        output : {"rows", "ids", "csr"}, default "rows"
            Name neighbours by row (the place in `ids`: the order in which items were added), or by
            id; or give a sparse matrix of distances (needs scipy).
        out : path, optional
            Write the answer there in pieces, instead of returning it. A name that ends with
            .parquet is a file of a row for each item (needs pyarrow): "id", "neighbours" and
            "distances", both lists; text ids are kept once. Any other is a folder: "rows.npy" or
            "ids.npy", and "distances.npy", which text ids have no place in.
        recall : float, optional
            Share of true neighbours to find on average, in (0, 1]; by default the index's own. 1
            compares every item with every other.
        n_jobs : int, default -1
            Threads; -1 for all cores. The answer is the same for each number.
        progress : True or callable, optional
            As for `build`.
        force : bool, default False
            Replace files that exist.

        Returns
        -------
        neighbours, distances : ndarray
            Shape (n, k), in row order, nearest first: int64 (object for text ids) and float64, as
            queries return them. Missing places are at the end: -1 (None for text ids) and NaN.
        scipy.sparse.csr_matrix
            With "csr": shape (n, n), the distance of a neighbour at its row, also where that is 0.
        None
            With `out`.

        Raises
        ------
        ValueError
            An argument is wrong, or a library that it needs is missing.
        FileExistsError
            A file that would be written exists.
        StateError, FormatError, OSError
            As for `query`; a file cannot be written.

        Notes
        -----
        Distances are exact. Lists of all items are found together, which takes a fraction of the
        time of as many queries: points near each other are compared with the same others, then with
        neighbours of neighbours, until enough of the true neighbours of a sample are found. Takes
        some 12 k bytes an item meanwhile. Where k is above 99, or vectors of at most 16 dimensions
        or few items are searched as they are, items are asked one after another.
        """
        self._check_built()
        wanted = inputs.whole_number(k, "k", 1, 2**32 - 1)
        form = inputs.one_of(output, "output", ("rows", "ids", "csr"))
        jobs = inputs.thread_count(n_jobs)
        if form == "csr":
            _require_scipy()
        files = None if out is None else self._graph_files(out, form, force)
        with reporter(progress) as report:
            found = self._knn_graph(wanted, bool(include_self), recall, jobs, report)
            if files is not None:
                files.write(self._graph_pieces(found), len(self), wanted)
                return None
            rows, distances = found.answer(0, len(self), report)
        if form == "csr":
            return _as_matrix(rows, distances)
        return (rows if form == "rows" else self._names_of(rows)), distances

    def _graph_files(self, out: Path, form: str, force: bool) -> GraphFiles:
        if form == "csr":
            raise ValueError("out: expected None with output='csr', which is returned")
        ids: npt.NDArray[np.int64] | TextIds | None = None
        if form == "ids":
            ids = TextIds(self) if self._has_text_ids else self._int_ids()
        return GraphFiles(inputs.file_path(out, "out"), ids, self._path, force=bool(force))

    def _graph_pieces(self, found: _core.FoundGraph) -> Iterator[Piece]:
        for first in range(0, len(self), _PIECE_ITEMS):
            yield found.answer(first, min(_PIECE_ITEMS, len(self) - first), None)

    def _names_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Ids of rows; text ids are one string an item, however often they are named."""
        if self._has_text_ids:
            texts = np.empty(len(self) + 1, dtype=object)  # the last one is that of row -1
            texts[:-1] = list(TextIds(self))
            return texts[rows]
        ids = self._int_ids()[rows]
        ids[rows < 0] = -1
        named: npt.NDArray[np.int64] = ids
        return named


def _require_scipy() -> None:
    try:
        import scipy.sparse  # noqa: F401
    except ImportError as error:
        raise ValueError("output: 'csr' needs scipy: pip install scipy") from error


def _as_matrix(rows: npt.NDArray[np.int64], distances: npt.NDArray[np.float64]) -> Any:
    from scipy.sparse import csr_matrix

    present = rows >= 0
    ends = np.concatenate(([0], np.cumsum(present.sum(axis=1))))
    shape = (len(rows), len(rows))
    return csr_matrix((distances[present], rows[present], ends), shape=shape)
