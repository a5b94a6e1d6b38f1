# Part of lane.pyx: what becomes of an answer, from its head to the point where it is good to pass on.

cdef int answer_begins(Downstream d, const unsigned char *text, ResponseHead *head) except -1:
    """The answer's final head is here (a status of 200 or more)."""
    cdef Peer peer = d.peer
    cdef int kind
    d.upstream_ns = d.lane.now - d.dialed_at
    d.status = head.status
    d.hold.size = 0
    d.progress = d.lane.now
    if head.status >= 300 and head.status != 304:
        d.state = REFUSED
        d.error_status = head.status
        d.error_headers = [
            (
                PyBytes_FromStringAndSize(<const char *>text + head.fields[i].name_at, head.fields[i].name_size),
                PyBytes_FromStringAndSize(<const char *>text + head.fields[i].value_at, head.fields[i].value_size),
            )
            for i in range(head.count)
        ]
        return plan_deadline(d)
    kind = kind_of(text, head)
    if kind == HTML:
        d.peer = None
        cut(peer)
        return give_up(d, d.lane.shell.error("html", d.way.origin.name, ""))
    if d.beaten and (kind != EVENTS or head.status != 200):
        return no_stream(d)
    d.state = HOLD
    d.streaming = kind == EVENTS
    d.unframed = False
    if d.streaming:
        d.answer_length = -1
        d.seen_progress = 0
        d.stream = Stream(strip_usage=True) if d.strip else Stream.__new__(Stream)
    else:
        d.answer_length = 0 if peer.framing == NO_BODY else head.content_length
        d.unframed = (
            kind == JSON_TEXT and peer.framing == BY_CLOSE and not has_field(text, head, "content-encoding", 16)
        )
        d.document = Document.__new__(Document)
    d.answer_head = begin_head(d, text, head)
    return plan_deadline(d)


cdef enum Kind:
    OTHER_KIND, JSON_TEXT, EVENTS, HTML


cdef int kind_of(const unsigned char *text, ResponseHead *head) noexcept:
    """By the media type, without its parameters."""
    cdef const unsigned char *value
    cdef Py_ssize_t size = 0
    if head.content_type < 0:
        return OTHER_KIND
    value = text + head.fields[head.content_type].value_at
    while size < head.fields[head.content_type].value_size and value[size] != b";":
        size += 1
    while size and (value[size - 1] == b" " or value[size - 1] == b"\t"):
        size -= 1
    if name_is(value, size, "text/event-stream", 17):
        return EVENTS
    if name_is(value, size, "application/json", 16):
        return JSON_TEXT
    if name_is(value, size, "text/html", 9):
        return HTML
    return OTHER_KIND


cdef bint has_field(const unsigned char *text, ResponseHead *head, const char *name, Py_ssize_t size) noexcept:
    cdef int i
    for i in range(head.count):
        if name_is(text + head.fields[i].name_at, head.fields[i].name_size, name, size):
            return True
    return False


cdef bytes begin_head(Downstream d, const unsigned char *text, ResponseHead *head):
    """Status line and the upstream's fields: what is known from its head alone."""
    cdef Lane lane = d.lane
    cdef Pen pen = pen_of(lane)
    cdef Grant grant = d.grant
    if head.status == 200:
        put_bytes(&pen, b"HTTP/1.1 200 OK\r\n")
    else:
        put_bytes(&pen, b"HTTP/1.1 ")
        put_number(&pen, head.status)
        put_bytes(&pen, lane.shell.phrase(head.status))
        put_bytes(&pen, b"\r\n")
    put_answer_fields(&pen, lane, text, head, grant.requests_limit >= 0 or grant.tokens_limit >= 0, d.streaming)
    if head.content_type < 0 and d.peer.framing != NO_BODY:
        put_bytes(&pen, b"Content-Type: application/octet-stream\r\n")
    if d.streaming:
        put_bytes(&pen, b"Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n")
    if d.peer.framing == NO_BODY:
        pass
    elif d.answer_length >= 0:
        put_bytes(&pen, b"Content-Length: ")
        put_number(&pen, d.answer_length)
        put_bytes(&pen, b"\r\n")
    else:
        put_bytes(&pen, b"Transfer-Encoding: chunked\r\n")
    return PyBytes_FromStringAndSize(<const char *>lane.page, pen.at - lane.page)


