"""annidx itself, through its public Python API."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.contestant import Array, Contestant, Setting, Task, sweep

RECALL_TARGETS = (0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)


class Annidx(Contestant):
    name = "annidx"
    distribution = "annidx"
    module = "annidx"
    metrics = frozenset({"angular", "cosine", "euclidean", "manhattan", "dot", "hamming"})

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._index: Any = None
        self._recall = 0.95
        self._bits = task.metric == "hamming"

    @classmethod
    def identity(cls) -> str:
        """A checkout has one version for many states of its core."""
        import annidx._core

        digest = hashlib.sha256()
        for library in sorted(Path(annidx._core.__path__[0]).glob("*.so")):
            digest.update(library.read_bytes())
        return f"{super().identity()} {digest.hexdigest()}"

    def vector_bytes(self) -> int:
        if self._bits:
            return self.task.dim // 8
        return np.dtype(self.task.dtype).itemsize * self.task.dim

    def prepare_batch(self, vectors: Array) -> Array:
        whole = self._bits or self.task.dtype in {"uint8", "int8"}
        return np.ascontiguousarray(vectors, dtype=None if whole else np.float32)

    def build(self, base: Array) -> None:
        import annidx

        self._index = annidx.Index(
            dim=self.task.dim,
            metric=self.task.metric,
            dtype=None if self._bits else self.task.dtype,
        )
        self._index.add_items(base, packed=self._bits)
        self._index.build(n_jobs=self.task.threads, seed=self.task.seed)

    def save(self, path: Path) -> None:
        self._index.save(path)

    def open(self, path: Path, base: Array) -> None:
        import annidx

        self._index = annidx.load(path)

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
        self._index = None

    def parameters(self) -> dict[str, Any]:
        return {"n_trees": "library's choice", "dtype": self.task.dtype}

    def settings(self) -> list[Setting]:
        return sweep("recall", RECALL_TARGETS)

    def set_setting(self, setting: Setting) -> None:
        self._recall = setting.values["recall"]

    def query(self, vector: Any, k: int) -> Any:
        if self._bits:
            return self._index.query(vector, k=k, recall=self._recall, packed=True)[0]
        return self._index.query(vector, k=k, recall=self._recall)[0]

    def query_batch(self, vectors: Any, k: int, threads: int) -> Any:
        return self._index.query(
            vectors, k=k, recall=self._recall, n_jobs=threads, packed=self._bits
        )[0]


class AnnidxAvx2(Annidx):
    """What annidx does on a machine without AVX-512."""

    name = "annidx-avx2"
    variables: ClassVar[Mapping[str, str]] = {"ANNIDX_ISA": "avx2"}
