# Part of lane.pyx: streams of events, and everything that is written to the client.

cdef int stream_body(Downstream d, const unsigned char *data, Py_ssize_t size, bint ended) except -1:
    cdef Stream stream = d.stream
    try:
        if size:
            stream.push(data, size)
        else:
            stream.ready, stream.ready_size = NULL, 0
    except ValueError:              # EventTooLong
        stop_asking(d)
        if d.state == TAIL:
            return end_tail(d)
        return interrupted(d, d.lane.shell.error("event_too_long", d.way.origin.name, ""))
    # Comments and pings keep the connection alive, not the answer: they do not put the silence clock off.
    if stream.progress > d.seen_progress and d.state != TAIL:
        d.seen_progress = stream.progress
        d.progress = d.lane.now
    if d.state == HOLD:
        return stream_start(d, ended)
    if d.state == TAIL:
        if stream.ready_size:
            d.bytes_out += stream.ready_size
            emit(d, stream.ready, stream.ready_size, NULL, 0, False)
        return end_tail(d) if ended else 0
    return stream_on(d, stream.ready, stream.ready_size, ended)


cdef int stream_start(Downstream d, bint ended) except -1:
    """Hold the answer back until its first event that is no ping.

    An error there gets a real status, and perhaps another target.
    """
    cdef Stream stream = d.stream
    cdef str name = d.way.origin.name
    cdef const unsigned char *first = stream.ready
    cdef Py_ssize_t size = stream.ready_size
    cdef bint all_here = stream.done or stream.error is not None or (
        stream.content if d.way.holds else stream.events > stream.pings)
    if not (all_here or ended) and d.hold.size + size < MAX_HELD:
        append(&d.hold, first, size)
        return plan_deadline(d)
    if d.hold.size or (ended and not all_here):
        append(&d.hold, first, size)
        if ended and not all_here:
            stream.close()          # an only event without its blank line
            append(&d.hold, stream.ready, stream.ready_size)
        first, size = d.hold.data, d.hold.size
    if stream.error is not None and (stream.events - stream.pings <= 1 or (d.way.holds and not stream.content)):
        stop_asking(d)
        return give_up(d, d.lane.shell.first_event(d.policy.state, d.way.target.upstream, stream.error))
    if ended and not stream.done and not (
        stream.content or stream.terminal() if d.way.holds else stream.events > stream.pings
    ):
        return give_up(d, d.lane.shell.error("no_event", name, ""))
    if d.beaten and size >= 3 and memcmp(first, <const char *>b"\xef\xbb\xbf", 3) == 0:
        first += 3                  # a byte order mark is one at a stream's beginning alone, where a heartbeat stands
        size -= 3
    d.progress = d.lane.now
    d.upstream_ns = d.progress - d.dialed_at
    forget_request(d)
    d.state = RELAY
    answered(d)
    d.lane.meter.add_(d.lane.h_streams, 1)
    d.stream_counted = True
    stream_on(d, first, size, ended)
    release(&d.hold)
    return 0


cdef int stream_on(Downstream d, const unsigned char *chunk, Py_ssize_t size, bint ended) except -1:
    """Bytes that are good to pass on; ``ended``: the upstream has no more."""
    cdef Stream stream = d.stream
    cdef const unsigned char *rest = NULL
    cdef Py_ssize_t rest_size = 0
    cdef bint whole = True
    if ended:
        if size and not stream.terminal() and stream.error is None:
            d.bytes_out += size
            emit(d, chunk, size, NULL, 0, False)
            size = 0
        whole = stream.at_boundary
        stream.close()
        rest, rest_size = stream.ready, stream.ready_size
        if d.way.door.known_end and not stream.terminal() and stream.error is None:
            saw_content(d, stream)
            error = d.lane.shell.error("unfinished", d.way.origin.name, "")
            return break_off(d, error, boundary(whole or stream.at_boundary))
    saw_content(d, stream)
    d.bytes_out += size + rest_size
    if stream.error is not None:
        last = PyBytes_FromStringAndSize(<const char *>chunk, size)
        last += PyBytes_FromStringAndSize(<const char *>rest, rest_size)
        stop_asking(d)
        return break_off(
            d, d.lane.shell.error("error_event", d.way.origin.name, ""),
            d.lane.shell.pass_error_on(d.policy.state, d.way.target.upstream, last, stream.error, d.door.dialect))
    if not ended and not stream.done and not (d.way.door.known_end and stream.finished):
        if size:
            emit(d, chunk, size, NULL, 0, False)
        return plan_deadline(d)
    # Everything is known: settled before the last bytes, so that whoever has read them sees it counted.
    settle(d)
    d.complete = True
    emit(d, chunk, size, rest, rest_size, ended)
    if ended:
        return finish(d)
    d.state = TAIL
    d.progress = d.lane.now
    return plan_deadline(d)


