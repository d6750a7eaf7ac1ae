"""Owns indexes that follow their file: each time another file stands under the path, they map it.

A file that is replaced stays mapped by those who use it, so each file is a generation: an `Index`
of its own, which ends when the last query that runs on it ends. It must not know what is in a file
beyond what tells whether queries for one generation suit the next.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from annidx.errors import StateError
from annidx.ids import TextIds
from annidx.index import Index, Path, open_index
from annidx.io import inputs

__all__ = ["FollowingIndex"]

# Seconds between two looks at the path. A look is one call of stat, about a microsecond.
DEFAULT_INTERVAL: Final = 0.1

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Stamp = tuple[int, ...]
_NO_FILE: Final[_Stamp] = ()


def _stamp_of(path: str) -> _Stamp:
    """What tells the file under a path from the one that stood there before."""
    try:
        status = os.stat(path)
    except OSError:
        return _NO_FILE
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _of_generation(
    method: Callable[Concatenate[Index, _P], _R],
) -> Callable[Concatenate[FollowingIndex, _P], _R]:
    """Make a method that asks the present generation, and asks it from begin to end."""

    @functools.wraps(method)
    def ask(self: FollowingIndex, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return method(self.current, *args, **kwargs)

    return ask


class FollowingIndex:
    """An index that goes over to the new file when its file is replaced.

    `annidx.load(path, follow=True)` makes it. It is asked like an `Index`. A question looks at the
    path when the last look is older than the interval; if another file stands there, that file is
    mapped and this question is the first to be answered from it. Questions under way in other
    threads end on the file that they began with, which is unmapped with the last of them.

    Parameters
    ----------
    path : path
        A file that `Index.save` or `Index.build` wrote, and will replace.
    warm, lock : bool, default False
        As for `annidx.load`, for each file; the question that meets a new file waits for it.
    interval : float, default 0.1
        Seconds between two looks at the path; `math.inf` to look only in `reload_if_changed`.

    Notes
    -----
    A new file that cannot be opened, is damaged, or holds another metric, dimension or kind of ids
    does not take over: the present one stays, and a `RuntimeWarning` tells once for each such file.

    Safe from many threads at once and after `fork`, where each process follows for itself. It
    pickles as its path. An `IdSet` belongs to one generation: make it from `current`, and ask that.
    """

    def __init__(
        self,
        path: Path,
        *,
        warm: bool = False,
        lock: bool = False,
        interval: float = DEFAULT_INTERVAL,
    ) -> None:
        if isinstance(interval, str) or not float(interval) >= 0.0:
            raise ValueError(f"interval: expected seconds, 0 or more, got {interval!r}")
        self._interval = float(interval)
        self._warm = bool(warm)
        self._lock = bool(lock)
        where = inputs.file_path(path, "path")
        self._path = os.path.abspath(where)
        # The stamp is older than what is opened: a file that comes in between is met again.
        self._stamp = _stamp_of(self._path)
        self._refused = self._stamp  # the last file that was found unfit
        self._generation: Index | None = open_index(where, warm=self._warm, lock=self._lock)
        self._next_look = time.monotonic() + self._interval
        self._turn = threading.Lock()  # held by the thread that looks or reloads
        self._process = os.getpid()

    # ---- generations -------------------------------------------------------------------------

    @property
    def current(self) -> Index:
        """The present generation, after a look at the path if one is due.

        Stays what it is, and stays usable, as long as it is held: for several questions that must
        see one file.
        """
        if time.monotonic() >= self._next_look:
            self._look()
        return self._present()

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
        with self._own_turn():
            self._present()
            self._next_look = time.monotonic() + self._interval
            found = _stamp_of(self._path)
            if found == self._stamp:
                return False
            self._take_over(found)
            return True

    def _present(self) -> Index:
        generation = self._generation
        if generation is None:
            raise StateError("the index is closed")
        return generation

    def _own_turn(self) -> threading.Lock:
        """Return the lock, a new one in the child of a fork: its holder may not exist there."""
        if self._process != os.getpid():
            self._turn = threading.Lock()
            self._process = os.getpid()
        return self._turn

    def _look(self) -> None:
        """Take a new file over, unless another thread is at it. One that is unfit is a warning."""
        turn = self._own_turn()
        if not turn.acquire(blocking=False):
            return
        try:
            self._next_look = time.monotonic() + self._interval
            found = _stamp_of(self._path)
            if self._generation is not None and found not in (self._stamp, self._refused):
                self._take_over(found)
        except (OSError, ValueError, MemoryError) as error:
            message = f"{self._path}: the new file cannot be used, the old one stays: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=4)
        finally:
            turn.release()

    def _take_over(self, found: _Stamp) -> None:
        """Map the file that has this stamp, or a later one. The caller has the turn."""
        self._refused = found
        after = open_index(self._path, warm=self._warm, lock=self._lock)
        try:
            _require_alike(self._present(), after)
        except ValueError:
            after.close()
            raise
        self._stamp = found
        # From here on questions go to the new generation. The old one ends with its last user.
        self._generation = after

    def close(self) -> None:
        """Release the present file; later calls raise `StateError`. Closing twice is no error."""
        with self._own_turn():
            generation, self._generation = self._generation, None
        if generation is not None:
            generation.close()

    # ---- questions, to the present generation ------------------------------------------------

    query = _of_generation(Index.query)
    query_exact = _of_generation(Index.query_exact)
    query_items = _of_generation(Index.query_items)
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
    def dim(self) -> int:
        """Dimension of the vectors (bits for hamming), the same for each file."""
        return self._present().dim

    @property
    def metric(self) -> str:
        """Name of the metric, the same for each file."""
        return self._present().metric

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
        return f"FollowingIndex({'closed' if generation is None else generation!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        self._present()
        again = functools.partial(
            FollowingIndex, self._path, warm=self._warm, lock=self._lock, interval=self._interval
        )
        return again, ()


def _require_alike(before: Index, after: Index) -> None:
    """Refuse a file whose queries would not be those of the file before."""
    for name, old, new in (
        ("metric", before.metric, after.metric),
        ("dim", before.dim, after.dim),
        ("kind of ids", before.info()["ids"], after.info()["ids"]),
    ):
        if old != new:
            raise ValueError(f"{after.path}: the new file has another {name}: {new!r}, not {old!r}")
