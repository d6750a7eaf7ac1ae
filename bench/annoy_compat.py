"""annidx.AnnoyIndex against Annoy: same trees, same search_k, same script, same run.

``python -m bench.annoy_compat --data DIR [DIR ...]`` builds both with the same number of
trees and asks both every search_k, in interleaved rounds. A table shows recall and
queries a second side by side, with build time and file size.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.cli import HERE, say
from bench.datasets import PreparedSet, prepare, read_set, run_dtype
from bench.machine import commit, describe
from bench.report import set_result, write_json
from bench.run import RunOptions, measure_set

SIDES = ("annoy", "annidx.AnnoyIndex")
MIB = 1 << 20
LEAST_SPEED_RATIO = 5.0
LARGEST_BUILD_RATIO = 1 / 3
LARGEST_FILE_RATIO = 1.0


def contestants(n_trees: int, search_ks: Sequence[int]) -> dict[str, tuple[str, dict[str, Any]]]:
    return {name: (name, {"n_trees": n_trees, "search_k": tuple(search_ks)}) for name in SIDES}


def compare(
    prepared: PreparedSet, n_trees: int, search_ks: Sequence[int], options: RunOptions
) -> dict[str, Any]:
    """Both sides with so many trees: every search_k, then the verdict on the goals."""
    entries = measure_set(prepared, contestants(n_trees, search_ks), options)
    result = set_result(prepared, entries, options.k, len(prepared.queries()))
    result["n_trees"] = n_trees
    failures = [one for one in result["contestants"] if one["failure"] is not None]
    result["verdict"] = None if failures else _verdict(result)
    return result


def _sides(result: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    by_name = {one["name"]: one for one in result["contestants"]}
    return by_name[SIDES[0]], by_name[SIDES[1]]


def _verdict(result: Mapping[str, Any]) -> dict[str, Any]:
    theirs, ours = _sides(result)
    pairs = list(zip(theirs["points"], ours["points"], strict=True))
    ratios = [our["single"]["median"] / their["single"]["median"] for their, our in pairs]
    build_ratio = ours["build_seconds"] / theirs["build_seconds"]
    file_ratio = ours["file_bytes"] / theirs["file_bytes"]
    recall_is_kept = all(our["recall"] >= their["recall"] for their, our in pairs)
    return {
        "recall_no_lower": recall_is_kept,
        "least_speed_ratio": min(ratios),
        "build_ratio": build_ratio,
        "file_ratio": file_ratio,
        "all_met": recall_is_kept
        and min(ratios) >= LEAST_SPEED_RATIO
        and build_ratio <= LARGEST_BUILD_RATIO
        and file_ratio <= LARGEST_FILE_RATIO,
    }


def table(result: Mapping[str, Any]) -> str:
    """One set and number of trees as Markdown."""
    lines = [f"## {result['name']}, {result['n_trees']} trees", ""]
    failures = [one for one in result["contestants"] if one["failure"] is not None]
    if failures:
        return "\n".join(lines + [f"{one['name']}: {one['failure']}." for one in failures])
    theirs, ours = _sides(result)
    lines += [
        "| search_k | recall, Annoy | recall, annidx | q/s, Annoy | q/s, annidx | faster |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for their, our in zip(theirs["points"], ours["points"], strict=True):
        their_rate, our_rate = their["single"]["median"], our["single"]["median"]
        lines.append(
            f"| {their['setting'].removeprefix('search_k=')} | {their['recall']:.4f} "
            f"| {our['recall']:.4f} | {their_rate:,.0f} | {our_rate:,.0f} "
            f"| {our_rate / their_rate:.1f}x |"
        )
    verdict = result["verdict"]
    lines += [
        "",
        (
            f"Build with adding, {theirs['build_threads']} thread(s): Annoy "
            f"{theirs['build_seconds']:.1f} s (adding {theirs['parameters']['add_seconds']:.1f}), "
            f"annidx {ours['build_seconds']:.1f} s "
            f"(adding {ours['parameters']['add_seconds']:.1f}), "
            f"{verdict['build_ratio']:.2f}x. File: Annoy {theirs['file_bytes'] / MIB:,.1f} MiB, "
            f"annidx {ours['file_bytes'] / MIB:,.1f} MiB, {verdict['file_ratio']:.2f}x."
        ),
        "",
        (
            f"Recall no lower at any search_k: {_yes(verdict['recall_no_lower'])}. Least speed "
            f"ratio: {verdict['least_speed_ratio']:.1f}x (goal {LEAST_SPEED_RATIO:g}x). Build at "
            f"most a third: {_yes(verdict['build_ratio'] <= LARGEST_BUILD_RATIO)}. File no larger: "
            f"{_yes(verdict['file_ratio'] <= LARGEST_FILE_RATIO)}."
        ),
    ]
    return "\n".join(lines)


def _yes(met: bool) -> str:
    return "yes" if met else "no"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m bench.annoy_compat", description=__doc__)
    p.add_argument("--data", nargs="+", type=Path, required=True, metavar="PATH")
    p.add_argument("--n-trees", nargs="+", type=int, default=[10, 50])
    p.add_argument(
        "--search-k", nargs="+", type=int, default=[500, 2000, 5000, 10000, 20000, 50000, 100000]
    )
    p.add_argument("--threads", type=int, default=1, help="for builds")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--queries", type=int, metavar="N", help="use a sample of the queries")
    p.add_argument("--rows", type=int, metavar="N", help="use the first rows only (for a trial)")
    p.add_argument("--k", type=int, default=10)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--out", type=Path, default=HERE / "results")
    p.add_argument("--work", type=Path, help="where index files go; default a temporary folder")
    return p


def _compare_set(path: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    raw = read_set(path)
    dtype = run_dtype(raw, "float32")
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="bench-annoy-", dir=options.work))
    try:
        prepared = prepare(raw, dtype, work / "data", options.queries, options.rows, options.seed)
        return [
            compare(
                prepared,
                n_trees,
                options.search_k,
                RunOptions(
                    k=options.k,
                    threads=options.threads,
                    rounds=options.rounds,
                    seed=options.seed,
                    work=work / f"{n_trees}-trees",
                    say=say,
                    every_setting=True,
                ),
            )
            for n_trees in options.n_trees
        ]
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    results = [result for path in options.data for result in _compare_set(path, options)]
    document = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "commit": commit(),
        "machine": describe(),
        "comparisons": results,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "annoy_compat.json", document)
    text = "\n\n".join(["# Annoy's API: annidx beside Annoy", *(table(one) for one in results)])
    (options.out / "annoy_compat.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
