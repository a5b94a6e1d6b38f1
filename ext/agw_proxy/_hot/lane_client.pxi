# Part of lane.pyx: a client's connection, between the loop's transport and the two lanes.

@cython.final
cdef class Downstream(Wire):
    """One client connection: a strict reader of heads in front of both lanes."""

    def __cinit__(self, Lane lane not None):
        self.lane = lane
        self.last_index = -1

    def __dealloc__(self):
        release(&self.inbox)
        release(&self.hold)

    def connection_made(self, transport):
        self.attach(transport)
        self.lane.connections.add(self)
        if self.visit is None and not self.lane.shell.opened(self):
            shut(self)
            return
        self.lane.wheel.arm(self, now_ns() + self.lane.policy.head_ns)
        if self.rest is not None:       # a visitor's request, before anything that came behind it
            rest, self.rest = self.rest, None
            self.data_received(rest)

    def data_received(self, bytes data not None):
        cdef const unsigned char *at = <const unsigned char *>PyBytes_AS_STRING(data)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        if self.state == HEAD:
            if self.queued:
                keep_pipelined(self, at, size)
            elif self.inbox.size:
                append(&self.inbox, at, size)
                read_request(self, self.inbox.data, self.inbox.size, None)
            else:
                read_request(self, at, size, data)
        elif self.state == BODY:
            append(&self.inbox, at, size)
            if self.inbox.size >= self.request_size:
                decide(self)
        elif self.state == FULL:
            feed_handler(self, at, size, data, 0)
        elif self.state == LINGER:
            self.body_left -= size
            if self.body_left < 0:
                shut(self)
        elif self.state != CLOSED:
            keep_pipelined(self, at, size)

    def eof_received(self):
        return None                 # a client that has closed its side counts as gone

    def pause_writing(self):
        self.queued = True
        if self.state == FULL:
            expect_reading(self)
            self.handler.pause_writing()

    def resume_writing(self):
        self.queued = False
        if self.state == FULL:
            self.due = 0
            self.handler.resume_writing()
        elif self.state == HEAD:
            self.lane.now = now_ns()
            self.lane.wheel.arm(self, self.lane.now + self.lane.policy.idle_ns)
            if self.inbox.size:
                read_next(self)
        elif self.peer is not None:
            self.lane.now = now_ns()
            if self.stalled and self.state != TAIL:
                self.progress = self.lane.now       # the upstream could not be heard: its silence begins here
            self.stalled = 0
            hold_answer(self.peer, False)
            plan_deadline(self)

    def connection_lost(self, exc):
        cdef int state = self.state
        self.state = CLOSED
        self.transport = None
        self.fd = -1
        self.lane.wheel.leave(self)
        if self.beat is not None:
            self.lane.wheel.leave(self.beat)
            self.beat = None        # they hold each other
        self.lane.connections.discard(self)
        if self.running:
            abandon(self)
        elif state == BODY:
            leave_body(self)
            self.lane.shell.left(self, self.started)
        elif state == AWAY:
            self.lane.away -= 1
            self.lane.lender.lost(self)
        forget_request(self)
        release(&self.inbox)
        if self.visit is None:
            self.lane.shell.closed(self)
        else:
            end_visit(self, exc)
        if self.handler is not None:
            handler, self.handler = self.handler, None
            handler.connection_lost(exc)

    cdef int expired(self, uint64_t now) except -1:
        return client_expired(self, now)

    # -- for the Shell: what the full lane does with this connection

    @property
    def state_name(self):
        """What it is at, for logs and tests."""
        return STATES[self.state]

    @property
    def endpoint(self):
        """The endpoint that a request has reached, None before that."""
        return self.door.name if self.door is not None else None

    @property
    def dialect(self):
        """In which it wants to be answered."""
        return self.door.dialect if self.door is not None else "openai"

    @property
    def told(self):
        """(request id or None, user, channel, trace id) of that request, as far as its head said."""
        if self.door is None:
            return None, None, None, None
        return None if self.request_id is None else self.request_id.decode(), self.user, self.channel, self.trace_id

    @property
    def began(self):
        """When the request's head was there, in monotonic nanoseconds."""
        return self.started

    @property
    def principal(self):
        """Who sends the request, None where that is not known yet."""
        return self.caller.principal if self.caller is not None else None

    @property
    def closes(self):
        """The connection ends with the answer to the request in hand."""
        return bool(closing(self))

    def write(self, bytes data not None):
        """Of aiohttp's answer."""
        if self.transport is not None:
            touch(self)
            self.handed += PyBytes_GET_SIZE(data)
            self.send_bytes(data)

    def close(self):
        """aiohttp, or the worker that had it, ends the connection after what it has written."""
        if self.state != CLOSED and self.transport is not None:
            if self.state == AWAY:
                self.lane.away -= 1         # what inherits a descriptor of it there is not to keep it open
                linger(self, b"")
            elif self.state == FULL and not self.fed:
                linger(self, b"")
            else:
                shut(self)

    def abort(self):
        """At once, without what waits to be written."""
        self.rest = None
        if self.transport is not None:
            self.transport.abort()

    def hold_reading(self, bint held):
        """aiohttp takes no more of the body at the moment (or does again)."""
        self.handler_holds = held
        update_reading(self)

    def came_back(self, bytes rest not None):
        """Another worker had the connection, and has answered. ``rest``: what it has read beyond the request."""
        if self.state == AWAY:
            append(&self.inbox, <const unsigned char *>PyBytes_AS_STRING(rest), PyBytes_GET_SIZE(rest))
            come_home(self)

    def answer_instead(self, bytes answer not None):
        """Another worker had the connection, and never will answer: this is the answer."""
        if self.state == AWAY and self.send_bytes(answer):
            come_home(self)

    def answered(self):
        """aiohttp has answered, and keeps the connection: back to the lane once all of the request has been read."""
        if self.state == FULL:
            self.lane.now = now_ns()
            self.was_answered = True
            if self.fed:
                next_request(self)

    def upgraded(self):
        """aiohttp has switched protocols: all bytes are its own from now on, those too that are here already."""
        cdef bytes early
        if self.state == FULL:
            self.tunnel = True
            self.pipeline_full = False
            if self.inbox.size:
                early = PyBytes_FromStringAndSize(<const char *>self.inbox.data, self.inbox.size)
                release(&self.inbox)
                self.handler.data_received(early)
            update_reading(self)

    def dialed(self, serial, Peer peer not None):
        """The connection that was asked for is here; it may come too late."""
        if self.state == DIAL and self.serial == <uint64_t>serial:
            self.dialing = None
            self.lane.now = now_ns()
            if peer.gone:
                answer_missing(self, peer)
            else:
                ask(self, peer, NULL)
        else:
            give_idle(peer.origin, peer)

    def dial_failed(self, serial, error):
        """``error``: an UpstreamError."""
        if self.state == DIAL and self.serial == <uint64_t>serial:
            self.dialing = None
            give_up(self, error)


