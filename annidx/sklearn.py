"""Owns the face for scikit-learn: a transformer that makes graphs of nearest neighbours.

An extra: nothing else imports it. What scikit-learn asks of an estimator is held to by its own
checks; how neighbours are found is the index's affair.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from annidx.index import Index
from annidx.io import inputs

try:
    from scipy.sparse import csr_matrix
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "annidx.sklearn needs scikit-learn 1.6 or newer: pip install 'annidx[sklearn]'"
    ) from error

__all__ = ["AnnidxTransformer"]

_METRICS = ("euclidean", "angular", "cosine", "manhattan")
_MODES = ("distance", "connectivity")


class AnnidxTransformer(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Turn samples into a sparse graph of their nearest neighbours among those fitted.

    Takes the place of `sklearn.neighbors.KNeighborsTransformer` before estimators that accept
    `metric="precomputed"`, approximately and faster.

    Parameters
    ----------
    n_neighbors : int, default 5
        Neighbours of each sample, itself not counted.
    mode : {"distance", "connectivity"}, default "distance"
        Values of the graph: distances, or 1. With "distance" a row has one entry more, because a
        sample that was fitted is its own neighbour.
    metric : {"euclidean", "angular", "cosine", "manhattan"}, default "euclidean"
        As for `annidx.Index`; "dot" is no distance.
    dtype : {"float32", "float16", "int8", "uint8"}, default "float32"
        How samples are kept.
    recall : float, default 0.95
        Share of the true neighbours to aim at, above 0 and at most 1; 1 compares with all samples.
    n_jobs : int, optional
        Threads; -1 for all cores. None is 1.
    random_state : int, default 0
        Seed of the index, 0..2**64 - 1. The same samples and seed give the same index.

    Attributes
    ----------
    index_ : annidx.Index
        The fitted samples; ids are their rows.
    n_samples_fit_ : int
        How many there are.
    n_features_in_ : int
        Their dimension.

    Notes
    -----
    Rows of a graph ascend by distance; that of a fitted sample in `fit_transform` begins with
    itself, whatever its duplicates. Pickles with its index. A fitted transformer may be used from
    many threads.

    Examples
    --------
    >>> from sklearn.cluster import DBSCAN
    >>> from sklearn.pipeline import make_pipeline
    >>> from annidx.sklearn import AnnidxTransformer
    >>> clusters = make_pipeline(
    ...     AnnidxTransformer(n_neighbors=30), DBSCAN(eps=0.5, metric="precomputed")
    ... )
    """

    def __init__(
        self,
        n_neighbors: int = 5,
        *,
        mode: str = "distance",
        metric: str = "euclidean",
        dtype: str = "float32",
        recall: float = 0.95,
        n_jobs: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.mode = mode
        self.metric = metric
        self.dtype = dtype
        self.recall = recall
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> AnnidxTransformer:  # scikit-learn's name
        """Build an index of samples.

        Parameters
        ----------
        X : array_like
            Shape (n, dim), finite numbers.
        y : None
            Not used.

        Returns
        -------
        AnnidxTransformer
            Itself.

        Raises
        ------
        ValueError
            A parameter or a sample is wrong.
        """
        inputs.whole_number(self.n_neighbors, "n_neighbors", 1, 2**32 - 1)
        inputs.one_of(self.mode, "mode", _MODES)
        inputs.metric_name(self.metric, _METRICS)
        samples = validate_data(self, X, dtype=np.float32)
        index = Index(samples.shape[1], self.metric, self.dtype)
        index.add_items(samples)
        index.build(recall=self.recall, n_jobs=self._threads(), seed=self.random_state)
        self.index_ = index
        self.n_samples_fit_ = len(samples)
        return self

    def transform(self, X: Any) -> Any:
        """Make the graph from samples to their neighbours among those fitted.

        Parameters
        ----------
        X : array_like
            Shape (m, dim).

        Returns
        -------
        scipy.sparse.csr_matrix
            Shape (m, n), float64, with `n_neighbors` entries a row, one more for distances.

        Raises
        ------
        ValueError
            A sample is wrong, or there are fewer fitted samples than neighbours wanted.
        """
        check_is_fitted(self)
        return self._graph(*self._near(X, self._entries()))

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Build an index of samples and make the graph of these samples, each the first of its own.

        Parameters
        ----------
        X, y
            As for `fit`.

        Returns
        -------
        scipy.sparse.csr_matrix
            As `transform`.
        """
        self.fit(X, y)
        entries = self._enough(self._entries())
        rows = np.arange(self.n_samples_fit_)
        found = self.index_.query_items(
            rows, entries, include_self=True, recall=self.recall, n_jobs=self._threads()
        )
        return self._graph(*found)

    def kneighbors(
        self,
        X: Any = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
    ) -> Any:
        """Find the nearest of the fitted samples.

        Parameters
        ----------
        X : array_like, optional
            Shape (m, dim). Without it the fitted samples, none of which is its own neighbour.
        n_neighbors : int, optional
            Default: the parameter of that name.
        return_distance : bool, default True
            Whether distances come, too.

        Returns
        -------
        distances : ndarray of float64
            Shape (m, n_neighbors), ascending. Only with `return_distance`.
        rows : ndarray of int64
            Of the same shape.
        """
        check_is_fitted(self)
        wanted = self.n_neighbors if n_neighbors is None else n_neighbors
        wanted = inputs.whole_number(wanted, "n_neighbors", 1, 2**32 - 1)
        if X is None:
            self._enough(wanted + 1)
            rows, distances = self.index_.query_items(
                np.arange(self.n_samples_fit_),
                wanted,
                recall=self.recall,
                n_jobs=self._threads(),
            )
        else:
            rows, distances = self._near(X, wanted)
        return (distances, rows) if return_distance else rows

    def _near(
        self,
        X: Any,
        count: int,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        samples = validate_data(self, X, reset=False, dtype=np.float32)
        return self.index_.query(
            samples, self._enough(count), recall=self.recall, n_jobs=self._threads()
        )

    def _entries(self) -> int:
        return self.n_neighbors + 1 if self.mode == "distance" else self.n_neighbors

    def _enough(self, count: int) -> int:
        if count > self.n_samples_fit_:
            raise ValueError(
                f"Expected n_neighbors <= n_samples_fit, but n_neighbors = {count}, "
                f"n_samples_fit = {self.n_samples_fit_}"
            )
        return count

    def _threads(self) -> int:
        return 1 if self.n_jobs is None else self.n_jobs

    def _graph(self, rows: npt.NDArray[Any], distances: npt.NDArray[np.float64]) -> Any:
        count, width = rows.shape
        values = distances if self.mode == "distance" else np.ones_like(distances)
        ends = np.arange(0, count * width + 1, width)
        shape = (count, self.n_samples_fit_)
        return csr_matrix((values.ravel(), rows.ravel(), ends), shape=shape)

    @property
    def _n_features_out(self) -> int:
        """For scikit-learn's names of output features."""
        return self.n_samples_fit_
