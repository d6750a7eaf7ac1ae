"""Intel's Scalable Vector Search: Vamana graph over LVQ4x8 codes (float32 for dot)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.contestant import Array, Contestant, Setting, Task, VectorsInFile, sweep

WINDOWS = (10, 12, 15, 20, 25, 30, 40, 50, 70, 100, 140, 200, 300, 400, 600, 1000)


class Svs(Contestant):
    name = "svs"
    distribution = "scalable-vs"
    module = "svs"
    metrics = frozenset({"euclidean", "angular", "cosine", "dot"})
    unit_length_metrics = frozenset({"angular", "cosine"})
    degree = 64
    build_window = 128

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._index: Any = None
        self._vectors_file = task.scratch / "vectors.fvecs"

    @property
    def _compressed(self) -> bool:
        """LVQ is for Intel processors only, and its codes lose small inner products."""
        return self.task.metric != "dot" and is_intel()

    @property
    def file_holds(self) -> VectorsInFile:
        return "compressed vectors" if self._compressed else "exact vectors"

    def _distance(self) -> Any:
        """Unit-length vectors are searched by L2, which orders them as the angle does."""
        import svs

        return svs.DistanceType.MIP if self.task.metric == "dot" else svs.DistanceType.L2

    def prepare_base(self, base: Array) -> Array:
        """SVS reads the data to compress from a file of its own."""
        import svs

        rows: Array = self.prepare_batch(base)
        svs.write_vecs(rows, str(self._vectors_file))
        return rows

    def build(self, base: Array) -> None:
        import svs

        parameters = svs.VamanaBuildParameters(
            graph_max_degree=self.degree,
            window_size=self.build_window,
            alpha=0.95 if self.task.metric == "dot" else 1.2,
        )
        data = svs.VectorDataLoader(str(self._vectors_file), svs.DataType.float32)
        if self._compressed:
            data = svs.LVQLoader(data, primary=4, residual=8)
        self._index = svs.Vamana.build(
            parameters, data, self._distance(), num_threads=self.task.threads
        )

    def save(self, path: Path) -> None:
        path.mkdir()
        self._index.save(str(path / "config"), str(path / "graph"), str(path / "data"))
        self._vectors_file.unlink()

    def open(self, path: Path, base: Array) -> None:
        import svs

        folder = str(path / "data")
        if self._compressed:
            data: Any = svs.LVQLoader(folder)
        else:
            data = svs.VectorDataLoader(folder, svs.DataType.float32)
        self._index = svs.Vamana(
            str(path / "config"),
            svs.GraphLoader(str(path / "graph")),
            data,
            self._distance(),
            num_threads=1,
        )

    def close(self) -> None:
        self._index = None

    def parameters(self) -> dict[str, Any]:
        return {
            "graph_max_degree": self.degree,
            "window_size": self.build_window,
            "storage": "LVQ4x8" if self._compressed else "float32",
        }

    def settings(self) -> list[Setting]:
        return sweep("window", [size for size in WINDOWS if size >= self.task.k])

    def set_setting(self, setting: Setting) -> None:
        self._index.search_window_size = int(setting.values["window"])

    def query(self, vector: Any, k: int) -> Any:
        return self._index.search(vector, k)[0][0]

    def query_batch(self, vectors: Any, k: int, threads: int) -> Any:
        self._index.num_threads = threads
        ids = self._index.search(vectors, k)[0]
        self._index.num_threads = 1
        return ids


def is_intel() -> bool:
    return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
