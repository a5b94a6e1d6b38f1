# Counters, gauges, histograms and tallies in memory that all workers may read.
#
# The lane's way through: handles are ints, kept by who uses them (series_ finds or makes one); add_ and observe_ take
# no GIL, make no object and ignore what they cannot do. One thread of one process writes a region; a worker that writes
# from more than one thread holds the GIL while it does.
#
# The buffer, all words 64 bits in native order:
#   header    64 bytes: hash of the families, next ticket
#   region    one a worker: 64 bytes (overflow count), then the slots of each family in order
#   slot      word 0: ticket of its first use, 0 while it is free; then the values; then LABEL_BYTES for each label:
#             one byte of length and the text. A slot is a whole number of cache lines.
# Slot 0 of a labelled family is its `other` series: always there, so it has no ticket and no label text.

cimport cython
from cpython.buffer cimport Py_buffer
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    MAX_BOUNDS = 31           # of a histogram: the search is at most five steps
    MAX_LABELS = 8            # of a family
    LABEL_BYTES = 64          # of one label's value, its length byte included: one cache line
    MAX_FAMILIES = 1024       # a handle's upper bits
    MAX_SERIES = 65536        # of a family: a handle's lower 16 bits
    LINE_BYTES = 64
    TALLIES = 7               # of a tally: with the ticket they are one cache line

cdef enum Outcome:
    DONE = 0
    UNKNOWN_HANDLE = 1
    WRONG_KIND = 2
    NEGATIVE = 3              # an amount that would take a counter down

cdef struct Shape:
    int kind
    int labels
    int slots                 # series that fit, `other` included
    int bounds
    Py_ssize_t start          # of the first slot, in bytes from the start of a region
    Py_ssize_t stride         # bytes from slot to slot
    Py_ssize_t text           # of the first label, in bytes from the start of a slot
    int64_t[MAX_BOUNDS] bound


@cython.final
cdef class Meter:
    cdef readonly tuple families
    cdef readonly int worker
    cdef readonly int workers
    cdef Shape *_shapes
    cdef int _count                   # families
    cdef Py_ssize_t _region_bytes
    cdef char *_base                  # the header; valid while _view or _private is held
    cdef char *_own                   # this worker's region
    cdef Py_buffer _view
    cdef bint _viewed
    cdef void *_private
    cdef dict _numbers                # family name -> its index
    cdef list _known                  # by family: {labels as kept: handle}
    cdef list _used                   # by family: slots in use
    cdef int series_(self, str family, tuple labels) except -1
    cdef char *_find(self, int handle, Shape **shape) noexcept nogil
    cdef Outcome try_add(self, int handle, int64_t amount) noexcept nogil
    cdef Outcome try_observe(self, int handle, int64_t value) noexcept nogil
    cdef Outcome try_tally(self, int handle, const int64_t *amounts) noexcept nogil    # TALLIES of them; below 1: none
    cdef void add_(self, int handle, long long amount) noexcept nogil        # try_add, for who has checked before
    cdef void observe_(self, int handle, long long value) noexcept nogil     # try_observe, likewise
    cdef int _attach(self, object buffer, Py_ssize_t needed) except -1
    cdef char *_region(self, int worker) noexcept
    cdef int _resume(self) except -1
    cdef int _place(self, int number, tuple labels) except -1
    cdef tuple _labels(self, const char *slot, const Shape *shape)
    cdef int _gather(self, int number, list samples) except -1
