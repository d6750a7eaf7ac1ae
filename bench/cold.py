"""Cold start: time and pages of the first 1, 10 and 100 queries on an uncached file.

``python -m bench.cold --data DIR`` builds each contestant's file once. For every trial a
fresh process imports the library, the file is dropped from the page cache, and then the
process opens it and answers. hnswlib reads its file whole; annidx, Annoy and USearch's
view map theirs. The same is done once more with the file cached.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.cli import HERE, say
from bench.contestant import Contestant, Setting
from bench.datasets import DEFAULT_CACHE, prepare, read_set, run_dtype
from bench.generate import generate, parse_spec
from bench.machine import commit, describe
from bench.pagecache import (
    PAGE_BYTES,
    Reads,
    drop_from_page_cache,
    read_ahead_kib,
    reads_so_far,
    resident_pages,
)
from bench.peers import BY_NAME
from bench.report import write_json
from bench.run import (
    Entry,
    RunOptions,
    Truth,
    answering_assignment,
    build_entry,
    close_entry,
    find_recalls,
    load_truth,
    new_entry,
    open_entry,
    without_folders,
)
from bench.worker import Assignment, Child, WorkerError, failure, start_contestant

QUERY_COUNTS = (1, 10, 100)
MIB = 1 << 20
CONTESTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "annidx": ("annidx", {}),
    "annoy": ("annoy", {}),
    "usearch view": ("usearch", {"view": True}),
    "hnswlib": ("hnswlib", {}),
}


@dataclass(frozen=True)
class Mark:
    """After opening (0 queries) or after some queries."""

    queries: int
    seconds: float
    reads: Reads


def _first_queries(contestant: Contestant, assignment: Assignment, setting: Setting) -> list[Mark]:
    """Open and answer; looking at the page cache is left out of the seconds."""
    prepared = assignment.prepared
    queries = [contestant.prepare_query(query) for query in prepared.queries()]
    base = prepared.base()
    before = reads_so_far(assignment.file)
    marks: list[Mark] = []
    start_s = time.perf_counter()
    contestant.open(assignment.file, base)
    spent_s = time.perf_counter() - start_s
    marks.append(Mark(0, spent_s, _since(before, assignment.file)))
    contestant.set_setting(setting)
    answered = 0
    for count in QUERY_COUNTS:
        start_s = time.perf_counter()
        for number in range(answered, count):
            contestant.query(queries[number % len(queries)], assignment.task.k)
        spent_s += time.perf_counter() - start_s
        answered = count
        marks.append(Mark(count, spent_s, _since(before, assignment.file)))
    return marks


def _since(before: Reads, path: Path) -> Reads:
    """Faults and bytes since ``before``; pages in the cache now."""
    now = reads_so_far(path)
    return Reads(
        now.major_faults - before.major_faults,
        now.disk_bytes - before.disk_bytes,
        now.resident_pages,
    )


def first_queries_process(assignment: Assignment, pipe: Connection) -> None:
    """Entry point of a child: ready after its imports, marks after the word to go."""
    try:
        contestant = start_contestant(assignment)
        pipe.send(("done", None))
        setting = pipe.recv()
        pipe.send(("done", _first_queries(contestant, assignment, setting)))
    except Exception as error:
        pipe.send(failure(error))


def _trial(entry: Entry, setting: Setting, options: RunOptions, cold: bool) -> list[Mark]:
    assignment = answering_assignment(entry)
    child = Child(first_queries_process, assignment, library_threads=1)
    try:
        child.receive(options.request_limit_seconds)
        if cold:
            drop_from_page_cache(assignment.file)
            left = resident_pages(assignment.file)
            if left:
                say(f"{entry.label}: {left} pages stayed in the page cache")
        child.send(setting)
        marks: list[Mark] = child.receive(options.request_limit_seconds)
        return marks
    finally:
        child.stop()


def cheapest_setting(
    entry: Entry, truth: Truth, options: RunOptions, target: float
) -> tuple[Setting, float] | None:
    """The fastest setting whose measured recall reaches the target, and that recall."""
    find_recalls(entry, open_entry(entry, options), truth, options)
    close_entry(entry)
    reaching = [one for one in entry.all_settings if one.recall >= target]
    if not reaching:
        return None
    best = max(reaching, key=lambda one: one.first.queries_per_second)
    return best.setting, best.recall


def _medians(trials: Sequence[Sequence[Mark]]) -> list[dict[str, Any]]:
    """Mark by mark over trials."""
    return [
        {
            "queries": marks[0].queries,
            "seconds": statistics.median(mark.seconds for mark in marks),
            "major_faults": statistics.median(mark.reads.major_faults for mark in marks),
            "disk_bytes": statistics.median(mark.reads.disk_bytes for mark in marks),
            "resident_pages": statistics.median(mark.reads.resident_pages for mark in marks),
        }
        for marks in zip(*trials, strict=True)
    ]


def measure_entry(entry: Entry, truth: Truth, options: RunOptions, target: float) -> dict[str, Any]:
    """One contestant's cold and warm starts."""
    build_entry(entry, options)
    if entry.built is None:
        return {"name": entry.label, "failure": entry.failure}
    chosen = cheapest_setting(entry, truth, options, target)
    if chosen is None:
        return {"name": entry.label, "failure": f"recall {target:g} not reached"}
    setting, reached = chosen
    cold = [_trial(entry, setting, options, cold=True) for _ in range(options.rounds)]
    warm = [_trial(entry, setting, options, cold=False) for _ in range(options.rounds)]
    say(f"{entry.label}: measured at {setting.label}, recall {reached:.4f}")
    return {
        "name": entry.label,
        "failure": None,
        "version": entry.built.version,
        "setting": setting.label,
        "recall": reached,
        "file_bytes": entry.built.file_bytes,
        "cold": _medians(cold),
        "warm": _medians(warm),
    }


