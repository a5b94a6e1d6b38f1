"""Circuits: the C side of ``circuit.pyi``. All words are shared by the workers and changed by compare-and-swap.

Memory of a Board, in 64-byte lines: one Header; UPSTREAMS lines of two for upstreams; CONFIGURED + CALLED of four for
targets: those of the configuration, then those whose names callers made up.
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t

cpdef enum:
    GOOD = 0
    BAD = 1
    NEITHER = 2

cdef enum:
    PROBE = 2               # what ``begin_`` gives for one
    UPSTREAMS = 256
    CONFIGURED = 1024
    CALLED = 512
    PARTS = 8               # of a sliding window
    MAX_PROBES = 16         # at once, of one target; a word each
    MAX_WORKERS = 28        # as in ``limit``

cdef struct Header:
    uint64_t magic
    uint64_t clock          # newest milliseconds that anyone has told, to a second or so
    uint64_t lock           # worker + 1 while it turns a line over to another target
    uint64_t[5] spare

cdef struct VitalLine:
    uint64_t tag
    uint64_t out
    uint64_t requests
    uint64_t failures
    uint64_t turned         # nanoseconds of the last change << 1 | failing; 0: nothing was noted yet
    uint64_t fault          # the last one's number
    uint64_t[2] spare
    uint64_t[PARTS] window  # index << 44 | requests << 20 | retries

cdef struct Line:
    uint64_t tag
    uint64_t gate           # milliseconds << 25 | era << 19 | failures in a row << 5 | level << 1 | open
    uint64_t rest           # nanoseconds
    uint64_t first          # eighths of a second << 32 | microseconds (of 1,024 ns), plus 1
    uint64_t since          # nanoseconds of the last change between open and closed
    uint64_t openings
    uint64_t touched        # milliseconds, to a second
    uint64_t spare
    uint64_t[PARTS] window  # era << 58 | index << 36 | requests << 18 | failures
    uint64_t[MAX_PROBES] lease      # milliseconds when it ends << 8 | worker + 1


@cython.final
cdef class Board:
    cdef Header* header
    cdef VitalLine* upstreams
    cdef Line* targets
    cdef void* private
    cdef Py_buffer view
    cdef readonly int worker
    cdef object locals      # name -> Local, weakly
    cdef Line* place(self, uint64_t tag, bint configured) noexcept nogil
    cdef Line* evict(self, Line* lines, int count, uint64_t tag) noexcept nogil


# What one process keeps of a target, whatever the settings: shared by its circuits of before and after a reload.
@cython.final
cdef class Local:
    cdef object __weakref__
    cdef int64_t in_flight


@cython.final
cdef class Vitals:
    cdef Board board
    cdef VitalLine* at
    cdef VitalLine own      # used where the board has no place
    cdef Line last_resort   # likewise, of this upstream's targets
    cdef uint64_t shared_tag        # of the circuit that its targets share where the board has no place for theirs
    cdef readonly str name
    cdef void asked_(self, uint64_t now) noexcept nogil
    cdef bint may_retry_(self, uint64_t now, double share, int64_t floor) noexcept nogil
    cdef void note_(self, uint64_t now, bint good) noexcept nogil
    cdef void sum_(self, uint64_t index, uint64_t* requests, uint64_t* retries) noexcept nogil


@cython.final
cdef class Circuit:
    cdef readonly str name
    cdef readonly Vitals vitals
    cdef Board board
    cdef Local local
    cdef Line* at
    cdef uint64_t tag       # of the line it has: its own or its upstream's
    cdef uint64_t own_tag
    cdef uint64_t seen      # newest nanoseconds told here
    cdef bint configured
    cdef bint enabled
    cdef uint64_t consecutive
    cdef double ratio
    cdef uint64_t min_requests
    cdef uint64_t part_ns
    cdef uint64_t window_ms
    cdef uint64_t cool_down_ns
    cdef uint64_t cool_down_max_ns
    cdef int probes
    cdef int64_t slow_ns
    # For the lane; times in nanoseconds of the monotonic clock. ``rest_`` is for after ``begin_`` or ``end_``.
    cdef bint may_(self, uint64_t now) noexcept nogil
    cdef int begin_(self, uint64_t now, bint force) noexcept nogil
    cdef void end_(self, uint64_t now, int how, int begun, int64_t first) noexcept nogil
    cdef void rest_(self, uint64_t until) noexcept nogil
    cdef int64_t first_(self, uint64_t now) noexcept nogil
    # Within.
    cdef void settle_down(self) noexcept nogil
    cdef void touch(self, uint64_t now) noexcept nogil
    cdef bint lease(self, uint64_t now, bint take) noexcept nogil
    cdef void release(self) noexcept nogil
    cdef void good(self, uint64_t now, int begun) noexcept nogil
    cdef void bad(self, uint64_t now, int begun) noexcept nogil
    cdef void count(self, uint64_t now, uint64_t era, uint64_t failures) noexcept nogil
    cdef bint broken(self, uint64_t now, uint64_t era) noexcept nogil
    cdef uint64_t opened(self, uint64_t gate, uint64_t now, uint64_t level) noexcept nogil
    cdef void learn(self, uint64_t now, int64_t first) noexcept nogil
