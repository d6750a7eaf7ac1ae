"""USearch: HNSW with M=16, ef 200, loaded into memory (or viewed, for cold starts)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.contestant import Array, Contestant, Setting, Task, sweep

EXPANSIONS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 896, 1280)
METRICS = {"euclidean": "l2sq", "angular": "ip", "cosine": "ip", "dot": "ip", "hamming": "hamming"}


class Usearch(Contestant):
    name = "usearch"
    distribution = "usearch"
    module = "usearch"
    metrics = frozenset(METRICS)
    unit_length_metrics = frozenset({"angular", "cosine"})
    connectivity = 16
    expansion_add = 200

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._index: Any = None
        self._view = bool(task.options.get("view", False))

    def build(self, base: Array) -> None:
        from usearch.index import Index

        self._index = Index(
            ndim=self.task.dim,
            metric=METRICS[self.task.metric],
            dtype="b1" if self.task.metric == "hamming" else "f32",
            connectivity=self.connectivity,
            expansion_add=self.expansion_add,
        )
        self._index.add(np.arange(len(base)), base, threads=self.task.threads)

    def save(self, path: Path) -> None:
        self._index.save(str(path))

    def open(self, path: Path, base: Array) -> None:
        from usearch.index import Index

        self._index = Index.restore(str(path), view=self._view)

    def close(self) -> None:
        self._index = None

    def parameters(self) -> dict[str, Any]:
        return {"connectivity": self.connectivity, "expansion_add": self.expansion_add}

    def settings(self) -> list[Setting]:
        return sweep("expansion", [size for size in EXPANSIONS if size >= self.task.k])

    def set_setting(self, setting: Setting) -> None:
        self._index.expansion_search = int(setting.values["expansion"])

    def query(self, vector: Any, k: int) -> Any:
        return self._index.search(vector, k, threads=1).keys

    def query_batch(self, vectors: Any, k: int, threads: int) -> Any:
        return self._index.search(vectors, k, threads=threads).keys
