# Part of limit.pyx: what rules have left, and what is missing, without taking anything.

cdef void standing_of(
    Table table, const Terms* terms, const Ask* ask, const Moment* at, int64_t* left, int64_t* reset
) noexcept nogil:
    """What a rule has left for these subjects, and nanoseconds until it is full again; takes nothing."""
    cdef uint64_t tag = tag_of(terms, ask)
    cdef uint64_t mode = LEASED
    cdef int64_t ahead, replicas = 1
    cdef int line
    if terms.unit >= CONCURRENT:
        line = line_of(table.gate_lines, LINE_BYTES, table.gates, tag, False)
        if line == NO_PLACE:
            line = shared_overflow_of(table.gate_lines, table.gates, terms.identity, False)
        left[0] = terms.amount if line < 0 else max(terms.amount - people_in(&table.gate_lines[line]), 0)
        reset[0] = 0
        return
    if terms.group >= 0:
        mode = load(&table.header.modes[terms.group])
        if mode == LOCAL:
            replicas = <int64_t>(load(&table.header.replicas) or 1)
    if terms.algorithm == BUCKET:
        ahead = table.peek(tag, terms.identity, at.units)
        left[0] = 0 if ahead >= terms.window else unscaled(terms, terms.window - ahead) // replicas
        reset[0] = ahead // 64 + (ahead % 64 != 0)
    else:
        look_in(table, tag, terms, at, max(terms.room // replicas, 1), left, reset)
    if terms.group >= 0 and mode == LEASED:
        left[0] = min(max(credit_of(table, tag, at), 0), terms.room)


cdef int64_t money_left(Limits limits, const Ask* ask, int64_t now_ns) noexcept:
    cdef const Terms* terms
    cdef int64_t least = INT64_MAX, left = 0, reset = 0
    cdef Moment at
    cdef int i
    limits.table.moment(now_ns, &at)
    for i in range(limits.count):
        terms = &limits.terms[i]
        if terms.unit == COST and applies(terms, ask):
            standing_of(limits.table, terms, ask, &at, &left, &reset)
            least = min(least, left)
    return least


cdef tuple shortages(Limits limits, const Ask* ask, const Moment* at):
    """All leased rules that want credit for this request: (rule, tag, what is missing)."""
    cdef const Terms* terms
    cdef int64_t needed, credit
    cdef uint64_t tag
    cdef int i
    cdef list found = []
    for i in range(limits.count):
        terms = &limits.terms[i]
        if terms.group < 0 or load(&limits.table.header.modes[terms.group]) != LEASED or not applies(terms, ask):
            continue
        needed = counted(terms.unit, ask.input, ask.output, ask.cost)
        if needed > terms.room and (terms.unit != COST or terms.algorithm == BUCKET):
            needed = terms.room
        tag = tag_of(terms, ask)
        credit = credit_of(limits.table, tag, at)
        if credit < max(needed, 1):
            found.append((limits.rules[i], tag, max(needed, 1) - credit))
    return tuple(found)


cdef tuple missing_of(Limits limits, const Hold* hold, int verdict, const Moment* at):
    """The same of one rule, where it was for want of credit that more was refused; else ()."""
    cdef int64_t missing
    if verdict != SHORT:
        return ()
    missing = hold.count - credit_of(limits.table, hold.tag, at)
    return ((limits.rules[hold.rule], hold.tag, max(missing, 1)),)
