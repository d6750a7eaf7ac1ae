"""Owns where a command's input comes from: a file, one packed with gzip, or standard input.

It must not know any format. What is wrong with an input is an InputError of one line that names it;
errors of the operating system pass through.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

AnyPath = str | os.PathLike[str]

STANDARD_INPUT = "-"


class InputError(ValueError):
    """A file of vectors or ids does not hold what was asked for."""


def one_line(error: Exception) -> str:
    """Put what another library says into one line."""
    return " ".join(str(error).split())


@dataclass(frozen=True)
class Source:
    """One input.

    Attributes
    ----------
    name : str
        What messages call it.
    path : str or None
        The file; None is standard input.
    ending : str
        What the name ends with, lower case, without .gz: ".csv"; "" for standard input.
    is_packed : bool
        Whether gzip packed it.
    """

    name: str
    path: str | None
    ending: str
    is_packed: bool = False

    @classmethod
    def of(cls, path: AnyPath) -> Source:
        """Look at a name; "-" is standard input. A file that is not there is an OSError."""
        name = os.fspath(path)
        if name == STANDARD_INPUT:
            return cls("standard input", None, "")
        with open(name, "rb"):
            pass  # the system's own error, whatever the reader would say
        ending = Path(name).suffix.lower()
        if ending == ".gz":
            return cls(name, name, Path(name).with_suffix("").suffix.lower(), True)
        return cls(name, name, ending)

    @staticmethod
    def first_byte_of_standard_input() -> bytes:
        """Look at the first byte that is no blank, without taking it; empty when there is none."""
        stream: Any = sys.stdin.buffer  # typeshed does not know that it can look ahead
        ahead: bytes = stream.peek()
        return ahead.lstrip()[:1]

    @contextlib.contextmanager
    def stream(self) -> Iterator[IO[bytes]]:
        """Open the bytes, unpacked, to be read once from begin to end."""
        try:
            if self.path is None:
                yield sys.stdin.buffer
            elif self.is_packed:
                with gzip.open(self.path, "rb") as unpacked:
                    yield cast("IO[bytes]", unpacked)
            else:
                with open(self.path, "rb") as file:
                    yield file
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise InputError(f"{self.name}: not a whole gzip file ({one_line(error)})") from error

    @contextlib.contextmanager
    def text(self) -> Iterator[io.TextIOWrapper]:
        """Open UTF-8 text, with line ends as they are."""
        with self.stream() as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            try:
                yield text
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{self.name}: expected text, found other bytes ({error.reason})"
                ) from error
            finally:
                text.detach()  # whoever opened the stream closes it

    def file(self) -> str | io.BytesIO:
        """Give what libraries read from: the file's name, or all of standard input in memory."""
        return io.BytesIO(sys.stdin.buffer.read()) if self.path is None else self.path

    def raw(self) -> npt.NDArray[np.uint8]:
        """Give all bytes: those of a file mapped, those of standard input in memory."""
        if self.path is None:
            return np.frombuffer(sys.stdin.buffer.read(), dtype=np.uint8)
        if os.path.getsize(self.path) == 0:
            return np.empty(0, dtype=np.uint8)
        return np.memmap(self.path, dtype=np.uint8, mode="r")
