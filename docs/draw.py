"""Owns the pictures of docs/how-it-works.md: drawn from a real index of the demo's words.

    python docs/draw.py [FOLDER]

It builds the index, reads its parts with the reader in tests/ that is written from FORMAT.md, and
writes an SVG for each picture. Needs matplotlib. Nothing in them is made up: each point is a word.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import format_reader  # noqa: E402

from annidx import demo  # noqa: E402

Matrix = npt.NDArray[Any]

QUERY = "guitar"
LEAVES_SHOWN = 6
LEAVES_OPENED = 2
BLOCKS_COLOURED = 7
BLOCK = 32
K = 10
CURVE_K = (1, 10, 100)
# Told apart by colour-blind readers, too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d")
GREY, DARK, STAR = "#b8bec5", "#30373e", "#d62728"
STYLE = {
    "svg.hashsalt": "annidx",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.dpi": 130,
}


class Words:
    """An index of the demo's words, read part by part."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "words.annidx"
            index = demo.build_index(demo.load_words())
            index.save(path)
            self.file = format_reader.read(path)
        self.index = index
        self.names = [str(name) for name in self.file.ids]
        self.work = self.file.work
        self.slot_of_row = self.file.array("row_slots")
        self.row_of_slot = self.file.array("slot_rows")
        self.leaves = self.file.leaves[0]
        self.query = self.names.index(QUERY)
        found = index.query_exact(index.get_vectors(QUERY), k=K, deny=[QUERY])[0]
        self.truth = [self.names.index(str(name)) for name in found]

    def far(self, rows: Matrix) -> Matrix:
        """Distances of rows to the query."""
        return np.linalg.norm(self.work[rows] - self.work[self.query], axis=1)

    def leaf_of(self, row: int) -> int:
        """Number of the leaf that holds a row."""
        return next(i for i, leaf in enumerate(self.leaves) if row in leaf)

    def nearest_leaves(self) -> list[int]:
        """Leaves in the order in which the query would read them."""
        means = np.stack([self.work[leaf].mean(axis=0) for leaf in self.leaves])
        order = np.argsort(np.linalg.norm(means - self.work[self.query], axis=1))
        return [int(leaf) for leaf in order]


def plane(points: Matrix) -> Matrix:
    """The two axes along which points differ most, (dim, 2)."""
    centred = points - points.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2].T
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    return np.asarray(axes * signs)


def bare(axes: Axes, title: str) -> None:
    """A picture without scales."""
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def star(axes: Axes, at: Matrix, name: str) -> None:
    """Mark the query."""
    axes.scatter(*at, marker="*", s=240, color=STAR, edgecolor="white", zorder=6)
    label(axes, name, at, STAR, "bold", (8, -15))


def label(
    axes: Axes,
    text: str,
    at: Matrix,
    colour: str,
    weight: str = "normal",
    offset: tuple[float, float] = (6, 4),
) -> None:
    """Write a word beside its point."""
    axes.annotate(
        text,
        at,
        xytext=offset,
        textcoords="offset points",
        color=colour,
        fontsize=8.5,
        fontweight=weight,
        zorder=7,
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
    )


def draw_partition(words: Words) -> Figure:
    """Leaves near the query, each a colour, and which of them are opened."""
    shown = words.nearest_leaves()[:LEAVES_SHOWN]
    means = np.stack([words.work[words.leaves[leaf]].mean(axis=0) for leaf in shown])
    axes_of_plane = plane(means)
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.add_subplot()
    bare(
        axes, f"{LEAVES_SHOWN} of {len(words.leaves)} leaves; those nearest to the query are opened"
    )
    for place, leaf in enumerate(shown):
        points = words.work[words.leaves[leaf]] @ axes_of_plane
        opened = place < LEAVES_OPENED
        axes.scatter(
            *points.T,
            s=7 if opened else 4,
            color=COLOURS[place],
            alpha=0.75 if opened else 0.25,
            linewidths=0,
            rasterized=True,
        )
    for place, leaf in enumerate(shown):
        centre = means[place] @ axes_of_plane
        axes.scatter(*centre, marker="X", s=90, color=COLOURS[place], edgecolor="white", zorder=5)
        rows = words.leaves[leaf]
        middle = rows[np.linalg.norm(words.work[rows] - means[place], axis=1).argmin()]
        opened = " (opened)" if place < LEAVES_OPENED else ""
        label(axes, f"around “{words.names[middle]}”{opened}", centre, DARK)
    star(axes, words.work[words.query] @ axes_of_plane, QUERY)
    return figure


def draw_blocks(words: Words) -> Figure:
    """The blocks of one leaf, and which of them are scanned."""
    rows = words.leaves[words.nearest_leaves()[0]]
    blocks = [rows[first : first + BLOCK] for first in range(0, len(rows), BLOCK)]
    means = np.stack([words.work[block].mean(axis=0) for block in blocks])
    order = np.argsort(np.linalg.norm(means - words.work[words.query], axis=1))
    axes_of_plane = plane(means)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    bare(
        axes,
        f"One leaf: {len(rows)} words in {len(blocks)} blocks of {BLOCK}; the best are scanned",
    )
    for place, number in enumerate(order[::-1]):
        rank = len(order) - 1 - place
        near = rank < BLOCKS_COLOURED
        points = words.work[blocks[number]] @ axes_of_plane
        colour = COLOURS[rank] if near else GREY
        centre = means[number] @ axes_of_plane
        if near:
            for point in points:
                axes.plot(*np.stack([centre, point]).T, color=colour, lw=0.5, alpha=0.6)
        axes.scatter(*points.T, s=16 if near else 7, color=colour, linewidths=0)
        axes.scatter(
            *centre, marker="X", s=55 if near else 25, color=colour, edgecolor="white", zorder=4
        )
    star(axes, words.work[words.query] @ axes_of_plane, QUERY)
    return figure


