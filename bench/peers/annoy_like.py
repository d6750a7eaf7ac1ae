"""Annoy, and annidx.AnnoyIndex behind the same API: one adapter for both."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.contestant import Array, Contestant, Setting, Task, sweep

SEARCH_K = (200, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 256000)


class Annoy(Contestant):
    """Annoy, told 30 trees unless the task's options say otherwise."""

    name = "annoy"
    distribution = "annoy"
    module = "annoy"
    metrics = frozenset({"angular", "cosine", "euclidean", "manhattan", "dot", "hamming"})
    class_name: ClassVar[str] = "AnnoyIndex"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.n_trees = int(task.options.get("n_trees", 30))
        self.search_ks = tuple(task.options.get("search_k", SEARCH_K))
        self.add_seconds = 0.0
        self._search_k = -1
        self._index: Any = None

    def _new_index(self) -> Any:
        metric = "angular" if self.task.metric == "cosine" else self.task.metric
        return getattr(importlib.import_module(self.module), self.class_name)(self.task.dim, metric)

    def prepare_batch(self, vectors: Array) -> Any:
        """Annoy reads Python sequences: lists are its fastest form."""
        if self.task.metric == "hamming":
            return np.unpackbits(vectors, axis=-1).tolist()
        return np.asarray(vectors, dtype=np.float32).tolist()

    def prepare_base(self, base: Array) -> Array:
        return base

    def build(self, base: Array) -> None:
        self._index = self._new_index()
        self._index.set_seed(self.task.seed)
        start_s = time.perf_counter()
        self._add_all(base)
        self.add_seconds = time.perf_counter() - start_s
        self._index.build(self.n_trees, n_jobs=self.task.threads)

    def _add_all(self, base: Array) -> None:
        """One ``add_item`` a vector: the API has no other way."""
        block_rows = 4096
        for first in range(0, len(base), block_rows):
            block = self.prepare_batch(base[first : first + block_rows])
            for offset, vector in enumerate(block):
                self._index.add_item(first + offset, vector)

    def save(self, path: Path) -> None:
        self._index.save(str(path))

    def open(self, path: Path, base: Array) -> None:
        self._index = self._new_index()
        self._index.load(str(path))

    def close(self) -> None:
        if self._index is not None:
            self._index.unload()
        self._index = None

    def vector_bytes(self) -> int:
        """Annoy keeps hamming vectors as 64-bit words, all others as float32."""
        if self.task.metric == "hamming":
            return -(-self.task.dim // 64) * 8
        return 4 * self.task.dim

    def parameters(self) -> dict[str, Any]:
        return {"n_trees": self.n_trees, "add_seconds": self.add_seconds}

    def settings(self) -> list[Setting]:
        return sweep("search_k", self.search_ks)

    def set_setting(self, setting: Setting) -> None:
        self._search_k = int(setting.values["search_k"])

    def query(self, vector: Any, k: int) -> Any:
        return self._index.get_nns_by_vector(vector, k, self._search_k)


class AnnidxAnnoy(Annoy):
    """annidx.AnnoyIndex, used exactly as Annoy is."""

    name = "annidx.AnnoyIndex"
    distribution = "annidx"
    module = "annidx"

    def vector_bytes(self) -> int:
        return Contestant.vector_bytes(self)
