"""Owns the proof that processes share one copy of a file: eight of them cost little more than one.

Measured as the proportional set size (PSS) that Linux accounts, in which a page that eight
processes map counts an eighth in each.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import annidx

PROCESSES = 8
DIM = 320

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/smaps_rollup"), reason="only Linux tells the PSS"
)

# Reports what it has done line by line, and goes on when it is told to.
WORKER = """
import sys
import numpy as np
import annidx

queries = np.random.default_rng(1).standard_normal((30, int(sys.argv[2]))).astype(np.float32)
print("imported", flush=True)
sys.stdin.readline()
index = annidx.load(sys.argv[1], warm=True)
index.query_exact(queries[:1])
for query in queries:
    index.query(query, k=10)
index.query(queries, k=100, recall=0.99)
print("asked", flush=True)
sys.stdin.readline()
count = len(index) // 100
vectors = index.get_vectors(index.ids[:count])
ids = np.arange(count) + len(index) + count * int(sys.argv[3])
index.add_items(vectors, ids)
index.remove_items(np.arange(count))
for query in queries:
    index.query(query, k=10)
print("changed", flush=True)
sys.stdin.readline()
"""


class Worker:
    """A process that serves queries from a file."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), str(DIM), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, word: str) -> None:
        """Read its next line."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word

    def go_on(self) -> None:
        """Let it do the next part of its work."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def pss(self) -> int:
        """Return the bytes of memory that are this process's share.

        Libraries are left out: a share of theirs grows whenever another program ends.
        """
        total, counts = 0, False
        for line in Path(f"/proc/{self.process.pid}/smaps").read_text().splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                fields = line.split(maxsplit=5)
                name = fields[5] if len(fields) == 6 else ""
                counts = not name.startswith("/") or name == str(self.path)
            elif counts and line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
        return total

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of some 60 MB."""
    vectors = np.random.default_rng(0).standard_normal((36_000, DIM)).astype(np.float32)
    index = annidx.Index(DIM, "euclidean")
    index.add_items(vectors)
    index.build(queries=vectors[:10])
    found = tmp_path_factory.mktemp("shared") / "index.annidx"
    index.save(found)
    return found


@pytest.fixture
def workers(path: Path) -> Iterator[list[Worker]]:
    """Eight processes that have imported annidx and wait."""
    with ExitStack() as stack:
        started = [Worker(path, number) for number in range(PROCESSES)]
        for worker in started:
            stack.callback(worker.close)
        for worker in started:
            worker.wait_for("imported")
        yield started


def test_eight_processes_share_one_copy(workers: list[Worker], path: Path) -> None:
    bare = sum(worker.pss() for worker in workers)
    for worker in workers:
        worker.go_on()
        worker.wait_for("asked")
    added = sum(worker.pss() for worker in workers) - bare
    size = path.stat().st_size
    print(f"{PROCESSES} processes use {added / size:.2f} x the file of {size / 1e6:.0f} MB")
    assert added >= 0.9 * size  # they have all of it mapped and in memory
    assert added <= 1.25 * size


def test_changes_cost_what_they_hold(workers: list[Worker], path: Path) -> None:
    """Each process changes 1% of the index in memory: the base stays shared."""
    for worker in workers:
        worker.go_on()
        worker.wait_for("asked")
    shared = sum(worker.pss() for worker in workers)
    for worker in workers:
        worker.go_on()
        worker.wait_for("changed")
    added = (sum(worker.pss() for worker in workers) - shared) / PROCESSES
    size = path.stat().st_size
    print(f"1% of changes add {added / size:.2%} of the file of {size / 1e6:.0f} MB to a process")
    assert added <= 0.1 * size
