"""Owns the step in which a new index file takes the place of the one that services read.

It must not know how files are followed, nor what is in them beyond what tells whether queries for
the one suit the other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from annidx.errors import FormatError
from annidx.index import Path
from annidx.io import inputs
from annidx.opening import load, verify

__all__ = ["Publication", "publish"]

# Windows has no such owners, and brings nothing to the disk that was opened for reading.
_IS_POSIX = os.name == "posix"


@dataclass(frozen=True)
class Publication:
    """What `annidx.publish` did.

    Attributes
    ----------
    path : str
        The file that services read, absolute; where LIVE is a symbolic link, what it leads to.
    previous : str or None
        Where the file that stood there before is kept, if there was one.
    identity : str
        Of the index that was published.
    items, previous_items : int
        How many items it has, and how many the one before had; 0 without one.
    """

    path: str
    previous: str | None
    identity: str
    items: int
    previous_items: int


@dataclass(frozen=True)
class _Facts:
    """What must suit when one index takes another's place."""

    metric: str
    dim: int
    ids: str
    items: int
    identity: str
    sets: frozenset[str]


def publish(new: Path, live: Path, *, max_shrink: float = 0.1, force: bool = False) -> Publication:
    """Put a new index file in the place of the one that services read.

    NEW is verified, compared with LIVE, and renamed: readers of LIVE see the old file or the new
    one, never a part and never none. The old one stays as LIVE.previous, and publishing that brings
    it back.

    Parameters
    ----------
    new : path
        An annidx file. It is renamed, so it is gone from its place afterwards; from another file
        system it is copied first.
    live : path
        The file that services read. It need not exist. A symbolic link stays one: the file that it
        leads to is replaced.
    max_shrink : float, default 0.1
        The share of LIVE's items that may be missing from NEW's count, 0..1. Of no account when NEW
        is LIVE.previous.
    force : bool, default False
        Publish although LIVE has another metric, dimension or kind of ids, a named set that NEW
        lacks, or more items than that, or is damaged, or a file of another kind. NEW must be sound
        all the same.

    Returns
    -------
    Publication
        Where the files are, and how many items each has.

    Raises
    ------
    FormatError
        NEW is damaged or not an annidx file; or LIVE is damaged, and `force` was not given.
    ValueError
        The two do not suit each other, or are one file.
    FileExistsError
        LIVE, or what is called LIVE.previous, is a file of another kind, and `force` was not given.
    OSError
        A file cannot be read or put in its place; there is a whole LIVE all the same.

    Notes
    -----
    Reads all of NEW, and no more than the header of LIVE. NEW gets LIVE's mode, and its owner where
    the system allows it. Processes that have the old file open keep it until they load or follow.
    On Windows there may be no LIVE for a moment: see docs/windows.md.
    """
    source = inputs.file_path(new, "new")
    target = os.path.realpath(inputs.file_path(live, "live"))
    if isinstance(max_shrink, str) or not 0.0 <= float(max_shrink) <= 1.0:
        raise ValueError(f"max_shrink: expected a share from 0 to 1, got {max_shrink!r}")
    if os.path.exists(target) and os.path.exists(source) and os.path.samefile(source, target):
        raise ValueError(f"new: expected another file than live, got {source!r} twice")
    for path in (target, _previous_of(target)):
        inputs.require_replaceable(path, force=force)
    verify(source)
    facts = _facts_of(source)
    before = _facts_before(target, force=force)
    if before is not None and not force:
        is_way_back = os.path.realpath(source) == _previous_of(target)
        _require_fit(facts, before, 1.0 if is_way_back else float(max_shrink))
    previous = _replace(source, target)
    return Publication(
        target, previous, facts.identity, facts.items, 0 if before is None else before.items
    )


def _facts_of(path: str) -> _Facts:
    with load(path) as index:
        info = index.info()
    kept = {name: info[name] for name in ("metric", "dim", "ids", "items", "identity")}
    return _Facts(**kept, sets=frozenset(info["sets"]))


def _facts_before(path: str, *, force: bool) -> _Facts | None:
    """Look at the live file; None when there is none, or with `force` none that can be read."""
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return None
    try:
        return _facts_of(path)
    except FormatError:
        if force:
            return None
        raise


def _require_fit(new: _Facts, live: _Facts, max_shrink: float) -> None:
    for name in ("metric", "dim", "ids"):
        ours, theirs = getattr(new, name), getattr(live, name)
        if ours != theirs:
            raise ValueError(
                f"new: expected {name} {theirs} as live has it, got {ours} "
                "(force=True or --force publishes it)"
            )
    lost = sorted(live.sets - new.sets)
    if lost:
        raise ValueError(
            f"new: expected the named set {lost[0]!r} as live has it, got none "
            "(force=True or --force publishes it; those who follow live will refuse it)"
        )
    least = live.items - int(live.items * max_shrink)
    if new.items < least:
        raise ValueError(
            f"new: expected {least:,} items or more, live has {live.items:,}, got {new.items:,} "
            "(max_shrink= or --max-shrink says how many may be missing)"
        )


# ---- files ---------------------------------------------------------------------------------


def _previous_of(target: str) -> str:
    return f"{target}.previous"


def _replace(source: str, target: str) -> str | None:
    """Rename a file over another, which is kept under its name with .previous."""
    with _beside(source, target) as ready:
        _settle(ready, target)
        if not os.path.exists(target):
            os.replace(ready, target)
            _settle_folder(target)
            return None
        previous = _previous_of(target)
        with _kept(target) as kept:
            # The old file has its new name before the new one comes: a kill between loses none.
            moves = [(kept, previous), (ready, target)]
            if os.path.exists(previous) and os.path.samefile(ready, previous):
                moves.reverse()  # the previous one goes back
            for name, place in moves:
                os.replace(name, place)
        _settle_folder(target)
    return previous


@contextlib.contextmanager
def _beside(source: str, target: str) -> Iterator[str]:
    """Give the new file on the target's file system: itself, or a copy that takes its place."""
    is_link = os.path.islink(source)
    if not is_link and os.stat(source).st_dev == os.stat(os.path.dirname(target)).st_dev:
        yield source
        return
    with _unfinished(target, "new") as copy:
        shutil.copyfile(source, copy)
        yield copy
    if not is_link:
        os.unlink(source)


@contextlib.contextmanager
def _kept(target: str) -> Iterator[str]:
    """Give the target's file a second name, so that it is never without its first."""
    with _unfinished(target, "previous") as name:
        try:
            os.link(target, name)
        except OSError:  # a file system without links
            shutil.copy2(target, name)
        yield name


@contextlib.contextmanager
def _unfinished(target: str, what: str) -> Iterator[str]:
    """Give a name beside the target, free at the beginning and at the end.

    Always the same one: what a killed process left there is gone with the next publication.
    """
    folder, name = os.path.split(target)
    path = os.path.join(folder, f".{name}.{what}.tmp")
    _remove(path)
    try:
        yield path
    finally:
        _remove(path)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _settle(path: str, like: str) -> None:
    """Bring a file to the disk, readable by those who read the one it is to replace."""
    if not _IS_POSIX:
        return
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(like)
        with contextlib.suppress(PermissionError):
            os.chown(path, status.st_uid, status.st_gid)
        with contextlib.suppress(PermissionError):
            os.chmod(path, stat.S_IMODE(status.st_mode))
    _sync(path)


def _settle_folder(path: str) -> None:
    if _IS_POSIX:
        _sync(os.path.dirname(path))


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
