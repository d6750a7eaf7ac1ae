"""Owns the fixtures of the tests of `annidx.AnnoyIndex`."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from annoy_suite import METRICS

import annidx
import annidx.annoy


@pytest.fixture(params=["annidx", "annoy"])
def package(request: pytest.FixtureRequest) -> ModuleType:
    """Each of the two packages."""
    if request.param == "annidx":
        return annidx.annoy
    return pytest.importorskip("annoy")


@pytest.fixture(params=METRICS)
def metric(request: pytest.FixtureRequest) -> str:
    """Each metric."""
    return str(request.param)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder: Annoy's users write relative names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ours() -> ModuleType:
    """The package under test, where Annoy is no measure."""
    return annidx.annoy
