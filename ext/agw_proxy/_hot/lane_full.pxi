# Part of lane.pyx: how a client's connection ends, and requests that aiohttp has.

cdef int shut(Downstream d) except -1:
    """Close after what has been written."""
    if d.transport is not None:
        if d.state == BODY:
            leave_body(d)
            d.lane.shell.left(d, d.started)
        elif d.state == AWAY:
            d.lane.away -= 1
            d.lane.lender.lost(d)
        elif d.mark != NULL:
            d.mark[0] = MARK_OVER
        d.state = CLOSED
        d.transport.close()
        if d.transport is not None and d.queued:
            d.lane.wheel.arm(d, now_ns() + d.lane.policy.write_ns)
    return 0


cdef int linger(Downstream d, bytes last) except -1:
    """Write ``last``, end our side, and read on for a moment: a close with unread bytes would take the answer back."""
    if d.transport is None:
        return 0
    touch(d)
    if d.reading_held:
        d.reading_held = d.handler_holds = d.pipeline_full = False
        d.transport.resume_reading()
    d.state = LINGER
    d.body_left = LINGER_BYTES
    if last and not d.send_bytes(last):
        return 0
    try:
        d.transport.write_eof()
    except (OSError, NotImplementedError, RuntimeError):
        return shut(d)
    d.lane.wheel.arm(d, now_ns() + LINGER_NS)
    return 0


cdef str word_of(int reason):
    """Why a head is not for the lane, in a word."""
    return PyUnicode_DecodeASCII(reason_name(reason), strlen(reason_name(reason)), NULL)


cdef int refuse(Downstream d, int reason) except -1:
    """The bytes are no request that we accept: say so, and close."""
    cdef str name = word_of(reason)
    cdef str told = PyUnicode_DecodeASCII(reason_text(reason), strlen(reason_text(reason)), NULL)
    release(&d.inbox)
    d.request_size = 0
    return linger(d, <bytes?>d.lane.shell.refuse(d, refusal_status(reason), name, told, d.started))


cdef int client_expired(Downstream d, uint64_t now) except -1:
    """A deadline of the client's side or of the answer has passed."""
    if d.state == HEAD:
        if d.queued or d.inbox.size == 0:
            if d.queued and d.transport is not None:
                d.transport.abort()
                return 0
            return shut(d)
        d.started = now
        d.door = None
        d.caller = None
        release(&d.inbox)
        return linger(d, <bytes?>d.lane.shell.refuse(d, 408, "head_timeout", "", now))
    if d.state == BODY:
        leave_body(d)
        forget_request(d)
        release(&d.inbox)
        return linger(d, <bytes?>d.lane.shell.refuse(d, 408, "body_timeout", "", d.started))
    if d.state == LINGER or d.state == CLOSED:
        d.rest = None
        if d.transport is not None:
            d.transport.abort()
        return 0
    if d.state == FULL:
        return not_read(d)
    if d.running:
        return answer_expired(d, now)
    return 0


# -- the full lane

cdef int expect_reading(Downstream d) except -1:
    """aiohttp's answer waits for its client, which has so long to take some of it. A WebSocket has its own clocks."""
    if d.tunnel:
        return 0
    d.taken = taken_of(d)
    return d.lane.wheel.arm(d, now_ns() + d.lane.policy.write_ns)


cdef int64_t taken_of(Downstream d) except? -1:
    """Of what aiohttp has written, the bytes that the socket has taken; below 0 where others wait before them."""
    return d.handed - <int64_t>d.transport.get_write_buffer_size()


cdef int not_read(Downstream d) except -1:
    """So much time has passed: a client that takes nothing is cut off."""
    if not d.queued or d.tunnel or d.transport is None:
        return 0
    if taken_of(d) > d.taken:
        return expect_reading(d)
    d.transport.abort()             # connection_lost does the rest
    return 0


cdef int hand_over(
    Downstream d, str reason, RequestHead *head, const unsigned char *data, Py_ssize_t size, bytes owner
) except -1:
    """Give this one request to aiohttp, from its first byte on; ``head`` says how its body is framed."""
    d.state = FULL
    d.due = 0
    d.reason = reason
    d.was_answered = d.fed = d.poisoned = False
    d.chunked = head.chunked
    d.body_left = max(head.content_length, 0)
    memset(&d.body_chunks, 0, sizeof(Chunks))
    if d.counted:
        d.lane.held -= d.counted
        d.counted = 0
    d.request_size = 0
    if owner is None:
        # The bytes move out, so that what comes behind the request can stay in the inbox.
        owner = PyBytes_FromStringAndSize(<const char *>data, size)
        release(&d.inbox)
        data = <const unsigned char *>PyBytes_AS_STRING(owner)
    if d.handler is None:
        d.handler = d.lane.shell.adopt(d)
    carried, d.carried = d.carried, None
    d.handler.expect(carried)
    if d.queued:                    # of the heartbeats that have gone out
        expect_reading(d)
        d.handler.pause_writing()
    return feed_handler(d, data, size, owner, head.size)


cdef int feed_handler(Downstream d, const unsigned char *data, Py_ssize_t size, bytes owner, Py_ssize_t skip) except -1:
    """Pass on what belongs to the request: ``skip`` bytes of head, then its body up to its end, as counted here."""
    cdef const unsigned char *end = data + size
    cdef const unsigned char *at = data + skip
    cdef Piece piece
    cdef bytes part
    if d.tunnel:
        d.handler.data_received(owner)
        return 0
    if d.fed or d.poisoned:
        if not d.poisoned:
            append(&d.inbox, data, size)
            d.pipeline_full = d.inbox.size > MAX_PIPELINED
            update_reading(d)
        return 0
    if d.chunked:
        # Tabs around a value are legal, and too much for aiohttp's reading of Transfer-Encoding.
        part = PyBytes_FromStringAndSize(<const char *>data, skip).replace(b"\t", b" ")
        at = next_piece(&d.body_chunks, at, end, &piece)
        while piece.size:
            part += b"%x\r\n%b\r\n" % (piece.size, PyBytes_FromStringAndSize(<const char *>piece.at, piece.size))
            at = next_piece(&d.body_chunks, at, end, &piece)
        d.fed = d.body_chunks.ended
        d.poisoned = d.body_chunks.broken
        if d.fed:
            part += b"0\r\n\r\n"
    else:
        if end - at >= d.body_left:
            at += d.body_left
            d.body_left = 0
            d.fed = True
        else:
            d.body_left -= end - at
            at = end
    if d.chunked:
        pass                        # framed anew: extensions and trailers, which parsers disagree about, stay here
    elif at == end and data == <const unsigned char *>PyBytes_AS_STRING(owner) and size == PyBytes_GET_SIZE(owner):
        part = owner
    else:
        part = PyBytes_FromStringAndSize(<const char *>data, at - data)
    if not d.poisoned and at < end:
        append(&d.inbox, at, end - at)
    d.pipeline_full = d.inbox.size > MAX_PIPELINED
    if PyBytes_GET_SIZE(part):
        d.handler.data_received(part)
    if d.poisoned:
        d.handler.body_broken()
    update_reading(d)
    if d.fed and d.was_answered and d.state == FULL:
        next_request(d)
    return 0
