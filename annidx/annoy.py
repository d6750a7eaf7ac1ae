"""Owns Annoy's face: `AnnoyIndex`, which takes the place of `annoy.AnnoyIndex`, and `convert`.

What an index may do in which state, files and builds are decided here; the calls on single items
are in _core/annoy.pxi. It must hold no arithmetic on vectors.
"""

from __future__ import annotations

import errno
import mmap
import operator
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, NoReturn, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from annidx import _core, opening
from annidx import index as _index
from annidx._core import AnnoyBuffer, AnnoyReader, AnnoyServed
from annidx._progress import Progress, reporter
from annidx.errors import FormatError
from annidx.io import inputs

__all__ = ["AnnoyIndex", "convert"]

AnnoyMetric: TypeAlias = Literal["angular", "euclidean", "manhattan", "hamming", "dot"]
Path: TypeAlias = "str | os.PathLike[str]"

# The default of `metric`: told from what a caller passes by being another object.
_OMITTED: Final = cast(AnnoyMetric, str(b"angular", "ascii"))
_MAX_DIM = 65535
_MAX_TREES = 65535
_MAX_ITEMS = 2**31 - 1
_MAGIC = b"\x89ANNIDX\n"
# Metadata of a file: what get_n_items returns, where ids have holes.
_ITEMS_KEY = "annoy_n_items"
# From this size on, chunks of vectors are memory maps, which a build reads in place.
_MAPPED_BYTES = 1 << 20
# Rows that are gathered or converted at a time.
_BLOCK_BYTES = 32 << 20

# Candidates that a query inspects at least: reading a few leaves costs less than choosing them,
# and finds near twins with certainty. Fewer where whole vectors of many dimensions are read.
_LEAST_CANDIDATES = 1536
_LEAST_VECTORS = 512
_FEW_DIMS = 16

_LOADED = "You can't {} a loaded index"
_BUILT = "You can't {} a built index"
_ADD_LOADED = "You can't add an item to a loaded index"
_ADD_BUILT = "You can't add an item to a built index: call unbuild() first"


