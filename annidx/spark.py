"""Owns the face for Apache Spark: an index built of a DataFrame, and neighbours of its rows.

An extra: nothing else imports it. Order, shuffles, scheduling and retries are Spark's; training,
coding and merging are those of `annidx.train`, `annidx.encode` and `annidx.merge`.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from annidx.index import Index, Path
from annidx.io import inputs
from annidx.opening import load
from annidx.parts import encode, merge, train

try:
    import pyarrow as arrow
    import pyarrow.compute
    from pyspark import SparkFiles, StorageLevel, TaskContext
    from pyspark.sql import functions as sql
    from pyspark.sql import types
except ImportError as error:
    raise ImportError(
        "annidx.spark needs PySpark 4 and pyarrow: pip install 'annidx[spark]'"
    ) from error

__all__ = ["BuildReport", "build", "nearest"]

_LOG = logging.getLogger("annidx")

# Least and greatest number that a dtype keeps, and whether it keeps whole numbers only.
_BOUNDS = {
    "float32": (-3.4028234663852886e38, 3.4028234663852886e38, False),
    "float16": (-65504.0, 65504.0, False),
    "int8": (-128.0, 127.0, True),
    "uint8": (0.0, 255.0, True),
    "bits": (0.0, 1.0, True),
}
# Bytes of a part in one row, where parts travel as rows: what Arrow and Spark move with ease.
_CHUNK_BYTES = 8 << 20
_MADE = "part int, items long, repeated long, bytes binary"
_WRONG_LENGTH, _REPEATED = "wrong length", "repeated id"


@dataclass(frozen=True)
class BuildReport:
    """What became of the rows of a DataFrame.

    Attributes
    ----------
    items : int
        Rows in the index.
    bad : dict of str to int
        Rows left out, by reason: "null id", "null vector", "wrong length", "null or NaN value",
        "value out of range" (infinite, or more than the dtype keeps), "value not whole" (int8,
        uint8, bits), "repeated id". Reasons without rows are not named.
    """

    items: int
    bad: dict[str, int]


def build(
    df: Any,
    vector: str = "vec",
    id: str = "id",
    *,
    out: Path,
    metric: str,
    dtype: str | None = None,
    n_parts: int | None = None,
    sample: int = 500_000,
    work: Path | None = None,
    shared: bool = True,
    seed: int = 0,
    n_jobs: int = 1,
    memory_limit: int | None = None,
    force: bool = False,
) -> BuildReport:
    """Build an index file of a DataFrame, its parts by Spark's executors.

    Parameters
    ----------
    df : pyspark.sql.DataFrame
        A row for each item. It is evaluated several times and must give the same rows each time:
        persist one that costs much or draws random numbers.
    vector : str, default "vec"
        Column of arrays of numbers, all of one length: the length that most rows have.
    id : str, default "id"
        Column of ids, integers or strings.
    out : path
        The index file, written by the driver. It appears when it is complete.
    metric, dtype
        As for `Index`.
    n_parts : int, optional
        Parts, each made by one task that holds its vectors in memory. Default: as many as Spark
        makes of a sort. It changes no byte.
    sample : int, default 500_000
        Train the model, in the driver, on about so many rows; on all if there are no more. They
        must fit into spark.driver.maxResultSize.
    work : path, optional
        Folder for the model and the parts; what this build puts there is removed. Default: that
        of `out`.
    shared : bool, default True
        Executors see `work` under the same path, and write their parts there. False: the model
        travels by `SparkContext.addFile`, the parts come back as rows.
    seed : int, default 0
        As for `Index.build`.
    n_jobs : int, default 1
        Threads of each task.
    memory_limit : int, optional
        Bytes for each task and for the merge, as for `encode` and `merge`.
    force : bool, default False
        Let `out` replace a file of another kind.

    Returns
    -------
    BuildReport
        How many rows the index has, how many were left out, and why.

    Raises
    ------
    ValueError
        An argument or a column is wrong, or no row is good.
    OSError
        A file cannot be written. What a task raises ends the build as Spark's error.

    Notes
    -----
    The bytes depend on the rows and the arguments only, not on how Spark cuts and orders the rows,
    nor on tasks that failed or ran twice: items lie in the order of their ids. If `sample` is at
    least the number of rows they are the bytes of `Index.build` of the rows in that order. Of rows
    with one id the least vector, number by number, stays. Rows left out are also told by a warning
    of the log "annidx".

    Reads `df` four times (counting, the sample, the bounds of the sort, the parts) and shuffles it
    once. No vector comes to the driver but the sample's. A driver that dies leaves nothing at
    `out`; the next build begins anew. annidx must be installed where the executors run.
    """
    where = os.path.abspath(inputs.file_path(out, "out"))
    inputs.require_replaceable(where, force=force)
    parent = os.path.dirname(where) if work is None else inputs.file_path(work, "work")
    parent = os.path.abspath(parent)
    wanted = inputs.whole_number(sample, "sample", 1, 2**32 - 2)
    number = inputs.whole_number(seed, "seed", 0, 2**64 - 1)
    if n_parts is not None:
        n_parts = inputs.whole_number(n_parts, "n_parts", 1, 2**31 - 1)
    kept_as = Index(1, metric, dtype).dtype
    rows = _columns(df, vector, id)
    total, dim, bad = _count(rows, kept_as)
    good = rows.where(_flaw(kept_as, dim).isNull())
    os.makedirs(parent, exist_ok=True)
    folder = os.path.join(parent, f"{os.path.basename(where)}.parts-{uuid.uuid4().hex}")
    os.mkdir(folder)
    try:
        model = os.path.join(folder, f"{os.path.basename(folder)}.model")
        picked = _distinct(_sampled(good, total, wanted, number).toArrow())
        train(picked["vec"], metric, dtype, expected_items=total, seed=number).save(model)
        ordered = good.repartitionByRange(*([n_parts] if n_parts else []), "id")
        ordered = ordered.sortWithinPartitions("id", "vec")
        make = _MakePart(model, folder if shared else None, n_jobs, memory_limit)
        parts, repeated = (_made_in_place if shared else _made_and_sent)(ordered, make, folder)
        merge(parts, out=where, memory_limit=memory_limit, force=force)
    finally:
        # A copy of a task that Spark gave up may still be writing there.
        shutil.rmtree(folder, ignore_errors=True)
    if repeated:
        bad[_REPEATED] = repeated
    if bad:
        _LOG.warning("%s: rows left out: %s", where, bad)
    return BuildReport(total - repeated, bad)


def nearest(
    queries: Any,
    index_path: Path,
    k: int = 10,
    *,
    vector: str = "vec",
    id: str = "id",
    recall: float | None = None,
    shared: bool = True,
) -> Any:
    """Find the nearest items of each row of a DataFrame.

    Parameters
    ----------
    queries : pyspark.sql.DataFrame
        A row for each query.
    index_path : path
        The index file.
    k : int, default 10
        Items wanted for each query, at least 1.
    vector, id : str, default "vec" and "id"
        Columns of the vectors, arrays of numbers, and of what the queries are called, of any type.
    recall : float, optional
        As for `Index.query`.
    shared : bool, default True
        Executors see the file under the same path. False: it travels by `SparkContext.addFile`.

    Returns
    -------
    pyspark.sql.DataFrame
        Columns query, item (long or string), distance (double) and rank (int, from 1):
        min(k, items) rows for each query, nearest first. A query whose vector is null, of another
        length, or holds null, NaN or what the index cannot keep has one row, of nulls behind its
        name.

    Raises
    ------
    ValueError
        An argument or a column is wrong.
    OSError, FormatError
        As for `load`.

    Notes
    -----
    Lazy, as DataFrames are. The items and distances are those of `Index.query` of each vector. A
    worker process of Spark maps the file once, for all its tasks; while the file stays the same,
    so does the answer. One thread a task.
    """
    wanted = inputs.whole_number(k, "k", 1, 2**32 - 1)
    path = os.path.abspath(inputs.file_path(index_path, "index_path"))
    with load(path) as index:
        about, count = index.info(), len(index)
        item = types.StringType() if about["ids"] == "str" else types.LongType()
    if not shared:
        path = _sent(queries.sparkSession, path, about["identity"])
    sound = sql.when(_flaw(about["dtype"], about["dim"], is_query=True).isNull(), sql.col("vec"))
    rows = _columns(queries, vector, id, is_query=True).select("id", sound.alias("vec"))
    schema = types.StructType(
        [
            types.StructField("query", rows.schema["id"].dataType),
            types.StructField("item", item),
            types.StructField("distance", types.DoubleType()),
            types.StructField("rank", types.IntegerType()),
        ]
    )
    return rows.mapInArrow(_Ask(path, min(wanted, count), recall), schema)


def _columns(df: Any, vector: str, name: str, is_query: bool = False) -> Any:
    """Give the columns "id" and "vec" of what the caller calls otherwise, checked by type."""
    for column in (vector, name):
        if column not in df.columns:
            raise ValueError(f"df: expected a column {column!r}, got {', '.join(df.columns)}")
    kind, of_ids = df.schema[vector].dataType, df.schema[name].dataType
    if not isinstance(kind, types.ArrayType) or not isinstance(kind.elementType, types.NumericType):
        raise ValueError(
            f"vector: expected a column of arrays of numbers, got {kind.simpleString()} "
            "(of Spark ML's vectors pyspark.ml.functions.vector_to_array makes arrays)"
        )
    ids = df[f"`{name}`"]
    if not is_query and not isinstance(of_ids, types.StringType):
        if not isinstance(of_ids, types.IntegralType):
            expected = "a column of integers or strings"
            raise ValueError(f"id: expected {expected}, got {of_ids.simpleString()}")
        ids = ids.cast("long")
    return df.select(ids.alias("id"), df[f"`{vector}`"].cast("array<float>").alias("vec"))


def _flaw(dtype: str, dim: int | None = None, is_query: bool = False) -> Any:
    """Give an expression of what is wrong with a row, null if nothing; without `dim` any length.

    Spark's own functions, those that it compiles where there are some. Its NaN is greater than all
    numbers and equal to itself.
    """
    vector = sql.col("vec")
    # Null when NaN is not found beside missing values.
    has_nan = sql.coalesce(sql.array_contains(vector, float("nan")), sql.lit(True))
    least, greatest, whole = _BOUNDS["float32" if is_query and dtype != "bits" else dtype]
    inside = (sql.array_min(vector) >= least) & (sql.array_max(vector) <= greatest)
    flaw = sql.when(vector.isNull(), "null vector")
    if not is_query:
        flaw = sql.when(sql.col("id").isNull(), "null id").when(vector.isNull(), "null vector")
    if dim is not None:
        flaw = flaw.when(sql.size(vector) != dim, _WRONG_LENGTH)
    flaw = flaw.when(has_nan, "null or NaN value").when(~inside, "value out of range")
    if whole and (not is_query or dtype == "bits"):
        flaw = flaw.when(sql.exists(vector, lambda x: x != sql.rint(x)), "value not whole")
    return flaw


def _count(rows: Any, dtype: str) -> tuple[int, int, dict[str, int]]:
    """Count good rows and bad ones by reason, and tell the length of the good."""
    length = sql.size("vec").alias("length")
    lengths: dict[int, int] = {}
    bad: dict[str, int] = {}
    for row in rows.groupBy(length, _flaw(dtype).alias("flaw")).count().collect():
        if row["flaw"] is not None:
            bad[row["flaw"]] = bad.get(row["flaw"], 0) + row["count"]
        elif row["length"] > 0:
            lengths[row["length"]] = row["count"]
        else:
            bad[_WRONG_LENGTH] = bad.get(_WRONG_LENGTH, 0) + row["count"]
    if not lengths:
        raise ValueError(f"df: expected some good rows, got none; bad ones: {bad}")
    dim = max(lengths, key=lambda each: (lengths[each], -each))
    good = lengths.pop(dim)
    if lengths:
        bad[_WRONG_LENGTH] = bad.get(_WRONG_LENGTH, 0) + sum(lengths.values())
    return good, dim, bad


def _sampled(good: Any, total: int, wanted: int, seed: int) -> Any:
    """Draw rows by their ids, so that the same are drawn however Spark cuts them."""
    if wanted < total:
        scale = 1 << 32
        place = sql.pmod(sql.xxhash64(sql.lit(str(seed)), "id"), sql.lit(scale))
        good = good.where(place < wanted * scale // total)
    return good.orderBy("id", "vec")


def _distinct(table: Any) -> Any:
    """Keep the first row of each id of a table in the order of ids."""
    if len(table) < 2:
        return table
    ids = table["id"].combine_chunks()
    same = arrow.compute.equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    if not same.any():
        return table
    return table.filter(arrow.array(np.concatenate([[True], ~same])))


@dataclass(frozen=True)
class _MakePart:
    """Makes the part of a partition, in a worker; a function of the rows, however often it runs."""

    model: str
    folder: str | None
    n_jobs: int
    memory_limit: int | None

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        rows = [batch for batch in batches if batch.num_rows]
        if not rows:
            return
        part = TaskContext.get().partitionId()
        table = arrow.Table.from_batches(rows)
        kept = _distinct(table)
        counts = (part, len(kept), len(table) - len(kept))
        if self.folder is not None:
            self._encode(self.model, kept, _part_in(self.folder, part))
            yield _made_row(*counts, None)
            return
        with tempfile.TemporaryDirectory() as folder:
            out = _part_in(folder, part)
            self._encode(SparkFiles.get(os.path.basename(self.model)), kept, out)
            with open(out, "rb") as file:
                while data := file.read(_CHUNK_BYTES):
                    yield _made_row(*counts, data)
                    counts = (part, 0, 0)

    def _encode(self, model: str, rows: Any, out: str) -> None:
        ids, memory_limit = _ids_of(rows["id"]), self.memory_limit
        how: dict[str, Any] = {"n_jobs": self.n_jobs, "memory_limit": memory_limit, "force": True}
        encode(model, rows["vec"], ids, out=out, **how)


def _ids_of(column: Any) -> Any:
    return column.to_numpy() if arrow.types.is_integer(column.type) else column.to_pylist()


def _part_in(folder: str, part: int) -> str:
    return os.path.join(folder, f"part-{part:06}.annidx")


def _made_row(part: int, items: int, repeated: int, data: bytes | None) -> Any:
    kinds = (arrow.int32(), arrow.int64(), arrow.int64(), arrow.binary())
    columns = [
        arrow.array([value], kind)
        for value, kind in zip((part, items, repeated, data), kinds, strict=True)
    ]
    return arrow.RecordBatch.from_arrays(columns, ["part", "items", "repeated", "bytes"])


def _made_in_place(ordered: Any, make: _MakePart, folder: str) -> tuple[list[str], int]:
    made = ordered.mapInArrow(make, _MADE).collect()
    parts = [_part_in(folder, part) for part in sorted(row["part"] for row in made)]
    return parts, sum(row["repeated"] for row in made)


def _made_and_sent(ordered: Any, make: _MakePart, folder: str) -> tuple[list[str], int]:
    """Have all parts made at once, kept on the executors' disks, then fetch one after another."""
    ordered.sparkSession.sparkContext.addFile(make.model)
    made = ordered.mapInArrow(make, _MADE).persist(StorageLevel.DISK_ONLY)
    try:
        made.count()
        parts: list[str] = []
        repeated = 0
        for row in made.toLocalIterator():
            path = _part_in(folder, row["part"])
            if path not in parts[-1:]:
                parts.append(path)
            with open(path, "ab") as file:
                file.write(row["bytes"])
            repeated += row["repeated"]
        return parts, repeated
    finally:
        made.unpersist()


