"""Owns `annidx verify`: whether index files are sound."""

from __future__ import annotations

import argparse
import json

import annidx
from annidx.cli.arguments import Command
from annidx.cli.output import about_file, report_error


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", nargs="+", metavar="INDEX", help="index files")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each file")


def _run(arguments: argparse.Namespace) -> None:
    """Check all files, also those behind a bad one."""
    all_sound = True
    for path in arguments.index:
        fault = _fault_of(path)
        all_sound = all_sound and fault is None
        if arguments.json:
            print(json.dumps({"path": path, "sound": fault is None, "error": fault}))
        elif fault is None:
            print(f"{path}: sound", flush=True)
        else:
            report_error(fault)
    if not all_sound:
        raise SystemExit(1)


def _fault_of(path: str) -> str | None:
    """Tell what is wrong with a file, in one line, or None."""
    try:
        annidx.verify(path)
    except OSError as error:
        return " ".join(about_file(error).split())
    except ValueError as error:
        return " ".join(str(error).split())
    return None


COMMAND = Command("Check every checksum and every rule of a file.", _add_arguments, _run)
