"""Owns the tests of reading files by ranges of rows: what is read is what the whole file holds."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from annidx.io.ranges import FileRows

VECTORS = np.random.default_rng(2).standard_normal((1_000, 6), dtype=np.float32)
RANGES = [(0, 1_000), (0, 1), (999, 1_000), (290, 310), (300, 700), (123, 877)]


def write_fvecs(path: Path, vectors: np.ndarray) -> None:
    rows = np.empty((len(vectors), 1 + vectors.shape[1]), dtype="<f4")
    rows[:, 0] = np.array([vectors.shape[1]], dtype="<i4").view("<f4")
    rows[:, 1:] = vectors
    rows.tofile(path)


def write_parquet(path: Path, vectors: np.ndarray, ids: list[str] | list[int]) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    kind = arrow.string() if ids and isinstance(ids[0], str) else arrow.int64()
    schema = arrow.schema({"name": kind, "vec": arrow.list_(arrow.float32())})
    table = arrow.table({"name": ids, "vec": list(vectors)}, schema=schema)
    parquet.write_table(table, path, row_group_size=128)


def agree(rows: FileRows) -> None:
    rows = pickle.loads(pickle.dumps(rows))
    assert len(rows) == 1_000
    for first, last in RANGES:
        assert np.array_equal(rows(first, last), VECTORS[first:last])
    some = [0, 5, 299, 300, 301, 640, 999]
    assert np.array_equal(rows.take(some), VECTORS[some])


def test_files_and_folders(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VECTORS)
    write_fvecs(tmp_path / "x.fvecs", VECTORS)
    agree(FileRows(str(tmp_path / "x.npy")))
    agree(FileRows(str(tmp_path / "x.fvecs")))
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "a.npy", VECTORS[:300])
    write_fvecs(folder / "b.fvecs", VECTORS[300:640])
    write_fvecs(folder / "c.fvecs", VECTORS[640:])
    np.save(folder / "_other.npy", VECTORS)
    agree(FileRows(str(folder)))


@pytest.mark.parametrize("kind", [str, int])
def test_parquet_with_ids(tmp_path: Path, kind: type) -> None:
    ids = [kind(7 * row) for row in range(1_000)]
    for name, first, last in [("a", 0, 300), ("b", 300, 300), ("c", 300, 1_000)]:
        write_parquet(tmp_path / f"{name}.parquet", VECTORS[first:last], ids[first:last])
    agree(FileRows(str(tmp_path)))
    rows = FileRows(str(tmp_path), vector_column="vec", id_column="name")
    agree(rows)
    for first, last in RANGES:
        table = rows.table(first, last)
        assert np.array_equal(table.vectors, VECTORS[first:last])
        assert table.ids is not None and list(table.ids) == ids[first:last]


def test_a_file_of_ids(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VECTORS)
    (tmp_path / "ids.txt").write_text("\n".join(f"t{row}" for row in range(1_000)))
    ids = FileRows(str(tmp_path / "x.npy"), ids=str(tmp_path / "ids.txt")).table(5, 8).ids
    assert ids == ["t5", "t6", "t7"]


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="source: expected a file, or files in a folder, of .npy"):
        FileRows(str(tmp_path))
    np.save(tmp_path / "x.npy", VECTORS)
    with pytest.raises(ValueError, match="columns of vectors and of ids need .parquet"):
        FileRows(str(tmp_path / "x.npy"), id_column="name")
    with pytest.raises(ValueError, match="ids: expected a file or a column"):
        FileRows(str(tmp_path / "x.npy"), ids="ids.txt", id_column="name")
    np.save(tmp_path / "y.npy", VECTORS[:, :4])
    with pytest.raises(ValueError, match="vectors of 4 and of 6 dimensions"):
        FileRows(str(tmp_path))(990, 1_010)
    for name in ("x", "y"):
        (tmp_path / f"{name}.npy").unlink()
    write_parquet(tmp_path / "a.parquet", VECTORS, [str(row) for row in range(1_000)])
    write_parquet(tmp_path / "b.parquet", VECTORS, list(range(1_000)))
    with pytest.raises(ValueError, match="expected ids of one kind"):
        FileRows(str(tmp_path), id_column="name").table(990, 1_010)
    write_parquet(tmp_path / "a.parquet", VECTORS[:0], [])
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(ValueError, match="expected some rows, found none"):
        FileRows(str(tmp_path))
