# Part of lane.pyx: answers that the full lane keeps in memory, given again without it.
#
# The full lane decides which requests are the same, and what is kept; here is only which *bytes* it has seen before: of
# this caller, to this target, with these headers that count and this body. All of them are the key, none a digest of
# them: nothing can be forged that is not the same request. Key, model and limits are asked as for every request.

cdef bytes NEVER = b"\0"        # the caller has a say about the cache, which the full lane hears


cdef int note_cache(Downstream d, const Name *known, const unsigned char *value, Py_ssize_t size) except -1:
    """A header that an answer may depend on, or that is about the cache; as ``edge.canonical.varying`` writes them."""
    if known.which == CACHE_WAY:
        d.varies = NEVER
    elif d.varies is not NEVER:
        name = PyBytes_FromStringAndSize(<const char *>known.text, known.size)
        d.varies = (d.varies or b"") + name + b":" + PyBytes_FromStringAndSize(<const char *>value, size) + b"\n"
    return 0


cdef bytes key_of(
    uint64_t subject, const unsigned char *target, Py_ssize_t target_size, bytes varies, const unsigned char *body,
    Py_ssize_t size,
):
    """Caller and sizes in front, so that no two requests give the same bytes."""
    cdef Py_ssize_t varies_size = PyBytes_GET_SIZE(varies) if varies is not None else 0
    cdef bytes key = PyBytes_FromStringAndSize(NULL, 16 + target_size + varies_size + size)
    cdef unsigned char *at = <unsigned char *>PyBytes_AS_STRING(key)
    cdef uint32_t[2] sizes
    sizes[0], sizes[1] = <uint32_t>target_size, <uint32_t>varies_size
    memcpy(at, &subject, 8)
    memcpy(at + 8, sizes, 8)
    memcpy(at + 16, target, target_size)
    if varies_size:
        memcpy(at + 16 + target_size, PyBytes_AS_STRING(varies), varies_size)
    memcpy(at + 16 + target_size + varies_size, body, size)
    return key


@cython.final
cdef class Kept:
    """A kept answer under the bytes of one request that it answers. Made by ``Lane.keep``."""

    def drop(self):
        """It is given no more."""
        if self.lane.answers.get(self.key) is self:
            del self.lane.answers[self.key]

    @property
    def current(self):
        """It stands under the policy in force: after a reload the full lane has to decide anew."""
        return self.policy is self.lane.policy and self.lane.answers.get(self.key) is self

    @property
    def size(self):
        """Bytes, beside those of the answer itself."""
        return PyBytes_GET_SIZE(self.key) + PyBytes_GET_SIZE(self.head) + KEPT_BYTES


