# Part of lane.pyx: the decision - authenticate, route, limit.

cdef int judge(Downstream d, RequestHead *head) except -1:
    """All of the request is here, its head read into ``head``: take it, or give it to the full lane and say why."""
    cdef const unsigned char *text = text_of(d)
    cdef bytes owner = d.own
    cdef Py_ssize_t size = d.request_size if owner is not None else d.inbox.size
    cdef str reason
    d.policy = d.lane.policy
    d.grant = None
    d.way = None
    d.lends = None
    d.model = None
    d.upstream_ns = 0
    d.connect_ms = 0.0
    reason = check(d, text, head)
    if reason is not None:
        d.kept = None
        if d.lends is not None and lend(d, text, head):
            return 0
        if d.carried is not None and refuses_for_good(d):
            return say_limited(d)
        hand_over(d, reason, head, text, size, owner)
        d.own = None
        return 0
    touch(d)
    return launch(d, head) if d.kept is None else answer_kept(d)


cdef str check(Downstream d, const unsigned char *text, RequestHead *head):
    """Every decision before an upstream is asked. None: taken, with ``caller``, ``way`` and ``grant`` in place."""
    cdef Policy policy = d.policy
    cdef Lane lane = d.lane
    cdef Door door = d.door
    cdef const unsigned char *body = text + head.size
    cdef Py_ssize_t size = head.content_length
    cdef object made
    cdef Seen *seen = &d.seen
    cdef Route route
    cdef Target target
    cdef Way way
    cdef uint64_t begun
    cdef str reason
    cdef Ask ask
    if not json_body(door, text, head):
        d.user = d.channel = d.trace_id = None
        d.request_id = None
        return "body_type"
    begun = now_ns() if d.body_wait else d.started     # of a request in one piece that has only just been read
    reason = read_fields(d, text, head)
    lane.now = now_ns()
    d.auth_ns = lane.now - begun
    if reason is not None:
        return reason
    if lane.max_requests and lane.active + lane.others >= lane.max_requests:
        return "overloaded"
    if door.google:
        made = shaped(d, text, head)
        if isinstance(made, str):
            return <str>made
        body, size = <const unsigned char *>PyBytes_AS_STRING(<bytes>made), PyBytes_GET_SIZE(<bytes>made)
    elif not scan(body, size, policy.json_depth, seen):
        return "json"
    if seen.model_escaped or seen.user_escaped:
        return "escaped"
    if seen.fallbacks_name >= 0:
        return "fallbacks"
    if seen.model:
        if odd_name(body + seen.model_start + 1, seen.model_end - seen.model_start - 2):
            return "model_name"
        route = policy.routes.find_utf8(body + seen.model_start + 1, seen.model_end - seen.model_start - 2)
    elif door.default_model is not None:
        route = policy.routes.find_utf8(
            <const unsigned char *>PyBytes_AS_STRING(door.default_model), PyBytes_GET_SIZE(door.default_model))
    else:
        return "no_model"
    if route is None:
        return "no_route"
    if not d.caller.models.match_(route.name):
        return "model_forbidden"
    d.seed = next_random(lane)
    d.sticky = sticky_of(d, route, body, size)
    target = route.first_(d.seed, lane.now, d.sticky)
    if target is None:
        return "no_target"
    way = way_of(lane, policy, door, route, target)
    if way.lends and lane.lender is not None:
        d.lends = way
    d.kept = find_kept(d, text, head) if way.caches else None
    reason = refusal_of(d, way, body)
    if reason is not None:
        return reason
    d.way = way
    if d.caller.needs_price and way.tariff is None:
        return "unpriced"
    if d.caller.finishes and seen.stream and door.known_end:
        return "budget"
    if seen.user or door.anthropic:
        d.user = user_of(body, seen, door.anthropic) or d.user
    begun = now_ns()
    count(d, body, &ask, begun)
    if d.kept is not None:
        free_of_charge(d, &ask)
    elif not begin_attempt(d, route, target):
        return "no_target"
    elif way.origin.places is not None:
        if not way.origin.places.take():
            leave_attempt(d)
            return "queue"
        d.placed = True
    d.grant = d.caller.limits.take(&ask, begun)
    lane.now = now_ns()
    d.limit_ns = lane.now - begun
    if not d.grant.granted:
        leave_attempt(d)
        leave_place(d)
        # What is kept the full lane finds by itself, once it has taken another part of a shared limit.
        d.carried = carry(d, None) if d.kept is None or d.grant.shortages is None else None
        return "limited"
    return None


