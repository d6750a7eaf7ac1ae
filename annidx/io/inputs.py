"""Owns what Python callers may pass: arrays, ids and options into the plain buffers the core takes.

Every refusal is a ValueError that names the argument, what was expected and what came. This module
must not call the core except to encode text, and it must not know the state of an index.
"""

from __future__ import annotations

import difflib
import errno
import itertools
import operator
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from annidx import _core
from annidx._core import described
from annidx.io.containers import as_numbers, as_seen
from annidx.io.remote import is_url

# Converted bytes held at one time while a large input of another type is read.
CHUNK_BYTES = 64 << 20

_INT64 = np.iinfo(np.int64)
# What every annidx file begins with.
_MAGIC = b"\x89ANNIDX\n"


# ---- numbers and paths --------------------------------------------------------------------


def whole_number(value: object, name: str, least: int, most: int) -> int:
    """Check an integer argument; bool is refused."""
    expected = f"a whole number from {least} to {most}"
    if isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name}: expected {expected}, got {described(value)}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"{name}: expected {expected}, got {described(value)}") from None
    if not least <= number <= most:
        raise ValueError(f"{name}: expected {expected}, got {number}")
    return number


def share(value: object, name: str) -> float:
    """Check a number from 0 to 1."""
    expected = "a number from 0 to 1"
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise ValueError(f"{name}: expected {expected}, got {described(value)}")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected {expected}, got {described(value)}") from None
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name}: expected {expected}, got {described(value)}")
    return number


def thread_count(n_jobs: object) -> int:
    """Resolve n_jobs: -1 is all cores that this process may use."""
    expected = "a number of threads of at least 1, or -1 for all cores"
    if isinstance(n_jobs, (bool, np.bool_)):
        raise ValueError(f"n_jobs: expected {expected}, got {described(n_jobs)}")
    try:
        number = operator.index(n_jobs)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"n_jobs: expected {expected}, got {described(n_jobs)}") from None
    if number == -1:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    if number < 1:
        raise ValueError(f"n_jobs: expected {expected}, got {number}")
    return min(number, 4096)


def one_of(value: object, name: str, choices: Iterable[str]) -> str:
    """Check a name against those that exist."""
    names = list(choices)
    if not isinstance(value, str) or value not in names:
        known = ", ".join(f'"{choice}"' for choice in names)
        raise ValueError(f"{name}: expected one of {known}, got {described(value)}")
    return value


# Names that other libraries have for metrics, letters and digits only, and what to say of them.
_ELSEWHERE = {
    "l2": 'did you mean "euclidean"? Its distances are not squared',
    "sqeuclidean": 'did you mean "euclidean"? Its distances are not squared',
    "l1": 'did you mean "manhattan"?',
    "cityblock": 'did you mean "manhattan"?',
    "taxicab": 'did you mean "manhattan"?',
    "ip": 'did you mean "dot"?',
    "innerproduct": 'did you mean "dot"?',
    "dotproduct": 'did you mean "dot"?',
    "maxinnerproduct": 'did you mean "dot"?',
    "negdotprod": 'did you mean "dot"? It returns the inner product itself',
    "cosinesimil": 'did you mean "cosine" (1 - cos)?',
    "cosinesimilarity": 'did you mean "cosine" (1 - cos)?',
    "cos": 'did you mean "cosine" (1 - cos)?',
    "bithamming": 'did you mean "hamming"?',
    "jaccard": 'there is none for sets; "hamming" compares bits',
    "bitjaccard": 'there is none for sets; "hamming" compares bits',
    "tanimoto": 'there is none for sets; "hamming" compares bits',
}


def metric_hint(value: str, names: Iterable[str]) -> str | None:
    """Tell which metric a name that is none of them may have meant, or None."""
    plain = "".join(letter for letter in value.lower() if letter.isalnum())
    if plain in _ELSEWHERE:
        return _ELSEWHERE[plain]
    close = difflib.get_close_matches(plain, list(names), n=1)
    return f'did you mean "{close[0]}"?' if close else None


def metric_name(value: object, names: Iterable[str]) -> str:
    """Check the name of a metric; for the names that others use, say what to take."""
    known = list(names)
    try:
        return one_of(value, "metric", known)
    except ValueError as error:
        hint = metric_hint(value, known) if isinstance(value, str) else None
        if hint is None:
            raise
        raise ValueError(f"{error}: {hint}") from None


