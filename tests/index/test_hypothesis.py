"""Owns the model test: an index behaves as a dict of vectors that is searched by brute force.

Hypothesis makes up sequences of calls, good and bad, and compares after each.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, note
from hypothesis.extra import numpy as hnp
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from oracle import KINDS, check_answer

import annidx

Array = npt.NDArray[Any]

DIM = 3
# Few distinct ids and values, so that repeated ids, ties and duplicates come up.
INT_IDS = st.integers(-3, 12) | st.sampled_from([2**63 - 1, -(2**63)])
TEXT_IDS = st.text("aé🎵\0", max_size=3)


def values_of(dtype: str) -> st.SearchStrategy[float]:
    """Values that every storage type of the name keeps exactly."""
    if dtype == "bits":
        return st.integers(0, 1)
    if dtype == "uint8":
        return st.integers(0, 255)
    if dtype == "int8":
        return st.integers(-128, 127)
    return st.integers(-8, 8).map(lambda n: n / 4)


class IndexMachine(RuleBasedStateMachine):
    """Fills an index and a model side by side, builds, and then asks both."""

    @initialize(
        kind=st.sampled_from(KINDS),
        ids=st.sampled_from(["none", "int", "text"]),
        data=st.data(),
    )
    def make(self, kind: tuple[str, str], ids: str, data: st.DataObject) -> None:
        """Choose what the index is for."""
        self.metric, self.dtype = kind
        self.ids_kind = ids
        self.folder = Path(tempfile.mkdtemp())
        self.index = annidx.Index(DIM, self.metric, self.dtype)
        self.vectors: list[list[float]] = []
        self.ids: list[Any] = []
        self.is_built = False

    def draw_vectors(self, data: st.DataObject, least: int, most: int) -> list[list[float]]:
        row = st.lists(values_of(self.dtype), min_size=DIM, max_size=DIM)
        return data.draw(st.lists(row, min_size=least, max_size=most))

    def as_given(self, vectors: list[list[float]]) -> Array:
        array = np.array(vectors, dtype=np.float64).reshape(-1, DIM)
        return array.astype(np.int64) if self.dtype in ("int8", "uint8") else array

    def draw_ids(self, data: st.DataObject, least: int, most: int) -> list[Any]:
        strategy: Any = TEXT_IDS if self.ids_kind == "text" else INT_IDS
        return data.draw(st.lists(strategy, min_size=least, max_size=most))

    @precondition(lambda self: not self.is_built)
    @rule(data=st.data())
    def add(self, data: st.DataObject) -> None:
        """Add some items; ids may be taken, and then nothing is added."""
        vectors = self.draw_vectors(data, 0, 6)
        array = self.as_given(vectors)
        if self.ids_kind == "none":
            self.index.add_items(array)
            new = list(range(len(self.ids), len(self.ids) + len(vectors)))
        else:
            new = self.draw_ids(data, len(vectors), len(vectors))
            if len({*self.ids, *new}) < len(self.ids) + len(new):
                with pytest.raises(ValueError):
                    self.index.add_items(array, new)
                return
            self.index.add_items(array, new)
        self.vectors += vectors
        self.ids += new

    @precondition(lambda self: not self.is_built)
    @rule(n_trees=st.sampled_from([None, 1, 2]), n_jobs=st.sampled_from([1, 2]))
    def build(self, n_trees: int | None, n_jobs: int) -> None:
        """Build, which an empty index refuses."""
        if not self.ids:
            with pytest.raises(ValueError):
                self.index.build(n_trees=n_trees, n_jobs=n_jobs)
            return
        self.index.build(n_trees=n_trees, n_jobs=n_jobs)
        self.is_built = True
        self.base = np.array(self.vectors, dtype=np.float64)
        self.index.verify()

    @precondition(lambda self: self.is_built)
    @rule(metadata=st.none() | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2))
    def save_and_load(self, metadata: dict[str, int] | None) -> None:
        """Go on with the index as a file has it."""
        path = self.folder / "index.annidx"
        expected = self.index.metadata if metadata is None else metadata
        self.index.save(path, metadata)
        self.index.close()
        annidx.verify(path)
        self.index = annidx.load(path)
        assert self.index.metadata == expected

    @precondition(lambda self: self.is_built)
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        """Ask one query or several, with all options."""
        queries = self.as_given(self.draw_vectors(data, 1, 3))
        single = data.draw(st.booleans())
        k = data.draw(st.integers(1, 20))
        options: dict[str, Any] = {}
        eligible = np.ones(len(self.ids), dtype=bool)
        for option in ("allow", "deny"):
            if not data.draw(st.booleans()):
                continue
            chosen = data.draw(st.lists(st.sampled_from(self.ids), max_size=6))
            strangers = self.draw_ids(data, 0, 2)
            listed = np.array([item in [*chosen, *strangers] for item in self.ids])
            eligible &= listed if option == "allow" else ~listed
            form = data.draw(st.sampled_from(["ids", "set", "mask", "IdSet"]))
            items = [*chosen, *strangers]
            options[option] = {
                "ids": items,
                "set": set(items),
                "mask": listed,
                "IdSet": annidx.IdSet(self.index, items),
            }[form]
        if data.draw(st.booleans()):
            options["radius"] = data.draw(st.floats(-5, 50) | st.integers(-3, 3))
        note(f"{options} {eligible}")
        for exact in (True, False):
            asked = self.index.query_exact if exact else self.index.query
            if not exact:
                options["recall"] = 1.0
            given_queries = queries[0] if single else queries
            ids, distances = asked(given_queries, k, **options)
            for query, row, near in zip(
                queries,
                [ids] if single else ids,
                [distances] if single else distances,
                strict=False,
            ):
                self.check(query, row, near, k, eligible, options.get("radius"))

    def check(
        self, query: Array, ids: Array, found: Array, k: int, eligible: Array, radius: Any
    ) -> None:
        """Compare one answer with brute force over the model."""
        present = ~np.isnan(found)
        assert (np.diff(present.astype(int)) <= 0).all()
        missing: Any = None if self.ids_kind == "text" else -1
        assert ids[~present].tolist() == [missing] * int((~present).sum())
        rows = np.array([self.ids.index(item) for item in ids[present].tolist()], dtype=np.int64)
        if radius is not None and self.metric in ("angular", "cosine"):
            # Rounding decides about items that lie on the rim: compare the others only.
            assert (found[present] <= radius).all() and eligible[rows].all()
            return
        check_answer(
            rows,
            found[present],
            query,
            self.base,
            self.metric,
            k,
            eligible,
            radius,
            exact_order=self.metric in ("manhattan", "dot", "hamming"),
        )

    @precondition(lambda self: self.is_built)
    @rule(data=st.data(), include_self=st.booleans(), k=st.integers(1, 20))
    def ask_for_items(self, data: st.DataObject, include_self: bool, k: int) -> None:
        """Ask for the neighbours of items."""
        asked = data.draw(st.lists(st.sampled_from(self.ids), min_size=1, max_size=3))
        ids, found = self.index.query_items(asked, k, include_self, recall=1.0)
        for item, row, near in zip(asked, ids, found, strict=True):
            place = self.ids.index(item)
            others = np.arange(len(self.ids)) != place
            if not include_self:
                self.check(self.base[place], row, near, k, others, None)
                continue
            assert row[0] == item  # whatever its duplicates; then the others
            self.check(self.base[place], row[1:], near[1:], k - 1, others, None)

    @precondition(lambda self: self.is_built)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        """Get vectors back, of items that are there and of some that are not."""
        asked = data.draw(st.lists(st.sampled_from(self.ids), max_size=5))
        strangers = [item for item in self.draw_ids(data, 0, 2) if item not in self.ids]
        rows = [self.ids.index(item) for item in asked]
        np.testing.assert_array_equal(self.index.get_vectors(asked), self.base[rows])
        for item in strangers:
            with pytest.raises(KeyError):
                self.index.get_vectors([*asked, item])

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        """Length and membership agree at all times."""
        if not hasattr(self, "index"):
            return
        assert len(self.index) == len(self.ids)
        assert self.index.built == self.is_built
        assert all(item in self.index for item in self.ids)
        for item in ("a", "é", 0, 5, 12, -1):
            assert (item in self.index) == (item in self.ids)


TestIndexMachine = IndexMachine.TestCase


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    base=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=FLOATS
    ),
    data=st.data(),
    metric=st.sampled_from(["angular", "cosine", "euclidean", "manhattan", "dot"]),
)
def test_any_float32_vectors(base: Array, data: st.DataObject, metric: str) -> None:
    """Nothing that is finite breaks an index, and every item is found, once, in order."""
    query = data.draw(hnp.arrays(np.float32, base.shape[1], elements=FLOATS))
    index = annidx.Index(base.shape[1], metric)
    index.add_items(base)
    index.build(n_jobs=1)
    index.verify()
    np.testing.assert_array_equal(index.get_vectors(range(len(base))), base)
    for ask in (index.query, index.query_exact):
        ids, found = ask(query, k=len(base) + 3)
        assert sorted(ids.tolist()) == list(range(len(base)))
        assert (np.diff(-found if metric == "dot" else found) >= 0).all()
    assert not np.isnan(found).any()


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_break_loading(content: bytes, with_magic: bool) -> None:
    """Bytes that are no index are refused as such."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes((b"\x89ANNIDX\n" if with_magic else b"") + content)
        with pytest.raises(annidx.FormatError):
            annidx.load(path)
