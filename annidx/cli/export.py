"""Owns `annidx export`: the vectors of an index into a file of another program."""

from __future__ import annotations

import argparse
import os

import annidx
from annidx._terminal import human_bytes
from annidx.cli.arguments import Command, add_index


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="FILE", help="a .npy or .parquet file to write")
    add("--packed", action="store_true", help="hamming, .npy: each byte eight bits")
    add("--force", action="store_true", help="replace a file that exists")


def _run(arguments: argparse.Namespace) -> None:
    with annidx.load(arguments.index) as index:
        index.export(arguments.output, packed=arguments.packed, force=arguments.force)
        count = len(index)
    print(
        f"{arguments.output}: {count:,} vectors, {human_bytes(os.path.getsize(arguments.output))}"
    )


COMMAND = Command("Write an index's vectors to a .npy or .parquet file.", _add_arguments, _run)
