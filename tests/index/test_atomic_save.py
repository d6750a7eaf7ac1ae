"""Owns the proof that a file is replaced in one step: readers see the old or the new one, whole.

Processes that save in a loop are killed at random moments while others read. Failing disks and
permissions are tested elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import annidx

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and kill")

ROUNDS = 60
Array = npt.NDArray[np.float32]

# Forks children that save one of two indexes after the other until they are killed, ROUNDS times.
SAVER = """
import os, random, signal, sys, time
import annidx

first, second, target, rounds, seed = sys.argv[1:]
indexes = [annidx.load(first), annidx.load(second)]
random.seed(int(seed))
for _ in range(int(rounds)):
    child = os.fork()
    if child == 0:
        while True:
            for index in indexes:
                index.save(target)
    time.sleep(random.uniform(0.0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def make(path: Path, items: int, seed: int) -> Array:
    """Write an index, and return its vectors."""
    vectors = np.random.default_rng(seed).standard_normal((items, 64)).astype(np.float32)
    index = annidx.Index(64, "euclidean")
    index.add_items(vectors)
    index.build(queries=vectors[:5])
    index.save(path, metadata={"seed": seed})
    return vectors


class Reader(threading.Thread):
    """Calls a check again and again, and keeps its first failure."""

    def __init__(self, check: Callable[[], None], stop: threading.Event) -> None:
        super().__init__()
        self.check, self.stop = check, stop
        self.count = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        """Check until the others are done."""
        try:
            while not self.stop.is_set():
                self.check()
                self.count += 1
        except Exception as failure:
            self.failure = failure


def run_readers(checks: list[Callable[[], None]], work: Callable[[], None]) -> list[Reader]:
    """Do some work while each check runs in a thread."""
    stop = threading.Event()
    readers = [Reader(check, stop) for check in checks]
    for reader in readers:
        reader.start()
    try:
        work()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    for reader in readers:
        if reader.failure is not None:
            raise reader.failure
    return readers


def test_readers_see_a_whole_file_while_savers_are_killed(tmp_path: Path) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    first, second, target = tmp_path / "first", tmp_path / "second", folder / "index.annidx"
    vectors = {1: make(first, 2_000, 1), 2: make(second, 4_000, 2)}
    contents = {first.read_bytes(): 1, second.read_bytes(): 2}
    target.write_bytes(first.read_bytes())
    seen: set[int] = set()

    def read_bytes() -> None:
        seen.add(contents[target.read_bytes()])

    def ask() -> None:
        with annidx.load(target) as index:
            assert index.metadata is not None
            base = vectors[index.metadata["seed"]]
            assert len(index) == len(base)
            row = random.randrange(len(base))
            ids, distances = index.query(base[row], k=1, recall=1.0)
            assert (ids[0], distances[0]) == (row, 0.0)
            index.verify()

    def save_and_kill() -> None:
        arguments = [str(first), str(second), str(target), str(ROUNDS), "1"]
        subprocess.run([sys.executable, "-c", SAVER, *arguments], check=True, timeout=300)

    readers = run_readers([read_bytes, ask], save_and_kill)
    assert all(reader.count > 10 for reader in readers)
    assert seen == {1, 2}
    assert contents[target.read_bytes()] in (1, 2)
    annidx.load(target).save(target)
    assert contents[target.read_bytes()] in (1, 2)


def test_a_killed_build_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).standard_normal((6_000, 24)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    out = tmp_path / "out.annidx"
    outcomes = set()
    for wait in np.linspace(0.0, 0.25, 8).tolist():
        child = os.fork()
        if child == 0:
            try:
                index = annidx.Index(24, "euclidean")
                index.add_items(np.load(tmp_path / "vectors.npy", mmap_mode="r"))
                index.build(out=out, n_jobs=1)
            finally:
                os._exit(0)
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        outcomes.add(out.exists())
        if out.exists():
            annidx.verify(out)
            assert len(annidx.load(out)) == len(vectors)
            out.unlink()
    assert False in outcomes


def has_nameless_files(folder: Path) -> bool:
    """Tell whether files may be without a name in a folder until they are complete."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR))
    except (AttributeError, OSError):
        return False
    return True


def test_a_terminated_build_leaves_no_space_taken(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).standard_normal((60_000, 24)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    names = ["vectors.npy"]
    command = "build vectors.npy -o out.annidx --metric euclidean --memory-limit 1G"
    for end in (signal.SIGTERM, signal.SIGKILL):
        build = subprocess.Popen(
            [sys.executable, "-m", "annidx", *command.split()],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not has_open_for_writing(build.pid, tmp_path):
            assert build.poll() is None
            time.sleep(0.005)
        build.send_signal(end)
        assert build.wait() == -end
        if has_nameless_files(tmp_path):
            assert os.listdir(tmp_path) == names
    make(tmp_path / "out.annidx", 50, 1)
    assert sorted(os.listdir(tmp_path)) == ["out.annidx", *names]


def has_open_for_writing(process: int, folder: Path) -> bool:
    """Tell whether a process has the temporary file of a build open."""
    if sys.platform != "linux":
        return any(name.endswith(".tmp") for name in os.listdir(folder))
    places = []
    for number in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            places.append(os.readlink(number))
    return any(place.startswith(str(folder)) and ".npy" not in place for place in places)


def test_owner_and_mode_of_a_replaced_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "index.annidx"
    make(path, 500, 1)
    path.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    before = path.stat()
    make(path, 600, 2)
    after = path.stat()
    assert after.st_ino != before.st_ino
    kept = ("st_mode", "st_uid", "st_gid")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]


def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    make(tmp_path / "index.annidx", 500, 1)
    make(tmp_path / "index.annidx", 600, 2)
    assert os.listdir(tmp_path) == ["index.annidx"]


def test_those_who_have_the_old_file_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "index.annidx"
    old_vectors = make(path, 700, 1)
    with annidx.load(path) as old:
        before = old.query_exact(old_vectors[:20], k=5)
        for seed in range(2, 6):
            make(path, 500, seed)
        path.unlink()
        after = old.query_exact(old_vectors[:20], k=5)
        old.verify()
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_index_can_be_saved_over_its_own_file(tmp_path: Path) -> None:
    path = tmp_path / "index.annidx"
    vectors = make(path, 700, 1)
    content = path.read_bytes()
    with annidx.load(path) as index:
        inode = path.stat().st_ino
        index.save(path)
        assert path.stat().st_ino != inode, "a file that is mapped was written to"
        assert path.read_bytes() == content
        assert index.query(vectors[3], k=1)[0].tolist() == [3]
        index.verify()
