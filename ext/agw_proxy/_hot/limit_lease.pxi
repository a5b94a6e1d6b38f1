# Part of limit.pyx: leases. What a node may spend of a limit that others share: lent from elsewhere, spent here.

cdef int spend_lease(Table table, Hold* hold, const Terms* terms, const Moment* at, bint forced) noexcept nogil:
    """Take ``hold.count`` from the subject's credit: TAKEN, or SHORT where it has not as much. A Verdict."""
    cdef int line = line_of(table.lease_lines, LINE_BYTES, table.leases, hold.tag, False)
    cdef Lease* lease
    cdef int verdict = SHORT
    hold.after = -1
    if line < 0:
        # Claimed, so that who lends finds whose it is.
        line = lease_line(table, hold.tag, at)
        if line < 0:
            return SHORT
    lease = &table.lease_lines[line]
    if not acquire(&lease.lock, table._worker, SPINS * PATIENCE if forced else SPINS):
        return BUSY
    if load(&lease.tag) == hold.tag:
        lease.identity = terms.identity
        if forced or (lease.expires > at.ns and lease.credit >= hold.count):
            lease.credit = plus(lease.credit, -hold.count)
            verdict = TAKEN
            hold.after = max(lease.credit, 0) + max(lease.beyond, 0)
            if lease.credit < lease.level - (lease.level >> 2):
                if lease.credit >= lease.level - 2 * lease.credit:
                    mark(&table.header.along, table, line)
                elif lease.wants == 0 or lease.credit <= lease.level >> 3:
                    want(table, lease, line)
    let_go(&lease.lock)
    return verdict


cdef void want(Table table, Lease* lease, int line) noexcept nogil:
    # The header's word each time anew: who collects clears it before it looks at the leases.
    if lease.wants != WANTS:
        store(&lease.wants, WANTS)
    mark(&table.header.wants, table, line)


cdef inline void mark(uint64_t* word, Table table, int line) noexcept nogil:
    """So that who collects has to look at one 64th of the lines only."""
    cdef uint64_t bit = <uint64_t>1 << (line >> table.lease_shift)
    if not load(word) & bit:
        set_bits(word, bit)


cdef void repay_lease(Table table, uint64_t tag, int64_t count, int64_t room, const Moment* at) noexcept nogil:
    """Give back what was taken from it; it asks to be taken back, should it have expired or been called in."""
    cdef int line = line_of(table.lease_lines, LINE_BYTES, table.leases, tag, False)
    cdef Lease* lease
    if line < 0:
        return
    lease = &table.lease_lines[line]
    if not acquire(&lease.lock, table._worker, SPINS * PATIENCE):
        return
    if load(&lease.tag) == tag:
        # Never more than all there is: what was taken that long ago has been filled up where the limit is kept.
        lease.credit = min(plus(lease.credit, count), max(lease.credit, room))
        # Called in (then its level is 0), it may be nobody's to return when it expires.
        if lease.credit > 0 and (lease.expires <= at.ns or lease.level == 0):
            want(table, lease, line)
    let_go(&lease.lock)


cdef int64_t credit_of(Table table, uint64_t tag, const Moment* at) noexcept nogil:
    """What may be spent of it now; a debt is below 0."""
    cdef int line = line_of(table.lease_lines, LINE_BYTES, table.leases, tag, False)
    cdef const Lease* lease
    cdef int64_t credit
    if line < 0:
        return 0
    lease = &table.lease_lines[line]
    credit = load_signed(&lease.credit)
    if load(&lease.tag) != tag:
        return 0
    return credit if load_signed(&lease.expires) > at.ns else min(credit, 0)


cdef int64_t elsewhere_of(Table table, const Terms* terms, const Ask* ask) noexcept nogil:
    """What was left where a leased rule's amount is kept, when some of it was last lent to here."""
    cdef uint64_t tag = tag_of(terms, ask)
    cdef int line = -1
    cdef int64_t beyond
    if terms.group >= 0 and load(&table.header.modes[terms.group]) == LEASED:
        line = line_of(table.lease_lines, LINE_BYTES, table.leases, tag, False)
    if line < 0:
        return 0
    beyond = load_signed(&table.lease_lines[line].beyond)
    return max(beyond, 0) if load(&table.lease_lines[line].tag) == tag else 0


