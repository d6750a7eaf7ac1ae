"""The child processes: one that builds a contestant's file, one that answers from it.

A child is started fresh, does what the pipe asks of it one request at a time, and is idle
otherwise, so that contestants can take turns without sharing a process.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.contestant import Array, Contestant, Setting, Task, VectorsInFile
from bench.datasets import PreparedSet
from bench.peers import BY_NAME
from bench.process import (
    environment,
    peak_resident_bytes,
    pin_every_thread,
    resident_bytes,
    restart_peak,
    send_output_to,
    thread_environment,
)
from bench.truth import as_id_matrix

WARM_UP_QUERIES = 50
OPEN_REPEATS = 5
OPEN_BUDGET_S = 3.0


class WorkerError(RuntimeError):
    """A contestant failed, or took longer than it may."""


@dataclass(frozen=True)
class Assignment:
    """What one child is told at its start."""

    contestant: str
    task: Task
    prepared: PreparedSet
    file: Path
    log: Path
    cores: tuple[int, ...]


@dataclass(frozen=True)
class BuildResult:
    version: str
    parameters: dict[str, Any]
    build_seconds: float
    build_processor_seconds: float
    """Of all threads together: what the build costs on a machine that is not quiet, too."""
    save_seconds: float
    resident_before_bytes: int
    peak_resident_bytes: int
    file_bytes: int
    vector_bytes: int
    file_holds: VectorsInFile


@dataclass(frozen=True)
class Timing:
    """One timed pass, or several in a row where one is short."""

    queries_per_second: float
    core_share: float
    """Processor time over wall time: below 1, something else had the core."""

    def by_processor(self) -> Timing:
        """The rate by the processor time that was had, as if nothing else had wanted the core."""
        return replace(self, queries_per_second=self.queries_per_second / self.core_share)


@dataclass
class _State:
    """What an answering child holds between requests."""

    assignment: Assignment
    contestant: Contestant
    queries: Array
    single: list[Any] = field(default_factory=list)
    batch: Any = None


def start_contestant(assignment: Assignment) -> Contestant:
    """With the library imported, so that no timing holds its import."""
    send_output_to(assignment.log)
    pin_every_thread(assignment.cores)
    contestant = BY_NAME[assignment.contestant]
    os.environ.update(contestant.variables)
    importlib.import_module(contestant.module)
    return contestant(assignment.task)


def _build(assignment: Assignment) -> BuildResult:
    contestant = start_contestant(assignment)
    contestant.warm_up_compiler()
    base = contestant.prepare_base(assignment.prepared.base(in_memory=True))
    gc.collect()
    restart_peak()
    before_bytes = resident_bytes()
    start_s, start_processor_s = time.perf_counter(), time.process_time()
    contestant.build(base)
    built_s, built_processor_s = time.perf_counter(), time.process_time()
    peak_bytes = peak_resident_bytes()
    contestant.save(assignment.file)
    saved_s = time.perf_counter()
    return BuildResult(
        version=contestant.version(),
        parameters=contestant.parameters(),
        build_seconds=built_s - start_s,
        build_processor_seconds=built_processor_s - start_processor_s,
        save_seconds=saved_s - built_s,
        resident_before_bytes=before_bytes,
        peak_resident_bytes=peak_bytes,
        file_bytes=contestant.file_bytes(assignment.file),
        vector_bytes=contestant.vector_bytes(),
        file_holds=contestant.file_holds,
    )


def _base_as_built(state: _State) -> Array:
    """In the library's form only where its file holds no vectors and it needs them."""
    prepared = state.assignment.prepared
    if state.contestant.file_holds == "no vectors":
        return state.contestant.prepare_base(prepared.base(in_memory=True))
    return prepared.base()


def _open(state: _State) -> list[float]:
    """Seconds of opening the file, several times; the last one stays open."""
    base = _base_as_built(state)
    opens_s: list[float] = []
    while len(opens_s) < OPEN_REPEATS and sum(opens_s) < OPEN_BUDGET_S:
        state.contestant.close()
        gc.collect()
        start_s = time.perf_counter()
        state.contestant.open(state.assignment.file, base)
        opens_s.append(time.perf_counter() - start_s)
    state.single = [state.contestant.prepare_query(query) for query in state.queries]
    state.batch = state.contestant.prepare_batch(state.queries)
    return opens_s


