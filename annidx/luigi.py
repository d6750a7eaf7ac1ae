"""Owns the steps of an index's making as tasks of Luigi: train, encode, merge, gate, publish.

Luigi does scheduling, retries and locking. What belongs to a build lies in a folder of `work_dir`
that is named by all that decides its bytes: files of another input are never taken for its own.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from typing import Any

import luigi
import numpy.typing as npt

import annidx
from annidx._version import __version__
from annidx.gate import RefusedError, judge
from annidx.io import inputs
from annidx.io.ranges import FileRows, state_of
from annidx.io.readers import read_table
from annidx.units import encode_range, is_made, model_in, part_ranges, sampled, train_model

__all__ = ["EncodePart", "GateIndex", "MergeParts", "PublishIndex", "RefusedError", "TrainModel"]


class _File(luigi.LocalTarget):
    """A file that is there when each byte of it is sound and it is the right one."""

    def __init__(self, path: str, is_right: Callable[[str], bool]) -> None:
        super().__init__(path)
        self._is_right = is_right

    def exists(self) -> bool:
        """Tell whether the file verifies, and is what its task makes."""
        return _is_sound(self.path) and self._is_right(self.path)


def _is_sound(path: str) -> bool:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    return _verifies(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _verifies(path: str, *_stamp: int) -> bool:
    """Verify a file once for each state of it: Luigi asks for an output many times."""
    try:
        annidx.verify(path)
    except annidx.FormatError:
        return False
    return True


@functools.lru_cache(maxsize=4)
def _opened(
    path: str, ids: str | None, vector_column: str | None, id_column: str | None, _stamp: str
) -> FileRows:
    """Look through the files of a source once for each state of them."""
    return FileRows(path, ids=ids, vector_column=vector_column, id_column=id_column)


def _identity(path: str) -> str | None:
    """Tell which index a file is; None where no sound one stands."""
    if not _is_sound(path):
        return None
    with annidx.load(path) as index:
        return str(index.info()["identity"])


class _Step(luigi.Task):
    """What all steps are told: the input, what its index is like, and where files lie."""

    task_namespace = "annidx"

    source = luigi.PathParameter(absolute=True, description="file or folder of vectors")
    metric = luigi.Parameter(description="metric of the index")
    work_dir = luigi.PathParameter(
        absolute=True, description="folder for the model, the parts and the index"
    )
    dtype = luigi.OptionalStrParameter(description="how vectors are kept (float32, bits)")
    ids = luigi.OptionalPathParameter(description="file of ids (rows are numbered)")
    vector_column = luigi.OptionalStrParameter(description="Parquet: column of vectors")
    id_column = luigi.OptionalStrParameter(description="Parquet: column of ids")
    n_parts = luigi.OptionalIntParameter(description="parts (one for half a million rows)")
    sample = luigi.OptionalIntParameter(description="rows to train on (all)")
    seed = luigi.IntParameter(default=0, description="same seed, same bytes")
    n_jobs = luigi.IntParameter(
        default=1, significant=False, description="threads that code a part"
    )
    memory_limit = luigi.OptionalIntParameter(
        significant=False, description="bytes for a part, and for the merge"
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        annidx.Index(8, self.metric, self.dtype)  # says what is wrong with them
        for name in ("n_parts", "sample", "memory_limit"):
            if getattr(self, name) is not None:
                inputs.whole_number(getattr(self, name), name, 1, 2**63 - 1)
        inputs.whole_number(self.seed, "seed", 0, 2**64 - 1)
        inputs.thread_count(self.n_jobs)

    def _files(self) -> str:
        """Tell the input as it is now: names, sizes and times."""
        ids = [] if self.ids is None else [str(self.ids)]
        return json.dumps(state_of(str(self.source), *ids))

    def _rows(self) -> FileRows:
        ids = None if self.ids is None else str(self.ids)
        columns = (self.vector_column, self.id_column)
        return _opened(str(self.source), ids, *columns, self._files())

    def _path(self, name: str) -> str:
        """Name a file in the folder of all that decides the bytes of this build."""
        settings = (self.metric, self.dtype, self.vector_column, self.id_column)
        shape = (self.n_parts, self.sample, self.seed)
        text = json.dumps([__version__, self._files(), *settings, *shape])
        return os.path.join(self.work_dir, hashlib.sha256(text.encode()).hexdigest()[:16], name)

    def _ranges(self) -> list[tuple[int, int]]:
        return part_ranges(len(self._rows()), self.n_parts)

    @property
    def _model(self) -> str:
        return self._path("model.annidx")


class TrainModel(_Step):
    """Learn from the input, or from a sample of it, how its vectors are divided and coded."""

    def output(self) -> luigi.LocalTarget:
        """Name the model."""
        return _File(self._model, lambda path: is_made(path, None, 0, "model"))

    def run(self) -> None:
        """Train the model."""
        target = self.output()
        target.makedirs()
        rows = self._rows()
        settings = (self.metric, self.dtype, self.seed)
        train_model(rows, len(rows), self.sample, *settings, target.path)


class EncodePart(_Step):
    """Code one range of the rows by the model."""

    part = luigi.IntParameter(description="number of the part, from 0")

    def requires(self) -> luigi.Task:
        """Ask for the model."""
        return self.clone(TrainModel)

    def output(self) -> luigi.LocalTarget:
        """Name the part."""
        first, last = self._range()
        name = self._path(f"part-{self.part:06}.annidx")
        return _File(name, lambda path: is_made(path, model_in(self._model), last - first))

    def run(self) -> None:
        """Encode the part."""
        first, last = self._range()
        how = (self.n_jobs, self.memory_limit)
        encode_range(self._model, self._rows(), None, first, last, self.output().path, *how)

    def _range(self) -> tuple[int, int]:
        ranges = self._ranges()
        return ranges[inputs.whole_number(self.part, "part", 0, len(ranges) - 1)]


class _Whole(_Step):
    """What the steps are told that have to do with the whole index."""

    recall = luigi.OptionalFloatParameter(description="default target of queries (0.95)")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.recall is not None:
            inputs.share(self.recall, "recall")

    @property
    def _index(self) -> str:
        recall = "" if self.recall is None else f"-{self.recall}"
        return self._path(f"index{recall}.annidx")


class MergeParts(_Whole):
    """Make one index of all parts; its bytes are those of `Index.build`."""

    def requires(self) -> list[luigi.Task]:
        """Ask for all parts."""
        return [self.clone(EncodePart, part=part) for part in range(len(self._ranges()))]

    def output(self) -> luigi.LocalTarget:
        """Name the index."""
        total = len(self._rows())
        return _File(self._index, lambda path: is_made(path, model_in(self._model), total, "index"))

    def run(self) -> None:
        """Merge the parts."""
        parts = [part.path for part in self.input()]
        annidx.merge(
            parts, out=self._index, recall=self.recall, memory_limit=self.memory_limit, force=True
        )


class _Gated(_Whole):
    """What is asked of an index before it is published."""

    least_recall = luigi.FloatParameter(
        default=0.9, description="share of true neighbours that must be found"
    )
    k = luigi.IntParameter(default=10, description="neighbours that recall counts")
    queries = luigi.OptionalPathParameter(description="file of queries (rows of the input)")
    n_queries = luigi.IntParameter(default=500, description="how many rows ask without a file")
    margin = luigi.FloatParameter(
        default=0.01, description="how much less recall than the live index is no loss"
    )
    agreement = luigi.FloatParameter(
        default=0.0, description="share of the live index's neighbours that must be found"
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("least_recall", "margin", "agreement"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: expected 0 to 1, got {getattr(self, name)}")
        for name in ("k", "n_queries"):
            inputs.whole_number(getattr(self, name), name, 1, 2**31 - 1)


class GateIndex(_Gated):
    """Measure the index, alone and beside the live one; fail when it is worse than asked."""

    live = luigi.OptionalPathParameter(description="the index that services read")

    def requires(self) -> luigi.Task:
        """Ask for the index."""
        return self.clone(MergeParts)

    def output(self) -> luigi.LocalTarget:
        """Name the record of what was measured."""
        asked = [self.least_recall, self.k, self.queries, self.n_queries, self.margin,
                 self.agreement, self.live]  # fmt: skip
        key = hashlib.sha256(repr(asked).encode()).hexdigest()[:8]
        return luigi.LocalTarget(f"{self._index}.gate-{key}.json")

    def complete(self) -> bool:
        """Tell whether this index passed, beside the index that is live now."""
        if not self.output().exists():
            return False
        with self.output().open("r") as file:
            record, index = json.load(file), _identity(self._index)
        if record["identity"] != index:
            return False
        return self.live is None or _identity(str(self.live)) in (record["live_identity"], index)

    def run(self) -> None:
        """Measure, and refuse or pass."""
        live = None if self.live is None else str(self.live)
        names = ("least_recall", "margin", "agreement")
        how = {name: getattr(self, name) for name in names}
        record = judge(self._index, live, self._asked(), self.k, **how)
        with self.output().open("w") as file:
            json.dump(record, file)

    def _asked(self) -> npt.NDArray[Any]:
        if self.queries is not None:
            return read_table(self.queries).vectors
        rows = self._rows()
        return sampled(rows, len(rows), min(self.n_queries, len(rows)), "n_queries")


class PublishIndex(_Gated):
    """Put the index that passed the gate in the place of the live one, which is kept."""

    live = luigi.PathParameter(absolute=True, description="the index that services read")
    max_shrink = luigi.FloatParameter(
        default=0.1, description="share of the live index's items that may be missing"
    )
    force = luigi.BoolParameter(description="publish without the gate, whatever is live")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not 0.0 <= self.max_shrink <= 1.0:
            raise ValueError(f"max_shrink: expected 0 to 1, got {self.max_shrink}")

    def requires(self) -> luigi.Task:
        """Ask for an index that passed the gate; by force, for an index."""
        return self.clone(MergeParts if self.force else GateIndex)

    def output(self) -> luigi.LocalTarget:
        """Name the live file: there when this index is it, or was and another followed it."""
        return _File(str(self.live), self._is_live)

    def run(self) -> None:
        """Publish, unless it is live already and only the record of that is missing."""
        if _identity(str(self.live)) != _identity(self._index):
            self.output().makedirs()
            leaving = self._second_name()
            annidx.publish(leaving, self.live, max_shrink=self.max_shrink, force=self.force)
        with self._receipt.open("w") as file:
            json.dump({"identity": _identity(self._index), "live": str(self.live)}, file)

    def _second_name(self) -> str:
        """Name the index a second time, to be published: all steps before stay complete."""
        leaving = f"{self._index}.leaving"
        if os.path.lexists(leaving):
            os.unlink(leaving)
        try:
            os.link(self._index, leaving)
        except OSError:  # a file system without links
            shutil.copyfile(self._index, leaving)
        return leaving

    @property
    def _receipt(self) -> luigi.LocalTarget:
        key = hashlib.sha256(str(self.live).encode()).hexdigest()[:8]
        return luigi.LocalTarget(f"{self._index}.published-{key}.json")

    def _is_live(self, path: str) -> bool:
        return self._receipt.exists() or _identity(path) == _identity(self._index)
