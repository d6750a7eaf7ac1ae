"""Owns the tests of manifests: files that name the files of an index."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import annidx
from annidx import cli

DIM, EACH = 6, 50
ZERO = np.zeros(DIM, np.float32)


def shard(path: Path, number: int, *, ids: list[int] | None = None) -> Path:
    """Save an index of a model of its own."""
    rng = np.random.default_rng(number)
    index = annidx.Index(DIM, "euclidean")
    index.add_items(
        rng.normal(size=(EACH, DIM)), ids or list(range(number * EACH, (number + 1) * EACH))
    )
    index.build(seed=number, n_jobs=1)
    index.save(path)
    return path


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Three shards of fifty items."""
    (tmp_path / "data").mkdir()
    return [shard(tmp_path / "data" / f"{number}.annidx", number) for number in range(3)]


@pytest.fixture
def manifest(tmp_path: Path, shards: list[Path]) -> Path:
    """A manifest of the three."""
    path = tmp_path / "all.json"
    annidx.write_manifest(shards, out=path)
    return path


def test_a_manifest_is_loaded_as_its_files_are(manifest: Path, shards: list[Path]) -> None:
    named = json.loads(manifest.read_text())
    assert [one["path"] for one in named["files"]] == [f"data/{i}.annidx" for i in range(3)]
    with annidx.load(manifest) as index, annidx.load(shards) as other:
        index.verify()
        annidx.verify(manifest)
        assert sorted(index.ids) == list(range(3 * EACH))
        for mine, its in zip(index.query(ZERO, k=20), other.query(ZERO, k=20), strict=True):
            np.testing.assert_array_equal(mine, its)
        again = pickle.loads(pickle.dumps(index))
        np.testing.assert_array_equal(again.query(ZERO, k=9)[0], index.query(ZERO, k=9)[0])


