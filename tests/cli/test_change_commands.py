"""Owns the tests of the commands that change an index, and that build one in parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import annidx
from annidx import cli

VECTORS = np.random.default_rng(4).integers(0, 90, size=(300, 6)).astype(np.float32)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("old.npy", VECTORS[:200])
    np.save("new.npy", VECTORS[200:])
    Path("old.txt").write_text("".join(f"t{i}\n" for i in range(200)))
    Path("new.txt").write_text("".join(f"t{i}\n" for i in range(200, 300)))
    assert run("build old.npy --ids old.txt -o index.annidx --metric euclidean") == 0


def run(line: str) -> int:
    return cli.main(line.split())


def test_changes_in_a_file_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("index.annidx").read_bytes()
    assert run("add index.annidx new.npy --ids new.txt --changes today") == 0
    assert "100 added, 300 items" in capsys.readouterr().out
    assert run("remove index.annidx t3 t250 --changes today") == 0
    assert "2 removed, 298 items" in capsys.readouterr().out
    assert Path("index.annidx").read_bytes() == before
    index = annidx.load(["index.annidx", "today"])
    assert set(index.ids) == {f"t{i}" for i in range(300)} - {"t3", "t250"}
    assert run("merge index.annidx today -o whole.annidx") == 0
    whole = annidx.load("whole.annidx")
    assert set(whole.ids) == set(index.ids)
    np.testing.assert_array_equal(whole.get_vectors("t299"), VECTORS[299])


def test_changes_in_the_index_itself() -> None:
    assert run("add index.annidx new.npy --ids new.txt") == 0
    assert run("remove index.annidx --ids old.txt") == 0
    assert set(annidx.load("index.annidx").ids) == {f"t{i}" for i in range(200, 300)}
    assert run("add index.annidx old.npy --ids new.txt") == 1  # more vectors than ids
    np.save("same.npy", VECTORS[:100])
    assert run("add index.annidx same.npy --ids new.txt") == 1  # they are there
    assert run("add index.annidx same.npy --ids new.txt --update") == 0
    np.testing.assert_array_equal(annidx.load("index.annidx").get_vectors("t200"), VECTORS[0])


def test_parts() -> None:
    assert run("train old.npy new.npy -o model --metric euclidean") == 0
    assert run("encode model old.npy --ids old.txt -o a") == 0
    assert run("encode model new.npy --ids new.txt -o b") == 0
    assert run("merge a b -o merged.annidx") == 0
    np.save("all.npy", VECTORS)
    Path("all.txt").write_text(Path("old.txt").read_text() + Path("new.txt").read_text())
    assert run("build all.npy --ids all.txt -o whole.annidx --metric euclidean") == 0
    assert Path("merged.annidx").read_bytes() == Path("whole.annidx").read_bytes()


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("remove index.annidx", 1, "expected ids of items that go"),
        ("remove index.annidx nobody", 1, "no item 'nobody'"),
        ("add index.annidx new.npy --update", 1, "--update: expected ids"),
        ("add index.annidx new.npy", 1, "expected an id for each vector"),
        ("add missing.annidx new.npy", 1, "No such file"),
        ("merge old.npy -o x", 1, "not an annidx file"),
        ("merge index.annidx index.annidx -o x", 1, "every id once, found id 't0'"),
        ("merge index.annidx -o old.npy", 1, "--force"),
        ("encode old.npy new.npy -o x", 1, "not an annidx file"),
        ("train new.npy -o x", 2, "--metric"),
    ],
)
def test_what_is_wrong_is_one_line(
    line: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(line) == code
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1
