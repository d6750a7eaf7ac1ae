"""Owns what the compiled binding gives to the rest of the package; see binding.pyx.

Private: use `annidx.Index`. It must know nothing of the package but its errors.
"""

from __future__ import annotations

from annidx._core.binding import (
    ANNOY_METRICS,
    DTYPE_NAMES,
    DTYPES,
    METRIC_NAMES,
    METRICS,
    AnnoyBuffer,
    AnnoyCalls,
    AnnoyReader,
    AnnoyServed,
    AnnoySource,
    CoreIndex,
    FoundGraph,
    SlotBits,
    Tally,
    annoy_has_explicit_ids,
    annoy_id_range,
    annoy_ids,
    annoy_write_empty,
    described,
    encode_texts,
    note_fork,
    read_recall,
    verify_path,
)

__all__ = [
    "ANNOY_METRICS",
    "DTYPES",
    "DTYPE_NAMES",
    "METRICS",
    "METRIC_NAMES",
    "AnnoyBuffer",
    "AnnoyCalls",
    "AnnoyReader",
    "AnnoyServed",
    "AnnoySource",
    "CoreIndex",
    "FoundGraph",
    "SlotBits",
    "Tally",
    "annoy_has_explicit_ids",
    "annoy_id_range",
    "annoy_ids",
    "annoy_write_empty",
    "described",
    "encode_texts",
    "note_fork",
    "read_recall",
    "verify_path",
]
