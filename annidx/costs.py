"""Owns what an index will cost before it is built, and the unit costs that say so.

The file follows from its layout (docs/FORMAT.md) and is right to a few percent. Memory and time
were measured, on one machine, and say of which order they are. It must not build anything.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from annidx.index import Index
from annidx.io import inputs

__all__ = ["estimate"]

MEASURED_ON: Final = (
    "2 virtual cores of an Intel Xeon with AVX-512, Linux, 25 November 2026, clustered vectors"
)


class _Costs(NamedTuple):
    """Unit costs of one way to scan: bytes of working memory an item, processor time an item."""

    work_bytes: float
    work_bytes_a_dim: float
    microseconds: float
    microseconds_a_dim: float


# Builds of 30,000 to 200,000 vectors of 12 to 512 dimensions: memory at its peak less vectors and
# image, processor time less what measuring the recall curve takes whatever the number of items.
_COSTS: Final = {
    "lists": _Costs(270, 0.2, 10.0, 0.2),
    "codes": _Costs(160, 0.0, 6.0, 0.1),
    "byte_rows": _Costs(55, 0.0, 5.0, 0.2),
    "bits": _Costs(60, 2.5, 5.0, 0.12),
    "vectors": _Costs(50, 0.0, 8.0, 0.3),
}
_CURVE_SECONDS: Final = 0.4

# Where the core chooses another way to scan: kPlainScanDim and kPlainScanItems of its tuning.
_PLAIN_DIM: Final = 16
_PLAIN_ITEMS: Final = 2_048
# Neighbours of each item by default, and up to how many items an entry has 3 bytes: kNeighbours and
# kMaxShortSlots.
_ENTRIES: Final = 16
_SHORT_ENTRIES: Final = 1 << 24
# Room that blocks leave empty, as a share of the codes: leaves end where clusters do.
_PADDING: Final = {"lists": 0.03, "codes": 0.07}


def estimate(
    n: int, dim: int, metric: str, dtype: str | None = None, *, n_jobs: int = -1
) -> dict[str, Any]:
    """Estimate what an index will take: file, memory and time to build.

    Parameters
    ----------
    n : int
        Items, 1..2**32 - 1.
    dim, metric, dtype
        As for `annidx.Index`.
    n_jobs : int, default -1
        Threads of the build; -1 for all cores that this process may use.

    Returns
    -------
    dict
        "file_bytes", and of it "vector_bytes"; "build_memory_bytes" (peak of a build in memory,
        the index's own copy of the vectors included, the caller's not); "build_seconds" with that
        many threads; "measured_on" (the machine that memory and time were measured on).

    Raises
    ------
    ValueError
        An argument is wrong, or the metric cannot be stored as the dtype.

    Notes
    -----
    For what `build` chooses when nothing is asked for, and for ids that are row numbers: integers
    of your own take 12 bytes more an item, texts 12 and their length. The file is right to 5%.
    Memory and time depend on data and machine: on the one named they were within a factor of two,
    on another they may not be. A build with `memory_limit` takes less memory. To serve an index
    without reading from disk, its file has to fit into memory, once for all processes.
    """
    n = inputs.whole_number(n, "n", 1, 2**32 - 1)
    jobs = inputs.thread_count(n_jobs)
    kind = Index(dim, metric, dtype)  # checks the arguments, and chooses the dtype
    dim, dtype = kind.dim, kind.dtype
    scan = _scan_of(n, dim, metric)
    costs = _COSTS[scan]
    vector_bytes = n * _row_bytes(dim, dtype)
    file_bytes = vector_bytes + _index_bytes(n, dim, dtype, scan)
    work = n * (costs.work_bytes + costs.work_bytes_a_dim * dim)
    processor = n * (costs.microseconds + costs.microseconds_a_dim * dim) / 1e6
    return {
        "file_bytes": file_bytes,
        "vector_bytes": vector_bytes,
        "build_memory_bytes": vector_bytes + file_bytes + round(work),
        "build_seconds": (_CURVE_SECONDS + processor) / jobs,
        "measured_on": MEASURED_ON,
    }


def _scan_of(n: int, dim: int, metric: str) -> str:
    if metric == "hamming":
        return "bits"
    if dim <= _PLAIN_DIM or n < _PLAIN_ITEMS:
        return "vectors"
    return {"manhattan": "byte_rows", "dot": "codes"}.get(metric, "lists")


def _row_bytes(dim: int, dtype: str) -> int:
    if dtype == "bits":
        return (dim + 7) // 8
    return dim * {"float32": 4, "float16": 2, "int8": 1, "uint8": 1}[dtype]


def _code_bytes(dim: int) -> int:
    """Bytes of 4-bit codes: one for 4 dimensions up to 64 codes, then one for 8 up to 256."""
    codes = min(max(min(dim // 4, 64), dim // 8), 256)
    return max(4, codes // 4 * 4) // 2


def _index_bytes(n: int, dim: int, dtype: str, scan: str) -> int:
    """Bytes of all sections but the vectors."""
    # Rows and slots in both directions; leaves of a thousand items or, without blocks, fewer.
    leaf_items = 600 if scan == "lists" else 160
    an_item = 8 + (dim + 36) / leaf_items
    once = 8_192 + dim * 4
    if scan in ("lists", "codes"):
        codes = _code_bytes(dim) + 4
        an_item += codes * (1 + _PADDING[scan]) + 8
        once += dim * 64 + dim * min(dim, 512)
    if scan == "lists":
        record = (_code_bytes(dim) + 8 + 7) // 8 * 8
        centroids = codes / 20
        an_item += record + centroids + _ENTRIES * (3 if n <= _SHORT_ENTRIES else 4)
    has_copies = scan in ("lists", "codes", "byte_rows") and dtype not in ("int8", "uint8")
    if has_copies:
        an_item += dim
    return round(n * an_item) + once
