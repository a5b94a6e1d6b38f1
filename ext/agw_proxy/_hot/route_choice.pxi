# Part of route.pyx: a target, and a route's choice among its targets.

cdef uint64_t GOLDEN = 0x9E3779B97F4A7C15   # SplitMix64's step
cdef double UNIT = 1.0 / <double>(<uint64_t>1 << 53)


cdef inline uint64_t mix(uint64_t state) noexcept nogil:
    """SplitMix64's output function (Steele, Lea, Flood 2014): each bit of the state reaches all bits of the result."""
    state = (state ^ (state >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    state = (state ^ (state >> 27)) * <uint64_t>0x94D049BB133111EB
    return state ^ (state >> 31)


@cython.final
cdef class Target:
    """One upstream and the model name it knows. Made by RouteTable."""

    def __cinit__(self, str name not None, int upstream, str model not None, int weight=1, Circuit circuit=None):
        cdef bytes text = name.encode("utf-8", "surrogatepass")
        if not 0 < weight <= MAX_WEIGHT:
            raise ValueError(f"the weight of target {name!r} is {weight}, expected 1 to {MAX_WEIGHT}")
        self.name = name
        self.upstream = upstream
        self.model = model
        self.weight = weight
        self.circuit = circuit
        self._mark = hash_of(<const unsigned char *>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))

    def __repr__(self):
        return f"<Target {self.name} weight={self.weight}>"


cdef inline bint may_ask(Target target, uint64_t now):
    return target.circuit is None or target.circuit.may_(now)


cdef Py_ssize_t drawn(const uint64_t *weights, Py_ssize_t size, uint64_t random) noexcept nogil:
    """A place by weight; there is a weight above 0. The remainder's bias is below total / 2**64: one in 10**11."""
    cdef uint64_t left, total = 0
    cdef Py_ssize_t i
    for i in range(size):
        total += weights[i]
    left = mix(random) % total
    for i in range(size):
        if left < weights[i]:
            return i
        left -= weights[i]
    return size - 1


@cython.final
cdef class Route:
    """What a model name leads to. Made by RouteTable; immutable."""

    def __cinit__(
        self, str name not None, str label not None, tuple targets not None, tuple fallbacks=(),
        str balance not None="first", double panic=0.0,
    ):
        cdef Target target
        if not 0 < len(targets) <= MAX_TARGETS:
            raise ValueError(f"model {name!r} has {len(targets)} targets; expected 1 to {MAX_TARGETS}")
        if balance not in BALANCES:
            raise ValueError(f"model {name!r}: balance is {balance!r}, expected one of {', '.join(BALANCES)}")
        if not 0 <= panic <= 1:
            raise ValueError(f"model {name!r}: panic is {panic}, expected a share of 0 to 1")
        self.name = name
        self.label = label
        self.targets = targets
        self.fallbacks = fallbacks
        self.balance = balance if len(targets) > 1 else "first"
        self._kind = BALANCES.index(self.balance)
        self._panic = panic if len(targets) > 1 else 0.0
        # A name may hold lone surrogates (JSON can spell them); no UTF-8 input equals those bytes, which is right.
        self._utf8 = name.encode("utf-8", "surrogatepass")
        self._total = 0
        for target in targets:
            self._total += <uint64_t>target.weight
        for target in fallbacks:
            pass    # raises TypeError where one is none

    cdef Target first_(self, uint64_t random, uint64_t now, uint64_t sticky):
        cdef Target target
        cdef uint64_t left
        cdef Py_ssize_t[MAX_TARGETS] order
        if sticky == 0 and self._kind <= WEIGHTED:
            target = <Target>self.targets[0]
            if self._kind == WEIGHTED:
                left = mix(random + GOLDEN) % self._total
                for target in self.targets:
                    if left < <uint64_t>target.weight:
                        break
                    left -= <uint64_t>target.weight
            if may_ask(target, now):
                return target
        if self.order_(order, random, now, sticky, 1):
            return <Target>self.targets[order[0]]
        for target in self.fallbacks:
            if may_ask(target, now):
                return target
        return None

    cdef tuple plan_(self, uint64_t random, uint64_t now, uint64_t sticky):
        cdef Py_ssize_t[MAX_TARGETS] order
        cdef Py_ssize_t i, size = self.order_(order, random, now, sticky, len(self.targets))
        cdef Target target
        cdef list plan = [self.targets[order[i]] for i in range(size)]
        for target in self.fallbacks:
            if may_ask(target, now):
                plan.append(target)
        return tuple(plan)

    cdef bint panics_(self, uint64_t now):
        cdef Target target
        cdef Py_ssize_t left = 0
        if self._panic <= 0.0:
            return False
        for target in self.targets:
            left += may_ask(target, now)
        if <double>left >= self._panic * <double>len(self.targets):
            return False
        for target in self.fallbacks:
            if may_ask(target, now):
                return False
        return True

    cdef Py_ssize_t order_(self, Py_ssize_t *order, uint64_t random, uint64_t now, uint64_t sticky, Py_ssize_t most):
        """Fill in the places of own targets that may be asked (in a panic: all), at most ``most``; gives how many."""
        cdef uint64_t[MAX_TARGETS] weights      # 0: not to be chosen, or chosen already
        cdef bint[MAX_TARGETS] free
        cdef bint panics = self.panics_(now)
        cdef Py_ssize_t i, left = 0, count = 0, size = len(self.targets)
        cdef Target target
        for i in range(size):
            target = <Target>self.targets[i]
            free[i] = panics or may_ask(target, now)
            # Those that may not be asked are drawn too by weight, and left out: so first_ needs to ask for one only.
            weights[i] = <uint64_t>target.weight if free[i] or self._kind == WEIGHTED and not sticky else 0
            left += free[i]
        most = min(most, left)
        while count < most:
            random += GOLDEN
            if sticky:
                i = self.nearest_(weights, sticky)
            elif self._kind == WEIGHTED:
                i = drawn(weights, size, random)
            elif self._kind == LEAST_BUSY:
                i = self.idlest_(weights, random)
            elif self._kind == FASTEST:
                i = drawn(weights, size, random)
                random += GOLDEN
                i = self.faster_(weights, i, random, now)
            else:
                i = 0
                while weights[i] == 0:
                    i += 1
            weights[i] = 0
            if free[i]:
                order[count] = i
                count += 1
        return count

    cdef Py_ssize_t nearest_(self, const uint64_t *weights, uint64_t sticky):
        """Rendezvous hashing by weight (Thaler, Ravishankar 1998): where a target goes, only its own sessions move."""
        cdef double score, best = -1.0
        cdef Py_ssize_t i, chosen = 0
        cdef uint64_t mark
        for i in range(len(self.targets)):
            if weights[i]:
                mark = mix(sticky + (<Target>self.targets[i])._mark * GOLDEN)
                score = <double>weights[i] / -log((<double>(mark >> 11) + 0.5) * UNIT)
                if score > best:
                    best, chosen = score, i
        return chosen

    cdef Py_ssize_t idlest_(self, const uint64_t *weights, uint64_t random):
        """The one with the fewest requests of this process; of equals a draw by weight."""
        cdef uint64_t[MAX_TARGETS] equal
        cdef int64_t busy, least = -1
        cdef Py_ssize_t i, j, size = len(self.targets)
        for i in range(size):
            equal[i] = 0
            if weights[i]:
                busy = in_flight(<Target>self.targets[i])
                if least < 0 or busy < least:
                    least = busy
                    for j in range(i):
                        equal[j] = 0
                equal[i] = weights[i] if busy == least else 0
        return drawn(equal, size, random)

    cdef Py_ssize_t faster_(self, uint64_t *weights, Py_ssize_t one, uint64_t random, uint64_t now):
        """Power of two choices (Mitzenmacher 2001): the one that answered sooner lately, unknown ones first."""
        cdef uint64_t kept = weights[one]
        cdef uint64_t total = 0
        cdef Py_ssize_t i, other, size = len(self.targets)
        weights[one] = 0
        for i in range(size):
            total += weights[i]
        if total == 0:
            return one
        other = drawn(weights, size, random)
        weights[one] = kept
        if first_byte(<Target>self.targets[other], now) < first_byte(<Target>self.targets[one], now):
            return other
        return one

    def first(self, uint64_t random, uint64_t now_ns=0, uint64_t sticky=0):
        return self.first_(random, now_ns, sticky)

    def plan(self, uint64_t random, uint64_t now_ns=0, uint64_t sticky=0):
        return self.plan_(random, now_ns, sticky)

    def panics(self, uint64_t now_ns):
        return self.panics_(now_ns)

    def __repr__(self):
        return f"<Route {self.name!r} label={self.label!r} targets={len(self.targets)} fallbacks={len(self.fallbacks)}>"


cdef inline int64_t in_flight(Target target):
    return 0 if target.circuit is None else target.circuit.local.in_flight


cdef inline int64_t first_byte(Target target, uint64_t now):
    return -1 if target.circuit is None else target.circuit.first_(now)
