"""Everything at once for a long time: threads and forked children build, save, load, ask and close.

Memory has a ceiling, and what is resident must not grow. Seconds: 6 by default, ANNIDX_SOAK_S if
that is set (60 in CI), 30 minutes in the slow test. As a program (`python test_soak.py FOLDER
SECONDS`) it is the process that is watched.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import annidx
from annidx.follow import FollowingIndex

QUICK_S, LONG_S = 6.0, 1800.0
THREADS = 3
CEILING_BYTES = 4 << 30  # of address space: each thread reserves some hundred megabytes
# What allocators and caches may take after the first third of the time.
SPARE_BYTES = 12 << 20
KINDS = (
    ("euclidean", "float32"),
    ("angular", "int8"),
    ("manhattan", "uint8"),
    ("dot", "float16"),
    ("hamming", "bits"),
)
DIM = 24

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in /proc")


def vectors_for(dtype: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random vectors that an index of this storage takes."""
    if dtype == "bits":
        return rng.integers(0, 2, (count, DIM), dtype=np.uint8)
    if dtype == "uint8":
        return rng.integers(0, 256, (count, DIM), dtype=np.uint8)
    return rng.standard_normal((count, DIM), dtype=np.float32)


class Worker:
    """One thread's life: a file of its own, one shared by all, and jobs in random order."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._own = folder / f"own-{seed}.annidx"
        self._shared = folder / "shared.annidx"
        self._random = random.Random(seed)
        self._rng = np.random.default_rng(seed)
        self.counts: Counter[str] = Counter()
        self._jobs: list[Callable[[], None]] = [
            self._build_and_save,
            self._load_and_ask,
            self._load_and_ask,
            self._follow,
            self._pickle,
            self._be_refused,
            self._replace_shared,
        ]

    def work(self) -> None:
        """Do one job."""
        job = self._random.choice(self._jobs)
        job()
        self.counts[job.__name__.strip("_")] += 1

    def _built(self) -> annidx.Index:
        metric, dtype = self._random.choice(KINDS)
        count = self._random.choice((10, 300, 3_000))
        index = annidx.Index(DIM, metric, dtype)
        names = [f"id {i}" for i in range(count)] if self._random.random() < 0.3 else None
        index.add_items(vectors_for(dtype, count, self._rng), ids=names)
        index.build(n_jobs=self._random.choice((1, 2)), seed=1)
        return index

    def _build_and_save(self) -> None:
        with self._built() as index:
            index.save(self._own, metadata={"text": "x" * self._random.randrange(2_000)})
            self._ask(index)

    def _replace_shared(self) -> None:
        index = annidx.Index(DIM, "euclidean")
        index.add_items(vectors_for("float32", 500, self._rng))
        index.build(n_jobs=1, out=self._shared)
        index.close()

    def _ask(self, index: annidx.Index | FollowingIndex) -> None:
        count = self._random.choice((1, 40))
        queries = vectors_for(index.dtype, count, self._rng)
        allowed = np.arange(len(index)) % 3 == 0
        for how in ({}, {"recall": 0.99}, {"search_k": 50}, {"radius": 3.0}, {"allow": allowed}):
            ids, _ = index.query(queries, k=12, n_jobs=2, **how)
            assert ids.shape == (count, 12)
            self.counts["queries"] += count

    def _load_and_ask(self) -> None:
        if not self._own.exists():
            return
        with annidx.load(self._own, warm=self._random.random() < 0.5) as index:
            index.verify()
            self._ask(index)
            index.info()
            few = annidx.IdSet(
                index, list(index.query(index.get_vectors([self._any_id(index)]))[0][0])
            )
            assert len(few & ~few) == 0

    def _any_id(self, index: annidx.Index) -> int | str:
        return "id 3" if index.info()["ids"] == "str" else 3

    def _follow(self) -> None:
        with FollowingIndex(self._shared, interval=0.0) as index:
            for _ in range(5):
                assert len(index.query(np.zeros(DIM, np.float32))[0]) == 10
                self.counts["queries"] += 1

    def _pickle(self) -> None:
        with self._built() as index, pickle.loads(pickle.dumps(index)) as copy:
            self._ask(copy)

    def _be_refused(self) -> None:
        """Errors leave nothing behind either."""
        damaged = self._own.with_suffix(".damaged")
        content = bytearray(self._shared.read_bytes())
        content[self._random.randrange(len(content))] ^= 0xFF
        damaged.write_bytes(content)
        try:
            annidx.verify(damaged)
        except annidx.FormatError:
            self.counts["refused"] += 1
        with annidx.load(self._shared) as index:
            for wrong in (np.full(DIM, np.nan, np.float32), np.zeros(DIM + 1, np.float32)):
                try:
                    index.query(wrong)
                except ValueError:
                    self.counts["refused"] += 1


class Soak:
    """Threads that work until the time is over, and what went wrong in them."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder = folder
        self._end = time.monotonic() + seconds
        self._seconds = seconds
        self.counts: Counter[str] = Counter()
        self._errors: list[BaseException] = []

    def run(self) -> list[int]:
        """Work. Returns resident memory, sampled some hundred times."""
        Worker(self._folder, 99)._replace_shared()
        threads = [threading.Thread(target=self._work, args=(seed,)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        samples = []
        for number in itertools.count():
            if time.monotonic() >= self._end or self._errors:
                break
            time.sleep(self._seconds / 300)
            if number % 4 == 0:
                self._fork(number)
            samples.append(resident_bytes())
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        return samples

    def _work(self, seed: int) -> None:
        worker = Worker(self._folder, seed)
        try:
            while time.monotonic() < self._end and not self._errors:
                worker.work()
        except BaseException as error:
            self._errors.append(error)
        self.counts += worker.counts

    def _fork(self, number: int) -> None:
        """Let a child work for a moment while the threads go on here."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                signal.alarm(60)
                worker = Worker(self._folder, 1_000 + number)
                for _ in range(3):
                    worker.work()
                worker._own.unlink(missing_ok=True)
                worker._own.with_suffix(".damaged").unlink(missing_ok=True)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0, "a forked child failed"
        self.counts["forks"] += 1


def resident_bytes() -> int:
    """Physical memory of this process, once what is free was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def check_flat(samples: list[int]) -> None:
    """Memory is at its least between two jobs: compare that of the second and the last third."""
    third = len(samples) // 3
    before, after = min(samples[third : 2 * third]), min(samples[2 * third :])
    print(
        f"resident: at least {before >> 20} MiB in the second third, {after >> 20} MiB in the last"
    )
    assert after - before < SPARE_BYTES, "memory grows"


def main() -> None:
    """Soak in FOLDER for SECONDS."""
    resource.setrlimit(resource.RLIMIT_AS, (CEILING_BYTES, CEILING_BYTES))
    open_before = len(os.listdir("/proc/self/fd"))
    folder = Path(sys.argv[1])
    soak = Soak(folder, float(sys.argv[2]))
    samples = soak.run()
    print(dict(soak.counts))
    check_flat(samples)
    assert len(os.listdir("/proc/self/fd")) == open_before, "a file is still open"
    with open("/proc/self/maps", encoding="utf-8") as file:
        assert str(folder) not in file.read(), "a file is still mapped"
    assert not list(folder.glob(".*")), "a temporary file stays behind"


def soak_for(folder: Path, seconds: float) -> None:
    """Run the program and hold it to its promises."""
    done = subprocess.run(
        [sys.executable, __file__, str(folder), str(seconds)],
        capture_output=True,
        text=True,
        timeout=2 * seconds + 120,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]


def test_soak(tmp_path: Path) -> None:
    soak_for(tmp_path, float(os.environ.get("ANNIDX_SOAK_S", QUICK_S)))


@pytest.mark.slow
def test_long_soak(tmp_path: Path) -> None:
    soak_for(tmp_path, LONG_S)


def test_growth_is_noticed() -> None:
    """The test of memory can fail."""
    flat = [100 << 20, 90 << 20, 120 << 20] * 30
    check_flat(flat)
    with pytest.raises(AssertionError, match="grows"):
        check_flat([size + (i << 19) for i, size in enumerate(flat)])


if __name__ == "__main__":
    main()
