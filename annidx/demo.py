"""Owns `annidx demo`: the tour through the library that a newcomer sees first, on 30,000 words.

Everything it prints is measured while it runs. It uses the public API only.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

import annidx
from annidx._terminal import ProgressBar, Style, can_print, human_bytes, human_seconds, table
from annidx.explore.radio import playlist

DATA = Path(__file__).parent / "data"
TOUR_WORDS = ("guitar", "ocean", "laugh")
RADIO_WORDS = ("jazz", "ocean")
RADIO_LENGTH = 12
PROCESSES = 4
HELD_OUT = 1_000
NEIGHBOURS = 10

_COLUMNS = 3
_NAME_WIDTH = 19
_MARGIN = "  "
_RADIO_WIDTH = 74


class UnknownWordError(ValueError):
    """A word that was asked for is not in the word set."""


@dataclass(frozen=True)
class WordSet:
    """The words, and row by row their vectors (int8)."""

    words: list[str]
    vectors: npt.NDArray[np.int8]


def load_words() -> WordSet:
    """Read the word set that comes with the package (see annidx/data/README.md)."""
    words = (DATA / "words.txt").read_text(encoding="utf-8").splitlines()
    return WordSet(words, np.load(DATA / "vectors.npy"))


def build_index(data: WordSet, bar: ProgressBar | None = None) -> annidx.Index:
    """Index words by their spelling, compared by angle."""
    index = annidx.Index(dim=data.vectors.shape[1], metric="angular", dtype="int8")
    index.add_items(data.vectors, ids=data.words)
    index.build(progress=None if bar is None else bar.update)
    return index


def tour(out: TextIO, save: str | None = None, *, force: bool = False) -> None:
    """Build, save, open in four processes, ask and measure; print each step as it is done.

    Parameters
    ----------
    out : text file
        Where the tour is printed.
    save : path, optional
        Keep the index there; without it, it goes with a temporary folder.
    force : bool, default False
        Replace a file of another kind there.
    """
    style = Style(out)
    data = load_words()
    _title(out, style, data)
    with tempfile.TemporaryDirectory(prefix="annidx-demo-") as folder:
        path = Path(save) if save else Path(folder) / "words.annidx"
        _build_and_save(out, style, data, path, force=force)
        _show_processes(out, style, path)
        with annidx.load(path) as index:
            _heading(out, style, "Ask it: the nearest neighbours of")
            _show_neighbours(out, style, index, TOUR_WORDS, 7)
            _show_radio(out, style, index)
    _show_speed(out, style, data)
    show_next(out, save)


def answer(
    out: TextIO, words: Sequence[str], k: int, save: str | None = None, *, force: bool = False
) -> None:
    """Print the neighbours of these words.

    Raises
    ------
    UnknownWordError
        After the known words were answered, when some are not in the word set.
    """
    style = Style(out)
    data = load_words()
    spelling = {word.lower(): word for word in reversed(data.words)}
    spelling.update((word, word) for word in data.words)
    known = [spelling.get(word) or spelling.get(word.lower()) for word in words]
    found = [word for word in known if word is not None]
    if found:
        start = time.perf_counter()
        bar = ProgressBar(sys.stderr)
        index = build_index(data, bar)
        bar.clear()
        built = time.perf_counter() - start
        if save:
            index.save(save, force=force)
        _show_neighbours(out, style, index, found, k)
        took = f"{len(data.words):,} words indexed in {human_seconds(built)}"
        print(style(f"{_MARGIN}{took}; distances are angular, 0 to 2", "dim"), file=out)
    if missing := [word for word, there in zip(words, known, strict=True) if there is None]:
        raise UnknownWordError("; ".join(_unknown(word, data.words) for word in missing))


def _unknown(word: str, words: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, words, n=4, cutoff=0.6)
    return f"{word!r} is not in the word set" + (f" (near: {', '.join(near)})" if near else "")


def _title(out: TextIO, style: Style, data: WordSet) -> None:
    print(file=out)
    print(f"{_MARGIN}{style('annidx', 'bold', 'cyan')} {annidx.__version__}", file=out)
    print(
        f"{_MARGIN}{len(data.words):,} English words and phrases, each a vector of"
        f" {data.vectors.shape[1]} numbers;",
        file=out,
    )
    print(f"{_MARGIN}words that are used alike point the same way.", file=out)
    print(file=out)


def _heading(out: TextIO, style: Style, text: str) -> None:
    print(f"{_MARGIN}{style(text, 'bold')}\n", file=out)


def _step(out: TextIO, style: Style, name: str, what: str, seconds: float) -> None:
    took = style(f"{human_seconds(seconds):>8}", "green")
    print(f"{_MARGIN}{style(f'{name:<6}', 'bold')} {what:<56}{took}", file=out, flush=True)


def _build_and_save(out: TextIO, style: Style, data: WordSet, path: Path, *, force: bool) -> None:
    bar = ProgressBar(sys.stderr, indent=_MARGIN)
    start = time.perf_counter()
    index = build_index(data, bar)
    built = time.perf_counter()
    bar.clear()
    _step(out, style, "build", f"an index of {len(index):,} words", built - start)
    index.save(path, metadata={"data": "Open English WordNet, CC BY 4.0"}, force=force)
    size = human_bytes(path.stat().st_size)
    _step(out, style, "save", f"{path.name}, {size}: vectors, words and index", _since(built))
    start = time.perf_counter()
    with annidx.load(path):
        _step(out, style, "open", "the file is mapped, nothing is read or copied", _since(start))
    print(file=out)


def _since(start: float) -> float:
    return time.perf_counter() - start


def _show_processes(out: TextIO, style: Style, path: Path) -> None:
    _heading(out, style, f"The same file in {PROCESSES} processes, every byte of it in memory")
    if not Path("/proc/self/smaps").exists():
        note = "They would share one copy; this system does not tell by how much (Linux does)."
        print(f"{_MARGIN * 2}{note}\n", file=out)
        return
    with _serving(path) as reports:
        rows = [
            [str(r["pid"]), f"{r['answered']:,}", human_bytes(r["rss"]), human_bytes(r["pss"])]
            for r in reports
        ]
        whole = sum(r["rss"] for r in reports)
        share = sum(r["pss"] for r in reports)
    header = ("process", "queries answered", "mapped", "memory it costs")
    together = ["together", f"{sum(r['answered'] for r in reports):,}", human_bytes(whole)]
    rows.append([style(cell, "bold") for cell in [*together, human_bytes(share)]])
    for line in table(header, rows, "<>>>", style):
        print(f"{_MARGIN * 2}{line}", file=out)
    if share <= 1.05 * path.stat().st_size:
        print(f"\n{_MARGIN * 2}Together they cost what one of them would alone.", file=out)
    print(file=out)


@contextlib.contextmanager
def _serving(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Start the processes, let them answer, and measure each while all have the file open."""
    # The package that runs here, whatever lies in the current folder.
    program = "import sys; sys.path.insert(0, sys.argv.pop()); import annidx.demo as d; d.serve()"
    package_folder = os.fspath(Path(annidx.__file__).parents[1])
    command = [sys.executable, "-c", program, os.fspath(path), package_folder]
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        servers: list[subprocess.Popen[str]] = []
        for _ in range(PROCESSES):
            server = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
            )
            stack.enter_context(server)
            stack.callback(server.kill)
            servers.append(server)
        ready = [_message(server) for server in servers]
        for server in servers:
            assert server.stdin is not None
            server.stdin.write("measure\n")
            server.stdin.flush()
        yield [{**first, **_message(server)} for first, server in zip(ready, servers, strict=True)]


