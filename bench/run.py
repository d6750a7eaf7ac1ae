"""One data set, all contestants: build each, then let them take turns at the queries.

Every contestant is built and saved in a process of its own, then answers from its file in
another, pinned to one core. A first turn finds the recall of every setting; then rounds
of measurement go round the contestants, each round beginning with another one.
"""

from __future__ import annotations

import contextlib
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.contestant import Array, Setting, Task
from bench.datasets import PreparedSet
from bench.kept import content_digest, kept_or_built
from bench.pareto import Point, bracketing, is_near_front
from bench.peers import BY_NAME
from bench.process import usable_cores
from bench.truth import kth_distances, recall
from bench.worker import (
    Assignment,
    BuildResult,
    Child,
    Timing,
    WorkerError,
    answer_process,
    build_file,
)

TARGETS = (0.9, 0.95, 0.99)
HEADLINE_TARGET = 0.95
FULL_RECALL = 0.9995
FRONT_SLACK = 0.7
SHORT_SWEEP = 16
"""A sweep of no more settings than this is measured whole; a grid is cut to its front."""
LEAST_RECALL_OF_INTEREST = 0.75
CALIBRATION_SECONDS = 0.02
MEMORY_SHARE_FOR_OPEN_FILES = 0.5


@dataclass(frozen=True)
class RunOptions:
    """How to measure, the same for every contestant."""

    k: int
    threads: int
    rounds: int
    seed: int
    work: Path
    say: Callable[[str], None]
    least_seconds: float = 0.25
    build_limit_seconds: float = 7200.0
    request_limit_seconds: float = 900.0
    every_setting: bool = False
    """Measure all settings, not only those near the contestant's front."""
    processor_clock: bool = False
    """Rates by processor time: for a machine that others use meanwhile."""
    kept_indexes: Path | None = None
    """Where built indexes stay for the next run; none: each run builds its own."""


@dataclass
class MeasuredSetting:
    """One setting and all its timings, a timing a round."""

    setting: Setting
    recall: float
    first: Timing
    single: list[Timing] = field(default_factory=list)
    batch: dict[int, list[Timing]] = field(default_factory=dict)

    def single_point(self) -> Point:
        rates = [timing.queries_per_second for timing in self.single or [self.first]]
        return Point(self.recall, statistics.median(rates))

    def batch_point(self, threads: int) -> Point:
        rates = [timing.queries_per_second for timing in self.batch[threads]]
        return Point(self.recall, statistics.median(rates))


@dataclass
class Entry:
    """One contestant's way through one set."""

    contestant: str
    label: str
    assignment: Assignment
    built: BuildResult | None = None
    opens_s: list[float] = field(default_factory=list)
    settings: list[MeasuredSetting] = field(default_factory=list)
    all_settings: list[MeasuredSetting] = field(default_factory=list)
    failure: str | None = None
    child: Child | None = None


@dataclass(frozen=True)
class Truth:
    """What answers are judged by."""

    metric: str
    base: Array
    queries: Array
    kth: Array

    def recall_of(self, ids: Array) -> float:
        return recall(self.metric, self.base, self.queries, ids, self.kth)


def load_truth(prepared: PreparedSet, k: int) -> Truth:
    base, queries = prepared.base(), prepared.queries()
    kth = kth_distances(prepared.metric, base, queries, prepared.exact_ids(), k)
    return Truth(prepared.metric, base, queries, kth)


def measure_set(
    prepared: PreparedSet,
    contestants: Mapping[str, tuple[str, Mapping[str, Any]]],
    options: RunOptions,
) -> list[Entry]:
    """``contestants`` maps a label to a contestant's name and its options."""
    entries = [
        new_entry(label, name, chosen, prepared, options)
        for label, (name, chosen) in contestants.items()
        if BY_NAME[name].supports(prepared.metric)
    ]
    content = content_digest(prepared) if options.kept_indexes else ""
    for entry in entries:
        build_entry(entry, options, content)
    truth = load_truth(prepared, options.k)
    stay_open = _files_fit_in_memory(entries)
    if not stay_open:
        options.say("files are larger than half the memory: each is opened for its turns only")
    try:
        _take_turns(entries, truth, options, stay_open)
    finally:
        for entry in entries:
            close_entry(entry)
    return entries


def new_entry(
    label: str, name: str, chosen: Mapping[str, Any], prepared: PreparedSet, options: RunOptions
) -> Entry:
    scratch = options.work / label
    scratch.mkdir(parents=True)
    task = Task(
        metric=prepared.metric,
        dtype=prepared.dtype,
        dim=prepared.dim,
        rows=prepared.rows,
        k=options.k,
        threads=options.threads,
        seed=options.seed,
        scratch=scratch,
        options=dict(chosen),
    )
    cores = tuple(usable_cores()[: options.threads])
    log = options.work / f"{label}.log"
    return Entry(name, label, Assignment(name, task, prepared, scratch / "index", log, cores))


def build_entry(entry: Entry, options: RunOptions, content: str = "") -> None:
    """``content`` is the digest of the vectors, where built indexes are kept."""

    def build(assignment: Assignment) -> BuildResult:
        options.say(f"{entry.label}: building")
        return build_file(assignment, options.build_limit_seconds)

    with _failing(entry, options, "build"):
        if options.kept_indexes is None:
            entry.built = build(entry.assignment)
        else:
            entry.assignment, entry.built = kept_or_built(
                entry.assignment, content, options.kept_indexes, build
            )
        options.say(f"{entry.label}: built in {entry.built.build_seconds:.1f} s")


