"""Limits: token buckets (GCRA), windows, concurrency gates and leases in memory that workers may share.

Theory of operation. A *bucket* is one 64-bit number, the theoretical arrival time (tat): how far the subject has spent
ahead of the clock. A request of cost c passes iff ``max(tat, now) + c - now <= window``, and tat moves there by one
compare-and-swap. A *gate* has one count a worker, written by that worker alone; a request enters by adding itself, then
reading the sum, and steps back where that is over the limit. A *window* has counts and a lock (``limit_window.pxi``).
A *lease* is a credit that was taken from limits kept elsewhere (``limit_lease.pxi``).

A subject's line is found by its tag within PROBES lines of its home. A free line is claimed
by swapping the tag in; lines never become free again, so nothing of a subject stands behind a free line. Where all are
taken, the slow path under the table's lock turns an *idle* line over to the new subject: a bucket that is full, a gate
nobody is in, a window in which nothing is counted. None holds anything worth keeping. Whoever is about to change such
a line notices:

- bucket: tat is locked, tag stored, tat set *above* its old value, so a swap that began before must fail;
- gate: tag is locked, then the counts are read again; who enters adds itself first and reads the tag then;
- window: the line's lock is held while its tag changes; who has got the lock reads the tag again.

Where none is idle, the subject shares its rule's overflow line. A bucket won later starts where the overflow line
stands, and a gate or window is not given while the overflow line is in use: sharing is stricter than a line of one's
own, never laxer.

A worker killed with the table's lock in hand has said in the header what it was moving, and one killed with a line's
lock has left it so that it can be gone on from; ``reclaim`` puts both right.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, INT64_MIN, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

from .atomics cimport (
    add, cas, cas_signed, decrement_short, increment_half, increment_short, load, load_half, load_short, load_signed,
    relax, set_bits, store, store_signed, sum_shorts, swap, swap_short, unlock,
)

cdef enum Verdict:
    TAKEN = 0
    REFUSED = 1
    MOVED = 2       # the line went to another subject meanwhile: look again
    BUSY = 3        # another worker holds lock or line for longer than SPINS looks
    SHORT = 4       # leased, and not enough credit here
    SHUT = 5        # leased, and the mode is CLOSED
    AGAIN = 6       # of one attempt: another worker was faster

cdef enum:
    FREE = 0
    NO_PLACE = -1               # all lines that the subject could have are other subjects'
    UNSEEN = -2                 # the subject has no line
    ASIDE = 1                   # tag of a line that belongs to nobody, or is being moved
    SPINS = 4096                # looks at a word that another worker should let go of within 100 ns; the 64th yields
    PATIENCE = 64               # times SPINS for what must not be lost
    ATTEMPTS = 8                # times a line may move away under one decision
    MAX_COUNT = 65535           # of one worker in one gate
    MIN_LINES = 8
    MAX_LINES = 1 << 24
    MAX_REPLICAS = 1000
    RETRY_BUSY_NS = 1000000
    FULL_NS = 1000000000        # till an overflow line may be had, when all of them are other rules'
    FINE = 1 << 10              # time units of a request or token below which fractions of them are counted, too

cdef int64_t LOCKED = INT64_MIN
cdef int64_t MAX_WINDOW = <int64_t>1 << 62
cdef int64_t MAX_TOKENS = <int64_t>1 << 31              # a count above is a defect of whoever counted, not a debt
cdef int64_t MAX_COST = <int64_t>1 << 52                # micro-dollars, likewise: 4.5 billion dollars
cdef int64_t MAX_AMOUNT = <int64_t>1 << 60
cdef int64_t MAX_NS = ((<int64_t>1) << 57) - 1          # 4.5 years of time units fit into 63 bits
cdef int64_t REBASE_NS = (<int64_t>1) << 55             # after a year a kept table gets a new epoch
cdef int64_t GRACE_NS = <int64_t>250 * 1000000          # a worker's loop may lag that much behind the others' clocks
cdef int64_t GRACE = GRACE_NS * 64
cdef int64_t LATEST_STEP = 1000000000
cdef uint64_t MAGIC = 0x616777206C696D02
cdef uint64_t MOVING_GATE = <uint64_t>1 << 32


include "limit_lines.pxi"
include "limit_spend.pxi"
include "limit_window.pxi"
include "limit_lease.pxi"
include "limit_resume.pxi"
include "limit_table.pxi"
include "limit_rule.pxi"


@cython.final
@cython.no_gc
cdef class Standing:
    """What a rule has left for a subject."""

    def __repr__(self):
        return f"<Standing {self.rule.name!r}: {self.remaining} left, full in {self.reset_ns} ns>"


cdef inline bint tighten(
    int64_t* limit, int64_t* remaining, int64_t* reset, int64_t amount, int64_t left, int64_t full
) noexcept nogil:
    """Whether it is the tightest so far."""
    if limit[0] >= 0 and (left > remaining[0] or (left == remaining[0] and full <= reset[0])):
        return False
    limit[0], remaining[0], reset[0] = amount, left, full
    return True


cdef inline void report(Grant grant, int rule, int64_t left, int64_t reset) noexcept nogil:
    """Keep the tightest rule in requests and in tokens."""
    cdef const Terms* terms = &grant.limits.terms[rule]
    cdef int64_t amount = terms.amount
    if terms.unit == REQUESTS:
        if tighten(&grant.requests_limit, &grant.requests_remaining, &grant.requests_reset_ns, amount, left, reset):
            grant.requests_rule = rule
    elif terms.unit <= OUTPUT:
        report_tokens(grant, rule, terms, left, reset)


cdef void report_tokens(Grant grant, int rule, const Terms* terms, int64_t left, int64_t reset) noexcept nogil:
    cdef int64_t amount = terms.amount
    if tighten(&grant.tokens_limit, &grant.tokens_remaining, &grant.tokens_reset_ns, amount, left, reset):
        grant.tokens_rule = rule
    if terms.unit == INPUT:
        tighten(&grant.input_tokens_limit, &grant.input_tokens_remaining, &grant.input_tokens_reset_ns,
                amount, left, reset)
    elif terms.unit == OUTPUT:
        tighten(&grant.output_tokens_limit, &grant.output_tokens_remaining, &grant.output_tokens_reset_ns,
                amount, left, reset)


@cython.final
@cython.no_gc
cdef class Limits:
    """The immutable set of rules that a key's requests come under."""

    def __cinit__(self, Table table not None, rules not None):
        cdef Rule rule
        self.table = table
        self.rules = tuple(rules)
        if len(self.rules) > MAX_RULES:
            raise ValueError(f"expected at most {MAX_RULES} rules in a set, got {len(self.rules)}; merge some")
        self.terms = <Terms*>calloc(max(len(self.rules), 1), sizeof(Terms))
        if self.terms is NULL:
            raise MemoryError
        seen = set()
        for item in self.rules:
            rule = <Rule?>item
            if (rule.name, rule.unit) in seen:
                raise ValueError(f"rule {rule.name!r} stands twice in one set; give each a name of its own")
            seen.add((rule.name, rule.unit))
            self.terms[self.count] = rule.terms
            self.count += 1
            self.counts |= rule.per | rule.only[0]
            self.trues_up |= REQUESTS < rule.unit < CONCURRENT
            self.has_gates |= rule.unit >= CONCURRENT
            if TOKENS <= rule.unit <= OUTPUT:
                self.counts |= COUNTS_TOKENS
            if rule.unit == COST:
                self.counts |= COUNTS_COST
            if rule.leased:
                self.counts |= COUNTS_LEASES
                table.leased[rule.terms.identity] = rule
        self.most = most_at_once(self.rules)
        if self.most > MAX_HELD:
            raise ValueError(f"expected at most {MAX_HELD} rules for one request, got up to {self.most}; merge some")

    def __dealloc__(self):
        free(self.terms)

    def admit(
        self, int64_t now_ns, *, uint64_t key=0, uint64_t team=0, uint64_t user=0, uint64_t channel=0,
        uint64_t model=0, uint64_t upstream=0, uint64_t tool=0, uint64_t session=0, int64_t input_tokens=0,
        int64_t output_tokens=0, int64_t cost=0, bint stream=False,
    ):
        """All rules or none. Raises ValueError where a number is below 0."""
        cdef Ask ask
        if input_tokens < 0 or output_tokens < 0 or cost < 0 or now_ns < 0:
            raise ValueError(f"expected tokens, cost and now_ns of 0 or more, got {input_tokens}, {output_tokens}, "
                             f"{cost} and {now_ns}")
        ask.subjects = [key, team, user, channel, model, upstream, tool, session]
        ask.input, ask.output, ask.cost, ask.stream = input_tokens, output_tokens, cost, stream
        return self.take(&ask, now_ns)

    def look(
        self, int64_t now_ns, *, uint64_t key=0, uint64_t team=0, uint64_t user=0, uint64_t channel=0,
        uint64_t model=0, uint64_t upstream=0, uint64_t tool=0, uint64_t session=0,
    ):
        """What each rule that applies has left; takes nothing and makes no lines."""
        cdef Ask ask
        cdef Moment at
        cdef Standing standing
        cdef int i
        cdef list found = []
        ask.subjects = [key, team, user, channel, model, upstream, tool, session]
        ask.stream = True
        if self.count:
            self.table.moment(now_ns, &at)
        for i in range(self.count):
            if applies(&self.terms[i], &ask):
                standing = Standing.__new__(Standing)
                standing.rule = <Rule>self.rules[i]
                standing_of(self.table, &self.terms[i], &ask, &at, &standing.remaining, &standing.reset_ns)
                standing.elsewhere = elsewhere_of(self.table, &self.terms[i], &ask)
                found.append(standing)
        return found

    cdef Grant take(self, const Ask* ask, int64_t now_ns):
        cdef Grant grant = Grant.__new__(Grant)
        cdef Moment at
        cdef int refused
        grant.limits = self
        grant.granted = True
        grant.requests_limit = grant.requests_remaining = grant.requests_reset_ns = -1
        grant.tokens_limit = grant.tokens_remaining = grant.tokens_reset_ns = -1
        grant.input_tokens_limit = grant.input_tokens_remaining = grant.input_tokens_reset_ns = -1
        grant.output_tokens_limit = grant.output_tokens_remaining = grant.output_tokens_reset_ns = -1
        if self.count:
            grant.holds = &grant.few[0] if self.most <= FEW else <Hold*>calloc(MAX_HELD, sizeof(Hold))
            if grant.holds == NULL:
                raise MemoryError
            grant.ask = ask[0]
            grant.worker = self.table._worker
            self.table.moment(now_ns, &at)
            refused = self.gather(grant, &at, False)
            if refused >= 0:
                self.refuse(grant, refused & 0xFFFF, refused >> 16, &at)
        return grant

    cdef int gather(self, Grant grant, const Moment* at, bint moving) noexcept:
        """Take by each rule that applies (``moving``: and looks at the upstream); -1, or rule | Verdict << 16.

        On the way out the hold behind the last one is that of the rule that refused.
        """
        cdef Table table = self.table
        cdef int i, verdict
        cdef Hold* hold
        cdef const Terms* terms
        cdef int64_t left
        for i in range(self.count):
            terms = &self.terms[i]
            if not applies(terms, &grant.ask) or (moving and not of_upstream(terms)):
                continue
            hold = &grant.holds[grant.held]
            hold.rule = <uint16_t>i
            hold.tag = tag_of(terms, &grant.ask)
            hold.crossed = 0
            if terms.simple:
                hold.count, hold.cost, hold.replicas, hold.lent = 1, terms.once, 1, False
                verdict = charge(table, hold, terms, at.units, False)
            else:
                hold.count = counted(terms.unit, grant.ask.input, grant.ask.output, grant.ask.cost)
                verdict = self.decide(hold, terms, at)
                if hold.crossed:
                    grant.notice(hold)
            if verdict != TAKEN:
                return i | verdict << 16
            grant.held += 1
            if moving or terms.unit >= CONCURRENT:
                continue
            if terms.algorithm == BUCKET and not hold.lent:
                left = 0 if hold.after >= terms.window else unscaled(terms, terms.window - hold.after)
                if hold.replicas > 1:
                    left //= hold.replicas
                report(grant, i, left, <int64_t>(<uint64_t>hold.after + 63 >> 6))
            else:
                report(grant, i, hold.after, hold.reset)
        return -1

    cdef int decide(self, Hold* hold, const Terms* terms, const Moment* at) noexcept:
        """The Verdict of a rule that is not simple. ``hold`` comes with tag and count, and goes with all else."""
        cdef Table table = self.table
        cdef int64_t room = terms.room, left
        cdef uint64_t mode = LEASED
        cdef bint forced = False
        cdef int verdict
        hold.replicas = 1
        hold.lent = False
        if terms.unit >= CONCURRENT:
            return table.enter(hold, terms)
        # An estimate above what there ever is would never pass; so it passes when all is there. Money is not so.
        if hold.count > room and (terms.unit != COST or terms.algorithm == BUCKET):
            hold.count = room
        if terms.group >= 0:
            mode = load(&table.header.modes[terms.group])
            if mode == CLOSED:
                return SHUT
            forced = mode != LOCAL
            if mode == LEASED:
                verdict = spend_lease(table, hold, terms, at, False)
                if load(&table.header.wants) and not table.told and table.heard is not None:
                    table.tell()
                if verdict != TAKEN:
                    return verdict
                hold.lent = True
            elif mode == LOCAL:
                hold.replicas = <uint16_t>(load(&table.header.replicas) or 1)
                room = max(room // hold.replicas, 1)
                if hold.count > room and (terms.unit != COST or terms.algorithm == BUCKET):
                    hold.count = room
        left = hold.after
        if terms.algorithm == BUCKET:
            hold.cost = terms.once
            if terms.unit != REQUESTS:
                hold.cost = min(scaled(hold.count, terms.cell, terms.shift), terms.window)
            if hold.replicas > 1:
                hold.cost = min(scaled(hold.cost, hold.replicas, 0), terms.window)
            verdict = charge(table, hold, terms, at.units, forced)
            if hold.lent:
                hold.reset = hold.after // 64
        else:
            verdict = count_in(table, hold, terms, at, room, forced)
        if hold.lent:
            hold.after = min(left, terms.room)
            if verdict != TAKEN:
                repay_lease(table, hold.tag, hold.count, terms.room, at)
        return verdict

    cdef void refuse(self, Grant grant, int at_rule, int verdict, const Moment* at):
        cdef Hold* hold = &grant.holds[grant.held]
        cdef const Terms* terms = &self.terms[at_rule]
        cdef int64_t left = 0, reset = 0
        cdef int i
        grant.granted = False
        grant.settled = grant.released = True
        grant.rule = <Rule>self.rules[at_rule]
        grant.closed = verdict == SHUT
        grant.retry_after_ns = wait_of(hold, terms, verdict)
        for i in range(grant.held - 1, -1, -1):
            grant.drop(&grant.holds[i], &self.terms[grant.holds[i].rule], at)
        grant.held = 0
        if verdict == SHORT:
            grant.shortages = shortages(self, &grant.ask, at)
        grant.requests_limit = grant.requests_remaining = grant.requests_reset_ns = -1
        grant.tokens_limit = grant.tokens_remaining = grant.tokens_reset_ns = -1
        grant.input_tokens_limit = grant.input_tokens_remaining = grant.input_tokens_reset_ns = -1
        grant.output_tokens_limit = grant.output_tokens_remaining = grant.output_tokens_reset_ns = -1
        for i in range(self.count):
            terms = &self.terms[i]
            if terms.unit < CONCURRENT and applies(terms, &grant.ask):
                standing_of(self.table, terms, &grant.ask, at, &left, &reset)
                report(grant, i, 0 if i == at_rule else left, reset)


cdef inline bint of_upstream(const Terms* terms) noexcept nogil:
    return terms.per & PER_UPSTREAM or terms.only_at == AT_UPSTREAM


cdef int64_t wait_of(const Hold* hold, const Terms* terms, int verdict) noexcept nogil:
    """Nanoseconds until the same request can pass the rule that refused it; 0: unknown."""
    if terms.unit >= CONCURRENT:
        return 0
    if verdict != REFUSED:
        return RETRY_BUSY_NS
    if terms.algorithm != BUCKET:
        return hold.reset
    return (hold.after - (terms.window - hold.cost) + 63) // 64


include "limit_left.pxi"
include "limit_grant.pxi"
