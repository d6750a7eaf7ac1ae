"""Owns the file that the explorer's tests look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from explorer import ITEMS, publish


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with text ids, hostile ones among them. Not to be replaced."""
    path = tmp_path_factory.mktemp("explore") / "texts.annidx"
    publish(path)
    return path


@pytest.fixture(scope="session")
def sets_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with two named sets."""
    path = tmp_path_factory.mktemp("explore") / "sets.annidx"
    rows = np.arange(ITEMS)
    publish(path, sets={"even": rows % 2 == 0, "low <b>": rows < 1_000})
    return path
