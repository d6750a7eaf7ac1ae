"""Owns the files of tests/golden/v2: what is in each, and how they are made.

    python tests/make_golden.py             # remakes tests/golden/v2, all of it
    python tests/make_golden.py FOLDER      # writes the same files elsewhere

Run the first after each change of format version 2, or of what a build computes: that is allowed
until release 1.0. Afterwards files of a released version stay, and new ones go beside them.

`NAME.annidx` is written by annidx. `NAME.json` says what it must hold and answer; its neighbours
are computed by brute force in NumPy (oracle.py) over the vectors that the independent reader
(format_reader.py) finds in the file. Only `Case.build` uses annidx.

Vectors come from `numpy.random.RandomState`, whose streams never change. They are multiples of 1/8,
so that sums of their products have no rounding and ties are ties everywhere.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import format_reader
import numpy as np
import numpy.typing as npt
import oracle

import annidx

FOLDER = Path(__file__).resolve().parent / "golden" / "v2"
NEIGHBOURS = 12

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One golden file."""

    name: str
    metric: str
    dtype: str
    items: int
    dim: int
    ids: str = "rows"  # or "int64" or "text"
    n_trees: int = 1
    given: str = "float32"  # type of the array that is handed in
    metadata: dict[str, Any] | None = None
    query_count: int = 5
    named_sets: bool = False
    lean: bool = False  # as AnnoyIndex builds: codes without byte rows, no curve

    @property
    def random(self) -> np.random.RandomState:
        """Random numbers that are this case's own."""
        return np.random.RandomState(sum(self.name.encode()) * 1009 + self.items)

    @property
    def inputs(self) -> tuple[Array, Array]:
        """Vectors to add, with a zero vector and duplicates among them, and queries."""
        random = self.random
        total = self.items + self.query_count
        numbers: Array
        if self.metric == "hamming":
            numbers = random.randint(0, 2, (total, self.dim)).astype(np.uint8)
        elif self.dtype == "uint8":
            numbers = random.randint(0, 256, (total, self.dim)).astype(self.given)
        elif self.given == "int8":
            numbers = random.randint(-128, 128, (total, self.dim)).astype(np.int8)
        else:
            numbers = (random.randint(-64, 65, (total, self.dim)) / 8).astype(self.given)
            if self.metric == "dot":
                numbers *= random.randint(1, 9, (total, 1)).astype(self.given)
        vectors, queries = numbers[: self.items].copy(), numbers[self.items :].copy()
        if self.items > 20:
            vectors[7] = 0
            vectors[[11, self.items - 1]] = vectors[5]
            queries[0] = vectors[5]
            queries[1] = 0
        return vectors, queries

    @property
    def id_list(self) -> list[int] | list[str] | None:
        """Ids to add: none, spread over int64, or text of all lengths and several alphabets."""
        if self.ids == "rows":
            return None
        numbers = self.random.permutation(self.items)
        if self.ids == "int64":
            extremes = [-(2**63), 2**63 - 1, 0, -1]
            return extremes[: self.items] + [int(n - 100) * 10**12 + 7 for n in numbers[4:]]
        alphabets = ("track:", "é", "歌", "🎵", "a\0b")
        return ["", *(alphabets[n % 5] * (n % 4) + str(n) for n in numbers[1:].tolist())]

    @property
    def set_masks(self) -> dict[str, Array] | None:
        """Masks of the named sets: none, few (kept as a list), most (as a bitmap), and all."""
        if not self.named_sets:
            return None
        rows = np.arange(self.items)
        return {
            "none": rows < 0,
            "ein paar: größe": rows % 90 == 4,
            "most": rows % 7 > 0,
            "all": rows >= 0,
        }

    def build(self, n_jobs: int = -1) -> annidx.Index:
        """Build the index of the file."""
        index = annidx.Index(self.dim, self.metric, self.dtype)
        index.add_items(self.inputs[0], self.id_list)
        if self.lean:
            index._build(
                self.n_trees,
                0.0,
                n_jobs,
                self.items,
                None,
                None,
                None,
                0,
                lean=True,
                neighbours=None,
            )
        else:
            index.build(n_trees=self.n_trees, n_jobs=n_jobs, seed=self.items)
        return index


METADATA = {"model": "2026-07-11", "größe": [1, 2.5, None], "deep": {"a": True}}
ID_KINDS = ("rows", "int64", "text")


