# annoy.pxi owns the calls of `annidx.AnnoyIndex` that are made a million times: adding one vector,
# asking one question, reading one item. It is part of binding.pyx. What an index may do when, files
# and builds are decided in annoy.py; searching is the core's.

cimport cython
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_AsDouble, PyFloat_CheckExact
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.long cimport PyLong_AsLong
from libc.math cimport isfinite
from libc.string cimport memset


cdef extern from "rows/ids.h" namespace "annidx" nogil:
    cppclass IdCollector:
        void add_int64(const int64_t*, uint64_t) except +raise_py_error
        Row find_int64(int64_t)
        uint64_t size()
        void write_int64(int64_t*)


cdef extern from "annoy/annoy_file.h" namespace "annidx" nogil:
    enum class AnnoyMetric(uint32_t):
        angular
        euclidean
        manhattan
        dot
        hamming

    cppclass AnnoyFile:
        AnnoyFile(const string&, uint32_t, AnnoyMetric, cbool) except +raise_py_error
        uint32_t n_items()
        uint32_t n_trees()
        void item_vector(uint32_t, float*) except +raise_py_error
        cbool has_item(uint32_t) except +raise_py_error
        double distance(uint32_t, uint32_t) except +raise_py_error
        void nearest(
            const float*, uint32_t, uint64_t, vector[uint32_t]*, vector[float]*
        ) except +raise_py_error
        void save(const string&) except +raise_py_error

    double annoy_distance(AnnoyMetric, uint32_t, const float*, const float*)
    void write_empty_file "annidx::save_empty_annoy"(
        const string&, uint32_t, AnnoyMetric, uint32_t
    ) except +raise_py_error


ANNOY_METRICS = {
    "angular": <uint32_t>AnnoyMetric.angular,
    "euclidean": <uint32_t>AnnoyMetric.euclidean,
    "manhattan": <uint32_t>AnnoyMetric.manhattan,
    "dot": <uint32_t>AnnoyMetric.dot,
    "hamming": <uint32_t>AnnoyMetric.hamming,
}

# Bytes of the first and of the largest chunk of vectors: an index of one item stays small, and
# what a build takes over can be freed in parts.
cdef size_t FIRST_CHUNK_BYTES = 1 << 12
cdef size_t LARGEST_CHUNK_BYTES = 32 << 20
# Candidates for each node of Annoy's search_k: so many that no search_k finds less than it did there,
# where many trees' leaves fit a query more closely than one tree's. Measured on SIFT 500k, 10 trees.
cdef double CANDIDATES_PER_NODE = 1.75
# The same for dot, where norms blur the leaves. Measured on factors 17k, 10 trees.
cdef double DOT_CANDIDATES_PER_NODE = 2.0
# Up to so many candidates a query reads hardly more than leaves of the first tree (tuning.h
# kCandidatesPerFurtherTree): several times as many of them then cost less than Annoy's nodes.
cdef uint64_t CHEAP_CANDIDATES = 4095
cdef uint64_t CHEAP_CANDIDATES_PER_NODE = 3
cdef uint64_t DOT_CHEAP_CANDIDATES = 8191
cdef uint64_t DOT_CHEAP_CANDIDATES_PER_NODE = 8
# Neighbours scored exactly beside those returned: what 8 bits order wrongly is mended by them.
cdef uint64_t SPARE_NEIGHBOURS = 2
cdef int64_t MAX_ITEM = 0x7FFFFFFF


ctypedef vector[float] vector_of_floats


# ---- arguments as Annoy takes them -------------------------------------------------------------

cdef int _c_int(object value) except? -1:
    """Read an int of C; unlike Cython's own conversion, refuse float."""
    cdef long number = PyLong_AsLong(value)
    if number < -2147483648 or number > 2147483647:
        raise OverflowError("signed integer is greater than maximum")
    return <int>number


