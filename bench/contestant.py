"""What a library must offer to be measured: the task, a search setting, the base class.

One small subclass per library lives in ``bench/peers``; nothing else in the benchmark
knows any library by name.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
VectorsInFile = Literal["exact vectors", "compressed vectors", "no vectors"]


@dataclass(frozen=True)
class Task:
    """One data set as a contestant sees it."""

    metric: str
    dtype: str
    dim: int
    rows: int
    k: int
    threads: int
    seed: int
    scratch: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """One point of a search sweep: how hard to search. Larger values always cost more."""

    label: str
    values: Mapping[str, float]


def sweep(name: str, values: Sequence[float]) -> list[Setting]:
    """Settings of one parameter, from the cheapest to the dearest."""
    return [Setting(f"{name}={value:g}", {name: value}) for value in values]


def grid(first: str, firsts: Sequence[int], second: str, seconds: Sequence[int]) -> list[Setting]:
    """Every pair of two parameters."""
    return [
        Setting(f"{first}={a:g} {second}={b:g}", {first: a, second: b})
        for a in firsts
        for b in seconds
    ]


def normalized(vectors: Array) -> Array:
    """Rows scaled to length one in float32; zero rows stay zero."""
    rows = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(lengths > 0, lengths, 1))


def bytes_under(path: Path) -> int:
    """Size of a file, or of all files of a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


class Contestant(ABC):
    """A library under measurement.

    ``prepare_*`` run outside every timing, so each library gets vectors in the form that
    it takes fastest.
    """

    name: ClassVar[str]
    distribution: ClassVar[str]
    module: ClassVar[str]
    metrics: ClassVar[frozenset[str]]
    unit_length_metrics: ClassVar[frozenset[str]] = frozenset()
    """Metrics for which this library is handed vectors of length one."""
    variables: ClassVar[Mapping[str, str]] = {}
    """What its process has in its environment before the library is imported."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @classmethod
    def is_installed(cls) -> bool:
        return importlib.util.find_spec(cls.module) is not None

    @classmethod
    def version(cls) -> str:
        try:
            return metadata.version(cls.distribution)
        except metadata.PackageNotFoundError:
            return str(getattr(importlib.import_module(cls.module), "__version__", "unknown"))

    @classmethod
    def identity(cls) -> str:
        """What a kept index was built by."""
        return f"{cls.distribution} {cls.version()}"

    @classmethod
    def supports(cls, metric: str) -> bool:
        return metric in cls.metrics

    @property
    def unit_length(self) -> bool:
        return self.task.metric in self.unit_length_metrics

    @property
    def file_holds(self) -> VectorsInFile:
        return "exact vectors"

    def vector_bytes(self) -> int:
        """Bytes of one vector in the type this library stores."""
        return self.task.dim // 8 if self.task.metric == "hamming" else 4 * self.task.dim

    def prepare_base(self, base: Array) -> Array:
        rows: Array = self.prepare_batch(base)
        return rows

    def prepare_query(self, vector: Array) -> Any:
        return self.prepare_batch(vector)

    def prepare_batch(self, vectors: Array) -> Any:
        if self.task.metric == "hamming":
            return np.ascontiguousarray(vectors)
        if self.unit_length:
            return normalized(vectors)
        return np.ascontiguousarray(vectors, dtype=np.float32)

    def warm_up_compiler(self) -> None:
        """Compile what a library compiles at first use, before the build is timed."""

    @abstractmethod
    def build(self, base: Array) -> None: ...

    @abstractmethod
    def save(self, path: Path) -> None: ...

    @abstractmethod
    def open(self, path: Path, base: Array) -> None:
        """Open a saved index for queries; ``base`` is for files without vectors."""

    @abstractmethod
    def close(self) -> None: ...

    def file_bytes(self, path: Path) -> int:
        return bytes_under(path)

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Build parameters, for the report."""

    @abstractmethod
    def settings(self) -> list[Setting]: ...

    @abstractmethod
    def set_setting(self, setting: Setting) -> None: ...

    @abstractmethod
    def query(self, vector: Any, k: int) -> Any:
        """Ids of the k nearest, one query a call."""

    def query_batch(self, vectors: Any, k: int, threads: int) -> Any:
        """Ids of the k nearest of every row; by default threads over single calls."""
        if threads == 1:
            return [self.query(vector, k) for vector in vectors]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda vector: self.query(vector, k), vectors))
