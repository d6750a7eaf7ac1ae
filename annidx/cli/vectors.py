"""Owns how commands that take vectors with ids read them from the files they name."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import numpy.typing as npt

from annidx.cli.arguments import IDS, add_selection, require_one_standard_input, selection
from annidx.io.readers import read_ids, read_tables
from annidx.io.source import InputError
from annidx.io.table import Ids

_INPUTS = "vectors: files as `annidx build` takes them; - for standard input"


def add_vectors(parser: argparse.ArgumentParser, *, with_ids: bool) -> None:
    """Add the input files of vectors and, with their ids, where those come from."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=_INPUTS)
    parser.add_argument(
        "--packed", action="store_true", help="hamming: each byte of the input is eight bits"
    )
    add_selection(parser)
    if with_ids:
        ids = parser.add_mutually_exclusive_group()
        ids.add_argument("--ids", metavar="FILE", help=f"ids: {IDS}")
        ids.add_argument("--id-column", metavar="NAME", help="column of ids in the input")
    else:
        parser.set_defaults(ids=None, id_column=None)


def read_vectors(arguments: argparse.Namespace) -> tuple[npt.NDArray[Any], Ids | None]:
    """Read all inputs, one after the other, and their ids if there are some."""
    require_one_standard_input(arguments, *arguments.inputs, arguments.ids)
    blocks: list[npt.NDArray[Any]] = []
    own: list[Any] = []
    for name, table in read_tables(arguments.inputs, selection(arguments)):
        if blocks and table.vectors.shape[1] != blocks[0].shape[1]:
            raise InputError(
                f"{name}: expected {blocks[0].shape[1]} numbers a vector, as in the input before "
                f"it, found {table.vectors.shape[1]}"
            )
        blocks.append(table.vectors)
        if table.ids is not None:
            own.extend(table.ids)
    vectors = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    ids: Ids | None = own or None
    if arguments.ids is not None:
        ids = read_ids(arguments.ids)
    if ids is not None and len(ids) != len(vectors):
        where = arguments.ids or "the inputs"
        raise InputError(f"{where}: {len(ids):,} ids for {len(vectors):,} vectors")
    return vectors, ids
