"""Owns the tests of a living index: its changes, against a dict and brute force."""

from __future__ import annotations

import pickle
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import format_reader
import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from oracle import KINDS, nearest, tolerance

import annidx
from annidx.follow import FollowingIndex

Array = npt.NDArray[Any]
DIM = 4


def number_rows(metric: str, dtype: str, count: int, seed: int, dim: int = DIM) -> Array:
    """Vectors of whole numbers, which every storage type keeps exactly."""
    rng = np.random.default_rng(seed)
    if metric == "hamming":
        return rng.integers(0, 2, (count, dim), dtype=np.uint8)
    if dtype in ("uint8", "int8"):
        return rng.integers(0, 100, (count, dim)).astype(dtype)
    return rng.integers(-40, 40, (count, dim)).astype(np.float32)


class LivingIndex(RuleBasedStateMachine):
    """Changes an index and a dict side by side; saves, loads, merges and compares."""

    @initialize(
        kind=st.sampled_from(KINDS),
        text=st.booleans(),
        count=st.integers(1, 60),
        seed=st.integers(0, 2**20),
    )
    def start(self, kind: tuple[str, str], text: bool, count: int, seed: int) -> None:
        """Build the base."""
        self.metric, self.dtype = kind
        self.text, self.seed = text, seed
        self.folder = Path(tempfile.mkdtemp())
        self.base = self.folder / "base.annidx"
        vectors = number_rows(self.metric, self.dtype, count, seed)
        self.model = {self._id(i): vector for i, vector in enumerate(vectors)}
        self.index = annidx.Index(DIM, self.metric, self.dtype)
        self.index.add_items(vectors, list(self.model))
        self.index.build(n_jobs=1)
        self.index.save(self.base)
        self.next = count
        self.has_changes = False

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def _id(self, number: int) -> Any:
        return f"id {number}" if self.text else number * 7 - 20

    def _rows(self, count: int) -> Array:
        self.seed += 1
        return number_rows(self.metric, self.dtype, count, self.seed)

    def _some(self, share: float) -> list[Any]:
        ids = list(self.model)
        self.seed += 1
        count = max(1, int(len(ids) * share)) if ids else 0
        rng = np.random.default_rng(self.seed)
        return [ids[i] for i in rng.choice(len(ids), count, replace=False)] if count else []

    @rule(count=st.integers(1, 25))
    def add(self, count: int) -> None:
        """Items that are new."""
        ids = [self._id(self.next + i) for i in range(count)]
        self.next += count
        vectors = self._rows(count)
        self.index.add_items(vectors, ids)
        self.model.update(zip(ids, vectors, strict=True))

    @rule(share=st.sampled_from([0.05, 0.3, 1.0]), fresh=st.integers(0, 3))
    def update(self, share: float, fresh: int) -> None:
        """Items that are there, and some that are not."""
        ids = self._some(share) + [self._id(self.next + i) for i in range(fresh)]
        self.next += fresh
        if not ids:
            return
        vectors = self._rows(len(ids))
        self.index.update_items(vectors, ids)
        self.model.update(zip(ids, vectors, strict=True))

    @rule(share=st.sampled_from([0.05, 0.3, 1.0]))
    def remove(self, share: float) -> None:
        """Items that are there."""
        ids = self._some(share)
        self.index.remove_items(ids)
        for one in ids:
            del self.model[one]

    @rule()
    def refuse(self) -> None:
        """What is wrong changes nothing."""
        known = next(iter(self.model), None)
        if known is not None:
            with pytest.raises(ValueError, match="already in the index"):
                self.index.add_items(self._rows(2), [self._id(self.next), known])
        with pytest.raises(KeyError):
            self.index.remove_items([*self._some(0.2), self._id(-1_000)])
        self.index.remove_items([self._id(-1_000)], missing="skip")
        with pytest.raises(ValueError, match=r"ids\[1\] repeats ids\[0\]"):
            self.index.update_items(self._rows(2), [self._id(-5), self._id(-5)])

    @rule()
    def save_changes_and_load(self) -> None:
        """A file of changes beside the base gives the index again."""
        path = self.folder / "changes.annidx"
        self.index.save_changes(path, n_jobs=1)
        format_reader.read(path, strict=True)
        self.index = annidx.load([self.base, path])
        self.index.verify()

    @rule()
    def pickle(self) -> None:
        """A pickle gives the index again."""
        self.index = pickle.loads(pickle.dumps(self.index))

    @rule()
    def save(self) -> None:
        """One whole file again, from which it goes on."""
        if not self.model:
            return
        self.index.save(self.base)
        format_reader.read(self.base, strict=True)
        assert not self.index.changed

    @rule()
    def reload(self) -> None:
        """Saved, closed and opened."""
        if not self.model:
            return
        self.index.save(self.base)
        self.index.close()
        self.index = annidx.load(self.base)

    @rule()
    def merge(self) -> None:
        """The base and its changes as one file."""
        if not self.model:
            return
        path = self.folder / "changes.annidx"
        self.index.save_changes(path, n_jobs=1)
        annidx.merge([self.base, path], out=self.base, n_jobs=1)
        format_reader.read(self.base, strict=True)
        self.index = annidx.load(self.base)

    @invariant()
    def agrees(self) -> None:
        """The index holds what the dict holds, and finds the nearest of it."""
        if not hasattr(self, "model"):
            return
        assert len(self.index) == len(self.model)
        ids = list(self.index.ids)
        assert set(ids) == set(self.model)
        if not ids:
            return
        got = self.index.get_vectors(ids)
        want = np.array([self.model[one] for one in ids])
        np.testing.assert_array_equal(got, want.astype(got.dtype))
        query = self._rows(1)[0]
        found, _ = self.index.query(query, k=5)
        exact, distances = self.index.query_exact(query, k=5)
        assert len(found) == min(5, len(ids)) and len(set(found)) == len(found)
        rows, true = nearest(query, got, self.metric, 5)
        slack = tolerance(self.metric, got, query)
        np.testing.assert_allclose(distances, true, atol=slack, rtol=0)
        if slack < 1e-9:  # ties are ordered by rows, which is how ids stand
            gaps = np.diff(true) != 0
            if gaps.all():
                assert list(exact) == [ids[row] for row in rows]
        assert set(found) <= set(ids) and set(exact) <= set(ids)
        allowed = ids[::2]
        few, _ = self.index.query(query, k=3, allow=allowed)
        assert set(few) <= set(allowed) and len(few) == min(3, len(allowed))
        mask = np.arange(len(ids)) % 2 == 1
        rest, _ = self.index.query_exact(query, k=len(ids), allow=mask)
        assert set(rest) == set(np.array(ids, object)[mask])


