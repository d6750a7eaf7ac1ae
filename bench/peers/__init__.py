"""The list of contestants, by name. Adding a library: one adapter file, one line here."""

from __future__ import annotations

from bench.contestant import Contestant
from bench.peers.annidx_index import Annidx, AnnidxAvx2
from bench.peers.annoy_like import AnnidxAnnoy, Annoy
from bench.peers.diskann_index import DiskAnn
from bench.peers.faiss_indexes import (
    FaissBinaryHnsw,
    FaissBinaryIvf,
    FaissHnsw,
    FaissIvfPqFastScan,
)
from bench.peers.hnswlib_index import Hnswlib
from bench.peers.lorann_index import Lorann
from bench.peers.mrpt_index import Mrpt
from bench.peers.ngt_index import Ngt
from bench.peers.pynndescent_index import PyNNDescent
from bench.peers.scann_index import Scann
from bench.peers.svs_index import Svs
from bench.peers.symphonyqg_index import SymphonyQg
from bench.peers.usearch_index import Usearch
from bench.peers.voyager_index import Voyager

MAIN_CONTESTANTS: tuple[type[Contestant], ...] = (
    Annidx,
    AnnidxAvx2,
    Annoy,
    Hnswlib,
    FaissHnsw,
    FaissIvfPqFastScan,
    FaissBinaryHnsw,
    FaissBinaryIvf,
    Scann,
    Usearch,
    Voyager,
    PyNNDescent,
    Mrpt,
    Ngt,
    Svs,
    SymphonyQg,
    Lorann,
    DiskAnn,
)

ALL_CONTESTANTS: tuple[type[Contestant], ...] = (*MAIN_CONTESTANTS, AnnidxAnnoy)
BY_NAME = {contestant.name: contestant for contestant in ALL_CONTESTANTS}
