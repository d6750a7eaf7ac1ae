"""Stands in for a company's own data: artists with their vectors, and who listened to whom.

It owns the names of the files that the job and the service share. It knows nothing of either.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

DIM = 32
STYLES = 40
ARTISTS = 2_000
USERS = 200

INDEX = "artists.annidx"
LISTENS = "listens.json"

Listens = dict[str, dict[str, int]]  # plays by artist, by user


@dataclass(frozen=True)
class Catalogue:
    """The artists of one day."""

    names: list[str]
    vectors: npt.NDArray[np.float32]
    available: npt.NDArray[np.bool_]  # may be shown today


def catalogue_of(day: int) -> Catalogue:
    """Make the artists of a day: a few come and go, most stay where they are."""
    rng = np.random.default_rng(1)
    styles = rng.normal(size=(STYLES, DIM))
    numbers = np.arange(day, ARTISTS + day)
    places = np.array([np.random.default_rng(number).normal(size=DIM) for number in numbers])
    vectors = styles[numbers % STYLES] + 0.4 * places
    available = (numbers * 7 + day) % 10 > 0
    return Catalogue([f"artist-{n}" for n in numbers], vectors.astype(np.float32), available)


def make_listens() -> Listens:
    """Make the users: each likes a few styles and has heard some dozens of artists."""
    rng = np.random.default_rng(2)
    listens: Listens = {}
    for user in range(USERS):
        liked = rng.choice(STYLES, size=3, replace=False)
        heard = rng.choice(ARTISTS // STYLES, size=(3, 15)) * STYLES + liked[:, None]
        plays = rng.geometric(0.05, size=heard.size)
        listens[f"user-{user}"] = {
            f"artist-{artist}": int(count) for artist, count in zip(heard.flat, plays, strict=True)
        }
    return listens


def read_listens(folder: Path) -> Listens:
    """Read who listened to whom."""
    listens: Listens = json.loads((folder / LISTENS).read_text(encoding="utf-8"))
    return listens


def write_listens(folder: Path) -> None:
    """Write who listened to whom."""
    (folder / LISTENS).write_text(json.dumps(make_listens()), encoding="utf-8")
