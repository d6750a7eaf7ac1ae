"""Owns what other libraries keep numbers in, as NumPy arrays: frames, columns, tensors, lists.

Memory is shared wherever NumPy can read it as it lies. What cannot be read is a ValueError of one
line that names the argument, and the row where one is to blame. It must not know what an index is,
and it imports no library that the caller has not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]
_SHOWN = 40  # characters of a wrong value in a message


def as_numbers(value: object, name: str, width: int | None = None) -> _Array:
    """Read anything that holds numbers as an array, without a copy where the memory allows it.

    Parameters
    ----------
    value : object
        An array, a tensor, a column of lists, a frame of numbers, or lists of these.
    name : str
        The argument, for messages.
    width : int, optional
        How many numbers a row should have. An array of another width is returned all the same;
        rows that have to be put together are refused.

    Returns
    -------
    ndarray
        Of any shape and of a type of numbers; bfloat16 becomes float32.

    Raises
    ------
    ValueError
        No numbers, a missing value, or rows of different lengths.
    """
    if isinstance(value, np.ndarray):
        array = _unmasked(value, name)
    else:
        array = _foreign(value, name, width)
    if array.dtype.kind == "O":
        array = _from_objects(array, name, width)
    if array.dtype.kind == "V" and array.dtype.name == "bfloat16":
        array = _widened(array)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected numbers, got an array of dtype {array.dtype}")
    return array


def as_seen(value: object, name: str) -> _Array | None:
    """Read what shows itself to NumPy as an array of any type; None for all else, such as lists."""
    if isinstance(value, np.ndarray):
        return _unmasked(value, name)
    if not hasattr(value, "__array__") and not hasattr(value, "__dlpack__"):
        return None
    try:
        return _converted(value)
    except MemoryError:
        raise
    except Exception as error:  # other libraries raise what they like
        raise _unreadable(error, name) from None


def _unmasked(array: _Array, name: str) -> _Array:
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(f"{name}: expected plain values, got a masked array: fill it first")
    return array


def _foreign(value: Any, name: str, width: int | None) -> _Array:
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise ValueError(f"{name}: expected rows of numbers, got a sparse matrix: .toarray() it")
    column = _arrow_column(value)
    if column is not None:
        return from_arrow(column, name, width)
    try:
        return _converted(value)
    except MemoryError:
        raise
    except Exception as error:  # other libraries raise what they like
        if isinstance(value, (list, tuple)):
            return _stacked(value, name, width)
        raise _unreadable(error, name) from None


def _converted(value: Any) -> _Array:
    value = _plain_tensor(value)
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    return np.asarray(value)


def _unreadable(error: Exception, name: str) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(f"{name}: cannot be read as an array of numbers: {reason}")


def _plain_tensor(value: Any) -> Any:
    """Give a tensor in a form that NumPy reads; anything else as it is.

    NumPy refuses tensors that are part of a computation of gradients, and has no bfloat16.
    """
    if getattr(value, "requires_grad", False) is True:
        value = value.detach()
    if str(getattr(value, "dtype", None)) == "torch.bfloat16":
        value = value.float()
    return value


def _widened(array: _Array) -> npt.NDArray[np.float32]:
    """Turn bfloat16 into float32, whose upper half it is."""
    upper = array.view(np.uint16).astype(np.uint32)
    np.left_shift(upper, 16, out=upper)
    return upper.view(np.float32)


# ---- rows one by one -----------------------------------------------------------------------


def _from_objects(array: _Array, name: str, width: int | None) -> _Array:
    """Read an array of Python objects: rows, or numbers."""
    if array.ndim == 0:
        found = f"{_shown(array[()])} ({type(array[()]).__name__})"
        raise ValueError(f"{name}: expected an array of numbers, got {found}")
    if array.size and array.ndim > 1 and _is_row(array.flat[0]):
        raise ValueError(f"{name}: expected rows of numbers, got a table: pass its column of lists")
    if array.ndim == 1 and any(map(_is_row, array[:1_000])):
        return _stacked(array, name, width)
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {_first_no_number(array)}") from None


def _is_row(value: object) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes, dict))


def _stacked(rows: Iterable[Any], name: str, width: int | None) -> _Array:
    """Put rows under one another; the first that is missing, or of another length, is named."""
    parts: list[_Array] = []
    for place, row in enumerate(rows):
        if not _is_row(row):
            raise ValueError(f"{name}: expected rows of numbers, row {place} is {_shown(row)}")
        part = as_numbers(row, f"{name}: row {place}")
        if width is None:
            width = part.size
        if part.shape != (width,):
            came = part.size if part.ndim == 1 else f"shape {part.shape}"
            raise ValueError(f"{name}: expected {width} numbers in a row, row {place} has {came}")
        parts.append(part)
    return np.concatenate(parts).reshape(len(parts), -1)


def _first_no_number(array: _Array) -> str:
    for place in np.ndindex(array.shape):
        if not _is_number(array[place]):
            where = f"row {place[0]}" if array.ndim > 1 else f"place {place[0]}"
            return f"expected numbers, {where} holds {_shown(array[place])}"
    return "expected numbers"


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


# ---- Arrow ---------------------------------------------------------------------------------


def _arrow_column(value: Any) -> Any:
    """Give a `pyarrow.ChunkedArray` of what keeps its rows in Arrow's form; else None.

    NumPy would get an object for each row. Without pyarrow that is what it gets.
    """
    if not (hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__")):
        return None
    library = type(value).__module__.partition(".")[0]
    is_column = not hasattr(value, "columns") and not hasattr(value, "column_names")
    in_arrow = library == "pyarrow" or hasattr(getattr(value, "dtype", None), "pyarrow_dtype")
    if not is_column or not (in_arrow or library == "polars" or not hasattr(value, "__array__")):
        return None
    try:
        import pyarrow
    except ImportError:
        return None
    if isinstance(value, pyarrow.ChunkedArray):
        return value
    if hasattr(value, "__arrow_c_stream__"):
        return pyarrow.chunked_array(value)
    return pyarrow.chunked_array([pyarrow.array(value)])


def from_arrow(column: Any, name: str, width: int | None = None) -> _Array:
    """Read a `pyarrow.ChunkedArray` of numbers, or of lists of numbers of one length.

    Returns
    -------
    ndarray
        (n,) or (n, dim); one chunk of lists without missing values is not copied.
    """
    from pyarrow import types

    kind = getattr(column.type, "storage_type", column.type)
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    element = kind.value_type if is_list else kind
    if not (types.is_integer(element) or types.is_floating(element) or types.is_boolean(element)):
        raise ValueError(f"{name}: expected numbers or lists of them, got a column of {kind}")
    parts: list[_Array] = []
    first = 0
    for chunk in column.chunks:
        if len(chunk):
            plain = getattr(chunk, "storage", chunk)
            if is_list:
                width = width if width is not None else len(plain[0])
                part = _list_chunk(plain, name, width, first)
            else:
                _refuse_missing(plain, f"{name}: place", first)
                part = plain.to_numpy(zero_copy_only=False)
            parts.append(part)
            first += len(chunk)
    if not parts:
        return np.empty((0, width or 0) if is_list else 0, dtype=element.to_pandas_dtype())
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _list_chunk(chunk: Any, name: str, width: int, first_row: int) -> _Array:
    _refuse_missing(chunk, f"{name}: row", first_row)
    lengths = chunk.value_lengths().to_numpy(zero_copy_only=False)
    others = np.flatnonzero(lengths != width)
    if len(others):
        row = int(others[0])
        raise ValueError(
            f"{name}: expected {width} numbers in a row, row {first_row + row} has {lengths[row]}"
        )
    values = chunk.flatten()
    _refuse_missing(values, f"{name}: row", first_row, width)
    array: _Array = values.to_numpy(zero_copy_only=False)
    return array.reshape(len(chunk), width)


def _refuse_missing(values: Any, what: str, first: int, width: int = 1) -> None:
    if values.null_count:
        place = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise ValueError(f"{what} {first + place // width} has a missing value")
