# binding.pyx owns the border between Python and the core: buffers in, arrays out, one call without
# the GIL, and the translation of C++ exceptions in one place. It must not hold loops over vectors
# or search logic; what Python callers may pass is decided in index.py and io/inputs.py, but for the
# arguments of a query, which are read here because a query's time is counted in microseconds.
"""The core of annidx as index.py sees it. Private: use `annidx.Index`."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals, PyErr_Occurred
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport isnan
from libcpp.utility cimport move
cimport numpy as cnp

import operator
import os

import numpy as np

from annidx.errors import FormatError, StateError

cnp.import_array()
prepare_thread()

METRICS = {
    "angular": <uint32_t>Metric.angular,
    "cosine": <uint32_t>Metric.cosine,
    "euclidean": <uint32_t>Metric.euclidean,
    "manhattan": <uint32_t>Metric.manhattan,
    "dot": <uint32_t>Metric.dot,
    "hamming": <uint32_t>Metric.hamming,
}
DTYPES = {
    "float32": <uint32_t>Dtype.float32,
    "float16": <uint32_t>Dtype.float16,
    "int8": <uint32_t>Dtype.int8,
    "uint8": <uint32_t>Dtype.uint8,
    "bits": <uint32_t>Dtype.bits,
}
METRIC_NAMES = {number: name for name, number in METRICS.items()}
DTYPE_NAMES = {number: name for name, number in DTYPES.items()}

cdef int64_t NO_ID = -1


# ---- errors ------------------------------------------------------------------------------

cdef int raise_py_error() except *:
    """Turn the C++ exception being handled into a Python one."""
    cdef Caught caught
    describe_caught(&caught)
    if caught.code == <uint32_t>ErrorCode.interrupted and PyErr_Occurred() != NULL:
        return 0  # what stopped the work is pending already
    message = caught.message.decode("utf-8", "replace")
    if caught.code == <uint32_t>ErrorCode.invalid_argument:
        raise ValueError(message)
    if caught.code == <uint32_t>ErrorCode.format:
        raise FormatError(message)
    if caught.code == <uint32_t>ErrorCode.state:
        raise StateError(message)
    if caught.code == <uint32_t>ErrorCode.io:
        # OSError shows errno and path itself.
        path = os.fsdecode(caught.path)
        message = message.replace(f" '{path}'", "").removesuffix(f" (errno {caught.os_errno})")
        raise OSError(caught.os_errno, message, path)
    if caught.code == <uint32_t>ErrorCode.memory:
        raise MemoryError(message)
    if caught.code == <uint32_t>ErrorCode.not_found:
        raise KeyError(message)
    if caught.code == <uint32_t>ErrorCode.out_of_range:
        raise IndexError(message)
    raise RuntimeError(message)


include "arguments.pxi"
include "slot_bits.pxi"
include "tally.pxi"


cdef unique_ptr[PythonMonitor] _monitor_for(object progress) except *:
    """Listens for Ctrl-C, and reports to `progress` unless that is None.

    The caller keeps `progress` alive.
    """
    cdef PyObject* listener = NULL
    if progress is not None:
        listener = <PyObject*>progress
    cdef unique_ptr[PythonMonitor] monitor
    monitor.reset(new PythonMonitor(listener))
    return move(monitor)


# ---- the index -----------------------------------------------------------------------------

@cython.no_gc_clear
cdef class CoreIndex:
    """The core's index, guarded: see gate.h for who may be inside when.

    No method may enter again while it is inside: one who waits to be alone keeps newcomers out.
    The fields below mirror the core's state; they change only while a caller is inside alone, or,
    of a built index, with `version`: what must fit together is asked of one core.
    """

    cdef Gate gate
    cdef Metric metric_
    cdef Dtype dtype_
    cdef IdKind id_kind
    cdef uint32_t dim_
    cdef uint64_t items
    cdef cbool is_built
    cdef cbool is_adopted  # has had a core; stays true after close
    cdef uint64_t version  # counts changes of the built index
    cdef object identity_  # as it was first asked for: tuning does not unbind an IdSet
    cdef dict named  # named sets that were asked for, as filters that do not keep the index alive
    cdef list borrowed  # arrays that the core reads from until the build ends
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        self.borrowed = []
        self.named = {}

    # -- entering ----------------------------------------------------------------------------

    cdef Index* _enter(self) except NULL:
        """Pair with self.gate.leave()."""
        cdef Entry entry = self.gate.enter()
        if entry == Entry.entered:
            return self.gate.index()
        while entry != Entry.entered:
            self._wait_for_entry(entry)
            entry = self.gate.enter()
        return self.gate.index()

    cdef Index* _enter_alone(self, Work work) except NULL:
        """Pair with self.gate.leave_alone()."""
        cdef unsigned long thread = PyThread_get_thread_ident()
        cdef Entry entry = self.gate.enter_alone(work, thread)
        try:
            while entry != Entry.entered:
                self._wait_for_entry(entry)
                entry = self.gate.enter_alone(work, thread)
        except BaseException:
            self.gate.stop_waiting()
            raise
        return self.gate.index()

    cdef int _wait_for_entry(self, Entry why) except -1:
        if why == Entry.closed:
            raise StateError("the index is closed")
        if self.gate.work() == Work.building:
            raise StateError("the index is being built: wait for build() to return")
        if self.gate.work() != Work.none and self.gate.owner() == PyThread_get_thread_ident():
            raise StateError("a progress callable must not use the index that reports to it")
        with nogil:
            rest()
        return PyErr_CheckSignals()

    cdef Index* _enter_built(self) except NULL:
        cdef Index* core = self._enter()
        if not self.is_built:
            self.gate.leave()
            raise StateError("the index is not built: call build() first")
        return core

    cdef void _remember(self, Index* core) noexcept:
        self.metric_ = core.metric()
        self.dtype_ = core.dtype()
        self.dim_ = core.dim()
        self.items = core.items()
        self.is_built = core.built()
        self.id_kind = core.id_kind()

    cdef int _adopt(self, unique_ptr[Index] core) except -1:
        if self.is_adopted:
            raise StateError("the index is made already: make another one instead")
        self._remember(core.get())
        self.is_adopted = True
        self.gate.open(move(core))
        return 0

    # -- making ------------------------------------------------------------------------------

    def _create(self, uint32_t metric, uint32_t dtype, uint32_t dim):
        cdef unique_ptr[Index] core
        core.reset(new Index(<Metric>metric, <Dtype>dtype, dim))
        self._adopt(move(core))

    def _open(self, bytes path not None, bint warm, bint lock):
        cdef unique_ptr[Index] core
        cdef string where = path
        cdef OpenOptions options
        options.warm = warm
        options.lock = lock
        with nogil:
            core = open_index(where, options)
        self._adopt(move(core))

    def _open_all(self, list paths not None, bint warm, bint lock, bint newest_wins):
        """Open several files as one index."""
        cdef unique_ptr[Index] core
        cdef vector[string] where = paths
        cdef OpenOptions options
        options.warm = warm
        options.lock = lock
        with nogil:
            core = open_indexes(where, options, newest_wins)
        self._adopt(move(core))

    def _open_image(self, image):
        """Open the bytes of an object: where they lie, which keeps the object, or a copy."""
        cdef unique_ptr[Index] core
        cdef shared_ptr[HeldBuffer] buffer
        hold_buffer(image, &buffer)
        with nogil:
            core = index_in(buffer)
        self._adopt(move(core))

    def _add(
        self,
        cnp.ndarray rows not None,
        uint32_t input_type,
        cnp.ndarray int64_ids,
        bytes text,
        cnp.ndarray text_offsets,
        bint borrowed,
    ):
        """Add C-contiguous rows of an input type; ids in one of the two forms, or none."""
        cdef AddedIds ids
        if not cnp.PyArray_IS_C_CONTIGUOUS(rows):
            raise ValueError("vectors: expected rows that lie one after the other in memory")
        cdef const void* data = cnp.PyArray_DATA(rows)
        cdef uint64_t count = rows.shape[0]
        if int64_ids is not None:
            ids.int64_ids = <const int64_t*>cnp.PyArray_DATA(int64_ids)
        if text is not None:
            ids.text = PyBytes_AS_STRING(text)
            ids.text_offsets = <const uint64_t*>cnp.PyArray_DATA(text_offsets)
        cdef Index* core = self._enter_alone(Work.short_change)
        try:
            with nogil:
                core.add(data, <InputType>input_type, count, ids, borrowed)
            if borrowed:
                self.borrowed.append(rows)
            self._remember(core)
        finally:
            self.gate.leave_alone()

    def _build(
        self,
        uint32_t n_trees,
        double recall,
        int n_jobs,
        uint64_t seed,
        cnp.ndarray queries,
        object progress,
        bytes out,
        uint64_t memory_limit,
        bint lean,
        object neighbours,
    ):
        cdef BuildOptions options
        options.n_trees = n_trees
        options.recall = recall
        options.n_jobs = n_jobs
        options.seed = seed
        options.memory_limit = memory_limit
        options.lean = lean
        if neighbours is not None:
            options.neighbours = neighbours
        if queries is not None:
            options.queries = cnp.PyArray_DATA(queries)
            options.n_queries = queries.shape[0]
        if out is not None:
            options.out_path = out
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(progress)
        options.monitor = monitor.get()
        cdef Index* core = self._enter_alone(Work.building)
        try:
            with nogil:
                core.build(options)
            self.borrowed.clear()
            self.identity_ = None
            self._remember(core)
        finally:
            self.gate.leave_alone()

    def _train(
        self, double recall, int n_jobs, uint64_t seed, uint64_t expected_items, object progress
    ):
        """Become an index without rows, trained on the rows added so far."""
        cdef BuildOptions options
        options.recall = recall
        options.n_jobs = n_jobs
        options.seed = seed
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(progress)
        options.monitor = monitor.get()
        cdef Index* core = self._enter_alone(Work.building)
        try:
            with nogil:
                core.train(options, expected_items)
            self.borrowed.clear()
            self.identity_ = None
            self._remember(core)
        finally:
            self.gate.leave_alone()

    def _encode(
        self, CoreIndex rows not None, bytes path not None, int n_jobs, uint64_t memory_limit,
        object progress,
    ):
        """Code the rows added to another index, which is being filled, into a part."""
        cdef string where = path
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(progress)
        cdef Index* core = self._enter_built()
        cdef Index* given
        try:
            given = rows._enter_alone(Work.building)
            try:
                with nogil:
                    core.encode(given, where, n_jobs, memory_limit, monitor.get())
                rows.borrowed.clear()
                rows._remember(given)
            finally:
                rows.gate.leave_alone()
        finally:
            self.gate.leave()

    # -- changing ----------------------------------------------------------------------------

    @property
    def _version(self):
        return self.version

    cdef Index* _enter_change(self) except NULL:
        """Enter as one who changes the index while others go on reading. Pair with _leave_change."""
        cdef Index* core = self._enter_built()
        while not self.gate.begin_change():
            self.gate.leave()
            with nogil:
                rest()
            PyErr_CheckSignals()
            core = self._enter_built()
        return self.gate.index()

    cdef void _leave_change(self) noexcept:
        self.gate.end_change()
        self.gate.leave()

    cdef int _become(self, unique_ptr[Index] core) except -1:
        """Between _enter_change and _leave_change: let newcomers find another index."""
        cdef Index* next_core = core.get()
        self.gate.replace(move(core))
        with cython.critical_section(self):
            self.identity_ = None
            self.named = {}
            self.version += 1
            self._remember(next_core)
        return 0

    def _with_rows(
        self,
        cnp.ndarray rows not None,
        uint32_t input_type,
        cnp.ndarray int64_ids,
        bytes text,
        cnp.ndarray text_offsets,
        bint is_update,
        int n_jobs,
    ):
        """Add rows to a built index, or let them replace those of the same ids."""
        cdef AddedIds ids
        if not cnp.PyArray_IS_C_CONTIGUOUS(rows):
            raise ValueError("vectors: expected rows that lie one after the other in memory")
        cdef const void* data = cnp.PyArray_DATA(rows)
        cdef uint64_t count = rows.shape[0]
        if int64_ids is not None:
            ids.int64_ids = <const int64_t*>cnp.PyArray_DATA(int64_ids)
        if text is not None:
            ids.text = PyBytes_AS_STRING(text)
            ids.text_offsets = <const uint64_t*>cnp.PyArray_DATA(text_offsets)
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(None)
        cdef unique_ptr[Index] changed
        cdef Index* core = self._enter_change()
        try:
            with nogil:
                changed = core.with_rows(
                    data, <InputType>input_type, count, ids, is_update, n_jobs, monitor.get()
                )
            self._become(move(changed))
        finally:
            self._leave_change()

    def _remove_ids(self, cnp.ndarray int64_ids, bytes text, cnp.ndarray text_offsets):
        """Remove the items of ids. Returns the positions (int64) of those there are not.

        When there are such, nothing is removed unless the caller asks again without them.
        """
        cdef unique_ptr[Index] changed
        cdef vector[Row] rows
        cdef Py_ssize_t i
        cdef Row row
        cdef Py_ssize_t count = 0
        cdef const int64_t* number = NULL
        cdef const uint64_t* offsets = NULL
        cdef const char* start = NULL
        if int64_ids is not None:
            count = int64_ids.shape[0]
            number = <const int64_t*>cnp.PyArray_DATA(int64_ids)
        elif text is not None:
            count = text_offsets.shape[0] - 1
            offsets = <const uint64_t*>cnp.PyArray_DATA(text_offsets)
            start = PyBytes_AS_STRING(text)
        cdef vector[Py_ssize_t] missing
        cdef Index* core = self._enter_change()
        try:
            with nogil:
                for i in range(count):
                    if number != NULL:
                        row = core.find(number[i])
                    else:
                        row = core.find_text(
                            string_view(start + offsets[i], offsets[i + 1] - offsets[i])
                        )
                    if row == kNoRow:
                        missing.push_back(i)
                    else:
                        rows.push_back(row)
            if missing.empty() and not rows.empty():
                with nogil:
                    changed = core.without_rows(rows)
                self._become(move(changed))
        finally:
            self._leave_change()
        return list(missing)

    def _is_changed(self):
        cdef Index* core = self._enter()
        try:
            return core.is_changed()
        finally:
            self.gate.leave()

    def _save_changes(self, bytes path not None, int n_jobs, object progress):
        cdef string where = path
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(progress)
        cdef Index* core = self._enter_built()
        try:
            with nogil:
                core.save_changes(where, n_jobs, monitor.get())
        finally:
            self.gate.leave()

    def _changes(self):
        """Return what save_changes would write."""
        cdef Image image
        cdef Index* core = self._enter_built()
        try:
            with nogil:
                image = core.changes_to_bytes()
        finally:
            self.gate.leave()
        return PyBytes_FromStringAndSize(<const char*>image.data(), <Py_ssize_t>image.size())

    def _apply_changes(self, bytes image not None):
        cdef const char* start = PyBytes_AS_STRING(image)
        cdef uint64_t size = len(image)
        cdef unique_ptr[Index] changed
        cdef Index* core = self._enter_change()
        try:
            with nogil:
                changed = core.with_changes(start, size)
            self._become(move(changed))
        finally:
            self._leave_change()

    def _save_anew(
        self,
        bytes path not None,
        bytes metadata not None,
        bytes sets,
        uint64_t version,
        object progress,
    ):
        """Write all rows into one file, which is the index then. False: it is of another version."""
        cdef string where = path
        cdef string text = metadata
        cdef OpenOptions options
        cdef unique_ptr[Index] opened
        cdef Image named
        if sets is not None:
            named = _image_of(sets)
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(progress)
        cdef Index* core = self._enter_change()
        try:
            if version != self.version:
                return False
            if sets is None:
                named = core.encoded_sets()
            with nogil:
                core.save(where, text, named, monitor.get())
                opened = open_index(where, options)
            self._become(move(opened))
        finally:
            self._leave_change()
        return True

    def _merge(
        self,
        bytes path not None,
        bytes metadata not None,
        double recall,
        bint measure_recall,
        int64_t neighbours,
        uint32_t n_trees,
        int n_jobs,
        uint64_t memory_limit,
        object progress,
    ):
        """Write all rows into one file, with the named sets there are."""
        cdef MergeOptions options
        options.path = path
        options.metadata = metadata
        options.recall = recall
        options.measure_recall = measure_recall
        options.neighbours = neighbours
        options.n_trees = n_trees
        options.n_jobs = n_jobs
        options.memory_limit = memory_limit
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(progress)
        options.monitor = monitor.get()
        cdef Index* core = self._enter_built()
        try:
            options.sets = core.encoded_sets()
            with nogil:
                core.merge(options)
        finally:
            self.gate.leave()

    def _save(self, bytes path not None, bytes metadata not None, bytes sets, object progress):
        """Write the file. sets: as `_encoded_sets` gives them; None: the present ones."""
        cdef string where = path
        cdef string text = metadata
        cdef Image named
        if sets is not None:
            named = _image_of(sets)
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(progress)
        cdef Index* core = self._enter_built()
        try:
            if sets is None:
                named = core.encoded_sets()
            with nogil:
                core.save(where, text, named, monitor.get())
        finally:
            self.gate.leave()

    def _write(self, write, bytes metadata not None, bytes sets, object progress):
        """Hand the bytes of the file that `_save` writes to a callable, piece by piece."""
        cdef string text = metadata
        cdef Image named
        if sets is not None:
            named = _image_of(sets)
        cdef unique_ptr[PythonSink] sink
        sink.reset(new PythonSink(<PyObject*>write))
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(progress)
        cdef Index* core = self._enter_built()
        try:
            if sets is None:
                named = core.encoded_sets()
            with nogil:
                core.write(sink.get(), text, named, monitor.get())
        finally:
            self.gate.leave()

    # -- named sets --------------------------------------------------------------------------

    def _named_sets(self):
        """Return the names of the sets and how many items each has, by name."""
        cdef vector[NamedSet] found
        cdef Index* core = self._enter_built()
        try:
            found = core.named_sets()
        finally:
            self.gate.leave()
        return {one.name.decode("utf-8"): one.count for one in found}

    def _named_bits(self, str name not None):
        """Return a named set as a filter, read once; None when there is none of this name."""
        cdef dict known
        with cython.critical_section(self):
            known = self.named
        bits = known.get(name)
        if bits is None:
            bits = SlotBits()
            if not bits._fill_named(self, name):
                return None
            bits._let_go()
            known[name] = bits
        return bits

    cdef object _named_or_same(self, object items):
        """The set that a name stands for; what is no name of a set stays as it is."""
        if type(items) is not str:
            return items
        named = self._named_bits(<str>items)
        return items if named is None else named

    def _encoded_sets(self, dict sets not None):
        """Return SlotBits of this index by their names as the file keeps them."""
        cdef vector[string] names
        cdef vector[const SlotSet*] bits
        cdef Image encoded
        for name, one in sets.items():
            self._check_set(<SlotBits?>one)
            names.push_back(<bytes>name.encode("utf-8"))
            bits.push_back((<SlotBits>one).bits.get())
        cdef Index* core = self._enter_built()
        try:
            with nogil:
                encoded = core.encoded_sets_of(names, bits)
        finally:
            self.gate.leave()
        return PyBytes_FromStringAndSize(<const char*>encoded.data(), <Py_ssize_t>encoded.size())

    def _replace_sets(self, bytes sets not None):
        """Let these, as `_encoded_sets` gives them, be the sets of this object."""
        cdef Image encoded = _image_of(sets)
        cdef Index* core = self._enter_alone(Work.short_change)
        try:
            core.replace_sets(move(encoded))
            with cython.critical_section(self):
                self.named = {}
        finally:
            self.gate.leave_alone()

    def _check_can_add(self):
        self._enter()
        self.gate.leave()
        if self.is_built:
            raise StateError("the index is built and takes no more items: make another one")

    def _check_built(self):
        self._enter_built()
        self.gate.leave()

    def _metadata_text(self):
        """Return the metadata in the image, as bytes of JSON; none before the build."""
        cdef Index* core = self._enter()
        try:
            return core.metadata() if self.is_built else b""
        finally:
            self.gate.leave()

    def close(self):
        """Release the memory or the mapping of the index.

        Later calls raise `StateError`. Queries that other threads have under way end normally; the
        mapping goes with the last of them. Closing twice is no error.
        """
        with nogil:
            self.gate.close()

    # -- asking ------------------------------------------------------------------------------

    def query(
        self,
        vectors,
        k=10,
        *,
        recall=None,
        search_k=None,
        allow=None,
        deny=None,
        radius=None,
        n_jobs=1,
        packed=False,
    ):
        """Find the nearest neighbours of one vector or of many.

        Parameters
        ----------
        vectors : array_like
            One query of shape (dim,) or m queries of shape (m, dim), of any real dtype. For the
            hamming metric 0/1 values, or packed bytes with `packed=True`. A C-contiguous float32
            array is read in place.
        k : int or None, default 10
            Neighbours wanted, at least 1; also with a radius no more than k are returned. More than
            the index holds is no error. None, which needs a radius: all that are within it.
        recall : float, optional
            Share of the true neighbours to aim at, above 0 and at most 1, translated into effort by
            the curve measured at build. Default: the target given to `build`.
        search_k : int, optional
            The effort itself: how many candidates to inspect at least. Wins over `recall`.
        allow, deny : ids, mask, IdSet, name, or list of these, optional
            Only items that are allowed and not denied are returned. A list or array of ids; a
            boolean mask over rows (insertion order); an `IdSet` prepared for this index; the name
            of a set that the index was saved with; or a list of m of these (but no names; or None),
            one for each query. Ids that the index does not hold are
            ignored. When few items are left, they are compared exactly.
        radius : float, optional
            Return only items at this distance or nearer (dot: of this inner product or larger): the
            k nearest of them, or with `k=None` all.
        n_jobs : int, default 1
            Threads for a batch; -1 for all cores that this process may use.
        packed : bool, default False
            The vectors are packed bits, uint8 of shape (dim / 8,) or (m, dim / 8) rounded up, most
            significant bit first (hamming only).

        Returns
        -------
        ids : ndarray
            int64, or object (str) when the index has text ids. Shape (r,) for one query, where
            r = min(k, items that qualify); shape (m, k) for a batch, where missing places hold -1,
            or None. With `k=None` a batch is as wide as its longest answer.
        distances : ndarray of float64
            Of the same shape; NaN in missing places. angular 0..2, cosine 0..2, euclidean and
            manhattan from 0 up, dot the inner product, hamming the number of differing bits.

        Raises
        ------
        ValueError
            An argument is wrong, a vector holds NaN or infinity or has another dimension.
        StateError
            The index is not built, or closed.
        FormatError
            The search met damage in the file.

        Notes
        -----
        Nearest first (dot: largest first); ties by insertion order. The search widens until
        min(k, eligible) items are found. Safe from many threads at once; the GIL is released during
        the search. Cost grows about as the square root of the number of items. With `k=None` the
        answer is complete, whatever the effort asked for: every item of each leaf that reaches into
        the radius is compared, in many dimensions often every item.
        """
        cdef QueryOptions options
        cdef uint64_t version = self.version
        allowed = self._named_or_same(allow)
        if (
            k is not None
            and cnp.PyArray_CheckExact(vectors)
            and self._is_plain_query(<cnp.ndarray>vectors, packed)
            and _is_plain_call(allowed, deny, n_jobs)
        ):
            _read_options(&options, k, recall, search_k, radius)
            while True:
                try:
                    return self._query_one(
                        cnp.PyArray_DATA(<cnp.ndarray>vectors), 0, True, <SlotBits>allowed, &options
                    )
                except ValueError:
                    # A name meant a set of another version of the index.
                    if self.version == version:
                        raise
                    version = self.version
                    allowed = self._named_or_same(allow)
        return self._query_any(
            vectors, k, recall, search_k, allow, deny, radius, n_jobs, packed, False
        )

    def query_items(
        self,
        ids,
        k=10,
        include_self=False,
        *,
        recall=None,
        search_k=None,
        allow=None,
        deny=None,
        radius=None,
        n_jobs=1,
        missing="raise",
    ):
        """Find the nearest neighbours of items of the index.

        Parameters
        ----------
        ids : id or sequence of ids
            One id gives answers of shape (r,), several (m, k), as for `query`.
        k : int or None, default 10
            Neighbours wanted, as for `query`.
        include_self : bool, default False
            Whether an item is among its own neighbours: then it is the first of them, whatever its
            duplicates (under dot: whatever has a larger inner product), unless a filter or the
            radius leaves it out. Other items with an equal vector always may be.
        recall, search_k, allow, deny, radius, n_jobs
            As for `query`.
        missing : {"raise", "skip"}, default "raise"
            What becomes of an id that the index does not hold: an error, or an answer without
            neighbours, so that answers stay beside their ids.

        Returns
        -------
        ids, distances : ndarray
            As for `query`.

        Raises
        ------
        KeyError
            The index does not hold an id, unless those are skipped.
        ValueError, StateError, FormatError
            As for `query`.
        """
        cdef QueryOptions options
        cdef int64_t row
        cdef uint64_t version = self.version
        allowed = self._named_or_same(allow)
        if (
            k is not None
            and _is_one_id(ids)
            and _is_plain_call(allowed, deny, n_jobs)
            and type(missing) is str
            and missing == "raise"
        ):
            _read_options(&options, k, recall, search_k, radius)
            self._check_built()
            while True:
                row = self._find_one(ids)
                if row < 0:
                    raise KeyError(ids)
                try:
                    found = self._query_one(
                        NULL, <Row>row, include_self, <SlotBits>allowed, &options
                    )
                except (IndexError, ValueError):
                    if self.version == version:
                        raise
                else:
                    if self.version == version:
                        return found
                # The row, or the set of a name, was of another version of the index.
                version = self.version
                allowed = self._named_or_same(allow)
        return self._query_items_any(
            ids, k, include_self, recall, search_k, allow, deny, radius, n_jobs, missing
        )

    cdef bint _is_plain_query(self, cnp.ndarray row, object packed) noexcept:
        """Whether the core can read this array as one query, as it stands."""
        if cnp.PyArray_NDIM(row) != 1 or not cnp.PyArray_ISCARRAY_RO(row):
            return False
        if self.metric_ == Metric.hamming:
            # Spare bits would have to be looked at.
            return (
                packed is True
                and cnp.PyArray_TYPE(row) == cnp.NPY_UINT8
                and self.dim_ % 8 == 0
                and row.shape[0] * 8 == self.dim_
            )
        return (
            packed is False
            and cnp.PyArray_TYPE(row) == cnp.NPY_FLOAT32
            and row.shape[0] == self.dim_
        )

    cdef tuple _query_one(
        self,
        const void* query,
        Row row,
        bint include_self,
        SlotBits eligible,
        QueryOptions* options,
    ):
        """Answer one query, or if that is NULL, the one that the item of a row is."""
        cdef SlotSet* eligible_bits
        cdef cnp.npy_intp count
        cdef int64_t* ids_out
        cdef double* distances_out
        if eligible is not None:
            self._check_set(eligible)
            eligible_bits = eligible.bits.get()
            options.eligible = &eligible_bits
            options.eligible_count = 1
        cdef Index* core = self._enter_built()
        try:
            if options.k > core.items():
                options.k = <uint32_t>core.items()
            count = options.k
            ids = cnp.PyArray_SimpleNew(1, &count, cnp.NPY_INT64)
            distances = cnp.PyArray_SimpleNew(1, &count, cnp.NPY_FLOAT64)
            ids_out = <int64_t*>cnp.PyArray_DATA(ids)
            distances_out = <double*>cnp.PyArray_DATA(distances)
            with nogil:
                if query != NULL:
                    core.query(query, 1, options[0], ids_out, distances_out)
                else:
                    core.query_rows(&row, 1, include_self, options[0], ids_out, distances_out)
            # Missing places are at the end, and only they hold NaN.
            while count > 0 and isnan(distances_out[count - 1]):
                count -= 1
            if count < <cnp.npy_intp>options.k:
                ids = ids[:count]
                distances = distances[:count]
            if self.id_kind == IdKind.text:
                ids = self._texts_of(core, ids)
            return ids, distances
        finally:
            self.gate.leave()

    def _query_many(
        self,
        cnp.ndarray queries,
        cnp.ndarray rows,
        bint include_self,
        object k,
        object recall,
        object search_k,
        object radius,
        int n_jobs,
        list eligible,
        bint exact,
    ):
        """Answer the queries, or if there are none, those that the items of these rows are.

        queries: C-contiguous (m, dim) float32 or (m, bytes) uint8. rows: uint32. eligible: None, or
        one SlotBits, or one for each query. Returns ids and distances of shape (m, k).
        """
        cdef QueryOptions options
        _read_options(&options, k, recall, search_k, radius)
        options.exact = exact
        options.n_jobs = n_jobs
        cdef vector[SlotSet*] sets
        self._read_sets(eligible, &sets, &options)
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(None)
        options.monitor = monitor.get()
        cdef cnp.npy_intp shape[2]
        shape[0] = (rows if queries is None else queries).shape[0]
        cdef int64_t* ids_out
        cdef double* distances_out
        cdef const void* query = NULL
        cdef const Row* row = NULL
        if queries is not None:
            query = cnp.PyArray_DATA(queries)
        else:
            row = <const Row*>cnp.PyArray_DATA(rows)
        cdef Index* core = self._enter_built()
        try:
            if options.k > core.items():
                options.k = <uint32_t>core.items()
            shape[1] = options.k
            ids = cnp.PyArray_SimpleNew(2, shape, cnp.NPY_INT64)
            distances = cnp.PyArray_SimpleNew(2, shape, cnp.NPY_FLOAT64)
            ids_out = <int64_t*>cnp.PyArray_DATA(ids)
            distances_out = <double*>cnp.PyArray_DATA(distances)
            if shape[0] > 0:
                with nogil:
                    if query != NULL:
                        core.query(query, shape[0], options, ids_out, distances_out)
                    else:
                        core.query_rows(
                            row, shape[0], include_self, options, ids_out, distances_out
                        )
            if self.id_kind == IdKind.text:
                ids = self._texts_of(core, ids)
            return ids, distances
        finally:
            self.gate.leave()

    def _query_within(
        self,
        cnp.ndarray queries,
        cnp.ndarray rows,
        bint include_self,
        object radius,
        int n_jobs,
        list eligible,
    ):
        """As `_query_many`, for all within a radius. Returns (ids, distances) of each query."""
        if radius is None:
            raise ValueError(
                "k: expected a whole number of at least 1, or None together with radius=, got None"
            )
        cdef QueryOptions options
        _read_options(&options, 1, None, None, radius)
        options.n_jobs = n_jobs
        cdef vector[SlotSet*] sets
        self._read_sets(eligible, &sets, &options)
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(None)
        options.monitor = monitor.get()
        cdef uint64_t count = (rows if queries is None else queries).shape[0]
        cdef const void* query = NULL
        cdef const Row* row = NULL
        if queries is not None:
            query = cnp.PyArray_DATA(queries)
        else:
            row = <const Row*>cnp.PyArray_DATA(rows)
        cdef vector[Answer] answers
        answers.resize(count)
        cdef uint64_t i
        cdef Index* core = self._enter_built()
        try:
            if count > 0:
                with nogil:
                    if query != NULL:
                        core.query_within(query, count, options, answers.data())
                    else:
                        core.query_rows_within(row, count, include_self, options, answers.data())
            found = []
            for i in range(count):
                found.append(self._found_of(core, &answers[i]))
            return found
        finally:
            self.gate.leave()

    def _knn_graph(self, object k, bint include_self, object recall, int n_jobs, object progress):
        """Find the neighbours of all items, which the `FoundGraph` returned tells."""
        cdef QueryOptions options
        _read_options(&options, k, recall, None, None)
        options.n_jobs = n_jobs
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(progress)
        options.monitor = monitor.get()
        cdef FoundGraph found = FoundGraph.__new__(FoundGraph)
        found.index = self
        found.k = options.k
        cdef Index* core = self._enter_built()
        try:
            with nogil:
                found.graph = core.knn_graph(options, include_self)
            return found
        finally:
            self.gate.leave()

    cdef tuple _found_of(self, Index* core, const Answer* answer):
        cdef cnp.npy_intp count = <cnp.npy_intp>answer.ids.size()
        ids = cnp.PyArray_SimpleNew(1, &count, cnp.NPY_INT64)
        distances = cnp.PyArray_SimpleNew(1, &count, cnp.NPY_FLOAT64)
        if count > 0:
            memcpy(cnp.PyArray_DATA(ids), answer.ids.data(), count * sizeof(int64_t))
            memcpy(cnp.PyArray_DATA(distances), answer.distances.data(), count * sizeof(double))
        if self.id_kind == IdKind.text:
            ids = self._texts_of(core, ids)
        return ids, distances

    cdef int _read_sets(
        self, list eligible, vector[SlotSet*]* sets, QueryOptions* options
    ) except -1:
        """The caller keeps `eligible` and `sets` alive."""
        if eligible is None:
            return 0
        for one in eligible:
            self._check_set(<SlotBits?>one)
            sets.push_back((<SlotBits>one).bits.get())
        options.eligible = sets.data()
        options.eligible_count = sets.size()
        return 0

    cdef int _check_set(self, SlotBits eligible) except -1:
        if eligible.identity != self._identity():
            raise ValueError("IdSet: it was made for another index than the one that is queried")
        return 0

    cdef object _texts_of(self, Index* core, cnp.ndarray rows):
        """Turn rows into an object array of their text ids; None where the row is -1."""
        cdef cnp.ndarray texts = cnp.PyArray_EMPTY(
            cnp.PyArray_NDIM(rows), cnp.PyArray_DIMS(rows), cnp.NPY_OBJECT, 0
        )
        cdef const int64_t* row = <const int64_t*>cnp.PyArray_DATA(rows)
        cdef PyObject** places = <PyObject**>cnp.PyArray_DATA(texts)
        cdef cnp.npy_intp i
        cdef string_view text
        for i in range(cnp.PyArray_SIZE(rows)):
            if row[i] == NO_ID:
                continue
            text = core.text_id_of(<Row>row[i])
            _put(places + i, _text_from(text))
        return texts

    # -- items -------------------------------------------------------------------------------

    def _int_ids(self):
        """Return the ids of all rows, in row order, as a new int64 array."""
        cdef Index* core = self._enter_built()
        cdef cnp.npy_intp count
        cdef int64_t* out
        try:
            count = <cnp.npy_intp>core.items()
            ids = cnp.PyArray_SimpleNew(1, &count, cnp.NPY_INT64)
            out = <int64_t*>cnp.PyArray_DATA(ids)
            with nogil:
                core.int64_ids(out)
            return ids
        finally:
            self.gate.leave()

    def _text_ids(self, cnp.ndarray rows not None):
        """Return the text ids of rows (int64), as an object array of its shape."""
        cdef Index* core = self._enter_built()
        try:
            return self._texts_of(core, rows)
        finally:
            self.gate.leave()

    cdef int64_t _find_one(self, object item) except -2:
        """The row of an id, -1 when the index does not hold it."""
        cdef Py_ssize_t length = 0
        cdef const char* text = NULL
        cdef int64_t number = 0
        cdef Row row = kNoRow
        if isinstance(item, str):
            try:
                text = PyUnicode_AsUTF8AndSize(item, &length)
            except UnicodeEncodeError:
                return -1
        elif isinstance(item, (bool, np.bool_)):
            return -1
        else:
            try:
                number = operator.index(item)
            except (TypeError, OverflowError):
                return -1
        cdef Index* core = self._enter()
        try:
            if (text != NULL) == (self.id_kind == IdKind.text):
                if text != NULL:
                    row = core.find_text(string_view(text, <size_t>length))
                else:
                    row = core.find(number)
        finally:
            self.gate.leave()
        return -1 if row == kNoRow else <int64_t>row

    def __contains__(self, item):
        return self._find_one(item) >= 0

    def _find_ints(self, cnp.ndarray ids not None):
        """Return the rows (int64) of int64 ids, -1 for those that the index does not hold."""
        cdef cnp.ndarray rows = np.full(ids.shape[0], NO_ID, dtype=np.int64)
        cdef const int64_t* id_in = <const int64_t*>cnp.PyArray_DATA(ids)
        cdef int64_t* row_out = <int64_t*>cnp.PyArray_DATA(rows)
        cdef Py_ssize_t i
        cdef Py_ssize_t count = ids.shape[0]
        cdef Row row
        cdef Index* core = self._enter()
        try:
            if self.id_kind != IdKind.text:
                with nogil:
                    for i in range(count):
                        row = core.find(id_in[i])
                        if row != kNoRow:
                            row_out[i] = row
        finally:
            self.gate.leave()
        return rows

    def _find_texts(self, bytes text not None, cnp.ndarray text_offsets not None):
        """As `_find_ints`, for ids as `encode_texts` gives them."""
        cdef Py_ssize_t count = text_offsets.shape[0] - 1
        cdef cnp.ndarray rows = np.full(count, NO_ID, dtype=np.int64)
        cdef const char* start = PyBytes_AS_STRING(text)
        cdef const uint64_t* offsets = <const uint64_t*>cnp.PyArray_DATA(text_offsets)
        cdef int64_t* row_out = <int64_t*>cnp.PyArray_DATA(rows)
        cdef Py_ssize_t i
        cdef Row row
        cdef Index* core = self._enter()
        try:
            if self.id_kind == IdKind.text:
                with nogil:
                    for i in range(count):
                        row = core.find_text(
                            string_view(start + offsets[i], offsets[i + 1] - offsets[i])
                        )
                        if row != kNoRow:
                            row_out[i] = row
        finally:
            self.gate.leave()
        return rows

    def _vectors(self, cnp.ndarray rows not None):
        """Return the vectors of rows (uint32): (m, dim) float32, or (m, bytes) packed bits."""
        cdef cnp.npy_intp shape[2]
        cdef bint is_bits = self.metric_ == Metric.hamming
        shape[0] = rows.shape[0]
        shape[1] = (self.dim_ + 7) // 8 if is_bits else self.dim_
        result = cnp.PyArray_SimpleNew(2, shape, cnp.NPY_UINT8 if is_bits else cnp.NPY_FLOAT32)
        cdef void* out = cnp.PyArray_DATA(result)
        cdef const Row* row = <const Row*>cnp.PyArray_DATA(rows)
        cdef Index* core = self._enter_built()
        try:
            with nogil:
                core.vectors(row, shape[0], out)
        finally:
            self.gate.leave()
        return result

    # -- measuring ---------------------------------------------------------------------------

    def _tune(self, cnp.ndarray queries not None, uint32_t k, int n_jobs, object progress):
        cdef const void* query = cnp.PyArray_DATA(queries)
        cdef uint64_t count = queries.shape[0]
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(progress)
        cdef Index* core = self._enter_alone(Work.short_change)
        try:
            if not self.is_built:
                raise StateError("the index is not built: call build() first")
            with nogil:
                core.tune(query, count, k, n_jobs, monitor.get())
        finally:
            self.gate.leave_alone()

    def _setting(self, k, recall):
        """Return the effort that a target asks for, as a point of the curve."""
        cdef uint32_t wanted = <uint32_t>_read_count("k", k, MAX_UINT32)
        cdef double target = read_recall(recall)
        cdef CurveRow row
        cdef Index* core = self._enter_built()
        try:
            row = core.setting_for(wanted, target)
        finally:
            self.gate.leave()
        return _point_of(row)

    def _info(self):
        """Return the core's account of the index as a dict."""
        cdef IndexInfo info
        cdef Index* core = self._enter()
        try:
            info = core.info()
        finally:
            self.gate.leave()
        facts = {"items": info.items, "built": bool(info.built)}
        if not info.built:
            return facts
        facts.update(
            n_trees=info.n_trees,
            leaves=info.leaves,
            file_bytes=info.file_bytes,
            vector_bytes=info.vector_bytes,
            code_bytes=info.code_bytes,
            format_version=info.format_version,
            default_recall=round(info.default_recall, 7),  # kept as float32
            value_scale=info.value_scale,
            seed=info.seed,
            identity=info.identity.decode("ascii", "replace"),
            base_identity=info.base_identity.decode("ascii", "replace"),
            model_identity=info.model_identity.decode("ascii", "replace"),
            kind=(<bytes>info.kind).decode("ascii", "replace"),
            images=info.images,
            added=info.added,
            removed=info.removed,
            drift=info.drift,
            library_version=info.library_version.decode("utf-8", "replace"),
            scan=(<bytes>info.scan).decode("ascii", "replace"),
            curve=[_point_of(row) for row in info.curve],
            sections=[
                {
                    "name": section.name.decode("utf-8", "replace"),
                    "offset": section.offset,
                    "bytes": section.bytes,
                }
                for section in info.sections
            ],
        )
        return facts

    def _identity(self):
        """Return the 32 hexadecimal digits that name the content of a built index."""
        cdef object known
        cdef Index* core
        with cython.critical_section(self):
            known = self.identity_
        if known is None:
            core = self._enter_built()
            try:
                known = core.identity().decode("ascii")
            finally:
                self.gate.leave()
            with cython.critical_section(self):
                self.identity_ = known
        return known

    def _files(self):
        """Return (path, identity, kind) of each file that the index was opened from."""
        cdef vector[FileFacts] files
        cdef Index* core = self._enter_built()
        try:
            files = core.files()
        finally:
            self.gate.leave()
        return [
            (<bytes>one.path, one.identity.decode("ascii"), (<bytes>one.kind).decode("ascii"))
            for one in files
        ]

    def verify(self):
        """Check every checksum and every invariant of the index.

        Raises
        ------
        FormatError
            At the first damage; the message tells the section, the place and what was found.
        StateError
            The index is not built, or closed.

        Notes
        -----
        Reads the whole file once, without the GIL.
        """
        self._verify(None)

    def _verify(self, object progress):
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(progress)
        cdef Index* core = self._enter_built()
        try:
            with nogil:
                core.verify(monitor.get())
        finally:
            self.gate.leave()

    def residency(self):
        """Tell which share of the mapped file is in physical memory now.

        Returns
        -------
        float
            0..1; 1 for an index that lives in this process's own memory.
        """
        cdef double share
        cdef Index* core = self._enter_built()
        try:
            with nogil:
                share = core.residency()
        finally:
            self.gate.leave()
        return share

    # -- properties --------------------------------------------------------------------------

    def __len__(self):
        self._enter()
        self.gate.leave()
        return self.items

    @property
    def dim(self):
        """Dimension of the vectors (bits for hamming)."""
        return self.dim_

    @property
    def metric(self):
        """Name of the metric."""
        return METRIC_NAMES[<uint32_t>self.metric_]

    @property
    def dtype(self):
        """How vectors are stored: "float32", "float16", "int8", "uint8" or "bits"."""
        return DTYPE_NAMES[<uint32_t>self.dtype_]

    @property
    def built(self):
        """Whether the index is built (or loaded) and so can be queried."""
        return self.is_built

    @property
    def closed(self):
        """Whether the index was closed."""
        return self.gate.closed()

    @property
    def _has_text_ids(self):
        return self.id_kind == IdKind.text


