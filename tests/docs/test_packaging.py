"""Owns the tests of how the package is built: what is said where it cannot be."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_package_is_installed() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"\[tool\.setuptools\]\npackages = \[(.*?)\]", text, re.S)
    assert listed is not None
    folders = [path.parent.relative_to(ROOT) for path in (ROOT / "annidx").rglob("__init__.py")]
    expected = sorted(".".join(folder.parts) for folder in folders)
    assert sorted(re.findall(r'"([^"]+)"', listed[1])) == expected


def test_a_missing_compiler_is_named_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    folders = ["--build-lib", str(tmp_path), "--build-temp", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--force", *folders],
        cwd=ROOT,
        env={**os.environ, "CC": "no-such-compiler", "CXX": "no-such-compiler"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("annidx: expected a C++17 compiler, found no program 'no-such-compiler'")
    assert "Traceback" not in done.stderr