cdef int _read_vector(object given, uint32_t f, float* out) except -1:
    """Read anything with len() and numbers in it; what is wrong is said in Annoy's words."""
    cdef Py_ssize_t length = len(given)
    cdef uint32_t z
    cdef object each
    if <uint64_t>length != f:
        raise IndexError(f"Vector has wrong length (expected {f}, got {length})")
    if type(given) is list:
        with cython.boundscheck(True):  # converting a number may run code that shrinks the list
            for z in range(f):
                each = (<list>given)[z]
                out[z] = <float>_number(each)
    elif type(given) is tuple:
        for z in range(f):
            each = (<tuple>given)[z]
            out[z] = <float>_number(each)
    elif not _read_array(given, f, out):
        for z in range(f):
            each = given[z]
            out[z] = <float>_number(each)
    for z in range(f):
        if not isfinite(out[z]):
            raise ValueError(f"vector: expected finite numbers that fit float32, got {given[z]} at place {z}")
    return 0


cdef inline double _number(object value) except? -1.0:
    if PyFloat_CheckExact(value):
        return PyFloat_AS_DOUBLE(value)
    return PyFloat_AsDouble(value)


cdef bint _read_array(object given, uint32_t f, float* out) noexcept:
    """Copy from a one-dimensional array of float32 or float64; false for anything else."""
    if not cnp.PyArray_CheckExact(given):
        return False
    cdef cnp.ndarray array = <cnp.ndarray>given
    if cnp.PyArray_NDIM(array) != 1 or not cnp.PyArray_ISBEHAVED_RO(array):
        return False
    cdef int kind = cnp.PyArray_TYPE(array)
    cdef const char* place = <const char*>cnp.PyArray_DATA(array)
    cdef Py_ssize_t step = cnp.PyArray_STRIDE(array, 0)
    cdef uint32_t z
    if kind == cnp.NPY_FLOAT32:
        for z in range(f):
            out[z] = (<const float*>(place + z * step))[0]
        return True
    if kind == cnp.NPY_FLOAT64:
        for z in range(f):
            out[z] = <float>(<const double*>(place + z * step))[0]
        return True
    return False


