"""Limits: token buckets (GCRA) and concurrency gates in memory that workers may share.

Theory of operation. A *bucket* is one 64-bit number, the theoretical arrival time (tat): how far the subject has spent
ahead of the clock. A request of cost c passes iff ``max(tat, now) + c - now <= window``, and tat moves there by one
compare-and-swap. A *gate* has one count a worker, written by that worker alone; a request enters by adding itself, then
reading the sum, and steps back where that is over the limit.

A subject's line is found by its tag within PROBES lines of its home. A free line is claimed by swapping the tag in;
lines never become free again, so nothing of a subject stands behind a free line. Where all are taken, the slow path
under the table's lock turns an *idle* line over to the new subject: a bucket that is full, a gate nobody is in. Neither
holds anything worth keeping. Whoever is about to change such a line notices:

- bucket: tat is locked, tag stored, tat set *above* its old value, so a swap that began before must fail;
- gate: tag is locked, then the counts are read again; who enters adds itself first and reads the tag then.

Where none is idle, the subject shares its rule's overflow line. A bucket won later starts where the overflow line
stands, and a gate is not given while the overflow line is in use: sharing is stricter than a line of one's own, never
laxer.

A worker killed with the lock in hand has said in the header what it was moving; ``reclaim`` puts that right.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, INT64_MIN, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from .atomics cimport (
    add, cas, cas_signed, decrement_short, increment_half, increment_short, load, load_half, load_short, load_signed,
    relax, store, store_signed, sum_shorts, swap_short,
)

cdef extern from "stdlib.h" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)

cdef enum Verdict:
    TAKEN = 0
    REFUSED = 1
    MOVED = 2       # the line went to another subject meanwhile: look again
    BUSY = 3        # another worker holds lock or line for longer than SPINS looks

cdef enum:
    FREE = 0
    NO_PLACE = -1               # all lines that the subject could have are other subjects'
    UNSEEN = -2                 # the subject has no line
    ASIDE = 1                   # tag of a line that belongs to nobody, or is being moved
    SPINS = 4096                # looks at a word that another worker should let go of within 100 ns; the 64th yields
    ATTEMPTS = 8                # times a line may move away under one decision
    MAX_COUNT = 65535           # of one worker in one gate
    MIN_LINES = 8
    MAX_LINES = 1 << 24
    RETRY_BUSY_NS = 1000000

cdef int64_t LOCKED = INT64_MIN
cdef int64_t MAX_WINDOW = <int64_t>1 << 62
cdef int64_t MAX_TOKENS = <int64_t>1 << 31              # a count above is a defect of whoever counted, not a debt
cdef int64_t MAX_NS = ((<int64_t>1) << 57) - 1          # 4.5 years of time units fit into 63 bits
cdef int64_t GRACE = <int64_t>250 * 1000000 * 64        # a worker's loop may lag that much behind the others' clocks
cdef uint64_t MAGIC = 0x616777206C696D01
cdef uint64_t MOVING_GATE = <uint64_t>1 << 32


include "limit_table.pxi"


@cython.final
@cython.no_gc
cdef class Rule:
    """One limit. ``name`` identifies it (also across reloads) and is its metric label."""

    def __cinit__(self, str name not None, int per, int unit, amount: int, period_ns: int = 0, burst: int = 0):
        cdef bytes text = name.encode()
        if not name:
            raise ValueError("expected a name for the rule, got an empty one")
        if not PER_GLOBAL <= per <= PER_MODEL:
            raise ValueError(f"rule {name!r}: expected per to be one of the PER_ constants, got {per}")
        if not REQUESTS <= unit <= CONCURRENT:
            raise ValueError(f"rule {name!r}: expected unit to be REQUESTS, TOKENS or CONCURRENT, got {unit}")
        if amount < 1:
            raise ValueError(f"rule {name!r}: expected an amount of 1 or more, got {amount}")
        cell, room = 0, amount
        if unit == CONCURRENT:
            if period_ns or burst:
                raise ValueError(f"rule {name!r}: a concurrency limit takes neither period nor burst")
            if amount > MAX_COUNT:
                raise ValueError(f"rule {name!r}: expected at most {MAX_COUNT} concurrent requests, got {amount}")
        else:
            if period_ns <= 0:
                raise ValueError(f"rule {name!r}: expected a period above 0, got {period_ns} ns")
            if burst < 0:
                raise ValueError(f"rule {name!r}: expected a burst of 1 or more (or 0 for the amount), got {burst}")
            room = burst or amount
            cell = max(1, (period_ns * 128 + amount) // (2 * amount))  # rounded half up
            if cell * room >= MAX_WINDOW:
                raise ValueError(f"rule {name!r}: a full bucket takes over 2.2 years to refill; lower burst or period")
        self.name = name
        self.per = per
        self.unit = unit
        self.amount = amount
        self.period_ns = period_ns
        self.burst = 0 if unit == CONCURRENT else room
        # The unit is part of it: a bucket of requests says nothing about tokens.
        self.terms.identity = tag_of(
            hash_of(<const unsigned char*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)), unit)
        self.terms.cell = cell
        self.terms.window = cell * room
        self.terms.burst = room
        self.terms.amount = amount
        self.terms.per = per
        self.terms.unit = unit

    def __repr__(self):
        return f"<Rule {self.name!r}>"


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
        seen = set()
        for item in self.rules:
            rule = <Rule?>item
            if (rule.name, rule.unit) in seen:
                raise ValueError(f"rule {rule.name!r} stands twice in one set; give each a name of its own")
            seen.add((rule.name, rule.unit))
            self.terms[self.count] = rule.terms
            self.count += 1

    def admit(self, uint64_t key, uint64_t user, uint64_t model, int64_t tokens, int64_t now_ns):
        """All rules or none. Raises ValueError where ``tokens`` or ``now_ns`` is below 0."""
        if tokens < 0 or now_ns < 0:
            raise ValueError(f"expected tokens and now_ns of 0 or more, got {tokens} and {now_ns}")
        return self.take(key, user, model, tokens, now_ns)

    cdef Grant take(self, uint64_t key, uint64_t user, uint64_t model, int64_t tokens, int64_t now_ns):
        cdef Grant grant = Grant.__new__(Grant)
        cdef uint64_t[4] subjects
        cdef Hold* hold
        cdef const Terms* terms
        cdef int64_t now
        cdef int i, verdict
        grant.limits = self
        grant.granted = True
        if self.count:
            subjects[PER_GLOBAL], subjects[PER_KEY], subjects[PER_USER], subjects[PER_MODEL] = 0, key, user, model
            now = self.table.units(now_ns)
            grant.worker = self.table._worker
            for i in range(self.count):
                hold = &grant.holds[i]
                terms = &self.terms[i]
                hold.tag = tag_of(terms.identity, subjects[terms.per])
                if terms.unit == CONCURRENT:
                    verdict = self.table.enter(hold, terms)
                else:
                    # An estimate above the burst would never pass; so it passes when the bucket is full.
                    hold.cost = terms.cell * (1 if terms.unit == REQUESTS else max(0, min(tokens, terms.burst)))
                    verdict = self.table.charge(hold, terms, now, False)
                if verdict != TAKEN:
                    self.refuse(grant, i, verdict, subjects, now)
                    return grant
        grant.report(-1)
        return grant

    cdef void refuse(self, Grant grant, int at, int verdict, const uint64_t* subjects, int64_t now):
        cdef Hold* hold = &grant.holds[at]
        cdef const Terms* terms = &self.terms[at]
        cdef int i
        grant.granted = False
        grant.settled = grant.released = True
        grant.rule = <Rule>self.rules[at]
        if terms.unit != CONCURRENT:
            grant.retry_after_ns = RETRY_BUSY_NS
            if verdict == REFUSED:
                grant.retry_after_ns = (hold.ahead - (terms.window - hold.cost) + 63) // 64
        for i in range(at - 1, -1, -1):
            if self.terms[i].unit == CONCURRENT:
                self.table.leave(&grant.holds[i], grant.worker)
            else:
                self.table.refund(&grant.holds[i], grant.holds[i].cost)
        for i in range(self.count):
            if i != at and self.terms[i].unit != CONCURRENT:
                grant.holds[i].ahead = self.table.peek(
                    tag_of(self.terms[i].identity, subjects[self.terms[i].per]), self.terms[i].identity, now)
        grant.report(at)


cdef inline bint tighter(int64_t left, int64_t reset, int64_t least, int64_t longest) noexcept nogil:
    return left < least or (left == least and reset > longest)


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Grant:
    """The outcome of one decision, and what was taken: settled and released exactly once. Made by ``admit`` alone."""

    def __dealloc__(self):
        if self.limits is not None:
            self.leave()

    cdef void report(self, int refused):
        """Fill in the tightest rule in requests and in tokens; ``refused``: the rule that refused, or -1."""
        cdef const Terms* terms
        cdef int64_t ahead, left, reset
        cdef int i
        self.requests_limit = self.requests_remaining = self.requests_reset_ns = -1
        self.tokens_limit = self.tokens_remaining = self.tokens_reset_ns = -1
        for i in range(self.limits.count):
            terms = &self.limits.terms[i]
            if terms.unit == CONCURRENT:
                continue
            ahead = self.holds[i].ahead
            left = 0 if i == refused or ahead >= terms.window else (terms.window - ahead) // terms.cell
            reset = ahead // 64 + (ahead % 64 != 0)
            if terms.unit == REQUESTS:
                if self.requests_limit < 0 or tighter(left, reset, self.requests_remaining, self.requests_reset_ns):
                    self.requests_limit, self.requests_remaining, self.requests_reset_ns = terms.amount, left, reset
            elif self.tokens_limit < 0 or tighter(left, reset, self.tokens_remaining, self.tokens_reset_ns):
                self.tokens_limit, self.tokens_remaining, self.tokens_reset_ns = terms.amount, left, reset

    cdef bint true_up(self, int64_t tokens, int64_t now_ns):
        cdef const Terms* terms
        cdef Hold more
        cdef int64_t now, extra
        cdef int i
        if self.settled or self.limits is None:
            return False
        self.settled = True
        tokens = max(0, min(tokens, MAX_TOKENS))
        for i in range(self.limits.count):
            terms = &self.limits.terms[i]
            if terms.unit != TOKENS:
                continue
            extra = tokens - self.holds[i].cost // terms.cell
            if extra < 0:
                self.give_back(i, -extra * terms.cell)
            elif extra > 0:
                # Found anew: if the line has gone to another subject, this one's bucket was full and starts from there.
                now = self.limits.table.units(now_ns)
                more = self.holds[i]
                more.cost = INT64_MAX if extra > INT64_MAX // terms.cell else extra * terms.cell
                self.limits.table.charge(&more, terms, now, True)
        return True

    cdef bint undo(self):
        cdef int i
        if self.settled or self.limits is None:
            return False
        self.settled = True
        for i in range(self.limits.count):
            if self.limits.terms[i].unit != CONCURRENT:
                self.give_back(i, self.holds[i].cost)
        return True

    cdef void give_back(self, int i, int64_t amount):
        # Not into an overflow line: it may have been full since, and what it lacks now others have spent.
        if self.holds[i].line < self.limits.table.slots:
            self.limits.table.refund(&self.holds[i], amount)

    cdef bint leave(self):
        cdef int i
        if self.released or self.limits is None:
            return False
        self.released = True
        for i in range(self.limits.count):
            if self.limits.terms[i].unit == CONCURRENT:
                self.limits.table.leave(&self.holds[i], self.worker)
        return True

    def settle(self, int64_t tokens, int64_t now_ns):
        """Replace the token estimate by the truth; see ``limit.pyi``. Raises ValueError on a number below 0."""
        if tokens < 0 or now_ns < 0:
            raise ValueError(f"expected tokens and now_ns of 0 or more, got {tokens} and {now_ns}")
        return self.true_up(tokens, now_ns)

    def cancel(self, int64_t now_ns):
        """Give back requests and tokens: nothing was sent upstream. Counts as the settlement."""
        return self.undo()

    def release(self):
        """Give back the concurrency slots. True the first time only. Also happens when the grant is deallocated."""
        return self.leave()
