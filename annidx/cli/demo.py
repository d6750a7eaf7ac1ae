"""Owns `annidx demo`: the tour, or the neighbours of some words."""

from __future__ import annotations

import argparse
import sys

from annidx.cli.arguments import Command, add_force, positive
from annidx.io.inputs import require_replaceable


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="WORD", help="words to find neighbours of")
    parser.add_argument("-k", type=positive, default=10, help="neighbours of a word (10)")
    parser.add_argument("--save", metavar="FILE", help="keep the index that the demo builds")
    add_force(parser)


def _run(arguments: argparse.Namespace) -> None:
    from annidx import demo

    force = arguments.force
    if arguments.save is not None:
        require_replaceable(arguments.save, force=force)
    if arguments.words:
        demo.answer(sys.stdout, arguments.words, arguments.k, arguments.save, force=force)
    else:
        demo.tour(sys.stdout, arguments.save, force=force)


COMMAND = Command("Show what annidx does, on 30,000 words that come with it.", _add_arguments, _run)
