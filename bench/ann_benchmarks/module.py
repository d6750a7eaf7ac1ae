"""annidx for ann-benchmarks: ``ann_benchmarks/algorithms/annidx/module.py`` of that project.

``fit`` builds, saves and loads the file, so that what is measured is what a service runs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import annidx

from ..base.module import BaseANN


class Annidx(BaseANN):
    """One index a metric; the query argument is the recall target."""

    def __init__(self, metric: str, method_param: dict[str, Any]) -> None:
        self._metric = metric
        self._dtype = method_param.get("dtype") if metric != "hamming" else None
        self._packed = metric == "hamming"
        self._recall = 0.95
        self._index: Any = None
        self._answers: Any = None
        self.name = self._describe()

    def _describe(self) -> str:
        return f"annidx(dtype={self._dtype or 'default'}, recall={self._recall:g})"

    def _as_stored(self, vectors: np.ndarray) -> np.ndarray:
        """Bits arrive as booleans: annidx takes them packed."""
        return np.packbits(vectors, axis=-1) if self._packed else vectors

    def fit(self, X: np.ndarray) -> None:
        index = annidx.Index(dim=X.shape[1], metric=self._metric, dtype=self._dtype)
        index.add_items(self._as_stored(X), packed=self._packed)
        index.build()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index.annidx"
            index.save(path)
            self._index = annidx.load(path)

    def set_query_arguments(self, recall: float) -> None:
        self._recall = recall
        self.name = self._describe()

    def query(self, q: np.ndarray, n: int) -> np.ndarray:
        if self._packed:
            q = self._as_stored(q)
            return self._index.query(q, k=n, recall=self._recall, packed=True)[0]
        return self._index.query(q, k=n, recall=self._recall)[0]

    def batch_query(self, X: np.ndarray, n: int) -> None:
        self._answers = self._index.query(
            self._as_stored(X), k=n, recall=self._recall, n_jobs=-1, packed=self._packed
        )[0]

    def get_batch_results(self) -> np.ndarray:
        return self._answers

    def done(self) -> None:
        if self._index is not None:
            self._index.close()

    def __str__(self) -> str:
        return self.name
