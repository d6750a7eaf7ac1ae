"""Owns building an index by the workers of any executor: parts in a folder, then one file.

A part is a function of the model and its rows, so it may be made twice, anywhere, or be lost: what
is complete is taken, what is missing is made. Scheduling, retries and failures are the executor's.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Executor, Future, as_completed
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from annidx._progress import Progress, reporter
from annidx.errors import FormatError
from annidx.index import Path, open_index
from annidx.io import inputs
from annidx.parts import encode, merge, train

__all__ = ["build"]

# Gives the vectors of rows [first, last), as `Index.add_items` takes them; it goes to the workers.
Reader: TypeAlias = Callable[[int, int], npt.NDArray[Any]]

_MODEL, _PLAN = "model.annidx", "plan.json"
# Rows a part, unless told otherwise: some hundred megabytes of floats.
_PART_ROWS = 500_000


class NpyRows:
    """Rows of a .npy file, mapped by whoever asks."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __len__(self) -> int:
        return len(np.load(self.path, mmap_mode="r"))

    def __call__(self, first: int, last: int) -> npt.NDArray[Any]:
        rows: npt.NDArray[Any] = np.load(self.path, mmap_mode="r")[first:last]
        return rows


def build(
    source: Path | Reader,
    out: Path,
    *,
    metric: str,
    executor: Executor,
    dtype: str | None = None,
    count: int | None = None,
    ids: Callable[[int, int], Any] | None = None,
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
    source : path of a .npy file, or callable
        The vectors, (n, dim). A callable gets (first, last) and returns those rows, the same each
        time; it is sent to the workers, and needs `count`.
    out : path
        The index file. It appears when it is complete.
    metric, dtype
        As for `Index`.
    executor : concurrent.futures.Executor
        Who does the work: a `ProcessPoolExecutor`, `dask.distributed.Client.get_executor()`, loky,
        mpi4py.futures. Its workers see `work`, and a .npy source, under the same path.
    count : int, optional
        Rows of a callable.
    ids : callable, optional
        Gets (first, last) and returns the ids of those rows. Default: rows are numbered.
    n_parts : int, optional
        Parts that the rows are cut into. Default: half a million rows each. It changes no byte.
    sample : int, optional
        Train the model on so many rows, spread evenly. Default: on all, and then the bytes are
        those of `Index.build`.
    work : path, optional
        Folder of the model and the parts; removed when the index is complete. Default: `out` with
        ".parts" behind it. What a run that was killed left in it is taken up.
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
    read, total = _rows_of(source, count)
    parts = -(-total // _PART_ROWS)
    if n_parts is not None:
        parts = inputs.whole_number(n_parts, "n_parts", 1, total)
    folder = where + ".parts" if work is None else inputs.file_path(work, "work")
    os.makedirs(folder, exist_ok=True)
    _keep_plan(folder, {"rows": total, "metric": metric, "dtype": dtype, "parts": parts,
                        "sample": sample, "seed": seed})  # fmt: skip
    model = os.path.join(folder, _MODEL)
    identity = _model_in(model)
    if identity is None:
        rows = read(0, total) if sample is None else _sampled(read, total, sample)
        train(rows, metric, dtype, expected_items=total, n_jobs=-1, seed=seed).save(model)
        identity = _model_in(model)
    cuts = np.linspace(0, total, parts + 1).astype(int).tolist()
    names = [os.path.join(folder, f"part-{part:06}.annidx") for part in range(parts)]
    with reporter(progress) as report:
        waiting: list[Future[None]] = []
        for name, first, last in zip(names, cuts[:-1], cuts[1:], strict=True):
            if not _is_part(name, identity, last - first):
                job = (model, read, ids, first, last, name, n_jobs, memory_limit)
                waiting.append(executor.submit(_encode_range, *job))
        done = parts - len(waiting)
        for future in as_completed(waiting):
            future.result()
            done += 1
            if report is not None:
                report("parts", done, parts)
    merge(names, out=where, memory_limit=memory_limit, progress=progress, force=force)
    shutil.rmtree(folder)


def _rows_of(source: Path | Reader, count: int | None) -> tuple[Reader, int]:
    if callable(source):
        if count is None:
            raise ValueError("count: expected the number of rows of a callable source, got None")
        return source, inputs.whole_number(count, "count", 1, 2**32 - 2)
    rows = NpyRows(os.path.abspath(inputs.file_path(source, "source")))
    if count is not None and count != len(rows):
        raise ValueError(f"count: expected the {len(rows)} rows of the file, got {count}")
    if len(rows) == 0:
        raise ValueError(f"source: expected some rows, found none in {rows.path!r}")
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


def _sampled(read: Reader, total: int, sample: int) -> npt.NDArray[Any]:
    wanted = inputs.whole_number(sample, "sample", 1, total)
    rows = np.linspace(0, total, wanted, endpoint=False).astype(int).tolist()
    return np.concatenate([read(row, row + 1) for row in rows])


def _model_in(path: str) -> str | None:
    if not os.path.exists(path):
        return None
    with open_index(path, warm=False, lock=False) as model:
        return str(model.info()["model_identity"])


def _is_part(path: str, model: str | None, rows: int) -> bool:
    """Tell whether a part of the model stands there: files appear complete or not at all."""
    if not os.path.exists(path):
        return False
    try:
        with open_index(path, warm=False, lock=False) as part:
            return part.info()["model_identity"] == model and len(part) == rows
    except FormatError:
        return False


def _encode_range(
    model: str,
    read: Reader,
    ids: Callable[[int, int], Any] | None,
    first: int,
    last: int,
    out: str,
    n_jobs: int,
    memory_limit: int | None,
) -> None:
    """Make one part; runs in a worker."""
    names = None if ids is None else ids(first, last)
    vectors = read(first, last)
    encode(model, vectors, names, out=out, n_jobs=n_jobs, memory_limit=memory_limit, force=True)