@contextlib.contextmanager
def _failing(entry: Entry, options: RunOptions, stage: str) -> Iterator[None]:
    """A contestant that fails is reported and left out; the others go on."""
    try:
        yield
    except WorkerError as error:
        entry.failure = f"{stage}: {without_folders(error)}"
        options.say(f"{entry.label}: {entry.failure}")
        close_entry(entry)


def without_folders(error: WorkerError) -> str:
    """What went wrong, without the folders of the machine it went wrong on."""
    return re.sub(r"(/[^/\s'\"]+)+/", "", str(error))


def _files_fit_in_memory(entries: Sequence[Entry]) -> bool:
    total_bytes = sum(entry.built.file_bytes for entry in entries if entry.built)
    return bool(total_bytes < MEMORY_SHARE_FOR_OPEN_FILES * psutil.virtual_memory().available)


def answering_assignment(entry: Entry) -> Assignment:
    """The last usable core: the first ones serve most interrupts."""
    told = entry.assignment
    core = (usable_cores()[-1],)
    return Assignment(told.contestant, told.task, told.prepared, told.file, told.log, core)


def open_entry(entry: Entry, options: RunOptions) -> Child:
    if entry.child is None:
        entry.child = Child(answer_process, answering_assignment(entry), library_threads=1)
        opens_s = entry.child.ask("open", options.request_limit_seconds)
        entry.opens_s = entry.opens_s or opens_s
    return entry.child


def close_entry(entry: Entry) -> None:
    if entry.child is not None:
        entry.child.stop()
        entry.child = None


def _take_turns(
    entries: Sequence[Entry], truth: Truth, options: RunOptions, stay_open: bool
) -> None:
    def turn(entry: Entry, stage: str, act: Callable[[Entry, Child], None]) -> None:
        if entry.failure is not None:
            return
        with _failing(entry, options, stage):
            act(entry, open_entry(entry, options))
        if not stay_open:
            close_entry(entry)

    for entry in entries:
        turn(entry, "first turn", lambda e, child: find_recalls(e, child, truth, options))
    for number in range(options.rounds):
        first = number % max(1, len(entries))
        for entry in [*entries[first:], *entries[:first]]:
            turn(entry, "round", lambda e, child: _measure_round(e, child, options))
        options.say(f"round {number + 1} of {options.rounds} done")


def _costs_at_least(setting: Setting, other: Setting) -> bool:
    return all(setting.values[name] >= value for name, value in other.values.items())


def find_recalls(entry: Entry, child: Child, truth: Truth, options: RunOptions) -> None:
    """Recall of every setting; those dearer than one of full recall are left out."""
    complete: list[Setting] = []
    for setting in child.ask("settings", options.request_limit_seconds):
        if any(_costs_at_least(setting, other) for other in complete):
            continue
        ids, timing = child.ask(
            "single",
            options.request_limit_seconds,
            setting=setting,
            least_seconds=CALIBRATION_SECONDS,
        )
        reached = truth.recall_of(ids)
        timing = by_clock(timing, options)
        entry.all_settings.append(MeasuredSetting(setting, reached, timing))
        if reached >= FULL_RECALL and not options.every_setting:
            complete.append(setting)
    entry.settings = (
        entry.all_settings if options.every_setting else _worth_measuring(entry.all_settings)
    )
    best = max((measured.recall for measured in entry.all_settings), default=0.0)
    options.say(f"{entry.label}: {len(entry.settings)} settings, recall up to {best:.4f}")


def _worth_measuring(measured: Sequence[MeasuredSetting]) -> list[MeasuredSetting]:
    """Of a grid those near the front; of all only the best below the recalls of interest."""
    points = [one.single_point() for one in measured]
    below = [point.recall for point in points if point.recall < LEAST_RECALL_OF_INTEREST]
    least = max(below, default=0.0)
    return [
        one
        for one, point in zip(measured, points, strict=True)
        if point.recall >= least
        and (len(points) <= SHORT_SWEEP or is_near_front(point, points, FRONT_SLACK))
    ]


def by_clock(timing: Timing, options: RunOptions) -> Timing:
    return timing.by_processor() if options.processor_clock else timing


def _measure_round(entry: Entry, child: Child, options: RunOptions) -> None:
    for measured in entry.settings:
        _, timing = child.ask(
            "single",
            options.request_limit_seconds,
            setting=measured.setting,
            least_seconds=options.least_seconds,
        )
        measured.single.append(by_clock(timing, options))
    for threads in range(1, options.threads + 1):
        for measured in _settings_for_batches(entry):
            _measure_batch(measured, child, threads, options)


def _settings_for_batches(entry: Entry) -> list[MeasuredSetting]:
    """Those that the figures at the target recalls come from, fixed by the first turn."""
    points = {id(one): Point(one.recall, one.first.queries_per_second) for one in entry.settings}
    wanted = {point for target in TARGETS for point in bracketing(list(points.values()), target)}
    return [one for one in entry.settings if points[id(one)] in wanted]


def _measure_batch(
    measured: MeasuredSetting, child: Child, threads: int, options: RunOptions
) -> None:
    _, timing = child.ask(
        "batch",
        options.request_limit_seconds,
        setting=measured.setting,
        threads=threads,
        cores=tuple(usable_cores()[-threads:]),
        least_seconds=options.least_seconds,
    )
    measured.batch.setdefault(threads, []).append(by_clock(timing, options))
