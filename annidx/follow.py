"""Owns indexes that follow their files: each time another one stands under a path, they map it.

A file that is replaced stays mapped by those who use it, so each file, with the changes beside it,
is a generation: an `Index` of its own, which ends when the last query that runs on it ends. It must
not know what is in a file beyond what tells whether queries for one generation suit the next.
"""

from __future__ import annotations

import collections
import functools
import logging
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from annidx import _core
from annidx._core.types import Items
from annidx._watcher import Watched, Watcher
from annidx.errors import StateError
from annidx.ids import TextIds
from annidx.idset import IdSet, is_one_per_query
from annidx.index import Found, Index, Path
from annidx.io import inputs
from annidx.liveset import LiveSet, LiveSetOwner, LiveSets, set_of
from annidx.manifest import open_files

__all__ = ["FollowingIndex", "RefusedFile", "Status"]

# Seconds between two looks at the path. A look is one call of stat, about a microsecond.
DEFAULT_INTERVAL: Final = 1.0

# A file that the system would not open is tried again after so many seconds, or an interval.
RETRY_SECONDS: Final = 10.0

# Refused files that `status` names: the latest.
REFUSED_SHOWN: Final = 16

log = logging.getLogger("annidx")

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Stamp = tuple[int, ...]
_NO_FILE: Final[_Stamp] = ()
# A file of changes that is not there: there are none yet, or no more.
_NO_CHANGES: Final[_Stamp] = (0, 0, 0, 0)


class RefusedFile(TypedDict):
    """A file that was found under the path and not taken over."""

    path: str  # with symbolic links resolved
    file_time: float  # when it was last written, in seconds since 1970
    refused_at: float  # likewise
    reason: str


class Status(TypedDict):
    """What `FollowingIndex.status` tells. Times are seconds since 1970."""

    path: str  # as it is followed
    real_path: str  # of the present file, with symbolic links resolved
    changes: list[str]  # of the present generation, likewise
    identity: str  # of the present file's content
    generation: int  # 1 for the first file, one more for each that took over
    loaded_at: float
    file_time: float  # when the present file, or the latest of its changes, was last written
    reloads: int
    refused: list[RefusedFile]  # the latest, oldest first
    last_error: str | None  # why the file under the path is not the present one
    queries: int  # that this object has answered in this process
    background: bool  # whether a thread looks; otherwise the questions do


class _Generation:
    """An opened file and when it came."""

    def __init__(self, index: Index, number: int, stamp: _Stamp, stamp_after: _Stamp) -> None:
        self.index = index
        self.number = number
        self.stamp = stamp
        # Another file may have come between the look and the opening: then the stamp is of a file
        # that is gone, whose number the next one may get.
        self.is_surely_stamped = stamp == stamp_after
        self.loaded_at = time.time()


class _StoppedError(Exception):
    """Ends the check of a file when the index is closed meanwhile."""


def _stamp_of(path: str) -> _Stamp:
    """What tells the file under a path from the one that stood there before."""
    try:
        status = os.stat(path)
    except OSError:
        return _NO_FILE
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _time_of(stamp: _Stamp) -> float:
    return max(stamp[3::4], default=0) / 1e9


def _are_changed_in_place(before: _Stamp, after: _Stamp) -> bool:
    """Whether some file is the same, with other content."""
    for at in range(0, min(len(before), len(after)), 4):
        old, new = before[at : at + 4], after[at : at + 4]
        if old != new and old[:2] == new[:2]:
            return True
    return False


