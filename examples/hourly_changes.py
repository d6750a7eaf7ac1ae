"""An index that is kept up to date: changes every hour, one file again every night.

A service follows the index and its changes and answers all the time. The hourly job writes a small
file of all changes since last night; the nightly one merges them, which trains nothing. Here hours
take moments, and all three are one program: each function is a program of its own in earnest.

Run: python examples/hourly_changes.py [FOLDER]
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

import annidx
from annidx.follow import FollowingIndex

DIM = 32
HOURS = 3
PATIENCE_S = 60.0

Vectors = npt.NDArray[np.float32]


def vectors_of(seed: int, count: int) -> Vectors:
    """Stand in for the job's own source of vectors."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(100, DIM))
    points = centres[rng.integers(100, size=count)] + 0.5 * rng.normal(size=(count, DIM))
    return points.astype(np.float32)


def first_build(base: Path) -> None:
    """Build the index once."""
    index = annidx.Index(dim=DIM, metric="euclidean")
    index.add_items(vectors_of(1, 10_000), [f"track:{i}" for i in range(10_000)])
    index.build()
    index.save(base)


def hourly(base: Path, changes: Path, hour: int) -> None:
    """Take up what came and went in this hour, beside all since the last night."""
    files = [base, changes] if changes.exists() else [base]
    with annidx.load(files) as index:
        index.add_items(vectors_of(hour, 100), [f"new:{hour}:{i}" for i in range(100)])
        index.update_items(vectors_of(500 + hour, 1), [f"track:{hour}"])
        index.remove_items([f"track:{hour * 100 + i}" for i in range(50)], missing="skip")
        index.save_changes(changes)


def nightly(base: Path, changes: Path) -> None:
    """Make one file of both, and put it in the place of the one in use once it has been verified.

    The changes go last. Until then they do not fit, and who follows stays with what it has.
    """
    merged = base.with_suffix(".merged")
    with warnings.catch_warnings():
        warnings.simplefilter("error", annidx.DriftWarning)  # then it is time for a new build
        annidx.merge([base, changes], out=merged)
    annidx.publish(merged, base)
    os.remove(changes)


def answers(service: FollowingIndex, *, until_items: int) -> int:
    """Answer until the index has so many items; return how many queries that were."""
    query = vectors_of(9, 1)[0]
    stop = time.monotonic() + PATIENCE_S
    count = 0
    while len(service) != until_items:
        ids, _ = service.query(query, k=10)
        assert len(set(ids)) == 10
        count += 1
        if time.monotonic() > stop:
            raise SystemExit(f"no new generation: {service.status()['last_error']}")
    return count


def main(folder: Path) -> None:
    """A day and a night."""
    base, changes = folder / "tracks.annidx", folder / "tracks.changes"
    first_build(base)
    service = annidx.load([base, changes], follow=True, background=True, interval=0.02, verify=True)
    with service:
        items = len(service)
        for hour in range(1, HOURS + 1):
            hourly(base, changes, hour)
            items += 100 - 50
            answers(service, until_items=items)
            size = changes.stat().st_size / base.stat().st_size
            print(f"hour {hour}: {items:,} items, changes of {size:.1%} of the index")
        nightly(base, changes)
        stop = time.monotonic() + PATIENCE_S
        while service.status()["changes"] and time.monotonic() < stop:
            answers(service, until_items=items)
            time.sleep(0.01)
        assert f"new:{HOURS}:0" in service and "track:100" not in service
        status = service.status()
        print(f"merged: {len(service):,} items in one file, generation {status['generation']}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
