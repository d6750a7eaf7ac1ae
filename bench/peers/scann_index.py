"""ScaNN: tree, asymmetric hashing, exact reordering, as its documentation recommends."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bench.contestant import Array, Contestant, Setting, Task, grid

LEAVES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
REORDER = (30, 60, 100, 200, 400, 800)


class Scann(Contestant):
    name = "scann"
    distribution = "scann"
    module = "scann"
    metrics = frozenset({"euclidean", "angular", "cosine", "dot"})
    unit_length_metrics = frozenset({"angular", "cosine"})

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._searcher: Any = None
        self._leaves = 1
        self._reorder = 100

    @property
    def _tree_leaves(self) -> int:
        """The square root of n for L2, twice that for inner products."""
        factor = 1 if self.task.metric == "euclidean" else 2
        return max(1, round(factor * math.sqrt(self.task.rows)))

    @property
    def _anisotropic_threshold(self) -> float:
        """0.2 for inner products, none for L2."""
        return float("nan") if self.task.metric == "euclidean" else 0.2

    def build(self, base: Array) -> None:
        from scann import scann_ops_pybind

        measure = "squared_l2" if self.task.metric == "euclidean" else "dot_product"
        self._searcher = (
            scann_ops_pybind.builder(base, self.task.k, measure)
            .tree(
                num_leaves=self._tree_leaves,
                num_leaves_to_search=max(1, self._tree_leaves // 20),
                training_sample_size=min(self.task.rows, 250_000),
                spherical=self.unit_length,
                quantize_centroids=True,
            )
            .score_ah(2, anisotropic_quantization_threshold=self._anisotropic_threshold)
            .reorder(100)
            .set_n_training_threads(self.task.threads)
            .build()
        )

    def save(self, path: Path) -> None:
        path.mkdir()
        self._searcher.serialize(str(path))

    def open(self, path: Path, base: Array) -> None:
        from scann import scann_ops_pybind

        self._searcher = scann_ops_pybind.load_searcher(str(path))
        self._searcher.set_num_threads(1)

    def close(self) -> None:
        self._searcher = None

    def parameters(self) -> dict[str, Any]:
        threshold = self._anisotropic_threshold
        return {
            "num_leaves": self._tree_leaves,
            "dimensions_per_block": 2,
            "anisotropic_threshold": None if math.isnan(threshold) else threshold,
        }

    def settings(self) -> list[Setting]:
        leaves = [count for count in LEAVES if count <= self._tree_leaves]
        reorder = [count for count in REORDER if count >= self.task.k]
        return grid("leaves", leaves, "reorder", reorder)

    def set_setting(self, setting: Setting) -> None:
        self._leaves = int(setting.values["leaves"])
        self._reorder = int(setting.values["reorder"])

    def query(self, vector: Any, k: int) -> Any:
        return self._searcher.search(vector, k, self._reorder, self._leaves)[0]

    def query_batch(self, vectors: Any, k: int, threads: int) -> Any:
        if threads == 1:
            return self._searcher.search_batched(vectors, k, self._reorder, self._leaves)[0]
        self._searcher.set_num_threads(threads)
        return self._searcher.search_batched_parallel(vectors, k, self._reorder, self._leaves)[0]