class AnnoyIndex(_core.AnnoyCalls):
    """Annoy's index on annidx: the same calls, answered by annidx's search.

    Parameters
    ----------
    f : int
        Dimension of the vectors, 1..65535.
    metric : {"angular", "euclidean", "manhattan", "hamming", "dot"}
        What "near" means. Left out, it is angular, with a FutureWarning as in Annoy.

    Attributes
    ----------
    f : int
        Dimension of the vectors.

    Raises
    ------
    ValueError
        No such metric, or f is not in 1..65535.

    Notes
    -----
    Items that were never added (holes) cost neither memory nor room in the file. `build(-1)` lets
    the library choose the number of trees. `load` takes files that annidx wrote and files that
    Annoy wrote. Safe from many threads at once.
    """

    __slots__ = (
        "_disk_path",
        "_is_built",
        "_is_loaded",
        "_is_verbose",
        "_metric",
        "_seed",
    )

    def __init__(self, f: int, metric: AnnoyMetric = _OMITTED) -> None:
        dim = _c_int(f)
        if metric is _OMITTED:
            warnings.warn(
                "The default argument for metric will be removed in future version of Annoy. "
                "Please pass metric='angular' explicitly.",
                FutureWarning,
                stacklevel=2,
            )
            metric = "angular"
        if not isinstance(metric, str):
            raise TypeError(f"argument 2 must be str, not {type(metric).__name__}")
        if metric not in _core.ANNOY_METRICS:
            raise ValueError("No such metric")
        if not 1 <= dim <= _MAX_DIM:
            raise ValueError(f"f: expected a whole number from 1 to {_MAX_DIM}, got {dim}")
        self._metric: AnnoyMetric = metric
        self._is_verbose = False
        self._start_anew(dim)

    @property
    def f(self) -> int:
        """Dimension of the vectors; for hamming the number of bits."""
        return super().f

    # ---- filling and building ----------------------------------------------------------------

    def _start_anew(self, f: int) -> None:
        self._seed = 0
        self._disk_path: str | None = None
        self._fill(_buffer(f, self._metric, None))

    def _fill(self, buffer: AnnoyBuffer) -> None:
        self._is_built = self._is_loaded = False
        self._set_source(buffer, None)

    def on_disk_build(self, fn: Path) -> Literal[True]:
        """Prepare to build in the file `fn` instead of memory.

        The vectors wait in a file without a name in the same folder; `fn` appears, complete, when
        `build` ends.

        Raises
        ------
        OSError
            The folder cannot be written to.
        """
        if self._is_built:
            raise OSError(_ADD_LOADED if self._is_loaded else _ADD_BUILT)
        path = os.path.abspath(_file_name(fn))
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        before = self._get_source()
        assert isinstance(before, AnnoyBuffer)
        buffer = _buffer(self.f, self._metric, os.path.dirname(path))
        ids = before.item_ids()
        first = 0
        for block in before.row_blocks():
            last = first + len(block)
            buffer.take_rows(block, None if ids is None else ids[first:last])
            first = last
        self._disk_path = path
        self._fill(buffer)
        return True

    def build(self, n_trees: int, n_jobs: int = -1) -> Literal[True]:
        """Build the index; afterwards it can be asked and saved.

        Parameters
        ----------
        n_trees : int
            Trees to grow: more raise the recall for the same `search_k` and the size of the file.
            -1 lets the library choose.
        n_jobs : int, default -1
            Threads; -1 for all cores.

        Raises
        ------
        Exception
            The index is built or loaded.
        OSError, MemoryError
            The file of `on_disk_build` cannot be written, or there is not enough memory; the items
            stay.
        """
        trees, jobs = _c_int(n_trees), _c_int(n_jobs)
        self._refuse_unless_filling("build")
        buffer = self._get_source()
        assert isinstance(buffer, AnnoyBuffer)
        if buffer.count == 0:
            empty = _buffer(self.f, self._metric, None, max(1, trees))
            self._set_source(empty, _ADD_BUILT)
        else:
            core = _index.Index(self.f, self._metric)
            _hand_over(buffer, core, self._metric)
            # Lean: Annoy's users wait for builds and keep no curve.
            with reporter(self._is_verbose) as report:
                core._build(
                    min(trees, _MAX_TREES) if trees > 0 else 0,
                    0.0,
                    inputs.thread_count(jobs if jobs > 0 else -1),
                    self._seed,
                    None,
                    report,
                    None if self._disk_path is None else os.fsencode(self._disk_path),
                    0,
                    lean=True,
                    neighbours=None,
                )
            self._set_source(_served(core, self._metric, buffer.n_items), _ADD_BUILT)
        self._is_built = True
        return True

    def unbuild(self) -> Literal[True]:
        """Go back to before `build`: items can be added again.

        Raises
        ------
        Exception
            The index is loaded.
        """
        if self._is_loaded:
            raise Exception(_LOADED.format("unbuild"))
        if not self._is_built:
            return True
        folder = None if self._disk_path is None else os.path.dirname(self._disk_path)
        buffer = _buffer(self.f, self._metric, folder)
        source = self._get_source()
        if isinstance(source, AnnoyServed):
            for ids, vectors in _stored_blocks(source):
                buffer.take_rows(vectors, ids)
        self._fill(buffer)
        return True

    def _refuse_unless_filling(self, action: str) -> None:
        if self._is_loaded:
            raise Exception(_LOADED.format(action))
        if self._is_built:
            raise Exception(_BUILT.format(action))

    # ---- files -------------------------------------------------------------------------------

    def save(self, fn: Path, prefault: bool = False) -> Literal[True]:
        """Write the index to a file and go on from there, as `load` does.

        The file appears complete or not at all; processes that have an older one open keep it. An
        index that was loaded from a file of Annoy's is written as it is (see `convert`).

        Parameters
        ----------
        fn : path
            The file.
        prefault : bool, default False
            As for `load`.

        Raises
        ------
        OSError
            The index is not built, or the file cannot be written.
        """
        path = _file_name(fn)
        if not self._is_built:
            raise OSError("You can't save an index that hasn't been built")
        if self._disk_path is not None and os.path.abspath(path) == self._disk_path:
            return True
        source = self._get_source()
        try:
            if _is_special(path):
                self._write_through(source, path)
                return True
            self._write(source, path)
        except FormatError as error:
            raise OSError(str(error)) from None
        if self._disk_path is None:
            self.load(path, prefault)
        return True

    def _write_through(self, source: _core.AnnoySource, path: str) -> None:
        """Write to what cannot be replaced, such as a pipe or /dev/full."""
        if isinstance(source, AnnoyServed):
            core = source.core
            assert isinstance(core, _index.Index)
            with open(path, "wb") as file:
                core.save(file, _metadata_for(core, source.n_items))
            return
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "image")
            self._write(source, name)
            with open(name, "rb") as written, open(path, "wb") as file:
                shutil.copyfileobj(written, file)

    def _write(self, source: _core.AnnoySource, path: str) -> None:
        where = os.fsencode(path)
        if isinstance(source, AnnoyServed):
            core = source.core
            assert isinstance(core, _index.Index)
            # Annoy replaces whatever has the name, and so does this class.
            core.save(path, _metadata_for(core, source.n_items), force=True)
        elif isinstance(source, AnnoyReader):
            source.save(where)
        else:
            metric = _core.ANNOY_METRICS[self._metric]
            _core.annoy_write_empty(where, self.f, metric, source.n_trees)

    def load(self, fn: Path, prefault: bool = False) -> Literal[True]:
        """Open a file by mapping it: one that annidx wrote, or one that Annoy wrote.

        Parameters
        ----------
        fn : path
            The file.
        prefault : bool, default False
            Read it into memory ahead of the first query.

        Raises
        ------
        OSError
            The file cannot be opened, is damaged, or was made with another f or metric.
        """
        path = _file_name(fn)
        try:
            source: _core.AnnoySource
            if _has_our_magic(path):
                source = self._opened(path, bool(prefault))
            else:
                metric = _core.ANNOY_METRICS[self._metric]
                source = AnnoyReader(self.f, metric, os.fsencode(path), bool(prefault))
        except FormatError as error:
            raise OSError(str(error)) from None
        self._disk_path = None
        self._is_built = self._is_loaded = True
        self._set_source(source, _ADD_LOADED)
        return True

    def _opened(self, path: str, prefault: bool) -> AnnoyServed:
        core = opening.load(path, warm=prefault)
        if core.dim != self.f or core.metric != self._metric:
            core_is = f"{core.metric!r} with f={core.dim}"
            core.close()
            raise OSError(
                f"'{path}' is an index for {core_is}, not {self._metric!r} with f={self.f}"
            )
        if core._has_text_ids:
            core.close()
            raise OSError(f"'{path}' has text ids: open it with annidx.load()")
        return _served(core, self._metric, _items_noted(core))

    def unload(self) -> Literal[True]:
        """Give the file or the memory back; the index is then empty and can be filled again."""
        self._start_anew(self.f)
        return True

    # ---- the rest ----------------------------------------------------------------------------

    def set_seed(self, seed: int, /) -> None:
        """Set the seed of the next `build`. The same items and seed give the same index."""
        self._seed = _c_int(seed) % 2**64

    def verbose(self, v: bool, /) -> Literal[True]:
        """Tell whether `build` shows a progress bar on stderr."""
        self._is_verbose = bool(_c_int(v))
        return True

    def __repr__(self) -> str:
        return f"AnnoyIndex({self.f}, {self._metric!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"cannot pickle '{type(self).__name__}' object: save() it and load() the file"
        )


