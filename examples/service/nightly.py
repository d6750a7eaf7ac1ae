"""The nightly job: builds the index of a day, checks it, and puts it in the place of the last one.

Run in examples/: python -m service.nightly FOLDER DAY
"""

from __future__ import annotations

import sys
from pathlib import Path

import annidx
from service import catalogue

LEAST_RECALL = 0.9


def build(folder: Path, day: int) -> Path:
    """Write the index of a day beside the one in use."""
    artists = catalogue.catalogue_of(day)
    index = annidx.Index(dim=catalogue.DIM, metric="angular")
    index.add_items(artists.vectors, ids=artists.names)
    index.build(recall=0.95)
    candidate = folder / f"{catalogue.INDEX}.{day}"
    index.save(candidate, metadata={"day": day}, sets={"available": artists.available})
    return candidate


def check(candidate: Path) -> None:
    """Refuse a file that finds too little."""
    with annidx.load(candidate) as index:
        queries = index.get_vectors(list(index)[::10])
        found, truth = (ask(queries, k=10)[1] for ask in (index.query, index.query_exact))
        recall = float((found <= truth[:, -1:] * (1 + 1e-6)).mean())
    if recall < LEAST_RECALL:
        raise SystemExit(f"not published: recall {recall:.3f}, at least {LEAST_RECALL} is asked")


def publish(folder: Path, day: int) -> None:
    """Build, check, and replace the file in one step.

    `annidx.publish` verifies every byte, compares with the file in use, and keeps that as previous.
    """
    candidate = build(folder, day)
    check(candidate)
    annidx.publish(candidate, folder / catalogue.INDEX)


def main(folder: Path, day: int) -> None:
    """Publish the index of a day; on the first day, make the users too."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / catalogue.LISTENS).exists():
        catalogue.write_listens(folder)
    publish(folder, day)
    print(f"published day {day}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
