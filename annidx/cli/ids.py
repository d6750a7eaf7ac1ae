"""Owns `annidx ids`: the ids of an index, one a line."""

from __future__ import annotations

import argparse
import json

import annidx
from annidx.cli.arguments import Command, add_index


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    parser.add_argument("--json", action="store_true", help="each id as JSON, one a line")


def _run(arguments: argparse.Namespace) -> None:
    with annidx.load(arguments.index) as index:
        for item in index:
            print(json.dumps(item, ensure_ascii=False) if arguments.json else item)


COMMAND = Command("Print the ids of all items, in the order they were added.", _add_arguments, _run)
