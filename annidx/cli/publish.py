"""Owns `annidx publish`: a new index file in the place of the one that services read."""

from __future__ import annotations

import argparse
import math

import annidx
from annidx.cli.arguments import Command


def _share(text: str) -> float:
    """Read a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, found {text!r}")
    return value


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("new", metavar="NEW", help="the new index file; it is renamed")
    add("live", metavar="LIVE", help="the file that services read; it stays as LIVE.previous")
    add(
        "--max-shrink",
        type=_share,
        default=0.1,
        metavar="SHARE",
        help="the share of items that may be missing from NEW's count (0.1)",
    )
    add(
        "--force",
        action="store_true",
        help="publish although LIVE has another metric, dimension or kind of ids, a named set "
        "that NEW lacks, or many more items, or is damaged or no annidx file",
    )


def _run(arguments: argparse.Namespace) -> None:
    done = annidx.publish(
        arguments.new, arguments.live, max_shrink=arguments.max_shrink, force=arguments.force
    )
    before = "" if done.previous is None else f", {done.previous_items:,} before: {done.previous}"
    print(f"{arguments.live}: {done.items:,} vectors, sound{before}")


COMMAND = Command("Verify a new index file and put it in the place of one.", _add_arguments, _run)
