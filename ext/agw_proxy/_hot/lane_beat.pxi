# Part of lane.pyx: heartbeats, while a stream's client waits for its first token; as ``edge.heartbeat`` has them.
#
# Each connection has one deadline for them on the wheel, beside its own, so that no event of a stream looks at it.
# A stream's beginning puts it off, which is one store as long as the slot of one before stands in the wheel. When it
# comes up and the answer has content, or can be no stream any more, it is not set again.

cdef bytes BEAT_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
    b"Transfer-Encoding: chunked\r\n"
)


@cython.final
cdef class Beat(Timed):
    """When the client of a stream hears next that somebody is there."""

    def __cinit__(self, Downstream owner not None):
        self.owner = owner

    cdef int expired(self, uint64_t now) except -1:
        return beat(self.owner, now)

    cdef int drop(self) except -1:
        return self.owner.drop()


cdef int expect_token(Downstream d) except -1:
    """A request goes out: its client hears of us after so long, where its form has heartbeats."""
    if not d.wants_stream or d.way.door.ping is None or not d.policy.ping_ns:
        return 0
    if d.beat is None:
        d.beat = Beat.__new__(Beat, d)
    return plan_beat(d, d.lane.now)


cdef int beat(Downstream d, uint64_t now) except -1:
    """The client has heard nothing for so long. What may become another answer than a stream is not begun as one."""
    cdef uint64_t since = now
    cdef bint may = not d.queued
    if not d.running or d.state >= TAIL or (d.state == HOLD and not (d.streaming and d.status == 200)):
        return 0
    if d.state == RELAY:
        if d.stream is None or d.stream.content:
            return 0
        may = may and (d.begun or d.beaten) and d.stream.at_boundary
        if now < d.progress + d.policy.ping_ns:
            since = d.progress      # it has heard of the upstream
            may = False
    elif d.state == REFUSED:
        may = may and d.beaten                      # the real status is nearly here
    if may:
        say_beat(d, now)
    if d.beat is None:              # the client has turned out to be gone
        return 0
    return plan_beat(d, since)


cdef inline int plan_beat(Downstream d, uint64_t since) except -1:
    """The next one. Those of many connections share a slot of the wheel: each is late by a 64th of its time at most."""
    return d.lane.wheel.arm(d.beat, (since + d.policy.ping_ns) | d.policy.ping_late)


cdef int say_beat(Downstream d, uint64_t now) except -1:
    """Write one; the first of an answer begins it, with a head of our own: nothing is known of an upstream's."""
    cdef iovec parts[MAX_PIECES]
    cdef bytes ping = d.way.door.ping
    cdef Py_ssize_t size = PyBytes_GET_SIZE(ping), total = 0
    cdef Lane lane = d.lane
    cdef Pen pen = pen_of(lane)
    cdef unsigned char[20] line
    cdef int digits = chunk_line(line, size), used, i
    cdef int64_t waited = d.upstream_ns
    if not d.beaten and not d.begun:
        put_bytes(&pen, BEAT_HEAD)
        d.upstream_ns = now - d.dialed_at       # it is no time of the gateway's
        end_head(d, &pen)
        d.upstream_ns = waited
        d.head_at = 0
    if d.beaten or not d.begun:
        d.beaten = now
    used = piece(&parts[0], lane.page, pen.at - lane.page)
    used += piece(&parts[used], &line[digits], 20 - digits)
    used += piece(&parts[used], <const unsigned char *>PyBytes_AS_STRING(ping), size)
    used += piece(&parts[used], LAST_CHUNK, 2)
    for i in range(used):
        total += parts[i].iov_len
    return d.send(parts, used, total)


cdef int no_stream(Downstream d) except -1:
    """What comes cannot go on from a heartbeat. It has been made and paid for: nobody is asked for it again."""
    error = d.lane.shell.error("no_stream", d.way.origin.name, "")
    error.retryable = False
    leave_attempt(d)
    return give_up(d, error)
