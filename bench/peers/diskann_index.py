"""DiskANN's graph in memory (Vamana), by its authors' Rust library: degree 64, list of 128."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.contestant import Array, Contestant, Setting, Task, sweep

LISTS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 896, 1280)
METRICS = {
    "euclidean": "l2",
    "angular": "cosinenormalized",
    "cosine": "cosinenormalized",
    "dot": "innerproduct",
}
PREFIX = "ann"
TASKS_A_THREAD = 16


class DiskAnn(Contestant):
    name = "diskann"
    distribution = "diskannpy-rust"
    module = "diskannpy"
    metrics = frozenset(METRICS)
    unit_length_metrics = frozenset({"angular", "cosine"})
    degree = 64
    build_list = 128
    alpha = 1.2
    slack = 1.3

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._index: Any = None
        self._list = 10
        self._folder = task.scratch / "diskann"

    @property
    def _as_bytes(self) -> bool:
        return self.task.dtype == "uint8" and self.task.metric == "euclidean"

    def vector_bytes(self) -> int:
        return self.task.dim if self._as_bytes else 4 * self.task.dim

    def prepare_batch(self, vectors: Array) -> Any:
        return np.ascontiguousarray(vectors) if self._as_bytes else super().prepare_batch(vectors)

    def build(self, base: Array) -> None:
        """The library writes its files as part of the build."""
        import diskannpy

        self._folder.mkdir()
        diskannpy.build_async_index(
            data=base,
            distance_metric=METRICS[self.task.metric],
            index_directory=str(self._folder),
            complexity=self.build_list,
            graph_degree=self.degree,
            alpha=self.alpha,
            graph_slack_factor=self.slack,
            num_start_pts=1,
            num_threads=self.task.threads,
            num_tasks=TASKS_A_THREAD * self.task.threads,
            max_fp_vecs_per_prune=0,
            insert_minibatch_size=1,
            pq_seed=self.task.seed,
            index_prefix=PREFIX,
        )

    def save(self, path: Path) -> None:
        """Without the copy of the vectors that the build was handed."""
        (self._folder / f"{PREFIX}_vectors.bin").unlink()
        self._folder.rename(path)

    def open(self, path: Path, base: Array) -> None:
        import diskannpy

        self._index = diskannpy.AsyncDiskIndex(
            str(path),
            num_threads=1,
            r=self.degree,
            l=self.build_list,
            alpha=self.alpha,
            graph_slack_factor=self.slack,
            index_prefix=PREFIX,
        )

    def close(self) -> None:
        self._index = None

    def parameters(self) -> dict[str, Any]:
        return {"graph_degree": self.degree, "complexity": self.build_list, "alpha": self.alpha}

    def settings(self) -> list[Setting]:
        return sweep("complexity", [size for size in LISTS if size >= self.task.k])

    def set_setting(self, setting: Setting) -> None:
        self._list = int(setting.values["complexity"])

    def query(self, vector: Any, k: int) -> Any:
        return self._index.search(vector, k, self._list).identifiers

    def query_batch(self, vectors: Any, k: int, threads: int) -> Any:
        return self._index.batch_search(vectors, k, self._list, threads).identifiers