TestLivingIndex = LivingIndex.TestCase
TestLivingIndex.settings = settings(max_examples=12, stateful_step_count=8, deadline=None)


@pytest.mark.slow
class TestLivingIndexLong(LivingIndex.TestCase):  # type: ignore[name-defined,misc]
    """Ten thousand sequences."""

    settings = settings(max_examples=10_000, stateful_step_count=8, deadline=None)


# ---- recall ------------------------------------------------------------------------------------


def recall_of(index: annidx.Index, queries: Array, k: int = 10) -> float:
    found, _ = index.query(queries, k=k, n_jobs=2)
    true, _ = index.query_exact(queries, k=k, n_jobs=2)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(found, true, strict=True)]))


@pytest.mark.parametrize("metric", ["euclidean", "angular", "dot"])
def test_targets_hold_after_a_fifth_came_and_a_fifth_went(metric: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(60, 32)) * 2
    vectors = (centres[rng.integers(0, 60, 12_400)] + rng.normal(size=(12_400, 32))).astype("f4")
    queries, vectors = vectors[:400], vectors[400:]
    index = annidx.Index(32, metric)
    index.add_items(vectors[:10_000], np.arange(10_000))
    index.build(recall=0.95)
    index.save(tmp_path / "base.annidx")
    index.add_items(vectors[10_000:], np.arange(10_000, 12_000))
    index.remove_items(rng.permutation(12_000)[:2_000])
    assert recall_of(index, queries) >= 0.94
    assert 0.8 < index.info()["drift"] < 1.3
    index.save(tmp_path / "whole.annidx")
    assert recall_of(annidx.load(tmp_path / "whole.annidx"), queries) >= 0.94


def test_drift_is_measured_and_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    index = annidx.Index(32, "euclidean")
    index.add_items(rng.normal(size=(4_000, 32)), np.arange(4_000))
    index.build()
    index.save(tmp_path / "base.annidx")
    assert index.info()["drift"] == 0
    index.add_items(rng.normal(size=(2_000, 32)) + 6, np.arange(4_000, 6_000))
    assert index.info()["drift"] > 2
    index.save_changes(tmp_path / "changes.annidx")
    with pytest.warns(annidx.DriftWarning, match="times as far from the centroids"):
        annidx.merge(
            [tmp_path / "base.annidx", tmp_path / "changes.annidx"], out=tmp_path / "out.annidx"
        )
    assert len(annidx.load(tmp_path / "out.annidx")) == 6_000


