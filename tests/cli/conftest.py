"""Owns running a command line as a test does: in this process, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import Done, Run

from annidx import cli


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