def test_files_move_together(manifest: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(tmp_path / "data", moved / "data")
    shutil.move(manifest, moved / "all.json")
    link = tmp_path / "link"
    link.symlink_to(moved / "all.json")
    for path in (moved / "all.json", link):
        assert len(annidx.load(path)) == 3 * EACH


def test_changes_stand_beside_a_manifest(manifest: Path, tmp_path: Path) -> None:
    with annidx.load(tmp_path / "data" / "0.annidx") as base:
        base.remove_items([0, 1])
        base.save_changes(tmp_path / "changes")
    assert len(annidx.load([manifest, tmp_path / "changes"])) == 3 * EACH - 2
    both = tmp_path / "both.json"
    annidx.write_manifest([tmp_path / "data" / "0.annidx", tmp_path / "changes"], out=both)
    assert json.loads(both.read_text())["files"][1]["kind"] == "changes"
    assert len(annidx.load(both)) == EACH - 2


def test_another_file_in_the_place_of_one_is_refused_by_name(
    manifest: Path, shards: list[Path]
) -> None:
    with annidx.load(manifest) as index:
        kept = pickle.dumps(index)
    shard(shards[1], 7)
    with pytest.raises(annidx.FormatError, match=r"1\.annidx: expected the index of identity"):
        annidx.load(manifest)
    with pytest.raises(annidx.FormatError, match=r"1\.annidx: holds another index"):
        pickle.loads(kept)
    annidx.write_manifest(shards, out=manifest)
    assert len(annidx.load(manifest)) == 3 * EACH
    os.unlink(shards[2])
    with pytest.raises(FileNotFoundError, match=r"2\.annidx"):
        annidx.load(manifest)


def test_duplicates_are_as_the_manifest_says(tmp_path: Path) -> None:
    one, two = shard(tmp_path / "1", 1, ids=list(range(50))), shard(tmp_path / "2", 2)
    three = shard(tmp_path / "3", 3, ids=list(range(20, 70)))
    with pytest.raises(ValueError, match="every id once"):
        annidx.write_manifest([one, two, three], out=tmp_path / "m")
    annidx.write_manifest([one, three], out=tmp_path / "m", on_duplicate="newest")
    with annidx.load(tmp_path / "m") as index, annidx.load(three) as last:
        assert sorted(index.ids) == list(range(70))
        np.testing.assert_array_equal(index.get_vectors(30), last.get_vectors(30))


def test_nothing_else_is_replaced(manifest: Path, shards: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text('{"mine": 1}')
    for path in (tmp_path / "notes.json", shard(tmp_path / "other.annidx", 5)):
        before = path.read_bytes()
        with pytest.raises(FileExistsError, match="manifest to replace"):
            annidx.write_manifest(shards, out=path)
        assert path.read_bytes() == before
    annidx.write_manifest(shards, out=tmp_path / "notes.json", force=True)
    for force in (False, True):
        with pytest.raises(ValueError, match="another than the manifest"):
            annidx.write_manifest(shards, out=shards[0], force=force)
    with pytest.raises(ValueError, match="each file once"):
        annidx.write_manifest([shards[0], shards[0]], out=manifest)
    with pytest.raises(ValueError, match="at least one file"):
        annidx.write_manifest([], out=manifest)
    with annidx.load(shards[0]) as index, pytest.raises(FileExistsError):
        index.save(manifest)
    assert sorted(os.listdir(tmp_path)) == ["all.json", "data", "notes.json", "other.annidx"]


def test_a_manifest_is_followed(manifest: Path, shards: list[Path], tmp_path: Path) -> None:
    with annidx.load(manifest, follow=True, interval=0.0) as live:
        assert len(live) == 3 * EACH
        shard(tmp_path / "data" / "3.annidx", 3)
        annidx.write_manifest([*shards, tmp_path / "data" / "3.annidx"], out=manifest)
        assert len(live) == 4 * EACH and live.status()["generation"] == 2
        manifest.write_text('{"annidx_manifest": 1, "files": []}')
        with pytest.warns(RuntimeWarning, match="damaged manifest"):
            assert len(live) == 4 * EACH


def files_of(entries: object) -> str:
    return json.dumps({"annidx_manifest": 1, "files": entries})


def entry(**changes: object) -> dict[str, object]:
    return {"path": "data/0.annidx", "kind": "index", "identity": "0" * 32} | changes


HOSTILE: dict[str, tuple[str, str]] = {
    "not JSON": ('{"annidx_manifest": 1, ', "expected JSON"),
    "not text": ('{"annidx_manifest": "\udc80"}', "expected JSON"),
    "deep": ('{"annidx_manifest":' + "[" * 200_000, "expected JSON"),
    "a number too long": ('{"annidx_manifest":' + "9" * 100_000 + "}", "damaged manifest"),
    "huge": ('{"annidx_manifest": 1' + " " * (17 << 20) + "}", "at most"),
    "another version": ('{"annidx_manifest": 2, "files": []}', '"annidx_manifest": 1, found'),
    "no files": ('{"annidx_manifest": 1}', "a list of 1 to"),
    "an empty list": (files_of([]), "a list of 1 to"),
    "too many": (files_of([1] * 65_537), "a list of 1 to"),
    "a dict": (files_of({}), "a list of 1 to"),
    "a wrong policy": ('{"annidx_manifest": 1, "on_duplicate": [], "files": []}', "on_duplicate"),
    "an entry of text": (files_of(["data/0.annidx"]), r'"files"\[0\] with'),
    "an empty path": (files_of([entry(path="")]), r'"files"\[0\] with'),
    "a path with a zero": (files_of([entry(path="a\0b")]), r'"files"\[0\] with'),
    "no text": (files_of([entry(path="\ud800")]), r'"files"\[0\] with'),
    "a wrong identity": (files_of([entry()]), "expected the index of identity 000"),
    "a wrong kind": (files_of([entry(kind=["x"])]), "0.annidx: expected the"),
    "one twice": (files_of([entry(), entry(path="data/../data/0.annidx")]), "each file once"),
    "itself": (files_of([entry(path="hostile")]), "each file once"),
    "another manifest": (files_of([entry(path="all.json")]), "all.json' is not an annidx file"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.usefixtures("manifest")
def test_hostile_manifests(name: str, tmp_path: Path) -> None:
    text, message = HOSTILE[name]
    path = tmp_path / "hostile"
    path.write_bytes(text.encode("utf-8", "surrogateescape" if name == "not text" else "strict"))
    ways: list[Callable[[], Any]] = [
        lambda: annidx.load(path),
        lambda: annidx.load([path]),
        lambda: annidx.verify(path),
        lambda: annidx.load(path, follow=True),
    ]
    for way in ways:
        with pytest.raises(annidx.FormatError, match=message):
            way()


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place, error in (("pipe", OSError), ("/dev/zero", OSError), (".", OSError), ("x", OSError)):
        path = tmp_path / "hostile"
        path.write_text(files_of([entry(path=place)]))
        with pytest.raises(error):
            annidx.load(path)


def test_command(shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [str(path) for path in shards]
    out = str(tmp_path / "all.json")
    assert cli.main(["merge", *places, "--manifest", "-o", out]) == 0
    assert "names 3 files, 150 items" in capsys.readouterr().out
    assert len(annidx.load(out)) == 3 * EACH
    assert cli.main(["merge", *places, "--manifest", "-o", out, "--n-trees", "2"]) == 1
    assert "--n-trees: expected without --manifest" in capsys.readouterr().err
