"""The command line of ``python -m bench``: which sets, which contestants, where to write."""

from __future__ import annotations

import argparse
import datetime
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.contestant import Contestant
from bench.datasets import (
    DEFAULT_CACHE,
    RawSet,
    prepare,
    read_set,
    run_dtype,
    with_log_normal_norms,
)
from bench.generate import generate, parse_spec
from bench.machine import commit, describe, name_of
from bench.peers import BY_NAME, MAIN_CONTESTANTS
from bench.process import usable_cores
from bench.report import set_result, set_table, write_json, write_markdown
from bench.run import RunOptions, measure_set

HERE = Path(__file__).parent
DEFAULT_DTYPE = "float32"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    p.add_argument(
        "--data",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="folders (base.npy, query.npy, gt_ids.npy, meta.json) or ann-benchmarks .hdf5 files",
    )
    p.add_argument(
        "--generate",
        nargs="+",
        default=[],
        metavar="clustered:ROWSxDIM",
        help="sets to generate, clustered and of low intrinsic dimension",
    )
    p.add_argument(
        "--log-normal-norms",
        nargs="+",
        type=float,
        default=[],
        metavar="SIGMA",
        help="also a dot set from every angular one, with log-normal norms of this sigma",
    )
    p.add_argument(
        "--peers",
        default="auto",
        metavar="NAMES",
        help="'auto' (all that are installed), 'none', or names with commas; annidx always runs",
    )
    p.add_argument(
        "--dtype",
        nargs="+",
        default=[],
        metavar="[SET=]TYPE[,TYPE]",
        help="type to hand over and store, for all sets or for one; default float32",
    )
    p.add_argument("--threads", type=int, help="for builds and batches; default 2, if there are")
    p.add_argument("--rounds", type=int, default=5, help="interleaved rounds of measurement")
    p.add_argument("--queries", type=int, metavar="N", help="use a sample of the queries")
    p.add_argument("--rows", type=int, metavar="N", help="use the first rows only (for a trial)")
    p.add_argument("--k", type=int, default=10)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument(
        "--least-seconds",
        type=float,
        default=0.25,
        help="each timing repeats whole passes over the queries for at least this long",
    )
    p.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="'processor': rates by processor time, where others use the machine meanwhile",
    )
    p.add_argument("--build-limit", type=float, default=7200, metavar="SECONDS")
    p.add_argument("--request-limit", type=float, default=900, metavar="SECONDS")
    p.add_argument("--out", type=Path, default=HERE / "results")
    p.add_argument("--work", type=Path, help="where index files go; default a temporary folder")
    p.add_argument(
        "--keep-indexes",
        type=Path,
        metavar="DIR",
        help="keep built indexes there by content and settings, and use those that are there",
    )
    p.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="where sets that are made go")
    p.add_argument("--list", action="store_true", help="list the contestants and stop")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser()
    options = p.parse_args(arguments)
    if options.list:
        _print_contestants()
        return 0
    if not options.data and not options.generate:
        p.error("nothing to measure: give --data or --generate")
    if options.threads is None:
        options.threads = min(2, len(usable_cores()))
    if not 1 <= options.threads <= len(usable_cores()):
        p.error(f"--threads {options.threads}: this machine has {len(usable_cores())} cores")
    try:
        contestants = chosen_contestants(options.peers)
        runs = list(_runs(options))
    except (ValueError, OSError) as error:
        p.error(str(error))
    _measure_all(options, contestants, runs)
    return 0


def _print_contestants() -> None:
    for contestant in MAIN_CONTESTANTS:
        state = contestant.version() if contestant.is_installed() else "not installed"
        print(f"{contestant.name:20} {state:16} {', '.join(sorted(contestant.metrics))}")


