"""What bounds the time of annidx: its kernels one by one, a call from Python, a query by stages.

``python -m bench.micro`` compiles ``micro.cpp`` with the core and times every hot kernel at
every instruction-set level that this machine runs, beside a bound, and the overhead of one
call of ``Index.query``. ``--generate clustered:1000000x96`` or ``--data FOLDER`` builds an index
and says where the build's time and that of its queries goes; ``--index FILE --queries FILE.npy``
takes a finished one.

A bound is the larger of two times that no implementation of the same work can beat here: the
bytes read over the bandwidth measured for the place they lie in (16 KiB, 512 KiB, 32 MiB or
1 GiB; one core reading in order), and the vector instructions of the kernel's loop over those
that Intel cores since Ice Lake start in a cycle (two of 512 bits, three of 256) at the measured
clock. All times are processor time.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import timeit
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import annidx
from bench.cli import HERE, say
from bench.contestant import Array
from bench.datasets import DEFAULT_CACHE, RawSet, read_set
from bench.generate import generate, parse_spec
from bench.machine import commit, describe
from bench.process import usable_cores
from bench.report import write_json

CORE = HERE.parent / "src_c"
BUILT = HERE.parent / "build" / "micro"
# Those of the extension.
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-pthread")
CALL_REPEATS = 15
PERF_HERTZ = 1999
CACHE_LINE = 64
RECALL_SAMPLE = 200

# ---- compiling and running micro.cpp ----------------------------------------------------------


def _sources() -> list[Path]:
    return [HERE / "micro.cpp", *sorted(CORE.glob("*/*.cpp"))]


def _is_fresh(program: Path) -> bool:
    parts = [*_sources(), *CORE.rglob("*.h"), *CORE.rglob("*.inc")]
    return program.exists() and program.stat().st_mtime > max(p.stat().st_mtime for p in parts)


def _compile(source: Path) -> Path:
    target = BUILT / f"{source.stem}.o"
    options = (*FLAGS, f"-I{CORE}", '-DANNIDX_VERSION="micro"')
    subprocess.run(["g++", *options, "-c", source, "-o", target], check=True)
    return target


def compile_program() -> Path:
    """The program, compiled anew if a source has changed."""
    program = BUILT / "micro"
    if not _is_fresh(program):
        say("compiling bench/micro.cpp and src_c")
        BUILT.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(len(usable_cores())) as pool:
            objects = list(pool.map(_compile, _sources()))
        subprocess.run(["g++", "-pthread", *objects, "-o", program], check=True)
    return program


def _answers(command: Sequence[Any], level: str | None = None) -> list[dict[str, Any]]:
    """The JSON objects that the program prints."""
    environment = {**os.environ, **({} if level is None else {"ANNIDX_ISA": level})}
    done = subprocess.run(
        [str(part) for part in command], env=environment, stdout=subprocess.PIPE, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


# ---- kernels and their bounds -----------------------------------------------------------------

# Vector instructions other than loads and stores for one unit of work, counted in src_c/kernels.
# avx512 means the variant with VNNI, VBMI and VPOPCNTDQ.
INSTRUCTIONS = {
    "route_scores 128": {"avx2": 12.5, "avx512": 2.3},
    "rotate_i8 128x128": {"avx2": 2560, "avx512": 1090},
    "lut_floats + lut_quantize 128": {"avx2": 1260, "avx512": 780},
    "scan_codes 32": {"avx2": 6.9, "avx512": 2.3},
    "scan_codes 64": {"avx2": 12.4, "avx512": 4.3},
    "scan_hamming 256": {"avx2": 11.75, "avx512": 2.55},
    "scan_l1_u8 128": {"avx2": 18.75, "avx512": 10.8},
    "rerank_i8 128": {"avx2": 37, "avx512": 16},
    "l2_squared_f32 128": {"avx2": 192, "avx512": 80},
    "dot_square_f32 128": {"avx2": 160, "avx512": 64},
    "l2_squared_u8 128": {"avx2": 208, "avx512": 96},
    "panel_dot 128": {"avx2": 32, "avx512": 16},
    "encode 128 to 32": {"avx2": 990, "avx512": 608},
    "crc32c": {"avx2": 0.125, "avx512": 0.125},
}
STARTED_A_CYCLE = {"avx2": 3, "avx512": 2}
CRC_STARTED_A_CYCLE = 1
FLOATING_OPERATIONS = {"panel_dot 128": 2 * 128, "encode 128 to 32": 2 * 16 * 128}


def _counted_levels(machine: dict[str, Any]) -> set[str]:
    """Levels for which INSTRUCTIONS holds on this machine."""
    counted = {"avx2"}
    if {"avx512_vnni", "avx512vbmi", "avx512_vpopcntdq"} <= set(machine["isa"]):
        counted.add("avx512")
    return counted


def bound_of(
    result: dict[str, Any], probes: dict[str, float], counted: set[str]
) -> tuple[float, str]:
    """The least nanoseconds for a unit, and what sets them."""
    bandwidth = probes[f"{result['place']} GB/s"]
    bound = (result["bytes"] / bandwidth, f"{result['place']} bandwidth")
    count = INSTRUCTIONS.get(result["kernel"], {}).get(result["level"])
    if count is None or result["level"] not in counted or "clock GHz" not in probes:
        return bound
    per_cycle = (
        CRC_STARTED_A_CYCLE if result["kernel"] == "crc32c" else STARTED_A_CYCLE[result["level"]]
    )
    return max(bound, (count / per_cycle / probes["clock GHz"], "instructions"))


def measure_kernels(program: Path, machine: dict[str, Any]) -> dict[str, Any]:
    """Every kernel, place and level."""
    lines = _answers([program, "kernels"])
    probes = {line["probe"]: line["value"] for line in lines if "probe" in line}
    results = [line for line in lines if "kernel" in line]
    counted = _counted_levels(machine)
    for result in results:
        bound_ns, set_by = bound_of(result, probes, counted)
        result.update(bound_ns=bound_ns, bound_by=set_by, share=bound_ns / result["ns"])
        operations = FLOATING_OPERATIONS.get(result["kernel"])
        result["GFLOP/s"] = operations and operations / result["ns"]
    return {"probes": probes, "results": results}


def kernel_table(measured: dict[str, Any]) -> str:
    """Levels of one kernel and place below each other."""
    probes = "; ".join(f"{name} {value:.3g}" for name, value in measured["probes"].items())
    lines = [
        f"measured here: {probes}",
        "",
        f"{'kernel':30} {'place':6} {'level':7} {'ns':>8}  {'a':8} {'GB/s':>6} {'GFLOP/s':>7} "
        + f"{'bound ns':>8} {'share':>5}  bound by",
    ]
    order = {key: i for i, key in enumerate(map(_kernel_and_place, measured["results"]))}
    for one in sorted(measured["results"], key=lambda one: order[_kernel_and_place(one)]):
        flops = f"{one['GFLOP/s']:.0f}" if one["GFLOP/s"] else ""
        lines.append(
            f"{one['kernel']:30} {one['place']:6} {one['level']:7} {one['ns']:8.4g}  "
            f"{one['unit']:8} {one['bytes'] / one['ns']:6.1f} {flops:>7} {one['bound_ns']:8.3g} "
            f"{one['share']:5.0%}  {one['bound_by']}"
        )
    return "\n".join(lines)


def _kernel_and_place(result: dict[str, Any]) -> tuple[str, str]:
    return result["kernel"], result["place"]


# ---- one call from Python ---------------------------------------------------------------------


def _time_core(
    program: Path, index: Path, queries: Array, k: int, recall: float, level: str | None = None
) -> dict[str, Any]:
    """One query a call in C++: nanoseconds and the setting that the recall stands for."""
    with tempfile.NamedTemporaryFile(suffix=".raw") as file:
        file.write(np.ascontiguousarray(queries).tobytes())
        file.flush()
        command = [program, "query", index, file.name, k, recall, 1.0]
        return _answers(command, level)[0]


def _time_call(call: Callable[[], object]) -> float:
    """Median microseconds of a call."""
    timer = timeit.Timer(call, timer=time.thread_time)
    count = max(1, int(0.02 / timer.timeit(100) * 100))
    return 1e6 * float(np.median(timer.repeat(CALL_REPEATS, count))) / count


def measure_call(program: Path) -> dict[str, float]:
    """A query of an index of one item: what is left is the way in and out."""
    query = np.ones(96, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.annidx"
        made = annidx.Index(dim=96, metric="euclidean")
        made.add_items(query[None])
        made.build()
        made.save(path)
        with annidx.load(path) as index:
            total_us = _time_call(lambda: index.query(query, k=1))
        core_us = _time_core(program, path, query, 1, 0.95)["ns"] / 1e3
    empty_us = _time_call(lambda: None)
    return {"call us": total_us - empty_us, "core us": core_us}


# ---- a build by stages ------------------------------------------------------------------------


class StageClock:
    """Listens to a build's progress and gives the processor time since the last news to its stage.

    Processor time of all threads: others on the machine do not count, nor does waiting.
    """

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._last = time.process_time()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.process_time()
        self.seconds[stage] += now - self._last
        self._last = now


def build(raw: RawSet, file: Path) -> dict[str, Any]:
    """Seconds from start to end, and of processor time in each stage."""
    index = annidx.Index(dim=raw.base.shape[1], metric=raw.metric)
    index.add_items(np.asarray(raw.base))
    clock = StageClock()
    start_s = time.perf_counter()
    index.build(progress=clock)
    seconds = time.perf_counter() - start_s
    index.save(file)
    return {"threads": len(usable_cores()), "s": seconds, "processor s": dict(clock.seconds)}


# ---- a query by stages ------------------------------------------------------------------------

# By the function of a call chain, from its end upwards, that is met first; in the order of a query.
STAGES = {
    "QueryForms::prepare_scan": "tables",
    "QueryForms::": "other forms of the query",
    "annidx::route": "route",
    "BlockScan::score_blocks": "blocks",
    "BlockScan::choose_blocks": "blocks",
    "BlockScan::run": "scan",
    "LeafScan::run": "scan",
    "Expansion::": "expand",
    "annidx::rerank": "rerank",
    "ExactStage::": "exact",
}
REST = "rest"
# What several stages call.
PARTS = {
    "annidx::prefetch_l2": "prefetch",
    "gather_codes": "gather",
    "near_bound": "selection",
    "compact_at_most": "selection",
    "select_at_most": "selection",
    "sort_best": "sort",
}


def _met(chain: Iterable[str], names: dict[str, str]) -> str | None:
    return next((names[mark] for frame in chain for mark in names if mark in frame), None)


def _stage(chain: Sequence[str]) -> str:
    stage, part = _met(chain, STAGES), _met(chain, PARTS)
    return REST if stage is None else stage if part is None else f"{stage}: {part}"


def stage_shares(
    program: Path, index: Path, queries: Array, k: int, recall: float
) -> dict[str, float] | None:
    """The share of each stage in samples that perf takes, or None where perf does not run."""
    with tempfile.TemporaryDirectory() as folder:
        raw, data = Path(folder) / "queries.raw", Path(folder) / "perf.data"
        raw.write_bytes(np.ascontiguousarray(queries).tobytes())
        record = ["perf", "record", "-q", "-F", PERF_HERTZ, "--call-graph", "dwarf,4096"]
        command = [*record, "-o", data, "--", program, "query", index, raw, k, recall, 4.0]
        try:
            _answers(command)
        except (OSError, subprocess.CalledProcessError):
            return None
        script = ["perf", "script", "-i", str(data), "-F", "ip,sym", "--no-inline"]
        text = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    chains = [chain.splitlines() for chain in text.split("\n\n")]
    counts = Counter(_stage(c) for c in chains if any("Searcher::run" in frame for frame in c))
    order = [*dict.fromkeys(STAGES.values()), REST]
    ordered = sorted(counts, key=lambda stage: (order.index(stage.split(":")[0]), stage))
    return {stage: counts[stage] / counts.total() for stage in ordered}


def _bytes_read(info: dict[str, Any], setting: dict[str, Any]) -> dict[str, float]:
    """Bytes of the file that one query's scan, re-ranking and exact scores read at least."""
    row_bytes = info["vector_bytes"] / info["items"]
    scan_bytes = {"codes": info["code_bytes"] + 4, "byte_rows": info["dim"]}
    lines = CACHE_LINE * (-(-info["dim"] // CACHE_LINE) + 1)
    return {
        "scan": setting["candidates"] * scan_bytes.get(info["scan"], row_bytes),
        "re-rank": setting["rerank"] * lines if info["scan"] == "codes" else 0,
        "exact": setting["exact"] * row_bytes,
    }


def _recall(index: annidx.Index, queries: Array, k: int, recall: float) -> float:
    """Share of the answers of a sample that are as near as the true k-th."""
    sample = queries[:RECALL_SAMPLE]
    packed = index.metric == "hamming"
    found = index.query(sample, k=k, recall=recall, packed=packed)[1]
    truth = index.query_exact(sample, k=k, packed=packed, n_jobs=-1)[1][:, -1:]
    slack = 1e-6 * np.abs(truth)
    near = found >= truth - slack if index.metric == "dot" else found <= truth + slack
    return float(near.mean())


def measure_queries(
    program: Path, file: Path, queries: Array, k: int, recall: float
) -> dict[str, Any]:
    """One query a call: each level's time, the stages, bytes, and the same through Python."""
    levels = ("scalar", "avx2", "avx512", "neon")
    runs = [_time_core(program, file, queries, k, recall, level) for level in levels]
    core_us = {run["level"]: run["ns"] / 1e3 for run in runs}
    with annidx.load(file) as index:
        info = index.info()
        packed = {"packed": True} if index.metric == "hamming" else {}
        turn = itertools.cycle(queries)
        python_us = _time_call(lambda: index.query(next(turn), k=k, recall=recall, **packed))
        achieved = _recall(index, queries, k, recall)
    return {
        "items": info["items"],
        "dim": info["dim"],
        "leaves": info["leaves"],
        "k": k,
        "recall target": recall,
        "recall": achieved,
        "setting": {name: runs[0][name] for name in ("candidates", "rerank", "exact")},
        "bytes": _bytes_read(info, runs[0]),
        "core us": core_us,
        "python us": python_us,
        "stages": stage_shares(program, file, queries, k, recall),
    }


def query_table(measured: dict[str, Any]) -> str:
    """One index at one target."""
    setting, size = measured["setting"], measured["bytes"]
    best, best_us = list(measured["core us"].items())[-1]
    lines = [
        f"{measured['items']} x {measured['dim']}, {measured['leaves']} leaves, k {measured['k']}: "
        + f"recall target {measured['recall target']}, reached {measured['recall']:.4f}",
        f"  points scanned {setting['candidates']} ({size['scan'] / 1e3:.0f} kB), "
        + f"re-ranked {setting['rerank']} ({size['re-rank'] / 1e3:.0f} kB), "
        + f"scored exactly {setting['exact']} ({size['exact'] / 1e3:.0f} kB)",
        f"  us a query: through Python {measured['python us']:.1f}; core "
        + ", ".join(f"{level} {us:.1f}" for level, us in measured["core us"].items()),
    ]
    if measured["stages"] is None:
        return "\n".join([*lines, "  no stages: perf is not installed or not allowed here"])
    for stage, share in measured["stages"].items():
        lines.append(f"  {stage:25} {share:6.1%} {share * best_us:8.2f} us ({best})")
    return "\n".join(lines)


# ---- the command line -------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__)
    p.add_argument("--generate", metavar="clustered:ROWSxDIM", help="a set to generate and build")
    p.add_argument("--data", type=Path, help="a set as python -m bench takes it, to build")
    p.add_argument("--index", type=Path, help="a finished index file, with --queries")
    p.add_argument("--queries", type=Path, help=".npy, float32 rows or packed bits")
    p.add_argument("--k", type=int, default=10)
    p.add_argument("--recall", type=float, nargs="+", default=[0.95, 0.99])
    p.add_argument("--seed", type=int, default=1, help="of --generate")
    p.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="where generated sets stay")
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    return p


def _queries_of(raw: RawSet) -> Array:
    dtype = np.uint8 if raw.metric == "hamming" else np.float32
    return np.ascontiguousarray(raw.queries, dtype)


def _measure_index(
    program: Path, file: Path, queries: Array, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """At every target; each table is printed as soon as it is there."""
    found = []
    for recall in options.recall:
        found.append(measure_queries(program, file, queries, options.k, recall))
        print(query_table(found[-1]), flush=True)
    return found


def _measure_set(program: Path, raw: RawSet, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "set.annidx"
        built = build(raw, file)
        stages = built["processor s"]
        parts = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages.items())
        print(f"{raw.name}: built in {built['s']:.1f} s on {built['threads']} threads", flush=True)
        print(f"  processor s: {parts}; together {sum(stages.values()):.1f}", flush=True)
        queries = _measure_index(program, file, _queries_of(raw), options)
    return {"name": raw.name, "build": built, "queries": queries}


def _measure(program: Path, options: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """What was asked for; without a set or an index, kernels and calls."""
    if options.generate:
        folder = generate(parse_spec(options.generate, options.seed), options.cache)
        return {"set": _measure_set(program, read_set(folder), options)}
    if options.data:
        return {"set": _measure_set(program, read_set(options.data), options)}
    if options.index:
        return {"index": _measure_index(program, options.index, np.load(options.queries), options)}
    kernels = measure_kernels(program, machine)
    print(kernel_table(kernels))
    call = measure_call(program)
    print(
        f"\na query of one item: {call['call us']:.2f} us a call, {call['core us']:.2f} in the core"
    )
    return {"kernels": kernels, "call": call}


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser()
    options = p.parse_args(arguments)
    if (options.index is None) != (options.queries is None):
        p.error("--index and --queries go together")
    machine = describe()
    document = {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "commit": commit(),
        **_measure(compile_program(), options, machine),
    }
    if options.json:
        write_json(options.json, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
