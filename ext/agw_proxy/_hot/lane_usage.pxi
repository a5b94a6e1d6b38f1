# Part of lane.pyx: what keys use, counted where usage by key, model and day is read from.

cdef void charge(
    Downstream d, int how, int64_t prompt, int64_t cached, int64_t completion, Spent *spent
) noexcept:
    """What there was, as limits settle it. The cost is -1 where nobody has named a price, or nothing was served."""
    if d.way.door.counts_only:
        spent.input = spent.output = 0
        spent.cost = -1 if how == UNSERVED else 0
        return
    spent_(spent, how, &d.estimate, d.way.tariff, prompt, completion, cached, d.content, d.bytes_out)
    if d.way.tariff is None or how == UNSERVED:
        spent.cost = -1


cdef int count_usage(Downstream d, int64_t cached, const Spent *spent) except -1:
    """Add a good exchange to its key's book; in the order of ``observe.metrics.USED``."""
    cdef Way way = d.way
    cdef int64_t[TALLIES] used
    if way.book_of is not d.caller:
        open_book(d.lane, way, d.caller)
    used[0] = 1
    used[1] = 0
    used[2] = spent.input
    used[3] = cached
    used[4] = spent.output
    used[5] = spent.cost
    used[6] = used[5] < 0
    d.lane.meter.try_tally(way.book, used)
    return 0


cdef int count_hit(Downstream d) except -1:
    """Add an answer out of the cache to its key's book: a request that has used nothing."""
    cdef int64_t[TALLIES] used
    memset(used, 0, sizeof(used))
    used[0] = 1
    d.lane.meter.try_tally(d.lane.shell.book(d.caller.name, d.way.model_label, "none"), used)
    return 0


cdef int open_book(Lane lane, Way way, Caller caller) except -1:
    """Find what a key has used of a target, or begin it."""
    cdef PyObject *known = PyDict_GetItemWithError(way.books, caller)
    if known != NULL:
        way.book = <object>known
    else:
        way.book = lane.shell.book(caller.name, way.model_label, way.origin.name)
        way.books[caller] = way.book
    way.book_of = caller
    return 0
