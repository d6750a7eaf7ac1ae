"""MRPT, autotuned: one index per recall target, cut from one set of trees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.contestant import (
    Array,
    Contestant,
    Setting,
    Task,
    VectorsInFile,
    bytes_under,
    sweep,
)

RECALL_TARGETS = (0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)


class Mrpt(Contestant):
    """Its file holds no vectors, and an autotuned index is saved per recall target."""

    name = "mrpt"
    distribution = "mrpt"
    module = "mrpt"
    metrics = frozenset({"euclidean", "angular", "cosine"})
    unit_length_metrics = frozenset({"angular", "cosine"})

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._folder = Path()
        self._base: Any = None
        self._whole: Any = None
        self._index: Any = None

    @property
    def file_holds(self) -> VectorsInFile:
        return "no vectors"

    def build(self, base: Array) -> None:
        import mrpt

        self._whole = mrpt.MRPTIndex(base)
        self._whole.build_autotune_sample(target_recall=None, k=self.task.k, n_test=100)

    def save(self, path: Path) -> None:
        path.mkdir()
        for target in RECALL_TARGETS:
            self._whole.subset(target).save(str(path / f"{target:g}.mrpt"))

    def _load(self, target: float) -> None:
        import mrpt

        self._index = mrpt.MRPTIndex(self._base)
        self._index.load(str(self._folder / f"{target:g}.mrpt"))

    def open(self, path: Path, base: Array) -> None:
        self._folder = path
        self._base = base
        self._load(RECALL_TARGETS[-1])

    def close(self) -> None:
        self._index = None

    def file_bytes(self, path: Path) -> int:
        """Of the largest of its files: one of them would be used."""
        return max(bytes_under(file) for file in path.iterdir())

    def parameters(self) -> dict[str, Any]:
        return {"autotuned on": "100 rows", "k": self.task.k}

    def settings(self) -> list[Setting]:
        return sweep("target_recall", RECALL_TARGETS)

    def set_setting(self, setting: Setting) -> None:
        self._load(setting.values["target_recall"])

    def query(self, vector: Any, k: int) -> Any:
        return self._index.ann(vector)

    def query_batch(self, vectors: Any, k: int, threads: int) -> Any:
        """One OpenMP batch; its thread count is the process's."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(threads, user_api="openmp"):
            return self._index.ann(vectors)