def file_path(path: object, name: str) -> str:
    """Check the path of a file of this machine: str or os.PathLike of str."""
    try:
        text = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise ValueError(f"{name}: expected a str or os.PathLike, got {described(path)}")
    if not text or "\0" in text:
        raise ValueError(f"{name}: expected the name of a file, got {described(path)}")
    if is_url(text):
        raise ValueError(f"{name}: expected a file of this machine, got the URL {text!r}")
    return text


def require_replaceable(path: str, *, force: bool, what: str = "an annidx file") -> None:
    """Refuse a destination that holds another kind of file: a mistyped name must lose no data.

    A new name, an empty file and an annidx file (told by its first bytes, also behind links) are
    fine; so is anything with `force`. What is no regular file is left to whoever writes.
    """
    if force or not os.path.isfile(path):
        return
    try:
        with open(path, "rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as error:  # of reading or closing, which do not name the file
        raise OSError(error.errno, error.strerror, path) from None
    if head not in (b"", _MAGIC):
        raise FileExistsError(
            errno.EEXIST,
            f"expected a new file, or {what} to replace, found a file of another kind "
            "(force=True or --force replaces it)",
            path,
        )


# ---- vectors -------------------------------------------------------------------------------


def matrix(value: object, name: str, width: int, *, packed: bool) -> npt.NDArray[Any]:
    """Read (n, width) numbers; packed ones must be uint8."""
    array = as_numbers(value, name, width)
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"{name}: expected shape (n, {width}), got {array.shape}")
    if packed:
        _check_packed_type(array, name)
    return array


def _check_packed_type(array: npt.NDArray[Any], name: str) -> None:
    if array.dtype != np.uint8:
        raise ValueError(f"{name}: packed bits are uint8, got an array of dtype {array.dtype}")


def _bad_row(fits: npt.NDArray[np.bool_], block: npt.NDArray[Any], first_row: int) -> str:
    """Name the first row that has a value which does not fit, and the value."""
    row, column = np.unravel_index(int(np.argmin(fits)), fits.shape)
    return f"row {first_row + int(row)} holds {block[row, column]}"


