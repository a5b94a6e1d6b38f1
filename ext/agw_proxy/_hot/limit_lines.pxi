# Part of limit.pyx: hashes and tags, arithmetic that must not overflow, and how a subject's line is found and locked.

cdef extern from *:
    """
    /* count * cell >> shift, rounded up, at most INT64_MAX. */
    static inline int64_t agw_scaled(int64_t count, int64_t cell, int shift) {
        unsigned __int128 product = (unsigned __int128)(uint64_t)count * (uint64_t)cell;
        product = (product + ((1ull << shift) - 1)) >> shift;
        return product > INT64_MAX ? INT64_MAX : (int64_t)product;
    }
    /* The largest count that costs no more than that: a product with the inverse of ``cell``, right or one too small.
       ``units`` are at most those of a full bucket; see ``fill``. */
    static inline int64_t agw_unscaled(int64_t units, int64_t cell, int shift, uint64_t inverse, int places) {
        uint64_t count = (uint64_t)(((unsigned __int128)(uint64_t)units * inverse) >> places);
        return (int64_t)(count + (((uint64_t)units << shift) - count * (uint64_t)cell >= (uint64_t)cell));
    }
    static inline int64_t agw_plus(int64_t a, int64_t b) {
        int64_t sum;
        return __builtin_add_overflow(a, b, &sum) ? (b < 0 ? INT64_MIN : INT64_MAX) : sum;
    }
    """
    int64_t scaled "agw_scaled"(int64_t count, int64_t cell, int shift) noexcept nogil
    int64_t agw_unscaled(int64_t units, int64_t cell, int shift, uint64_t inverse, int places) noexcept nogil
    int64_t plus "agw_plus"(int64_t a, int64_t b) noexcept nogil


cdef inline int64_t unscaled(const Terms* terms, int64_t units) noexcept nogil:
    """The largest count that costs no more than so many units of a bucket, which has no more."""
    return agw_unscaled(units, terms.cell, terms.shift, terms.inverse, terms.places)


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
        if length >= 8:
            memcpy(&word, text, 8)
        else:
            memcpy(&word, text, <size_t>length)
        word = (state ^ word) * <uint64_t>0x9E3779B97F4A7C15
        state = ((word << 27) | (word >> 37)) + <uint64_t>0x52DCE729
        text += 8
        length -= 8
    return mixed(state)


def subject(bytes text not None):
    """A 64-bit hash that is the same in every worker; see ``limit.pyi`` on why it has no key."""
    return hash_of(<const unsigned char*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef inline uint64_t joined(uint64_t word, uint64_t subject) noexcept nogil:
    return mixed(word + subject * <uint64_t>0x9E3779B97F4A7C15)


cdef inline uint64_t tag_of(const Terms* terms, const Ask* ask) noexcept nogil:
    """Of the bucket, gate or window that the rule counts this request in."""
    cdef uint64_t tag = terms.identity
    cdef int i
    for i in range(terms.parts):
        tag = joined(tag, ask.subjects[terms.part[i]])
    if terms.parts == 0:
        tag = joined(tag, 0)
    return tag if tag > ASIDE else tag + 2


cdef inline bint applies(const Terms* terms, const Ask* ask) noexcept nogil:
    return not terms.picks or picked(terms, ask)


cdef bint picked(const Terms* terms, const Ask* ask) noexcept nogil:
    if terms.only_at >= 0 and ask.subjects[terms.only_at] != terms.only:
        return False
    if terms.per & PER_UPSTREAM and ask.subjects[AT_UPSTREAM] == 0:
        return False
    if terms.per & PER_TOOL and ask.subjects[AT_TOOL] == 0:
        return False
    if terms.per & PER_SESSION and ask.subjects[AT_SESSION] == 0:
        return False
    return terms.unit != STREAMS or ask.stream


cdef inline int64_t between(int64_t value, int64_t least, int64_t most) noexcept nogil:
    return least if value < least else most if value > most else value


cdef inline int64_t counted(int unit, int64_t input, int64_t output, int64_t cost) noexcept nogil:
    """What a rule in this unit counts."""
    if unit == REQUESTS:
        return 1
    if unit == COST:
        return between(cost, 0, MAX_COST)
    if unit == INPUT:
        return between(input, 0, MAX_TOKENS)
    if unit == OUTPUT:
        return between(output, 0, MAX_TOKENS)
    return between(between(input, 0, MAX_TOKENS) + between(output, 0, MAX_TOKENS), 0, MAX_TOKENS)


cdef inline int home_of(uint64_t tag, int count) noexcept nogil:
    return <int>(((tag >> 32) * <uint64_t>count) >> 32)


cdef inline uint64_t* tag_at(void* lines, size_t size, int line) noexcept nogil:
    """Lines of all sorts begin with their tag."""
    return <uint64_t*>(<char*>lines + <size_t>line * size)


cdef inline int line_of(void* lines, size_t size, int count, uint64_t tag, bint claim) noexcept nogil:
    """The line of a subject, a free one claimed for it (where ``claim``, else UNSEEN); or NO_PLACE."""
    cdef int home = home_of(tag, count)
    return home if load(tag_at(lines, size, home)) == tag else line_from(lines, size, count, home, tag, claim)


cdef int line_from(void* lines, size_t size, int count, int line, uint64_t tag, bint claim) noexcept nogil:
    """The same, looked for from its home on."""
    cdef int _probe
    cdef uint64_t seen
    cdef uint64_t* place
    for _probe in range(PROBES):
        place = tag_at(lines, size, line)
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


cdef int overflow_of(void* lines, size_t size, int count, uint64_t identity, bint claim) noexcept nogil:
    """A rule's overflow line (behind the others), UNSEEN where it has none yet, NO_PLACE where all are taken."""
    cdef int first = <int>(identity % OVERFLOW)
    cdef int probe, line
    cdef uint64_t seen
    for probe in range(OVERFLOW):
        line = count + (first + probe) % OVERFLOW
        seen = load(tag_at(lines, size, line))
        if seen == identity:
            return line
        if seen == FREE:
            if claim:
                store(tag_at(lines, size, line), identity)
            return line if claim else UNSEEN
    return NO_PLACE


cdef int shared_overflow_of(void* lines, int count, uint64_t identity, bint claim) noexcept nogil:
    """The same of buckets and gates: where all are taken, rules share."""
    cdef int line = overflow_of(lines, LINE_BYTES, count, identity, claim)
    return line if line != NO_PLACE else count + <int>(identity % OVERFLOW)


cdef inline bint acquire(uint64_t* word, int worker, int spins) noexcept nogil:
    """A line's lock: held for some tens of nanoseconds, never over a call that can wait."""
    cdef int turn
    for turn in range(spins):
        if load(word) == 0 and cas(word, 0, <uint64_t>worker + 1):
            return True
        relax(turn)
    return False


cdef inline void let_go(uint64_t* word) noexcept nogil:
    unlock(word)


cdef inline int64_t people_in(const Gate* gate) noexcept nogil:
    return sum_shorts(gate.count, MAX_WORKERS)
