"""Owns the thread that looks for something again and again until the object it looks for ends.

It must not know what is looked for.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable

__all__ = ["Watched", "Watcher"]

# Seconds that the end of the process waits for a look that is under way.
_PATIENCE_AT_EXIT = 2.0


class Watched:
    """Has a method that a watcher calls."""

    def _watch(self) -> None:
        """Look once. Errors are its own affair: it raises none."""
        raise NotImplementedError


class Watcher:
    """Calls `_watch` of an object each `interval` seconds, in a thread of its own.

    The thread keeps neither the object nor the process alive: it ends with `stop`, with the object,
    or with the process.
    """

    def __init__(self, watched: Watched, interval: float) -> None:
        stopping = threading.Event()
        self._stopping = stopping
        thread = threading.Thread(
            target=_run,
            args=(
                weakref.ref(watched, lambda _: stopping.set()),
                stopping,
                min(interval, threading.TIMEOUT_MAX),
            ),
            name="annidx-follow",
            daemon=True,
        )
        self._thread: threading.Thread | None = thread
        _watchers.add(self)
        try:
            thread.start()
        except RuntimeError:  # no more threads: the looks are left to the questions
            self._thread = None

    @property
    def is_running(self) -> bool:
        """Whether there is a thread: a system may refuse to start one."""
        return self._thread is not None

    @property
    def is_stopping(self) -> bool:
        """Whether whoever is at work for it should stop."""
        return self._stopping.is_set()

    def ask_to_stop(self) -> None:
        """Let the thread end, without waiting for it."""
        self._stopping.set()

    def stop(self, patience: float | None = None) -> None:
        """End the thread and wait for it, unless this is the thread itself."""
        self.ask_to_stop()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(patience)


def _run(watched: Callable[[], Watched | None], stopping: threading.Event, interval: float) -> None:
    while not stopping.wait(interval):
        present = watched()
        if present is None:
            return
        present._watch()
        del present


_watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()


def _stop_all() -> None:
    """Before the interpreter is taken down under a thread that is in the core."""
    watchers = list(_watchers)
    for watcher in watchers:
        watcher.ask_to_stop()
    for watcher in watchers:
        watcher.stop(_PATIENCE_AT_EXIT)


atexit.register(_stop_all)
