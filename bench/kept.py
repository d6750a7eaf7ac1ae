"""Built indexes kept between runs: a folder by content and settings, so that a run only asks.

An entry holds the index and what its build reported. Its name is a digest of everything that
the bytes or the report depend on. The report is written last: without it an entry is not whole, and
is built anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.datasets import PreparedSet
from bench.peers import BY_NAME
from bench.worker import Assignment, BuildResult

REPORT = "build.json"


def content_digest(prepared: PreparedSet) -> str:
    """Of the vectors in the type of the run."""
    with (prepared.folder / "base.npy").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kept_or_built(
    assignment: Assignment,
    content: str,
    folder: Path,
    build: Callable[[Assignment], BuildResult],
) -> tuple[Assignment, BuildResult]:
    """The kept entry, built first where there is none; the assignment names its file."""
    entry = folder / _entry_name(assignment, content)
    if not (entry / REPORT).exists():
        _build_into(entry, assignment, build)
    report = json.loads((entry / REPORT).read_text(encoding="utf-8"))
    return replace(assignment, file=entry / assignment.file.name), BuildResult(**report)


def _entry_name(assignment: Assignment, content: str) -> str:
    contestant = BY_NAME[assignment.contestant]
    task = assignment.task
    settings: dict[str, Any] = {
        "content": content,
        "build": contestant.identity(),
        "parameters": contestant(task).parameters(),
        "metric": task.metric,
        "dtype": task.dtype,
        "k": task.k,
        "threads": task.threads,
        "seed": task.seed,
        "options": dict(task.options),
    }
    text = json.dumps(settings, sort_keys=True)
    return f"{assignment.contestant}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _build_into(
    entry: Path, assignment: Assignment, build: Callable[[Assignment], BuildResult]
) -> None:
    """In its place from the start: some libraries write the folder's name into their files."""
    shutil.rmtree(entry, ignore_errors=True)
    entry.mkdir(parents=True)
    result = build(replace(assignment, file=entry / assignment.file.name))
    (entry / REPORT).write_text(json.dumps(asdict(result)), encoding="utf-8")
