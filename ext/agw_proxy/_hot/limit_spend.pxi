# Part of limit.pyx: what is taken from a bucket. Nearly always one look and one swap, in line with the decision.

cdef inline int spend_once(
    Bucket* bucket, Hold* hold, bint own, int64_t window, int64_t now, bint forced
) noexcept nogil:
    """``own``: the line is to be the subject's. A Verdict; BUSY: the line is being moved, AGAIN: another was faster."""
    cdef int64_t tat, base
    # In this order: when the swap below succeeds, tag and generation were still those of this tat.
    tat = load_signed(&bucket.tat)
    if own and load(&bucket.tag) != hold.tag:
        return MOVED
    hold.number = load_half(&bucket.generation)
    if tat == LOCKED:
        return BUSY
    base = tat if tat > now else now
    hold.after = base - now
    if forced:
        base = INT64_MAX if base > INT64_MAX - hold.cost else base + hold.cost
        return TAKEN if cas_signed(&bucket.tat, tat, base) else AGAIN
    if hold.after > window - hold.cost or base > INT64_MAX - hold.cost:
        return REFUSED
    if hold.cost and not cas_signed(&bucket.tat, tat, base + hold.cost):
        return AGAIN
    hold.after += hold.cost
    return TAKEN


cdef int spend(Bucket* bucket, Hold* hold, bint own, int64_t window, int64_t now, bint forced) noexcept nogil:
    """The same until it is decided."""
    cdef int turn, verdict
    for turn in range(SPINS):
        verdict = spend_once(bucket, hold, own, window, now, forced)
        if verdict == BUSY:
            relax(turn)
        elif verdict != AGAIN:
            return verdict
    return BUSY


cdef inline int charge(Table table, Hold* hold, const Terms* terms, int64_t now, bint forced) noexcept nogil:
    """``hold`` comes with tag and cost; a Verdict goes out. ``forced`` charges whatever the bucket holds."""
    cdef int verdict
    # Nearly always the subject is at home, and alone.
    hold.line = home_of(hold.tag, table.slots)
    verdict = spend_once(&table.buckets[hold.line], hold, True, terms.window, now, forced)
    return verdict if verdict <= REFUSED else table.charge(hold, terms, now, forced)
