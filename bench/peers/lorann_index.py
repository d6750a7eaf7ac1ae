"""LoRANN: clusters with reduced-rank score models of 8 bits, exact reranking."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from bench.contestant import Array, Contestant, Setting, Task, grid

CLUSTERS = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
RERANK = (50, 100, 200, 400, 800, 1600)
REDUCED_FROM_DIM = 200
LARGE_DIM = 1000


class Lorann(Contestant):
    name = "lorann"
    distribution = "lorann"
    module = "lorann"
    metrics = frozenset({"euclidean", "angular", "cosine", "dot"})
    unit_length_metrics = frozenset({"angular", "cosine"})
    rank = 32
    quantization_bits = 8
    train_size = 5

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._index: Any = None
        self._clusters = 1
        self._rerank = 100

    @property
    def _all_clusters(self) -> int:
        """The square root of n, its documentation's starting point."""
        return max(1, round(math.sqrt(self.task.rows)))

    @property
    def _global_dim(self) -> int | None:
        """Its documentation's starting points by dimension."""
        if self.task.dim < REDUCED_FROM_DIM:
            return None
        return 128 if self.task.dim <= LARGE_DIM else 256

    def build(self, base: Array) -> None:
        import lorann

        self._index = lorann.LorannIndex(
            base,
            self._all_clusters,
            self._global_dim,
            quantization_bits=self.quantization_bits,
            rank=self.rank,
            train_size=self.train_size,
            distance=lorann.L2 if self.task.metric == "euclidean" else lorann.IP,
        )
        self._index.build(n_threads=self.task.threads)

    def save(self, path: Path) -> None:
        self._index.save(str(path))

    def open(self, path: Path, base: Array) -> None:
        import lorann

        self._index = lorann.LorannIndex.load(str(path))

    def close(self) -> None:
        self._index = None

    def parameters(self) -> dict[str, Any]:
        return {
            "n_clusters": self._all_clusters,
            "global_dim": self._global_dim,
            "rank": self.rank,
            "quantization_bits": self.quantization_bits,
            "train_size": self.train_size,
        }

    def settings(self) -> list[Setting]:
        clusters = [count for count in CLUSTERS if count <= self._all_clusters]
        rerank = [count for count in RERANK if count >= self.task.k]
        return grid("clusters", clusters, "rerank", rerank)

    def set_setting(self, setting: Setting) -> None:
        self._clusters = int(setting.values["clusters"])
        self._rerank = int(setting.values["rerank"])

    def query(self, vector: Any, k: int) -> Any:
        return self._index.search(vector, k, self._clusters, self._rerank, n_threads=1)

    def query_batch(self, vectors: Any, k: int, threads: int) -> Any:
        return np.asarray(
            self._index.search(vectors, k, self._clusters, self._rerank, n_threads=threads)
        )
