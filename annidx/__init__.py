"""annidx: an approximate nearest-neighbour index that lives in one memory-mapped file.

    index = annidx.Index(dim=128, metric="euclidean")
    index.add_items(vectors)
    index.build()
    index.save("tracks.annidx")

    index = annidx.load("tracks.annidx")
    ids, distances = index.query(vector, k=10)

This module owns the list of public names and nothing else.
"""

from __future__ import annotations

from annidx._version import __version__
from annidx.annoy import AnnoyIndex
from annidx.costs import estimate
from annidx.errors import FormatError, StateError
from annidx.idset import IdSet
from annidx.index import Index
from annidx.manifest import write_manifest
from annidx.opening import load, verify
from annidx.parts import DriftWarning, encode, merge, train
from annidx.publishing import publish

__all__ = [
    "AnnoyIndex",
    "DriftWarning",
    "FormatError",
    "IdSet",
    "Index",
    "StateError",
    "__version__",
    "encode",
    "estimate",
    "load",
    "merge",
    "publish",
    "train",
    "verify",
    "write_manifest",
]
