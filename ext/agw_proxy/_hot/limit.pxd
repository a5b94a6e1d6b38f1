"""Limits: the C side of ``limit.pyi``. ``Limits.take`` decides, the ``Grant`` it returns gives back.

Memory of a Table, all in 64-byte lines: one Header; ``slots`` buckets, OVERFLOW more for overflow; the same of gates.
"""

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t

cpdef enum:
    PER_GLOBAL = 0
    PER_KEY = 1
    PER_USER = 2
    PER_MODEL = 3

cpdef enum:
    REQUESTS = 0
    TOKENS = 1
    CONCURRENT = 2

cdef enum:
    MAX_RULES = 16          # of one set; bounds a Grant's size and a decision's time
    MAX_WORKERS = 28        # counts that fit beside the tag in a gate's cache line
    PROBES = 8              # lines looked at for one subject
    OVERFLOW = 64           # lines that rules share when their subjects find no place
    LINE_BYTES = 64

cdef struct Header:
    uint64_t magic
    uint64_t geometry       # slots << 32 | gates
    uint64_t epoch          # nanoseconds of the first decision, plus 1
    uint64_t lock           # worker + 1 while it moves subjects about
    uint64_t moving         # what it moves: line + 1, MOVING_GATE added for gates
    uint64_t saved          # the value the moved line had
    uint64_t overflowed
    uint64_t spare

cdef struct Bucket:
    uint64_t tag
    int64_t tat             # theoretical arrival time, 1/64 ns since the epoch
    uint32_t generation     # how often the line changed its subject
    uint32_t[11] spare

cdef struct Gate:
    uint64_t tag
    uint16_t[MAX_WORKERS] count

# One rule, ready to count with.
cdef struct Terms:
    uint64_t identity
    int64_t cell            # time units of one request or token
    int64_t window          # time units of a full bucket
    int64_t burst
    int64_t amount
    int per
    int unit

# What one rule of a Grant took, and from where.
cdef struct Hold:
    uint64_t tag            # of the subject
    int64_t cost            # time units
    int64_t ahead           # time units that the bucket is ahead of now, after the decision
    int32_t line
    uint32_t generation     # of the line, when it was taken from

cdef class Table:
    cdef Header* header
    cdef Bucket* buckets
    cdef Gate* gate_lines
    cdef void* private
    cdef Py_buffer view
    cdef readonly int slots
    cdef readonly int gates
    cdef int _worker
    # Nanoseconds of the caller's monotonic clock as time units since the epoch.
    cdef int64_t units(self, int64_t now_ns) noexcept nogil
    # Buckets. ``hold`` comes with tag and cost; a Verdict goes out. ``forced`` charges whatever the bucket holds.
    cdef int charge(self, Hold* hold, const Terms* terms, int64_t now, bint forced) noexcept nogil
    cdef void refund(self, const Hold* hold, int64_t amount) noexcept nogil
    cdef int64_t peek(self, uint64_t tag, uint64_t identity, int64_t now) noexcept nogil
    # Gates.
    cdef int enter(self, Hold* hold, const Terms* terms) noexcept nogil
    cdef void leave(self, const Hold* hold, int worker) noexcept nogil
    # Within.
    cdef bint lock(self) noexcept nogil
    cdef int evict_bucket(self, uint64_t tag, uint64_t identity, int64_t now) noexcept nogil
    cdef int evict_gate(self, uint64_t tag, uint64_t identity) noexcept nogil
    cdef int spend(self, Hold* hold, int64_t window, int64_t now, bint forced) noexcept nogil
    cdef int step_in(self, const Hold* hold, int64_t limit) noexcept nogil
    cdef void repair(self) noexcept nogil

cdef class Rule:
    cdef readonly str name
    cdef readonly int per
    cdef readonly int unit
    cdef readonly int64_t amount
    cdef readonly int64_t period_ns
    cdef readonly int64_t burst
    cdef Terms terms

cdef class Limits:
    cdef readonly Table table
    cdef readonly tuple rules
    cdef int count
    cdef Terms[MAX_RULES] terms
    # ``tokens`` and ``now_ns`` below 0 count as 0.
    cdef Grant take(self, uint64_t key, uint64_t user, uint64_t model, int64_t tokens, int64_t now_ns)
    cdef void refuse(self, Grant grant, int at, int verdict, const uint64_t* subjects, int64_t now)

cdef class Grant:
    cdef Limits limits
    cdef readonly Rule rule
    cdef readonly bint granted
    cdef bint settled
    cdef bint released
    cdef int worker
    cdef readonly int64_t retry_after_ns
    cdef readonly int64_t requests_limit
    cdef readonly int64_t requests_remaining
    cdef readonly int64_t requests_reset_ns
    cdef readonly int64_t tokens_limit
    cdef readonly int64_t tokens_remaining
    cdef readonly int64_t tokens_reset_ns
    cdef Hold[MAX_RULES] holds
    # Each True the first time only: true up the tokens; give back requests and tokens; give back the slots.
    cdef bint true_up(self, int64_t tokens, int64_t now_ns)
    cdef bint undo(self)
    cdef bint leave(self)
    cdef void give_back(self, int i, int64_t amount)
    cdef void report(self, int refused)

# The 64-bit hash behind ``subject``, for text that stands in a buffer.
cdef uint64_t hash_of(const unsigned char* text, Py_ssize_t length) noexcept nogil
