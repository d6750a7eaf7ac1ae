"""Living indexes: recall, size and time when items came and went.

``python -m bench.living --data DIR...`` builds an index of five sixths of each set's rows and

- adds the last sixth (20% of what was built) and removes as many at random, then saves all of it;
- adds half as many vectors of another distribution: the set's own with their dimensions in another
  order, and asks it queries of both kinds.

It prints recall at 10 where the target was asked, against brute force on the same index. A hit is
an item no farther than the true tenth.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import annidx
from bench.contestant import Array
from bench.datasets import RawSet, read_set
from bench.machine import describe

K = 10
SLACK = 1e-6


def recall_of(index: annidx.Index, queries: Array, target: float, packed: bool) -> float:
    """Share of answers no farther than the true k-th."""
    how = {"k": K, "n_jobs": -1, "packed": packed}
    found = index.query(queries, recall=target, **how)[1]
    last = index.query_exact(queries, **how)[1][:, -1:]
    slack = SLACK * np.abs(last)
    hits = found >= last - slack if index.metric == "dot" else found <= last + slack
    return float(hits.mean())


class Table:
    """Lines of the same columns."""

    COLUMNS = ("set", "state", "items", "drift", "recall", "of the others", "seconds", "told")

    def __init__(self) -> None:
        self.add(*self.COLUMNS)
        print("|---" * len(self.COLUMNS) + "|", flush=True)

    def add(self, *values: object) -> None:
        """Print a line at once."""
        shown = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in values]
        print("| " + " | ".join(shown) + " |", flush=True)


class Life:
    """One set and the index that is built of most of it."""

    def __init__(self, raw: RawSet, rows: int, target: float, table: Table, folder: Path) -> None:
        self.raw, self.target, self.table, self.folder = raw, target, table, folder
        self.packed = raw.metric == "hamming"
        self.rng = np.random.default_rng(0)
        order = self.rng.permutation(len(raw.base))[: rows or None]
        self.vectors = np.asarray(raw.base)[np.sort(order)]
        self.rng.shuffle(self.vectors)
        self.queries = np.asarray(raw.queries)
        self.first = len(self.vectors) * 5 // 6

    def built(self) -> annidx.Index:
        """Build the base, save it and open it."""
        vectors = self.vectors[: self.first]
        dim = vectors.shape[1] * (8 if self.packed else 1)
        dtype = "bits" if self.packed else str(vectors.dtype)
        index = annidx.Index(dim, self.raw.metric, dtype)
        index.add_items(vectors, np.arange(len(vectors)), packed=self.packed)
        index.build()
        index.save(self.folder / "base.annidx")
        return annidx.load(self.folder / "base.annidx")

    def note(
        self,
        index: annidx.Index,
        state: str,
        since: float,
        others: Array | None = None,
        told: str = "",
    ) -> None:
        """Measure and print."""
        seconds = time.perf_counter() - since
        recall = recall_of(index, self.queries, self.target, self.packed)
        of_others = "" if others is None else recall_of(index, others, self.target, self.packed)
        drift = float(index.info()["drift"])
        self.table.add(self.raw.name, state, len(index), drift, recall, of_others, seconds, told)

    def turn_over(self) -> None:
        """A fifth comes, a fifth goes."""
        start = time.perf_counter()
        index = self.built()
        self.note(index, "built", start)
        fresh = self.vectors[self.first :]
        total = len(self.vectors)
        start = time.perf_counter()
        index.add_items(fresh, np.arange(self.first, total), packed=self.packed)
        index.remove_items(self.rng.permutation(total)[: len(fresh)])
        self.note(index, "20% added, 20% removed", start)
        start = time.perf_counter()
        index.save(self.folder / "whole.annidx")
        self.note(index, "saved", start)

    def drift(self) -> None:
        """Half as many of another distribution come."""
        index = self.built()
        order = self.rng.permutation(self.vectors.shape[1])
        others = self.vectors[: self.first // 2][:, order]
        asked = np.ascontiguousarray(self.queries[:, order])
        start = time.perf_counter()
        index.add_items(
            np.ascontiguousarray(others),
            np.arange(self.first, self.first + len(others)),
            packed=self.packed,
        )
        self.note(index, "50% of another distribution added", start, asked)
        index.save_changes(self.folder / "changes")
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            files = [self.folder / "base.annidx", self.folder / "changes"]
            annidx.merge(files, out=self.folder / "merged.annidx")
        told = "; ".join(type(one.message).__name__ for one in caught)
        with annidx.load(self.folder / "merged.annidx") as merged:
            self.note(merged, "and merged", start, asked, told)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--rows", type=int, default=0, help="take so many rows at random (all)")
    parser.add_argument("--recall", type=float, default=0.95)
    arguments = parser.parse_args(argv)
    print(describe())
    table = Table()
    for place in arguments.data:
        with tempfile.TemporaryDirectory() as folder:
            life = Life(read_set(place), arguments.rows, arguments.recall, table, Path(folder))
            life.turn_over()
            life.drift()


if __name__ == "__main__":
    main()
