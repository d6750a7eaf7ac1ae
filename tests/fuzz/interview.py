"""Asks an annidx file, or one of Annoy's, everything that the Python face can ask.

Owns the questions and what counts as an answer to a file that may hold anything: it is refused as
damaged (`FormatError`) or answers; and an annidx file that `verify` accepts refuses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import annidx

SIZES = (0.0, 1e-38, 1.0, 1e30, float(np.finfo(np.float32).max))


class Outcome:
    """What a file said: `refused` at load, or how many questions it `answered` and `declined`."""

    def __init__(self, *more_excuses: type[Exception]) -> None:
        self.excuses = (annidx.FormatError, *more_excuses)
        self.refused = False
        self.answered = 0
        self.declined = 0

    def ask(self, question: Callable[[], Any]) -> Any:
        """Put one question; damage is the only excuse unless others were named."""
        try:
            answer = question()
        except self.excuses:
            self.declined += 1
            return None
        self.answered += 1
        return answer


def queries_for(index: annidx.Index) -> list[np.ndarray]:
    """Queries of ordinary and of extreme sizes."""
    rng = np.random.default_rng(index.dim)
    if index.metric == "hamming":
        return [rng.integers(0, 2, index.dim).astype(np.uint8), np.zeros(index.dim, np.uint8)]
    direction = rng.uniform(-1, 1, index.dim)
    return [(direction * size).astype(np.float32) for size in SIZES]


def check_found(index: annidx.Index, found: tuple[np.ndarray, np.ndarray] | None, k: int) -> None:
    """Hold an answer against what every answer is."""
    if found is None:
        return
    ids, distances = found
    assert ids.shape == distances.shape and len(ids) <= min(k, len(index))
    assert not np.isnan(distances).any()


def ask_all(index: annidx.Index, outcome: Outcome) -> None:
    """Ask all that is answered from what a file holds, whatever the answers are worth."""
    _ask_queries(index, outcome, are_sound=False)
    if len(index):
        _ask_items(index, outcome)


def interview(path: Path) -> Outcome:
    """Load a file and ask all there is to ask."""
    outcome = Outcome()
    try:
        index = annidx.load(path)
    except annidx.FormatError:
        outcome.refused = True
        return outcome
    with index:
        # That the metadata is JSON is for whoever reads it to find out: verify() sees text.
        outcome.ask(index.info)
        outcome.ask(lambda: index.metadata)
        is_sound = outcome.ask(lambda: index.verify() or True)
        declined = outcome.declined
        _ask_queries(index, outcome)
        _ask_sets(index, outcome)
        if len(index):
            _ask_items(index, outcome)
        # Measuring goes through a file in its own way. Last: it changes the index.
        if 0 < len(index) <= 256:
            outcome.ask(lambda: index.tune(queries_for(index)[0][None, :], k=3, n_jobs=1))
        assert not is_sound or outcome.declined == declined, "verify() accepted what is damaged"
    return outcome


def interview_beside(base: Path, path: Path) -> Outcome:
    """Load a file behind a sound one, ask both all there is to ask, and make one file of them."""
    # In a damaged table of ids, one that is listed may not be found.
    outcome = Outcome(ValueError, MemoryError, KeyError)
    try:
        index = annidx.load([base, path], on_duplicate="newest")
    except ValueError:  # damaged, or of another kind
        outcome.refused = True
        return outcome
    with index:
        ask_all(index, outcome)
        # Ids of a damaged file need not be found by the order that it keeps of them.
        outcome.ask(lambda: index.remove_items(list(index.ids[:3]), missing="skip"))
        _ask_queries(index, outcome, are_sound=False)
        outcome.ask(lambda: index.save_changes(path.with_suffix(".changes"), n_jobs=1))
        outcome.ask(lambda: index.to_bytes())
    return outcome


def _ask_queries(index: annidx.Index, outcome: Outcome, *, are_sound: bool = True) -> None:
    queries = queries_for(index)
    for query in queries:
        found = outcome.ask(lambda q=query: index.query(q, k=10))
        if are_sound:
            check_found(index, found, 10)
    ways: list[dict[str, Any]] = [
        {"recall": 0.3},
        {"recall": 0.999},
        {"search_k": 1},
        {"search_k": len(index) + 1},
        {"radius": 0.7},
        {"radius": 1e9},
        {"allow": np.arange(len(index)) % 2 == 0},
        {"deny": np.arange(len(index)) % 7 != 0},
    ]
    for way in ways:
        k = min(1 + len(index), 400)
        found = outcome.ask(lambda how=way, k=k: index.query(queries[0], k=k, **how))
        if are_sound:
            check_found(index, found, k)
    outcome.ask(lambda: index.query_exact(queries[0], k=5))
    outcome.ask(lambda: index.query(queries[0], k=None, radius=0.7))
    outcome.ask(lambda: index.query(np.stack(queries), k=3, n_jobs=2))


def _ask_sets(index: annidx.Index, outcome: Outcome) -> None:
    query = queries_for(index)[0]
    for name in outcome.ask(lambda: list(index.sets)) or []:
        outcome.ask(lambda name=name: index.query(query, k=3, allow=name))
        found = outcome.ask(lambda name=name: index.sets[name])
        if found is not None:
            assert len(found) <= len(index)
            outcome.ask(lambda found=found: list(found))
    outcome.ask(index.to_bytes)


def _ask_items(index: annidx.Index, outcome: Outcome) -> None:
    # Ids as the file's own answers give them, and some that it does not hold.
    found = outcome.ask(lambda: index.query_exact(queries_for(index)[0], k=5))
    names = [] if found is None else list(found[0])
    for name in [*names, -1, "no such id"]:
        if not outcome.ask(lambda name=name: name in index):
            continue
        outcome.ask(lambda name=name: index.get_vectors(name))
        outcome.ask(lambda name=name: index.query_items(name, k=5))
        outcome.ask(lambda name=name: index.query_items(name, k=5, include_self=True))
    outcome.ask(lambda: index.knn_graph(3, output="ids", n_jobs=1))


def interview_annoy(path: Path, metric: str, f: int) -> Outcome:
    """Load a file as Annoy's and ask all there is to ask."""
    outcome = Outcome()
    index = annidx.AnnoyIndex(f, metric)
    try:
        index.load(str(path))
    except (annidx.FormatError, OSError):
        outcome.refused = True
        return outcome
    for size in (0.0, 1.0, 3e38):
        query = [size * (1 - i % 3) for i in range(f)]
        outcome.ask(lambda query=query: index.get_nns_by_vector(query, 10))
        outcome.ask(lambda query=query: index.get_nns_by_vector(query, 10, search_k=1000))
    for item in {0, index.get_n_items() // 2, index.get_n_items() - 1}:
        if not 0 <= item < index.get_n_items():
            continue
        outcome.ask(lambda item=item: index.get_item_vector(item))
        outcome.ask(lambda item=item: index.get_nns_by_item(item, 10))
        outcome.ask(lambda item=item: index.get_distance(0, item))
    index.unload()
    return outcome
