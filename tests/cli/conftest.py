"""Owns what tests of the command line share: running one in this process, the demo's index."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import Done, Run

import annidx
from annidx import cli, demo


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command line in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(line: str, *more: str) -> Done:
        capsys.readouterr()
        code = cli.main([*line.split(), *more])
        caught = capsys.readouterr()
        return Done(code, caught.out, caught.err)

    return call


@pytest.fixture(scope="session")
def words_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Name a file of the demo's index."""
    path = tmp_path_factory.mktemp("demo") / "words.annidx"
    demo.build_index(demo.load_words()).save(path)
    return path


@pytest.fixture
def words_built_once(words_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the demo find its index built: building it takes the longest of what it does."""
    monkeypatch.setattr(demo, "build_index", lambda data, bar=None: annidx.load(words_file))
