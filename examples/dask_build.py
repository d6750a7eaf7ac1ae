"""Dask: the parts of an index made by the workers of a cluster, here two processes.

Run: pip install 'annidx[dask]' && python examples/dask_build.py
"""

from __future__ import annotations

import numpy as np
from distributed import Client, LocalCluster

import annidx
from annidx import parallel


def main() -> None:
    """Build an index of a .npy file; on a real cluster only the address of the client differs."""
    np.save("vectors.npy", np.random.default_rng(1).random((20_000, 24), dtype=np.float32))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        parallel.build(
            "vectors.npy",
            "index.annidx",
            metric="euclidean",
            executor=client.get_executor(),
            n_parts=6,
        )
    print(f"built of 6 parts: {len(annidx.load('index.annidx')):,} vectors")


if __name__ == "__main__":  # the workers import this file
    main()