def chosen_contestants(peers: str) -> list[type[Contestant]]:
    """Annidx first where it is installed, then the peers asked for."""
    ours, *others = MAIN_CONTESTANTS
    if peers == "auto":
        chosen = [peer for peer in others if peer.is_installed()]
    elif peers == "none":
        chosen = []
    else:
        names = [name for name in peers.split(",") if name and name != ours.name]
        unknown = sorted(set(names) - {peer.name for peer in others})
        if unknown:
            known = ", ".join(peer.name for peer in others)
            raise ValueError(f"--peers: unknown {', '.join(unknown)}; known are {known}")
        chosen = [BY_NAME[name] for name in names]
        missing = [peer.name for peer in chosen if not peer.is_installed()]
        if missing:
            raise ValueError(f"--peers: not installed: {', '.join(missing)}")
    return ([ours] if ours.is_installed() else []) + chosen


def _dtypes_of(raw: RawSet, asked: Sequence[str]) -> list[str]:
    """The types asked for this set; its own entry before the general one."""
    if raw.metric == "hamming":
        return ["bits"]
    general = [entry for entry in asked if "=" not in entry]
    own = [entry.split("=", 1)[1] for entry in asked if entry.split("=", 1)[0] == raw.name]
    chosen = (own or general or [DEFAULT_DTYPE])[-1]
    return [run_dtype(raw, dtype) for dtype in chosen.split(",")]


def _runs(options: argparse.Namespace) -> list[tuple[RawSet, str]]:
    """Every set with every type it is to be run in."""
    sets = [read_set(path, options.cache) for path in options.data]
    for text in options.generate:
        spec = parse_spec(text, options.seed)
        say(f"generating {spec.name} with its truth, unless it is in the cache")
        sets.append(read_set(generate(spec, options.cache), options.cache))
    for sigma in options.log_normal_norms:
        sets += [
            with_log_normal_norms(raw, sigma, options.seed)
            for raw in list(sets)
            if raw.metric == "angular"
        ]
    return [(raw, dtype) for raw in sets for dtype in _dtypes_of(raw, options.dtype)]


def say(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def _measure_all(
    options: argparse.Namespace,
    contestants: list[type[Contestant]],
    runs: list[tuple[RawSet, str]],
) -> None:
    """After every set the files are written anew, so that a broken run leaves what it has."""
    options.out.mkdir(parents=True, exist_ok=True)
    document = _empty_document(options)
    for raw, dtype in runs:
        result = _measure_one(options, contestants, raw, dtype)
        document["sets"].append(result)
        _write(document, result, options.out)
        print(set_table(result) + "\n", flush=True)


def _empty_document(options: argparse.Namespace) -> dict[str, Any]:
    named = ("k", "threads", "rounds", "seed", "queries", "rows", "least_seconds", "peers", "clock")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "commit": commit(),
        "machine": describe(),
        "options": {name: getattr(options, name) for name in named},
        "sets": [],
    }


def _measure_one(
    options: argparse.Namespace,
    contestants: list[type[Contestant]],
    raw: RawSet,
    dtype: str,
) -> dict[str, Any]:
    say(f"{raw.name} as {dtype}")
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="bench-", dir=options.work))
    try:
        prepared = prepare(raw, dtype, work / "data", options.queries, options.rows, options.seed)
        entries = measure_set(
            prepared,
            {contestant.name: (contestant.name, {}) for contestant in contestants},
            RunOptions(
                k=options.k,
                threads=options.threads,
                rounds=options.rounds,
                seed=options.seed,
                least_seconds=options.least_seconds,
                build_limit_seconds=options.build_limit,
                request_limit_seconds=options.request_limit,
                work=work,
                processor_clock=options.clock == "processor",
                kept_indexes=options.keep_indexes,
                say=say,
            ),
        )
        return set_result(prepared, entries, options.k, len(prepared.queries()))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(document: dict[str, Any], result: dict[str, Any], out: Path) -> None:
    from bench.plots import draw_set

    write_json(out / "results.json", document)
    write_markdown(out / "results.md", document)
    draw_set(result, name_of(document["machine"]), out)