cdef Image _image_of(bytes content) except *:
    cdef const char* start = PyBytes_AS_STRING(content)
    return Image(<const Byte*>start, <const Byte*>(start + len(content)))


cdef dict _point_of(CurveRow row):
    return {
        "k": row.k,
        "recall": row.recall,
        "opened": row.opened,
        "candidates": row.candidates,
        "expanded": row.expanded,
        "rerank": row.rerank,
        "exact": row.exact,
    }


cdef class FoundGraph:
    """The neighbours of all items of an index."""

    cdef CoreIndex index
    cdef unique_ptr[KnnGraph] graph
    cdef uint32_t k

    def answer(self, uint32_t first, uint64_t count, object progress):
        """Return rows (int64) and distances (float64) of these items, both of shape (count, k).

        Missing places are at the end: -1 and NaN.
        """
        cdef cnp.npy_intp shape[2]
        shape[0] = <cnp.npy_intp>count
        shape[1] = self.k
        rows = cnp.PyArray_SimpleNew(2, shape, cnp.NPY_INT64)
        distances = cnp.PyArray_SimpleNew(2, shape, cnp.NPY_FLOAT64)
        cdef int64_t* row = <int64_t*>cnp.PyArray_DATA(rows)
        cdef double* distance = <double*>cnp.PyArray_DATA(distances)
        cdef unique_ptr[PythonMonitor] monitor = _monitor_for(progress)
        self.index._enter_built()
        try:
            with nogil:
                self.graph.get().answer(first, count, row, distance, monitor.get())
            return rows, distances
        finally:
            self.index.gate.leave()


cdef str _text_from(string_view text):
    """Decode an id from the file; in one that was not verified it may be damaged."""
    # A copy: Python reads it more than once, and the file may be overwritten meanwhile.
    cdef string kept = string(text.data(), text.size())
    try:
        return PyUnicode_DecodeUTF8(kept.data(), <Py_ssize_t>kept.size(), NULL)
    except UnicodeDecodeError as error:
        raise FormatError(f"a text id is damaged: not valid UTF-8 ({error.reason})") from None


cdef inline void _put(PyObject** place, object value) noexcept:
    """Store a new reference in a place of an object array."""
    cdef PyObject* before = place[0]
    Py_INCREF(value)
    place[0] = <PyObject*>value
    Py_XDECREF(before)


def verify_path(bytes path not None):
    """Check a file fully without keeping it open."""
    cdef string where = path
    with nogil:
        verify_file(where)


def note_fork():
    """Tell the gates that this process is the child of a fork."""
    global fork_epoch
    fork_epoch += 1


if hasattr(os, "register_at_fork"):  # Windows knows no fork
    os.register_at_fork(after_in_child=note_fork)

include "annoy.pxi"
