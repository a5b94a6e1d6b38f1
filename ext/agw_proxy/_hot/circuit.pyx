"""Circuits: which target may be asked now, and which upstream may get a retry, known to all workers alike.

Theory of operation. All that decides is one 64-bit word a target, the *gate*: open or closed, failures in a row, how
often it opened in a row (the level), and a time: until when it is open, or since when closed. One compare-and-swap
moves it, so of many workers that see the failure which is one too many, exactly one opens the circuit.

Failures and requests stand in PARTS words that each cover an eighth of the window; a word says which eighth, and in
which *era* it was counted. Closing moves the gate's era on: all counts of before are void at once, without being
cleared.

A half-open circuit is an open one whose time is over. A probe takes one of its ``probes`` lease words, so there are
never more; a lease that is not given back ends by itself, or with its worker. The first probe that ends decides.

A target's line is found by its name's hash. Names of the configuration and names that callers made up have lines apart,
so that the latter cannot crowd out the former; a line that was idle for ten minutes may go to another target.
"""

import weakref

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free
from libc.string cimport memset

from .atomics cimport add, cas, load, store
from .limit cimport LINE_BYTES, hash_of

cdef extern from "stdlib.h" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)

cdef enum:
    FREE = 0
    ASIDE = 1               # tag of a line that is being turned over to another target
    LOOKS = 16              # lines looked at for one target
    OPEN = 1
    OWNER = 0xFF            # of a lease: worker + 1
    MAX_LEVEL = 15
    MAX_STREAK = 16383
    MAX_COUNT = 0x3FFFF     # of one part of the window; then both counts are halved
    NEWER_PARTS = 64        # a part this little ahead was written by a worker whose clock is: not to be overwritten
    BUDGET_INDEX = 0xFFFFF
    BUDGET_REQUESTS = 0xFFFFFF
    BUDGET_RETRIES = 0xFFFFF
    HALVES = 10             # after so many half-lives of silence the time to the first byte is not known

cdef uint64_t MAGIC = 0x6167772063697201
cdef uint64_t MS = 1000000
cdef uint64_t FOREVER = <uint64_t>1 << 58                   # nanoseconds: nine years, and no sum overflows
cdef uint64_t IDLE_MS = 600000                              # then a line may go to another target
cdef uint64_t TOUCH_MS = 1000
cdef uint64_t LEASE_NS = <uint64_t>60 * 1000000000
cdef uint64_t MAX_REST_NS = <uint64_t>600 * 1000000000
cdef uint64_t UNKNOWN_NS = 1000000000                       # a hint, where nothing says when it may be asked again
cdef uint64_t HALF_LIFE = 240                               # eighths of a second
cdef uint64_t EIGHTH_NS = 125000000
cdef uint64_t BUDGET_PART_NS = 1250000000                   # eight of them are ten seconds
cdef uint64_t BUDGET_COUNTS = (<uint64_t>1 << 44) - 1
cdef uint64_t INDEX = 0x3FFFFF
cdef uint64_t COUNTS = (<uint64_t>1 << 36) - 1
cdef uint64_t MICROS = 0xFFFFFFFF


cdef inline uint64_t at_ms(uint64_t gate) noexcept nogil:
    return gate >> 25


cdef inline uint64_t era_of(uint64_t gate) noexcept nogil:
    return (gate >> 19) & 63


cdef inline uint64_t streak_of(uint64_t gate) noexcept nogil:
    return (gate >> 5) & MAX_STREAK


cdef inline uint64_t level_of(uint64_t gate) noexcept nogil:
    return (gate >> 1) & MAX_LEVEL


cdef inline uint64_t packed(
    uint64_t is_open, uint64_t level, uint64_t streak, uint64_t era, uint64_t ms,
) noexcept nogil:
    return (ms << 25) | ((era & 63) << 19) | (streak << 5) | (level << 1) | is_open


cdef inline bint newer(uint64_t there, uint64_t index, uint64_t mask) noexcept nogil:
    return 0 < ((there - index) & mask) < NEWER_PARTS


include "circuit_table.pxi"


