# slot_bits.pxi owns sets of items as Python holds them; their bits are the core's SlotSet. It is part of
# binding.pyx. Which ids a set is made of is decided in index.py.

from cython.operator cimport dereference


@cython.no_gc_clear
cdef class SlotBits:
    """A set of items of one built index, one bit each; `IdSet` gives it its public face.

    Never changes once `_fill` is done.
    """

    cdef unique_ptr[SlotSet] bits
    cdef readonly object index
    cdef str identity  # of the index's content; None until _fill

    def __cinit__(self, *args, **kwargs):
        self.bits.reset(new SlotSet(0))

    def _fill(self, CoreIndex index not None, cnp.ndarray rows not None):
        """Take the items of these rows (int64); negative rows are skipped. Once only."""
        self._check_empty()
        cdef str identity = index._identity()
        cdef unique_ptr[SlotSet] bits
        cdef const int64_t* row = <const int64_t*>cnp.PyArray_DATA(rows)
        cdef Py_ssize_t count = rows.shape[0]
        cdef Py_ssize_t i
        cdef Index* core = index._enter_built()
        try:
            with nogil:
                bits.reset(new SlotSet(core.items()))
                bits.get().set_stamp(core.set_stamp())
                for i in range(count):
                    if row[i] >= 0:
                        bits.get().insert(core.slot_of(<Row>row[i]))
        finally:
            index.gate.leave()
        self._become(move(bits), index, identity)

    def _fill_named(self, CoreIndex index not None, str name not None):
        """Take the items of a named set. Once only. Returns whether the index has one."""
        self._check_empty()
        cdef string sought
        try:
            sought = name.encode("utf-8")
        except UnicodeEncodeError:
            return False
        cdef str identity = index._identity()
        cdef unique_ptr[SlotSet] bits
        cdef cbool is_there
        cdef Index* core = index._enter_built()
        try:
            with nogil:
                bits.reset(new SlotSet(core.items()))
                bits.get().set_stamp(core.set_stamp())
                is_there = core.read_set(sought, bits.get())
        finally:
            index.gate.leave()
        if is_there:
            self._become(move(bits), index, identity)
        return bool(is_there)

    cdef int _check_empty(self) except -1:
        if self.identity is not None:
            raise StateError("the set is made already: make another one instead")
        return 0

    cdef void _become(self, unique_ptr[SlotSet] bits, CoreIndex index, str identity) noexcept:
        self.bits = move(bits)
        self.bits.get().freeze()
        self.index = index
        self.identity = identity

    def _let_go(self):
        """Forget the index, so that the set does not keep its file mapped; only a filter is left."""
        self.index = None
        return self

    def _rows_in(self, CoreIndex index not None):
        """Return the rows (int64) that the items have in their index, ascending."""
        index._check_set(self)
        cdef Py_ssize_t count = <Py_ssize_t>self.bits.get().count()
        cdef cnp.ndarray rows = np.empty(count, dtype=np.int64)
        cdef int64_t* out = <int64_t*>cnp.PyArray_DATA(rows)
        cdef Py_ssize_t found = 0
        cdef uint64_t row
        cdef Index* core = index._enter_built()
        try:
            if self.bits.get().slot_count() != core.items():
                raise ValueError("IdSet: it was made for an index of another size")
            with nogil:
                for row in range(core.items()):
                    # In a damaged file several rows may name one slot.
                    if found < count and self.bits.get().contains(core.slot_of(<Row>row)):
                        out[found] = <int64_t>row
                        found += 1
        finally:
            index.gate.leave()
        return rows[:found]

    cdef SlotBits _copy(self):
        cdef SlotBits copy = type(self).__new__(type(self))
        copy.bits.reset(new SlotSet(dereference(self.bits)))
        copy.index = self.index
        copy.identity = self.identity
        return copy

    def __len__(self):
        return self.bits.get().count()

    def __contains__(self, item):
        return self.identity is not None and self._holds(self.index, item)

    def _fits(self, CoreIndex index not None):
        """Whether this is a set of what the index holds."""
        return self.identity == index._identity()

    def _holds(self, CoreIndex index not None, item):
        """Whether an id of the set's index is in it."""
        index._check_set(self)
        cdef int64_t row = index._find_one(item)
        if row < 0:
            return False
        cdef Index* core = index._enter_built()
        try:
            if self.bits.get().slot_count() != core.items():
                return False
            return self.bits.get().contains(core.slot_of(<Row>row))
        finally:
            index.gate.leave()

    def __invert__(self):
        cdef SlotBits result = self._copy()
        with nogil:
            result.bits.get().complement()
        return result

    def __and__(self, other):
        if not isinstance(other, SlotBits):
            return NotImplemented
        self._check_same_index(other)
        cdef SlotBits result = self._copy()
        with nogil:
            result.bits.get().intersect(dereference((<SlotBits>other).bits))
        return result

    def __sub__(self, other):
        if not isinstance(other, SlotBits):
            return NotImplemented
        self._check_same_index(other)
        cdef SlotBits result = self._copy()
        with nogil:
            result.bits.get().subtract(dereference((<SlotBits>other).bits))
        return result

    def __or__(self, other):
        if not isinstance(other, SlotBits):
            return NotImplemented
        return ~(~self - other)

    cdef int _check_same_index(self, SlotBits other) except -1:
        # Files that were made to deceive may share an identity.
        if (
            self.identity != other.identity
            or self.bits.get().slot_count() != other.bits.get().slot_count()
        ):
            raise ValueError("IdSet: the two sets belong to different indexes")
        return 0
