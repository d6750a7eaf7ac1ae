"""A file that is replaced again and again while processes and threads load it and ask it.

The file of generation g holds vectors that are all equal to g and an id that only g has, so that
each answer tells which file gave it, and whether all of it came from that file. No answer may be
mixed, none may be older than what its thread has seen, and nothing may stay mapped or open.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest

import annidx
from annidx.follow import FollowingIndex

DIM, ITEMS = 8, 300
# ANNIDX_SWAPS: fewer under ThreadSanitizer, where each takes half a second.
SWAPS, PROCESSES, THREADS = int(os.environ.get("ANNIDX_SWAPS", "200")), 4, 4
FIRST_OWN_ID = 1_000_000

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="mappings are counted in /proc, which is Linux's"
)


def publish(path: Path, generation: int) -> None:
    """Replace the file by that of a generation."""
    index = annidx.Index(DIM, "manhattan")
    ids = [FIRST_OWN_ID + generation, *range(1, ITEMS)]
    index.add_items(np.full((ITEMS, DIM), generation, np.float32), ids=ids)
    index.build(n_jobs=1)
    index.save(path)


def one_generation(distances: np.ndarray) -> int:
    """Tell the generation of an answer; fails if there is more than one in it."""
    assert distances.size and (distances == distances.flat[0]).all(), (
        "an answer came from two files"
    )
    return int(distances.flat[0]) // DIM


def mappings(path: Path) -> int:
    """Count this process's mappings of the file and of those that it replaced."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        return sum(str(path) in line for line in file)


def descriptors(folder: Path) -> int:
    """Count this process's open files of a folder; sanitizers open some of their own elsewhere."""
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return sum(str(folder) in os.readlink(link) for link in links if link.is_symlink())


class Asker:
    """One thread of a process: asks in every way until it is told to stop."""

    def __init__(self, path: Path, following: FollowingIndex, seed: int) -> None:
        self._path = path
        self._following = following
        self._random = random.Random(seed)
        self._seen: Counter[str] = Counter()  # the last generation met, by who met it
        self.counts: Counter[str] = Counter()

    def run(self, stop: Event) -> None:
        ways: list[tuple[str, Callable[[], int]]] = [
            ("loads", self._ask_anew),
            ("follows", self._ask_following),
            ("follows", self._ask_items),
        ]
        while not stop.is_set():
            who, ask_once = self._random.choice(ways)
            generation = ask_once()
            assert generation >= self._seen[who], f"{who} a file that was replaced before"
            self.counts["swaps seen"] += generation > self._seen[who]
            self.counts[who] += 1
            self._seen[who] = generation

    def _queries(self) -> np.ndarray:
        return np.zeros((self._random.choice((1, 2, 50)), DIM), np.float32)

    def _ask_anew(self) -> int:
        with annidx.load(self._path) as index:
            queries = self._queries()
            self.counts["queries"] += 2 * len(queries)
            _ids, distances = index.query(queries, k=20)
            generation = one_generation(distances)
            assert FIRST_OWN_ID + generation in index
            assert one_generation(index.query_exact(queries, k=ITEMS)[1]) == generation
            return generation

    def _ask_following(self) -> int:
        queries = self._queries()
        self.counts["queries"] += len(queries)
        return one_generation(self._following.query(queries, k=20, n_jobs=2)[1])

    def _ask_items(self) -> int:
        """Several questions of one generation."""
        generation = self._following.current
        number = one_generation(generation.query(np.zeros(DIM, np.float32))[1])
        own = FIRST_OWN_ID + number
        assert own in generation
        found, distances = generation.query_items(own, k=ITEMS, include_self=True)
        assert own in found and not distances.any()
        assert (generation.get_vectors([own, 1]) == number).all()
        self.counts["queries"] += 2
        return number


def ask(path: Path, seed: int, stop: Event, results: Queue[Any]) -> None:
    """What each process does; tells how often it did what, or what went wrong."""
    try:
        results.put(asked(path, seed, stop))
    except BaseException as error:
        results.put(error)


def asked(path: Path, seed: int, stop: Event) -> Counter[str]:
    errors: list[BaseException] = []
    following = FollowingIndex(path, interval=0.01)
    askers = [Asker(path, following, 100 * seed + i) for i in range(THREADS)]

    def run(asker: Asker) -> None:
        try:
            asker.run(stop)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(asker,)) for asker in askers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    gc.collect()
    assert mappings(path) == 1, "a replaced file is still mapped"
    following.close()
    assert mappings(path) == 0
    assert descriptors(path.parent) == 0, "a file is still open"
    return sum((asker.counts for asker in askers), Counter())


def test_publish_under_load(tmp_path: Path) -> None:
    path = tmp_path / "index.annidx"
    publish(path, 0)
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    readers = [
        context.Process(target=ask, args=(path, seed, stop, results)) for seed in range(PROCESSES)
    ]
    for reader in readers:
        reader.start()
    try:
        for generation in range(1, SWAPS + 1):
            publish(path, generation)
    finally:
        stop.set()
    counts: Counter[str] = Counter()
    for _ in readers:
        result = results.get(timeout=300)
        if isinstance(result, BaseException):
            raise result
        counts += result
    for reader in readers:
        reader.join(60)
        assert reader.exitcode == 0
    assert os.listdir(tmp_path) == [path.name]
    print(f"{SWAPS} swaps under {PROCESSES} x {THREADS} threads: {dict(counts)}")
    # How many is a matter of the machine.
    assert counts["queries"] > 0 and counts["loads"] >= PROCESSES
    assert counts["swaps seen"] > 0
