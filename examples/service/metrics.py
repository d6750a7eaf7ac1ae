"""Owns what the service tells Prometheus. It knows how an index describes itself, no more.

With several workers each scrape meets one of them. prometheus_client joins the numbers of all by
way of files in the folder PROMETHEUS_MULTIPROC_DIR, which must be set, and empty, when they start.
"""

from __future__ import annotations

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from annidx.follow import Status

CONTENT_TYPE = CONTENT_TYPE_LATEST

SECONDS = Histogram(
    "service_request_seconds",
    "Time to answer a request.",
    ["route", "status"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
)


def _of_each_worker(name: str, what: str) -> Gauge:
    return Gauge(name, what, multiprocess_mode="liveall")


GENERATION = _of_each_worker("annidx_generation", "Files that this process has gone over to.")
FILE_TIME = _of_each_worker("annidx_file_time_seconds", "When the file in use was written.")
LOADED = _of_each_worker("annidx_loaded_time_seconds", "When this process went over to it.")
REFUSED = _of_each_worker("annidx_refused_files", "New files that were not taken, of the latest.")
STALE = _of_each_worker("annidx_stale", "1 while the file under the path is not the one in use.")
QUERIES = _of_each_worker("annidx_queries", "Queries that the index has answered.")


def note(status: Status) -> None:
    """Take over what an index says of itself."""
    GENERATION.set(status["generation"])
    FILE_TIME.set(status["file_time"])
    LOADED.set(status["loaded_at"])
    REFUSED.set(len(status["refused"]))
    STALE.set(status["last_error"] is not None)
    QUERIES.set(status["queries"])


def text() -> bytes:
    """Return the metrics of all workers, as Prometheus reads them."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def forget_this_worker() -> None:
    """Take the gauges of a worker that ends out of the sums."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]
