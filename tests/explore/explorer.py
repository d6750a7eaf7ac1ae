"""Owns what the tests of the explorer share: files to look at, and a server as a process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import annidx

ITEMS, DIM = 3_000, 24
HOSTILE = (
    "<script>document.title='taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    "שלום \u202egnp.exe",
    "مرحبا بالعالم",
    "x" * 10_000,
    "two\nlines\tand a tab",
    '\' or "quotes" & amp;',
    "a/../b?c#d%00",
    " ",
)


def clustered(items: int, dim: int = DIM, seed: int = 5) -> np.ndarray:
    """Make vectors in clusters."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, dim))
    return (centres[rng.integers(40, size=items)] + 0.4 * rng.normal(size=(items, dim))).astype(
        "f4"
    )


def texts(items: int) -> list[str]:
    """Name items, the hostile ones first."""
    return [*HOSTILE, *(f"item:{i}" for i in range(items - len(HOSTILE)))]


def publish(
    path: Path, items: int = ITEMS, *, seed: int = 5, sets: dict[str, np.ndarray] | None = None
) -> None:
    """Write or replace a file."""
    index = annidx.Index(DIM, "angular")
    index.add_items(clustered(items, seed=seed), ids=texts(items))
    index.build(n_jobs=2)
    index.save(path, metadata={"model": f"seed {seed}"}, sets=sets)


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `annidx explore` in a process of its own, give its address, and end it as Ctrl-C does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "annidx", "explore", "--no-browser", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(600, process.kill)
    watchdog.start()
    try:
        yield _address(process), process
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=20)
        finally:
            process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+/[\w-]+/", line):
            return found[0]
    assert process.stderr is not None
    raise AssertionError(f"no address was printed: {process.stderr.read()}")
