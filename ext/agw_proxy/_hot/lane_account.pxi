# Part of lane.pyx: the end of an exchange. It is settled once, counted once, and ends in one Receipt.

cdef enum:
    MAX_RING = 4096             # Receipts that wait to be encoded
    BATCH = 32                  # encoded at once: some 20 us, which no other request notices


cdef double BATCH_SECONDS = 0.005   # the longest that one waits for others


cdef int settle(Downstream d) except -1:
    """The truth in place of the estimate: reported usage, else what went out, else the estimate."""
    return settle_as(d, SERVED)


cdef int settle_as(Downstream d, int how) except -1:
    cdef long long prompt = -1, completion = -1, cached = -1
    cdef Way way = d.way
    if d.settled or d.grant is None:
        return 0
    d.settled = True
    if d.caller.counts & (COUNTS_TOKENS | COUNTS_COST) and not way.door.counts_only:
        read_usage(d, &prompt, &completion, &cached)
        settle_(
            d.grant, how, &d.estimate, way.learner, way.tariff, prompt, completion, cached, d.content, d.bytes_out,
            d.lane.now)
    elif how == UNSERVED:
        d.grant.undo(d.lane.now)
    else:
        d.grant.true_up(0, 0, 0, d.lane.now)
    return 0


cdef int ending(Downstream d, object error) noexcept:
    """How an exchange has ended, for whoever pays for it: SERVED, PARTED or UNSERVED."""
    if error is None or d.complete:
        return SERVED
    return PARTED if d.asked_at else UNSERVED


cdef int read_usage(Downstream d, long long *prompt, long long *completion, long long *cached) except -1:
    if d.stream is not None:
        prompt[0], completion[0], cached[0] = d.stream.prompt_tokens, d.stream.completion_tokens, d.stream.cached_tokens
    elif d.document is not None:
        d.document.usage(prompt, completion, cached)
    return 0


cdef int finish(Downstream d) except -1:
    """All of the answer is on its way to the client."""
    d.peer = None
    account(d, reported(d))
    quit_lane(d)
    d.grant = None
    return next_request(d)


cdef object reported(Downstream d):
    """An error where the upstream has ended its answer as a failed one, else None."""
    if d.stream is not None and d.stream.failed:
        return d.lane.shell.error("reported", d.way.origin.name, "")
    return None


cdef int abandon(Downstream d) except -1:
    """The client has gone: the upstream is not kept at it."""
    stop_asking(d)
    account(d, reported(d) if d.complete else d.lane.shell.error("gone", "", ""))
    quit_lane(d)
    d.grant = None
    return 0


cdef int judged(Downstream d, object error) except -1:
    """Tell the target's circuit how the attempt has ended. ``error``: None for an answer, or for an end of our own."""
    cdef Circuit circuit = d.circuit
    cdef int how = GOOD
    if circuit is None:
        return 0
    d.circuit = None
    if error is not None:
        how = d.lane.shell.judged(
            circuit, error, len(d.way.route.targets) + len(d.way.route.fallbacks) > 1)
    elif not d.complete:
        how = NEITHER
    circuit.end_(now_ns(), how, d.begun_as, d.upstream_ns if d.begun else -1)
    return 0


cdef int answered(Downstream d) except -1:
    """Bytes are good to pass on. A probe has seen enough: a long stream does not keep its circuit half open.

    Where places follow what the upstream can do, they hear of it.
    """
    cdef Circuit circuit = d.circuit
    if circuit is not None and d.begun_as == PROBE:
        d.circuit = None
        circuit.end_(d.progress, GOOD, PROBE, d.upstream_ns)
    if d.placed and d.way.origin.places.follower is not None:
        d.way.origin.places.follower.answered(d.lane.now, d.upstream_ns)
    return 0


cdef int leave_place(Downstream d) except -1:
    """Its place at the upstream is free."""
    if d.placed:
        d.placed = False
        d.way.origin.places.give()
    return 0