def _of_generation(
    method: Callable[Concatenate[Index, _P], _R],
) -> Callable[Concatenate[FollowingIndex, _P], _R]:
    """Make a method that asks the present generation, and asks it from begin to end."""

    @functools.wraps(method)
    def ask(self: FollowingIndex, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return method(self.current, *args, **kwargs)

    return ask


def _query(
    method: Callable[Concatenate[Index, _P], Found],
) -> Callable[Concatenate[FollowingIndex, _P], Found]:
    """Do so for a query: it is counted, and filters of older generations are understood."""

    @functools.wraps(method)
    def ask(self: FollowingIndex, /, *args: _P.args, **kwargs: _P.kwargs) -> Found:
        generation = self.current
        for name in ("allow", "deny"):
            if kwargs.get(name) is not None:
                kwargs[name] = self._fitting(generation, kwargs[name])
        found = method(generation, *args, **kwargs)
        self._queries.add(len(found[0]) if found[0].ndim > 1 else 1)
        return found

    return ask


class FollowingIndex(Watched, LiveSetOwner):
    """An index that goes over to the new file when its file is replaced.

    `annidx.load(path, follow=True)` makes it. It is asked like an `Index`. When another file stands
    under the path, that file is mapped and answers from then on. Questions under way in other
    threads end on the file that they began with, which is unmapped with the last of them.

    Parameters
    ----------
    path : path
        A file that `Index.save` or `Index.build` wrote, and will replace; or a manifest, which
        takes over when it is replaced: its files are written first, under names of their own.
    changes : iterable of path, optional
        Files that `Index.save_changes` writes beside it, older ones first. One that is not there
        means no changes: it may come, be replaced, and go when a merge has taken it up.
    warm, lock : bool, default False
        As for `annidx.load`, for each file.
    interval : float, default 1.0
        Seconds between two looks at the path; `math.inf` to look only in `reload_if_changed`.
    background : bool, default False
        Look in a thread, so that an idle process goes over too and no question waits for a new
        file. The thread ends with `close`, or with this object or the process. Without it a
        question looks when the last look is older than the interval, and the first to meet a new
        file opens it.
    verify : bool, default False
        Check every byte of each file before it takes over, the first one too.
    on_reload : callable, optional
        Called with the new generation, an `Index`, after it took over, in the thread that opened
        it. What it raises is logged.

    Raises
    ------
    ValueError
        The interval is no number of seconds, or 0 in the background.
    OSError, FormatError
        As for `annidx.load`; with `verify` also for any damage.

    Notes
    -----
    A new file that is damaged, or holds another metric, dimension or kind of ids, or lacks a named
    set that the present one has, does not take over: the present one stays, `status` and the log
    name the file and the reason, and without `background` a `RuntimeWarning` tells once for each
    such file. One that the system would not open is tried again later.

    After a new file has come its old changes do not fit it: until they are gone or replaced, the
    present generation stays, likewise with a reason.

    What happens goes to `logging.getLogger("annidx")`.

    Filters by ids and names, and sets made by `idset` or taken from `sets`, mean the same in each
    file. An `IdSet` that was made from an older file is looked up again by its ids, and keeps that
    file mapped as long as it lives.

    Safe from many threads at once and after `fork`, where each process follows for itself: with
    `background` the child starts a thread of its own at once. It pickles as its paths.
    """

    def __init__(
        self,
        path: Path,
        *,
        changes: Iterable[Path] = (),
        warm: bool = False,
        lock: bool = False,
        interval: float = DEFAULT_INTERVAL,
        background: bool = False,
        verify: bool = False,
        on_reload: Callable[[Index], object] | None = None,
    ) -> None:
        if isinstance(interval, str) or not float(interval) >= 0.0:
            raise ValueError(f"interval: expected seconds, 0 or more, got {interval!r}")
        if background and float(interval) == 0.0:
            raise ValueError("interval: expected more than 0 seconds in the background, got 0")
        if on_reload is not None and not callable(on_reload):
            raise ValueError(f"on_reload: expected a callable, got {_core.described(on_reload)}")
        self._interval = float(interval)
        self._warm = bool(warm)
        self._lock = bool(lock)
        self._verify = bool(verify)
        self._on_reload = on_reload
        self._path = os.path.abspath(inputs.file_path(path, "path"))
        self._changes = [os.path.abspath(inputs.file_path(one, "changes")) for one in changes]
        self._queries = _core.Tally()
        self._live_sets: weakref.WeakSet[LiveSet] = weakref.WeakSet()
        self._adopted: weakref.WeakKeyDictionary[IdSet, LiveSet] = weakref.WeakKeyDictionary()
        self._refused: collections.deque[RefusedFile] = collections.deque(maxlen=REFUSED_SHOWN)
        self._last_error: str | None = None
        self._failed: _Stamp | None = None  # the last file that did not take over
        self._retry_at = 0.0  # when that one is tried again
        self._watcher: Watcher | None = None
        self._turn = threading.Lock()  # held by the thread that looks or reloads
        # The stamp is older than what is opened: a file that comes in between is met again.
        stamp = self._stamp()
        first = self._opened()
        self._generation: _Generation | None = _Generation(first, 1, stamp, self._stamp())
        self._next_look = time.monotonic() + self._interval
        if background:
            self._watcher = Watcher(self, self._interval)
        _followers.add(self)

    # ---- generations -------------------------------------------------------------------------

    @property
    def current(self) -> Index:
        """The present generation, after a look at the path if one is due.

        Stays what it is, and stays usable, as long as it is held: for several questions that must
        see one file.
        """
        watcher = self._watcher
        if (watcher is None or not watcher.is_running) and time.monotonic() >= self._next_look:
            self._look()
        return self._present().index

    def reload_if_changed(self) -> bool:
        """Look at the path now.

        Returns
        -------
        bool
            Whether another file was found and has taken over.

        Raises
        ------
        OSError, FormatError
            The new file cannot be opened or is damaged. The present one stays in use.
        ValueError
            It holds another metric, dimension or kind of ids. The present one stays in use.
        StateError
            The index is closed.
        """
        with self._turn:
            self._next_look = time.monotonic() + self._interval
            found = self._stamp()
            if found == self._present().stamp:
                self._last_error = None
                return False
            try:
                generation = self._take_over(found)
            except _StoppedError:
                raise StateError("the index is closed") from None
            except (OSError, ValueError, MemoryError) as error:
                self._note_failure(found, error)
                raise
        self._tell(generation)
        return True

    def status(self) -> Status:
        """Tell which file answers, and what became of others.

        Returns
        -------
        dict
            Of the keys that `Status` names: "path", "real_path", "identity", "generation",
            "changes", "loaded_at", "file_time", "reloads", "refused", "last_error", "queries",
            "background".
            It can be written as JSON.

        Raises
        ------
        StateError
            The index is closed.
        """
        generation = self._present()
        watcher = self._watcher
        return {
            "path": self._path,
            "real_path": generation.index.path or self._path,
            "changes": [os.fsdecode(path) for path, _, _ in generation.index._files()[1:]],
            "identity": generation.index._identity(),
            "generation": generation.number,
            "loaded_at": generation.loaded_at,
            "file_time": _time_of(generation.stamp),
            "reloads": generation.number - 1,
            "refused": list(self._refused),
            "last_error": self._last_error,
            "queries": self._queries.total(),
            "background": watcher is not None and watcher.is_running,
        }

    def _present(self) -> _Generation:
        generation = self._generation
        if generation is None:
            raise StateError("the index is closed")
        return generation

    def _begin_in_child(self) -> None:
        """After a fork: who held the lock does not exist here, nor does the thread that looks."""
        self._turn = threading.Lock()
        if self._watcher is not None and self._generation is not None:
            self._watcher = Watcher(self, self._interval)

    def _watch(self) -> None:
        try:
            self._look()
        except Exception:
            log.exception("%s: looking for a new file failed", self._path)

    def _look(self) -> None:
        """Take a new file over, unless another thread is at it. One that is unfit is told."""
        turn = self._turn
        if not turn.acquire(blocking=False):
            return
        generation: _Generation | None = None
        try:
            now = time.monotonic()
            self._next_look = now + self._interval
            found = self._stamp()
            present = self._generation
            if present is None:
                return
            if found == present.stamp:
                self._last_error = None
            elif found != self._failed or now >= self._retry_at:
                generation = self._take_over(found)
        except _StoppedError:
            return
        except (OSError, ValueError, MemoryError) as error:
            if self._note_failure(found, error) and self._watcher is None:
                message = f"{self._path}: the new file cannot be used, the old one stays: {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=4)
        finally:
            turn.release()
        if generation is not None:
            self._tell(generation)

    def _stamp(self) -> _Stamp:
        """What tells the files under the paths from those that stood there before."""
        stamp = _stamp_of(self._path)
        if stamp != _NO_FILE:
            for path in self._changes:
                stamp += _stamp_of(path) or _NO_CHANGES
        return stamp

    def _mapped(self) -> Index:
        """Open the files that the paths lead to now."""
        while True:
            base = os.path.realpath(self._path)
            changes = [os.path.realpath(path) for path in self._changes if os.path.exists(path)]
            try:
                return open_files(
                    [base, *changes], warm=self._warm, lock=self._lock, alone=not changes
                )
            except FileNotFoundError:
                if all(os.path.exists(path) for path in changes):
                    raise  # another file is missing; else changes went meanwhile

    def _opened(self) -> Index:
        """Open the files that the paths lead to now, and check them if that was asked for."""
        index = self._mapped()
        try:
            if self._verify:
                index._verify(self._go_on)
        except BaseException:
            index.close()
            raise
        return index

    def _go_on(self, _stage: str, _done: int, _total: int) -> None:
        watcher = self._watcher
        if watcher is not None and watcher.is_stopping:
            raise _StoppedError

    def _take_over(self, found: _Stamp) -> _Generation:
        """Map the file that has this stamp, or a later one. The caller has the turn."""
        present = self._present()
        if present.is_surely_stamped and _are_changed_in_place(present.stamp, found):
            log.warning(
                "%s: a file was changed in place while it is mapped; publish by renaming",
                self._path,
            )
        after = self._opened()
        stamp_after = self._stamp()
        try:
            _require_alike(present.index, after)
            for one in self._known_sets():
                one.bits_in(after)
        except BaseException:
            after.close()
            raise
        generation = _Generation(after, present.number + 1, found, stamp_after)
        self._failed = self._last_error = None
        # From here on questions go to the new generation. The old one ends with its last user.
        self._generation = generation
        return generation

    def _tell(self, generation: _Generation) -> None:
        """Say that a file took over. The caller has let go of the turn."""
        log.info(
            "%s: generation %d took over: %s, identity %s",
            self._path,
            generation.number,
            generation.index.path,
            generation.index._identity(),
        )
        if self._on_reload is not None:
            try:
                self._on_reload(generation.index)
            except Exception:
                log.exception("%s: on_reload failed", self._path)

    def _note_failure(self, found: _Stamp, error: Exception) -> bool:
        """Keep why a file did not take over. Returns whether that is news."""
        reason = str(error)
        is_news = (found, reason) != (self._failed, self._last_error)
        self._failed, self._last_error = found, reason
        is_unfit = isinstance(error, ValueError)  # FormatError is one
        self._retry_at = float("inf")
        if not is_unfit:
            self._retry_at = time.monotonic() + max(self._interval, RETRY_SECONDS)
        if is_news:
            log.warning("%s: the new file cannot be used, the old one stays: %s", self._path, error)
            if is_unfit:
                self._refused.append(
                    {
                        "path": os.path.realpath(self._path),
                        "file_time": _time_of(found),
                        "refused_at": time.time(),
                        "reason": reason,
                    }
                )
        return is_news

    def close(self) -> None:
        """Release the present file; later calls raise `StateError`. Closing twice is no error.

        A thread that looks in the background has ended when this returns.
        """
        if self._watcher is not None:
            self._watcher.stop()
        with self._turn:
            generation, self._generation = self._generation, None
        if generation is not None:
            generation.index.close()

    # ---- sets --------------------------------------------------------------------------------

    def idset(self, items: Items) -> LiveSet:
        """Prepare a set of items that goes along to each new file.

        Parameters
        ----------
        items : ids, mask, name or IdSet
            As for `annidx.IdSet`. Ids may be those of items that only a later file holds. A mask or
            an `IdSet` stands for the ids that it means in the present file.

        Returns
        -------
        LiveSet
            A filter of any number of queries.

        Raises
        ------
        ValueError, StateError
            As for `annidx.IdSet`.
        KeyError
            The present file has no set of this name.
        """
        return set_of(self, items)

    @property
    def sets(self) -> LiveSets:
        """The named sets of the present file, each looked up anew in the next: see `Index.sets`."""
        return LiveSets(self)

    def note_set(self, one: LiveSet) -> None:
        """Know a set, to look it up in a new file before that takes over."""
        self._live_sets.add(one)

    def _known_sets(self) -> list[LiveSet]:
        try:
            return list(self._live_sets)
        except RuntimeError:  # another thread has made one meanwhile
            return self._known_sets()

    def _fitting(self, generation: Index, filters: Any) -> Any:
        """Look up the sets that go along, and each `IdSet` that another generation has made."""
        if isinstance(filters, (list, tuple)) and is_one_per_query(filters):
            return [self._fitting(generation, one) for one in filters]
        if isinstance(filters, LiveSet):
            return filters.bits_in(generation)
        if not isinstance(filters, IdSet) or filters._fits(generation):
            return filters
        known = self._adopted.get(filters)
        if known is None:
            # By a proxy, or index and set would keep each other alive.
            known = self._adopted[filters] = set_of(weakref.proxy(self), filters)
        return known.bits_in(generation)

    # ---- questions, to the present generation ------------------------------------------------

    query = _query(Index.query)
    query_exact = _query(Index.query_exact)
    query_items = _query(Index.query_items)
    query_like = _query(Index.query_like)
    evaluate = _of_generation(Index.evaluate)
    export = _of_generation(Index.export)
    knn_graph = _of_generation(Index.knn_graph)
    get_vectors = _of_generation(Index.get_vectors)
    info = _of_generation(Index.info)
    verify = _of_generation(Index.verify)
    residency = _of_generation(Index.residency)
    __len__ = _of_generation(Index.__len__)
    __contains__ = _of_generation(Index.__contains__)

    __iter__ = _of_generation(Index.__iter__)

    @property
    def ids(self) -> npt.NDArray[np.int64] | TextIds:
        """Ids of all items of the present file, in row order."""
        return self.current.ids

    @property
    def metadata(self) -> dict[str, Any] | None:
        """What was given to `save`, or None."""
        return self.current.metadata

    @property
    def path(self) -> str:
        """Absolute path that is followed."""
        return self._path

    @property
    def real_path(self) -> str:
        """Path of the present file, with the symbolic links resolved that led to it."""
        present = self.current
        return present.path or self._path

    @property
    def dim(self) -> int:
        """Dimension of the vectors (bits for hamming), the same for each file."""
        return self._present().index.dim

    @property
    def metric(self) -> str:
        """Name of the metric, the same for each file."""
        return self._present().index.metric

    @property
    def dtype(self) -> str:
        """How vectors are stored in the present file."""
        return self.current.dtype

    @property
    def closed(self) -> bool:
        """Whether the index was closed."""
        return self._generation is None

    # ---- being an object ---------------------------------------------------------------------

    def __enter__(self) -> FollowingIndex:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        generation = self._generation
        shown = "closed" if generation is None else repr(generation.index)
        return f"FollowingIndex({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        self._present()
        again = functools.partial(
            FollowingIndex,
            self._path,
            changes=self._changes,
            warm=self._warm,
            lock=self._lock,
            interval=self._interval,
            background=self._watcher is not None,
            verify=self._verify,
            on_reload=self._on_reload,
        )
        return again, ()


_followers: weakref.WeakSet[FollowingIndex] = weakref.WeakSet()


def _begin_in_child() -> None:
    for follower in list(_followers):
        follower._begin_in_child()


if hasattr(os, "register_at_fork"):  # Windows knows no fork
    os.register_at_fork(after_in_child=_begin_in_child)


def _kind_of_ids(index: Index) -> str:
    return "str" if index._has_text_ids else "int"


def _require_alike(before: Index, after: Index) -> None:
    """Refuse a file whose queries would not be those of the file before."""
    for name, old, new in (
        ("metric", before.metric, after.metric),
        ("dim", before.dim, after.dim),
        ("kind of ids", _kind_of_ids(before), _kind_of_ids(after)),
    ):
        if old != new:
            raise ValueError(f"{after.path}: the new file has another {name}: {new!r}, not {old!r}")
    lost = [name for name in before.sets if name not in after.sets]
    if lost:
        raise ValueError(f"{after.path}: the new file lacks the named set {lost[0]!r}")
