"""Owns `annidx explore`: an index file, or the words of the demo, on a local web page."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from annidx import demo
from annidx.cli.arguments import Command, port


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("index", nargs="?", metavar="INDEX", help="an index file (the words of the demo)")
    add("--names", metavar="FILE", help="titles: lines of id, tab, title; or .csv, or .json")
    add("--port", type=port, default=0, metavar="N", help="port on 127.0.0.1 (any free one)")
    add("--no-browser", action="store_true", help="print the address only")


def _run(arguments: argparse.Namespace) -> None:
    if arguments.index is not None:
        _serve(arguments.index, arguments)
        return
    with tempfile.TemporaryDirectory(prefix="annidx-explore-") as folder:
        path = Path(folder) / "words.annidx"
        print("indexing the words of the demo", flush=True)
        demo.build_index(demo.load_words()).save(path)
        _serve(path, arguments)


def _serve(path: str | Path, arguments: argparse.Namespace) -> None:
    from annidx.explore import serve

    serve(path, names=arguments.names, port=arguments.port, browser=not arguments.no_browser)


COMMAND = Command(
    "Look at an index file on a local web page: search, neighbours, map, radio.",
    _add_arguments,
    _run,
)
