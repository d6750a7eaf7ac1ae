"""Owns `annidx info`: what an index file holds."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import annidx
from annidx._terminal import Style, human_bytes
from annidx.cli.arguments import Command, add_index
from annidx.cli.output import curve_table


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    parser.add_argument("--json", action="store_true", help="everything, as JSON")


def _run(arguments: argparse.Namespace) -> None:
    with annidx.load(arguments.index) as index:
        info = index.info()
    if arguments.json:
        print(json.dumps(info, indent=2))
        return
    style = Style(sys.stdout)
    print(style(arguments.index, "bold"))
    for name, value in _facts(info):
        print(f"  {style(f'{name:<10}', 'dim')} {value}")
    print("\n  recall as measured, and points inspected for it")
    for line in curve_table(_steps_of(info["curve"]), style):
        print(f"  {line}")


def _facts(info: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Put what a person wants to know first into a few lines."""
    yield "vectors", f"{info['items']:,} of {info['dim']} dimensions, kept as {info['dtype']}"
    yield "metric", info["metric"]
    yield "ids", {"int": "integers", "str": "text"}[info["ids"]]
    rest = human_bytes(info["file_bytes"] - info["vector_bytes"])
    yield "file", f"{human_bytes(info['file_bytes'])}, of which the vectors leave {rest}"
    trees = "1 tree" if info["n_trees"] == 1 else f"{info['n_trees']} trees"
    yield "index", f"{trees}, {info['leaves']:,} leaves"
    yield "target", f"recall {info['default_recall']:g}"
    yield "format", f"{info['format_version']}, written by annidx {info['library_version']}"
    yield "identity", info["identity"]
    for name, count in info["sets"].items():
        yield "set", f"{name}: {count:,} items"
    for key, value in (info["metadata"] or {}).items():
        yield "metadata", f"{key} = {value if isinstance(value, str) else json.dumps(value)}"


def _steps_of(curve: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose, for each k, the first point of a curve that reaches each of some round recalls."""
    steps: list[dict[str, Any]] = []
    for k in sorted({point["k"] for point in curve}):
        points = [point for point in curve if point["k"] == k]
        for target in (0.8, 0.9, 0.95, 0.99, 0.999):
            reached = next((point for point in points if point["recall"] >= target), None)
            if reached is not None and reached not in steps:
                steps.append(reached)
    return steps


COMMAND = Command("Tell what an index file holds.", _add_arguments, _run)