def small_cases() -> list[Case]:
    """Every metric with every storage type, all kinds of ids among them."""
    cases = []
    for number, (metric, dtype) in enumerate(oracle.KINDS):
        given = dtype if dtype in ("int8", "uint8") else "float32"
        cases.append(
            Case(
                f"{metric}-{dtype}",
                metric,
                dtype,
                items=300 + number,
                dim=45 if metric == "hamming" else 11,
                ids=ID_KINDS[number % 3],
                given=given,
                metadata=METADATA if number % 4 == 0 else None,
            )
        )
    return cases


# Codes and byte rows need 2,048 items and 17 dimensions.
LARGER = [
    Case("codes-angular-float32", "angular", "float32", 2100, 18, ids="text", metadata=METADATA),
    Case("codes-cosine-float16", "cosine", "float16", 2048, 17, ids="int64"),
    Case("codes-euclidean-float32", "euclidean", "float32", 2048, 19, n_trees=3),
    Case("codes-euclidean-uint8", "euclidean", "uint8", 2100, 30, ids="text", given="uint8"),
    Case("codes-euclidean-int8-scaled", "euclidean", "int8", 2048, 17),
    Case("codes-dot-float32", "dot", "float32", 2200, 17, ids="int64"),
    Case("codes-dot-int8-scaled", "dot", "int8", 2100, 21, metadata={}),
    Case("codes-angular-lean", "angular", "float32", 2100, 18, n_trees=2, lean=True),
    Case("codes-dot-lean", "dot", "float32", 2048, 17, ids="int64", lean=True),
    Case("bytes-manhattan-float32", "manhattan", "float32", 2048, 17, ids="text"),
    Case("bytes-manhattan-float16", "manhattan", "float16", 2050, 18, n_trees=2),
    Case("bytes-manhattan-int8", "manhattan", "int8", 2100, 33, ids="int64", given="int8"),
]
ODD = [
    Case("one-item", "euclidean", "float32", 1, 3, ids="text", metadata=METADATA),
    Case("two-items", "angular", "float16", 2, 1, ids="int64"),
    Case("one-dimension", "dot", "int8", 130, 1),
    Case("trees-hamming", "hamming", "bits", 700, 64, ids="text", n_trees=4),
    Case("trees-cosine", "cosine", "int8", 500, 9, ids="int64", n_trees=2),
    Case("wide", "angular", "float32", 40, 700),
    Case("sets", "euclidean", "float32", 310, 3, ids="text", metadata=METADATA, named_sets=True),
]
CASES = [*small_cases(), *LARGER, *ODD]


def expectations(case: Case, path: Path) -> dict[str, Any]:
    """Say what a file holds and answers, without annidx."""
    found = format_reader.read(path, strict=True)
    base = found.rows.astype(np.float64)
    answers = []
    for query in case.inputs[1]:
        rows, distances = oracle.nearest(query, base, case.metric, NEIGHBOURS)
        answers.append(
            {
                "query": query.tolist(),
                "ids": [found.ids[row] for row in rows],
                "distances": distances.tolist(),
            }
        )
    facts = {
        "metric": found.metric,
        "dtype": found.dtype,
        "dim": found.dim,
        "items": found.items,
        "scan": format_reader.SCANS[found.params["scan_kind"]],
        "trees": len(found.leaves),
        "leaves": [len(leaves) for leaves in found.leaves],
        "identity": found.identity,
        "value_scale": found.params["value_scale"],
        "given_bytes": found.params["given_bytes"],
        "seed": found.params["seed"],
        "metadata": case.metadata,
        "first_ids": found.ids[:8],
        "answers": answers,
    }
    if case.set_masks:
        facts["sets"] = {name: int(mask.sum()) for name, mask in case.set_masks.items()}
    return facts


def as_text(expected: dict[str, Any]) -> str:
    """Write JSON with one line for each field, and for each answer."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}"
        for name, value in expected.items()
        if name != "answers"
    ]
    answers = ",\n".join(json.dumps(answer, ensure_ascii=False) for answer in expected["answers"])
    return "{" + ",\n".join(lines) + f',\n"answers": [\n{answers}\n]}}\n'


def write(case: Case, folder: Path, n_jobs: int = -1) -> Path:
    """Write the index file of a case."""
    path = folder / f"{case.name}.annidx"
    case.build(n_jobs).save(path, metadata=case.metadata, sets=case.set_masks)
    return path


def remake(folder: Path) -> None:
    """Write all files of a folder anew."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.annidx"), *folder.glob("*.json")]:
        old.unlink()
    for case in CASES:
        path = write(case, folder)
        path.with_suffix(".json").write_text(as_text(expectations(case, path)), encoding="utf-8")


if __name__ == "__main__":
    remake(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
