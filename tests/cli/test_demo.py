"""Tests `annidx demo`: what it prints, that what it prints is true, and that it fits 80 columns."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import annidx
from annidx import cli, demo


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Name the file that the tour keeps."""
    return tmp_path_factory.mktemp("tour") / "words.annidx"


@pytest.fixture(scope="module")
def tour(saved: Path) -> str:
    """Take the tour once for all tests."""
    out = io.StringIO()
    demo.tour(out, str(saved))
    return out.getvalue()


def test_word_set_is_what_its_readme_says() -> None:
    data = demo.load_words()
    assert len(data.words) == len(set(data.words)) == 30_000
    assert data.vectors.shape == (30_000, 96) and data.vectors.dtype == np.int8
    readme = (demo.DATA / "README.md").read_text(encoding="utf-8")
    assert "Open English WordNet" in readme and "CC BY 4.0" in readme


def test_tour_fits_a_terminal(tour: str, saved: Path) -> None:
    lines = [line for line in tour.splitlines() if str(saved) not in line]
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in tour and "nan" not in tour.lower()


def test_tour_measures_recall_and_speed(tour: str) -> None:
    measured = re.search(r"^ +annidx +([\d.]+) +([\d,]+)$", tour, re.M)
    exact = re.search(r"^ +brute force \(query_exact\) +1\.000 +([\d,]+)$", tour, re.M)
    assert measured and exact
    assert float(measured[1]) >= 0.94
    assert int(measured[2].replace(",", "")) > int(exact[1].replace(",", ""))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_tour_shows_that_processes_share_the_file(tour: str) -> None:
    processes = re.findall(r"^ +\d+ +1,000 +([\d.]+) MB +([\d.]+) MB$", tour, re.M)
    together = re.search(r"^ +together +4,000 +([\d.]+) MB +([\d.]+) MB$", tour, re.M)
    assert len(processes) == demo.PROCESSES and together
    assert float(together[2]) <= 1.25 * float(processes[0][0])
    assert "Together they cost what one of them would alone." in tour


def test_tour_names_real_neighbours(tour: str) -> None:
    assert all(word in tour for word in demo.TOUR_WORDS)
    assert "guitar pick" in tour


@pytest.mark.parametrize("save", [None, "here.annidx"])
def test_commands_named_at_the_end_exist(save: str | None) -> None:
    out = io.StringIO()
    demo.show_next(out, save)
    text = out.getvalue()
    commands = re.findall(r"^ +annidx (\w+)", text, re.M)
    assert commands and set(commands) <= set(cli.COMMANDS)
    assert f"annidx query {save or 'words.annidx'} --item guitar" in text
    assert ("annidx demo --save words.annidx" in text) is (save is None)
    assert max(map(len, text.splitlines())) <= 80


def test_tour_keeps_the_index_when_asked(tour: str, saved: Path) -> None:
    assert f"annidx query {saved} --item guitar" in tour
    with annidx.load(saved) as index:
        assert "guitar" in index and index.metadata is not None


@pytest.mark.usefixtures("words_built_once")
@pytest.mark.parametrize("count", [1, 3, 4])
def test_answers_words(count: int) -> None:
    words = ["guitar", "jazz", "physics", "coffee"][:count]
    out = io.StringIO()
    demo.answer(out, words, 5)
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    expected = ["guitar pick", "modern jazz", "physical science", "coffee bean"][:count]
    assert all(word in text for word in [*words, *expected])


@pytest.mark.usefixtures("words_built_once")
def test_spelling_is_forgiven(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["demo", "GUITAR", "-k", "3"]) == 0
    assert "guitar pick" in capsys.readouterr().out
    assert cli.main(["demo", "jazz", "guitr"]) == 1
    caught = capsys.readouterr()
    assert "modern jazz" in caught.out
    assert caught.err.startswith("annidx: error: 'guitr' is not in the word set (near: guitar")
    assert caught.err.count("\n") == 1


@pytest.mark.usefixtures("words_built_once")
def test_spelling_is_exact_where_it_can_be() -> None:
    out = io.StringIO()
    demo.answer(out, ["Moon", "moon"], 1)
    first = out.getvalue().splitlines()[0].split()
    assert first == ["Moon", "moon"]


def test_runs_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "annidx", "demo", "guitar", "jazz"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "guitar pick" in done.stdout


@pytest.mark.usefixtures("words_built_once")
@pytest.mark.parametrize(("variable", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_and_can_be_refused(
    variable: str, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pty = pytest.importorskip("pty")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", variable)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        demo.answer(terminal, ["guitar"], 5)
        terminal.flush()
        text = os.read(ours, 65_536).decode()
    os.close(ours)
    assert "guitar pick" in text and ("\x1b[" in text) is coloured


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_mapped_memory_counts_the_file_alone(words_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "words.annidx"
    shutil.copy(words_file, path)
    assert demo.mapped_memory(path) == {"rss": 0, "pss": 0}
    with annidx.load(path, warm=True):
        sums = demo.mapped_memory(path)
        assert path.stat().st_size <= sums["rss"] < path.stat().st_size + 65_536
        assert sums["pss"] <= sums["rss"]
    assert demo.mapped_memory(path) == {"rss": 0, "pss": 0}


def test_the_radio_of_the_tour_is_a_playlist(tour: str) -> None:
    told = re.search(r"A radio from jazz to ocean\n\n(.*?)\n\n", tour, re.S)
    assert told is not None
    words = " ".join(told[1].split()).split(", ")
    assert words[0] == "jazz"
    assert words[-1] == "ocean"
    assert len(set(words)) == len(words) == demo.RADIO_LENGTH + 2
    assert set(words) <= set(demo.load_words().words)


def test_the_tour_ends_with_the_explorer(tour: str, saved: Path) -> None:
    assert tour.rstrip().splitlines()[-1].split()[:3] == ["annidx", "explore", str(saved)]