def _message(server: subprocess.Popen[str]) -> dict[str, Any]:
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        raise RuntimeError(f"a process of the demo ended early, with code {server.wait()}")
    message: dict[str, Any] = json.loads(line)
    return message


def serve() -> None:
    """Be one of the processes: open the file of the command line, answer, report memory, wait."""
    path = sys.argv[1]
    with contextlib.suppress(KeyboardInterrupt), annidx.load(path, warm=True) as index:
        queries = load_words().words[::30]
        index.query_items(queries, k=NEIGHBOURS)
        print(json.dumps({"pid": os.getpid(), "answered": len(queries)}), flush=True)
        sys.stdin.readline()
        print(json.dumps(mapped_memory(path)), flush=True)
        sys.stdin.readline()


def mapped_memory(path: str | os.PathLike[str]) -> dict[str, int]:
    """Tell what a mapped file takes of this process's memory, in bytes (Linux).

    Returns
    -------
    dict
        `rss`: the pages of the file that the process has mapped; `pss`: the same with each page
        divided by the number of processes that share it.
    """
    real = os.path.realpath(path)
    sums = {"rss": 0, "pss": 0}
    inside = False
    with open("/proc/self/smaps", encoding="utf-8") as smaps:
        for line in smaps:
            fields = line.split(maxsplit=5)
            if not fields[0].endswith(":"):
                inside = len(fields) == 6 and fields[5].strip() == real
            elif inside and fields[0] in ("Rss:", "Pss:"):
                sums[fields[0][:-1].lower()] += int(fields[1]) * 1024
    return sums


