"""Owns building an index by the workers of any executor: parts in a folder, then one file.

A part is a function of the model and its rows, so it may be made twice, anywhere, or be lost: what
is complete is taken, what is missing is made. Scheduling, retries and failures are the executor's.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import Executor, Future, as_completed
from typing import Any

from annidx._progress import Progress, reporter
from annidx.index import Path
from annidx.io import inputs
from annidx.io.ranges import FileRows, state_of
from annidx.parts import merge
from annidx.units import (
    IdReader,
    Reader,
    encode_range,
    is_made,
    model_in,
    part_ranges,
    train_model,
)

__all__ = ["build"]

_MODEL, _PLAN = "model.annidx", "plan.json"


def build(
    source: Path | Reader,
    out: Path,
    *,
    metric: str,
    executor: Executor,
    dtype: str | None = None,
    count: int | None = None,
    ids: IdReader | None = None,
    vector_column: str | None = None,
    id_column: str | None = None,
    n_parts: int | None = None,
    sample: int | None = None,
    work: Path | None = None,
    seed: int = 0,
    n_jobs: int = 1,
    memory_limit: int | None = None,
    progress: bool | Progress | None = None,
    force: bool = False,
) -> None:
    """Build an index file, its parts by the workers of an executor.

    Parameters
    ----------
    source : path of a file or folder, or callable
        The vectors, (n, dim): .npy, .fvecs, .bvecs, .fbin, .u8bin, .i8bin or .parquet, or a folder
        of such files, in the order of their names. A callable gets (first, last) and returns those
        rows, the same each time; it is sent to the workers, and needs `count`.
    out : path
        The index file. It appears when it is complete.
    metric, dtype
        As for `Index`.
    executor : concurrent.futures.Executor
        Who does the work: a `ProcessPoolExecutor`, `dask.distributed.Client.get_executor()`, loky,
        mpi4py.futures. Its workers see `work`, and files of a source, under the same path.
    count : int, optional
        Rows of a callable.
    ids : callable, optional
        Gets (first, last) and returns the ids of those rows. Default: rows are numbered.
    vector_column, id_column : str, optional
        Columns of Parquet files. Default: the only column of lists, and no ids.
    n_parts : int, optional
        Parts that the rows are cut into. Default: half a million rows each. It changes no byte.
    sample : int, optional
        Train the model on so many rows, spread evenly. Default: on all, and then the bytes are
        those of `Index.build`.
    work : path, optional
        Folder of the model and the parts; removed when the index is complete. Default: `out` with
        ".parts" behind it. What a run that was killed left in it is taken up, unless a file of the
        source has changed since.
    seed : int, default 0
        As for `Index.build`.
    n_jobs : int, default 1
        Threads of each worker.
    memory_limit : int, optional
        Bytes for each worker and for the merge, as for `encode` and `merge`.
    progress : True or callable, optional
        As for `Index.build`: stage "parts" counts parts.
    force : bool, default False
        Let `out` replace a file of another kind.

    Raises
    ------
    ValueError
        An argument is wrong, or `work` holds parts of other arguments.
    OSError, FormatError
        A file cannot be read or written. What a worker raises is raised here; the parts stay.

    Notes
    -----
    The model is trained and the parts are merged in this process.
    """
    where = inputs.file_path(out, "out")
    inputs.require_replaceable(where, force=force)
    read, total = _rows_of(source, count, vector_column, id_column)
    if ids is not None and id_column is not None:
        raise ValueError(f"ids: expected None with id_column {id_column!r}, got a callable")
    ranges = part_ranges(total, n_parts)
    parts = len(ranges)
    folder = where + ".parts" if work is None else inputs.file_path(work, "work")
    os.makedirs(folder, exist_ok=True)
    plan = {"rows": total, "metric": metric, "dtype": dtype, "parts": parts, "sample": sample,
            "seed": seed, "columns": [vector_column, id_column]}  # fmt: skip
    if isinstance(read, FileRows):
        plan["files"] = state_of(read.path)
    _keep_plan(folder, plan)
    model = os.path.join(folder, _MODEL)
    identity = model_in(model)
    if identity is None:
        train_model(read, total, sample, metric, dtype, seed, model)
        identity = model_in(model)
    names = [os.path.join(folder, f"part-{part:06}.annidx") for part in range(parts)]
    with reporter(progress) as report:
        waiting: list[Future[None]] = []
        for name, (first, last) in zip(names, ranges, strict=True):
            if not is_made(name, identity, last - first):
                job = (model, read, ids, first, last, name, n_jobs, memory_limit)
                waiting.append(executor.submit(encode_range, *job))
        done = parts - len(waiting)
        for future in as_completed(waiting):
            future.result()
            done += 1
            if report is not None:
                report("parts", done, parts)
    merge(names, out=where, memory_limit=memory_limit, progress=progress, force=force)
    shutil.rmtree(folder)


def _rows_of(
    source: Path | Reader, count: int | None, vector_column: str | None, id_column: str | None
) -> tuple[Reader, int]:
    if callable(source):
        if count is None:
            raise ValueError("count: expected the number of rows of a callable source, got None")
        if vector_column is not None or id_column is not None:
            raise ValueError(
                "source: expected files with vector_column and id_column, got a callable"
            )
        return source, inputs.whole_number(count, "count", 1, 2**32 - 2)
    path = os.path.abspath(inputs.file_path(source, "source"))
    rows = FileRows(path, vector_column=vector_column, id_column=id_column)
    if count is not None and count != len(rows):
        raise ValueError(f"count: expected the {len(rows)} rows of the source, got {count}")
    return rows, len(rows)


def _keep_plan(folder: str, plan: dict[str, Any]) -> None:
    """Write what the parts are made for, or hold it against what others were made for."""
    path = os.path.join(folder, _PLAN)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        if found != plan:
            raise ValueError(f"work: expected parts of {plan}, found some of {found} in {folder!r}")
        return
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(plan, file)
    os.replace(temporary, path)
