"""Owns `annidx verify`: whether index files are sound."""

from __future__ import annotations

import argparse

import annidx
from annidx.cli.arguments import Command


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", nargs="+", metavar="INDEX", help="index files")


def _run(arguments: argparse.Namespace) -> None:
    for path in arguments.index:
        annidx.verify(path)
        print(f"{path}: sound")


COMMAND = Command("Check every checksum and every rule of a file.", _add_arguments, _run)
