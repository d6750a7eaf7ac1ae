"""Runs every program of examples/ as a user does: by itself, in a folder of its own.

What bench/ compiles for itself is compiled too: nothing else would tell that the core moved on.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

EXPECTED = {
    "dask_build": "built of 6 parts: 20,000 vectors",
    "filtered_search": "in stock, not seen",
    "hourly_changes": "merged: 10,150 items in one file",
    "luigi_pipeline": "live/tracks.annidx has 30,000 items",
    "nightly_build": "published 19,500 vectors, recall 0.9",
    "serve_many": "edition {'tuesday'}",
    "spark_build": "5,000 tracks, left out: {}",
    "text_ids": "near guitar:",
}

# The extras that an example is about.
NEEDED = {"dask_build": ["distributed"], "spark_build": ["pyspark", "pyarrow"]}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    for name in NEEDED.get(path.stem, ()):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    if path.stem == "spark_build" and not (shutil.which("java") or "JAVA_HOME" in os.environ):
        pytest.skip("no Java")
    done = subprocess.run(
        [sys.executable, os.fspath(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYSPARK_PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stderr
    assert EXPECTED[path.stem] in done.stdout


def test_every_example_is_listed_in_the_documentation() -> None:
    listed = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert len(EXAMPLES) >= 4
    for path in EXAMPLES:
        assert f"(../examples/{path.name})" in listed


def test_what_the_benchmark_compiles_fits_the_core() -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no compiler")
    options = ["-std=c++17", "-fsyntax-only", f"-I{ROOT / 'src_c'}", '-DANNIDX_VERSION="test"']
    command = [compiler, *options, str(ROOT / "bench" / "micro.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
