"""Owns what commands that draw share: what can be drawn where, and matplotlib, imported late."""

from __future__ import annotations

import argparse
import errno
import io
import os
from typing import Any

_ENDINGS = (".png", ".svg", ".pdf")


def add_plot(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the file that a command draws."""
    add = parser.add_argument
    add("--plot", metavar="FILE", help=f"draw {what}: .png, .svg or .pdf; needs matplotlib")
    add("--force", action="store_true", help="let --plot replace a file that exists")


def require_plottable(path: str, force: bool) -> None:
    """Refuse what cannot be drawn or written, before anything is measured."""
    if os.path.splitext(path)[1] not in _ENDINGS:
        raise ValueError(f"--plot: expected a name that ends in .png, .svg or .pdf, got {path!r}")
    if os.path.exists(path) and not force:
        raise FileExistsError(errno.EEXIST, "expected a new file (--force replaces this one)", path)
    _figure_class()


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of a size in inches."""
    return _figure_class()(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: str) -> None:
    """Write a figure in the form that the file's name says; an error leaves no half of it."""
    image = io.BytesIO()
    figure.savefig(image, format=os.path.splitext(path)[1][1:], dpi=150)
    with open(path, "wb") as file:
        file.write(image.getvalue())


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("--plot needs matplotlib: pip install matplotlib") from error
    return Figure
