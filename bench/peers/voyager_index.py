"""Voyager: HNSW with M=16, ef 200, float32 storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.contestant import Array, Contestant, Setting, Task, sweep

EF = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 896, 1280)
SPACES = {
    "euclidean": "Euclidean",
    "angular": "Cosine",
    "cosine": "Cosine",
    "dot": "InnerProduct",
}


class Voyager(Contestant):
    name = "voyager"
    distribution = "voyager"
    module = "voyager"
    metrics = frozenset(SPACES)
    links = 16
    ef_construction = 200

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._index: Any = None
        self._ef = 10

    def build(self, base: Array) -> None:
        import voyager

        self._index = voyager.Index(
            getattr(voyager.Space, SPACES[self.task.metric]),
            num_dimensions=self.task.dim,
            M=self.links,
            ef_construction=self.ef_construction,
            random_seed=self.task.seed,
            max_elements=self.task.rows,
        )
        self._index.add_items(base, num_threads=self.task.threads)

    def save(self, path: Path) -> None:
        self._index.save(str(path))

    def open(self, path: Path, base: Array) -> None:
        import voyager

        self._index = voyager.Index.load(str(path))

    def close(self) -> None:
        self._index = None

    def parameters(self) -> dict[str, Any]:
        return {"M": self.links, "ef_construction": self.ef_construction}

    def settings(self) -> list[Setting]:
        return sweep("ef", [ef for ef in EF if ef >= self.task.k])

    def set_setting(self, setting: Setting) -> None:
        self._ef = int(setting.values["ef"])

    def query(self, vector: Any, k: int) -> Any:
        return self._index.query(vector, k, 1, self._ef)[0]

    def query_batch(self, vectors: Any, k: int, threads: int) -> Any:
        return self._index.query(vectors, k, threads, self._ef)[0]