cdef int end_head(Downstream d, Pen *pen) except -1:
    """What every reply carries, as ``edge.respond.common_headers`` has it, and the empty line."""
    cdef int64_t own
    d.head_at = d.lane.now = now_ns()
    own = <int64_t>(d.head_at - d.started) - d.body_wait - d.upstream_ns
    put_bytes(pen, b"Server: agw\r\nx-request-id: ")
    put_bytes(pen, d.request_id)
    if d.way.door.dialect == "anthropic":
        put_bytes(pen, b"\r\nrequest-id: ")
        put_bytes(pen, d.request_id)
    put_milliseconds(pen, b"\r\nServer-Timing: auth;dur=", d.auth_ns)
    put_milliseconds(pen, b", limit;dur=", d.limit_ns)
    put_milliseconds(pen, b", connect;dur=", <int64_t>(d.connect_ms * 1e6))
    put_milliseconds(pen, b", ttfb;dur=", d.upstream_ns)
    put_milliseconds(pen, b", own;dur=", own)
    put_bytes(pen, b"\r\n")
    if d.replayed:
        put_bytes(pen, lane_attempts(d))
    put_limits(pen, d.lane, d.grant, d.door.anthropic)
    put_bytes(pen, b"X-Content-Type-Options: nosniff\r\n")
    put_bytes(pen, date_line(d.lane))
    if closing(d):
        d.close_after = True
        put_bytes(pen, b"Connection: close\r\n")
    put_bytes(pen, b"\r\n")
    return 0


cdef int answer_body(Downstream d, const unsigned char *data, Py_ssize_t size, bint ended) except -1:
    """Bytes of the answer's body; with ``ended`` the last ones, and the connection to the upstream is gone already."""
    if ended:
        d.peer = None
    if d.state == REFUSED:
        if d.hold.size <= MAX_HELD:
            append(&d.hold, data, size)
        if ended or d.hold.size > MAX_HELD:
            return refused_upstream(d, PyBytes_FromStringAndSize(<const char *>d.hold.data, d.hold.size))
        return plan_deadline(d)
    if d.streaming:
        return stream_body(d, data, size, ended)
    return document_body(d, data, size, ended)


cdef int document_body(Downstream d, const unsigned char *data, Py_ssize_t size, bint ended) except -1:
    """An answer that is no stream of events, read for its usage in passing."""
    cdef Document document = d.document
    document.push(data, size)
    d.progress = d.lane.now
    if d.state == HOLD:
        d.upstream_ns = d.progress - d.dialed_at
        if d.unframed and d.hold.size + size < MAX_HELD:
            append(&d.hold, data, size)
            if not ended:
                return plan_deadline(d)
            if not document.complete:
                return give_up(d, d.lane.shell.error("cut_json", d.way.origin.name, ""))
            data, size = d.hold.data, d.hold.size
        elif d.hold.size:
            append(&d.hold, data, size)
            data, size = d.hold.data, d.hold.size
        forget_request(d)
        d.state = RELAY
        answered(d)
    d.bytes_out += size
    if not ended:
        emit(d, data, size, NULL, 0, False)
        return plan_deadline(d)
    if d.unframed and not document.complete:
        emit(d, data, size, NULL, 0, False)
        return break_off(d, d.lane.shell.error("cut_answer", d.way.origin.name, ""), b"")
    settle(d)
    d.complete = True
    emit(d, data, size, NULL, 0, True)
    return finish(d)


# -- what goes wrong

cdef int refused_upstream(Downstream d, bytes body) except -1:
    """The upstream has said no: whether to ask again, and what to tell the client, is the full lane's."""
    cdef Peer peer = d.peer
    headers, d.error_headers = d.error_headers, None
    release(&d.hold)
    if peer is not None:
        d.peer = None
        cut(peer)
    return give_up(d, d.lane.shell.refused(d.policy.state, d.way.target.upstream, d.error_status, headers, body))


cdef int answer_missing(Downstream d, Peer peer) except -1:
    """The connection has ended before an answer's head.

    One that had been idle may have been closed by the upstream just before the request came: then, and where not one
    byte has come back, the request goes out again, once, on a new connection.
    """
    d.peer = None
    if d.way.origin.replays and peer.reused and not d.replayed and peer.head.size == 0 and peer.interim == 0:
        d.replayed = True
        return dial(d)
    return give_up(d, d.lane.shell.error("reset", d.way.origin.name, ""))


cdef int answer_invalid(Downstream d, str why) except -1:
    """What came back is no answer in HTTP."""
    cdef Peer peer = d.peer
    d.peer = None
    cut(peer)
    return give_up(d, d.lane.shell.error("invalid", d.way.origin.name, why))


cdef int answer_broken(Downstream d, str why) except -1:
    """The body has broken off, or its framing is wrong; the connection is gone."""
    d.peer = None
    if d.state == REFUSED:
        return refused_upstream(d, b"")
    if d.state == TAIL:
        return end_tail(d)
    return interrupted(d, d.lane.shell.error(why, d.way.origin.name, ""))


