"""NGT: an ONNG graph (ANNG with 100 edges, then optimized out- and in-degrees)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from bench.contestant import Array, Contestant, Setting, Task, sweep

EPSILONS = (-0.1, -0.05, 0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4)
DISTANCES = {
    "euclidean": "L2",
    "angular": "Normalized Cosine",
    "cosine": "Normalized Cosine",
    "manhattan": "L1",
    "dot": "Inner Product",
    "hamming": "Hamming",
}


class Ngt(Contestant):
    name = "ngt"
    distribution = "ngt"
    module = "ngtpy"
    metrics = frozenset(DISTANCES)
    creation_edges = 100
    outgoing_edges = 10
    incoming_edges = 120

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._built = task.scratch / "onng"
        self._index: Any = None
        self._epsilon = 0.1

    @property
    def _object_type(self) -> str:
        as_bytes = self.task.metric == "hamming" or (
            self.task.dtype == "uint8" and self.task.metric in {"euclidean", "manhattan"}
        )
        return "Byte" if as_bytes else "Float"

    def vector_bytes(self) -> int:
        if self.task.metric == "hamming":
            return self.task.dim // 8
        return self.task.dim * (1 if self._object_type == "Byte" else 4)

    def build(self, base: Array) -> None:
        import ngtpy

        first_graph = self.task.scratch / "anng"
        ngtpy.create(
            str(first_graph),
            base.shape[1],
            edge_size_for_creation=self.creation_edges,
            edge_size_for_search=40,
            distance_type=DISTANCES[self.task.metric],
            object_type=self._object_type,
        )
        index = ngtpy.Index(str(first_graph))
        index.batch_insert(base, num_threads=self.task.threads)
        index.save()
        index.close()
        self._optimize(first_graph)

    def _optimize(self, first_graph: Path) -> None:
        import ngtpy

        optimizer = ngtpy.Optimizer(
            num_of_outgoings=self.outgoing_edges,
            num_of_incomings=self.incoming_edges,
            log_disabled=True,
        )
        optimizer.set_processing_modes(
            shortcut_reduction=True,
            search_parameter_optimization=False,
            prefetch_parameter_optimization=True,
            accuracy_table_generation=False,
        )
        optimizer.execute(str(first_graph), str(self._built))
        shutil.rmtree(first_graph)

    def save(self, path: Path) -> None:
        shutil.move(str(self._built), path)

    def open(self, path: Path, base: Array) -> None:
        import ngtpy

        self._index = ngtpy.Index(str(path), read_only=True, log_disabled=True)

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
        self._index = None

    def parameters(self) -> dict[str, Any]:
        return {
            "graph": "ONNG",
            "creation edges": self.creation_edges,
            "outgoing": self.outgoing_edges,
            "incoming": self.incoming_edges,
            "object type": self._object_type,
        }

    def settings(self) -> list[Setting]:
        return sweep("epsilon", EPSILONS)

    def set_setting(self, setting: Setting) -> None:
        self._epsilon = setting.values["epsilon"]
        self._index.set(epsilon=self._epsilon)

    def query(self, vector: Any, k: int) -> Any:
        return self._index.search(vector, k, self._epsilon, with_distance=False)

    def query_batch(self, vectors: Any, k: int, threads: int) -> Any:
        import ngtpy
        from threadpoolctl import threadpool_limits

        results = ngtpy.BatchResults()
        with threadpool_limits(threads, user_api="openmp"):
            self._index.batch_search(vectors, results, k, with_distance=False)
        return np.asarray(results.get_ids())
