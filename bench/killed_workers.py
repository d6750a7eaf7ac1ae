"""Building by worker processes that are killed: whether it ends, in which bytes and memory.

``python -m bench.killed_workers --rows 10000000 --dim 96`` builds a generated set by two worker
processes twice with `annidx.parallel.build`: undisturbed, and while a worker is killed (SIGKILL)
again and again at random moments, the build being started anew each time its pool broke. It prints
the kills, the most memory that a worker had, the time of both, and whether the files are the same.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import random
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from annidx import parallel
from bench.contestant import Array
from bench.machine import describe

BLOCK_ROWS = 50_000
"""Rows that one seed makes, so that each range is the same whoever asks for it."""
CLUSTERS = 2_000
WORKERS = 2


class Rows:
    """Clustered vectors, made where they are wanted: the same for a range each time."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def __call__(self, first: int, last: int) -> Array:
        centroids = np.random.default_rng(0).standard_normal((CLUSTERS, self.dim), np.float32)
        blocks = range(first // BLOCK_ROWS, -(-last // BLOCK_ROWS))
        made = np.empty((last - first, self.dim), np.float32)
        for block in blocks:
            rng = np.random.default_rng([1, block])
            of = rng.integers(CLUSTERS, size=BLOCK_ROWS)
            rows = centroids[of] + 0.5 * rng.standard_normal((BLOCK_ROWS, self.dim), np.float32)
            begin, end = max(first, block * BLOCK_ROWS), min(last, (block + 1) * BLOCK_ROWS)
            made[begin - first : end - first] = rows[begin % BLOCK_ROWS :][: end - begin]
        return made


class Killer(threading.Thread):
    """Kills a worker of the present pool after random times, until enough were killed."""

    def __init__(self, kills: int, longest_s: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.wanted, self.kills = kills, 0
        self.pool: ProcessPoolExecutor | None = None
        self._random, self._longest_s = random.Random(seed), longest_s

    def run(self) -> None:
        while self.kills < self.wanted:
            time.sleep(self._random.uniform(0.0, self._longest_s))
            processes = list(getattr(self.pool, "_processes", None) or {})
            if processes:
                os.kill(self._random.choice(processes), signal.SIGKILL)
                self.kills += 1
                self.pool = None  # it is broken; the next one has new workers


def build(arguments: argparse.Namespace, out: Path, killer: Killer | None) -> int:
    """Build until it ends; return how many pools broke."""
    broken = 0
    while True:
        pool = ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))
        with pool:
            if killer is not None:
                pool.submit(os.getpid).result()  # the workers are there
                killer.pool = pool
            try:
                parallel.build(
                    Rows(arguments.dim),
                    out,
                    metric="euclidean",
                    executor=pool,
                    count=arguments.rows,
                    n_parts=arguments.parts,
                    sample=min(arguments.rows, arguments.sample),
                    memory_limit=arguments.memory_limit,
                )
            except BrokenProcessPool:
                broken += 1
                continue
        return broken


def main(words: Sequence[str] | None = None) -> None:
    """Build twice and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=96)
    parser.add_argument("--parts", type=int, default=16)
    parser.add_argument("--sample", type=int, default=1_000_000, help="rows to train on")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=6.0, help="seconds between two kills")
    parser.add_argument("--memory-limit", type=int, default=4 << 30, help="bytes of a worker")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        killed, calm = Path(folder, "killed.annidx"), Path(folder, "calm.annidx")
        killer = Killer(arguments.kills, arguments.longest, arguments.seed)
        killer.start()
        began = time.monotonic()
        broken = build(arguments, killed, killer)
        print(f"killed: {killer.kills} workers, {broken} pools broken, "
              f"{time.monotonic() - began:.0f} s")  # fmt: skip
        began = time.monotonic()
        build(arguments, calm, None)
        print(f"undisturbed: {time.monotonic() - began:.0f} s")
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        print(f"most memory of a worker: {most / 2**30:.2f} GiB")
        print(f"file: {killed.stat().st_size / 2**30:.2f} GiB, the same bytes: "
              f"{filecmp.cmp(killed, calm, shallow=False)}")  # fmt: skip


if __name__ == "__main__":
    main()
