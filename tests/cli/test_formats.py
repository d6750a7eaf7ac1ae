"""Owns the tests of what the command line reads: every format, and wrong files of each kind."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from running import Run, assert_one_line

import annidx
from annidx.io.readers import FORMATS

Array = npt.NDArray[Any]
COUNT, DIM = 40, 5
# Whole numbers, so that every format keeps them exactly; halves in text.
VECTORS = np.random.default_rng(4).integers(0, 100, size=(COUNT, DIM)).astype(np.float32)
WORDS = [f"alter käse_{i}" if i % 3 else f"word{i}" for i in range(COUNT)]
WORDS[7:12] = "17", ",", ". . .", "at name@domain.com", "apollo 11"
BUILD = "-o index.annidx --metric euclidean"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def built(run: Run, line: str, *more: str) -> annidx.Index:
    done = run(f"build {line} {BUILD}", *more)
    assert (done.code, done.err) == (0, "")
    index = annidx.load("index.annidx")
    assert done.out.startswith(f"index.annidx: {len(index)} vectors, ")
    return index


def check(index: annidx.Index, ids: Any = None) -> None:
    want = list(range(COUNT)) if ids is None else list(ids)
    assert list(index) == want
    np.testing.assert_array_equal(index.get_vectors(want), VECTORS)


# ---- writers -------------------------------------------------------------------------------


def text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def numbers(separator: str = " ") -> list[str]:
    return [separator.join(f"{x:g}" for x in vector) for vector in VECTORS]


def word_lines() -> list[str]:
    return [f"{word} {line}" for word, line in zip(WORDS, numbers(), strict=True)]


def csv_of(rows: list[list[Any]], delimiter: str = ",") -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue().encode()


def word2vec_bin(line_end: bytes = b"") -> bytes:
    words = [
        word.replace(" ", "_").encode() + b" " + vector.tobytes() + line_end
        for word, vector in zip(WORDS, VECTORS, strict=True)
    ]
    return f"{COUNT} {DIM}\n".encode() + b"".join(words)


def raw_bin(dtype: str) -> bytes:
    return struct.pack("<II", COUNT, DIM) + VECTORS.astype(dtype).tobytes()


def json_lines(rows: list[Any]) -> bytes:
    return text([json.dumps(row, ensure_ascii=False) for row in rows])


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, VECTORS)
    return file.getvalue()


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=VECTORS)
    return file.getvalue()


def vecs(dtype: str) -> bytes:
    rows = [struct.pack("<i", DIM) + vector.astype(dtype).tobytes() for vector in VECTORS]
    return b"".join(rows)


def hdf5() -> bytes:
    h5py = pytest.importorskip("h5py")
    file = io.BytesIO()
    with h5py.File(file, "w") as out:
        out["train"] = VECTORS
    return file.getvalue()


def table_of(first: int = 0, last: int = COUNT) -> Any:
    arrow = pytest.importorskip("pyarrow")
    columns = {
        "name": WORDS,
        "vector": list(VECTORS),
        "number": np.arange(COUNT, dtype=np.int32) * 10,
        "kind": arrow.array(WORDS).dictionary_encode(),
        "price": np.arange(COUNT) / 4,
    }
    return arrow.table(columns)[first:last]


def parquet(table: Any = None) -> bytes:
    module = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    module.write_table(table_of() if table is None else table, file, row_group_size=7)
    return file.getvalue()


def feather(compression: str = "uncompressed", version: int = 2) -> bytes:
    module = pytest.importorskip("pyarrow.feather")
    file = io.BytesIO()
    module.write_feather(table_of(), file, compression=compression, version=version)
    return file.getvalue()


def rows_with_ids() -> list[list[Any]]:
    return [[word, *vector] for word, vector in zip(WORDS, VECTORS.tolist(), strict=True)]


def objects() -> list[dict[str, Any]]:
    return [
        {"id": word, "number": i, "vector": vector, "tags": None}
        for i, (word, vector) in enumerate(zip(WORDS, VECTORS.tolist(), strict=True))
    ]


# name of the file: what is in it, options, the ids that come of it
GOOD: dict[str, tuple[Callable[[], bytes], str, Any]] = {
    "a.npy": (npy, "", None),
    "a.npz": (npz, "", None),
    "a.hdf5": (hdf5, "", None),
    "a.h5": (hdf5, "--key train", None),
    "a.fvecs": (lambda: vecs("<f4"), "", None),
    "a.bvecs": (lambda: vecs("u1"), "", None),
    "a.ivecs": (lambda: vecs("<i4"), "", None),
    "a.fbin": (lambda: raw_bin("<f4"), "", None),
    "a.u8bin": (lambda: raw_bin("u1"), "", None),
    "a.i8bin": (lambda: raw_bin("i1"), "", None),
    "a.bin": (word2vec_bin, "", [word.replace(" ", "_") for word in WORDS]),
    "lines.bin": (lambda: word2vec_bin(b"\n"), "", [word.replace(" ", "_") for word in WORDS]),
    "a.parquet": (parquet, "", None),
    "ids.parquet": (parquet, "--id-column name", WORDS),
    "numbers.parquet": (parquet, "--id-column number", range(0, COUNT * 10, 10)),
    "kinds.parquet": (parquet, "--id-column kind --vector-column vector", WORDS),
    "third.parquet": (parquet, "--id-column 3", range(0, COUNT * 10, 10)),
    "a.feather": (feather, "", None),
    "a.arrow": (lambda: feather("lz4"), "--id-column name", WORDS),
    "zstd.feather": (lambda: feather("zstd"), "--id-column number", range(0, COUNT * 10, 10)),
    "a.jsonl": (lambda: json_lines(VECTORS.tolist()), "", None),
    "a.ndjson": (lambda: json_lines(objects()), "", None),
    "ids.jsonl": (lambda: json_lines(objects()), "--id-column id", WORDS),
    "numbers.jsonl": (
        lambda: json_lines([{**o, "other": [1]} for o in objects()]),
        "--id-column number --vector-column vector",
        range(COUNT),
    ),
    "a.csv": (lambda: csv_of(VECTORS.tolist()), "", None),
    "a.tsv": (lambda: csv_of(rows_with_ids(), "\t"), "--id-column 1", WORDS),
    "head.csv": (
        lambda: csv_of([["id", *"abcde"], *rows_with_ids()]),
        "--id-column id",
        WORDS,
    ),
    "lists.csv": (
        lambda: csv_of([["n", "id", "v"], *([1, o["id"], o["vector"]] for o in objects())]),
        "--id-column id",
        WORDS,
    ),
    "printed.csv": (
        lambda: csv_of([["v", "w"], *([str(v), "[]"] for v in VECTORS)]),
        "--vector-column v",
        None,
    ),
    "a.txt": (lambda: text(numbers()), "", None),
    "bom.txt": (lambda: b"\xef\xbb\xbf" + text(numbers()), "", None),
    "a.text": (lambda: text(numbers(";")), "", None),
    "word2vec.txt": (lambda: text([f"{COUNT} {DIM}", *word_lines()]), "", WORDS),
    "fasttext.vec": (lambda: text([f"{COUNT} {DIM}", *(f"{w} " for w in word_lines())]), "", WORDS),
    "glove.txt": (lambda: text(word_lines()), "", WORDS),
    "ids.txt": (lambda: text(word_lines()), "--id-column 1", WORDS),
    "items.txt": (
        lambda: text([f"{COUNT} {DIM}", *(f"{i} {line}" for i, line in enumerate(numbers(), 5))]),
        "",
        range(5, COUNT + 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_format(run: Run, name: str) -> None:
    content, options, ids = GOOD[name]
    Path(name).write_bytes(content())
    check(built(run, f"{name} {options}"), ids)


def test_each_format_is_tested_and_described() -> None:
    endings = {name.rpartition(".")[2] for name in GOOD}
    assert set(FORMATS) <= endings
    guide = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text(
        encoding="utf-8"
    )
    rows = re.findall(r"^\| (`[^|]*`)", guide, re.MULTILINE)
    described = set(re.findall(r"`\.(\w+)`", " ".join(rows)))
    assert described >= set(FORMATS) - {"text"}


def test_a_word_that_is_a_comma_may_come_first(run: Run) -> None:
    order = [8, *range(8), *range(9, COUNT)]
    Path("glove.txt").write_bytes(text([word_lines()[i] for i in order]))
    index = built(run, "glove.txt")
    assert list(index) == [WORDS[i] for i in order]
    np.testing.assert_array_equal(index.get_vectors(WORDS), VECTORS)


def test_words_that_gensim_wrote(run: Run) -> None:
    models = pytest.importorskip("gensim.models")
    without_blanks = [word.replace(" ", "_") for word in WORDS]
    for name, words in {"w.txt": WORDS, "w.vec.gz": WORDS, "w.bin": without_blanks}.items():
        vectors = models.KeyedVectors(DIM)
        vectors.add_vectors(words, VECTORS)
        vectors.save_word2vec_format(name, binary=name == "w.bin")
        check(built(run, name), words)


PACKED = [
    name for name in GOOD if FORMATS.get(Path(name).suffix[1:], FORMATS["text"]).may_be_packed
]


@pytest.mark.parametrize("name", PACKED)
def test_packed_with_gzip(run: Run, name: str) -> None:
    content, options, ids = GOOD[name]
    Path(f"{name}.gz").write_bytes(gzip.compress(content()))
    check(built(run, f"{name}.gz {options}"), ids)


class Fed(io.TextIOWrapper):
    """Standard input that holds some bytes."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BufferedReader(io.BytesIO(content)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", GOOD)
