"""A nightly job: build an index beside the one in use, check it, and publish it in one step.

Run: python examples/nightly_build.py [FOLDER]
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

import annidx

DIM = 64
LEAST_RECALL = 0.9


def vectors_of_today() -> npt.NDArray[np.float32]:
    """Stand in for the job's own source of vectors."""
    rng = np.random.default_rng(datetime.date.today().toordinal())
    centres = rng.normal(size=(200, DIM))
    points = centres[rng.integers(200, size=20_000)] + 0.5 * rng.normal(size=(20_000, DIM))
    return points.astype(np.float32)


def measured_recall(index: annidx.Index, queries: npt.NDArray[np.float32]) -> float:
    """Compare answers with those of brute force."""
    found = index.query(queries, k=10, n_jobs=-1)[1]
    truth = index.query_exact(queries, k=10, n_jobs=-1)[1]
    return float((found <= truth[:, -1:] * (1 + 1e-6)).mean())


def main(folder: Path) -> None:
    """Build, check, publish."""
    vectors = vectors_of_today()
    items, queries = vectors[:-500], vectors[-500:]

    index = annidx.Index(dim=DIM, metric="angular")
    index.add_items(items)
    index.build(recall=0.95)
    candidate = folder / "tracks.candidate.annidx"
    index.save(candidate, metadata={"model": "example", "items": len(items)})

    with annidx.load(candidate) as built:
        recall = measured_recall(built, queries)
    if recall < LEAST_RECALL:
        raise SystemExit(f"not published: recall {recall:.3f}, at least {LEAST_RECALL} is asked")

    # Verified, and compared with the file in use, which stays as tracks.annidx.previous.
    # Processes that have the old file open keep it; those that open the name get the new one.
    done = annidx.publish(candidate, folder / "tracks.annidx")
    print(f"published {done.items:,} vectors, recall {recall:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
