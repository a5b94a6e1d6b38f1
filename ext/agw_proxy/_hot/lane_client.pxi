# Part of lane.pyx: a client's connection up to the decision.

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
        if not self.lane.shell.opened(self):
            shut(self)
            return
        self.lane.wheel.arm(self, now_ns() + self.lane.policy.head_ns)

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
                read_request(self, self.inbox.data, self.inbox.size, None)
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
        forget_request(self)
        release(&self.inbox)
        self.lane.shell.closed(self)
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

    def write(self, bytes data not None):
        """Of aiohttp's answer."""
        if self.transport is not None:
            self.handed += PyBytes_GET_SIZE(data)
            self.send_bytes(data)

    def close(self):
        """aiohttp ends the connection after what it has written."""
        if self.state != CLOSED and self.transport is not None:
            if self.state == FULL and not self.fed:
                linger(self, b"")
            else:
                shut(self)

    def abort(self):
        """At once, without what waits to be written."""
        if self.transport is not None:
            self.transport.abort()

    def hold_reading(self, bint held):
        """aiohttp takes no more of the body at the moment (or does again)."""
        self.handler_holds = held
        update_reading(self)

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


STATES = ("head", "body", "dial", "wait", "hold", "refused", "relay", "tail", "full", "linger", "closed")


cdef int read_request(Downstream d, const unsigned char *data, Py_ssize_t size, bytes owner) except -1:
    """A request begins in these bytes: of ``owner``, or of the inbox."""
    cdef Lane lane = d.lane
    cdef Policy policy = lane.policy
    cdef RequestHead *head = &lane.request
    cdef Door door = None
    cdef str reason
    cdef Py_ssize_t total
    if d.scanned == 0 and size >= 2 and data[0] == b"\r" and data[1] == b"\n":
        data += 2                   # one empty line before a request is passed over (RFC 9112 section 2.2)
        size -= 2
        if size == 0:
            d.inbox.size = 0
            return 0
        if owner is None:
            consume(d, 2)
            data = d.inbox.data
    elif d.scanned == 0 and size == 1 and data[0] == b"\r":
        if owner is not None:
            append(&d.inbox, data, size)
        return 0
    head.scanned = d.scanned
    parse_request(data, size, &lane.limits, head)
    if head.verdict == MORE:
        if not d.head_begun:
            d.head_begun = True
            lane.wheel.arm(d, now_ns() + policy.head_ns)
        d.scanned = head.scanned
        if owner is not None:
            append(&d.inbox, data, size)
        return 0
    d.scanned = 0
    d.head_begun = False
    d.started = lane.now = now_ns()
    d.door = None
    d.caller = None
    if head.verdict == REFUSE:
        return refuse(d, head.reason)
    if head.verdict == HAND_OVER:
        return hand_over(d, word_of(head.reason), head, data, size, owner)
    reason = None
    if policy.why is not None:
        reason = policy.why
    elif lane.draining:
        reason = "draining"
    elif lane.shedding:
        reason = "overloaded"
    elif head.method_size != 4 or memcmp(data, <const char *>b"POST", 4) != 0:
        if is_prompt(d, data, size, head):
            return answer_prompt(d, data, head, owner)
        reason = "endpoint"
    else:
        door = door_of(policy, data, head)
        if door is None:
            reason = "endpoint"
        elif head.content_length <= 0:
            reason = "no_body"
        elif head.content_length > MAX_FAST_BODY:
            reason = "body_size"
        elif lane.held + head.content_length > lane.max_held:
            reason = "bodies_full"
    if reason is not None:
        return hand_over(d, reason, head, data, size, owner)
    d.door = door
    d.close_after = head.close
    d.head_size = head.size
    total = head.size + head.content_length
    d.request_size = total
    d.counted = total
    lane.held += total
    if size >= total:
        if owner is not None:
            d.own = owner
            d.own_at = data - <const unsigned char *>PyBytes_AS_STRING(owner)
            if size > total:
                append(&d.inbox, data + total, size - total)
        d.body_wait = 0
        return judge(d, head)
    # Who it is comes before what they want: nobody unknown gets to send a body.
    d.policy = policy
    reason = read_fields(d, data, head)
    if reason is not None:
        return hand_over(d, reason, head, data, size, owner)
    enter_body(d)
    if owner is not None:
        append(&d.inbox, data, size)
    lane.wheel.arm(d, d.started + policy.body_ns)
    return 0


