"""Owns binary file objects: whole contents in and out, whatever kind of file object it is.

It must not know what the bytes mean.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["ReadableFile", "WritableFile", "read_whole", "writes_whole"]


class ReadableFile(Protocol):
    """A file object opened for reading bytes."""

    def read(self) -> bytes:
        """Return all that is left."""
        ...


class WritableFile(Protocol):
    """A file object opened for writing bytes."""

    def write(self, data: bytes, /) -> Any:
        """Take bytes; return how many, where it may be fewer."""
        ...


def read_whole(file: ReadableFile, name: str) -> bytes:
    """Read from where a file object stands to its end."""
    content = file.read()
    if not isinstance(content, bytes):
        found = type(content).__name__
        raise ValueError(f"{name}: expected a file object that reads bytes ('rb'), got {found}")
    return content


def writes_whole(file: WritableFile, name: str) -> Callable[[bytes], None]:
    """Make a function that has a file object take all bytes, or raises what that raises."""

    def write(content: bytes) -> None:
        taken = _write(file, content, name)
        left = memoryview(content)[taken:]
        while left:
            left = left[_write(file, bytes(left), name) :]

    return write


def _write(file: WritableFile, content: bytes, name: str) -> int:
    try:
        taken = file.write(content)
    except TypeError as error:
        raise ValueError(
            f"{name}: expected a file object that takes bytes ('wb'), got {type(file).__name__}: "
            f"{error}"
        ) from None
    if taken is None and not isinstance(file, io.RawIOBase):
        return len(content)  # many kinds of file objects return nothing
    if not isinstance(taken, int) or taken < 1:
        raise BlockingIOError(errno.EAGAIN, f"{name}: the file object took nothing, {taken!r}")
    return taken