cdef int quit_lane(Downstream d) except -1:
    """The exchange is no longer this lane's. What it holds of the buckets goes with ``grant``."""
    if d.running:
        d.running = False
        leave_place(d)
        d.lane.active -= 1
        d.lane.meter.add_(d.lane.h_active, -1)
        if d.stream_counted:
            d.stream_counted = False
            d.lane.meter.add_(d.lane.h_streams, -1)
    d.stream = None
    d.document = None
    d.answer_head = None
    d.stalled = 0
    if d.beat is not None:
        d.beat.due = 0
    release(&d.hold)
    return 0


cdef int end_early(Downstream d) except -1:
    """The gateway shuts down and waits no longer."""
    if d.state == BODY:
        leave_body(d)
        forget_request(d)
        release(&d.inbox)
        return linger(d, <bytes?>d.lane.shell.refuse(d, 503, "draining", "", d.started))
    if d.state == TAIL:
        stop_asking(d)
        return end_tail(d)
    if d.state >= RELAY:
        return break_off(d, d.lane.shell.error("draining", "", ""), None)
    return give_up(d, None)


cdef int leave_if_idle(Downstream d) except -1:
    """A connection without a request closes when the gateway drains."""
    if d.state == HEAD and d.inbox.size == 0:
        return shut(d)
    return 0


