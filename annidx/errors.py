"""Owns the exception types of annidx. The binding raises them; nothing else defines any.

All other errors are Python's own: ValueError for a bad argument, KeyError and IndexError for an
item that is not there, OSError with errno and file name for input and output, MemoryError.
"""

from __future__ import annotations

__all__ = ["FormatError", "StateError"]


class FormatError(ValueError):
    """The bytes of a file are not a usable annidx index.

    The message tells which of three it is: not an annidx file at all, a damaged one (with the place
    of the first damage), or one written in a newer format than this version reads.
    """


class StateError(RuntimeError):
    """The call does not fit the index's state.

    For example adding to a built index, querying one that is not built, or using a closed one.
    """