def _plain(array: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array that C++ can read: C-contiguous, aligned, of this dtype in native order."""
    result = np.ascontiguousarray(array, dtype=dtype)
    return result if result.flags.aligned else result.copy()


def check_finite(
    block: npt.NDArray[Any], kept: npt.NDArray[Any], name: str, first_row: int
) -> None:
    """Refuse rows that are not finite in the type they are kept in, by what was given."""
    fits = np.isfinite(kept)
    if not fits.all():
        found = _bad_row(fits, block, first_row)
        raise ValueError(f"{name}: {found}: expected finite numbers that fit {kept.dtype}")


def to_float32(block: npt.NDArray[Any], name: str, first_row: int) -> npt.NDArray[np.float32]:
    """Convert rows to C-contiguous float32. float32 itself is left for the core to check."""
    if block.dtype.kind != "f" or block.dtype.itemsize <= 4:
        return _plain(block, np.float32)
    with np.errstate(over="ignore", under="ignore"):
        result = _plain(block, np.float32)
    check_finite(block, result, name, first_row)
    return result


def to_exact(
    block: npt.NDArray[Any], dtype: type[np.generic], name: str, first_row: int
) -> npt.NDArray[Any]:
    """Convert rows to an integer type without changing any value."""
    with np.errstate(invalid="ignore"):
        result = _plain(block, dtype)
    if block.dtype != dtype:
        fits = np.asarray(result == block)
        if not fits.all():
            limits = np.iinfo(dtype)  # type: ignore[type-var]
            found = _bad_row(fits, block, first_row)
            raise ValueError(
                f"{name}: {found}: expected whole numbers from {limits.min} to {limits.max}"
            )
    return result


def to_bits(block: npt.NDArray[Any], name: str, first_row: int) -> npt.NDArray[np.uint8]:
    """Pack rows of 0 and 1, most significant bit first."""
    bits = np.asarray(block, dtype=np.bool_)
    if block.dtype != np.bool_:
        fits = np.asarray(bits == block)
        if not fits.all():
            raise ValueError(f"{name}: {_bad_row(fits, block, first_row)}: expected 0 or 1")
    # packbits follows the order of its input; the core reads rows that lie one after the other.
    return np.ascontiguousarray(np.packbits(bits, axis=1))


def checked_bits(
    block: npt.NDArray[Any], dim: int, name: str, first_row: int
) -> npt.NDArray[np.uint8]:
    """Check packed rows: the spare bits of the last byte are zero."""
    spare = (1 << (-dim % 8)) - 1
    if spare:
        fits = (block[:, -1] & spare) == 0
        if not fits.all():
            row = first_row + int(np.argmin(fits))
            raise ValueError(
                f"{name}: row {row} has bits set behind bit {dim}: expected zeros there"
            )
    return np.ascontiguousarray(block)


class Rows:
    """The rows of one add: what the core will get, read block by block.

    Attributes
    ----------
    input_type : str
        A name of `_core.DTYPES`: the element type of the blocks.
    """

    def __init__(self, vectors: object, dim: int, dtype: str, *, packed: bool) -> None:
        if packed and dtype != "bits":
            raise ValueError("packed: expected False: only a hamming index takes packed bits")
        self._dim = dim
        self._dtype = dtype
        self._packed = packed
        self._array = matrix(vectors, "vectors", (dim + 7) // 8 if packed else dim, packed=packed)
        self.input_type = self._choose_type()
        row_bytes = max(1, self._array.shape[1] * (4 if self.input_type == "float32" else 1))
        self._rows_a_block: int = max(1, CHUNK_BYTES // row_bytes)

    def _choose_type(self) -> str:
        if self._dtype == "float16" and self._array.dtype == np.float16:
            return "float16"
        if self._dtype == "int8" and self._array.dtype.kind == "f":
            return "float32"  # scaled by the core
        return "float32" if self._dtype == "float16" else self._dtype

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def as_they_are(self) -> npt.NDArray[Any] | None:
        """Return the whole input when the core can read it in place, otherwise None."""
        array = self._array
        if self.input_type == "bits":
            if not (self._packed and array.flags.c_contiguous):
                return None
            return checked_bits(array, self._dim, "vectors", 0)
        fits = array.flags.c_contiguous and array.flags.aligned
        return array if fits and array.dtype == np.dtype(self.input_type) else None

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield (first row, converted C-contiguous rows) for consecutive parts of the input."""
        for first in range(0, len(self), self._rows_a_block):
            block = self._array[first : first + self._rows_a_block]
            yield first, self._converted(block, first)

    def check(self) -> None:
        """Refuse what the core would refuse, before any of several blocks is given to it."""
        for first, block in self.blocks():
            if block.dtype.kind == "f":
                with np.errstate(over="ignore"):
                    kept = block.astype(np.float16) if self._dtype == "float16" else block
                check_finite(block, kept, "vectors", first)

    def is_one_block(self) -> bool:
        """Tell whether `blocks` yields all rows at once."""
        return len(self) <= self._rows_a_block

    def _converted(self, block: npt.NDArray[Any], first_row: int) -> npt.NDArray[Any]:
        if self.input_type == "bits":
            if self._packed:
                return checked_bits(block, self._dim, "vectors", first_row)
            return to_bits(block, "vectors", first_row)
        if self.input_type == "float32":
            return to_float32(block, "vectors", first_row)
        if self.input_type == "float16":
            return _plain(block, np.float16)
        exact = np.int8 if self.input_type == "int8" else np.uint8
        return to_exact(block, exact, "vectors", first_row)


def is_read_only_map(array: npt.NDArray[Any]) -> bool:
    """Tell whether an array lies in a file mapped read-only, so that pages can be read again."""
    owner: object = array
    while isinstance(owner, np.ndarray) and not isinstance(owner, np.memmap):
        owner = owner.base
    if not isinstance(owner, np.memmap) or array.flags.writeable:
        return False
    return bool(owner.mode == "r" and getattr(owner, "_mmap", None) is not None)


def as_queries(
    value: object, name: str, dim: int, *, bits: bool, packed: bool
) -> tuple[npt.NDArray[Any], bool]:
    """Read one query (dim,) or many (m, dim) into what the core takes, (m, ...) C-contiguous.

    Returns the queries and whether it was one.
    """
    if packed and not bits:
        raise ValueError("packed: expected False: only a hamming index takes packed bits")
    width = (dim + 7) // 8 if packed else dim
    array = as_numbers(value, name, width)
    single = array.ndim == 1
    if single:
        array = array[np.newaxis]
    if array.ndim != 2 or array.shape[1] != width:
        came = array.shape[1:] if single else array.shape
        raise ValueError(f"{name}: expected shape ({width},) or (m, {width}), got {came}")
    if packed:
        _check_packed_type(array, name)
        return checked_bits(array, dim, name, 0), single
    if bits:
        return to_bits(array, name, 0), single
    return to_float32(array, name, 0), single


# ---- filters -------------------------------------------------------------------------------


def plain_filter(items: Any, name: str) -> Any:
    """Turn a column of booleans (of pandas, Polars, Arrow) into a mask; leave all else as it is."""
    array = as_seen(items, name)
    if array is None:
        return items
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind == "O" and any(isinstance(item, (bool, np.bool_)) for item in array.flat):
        for place, item in enumerate(array.flat):
            if not isinstance(item, (bool, np.bool_)):
                raise ValueError(
                    f"{name}: expected only True and False in a mask, "
                    f"got {described(item)} at place {place}"
                )
        return array.astype(np.bool_)
    return items


# ---- ids -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class IdBatch:
    """Ids in one of the core's two forms: int64, or text joined as UTF-8."""

    ints: npt.NDArray[np.int64] | None
    text: bytes | None
    offsets: npt.NDArray[np.uint64] | None

    def __len__(self) -> int:
        if self.ints is not None:
            return len(self.ints)
        return 0 if self.offsets is None else len(self.offsets) - 1

    def part(self, first: int, last: int) -> IdBatch:
        """Return ids [first, last), without copying."""
        if self.ints is not None:
            return IdBatch(self.ints[first:last], None, None)
        if self.offsets is not None:
            return IdBatch(None, self.text, self.offsets[first : last + 1])
        return self

    def at(self, place: int) -> int | str:
        """Return one id."""
        if self.ints is not None:
            return int(self.ints[place])
        assert self.text is not None and self.offsets is not None
        return self.text[self.offsets[place] : self.offsets[place + 1]].decode("utf-8")


NO_IDS = IdBatch(None, None, None)


def is_one_id(value: object) -> bool:
    """Tell whether a value is one id rather than several."""
    return isinstance(value, (str, int, np.integer)) and not isinstance(value, bool)


def plain_id(item: Any) -> Any:
    """Return an id as Python's own int or str, for messages."""
    return item.item() if isinstance(item, np.generic) else item


def read_ids(ids: object, name: str) -> IdBatch:
    """Read several ids: all integers that fit int64, or all strings."""
    if isinstance(ids, (str, bytes)):
        raise ValueError(f"{name}: expected a list or array of ids, got {described(ids)}")
    array = as_seen(ids, name)
    if array is not None:
        if array.ndim != 1:
            raise ValueError(f"{name}: expected ids of shape (n,), got {array.shape}")
        if array.dtype.kind in "iu":
            return IdBatch(_as_int64(array, name), None, None)
        if array.dtype.kind == "f" and np.isnan(array).any():
            place = int(np.argmax(np.isnan(array)))
            raise ValueError(f"{name}: expected integers or strings, place {place} has none")
        if array.dtype.kind not in "UTO":
            raise ValueError(
                f"{name}: expected integers or strings, got an array of dtype {array.dtype}"
            )
        items = array.tolist()
    elif hasattr(ids, "__iter__"):
        items = list(ids)
    else:
        raise ValueError(f"{name}: expected a list or array of ids, got {described(ids)}")
    if items and isinstance(items[0], str):
        text, offsets = _core.encode_texts(items, name)
        return IdBatch(None, text, offsets)
    for place, item in enumerate(items):
        if type(item) is not int and not isinstance(item, np.integer):
            raise ValueError(
                f"{name}: expected all integers or all strings, "
                f"got {described(item)} at place {place}"
            )
    try:
        return IdBatch(np.array(items, dtype=np.int64), None, None)
    except OverflowError:
        raise ValueError(f"{name}: expected integers that fit int64, got a larger one") from None


def _as_int64(array: npt.NDArray[Any], name: str) -> npt.NDArray[np.int64]:
    if array.dtype.kind == "u" and array.size and int(array.max()) > _INT64.max:
        raise ValueError(f"{name}: expected integers that fit int64, got {array.max()}")
    return _plain(array, np.int64)


def first_repeated(batch: IdBatch) -> int | str | None:
    """Return an id that occurs twice in a batch, or None."""
    if batch.ints is not None:
        ordered = np.sort(batch.ints)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        return int(twice[0]) if len(twice) else None
    if batch.text is None or batch.offsets is None:
        return None
    seen: set[bytes] = set()
    ends = batch.offsets.tolist()
    for start, end in itertools.pairwise(ends):
        item = batch.text[start:end]
        if item in seen:
            return item.decode("utf-8")
        seen.add(item)
    return None
