"""Owns what the arguments of several commands mean: their types, and options that come together.

It must not do what a command does.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from annidx.io.inputs import metric_hint
from annidx.io.readers import FORMATS
from annidx.io.source import STANDARD_INPUT
from annidx.io.table import Selection

INPUTS = "a file of any format that annidx build reads, or - for standard input"
IDS = "text, CSV or JSON lines, an id a line; .npy, .parquet or .feather of ids alone"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?", re.IGNORECASE)


class Command(NamedTuple):
    """One subcommand: what it is for, its arguments, and the function that does it."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


# ---- types ------------------------------------------------------------------------------


def positive(text: str) -> int:
    """Read a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, found {text!r}")
    return int(text)


def not_negative(text: str) -> int:
    """Read a whole number of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of 0 or more, found {text!r}")
    return int(text)


def port(text: str) -> int:
    """Read a port: 0 for any free one."""
    number = not_negative(text)
    if number > 65_535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, found {text!r}")
    return number


def jobs(text: str) -> int:
    """Read a number of threads; -1 is all cores."""
    return -1 if text == "-1" else positive(text)


def share(text: str) -> float:
    """Read a number in (0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number in (0, 1], found {text!r}")
    return value


def size(text: str) -> int:
    """Read bytes: a number with k, M, G or T, in powers of ten, or of 1,024 with an i."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected a size such as 800M or 4GiB, found {text!r}")
    number, unit, binary = match.groups()
    base = 1024 if binary else 1000
    return int(float(number) * base ** " kmgt".index(unit.lower() or " "))


def metric(names: Sequence[str]) -> Callable[[str], str]:
    """Make the type of a metric's name, which says more of the names that others use."""

    def read(text: str) -> str:
        if text not in names:
            hint = metric_hint(text, names)
            shown = f"expected one of {', '.join(names)}, found {text!r}"
            raise argparse.ArgumentTypeError(f"{shown}: {hint}" if hint else shown)
        return text

    return read


def pair(text: str) -> tuple[str, str]:
    """Read key=value."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected key=value, found {text!r}")
    return key, value


# ---- options that several commands have ------------------------------------------------


def add_index(parser: argparse.ArgumentParser) -> None:
    """Add the index file that a command reads."""
    parser.add_argument("index", metavar="INDEX", help="an index file")


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add which part of a file of vectors is read, and what the file is."""
    add = parser.add_argument
    add("--key", metavar="NAME", help="the array of an .npz or .hdf5")
    add("--vector-column", metavar="NAME", help="the column of lists, where there are several")
    add(
        "--format",
        choices=sorted(FORMATS),
        metavar="FORMAT",
        help=f"of standard input, or of a file whose name does not say so: {', '.join(FORMATS)}",
    )


def selection(arguments: argparse.Namespace) -> Selection:
    """Give what `add_selection` read, and the column of ids where a command has that."""
    id_column = getattr(arguments, "id_column", None)
    return Selection(arguments.key, arguments.vector_column, id_column, arguments.format)


def require_one_standard_input(arguments: argparse.Namespace, *paths: str | None) -> None:
    """Refuse a command line in which two arguments are standard input."""
    if paths.count(STANDARD_INPUT) > 1:
        arguments.parser.error("standard input (-) can be read once")


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add leave to replace a file of another kind."""
    parser.add_argument(
        "--force", action="store_true", help="replace a file of another kind than annidx's own"
    )


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Add the number of threads."""
    parser.add_argument("--jobs", type=jobs, default=-1, metavar="N", help="threads (all cores)")


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """Add what all commands that build take."""
    add = parser.add_argument
    add("--n-trees", type=positive, metavar="N", help="trees (chosen by the library)")
    add("--recall", type=share, default=0.95, metavar="R", help="what queries aim at (0.95)")
    add(
        "--neighbours",
        type=not_negative,
        metavar="N",
        help="near items kept for each item, 0 to 128 (16)",
    )
    add("--seed", type=not_negative, default=0, metavar="N", help="same seed, same file (0)")
    add_jobs(parser)


def build_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Give what `add_build_options` read in the names of `Index.build`."""
    return {
        "n_trees": arguments.n_trees,
        "recall": arguments.recall,
        "neighbours": arguments.neighbours,
        "seed": arguments.seed,
        "n_jobs": arguments.jobs,
    }
