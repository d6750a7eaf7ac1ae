"""Owns the Python face of an index: manners, checks and documentation. No arithmetic on vectors.

The work is done by `_core`; what callers may pass is decided in `io.inputs` and `idset`.
"""

from __future__ import annotations

import io
import json
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from annidx import _core, like
from annidx._core.types import Filter, Id, Ids, Items
from annidx._progress import Progress, reporter
from annidx.changing import ChangingIndex, consistently
from annidx.errors import FormatError, StateError
from annidx.evaluation import evaluate
from annidx.graph import GraphFace
from annidx.ids import TextIds
from annidx.idset import NamedSets, eligible_parts, find_rows, named_bits
from annidx.io import inputs
from annidx.io.export import write_export
from annidx.io.remote import fetched_file, is_url
from annidx.io.streams import WritableFile, writes_whole

__all__ = ["Index"]

Path: TypeAlias = "str | os.PathLike[str]"
Missing: TypeAlias = Literal["raise", "skip"]
Found: TypeAlias = tuple[npt.NDArray[Any], npt.NDArray[np.float64]]

_MAX_DIM = 65535
_Self = TypeVar("_Self", bound="Index")


class Index(ChangingIndex, GraphFace):
    """An approximate nearest-neighbour index of vectors.

    It is filled with `add_items`, built with `build`, and then asked: directly, or after `save` by
    any number of processes that `annidx.load` the file. Once built, items can be added, updated
    and removed; `save_changes` keeps what differs from the file, `save` writes all of it anew.

    Parameters
    ----------
    dim : int
        Dimension of the vectors, 1..65535; for hamming the number of bits.
    metric : {"angular", "cosine", "euclidean", "manhattan", "dot", "hamming"}
        What "near" means. Distances returned: angular sqrt(2 - 2 cos), 0..2; cosine 1 - cos, 0..2;
        euclidean L2; manhattan L1; dot the inner product itself, larger is nearer; hamming the
        number of differing bits.
    dtype : {"float32", "float16", "int8", "uint8", "bits"}, optional
        How vectors are kept in the file; distances are those of the vectors as kept. Default
        "float32", and "bits" for hamming, which takes nothing else. int8 is for all other metrics,
        uint8 for euclidean and manhattan. int8 and uint8 data given as such are kept exactly; float
        data in an int8 index are scaled.

    Raises
    ------
    ValueError
        An argument is wrong, or the metric cannot be stored as the dtype.

    Notes
    -----
    A built index may be queried from many threads at once, also in free-threaded Python, and after
    `fork`. `add_items`, `build` and `tune` change it: they wait for calls that are under way, and
    calls made during them wait, or raise `StateError` while it is being built.

    An index that was loaded or saved pickles as the path (or URL) and the identity of its file,
    with its changes; of several indexes or parts as their paths and identities; one that is only in
    memory pickles as its bytes.
    """

    _url: str | None = None  # where the file of _path was fetched from
    # Opened from several files: which, whether later ids replace earlier ones, and the version that
    # was opened.
    _opened_from: tuple[list[str], bool, int] | None = None

    def __init__(self, dim: int, metric: str, dtype: str | None = None) -> None:
        dim = inputs.whole_number(dim, "dim", 1, _MAX_DIM)
        metric = inputs.metric_name(metric, _core.METRICS)
        if dtype is None:
            dtype = "bits" if metric == "hamming" else "float32"
        dtype = inputs.one_of(dtype, "dtype", _core.DTYPES)
        self._create(_core.METRICS[metric], _core.DTYPES[dtype], dim)
        self._path: str | None = None
        self._file_identity: str | None = None  # of _path, when that is not this very image
        self._metadata: str | None = None  # JSON, once it was asked for or saved

    # ---- filling -----------------------------------------------------------------------------

    def add_items(
        self,
        vectors: npt.ArrayLike,
        ids: Ids | None = None,
        *,
        packed: bool = False,
        n_jobs: int = 1,
    ) -> None:
        """Add vectors: all of them, or after an error none.

        Parameters
        ----------
        vectors : array_like
            Shape (n, dim), any real dtype: an array, a tensor, a frame of numbers, a column of
            lists, or lists (docs/inputs.md has all kinds). For hamming 0/1 values, or with
            `packed=True` uint8 of shape (n, dim / 8) rounded up. C-contiguous arrays of the index's
            own dtype (or float32) are copied once; other types are converted in parts. A read-only
            `numpy.memmap` of the very dtype is not copied: the index keeps it until it is built.
        ids : sequence of int or of str, optional
            One unique id for each vector: integers that fit int64, or strings. Without it ids are
            0, 1, 2, ..., continued over all calls. An index has ids of one kind only.
        packed : bool, default False
            The vectors are packed bits, most significant bit first (hamming only).
        n_jobs : int, default 1
            Threads, once the index is built; -1 for all cores that this process may use.

        Raises
        ------
        ValueError
            A vector holds NaN or infinity or a value that the dtype cannot hold (the message names
            the row), the shape is wrong, ids are not unique, of another kind or another number.
        StateError
            The index is closed.
        MemoryError
            There is not enough memory; a large input that had to be converted may then be in part
            in the index, unless that is built.

        Notes
        -----
        Items added to a built index are found by the next query, coded by its model, without
        neighbour lists of their own until `save` or `merge`. They cost some microseconds each in
        large batches, and memory in proportion to them; one alone costs about a millisecond.
        """
        if self.built:
            self._take(vectors, ids, packed=packed, n_jobs=n_jobs, is_update=False)
            return
        rows = inputs.Rows(vectors, self.dim, self.dtype, packed=packed)
        batch = inputs.NO_IDS if ids is None else inputs.read_ids(ids, "ids")
        if ids is not None and len(batch) != len(rows):
            raise ValueError(f"ids: expected one for each of {len(rows)} vectors, got {len(batch)}")
        self._check_can_add()
        if len(rows) == 0:
            return
        whole = rows.as_they_are()
        if whole is not None:
            self._add_block(rows, whole, batch, borrowed=inputs.is_read_only_map(whole))
            return
        if not rows.is_one_block():
            # All or nothing over several blocks: look before adding the first one.
            rows.check()
            self._check_new_ids(batch)
        for first, block in rows.blocks():
            self._add_block(rows, block, batch.part(first, first + len(block)), borrowed=False)

    def _add_block(
        self, rows: inputs.Rows, block: npt.NDArray[Any], ids: inputs.IdBatch, *, borrowed: bool
    ) -> None:
        self._add(block, _core.DTYPES[rows.input_type], ids.ints, ids.text, ids.offsets, borrowed)

    def _check_new_ids(self, batch: inputs.IdBatch) -> None:
        repeated = inputs.first_repeated(batch)
        if repeated is None:
            if batch.ints is not None:
                known = np.flatnonzero(self._find_ints(batch.ints) >= 0)
            elif batch.text is not None and batch.offsets is not None:
                known = np.flatnonzero(self._find_texts(batch.text, batch.offsets) >= 0)
            else:
                return
            if len(known) == 0:
                return
            repeated = batch.at(int(known[0]))
        raise ValueError(f"ids: expected unique ids, got {repeated!r} twice")

    def build(
        self,
        n_trees: int | None = None,
        recall: float | None = 0.95,
        n_jobs: int = -1,
        seed: int = 0,
        queries: npt.ArrayLike | None = None,
        progress: bool | Progress | None = None,
        out: Path | None = None,
        memory_limit: int | None = None,
        *,
        neighbours: int | None = None,
        force: bool = False,
    ) -> None:
        """Build the index; afterwards it can be queried and saved, and takes no more items.

        Parameters
        ----------
        n_trees : int, optional
            Trees to grow; more raise the recall for the same `search_k` and the size of the file.
            Default: chosen by the library.
        recall : float or None, default 0.95
            What queries aim at unless they say otherwise, above 0 and at most 1. None saves the
            time of measuring the recall curve: queries then give `search_k`, or are answered by a
            full scan until `tune` has measured it.
        n_jobs : int, default -1
            Threads; -1 for all cores that this process may use. Has no influence on the result.
        seed : int, default 0
            0..2**64 - 1. The same input, parameters and seed give the same bytes everywhere.
        queries : array_like, optional
            (m, dim) typical queries to measure the recall curve with. Without them rows of the data
            are held out for it, which suits queries that are distributed as the data are.
        progress : True or callable, optional
            True shows a bar; a callable gets (stage: str, done: int, total: int). What it raises
            stops the build.
        out : path, optional
            Build in this file instead of memory. It appears when the build succeeds, complete.
        memory_limit : int, optional
            Bytes of memory to stay below, with `out` and with vectors added from memory maps.
        neighbours : int, optional
            Near items kept for each item, 0..128, which queries walk along from their best
            candidates: fewer points are read for the same recall, at 3 or 4 bytes an entry, 24 to
            136 bytes an item of codes beside them, and more than half of the build's time. 0 leaves
            them out. Default: 16. Only indexes of more than 2,047 items of more than 16 dimensions
            under angular, cosine and euclidean have them: elsewhere they do not pay.
        force : bool, default False
            Let `out` replace a file that is not an annidx file.

        Raises
        ------
        ValueError
            An argument is wrong, or the index is empty.
        StateError
            The index is built already, or closed.
        OSError, MemoryError
            The file cannot be written, or memory is short. The index is as it was before.
        FileExistsError
            `out` is a file of another kind.
        KeyboardInterrupt
            Ctrl-C stops the build within a second; no file is left.

        Notes
        -----
        Time grows as n log n. The GIL is released.
        """
        trees = 0 if n_trees is None else inputs.whole_number(n_trees, "n_trees", 1, 65535)
        target = 0.0 if recall is None else _core.read_recall(recall)
        jobs = inputs.thread_count(n_jobs)
        number = inputs.whole_number(seed, "seed", 0, 2**64 - 1)
        limit = 0
        if memory_limit is not None:
            if out is None:
                raise ValueError("memory_limit: expected together with out=, got it alone")
            limit = inputs.whole_number(memory_limit, "memory_limit", 1, 2**63 - 1)
        where = None if out is None else inputs.file_path(out, "out")
        if where is not None:
            inputs.require_replaceable(where, force=force)
        entries = neighbours
        if entries is not None:
            entries = inputs.whole_number(entries, "neighbours", 0, 128)
        samples = None if queries is None else self._batch(queries, "queries")
        with reporter(progress) as report:
            self._build(
                trees,
                target,
                jobs,
                number,
                samples,
                report,
                None if where is None else os.fsencode(where),
                limit,
                lean=False,
                neighbours=entries,
            )
        if where is not None:
            self._path = os.path.abspath(where)

    def _batch(self, queries: object, name: str) -> npt.NDArray[Any]:
        """Read (m, dim) queries, at least one."""
        array, single = inputs.as_queries(
            queries, name, self.dim, bits=self.metric == "hamming", packed=False
        )
        if single or len(array) == 0:
            raise ValueError(f"{name}: expected shape (m, {self.dim}) with m of at least 1")
        inputs.check_finite(array, array, name, 0)
        return array

    # ---- saving ------------------------------------------------------------------------------

    def save(
        self,
        path: Path | WritableFile,
        metadata: dict[str, Any] | None = None,
        *,
        sets: Mapping[str, Items] | None = None,
        progress: bool | Progress | None = None,
        force: bool = False,
    ) -> None:
        """Write the index to a file, which appears complete or not at all.

        Parameters
        ----------
        path : path or binary file object
            Replaced atomically when it exists; processes that have the old file open keep it. Owner
            and permissions stay, as far as this process may set them. A file object gets the same
            bytes from where it stands on, in pieces; what an error leaves in it is its owner's.
        metadata : dict, optional
            Anything that JSON can say, kept with the index and given back as `metadata`. Default:
            what the index carries already.
        sets : mapping of str to ids, mask or IdSet, optional
            Sets of items that live in the file under these names: filters of every process that
            opens it, see `sets`. At most 4,096, names of at most 255 bytes of UTF-8; a set takes a
            bit an item of the index, or 4 bytes an item of its own if that is less. They take the
            place of all that the index carries. Default: those.
        progress : True or callable, optional
            As for `build`.
        force : bool, default False
            Replace a file that is not an annidx file, too.

        Raises
        ------
        ValueError
            The metadata cannot be written as JSON, or a set is none.
        StateError
            The index is not built, or closed.
        FileExistsError
            The path is a file of another kind: a mistyped name must lose no data.
        OSError
            With errno and file name; the old file is untouched and nothing is left behind.
        """
        if not isinstance(path, (str, os.PathLike)) and hasattr(path, "write"):
            self._write_to(writes_whole(path, "path"), metadata, sets, progress)
            return
        where = inputs.file_path(path, "path")
        inputs.require_replaceable(where, force=force)
        text = self._metadata_json() if metadata is None else as_json(metadata)
        self._check_built()
        with reporter(progress) as report:
            self._save_whole(where, text, sets, report)
        self._metadata = text
        self._path, self._url = os.path.abspath(where), None
        with open_index(self._path, warm=False, lock=False) as saved:
            self._file_identity = saved._identity()

    @consistently
    def _save_whole(
        self,
        where: str,
        metadata: str,
        sets: Mapping[str, Items] | None,
        report: Callable[[str, int, int], object] | None,
    ) -> None:
        """Write one file; a changed index goes on from it."""
        encoded = None if sets is None else self._encoded_sets(named_bits(self, sets))
        path, text = os.fsencode(where), metadata.encode("utf-8")
        if self._is_changed():
            version = self._version
            if self._save_anew(path, text, encoded, version, report):
                self._file_identity = None
                return
            raise ValueError("the index was changed meanwhile")
        self._save(path, text, encoded, report)
        if encoded is not None:
            self._replace_sets(encoded)

    @property
    def sets(self) -> NamedSets:
        """The sets that the index was saved with: a mapping of names to `IdSet`.

        Notes
        -----
        A filter may name one: `index.query(v, allow="in_stock")`. A set is read from the file once
        for such filters, and each time it is asked for here; both cost time that grows with it.
        """
        return NamedSets(self)

    def to_bytes(
        self,
        metadata: dict[str, Any] | None = None,
        *,
        sets: Mapping[str, Items] | None = None,
    ) -> bytes:
        """Return what `save` writes to a file; `annidx.load` opens it.

        Parameters
        ----------
        metadata, sets : optional
            As for `save`; the index itself keeps those it has.

        Raises
        ------
        StateError, ValueError
            As for `save`.

        Notes
        -----
        Takes memory of the size of the file. Safe from many threads.
        """
        file = io.BytesIO()
        self._write_to(file.write, metadata, sets, None)
        return file.getvalue()

    def _write_to(
        self,
        write: Callable[[bytes], object],
        metadata: dict[str, Any] | None,
        sets: Mapping[str, Items] | None,
        progress: bool | Progress | None,
    ) -> None:
        """Hand the bytes of a file to a callable, in pieces."""
        text = self._metadata_json() if metadata is None else as_json(metadata)
        self._check_built()
        encoded = None if sets is None else self._encoded_sets(named_bits(self, sets))
        with reporter(progress) as report:
            self._write(write, text.encode("utf-8"), encoded, report)

    def _metadata_json(self) -> str:
        if self._metadata is None:
            self._metadata = self._metadata_text().decode("utf-8")
        return self._metadata

    @property
    def metadata(self) -> dict[str, Any] | None:
        """What was given to `save`, or None. Each access gives a new dict."""
        text = self._metadata_json()
        if not text:
            return None
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"the metadata is damaged: not valid JSON: {error}") from None
        if not isinstance(value, dict):
            raise FormatError("the metadata is damaged: expected a JSON object")
        return value

    @property
    def path(self) -> str | None:
        """Absolute path of the file this index was loaded from, built into or last saved to."""
        return self._path

    # ---- asking ------------------------------------------------------------------------------

    @consistently
    def _query_any(
        self,
        vectors: npt.ArrayLike,
        k: int | None,
        recall: float | None,
        search_k: int | None,
        allow: Filter,
        deny: Filter,
        radius: float | None,
        n_jobs: int,
        packed: bool,
        exact: bool,
    ) -> Found:
        """Answer what `query` does not answer itself: other types, shapes and filters."""
        self._check_built()
        queries, single = inputs.as_queries(
            vectors, "vectors", self.dim, bits=self.metric == "hamming", packed=packed
        )
        return self._answer(
            queries, None, True, single, k, recall, search_k, allow, deny, radius, n_jobs, exact
        )

    def _answer(
        self,
        queries: npt.NDArray[Any] | None,
        rows: npt.NDArray[np.uint32] | None,
        include_self: bool,
        single: bool,
        k: int | None,
        recall: float | None,
        search_k: int | None,
        allow: Filter,
        deny: Filter,
        radius: float | None,
        n_jobs: int,
        exact: bool,
    ) -> Found:
        """Run prepared queries, or those that the items of `rows` are, part by part."""
        jobs = inputs.thread_count(n_jobs)
        given = queries if queries is not None else rows
        assert given is not None
        if k is None:
            within = [
                found
                for part, eligible in eligible_parts(self, allow, deny, len(given))
                for found in self._query_within(
                    None if queries is None else queries[part],
                    None if rows is None else rows[part],
                    include_self,
                    radius,
                    jobs,
                    eligible,
                )
            ]
            return within[0] if single else self._joined(within)
        parts = [
            self._query_many(
                None if queries is None else queries[part],
                None if rows is None else rows[part],
                include_self,
                k,
                recall,
                search_k,
                radius,
                jobs,
                eligible,
                exact,
            )
            for part, eligible in eligible_parts(self, allow, deny, len(given))
        ]
        if len(parts) == 1:
            ids, distances = parts[0]
        else:
            ids = np.concatenate([part[0] for part in parts])
            distances = np.concatenate([part[1] for part in parts])
        if single:
            found = int(np.count_nonzero(~np.isnan(distances[0])))
            return ids[0, :found], distances[0, :found]
        return self._padded(ids, distances, operator.index(k))

    def _joined(self, answers: list[Found]) -> Found:
        """Put answers of any length into the rows of a batch, as wide as the longest."""
        shape = len(answers), max((len(ids) for ids, _ in answers), default=0)
        all_ids = np.full(shape, None) if self._has_text_ids else np.full(shape, -1, dtype=np.int64)
        all_distances = np.full(shape, np.nan)
        for row, (ids, distances) in enumerate(answers):
            all_ids[row, : len(ids)] = ids
            all_distances[row, : len(ids)] = distances
        return all_ids, all_distances

    def _padded(self, ids: npt.NDArray[Any], distances: npt.NDArray[np.float64], k: int) -> Found:
        """Widen the answers of a batch to k places: the core gives no more than there are items."""
        count, width = ids.shape
        if width == k:
            return ids, distances
        all_ids = np.full((count, k), None if self._has_text_ids else -1, dtype=ids.dtype)
        all_distances = np.full((count, k), np.nan)
        all_ids[:, :width] = ids
        all_distances[:, :width] = distances
        return all_ids, all_distances

    @consistently
    def _query_items_any(
        self,
        ids: Ids,
        k: int | None,
        include_self: bool,
        recall: float | None,
        search_k: int | None,
        allow: Filter,
        deny: Filter,
        radius: float | None,
        n_jobs: int,
        missing: Missing,
    ) -> Found:
        """Answer what `query_items` does not answer itself: several items, and filters."""
        self._check_built()
        single = inputs.is_one_id(ids)
        rows = self._rows_of([ids] if single else ids, missing)
        unknown = rows < 0
        found, distances = self._answer(
            None,
            # Some row, so that the filters of a batch stay beside their queries.
            np.where(unknown, 0, rows).astype(np.uint32),
            bool(include_self),
            single,
            k,
            recall,
            search_k,
            allow,
            deny,
            radius,
            n_jobs,
            False,
        )
        return self._without(unknown, found, distances, fits=k is None)

    def _without(
        self,
        unknown: npt.NDArray[np.bool_],
        ids: npt.NDArray[Any],
        distances: npt.NDArray[np.float64],
        *,
        fits: bool,
    ) -> Found:
        """Empty some answers; with `fits` the batch becomes as wide as what is left."""
        if not unknown.any():
            return ids, distances
        if ids.ndim == 1:
            return ids[:0], distances[:0]
        ids[unknown] = None if self._has_text_ids else -1
        distances[unknown] = np.nan
        width = ids.shape[1]
        if fits:
            width = int((~np.isnan(distances)).sum(axis=1).max(initial=0))
        return ids[:, :width], distances[:, :width]

    def query_like(
        self,
        positive: Id | Ids | npt.ArrayLike,
        negative: Id | Ids | npt.ArrayLike | None = None,
        k: int = 10,
        *,
        weights: npt.ArrayLike | None = None,
        diversity: float = 0.0,
        recall: float | None = None,
        search_k: int | None = None,
        allow: Filter = None,
        deny: Filter = None,
        missing: Missing = "raise",
    ) -> Found:
        """Find items that are like some, and unlike others.

        Parameters
        ----------
        positive, negative : ids or vectors
            Items by their ids, one or several; or vectors, floats of shape (dim,) or any numbers of
            shape (m, dim). At least one positive.
        k : int, default 10
            Items wanted, at least 1.
        weights : array_like, optional
            How much each positive counts, then each negative, numbers from 0 up. Those of the
            negatives may be left out. Default 1.
        diversity : float, default 0
            0..1: how much the items of the answer shall differ among themselves. Above 0 they are
            chosen from the 5 k nearest (at least 50) by maximal marginal relevance.
        recall, search_k, allow, deny
            As for `query`.
        missing : {"raise", "skip"}, default "raise"
            What becomes of an id that the index does not hold: an error, or it does not count.

        Returns
        -------
        ids, distances : ndarray
            Shape (r,), r = min(k, items that qualify), as for one `query`; items given as examples
            are not among them. Distances are those from the query that the examples make. Nearest
            first; with diversity in the order of choice.

        Raises
        ------
        KeyError
            The index does not hold an id, unless those are skipped.
        ValueError
            An argument is wrong, no example is left, or under angular and cosine the examples
            cancel each other out.
        StateError, FormatError
            As for `query`.

        Notes
        -----
        The query is the weighted mean of the positives: of their directions under angular and
        cosine, of the vectors themselves under euclidean, manhattan and dot; under hamming each bit
        is that of the majority, a tie that of the heaviest positive. Negatives push it away, from
        their mean, by min(1, weight of the negatives / weight of the positives) times the distance
        of the two means.

        Maximal marginal relevance [1]_ takes the nearest first, and then each time the item of the
        largest (1 - diversity) * similarity to the query - diversity * similarity to the most
        similar item taken. Similarity is the cosine (angular, cosine), the inner product (dot) or
        the negative distance.

        Safe from many threads. Costs one query, and with diversity the vectors of the items it
        chooses from.

        .. [1] J. Carbonell and J. Goldstein, The use of MMR, diversity-based reranking for
           reordering documents and producing summaries, SIGIR 1998.
        """
        self._check_built()
        wanted = inputs.whole_number(k, "k", 1, 2**32 - 1)
        spread = inputs.share(diversity, "diversity")
        liked, unliked = like.read_examples(self, positive, negative, weights, missing)
        query = like.blend(self.metric, liked, unliked)
        packed, _ = inputs.as_queries(
            query, "positive", self.dim, bits=self.metric == "hamming", packed=False
        )
        own = _core.SlotBits()
        own._fill(self, np.concatenate([liked.rows, unliked.rows]))
        ((_, eligible),) = eligible_parts(self, allow, deny, 1)
        others = ~own if eligible is None else eligible[0] - own
        pool = min(like.pool_size(wanted, spread), len(self))
        ids, distances = self._query_many(
            packed, None, True, pool, recall, search_k, None, 1, [others], False
        )
        found = int(np.count_nonzero(~np.isnan(distances[0])))
        ids, distances = ids[0, :found], distances[0, :found]
        if spread > 0 and found > 0:
            order = like.diversified(self.metric, query, self.get_vectors(ids), wanted, spread)
            return ids[order], distances[order]
        return ids[:wanted], distances[:wanted]

    def query_exact(
        self,
        vectors: npt.ArrayLike,
        k: int | None = 10,
        *,
        allow: Filter = None,
        deny: Filter = None,
        radius: float | None = None,
        n_jobs: int = 1,
        packed: bool = False,
    ) -> Found:
        """Find the true nearest neighbours by comparing with every item.

        What `query` is to be compared with.

        Parameters
        ----------
        vectors, k, allow, deny, radius, n_jobs, packed
            As for `query`, which says more of each: vectors of shape (dim,) or (m, dim); neighbours
            wanted, default 10; items that may, or may not, be returned; the largest distance;
            threads, default 1; whether the vectors are packed bits.

        Returns
        -------
        ids, distances : ndarray
            As `query` returns them: shapes (r,), or (m, k) for a batch; nearest first.

        Raises
        ------
        ValueError, StateError, FormatError
            As for `query`.

        Notes
        -----
        Cost grows with the number of items. Safe from many threads.
        """
        return self._query_any(vectors, k, None, None, allow, deny, radius, n_jobs, packed, True)

    # ---- items -------------------------------------------------------------------------------

    def _rows_of(self, ids: object, missing: Missing) -> npt.NDArray[np.int64]:
        """Resolve ids; unknown ones are an error, or -1."""
        skip = inputs.one_of(missing, "missing", ("raise", "skip")) == "skip"
        rows = find_rows(self, ids, "ids")
        unknown = np.flatnonzero(rows < 0)
        if len(unknown) and not skip:
            raise KeyError(inputs.plain_id(list(ids)[int(unknown[0])]))  # type: ignore[call-overload]
        return rows

    @consistently
    def get_vectors(
        self, ids: Id | Ids, *, packed: bool = False, missing: Missing = "raise"
    ) -> npt.NDArray[Any]:
        """Return the vectors of items, as the index keeps them.

        Parameters
        ----------
        ids : id or sequence of ids
            One id gives shape (dim,), several (m, dim).
        packed : bool, default False
            Return packed bits, uint8 of dim / 8 bytes rounded up (hamming only).
        missing : {"raise", "skip"}, default "raise"
            What becomes of an id that the index does not hold: an error, or it is left out, and m
            is the number of those that are there. One id alone is never left out.

        Returns
        -------
        ndarray
            float32; uint8 of 0 and 1 for hamming.

        Raises
        ------
        KeyError
            The index does not hold an id, unless those are skipped.
        StateError
            The index is not built, or closed.
        """
        if packed and self.metric != "hamming":
            raise ValueError("packed: expected False: only a hamming index has packed bits")
        single = inputs.is_one_id(ids)
        rows = self._rows_of([ids], "raise") if single else self._rows_of(ids, missing)
        vectors = self._vectors(rows[rows >= 0].astype(np.uint32))
        if self.metric == "hamming" and not packed:
            vectors = np.unpackbits(vectors, axis=1, count=self.dim)
        result: npt.NDArray[Any] = vectors[0] if single else vectors
        return result

    @property
    def ids(self) -> npt.NDArray[np.int64] | TextIds:
        """Ids of all items, in row order: the order in which they were added.

        Returns
        -------
        ndarray or TextIds
            int64 of shape (n,), a copy; for text ids a sequence of str that makes each as it is
            asked for.

        Raises
        ------
        StateError
            The index is not built, or closed.
        """
        if self._has_text_ids:
            return TextIds(self)
        return self._int_ids()

    @consistently
    def export(self, path: Path, *, packed: bool = False, force: bool = False) -> None:
        """Write the vectors of all items to a file that other programs read.

        Parameters
        ----------
        path : path
            Ends with .npy: the vectors, (n, dim) in row order. Ends with .parquet (needs pyarrow):
            columns "id" and "vector", a fixed-size list. Appears complete or not at all; the
            index's own file is never replaced.
        packed : bool, default False
            Write packed bits, uint8 of dim / 8 bytes rounded up (hamming and .npy only).
        force : bool, default False
            Replace a file that exists.

        Raises
        ------
        ValueError
            Another ending, the index's own file, or `packed` where there are no bits.
        FileExistsError
            The file exists.
        StateError
            The index is not built, or closed.
        OSError
            The file cannot be written.

        Notes
        -----
        Vectors are those the index keeps: float32, or uint8 of 0 and 1 for hamming. Some thousand
        rows are in memory at a time.
        """
        write_export(self, inputs.file_path(path, "path"), packed=packed, force=force)

    def __iter__(self) -> Iterator[int] | Iterator[str]:
        """Go through the ids of all items, in row order."""
        ids = self.ids
        return iter(ids) if isinstance(ids, TextIds) else iter(ids.tolist())

    # ---- measuring ---------------------------------------------------------------------------

    def tune(
        self,
        queries: npt.ArrayLike | None = None,
        k: int = 10,
        *,
        n_jobs: int = -1,
        progress: bool | Progress | None = None,
    ) -> list[dict[str, float]]:
        """Measure recall against effort, and let `recall=` follow what was measured.

        Parameters
        ----------
        queries : array_like, optional
            (m, dim) typical queries; some thousand give a curve good to about 0.005. Without them
            nothing is measured and the present curve is returned.
        k : int, default 10
            Neighbours that the recall counts.
        n_jobs : int, default -1
            Threads; -1 for all cores.
        progress : True or callable, optional
            As for `build`.

        Returns
        -------
        list of dict
            Points of the curve for this k, recall ascending: "k", "recall" (0..1), "candidates",
            "rerank" and "exact" (points inspected in each stage of the search).

        Raises
        ------
        ValueError, StateError
            As for `query`.

        Notes
        -----
        Changes this object only, until it is saved. Queries wait meanwhile. Costs an exact search
        for each query.
        """
        self._check_built()
        wanted = inputs.whole_number(k, "k", 1, 2**32 - 1)
        jobs = inputs.thread_count(n_jobs)
        if queries is not None:
            samples = self._batch(queries, "queries")
            with reporter(progress) as report:
                self._tune(samples, wanted, jobs, report)
        return [point for point in self._info()["curve"] if point["k"] == wanted]

    def evaluate(
        self,
        queries: npt.ArrayLike,
        k: int = 10,
        recall: float | Sequence[float] = (0.9, 0.95, 0.99),
        *,
        n_jobs: int = -1,
    ) -> list[dict[str, Any]]:
        """Measure what queries get: recall against the truth, and time.

        Parameters
        ----------
        queries : array_like
            (m, dim) typical queries; a thousand give recall to about 0.005.
        k : int, default 10
            Neighbours wanted.
        recall : float or sequence of float, default (0.9, 0.95, 0.99)
            The targets to measure, above 0 and at most 1.
        n_jobs : int, default -1
            Threads for the exact search; -1 for all cores. Queries are timed on one.

        Returns
        -------
        list of dict
            For each target "k", "target", "recall" (0..1, the share of true neighbours in the
            answers; one as near as the last true one counts as true), "microseconds" (mean of one
            query a call from Python, warm, in the fastest of several rounds) and "candidates"
            (points scanned).

        Raises
        ------
        ValueError, StateError
            As for `query`.

        Notes
        -----
        Changes nothing; `tune` makes targets follow what it measures. Costs an exact search for
        each query, and asks all of them some times for each target. Times are those of this
        machine, whatever else it does included.
        """
        self._check_built()
        samples = self._batch(queries, "queries")
        wanted = inputs.whole_number(k, "k", 1, 2**32 - 1)
        targets = [recall] if np.ndim(recall) == 0 else list(recall)  # type: ignore[arg-type]
        if not targets:
            raise ValueError("recall: expected at least one target, got none")
        jobs = inputs.thread_count(n_jobs)
        return evaluate(self, samples, wanted, [_core.read_recall(one) for one in targets], jobs)

    def info(self) -> dict[str, Any]:
        """Describe the index.

        Returns
        -------
        dict
            "dim", "metric", "dtype", "items", "built", "ids" ("int" or "str"), "path",
            "metadata"; once built also "sets" (dict of names and sizes), "n_trees", "leaves",
            "file_bytes", "vector_bytes", "code_bytes" (of one vector), "format_version",
            "library_version", "identity", "default_recall", "value_scale", "seed", "scan", "curve"
            (list of dict) and "sections" (list of dict with "name", "offset" and "bytes").
        """
        facts: dict[str, Any] = {
            "dim": self.dim,
            "metric": self.metric,
            "dtype": self.dtype,
            "ids": "str" if self._has_text_ids else "int",
            "path": self._path,
            "metadata": self.metadata,
        }
        facts.update(self._info())
        if self.built:
            facts["sets"] = self._named_sets()
        return facts

    def reload_if_changed(self) -> bool:
        """Not for this index, which stays with the file that it mapped.

        Raises
        ------
        StateError
            Always. An index that `load` opened with `follow=True` goes over to a new file.
        """
        raise StateError("the index does not follow its file: annidx.load(path, follow=True) does")

    # ---- being an object ---------------------------------------------------------------------

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return "Index(closed)"
        try:
            items = f"{len(self)} items"
        except StateError:
            items = "being built"
        state = "built" if self.built else "not built"
        place = "" if self._path is None else f", path={self._path!r}"
        return (
            f"Index(dim={self.dim}, metric={self.metric!r}, dtype={self.dtype!r}, "
            f"{items}, {state}{place})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        self._check_built()
        if self._is_changed():
            return self._reduce_changed()
        if self._path is not None:
            place = self._url or self._path
            return _load_same, (place, self._file_identity or self._identity())
        return image_index, (self.to_bytes(),)

    def _reduce_changed(self) -> tuple[Any, ...]:
        identity = self._info()["base_identity"]
        if self._path is None:
            return image_index, (self.to_bytes(),)
        files = self._files()
        are_shards = any(kind != "changes" for _, _, kind in files[1:])
        if are_shards and self._opened_from is not None:
            places, newest_wins, version = self._opened_from
            if version == self._version:
                return _load_all, (places, newest_wins, [own for _, own, _ in files])
        return _load_changed, (self._url or self._path, identity, self._changes())


def open_index(path: str, *, warm: bool, lock: bool) -> Index:
    """Map a file whose path is checked already; see `annidx.load`."""
    index = Index.__new__(Index)
    index._open(os.fsencode(path), warm, lock)
    index._path = os.path.abspath(path)
    index._file_identity = index._metadata = None
    return index


def open_indexes(paths: list[str], *, warm: bool, lock: bool, newest_wins: bool) -> Index:
    """Map several files as one index; see `annidx.load`."""
    index = Index.__new__(Index)
    index._open_all([os.fsencode(path) for path in paths], warm, lock, newest_wins)
    index._path, index._url = os.path.abspath(paths[0]), None
    index._file_identity = index._metadata = None
    places = [os.path.abspath(path) for path in paths]
    index._opened_from = places, newest_wins, index._version
    return index


def fetched_index(url: str, *, warm: bool, lock: bool) -> Index:
    """Map the file of a URL; see `annidx.load`."""
    index = open_index(fetched_file(url), warm=warm, lock=lock)
    index._url = url
    return index


def image_index(image: object) -> Index:
    """Open the bytes of a file; see `annidx.load`."""
    index = Index.__new__(Index)
    index._open_image(image)
    index._path = index._file_identity = index._metadata = None
    return index


def _load_same(place: str, identity: str) -> Index:
    """Unpickle: map the file again, if it still holds the same index."""
    open_place = fetched_index if is_url(place) else open_index
    index = open_place(place, warm=False, lock=False)
    if index._identity() != identity:
        index.close()
        raise FormatError(
            f"{place}: holds another index than when it was pickled: expected identity {identity}"
        )
    return index


def _load_all(places: list[str], newest_wins: bool, identities: list[str]) -> Index:
    """Unpickle: map several files again, if they still hold the same."""
    index = open_indexes(places, warm=False, lock=False, newest_wins=newest_wins)
    found = index._files()
    for place, expected, (_, identity, _) in zip(places, identities, found, strict=True):
        if identity != expected:
            index.close()
            raise FormatError(
                f"{place}: holds another index than when it was pickled: expected identity "
                f"{expected}, got {identity}"
            )
    return index


def _load_changed(place: str, identity: str, changes: bytes) -> Index:
    """Unpickle: map the file again, if it is the same, and change it as it was changed."""
    index = _load_same(place, identity)
    index._apply_changes(changes)
    return index


def as_json(metadata: object) -> str:
    if not isinstance(metadata, dict):
        raise ValueError(f"metadata: expected a dict, got {_core.described(metadata)}")
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"metadata: cannot be written as JSON: {error}") from None
    return text
