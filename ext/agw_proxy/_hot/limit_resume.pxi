# Part of limit.pyx: a table whose memory comes from a file, after the processes that had it have ended.

cdef void revive(Table table, uint64_t boot, int64_t now_ns, int64_t wall_ns) noexcept:
    """Set the clocks on, and free what the dead held. Nobody else uses the table meanwhile."""
    cdef Header* header = table.header
    cdef Moment at
    cdef int line
    if load(&header.origin):
        if load(&header.boot) != boot:
            set_back(header, now_ns, wall_ns)
        rebase(table, now_ns)
    store(&header.boot, boot)
    store_signed(&header.wall, wall_ns - now_ns)
    store(&header.walled, 1)
    store(&header.lock, 0)
    store(&header.moving, 0)
    store(&header.wants, 0)
    store(&header.along, 0)
    table.moment(now_ns, &at)
    for line in range(table.slots + OVERFLOW):
        table.buckets[line].tat = max(table.buckets[line].tat, 0)
    memset(table.gate_lines, 0, LINE_BYTES * <size_t>(table.gates + OVERFLOW))
    for line in range(table.windows + OVERFLOW):
        if table.window_lines[line].tag != FREE:
            renew(&table.window_lines[line], &at)
    for line in range(table.leases):
        let_go(&table.lease_lines[line].lock)
        table.lease_lines[line].wants = 0
        table.lease_lines[line].expires = 0
        table.lease_lines[line].credit = min(table.lease_lines[line].credit, 0)


cdef void set_back(Header* header, int64_t now_ns, int64_t wall_ns) noexcept:
    """The monotonic clock began anew: as much time has passed as by the wall clock, and never less than was seen."""
    cdef int64_t origin = instant(load(&header.origin))
    cdef int64_t past = max(wall_ns - (origin + load_signed(&header.wall)), load_signed(&header.latest))
    cdef int64_t back = origin - (now_ns - past)
    store(&header.epoch, kept(instant(load(&header.epoch)) - back))
    store(&header.origin, kept(origin - back))


cdef void rebase(Table table, int64_t now_ns) noexcept:
    """Buckets count in 1/64 ns, for 4.5 years: after one of them they get a new epoch."""
    cdef int64_t past = now_ns - instant(load(&table.header.epoch))
    cdef int line
    if past > REBASE_NS:
        past = min(past, MAX_NS)
        for line in range(table.slots + OVERFLOW):
            table.buckets[line].tat = max(table.buckets[line].tat - past * 64, 0)
        store(&table.header.epoch, kept(now_ns))


cdef void renew(Window* window, const Moment* at) noexcept:
    cdef int algorithm = <int>(window.kind & 15)
    mend(window)
    # Counted while a clock was ahead of what it says now: it counts as of now.
    if algorithm == CALENDAR:
        window.number = min(window.number, number_of(<int>((window.kind >> 4) & 3), at.wall))
    elif algorithm == TOTAL:
        window.parts[0] = min(window.parts[0], at.ns)