cdef int account(Downstream d, object error) except -1:
    """Count the exchange and write its Receipt. ``error``: a GatewayError, or None for one that went well."""
    cdef Lane lane = d.lane
    cdef Meter meter = lane.meter
    cdef Way way = d.way
    cdef uint64_t now = now_ns()
    cdef int64_t duration = <int64_t>(now - d.started)
    cdef int64_t own, gap = -1, ttft = -1
    cdef long long prompt = -1, completion = -1, cached = -1
    cdef long long usage[4]
    cdef Spent spent
    settle_as(d, ending(d, error))
    if d.grant.crossings:
        lane.shell.crossed(d.grant, d.caller.principal, d.user)
    judged(d, error)
    d.grant.leave()
    read_usage(d, &prompt, &completion, &cached)
    own = <int64_t>((d.head_at or now) - d.started) - d.body_wait - (d.upstream_ns or <int64_t>(now - d.dialed_at))
    own = max(own, 0)
    if d.first_token:
        ttft = <int64_t>(d.first_token - d.started)
        if d.content > 1:
            gap = <int64_t>(d.last_token - d.first_token) // (d.content - 1)
    if error is None and d.status == 200 and not d.replayed:
        meter.add_(way.h_requests, 1)
        meter.observe_(way.h_seconds, rounded(duration))
        meter.observe_(lane.h_overhead, own // 1000)
        meter.add_(lane.h_taken, 1)
        meter.add_(way.h_attempt, 1)
        charge(d, SERVED, prompt, cached, completion, &spent)
        count_usage(d, cached, &spent)
        if ttft >= 0:
            meter.observe_(way.h_ttft, rounded(ttft))
        if gap >= 0:
            meter.observe_(way.h_gap, rounded(gap))
        if way.door.operation is not None:
            meter.observe_(way.h_operation, rounded(duration))
        if prompt >= 0:
            meter.add_(way.h_in, prompt)
            if way.door.operation is not None:
                meter.observe_(way.h_in_use, prompt)
        if completion >= 0:
            meter.add_(way.h_out, completion)
            if way.door.operation is not None:
                meter.observe_(way.h_out_use, completion)
        if way.origin.health.state == "up":
            way.origin.health.requests += 1
        else:
            way.origin.health.worked()
        if not lane.writes_receipts:
            return 0
        if lane.writes_lines:
            usage[0], usage[1], usage[2], usage[3] = prompt, completion, cached, spent.cost
            if write_line(d, now, duration, own, ttft, gap, usage):
                return hand_out_soon(lane, lane.line_count)
    if d.model is None:
        d.model = way.route.name
    trail = way.trail
    if d.status != 200 or d.replayed:
        trail = lane.shell.trail(way.target.name, way.origin.name, d.status, bool(d.replayed))
    charge(d, ending(d, error), prompt, cached, completion, &spent)
    receipt = lane.receipt(
        "request", stamp(lane, now), d.request_id.decode(), way.door.name, "POST",
        answer_status(d, error), "fast",
        "ok" if error is None else error.code,
        rounded(duration) / 1000.0, own // 1000, d.caller.name, d.user, d.channel, d.trace_id, d.model, way.route.label,
        way.origin.name if trail else "none", way.target.name if trail else None, len(trail), trail,
        bool(d.wants_stream),
        rounded(ttft) / 1000.0 if ttft >= 0 else None, rounded(gap) / 1000.0 if gap >= 0 else None,
        finish_reason(d), prompt, completion, cached, d.bytes_out, None, d.address or None,
        None if error is None else error.message, None,
        spent.cost,
        d.caller.team_name, session_text(d),
    )
    if error is not None or d.status != 200 or d.replayed:
        lane.shell.count(receipt, spent.input, spent.output)
        if not lane.writes_receipts:
            return 0
    return put_receipt(lane, receipt)


cdef int answer_status(Downstream d, object error) except -1:
    """What the client has been told, or was to be."""
    if d.beaten:
        return 200                  # the heartbeats' own; an upstream's may have come after them
    return d.status if d.begun or error is None else error.status


cdef int put_receipt(Lane lane, object receipt) except -1:
    """It waits for the log, in its turn."""
    if len(lane.ring) >= MAX_RING:
        lane.shell.dropped("receipt")
        return 0
    if lane.line_count:
        lane.hand_out()
    lane.ring.append(receipt)
    return hand_out_soon(lane, len(lane.ring))


cdef str session_text(Downstream d):
    """As ``edge.exchange.session_text`` has it."""
    return "%08x" % (d.session_subject >> 32) if d.session_subject else None


cdef int hand_out_soon(Lane lane, Py_ssize_t waiting) except -1:
    """``waiting``: Receipts or lines for the log."""
    if waiting >= BATCH:
        lane.hand_out()
    elif not lane.emptying:
        lane.emptying = True
        lane.loop.call_later(BATCH_SECONDS, lane.empty)
    return 0


cdef str stamp(Lane lane, uint64_t now):
    cdef unsigned char[24] text
    stamp_into(lane, now, text)
    return PyUnicode_DecodeASCII(<const char *>text, 24, NULL)


cdef int stamp_into(Lane lane, uint64_t now, unsigned char *text) except -1:
    """UTC in RFC 3339 with milliseconds, 24 characters."""
    cdef int64_t wall = wall_ns(lane, now), second = wall // 1000000000
    cdef int ms = <int>(wall // 1000000 - second * 1000)
    if second != lane.stamp_second:
        lane.stamp_second = second
        lane.stamp_text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
    memcpy(text, PyBytes_AS_STRING(lane.stamp_text), 20)
    text[20], text[21], text[22], text[23] = 48 + ms // 100, 48 + ms // 10 % 10, 48 + ms % 10, b"Z"
    return 0


cdef inline int64_t rounded(int64_t nanoseconds) noexcept nogil:
    """Whole microseconds."""
    return (nanoseconds + 500) // 1000


cdef object finish_reason(Downstream d):
    if d.stream is not None:
        return d.stream.finish_reason
    return d.document.finish_reason if d.document is not None else None


cdef bytes lane_attempts(Downstream d):
    """The header that tells of more than one attempt."""
    trail = d.lane.shell.trail(d.way.target.name, d.way.origin.name, d.status, True)
    return b"x-agw-attempts: " + d.lane.shell.attempts(trail) + b"\r\n"


cdef object carry(Downstream d, object error):
    """What the full lane needs to go on where this lane stops, see ``edge.exchange.Carried``."""
    if d.request_id is None:
        d.request_id = new_id(d.lane)
    return d.lane.shell.carried(
        error, d.policy.state, d.caller.principal, d.grant, d.request_id.decode(), d.started, d.seed, d.auth_ns,
        d.limit_ns, d.body_wait + d.upstream_ns, d.connect_ms,
        (d.estimate.raw, d.estimate.prompt, d.estimate.output, d.estimate.cost, d.estimate.extra,
         d.estimate.size),
        bool(d.running and d.replayed), d.way.target if d.running else None, d.beaten if d.running else 0,
    )
