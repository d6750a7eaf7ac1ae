"""Owns the command `annidx`: its subcommands, and exit codes and errors for all of them.

A file of this folder is a command; what several commands share is in `arguments`, `queries` and
`output`. It must not touch the binding: whatever the command line does, a program can do with the
API. Exit codes: 0 done, 1 a file or its content is wrong, 2 the command line is wrong, 130
interrupted. An error is one line on stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import annidx
from annidx.cli import (
    add,
    build,
    convert,
    demo,
    encode,
    evaluate,
    explore,
    export,
    graph,
    ids,
    info,
    merge,
    publish,
    query,
    remove,
    train,
    tune,
    verify,
)
from annidx.cli.output import about_file, report_error

COMMANDS = {
    "demo": demo.COMMAND,
    "explore": explore.COMMAND,
    "build": build.COMMAND,
    "query": query.COMMAND,
    "info": info.COMMAND,
    "verify": verify.COMMAND,
    "add": add.COMMAND,
    "remove": remove.COMMAND,
    "merge": merge.COMMAND,
    "train": train.COMMAND,
    "encode": encode.COMMAND,
    "ids": ids.COMMAND,
    "export": export.COMMAND,
    "graph": graph.COMMAND,
    "tune": tune.COMMAND,
    "evaluate": evaluate.COMMAND,
    "convert": convert.COMMAND,
    "publish": publish.COMMAND,
}

_OK, _FAILED, _USAGE, _INTERRUPTED, _PIPE_CLOSED = 0, 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit code.
    """
    try:
        arguments, unknown = _parser().parse_known_args(argv)
        if unknown:
            arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        arguments.run(arguments)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse: --help, --version or a usage error
        return stop.code if isinstance(stop.code, int) else _FAILED
    except KeyboardInterrupt:
        return _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        # Python flushes stdout once more at exit: let it flush into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except KeyError as error:
        return _fail(f"the index has no item {error}", _FAILED)
    except OSError as error:
        return _fail(about_file(error), _FAILED)
    except MemoryError as error:
        return _fail(str(error) or "out of memory", _FAILED)
    except (ValueError, IndexError, RuntimeError, ImportError) as error:
        return _fail(str(error), _FAILED)
    return _OK


def _fail(message: str, code: int) -> int:
    report_error(message)
    return code


class _Parser(argparse.ArgumentParser):
    """An argument parser whose usage errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the error with the command that explains more, and leave with code 2."""
        _fail(f"{message} (see {self.prog} --help)", _USAGE)
        raise SystemExit(_USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="annidx",
        description="Approximate nearest neighbours from one file that every process maps.",
        epilog="New here? Try: annidx demo",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"annidx {annidx.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name, help=command.summary, description=command.summary, allow_abbrev=False
        )
        command.add_arguments(sub)
        sub.set_defaults(run=command.run, parser=sub)
    return parser
