"""Limits: the C side of ``limit.pyi``. ``Limits.take`` decides, the ``Grant`` it returns gives back.

Memory of a Table: one Header; ``slots`` buckets and OVERFLOW more, 64 bytes each; the same of ``gates``; the same of
``windows``, 256 bytes each; ``leases``, 64 bytes each.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cpdef enum:
    PER_GLOBAL = 0
    PER_KEY = 1
    PER_TEAM = 2
    PER_USER = 4
    PER_CHANNEL = 8
    PER_MODEL = 16
    PER_UPSTREAM = 32
    PER_TOOL = 64
    PER_SESSION = 128

cpdef enum:
    COUNTS_TOKENS = 256     # beside the PER_ bits in ``Limits.counts``
    COUNTS_COST = 512
    COUNTS_LEASES = 1024

# Places of the subjects in an Ask: the numbers of their PER_ bits.
cdef enum:
    AT_KEY = 0
    AT_TEAM = 1
    AT_USER = 2
    AT_CHANNEL = 3
    AT_MODEL = 4
    AT_UPSTREAM = 5
    AT_TOOL = 6
    AT_SESSION = 7
    SUBJECTS = 8

cpdef enum:
    REQUESTS = 0
    TOKENS = 1
    INPUT = 2
    OUTPUT = 3
    COST = 4
    CONCURRENT = 5
    STREAMS = 6

cpdef enum:
    BUCKET = 0
    SLIDING = 1
    CALENDAR = 2
    TOTAL = 3

cpdef enum:
    HOUR = 0
    DAY = 1
    WEEK = 2
    MONTH = 3

cpdef enum:
    LEASED = 0
    OPEN = 1
    CLOSED = 2
    LOCAL = 3

cdef enum:
    MAX_RULES = 256         # of one set; a decision looks at each
    MAX_HELD = 16           # of them that apply to one request
    FEW = 4                 # of these that a Grant has room for in itself
    MAX_MARKS = 4
    MAX_CROSSINGS = 8       # that one Grant can tell of; more are dropped
    MAX_WORKERS = 28        # counts that fit beside the tag in a gate's cache line
    PROBES = 32             # lines looked at for one subject: with 8, some found no place in a table half full
    OVERFLOW = 64           # lines that rules share when their subjects find no place
    LINE_BYTES = 64
    WINDOW_BYTES = 256
    PARTS = 24              # of a sliding window: the current one and 23 that together are as long as the period
    MAX_ALONG = 16          # leases that are filled up beside those that want it
    WANTS = 1               # of a lease: it may ask for something
    TOLD = 2                # somebody was told, and may be asking: it wants something again when nearly all is spent
    GROUPS = 2              # of leased rules: those in money have a lease mode of their own

cdef struct Header:
    uint64_t magic
    uint64_t geometry       # slots << 32 | gates
    uint64_t epoch          # caller's nanoseconds that buckets count from, plus 2^63; 0: not set yet
    uint64_t lock           # worker + 1 while it moves subjects about
    uint64_t moving         # what it moves: line + 1, MOVING_GATE added for gates
    uint64_t saved          # the value the moved line had
    uint64_t overflowed
    uint64_t widths         # windows << 32 | leases
    # A second line: written seldom.
    uint64_t origin         # as ``epoch``, for windows and leases, which count whole nanoseconds
    int64_t latest          # nanoseconds since ``origin`` that a decision was made at, in steps of LATEST_STEP
    int64_t wall            # UTC nanoseconds at the caller's 0
    uint64_t walled         # 1 once ``wall`` is set
    uint64_t boot           # of the machine that kept the memory last; 0: it is in no file
    uint64_t wants          # a bit for each 64th of the leases: one of them may ask for something
    uint64_t replicas       # nodes that share what is LOCAL; 0 means 1
    uint64_t along          # likewise: one of them may go along
    # A third: lease modes.
    uint64_t[8] modes

cdef struct Bucket:
    uint64_t tag
    int64_t tat             # theoretical arrival time, 1/64 ns since the epoch
    uint32_t generation     # how often the line changed its subject
    uint32_t[11] spare

cdef struct Gate:
    uint64_t tag
    uint16_t[MAX_WORKERS] count

cdef struct Window:
    uint64_t tag
    uint64_t lock           # worker + 1 while it counts
    uint64_t kind           # as in Terms
    int64_t span            # as in Terms
    int64_t number          # SLIDING, CALENDAR: of the newest part or of the calendar's unit. TOTAL: when it began
    int64_t total           # what is counted now; SLIDING: the sum of ``parts``
    int64_t owed            # charged while the line was locked: whoever locks it next takes it over
    uint64_t told           # bits of the marks that were crossed
    int64_t[PARTS] parts    # SLIDING: counts, a ring by number. TOTAL: the first is when it was used last

cdef struct Lease:
    uint64_t tag
    uint64_t lock
    uint64_t identity       # of the rule
    int64_t expires         # nanoseconds since the origin
    int64_t credit          # below 0: a debt
    int64_t level           # what the credit was after the last lease
    int64_t beyond          # what others had left then; -1: not known
    uint64_t wants          # 0, WANTS or TOLD

# One rule, ready to count with.
cdef struct Terms:
    uint64_t identity
    uint64_t kind           # algorithm | calendar << 4, and 1 << 8 so that it is never 0
    int64_t cell            # BUCKET: time units of 1 << shift requests, tokens or micro-dollars
    uint64_t inverse        # BUCKET: 2**(places + shift) / cell, for what would be a division
    int64_t window          # BUCKET: time units of a full bucket
    int64_t once            # BUCKET: time units of one request
    int64_t span            # SLIDING: nanoseconds of a part. TOTAL: of the silence that ends it
    int64_t room            # BUCKET: the burst; else the amount
    int64_t amount
    uint64_t only           # the subject that it is for, where ``only_at`` is not -1
    double[MAX_MARKS] marks
    int only_at
    int per
    int unit
    int algorithm
    int calendar
    int shift
    int places
    int group               # of leases; -1: not leased
    bint picks              # it does not apply to each request
    bint simple             # a bucket in requests that is not leased: what most rules are
    int marked
    int parts
    uint8_t[SUBJECTS] part  # places of its subjects

# One request's subjects and what it may need; what is below 0 counts as 0.
cdef struct Ask:
    uint64_t[SUBJECTS] subjects
    int64_t input
    int64_t output
    int64_t cost            # micro-dollars
    bint stream

# One moment on the three clocks of a Table.
cdef struct Moment:
    int64_t units           # 1/64 ns since the epoch
    int64_t ns              # since the origin
    int64_t wall            # UTC nanoseconds

# What one rule of a Grant took, and from where.
cdef struct Hold:
    uint64_t tag            # of the subject
    int64_t count           # requests, tokens, micro-dollars
    int64_t cost            # BUCKET: the same in time units
    int64_t after           # BUCKET: time units that it is ahead of now, after the decision; windows: what is left
    int64_t reset           # windows: nanoseconds until all is back; where refused, until the request can pass
    int64_t number          # BUCKET: the line's generation. Windows: the number it was counted under
    int32_t line
    uint16_t rule
    uint16_t replicas       # that the amount was shared by
    uint8_t crossed         # bits of marks
    bint lent               # taken from a lease

cdef class Table:
    cdef Header* header
    cdef Bucket* buckets
    cdef Gate* gate_lines
    cdef Window* window_lines
    cdef Lease* lease_lines
    cdef void* private
    cdef Py_buffer view
    cdef dict leased            # identity -> Rule
    cdef object heard           # called when a lease asks for something, or None
    cdef bint told              # it was, since somebody looked last
    cdef readonly int slots
    cdef readonly int gates
    cdef readonly int windows
    cdef readonly int leases
    cdef int lease_shift        # a line's number, shifted by it, is its bit in ``Header.wants``
    cdef int _worker
    cdef int64_t[4] turned      # wall time at which the calendar number kept beside it begins and ends
    cdef int64_t[4] turns
    cdef int64_t[4] turn
    cdef int moment(self, int64_t now_ns, Moment* at) noexcept nogil
    # Buckets.
    cdef int charge(self, Hold* hold, const Terms* terms, int64_t now, bint forced) noexcept nogil
    cdef void refund(self, const Hold* hold, int64_t amount) noexcept nogil
    cdef int64_t peek(self, uint64_t tag, uint64_t identity, int64_t now) noexcept nogil
    # Gates.
    cdef int enter(self, Hold* hold, const Terms* terms) noexcept nogil
    cdef void leave(self, const Hold* hold, int worker) noexcept nogil
    # Leases.
    cdef void tell(self) noexcept
    # Within.
    cdef bint lock(self) noexcept nogil
    cdef int evict_bucket(self, uint64_t tag, uint64_t identity, int64_t now) noexcept nogil
    cdef int evict_gate(self, uint64_t tag, uint64_t identity) noexcept nogil
    cdef int step_in(self, const Hold* hold, int64_t limit) noexcept nogil
    cdef void repair(self) noexcept nogil

cdef class Rule:
    cdef readonly str name
    cdef readonly int per
    cdef readonly int unit
    cdef readonly int64_t amount
    cdef readonly int64_t period_ns
    cdef readonly int64_t burst
    cdef readonly int algorithm
    cdef readonly int calendar
    cdef readonly tuple only
    cdef readonly bint leased
    cdef readonly tuple marks
    cdef Terms terms
    cdef bytes line             # of headers: its amount, kept here by who writes them

cdef class Standing:
    cdef readonly Rule rule
    cdef readonly int64_t remaining
    cdef readonly int64_t elsewhere
    cdef readonly int64_t reset_ns

cdef class Limits:
    cdef readonly Table table
    cdef readonly tuple rules
    cdef readonly int counts
    cdef int count
    cdef int most               # of them that can apply to one request
    cdef bint trues_up          # some count what is known in the end only
    cdef bint has_gates
    cdef Terms* terms
    cdef Grant take(self, const Ask* ask, int64_t now_ns)
    cdef int gather(self, Grant grant, const Moment* at, bint moving) noexcept
    cdef int decide(self, Hold* hold, const Terms* terms, const Moment* at) noexcept
    cdef void refuse(self, Grant grant, int at_rule, int verdict, const Moment* at)

cdef class Grant:
    cdef Limits limits
    cdef readonly Rule rule
    cdef tuple shortages        # None nearly always
    cdef readonly bint granted
    cdef readonly bint closed
    cdef bint settled
    cdef bint released
    cdef int worker
    cdef int held
    cdef int crossings          # what ``crossed`` tells; 0 nearly always
    cdef int requests_rule      # whose numbers the ``requests_`` are, and the ``tokens_``
    cdef int tokens_rule
    cdef readonly int64_t retry_after_ns
    cdef readonly int64_t requests_limit
    cdef readonly int64_t requests_remaining
    cdef readonly int64_t requests_reset_ns
    cdef readonly int64_t tokens_limit
    cdef readonly int64_t tokens_remaining
    cdef readonly int64_t tokens_reset_ns
    cdef readonly int64_t input_tokens_limit
    cdef readonly int64_t input_tokens_remaining
    cdef readonly int64_t input_tokens_reset_ns
    cdef readonly int64_t output_tokens_limit
    cdef readonly int64_t output_tokens_remaining
    cdef readonly int64_t output_tokens_reset_ns
    cdef Ask ask
    cdef uint16_t[MAX_CROSSINGS] crossed_rule
    cdef uint8_t[MAX_CROSSINGS] crossed_mark
    cdef Hold* holds            # MAX_HELD of them, or ``few`` where no request can meet more rules
    cdef Hold[FEW] few
    # Each True the first time only: true up tokens and cost; give back requests, tokens and cost; give back the slots.
    cdef bint true_up(self, int64_t input, int64_t output, int64_t cost, int64_t now_ns)
    cdef bint undo(self, int64_t now_ns)
    cdef bint leave(self)
    # The rule that refused, or None. See ``limit.pyi``.
    cdef Rule more(self, int64_t output, int64_t cost, int64_t now_ns, int64_t read=*)
    cdef Rule go(self, uint64_t upstream, int64_t now_ns)
    cdef int correct(self, Hold* hold, const Terms* terms, int64_t extra, const Moment* at) noexcept
    cdef void drop(self, Hold* hold, const Terms* terms, const Moment* at) noexcept
    cdef void notice(self, const Hold* hold) noexcept nogil

# Micro-dollars that the tightest rule in money has left for that request; INT64_MAX: there is none.
cdef int64_t money_left(Limits limits, const Ask* ask, int64_t now_ns) noexcept

# The 64-bit hash behind ``subject``, for text that stands in a buffer.
cdef uint64_t hash_of(const unsigned char* text, Py_ssize_t length) noexcept nogil
