"""Owns examples of every public call as typed code; test_typing.py has mypy check them.

Not run: what they do is tested elsewhere.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import annidx


def fill(vectors: npt.NDArray[np.float32], names: list[str]) -> annidx.Index:
    index = annidx.Index(dim=128, metric="euclidean", dtype="float16")
    index.add_items(vectors)
    index.add_items(vectors.tolist(), ids=names)
    index.add_items(vectors, ids=np.arange(10))
    index.add_items(vectors.astype(np.uint8), range(3), packed=True)
    index.build()
    index.build(
        n_trees=4,
        recall=0.9,
        n_jobs=-1,
        seed=1,
        queries=vectors[:10],
        progress=True,
        out=Path("x"),
        memory_limit=1 << 30,
    )
    index.build(progress=report)
    index.save("x.annidx", metadata={"model": "a", "tags": [1, 2]})
    index.save(Path("x.annidx"), progress=report)
    index.save("x.annidx", sets={"a": [1, 2], "b": annidx.IdSet(index, ["x"]), "c": "a"})
    return index


def report(stage: str, done: int, total: int) -> None:
    print(stage, done, total)


def ask(index: annidx.Index, v: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    ids, distances = index.query(v, k=10)
    first: int = int(ids[0])
    few = annidx.IdSet(index, [first, 2, 3]) & ~annidx.IdSet(index, ids == 3)
    both: annidx.IdSet = few | few - few
    index.query(v, 10, recall=0.99, search_k=5000, radius=0.5, n_jobs=-1, packed=False)
    index.query([1.0, 2.0], allow=[1, 2, 3], deny={4, 5})
    index.query([[1.0, 2.0]], allow=both, deny=ids)
    index.query(v, allow=[[1, 2], few, None, np.array([1])], deny=frozenset([1]))
    index.query(v, allow=range(10), deny=["a", "b"])
    index.query(v, allow="in_stock", deny=index.sets["new"] & ~index.sets["old"])
    sizes: dict[str, int] = {name: len(chosen) for name, chosen in index.sets.items()}
    print(sizes, [str(item) for item in index.sets["new"]])
    index.query(v, k=None, radius=0.5, deny=index.query_items(3, None, True, radius=1)[0])
    index.query_exact(v, k=5, allow=few, radius=1, n_jobs=2)
    neighbours, apart = index.knn_graph(k=15, include_self=True, output="ids", recall=0.9)
    index.knn_graph(10, output="csr", progress=True, n_jobs=2)
    index.knn_graph(10, out=Path("graph"), force=True)
    index.query_items("a", k=5 + len(neighbours) + len(apart))
    index.query_items([1, 2], 5, True, recall=0.9)
    index.query_items(np.int64(3), include_self=False)
    index.query_items(["a"], missing="skip")
    index.get_vectors([1, 2], missing="skip")
    index.query_like(positive=[1, 2], negative=3, k=20, weights=[1, 2], diversity=0.3, deny=both)
    index.query_like("a", v, recall=0.99, allow=range(9), missing="skip")
    number: int = len(index) + len(few) + index.dim
    known: bool = "a" in index or 5 in index or 7 in few
    print(number, known, index.metric.upper(), index.dtype, index.built, index.closed)
    return distances


def follow(path: Path, v: npt.NDArray[np.float32]) -> int:
    def note(generation: annidx.Index) -> None:
        print(generation.metadata)

    with annidx.load(
        path, follow=True, interval=0.5, background=True, verify=True, on_reload=note
    ) as live:
        heard = live.idset(["a", "b"]) | live.sets["old"]
        ids, distances = live.query(v, k=5, allow="in_stock", deny=heard - live.idset(["c"]))
        live.query_like(["a"], k=3, deny=~heard)
        names: list[str] = [one["reason"] for one in live.status()["refused"]]
        print(ids, distances, names, live.real_path, live.reload_if_changed())
        return live.status()["generation"]


def use(path: Path) -> dict[str, Any]:
    annidx.verify(path)
    cost: dict[str, Any] = annidx.estimate(10**6, 128, "angular", "int8", n_jobs=4)
    with annidx.load(path, warm=True, lock=False) as index:
        vectors = index.get_vectors([1, 2])
        index.get_vectors("a", packed=True).sum()
        curve: list[dict[str, float]] = index.tune(vectors, k=10, n_jobs=1, progress=report)
        table: list[dict[str, Any]] = index.evaluate(vectors, k=5, recall=(0.9, 0.99), n_jobs=2)
        index.evaluate(vectors, recall=0.9)
        index.verify()
        share: float = index.residency()
        metadata: dict[str, Any] | None = index.metadata
        place: str | None = index.path
        print(
            cost, table, curve[0]["recall"], share, metadata, place, annidx.__version__.split(".")
        )
        index.close()
    try:
        return annidx.load(str(path)).info()
    except annidx.FormatError as error:
        value_error: ValueError = error
        raise value_error from None
    except annidx.StateError as error:
        runtime_error: RuntimeError = error
        raise runtime_error from None


def keep_elsewhere(index: annidx.Index) -> annidx.Index:
    image: bytes = index.to_bytes({"model": "a"})
    file = io.BytesIO()
    index.save(file)
    with gzip.open("x.gz", "wb") as packed, open("x", "wb") as plain:
        index.save(packed, progress=report)
        index.save(plain)
    with open("x", "rb") as plain:
        annidx.load(plain)
    annidx.load(bytearray(image), warm=True)
    annidx.load(memoryview(image).toreadonly())
    return annidx.load("s3://bucket/x.annidx")
