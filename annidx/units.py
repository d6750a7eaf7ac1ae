"""Owns the units of distributed building: the ranges of the parts, the model, the part of a range.

Each is a function of its input, so it may run twice, anywhere, or be lost. It must not know what
schedules them: that is `annidx.parallel` and the engines beside it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from annidx.errors import FormatError
from annidx.index import open_index
from annidx.io import inputs
from annidx.io.ranges import FileRows
from annidx.parts import encode, train

# Gives the vectors of rows [first, last), as `Index.add_items` takes them; it goes to the workers.
Reader: TypeAlias = Callable[[int, int], npt.NDArray[Any]]
IdReader: TypeAlias = Callable[[int, int], Any]

# Rows a part, unless told otherwise: some hundred megabytes of floats.
_PART_ROWS = 500_000

# Rows that a callable is asked for at once when some of them are wanted for the sample.
_SAMPLED_SPAN = 65_536


def part_ranges(total: int, n_parts: int | None) -> list[tuple[int, int]]:
    """Cut rows into the ranges of parts, half a million each unless told otherwise."""
    parts = -(-total // _PART_ROWS)
    if n_parts is not None:
        parts = inputs.whole_number(n_parts, "n_parts", 1, total)
    cuts: list[int] = np.linspace(0, total, parts + 1).astype(int).tolist()
    return list(itertools.pairwise(cuts))


def train_model(
    read: Reader,
    total: int,
    sample: int | None,
    metric: str,
    dtype: str | None,
    seed: int,
    out: str,
) -> None:
    """Make the model of all rows, or of so many spread evenly."""
    rows = read(0, total) if sample is None else sampled(read, total, sample, "sample")
    train(rows, metric, dtype, expected_items=total, n_jobs=-1, seed=seed).save(out, force=True)


def sampled(read: Reader, total: int, count: int, name: str) -> npt.NDArray[Any]:
    """Read so many rows, spread evenly."""
    wanted = inputs.whole_number(count, name, 1, total)
    rows: list[int] = np.linspace(0, total, wanted, endpoint=False).astype(int).tolist()
    if isinstance(read, FileRows):
        return read.take(rows)
    chosen = np.asarray(rows)
    blocks = []
    for first in range(0, total, _SAMPLED_SPAN):  # a callable may make many rows as fast as one
        inside = chosen[(chosen >= first) & (chosen < first + _SAMPLED_SPAN)]
        if len(inside):
            blocks.append(np.asarray(read(int(inside[0]), int(inside[-1]) + 1))[inside - inside[0]])
    return np.concatenate(blocks)


def model_in(path: str) -> str | None:
    """Tell the identity of the model that a file names, None where no such file can be opened."""
    try:
        with open_index(path, warm=False, lock=False) as model:
            return str(model.info()["model_identity"])
    except (FileNotFoundError, FormatError):
        return None


def is_made(path: str, model: str | None, rows: int, kind: str = "part") -> bool:
    """Tell whether so many rows of the model stand there: files appear complete or not at all.

    A model of None is not compared.
    """
    try:
        with open_index(path, warm=False, lock=False) as made:
            info = made.info()
    except (FileNotFoundError, FormatError):
        return False
    return (
        info["kind"] == kind
        and info["items"] == rows
        and (model is None or info["model_identity"] == model)
    )


def encode_range(
    model: str,
    read: Reader,
    ids: IdReader | None,
    first: int,
    last: int,
    out: str,
    n_jobs: int,
    memory_limit: int | None,
) -> None:
    """Make the part of a range; runs in a worker."""
    if isinstance(read, FileRows) and ids is None:
        table = read.table(first, last)
        vectors, names = table.vectors, table.ids
    else:
        vectors, names = read(first, last), None if ids is None else ids(first, last)
    os.makedirs(os.path.dirname(out), exist_ok=True)
    encode(model, vectors, names, out=out, n_jobs=n_jobs, memory_limit=memory_limit, force=True)
