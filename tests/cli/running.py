"""Owns what a command line run in this process leaves behind, and what an error must look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


def assert_one_line(done: Done, code: int) -> None:
    """An error is one line on stderr that opens with the program's name, and nothing else."""
    assert done.code == code
    assert done.out == ""
    assert done.err.startswith("annidx: error: ") and done.err.count("\n") == 1
    assert "Traceback" not in done.err
