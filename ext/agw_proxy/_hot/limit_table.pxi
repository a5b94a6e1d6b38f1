# Part of limit.pyx: how a subject's line is found, and the Table with the protocols on its lines.

cdef inline uint64_t mixed(uint64_t word) noexcept nogil:
    """Every bit of the result depends on every bit of ``word``; one to one. Constants of MurmurHash3's finaliser."""
    word = (word ^ (word >> 33)) * <uint64_t>0xFF51AFD7ED558CCD
    word = (word ^ (word >> 33)) * <uint64_t>0xC4CEB9FE1A85EC53
    return word ^ (word >> 33)


cdef uint64_t hash_of(const unsigned char* text, Py_ssize_t length) noexcept nogil:
    cdef uint64_t state = <uint64_t>(length + 1) * <uint64_t>0x9E3779B97F4A7C15
    cdef uint64_t word
    while length > 0:
        word = 0
        memcpy(&word, text, 8 if length >= 8 else <size_t>length)
        word = (state ^ word) * <uint64_t>0x9E3779B97F4A7C15
        state = ((word << 27) | (word >> 37)) + <uint64_t>0x52DCE729
        text += 8
        length -= 8
    return mixed(state)


cdef inline uint64_t tag_of(uint64_t identity, uint64_t subject) noexcept nogil:
    cdef uint64_t tag = mixed(identity + subject * <uint64_t>0x9E3779B97F4A7C15)
    return tag if tag > ASIDE else tag + 2


cdef inline int home_of(uint64_t tag, int count) noexcept nogil:
    return <int>(((tag >> 32) * <uint64_t>count) >> 32)


cdef inline uint64_t* tag_at(void* lines, int line) noexcept nogil:
    """Buckets and gates alike begin with their tag."""
    return <uint64_t*>(<char*>lines + <size_t>line * LINE_BYTES)


cdef int line_of(void* lines, int count, uint64_t tag, bint claim) noexcept nogil:
    """The line of a subject, a free one claimed for it (where ``claim``, else UNSEEN); or NO_PLACE."""
    cdef int line = home_of(tag, count)
    cdef int _probe
    cdef uint64_t seen
    cdef uint64_t* place
    for _probe in range(PROBES):
        place = tag_at(lines, line)
        seen = load(place)
        if seen == FREE:
            if not claim:
                return UNSEEN
            if cas(place, FREE, tag):
                return line
            seen = load(place)
        if seen == tag:
            return line
        line += 1
        if line == count:
            line = 0
    return NO_PLACE


cdef int overflow_of(void* lines, int count, uint64_t identity, bint claim) noexcept nogil:
    """A rule's overflow line (behind the others), UNSEEN where it has none yet. When all are taken, rules share."""
    cdef int first = <int>(identity % OVERFLOW)
    cdef int probe, line
    cdef uint64_t seen
    for probe in range(OVERFLOW):
        line = count + (first + probe) % OVERFLOW
        seen = load(tag_at(lines, line))
        if seen == identity:
            return line
        if seen == FREE:
            if claim:
                store(tag_at(lines, line), identity)
            return line if claim else UNSEEN
    return count + first


cdef inline int64_t people_in(const Gate* gate) noexcept nogil:
    return sum_shorts(gate.count, MAX_WORKERS)