def _single_pass(state: _State) -> list[Any]:
    k = state.assignment.task.k
    query = state.contestant.query
    answers: list[Any] = []
    append = answers.append
    for vector in state.single:
        append(query(vector, k))
    return answers


def _timed(one_pass: Any, queries: int, cores: int, least_seconds: float) -> tuple[Any, Timing]:
    """Whole passes until ``least_seconds`` have gone; at least one."""
    passes = 0
    gc.disable()
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    while True:
        answers = one_pass()
        passes += 1
        wall_s = time.perf_counter() - start_s
        if wall_s >= least_seconds:
            break
    cpu_s = time.process_time() - start_cpu_s
    gc.enable()
    return answers, Timing(passes * queries / wall_s, cpu_s / wall_s / cores)


def _warm_up(state: _State) -> None:
    for vector in state.single[:WARM_UP_QUERIES]:
        state.contestant.query(vector, state.assignment.task.k)


def _measure_single(state: _State, setting: Setting, least_seconds: float) -> tuple[Array, Timing]:
    state.contestant.set_setting(setting)
    _warm_up(state)
    answers, timing = _timed(lambda: _single_pass(state), len(state.single), 1, least_seconds)
    return as_id_matrix(answers, state.assignment.task.k), timing


def _measure_batch(
    state: _State, setting: Setting, threads: int, cores: tuple[int, ...], least_seconds: float
) -> tuple[Array, Timing]:
    k = state.assignment.task.k
    pin_every_thread(cores)
    state.contestant.set_setting(setting)
    state.contestant.query_batch(state.batch, k, threads)
    answers, timing = _timed(
        lambda: state.contestant.query_batch(state.batch, k, threads),
        len(state.queries),
        threads,
        least_seconds,
    )
    pin_every_thread(state.assignment.cores)
    return as_id_matrix(answers, k), timing


def _list_settings(state: _State) -> list[Setting]:
    return state.contestant.settings()


REQUESTS: dict[str, Callable[..., Any]] = {
    "open": _open,
    "settings": _list_settings,
    "single": _measure_single,
    "batch": _measure_batch,
}


def failure(error: Exception) -> tuple[str, str]:
    """The whole story to the child's log, one line to the parent."""
    traceback.print_exc()
    first_line = str(error).strip().partition("\n")[0]
    return "failed", f"{type(error).__name__}: {first_line}"


def build_process(assignment: Assignment, pipe: Connection) -> None:
    """Entry point of a building child: one result, then the end."""
    try:
        pipe.send(("done", _build(assignment)))
    except Exception as error:
        pipe.send(failure(error))


def answer_process(assignment: Assignment, pipe: Connection) -> None:
    """Entry point of an answering child: requests until ``None`` comes."""
    try:
        contestant = start_contestant(assignment)
        state = _State(assignment, contestant, assignment.prepared.queries())
    except Exception as error:
        pipe.send(failure(error))
        return
    while (request := pipe.recv()) is not None:
        name, arguments = request
        try:
            pipe.send(("done", REQUESTS[name](state, **arguments)))
        except Exception as error:
            pipe.send(failure(error))


class Child:
    """The parent's end of one child process."""

    def __init__(self, entry: Any, assignment: Assignment, library_threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child_end = context.Pipe()
        self._process = context.Process(target=entry, args=(assignment, child_end), daemon=True)
        with environment(thread_environment(library_threads, assignment.task.threads)):
            self._process.start()
        child_end.close()

    def receive(self, limit_seconds: float) -> Any:
        if not self._pipe.poll(limit_seconds):
            self._process.kill()
            raise WorkerError(f"stopped after {limit_seconds:g} s")
        try:
            outcome, value = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise WorkerError(f"died with exit code {self._process.exitcode}") from None
        if outcome == "failed":
            raise WorkerError(value)
        return value

    def send(self, message: Any) -> None:
        try:
            self._pipe.send(message)
        except BrokenPipeError:
            raise WorkerError("is no longer there") from None

    def ask(self, name: str, limit_seconds: float, **arguments: Any) -> Any:
        self.send((name, arguments))
        return self.receive(limit_seconds)

    def stop(self) -> None:
        """Ask it to end; end it if it does not."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()


def build_file(assignment: Assignment, limit_seconds: float) -> BuildResult:
    """Build and save in a process of its own."""
    child = Child(build_process, assignment, library_threads=assignment.task.threads)
    try:
        result: BuildResult = child.receive(limit_seconds)
        return result
    finally:
        child.stop()
