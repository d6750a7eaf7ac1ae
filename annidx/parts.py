"""Owns building in parts: a model is trained once, parts are coded by it anywhere, then merged.

`Index.build` is the same in one call, and gives the same bytes. It must not know what schedules
the work.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

from annidx import _core
from annidx._core.types import Ids
from annidx._progress import Progress, reporter
from annidx.changing import warn_of_drift
from annidx.index import Index, Path, as_json, open_index, open_indexes
from annidx.io import inputs
from annidx.io.containers import as_numbers

__all__ = ["DriftWarning", "encode", "merge", "train"]


class DriftWarning(UserWarning):
    """The items of an index are no longer what it was built for; the message says what to do."""


def train(
    sample: npt.ArrayLike,
    metric: str,
    dtype: str | None = None,
    *,
    expected_items: int | None = None,
    n_jobs: int = -1,
    seed: int = 0,
    progress: bool | Progress | None = None,
    packed: bool = False,
) -> Index:
    """Learn from a sample how vectors are divided and coded.

    Parameters
    ----------
    sample : array_like
        Vectors, (n, dim), as `Index.add_items` takes them: all that there will be, or a random part
        of them, a hundred for each thousand expected items if there are so many.
    metric, dtype
        As for `Index`.
    expected_items : int, optional
        How many items the index will hold: the space is divided into leaves for so many. Default:
        those of the sample.
    n_jobs, seed, progress
        As for `Index.build`.
    packed : bool, default False
        The vectors are packed bits (hamming only); dim is 8 times the number of columns.

    Returns
    -------
    Index
        One without items: it can be saved, and is what `encode` needs. Items can also be added to
        it directly.

    Raises
    ------
    ValueError
        An argument is wrong, or the sample is empty.

    Notes
    -----
    Depends on the sample, the arguments and the seed only. For the same sample and seed,
    `train`, `encode` of all vectors in any parts, and `merge` of these in the order of their rows
    give the bytes of `Index.build`.
    """
    number = inputs.whole_number(seed, "seed", 0, 2**64 - 1)
    jobs = inputs.thread_count(n_jobs)
    array = as_numbers(sample, "sample")
    if array.ndim != 2 or len(array) == 0:
        raise ValueError(f"sample: expected shape (n, dim) with n of at least 1, got {array.shape}")
    expected = len(array)
    if expected_items is not None:
        expected = inputs.whole_number(expected_items, "expected_items", 1, 2**32 - 2)
    model = Index(array.shape[1] * (8 if packed else 1), metric, dtype)
    model.add_items(array, packed=packed)
    with reporter(progress) as report:
        model._train(0.95, jobs, number, expected, report)
    return model


def encode(
    model: Path | Index,
    vectors: npt.ArrayLike,
    ids: Ids | None = None,
    *,
    out: Path,
    n_jobs: int = -1,
    memory_limit: int | None = None,
    progress: bool | Progress | None = None,
    packed: bool = False,
    force: bool = False,
) -> None:
    """Code vectors by a model, into a part that `merge` takes.

    Parameters
    ----------
    model : path or Index
        What `train` gave, or its file.
    vectors, ids, packed
        As for `Index.add_items`. Parts without ids are numbered through when they are merged.
    out : path
        The file of the part. It appears when it is complete.
    n_jobs, memory_limit, progress, force
        As for `Index.build`.

    Raises
    ------
    ValueError, OSError, FileExistsError, FormatError
        As for `Index.add_items`, `Index.build` and `annidx.load`.

    Notes
    -----
    A function of the model, the vectors and the ids: it may run twice, on any machine, and be
    killed; the same bytes come, or nothing.
    """
    where = inputs.file_path(out, "out")
    inputs.require_replaceable(where, force=force)
    jobs = inputs.thread_count(n_jobs)
    limit = 0
    if memory_limit is not None:
        limit = inputs.whole_number(memory_limit, "memory_limit", 1, 2**63 - 1)
    if isinstance(model, Index):
        _encode(model, vectors, ids, where, jobs, limit, progress, packed)
        return
    path = inputs.file_path(model, "model")
    with open_index(path, warm=False, lock=False) as opened:
        _encode(opened, vectors, ids, where, jobs, limit, progress, packed)


def _encode(
    model: Index,
    vectors: npt.ArrayLike,
    ids: Ids | None,
    out: str,
    n_jobs: int,
    memory_limit: int,
    progress: bool | Progress | None,
    packed: bool,
) -> None:
    rows = Index(model.dim, model.metric, model.dtype)
    rows.add_items(vectors, ids, packed=packed)
    with reporter(progress) as report:
        model._encode(rows, os.fsencode(out), n_jobs, memory_limit, report)


def merge(
    parts: Iterable[Path],
    *,
    out: Path,
    recall: float | None = None,
    n_trees: int | None = None,
    neighbours: int | None = None,
    n_jobs: int = -1,
    memory_limit: int | None = None,
    metadata: dict[str, Any] | None = None,
    on_duplicate: str = "raise",
    progress: bool | Progress | None = None,
    force: bool = False,
) -> None:
    """Make one index of parts, of an index and its changes, or of several indexes of one model.

    Parameters
    ----------
    parts : iterable of path
        Files that one model coded: their rows follow one another in this order. Files of changes
        stand behind the index they belong to.
    out : path
        The index. It appears when it is complete; it may be one of the parts.
    recall : float, optional
        Default target of queries. Default: that of the first file.
    n_trees, neighbours
        As for `Index.build`. Default: those of the first file, if that is an index.
    n_jobs, memory_limit, progress, force
        As for `Index.build`.
    metadata : dict, optional
        As for `Index.save`. Default: that of the first file.
    on_duplicate : {"raise", "newest"}, default "raise"
        What becomes of an id that several files have: an error, or the last of them has it. Changes
        always replace.

    Raises
    ------
    ValueError
        The files do not fit together: the message names two of them. Or an argument is wrong.
    FormatError
        A file is damaged.
    OSError, FileExistsError
        As for `Index.save`.

    Warns
    -----
    DriftWarning
        The added items are not distributed as those that the model was trained on.

    Notes
    -----
    Nothing is trained. Rows that were removed or replaced are left out; an index that makes up most
    of the rows keeps its neighbour lists, mended; the recall curve is measured anew. Reads each
    part in order, mapped. Named sets of the first file stay.
    """
    places = [inputs.file_path(part, "parts") for part in parts]
    if not places:
        raise ValueError("parts: expected at least one file, got none")
    where = inputs.file_path(out, "out")
    inputs.require_replaceable(where, force=force)
    newest = inputs.one_of(on_duplicate, "on_duplicate", ("raise", "newest")) == "newest"
    target = 0.0 if recall is None else _core.read_recall(recall)
    jobs = inputs.thread_count(n_jobs)
    limit = 0
    if memory_limit is not None:
        limit = inputs.whole_number(memory_limit, "memory_limit", 1, 2**63 - 1)
    entries = -1
    if neighbours is not None:
        entries = inputs.whole_number(neighbours, "neighbours", 0, 128)
    with open_indexes(places, warm=False, lock=False, newest_wins=newest) as index:
        info = index.info()
        if len(index) == 0:
            raise ValueError("parts: expected some items, found none in these files")
        trees = info["n_trees"]
        if n_trees is not None:
            trees = inputs.whole_number(n_trees, "n_trees", 1, 65535)
        reason = warn_of_drift(info)
        if reason is not None and info["kind"] == "index":
            warnings.warn(reason, DriftWarning, stacklevel=2)
        text = index._metadata_json() if metadata is None else as_json(metadata)
        with reporter(progress) as report:
            index._merge(
                os.fsencode(where),
                text.encode("utf-8"),
                target,
                True,
                entries,
                trees,
                jobs,
                limit,
                report,
            )