STATES = ("head", "body", "dial", "wait", "hold", "refused", "relay", "tail", "full", "away", "linger", "closed")


cdef inline const unsigned char *text_of(Downstream d) noexcept:
    """The first byte of the request in hand."""
    if d.own is not None:
        return <const unsigned char *>PyBytes_AS_STRING(d.own) + d.own_at
    return d.inbox.data


cdef int consume(Downstream d, Py_ssize_t size) except -1:
    """Drop bytes at the inbox' beginning; an empty inbox costs no memory."""
    if size >= d.inbox.size:
        release(&d.inbox)
    elif size:
        d.inbox.size -= size
        memmove(d.inbox.data, d.inbox.data + size, d.inbox.size)
    return 0


cdef int forget_request(Downstream d) except -1:
    """The request's bytes are not needed any more."""
    if d.counted:
        d.lane.held -= d.counted
        d.counted = 0
    if d.own is not None:
        d.own = None
    elif d.request_size:
        consume(d, d.request_size)
    d.request_size = 0
    return 0


cdef int next_request(Downstream d) except -1:
    """The connection waits for a request again, or has one already."""
    cdef Policy policy = d.lane.policy
    forget_request(d)
    d.carried = None
    d.was_answered = False
    if d.state == CLOSED or d.transport is None:
        return 0
    if d.visit is not None and not d.close_after:
        return go_home(d)
    if d.close_after or d.lane.draining:
        return shut(d)
    d.state = HEAD
    d.scanned = 0
    d.handler_holds = False
    d.pipeline_full = d.inbox.size > MAX_PIPELINED
    update_reading(d)
    d.lane.wheel.arm(d, d.lane.now + (policy.write_ns if d.queued else policy.idle_ns))
    if d.inbox.size and d.state == HEAD and not d.queued:
        read_next(d)
    return 0


cdef int read_next(Downstream d) except -1:
    """The next request is in the inbox, or a part of it: then the client is read on, however much that part is."""
    read_request(d, d.inbox.data, d.inbox.size, None)
    if d.pipeline_full and not d.queued and (d.state == HEAD or d.state == BODY):
        d.pipeline_full = False
        update_reading(d)
    return 0


cdef int keep_pipelined(Downstream d, const unsigned char *data, Py_ssize_t size) except -1:
    """Bytes behind the request in process, up to a bound; beyond it the client is not read."""
    append(&d.inbox, data, size)
    d.pipeline_full = d.inbox.size - (0 if d.own is not None else d.request_size) > MAX_PIPELINED
    return update_reading(d)


cdef int update_reading(Downstream d) except -1:
    """Read the client unless what it has sent already is too much; a client that is not read is looked after."""
    cdef bint held = d.pipeline_full or d.handler_holds or d.state == AWAY
    if d.pipeline_full and not d.watched:
        d.watched = True
        d.lane.shell.watch(d)
    if held != d.reading_held and d.transport is not None:
        d.reading_held = held
        if held:
            d.transport.pause_reading()
        else:
            d.transport.resume_reading()
    return 0
