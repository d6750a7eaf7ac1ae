"""Owns how a file, its bytes or its URL become an index, and how a file is proved sound.

What an opened index does is not known here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, cast, overload

from annidx import _core
from annidx.errors import FormatError
from annidx.follow import DEFAULT_INTERVAL, FollowingIndex
from annidx.index import Index, Path, fetched_index, image_index
from annidx.io import inputs
from annidx.io.remote import fetched_file, is_url
from annidx.io.streams import ReadableFile, read_whole
from annidx.manifest import is_manifest, open_files

__all__ = ["load", "verify"]

# Where an index is opened from: a path or URL, the bytes of a file, or a binary file object.
Source: TypeAlias = "Path | bytes | bytearray | memoryview | ReadableFile"


@overload
def load(
    path: Source | Sequence[Path],
    warm: bool = False,
    lock: bool = False,
    *,
    follow: Literal[False] = False,
    on_duplicate: Literal["raise", "newest"] = "raise",
) -> Index: ...
@overload
def load(
    path: Path | Sequence[Path],
    warm: bool = False,
    lock: bool = False,
    *,
    follow: Literal[True],
    interval: float = DEFAULT_INTERVAL,
    background: bool = False,
    verify: bool = False,
    on_reload: Callable[[Index], object] | None = None,
) -> FollowingIndex: ...
def load(
    path: Source | Sequence[Path],
    warm: bool = False,
    lock: bool = False,
    *,
    follow: bool = False,
    interval: float | None = None,
    background: bool = False,
    verify: bool = False,
    on_reload: Callable[[Index], object] | None = None,
    on_duplicate: Literal["raise", "newest"] = "raise",
) -> Index | FollowingIndex:
    """Open a saved index by mapping its file.

    Parameters
    ----------
    path : path, URL, bytes, binary file object, or list of paths
        A list: several files asked as one index, such as one and its changes
        (`Index.save_changes`), parts (`encode`) or shards. Files of one model are routed once.
        Else a file that `Index.save` or `Index.build` wrote, or a manifest (`write_manifest`),
        which names such a list. A URL, such as "s3://bucket/name.annidx",
        is fetched whole by fsspec into a cache folder ($ANNIDX_CACHE, or annidx in the user's cache
        folder), unless that version of it is there already, and mapped from there. Bytes, or an
        object that shows its memory, are an index in memory: read where they lie, which keeps them
        alive, when they cannot change and begin at a multiple of 64; else copied once. A file
        object is read to its end.
    warm : bool, default False
        Read the whole file into memory ahead of the first query.
    lock : bool, default False
        Keep it there (mlock); may need a higher limit on locked memory. Files only.
    follow : bool, default False
        When the file is replaced, go over to the new one, between two calls. Paths only. Of a list
        the first is an index, the others are its changes: each may come, be replaced and go.
    interval : float, default 1.0
        Seconds between two looks for a new file (only with `follow`, as all below).
    background : bool, default False
        Look in a thread, which ends with `close`: an idle process goes over too, and no query
        waits.
    verify : bool, default False
        Check every byte of each file before it answers.
    on_reload : callable, optional
        Called with each new generation, an `Index`, after it took over.
    on_duplicate : {"raise", "newest"}, default "raise"
        What becomes of an id that several files of a list have: an error, or the last of them has
        it. Changes always replace.

    Returns
    -------
    Index, or annidx.follow.FollowingIndex with `follow`
        Built and read-only.

    Raises
    ------
    FormatError
        Not an annidx file, a damaged one, or one of a newer format.
    ValueError
        Files of a list do not fit together: the message names two of them. The argument is none of
        these; a URL, and fsspec or what it needs for the URL is not installed; `follow` or `lock`
        of what is no file; what belongs to `follow` without it.
    OSError
        The file cannot be opened, mapped, locked or fetched.

    Notes
    -----
    Takes the same fraction of a millisecond for files of any size (unless `warm` or `verify`); all
    processes that map a file share its memory. The cache folder keeps the latest two files of a
    URL.
    """
    newest = inputs.one_of(on_duplicate, "on_duplicate", ("raise", "newest")) == "newest"
    is_list = isinstance(path, (list, tuple))
    places = list(cast("Sequence[Path]", path)) if is_list else [cast(Path, path)]
    if not places:
        raise ValueError("path: expected at least one file, got an empty list")
    with _annoys_files_named(path):
        if follow:
            if newest:
                raise ValueError("on_duplicate: expected 'raise' with follow, got 'newest'")
            return FollowingIndex(
                places[0],
                changes=places[1:],
                warm=warm,
                lock=lock,
                interval=DEFAULT_INTERVAL if interval is None else interval,
                background=background,
                verify=verify,
                on_reload=on_reload,
            )
        if interval is not None or background or verify or on_reload is not None:
            raise ValueError(
                "follow: expected True together with interval, background, verify or on_reload"
            )
        if is_list:
            files = [inputs.file_path(place, "path") for place in places]
            return open_files(files, warm=bool(warm), lock=bool(lock), newest_wins=newest)
        if isinstance(path, str) and is_url(path):
            return fetched_index(path, warm=bool(warm), lock=bool(lock))
        if isinstance(path, (str, os.PathLike)):
            file = inputs.file_path(path, "path")
            return open_files([file], warm=bool(warm), lock=bool(lock), alone=True)
        if lock:
            raise ValueError("lock: expected False for an index that is not mapped from a file")
        return image_index(_image_of(path))


def _image_of(source: Any) -> object:
    """Give the bytes of an index: the argument's own, or those that it reads."""
    try:
        with memoryview(source) as view:
            is_whole = view.c_contiguous
    except TypeError:
        if hasattr(source, "read"):
            return read_whole(source, "path")
        raise _no_source("a str, an os.PathLike, bytes or a binary file object", source) from None
    if not is_whole:
        raise _no_source("bytes that lie one after the other", source)
    return source


def _no_source(expected: str, source: object) -> ValueError:
    return ValueError(f"path: expected {expected}, got {_core.described(source)}")


@contextlib.contextmanager
def _annoys_files_named(path: object) -> Iterator[None]:
    """Say of a file that Annoy seems to have written what opens it."""
    try:
        yield
    except FormatError as error:
        if not _looks_like_annoys(path):
            raise
        raise FormatError(
            f"{error}; if Annoy wrote it, annidx.AnnoyIndex loads it and `annidx convert` makes an "
            "annidx file of it"
        ) from None


def _looks_like_annoys(path: object) -> bool:
    """Annoy's files have no mark; they begin with how many items the first node is: 1, or 0."""
    if not isinstance(path, (str, os.PathLike)):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(4) in (b"\1\0\0\0", b"\0\0\0\0")
    except OSError:
        return False


def verify(path: Path) -> None:
    """Check every checksum and every invariant of a file.

    Parameters
    ----------
    path : path
        As for `load`; a URL is fetched. Of a manifest all files are checked.

    Raises
    ------
    FormatError
        At the first damage; the message tells the section, the place and what was found.
    OSError
        The file cannot be read.
    """
    if isinstance(path, str) and is_url(path):
        path = fetched_file(path)
    place = inputs.file_path(path, "path")
    if is_manifest(place):
        with open_files([place], warm=False, lock=False) as index:
            index.verify()
        return
    with _annoys_files_named(place):
        _core.verify_path(os.fsencode(place))