cdef int interrupted(Downstream d, object error) except -1:
    """End with ``error``: by the full lane as long as the client has got nothing."""
    if d.state >= RELAY:
        return break_off(d, error, None)
    return give_up(d, d.lane.shell.uncommitted(error))


cdef int answer_expired(Downstream d, uint64_t now) except -1:
    """A deadline of the answer has passed, or has been put off meanwhile."""
    cdef Peer peer = d.peer
    cdef Clock clock = ALL
    if d.stalled and now >= d.stalled + d.policy.write_ns:
        d.transport.abort()         # a client that reads nothing; connection_lost does the rest
        return 0
    if d.state == TAIL:
        if now < d.progress + TAIL_NS:
            return plan_deadline(d)
        d.peer = None
        if peer is not None:
            cut(peer)
        return end_tail(d)
    if d.state == DIAL or d.stalled:
        if now < d.total_due:
            return plan_deadline(d)
    elif now < phase_due(d, &clock):
        return plan_deadline(d)
    stop_asking(d)
    if d.state == REFUSED:
        return refused_upstream(d, b"")
    detail = "%g" % (phase_ns(d, clock) / 1e9)
    return interrupted(d, d.lane.shell.error(PHASES[clock], d.way.origin.name, detail))


cdef enum Clock:
    ALL, WRITING, FIRST_BYTE, FIRST_TOKEN, SILENT, TOKENLESS


PHASES = ("total", "write", "first_byte", "first_token", "silent", "tokenless")


cdef uint64_t phase_ns(Downstream d, Clock clock) noexcept:
    """How long a clock may take."""
    if clock == WRITING:
        return d.way.write_ns
    if clock == FIRST_BYTE:
        return d.way.first_byte_ns
    if clock == FIRST_TOKEN:
        return d.way.first_token_ns
    if clock == SILENT:
        return d.way.between_bytes_ns
    return d.way.between_tokens_ns if clock == TOKENLESS else d.way.total_ns


cdef uint64_t phase_due(Downstream d, Clock *clock) noexcept:
    """When the answer has to be further than it is; ``clock``: which clock that is."""
    cdef uint64_t due
    if d.state == WAIT:
        clock[0] = WRITING if d.peer is not None and d.peer.queued else FIRST_BYTE
        due = d.asked_at + phase_ns(d, clock[0])
    elif d.streaming:
        clock[0] = TOKENLESS
        due = d.progress + d.way.between_tokens_ns
    else:
        clock[0] = SILENT
        due = d.progress + d.way.between_bytes_ns
    if d.way.first_token_ns and d.content == 0 and d.asked_at + d.way.first_token_ns < due and (
        d.state == WAIT or d.streaming
    ) and d.wants_stream:
        clock[0] = FIRST_TOKEN
        due = d.asked_at + d.way.first_token_ns
    if d.total_due < due:
        clock[0] = ALL
        due = d.total_due
    return due


cdef int plan_deadline(Downstream d) except -1:
    """When to look again, by the clock that the exchange is in."""
    cdef uint64_t due
    cdef Clock clock
    if d.state == TAIL:
        due = d.progress + TAIL_NS
    elif d.state == DIAL:
        due = d.total_due
    elif d.stalled:
        due = min(d.stalled + d.policy.write_ns, d.total_due)
    else:
        due = phase_due(d, &clock)
    return d.lane.wheel.arm(d, due)


cdef int stop_asking(Downstream d) except -1:
    """Whatever is under way towards the upstream ends now."""
    cdef Peer peer = d.peer
    d.peer = None
    if peer is not None:
        cut(peer)
    if d.dialing is not None:
        task, d.dialing = d.dialing, None
        task.cancel()
    return 0


cdef int give_up(Downstream d, object error) except -1:
    """Hand the exchange over: the request, what it took from the buckets, and how the first attempt ended.

    ``error``: an UpstreamError, or None where the gateway itself ends it.
    """
    cdef RequestHead *head = &d.lane.request
    cdef const unsigned char *text = text_of(d)
    cdef bytes owner = d.own
    cdef Py_ssize_t size
    stop_asking(d)
    d.upstream_ns = now_ns() - d.dialed_at
    judged(d, error)
    if d.placed and error is not None and d.way.origin.places.follower is not None:
        d.way.origin.places.follower.failed(now_ns(), d.dialed_at, error)
    d.carried = carry(d, error)
    d.grant = None
    quit_lane(d)
    head.scanned = 0
    parse_request(text, d.request_size, &d.lane.limits, head)
    size = d.request_size if owner is not None else d.inbox.size
    hand_over(d, "upstream_failed" if error is not None else "draining", head, text, size, owner)
    d.own = None
    return 0
