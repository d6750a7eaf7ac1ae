"""From measured entries to JSON and Markdown; every figure in a table is in the JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.datasets import PreparedSet
from bench.pareto import AtRecall, Point, at_recall
from bench.run import HEADLINE_TARGET, TARGETS, Entry, MeasuredSetting
from bench.worker import BuildResult, Timing

OURS = "annidx"
MIB = 1 << 20
CONTENDED_BELOW_CORE_SHARE = 0.95
NOT_REACHED = "not reached"


def set_result(
    prepared: PreparedSet, entries: Sequence[Entry], k: int, queries: int
) -> dict[str, Any]:
    """The JSON of one set."""
    return {
        "name": prepared.name,
        "metric": prepared.metric,
        "dtype": prepared.dtype,
        "rows": prepared.rows,
        "dim": prepared.dim,
        "queries": queries,
        "k": k,
        "contestants": [_entry_result(entry, prepared) for entry in entries],
    }


def _entry_result(entry: Entry, prepared: PreparedSet) -> dict[str, Any]:
    result: dict[str, Any] = {"name": entry.label, "failure": entry.failure}
    if entry.built is not None:
        result |= _build_result(entry, prepared)
    if entry.opens_s:
        result["open_seconds"] = {
            "first": entry.opens_s[0],
            "median": statistics.median(entry.opens_s),
        }
    result["points"] = [_setting_result(measured) for measured in entry.settings]
    result["points_of_first_turn"] = [
        {
            "setting": measured.setting.label,
            "recall": measured.recall,
            "queries_per_second": measured.first.queries_per_second,
        }
        for measured in entry.all_settings
    ]
    result["at_recall"] = {f"{target:g}": _figures_at(entry, target) for target in TARGETS}
    return result


def _build_result(entry: Entry, prepared: PreparedSet) -> dict[str, Any]:
    built = entry.built
    assert built is not None
    raw_bytes = prepared.rows * built.vector_bytes
    bits = prepared.metric == "hamming"
    reference_bytes = prepared.rows * (prepared.dim // 8 if bits else prepared.dim * 4)
    index_bytes = _index_bytes(built, raw_bytes)
    return {
        "version": built.version,
        "parameters": built.parameters,
        "build_seconds": built.build_seconds,
        "build_processor_seconds": built.build_processor_seconds,
        "build_threads": entry.assignment.task.threads,
        "save_seconds": built.save_seconds,
        "peak_resident_bytes": built.peak_resident_bytes,
        "peak_over_data_bytes": built.peak_resident_bytes - built.resident_before_bytes,
        "file_bytes": built.file_bytes,
        "file_holds": built.file_holds,
        "raw_vectors_bytes": raw_bytes,
        "index_bytes": index_bytes,
        "file_share_of_reference": built.file_bytes / reference_bytes,
        "index_share_of_reference": None if index_bytes is None else index_bytes / reference_bytes,
        "reference_bytes": reference_bytes,
    }


def _index_bytes(built: BuildResult, raw_bytes: int) -> int | None:
    """The file less the exact vectors in it; unknown where it holds them compressed."""
    if built.file_holds == "compressed vectors":
        return None
    return built.file_bytes - (raw_bytes if built.file_holds == "exact vectors" else 0)


def _timings_result(timings: Sequence[Timing]) -> dict[str, Any]:
    rates = [timing.queries_per_second for timing in timings]
    return {
        "median": statistics.median(rates),
        "best": max(rates),
        "rounds": rates,
        "core_share": statistics.median(timing.core_share for timing in timings),
    }


def _setting_result(measured: MeasuredSetting) -> dict[str, Any]:
    return {
        "setting": measured.setting.label,
        "recall": measured.recall,
        "single": _timings_result(measured.single or [measured.first]),
        "batch": {
            str(threads): _timings_result(timings) for threads, timings in measured.batch.items()
        },
    }


def _figures_at(entry: Entry, target: float) -> dict[str, Any]:
    """Single calls and batches at a recall; null where it is not reached."""
    figures = {"single": _figure([one.single_point() for one in entry.settings], target)}
    for threads in range(1, entry.assignment.task.threads + 1):
        points = [one.batch_point(threads) for one in entry.settings if threads in one.batch]
        figures[f"batch_{threads}"] = _figure(points, target)
    return figures


def _figure(points: Sequence[Point], target: float) -> dict[str, Any] | None:
    value: AtRecall | None = at_recall(points, target)
    if value is None:
        return None
    return {
        "queries_per_second": value.queries_per_second,
        "is_lower_bound": value.is_lower_bound,
    }


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write_markdown(path: Path, document: Mapping[str, Any]) -> None:
    parts = [_heading(document), *(set_table(one) for one in document["sets"]), _legend()]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _heading(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    options = document["options"]
    virtual = ", virtual" if machine["virtual"] else ""
    lines = [
        "# Benchmark results",
        (
            f"{machine['processor']} ({machine['family/model/stepping']}{virtual}), "
            f"{machine['instruction set']}, "
            f"{machine['usable cores']} cores, {machine['memory GiB']:g} GiB; "
            f"{', '.join(machine['isa'])}. {machine['system']}, Python {machine['python']}, "
            f"NumPy {machine['numpy']}. Commit {document['commit']}, seed {options['seed']}, "
            f"{document['date']}."
        ),
        (
            f"Recall@{options['k']}; one query a call through Python on one core unless a column "
            f"says batch; builds with {options['threads']} threads; medians of "
            f"{options['rounds']} interleaved rounds; rates by {options['clock']} time."
        ),
    ]
    return "\n\n".join(lines)


def set_table(result: Mapping[str, Any]) -> str:
    """One set as Markdown."""
    threads = max(
        (one.get("build_threads", 1) for one in result["contestants"]),
        default=1,
    )
    header = ["", "version"]
    for target in TARGETS:
        header += [f"q/s at {target:g}", "annidx is"]
    header += [f"batch at {HEADLINE_TARGET:g}, threads: {n}" for n in range(1, threads + 1)]
    header += [
        "build s (core s)",
        "peak MiB over data",
        "file MiB",
        "index part",
        "open ms",
        "best recall",
    ]
    ours = next((one for one in result["contestants"] if one["name"] == OURS), None)
    rows = [
        _row(one, ours, threads)
        for one in sorted(result["contestants"], key=_by_speed)
        if one["failure"] is None
    ]
    lines = [
        f"## {result['name']}, {result['dtype']}",
        "",
        f"{result['rows']:,} x {result['dim']}, {result['metric']}, {result['queries']:,} queries.",
        "",
        _line(header),
        _line(["---"] + ["---:"] * (len(header) - 1)),
        *(_line(row) for row in rows),
        *_notes(result),
    ]
    return "\n".join(lines)


def _by_speed(one: Mapping[str, Any]) -> float:
    figure = one["at_recall"][f"{HEADLINE_TARGET:g}"]["single"]
    return -figure["queries_per_second"] if figure else 0.0


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _rate(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return NOT_REACHED
    mark = "≥ " if figure["is_lower_bound"] else ""
    return f"{mark}{figure['queries_per_second']:,.0f}"


def _ratio(ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> str:
    """How many times faster annidx is; a bound on either side is marked."""
    if ours is None or theirs is None:
        return ""
    mark = {(True, False): "≥ ", (False, True): "≤ ", (True, True): "~ "}.get(
        (ours["is_lower_bound"], theirs["is_lower_bound"]), ""
    )
    return f"{mark}{ours['queries_per_second'] / theirs['queries_per_second']:.2f}x"


def _row(one: Mapping[str, Any], ours: Mapping[str, Any] | None, threads: int) -> list[str]:
    is_ours = one["name"] == OURS
    cells = [f"**{one['name']}**" if is_ours else one["name"], one["version"]]
    for target in TARGETS:
        figure = one["at_recall"][f"{target:g}"]["single"]
        our_figure = ours["at_recall"][f"{target:g}"]["single"] if ours else None
        cells += [_rate(figure), "" if is_ours else _ratio(our_figure, figure)]
    batches = one["at_recall"][f"{HEADLINE_TARGET:g}"]
    cells += [_rate(batches[f"batch_{count}"]) for count in range(1, threads + 1)]
    share = one["index_share_of_reference"]
    return [
        *cells,
        f"{one['build_seconds']:.1f} ({one['build_processor_seconds']:.1f})",
        f"{one['peak_over_data_bytes'] / MIB:,.0f}",
        f"{one['file_bytes'] / MIB:,.1f}",
        one["file_holds"] if share is None else f"{share:.2f}x",
        f"{one['open_seconds']['median'] * 1e3:.2f}",
        f"{max((point['recall'] for point in one['points']), default=0):.4f}",
    ]


def _is_contended(timings: Mapping[str, Any]) -> bool:
    return bool(timings["core_share"] < CONTENDED_BELOW_CORE_SHARE)


def _notes(result: Mapping[str, Any]) -> list[str]:
    """Failures and contention, said under the table they concern."""
    notes = [
        f"{one['name']}: left out ({one['failure']})."
        for one in result["contestants"]
        if one["failure"]
    ]
    contended = [
        one["name"]
        for one in result["contestants"]
        if any(_is_contended(point["single"]) for point in one["points"])
    ]
    if contended:
        notes.append(
            "The machine was not quiet: less than "
            f"{CONTENDED_BELOW_CORE_SHARE:.0%} of a core at some settings of "
            f"{', '.join(contended)}."
        )
    return ["", *notes] if notes else []


def _legend() -> str:
    return (
        "*q/s at*: log-linear between the two neighbouring points of the contestant's own "
        "front, never extrapolated; `≥`: all its settings lie above that recall, the fastest "
        "is given. *annidx is*: annidx's figure over the contestant's. *index part*: file "
        "less the exact vectors in it, over the vectors in float32 (packed bits for hamming). "
        "*build*: the clock, and in brackets the processor time of all threads."
    )