@dataclass(frozen=True)
class _Ask:
    """Answers the queries of a partition, in a worker."""

    path: str
    k: int
    recall: float | None

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        path = self.path if os.path.isabs(self.path) else SparkFiles.get(self.path)
        stat = os.stat(path)
        index = _mapped(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))
        for batch in batches:
            yield self._answers(index, batch)

    def _answers(self, index: Index, batch: Any) -> Any:
        sound = np.asarray(batch["vec"].is_valid())
        lengths = np.where(sound, self.k, 1)
        queries = batch["id"].take(arrow.array(np.repeat(np.arange(len(sound)), lengths)))
        vectors = arrow.chunked_array([batch["vec"].drop_null()])
        missing = np.repeat(~sound, lengths)
        text = index.info()["ids"] == "str"
        items = np.zeros(len(missing), dtype=object if text else np.int64)
        distances = np.zeros(len(missing), dtype=np.float64)
        ranks = np.zeros(len(missing), dtype=np.int32)
        if sound.any():
            found, apart = index.query(vectors, k=self.k, recall=self.recall)
            items[~missing], distances[~missing] = found.reshape(-1), apart.reshape(-1)
            ranks[~missing] = np.tile(np.arange(1, self.k + 1), int(sound.sum()))
        columns = [queries] + [arrow.array(each, mask=missing) for each in (distances, ranks)]
        kind = arrow.string() if text else arrow.int64()
        columns.insert(1, arrow.array(items, kind, mask=missing))
        return arrow.RecordBatch.from_arrays(columns, ["query", "item", "distance", "rank"])


@lru_cache(maxsize=4)
def _mapped(path: str, _stamp: tuple[int, int, int]) -> Index:
    """Map a file once for all tasks of this worker; a file that was replaced is another."""
    return load(path)


# Folders of the files that were sent, links where possible; they go when the process ends.
_SENT: dict[str, tempfile.TemporaryDirectory[str]] = {}


def _sent(session: Any, path: str, identity: str) -> str:
    """Send a file to the executors under a name of its own: Spark sends no name twice."""
    name = f"{identity}.annidx"
    if identity not in _SENT:
        _SENT[identity] = tempfile.TemporaryDirectory()
        here = os.path.join(_SENT[identity].name, name)
        try:
            os.link(path, here)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, here)
    session.sparkContext.addFile(os.path.join(_SENT[identity].name, name))
    return name
