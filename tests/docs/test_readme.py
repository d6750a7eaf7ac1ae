"""Runs the documents: every Python snippet, every `annidx` command, every link to a file.

The snippets of a document run in order, in one folder and one namespace, as a reader would type
them. A snippet that opens with a comment `# name.py` is a program: it is written to that file and
run in a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*GUIDES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"# (\w+\.py)\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


IMPORT = re.compile(r"^(?:import|from) (\w+)", re.MULTILINE)
# Libraries that some guides are about, and that not every machine has.
OTHERS = {"faiss", "hnswlib", "sklearn", "umap", "voyager"}


@dataclass(frozen=True)
class Snippet:
    """A fenced part of a document: its language, its text, the line it starts on."""

    language: str
    text: str
    line: int


def snippets_of(path: Path) -> list[Snippet]:
    """List the fenced parts of a document that can be run."""
    text = path.read_text(encoding="utf-8")
    return [
        Snippet(match[1], match[2], text.count("\n", 0, match.start()) + 2)
        for match in FENCE.finditer(text)
        if match[1] in ("python", "sh")
    ]


def missing_library(path: Path) -> str | None:
    """Name a library that a guide is about and that is not installed."""
    imported = {name for snippet in snippets_of(path) for name in IMPORT.findall(snippet.text)}
    absent = [name for name in OTHERS & imported if importlib.util.find_spec(name) is None]
    return min(absent, default=None)


def run_python(snippet: Snippet, path: Path, names: dict[str, Any]) -> None:
    """Run a snippet here, or as a program if it says its file's name."""
    program = PROGRAM.match(snippet.text)
    if program:
        Path(program[1]).write_text(snippet.text, encoding="utf-8")
        run_command([sys.executable, program[1]], path, snippet)
        return
    # Blank lines in front make the line numbers of a traceback those of the document.
    source = "\n" * (snippet.line - 1) + snippet.text
    exec(compile(source, os.fspath(path), "exec"), names)


def run_shell(snippet: Snippet, path: Path) -> None:
    """Run the lines of a snippet that call annidx; the others install and test."""
    for line in snippet.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:2] == ["annidx", "explore"]:
            look_at_explorer(words)
        elif words[:1] == ["annidx"]:
            run_command([sys.executable, "-m", *words], path, snippet)


def look_at_explorer(words: list[str]) -> None:
    """Start the explorer, wait for its address, and end it as Ctrl-C does."""
    command = [sys.executable, "-m", *words, "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        assert process.stdout is not None
        assert any("http://127.0.0.1:" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        watchdog.cancel()


def run_command(command: list[str], path: Path, snippet: Snippet) -> None:
    """Run a program and show what it printed if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    where = f"{path.name}, line {snippet.line}: {' '.join(command)}"
    assert done.returncode == 0, f"{where}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_snippets_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = missing_library(path)
    if missing is not None:
        pytest.skip(f"{missing} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANNIDX_CACHE", os.fspath(tmp_path / "cache"))
    names: dict[str, Any] = {"__name__": path.stem}
    for snippet in snippets_of(path):
        if snippet.language == "python":
            run_python(snippet, path, names)
        else:
            run_shell(snippet, path)


def test_there_are_snippets() -> None:
    assert len(snippets_of(ROOT / "README.md")) >= 8


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_links_to_files_hold(path: Path) -> None:
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_readme_names_every_public_name_and_command() -> None:
    import annidx
    from annidx.cli import COMMANDS

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in annidx.__all__:
        assert name.startswith("__") or name in readme, name
    for command in COMMANDS:
        assert f"annidx {command}" in readme, command
