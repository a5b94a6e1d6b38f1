# Part of limit.pyx: the Table, and the protocols on its buckets and gates.

cdef inline int64_t instant(uint64_t kept) noexcept nogil:
    """A moment of the caller's clock, which may be before its 0, out of a word in which 0 means none."""
    return <int64_t>(kept ^ (<uint64_t>1 << 63))


cdef inline uint64_t kept(int64_t moment) noexcept nogil:
    return <uint64_t>moment ^ (<uint64_t>1 << 63)


@cython.final
@cython.no_gc
cdef class Table:
    """A fixed number of buckets, gates, windows and leases, in a buffer or in private memory."""

    def __cinit__(
        self, buffer=None, *, int slots=16384, int gates=4096, int windows=16384, int leases=16384, int worker=0,
        wall_ns=None,
    ):
        cdef size_t size = Table.size(slots, gates, windows, leases)
        cdef uint64_t geometry = (<uint64_t>slots << 32) | <uint64_t>gates
        cdef uint64_t widths = (<uint64_t>windows << 32) | <uint64_t>leases
        cdef timespec monotonic, realtime
        self.worker = worker
        self.leased = {}
        if buffer is None:
            # Not touched before it is used: the zeroes of large memory come from the kernel.
            self.private = calloc(size + LINE_BYTES, 1)
            if self.private is NULL:
                raise MemoryError
            self.header = <Header*>((<uintptr_t>self.private + LINE_BYTES - 1) // LINE_BYTES * LINE_BYTES)
        else:
            PyObject_GetBuffer(buffer, &self.view, PyBUF_SIMPLE | PyBUF_WRITABLE)
            if <size_t>self.view.len < size:
                raise ValueError(f"expected a buffer of at least {size} bytes for {slots} slots and {gates} gates, "
                                 f"got {self.view.len}; make it Table.size(slots, gates, windows, leases) long")
            if <uintptr_t>self.view.buf % LINE_BYTES:
                raise ValueError(f"expected a buffer that is aligned to {LINE_BYTES} bytes, such as an mmap")
            self.header = <Header*>self.view.buf
        if not cas(&self.header.magic, 0, MAGIC) and load(&self.header.magic) != MAGIC:
            raise ValueError("expected zeroes or a table of this version in the buffer, got something else")
        if not cas(&self.header.geometry, 0, geometry) and load(&self.header.geometry) != geometry or (
                not cas(&self.header.widths, 0, widths) and load(&self.header.widths) != widths):
            raise ValueError("the buffer holds a table of another size; all workers must give the same numbers")
        self.slots, self.gates, self.windows, self.leases = slots, gates, windows, leases
        while leases - 1 >> self.lease_shift > 63:
            self.lease_shift += 1
        self.buckets = <Bucket*>(self.header + 1)
        self.gate_lines = <Gate*>(self.buckets + slots + OVERFLOW)
        self.window_lines = <Window*>(self.gate_lines + gates + OVERFLOW)
        self.lease_lines = <Lease*>(self.window_lines + windows + OVERFLOW)
        if not load(&self.header.walled):
            if wall_ns is None:
                clock_gettime(CLOCK_REALTIME, &realtime)
                clock_gettime(CLOCK_MONOTONIC, &monotonic)
                store_signed(&self.header.wall, (<int64_t>realtime.tv_sec - <int64_t>monotonic.tv_sec) * 1000000000
                             + realtime.tv_nsec - monotonic.tv_nsec)
            else:
                store_signed(&self.header.wall, wall_ns)
            store(&self.header.walled, 1)

    def __dealloc__(self):
        free(self.private)
        PyBuffer_Release(&self.view)

    @staticmethod
    def size(int slots=16384, int gates=4096, int windows=16384, int leases=16384):
        """Bytes that such a table needs. Raises ValueError unless all are 8 to 16777216."""
        for name, lines in (("slots", slots), ("gates", gates), ("windows", windows), ("leases", leases)):
            if not MIN_LINES <= lines <= MAX_LINES:
                raise ValueError(f"expected {MIN_LINES} to {MAX_LINES} {name}, got {lines}")
        return (sizeof(Header) + LINE_BYTES * (<size_t>slots + OVERFLOW + <size_t>gates + OVERFLOW + <size_t>leases)
                + WINDOW_BYTES * (<size_t>windows + OVERFLOW))

    @property
    def worker(self):
        return self._worker

    @worker.setter
    def worker(self, int worker):
        if not 0 <= worker < MAX_WORKERS:
            raise ValueError(f"expected a worker from 0 to {MAX_WORKERS - 1}, got {worker}")
        self._worker = worker

    def overflowed(self):
        """How often a subject found no line and shared its rule's overflow line."""
        return load(&self.header.overflowed)

    def in_use(self):
        """Buckets that hold a subject."""
        cdef int line, total = 0
        for line in range(self.slots):
            total += load(&self.buckets[line].tag) > ASIDE
        return total

    @property
    def wall_ns(self):
        """UTC at the caller's 0."""
        return load_signed(&self.header.wall)

    def awake(self, int64_t wall_ns):
        """The machine has slept; see ``limit.pyi``."""
        cdef int64_t known = load_signed(&self.header.wall)
        while known < wall_ns and not cas_signed(&self.header.wall, known, wall_ns):
            known = load_signed(&self.header.wall)

    def resume(self, uint64_t boot, int64_t now_ns, int64_t wall_ns):
        """Go on with memory that comes from a file; see ``limit.pyi``."""
        if boot == 0:
            raise ValueError("expected a boot other than 0")
        revive(self, boot, now_ns, wall_ns)

    def reclaim(self, int worker):
        """Take back all concurrency slots held by a worker that has ended; returns how many."""
        cdef int line
        cdef int64_t total = 0
        if not 0 <= worker < MAX_WORKERS:
            raise ValueError(f"expected a worker from 0 to {MAX_WORKERS - 1}, got {worker}")
        for line in range(self.windows + OVERFLOW):
            if load(&self.window_lines[line].lock) == <uint64_t>worker + 1:
                mend(&self.window_lines[line])
        for line in range(self.leases):
            if load(&self.lease_lines[line].lock) == <uint64_t>worker + 1:
                let_go(&self.lease_lines[line].lock)
        if load(&self.header.lock) == <uint64_t>worker + 1:
            self.repair()
        for line in range(self.gates + OVERFLOW):
            if load_short(&self.gate_lines[line].count[worker]):
                total += swap_short(&self.gate_lines[line].count[worker], 0)
        return total

    @property
    def replicas(self):
        return load(&self.header.replicas) or 1

    @replicas.setter
    def replicas(self, int replicas):
        if not 1 <= replicas <= MAX_REPLICAS:
            raise ValueError(f"expected 1 to {MAX_REPLICAS} replicas, got {replicas}")
        store(&self.header.replicas, <uint64_t>replicas)

    def lease_mode(self, int group):
        """LEASED, OPEN, CLOSED or LOCAL."""
        if not 0 <= group < GROUPS:
            raise ValueError(f"expected a group of 0 or 1, got {group}")
        return <int>load(&self.header.modes[group])

    def set_lease_mode(self, int group, int mode):
        """For all workers at once."""
        if not 0 <= group < GROUPS or not LEASED <= mode <= LOCAL:
            raise ValueError(f"expected a group of 0 or 1 and a mode, got {group} and {mode}")
        store(&self.header.modes[group], <uint64_t>mode)
        self.told = False       # who heard may have been unable to ask

    def lend(self, uint64_t tag, int64_t amount, int64_t expires_ns, int64_t now_ns, int64_t beyond=-1):
        """Add credit; see ``limit.pyi``."""
        cdef Moment at
        if not 0 <= amount <= MAX_COST or now_ns < 0:
            raise ValueError(f"expected an amount of 0 to {MAX_COST} and now_ns of 0 or more, got {amount}, {now_ns}")
        self.moment(now_ns, &at)
        return lend_to(self, tag, amount, at.ns + (expires_ns - now_ns), beyond, &at)

    def current(self, Rule rule not None):
        """The rule of the newest set that goes on with its counts."""
        return self.leased.get(rule.terms.identity, rule)

    def reclaim_credit(self, uint64_t tag):
        """Take back what is left of a credit, expired or not; below 0 it is a debt, which is then forgotten here."""
        return call_in(self, tag)

    def wanting(self, int64_t now_ns=-1):
        """Which leases ask for more, or have something to take back; each is told once. See ``limit.pyi``."""
        cdef timespec clock
        self.told = False
        if load(&self.header.wants) == 0:
            return []
        if now_ns < 0:
            clock_gettime(CLOCK_MONOTONIC, &clock)
            now_ns = <int64_t>clock.tv_sec * 1000000000 + clock.tv_nsec
        return wants_of(self, now_ns)

    def hear(self, heard):
        """Call ``heard()`` while leases want something; None: no more. See ``limit.pyi``."""
        self.heard = heard
        self.told = False

    cdef void tell(self) noexcept:
        self.told = True
        try:
            self.heard()
        except BaseException:  # the look at intervals finds it
            pass

    # -- time

    cdef int moment(self, int64_t now_ns, Moment* at) noexcept nogil:
        cdef uint64_t origin = load(&self.header.origin)
        cdef int64_t ns
        if now_ns < 0:
            now_ns = 0
        if origin == 0:
            # The epoch first: who sees an origin sees an epoch.
            cas(&self.header.epoch, 0, kept(now_ns))
            cas(&self.header.origin, 0, load(&self.header.epoch))
            origin = load(&self.header.origin)
        ns = now_ns - instant(origin)
        at.ns = 0 if ns < 0 else ns
        if at.ns > self.header.latest + LATEST_STEP:
            store_signed(&self.header.latest, at.ns)
        at.wall = self.header.wall + now_ns
        ns = now_ns - instant(load(&self.header.epoch))
        at.units = (0 if ns < 0 else MAX_NS if ns > MAX_NS else ns) * 64
        return 0

    cdef void repair(self) noexcept nogil:
        """Undo what a dead holder of the lock had begun, and let the lock go."""
        cdef uint64_t moving = load(&self.header.moving)
        cdef Bucket* bucket
        if moving > MOVING_GATE:
            cas(&self.gate_lines[moving - MOVING_GATE - 1].tag, ASIDE, self.header.saved)
        elif moving:
            bucket = &self.buckets[moving - 1]
            if load_signed(&bucket.tat) == LOCKED:
                store(&bucket.tag, ASIDE)
                increment_half(&bucket.generation)
                store_signed(&bucket.tat, <int64_t>self.header.saved + 1)
        store(&self.header.moving, 0)
        store(&self.header.lock, 0)

    cdef bint lock(self) noexcept nogil:
        cdef int turn
        for turn in range(SPINS):
            if load(&self.header.lock) == 0 and cas(&self.header.lock, 0, <uint64_t>self._worker + 1):
                return True
            relax(turn)
        return False

    cdef int charge(self, Hold* hold, const Terms* terms, int64_t now, bint forced) noexcept nogil:
        cdef int _attempt, verdict
        cdef bint locked
        for _attempt in range(ATTEMPTS):
            hold.line = line_of(self.buckets, LINE_BYTES, self.slots, hold.tag, True)
            locked = hold.line < 0
            if locked:
                if not self.lock():
                    return BUSY
                hold.line = self.evict_bucket(hold.tag, terms.identity, now)
            verdict = spend(&self.buckets[hold.line], hold, hold.line < self.slots, terms.window, now, forced)
            if locked:
                store(&self.header.lock, 0)
            if verdict != MOVED:
                return verdict
        return BUSY

    cdef int evict_bucket(self, uint64_t tag, uint64_t identity, int64_t now) noexcept nogil:
        """Under the lock: the subject's line after all, or an idle one turned over to it, or the overflow line."""
        cdef int line = line_of(self.buckets, LINE_BYTES, self.slots, tag, True)
        cdef int _turn, _probe, oldest
        cdef int64_t tat, least, floor
        cdef Bucket* bucket
        if line >= 0:
            return line
        for _turn in range(ATTEMPTS):
            least = INT64_MAX
            oldest = -1
            line = home_of(tag, self.slots)
            for _probe in range(PROBES):
                tat = load_signed(&self.buckets[line].tat)
                if tat < least:
                    least = tat
                    oldest = line
                line = line + 1 if line + 1 < self.slots else 0
            if oldest < 0 or least > now - GRACE:
                break
            bucket = &self.buckets[oldest]
            self.header.saved = <uint64_t>least
            store(&self.header.moving, <uint64_t>oldest + 1)
            if cas_signed(&bucket.tat, least, LOCKED):
                increment_half(&bucket.generation)
                store(&bucket.tag, tag)
                line = shared_overflow_of(self.buckets, self.slots, identity, False)
                floor = load_signed(&self.buckets[line].tat) if line >= 0 else 0
                store_signed(&bucket.tat, floor if floor > least else least + 1)
                store(&self.header.moving, 0)
                return oldest
            store(&self.header.moving, 0)
        add(&self.header.overflowed, 1)
        return shared_overflow_of(self.buckets, self.slots, identity, True)

    cdef void refund(self, const Hold* hold, int64_t amount) noexcept nogil:
        """Give time units back. Where the line has gone to another subject, it was full: nothing to give."""
        cdef Bucket* bucket = &self.buckets[hold.line]
        cdef int64_t tat
        cdef int _turn
        for _turn in range(SPINS):
            tat = load_signed(&bucket.tat)
            if tat == LOCKED or load_half(&bucket.generation) != <uint32_t>hold.number:
                return
            if cas_signed(&bucket.tat, tat, tat - amount if tat > amount else 0):
                return

    cdef int64_t peek(self, uint64_t tag, uint64_t identity, int64_t now) noexcept nogil:
        """How many time units the subject's bucket is ahead of now; changes nothing."""
        cdef int line = line_of(self.buckets, LINE_BYTES, self.slots, tag, False)
        cdef int64_t tat
        if line == NO_PLACE:
            line = shared_overflow_of(self.buckets, self.slots, identity, False)
        if line < 0:
            return 0
        tat = load_signed(&self.buckets[line].tat)
        return tat - now if tat > now else 0

    cdef int enter(self, Hold* hold, const Terms* terms) noexcept nogil:
        cdef int _attempt, verdict
        for _attempt in range(ATTEMPTS):
            hold.line = line_of(self.gate_lines, LINE_BYTES, self.gates, hold.tag, True)
            if hold.line >= 0:
                verdict = self.step_in(hold, terms.amount)
            elif self.lock():
                hold.line = self.evict_gate(hold.tag, terms.identity)
                verdict = self.step_in(hold, terms.amount)
                store(&self.header.lock, 0)
            else:
                return BUSY
            if verdict != MOVED:
                return verdict
        return BUSY

    cdef int step_in(self, const Hold* hold, int64_t limit) noexcept nogil:
        cdef Gate* gate = &self.gate_lines[hold.line]
        cdef uint16_t* own = &gate.count[self._worker]
        cdef int verdict = TAKEN
        if load_short(own) == MAX_COUNT:
            return REFUSED
        increment_short(own)
        if hold.line < self.gates and load(&gate.tag) != hold.tag:
            verdict = MOVED
        elif people_in(gate) > limit:
            verdict = REFUSED
        if verdict != TAKEN:
            decrement_short(own)
        return verdict

    cdef int evict_gate(self, uint64_t tag, uint64_t identity) noexcept nogil:
        """Under the lock: the subject's line after all, or one that nobody is in turned over to it, or the overflow."""
        cdef int line = line_of(self.gate_lines, LINE_BYTES, self.gates, tag, True)
        cdef int _probe
        cdef uint64_t before
        cdef Gate* gate
        if line >= 0:
            return line
        line = shared_overflow_of(self.gate_lines, self.gates, identity, False)
        if line < 0 or people_in(&self.gate_lines[line]) == 0:
            line = home_of(tag, self.gates)
            for _probe in range(PROBES):
                gate = &self.gate_lines[line]
                if people_in(gate) == 0:
                    before = load(&gate.tag)
                    self.header.saved = before
                    store(&self.header.moving, MOVING_GATE + <uint64_t>line + 1)
                    store(&gate.tag, ASIDE)
                    before = tag if people_in(gate) == 0 else before
                    store(&gate.tag, before)
                    store(&self.header.moving, 0)
                    if before == tag:
                        return line
                line = line + 1 if line + 1 < self.gates else 0
        add(&self.header.overflowed, 1)
        return shared_overflow_of(self.gate_lines, self.gates, identity, True)

    cdef void leave(self, const Hold* hold, int worker) noexcept nogil:
        cdef uint16_t* own = &self.gate_lines[hold.line].count[worker]
        # Nought where ``reclaim`` took it back already.
        if load_short(own):
            decrement_short(own)