def _show_neighbours(
    out: TextIO, style: Style, index: annidx.Index, words: Sequence[str], k: int
) -> None:
    """Print words and their neighbours, three columns side by side."""
    ids, distances = index.query_items(list(words), k=k)
    for first in range(0, len(words), _COLUMNS):
        shown = range(first, min(first + _COLUMNS, len(words)))
        heads = (style(_fit(out, words[i], _NAME_WIDTH + 5), "bold", "yellow") for i in shown)
        print(f"{_MARGIN * 2}{'  '.join(heads)}".rstrip(), file=out)
        for rank in range(k):
            cells = (
                f"{_fit(out, str(ids[i][rank]), _NAME_WIDTH)} "
                + style(f"{distances[i][rank]:.2f}", "dim")
                for i in shown
            )
            print(f"{_MARGIN * 2}{'  '.join(cells)}", file=out)
        print(file=out)


def _show_radio(out: TextIO, style: Style, index: annidx.Index) -> None:
    """Print a playlist from one word to another."""
    first, last = RADIO_WORDS
    _heading(out, style, f"A radio from {first} to {last}")
    way = playlist(index, RADIO_WORDS, [], length=RADIO_LENGTH, diversity=0.3, allow=None, deny=[])
    text = ", ".join([first, *way, last])
    for line in textwrap.wrap(text, width=_RADIO_WIDTH, break_on_hyphens=False):
        print(f"{_MARGIN * 2}{line}", file=out)
    print(file=out)


def _fit(out: TextIO, text: str, width: int) -> str:
    """Bring a text to a width: blanks behind it, or its end cut."""
    if len(text) > width:
        mark = "…" if can_print(out, "…") else "."
        text = text[: width - 1] + mark
    return text.ljust(width)


@dataclass(frozen=True)
class Measurement:
    """What `measure` found: recall of the index, and queries a second of it and of brute force."""

    recall: float
    rate: float
    exact_rate: float


def measure(data: WordSet, bar: ProgressBar | None = None) -> Measurement:
    """Hold words out of an index and ask it for their neighbours, one query a call, one thread."""
    held = np.zeros(len(data.words), dtype=bool)
    held[:: len(data.words) // HELD_OUT] = True
    kept = [word for word, out in zip(data.words, held, strict=True) if not out]
    index = build_index(WordSet(kept, data.vectors[~held]), bar)
    if bar is not None:
        bar.clear()
    queries = data.vectors[held].astype(np.float32)
    truth = index.query_exact(queries, k=NEIGHBOURS)[1]
    found = np.stack([index.query(query, k=NEIGHBOURS)[1] for query in queries])
    hits = found <= truth[:, -1:] * (1 + 1e-6)
    return Measurement(
        recall=float(hits.mean()),
        rate=_rate(index.query, queries),
        exact_rate=_rate(index.query_exact, queries),
    )


def _rate(query: Any, queries: npt.NDArray[np.float32]) -> float:
    """Count the queries a second, over half a second at least."""
    done = 0
    start = time.perf_counter()
    while (elapsed := _since(start)) < 0.5:
        for vector in queries[:100]:
            query(vector, k=NEIGHBOURS)
        done += 100
        queries = np.roll(queries, -100, axis=0)
    return done / elapsed


def _show_speed(out: TextIO, style: Style, data: WordSet) -> None:
    _heading(
        out, style, f"Measured here: {HELD_OUT:,} words kept out of the index, one thread, k = 10"
    )
    result = measure(data, ProgressBar(sys.stderr, indent=_MARGIN * 2))
    rows = [
        ["annidx", f"{result.recall:.3f}", f"{result.rate:,.0f}"],
        ["brute force (query_exact)", "1.000", f"{result.exact_rate:,.0f}"],
    ]
    for line in table(("", "recall", "queries a second"), rows, "<>>", style):
        print(f"{_MARGIN * 2}{line}", file=out)
    ratio = result.rate / result.exact_rate
    print(
        f"\n{_MARGIN * 2}{style(f'{ratio:.0f} times', 'bold', 'green')} as many queries, and"
        f" {result.recall:.1%} of the true neighbours found.\n",
        file=out,
    )


def show_next(out: TextIO, save: str | None) -> None:
    """Print what to try after the tour, which kept its index in `save` or nowhere."""
    style = Style(out)
    kept = save or "words.annidx"
    _heading(out, style, "Next")
    steps = [
        ("annidx demo guitar jazz", "ask it words of your own"),
        *([] if save else [(f"annidx demo --save {kept}", "keep this index, and then")]),
        (f"annidx query {kept} --item guitar", "ask the file"),
        ("annidx build my.npy -o my.annidx --metric angular", "index your own vectors"),
        (f"annidx explore {save or ''}".rstrip(), "look at it in a browser"),
    ]
    for command, why in steps:
        print(f"{_MARGIN * 2}{style(f'{command:<50}', 'cyan')} {why}", file=out)
    print(file=out)