cdef int lease_line(Table table, uint64_t tag, const Moment* at) noexcept nogil:
    """The subject's line, a free one, or one that has expired without a debt turned over to it; or NO_PLACE."""
    cdef int line = line_of(table.lease_lines, LINE_BYTES, table.leases, tag, True)
    cdef int _probe
    cdef Lease* lease
    if line >= 0 or not table.lock():
        return line
    line = line_of(table.lease_lines, LINE_BYTES, table.leases, tag, True)
    if line < 0:
        line = home_of(tag, table.leases)
        for _probe in range(PROBES):
            lease = &table.lease_lines[line]
            if acquire(&lease.lock, table._worker, SPINS):
                if lease.tag == ASIDE or (lease.expires < at.ns - GRACE_NS and lease.credit >= 0):
                    store(&lease.tag, ASIDE)
                    lease.identity, lease.expires, lease.credit, lease.level, lease.beyond = 0, 0, 0, 0, -1
                    lease.wants = 0
                    store(&lease.tag, tag)
                    let_go(&lease.lock)
                    break
                let_go(&lease.lock)
            line = line + 1 if line + 1 < table.leases else 0
        else:
            line = NO_PLACE
    store(&table.header.lock, 0)
    return line


cdef bint lend_to(
    Table table, uint64_t tag, int64_t amount, int64_t expires, int64_t beyond, const Moment* at
) noexcept:
    """False where there is no line for it."""
    cdef int line = lease_line(table, tag, at)
    cdef Lease* lease
    cdef bint lent = False
    if line < 0 or not acquire(&table.lease_lines[line].lock, table._worker, SPINS * PATIENCE):
        return False
    lease = &table.lease_lines[line]
    if load(&lease.tag) == tag:
        lent = True
        lease.credit = plus(lease.credit, amount)
        lease.level = max(lease.credit, 0)
        lease.beyond = beyond
        store_signed(&lease.expires, expires)
        if lease.credit > 0:
            lease.wants = 0
    let_go(&lease.lock)
    return lent


cdef int64_t call_in(Table table, uint64_t tag) noexcept:
    cdef int line = line_of(table.lease_lines, LINE_BYTES, table.leases, tag, False)
    cdef Lease* lease
    cdef int64_t credit = 0
    if line < 0 or not acquire(&table.lease_lines[line].lock, table._worker, SPINS * PATIENCE):
        return 0
    lease = &table.lease_lines[line]
    if load(&lease.tag) == tag:
        credit = lease.credit
        lease.credit = lease.level = 0
    let_go(&lease.lock)
    return credit


cdef list wants_of(Table table, int64_t now_ns):
    """Those that want something; with them MAX_ALONG others that soon will: a round trip costs more than its lines."""
    cdef list found = []
    cdef list along = []
    cdef uint64_t wanting = swap(&table.header.wants, 0), soon = swap(&table.header.along, 0), later = 0
    cdef Lease* lease
    cdef Moment at
    cdef int group, line
    table.moment(now_ns, &at)
    for group in range(64):
        if not (wanting | soon) >> group & 1:
            continue
        for line in range(group << table.lease_shift, min(group + 1 << table.lease_shift, table.leases)):
            lease = &table.lease_lines[line]
            if load(&lease.wants) != WANTS and not goes_along(lease, &at):
                continue
            later |= <uint64_t>1 << group
            if not acquire(&lease.lock, table._worker, SPINS):
                mark(&table.header.wants, table, line)
                continue
            rule = table.leased.get(lease.identity)
            if lease.wants == WANTS:
                lease.wants = TOLD
                amount = lease.level - lease.credit if lease.expires > at.ns else -lease.credit
                if rule is not None and amount:
                    found.append((rule, lease.tag, amount))
            elif rule is not None and len(along) < MAX_ALONG and goes_along(lease, &at):
                along.append((rule, lease.tag, lease.level - lease.credit, line))
            let_go(&lease.lock)
    set_bits(&table.header.along, later)
    if not found:
        return found
    for rule, tag, amount, line in along:
        store(&table.lease_lines[line].wants, TOLD)
        found.append((rule, tag, amount))
    return found


cdef inline bint goes_along(const Lease* lease, const Moment* at) noexcept nogil:
    """A quarter of it is spent, and nobody was told yet."""
    cdef int64_t level = load_signed(&lease.level)
    return (level > 3 and load_signed(&lease.credit) < level - level / 4 and load(&lease.wants) == 0
            and load_signed(&lease.expires) > at.ns)
