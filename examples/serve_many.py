"""Several processes answer from one file, and take over a new one when it is published.

Run: python examples/serve_many.py [FOLDER]
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np

import annidx
from annidx.follow import FollowingIndex

DIM = 32


_live: FollowingIndex


def start(path: Path) -> None:
    """Open the file, once in each process, and look for another one before each question."""
    global _live
    _live = annidx.load(path, follow=True, interval=0.0)


def answer(seed: int) -> tuple[int, int, str]:
    """Answer one request; tell by which process and from which edition of the file."""
    index = _live.current  # one file for both questions
    query = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    ids, _ = index.query(query, k=1)
    return os.getpid(), int(ids[0]), str((index.metadata or {})["edition"])


def publish(path: Path, edition: str, items: int) -> None:
    """Put an edition in place: `save` replaces the file in one step."""
    vectors = np.random.default_rng(0).normal(size=(items, DIM)).astype(np.float32)
    index = annidx.Index(dim=DIM, metric="euclidean")
    index.add_items(vectors)
    index.build()
    index.save(path, metadata={"edition": edition})


def main(folder: Path) -> None:
    """Serve two editions, one after the other, without a pause between them."""
    path = folder / "served.annidx"
    publish(path, "monday", 5_000)
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(4, initializer=start, initargs=(path,)) as pool:
        before = pool.map(answer, range(200))
        publish(path, "tuesday", 6_000)
        after = pool.map(answer, range(200))
    for answers in (before, after):
        processes = {process for process, _, _ in answers}
        editions = {edition for _, _, edition in answers}
        print(f"{len(answers)} answers by {len(processes)} processes, edition {editions}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
