"""Owns the test that golden files stay readable: tests/golden/v2, one for each metric and storage.

What a file must hold and answer stands in the JSON beside it and was computed without annidx; see
make_golden.py, which remakes all of them with one command. format_reader.py, the independent
reader, must find the same in each file as annidx does. Until release 1.0 the files must also be
what annidx writes today, byte for byte but for its own version.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import format_reader
import make_golden
import numpy as np
import numpy.typing as npt
import oracle
import pytest
from make_golden import CASES, FOLDER, Case

import annidx

Array = npt.NDArray[Any]
EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def path_of(case: Case) -> Path:
    """Return the place of a golden file."""
    return FOLDER / f"{case.name}.annidx"


def expected_of(case: Case) -> dict[str, Any]:
    """Read what the file must hold and answer."""
    text = path_of(case).with_suffix(".json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def test_every_metric_and_storage_has_a_file() -> None:
    made = {(case.metric, case.dtype) for case in CASES}
    assert made == set(oracle.KINDS)
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {f"{case.name}.{end}" for case in CASES for end in ("annidx", "json")}


def test_the_cases_cover_the_format() -> None:
    facts = [expected_of(case) for case in CASES]
    assert {fact["scan"] for fact in facts} == set(format_reader.SCANS.values())
    assert {case.ids for case in CASES} == {"rows", "int64", "text"}
    assert any(fact["trees"] > 1 for fact in facts)
    assert any(fact["given_bytes"] for fact in facts)
    assert any(fact["value_scale"] != 1 for fact in facts)
    assert any(fact["metadata"] for fact in facts)
    assert any("sets" in fact for fact in facts)


@EACH
def test_opens_verifies_and_tells(case: Case) -> None:
    expected = expected_of(case)
    annidx.verify(path_of(case))
    with annidx.load(path_of(case)) as index:
        facts = index.info()
        assert (facts["metric"], facts["dtype"]) == (expected["metric"], expected["dtype"])
        assert (facts["dim"], facts["items"]) == (expected["dim"], expected["items"])
        assert (facts["scan"], facts["n_trees"]) == (expected["scan"], expected["trees"])
        assert (facts["identity"], facts["seed"]) == (expected["identity"], expected["seed"])
        assert facts["value_scale"] == expected["value_scale"]
        assert index.metadata == expected["metadata"]
        assert facts["sets"] == expected.get("sets", {})
        assert facts["format_version"] == 2


@EACH
def test_answers_as_recorded(case: Case) -> None:
    with annidx.load(path_of(case)) as index:
        for answer in expected_of(case)["answers"]:
            query = np.array(answer["query"])
            check_recorded(answer, *index.query_exact(query, k=make_golden.NEIGHBOURS), index)
            found = index.query(query, k=make_golden.NEIGHBOURS, recall=1.0)
            check_recorded(answer, *found, index)


def check_recorded(answer: dict[str, Any], ids: Array, found: Array, index: annidx.Index) -> None:
    """Compare an answer: distances, and ids in order but among those that rounding makes ties."""
    wanted = np.array(answer["distances"])
    assert len(found) == len(wanted)
    slack = tolerance(index, np.array(answer["query"]), wanted)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=slack)
    ends = np.flatnonzero(np.abs(np.diff(wanted)) > 2 * slack) + 1
    for got, want in zip(np.split(ids, ends), np.split(answer["ids"], ends), strict=True):
        if slack == 0:
            assert got.tolist() == want.tolist()
        elif want[-1] != answer["ids"][-1]:  # others may share the last place
            assert set(got.tolist()) == set(want.tolist())


def tolerance(index: annidx.Index, query: Array, wanted: Array) -> float:
    """How far rounding may move a distance; 0 where values are exact, see make_golden.py."""
    if index.info()["value_scale"] != 1:
        size = float(np.abs(query).sum()) + float(np.abs(wanted).max())
        return 1e-6 * size * (float(np.abs(query).max()) if index.metric == "dot" else 1.0)
    return {"angular": 1e-7, "cosine": 1e-13}.get(index.metric, 0.0)


@EACH
def test_the_independent_reader_agrees(case: Case) -> None:
    found = format_reader.read(path_of(case), strict=True)
    expected = expected_of(case)
    assert found.ids[:8] == expected["first_ids"]
    assert [len(leaves) for leaves in found.leaves] == expected["leaves"]
    for leaves in found.leaves:
        assert sorted(np.concatenate(leaves).tolist()) == list(range(case.items))
    with annidx.load(path_of(case)) as index:
        assert index.info()["leaves"] == sum(expected["leaves"])
        assert all(item in index for item in found.ids)
        np.testing.assert_array_equal(index.get_vectors(found.ids), found.rows)
        assert index.info()["curve"] == found.curve
        assert list(index.sets) == list(found.sets)
        for name, rows in found.sets.items():
            assert list(index.sets[name]) == [found.ids[row] for row in rows]
        assert found.identity == index.info()["identity"]
        sections = [(s["name"], s["offset"], s["bytes"]) for s in index.info()["sections"]]
    assert sections == [(e.name, e.offset, e.size) for e in found.entries.values()]


@EACH
def test_holds_what_was_given(case: Case) -> None:
    found = format_reader.read(path_of(case))
    given = case.inputs[0].astype(np.float32)
    masks = case.set_masks or {}
    assert found.sets.keys() == masks.keys()
    for name, rows in found.sets.items():
        np.testing.assert_array_equal(rows, np.flatnonzero(masks[name]))
    if case.id_list is not None:
        assert found.ids == case.id_list
    if found.params["value_scale"] == 1:
        np.testing.assert_array_equal(found.rows, given)
    else:
        np.testing.assert_allclose(found.rows, given, atol=0.501 * found.params["value_scale"])


@EACH
def test_the_same_input_gives_the_same_bytes(case: Case, tmp_path: Path) -> None:
    made = make_golden.write(case, tmp_path)
    assert without_version(made) == without_version(path_of(case)), (
        "build results or the format changed: see make_golden.py"
    )


def without_version(path: Path) -> bytes:
    """Return a file with library_version, and the checksum over it, as zeros."""
    data = bytearray(path.read_bytes())
    version = data[16:32].rstrip(b"\0")
    assert version.isascii()
    data[16:32] = bytes(16)
    data[124:128] = bytes(4)
    return bytes(data)


def test_the_header_names_the_library(tmp_path: Path) -> None:
    made = make_golden.write(CASES[0], tmp_path)
    (version,) = struct.unpack_from("16s", made.read_bytes(), 16)
    assert version.rstrip(b"\0").decode() == annidx.__version__