cdef bint begin_attempt(Downstream d, Route route, Target target) noexcept:
    """Count an attempt at the target; False where its last probe has gone to somebody else meanwhile."""
    cdef uint64_t now = d.lane.now
    d.circuit = target.circuit
    if d.circuit is None:
        return True
    d.begun_as = d.circuit.begin_(now, False)
    if d.begun_as == 0 and route.panics_(now):
        d.begun_as = d.circuit.begin_(now, True)
    if d.begun_as == 0:
        d.circuit = None
    return d.begun_as != 0


cdef int leave_attempt(Downstream d) except -1:
    """It is not made after all."""
    cdef Circuit circuit = d.circuit
    if circuit is not None:
        d.circuit = None
        circuit.end_(d.lane.now, NEITHER, d.begun_as, -1)
    return 0


cdef uint64_t sticky_of(Downstream d, Route route, const unsigned char *body, Py_ssize_t size) except? 1:
    """What keeps a request with its like: its session, or the beginning of its body; as ``edge.reading.sticky_of``."""
    if not d.policy.sticky:
        return 0
    kind = d.policy.sticky.get(route.name)
    if kind is None:
        return 0
    if kind == "session":
        return d.session
    return hash_of(body, min(size, <Py_ssize_t>PREFIX_BYTES)) | 1


cdef bint json_body(Door door, const unsigned char *text, RequestHead *head) noexcept:
    """The body says that it is plain JSON (or, where nothing else is possible, says nothing)."""
    cdef const unsigned char *value
    cdef Py_ssize_t size
    if head.content_encoding >= 0:
        return False
    if head.content_type < 0:
        return door.needs_json
    value = text + head.fields[head.content_type].value_at
    size = head.fields[head.content_type].value_size
    if size < 16 or not name_is(value, 16, "application/json", 16):
        return False
    return size == 16 or value[16] == b";" or value[16] == b" "


cdef bint odd_name(const unsigned char *name, Py_ssize_t size) noexcept nogil:
    """Control characters beyond those that JSON refuses: DEL and C1."""
    cdef Py_ssize_t i
    for i in range(size):
        if name[i] == 0x7F or (name[i] == 0xC2 and i + 1 < size and 0x80 <= name[i + 1] <= 0x9F):
            return True
    return False


cdef str read_fields(Downstream d, const unsigned char *text, RequestHead *head):
    """What the header fields say of the caller. None, or why the full lane is to look at them."""
    cdef const unsigned char *name
    cdef const unsigned char *value
    cdef const Name *known
    cdef Span span, best
    cdef unsigned int ranks = 0
    cdef int rank, best_rank = CREDENTIAL_HEADERS, i
    cdef Py_ssize_t size
    cdef Lane lane = d.lane
    best.start = NULL
    best.length = 0
    d.trace_id = d.user = d.channel = None
    d.request_id = d.varies = None
    d.session = 0
    for i in range(head.count):
        name = text + head.fields[i].name_at
        known = lane.names.find(name, head.fields[i].name_size)
        if known == NULL:
            lane.flags[i] = 0
            continue
        lane.flags[i] = known.flags
        value = text + head.fields[i].value_at
        size = head.fields[i].value_size
        rank = rank_of(name, head.fields[i].name_size)
        if rank >= 0:
            if ranks & (1U << rank):
                return "key"
            ranks |= 1U << rank
            span = bearer_span(value, size) if rank == 1 else trim_span(value, size)
            if span.length > 0 and rank < best_rank:
                best_rank = rank
                best = span
        elif known.which == OWN_WAY:
            return "own_timeouts"
        elif known.which == ORDER_KEY:
            return "idempotency"
        elif known.which >= CACHE_WAY:
            note_cache(d, known, value, size)
        elif known.flags & READ:
            read_field(d, known.which, value, size)
    if best_rank == CREDENTIAL_HEADERS:
        return "key"
    return "key" if queried(d, text, head, &best) else identify(d, &best)