cdef Door door_of(Policy policy, const unsigned char *data, RequestHead *head):
    """The endpoint of a head with method POST; None where it is not for the lane."""
    cdef Door door = policy.doors.get(PyBytes_FromStringAndSize(<const char *>data + head.target_at, head.path_size))
    if door is None and policy.google is not None and generates(data + head.target_at, head.path_size):
        return policy.google
    return door


cdef bint is_prompt(Downstream d, const unsigned char *data, Py_ssize_t size, RequestHead *head) except -1:
    """The Shell has the answer, whoever asks; nothing else comes with the request, nor behind it."""
    if size != head.size or head.chunked or head.content_length > 0 or head.method_size > 4:
        return False
    if head.path_size != head.target_size or head.target_at != head.method_size + 1:
        return False
    return PyBytes_FromStringAndSize(<const char *>data, head.target_at + head.target_size) in d.lane.prompt


cdef int answer_prompt(Downstream d, const unsigned char *data, RequestHead *head, bytes owner) except -1:
    """No upstream is asked, and aiohttp not needed."""
    cdef bytes asked = PyBytes_FromStringAndSize(<const char *>data, head.size)
    cdef bytes answer = <bytes?>d.lane.shell.answer(d, asked, d.started, head.close != 0)
    d.close_after = head.close
    d.request_size = 0 if owner is not None else head.size
    if not d.send_bytes(answer):
        return 0
    return next_request(d)


cdef int enter_body(Downstream d) except -1:
    d.state = BODY
    d.lane.reading += 1
    return 0


cdef int leave_body(Downstream d) except -1:
    """A body is whole, or never will be."""
    d.lane.reading -= 1
    return 0


cdef int decide(Downstream d) except -1:
    """The rest of the body is here: the head is read again, since its fields were kept nowhere."""
    cdef RequestHead *head = &d.lane.request
    head.scanned = 0
    parse_request(d.inbox.data, d.inbox.size, &d.lane.limits, head)
    d.body_wait = now_ns() - d.started
    leave_body(d)
    if d.policy is not d.lane.policy:       # reloaded meanwhile: the door has the old numbers of upstreams
        d.door = door_of(d.lane.policy, d.inbox.data, head)
        reason = d.lane.policy.why if d.door is not None else "endpoint"
        if reason is not None:
            return hand_over(d, reason, head, d.inbox.data, d.inbox.size, None)
    return judge(d, head)


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
    if d.close_after or d.lane.draining:
        return shut(d)
    d.state = HEAD
    d.scanned = 0
    d.handler_holds = False
    d.pipeline_full = d.inbox.size > MAX_PIPELINED
    update_reading(d)
    d.lane.wheel.arm(d, d.lane.now + (policy.write_ns if d.queued else policy.idle_ns))
    if d.inbox.size and d.state == HEAD and not d.queued:
        read_request(d, d.inbox.data, d.inbox.size, None)
    return 0


cdef int keep_pipelined(Downstream d, const unsigned char *data, Py_ssize_t size) except -1:
    """Bytes behind the request in process, up to a bound; beyond it the client is not read."""
    append(&d.inbox, data, size)
    d.pipeline_full = d.inbox.size - (0 if d.own is not None else d.request_size) > MAX_PIPELINED
    return update_reading(d)


cdef int update_reading(Downstream d) except -1:
    """Read the client unless what it has sent already is too much; a client that is not read is looked after."""
    cdef bint held = d.pipeline_full or d.handler_holds
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
