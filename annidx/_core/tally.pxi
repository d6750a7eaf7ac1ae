# tally.pxi owns a number that many threads count up without waiting for each other. It is part of
# binding.pyx. It must not know what is counted.

from libcpp.atomic cimport atomic


cdef class Tally:
    """Counts; never misses one, never waits."""

    cdef atomic[uint64_t] count

    def __cinit__(self):
        self.count.store(0)

    def add(self, uint64_t number):
        """Count so many more."""
        self.count.fetch_add(number)

    def total(self):
        """Return what was counted so far."""
        return self.count.load()
