# Part of lane.pyx: a request as its bytes come in, up to the decision.

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