cdef inline bytes boundary(bint whole):
    """What ends a cut event, so that another can follow; a reader takes it for bad JSON, which is what it is."""
    return b"" if whole else b"\n\n"


cdef int end_tail(Downstream d) except -1:
    emit(d, NULL, 0, NULL, 0, True)
    return finish(d)


cdef int saw_content(Downstream d, Stream stream) except -1:
    if stream.content > d.content:
        d.last_token = d.progress
        if not d.content:
            d.first_token = d.progress
        d.content = stream.content
    return 0


cdef int emit(
    Downstream d, const unsigned char *one, Py_ssize_t one_size, const unsigned char *two, Py_ssize_t two_size,
    bint last,
) except -1:
    """Write bytes of the answer, its head before the first ones, chunked where the client was told so."""
    cdef iovec parts[MAX_PIECES]
    cdef Lane lane = d.lane
    cdef Pen pen
    cdef unsigned char[20] line
    cdef int used = 0, digits
    cdef Py_ssize_t size = one_size + two_size, total = 0
    cdef int i
    if not d.begun:
        d.begun = True
        if d.beaten:                # a head has gone out before
            d.head_at = now_ns()
        else:
            pen = pen_of(lane)
            end_head(d, &pen)
            used += piece(
                &parts[used], <const unsigned char *>PyBytes_AS_STRING(d.answer_head),
                PyBytes_GET_SIZE(d.answer_head))
            used += piece(&parts[used], lane.page, pen.at - lane.page)
    if d.answer_length >= 0:
        used += piece(&parts[used], one, one_size)
    else:
        if size:
            digits = chunk_line(line, size)
            used += piece(&parts[used], &line[digits], 20 - digits)
            used += piece(&parts[used], one, one_size)
            used += piece(&parts[used], two, two_size)
        if last:
            used += piece(&parts[used], LAST_CHUNK if size else LAST_CHUNK + 2, 7 if size else 5)
        elif size:
            used += piece(&parts[used], LAST_CHUNK, 2)
    for i in range(used):
        total += parts[i].iov_len
    if not total:
        return 0
    d.send(parts, used, total)
    d.answer_head = None
    if d.queued and not d.stalled:
        d.stalled = now_ns()
        if d.peer is not None:
            hold_answer(d.peer, True)
    return 0


cdef const unsigned char *LAST_CHUNK = <const unsigned char *>b"\r\n0\r\n\r\n"


cdef int break_off(Downstream d, object error, bytes last) except -1:
    """End a broken answer as what it is: an error event (``last``, or one of our own), no last chunk, and a close.

    ``last`` beginning with what ends a cut event, or empty, gets an event of our own behind it.
    """
    cdef Stream stream = d.stream
    stop_asking(d)
    if stream is not None:
        if last is None:
            last = boundary(stream.at_boundary)
        if not last.strip():
            last = last + <bytes?>d.lane.shell.error_event(error, d.way.door.dialect, d.request_id)
        emit(d, <const unsigned char *>PyBytes_AS_STRING(last), PyBytes_GET_SIZE(last), NULL, 0, False)
    account(d, error)
    quit_lane(d)
    forget_request(d)
    release(&d.inbox)
    d.grant = None
    return shut(d)