def convert(
    source: Path,
    destination: Path,
    dim: int,
    metric: AnnoyMetric,
    *,
    n_trees: int | None = None,
    recall: float = 0.95,
    n_jobs: int = -1,
    seed: int = 0,
    progress: bool | Progress | None = None,
    neighbours: int | None = None,
    force: bool = False,
) -> int:
    """Rebuild a file that Annoy wrote as an annidx file.

    Parameters
    ----------
    source : path
        A file that Annoy wrote.
    destination : path
        The annidx file; it appears when it is complete. `AnnoyIndex.load` and `annidx.load` open
        it. Ids stay; holes are left out.
    dim : int
        Dimension of the vectors (Annoy's `f`); the file does not tell.
    metric : {"angular", "euclidean", "manhattan", "hamming", "dot"}
        The metric it was built with; the file does not tell.
    n_trees, recall, n_jobs, seed, progress, neighbours, force
        As for `annidx.Index.build`.

    Returns
    -------
    int
        Items written.

    Raises
    ------
    ValueError
        An argument is wrong, or the file holds no items.
    OSError
        A file cannot be read or written, the source is damaged or was made with another dim or
        metric.
    """
    if metric not in _core.ANNOY_METRICS:
        known = ", ".join(f'"{name}"' for name in _core.ANNOY_METRICS)
        raise ValueError(f"metric: expected one of {known}, got {metric!r}")
    core = _index.Index(dim, metric)
    path = _file_name(source)
    inputs.require_replaceable(_file_name(destination), force=force)
    try:
        reader = AnnoyReader(core.dim, _core.ANNOY_METRICS[metric], os.fsencode(path), False)
        for ids, vectors in _annoy_blocks(reader, core.dim):
            if metric == "hamming":
                core.add_items(vectors.astype(np.uint8), ids)
            else:
                core.add_items(vectors, ids)
    except FormatError as error:
        raise OSError(str(error)) from None
    if len(core) == 0:
        raise ValueError(f"'{path}' holds no items")
    core.build(
        n_trees=n_trees,
        recall=recall,
        n_jobs=n_jobs,
        seed=seed,
        progress=progress,
        neighbours=neighbours,
    )
    core.save(destination, _metadata_for(core, reader.n_items), force=force)
    return len(core)