cdef int read_field(Downstream d, int which, const unsigned char *value, Py_ssize_t size) except -1:
    """The first of each counts."""
    if which == USER_ID and d.user is None:
        d.user = label_of(value, size)
    elif which == SESSION_ID and d.session == 0 and size:
        d.session = hash_of(value, size) | 1
    elif which == CHANNEL_ID and d.channel is None:
        d.channel = label_of(value, size)
    elif which == REQUEST_ID and d.request_id is None and sane_id(value, size):
        d.request_id = PyBytes_FromStringAndSize(<const char *>value, size)
    elif which == TRACE_PARENT and d.trace_id is None and size == 55 and trace_parent(value):
        d.trace_id = PyUnicode_DecodeASCII(<const char *>value + 3, 32, NULL)
    return 0


cdef str label_of(const unsigned char *value, Py_ssize_t size):
    """A subject's name (user, channel): printable ASCII of 1 to 256 characters, else None."""
    cdef Py_ssize_t i
    if not 0 < size <= 256:
        return None
    for i in range(size):
        if not 0x20 <= value[i] <= 0x7E:
            return None
    return PyUnicode_DecodeASCII(<const char *>value, size, NULL)


cdef bint sane_id(const unsigned char *value, Py_ssize_t size) noexcept nogil:
    """A request id that may come back in headers and logs: see ``edge.headers.REQUEST_ID``."""
    cdef Py_ssize_t i
    cdef unsigned char c
    if not 0 < size <= 128:
        return False
    for i in range(size):
        c = value[i]
        if b"0" <= c <= b"9" or b"a" <= (c | 0x20) <= b"z":
            continue
        if i == 0 or not (c == b"." or c == b"_" or c == b":" or c == b"/" or c == b"+" or c == b"=" or c == b"-"):
            return False
    return True


cdef bint trace_parent(const unsigned char *value) noexcept nogil:
    """version-trace-parent-flags in lower-case hexadecimal, none of the ids all zero (Trace Context section 3.2)."""
    cdef int i
    cdef bint trace = False, parent = False
    for i in range(55):
        if i == 2 or i == 35 or i == 52:
            if value[i] != b"-":
                return False
            continue
        if not (b"0" <= value[i] <= b"9" or b"a" <= value[i] <= b"f"):
            return False
        if value[i] != 48:
            trace = trace or 2 < i < 35
            parent = parent or 35 < i < 52
    return trace and parent and not (value[0] == b"f" and value[1] == b"f")


cdef bint same_secret(const unsigned char *one, const unsigned char *other, Py_ssize_t size) noexcept nogil:
    """In a time that depends on their size alone, eight bytes at a time."""
    cdef uint64_t difference = 0, left, right
    cdef Py_ssize_t at = 0
    while size - at >= 8:
        memcpy(&left, one + at, 8)
        memcpy(&right, other + at, 8)
        difference |= left ^ right
        at += 8
    while at < size:
        difference |= one[at] ^ other[at]
        at += 1
    return difference == 0


cdef str identify(Downstream d, Span *key):
    """Whose key it is. The last one that this connection has shown is not hashed again."""
    cdef Policy policy = d.policy
    if d.last_policy is policy and d.last_key is not None and PyBytes_GET_SIZE(d.last_key) == key.length:
        if same_secret(<const unsigned char *>PyBytes_AS_STRING(d.last_key), key.start, key.length):
            d.caller = <Caller>policy.callers[d.last_index]
            return None
    value = PyBytes_FromStringAndSize(<const char *>key.start, key.length)
    cdef int64_t index = policy.keys.lookup(value)
    if index < 0:
        return "key"
    d.last_key, d.last_index, d.last_policy = value, index, policy
    d.caller = <Caller>policy.callers[index]
    return None
