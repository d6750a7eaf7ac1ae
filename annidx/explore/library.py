"""Owns the file that is looked at: its generations, and each question the page can ask.

Answers are plain dicts of what JSON can say. Ids cross as text: JavaScript's numbers do not hold
all of int64. It must not know HTTP.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

import annidx
from annidx.explore.catalogue import Catalogue
from annidx.explore.measure import Stopwatch
from annidx.explore.projection import METHODS, Projection, sample_rows
from annidx.explore.radio import playlist
from annidx.follow import FollowingIndex

__all__ = ["Library", "ReplacedError"]

# Characters of a label on the map; whole ids come when an item is opened.
_LABEL_CHARACTERS = 60
_MEASURED_K = 10
_MEASURED_QUERIES = 200
_SEED = 7
_CHUNK_ROWS = 10_000

_T = TypeVar("_T")


class ReplacedError(RuntimeError):
    """A row was named in a generation that another file has taken the place of."""


class _Once(Generic[_T]):
    """A value that is made at the first call, by one thread, and then kept."""

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._values: list[_T] = []

    def __call__(self) -> _T:
        with self._lock:
            if not self._values:
                self._values.append(self._make())
            return self._values[0]


class Generation:
    """One file, and what was worked out about it.

    Parameters
    ----------
    index : Index
        The file, open.
    number : int
        1 for the first file, one more for each that took over.
    names : dict
        Titles by the text of an id.
    """

    def __init__(self, index: annidx.Index, number: int, names: dict[str, str]) -> None:
        self.index = index
        self.number = number
        self.info = index.info()
        self.sets: dict[str, annidx.IdSet] = dict(index.sets)
        self._names = names
        self._ids = index.ids
        self.catalogue = _Once(lambda: Catalogue(self._texts(), names.get))
        self.sample = sample_rows(len(index), index.dim)
        self.maps = {method: self._later_map(method) for method in METHODS}
        self.stopwatch = _Once(self._make_stopwatch)

    def id_at(self, row: int) -> Any:
        """Return the id of a row."""
        if not 0 <= row < len(self._ids):
            raise ValueError(f"row: expected 0 to {len(self._ids) - 1}, found {row}")
        item = self._ids[row]
        return item if isinstance(item, str) else int(item)

    def id_of(self, text: str) -> Any:
        """Return the id that this text stands for.

        Raises
        ------
        KeyError
            The file holds no such item.
        """
        item: Any = text
        if self.info["ids"] == "int":
            try:
                item = int(text)
            except ValueError:
                raise KeyError(text) from None
        if item not in self.index:
            raise KeyError(text)
        return item

    def _texts(self) -> Iterator[str]:
        """Go through the ids as text, some at a time: files can be larger than memory."""
        for first in range(0, len(self._ids), _CHUNK_ROWS):
            yield from map(str, self._ids[first : first + _CHUNK_ROWS])

    def title_of(self, text: str) -> str | None:
        """Return the title of an id, if it has one."""
        return self._names.get(text)

    def described(self, ids: Sequence[Any], method: str) -> list[dict[str, Any]]:
        """Tell id, title and place on the map of items."""
        if not len(ids):
            return []
        places = self.maps[method]().place(self.index.get_vectors(list(ids)))
        return [
            {"id": str(item), "title": self.title_of(str(item)), "at": place}
            for item, place in zip(ids, places.astype(float).tolist(), strict=True)
        ]

    def chosen(self, only: Sequence[str], without: Sequence[str]) -> annidx.IdSet | None:
        """Combine named sets: items in all of `only` and in none of `without`."""
        result: annidx.IdSet | None = None
        for name in only:
            one = self._named(name)
            result = one if result is None else result & one
        for name in without:
            one = self._named(name)
            result = ~one if result is None else result - one
        return result

    def _named(self, name: str) -> annidx.IdSet:
        if name not in self.sets:
            raise ValueError(f"sets: expected one of {', '.join(self.sets)}, found {name!r}")
        return self.sets[name]

    def _later_map(self, method: str) -> _Once[Projection]:
        return _Once(lambda: Projection(self._sampled(), self.index.metric, method))

    def _sampled(self) -> npt.NDArray[Any]:
        return self.index.get_vectors([self.id_at(row) for row in self.sample.tolist()])

    def _make_stopwatch(self) -> Stopwatch:
        rows = np.random.default_rng(_SEED).permutation(self.sample)[:_MEASURED_QUERIES]
        return Stopwatch(self.index, [self.id_at(int(row)) for row in rows], _MEASURED_K)


class Library:
    """The file under a path, whichever generation stands there, and the questions to it.

    Parameters
    ----------
    index : FollowingIndex
        The file. Closed by the caller.
    names : dict
        Titles by the text of an id.

    Notes
    -----
    Safe from many threads.
    """

    def __init__(self, index: FollowingIndex, names: dict[str, str]) -> None:
        self._index = index
        self._names = names
        self._lock = threading.Lock()
        self._generation = Generation(index.current, 1, names)
        self._refused: str | None = None

    def present(self) -> Generation:
        """Return the generation that questions go to now."""
        current = self._index.current
        with self._lock:
            if self._generation.index is not current:
                number = self._generation.number + 1
                self._generation = Generation(current, number, self._names)
            return self._generation

    def about(self) -> dict[str, Any]:
        """Tell what the file holds."""
        present = self.present()
        info = present.info
        return {
            **self.status(memory=True),
            "info": info,
            "code_bytes": info["file_bytes"] - info["vector_bytes"],
            "larger_is_nearer": info["metric"] == "dot",
            "sets": {name: len(one) for name, one in present.sets.items()},
            "maps": list(METHODS),
            "titles": bool(self._names),
            "version": annidx.__version__,
            "start": str(present.id_at(int(present.sample[len(present.sample) // 2]))),
        }

    def status(self, *, memory: bool) -> dict[str, Any]:
        """Look at the path, and tell which generation is there.

        How much of it is in memory takes a look at each page: only where that is wanted.
        """
        try:
            self._index.reload_if_changed()
            self._refused = None
        except (OSError, ValueError) as error:
            self._refused = str(error)
        present = self.present()
        return {
            "generation": present.number,
            "identity": present.info["identity"],
            "items": len(present.index),
            "in_memory": present.index.residency() if memory else None,
            "refused": self._refused,
        }

    def search(self, text: str, limit: int) -> dict[str, Any]:
        """Find items by a part of their id or title; an item whose whole id it is comes first."""
        present = self.present()
        catalogue = present.catalogue()
        found = [str(present.id_at(row)) for row in catalogue.find(text, limit)]
        whole = _whole_id(present, text)
        if whole is not None:
            found = [whole, *(item for item in found if item != whole)][:limit]
        return {
            "items": [{"id": item, "title": present.title_of(item)} for item in found],
            "searched": len(catalogue),
            "of": len(present.index),
        }

    def near(
        self,
        item: str | None,
        row: int | None,
        generation: int | None,
        *,
        k: int,
        recall: float | None,
        only: Sequence[str],
        without: Sequence[str],
        method: str,
    ) -> dict[str, Any]:
        """Find the neighbours of an item, named by its id or, from the map, by its row.

        Raises
        ------
        KeyError
            No such item.
        ReplacedError
            The row is one of another generation.
        """
        present = self.present()
        if item is not None:
            asked = present.id_of(item)
        else:
            if generation != present.number or row is None:
                raise ReplacedError("the file was replaced meanwhile")
            asked = present.id_at(row)
        allow = present.chosen(only, without)
        start = time.perf_counter()
        found, distances = present.index.query_items(asked, k=k, recall=recall, allow=allow)
        took = time.perf_counter() - start
        ids = found.tolist()
        first, *others = present.described([asked, *ids], method)
        for one, distance in zip(others, distances.tolist(), strict=True):
            one["distance"] = distance if math.isfinite(distance) else None
        return {
            "generation": present.number,
            "item": first,
            "neighbours": others,
            "microseconds": took * 1e6,
        }

    def map(self, method: str) -> dict[str, Any]:
        """Return the map of a sample: rows, labels, places and shades."""
        present = self.present()
        if method not in present.maps:
            raise ValueError(f"map: expected one of {', '.join(METHODS)}, found {method!r}")
        made = present.maps[method]()
        texts = [str(present.id_at(row)) for row in present.sample.tolist()]
        return {
            "generation": present.number,
            "method": method,
            "rows": present.sample.tolist(),
            "labels": [(present.title_of(text) or text)[:_LABEL_CHARACTERS] for text in texts],
            "x": np.round(made.places[:, 0].astype(float), 5).tolist(),
            "y": np.round(made.places[:, 1].astype(float), 5).tolist(),
            "shade": np.round(made.shades.astype(float), 3).tolist(),
        }

    def radio(
        self,
        seeds: Sequence[str],
        dislikes: Sequence[str],
        heard: Sequence[str],
        *,
        length: int,
        diversity: float,
        only: Sequence[str],
        without: Sequence[str],
        method: str,
    ) -> dict[str, Any]:
        """Make a playlist. Seeds that a new file no longer holds are left aside."""
        present = self.present()
        known = [
            [present.id_of(one) for one in some if _holds(present, one)]
            for some in (seeds, dislikes, heard)
        ]
        if not known[0]:
            raise ValueError("seeds: expected one item of this file at least")
        start = time.perf_counter()
        ids = playlist(
            present.index,
            known[0],
            known[1],
            length=length,
            diversity=diversity,
            allow=present.chosen(only, without),
            deny=known[2],
        )
        took = time.perf_counter() - start
        return {
            "generation": present.number,
            "seeds": present.described(known[0], method),
            "playlist": present.described(ids, method),
            "microseconds": took * 1e6,
        }

    def measure(self, target: float) -> dict[str, Any]:
        """Measure recall and time at a target, here and now."""
        present = self.present()
        stopwatch = present.stopwatch()
        return {
            "generation": present.number,
            **stopwatch.measure(target),
            "k": _MEASURED_K,
            "queries": stopwatch.queries,
            "exact_microseconds": stopwatch.exact_seconds * 1e6,
        }


def _holds(present: Generation, text: str) -> bool:
    try:
        present.id_of(text)
    except KeyError:
        return False
    return True


def _whole_id(present: Generation, text: str) -> str | None:
    return str(present.id_of(text)) if text and _holds(present, text) else None
