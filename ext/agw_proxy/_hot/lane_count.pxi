# Part of lane.pyx: what the limits are asked for a request, by the functions that the full lane calls, too.

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    unsigned char *PyUnicode_1BYTE_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef enum:
    NAMED_BYTES = 272           # of a kind and a name: one in a header has at most 256
    AMPLE = 4096                # requests that money is left for, while none is looked at for what it may cost

cdef int count(Downstream d, const unsigned char *body, Ask *ask, int64_t begun) except -1:
    """Whatever some rule of the caller's looks at: whose request it is, and what it may need."""
    cdef Caller caller = d.caller
    cdef Way way = d.way
    cdef int counts = caller.counts
    cdef bint by_image = way.tariff is not None and way.tariff.image > 0
    memset(ask, 0, sizeof(Ask))
    memset(&d.estimate, 0, sizeof(Estimate))
    d.session_subject = 0
    ask.subjects[AT_KEY], ask.subjects[AT_TEAM] = caller.subject, caller.team
    ask.subjects[AT_MODEL], ask.subjects[AT_UPSTREAM] = way.subject, way.upstream_subject
    ask.stream = d.seen.stream
    if not counts & (PER_USER | PER_CHANNEL | PER_SESSION | COUNTS_TOKENS | COUNTS_COST) and not by_image:
        return 0
    if counts & PER_USER:
        ask.subjects[AT_USER] = name_of(b"user:", d.user)
    if counts & PER_CHANNEL:
        ask.subjects[AT_CHANNEL] = name_of(b"channel:", d.channel)
    if counts & PER_SESSION:
        d.session_subject = ask.subjects[AT_SESSION] = session_of(
            body, &d.seen, d.session, caller.subject, d.door.anthropic, caller.derive and d.door.known_end)
    if (counts & (COUNTS_TOKENS | COUNTS_COST) or by_image) and not d.door.counts_only:
        reckon(d, body, True)
        if counts & COUNTS_COST and d.estimate.raw == 0 and (
                d.estimate.cost > money_left(caller.limits, ask, begun) // AMPLE):
            reckon(d, body, False)
        ask.input, ask.output, ask.cost = d.estimate.prompt, d.estimate.output, d.estimate.cost
    return 0


cdef int reckon(Downstream d, const unsigned char *body, bint by_bytes) except -1:
    """What the request may need; ``by_bytes``: without a look into it, where those of its size were alike."""
    estimate_(
        &d.estimate, d.way.learner, d.way.tariff, body, d.seen.size, d.seen.max_tokens, choices_of(body, &d.seen),
        d.door.known_end, False, by_bytes)
    return 0


cdef uint64_t name_of(bytes kind, str name) except? 1:
    """The subject of that name; who has none shares one."""
    cdef unsigned char[NAMED_BYTES] text
    cdef Py_ssize_t before = PyBytes_GET_SIZE(kind), size = 0
    cdef const unsigned char *plain = NULL
    cdef bytes counted
    if name is None:
        plain = text
    elif PyUnicode_IS_ASCII(name):
        plain, size = PyUnicode_1BYTE_DATA(name), PyUnicode_GET_LENGTH(name)
    if plain == NULL or before + size > NAMED_BYTES:
        counted = kind + name.encode("utf-8", "surrogatepass")
        return hash_of(<const unsigned char *>PyBytes_AS_STRING(counted), PyBytes_GET_SIZE(counted))
    memcpy(text, PyBytes_AS_STRING(kind), before)
    memcpy(text + before, plain, size)
    return hash_of(text, before + size)


cdef inline bint pipelined(Downstream d) noexcept:
    """There is more behind the request in hand."""
    return (d.inbox.size if d.own is not None else d.inbox.size - d.request_size) > 0


cdef bint refuses_for_good(Downstream d) except -1:
    """A limit has said no, and nothing that the full lane could do would make it a yes.

    Requests behind this one leave it to the full lane, so that no chain of refusals is answered by recursion.
    """
    cdef Grant grant = d.grant
    if grant is None or grant.granted or grant.shortages is not None:
        return False
    if pipelined(d):
        return False
    # Another target's upstream may have room.
    return len(d.way.route.targets) + len(d.way.route.fallbacks) < 2 or not (
        grant.rule.per & PER_UPSTREAM or grant.rule.only[0] == PER_UPSTREAM)


cdef int say_limited(Downstream d) except -1:
    """Tell the client so. The Shell finds the words, and accounts for it."""
    cdef Way way = d.way
    carried, d.carried = d.carried, None
    d.grant = None
    touch(d)
    answer = <bytes?>d.lane.shell.limited(
        d, carried, way.route.name, way.route.label, bool(d.seen.stream), d.session_subject,
        bool(closing(d)))
    if not d.send_bytes(answer):
        return 0
    return next_request(d)