def table(result: Mapping[str, Any]) -> str:
    """One set as Markdown."""
    lines = [
        f"## {result['name']}, {result['dtype']}",
        "",
        "|  | setting | recall | file MiB | open ms | "
        + " | ".join(f"first {count}: ms (cached)" for count in QUERY_COUNTS)
        + " | "
        + " | ".join(f"first {count}: MiB read" for count in QUERY_COUNTS)
        + " | pages a query, first 100 | major faults |",
        "| --- " * 3 + "| ---: " * (4 + 2 * len(QUERY_COUNTS)) + "|",
    ]
    measured = [one for one in result["contestants"] if one["failure"] is None]
    failed = [one for one in result["contestants"] if one["failure"] is not None]
    lines += [_row(one) for one in measured]
    for one in failed:
        lines += ["", f"{one['name']}: left out ({one['failure']})."]
    lines += ["", f"The disk reads {result['read_ahead_kib']} KiB ahead."]
    return "\n".join(lines)


def _row(one: Mapping[str, Any]) -> str:
    opened, *marks = one["cold"]
    cached = one["warm"][1:]
    pages_a_query = (marks[-1]["resident_pages"] - opened["resident_pages"]) / QUERY_COUNTS[-1]
    cells = [
        one["name"],
        one["setting"],
        f"{one['recall']:.4f}",
        f"{one['file_bytes'] / MIB:,.1f}",
        f"{opened['seconds'] * 1e3:.2f}",
        *(
            f"{mark['seconds'] * 1e3:.2f} ({warm['seconds'] * 1e3:.2f})"
            for mark, warm in zip(marks, cached, strict=True)
        ),
        *(f"{mark['resident_pages'] * PAGE_BYTES / MIB:.2f}" for mark in marks),
        f"{pages_a_query:.1f}",
        f"{marks[-1]['major_faults']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m bench.cold", description=__doc__)
    p.add_argument("--data", nargs="+", type=Path, default=[], metavar="PATH")
    p.add_argument("--generate", nargs="+", default=[], metavar="clustered:ROWSxDIM")
    p.add_argument("--dtype", default="float32")
    p.add_argument("--recall", type=float, default=0.95, help="search as hard as this needs")
    p.add_argument("--threads", type=int, default=2, help="for builds")
    p.add_argument("--rounds", type=int, default=5, help="cold and warm starts of each")
    p.add_argument("--rows", type=int, metavar="N", help="use the first rows only (for a trial)")
    p.add_argument("--k", type=int, default=10)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--out", type=Path, default=HERE / "results")
    p.add_argument("--work", type=Path, help="where index files go: a disk, not a memory folder")
    p.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="where generated sets go")
    return p


def _measure_set(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    raw = read_set(path)
    dtype = run_dtype(raw, options.dtype)
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="bench-cold-", dir=options.work))
    try:
        prepared = prepare(raw, dtype, work / "data", None, options.rows, options.seed)
        truth = load_truth(prepared, options.k)
        run_options = RunOptions(
            k=options.k,
            threads=options.threads,
            rounds=options.rounds,
            seed=options.seed,
            work=work,
            say=say,
        )
        results = []
        for label, (name, chosen) in CONTESTANTS.items():
            contestant = BY_NAME[name]
            if contestant.is_installed() and contestant.supports(prepared.metric):
                entry = new_entry(label, name, chosen, prepared, run_options)
                results.append(_measured_or_failed(entry, truth, run_options, options.recall))
        return {
            "name": raw.name,
            "dtype": dtype,
            "read_ahead_kib": read_ahead_kib(work),
            "contestants": results,
        }
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _measured_or_failed(
    entry: Entry, truth: Truth, options: RunOptions, target: float
) -> dict[str, Any]:
    try:
        return measure_entry(entry, truth, options, target)
    except WorkerError as error:
        return {"name": entry.label, "failure": without_folders(error)}
    finally:
        close_entry(entry)


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser()
    options = p.parse_args(arguments)
    folders = list(options.data)
    folders += [
        generate(parse_spec(text, options.seed), options.cache) for text in options.generate
    ]
    if not folders:
        p.error("nothing to measure: give --data or --generate")
    document: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "commit": commit(),
        "machine": describe(),
        "recall_target": options.recall,
        "rounds": options.rounds,
        "page_bytes": PAGE_BYTES,
        "sets": [_measure_set(folder, options) for folder in folders],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "cold.json", document)
    text = "\n\n".join(["# Cold start", *(table(one) for one in document["sets"])])
    (options.out / "cold.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
