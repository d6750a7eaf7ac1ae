"""Owns the tests of building and asking by Spark: bad rows, tasks that fail, the bytes of a build.

One session serves all quick tests: a Java process takes seconds to start.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import annidx

pytest.importorskip("pyspark", reason="needs PySpark: pip install 'annidx[spark]'")
if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
    pytest.skip("needs a Java 17 or newer", allow_module_level=True)

from pyspark.sql import SparkSession
from pyspark.sql import functions as sql

from annidx import spark

COUNT, DIM = 3_000, 8
VECTORS = np.random.default_rng(3).standard_normal((COUNT, DIM), dtype=np.float32)
# Ids that are not in the order of the rows, and of which text has another order than numbers.
IDS = np.random.default_rng(4).permutation(10 * COUNT)[:COUNT].astype(np.int64) - 500

BAD: list[tuple[int | None, list[float | None] | None]] = [
    (None, [1.0] * DIM),
    (90_001, None),
    (90_002, [1.0] * (DIM - 1)),
    (90_003, []),
    (90_004, [float("nan")] * DIM),
    (90_005, [1.0, None] * (DIM // 2)),
    (90_006, [-1e300] + [1.0] * (DIM - 1)),
    (int(IDS[7]), [9.0] * DIM),
    (int(IDS[7]), [8.0] * DIM),
]
REPORT = {
    "null id": 1,
    "null vector": 1,
    "wrong length": 2,
    "null or NaN value": 2,
    "value out of range": 1,
    "repeated id": 2,
}


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    master = os.environ.get("ANNIDX_SPARK_MASTER", "local[2,3]")  # a task may fail twice
    options = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "3",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.executorEnv.PYTHONPATH": os.environ["PYTHONPATH"],  # the annidx tested here
        "spark.log.level": "OFF",
    }
    made = SparkSession.builder.master(master).config(map=options).getOrCreate()
    yield made
    made.stop()


def frame(session: Any, ids: Any = IDS, bad: bool = True) -> Any:
    kind = "string" if isinstance(ids[0], str) else "long"
    rows: list[Any] = list(zip(ids, VECTORS.tolist(), strict=True))
    rows = [(name if kind == "string" else int(name), vector) for name, vector in rows]
    if bad:
        rows += BAD
    return session.createDataFrame(rows, f"track {kind}, place array<double>")


def built(ids: Any, path: Path) -> bytes:
    order = sorted(range(COUNT), key=lambda row: ids[row])
    index = annidx.Index(DIM, "euclidean")
    index.add_items(VECTORS[order], [ids[row] for row in order])
    index.build(seed=5)
    index.save(path)
    return path.read_bytes()


HOW: dict[str, Any] = {"vector": "place", "id": "track", "metric": "euclidean", "seed": 5}


def test_bad_rows_and_a_task_that_dies_leave_the_bytes_of_a_build(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = tmp_path / "deadly"
    deadly.touch()

    class Dying(spark._MakePart):
        """Ends its process after the part was written, once."""

        def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
            yield from list(super().__call__(batches))
            try:
                deadly.unlink()
            except FileNotFoundError:
                return
            os._exit(1)

    monkeypatch.setattr(spark, "_MakePart", Dying)
    out = tmp_path / "index.annidx"
    report = spark.build(frame(session).repartition(4), out=out, **HOW)
    assert report == spark.BuildReport(COUNT, REPORT)
    assert not deadly.exists()
    assert out.read_bytes() == built(IDS.tolist(), tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["index.annidx", "whole"]


def test_parts_that_travel_are_the_same(session: Any, tmp_path: Path) -> None:
    names = [f"t{i}" for i in range(COUNT)]
    rows = frame(session, names, bad=False)
    whole = built(names, tmp_path / "whole")
    for n_parts in (1, 5):
        out = tmp_path / f"{n_parts}.annidx"
        report = spark.build(rows, out=out, n_parts=n_parts, shared=False, **HOW)
        assert report == spark.BuildReport(COUNT, {})
        assert out.read_bytes() == whole


def test_a_sample_is_the_same_however_rows_are_cut(session: Any, tmp_path: Path) -> None:
    rows = frame(session)
    for name, cut in (("a", rows.coalesce(1)), ("b", rows.repartition(7))):
        spark.build(cut, out=tmp_path / name, sample=500, **HOW)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len(annidx.load(tmp_path / "a")) == COUNT


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("text", [False, True])
def test_nearest_is_what_query_finds(
    session: Any, tmp_path: Path, text: bool, shared: bool
) -> None:
    names = [f"t{i}" if text else i + (1 << 40) for i in range(COUNT)]
    index = annidx.Index(DIM, "euclidean")
    index.add_items(VECTORS, names)
    index.build()
    index.save(tmp_path / "index.annidx")
    asked = VECTORS[:200] + np.float32(0.1)
    rows: list[Any] = [(f"q{i}", vector.tolist()) for i, vector in enumerate(asked)]
    rows += [("null", None), ("short", [1.0]), ("nan", [float("nan")] * DIM)]
    queries = session.createDataFrame(rows, "who string, vec array<float>").repartition(3)
    found = spark.nearest(queries, tmp_path / "index.annidx", 7, id="who", shared=shared)
    table = found.orderBy("query", "rank").toArrow().to_pylist()
    none = {"item": None, "distance": None, "rank": None}
    bad = [row for row in table if row["item"] is None]
    assert bad == [{"query": name, **none} for name in ("nan", "null", "short")]
    answers: dict[str, list[Any]] = {}
    for row in table:
        if row["item"] is not None:
            answers.setdefault(row["query"], []).append(row)
    assert len(answers) == len(asked)
    for i, vector in enumerate(asked):
        items, distances = index.query(vector, k=7)
        assert [row["item"] for row in answers[f"q{i}"]] == items.tolist()
        assert [row["distance"] for row in answers[f"q{i}"]] == distances.tolist()
        assert [row["rank"] for row in answers[f"q{i}"]] == list(range(1, 8))


def test_fewer_items_than_asked_for(session: Any, tmp_path: Path) -> None:
    index = annidx.Index(2, "cosine")
    index.add_items([[1, 0], [0, 1]])
    index.build()
    index.save(tmp_path / "two")
    queries = session.createDataFrame([(5, [1, 0])], "id long, vec array<int>")
    rows = spark.nearest(queries, tmp_path / "two", 10).orderBy("rank").collect()
    assert [tuple(row) for row in rows] == [(5, 0, 0.0, 1), (5, 1, 1.0, 2)]


def test_whole_numbers_are_held_to_their_dtype(session: Any, tmp_path: Path) -> None:
    rows = [(1, [1.0, 2.0]), (2, [1.5, 2.0]), (3, [256.0, 2.0]), (4, [255.0, 0.0])]
    df = session.createDataFrame(rows, "id long, vec array<double>")
    report = spark.build(df, out=tmp_path / "o", metric="euclidean", dtype="uint8")
    assert report == spark.BuildReport(2, {"value not whole": 1, "value out of range": 1})


def test_what_is_wrong_is_told(session: Any, tmp_path: Path) -> None:
    df = session.createDataFrame([(1.5, 2, None)], "a double, id long, vec array<float>")
    out = tmp_path / "o"
    with pytest.raises(ValueError, match="expected a column 'vector'"):
        spark.build(df, "vector", out=out, metric="dot")
    with pytest.raises(ValueError, match="vector: expected a column of arrays of numbers"):
        spark.build(df, "a", out=out, metric="dot")
    with pytest.raises(ValueError, match="id: expected a column of integers or strings"):
        spark.build(df, id="a", out=out, metric="dot")
    with pytest.raises(ValueError, match="expected some good rows, got none.*null vector"):
        spark.build(df, out=out, metric="dot")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_executors_that_are_processes(tmp_path: Path) -> None:
    """All of this file once more in two executors, each a Java process of its own."""
    environment = {**os.environ, "ANNIDX_SPARK_MASTER": "local-cluster[2,1,1024]"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_two_million_rows_one_in_a_hundred_bad(session: Any, tmp_path: Path) -> None:
    total, dim = 2_000_000, 32
    numbers = [sql.rand(seed).cast("float") for seed in range(dim)]
    place = sql.col("id") % 400
    vector = (
        sql.when(place == 0, sql.lit(None))
        .when(place == 100, sql.array(*numbers[1:]))
        .when(place == 200, sql.array(*numbers[1:], sql.lit(float("nan")).cast("float")))
        .otherwise(sql.array(*numbers))
    )
    name = sql.when(place == 300, sql.lit(None)).otherwise(sql.col("id"))
    rows = session.range(total).select(name.alias("id"), vector.alias("vec"))
    rows.write.parquet(str(tmp_path / "rows"))
    rows = session.read.parquet(str(tmp_path / "rows"))
    out = tmp_path / "index.annidx"
    report = spark.build(rows, out=out, metric="euclidean", n_parts=8, sample=200_000)
    kinds = ("null vector", "wrong length", "null or NaN value", "null id")
    assert report == spark.BuildReport(total * 99 // 100, dict.fromkeys(kinds, total // 400))
    annidx.verify(out)
    index = annidx.load(out)
    asked = rows.where("id % 1000 = 1").select("id", "vec")
    found = spark.nearest(asked, out, 5).orderBy("query", "rank").toArrow()
    queries = asked.orderBy("id").toArrow()
    items, distances = index.query(queries["vec"], k=5)
    assert found["query"].to_numpy()[::5].tolist() == queries["id"].to_pylist()
    assert found["item"].to_numpy().reshape(-1, 5).tolist() == items.tolist()
    assert found["distance"].to_numpy().reshape(-1, 5).tolist() == distances.tolist()
    assert (items[:, 0] == queries["id"].to_numpy()).mean() > 0.99
