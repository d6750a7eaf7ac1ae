"""Faiss: HNSW, IVF-PQ fast scan with exact refinement, and the two binary indexes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from bench.contestant import Array, Contestant, Setting, Task, grid, sweep

EF = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 896, 1280)
NPROBE = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
K_FACTOR = (5, 10, 20, 40, 80, 160)
NPROBE_BINARY = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)


class _Faiss(Contestant):
    """What the four share: distances, files, calls, threads."""

    distribution = "faiss-cpu"
    module = "faiss"
    unit_length_metrics = frozenset({"angular", "cosine"})

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._index: Any = None

    def _faiss_metric(self) -> int:
        import faiss

        if self.task.metric == "manhattan":
            return int(faiss.METRIC_L1)
        if self.task.metric == "euclidean":
            return int(faiss.METRIC_L2)
        return int(faiss.METRIC_INNER_PRODUCT)

    def prepare_query(self, vector: Array) -> Array:
        """Faiss takes matrices only."""
        return np.asarray(self.prepare_batch(vector)).reshape(1, -1)

    def _use_build_threads(self) -> None:
        import faiss

        faiss.omp_set_num_threads(self.task.threads)

    def save(self, path: Path) -> None:
        import faiss

        faiss.write_index(self._index, str(path))

    def open(self, path: Path, base: Array) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index(str(path))

    def close(self) -> None:
        self._index = None

    def query(self, vector: Any, k: int) -> Any:
        return self._index.search(vector, k)[1][0]

    def query_batch(self, vectors: Any, k: int, threads: int) -> Any:
        import faiss

        faiss.omp_set_num_threads(threads)
        ids = self._index.search(vectors, k)[1]
        faiss.omp_set_num_threads(1)
        return ids


class FaissHnsw(_Faiss):
    """HNSW32; the vectors as float32, or as bytes where the data are bytes."""

    name = "faiss-hnsw"
    metrics = frozenset({"euclidean", "angular", "cosine", "dot", "manhattan"})
    links = 32
    ef_construction = 200

    @property
    def _as_bytes(self) -> bool:
        return self.task.dtype == "uint8" and self.task.metric == "euclidean"

    def vector_bytes(self) -> int:
        return self.task.dim if self._as_bytes else 4 * self.task.dim

    def build(self, base: Array) -> None:
        import faiss

        self._use_build_threads()
        if self._as_bytes:
            kind: Any = faiss.ScalarQuantizer.QT_8bit_direct
            self._index = faiss.IndexHNSWSQ(self.task.dim, kind, self.links)
            self._index.train(base)
        else:
            self._index = faiss.IndexHNSWFlat(self.task.dim, self.links, self._faiss_metric())
        self._index.hnsw.efConstruction = self.ef_construction
        self._index.add(base)

    def parameters(self) -> dict[str, Any]:
        storage = "8-bit direct" if self._as_bytes else "float32"
        return {"M": self.links, "efConstruction": self.ef_construction, "storage": storage}

    def settings(self) -> list[Setting]:
        return sweep("efSearch", [ef for ef in EF if ef >= self.task.k])

    def set_setting(self, setting: Setting) -> None:
        self._index.hnsw.efSearch = int(setting.values["efSearch"])


class FaissIvfPqFastScan(_Faiss):
    """IVF, 4-bit product codes of two dimensions each, float32 refinement."""

    name = "faiss-ivfpqfs"
    metrics = frozenset({"euclidean", "angular", "cosine", "dot"})

    @property
    def _lists(self) -> int:
        """4 sqrt(n), Faiss's own guideline, with at least 39 training points a list."""
        return max(1, min(round(4 * math.sqrt(self.task.rows)), self.task.rows // 39))

    @property
    def _padded_dim(self) -> int:
        return self.task.dim + self.task.dim % 2

    def prepare_batch(self, vectors: Array) -> Any:
        rows = super().prepare_batch(vectors)
        if self._padded_dim == self.task.dim:
            return rows
        widths = [(0, 0)] * (rows.ndim - 1) + [(0, 1)]
        return np.pad(rows, widths)

    def build(self, base: Array) -> None:
        import faiss

        self._use_build_threads()
        description = f"IVF{self._lists},PQ{self._padded_dim // 2}x4fs,RFlat"
        self._index = faiss.index_factory(self._padded_dim, description, self._faiss_metric())
        self._index.train(base)
        self._index.add(base)

    def parameters(self) -> dict[str, Any]:
        return {"nlist": self._lists, "codes": f"{self._padded_dim // 2} x 4 bit", "refine": "flat"}

    def settings(self) -> list[Setting]:
        probes = [probe for probe in NPROBE if probe <= self._lists]
        return grid("nprobe", probes, "k_factor", K_FACTOR)

    def set_setting(self, setting: Setting) -> None:
        import faiss

        faiss.extract_index_ivf(self._index).nprobe = int(setting.values["nprobe"])
        self._index.k_factor = float(setting.values["k_factor"])


class _FaissBinary(_Faiss):
    """Hamming over packed bits."""

    metrics = frozenset({"hamming"})

    def save(self, path: Path) -> None:
        import faiss

        faiss.write_index_binary(self._index, str(path))

    def open(self, path: Path, base: Array) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index_binary(str(path))


class FaissBinaryHnsw(_FaissBinary):
    name = "faiss-binary-hnsw"
    links = 16
    ef_construction = 200

    def build(self, base: Array) -> None:
        import faiss

        self._use_build_threads()
        self._index = faiss.IndexBinaryHNSW(self.task.dim, self.links)
        self._index.hnsw.efConstruction = self.ef_construction
        self._index.add(base)

    def parameters(self) -> dict[str, Any]:
        return {"M": self.links, "efConstruction": self.ef_construction}

    def settings(self) -> list[Setting]:
        return sweep("efSearch", [ef for ef in EF if ef >= self.task.k])

    def set_setting(self, setting: Setting) -> None:
        self._index.hnsw.efSearch = int(setting.values["efSearch"])


class FaissBinaryIvf(_FaissBinary):
    name = "faiss-binary-ivf"

    @property
    def _lists(self) -> int:
        return max(1, min(round(2 * math.sqrt(self.task.rows)), self.task.rows // 39))

    def build(self, base: Array) -> None:
        import faiss

        self._use_build_threads()
        self._index = faiss.index_binary_factory(self.task.dim, f"BIVF{self._lists}")
        self._index.train(base)
        self._index.add(base)

    def parameters(self) -> dict[str, Any]:
        return {"nlist": self._lists}

    def settings(self) -> list[Setting]:
        return sweep("nprobe", [probe for probe in NPROBE_BINARY if probe <= self._lists])

    def set_setting(self, setting: Setting) -> None:
        self._index.nprobe = int(setting.values["nprobe"])