def draw_codes(words: Words) -> Figure:
    """What codes keep of a vector, and how well they tell near from far."""
    leaf = words.leaves[words.nearest_leaves()[0]]
    row = words.truth[0]
    home = words.leaves[words.leaf_of(row)]
    centre = words.file.rotate(words.work[home].mean(axis=0)[None])[0]
    exact = words.file.rotate(words.work[row][None])[0] - centre
    coded = words.file.coded_residuals
    count = words.file.params["code_count"]
    figure = Figure(figsize=(9.4, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    left.plot(exact, color=GREY, lw=1.6, label="the vector, less its leaf's centre")
    left.step(
        range(len(exact)), coded[row], where="mid", color=COLOURS[0], lw=1.3, label="its codes"
    )
    left.set_title(
        f"“{words.names[row]}”: {len(exact)} numbers in {count} codes of 4 bits",
        loc="left",
        fontsize=11,
    )
    left.set_xlabel("dimension, rotated")
    left.set_yticks([])
    left.legend(frameon=False, fontsize=8.5)
    mean = words.file.rotate(words.work[leaf].mean(axis=0)[None])[0]
    guessed = coded[leaf] + mean - words.file.rotate(words.work[words.query][None])[0]
    far = words.far(leaf)
    others = leaf != words.query
    guess = np.linalg.norm(guessed, axis=1)
    true = np.isin(leaf, words.truth)
    right.scatter(
        far[others & ~true],
        guess[others & ~true],
        s=8,
        color=GREY,
        linewidths=0,
        label="words of the leaf",
    )
    right.scatter(
        far[true],
        guess[true],
        s=36,
        color=STAR,
        edgecolor="white",
        label="true neighbours among them",
    )
    right.set_xlabel("true distance to the query")
    right.set_ylabel("distance by codes")
    right.set_title("Codes sort roughly, so the best are looked at again", loc="left", fontsize=11)
    right.legend(frameon=False, fontsize=8.5, loc="lower right")
    return figure


def draw_lists(words: Words) -> Figure:
    """The list of an item, the lists of those on it, and what is found along them."""
    lists = words.file.neighbours

    def listed(row: int) -> list[int]:
        slots = lists[words.slot_of_row[row]]
        return [int(words.row_of_slot[slot]) for slot in slots if slot >= 0]

    first = words.truth[0]
    near = listed(first)
    further = {row for one in near for row in listed(one)} - {first, *near, words.query}
    rows = np.array([first, *near, *sorted(further)])
    axes_of_plane = plane(words.work[np.array([first, *near])])
    places = {int(row): words.work[row] @ axes_of_plane for row in [*rows, words.query]}
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    axes = figure.add_subplot()
    bare(axes, f"From “{words.names[first]}” along its list, and along the lists of those on it")
    for one in near:
        for row in listed(one):
            axes.plot(*np.stack([places[one], places[row]]).T, color=GREY, lw=0.5, zorder=1)
    for one in near:
        axes.plot(*np.stack([places[first], places[one]]).T, color=COLOURS[0], lw=1.2, zorder=2)
    axes.scatter(*np.stack([places[row] for row in further]).T, s=14, color=GREY, zorder=3)
    axes.scatter(
        *np.stack([places[row] for row in near]).T,
        s=34,
        color=COLOURS[0],
        edgecolor="white",
        zorder=4,
    )
    axes.scatter(*places[first], s=90, color=COLOURS[0], edgecolor="white", zorder=5)
    label(axes, words.names[first], places[first], COLOURS[0], "bold")
    home = words.nearest_leaves()[:LEAVES_OPENED]
    for row in words.truth[1:]:
        if row not in places:
            continue
        elsewhere = words.leaf_of(row) not in home
        axes.scatter(*places[row], s=90, facecolor="none", edgecolor=STAR, linewidth=1.6, zorder=6)
        label(
            axes,
            words.names[row] + (" (in a leaf not opened)" if elsewhere else ""),
            places[row],
            DARK,
        )
    star(axes, places[words.query], QUERY)
    return figure


def draw_curve(words: Words) -> Figure:
    """Recall as the build measured it, against candidates."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    curve = words.index.info()["curve"]
    for place, k in enumerate(CURVE_K):
        points = [point for point in curve if point["k"] == k]
        axes.plot(
            [point["candidates"] for point in points],
            [point["recall"] for point in points],
            marker="o",
            ms=3.5,
            lw=1.4,
            color=COLOURS[place],
            label=f"k = {k}",
        )
    axes.set_xscale("log")
    axes.set_xlabel("codes scanned for a query")
    axes.set_ylabel("recall")
    axes.grid(color="#e3e6e9", lw=0.7)
    axes.set_title("The curve in the file: what each recall takes", loc="left", fontsize=11)
    axes.legend(frameon=False)
    return figure


PICTURES = {
    "partition": draw_partition,
    "blocks": draw_blocks,
    "codes": draw_codes,
    "lists": draw_lists,
    "curve": draw_curve,
}


def draw_all(folder: Path) -> list[Path]:
    """Write all pictures; return their paths."""
    words = Words()
    paths = []
    with mpl.rc_context(STYLE):
        for name, draw in PICTURES.items():
            path = folder / f"how-{name}.svg"
            draw(words).savefig(path, metadata={"Date": None})
            paths.append(path)
    return paths


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    for written in draw_all(target):
        print(written)