def test_standard_input(run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content, options, ids = GOOD[name]
    monkeypatch.setattr(sys, "stdin", Fed(content()))
    ending = Path(name).suffix[1:]
    told = f"--format {ending}" if ending in FORMATS else ""
    check(built(run, f"- {options} {told}"), ids)


@pytest.mark.parametrize("name", ["a.jsonl", "ids.jsonl", "a.csv", "glove.txt", "word2vec.txt"])
def test_standard_input_of_text_needs_no_format(
    run: Run,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content, options, ids = GOOD[name]
    monkeypatch.setattr(sys, "stdin", Fed(content()))
    check(built(run, f"- {options}"), ids)


def test_a_format_for_a_name_that_says_nothing(run: Run) -> None:
    Path("part-0001").write_bytes(npy())
    check(built(run, "part-0001 --format npy"))


def test_queries_of_every_kind(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("v.npy").write_bytes(npy())
    built(run, "v.npy")
    Path("q.jsonl").write_bytes(json_lines(VECTORS[:3].tolist()))
    Path("two.parquet").write_bytes(parquet(table_of(0, 3).append_column("other", [[[1.0]] * 3])))
    monkeypatch.setattr(sys, "stdin", Fed(json_lines(VECTORS[:3].tolist())))
    for vectors in ("q.jsonl", "-", "two.parquet --vector-column vector"):
        done = run(f"query index.annidx --vectors {vectors} -k 1 --recall 1 --json")
        assert (done.code, done.err) == (0, "")
        answers = [json.loads(line) for line in done.out.splitlines()]
        assert [answer["distances"] for answer in answers] == [[0.0]] * 3
    Path("allow.jsonl").write_text("3\n4\n", encoding="utf-8")
    done = run("query index.annidx --item 3 --allow allow.jsonl --json")
    assert json.loads(done.out)["ids"] == [4]


# ---- several files, and folders ------------------------------------------------------------


def write_parts(folder: str) -> None:
    Path(folder, "day=1").mkdir(parents=True)
    Path(folder, "part-0.parquet").write_bytes(parquet(table_of(15, 20)))
    Path(folder, "day=1", "part-0.parquet").write_bytes(parquet(table_of(0, 15)))
    Path(folder, "part-1.parquet").write_bytes(parquet(table_of(20, 20)))  # as Spark writes it
    Path(folder, "part-2.parquet").write_bytes(parquet(table_of(20, COUNT)))
    Path(folder, "_SUCCESS").touch()
    Path(folder, "_metadata.parquet").write_bytes(b"no data")
    Path(folder, ".part-0.parquet.crc").write_bytes(b"no data")


def test_a_folder_of_parquet(run: Run) -> None:
    write_parts("parts")
    check(built(run, "parts --id-column name"), WORDS)
    check(built(run, "parts"))


def test_several_files(run: Run) -> None:
    np.save("0.npy", VECTORS[:10])
    Path("1.jsonl").write_bytes(json_lines(VECTORS[10:11].tolist()))
    write_parts("parts")
    Path("2.csv").write_bytes(csv_of(VECTORS[11:].tolist()))
    check(built(run, "0.npy 1.jsonl 2.csv"))
    Path("ids.txt").write_bytes(text([f"id{i}" for i in range(COUNT)]))
    check(built(run, "0.npy 1.jsonl 2.csv --ids ids.txt"), [f"id{i}" for i in range(COUNT)])
    Path("parts/part-2.parquet").unlink()
    Path("rest.feather").write_bytes(feather())
    index = built(run, "parts rest.feather")
    assert len(index) == 20 + COUNT


def test_several_files_that_do_not_fit(run: Run) -> None:
    np.save("a.npy", VECTORS)
    np.save("narrow.npy", VECTORS[:, :3])
    np.save("bytes.npy", VECTORS.astype(np.uint8))
    Path("empty").mkdir()
    Path("ids.txt").write_bytes(text([str(i) for i in range(COUNT + 1)]))
    Path("words.txt").write_bytes(text(word_lines()))
    for line, words in {
        "a.npy narrow.npy": "narrow.npy: 3 dimensions, the files before it have 5",
        "a.npy bytes.npy": "bytes.npy: holds uint8, the inputs before it float32: --dtype",
        "a.npy a.npy --ids ids.txt": "ids.txt: 41 ids for 80 vectors",
        "a.npy --ids ids.txt": "ids.txt: 41 ids for 40 vectors",
        "empty": "empty: expected a folder of .parquet files",
        "a.npy missing.npy": "missing.npy: No such file",
        "a.npy words.txt": "words.txt: ",
        "words.txt words.txt": "words.txt: ids[0]: id 'word0' is already in the index",
    }.items():
        failed = run(f"build {line} {BUILD}")
        assert_one_line(failed, 1)
        assert words in failed.err, line
        assert not Path("index.annidx").exists()
    check_kept = built(run, "a.npy bytes.npy --dtype float32")
    assert len(check_kept) == 2 * COUNT


# ---- ids -----------------------------------------------------------------------------------

IDS: dict[str, Callable[[], bytes]] = {
    "i.txt": lambda: text(WORDS),
    "i.txt.gz": lambda: gzip.compress(text(WORDS)),
    "i.csv": lambda: csv_of([[word] for word in WORDS]),
    "i.jsonl": lambda: json_lines(WORDS),
    "i.parquet": lambda: parquet(table_of().select(["name"])),
    "kinds.parquet": lambda: parquet(table_of().select(["kind"])),
}


@pytest.mark.parametrize("name", IDS)
def test_ids_of_a_file(run: Run, name: str) -> None:
    Path("v.npy").write_bytes(npy())
    Path(name).write_bytes(IDS[name]())
    check(built(run, f"v.npy --ids {name}"), WORDS)


def test_ids_that_annidx_printed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("glove.txt").write_bytes(text(word_lines()))
    built(run, "glove.txt")
    printed = run("ids index.annidx --json").out
    Path("ids.jsonl").write_text(printed, encoding="utf-8")
    Path("v.npy").write_bytes(npy())
    check(built(run, "v.npy --ids ids.jsonl"), WORDS)
    monkeypatch.setattr(sys, "stdin", Fed(text(WORDS)))
    check(built(run, "v.npy --ids -"), WORDS)
    Path("numbers.jsonl").write_bytes(json_lines(list(range(9, 9 + COUNT))))
    check(built(run, "v.npy --ids numbers.jsonl"), range(9, 9 + COUNT))


# ---- wrong files ---------------------------------------------------------------------------

J = b'{"id": 1, "v": [1, 2]}\n'
# name of the file, options: what is in it, what the error says
WRONG: dict[tuple[str, str], tuple[bytes | Callable[[], bytes], str]] = {
    ("a.npy", ""): (b"PK", "not a readable .npy file"),
    ("cut.npy", ""): (lambda: npy()[:-3], "not a readable .npy file"),
    ("a.npz", ""): (b"", "not a readable .npz file"),
    ("cut.npz", ""): (lambda: npz()[:-30], "not a readable .npz file"),
    ("a.hdf5", ""): (b"\x89HDF", "not a readable HDF5 file"),
    ("b.hdf5", "--key other"): (hdf5, "holds no table 'other'"),
    ("a.fvecs", ""): (b"\1\0", "too short for a row"),
    ("cut.fvecs", ""): (lambda: vecs("<f4")[:-1], "are no whole number of rows of 5 dimensions"),
    ("odd.bvecs", ""): (
        lambda: struct.pack("<i3Bi3B", 3, 1, 2, 3, 4, 1, 2, 3),
        "different lengths",
    ),
    ("a.fbin", ""): (b"\1\0\0", "too short for the numbers of rows and dimensions"),
    ("cut.fbin", ""): (
        lambda: raw_bin("<f4")[:-1],
        "expected 808 bytes for 40 rows of 5 dimensions",
    ),
    ("long.u8bin", ""): (lambda: raw_bin("u1") + b"x", "expected 208 bytes"),
    ("vast.i8bin", ""): (b"\xff" * 12, "expected 18,446,744,065,119,617,033 bytes"),
    ("none.fbin", ""): (struct.pack("<II", 0, 5), "expected rows of vectors"),
    ("a.bin", ""): (b"\xba\x16O/" * 20, "expected word2vec's binary form"),
    ("cut.bin", ""): (
        lambda: word2vec_bin()[:-1],
        "expected 40 words, as its first line says, found 39",
    ),
    ("long.bin", ""): (lambda: word2vec_bin() + b"x", "as its first line says, found more"),
    ("latin.bin", ""): (b"1 1\n\xe4 \0\0\0\0", "the word of row 0 is not UTF-8"),
    ("vast.bin", ""): (b"99999999999 99999999999\nx ", "found 0 whole ones"),
    ("a.parquet", ""): (b"PAR1PAR1", "not a readable Parquet file"),
    ("b.parquet", "--id-column nothing"): (parquet, "no column 'nothing'"),
    ("c.parquet", "--vector-column name"): (parquet, "holds no column of lists 'name'"),
    ("d.parquet", "--id-column price"): (
        parquet,
        "column 'price' holds double: expected integers or text",
    ),
    ("e.parquet", "--key vector"): (parquet, "a key needs an .npz or .hdf5 file"),
    ("a.feather", ""): (b"ARROW1 but no more", "not a readable Feather file"),
    ("a.jsonl", ""): (b'[1, 2]\n{"v": 1\n', "a.jsonl, line 2: not JSON"),
    ("b.jsonl", ""): (b"[1, 2]\n[1]\n", "b.jsonl, line 2: expected 2 numbers, found 1"),
    ("c.jsonl", ""): (b'[1, "2"]\n', 'c.jsonl, line 1: expected numbers, found "2"'),
    ("d.jsonl", ""): (
        b'{"a": [1], "b": [2]}\n',
        "line 1: holds 2 lists, name one with --vector-column",
    ),
    ("e.jsonl", "--id-column id"): (J + b'{"v": [1, 2]}', "line 2: holds no field 'id'"),
    ("f.jsonl", "--id-column id"): (
        J + b'{"id": "1", "v": [1, 2]}',
        "all integers or all strings, row 1",
    ),
    ("g.jsonl", "--id-column id"): (
        b'{"id": 1.5, "v": [1, 2]}',
        "all integers or all strings, row 0 holds 1.5",
    ),
    ("h.jsonl", "--id-column id"): (b"[1, 2]", "expected an object with fields, found a list"),
    ("i.jsonl", ""): (b"", "expected rows of vectors, an array (n, dim), found none"),
    ("j.jsonl", ""): (b"[1, null]", "expected numbers, found null"),
    ("k.jsonl", ""): (b"[1, 1e999]", "row 0 holds"),
    ("l.jsonl", ""): (b"3", "expected a list of numbers, found 3"),
    ("m.jsonl", ""): (b"\xff\xfe[1]", "expected text, found other bytes"),
    ("n.jsonl", "--id-column id"): (b'{"id": 99999999999999999999, "v": [1]}', "fit int64"),
    ("o.jsonl", ""): (b"[" * 100_000, "not JSON"),
    ("a.csv", ""): (b"1,2\n3,4,5\n", "a.csv, line 2: expected 2 numbers, found 3"),
    ("b.csv", ""): (b'id,v\n1,"[1, 2]"\n2,"[1, x]"\n', "b.csv, line 3: 'x' is not a number"),
    ("c.csv", ""): (
        b'id,v\n1,"[1, 2]"\n2,3\n',
        "c.csv, line 3: expected a list of numbers, found '3'",
    ),
    ("d.csv", ""): (b"", "expected lines of numbers, found none"),
    ("e.csv", ""): (b"\x93NUMPY\x01\x00\xff", "expected text, found other bytes"),
    ("f.csv", ""): (b"1,2\nnan,3\n", "row 1 holds"),
    ("glove.txt", ""): (b"the 1 2 3\nof 4 5\n", "glove.txt, line 2: expected a word and 3 numbers"),
    ("cut.txt", ""): (b"3 2\na 1 2\nb 1 2\n", "expected 3 words, as its first line says, found 2"),
    ("odd.txt", ""): (b"3 2\na 1 2\nb 1 x\nc 1 2\n", "odd.txt, line 3: 'x' is not a number"),
    ("a.txt.gz", ""): (b"no gzip", "not a whole gzip file"),
    ("cut.txt.gz", ""): (lambda: gzip.compress(text(numbers()))[:-9], "not a whole gzip file"),
    ("a.npy.gz", ""): (lambda: gzip.compress(npy()), "unpack it first"),
    ("a.fvecs", "--vector-column a"): (lambda: vecs("<f4"), "a vector column needs text"),
    ("b.fvecs", "--format fbin"): (lambda: vecs("<f4"), "bytes for 5 rows of"),
    ("b.npy", "--format text"): (npy, "expected text, found other bytes"),
}

WRONG_IDS: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "records.jsonl": (J, "line 1: expected an id, a string or an integer, found an object"),
    "lists.jsonl": (b"[1]\n", "expected an id, a string or an integer, found a list"),
    "true.jsonl": (b"true\n", "expected an id, a string or an integer, found true"),
    "mixed.jsonl": (b'1\n"a"\n', "all integers or all strings, row 1"),
    "renamed.txt": (J * COUNT, "line 1: expected an id, found JSON"),
    "vectors.jsonl.gz": (gzip.compress(b"[1, 2]\n"), "found a list"),
    "blank.txt": (b"a\n\nb\n", "blank.txt, line 2: expected an id, found nothing"),
    "bytes.txt": (b"a\0b\n", "expected an id, found other bytes"),
    "latin.txt": (b"\xe4\n", "expected text, found other bytes"),
    "two.csv": (b"a,1\n", "two.csv, line 1: expected one id, found 2 fields"),
    "table.parquet": (parquet, "expected one column, of ids, found 5"),
    "a.npz": (npz, "expected ids, found a format of vectors"),
    "a.fvecs": (lambda: vecs("<f4"), "expected ids, found a format of vectors"),
    "a.npy": (npy, "expected a list of integers or strings"),
    "few.txt": (b"a\nb\n", "few.txt: 2 ids for 40 vectors"),
}


def content_of(made: bytes | Callable[[], bytes]) -> bytes:
    return made if isinstance(made, bytes) else made()


@pytest.mark.parametrize(
    ("file", "wrong"), WRONG.items(), ids=[" ".join(file).strip() for file in WRONG]
)
def test_wrong_files(
    run: Run,
    file: tuple[str, str],
    wrong: tuple[Any, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, options = file
    content, words = content_of(wrong[0]), wrong[1]
    Path(name).write_bytes(content)
    failed = run(f"build {name} {options} {BUILD}")
    assert_one_line(failed, 1)
    assert failed.err.startswith(f"annidx: error: {name}") and words in failed.err
    assert os.listdir() == [name] and Path(name).read_bytes() == content
    ending = Path(name).suffix[1:]
    if ending != "gz":  # the same from standard input, which has no name
        told = (
            "" if "--format" in options else f"--format {ending if ending in FORMATS else 'text'}"
        )
        monkeypatch.setattr(sys, "stdin", Fed(content))
        failed = run(f"build - {options} {told} {BUILD}")
        assert_one_line(failed, 1)
        assert failed.err.startswith("annidx: error: standard input")
        assert words.replace(name, "standard input") in failed.err


@pytest.mark.parametrize("name", WRONG_IDS)
def test_wrong_files_of_ids(run: Run, name: str) -> None:
    Path("v.npy").write_bytes(npy())
    Path(name).write_bytes(content_of(WRONG_IDS[name][0]))
    for option in ("--ids", "--queries v.npy --ids"):
        failed = run(f"build v.npy {option} {name} {BUILD}")
        assert_one_line(failed, 1)
        assert name in failed.err and WRONG_IDS[name][1] in failed.err
    assert sorted(os.listdir()) == sorted(["v.npy", name])
    if name != "few.txt":
        built(run, "v.npy")
        failed = run(f"query index.annidx --item 1 --deny {name}")
        assert_one_line(failed, 1)
        assert WRONG_IDS[name][1] in failed.err


@pytest.mark.parametrize(
    "line",
    [
        f"build - - {BUILD}",
        f"build - --ids - {BUILD}",
        f"build - --queries - {BUILD}",
        f"build a.npy --format pickle {BUILD}",
        f"build {BUILD}",
        "query index.annidx --vectors - --allow -",
        "query index.annidx --item 1 --allow - --deny -",
    ],
)
def test_usage(run: Run, line: str) -> None:
    assert_one_line(run(line), 2)


@pytest.mark.parametrize(
    ("name", "package"),
    [("a.parquet", "pyarrow"), ("a.feather", "pyarrow"), ("a.hdf5", "h5py")],
)
def test_a_package_that_is_missing_is_named(
    run: Run,
    name: str,
    package: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(name).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, package, None)
    failed = run(f"build {name} {BUILD}")
    assert_one_line(failed, 1)
    assert re.search(
        rf"{name}: reading \.\w+ needs the package {package} \(pip install", failed.err
    )