def test_added_items_may_all_fall_into_one_leaf(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(9_000, 32)).astype(np.float32)
    vectors[4_000:] = vectors[5] + 1e-3 * vectors[4_000:]
    index = annidx.Index(32, "euclidean")
    index.add_items(vectors[:4_000], np.arange(4_000))
    index.build()
    index.save(tmp_path / "base.annidx")
    index.add_items(vectors[4_000:], np.arange(4_000, 9_000))
    index.save_changes(tmp_path / "changes")
    annidx.merge([tmp_path / "base.annidx", tmp_path / "changes"], out=tmp_path / "merged")
    for again in (
        annidx.load([tmp_path / "base.annidx", tmp_path / "changes"]),
        annidx.load(tmp_path / "merged"),
    ):
        again.verify()
        assert again.ids.tolist() == list(range(9_000))
        np.testing.assert_array_equal(again.get_vectors(np.arange(9_000)), vectors)
        found, distances = again.query(vectors[8_000], k=5, recall=0.99)
        assert len(found) == 5 and (distances < 1).all()


# ---- what goes along ---------------------------------------------------------------------------


def test_named_sets_go_along(tmp_path: Path) -> None:
    vectors = number_rows("euclidean", "float32", 50, 1)
    index = annidx.Index(DIM, "euclidean")
    index.add_items(vectors, np.arange(50))
    index.build()
    index.save(tmp_path / "base.annidx", sets={"even": np.arange(0, 50, 2)})
    index = annidx.load(tmp_path / "base.annidx")
    index.remove_items([0, 4])
    index.update_items(vectors[:2], [2, 3])
    index.add_items(vectors[:2], [100, 101])
    expected = set(range(0, 50, 2)) - {0, 4}
    assert set(index.sets["even"]) == expected
    found = index.query_exact(vectors[0], k=100, allow="even")[0]
    assert set(found) == expected
    index.save(tmp_path / "whole.annidx")
    assert set(annidx.load(tmp_path / "whole.annidx").sets["even"]) == expected
    index.save_changes(tmp_path / "none.changes")
    assert not index.changed


def test_a_numbered_index_numbers_on() -> None:
    index = annidx.Index(DIM, "euclidean")
    index.add_items(number_rows("euclidean", "float32", 10, 1))
    index.build()
    index.add_items(number_rows("euclidean", "float32", 3, 2))
    index.remove_items([12, 0])
    index.add_items(number_rows("euclidean", "float32", 1, 3))
    assert index.ids.tolist() == [*range(1, 12), 13]


def test_changes_belong_to_their_base(tmp_path: Path) -> None:
    index = annidx.Index(DIM, "euclidean")
    index.add_items(number_rows("euclidean", "float32", 30, 1), np.arange(30))
    index.build()
    index.save(tmp_path / "base.annidx")
    index.remove_items(3)
    index.save_changes(tmp_path / "a.changes")
    with pytest.raises(ValueError, match="another file than"):
        index.save_changes(tmp_path / "base.annidx")
    with pytest.raises(ValueError, match="load it behind the index"):
        annidx.load([tmp_path / "a.changes", tmp_path / "base.annidx"])
    other = annidx.Index(DIM, "euclidean")
    other.add_items(number_rows("euclidean", "float32", 30, 2), np.arange(30))
    other.build()
    other.save(tmp_path / "other.annidx")
    with pytest.raises(ValueError, match="changes of another index"):
        annidx.load([tmp_path / "other.annidx", tmp_path / "a.changes"])
    index.add_items(number_rows("euclidean", "float32", 1, 7), [99])
    index.save_changes(tmp_path / "b.changes")
    both = annidx.load([tmp_path / "base.annidx", tmp_path / "a.changes", tmp_path / "b.changes"])
    assert set(both.ids) == (set(range(30)) - {3}) | {99}
    (tmp_path / "mine").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        index.save_changes(tmp_path / "mine")


def test_int8_refuses_what_it_cannot_tell() -> None:
    vectors = np.random.default_rng(1).normal(size=(50, DIM)).astype(np.float32)
    index = annidx.Index(DIM, "euclidean", "int8")
    index.add_items(vectors, np.arange(50))
    index.build()
    with pytest.raises(ValueError, match="row 1 holds a value of 1000"):
        index.add_items(np.array([vectors[0], vectors[1] * 0 + 1_000]), [50, 51])
    assert len(index) == 50


# ---- followed ----------------------------------------------------------------------------------


def saved_base(folder: Path, count: int = 30, seed: int = 1) -> Path:
    index = annidx.Index(DIM, "euclidean")
    index.add_items(number_rows("euclidean", "float32", count, seed), np.arange(count))
    index.build()
    index.save(folder / "base.annidx")
    return folder / "base.annidx"