@cython.final
cdef class Circuit:
    """Whether one target may be asked. Made by ``Board.circuit``."""

    @property
    def in_flight(self):
        return self.local.in_flight

    @property
    def first_ns(self):
        return self.first_(self.seen)

    @property
    def shared(self):
        return self.tag != self.own_tag

    @property
    def openings(self):
        return load(&self.at.openings)

    @property
    def since_ns(self):
        return load(&self.at.since)

    def may(self, uint64_t now_ns):
        return self.may_(now_ns)

    def begin(self, uint64_t now_ns, bint force=False):
        return self.begin_(now_ns, force)

    def end(self, uint64_t now_ns, int how, int begun, int64_t first_ns=-1):
        if not GOOD <= how <= NEITHER:
            raise ValueError(f"expected GOOD, BAD or NEITHER, got {how}")
        self.end_(now_ns, how, begun, first_ns)

    def rest(self, uint64_t until_ns, uint64_t now_ns=0):
        self.seen = max(self.seen, now_ns)
        self.rest_(until_ns)

    def state(self, uint64_t now_ns):
        cdef uint64_t gate = load(&self.at.gate)
        if not self.enabled or not gate & OPEN:
            return "closed"
        return "open" if at_ms(gate) * MS > now_ns else "half_open"

    def opens_in_ns(self, uint64_t now_ns):
        cdef uint64_t gate = load(&self.at.gate)
        cdef uint64_t until = load(&self.at.rest)
        if self.may_(now_ns):
            return 0
        if self.enabled and gate & OPEN:
            until = max(until, at_ms(gate) * MS)
        return until - now_ns if until > now_ns else UNKNOWN_NS

    cdef void settle_down(self) noexcept nogil:
        """Find a line: its own, or that of its upstream, or one that no other worker sees."""
        self.tag = self.own_tag
        self.at = self.board.place(self.tag, self.configured)
        if self.at == NULL:
            self.tag = self.vitals.shared_tag
            self.at = self.board.place(self.tag, True)
        if self.at == NULL:
            self.at = &self.vitals.last_resort
            store(&self.at.tag, self.tag)

    cdef bint may_(self, uint64_t now) noexcept nogil:
        cdef uint64_t gate
        if load(&self.at.tag) != self.tag:
            self.settle_down()
        if load(&self.at.rest) > now or load(&self.vitals.at.out):
            return False
        gate = load(&self.at.gate)
        if not gate & OPEN or not self.enabled:
            return True
        return at_ms(gate) * MS <= now and self.lease(now, False)

    cdef int begin_(self, uint64_t now, bint force) noexcept nogil:
        cdef uint64_t gate
        cdef int begun = 1
        if load(&self.at.tag) != self.tag:
            self.settle_down()
        self.touch(now)
        if load(&self.at.rest) > now or load(&self.vitals.at.out):
            begun = force
        else:
            gate = load(&self.at.gate)
            if gate & OPEN and self.enabled:
                begun = 2 if at_ms(gate) * MS <= now and self.lease(now, True) else force
        if begun:
            self.local.in_flight += 1
        return begun

    cdef void end_(self, uint64_t now, int how, int begun, int64_t first) noexcept nogil:
        cdef bint here = load(&self.at.tag) == self.tag
        if not begun:
            return
        self.local.in_flight -= 1
        self.seen = now if now > self.seen else self.seen
        if how != NEITHER:
            if here and first >= 0:
                self.learn(now, first)
            if how == GOOD and self.slow_ns > 0 and first > self.slow_ns:
                how = BAD
            self.vitals.note_(now, how == GOOD)
            if here and self.enabled:
                if how == GOOD:
                    self.good(now, begun)
                else:
                    self.bad(now, begun)
        if begun == 2 and here:
            self.release()      # after the gate has moved: no other probe slips in between

    cdef void rest_(self, uint64_t until) noexcept nogil:
        cdef uint64_t seen
        if until > self.seen + MAX_REST_NS:
            until = self.seen + MAX_REST_NS
        while load(&self.at.tag) == self.tag:
            seen = load(&self.at.rest)
            if seen >= until or cas(&self.at.rest, seen, until):
                return

    cdef void touch(self, uint64_t now) noexcept nogil:
        cdef uint64_t ms = now // MS
        cdef uint64_t clock
        self.seen = now if now > self.seen else self.seen
        if load(&self.at.touched) + TOUCH_MS <= ms:
            store(&self.at.touched, ms)
            clock = load(&self.board.header.clock)
            if clock < ms:
                cas(&self.board.header.clock, clock, ms)

    cdef bint lease(self, uint64_t now, bint take) noexcept nogil:
        """There is a place for a probe; with ``take`` it is taken."""
        cdef uint64_t seen
        cdef int i
        for i in range(self.probes):
            seen = load(&self.at.lease[i])
            if seen == 0 or (seen >> 8) * MS <= now:
                if not take:
                    return True
                if cas(&self.at.lease[i], seen, (((now + LEASE_NS) // MS) << 8) | (<uint64_t>self.board.worker + 1)):
                    return True
        return False

    cdef void release(self) noexcept nogil:
        """Give back a probe's place: of this worker's the one that ends first. None where it has ended by itself."""
        cdef uint64_t seen, oldest = 0
        cdef int i, at = -1
        for i in range(MAX_PROBES):
            seen = load(&self.at.lease[i])
            if seen & OWNER == <uint64_t>self.board.worker + 1 and (at < 0 or seen < oldest):
                at, oldest = i, seen
        if at >= 0:
            cas(&self.at.lease[at], oldest, 0)

    cdef void good(self, uint64_t now, int begun) noexcept nogil:
        cdef bint counted = False
        cdef uint64_t gate
        while True:
            gate = load(&self.at.gate)
            if gate & OPEN:
                if begun != 2 or at_ms(gate) * MS > now:
                    return
                if cas(&self.at.gate, gate, packed(0, level_of(gate), 0, era_of(gate) + 1, now // MS)):
                    store(&self.at.since, now)
                    return
                continue
            if not counted:
                self.count(now, era_of(gate), 0)
                counted = True
            if not streak_of(gate) or cas(
                &self.at.gate, gate, packed(0, level_of(gate), 0, era_of(gate), at_ms(gate))
            ):
                return

    cdef void bad(self, uint64_t now, int begun) noexcept nogil:
        cdef bint counted = False
        cdef uint64_t gate, after, level, streak, ms = now // MS
        while True:
            gate = load(&self.at.gate)
            level = level_of(gate)
            if gate & OPEN:
                if begun != 2 or at_ms(gate) * MS > now:
                    return
                after = self.opened(gate, now, level)
            else:
                if not counted:
                    self.count(now, era_of(gate), 1)
                    counted = True
                streak = streak_of(gate)
                streak = streak + 1 if streak < MAX_STREAK else streak
                if streak >= self.consecutive or self.broken(now, era_of(gate)):
                    after = self.opened(gate, now, 0 if ms >= at_ms(gate) + self.window_ms else level)
                else:
                    after = packed(0, level, streak, era_of(gate), at_ms(gate))
            if cas(&self.at.gate, gate, after):
                if after & OPEN:
                    add(&self.at.openings, 1)
                    if not gate & OPEN:
                        store(&self.at.since, now)
                return

    cdef uint64_t opened(self, uint64_t gate, uint64_t now, uint64_t level) noexcept nogil:
        """The gate opened from now on, for the ``level``-th time in a row."""
        cdef uint64_t pause = self.cool_down_max_ns
        if self.cool_down_ns <= pause >> level:
            pause = self.cool_down_ns << level
        return packed(OPEN, min(level + 1, <uint64_t>MAX_LEVEL), 0, era_of(gate), (now + pause + MS - 1) // MS)

    cdef void count(self, uint64_t now, uint64_t era, uint64_t failures) noexcept nogil:
        cdef uint64_t index = now // self.part_ns
        cdef uint64_t* part = &self.at.window[index % PARTS]
        cdef uint64_t mark = (era << 22) | (index & INDEX)
        cdef uint64_t seen, counts
        while True:
            seen = load(part)
            counts = 0
            if seen >> 36 == mark:
                counts = seen & COUNTS
                if counts >> 18 == MAX_COUNT:
                    counts = ((counts >> 19) << 18) | ((counts & MAX_COUNT) >> 1)
            elif seen >> 58 == era and newer((seen >> 36) & INDEX, index, INDEX):
                return
            if cas(part, seen, (mark << 36) | (counts + (<uint64_t>1 << 18) + failures)):
                return

    cdef bint broken(self, uint64_t now, uint64_t era) noexcept nogil:
        """The share of failures in the window is one that opens the circuit."""
        cdef uint64_t index = now // self.part_ns
        cdef uint64_t seen, requests = 0, failures = 0
        cdef int i
        for i in range(PARTS):
            seen = load(&self.at.window[i])
            if seen >> 58 == era and ((index - (seen >> 36)) & INDEX) < PARTS:
                requests += (seen >> 18) & MAX_COUNT
                failures += seen & MAX_COUNT
        return requests >= self.min_requests and <double>failures >= self.ratio * <double>requests

    cdef void learn(self, uint64_t now, int64_t first) noexcept nogil:
        """Moving average of the time to the first byte: a fifth of the new one, more where the old one is old."""
        cdef uint64_t seen = load(&self.at.first)
        cdef uint64_t clock = now // EIGHTH_NS
        cdef double value = <double>first
        if seen:
            value += 0.8 * faded(clock, seen >> 32) * (<double>(((seen & MICROS) - 1) << 10) - value)
        cdef uint64_t units = <uint64_t>value >> 10
        # Where another worker was quicker, its number stands: there will be others.
        cas(&self.at.first, seen, (clock << 32) | (min(units, MICROS - 1) + 1))

    cdef int64_t first_(self, uint64_t now) noexcept nogil:
        cdef uint64_t seen = load(&self.at.first)
        cdef double left
        if not seen:
            return -1
        left = faded(now // EIGHTH_NS, seen >> 32)
        return <int64_t>(left * <double>(((seen & MICROS) - 1) << 10)) if left > 0 else -1

    def __repr__(self):
        return f"<Circuit {self.name} openings={self.openings} in_flight={self.in_flight}>"


cdef double faded(uint64_t clock, uint64_t then) noexcept nogil:
    """What is left of 1 after so many eighths of a second: halves each HALF_LIFE, straight in between, 0 in the end."""
    cdef uint64_t age = clock - then if clock > then else 0
    cdef uint64_t halves = age // HALF_LIFE
    if halves >= HALVES:
        return 0.0
    return (1.0 - 0.5 * <double>(age % HALF_LIFE) / <double>HALF_LIFE) / <double>(<uint64_t>1 << halves)