# ---- vectors ---------------------------------------------------------------------------------


def _buffer(f: int, metric: AnnoyMetric, folder: str | None, n_trees: int = 0) -> AnnoyBuffer:
    return AnnoyBuffer(f, _core.ANNOY_METRICS[metric], _chunk_maker(f, metric, folder), n_trees)


def _chunk_maker(
    f: int, metric: AnnoyMetric, folder: str | None
) -> Callable[[int], npt.NDArray[Any]]:
    """Give what makes the chunks of a buffer: rows of float32, or of packed bits."""
    is_bits = metric == "hamming"
    width = (f + 7) // 8 if is_bits else f
    dtype = np.dtype(np.uint8 if is_bits else np.float32)

    def make(rows: int) -> npt.NDArray[Any]:
        size = rows * width * dtype.itemsize
        if folder is not None:
            with tempfile.TemporaryFile(dir=folder, prefix=".", suffix=".tmp") as file:
                file.write(bytes(size))  # a full disk is an OSError now, not a crash later
                file.flush()
                memory = mmap.mmap(file.fileno(), size)
        elif size >= _MAPPED_BYTES:
            memory = mmap.mmap(-1, size)
        else:
            return np.empty((rows, width), dtype=dtype)
        return np.frombuffer(memory, dtype=dtype).reshape(rows, width)

    make(1)  # a folder that cannot be written to shows now
    return make


def _is_mapped(block: npt.NDArray[Any]) -> bool:
    """Tell whether a block lies in shared memory, whose pages the core may drop and read again."""
    owner: Any = block
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return isinstance(owner, (mmap.mmap, memoryview)) and owner is not None


