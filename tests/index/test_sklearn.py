"""Owns the tests of AnnidxTransformer, against scikit-learn's own transformer and its checks."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import annidx

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.base import clone
from sklearn.cluster import DBSCAN
from sklearn.manifold import Isomap
from sklearn.neighbors import KNeighborsTransformer
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from annidx.sklearn import AnnidxTransformer

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def samples() -> Array:
    rng = np.random.default_rng(9)
    centres = 4 * rng.normal(size=(8, 10))
    return (centres[rng.integers(8, size=600)] + rng.normal(size=(600, 10))).astype(np.float32)


def test_it_passes_the_checks_of_scikit_learn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(AnnidxTransformer())
        check_estimator(AnnidxTransformer(mode="connectivity", metric="manhattan", n_jobs=2))


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "cosine"])
def test_graphs_are_those_of_scikit_learn(samples: Array, metric: str, mode: str) -> None:
    ours = AnnidxTransformer(7, mode=mode, metric=metric, recall=1)
    theirs = KNeighborsTransformer(n_neighbors=7, mode=mode, metric=metric)
    for got, want in (
        (ours.fit_transform(samples), theirs.fit_transform(samples)),
        (ours.transform(samples[:50] + 0.1), theirs.transform(samples[:50] + 0.1)),
    ):
        assert got.shape == want.shape and got.nnz == want.nnz
        np.testing.assert_allclose(got.toarray(), want.toarray(), atol=2e-3, rtol=1e-4)
    got, want = ours.kneighbors(), theirs.kneighbors()
    np.testing.assert_allclose(got[0], want[0], atol=2e-3, rtol=1e-4)
    assert (got[1] == want[1]).mean() > 0.99
    assert (ours.kneighbors(samples[:5], 3, return_distance=False)[:, 0] == np.arange(5)).all()


def test_angular_graphs(samples: Array) -> None:
    graph = AnnidxTransformer(3, metric="angular", recall=1).fit_transform(samples)
    units = samples / np.linalg.norm(samples, axis=1, keepdims=True)
    want = np.sort(np.sqrt(np.clip(2 - 2 * units.astype(float) @ units.T, 0, None)), axis=1)[:, :4]
    np.testing.assert_allclose(np.sort(graph.data.reshape(-1, 4), axis=1), want, atol=2e-3)


def test_a_sample_is_the_first_of_its_own(samples: Array) -> None:
    doubled = np.concatenate([samples, samples[:30], samples[:30]])
    graph = AnnidxTransformer(5).fit_transform(doubled)
    assert graph.indices.reshape(-1, 6)[:, 0].tolist() == list(range(len(doubled)))
    assert (np.diff(graph.data.reshape(-1, 6), axis=1) >= 0).all()


def test_dbscan_finds_the_same_clusters(samples: Array) -> None:
    plain = DBSCAN(eps=3.0, min_samples=6).fit_predict(samples)
    graph = make_pipeline(
        AnnidxTransformer(250, recall=1), DBSCAN(eps=3.0, min_samples=6, metric="precomputed")
    )
    assert len(set(plain.tolist())) > 4
    assert (graph.fit_predict(samples) == plain).all()


def test_isomap_is_that_of_the_exact_graph() -> None:
    cloud = np.random.default_rng(2).normal(size=(400, 4)) * [4, 3, 2, 0.5]

    def embedding(neighbours: Any) -> Array:
        isomap = Isomap(n_neighbors=12, n_components=3, metric="precomputed")
        return make_pipeline(neighbours, isomap).fit_transform(cloud)

    got = embedding(AnnidxTransformer(12, recall=1))
    want = embedding(KNeighborsTransformer(n_neighbors=12))
    for axis in range(3):
        assert abs(np.corrcoef(got[:, axis], want[:, axis])[0, 1]) > 0.999


def test_recall_is_kept(samples: Array) -> None:
    rng = np.random.default_rng(3)
    many = rng.normal(size=(6_000, 24)).astype(np.float32)
    got = AnnidxTransformer(10, recall=0.9).fit(many).kneighbors(return_distance=False)
    want = AnnidxTransformer(10, recall=1.0).fit(many).kneighbors(return_distance=False)
    found = np.mean(
        [len(set(a) & set(b)) for a, b in zip(got.tolist(), want.tolist(), strict=True)]
    )
    assert 8.5 < found < 10


def named_step(pipeline: Any) -> AnnidxTransformer:
    return pipeline.named_steps["annidxtransformer"]


def test_pipelines_pickle(samples: Array) -> None:
    pipeline = make_pipeline(AnnidxTransformer(4), DBSCAN(metric="precomputed")).fit(samples)
    again = pickle.loads(pickle.dumps(pipeline))
    got, want = (named_step(one).transform(samples[:9]) for one in (again, pipeline))
    assert (got != want).nnz == 0
    assert not hasattr(clone(named_step(again)), "index_")
    named = named_step(again)
    assert named.get_feature_names_out()[:2].tolist() == [
        "annidxtransformer0",
        "annidxtransformer1",
    ]
    assert isinstance(named.index_, annidx.Index) and len(named.index_) == 600


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_neighbors": 0}, "n_neighbors: expected a whole number from 1"),
        ({"mode": "graph"}, 'mode: expected one of "distance", "connectivity"'),
        ({"metric": "dot"}, 'metric: expected one of "euclidean", "angular"'),
        ({"metric": "l2"}, 'did you mean "euclidean"'),
        ({"recall": 2}, "recall: expected a number above 0"),
        ({"random_state": -1}, "seed: expected a whole number"),
    ],
)
def test_bad_parameters(samples: Array, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnnidxTransformer(**parameters).fit(samples)


def test_too_few_samples(samples: Array) -> None:
    few = AnnidxTransformer(5).fit(samples[:5])
    for ask in (few.transform, few.fit_transform):
        with pytest.raises(ValueError, match="n_neighbors = 6, n_samples_fit = 5"):
            ask(samples[:5])
    with pytest.raises(ValueError, match="n_neighbors = 6, n_samples_fit = 5"):
        few.kneighbors()


def test_annidx_does_not_import_it() -> None:
    script = (
        "import annidx, sys; assert 'sklearn' not in sys.modules and 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_scikit_learn_it_says_what_to_install() -> None:
    script = "import sys; sys.modules['sklearn'] = None; import annidx.sklearn"
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert "annidx.sklearn needs scikit-learn 1.6 or newer: pip install" in done.stderr
