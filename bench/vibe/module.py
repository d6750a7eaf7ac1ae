"""annidx for VIBE: ``vibe/algorithms/annidx/module.py`` of that project.

``fit`` builds, saves and loads the file, so that what is measured is what a service runs. An
index has one form for all queries: there is nothing to fit to a sample of them.
"""

import tempfile
from pathlib import Path

import annidx

from ..base.module import BaseANN

METRICS = {
    "cosine": "cosine",
    "normalized": "cosine",
    "euclidean": "euclidean",
    "ip": "dot",
    "hamming": "hamming",
}


class Annidx(BaseANN):
    """One index a metric; the query argument is the recall target."""

    def __init__(self, metric, dtype):
        self._metric = METRICS[metric]
        self._packed = metric == "hamming"
        self._dtype = None if self._packed else dtype
        self._recall = 0.95
        self._index = None

    def fit(self, X):
        dim = X.shape[1] * (8 if self._packed else 1)
        index = annidx.Index(dim=dim, metric=self._metric, dtype=self._dtype)
        index.add_items(X, packed=self._packed)
        index.build(n_jobs=1)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index.annidx"
            index.save(path)
            self._index = annidx.load(path, warm=True)

    def set_query_arguments(self, recall):
        self._recall = recall

    def query(self, q, n):
        if self._packed:
            return self._index.query(q, k=n, recall=self._recall, packed=True)[0]
        return self._index.query(q, k=n, recall=self._recall)[0]

    def __str__(self):
        return f"annidx(dtype={self._dtype or 'bits'}, recall={self._recall:g})"
