"""Owns the files beside it: small indexes that Annoy itself wrote, and what Annoy answers.

Run with Annoy 1.17.3 installed (`python make.py`) to make them anew; tests only read them. For
each `NAME.ann` the file `NAME.txt` holds `metric f n_items n_trees`, then for each question three
lines: `search_k n` and the query vector; the ids; the distances.
"""

from __future__ import annotations

import random
from pathlib import Path

from annoy import AnnoyIndex

HERE = Path(__file__).resolve().parent
QUESTIONS = 12


def vector(metric: str, f: int, source: random.Random) -> list[float]:
    """One random vector; for hamming zeros and ones."""
    if metric == "hamming":
        return [float(source.random() < 0.5) for _ in range(f)]
    return [source.gauss(0, 1) for _ in range(f)]


def write(name: str, metric: str, f: int, items: list[int], n_trees: int) -> None:
    """Build one index with Annoy and note its answers."""
    source = random.Random(name)
    index = AnnoyIndex(f, metric)
    index.set_seed(42)
    for item in items:
        index.add_item(item, vector(metric, f, source))
    index.build(n_trees, n_jobs=1)
    index.save(str(HERE / f"{name}.ann"))
    lines = [f"{metric} {f} {index.get_n_items()} {index.get_n_trees()}"]
    for question in range(QUESTIONS):
        search_k, n = [(-1, 5), (60, 10), (100000, 20)][question % 3]
        query = vector(metric, f, source)
        ids, distances = index.get_nns_by_vector(query, n, search_k, include_distances=True)
        lines.append(" ".join(map(str, [search_k, n, *query])))
        lines.append(" ".join(map(str, ids)))
        lines.append(" ".join(map(repr, distances)))
    (HERE / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Write every file."""
    for metric in ("angular", "euclidean", "manhattan", "dot"):
        write(metric, metric, 5, list(range(150)), 4)
    write("hamming", "hamming", 70, list(range(150)), 4)
    write("holes", "euclidean", 5, [3 * item + 1 for item in range(60)], 3)
    write("far_item", "angular", 4, [40], 2)
    write("one_item", "euclidean", 4, [0], 2)
    write("one_leaf", "dot", 12, list(range(9)), 3)
    write("no_items", "angular", 4, [], 2)


if __name__ == "__main__":
    main()
