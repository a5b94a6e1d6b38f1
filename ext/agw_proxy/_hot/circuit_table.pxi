# Part of circuit.pyx: the Board, how a line is found there, and the Vitals of an upstream.

cdef inline uint64_t* tag_at(void* lines, size_t size, int line) noexcept nogil:
    return <uint64_t*>(<char*>lines + <size_t>line * size)


cdef uint64_t* line_of(void* lines, size_t size, int count, uint64_t tag, bint claim) noexcept nogil:
    """The line with this tag, a free one claimed for it (where ``claim``); NULL where there is none."""
    cdef int line = <int>(((tag >> 32) * <uint64_t>count) >> 32)
    cdef int _probe
    cdef uint64_t seen
    cdef uint64_t* place
    for _probe in range(LOOKS):
        place = tag_at(lines, size, line)
        seen = load(place)
        if seen == FREE:
            if not claim:
                return NULL
            if cas(place, FREE, tag):
                return place
            seen = load(place)
        if seen == tag:
            return place
        line = line + 1 if line + 1 < count else 0
    return NULL


cdef uint64_t tag_of(str name):
    cdef bytes text = name.encode("utf-8", "surrogatepass")
    cdef uint64_t tag = hash_of(<const unsigned char*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return tag if tag > ASIDE else tag + 2


@cython.final
cdef class Board:
    """The circuits and vitals of one gateway, in a buffer or in private memory."""

    def __cinit__(self, memory=None, *, int worker=0):
        cdef size_t size = Board.size()
        if not 0 <= worker < MAX_WORKERS:
            raise ValueError(f"expected a worker of 0 to {MAX_WORKERS - 1}, got {worker}")
        self.worker = worker
        self.locals = weakref.WeakValueDictionary()
        if memory is None:
            if posix_memalign(&self.private, LINE_BYTES, size):
                self.private = NULL
                raise MemoryError
            memset(self.private, 0, size)
            self.header = <Header*>self.private
        else:
            PyObject_GetBuffer(memory, &self.view, PyBUF_SIMPLE | PyBUF_WRITABLE)
            if <size_t>self.view.len < size:
                raise ValueError(f"expected a buffer of at least {size} bytes, got {self.view.len}")
            if <uintptr_t>self.view.buf % LINE_BYTES:
                raise ValueError(f"expected a buffer that is aligned to {LINE_BYTES} bytes, such as an mmap")
            self.header = <Header*>self.view.buf
        if not cas(&self.header.magic, 0, MAGIC) and load(&self.header.magic) != MAGIC:
            raise ValueError("expected zeroes or a board of this version in the buffer, got something else")
        self.upstreams = <VitalLine*>(self.header + 1)
        self.targets = <Line*>(self.upstreams + UPSTREAMS)

    def __dealloc__(self):
        free(self.private)
        PyBuffer_Release(&self.view)

    @staticmethod
    def size():
        return sizeof(Header) + UPSTREAMS * sizeof(VitalLine) + (CONFIGURED + CALLED) * sizeof(Line)

    def vitals(self, str upstream not None):
        return Vitals(self, upstream)

    def circuit(
        self, str target not None, Vitals vitals not None, *, bint enabled, consecutive: int, ratio: float,
        min_requests: int, window_ns: int, cool_down_ns: int, cool_down_max_ns: int, probes: int, slow_ns: int,
        bint configured=True,
    ):
        if vitals.board is not self:
            raise ValueError("expected vitals of the same board")
        if not 1 <= consecutive <= MAX_STREAK:
            raise ValueError(f"expected consecutive of 1 to {MAX_STREAK}, got {consecutive}")
        if window_ns < PARTS or cool_down_ns < 1 or cool_down_max_ns < 1 or min_requests < 1 or slow_ns < 0:
            raise ValueError("expected a window, cool-downs and min_requests above 0, and slow_ns of 0 or more")
        if probes < 1:
            raise ValueError(f"expected probes of 1 or more, got {probes}")
        cdef Circuit circuit = Circuit.__new__(Circuit)
        cdef Local local = self.locals.get(target)
        if local is None:
            local = self.locals[target] = Local()
        circuit.name = target
        circuit.vitals = vitals
        circuit.board = self
        circuit.local = local
        circuit.configured = configured
        circuit.enabled = enabled
        circuit.consecutive = consecutive
        circuit.ratio = ratio
        circuit.min_requests = min_requests
        circuit.part_ns = min(window_ns, FOREVER) // PARTS
        circuit.window_ms = min(window_ns, FOREVER) // MS
        circuit.cool_down_max_ns = min(cool_down_max_ns, FOREVER)
        circuit.cool_down_ns = min(cool_down_ns, circuit.cool_down_max_ns)
        circuit.probes = min(probes, MAX_PROBES)
        circuit.slow_ns = min(slow_ns, FOREVER)
        circuit.own_tag = tag_of(target)
        circuit.settle_down()
        return circuit

    def reclaim(self, int worker):
        cdef Line* line
        cdef uint64_t seen
        cdef int i, j, freed = 0
        if not 0 <= worker < MAX_WORKERS:
            raise ValueError(f"expected a worker of 0 to {MAX_WORKERS - 1}, got {worker}")
        for i in range(CONFIGURED + CALLED):
            line = &self.targets[i]
            if load(&line.tag) == FREE:
                continue
            for j in range(MAX_PROBES):
                seen = load(&line.lease[j])
                if seen & OWNER == <uint64_t>worker + 1 and cas(&line.lease[j], seen, 0):
                    freed += 1
        cas(&self.header.lock, <uint64_t>worker + 1, 0)
        return freed

    cdef Line* place(self, uint64_t tag, bint configured) noexcept nogil:
        """The target's line, claimed where it has none yet; NULL where all that it could have are other targets'."""
        cdef Line* called = self.targets + CONFIGURED
        cdef uint64_t* found = line_of(self.targets, sizeof(Line), CONFIGURED, tag, configured)
        if found == NULL and not configured:
            found = line_of(called, sizeof(Line), CALLED, tag, True)
        if found != NULL:
            return <Line*>found
        if configured:
            return self.evict(self.targets, CONFIGURED, tag)
        return self.evict(called, CALLED, tag)

    cdef Line* evict(self, Line* lines, int count, uint64_t tag) noexcept nogil:
        """A line that nothing has touched for IDLE_MS, turned over to this target; NULL where there is none.

        Its gate's era moves on, so that what a late request of the other target still adds counts for nothing.
        """
        cdef int line = <int>(((tag >> 32) * <uint64_t>count) >> 32)
        cdef int i, j
        cdef uint64_t before, gate, clock = load(&self.header.clock)
        cdef Line* found = NULL
        if not cas(&self.header.lock, 0, <uint64_t>self.worker + 1):
            return NULL
        for i in range(LOOKS):      # another worker may have been quicker
            if load(&lines[(line + i) % count].tag) == tag:
                found = &lines[(line + i) % count]
        for i in range(LOOKS):
            if found != NULL:
                break
            found = &lines[(line + i) % count]
            before = load(&found.tag)
            gate = load(&found.gate)
            if before != ASIDE and (
                load(&found.touched) + IDLE_MS > clock or load(&found.rest) // MS > clock
                or (gate & OPEN and at_ms(gate) + IDLE_MS > clock) or not cas(&found.tag, before, ASIDE)
            ):
                found = NULL
                continue
            store(&found.gate, packed(0, 0, 0, era_of(gate) + 1, 0))
            store(&found.rest, 0)
            store(&found.first, 0)
            store(&found.since, 0)
            store(&found.openings, 0)
            store(&found.touched, clock)
            for j in range(MAX_PROBES):
                store(&found.lease[j], 0)
            store(&found.tag, tag)
        cas(&self.header.lock, <uint64_t>self.worker + 1, 0)
        return found


@cython.final
cdef class Local:
    """Requests of this process to one target."""


@cython.final
cdef class Vitals:
    """What all workers know of one upstream. Made by ``Board.vitals``."""

    def __cinit__(self, Board board not None, str name not None):
        self.board = board
        self.name = name
        self.shared_tag = tag_of(name + "/*")
        self.at = <VitalLine*>line_of(board.upstreams, sizeof(VitalLine), UPSTREAMS, tag_of(name), True)
        if self.at == NULL:
            self.at = &self.own

    @property
    def out(self):
        return load(&self.at.out) != 0

    @out.setter
    def out(self, bint value):
        store(&self.at.out, value)

    @property
    def requests(self):
        return load(&self.at.requests)

    @property
    def failures(self):
        return load(&self.at.failures)

    @property
    def failing(self):
        return load(&self.at.turned) & 1 != 0

    @property
    def since_ns(self):
        return load(&self.at.turned) >> 1

    @property
    def fault(self):
        return load(&self.at.fault)

    @fault.setter
    def fault(self, uint64_t number):
        store(&self.at.fault, number)

    def asked(self, uint64_t now_ns):
        self.asked_(now_ns)

    def may_retry(self, uint64_t now_ns, double share, int64_t floor):
        return self.may_retry_(now_ns, share, floor)

    def note(self, uint64_t now_ns, bint good):
        self.note_(now_ns, good)

    cdef void note_(self, uint64_t now, bint good) noexcept nogil:
        cdef uint64_t seen = load(&self.at.turned)
        cdef uint64_t failing = 0 if good else 1
        add(&self.at.requests, 1)
        if failing:
            add(&self.at.failures, 1)
        if not seen or seen & 1 != failing:     # workers that differ at the same time: the last one tells
            store(&self.at.turned, now << 1 | failing)

    cdef void asked_(self, uint64_t now) noexcept nogil:
        cdef uint64_t index = now // BUDGET_PART_NS
        cdef uint64_t* part = &self.at.window[index % PARTS]
        cdef uint64_t seen, counts
        while True:
            seen = load(part)
            if newer(seen >> 44, index, BUDGET_INDEX):
                return
            counts = seen & BUDGET_COUNTS if seen >> 44 == index & BUDGET_INDEX else 0
            if counts >> 20 == BUDGET_REQUESTS or cas(part, seen, (index << 44) | (counts + (1 << 20))):
                return

    cdef void sum_(self, uint64_t index, uint64_t* requests, uint64_t* retries) noexcept nogil:
        cdef uint64_t seen
        cdef int i
        requests[0] = retries[0] = 0
        for i in range(PARTS):
            seen = load(&self.at.window[i])
            if ((index - (seen >> 44)) & BUDGET_INDEX) < PARTS:
                requests[0] += (seen >> 20) & BUDGET_REQUESTS
                retries[0] += seen & BUDGET_RETRIES

    cdef bint may_retry_(self, uint64_t now, double share, int64_t floor) noexcept nogil:
        cdef uint64_t index = now // BUDGET_PART_NS
        cdef uint64_t* part = &self.at.window[index % PARTS]
        cdef uint64_t seen, counts, requests, retries
        cdef double allowed
        while True:
            # Whoever takes another one meanwhile changes the same word: where the swap succeeds, the sum holds.
            seen = load(part)
            if newer(seen >> 44, index, BUDGET_INDEX):
                return False
            self.sum_(index, &requests, &retries)
            allowed = share * <double>requests
            if allowed < <double>floor:
                allowed = <double>floor
            if <double>(retries + 1) > allowed:
                return False
            counts = seen & BUDGET_COUNTS if seen >> 44 == index & BUDGET_INDEX else 0
            if counts & BUDGET_RETRIES == BUDGET_RETRIES:
                return False
            if cas(part, seen, (index << 44) | (counts + 1)):
                return True

    def __repr__(self):
        return f"<Vitals {self.name} requests={self.requests} failures={self.failures} out={self.out}>"
