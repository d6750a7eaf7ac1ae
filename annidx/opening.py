"""Owns how callers come from the path of a file to an index, and to the proof that it is sound.

What an opened index does is not known here.
"""

from __future__ import annotations

import os
from typing import Literal, overload

from annidx import _core
from annidx.follow import FollowingIndex
from annidx.index import Index, Path, open_index
from annidx.io import inputs

__all__ = ["load", "verify"]


@overload
def load(
    path: Path, warm: bool = False, lock: bool = False, *, follow: Literal[False] = False
) -> Index: ...
@overload
def load(
    path: Path, warm: bool = False, lock: bool = False, *, follow: Literal[True]
) -> FollowingIndex: ...
def load(
    path: Path, warm: bool = False, lock: bool = False, *, follow: bool = False
) -> Index | FollowingIndex:
    """Open a saved index by mapping its file.

    Parameters
    ----------
    path : path
        A file that `Index.save` or `Index.build` wrote.
    warm : bool, default False
        Read the whole file into memory ahead of the first query.
    lock : bool, default False
        Keep it there (mlock); may need a higher limit on locked memory.
    follow : bool, default False
        When the file is replaced, go over to the new one, between two calls.

    Returns
    -------
    Index, or annidx.follow.FollowingIndex with `follow`
        Built and read-only.

    Raises
    ------
    FormatError
        Not an annidx file, a damaged one, or one of a newer format.
    OSError
        The file cannot be opened, mapped or locked.

    Notes
    -----
    Takes the same fraction of a millisecond for files of any size (unless `warm`); all processes
    that map a file share its memory.
    """
    where = inputs.file_path(path, "path")
    if follow:
        return FollowingIndex(where, warm=warm, lock=lock)
    return open_index(where, warm=bool(warm), lock=bool(lock))


def verify(path: Path) -> None:
    """Check every checksum and every invariant of a file.

    Raises
    ------
    FormatError
        At the first damage; the message tells the section, the place and what was found.
    OSError
        The file cannot be read.
    """
    _core.verify_path(os.fsencode(inputs.file_path(path, "path")))
