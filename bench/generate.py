"""Clustered sets of low intrinsic dimension, of any size, the same on every machine.

Clusters of uneven weight and width lie in a low-dimensional space; each spreads along a
few directions of its own. The local intrinsic dimension (maximum likelihood, 100
neighbours) at 300,000 x 96 is about 12; SIFT descriptors and sentence embeddings have
about 20. Rows are made in chunks, each from its own seed, so a set of a
million rows is the beginning of the set of ten million, and memory stays small.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.contestant import Array
from bench.truth import exact_neighbours

CHUNK_ROWS = 100_000
CLUSTERS = 2_000
CENTRE_DIM = 24
CLUSTER_DIM = 32
CLUSTER_WIDTH = 1.2
WIDTH_DECAY = 0.25
"""The j-th direction of a cluster is j ** -WIDTH_DECAY as wide as its first."""
NOISE = 0.02
QUERIES = 500
TRUTH_COUNT = 100
RECIPE_VERSION = 1


@dataclass(frozen=True)
class ClusteredSpec:
    """What ``clustered:ROWSxDIM`` asks for."""

    rows: int
    dim: int
    seed: int

    @property
    def name(self) -> str:
        return f"clustered-{self.rows}x{self.dim}-euclidean"


def parse_spec(text: str, seed: int) -> ClusteredSpec:
    match = re.fullmatch(r"clustered:(\d+)x(\d+)", text)
    if match is None:
        raise ValueError(f"--generate takes clustered:ROWSxDIM, got {text!r}")
    return ClusteredSpec(rows=int(match[1]), dim=int(match[2]), seed=seed)


@dataclass(frozen=True)
class _Clusters:
    centres: Array
    directions: Array
    widths: Array
    weights: Array


def _make_clusters(spec: ClusteredSpec) -> _Clusters:
    rng = np.random.default_rng([spec.seed, 0])
    centre_dim = min(CENTRE_DIM, spec.dim)
    cluster_dim = min(CLUSTER_DIM, spec.dim)
    frame = np.linalg.qr(rng.standard_normal((spec.dim, centre_dim)))[0].T
    centres = rng.standard_normal((CLUSTERS, centre_dim)) @ frame
    directions = rng.standard_normal((CLUSTERS, cluster_dim, spec.dim)) / np.sqrt(spec.dim)
    decay = np.arange(1, cluster_dim + 1) ** -WIDTH_DECAY
    weights = rng.lognormal(0.0, 1.0, CLUSTERS)
    return _Clusters(
        centres=centres.astype(np.float32),
        directions=(directions * decay[:, None]).astype(np.float32),
        widths=(CLUSTER_WIDTH * rng.lognormal(0.0, 0.5, CLUSTERS)).astype(np.float32),
        weights=weights / weights.sum(),
    )


def _make_rows(clusters: _Clusters, rows: int, rng: np.random.Generator) -> Array:
    chosen = rng.choice(len(clusters.weights), size=rows, p=clusters.weights)
    latent = rng.standard_normal((rows, clusters.directions.shape[1]), dtype=np.float32)
    dim = clusters.centres.shape[1]
    vectors = NOISE * rng.standard_normal((rows, dim), dtype=np.float32)
    order = np.argsort(chosen, kind="stable")
    ends = np.cumsum(np.bincount(chosen, minlength=len(clusters.weights)))
    for cluster, (first, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        members = order[first:end]
        spread = latent[members] @ clusters.directions[cluster]
        vectors[members] += clusters.centres[cluster] + clusters.widths[cluster] * spread
    return vectors


def _write_base(spec: ClusteredSpec, clusters: _Clusters, path: Path) -> None:
    base = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(spec.rows, spec.dim))
    for chunk, first in enumerate(range(0, spec.rows, CHUNK_ROWS)):
        rng = np.random.default_rng([spec.seed, 1, chunk])
        rows = _make_rows(clusters, CHUNK_ROWS, rng)
        base[first : first + CHUNK_ROWS] = rows[: spec.rows - first]
    base.flush()


def generate(spec: ClusteredSpec, cache: Path) -> Path:
    """The set's folder (base, queries, exact truth, meta), made if it is not there."""
    folder = cache / f"{spec.name}-seed{spec.seed}-v{RECIPE_VERSION}"
    if (folder / "meta.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    clusters = _make_clusters(spec)
    _write_base(spec, clusters, folder / "base.npy")
    queries = _make_rows(clusters, QUERIES, np.random.default_rng([spec.seed, 2]))
    base = np.load(folder / "base.npy", mmap_mode="r")
    np.save(folder / "query.npy", queries)
    np.save(folder / "gt_ids.npy", exact_neighbours("euclidean", base, queries, TRUTH_COUNT))
    meta = {"name": spec.name, "metric": "euclidean", "n": spec.rows, "dim": spec.dim}
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    return folder
