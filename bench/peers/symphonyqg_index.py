"""SymphonyQG as the RaBitQ library ships it: degree 32, ef 400, float32 vectors kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.contestant import Array, Contestant, Setting, Task, sweep

EF = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 896, 1280)


class SymphonyQg(Contestant):
    name = "symphonyqg"
    distribution = "rabitqlib"
    module = "rabitqlib"
    metrics = frozenset({"euclidean", "angular", "cosine", "dot"})
    unit_length_metrics = frozenset({"angular", "cosine"})
    degree = 32
    ef_construction = 400

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._index: Any = None
        self._ef = 10

    def prepare_query(self, vector: Array) -> Array:
        return np.asarray(self.prepare_batch(vector)).reshape(1, -1)

    def build(self, base: Array) -> None:
        import rabitqlib

        metric = "ip" if self.task.metric == "dot" else "l2"
        self._index = rabitqlib.SymqgIndex(self.task.dim, self.degree, metric)
        self._index.build(base, self.ef_construction, num_threads=self.task.threads)

    def save(self, path: Path) -> None:
        self._index.save(str(path))

    def open(self, path: Path, base: Array) -> None:
        import rabitqlib

        self._index = rabitqlib.SymqgIndex.load(str(path))

    def close(self) -> None:
        self._index = None

    def parameters(self) -> dict[str, Any]:
        return {"max_degree": self.degree, "ef_construction": self.ef_construction}

    def settings(self) -> list[Setting]:
        return sweep("ef", [ef for ef in EF if ef >= self.task.k])

    def set_setting(self, setting: Setting) -> None:
        self._ef = int(setting.values["ef"])

    def query(self, vector: Any, k: int) -> Any:
        return self._index.search(vector, k, self._ef)[0][0]

    def query_batch(self, vectors: Any, k: int, threads: int) -> Any:
        return self._index.search_batch(vectors, k, self._ef, num_threads=threads)[0]
