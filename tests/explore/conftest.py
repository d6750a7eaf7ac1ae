"""Owns the file that the explorer's tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from explorer import publish


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with text ids, hostile ones among them. Not to be replaced."""
    path = tmp_path_factory.mktemp("explore") / "texts.annidx"
    publish(path)
    return path
