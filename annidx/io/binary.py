"""Owns binary formats of vectors: NumPy's, HDF5, and those of benchmarks and of word2vec.

It must not know formats of columns or of text.
"""

from __future__ import annotations

import zipfile
from array import array
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from annidx.io.source import InputError, Source, one_line
from annidx.io.table import Selection, Table, ids_from_text, pick

_WORD_BYTES = 1 << 16  # no token is longer
_PIECE_BYTES = 1 << 20


# ---- NumPy and HDF5 ------------------------------------------------------------------------


def load_npy(source: Source) -> npt.NDArray[Any]:
    """Map an .npy file."""
    file = source.file()
    mode = "r" if isinstance(file, str) else None
    try:
        loaded: npt.NDArray[Any] = np.load(file, mmap_mode=mode, allow_pickle=False)  # type: ignore[arg-type]
    except (ValueError, EOFError) as error:
        raise InputError(f"{source.name}: not a readable .npy file ({one_line(error)})") from error
    return loaded


def read_npy(source: Source, _: Selection) -> Table:
    """Read an .npy file."""
    return Table(load_npy(source))


def read_npz(source: Source, wanted: Selection) -> Table:
    """Read an array of an .npz file."""
    file = source.file()
    try:
        if not zipfile.is_zipfile(file):
            raise zipfile.BadZipFile("not a zip archive")
        with np.load(file, allow_pickle=False) as archive:
            key = pick(source.name, "array", list(archive.files), wanted.key, "--key")
            return Table(archive[key])
    except InputError:
        raise
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise InputError(f"{source.name}: not a readable .npz file ({one_line(error)})") from error


def read_hdf5(source: Source, wanted: Selection) -> Table:
    """Read a table of an HDF5 file; "train", as benchmark files call it, unless one is named."""
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f"{source.name}: reading .hdf5 needs the package h5py (pip install h5py)"
        ) from error
    tables: list[str] = []

    def collect(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 2:
            tables.append(path)

    try:
        with h5py.File(source.file(), "r") as file:
            file.visititems(collect)
            key = "train" if wanted.key is None and "train" in tables else wanted.key
            return Table(file[pick(source.name, "table", tables, key, "--key")][()])
    except OSError as error:
        raise InputError(f"{source.name}: not a readable HDF5 file ({one_line(error)})") from error


# ---- rows of raw numbers -------------------------------------------------------------------


def read_vecs(source: Source, _: Selection, *, element: str) -> Table:
    """Map .fvecs, .bvecs or .ivecs: each row is its length as int32, then its elements."""
    raw = source.raw()
    if len(raw) < 4:
        raise InputError(f"{source.name}: too short for a row")
    dim = int(raw[:4].view("<i4")[0])
    row = np.dtype([("dim", "<i4"), ("vector", element, (max(dim, 1),))])
    if dim < 1 or len(raw) % row.itemsize:
        raise InputError(
            f"{source.name}: {len(raw)} bytes are no whole number of rows of {dim} dimensions"
        )
    rows = raw.view(row)
    if not (rows["dim"] == dim).all():
        raise InputError(f"{source.name}: rows of different lengths")
    return Table(rows["vector"])


def read_bin(source: Source, _: Selection, *, element: str) -> Table:
    """Map .fbin, .u8bin or .i8bin: how many rows and dimensions as uint32, then all elements."""
    raw = source.raw()
    if len(raw) < 8:
        raise InputError(f"{source.name}: too short for the numbers of rows and dimensions")
    count, dim = (int(number) for number in raw[:8].view("<u4"))
    expected = 8 + count * dim * np.dtype(element).itemsize
    if len(raw) != expected:
        raise InputError(
            f"{source.name}: expected {expected:,} bytes for {count:,} rows of {dim:,} dimensions, "
            f"found {len(raw):,}"
        )
    return Table(raw[8:].view(element).reshape(count, dim))


# ---- word2vec ------------------------------------------------------------------------------


def read_word2vec(source: Source, _: Selection) -> Table:
    """Read word2vec's binary form; the words are the ids."""
    with source.stream() as stream:
        words = _Words(source.name, stream)
        vectors, ids = words.read_all()
    return Table(vectors, ids_from_text(ids))


class _Words:
    """A file of word2vec being read: a line of two numbers, then words, each with its vector."""

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self._name = name
        self._stream = stream
        self._buffer = bytearray()
        self._at = 0
        fields = stream.readline(_WORD_BYTES).split()
        if len(fields) != 2 or not all(field.isdigit() and len(field) < 12 for field in fields):
            raise InputError(
                f"{name}: expected word2vec's binary form, a first line with the numbers of words "
                "and dimensions"
            )
        self._count, self._dim = int(fields[0]), int(fields[1])

    def read_all(self) -> tuple[npt.NDArray[np.float32], list[str]]:
        values = array("f")
        words: list[str] = []
        for row in range(self._count):
            words.append(self._word(row))
            values.frombytes(self._take(4 * self._dim, row))
        self._fill(_WORD_BYTES)
        if self._buffer[self._at :].strip(b"\n"):
            raise InputError(
                f"{self._name}: expected {self._count:,} words, as its first line says, found more"
            )
        return np.frombuffer(values, dtype=np.float32).reshape(-1, max(self._dim, 1)), words

    def _word(self, row: int) -> str:
        self._fill(_WORD_BYTES)
        end = self._buffer.find(b" ", self._at, self._at + _WORD_BYTES)
        if end < 0:
            self._refuse_end(row)
        word = self._buffer[self._at : end].lstrip(b"\n")  # some writers end vectors with one
        self._at = end + 1
        try:
            return word.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{self._name}: the word of row {row} is not UTF-8") from None

    def _take(self, count: int, row: int) -> bytearray:
        self._fill(count)
        taken = self._buffer[self._at : self._at + count]
        if len(taken) < count:
            self._refuse_end(row)
        self._at += count
        return taken

    def _fill(self, count: int) -> None:
        """Have this many bytes ahead, unless the file ends."""
        if len(self._buffer) - self._at >= count:
            return
        del self._buffer[: self._at]
        self._at = 0
        while len(self._buffer) < count:
            piece = self._stream.read(_PIECE_BYTES)
            if not piece:
                return
            self._buffer += piece

    def _refuse_end(self, row: int) -> None:
        raise InputError(
            f"{self._name}: expected {self._count:,} words, as its first line says, "
            f"found {row:,} whole ones"
        )
