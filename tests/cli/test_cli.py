"""Tests the command `annidx` as a user runs it: inputs, answers, files, errors, exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import format_reader
import numpy as np
import numpy.typing as npt
import pytest
from running import Done, Run, assert_one_line

import annidx
from annidx import cli
from annidx.cli import info

COMMAND = [sys.executable, "-m", "annidx"]
COUNT, DIM = 300, 8
NAMES = [f"track:{i}" for i in range(COUNT)]


@pytest.fixture
def vectors() -> npt.NDArray[np.float32]:
    """Whole numbers, so that every format keeps them exactly."""
    return np.random.default_rng(4).integers(0, 200, size=(COUNT, DIM)).astype(np.float32)


def neighbours(vectors: npt.NDArray[Any], row: int, k: int) -> list[int]:
    """Find the nearest rows of a row by euclidean distance, the row itself left out."""
    distances = np.linalg.norm(vectors.astype(float) - vectors[row], axis=1)
    order = np.argsort(distances, kind="stable")
    return [int(i) for i in order if i != row][:k]


def build(run: Run, vectors: npt.NDArray[Any], *more: str, metric: str = "euclidean") -> Path:
    """Build an index of an array by the command line."""
    np.save("vectors.npy", vectors)
    done = run(f"build vectors.npy -o index.annidx --metric {metric}", *more)
    assert (done.code, done.err) == (0, "")
    return Path("index.annidx")


def answers(done: Done) -> list[dict[str, Any]]:
    """Read lines of JSON."""
    assert (done.code, done.err) == (0, "")
    return [json.loads(line) for line in done.out.splitlines()]


# ---- sets ----------------------------------------------------------------------------------


def test_sets_in_the_file(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    Path("few.txt").write_text("5\n17\n290\n999\n", encoding="utf-8")
    np.save("odd.npy", np.arange(1, COUNT, 2))
    for more in ([], ["--memory-limit", "1G"]):
        path = build(run, vectors, "--set", "few=few.txt", "--set", "odd=odd.npy", *more)
        assert format_reader.read(path, strict=True).sets["few"].tolist() == [5, 17, 290]
    assert "few: 3 items" in run("info index.annidx").out
    assert json.loads(run("info index.annidx --json").out)["sets"] == {"few": 3, "odd": 150}
    line = "query index.annidx --item 3 --json -k 300"
    assert set(answers(run(f"{line} --allow-set few"))[0]["ids"]) == {5, 17, 290}
    assert set(answers(run(f"{line} --allow-set few --deny-set odd"))[0]["ids"]) == {290}
    assert set(answers(run(f"{line} --allow few.txt --deny-set odd"))[0]["ids"]) == {290}
    Path("gone.txt").write_text("999\n", encoding="utf-8")
    for command, code, words in (
        ("query index.annidx --item 3 --allow-set no", 1, "got 'no'"),
        ("query index.annidx --item 3 --allow few.txt --allow-set few", 2, "not allowed with"),
        ("build vectors.npy -o o --metric dot --set few", 2, "expected key=value, found 'few'"),
        ("build vectors.npy -o o --metric dot --set few=no.txt", 1, "no.txt"),
        ("build vectors.npy -o o --metric dot --set few=gone.txt", 1, "none of these 1 ids"),
    ):
        done = run(command)
        assert done.code == code and words in done.err, done.err
        assert not Path("o").exists()


# ---- inputs --------------------------------------------------------------------------------


def write_vecs(path: str, vectors: npt.NDArray[Any], dtype: str) -> None:
    row = np.dtype([("dim", "<i4"), ("vector", dtype, (DIM,))])
    rows = np.empty(len(vectors), dtype=row)
    rows["dim"], rows["vector"] = DIM, vectors
    rows.tofile(path)


def write_hdf5(path: str, vectors: npt.NDArray[Any]) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["train"], file["test"] = vectors, vectors[:3]


def write_parquet(path: str, vectors: npt.NDArray[Any]) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"name": NAMES, "vector": list(vectors), "number": np.arange(COUNT) * 10}
    parquet.write_table(arrow.table(columns), path, row_group_size=70)


def write_text(
    path: str, vectors: npt.NDArray[Any], separator: str, first: str, names: bool = False
) -> None:
    rows = [separator.join(str(float(x)) for x in v) for v in vectors]
    if names:
        rows = [f"{name}{separator}{row}" for name, row in zip(NAMES, rows, strict=True)]
    Path(path).write_text("\n".join([*([first] if first else []), *rows]) + "\n", encoding="utf-8")


WRITERS: dict[str, Callable[[str, npt.NDArray[Any]], None]] = {
    "v.npy": np.save,
    "v.npz": lambda path, v: np.savez(path, vectors=v),
    "v.fvecs": lambda path, v: write_vecs(path, v, "<f4"),
    "v.bvecs": lambda path, v: write_vecs(path, v, "u1"),
    "v.ivecs": lambda path, v: write_vecs(path, v, "<i4"),
    "v.hdf5": write_hdf5,
    "v.parquet": write_parquet,
    "v.csv": lambda path, v: write_text(path, v, ",", ""),
    "head.csv": lambda path, v: write_text(path, v, ", ", ",".join("abcdefgh")),
    "v.tsv": lambda path, v: write_text(path, v, "\t", ""),
    "v.txt": lambda path, v: write_text(path, v, " ", ""),
}


@pytest.mark.parametrize("name", WRITERS)
def test_build_reads_every_format(run: Run, vectors: npt.NDArray[np.float32], name: str) -> None:
    WRITERS[name](name, vectors)
    done = run(f"build {name} -o index.annidx --metric euclidean")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("index.annidx: 300 vectors, ")
    with annidx.load("index.annidx") as index:
        assert np.array_equal(index.get_vectors(range(COUNT)), vectors)
        assert index.dtype == ("uint8" if name == "v.bvecs" else "float32")


@pytest.mark.parametrize(
    ("dtype", "metric", "kept"),
    [
        ("float64", "euclidean", "float32"),
        ("float16", "euclidean", "float16"),
        ("int8", "angular", "int8"),
        ("uint8", "manhattan", "uint8"),
        ("uint8", "angular", "float32"),
        ("int32", "dot", "float32"),
    ],
)
def test_build_keeps_vectors_as_the_input_has_them(
    run: Run, vectors: npt.NDArray[np.float32], dtype: str, metric: str, kept: str
) -> None:
    build(run, (vectors // 2).astype(dtype), metric=metric)
    assert json.loads(run("info index.annidx --json").out)["dtype"] == kept
    build(run, vectors, "--dtype", "float16", metric=metric)
    assert json.loads(run("info index.annidx --json").out)["dtype"] == "float16"


def test_build_takes_the_array_of_a_key(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    np.savez("two.npz", a=vectors[:50], b=vectors)
    assert run("build two.npz -o i.annidx --metric euclidean --key b").code == 0
    assert len(annidx.load("i.annidx")) == COUNT
    write_hdf5("two.hdf5", vectors)
    assert run("build two.hdf5 -o i.annidx --metric euclidean --key test").code == 0
    assert len(annidx.load("i.annidx")) == 3


@pytest.mark.parametrize("ids", ["ids.txt", "ids.npy", "numbers.txt", "numbers.npy"])
def test_build_takes_ids_from_a_file(run: Run, vectors: npt.NDArray[np.float32], ids: str) -> None:
    numbers = np.arange(COUNT) * 7 - 300
    np.save("ids.npy", np.array(NAMES))
    np.save("numbers.npy", numbers)
    Path("ids.txt").write_text("\n".join(NAMES), encoding="utf-8")
    Path("numbers.txt").write_text("".join(f"{n}\n" for n in numbers), encoding="utf-8")
    build(run, vectors, "--ids", ids)
    index = annidx.load("index.annidx")
    assert (NAMES[5] if ids.startswith("ids") else int(numbers[5])) in index


@pytest.mark.parametrize(
    ("separator", "first", "column"),
    [(",", "", "1"), (",", "name,a,b,c,d,e,f,g,h", "name"), ("\t", "", "1"),
     (" ", "", "1"), (" ", f"{COUNT} {DIM}", "1")],
)  # fmt: skip
def test_build_takes_ids_from_a_column_of_text(
    run: Run, vectors: npt.NDArray[np.float32], separator: str, first: str, column: str
) -> None:
    write_text("v.txt", vectors, separator, first, names=True)
    done = run(f"build v.txt -o index.annidx --metric euclidean --id-column {column}")
    assert (done.code, done.err) == (0, "")
    index = annidx.load("index.annidx")
    assert np.array_equal(index.get_vectors(NAMES), vectors)


@pytest.mark.parametrize(("column", "item"), [("name", "track:9"), ("number", 90)])
def test_build_takes_ids_from_a_column_of_parquet(
    run: Run, vectors: npt.NDArray[np.float32], column: str, item: int | str
) -> None:
    write_parquet("v.parquet", vectors)
    done = run(f"build v.parquet -o index.annidx --metric euclidean --id-column {column}")
    assert (done.code, done.err) == (0, "")
    assert np.array_equal(annidx.load("index.annidx").get_vectors(item), vectors[9])


# ---- building ------------------------------------------------------------------------------


def test_build_passes_its_options_on(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    np.save("queries.npy", vectors[:100] + 1)
    options = "--n-trees 2 --recall 0.9 --jobs 1 --seed 5 --queries queries.npy"
    build(run, vectors, *options.split(), "--metadata", "model=a=b", "--metadata", "day=monday")
    with annidx.load("index.annidx") as index:
        info = index.info()
    assert info["metadata"] == {"model": "a=b", "day": "monday"}
    assert info["default_recall"] == 0.9
    assert (info["seed"], info["n_trees"]) == (5, 2)


def test_build_is_the_same_whatever_the_jobs_and_the_memory(
    run: Run, vectors: npt.NDArray[np.float32]
) -> None:
    first = build(run, vectors, "--jobs", "1").read_bytes()
    assert build(run, vectors, "--jobs", "2").read_bytes() == first
    assert build(run, vectors, "--memory-limit", "200M").read_bytes() == first
    build(run, vectors, "--memory-limit", "0.2GiB", "--metadata", "a=b")
    assert annidx.load("index.annidx").metadata == {"a": "b"}


# ---- asking --------------------------------------------------------------------------------


def test_query_by_item(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    build(run, vectors)
    found = answers(run("query index.annidx --item 3 200 -k 4 --recall 1 --json"))
    assert [line["query"] for line in found] == [3, 200]
    assert [line["ids"] for line in found] == [neighbours(vectors, r, 4) for r in (3, 200)]
    assert found[0]["distances"] == sorted(found[0]["distances"])


def test_query_by_text_id(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    Path("ids.txt").write_text("\n".join(NAMES), encoding="utf-8")
    build(run, vectors, "--ids", "ids.txt")
    (found,) = answers(run("query index.annidx --item track:3 -k 2 --recall 1 --json"))
    assert found["ids"] == [NAMES[i] for i in neighbours(vectors, 3, 2)]


def test_query_by_vectors(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    build(run, vectors)
    np.save("q.npy", np.tile(vectors, (5, 1)))  # more than one batch
    found = answers(run("query index.annidx --vectors q.npy -k 1 --recall 1 --json"))
    assert [line["query"] for line in found] == list(range(5 * COUNT))
    assert all(line["distances"] == [0.0] for line in found)


def test_query_prints_a_table(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    build(run, vectors)
    done = run("query index.annidx --item 3 4 -k 2 --recall 1")
    first, header, *rows = done.out.split("\n\n")[0].splitlines()
    assert first == "nearest to 3"
    assert header.split() == ["rank", "id", "distance"]
    assert [row.split()[:2] for row in rows] == [
        [str(rank), str(i)] for rank, i in enumerate(neighbours(vectors, 3, 2), 1)
    ]
    assert "\x1b" not in done.out


def test_query_filters(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    build(run, vectors)
    near = neighbours(vectors, 3, COUNT)
    Path("allow.txt").write_text("".join(f"{i}\n" for i in near[10:20]), encoding="utf-8")
    np.save("deny.npy", np.array(near[10:12]))
    line = "query index.annidx --item 3 --json --allow allow.txt --deny deny.npy"
    (found,) = answers(run(line + " -k 100 --search-k 50"))
    assert found["ids"] == near[12:20]
    radius = found["distances"][2]
    (found,) = answers(run(line + f" -k 100 --radius {radius}"))
    assert found["ids"] == near[12:15]


@pytest.mark.parametrize("packed", [False, True])
def test_hamming_takes_bits_and_packed_bits(run: Run, packed: bool) -> None:
    bits = np.random.default_rng(2).integers(0, 2, size=(100, 24)).astype(np.uint8)
    given = np.packbits(bits, axis=1) if packed else bits
    more = ["--packed"] if packed else []
    np.save("queries.npy", given[:20])
    build(run, given, *more, "--queries", "queries.npy", metric="hamming")
    for queries in (bits[:3], np.packbits(bits[:3], axis=1)):
        np.save("q.npy", queries)
        found = answers(run("query index.annidx --vectors q.npy -k 1 --json"))
        assert [line["distances"] for line in found] == [[0.0]] * 3


# ---- the other commands --------------------------------------------------------------------


def test_info_for_people(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    build(run, vectors, "--metadata", "model=first")
    done = run("info index.annidx")
    assert (done.code, done.err) == (0, "")
    for text in ("300 of 8 dimensions, kept as float32", "euclidean", "integers", "model = first"):
        assert text in done.out
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("line", "about"),
    [
        ("build --no-such-option", "annidx build --help"),
        ("build x.npy -o y --metric euclidean --mem 1G", "annidx build --help"),
        ("info", "annidx info --help"),
        ("--no-such-option", "annidx --help"),
    ],
)
def test_usage_errors_name_the_help_of_their_command(run: Run, line: str, about: str) -> None:
    """No option is guessed from its beginning."""
    done = run(line)
    assert done.code == 2 and done.err.rstrip().endswith(f"(see {about})")
    assert len(done.err.splitlines()) == 1


def test_ids(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    names = [f"n\u00e4me {i}" for i in range(COUNT)]
    Path("names.txt").write_text("\n".join(names), encoding="utf-8")
    build(run, vectors, "--ids", "names.txt")
    assert run("ids index.annidx").out.splitlines() == names
    assert [json.loads(line) for line in run("ids index.annidx --json").out.splitlines()] == names


def test_export(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    build(run, vectors)
    done = run("export index.annidx -o out.npy")
    assert (done.code, done.err) == (0, "") and "300 vectors" in done.out
    np.testing.assert_array_equal(np.load("out.npy"), vectors)
    failed = run("export index.annidx -o index.annidx")
    assert failed.code == 1 and "an ending of .npy or .parquet" in failed.err
    annidx.verify("index.annidx")


def test_graph(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    build(run, vectors)
    done = run("graph index.annidx -o near -k 4 --include-self")
    assert (done.code, done.err) == (0, "") and "4 neighbours of 300 items" in done.out
    with annidx.load("index.annidx") as index:
        ids, distances = index.knn_graph(4, True, "ids")
    np.testing.assert_array_equal(np.load("near/ids.npy"), ids)
    np.testing.assert_array_equal(np.load("near/distances.npy"), distances)
    failed = run("graph index.annidx -o near -k 4")
    assert failed.code == 1 and "force" in failed.err
    assert run("graph index.annidx -o near -k 2 --rows --force").code == 0
    assert np.load("near/rows.npy").shape == (300, 2)


@pytest.mark.parametrize("way", ["name", "symbolic link", "hard link"])
def test_an_input_is_not_replaced_by_its_index(
    run: Run, vectors: npt.NDArray[np.float32], way: str
) -> None:
    np.save("x.npy", vectors)
    target = Path("x.npy")
    if way != "name":
        target = Path("other.npy")
        (target.symlink_to if way == "symbolic link" else target.hardlink_to)("x.npy")
    for more in ("", " --memory-limit 1G"):
        failed = run(f"build x.npy -o {target} --metric euclidean{more}")
        assert failed.code == 1 and failed.out == ""
        assert f"{target}: expected a new file, or an annidx file to replace" in failed.err
        assert "--force" in failed.err and len(failed.err.splitlines()) == 1
        np.testing.assert_array_equal(np.load("x.npy"), vectors)
    assert run(f"build x.npy -o {target} --metric euclidean --force").code == 0
    annidx.verify(target)


@pytest.mark.parametrize(
    "line",
    ["tune index.annidx --queries vectors.npy -o", "demo --save", "demo jazz --save"],
)
def test_nothing_is_measured_or_built_in_vain(
    run: Run,
    vectors: npt.NDArray[Any],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    build(run, vectors)
    Path("mine").write_bytes(b"precious")
    with monkeypatch.context() as patch:
        for work in ("build", "tune"):
            patch.setattr(annidx.Index, work, lambda *_, **__: pytest.fail("in vain"))
        failed = run(f"{line} mine")
    assert failed.code == 1 and "--force" in failed.err and failed.out == ""
    assert Path("mine").read_bytes() == b"precious"
    request.getfixturevalue("words_built_once")
    assert run(f"{line} mine --force").code == 0
    annidx.verify("mine")


def test_files_of_other_kinds_are_not_replaced(run: Run, vectors: npt.NDArray[Any]) -> None:
    build(run, vectors)
    assert run("build vectors.npy -o index.annidx --metric euclidean").code == 0  # its own kind
    Path("empty").touch()
    assert run("build vectors.npy -o empty --metric euclidean").code == 0
    Path("notes.txt").write_text("precious", encoding="utf-8")
    assert run("build vectors.npy -o notes.txt --metric euclidean").code == 1
    old = Path(__file__).resolve().parents[1] / "golden" / "annoy" / "angular.ann"
    Path("old.ann").write_bytes(old.read_bytes())
    assert run("convert old.ann old.ann --dim 6 --metric angular").code == 1
    assert run("convert old.ann notes.txt --dim 6 --metric angular").code == 1
    Path("out.npy").write_text("precious", encoding="utf-8")
    assert run("export index.annidx -o out.npy").code == 1
    for name in ("notes.txt", "out.npy"):
        assert Path(name).read_text(encoding="utf-8") == "precious"
    assert Path("old.ann").read_bytes() == old.read_bytes()
    assert run("export index.annidx -o out.npy --force").code == 0
    np.testing.assert_array_equal(np.load("out.npy"), vectors)


def test_verify(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    path = build(run, vectors)
    assert run("verify index.annidx").out == "index.annidx: sound\n"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    Path("damaged.annidx").write_bytes(damaged)
    line = "verify damaged.annidx no-such-file index.annidx"
    done = run(line)
    assert (done.code, done.out) == (1, "index.annidx: sound\n")
    first, second = done.err.splitlines()
    assert first.startswith("annidx: error: 'damaged.annidx' is damaged: section")
    assert second.startswith("annidx: error: no-such-file: ")
    done = run(line + " --json")
    assert (done.code, done.err) == (1, "")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [one["path"] for one in found] == ["damaged.annidx", "no-such-file", "index.annidx"]
    assert [one["sound"] for one in found] == [False, False, True]
    assert [f"annidx: error: {one['error']}" for one in found[:2]] == [first, second]
    assert found[2]["error"] is None
    assert run("verify index.annidx --json").code == 0


def test_query_all_within_a_radius(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    build(run, vectors)
    radius = float(np.sort(np.linalg.norm(vectors - vectors[3], axis=1))[40]) + 1e-3
    (found,) = answers(run(f"query index.annidx --item 3 -k all --radius {radius} --json"))
    assert sorted(found["ids"]) == sorted(neighbours(vectors, 3, 40))
    (found,) = answers(run(f"query index.annidx --item 3 --radius {radius} --json"))
    assert len(found["ids"]) == 10
    done = run("query index.annidx --item 3 -k all")
    assert done.code == 2 and "argument -k: expected a number, all needs --radius" in done.err


def test_a_filter_that_knows_no_id_says_so(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    build(run, vectors)
    Path("ids.txt").write_text("900\n901\n")
    done = run("query index.annidx --item 3 --allow ids.txt")
    assert (done.code, done.out) == (1, "")
    assert done.err == "annidx: error: ids.txt: the index has none of these 2 ids\n"
    assert run("query index.annidx --item 3 --deny ids.txt").code == 0


@pytest.mark.parametrize("command", ["build x.npy -o y.annidx", "convert x.ann y.annidx --dim 3"])
def test_metrics_of_other_libraries_are_known(run: Run, command: str) -> None:
    done = run(command + " --metric l2")
    assert done.code == 2 and "found 'l2': did you mean \"euclidean\"?" in done.err
    assert "expected one of angular, " in run(command + " --metric earthmover").err


def test_tune(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    build(run, vectors, "--metadata", "a=b")
    np.save("q.npy", vectors[:200] + 3)
    done = run("tune index.annidx --queries q.npy -k 5")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0].split()[:2] == ["k", "recall"]
    points = answers(run("tune index.annidx --queries q.npy -k 5 --json -o tuned.annidx"))
    assert points and all(point["k"] == 5 for point in points)
    tuned = annidx.load("tuned.annidx")
    assert [point for point in tuned.info()["curve"] if point["k"] == 5] == points
    assert tuned.metadata == {"a": "b"}


def test_evaluate(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    build(run, vectors)
    np.save("q.npy", vectors[:50] + 3)
    line = "evaluate index.annidx --queries q.npy -k 5"
    done = run(line)
    assert (done.code, done.err) == (0, "")
    head, *rows = done.out.splitlines()
    assert head.split()[:3] == ["target", "recall", "microseconds"] and len(rows) == 5
    (row,) = answers(run(line + " --recall 1 --json"))
    assert row["recall"] == 1 and row["candidates"] == COUNT and row["target"] == 1
    assert run(line + " --recall 1.5").code == 2


def test_evaluate_draws_a_curve(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    pytest.importorskip("matplotlib")
    build(run, vectors)
    np.save("q.npy", vectors[:50] + 3)
    line = "evaluate index.annidx --queries q.npy --recall 0.9 0.99 --plot"
    for name, magic in (("curve.png", b"\x89PNG"), ("curve.svg", b"<?xml"), ("curve.pdf", b"%PDF")):
        assert run(line, name).err == ""
        assert Path(name).read_bytes().startswith(magic)
    assert len(answers(run(line + " again.png --json"))) == 2
    before = Path("curve.png").read_bytes()
    done = run(line, "curve.png")
    assert done.code == 1 and "curve.png: expected a new file (--force replaces" in done.err
    assert Path("curve.png").read_bytes() == before
    assert run(line, "curve.png", "--force").code == 0
    done = run(line, "curve.txt")
    assert done.code == 1 and "expected a name that ends in .png, .svg or .pdf" in done.err


def test_info_draws_leaves_and_lengths(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    pytest.importorskip("matplotlib")
    build(run, vectors)
    assert run("info index.annidx --plot leaves.svg").err == ""
    drawn = Path("leaves.svg").read_text(encoding="utf-8")
    assert "items of a leaf" in drawn and "length of a vector" in drawn
    assert json.loads(run("info index.annidx --json --plot leaves.png").out)["items"] == COUNT
    assert Path("leaves.png").read_bytes().startswith(b"\x89PNG")
    done = run("info index.annidx --plot leaves.png")
    assert done.code == 1 and "expected a new file" in done.err
    np.save("bits.npy", vectors > 0)
    assert run("build bits.npy -o bits.annidx --metric hamming").err == ""
    assert run("info bits.annidx --plot bits.svg").err == ""
    assert "bits set in a vector" in Path("bits.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("trees", [1, 3])
def test_sizes_of_leaves_are_those_of_the_file(tmp_path: Path, trees: int) -> None:
    index = annidx.Index(8, "euclidean")
    index.add_items(np.random.default_rng(4).normal(size=(5_000, 8)))
    index.build(n_trees=trees)
    path = tmp_path / "trees.annidx"
    index.save(path)
    sizes = info.leaf_sizes(str(path), index.info()["sections"])
    read = format_reader.read(path).leaves
    assert sizes.tolist() == [len(leaf) for tree in read for leaf in tree]
    assert sizes.sum() == 5_000 * trees and len(sizes) == index.info()["leaves"]


def test_convert(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    annoy = pytest.importorskip("annoy")
    old = annoy.AnnoyIndex(DIM, "euclidean")
    for i, vector in enumerate(vectors):
        old.add_item(i, vector)
    old.build(3)
    old.save("old.ann")
    done = run(f"convert old.ann new.annidx --dim {DIM} --metric euclidean")
    assert (done.code, done.err) == (0, "")
    with annidx.load("new.annidx") as index:
        assert np.array_equal(index.get_vectors(range(COUNT)), vectors)
    done = run(f"convert old.ann wrong.annidx --dim {DIM + 1} --metric euclidean")
    assert done.code == 1 and not Path("wrong.annidx").exists()


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_every_command(run: Run, command: str) -> None:
    done = run(f"{command} --help")
    assert (done.code, done.err) == (0, "")
    assert cli.COMMANDS[command].summary in " ".join(done.out.split())


def test_version(run: Run) -> None:
    assert run("--version").out == f"annidx {annidx.__version__}\n"


# ---- errors --------------------------------------------------------------------------------

USAGE = [
    "",
    "dance",
    "build vectors.npy",
    "build vectors.npy -o o.annidx",
    "build vectors.npy -o o.annidx --metric nearest",
    "build vectors.npy -o o.annidx --metric dot --recall 1.5",
    "build vectors.npy -o o.annidx --metric dot --jobs 0",
    "build vectors.npy -o o.annidx --metric dot --memory-limit much",
    "build vectors.npy -o o.annidx --metric dot --metadata model",
    "build vectors.npy -o o.annidx --metric dot --ids a --id-column b",
    "query index.annidx",
    "query index.annidx --item 1 --vectors vectors.npy",
    "query index.annidx --item 1 -k 0",
    "query index.annidx --item 1 -k two",
    "query index.annidx --item 1 --recall 0.9 --search-k 10",
    "tune index.annidx",
    "convert old.ann new.annidx --dim 3",
    "convert old.ann new.annidx --dim 3 --metric cosine",
]

FAILURES = {
    "build missing.npy -o o.annidx --metric dot": "missing.npy: No such file",
    "build empty.npy -o o.annidx --metric dot": "empty.npy: not a readable .npy",
    "build vectors.npy -o no/folder/o.annidx --metric dot": "no/folder",
    "build vectors.npy -o o.annidx --metric angular --dtype uint8": "uint8",
    "build vectors.npy -o o.annidx --metric dot --packed": "packed",
    "build vectors.npy -o o.annidx --metric dot --key a": "vectors.npy: a key needs",
    "build vectors.npy -o o.annidx --metric dot --id-column a": "an id column needs",
    "build vectors.npy -o o.annidx --metric dot --ids three.txt": "three.txt: 3 ids for 300",
    "build nan.npy -o o.annidx --metric dot": "row 2",
    "build flat.npy -o o.annidx --metric dot": "flat.npy: expected rows",
    "build words.npy -o o.annidx --metric dot": "words.npy: expected numbers",
    "build ragged.csv -o o.annidx --metric dot": "ragged.csv, line 2: expected 3 numbers, found 2",
    "build words.csv -o o.annidx --metric dot": "words.csv, line 1: 'one' is not a number",
    "build wide.csv -o o.annidx --metric dot --id-column 9": "no column '9'",
    "build odd.fvecs -o o.annidx --metric dot": "odd.fvecs: 9 bytes",
    "build odd.hdf5 -o o.annidx --metric dot": "odd.hdf5: not a readable HDF5",
    "build odd.parquet -o o.annidx --metric dot": "odd.parquet: not a readable Parquet",
    "build odd.npz -o o.annidx --metric dot": "odd.npz: not a readable .npz",
    "build vectors.npy -o o.annidx --metric dot --queries narrow.npy": "narrow.npy: 3 dimensions",
    "query missing.annidx --item 1": "missing.annidx: cannot open: No such file",
    "query vectors.npy --item 1": "vectors.npy",
    "query index.annidx --item 100000": "no item 100000",
    "query index.annidx --item one": "--item: 'one' is no id",
    "query index.annidx --vectors narrow.npy": "narrow.npy: 3 dimensions, the index has 8",
    "query index.annidx --item 1 --allow words.csv": "words.csv, line 1: expected one id, found 3",
    "query . --item 1": "directory",
    "info vectors.npy": "vectors.npy",
    "verify vectors.npy": "vectors.npy",
    "tune index.annidx --queries missing.npy": "missing.npy: No such file",
    "convert three.txt new.annidx --dim 3 --metric angular": "three.txt",
}


@pytest.mark.parametrize("line", USAGE)
def test_usage_errors(run: Run, line: str) -> None:
    assert_one_line(run(line), 2)


@pytest.mark.parametrize("line", FAILURES)
def test_failures(run: Run, vectors: npt.NDArray[np.float32], line: str) -> None:
    for suffix, reader in ((".hdf5", "h5py"), (".parquet", "pyarrow")):
        if suffix in line:
            pytest.importorskip(reader)
    build(run, vectors)
    Path("empty.npy").touch()
    np.save("nan.npy", np.where(np.arange(COUNT)[:, None] == 2, np.nan, vectors))
    np.save("flat.npy", vectors[0])
    np.save("words.npy", np.array([["a", "b"]]))
    np.save("narrow.npy", vectors[:, :3])
    for name in ("odd.fvecs", "odd.hdf5", "odd.parquet", "odd.npz"):
        Path(name).write_bytes(b"\2\0\0\0 odd ")
    texts = {
        "three.txt": "a\nb\nc\n",
        "ragged.csv": "1,2,3\n4,5\n",
        "words.csv": "one,1,1\ntwo,2,2\n",
        "wide.csv": "1,2,3\n",
    }
    for name, text in texts.items():
        Path(name).write_text(text, encoding="utf-8")
    done = run(line)
    assert_one_line(done, 1)
    assert FAILURES[line] in done.err
    assert not Path("o.annidx").exists()


# ---- terminals, pipes and signals ----------------------------------------------------------


def start_on_terminal(command: list[str], kind: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command whose stderr is a terminal; give the end of it to read from, too."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": kind}
    process = subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, env=environment)
    os.close(theirs)
    return process, ours


def read_all(terminal: int) -> str:
    """Read what is written to a terminal until its other end is closed; close it."""
    chunks: list[bytes] = []
    while True:
        try:
            chunk = os.read(terminal, 65_536)
        except OSError:  # how Linux tells that the other end is closed
            chunk = b""
        if not chunk:
            os.close(terminal)
            return b"".join(chunks).decode(errors="replace")
        chunks.append(chunk)


def build_command(folder: Path, count: int) -> list[str]:
    """Write vectors and return the command that indexes them."""
    vectors = np.random.default_rng(1).normal(size=(count, 32)).astype(np.float32)
    np.save(folder / "v.npy", vectors)
    source, target = str(folder / "v.npy"), str(folder / "v.annidx")
    return [*COMMAND, "build", source, "-o", target, "--metric", "euclidean", "--jobs", "1"]


def test_no_progress_and_no_colour_in_a_pipe(tmp_path: Path) -> None:
    done = subprocess.run(build_command(tmp_path, 5_000), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout and "\r" not in done.stdout


def test_progress_on_a_terminal_is_wiped_away(tmp_path: Path) -> None:
    process, terminal = start_on_terminal(build_command(tmp_path, 5_000), "xterm")
    shown = read_all(terminal)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert "%" in shown and shown.endswith("\r\x1b[K")


def test_no_progress_on_a_dumb_terminal(tmp_path: Path) -> None:
    process, terminal = start_on_terminal(build_command(tmp_path, 5_000), "dumb")
    assert read_all(terminal) == ""
    process.communicate(timeout=300)
    assert process.returncode == 0


def test_interrupt_leaves_no_file(tmp_path: Path) -> None:
    process, terminal = start_on_terminal(build_command(tmp_path, 300_000), "xterm")
    os.read(terminal, 100)  # the build has begun
    process.send_signal(signal.SIGINT)
    shown = read_all(terminal)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert out == b""
    assert shown.endswith("annidx: error: interrupted\r\n")
    assert "Traceback" not in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.npy"]


def test_closed_pipe_is_quiet(run: Run, vectors: npt.NDArray[np.float32]) -> None:
    build(run, vectors)
    np.save("q.npy", np.tile(vectors, (30, 1)))
    process = subprocess.Popen(
        [*COMMAND, "query", "index.annidx", "--vectors", "q.npy", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=300) == 141