cdef void _pack_bits(const float* values, uint32_t f, uint8_t* out) noexcept nogil:
    """Pack as the core keeps bits, most significant first; as in Annoy above 0.5 is a one."""
    cdef uint32_t z
    memset(out, 0, (f + 7) // 8)
    for z in range(f):
        if values[z] > 0.5:
            out[z // 8] |= <uint8_t>(0x80 >> (z % 8))


cdef void _unpack_bits(const uint8_t* packed, uint32_t f, float* out) noexcept nogil:
    cdef uint32_t z
    for z in range(f):
        out[z] = <float>((packed[z // 8] >> (7 - z % 8)) & 1)


cdef list _float_list(const float* values, Py_ssize_t count):
    cdef list result = PyList_New(count)
    cdef Py_ssize_t i
    cdef object value
    for i in range(count):
        value = <double>values[i]
        Py_INCREF(value)
        PyList_SET_ITEM(result, i, value)
    return result


# ---- where items are ---------------------------------------------------------------------------

cdef class AnnoySource:
    """The items of an index in one of its states; ids run from 0 to below n_items, with holes."""

    cdef AnnoyMetric metric
    cdef uint32_t f
    cdef readonly int64_t n_items
    cdef readonly int64_t n_trees

    cdef int read_item(self, int item, float* out) except -1:
        """Copy the vector of an item below n_items; zeros for a hole."""
        raise NotImplementedError

    cdef double distance(self, int i, int j) except? -1.0:
        cdef vector[float] pair = vector[float](2 * <size_t>self.f)
        self.read_item(i, pair.data())
        self.read_item(j, pair.data() + self.f)
        return annoy_distance(self.metric, self.f, pair.data(), pair.data() + self.f)

    cdef int nearest(
        self, const float* query, int64_t n, int64_t search_k, vector[int64_t]* ids, vector[double]* distances
    ) except -1:
        """Find the n nearest, 1 <= n <= n_items; search_k >= 1. An index that is not built has none."""
        return 0


@cython.final
cdef class AnnoyBuffer(AnnoySource):
    """Vectors by id while an index is filled: later ones replace earlier ones of the same id.

    Rows are kept in the order of their first coming, as float32 or packed bits, in chunks that
    double in size. With `folder` the chunks are files without a name in that folder.
    """

    cdef IdCollector ids              # empty while ids are 0, 1, 2, ...
    cdef bint is_dense
    cdef bint is_ascending
    cdef object make_chunk            # rows -> array
    cdef list chunks                  # arrays of rows
    cdef vector[char*] chunk_rows
    cdef vector[uint64_t] chunk_starts
    cdef size_t row_bytes
    cdef readonly uint64_t count      # items, without holes
    cdef uint64_t capacity
    cdef uint64_t epoch               # fork_epoch when the chunks were made

    def __cinit__(self, uint32_t f, uint32_t metric, make_chunk, int64_t n_trees):
        self.f = f
        self.metric = <AnnoyMetric>metric
        self.n_trees = n_trees
        self.epoch = fork_epoch
        self.is_dense = self.is_ascending = True
        self.make_chunk = make_chunk
        self.chunks = []
        self.row_bytes = (f + 7) // 8 if self.metric == AnnoyMetric.hamming else 4 * <size_t>f

    cdef char* row_at(self, uint64_t row) noexcept:
        cdef size_t low = 0
        cdef size_t high = self.chunk_starts.size() - 1
        cdef size_t middle
        if row >= self.chunk_starts[high]:
            low = high
        while low < high:
            middle = low + (high - low + 1) // 2
            if self.chunk_starts[middle] <= row:
                low = middle
            else:
                high = middle - 1
        return self.chunk_rows[low] + (row - self.chunk_starts[low]) * self.row_bytes

    cdef int own_chunks(self) except -1:
        """Copy the chunks if they may be shared with the process that this one was forked from."""
        cdef Py_ssize_t i
        if self.epoch == fork_epoch:
            return 0
        for i, chunk in enumerate(self.chunks):
            copy = self.make_chunk(len(chunk))
            copy[...] = chunk
            self.chunks[i] = copy
            self.chunk_rows[i] = <char*>cnp.PyArray_DATA(<cnp.ndarray>copy)
        self.epoch = fork_epoch
        return 0

    cdef Row row_of(self, int64_t item) noexcept:
        if self.is_dense:
            return <Row>item if 0 <= item < <int64_t>self.count else kNoRow
        return self.ids.find_int64(item)

    cdef int grow(self) except -1:
        cdef size_t wanted = FIRST_CHUNK_BYTES
        if self.capacity > 0:
            wanted = min(<size_t>self.capacity * self.row_bytes, LARGEST_CHUNK_BYTES)
        cdef uint64_t rows = max(<size_t>1, wanted // self.row_bytes)
        cdef cnp.ndarray chunk = self.make_chunk(rows)
        self.chunks.append(chunk)
        self.chunk_rows.push_back(<char*>cnp.PyArray_DATA(chunk))
        self.chunk_starts.push_back(self.capacity)
        self.capacity += rows
        return 0

    cdef Row append(self, int64_t item) except? 0:
        """Make a row for a new id; its vector is to be filled in."""
        if self.count == self.capacity:
            self.grow()
        if self.is_dense and item != <int64_t>self.count:
            self.list_ids()
        if not self.is_dense:
            self.ids.add_int64(&item, 1)
        if item < self.n_items:
            self.is_ascending = False
        else:
            self.n_items = item + 1
        self.count += 1
        return <Row>(self.count - 1)

    cdef int list_ids(self) except -1:
        cdef vector[int64_t] before = vector[int64_t](self.count)
        cdef uint64_t row
        for row in range(self.count):
            before[row] = <int64_t>row
        self.ids.add_int64(before.data(), self.count)
        self.is_dense = False
        return 0

    cdef int put(self, int64_t item, const float* values) except -1:
        self.own_chunks()
        cdef Row row = self.row_of(item)
        if row == kNoRow:
            row = self.append(item)
        if self.metric == AnnoyMetric.hamming:
            _pack_bits(values, self.f, <uint8_t*>self.row_at(row))
        else:
            memcpy(self.row_at(row), values, self.row_bytes)
        return 0

    cdef int read_item(self, int item, float* out) except -1:
        self.own_chunks()
        cdef Row row = self.row_of(item)
        if row == kNoRow:
            memset(out, 0, 4 * <size_t>self.f)
        elif self.metric == AnnoyMetric.hamming:
            _unpack_bits(<uint8_t*>self.row_at(row), self.f, out)
        else:
            memcpy(out, self.row_at(row), self.row_bytes)
        return 0

    def take_rows(self, cnp.ndarray rows not None, cnp.ndarray ids):
        """Add rows that hold the items `ids` (int64), or the next ones, to a buffer.

        rows: (m, f) float32, or packed bits of uint8, C-contiguous. No id may be in it already.
        """
        cdef uint64_t first = self.count
        cdef uint64_t total = rows.shape[0]
        cdef const int64_t* item = NULL
        cdef const char* data = <const char*>cnp.PyArray_DATA(rows)
        cdef uint64_t i
        cdef Row row
        if ids is not None:
            item = <const int64_t*>cnp.PyArray_DATA(ids)
        self.own_chunks()
        for i in range(total):
            row = self.append(<int64_t>(first + i) if item == NULL else item[i])
            memcpy(self.row_at(row), data + i * self.row_bytes, self.row_bytes)

    def item_ids(self):
        """Return the ids of the rows as int64, or None when they are 0, 1, 2, ..."""
        if self.is_dense:
            return None
        cdef cnp.ndarray ids = np.empty(self.count, dtype=np.int64)
        self.ids.write_int64(<int64_t*>cnp.PyArray_DATA(ids))
        return ids

    def is_sorted(self):
        """Tell whether ids ascend with the rows."""
        return bool(self.is_ascending)

    def row_blocks(self):
        """Return the rows as a list of arrays that share the buffer's memory."""
        self.own_chunks()
        blocks = []
        left = self.count
        for chunk in self.chunks:
            if left > 0:
                blocks.append(chunk[:left])
            left -= len(chunk)
        return blocks


@cython.final
cdef class AnnoyReader(AnnoySource):
    """A file that Annoy wrote."""

    cdef unique_ptr[AnnoyFile] file

    def __cinit__(self, uint32_t f, uint32_t metric, bytes path not None, bint prefault):
        cdef string where = path
        self.f = f
        self.metric = <AnnoyMetric>metric
        cdef AnnoyFile* opened
        cdef AnnoyMetric kind = self.metric
        with nogil:
            opened = new AnnoyFile(where, f, kind, prefault)
        self.file.reset(opened)
        self.n_items = opened.n_items()
        self.n_trees = opened.n_trees()

    cdef int read_item(self, int item, float* out) except -1:
        self.file.get().item_vector(<uint32_t>item, out)
        return 0

    cdef double distance(self, int i, int j) except? -1.0:
        return self.file.get().distance(<uint32_t>i, <uint32_t>j)

    cdef int nearest(
        self, const float* query, int64_t n, int64_t search_k, vector[int64_t]* ids, vector[double]* distances
    ) except -1:
        cdef vector[uint32_t] items
        cdef vector[float] far
        cdef AnnoyFile* file = self.file.get()
        with nogil:
            file.nearest(query, <uint32_t>n, <uint64_t>search_k, &items, &far)
            ids.assign(items.begin(), items.end())
            distances.assign(far.begin(), far.end())
        return 0

    def item_mask(self, int64_t first, int64_t last):
        """Tell which items of [first, last) are there, as an array of bool."""
        mask = np.zeros(last - first, dtype=np.bool_)
        cdef uint8_t* out = <uint8_t*>cnp.PyArray_DATA(<cnp.ndarray>mask)
        cdef AnnoyFile* file = self.file.get()
        cdef int64_t item
        with nogil:
            for item in range(first, last):
                out[item - first] = file.has_item(<uint32_t>item)
        return mask

    def item_vectors(self, int64_t first, int64_t last):
        """Return the vectors of items [first, last): (m, f) float32, zeros in holes."""
        vectors = np.empty((last - first, self.f), dtype=np.float32)
        cdef float* out = <float*>cnp.PyArray_DATA(<cnp.ndarray>vectors)
        cdef AnnoyFile* file = self.file.get()
        cdef int64_t item
        with nogil:
            for item in range(first, last):
                file.item_vector(<uint32_t>item, out + (item - first) * self.f)
        return vectors

    def save(self, bytes path not None):
        """Write the same bytes to another file."""
        cdef string where = path
        cdef AnnoyFile* file = self.file.get()
        with nogil:
            file.save(where)


@cython.final
cdef class AnnoyServed(AnnoySource):
    """A built index in annidx's own form, in memory or mapped."""

    cdef readonly CoreIndex core
    cdef cbool has_rows_for_ids
    cdef uint64_t least_candidates

    def __cinit__(
        self,
        CoreIndex core not None,
        uint32_t metric,
        int64_t n_items,
        int64_t n_trees,
        uint64_t least_candidates,
    ):
        self.core = core
        self.least_candidates = least_candidates
        self.f = core.dim_
        self.metric = <AnnoyMetric>metric
        self.n_items = n_items
        self.n_trees = n_trees
        self.has_rows_for_ids = core.id_kind == IdKind.row

    cdef uint64_t candidates_for(self, uint64_t search_k) noexcept:
        """How many items to inspect; all where so many are asked for or they are few."""
        cdef uint64_t items = self.core.items
        # Annoy reads each leaf of each tree, and so every item for certain, from here on.
        if search_k >= items * max(1, self.n_trees) or self.least_candidates >= items:
            return items
        cdef uint64_t wanted, cheap
        if self.metric == AnnoyMetric.dot:
            wanted = <uint64_t>(search_k * DOT_CANDIDATES_PER_NODE)
            cheap = min(search_k * DOT_CHEAP_CANDIDATES_PER_NODE, DOT_CHEAP_CANDIDATES)
        else:
            wanted = <uint64_t>(search_k * CANDIDATES_PER_NODE)
            cheap = min(search_k * CHEAP_CANDIDATES_PER_NODE, CHEAP_CANDIDATES)
        wanted = max(wanted, cheap)
        return max(self.least_candidates, min(wanted, items - 1))

    cdef int read_item(self, int item, float* out) except -1:
        cdef Index* core = self.core._enter_built()
        cdef vector[uint8_t] bits
        cdef Row row
        try:
            row = <Row>item if self.has_rows_for_ids else core.find(item)
            if row == kNoRow:
                memset(out, 0, 4 * <size_t>self.f)
            elif self.metric == AnnoyMetric.hamming:
                bits.resize((self.f + 7) // 8)
                core.vectors(&row, 1, bits.data())
                _unpack_bits(bits.data(), self.f, out)
            else:
                core.vectors(&row, 1, out)
        finally:
            self.core.gate.leave()
        return 0

    cdef int nearest(
        self, const float* query, int64_t n, int64_t search_k, vector[int64_t]* ids, vector[double]* distances
    ) except -1:
        cdef vector[uint8_t] bits
        cdef const void* asked = query
        cdef QueryOptions options
        cdef uint64_t count
        cdef uint64_t wanted = <uint64_t>n
        if self.metric == AnnoyMetric.hamming:
            bits.resize((self.f + 7) // 8)
            _pack_bits(query, self.f, bits.data())
            asked = bits.data()
        cdef Index* core = self.core._enter_built()
        try:
            count = min(wanted + wanted // 8 + SPARE_NEIGHBOURS, self.core.items)
            options.k = <uint32_t>count
            options.search_k = self.candidates_for(<uint64_t>search_k)
            options.exact = options.search_k >= self.core.items
            ids.resize(count)
            distances.resize(count)
            with nogil:
                core.query(asked, 1, options, ids.data(), distances.data())
        finally:
            self.core.gate.leave()
        # Missing places are at the end, and only they hold NaN.
        while count > 0 and isnan(distances[0][count - 1]):
            count -= 1
        count = min(count, wanted)
        ids.resize(count)
        distances.resize(count)
        return 0


def annoy_has_explicit_ids(CoreIndex core not None):
    """Tell whether an index keeps ids, instead of numbering its rows."""
    return core.id_kind == IdKind.int64


def annoy_ids(CoreIndex core not None, cnp.ndarray rows not None):
    """Return the ids (int64) of rows (uint32) of a built index."""
    cdef cnp.ndarray ids = np.empty(rows.shape[0], dtype=np.int64)
    cdef int64_t* out = <int64_t*>cnp.PyArray_DATA(ids)
    cdef const Row* row = <const Row*>cnp.PyArray_DATA(rows)
    cdef Py_ssize_t count = rows.shape[0]
    cdef Py_ssize_t i
    cdef Index* index = core._enter_built()
    try:
        with nogil:
            for i in range(count):
                out[i] = index.id_of(row[i])
    finally:
        core.gate.leave()
    return ids


def annoy_id_range(CoreIndex core not None):
    """Return the least and the largest id of a built index."""
    cdef int64_t least
    cdef int64_t largest
    cdef int64_t each
    cdef uint64_t row
    cdef Index* index = core._enter_built()
    try:
        with nogil:
            least = largest = index.id_of(0)
            for row in range(1, core.items):
                each = index.id_of(<Row>row)
                least = min(least, each)
                largest = max(largest, each)
    finally:
        core.gate.leave()
    return least, largest


def annoy_write_empty(bytes path not None, uint32_t f, uint32_t metric, uint32_t n_trees):
    """Write the file of an index without items."""
    cdef string where = path
    with nogil:
        write_empty_file(where, f, <AnnoyMetric>metric, n_trees)


# ---- the calls ---------------------------------------------------------------------------------

cdef class AnnoyCalls:
    """Annoy's calls on the items of an index, whatever its state; annoy.py adds the states."""

    cdef readonly int f
    cdef AnnoySource source
    cdef bint takes_items
    cdef str refusal  # why an item cannot be added

    @cython.critical_section
    def _set_source(self, AnnoySource source not None, str refusal):
        """Make this the state; `refusal` says why items cannot be added, None when they can."""
        self.f = <int>source.f
        self.source = source
        self.takes_items = refusal is None
        self.refusal = refusal

    @cython.critical_section
    def _get_source(self):
        return self.source

    cdef AnnoySource now(self):
        cdef AnnoySource source
        with cython.critical_section(self):
            source = self.source
        if source is None:
            raise RuntimeError("AnnoyIndex.__init__() was not called")
        return source

    def add_item(self, i, vector):
        """Add item `i` (any nonnegative integer) with vector `vector`, or replace it.

        Parameters
        ----------
        i : int
            Id of the item, 0 to 2**31 - 2. Ids left out are holes and cost nothing.
        vector : sequence of float
            f finite numbers; for hamming those above 0.5 are ones.

        Raises
        ------
        IndexError
            `i` is negative, or the vector has another length than f.
        TypeError
            The vector has no length or holds something that is not a number.
        ValueError
            The vector holds NaN or infinity (Annoy takes them, and answers nonsense afterwards).
        Exception
            The index is built or loaded.
        """
        cdef int item = _c_int(i)
        if item < 0:
            raise IndexError("Item index can not be negative")
        if item == MAX_ITEM:
            raise IndexError(f"Item index larger than {MAX_ITEM - 1}")
        cdef AnnoySource source = self.now()
        cdef float small[256]
        cdef vector_of_floats large
        cdef float* values = small
        if source.f > 256:
            large.resize(source.f)
            values = large.data()
        _read_vector(vector, source.f, values)
        with cython.critical_section(self):
            if not self.takes_items:
                raise Exception(self.refusal)
            (<AnnoyBuffer>self.source).put(item, values)

    def get_nns_by_item(self, i, n, search_k=-1, bint include_distances=False):
        """Return the `n` items closest to item `i`, itself among them, nearest first.

        Parameters
        ----------
        i : int
            Id of the item.
        n : int
            How many to return; all when there are fewer.
        search_k : int, default -1
            How many candidates to inspect at least; -1: n * n_trees.
        include_distances : bool, default False
            Return (items, distances) instead of items.

        Returns
        -------
        list of int, or tuple of list of int and list of float

        Raises
        ------
        IndexError
            No such item.
        OSError
            The search met damage in the file.
        """
        cdef int item = _c_int(i)
        cdef int count = _c_int(n)
        cdef int effort = _c_int(search_k)
        cdef AnnoySource source = self.now()
        _check_item(item, source)
        cdef vector_of_floats query = vector_of_floats(source.f)
        try:
            source.read_item(item, query.data())
            return _answer(source, query.data(), count, effort, include_distances)
        except FormatError as error:
            raise OSError(str(error)) from None

    def get_nns_by_vector(self, vector, n, search_k=-1, bint include_distances=False):
        """Return the `n` items closest to a vector, nearest first.

        Parameters
        ----------
        vector : sequence of float
            f finite numbers.
        n, search_k, include_distances
            As for `get_nns_by_item`.

        Returns
        -------
        list of int, or tuple of list of int and list of float

        Raises
        ------
        IndexError, TypeError, ValueError
            As for `add_item`.
        OSError
            The search met damage in the file.
        """
        cdef int count = _c_int(n)
        cdef int effort = _c_int(search_k)
        cdef AnnoySource source = self.now()
        cdef vector_of_floats query = vector_of_floats(source.f)
        _read_vector(vector, source.f, query.data())
        try:
            return _answer(source, query.data(), count, effort, include_distances)
        except FormatError as error:
            raise OSError(str(error)) from None

    def get_item_vector(self, i, /):
        """Return the vector of item `i` as a list of float; zeros for a hole.

        Raises
        ------
        IndexError
            No such item.
        """
        cdef int item = _c_int(i)
        cdef AnnoySource source = self.now()
        _check_item(item, source)
        cdef vector_of_floats values = vector_of_floats(source.f)
        try:
            source.read_item(item, values.data())
        except FormatError as error:
            raise OSError(str(error)) from None
        return _float_list(values.data(), source.f)

    def get_distance(self, i, j, /):
        """Return the distance between items `i` and `j` (dot: their inner product).

        Raises
        ------
        IndexError
            No such item.
        """
        cdef int first = _c_int(i)
        cdef int second = _c_int(j)
        cdef AnnoySource source = self.now()
        _check_item(first, source)
        _check_item(second, source)
        try:
            # Annoy computes with float32.
            return <double><float>source.distance(first, second)
        except FormatError as error:
            raise OSError(str(error)) from None

    def get_n_items(self):
        """Return the number of items with holes counted: the largest id plus one."""
        return self.now().n_items

    def get_n_trees(self):
        """Return the number of trees; 0 until the index is built."""
        return self.now().n_trees


cdef int _check_item(int item, AnnoySource source) except -1:
    if item < 0:
        raise IndexError("Item index can not be negative")
    if item >= source.n_items:
        raise IndexError("Item index larger than the largest item index")
    return 0


cdef object _answer(
    AnnoySource source, const float* query, int64_t n, int64_t search_k, bint include_distances
):
    cdef vector[int64_t] ids
    cdef vector[double] distances
    cdef Py_ssize_t i
    cdef Py_ssize_t count
    cdef object value
    # Annoy reads negative numbers as "all"; -1 candidates are so many for each tree.
    if n < 0 or n > source.n_items:
        n = source.n_items
    if search_k == -1:
        search_k = n * source.n_trees
    elif search_k < 0:
        search_k = source.n_items * max(1, source.n_trees)
    if n > 0 and search_k > 0:
        source.nearest(query, n, search_k, &ids, &distances)
    count = <Py_ssize_t>ids.size()
    cdef list items = PyList_New(count)
    for i in range(count):
        value = ids[i]
        Py_INCREF(value)
        PyList_SET_ITEM(items, i, value)
    if not include_distances:
        return items
    cdef list far = PyList_New(count)
    for i in range(count):
        value = <double><float>distances[i]
        Py_INCREF(value)
        PyList_SET_ITEM(far, i, value)
    return items, far
