# Part of limit.pyx: Rule, one limit as it is written, made ready to count with.

@cython.final
@cython.no_gc
cdef class Rule:
    """One limit. ``name`` identifies it (also across reloads) and is its metric label."""

    def __cinit__(
        self, str name not None, int per, int unit, amount: int, period_ns: int = 0, burst: int = 0, *,
        int algorithm=BUCKET, int calendar=-1, only=(0, 0), bint leased=False, marks=(),
    ):
        cdef bytes text = name.encode()
        cdef Terms* terms = &self.terms
        cdef int place
        if not name:
            raise ValueError("expected a name for the rule, got an empty one")
        if not 0 <= per < 1 << SUBJECTS:
            raise ValueError(f"rule {name!r}: expected per to be PER_ constants, got {per}")
        if not REQUESTS <= unit <= STREAMS:
            raise ValueError(f"rule {name!r}: expected unit to be REQUESTS, ... STREAMS, got {unit}")
        if not BUCKET <= algorithm <= TOTAL:
            raise ValueError(f"rule {name!r}: expected algorithm to be BUCKET, ... TOTAL, got {algorithm}")
        if amount < 1:
            raise ValueError(f"rule {name!r}: expected an amount of 1 or more, got {amount}")
        if algorithm == CALENDAR and not HOUR <= calendar <= MONTH or algorithm != CALENDAR and calendar != -1:
            raise ValueError(f"rule {name!r}: expected a calendar for CALENDAR and none else, got {calendar}")
        self.name, self.per, self.unit, self.amount = name, per, unit, amount
        self.algorithm, self.calendar, self.leased, self.marks = algorithm, calendar, leased, tuple(marks)
        terms.room = terms.amount = amount
        terms.group = -1 if not leased else 1 if unit == COST else 0
        terms.only_at = -1
        if unit >= CONCURRENT:
            if period_ns or burst or algorithm != BUCKET:
                raise ValueError(f"rule {name!r}: a concurrency limit takes neither period nor burst nor algorithm")
            if amount > MAX_COUNT * MAX_WORKERS:
                raise ValueError(f"rule {name!r}: expected at most {MAX_COUNT * MAX_WORKERS} at once, got {amount}")
            if leased or marks:
                raise ValueError(f"rule {name!r}: a concurrency limit is neither leased nor marked")
        elif algorithm == BUCKET:
            fill(self, terms, amount, period_ns, burst)
        else:
            if burst:
                raise ValueError(f"rule {name!r}: only a bucket takes a burst")
            if amount > MAX_AMOUNT:
                raise ValueError(f"rule {name!r}: expected an amount of at most 2**60, got {amount}")
            if algorithm == CALENDAR and period_ns:
                raise ValueError(f"rule {name!r}: a calendar takes no period")
            if algorithm != CALENDAR and not 0 < period_ns <= MAX_NS:
                raise ValueError(f"rule {name!r}: expected a period above 0 and up to 4.5 years, got {period_ns} ns")
            terms.span = -(-period_ns // (PARTS - 1)) if algorithm == SLIDING else period_ns
        self.period_ns = period_ns
        self.burst = terms.room if unit < CONCURRENT else 0
        part_bits, value = only
        if part_bits:
            if part_bits not in (1 << place for place in range(SUBJECTS)) or not 0 <= value < 1 << 64:
                raise ValueError(f"rule {name!r}: expected only to be (a PER_ constant, a subject), got {only}")
            terms.only_at = part_bits.bit_length() - 1
            terms.only = value
        self.only = (part_bits, value if part_bits else 0)
        if len(self.marks) > MAX_MARKS:
            raise ValueError(f"rule {name!r}: expected at most {MAX_MARKS} marks, got {len(self.marks)}")
        for share in self.marks:
            if not 0 < share <= 1:
                raise ValueError(f"rule {name!r}: expected marks above 0 and up to 1, got {share}")
            terms.marks[terms.marked] = share
            terms.marked += 1
        for place in range(SUBJECTS):
            if per >> place & 1:
                terms.part[terms.parts] = <uint8_t>place
                terms.parts += 1
        # The unit is part of it: a bucket of requests says nothing about tokens. So is the period: buckets keep the
        # time until they are full, which of an hour is for ever to one of a second. And so is how a window counts.
        terms.identity = joined(hash_of(<const unsigned char*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)), unit)
        terms.kind = 0
        if algorithm == BUCKET:
            terms.identity = joined(terms.identity, <uint64_t>period_ns)
        else:
            terms.kind = <uint64_t>(algorithm | max(calendar, 0) << 4 | 1 << 8)
            terms.identity = joined(joined(terms.identity, terms.kind), <uint64_t>terms.span)
        if terms.identity <= ASIDE:
            terms.identity += 2
        terms.per, terms.unit, terms.algorithm, terms.calendar = per, unit, algorithm, calendar
        terms.picks = part_bits or per & (PER_UPSTREAM | PER_TOOL | PER_SESSION) or unit == STREAMS
        terms.simple = unit == REQUESTS and algorithm == BUCKET and not leased

    def __repr__(self):
        return f"<Rule {self.name!r}>"


cdef int fill(Rule rule, Terms* terms, amount, period_ns, burst) except -1:
    """The numbers of a bucket."""
    name = rule.name
    if period_ns <= 0:
        raise ValueError(f"rule {name!r}: expected a period above 0, got {period_ns} ns")
    if burst < 0:
        raise ValueError(f"rule {name!r}: expected a burst of 1 or more (or 0 for the amount), got {burst}")
    room = burst or amount
    cell, shift = max(1, -(-period_ns * 64 // amount)), 0
    window = cell * room
    if cell < FINE:
        # So little time for one that rounding would matter: counted in fractions, rounded up once a request.
        shift = 32
        cell = -(-(period_ns * 64 << shift) // amount)
        window = cell * room >> shift
    if window >= MAX_WINDOW or amount > MAX_AMOUNT or room > MAX_AMOUNT:
        raise ValueError(f"rule {name!r}: a full bucket takes over 2.2 years to refill; lower burst or period")
    if window < 1:
        raise ValueError(f"rule {name!r}: an amount that is no limit: over 64 a nanosecond; lower it")
    # With so many places the product is off by less than 1: by units >> places at most, and the window is < 2**62
    # without a shift, <= cell << 28 with one.
    bits = cell.bit_length() - 1
    terms.inverse, terms.places = min((1 << 64 + bits) // cell, (1 << 64) - 1), 64 + bits - shift
    terms.cell, terms.shift, terms.window, terms.room = cell, shift, window, room
    terms.once = min(scaled(1, terms.cell, shift), terms.window)
    return 0


cdef int most_at_once(tuple rules):
    """The most rules that can apply to one request."""
    cdef dict by_subject = {}
    cdef int most = 0
    for rule in rules:
        by_subject.setdefault(rule.only[0], {}).setdefault(rule.only[1], []).append(rule)
    for subjects in by_subject.values():
        most += max(len(found) for found in subjects.values())
    return most
