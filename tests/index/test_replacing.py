"""Owns the tests of what `save` and `build(out=)` may replace."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import annidx

VECTORS = np.random.default_rng(2).normal(size=(50, 4)).astype(np.float32)


def filled() -> annidx.Index:
    index = annidx.Index(4, "euclidean")
    index.add_items(VECTORS)
    return index


@pytest.mark.parametrize("how", ["save", "build"])
@pytest.mark.parametrize("content", [b"precious", b"\x89ANNID", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_a_file_of_another_kind_stays(how: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_bytes(content)
    index = filled()
    if how == "save":
        index.build()
    with pytest.raises(FileExistsError, match="expected a new file, or an annidx file") as caught:
        index.save(path) if how == "save" else index.build(out=path)
    assert caught.value.filename == os.fspath(path)
    assert path.read_bytes() == content and os.listdir(tmp_path) == ["mine"]
    if how == "save":
        index.save(path, force=True)
    else:
        index.build(out=path, force=True)
    annidx.verify(path)


def test_the_vectors_of_a_build_stay(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, VECTORS)
    link = tmp_path / "link"
    link.symlink_to(path)
    index = annidx.Index(4, "euclidean")
    index.add_items(np.load(path, mmap_mode="r"))
    for target in (path, link):
        with pytest.raises(FileExistsError):
            index.build(out=target)
    np.testing.assert_array_equal(np.load(path), VECTORS)


def test_annidx_files_empty_files_and_new_names_are_replaced(tmp_path: Path) -> None:
    index = filled()
    index.build()
    empty = tmp_path / "empty"
    empty.touch()
    for _ in range(2):  # the second time they are annidx files
        for path in (empty, tmp_path / "new"):
            index.save(path)
            annidx.verify(path)
    loaded = annidx.load(empty)
    loaded.save(empty)
    annidx.verify(empty)
