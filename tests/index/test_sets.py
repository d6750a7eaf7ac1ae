"""Owns the tests of sets of items: algebra, going through them, pickling, and sets under names.

Each is held against a Python set of ids.
"""

from __future__ import annotations

import operator
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import annidx

ITEMS, DIM = 700, 5
RNG = np.random.default_rng(8)
VECTORS = RNG.normal(size=(ITEMS, DIM)).astype(np.float32)
QUERY = VECTORS[3]
KINDS: dict[str, list[Any] | None] = {
    "rows": None,
    "int": [int(i) for i in RNG.permutation(10_000)[:ITEMS]],
    "text": [f"id {i}" for i in RNG.permutation(ITEMS)],
}
MASKS = {
    "few": np.isin(np.arange(ITEMS), [0, 5, 63, 64, 699]),
    "most": np.arange(ITEMS) % 3 > 0,
    "none": np.zeros(ITEMS, bool),
    "all": np.ones(ITEMS, bool),
    "größe": np.arange(ITEMS) < 100,
}


def build(kind: str) -> annidx.Index:
    index = annidx.Index(DIM, "euclidean")
    index.add_items(VECTORS, ids=KINDS[kind])
    index.build(n_jobs=1)
    return index


@pytest.fixture(scope="module", params=list(KINDS))
def index(request: pytest.FixtureRequest) -> annidx.Index:
    """An index of each kind of ids."""
    return build(request.param)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file with named sets for each kind of ids."""
    folder = tmp_path_factory.mktemp("saved")
    paths = {}
    for kind in KINDS:
        paths[kind] = folder / f"{kind}.annidx"
        build(kind).save(paths[kind], metadata={"kind": kind}, sets=MASKS)
    return paths


def ids_where(index: annidx.Index, mask: np.ndarray) -> list[Any]:
    """Ids of the rows of a mask, in row order."""
    return [item for item, is_in in zip(index, mask, strict=True) if is_in]


def test_going_through_a_set_gives_ids_in_row_order(index: annidx.Index) -> None:
    for mask in MASKS.values():
        wanted = ids_where(index, mask)
        chosen = annidx.IdSet(index, mask)
        assert list(chosen) == wanted and len(chosen) == len(wanted)
        assert list(annidx.IdSet(index, wanted[::-1])) == wanted
        assert all(item in chosen for item in wanted)


@pytest.mark.parametrize("combine", [operator.and_, operator.or_, operator.sub])
def test_algebra_is_that_of_sets(index: annidx.Index, combine: Callable[[Any, Any], Any]) -> None:
    everything = set(index)
    for one in MASKS.values():
        first, known = annidx.IdSet(index, one), set(ids_where(index, one))
        assert set(~first) == everything - known
        for other in MASKS.values():
            second, also_known = annidx.IdSet(index, other), set(ids_where(index, other))
            assert set(combine(first, second)) == combine(known, also_known)


def test_a_set_pickles_with_its_index(index: annidx.Index, saved: dict[str, Path]) -> None:
    for owner in (index, annidx.load(saved["text"])):
        chosen = annidx.IdSet(owner, MASKS["most"])
        again = pickle.loads(pickle.dumps(chosen))
        assert type(again) is annidx.IdSet and list(again) == list(chosen)
        found, expected = (owner.query(QUERY, k=5, allow=one)[0] for one in (again, chosen))
        assert found.tolist() == expected.tolist()


def test_a_set_goes_to_another_process(saved: dict[str, Path]) -> None:
    with annidx.load(saved["int"]) as index:
        chosen = annidx.IdSet(index, MASKS["few"])
        code = "import pickle, sys; print(list(pickle.load(sys.stdin.buffer)))"
        done = subprocess.run(
            [sys.executable, "-c", code], input=pickle.dumps(chosen), capture_output=True
        )
        assert done.stdout.decode().strip() == str(list(chosen)), done.stderr.decode()


# ---- sets in the file ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_named_sets_are_what_was_saved(saved: dict[str, Path], kind: str) -> None:
    annidx.verify(saved[kind])
    with annidx.load(saved[kind]) as index:
        assert list(index.sets) == sorted(MASKS) and len(index.sets) == len(MASKS)
        assert index.info()["sets"] == {name: int(MASKS[name].sum()) for name in sorted(MASKS)}
        for name, mask in MASKS.items():
            wanted = ids_where(index, mask)
            assert list(index.sets[name]) == wanted
            for limit in ("allow", "deny"):
                found = index.query(QUERY, k=ITEMS, **{limit: name})
                same = index.query(QUERY, k=ITEMS, **{limit: wanted})
                np.testing.assert_array_equal(found[0], same[0])
                np.testing.assert_array_equal(found[1], same[1])
        assert "few" in repr(index.sets) and "other" not in index.sets
        assert index.metadata == {"kind": kind}


def test_names_and_algebra_in_one_query(saved: dict[str, Path]) -> None:
    with annidx.load(saved["int"]) as index:
        wanted = set(ids_where(index, MASKS["most"])) - (
            set(ids_where(index, MASKS["größe"])) - set(ids_where(index, MASKS["few"]))
        )
        deny = index.sets["größe"] & ~index.sets["few"]
        assert set(index.query(QUERY, k=ITEMS, allow="most", deny=deny)[0].tolist()) == wanted
        batch = VECTORS[:3]
        each = [index.sets["few"], None, index.sets["none"]]
        ids, _ = index.query(batch, k=ITEMS, allow=each, deny="größe")
        assert (ids[0] >= 0).sum() == (MASKS["few"] & ~MASKS["größe"]).sum()
        assert (ids[1] >= 0).sum() == ITEMS - 100 and (ids[2] < 0).all()
        ids, _ = index.query_items(int(index.ids[0]), k=3, allow="few")
        assert set(ids.tolist()) <= set(index.sets["few"])
        assert list(annidx.IdSet(index, "few")) == list(index.sets["few"])


def test_sets_do_not_touch_answers_or_identity(saved: dict[str, Path], tmp_path: Path) -> None:
    plain = tmp_path / "plain.annidx"
    with annidx.load(saved["rows"]) as index:
        chosen = index.sets["few"]
        index.save(plain, metadata={}, sets={})
        with annidx.load(plain) as other:
            assert other.info()["identity"] == index.info()["identity"]
            assert dict(other.sets) == {}
            assert len(other.query(QUERY, k=ITEMS, allow=chosen)[0]) == len(chosen)
        assert plain.stat().st_size < saved["rows"].stat().st_size


def test_sets_stay_when_an_index_is_saved_again(saved: dict[str, Path], tmp_path: Path) -> None:
    again, tuned, other = tmp_path / "again", tmp_path / "tuned", tmp_path / "other"
    with annidx.load(saved["text"]) as index:
        index.save(again)
        assert again.read_bytes() == saved["text"].read_bytes()
        index.tune(VECTORS[:50], k=3, n_jobs=1)
        index.save(tuned, metadata={"a": "longer than before, so that all behind it moves"})
        index.save(other, sets={"only": MASKS["few"]})
        assert list(index.sets) == ["only"], "an object has the sets that it was saved with"
        assert len(index.query(QUERY, k=ITEMS, allow="only")[0]) == 5
    for path, names in ((tuned, sorted(MASKS)), (other, ["only"])):
        annidx.verify(path)
        with annidx.load(path) as index:
            assert list(index.sets) == names
            assert all(len(index.sets[name]) == index.info()["sets"][name] for name in names)


def test_sets_in_memory_pickle_with_their_index(tmp_path: Path) -> None:
    index = build("text")
    index.save(tmp_path / "gone", sets={"few": MASKS["few"]})
    image = index.to_bytes()
    copy = annidx.load(image)
    assert list(copy.sets["few"]) == list(index.sets["few"])
    assert image == (tmp_path / "gone").read_bytes()


def test_every_way_to_give_a_set(tmp_path: Path) -> None:
    index = build("int")
    ids = ids_where(index, MASKS["few"])
    ways: list[Any] = [MASKS["few"], ids, np.array(ids), set(ids), annidx.IdSet(index, ids)]
    index.save(tmp_path / "x", sets={str(number): way for number, way in enumerate(ways)})
    assert all(list(chosen) == ids for chosen in index.sets.values())
    index.save(tmp_path / "x", sets={"copy": "0", "less": index.sets["1"] - index.sets["2"]})
    assert {name: len(chosen) for name, chosen in index.sets.items()} == {"copy": 5, "less": 0}
    many = {f"set {number:04}": np.arange(ITEMS) == number % ITEMS for number in range(4096)}
    index.save(tmp_path / "x", sets=many)
    annidx.verify(tmp_path / "x")
    assert len(index.sets) == 4096


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({"": [1]}, "1 to 255 bytes"),
        ({"n" * 256: [1]}, "256 bytes"),
        ({"\ud800": [1]}, "names that are text"),
        ({3: [1]}, "names that are text"),
        ({"a": MASKS["few"][:-1]}, r"sets\['a'\].*mask of shape"),
        ({"a": "unknown"}, r"sets\['a'\].*the name of a set.*'unknown'"),
        ({"a": 5}, r"sets\['a'\]"),
        ([("a", [1])], "a dict of names"),
        ({str(i): [] for i in range(4097)}, "at most 4096"),
    ],
)
def test_sets_that_are_none(sets: Any, words: str, tmp_path: Path) -> None:
    index = build("int")
    with pytest.raises(ValueError, match=words):
        index.save(tmp_path / "x", sets=sets)
    assert os.listdir(tmp_path) == [] and len(index.sets) == 0


def test_names_that_are_not_there(saved: dict[str, Path]) -> None:
    with annidx.load(saved["rows"]) as index:
        with pytest.raises(KeyError, match="other"):
            index.sets["other"]
        with pytest.raises(ValueError, match=r"allow.*'all', 'few'.*got 'other'"):
            index.query(QUERY, allow="other")
        with pytest.raises(ValueError, match="deny.*got '\\\\ud800'"):
            index.query(QUERY, deny="\ud800")
    with pytest.raises(annidx.StateError, match="closed"):
        list(index.sets)
    with pytest.raises(annidx.StateError, match="not built"):
        list(annidx.Index(DIM, "euclidean").sets)


def test_a_set_of_another_index_is_not_saved(tmp_path: Path) -> None:
    small = annidx.Index(DIM, "euclidean")
    small.add_items(VECTORS[:10])
    small.build()
    with pytest.raises(ValueError, match="another index"):
        build("int").save(tmp_path / "x", sets={"a": annidx.IdSet(small, [1])})
