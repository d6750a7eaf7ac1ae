"""PyNNDescent with 30 neighbours, its default, and a prepared (compiled) search."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from bench.contestant import Array, Contestant, Setting, Task, sweep

EPSILONS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.18, 0.22, 0.26, 0.3, 0.4, 0.5)
METRICS = {
    "euclidean": "euclidean",
    "angular": "dot",
    "cosine": "dot",
    "manhattan": "manhattan",
    "hamming": "bit_hamming",
}


class PyNNDescent(Contestant):
    """No ``dot``: its inner-product search stays below recall 0.5 on varying norms.

    Hamming batches run on one thread: its parallel ones do not compile for bits.
    """

    name = "pynndescent"
    distribution = "pynndescent"
    module = "pynndescent"
    metrics = frozenset(METRICS)
    unit_length_metrics = frozenset({"angular", "cosine"})
    neighbours = 30

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._index: Any = None
        self._epsilon = 0.1

    def prepare_query(self, vector: Array) -> Array:
        return np.asarray(self.prepare_batch(vector)).reshape(1, -1)

    def _new_index(self, base: Array) -> Any:
        import pynndescent

        index = pynndescent.NNDescent(
            base,
            metric=METRICS[self.task.metric],
            n_neighbors=self.neighbours,
            random_state=self.task.seed,
            n_jobs=self.task.threads,
            compressed=True,
            parallel_batch_queries=self.task.metric != "hamming",
        )
        index.prepare()
        return index

    def warm_up_compiler(self) -> None:
        """Numba compiles at the first build: not part of building this data."""
        rng = np.random.default_rng(self.task.seed)
        if self.task.metric == "hamming":
            sample = rng.integers(0, 256, (2000, self.task.dim // 8), dtype=np.uint8)
        else:
            sample = normalized_sample(rng, self.task.dim)
        self._new_index(sample).query(sample[:1], k=self.task.k)

    def build(self, base: Array) -> None:
        self._index = self._new_index(base)

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            pickle.dump(self._index, file, protocol=pickle.HIGHEST_PROTOCOL)

    def open(self, path: Path, base: Array) -> None:
        import numba

        with path.open("rb") as file:
            self._index = pickle.load(file)
        numba.set_num_threads(1)

    def close(self) -> None:
        self._index = None

    def parameters(self) -> dict[str, Any]:
        return {"n_neighbors": self.neighbours}

    def settings(self) -> list[Setting]:
        return sweep("epsilon", EPSILONS)

    def set_setting(self, setting: Setting) -> None:
        self._epsilon = setting.values["epsilon"]

    def query(self, vector: Any, k: int) -> Any:
        return self._index.query(vector, k=k, epsilon=self._epsilon)[0][0]

    def query_batch(self, vectors: Any, k: int, threads: int) -> Any:
        import numba

        numba.set_num_threads(threads)
        ids = self._index.query(vectors, k=k, epsilon=self._epsilon)[0]
        numba.set_num_threads(1)
        return ids


def normalized_sample(rng: np.random.Generator, dim: int) -> Array:
    """A small unit-length float32 set to compile on."""
    sample = rng.standard_normal((2000, dim), dtype=np.float32)
    sample /= np.linalg.norm(sample, axis=1, keepdims=True)
    return sample
