# Part of lane.pyx: a request that is taken, on its way to the upstream.

cdef int launch(Downstream d, RequestHead *head) except -1:
    """Start the account of an exchange that this lane has taken, and ask the upstream."""
    cdef Lane lane = d.lane
    cdef Peer peer
    if d.request_id is None:
        d.request_id = new_id(lane)
    d.running = True
    if d.circuit is not None:
        d.circuit.vitals.asked_(lane.now)
    d.replayed = d.begun = d.complete = d.settled = d.streaming = False
    d.status = 0
    d.wants_stream = d.seen.stream
    d.strip = d.way.door.asks_usage and d.way.origin.stream_usage and d.seen.stream and not d.seen.include_usage
    d.first_token = d.last_token = d.head_at = d.stalled = 0
    d.content = d.bytes_out = 0
    d.asked_at = d.beaten = 0
    d.stream = None
    d.document = None
    d.total_due = d.started + d.way.total_ns
    d.dialed_at = lane.now
    if d.address is None:
        d.address = lane.shell.address(d.transport) or ""
    lane.active += 1
    lane.begun += 1
    lane.meter.add_(lane.h_active, 1)
    expect_token(d)
    peer = take_idle(d.way.origin)
    if peer is None:
        return dial(d)
    return ask(d, peer, head)


cdef int dial(Downstream d) except -1:
    """A new connection is needed; ``Downstream.dialed`` or ``dial_failed`` tells how that went."""
    d.state = DIAL
    d.serial += 1
    d.lane.wheel.arm(d, d.total_due)
    d.dialing = d.lane.shell.dial(
        d, d.way.origin, d.serial, d.way.connect_seconds, d.way.tls_seconds)
    return 0


cdef int ask(Downstream d, Peer peer, RequestHead *head) except -1:
    """Write the request: its head made anew, its body as it came but for the spliced members."""
    cdef Lane lane = d.lane
    cdef Way way = d.way
    cdef const unsigned char *text = text_of(d)
    cdef Pen pen = pen_of(lane)
    cdef iovec parts[MAX_PIECES]
    cdef int used
    cdef Py_ssize_t size
    if head == NULL:
        head = &lane.request
        head.scanned = 0
        parse_request(text, d.request_size, &lane.limits, head)
        mark_fields(lane, text, head)
    used = 1 + own_body(d, text + head.size, head.content_length, &parts[1], &size)
    put_bytes(&pen, way.opening)
    if way.door.google:
        put_call(&pen, text, head)
    else:
        if way.door.upstream_path is None:
            put(&pen, text + head.target_at + 3, head.path_size - 3)
        put(&pen, text + head.target_at + head.path_size, head.target_size - head.path_size)
    put_bytes(&pen, way.closing)
    put_request_fields(&pen, lane, way.origin, text, head)
    put_bytes(&pen, b"Accept-Encoding: identity\r\nx-request-id: ")
    put_bytes(&pen, d.request_id)
    put_bytes(&pen, b"\r\nContent-Length: ")
    put_number(&pen, size)
    put_bytes(&pen, b"\r\n\r\n")
    if pen.overflow:
        give_idle(way.origin, peer)
        return give_up(d, lane.shell.error("head_too_large", way.origin.name, ""))
    parts[0].iov_base = lane.page
    parts[0].iov_len = pen.at - lane.page
    d.peer = peer
    d.state = WAIT
    d.connect_ms = 0.0 if peer.reused else peer.connect_ms
    assign(peer, d)
    peer.send(parts, used, size + parts[0].iov_len)
    d.asked_at = lane.now
    return plan_deadline(d)


cdef int mark_fields(Lane lane, const unsigned char *text, RequestHead *head) noexcept:
    """What the names of a head mean, into ``lane.flags``."""
    cdef const Name *known
    cdef int i
    for i in range(head.count):
        known = lane.names.find(text + head.fields[i].name_at, head.fields[i].name_size)
        lane.flags[i] = 0 if known == NULL else known.flags
    return 0


cdef int own_body(
    Downstream d, const unsigned char *body, Py_ssize_t whole, iovec *parts, Py_ssize_t *size
) noexcept:
    """The body for the upstream as a list of pieces. Returns how many. ``whole``: bytes as it came, ``size``: now.

    What policy has put in front of one in Google's form was never in these bytes: such a body goes as it is.
    """
    cdef Way way = d.way
    cdef Edit edits[EDITS]
    cdef int count
    cdef Py_ssize_t before
    cdef bint named = way.renames or not d.seen.model
    if way.door.google:
        before = brace_of(body, whole)
        size[0] = whole - before
        return piece(parts, body + before, size[0])
    count = plan(
        &d.seen, <const unsigned char *>PyBytes_AS_STRING(way.quoted) if named else NULL,
        PyBytes_GET_SIZE(way.quoted), d.strip, edits,
    )
    size[0] = spliced_size(&d.seen, edits, count)
    return body_parts(body, &d.seen, edits, count, parts)


cdef int body_parts(
    const unsigned char *body, const Seen *seen, const Edit *edits, int count, iovec *parts
) noexcept nogil:
    """The edited body as a list of pieces, nothing copied. Returns how many."""
    cdef Py_ssize_t at = 0
    cdef int used = 0, i
    for i in range(count):
        used += piece(&parts[used], body + at, edits[i].start - at)
        if edits[i].comma:
            used += piece(&parts[used], COMMA, 1)
        used += piece(&parts[used], <const unsigned char *>edits[i].name, edits[i].name_size)
        used += piece(&parts[used], edits[i].text, edits[i].size)
        at = edits[i].end
    return used + piece(&parts[used], body + at, seen.size - at)


cdef inline int piece(iovec *part, const unsigned char *data, Py_ssize_t size) noexcept nogil:
    """1 where there is something to write."""
    part.iov_base = <void *>data
    part.iov_len = size
    return size > 0


cdef const unsigned char *COMMA = <const unsigned char *>b","
