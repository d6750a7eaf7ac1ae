"""Owns the tests of building by Dask: its executor serves `annidx.parallel.build` as it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import annidx
from annidx import parallel

distributed = pytest.importorskip("distributed", reason="needs Dask: pip install 'annidx[dask]'")

COUNT, DIM = 4_000, 12


def test_processes_of_a_cluster_give_the_bytes_of_a_build(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).standard_normal((COUNT, DIM), dtype=np.float32)
    np.save(tmp_path / "x.npy", vectors)
    deadly = tmp_path / "deadly"
    deadly.touch()

    def read(first: int, last: int) -> npt.NDArray[Any]:
        if last - first < COUNT:  # a part, so this is a worker; the first ends, and Dask's nanny
            try:  # starts another
                deadly.unlink()
            except FileNotFoundError:
                pass
            else:
                os._exit(1)
        rows: npt.NDArray[Any] = np.load(tmp_path / "x.npy", mmap_mode="r")[first:last]
        return rows

    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        local_directory=os.fspath(tmp_path / "dask"),
    )
    with cluster, distributed.Client(cluster) as client:
        parallel.build(
            read,
            tmp_path / "index.annidx",
            metric="euclidean",
            count=COUNT,
            executor=client.get_executor(),
            n_parts=5,
            seed=2,
        )
    assert not deadly.exists()
    whole = annidx.Index(DIM, "euclidean")
    whole.add_items(vectors)
    whole.build(seed=2)
    whole.save(tmp_path / "whole.annidx")
    assert (tmp_path / "index.annidx").read_bytes() == (tmp_path / "whole.annidx").read_bytes()
