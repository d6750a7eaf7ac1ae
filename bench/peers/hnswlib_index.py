"""hnswlib with its usual M=16, ef_construction=200."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.contestant import Array, Contestant, Setting, Task, sweep

EF = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 896, 1280)
SPACES = {"euclidean": "l2", "angular": "cosine", "cosine": "cosine", "dot": "ip"}


class Hnswlib(Contestant):
    name = "hnswlib"
    distribution = "hnswlib"
    module = "hnswlib"
    metrics = frozenset(SPACES)
    links = 16
    ef_construction = 200

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._index: Any = None

    def _new_index(self) -> Any:
        import hnswlib

        return hnswlib.Index(space=SPACES[self.task.metric], dim=self.task.dim)

    def build(self, base: Array) -> None:
        self._index = self._new_index()
        self._index.init_index(
            max_elements=self.task.rows,
            M=self.links,
            ef_construction=self.ef_construction,
            random_seed=self.task.seed,
        )
        self._index.add_items(base, np.arange(len(base)), num_threads=self.task.threads)

    def save(self, path: Path) -> None:
        self._index.save_index(str(path))

    def open(self, path: Path, base: Array) -> None:
        self._index = self._new_index()
        self._index.load_index(str(path))
        self._index.set_num_threads(1)

    def close(self) -> None:
        self._index = None

    def parameters(self) -> dict[str, Any]:
        return {"M": self.links, "ef_construction": self.ef_construction}

    def settings(self) -> list[Setting]:
        return sweep("ef", [ef for ef in EF if ef >= self.task.k])

    def set_setting(self, setting: Setting) -> None:
        self._index.set_ef(int(setting.values["ef"]))

    def query(self, vector: Any, k: int) -> Any:
        return self._index.knn_query(vector, k, num_threads=1)[0][0]

    def query_batch(self, vectors: Any, k: int, threads: int) -> Any:
        return self._index.knn_query(vectors, k, num_threads=threads)[0]