def _hand_over(buffer: AnnoyBuffer, core: _index.Index, metric: AnnoyMetric) -> None:
    """Give all rows to an index, ordered by id: equal distances are answered in that order."""
    input_type = _core.DTYPES["bits" if metric == "hamming" else "float32"]
    ids = buffer.item_ids()
    blocks = buffer.row_blocks()
    if buffer.is_sorted() or ids is None:
        first = 0
        for block in blocks:
            part = None if ids is None else ids[first : first + len(block)]
            core._add(block, input_type, part, None, None, _is_mapped(block))
            first += len(block)
        return
    starts = np.cumsum([0, *map(len, blocks)])
    order = np.argsort(ids)
    has_holes = buffer.count < buffer.n_items
    step = max(1, _BLOCK_BYTES // blocks[0].strides[0])
    for first in range(0, len(order), step):
        rows = order[first : first + step]
        gathered = np.empty((len(rows), blocks[0].shape[1]), dtype=blocks[0].dtype)
        for block, start in zip(blocks, starts, strict=False):
            inside = (rows >= start) & (rows < start + len(block))
            gathered[inside] = block[rows[inside] - start]
        part = ids[rows] if has_holes else None
        core._add(gathered, input_type, part, None, None, False)


def _stored_blocks(
    source: AnnoyServed,
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
    """Yield the ids and the vectors of a built index, as a buffer keeps them."""
    total = len(source.core)
    step = max(1, _BLOCK_BYTES // (4 * source.core.dim))
    for first in range(0, total, step):
        rows = np.arange(first, min(first + step, total), dtype=np.uint32)
        yield _core.annoy_ids(source.core, rows), source.core._vectors(rows)


def _annoy_blocks(
    reader: AnnoyReader, dim: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Yield the ids and the vectors of a file that Annoy wrote, without its holes."""
    step = max(1, _BLOCK_BYTES // (4 * dim))
    for first in range(0, reader.n_items, step):
        last = min(first + step, reader.n_items)
        there = reader.item_mask(first, last)
        yield np.flatnonzero(there) + first, reader.item_vectors(first, last)[there]


# ---- files -----------------------------------------------------------------------------------


def _served(core: _index.Index, metric: AnnoyMetric, n_items: int) -> AnnoyServed:
    facts = core._info()
    reads_vectors = facts["scan"] == "vectors" and core.dim > _FEW_DIMS
    least = _LEAST_VECTORS if reads_vectors else _LEAST_CANDIDATES
    return AnnoyServed(core, _core.ANNOY_METRICS[metric], n_items, facts["n_trees"], least)


def _items_noted(core: _index.Index) -> int:
    """Return what get_n_items says for a file: what is noted in it, or the largest id plus one."""
    if not _core.annoy_has_explicit_ids(core):
        return len(core)
    noted = (core.metadata or {}).get(_ITEMS_KEY)
    if isinstance(noted, int) and len(core) <= noted <= _MAX_ITEMS:
        return noted
    least, largest = _core.annoy_id_range(core)
    if least < 0 or largest >= _MAX_ITEMS:
        raise OSError(
            f"'{core.path}' has ids from {least} to {largest}, and Annoy's are 0 to "
            f"{_MAX_ITEMS - 1}: open it with annidx.load()"
        )
    return largest + 1


def _metadata_for(core: _index.Index, n_items: int) -> dict[str, Any] | None:
    """Return the metadata to save with: what there is, and the number of items if it has holes."""
    if not _core.annoy_has_explicit_ids(core):
        return None
    return {**(core.metadata or {}), _ITEMS_KEY: n_items}


def _is_special(path: str) -> bool:
    """Tell whether a path names something that is neither a file nor a folder."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _has_our_magic(path: str) -> bool:
    # A pipe must be refused when it is mapped, not waited for here. Windows has other flags.
    flags = ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY", "O_NOINHERIT")
    descriptor = os.open(path, sum(getattr(os, name, 0) for name in flags))
    try:
        return os.read(descriptor, len(_MAGIC)) == _MAGIC
    finally:
        os.close(descriptor)


def _file_name(fn: object) -> str:
    name = os.fspath(fn)  # type: ignore[call-overload]
    if not isinstance(name, str):
        raise TypeError(f"argument 1 must be str, not {type(name).__name__}")
    if "\0" in name:
        raise ValueError("embedded null character")
    if not name:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return name


def _c_int(value: object) -> int:
    number = operator.index(value)  # type: ignore[arg-type]
    if not -(2**31) <= number < 2**31:
        raise OverflowError("signed integer is greater than maximum")
    return number