def test_changes_come_are_replaced_and_go_into_the_base(tmp_path: Path) -> None:
    base, changes = saved_base(tmp_path), tmp_path / "today.changes"
    with annidx.load([base, changes], follow=True, interval=0.0) as live:
        assert set(live.ids) == set(range(30)) and live.status()["changes"] == []
        kept = live.idset([3, 99])
        writer = annidx.load(base)
        writer.remove_items(3)
        writer.save_changes(changes)
        assert 3 not in live and len(live) == 29
        assert live.status()["changes"] == [str(changes)]
        writer.add_items(number_rows("euclidean", "float32", 1, 7), [99])
        writer.save_changes(changes)
        assert live.query(np.zeros(DIM), k=5, allow=kept)[0].tolist() == [99]
        again = pickle.loads(pickle.dumps(live))
        assert set(again.ids) == (set(range(30)) - {3}) | {99}
        again.close()
        # The nightly merge: the old changes belong to the old base, which stays until they go.
        annidx.merge([base, changes], out=base)
        with pytest.warns(RuntimeWarning, match="changes of another index"):
            assert set(live.ids) == (set(range(30)) - {3}) | {99}
        status = live.status()
        assert "today.changes' holds changes of another" in str(status["last_error"])
        assert status["changes"] == [str(changes)] and status["generation"] == 3
        changes.unlink()
        assert set(live.ids) == (set(range(30)) - {3}) | {99}
        status = live.status()
        assert (status["changes"], status["last_error"], status["generation"]) == ([], None, 4)
        assert status["identity"] == annidx.load(base).info()["identity"]
        # The next day's changes.
        writer = annidx.load(base)
        writer.remove_items([0, 1])
        writer.save_changes(changes)
        assert len(live) == 28 and live.status()["generation"] == 5
        changes.unlink()
        assert len(live) == 30


def test_changes_of_a_base_that_is_yet_to_come_wait_for_it(tmp_path: Path) -> None:
    base, changes = saved_base(tmp_path), tmp_path / "today.changes"
    next_day = tmp_path / "next"
    next_day.mkdir()
    after = annidx.load(saved_base(next_day, count=40, seed=2))
    after.remove_items([0])
    with annidx.load([base, changes], follow=True, interval=0.0) as live:
        after.save_changes(changes)
        with pytest.warns(RuntimeWarning, match="the old one stays"):
            assert len(live) == 30
        (next_day / "base.annidx").replace(base)
        assert len(live) == 39 and live.status()["last_error"] is None


def test_many_files_of_changes_are_followed(tmp_path: Path) -> None:
    base = saved_base(tmp_path)
    hours = [tmp_path / f"{hour}.changes" for hour in range(3)]
    with FollowingIndex(base, changes=hours, interval=0.0) as live:
        writer = annidx.load(base)
        for count, hour in enumerate(hours, 1):
            writer.remove_items(count)
            writer.save_changes(hour)
            assert len(live) == 30 - count
        hours[0].unlink()  # what it held, the later ones hold too
        assert len(live) == 27


def test_changes_written_in_place_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, changes = saved_base(tmp_path), tmp_path / "today.changes"
    writer = annidx.load(base)
    writer.remove_items(3)
    writer.save_changes(changes)
    with FollowingIndex(base, changes=[changes], interval=0.0) as live:
        assert len(live) == 29
        writer.remove_items(4)
        writer.save_changes(tmp_path / "more")
        caplog.clear()
        (tmp_path / "more").replace(changes)
        assert len(live) == 28 and "in place" not in caplog.text
        writer.remove_items(5)
        writer.save_changes(tmp_path / "more")
        changes.write_bytes((tmp_path / "more").read_bytes())
        assert len(live) == 27 and "changed in place" in caplog.text


# ---- many at once ------------------------------------------------------------------------------


def test_readers_see_all_of_a_change_or_none() -> None:
    vectors = number_rows("euclidean", "float32", 3_000, 1, 24)
    names = [f"n{i}" for i in range(3_000)]
    index = annidx.Index(24, "euclidean")
    index.add_items(vectors[:2_500], names[:2_500])
    index.build()
    pair = np.array([vectors[2_998], vectors[2_998]])  # two items that come and go together
    stop, errors = threading.Event(), []

    def read() -> None:
        try:
            while not stop.is_set():
                found, _ = index.query(vectors[2_998], k=2)
                assert ("a" in found) == ("b" in found), found
                found, _ = index.query_items("n7", k=1, include_self=True)
                assert found.tolist() == ["n7"]
                got = index.get_vectors(["n11", "n12"])
                np.testing.assert_array_equal(got, vectors[11:13])
                few, _ = index.query(vectors[0], k=5, allow=["n20", "n21", "n22"])
                assert set(few) == {"n20", "n21", "n22"}
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for step in range(60):
        index.add_items(pair, ["a", "b"])
        index.update_items(vectors[step : step + 1], [f"n{100 + step}"])
        index.remove_items(["a", "b"])
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