cdef Kept keep_answer(
    Lane lane, state, uint64_t subject, bytes target, bytes varies, bytes body, bytes head, bytes answer, bint stream,
    int64_t made, double due
):
    cdef Kept kept
    if lane.policy.state is not state or lane.policy.why is not None:
        return None
    if PyBytes_GET_SIZE(body) > MAX_KEPT_REQUEST or PyBytes_GET_SIZE(answer) > MAX_KEPT_ANSWER:
        return None
    kept = Kept.__new__(Kept)
    kept.lane = lane
    kept.policy = lane.policy
    kept.key = key_of(
        subject, <const unsigned char *>PyBytes_AS_STRING(target), PyBytes_GET_SIZE(target), varies or None,
        <const unsigned char *>PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
    kept.head = head
    kept.answer = answer
    kept.stream = stream
    kept.made = made
    kept.due = <uint64_t>(due * 1e9)
    lane.answers[kept.key] = kept
    return kept


cdef Kept find_kept(Downstream d, const unsigned char *text, RequestHead *head):
    """The answer to these very bytes, None where the full lane has to look.

    Requests with others behind them are left to it, so that no chain of answers is given by recursion, and at one go.
    """
    cdef Kept kept
    cdef PyObject *known
    if d.varies is NEVER or not d.lane.answers or pipelined(d):
        return None
    key = key_of(
        d.caller.subject, text + head.target_at, head.target_size, d.varies, text + head.size, head.content_length)
    known = PyDict_GetItemWithError(d.lane.answers, key)
    if known == NULL:
        return None
    kept = <Kept>known
    return kept if kept.policy is d.policy and d.lane.now < kept.due else None


cdef void free_of_charge(Downstream d, Ask *ask) noexcept:
    """No upstream is asked: it counts as a request, and takes no tokens and no money."""
    memset(&d.estimate, 0, sizeof(Estimate))
    ask.subjects[AT_UPSTREAM] = 0
    ask.input = ask.output = ask.cost = 0


cdef int answer_kept(Downstream d) except -1:
    """Give it: one write, and the account of an exchange that asked no upstream."""
    cdef Lane lane = d.lane
    cdef Kept kept = d.kept
    cdef Pen pen = pen_of(lane)
    cdef iovec parts[MAX_PIECES]
    cdef int used, i
    cdef Py_ssize_t size = PyBytes_GET_SIZE(kept.answer), total = 0
    cdef int64_t own
    cdef unsigned char[20] line
    d.kept = None
    kept.used = True
    if d.request_id is None:
        d.request_id = new_id(lane)
    if d.address is None:
        d.address = lane.shell.address(d.transport) or ""
    lane.now = now_ns()
    own = max(<int64_t>(lane.now - d.started) - d.body_wait, 0)
    put_bytes(&pen, b"Server: agw\r\nx-request-id: ")
    put_bytes(&pen, d.request_id)
    if d.door.dialect == "anthropic":
        put_bytes(&pen, b"\r\nrequest-id: ")
        put_bytes(&pen, d.request_id)
    put_milliseconds(&pen, b"\r\nServer-Timing: auth;dur=", d.auth_ns)
    put_milliseconds(&pen, b", limit;dur=", d.limit_ns)
    put_milliseconds(&pen, b", own;dur=", own)
    put_bytes(&pen, b"\r\nx-agw-cache: hit\r\nage: ")
    put_number(&pen, (wall_ns(lane, lane.now) - kept.made) // 1000000000)
    put_bytes(&pen, b"\r\n")
    put_limits(&pen, lane, d.grant, d.door.anthropic)
    put_bytes(&pen, b"X-Content-Type-Options: nosniff\r\n")
    put_bytes(&pen, date_line(lane))
    if closing(d):
        d.close_after = True
        put_bytes(&pen, b"Connection: close\r\n")
    put_bytes(&pen, b"\r\n")
    used = piece(&parts[0], <const unsigned char *>PyBytes_AS_STRING(kept.head), PyBytes_GET_SIZE(kept.head))
    used += piece(&parts[used], lane.page, pen.at - lane.page)
    if kept.stream and size:
        i = chunk_line(line, size)
        used += piece(&parts[used], &line[i], 20 - i)
    used += piece(&parts[used], <const unsigned char *>PyBytes_AS_STRING(kept.answer), size)
    if kept.stream:
        used += piece(&parts[used], LAST_CHUNK if size else LAST_CHUNK + 2, 7 if size else 5)
    for i in range(used):
        total += parts[i].iov_len
    if d.grant.crossings:
        lane.shell.crossed(d.grant, d.caller.principal, d.user)
    d.grant.leave()
    d.grant = None
    forget_request(d)
    account_kept(d, own, size)
    d.send(parts, used, total)
    return next_request(d)


cdef int chunk_line(unsigned char *line, Py_ssize_t size) noexcept nogil:
    """The line before a chunk into the end of 20 bytes; gives where it begins."""
    cdef int digits = 18
    line[18], line[19] = 13, 10
    while size:
        digits -= 1
        line[digits] = HEX[size & 15]
        size >>= 4
    return digits


cdef int account_kept(Downstream d, int64_t own, Py_ssize_t size) except -1:
    """Count it, and write its Receipt: no upstream, no attempt, no tokens."""
    cdef Lane lane = d.lane
    cdef Meter meter = lane.meter
    cdef Way way = d.way
    cdef int64_t duration = <int64_t>(lane.now - d.started)
    if not way.counts_hits:
        way.counts_hits = True
        labels = (way.door.name, way.model_label, "none", "200", "fast")
        way.h_hits = meter.series("agw_requests_total", labels)
        way.h_hit_seconds = meter.series("agw_request_seconds", labels)
    meter.add_(way.h_hits, 1)
    meter.observe_(way.h_hit_seconds, rounded(duration))
    meter.observe_(lane.h_overhead, own // 1000)
    lane.begun += 1
    meter.add_(lane.h_taken, 1)
    meter.add_(lane.h_cache_hits, 1)
    count_hit(d)
    if not lane.writes_receipts:
        return 0
    return put_receipt(lane, lane.receipt(
        "request", stamp(lane, lane.now), d.request_id.decode(), way.door.name, "POST", 200, "fast", "ok",
        rounded(duration) / 1000.0, own // 1000, d.caller.name, d.user, d.channel, d.trace_id, way.route.name,
        way.route.label, stream=bool(d.seen.stream), bytes_out=size, peer=d.address or None, cache="hit", cost=0,
        team=d.caller.team_name, session=session_text(d),
    ))