def subject(bytes text not None):
    """A 64-bit hash that is the same in every worker; see ``limit.pyi`` on why it has no key."""
    return hash_of(<const unsigned char*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


@cython.final
@cython.no_gc
cdef class Table:
    """A fixed number of bucket slots and gate slots, 64 bytes each, in a buffer or in private memory."""

    def __cinit__(self, buffer=None, *, int slots=4096, int gates=1024, int worker=0):
        cdef size_t size = Table.size(slots, gates)
        cdef uint64_t geometry = (<uint64_t>slots << 32) | <uint64_t>gates
        self.worker = worker
        if buffer is None:
            if posix_memalign(&self.private, LINE_BYTES, size):
                self.private = NULL
                raise MemoryError
            memset(self.private, 0, size)
            self.header = <Header*>self.private
        else:
            PyObject_GetBuffer(buffer, &self.view, PyBUF_SIMPLE | PyBUF_WRITABLE)
            if <size_t>self.view.len < size:
                raise ValueError(f"expected a buffer of at least {size} bytes for {slots} slots and {gates} gates, "
                                 f"got {self.view.len}; make it Table.size(slots, gates) long")
            if <uintptr_t>self.view.buf % LINE_BYTES:
                raise ValueError(f"expected a buffer that is aligned to {LINE_BYTES} bytes, such as an mmap")
            self.header = <Header*>self.view.buf
        if not cas(&self.header.magic, 0, MAGIC) and load(&self.header.magic) != MAGIC:
            raise ValueError("expected zeroes or a table of this version in the buffer, got something else")
        if not cas(&self.header.geometry, 0, geometry) and load(&self.header.geometry) != geometry:
            raise ValueError("the buffer holds a table of another size; all workers must give the same slots and gates")
        self.slots = slots
        self.gates = gates
        self.buckets = <Bucket*>(self.header + 1)
        self.gate_lines = <Gate*>(self.buckets + slots + OVERFLOW)

    def __dealloc__(self):
        free(self.private)
        PyBuffer_Release(&self.view)

    @staticmethod
    def size(int slots=4096, int gates=1024):
        """Bytes that such a table needs. Raises ValueError unless both are 8 to 16777216."""
        for name, lines in (("slots", slots), ("gates", gates)):
            if not MIN_LINES <= lines <= MAX_LINES:
                raise ValueError(f"expected {MIN_LINES} to {MAX_LINES} {name}, got {lines}")
        return LINE_BYTES * (1 + <size_t>slots + OVERFLOW + <size_t>gates + OVERFLOW)

    @property
    def worker(self):
        return self._worker

    @worker.setter
    def worker(self, int worker):
        if not 0 <= worker < MAX_WORKERS:
            raise ValueError(f"expected a worker from 0 to {MAX_WORKERS - 1}, got {worker}")
        self._worker = worker

    def overflowed(self):
        """How often a subject found no slot and shared its rule's overflow slot."""
        return load(&self.header.overflowed)

    def in_use(self):
        """Bucket slots that hold a subject."""
        cdef int line, total = 0
        for line in range(self.slots):
            total += load(&self.buckets[line].tag) > ASIDE
        return total

    def reclaim(self, int worker):
        """Take back all concurrency slots held by a worker that has ended; returns how many."""
        cdef int line
        cdef int64_t total = 0
        if not 0 <= worker < MAX_WORKERS:
            raise ValueError(f"expected a worker from 0 to {MAX_WORKERS - 1}, got {worker}")
        if load(&self.header.lock) == <uint64_t>worker + 1:
            self.repair()
        for line in range(self.gates + OVERFLOW):
            if load_short(&self.gate_lines[line].count[worker]):
                total += swap_short(&self.gate_lines[line].count[worker], 0)
        return total

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

    cdef int64_t units(self, int64_t now_ns) noexcept nogil:
        cdef uint64_t epoch = load(&self.header.epoch)
        if now_ns < 0:
            now_ns = 0
        if epoch == 0:
            cas(&self.header.epoch, 0, <uint64_t>now_ns + 1)
            epoch = load(&self.header.epoch)
        now_ns -= <int64_t>(epoch - 1)
        return (0 if now_ns < 0 else MAX_NS if now_ns > MAX_NS else now_ns) * 64

    cdef int charge(self, Hold* hold, const Terms* terms, int64_t now, bint forced) noexcept nogil:
        cdef int _attempt, verdict = BUSY
        for _attempt in range(ATTEMPTS):
            hold.line = line_of(self.buckets, self.slots, hold.tag, True)
            if hold.line >= 0:
                verdict = self.spend(hold, terms.window, now, forced)
            elif self.lock():
                hold.line = self.evict_bucket(hold.tag, terms.identity, now)
                verdict = self.spend(hold, terms.window, now, forced)
                store(&self.header.lock, 0)
            else:
                return BUSY
            if verdict != MOVED:
                return verdict
        return BUSY

    cdef int spend(self, Hold* hold, int64_t window, int64_t now, bint forced) noexcept nogil:
        cdef Bucket* bucket = &self.buckets[hold.line]
        cdef int64_t tat, base
        cdef int turn
        for turn in range(SPINS):
            # In this order: when the swap below succeeds, tag and generation were still those of this tat.
            tat = load_signed(&bucket.tat)
            if hold.line < self.slots and load(&bucket.tag) != hold.tag:
                return MOVED
            hold.generation = load_half(&bucket.generation)
            if tat == LOCKED:
                relax(turn)
                continue
            base = tat if tat > now else now
            hold.ahead = base - now
            if forced:
                if not cas_signed(&bucket.tat, tat, INT64_MAX if base > INT64_MAX - hold.cost else base + hold.cost):
                    continue
                return TAKEN
            if hold.ahead > window - hold.cost or base > INT64_MAX - hold.cost:
                return REFUSED
            if hold.cost == 0 or cas_signed(&bucket.tat, tat, base + hold.cost):
                hold.ahead += hold.cost
                return TAKEN
        return BUSY

    cdef int evict_bucket(self, uint64_t tag, uint64_t identity, int64_t now) noexcept nogil:
        """Under the lock: the subject's line after all, or an idle one turned over to it, or the overflow line."""
        cdef int line = line_of(self.buckets, self.slots, tag, True)
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
                line = overflow_of(self.buckets, self.slots, identity, False)
                floor = load_signed(&self.buckets[line].tat) if line >= 0 else 0
                store_signed(&bucket.tat, floor if floor > least else least + 1)
                store(&self.header.moving, 0)
                return oldest
            store(&self.header.moving, 0)
        add(&self.header.overflowed, 1)
        return overflow_of(self.buckets, self.slots, identity, True)

    cdef void refund(self, const Hold* hold, int64_t amount) noexcept nogil:
        """Give time units back. Where the line has gone to another subject, it was full: nothing to give."""
        cdef Bucket* bucket = &self.buckets[hold.line]
        cdef int64_t tat
        cdef int _turn
        for _turn in range(SPINS):
            tat = load_signed(&bucket.tat)
            if tat == LOCKED or load_half(&bucket.generation) != hold.generation:
                return
            if cas_signed(&bucket.tat, tat, tat - amount if tat > amount else 0):
                return

    cdef int64_t peek(self, uint64_t tag, uint64_t identity, int64_t now) noexcept nogil:
        """How many time units the subject's bucket is ahead of now; changes nothing."""
        cdef int line = line_of(self.buckets, self.slots, tag, False)
        cdef int64_t tat
        if line == NO_PLACE:
            line = overflow_of(self.buckets, self.slots, identity, False)
        if line < 0:
            return 0
        tat = load_signed(&self.buckets[line].tat)
        return tat - now if tat > now else 0

    cdef int enter(self, Hold* hold, const Terms* terms) noexcept nogil:
        cdef int _attempt, verdict
        for _attempt in range(ATTEMPTS):
            hold.line = line_of(self.gate_lines, self.gates, hold.tag, True)
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
        cdef int line = line_of(self.gate_lines, self.gates, tag, True)
        cdef int _probe
        cdef uint64_t before
        cdef Gate* gate
        if line >= 0:
            return line
        line = overflow_of(self.gate_lines, self.gates, identity, False)
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
        return overflow_of(self.gate_lines, self.gates, identity, True)

    cdef void leave(self, const Hold* hold, int worker) noexcept nogil:
        cdef uint16_t* own = &self.gate_lines[hold.line].count[worker]
        # Nought where ``reclaim`` took it back already.
        if load_short(own):
            decrement_short(own)
