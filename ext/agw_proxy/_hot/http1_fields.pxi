# Part of http1.pyx: what a head means, weighed field by field. False: refused, and ``walk`` says why.

# Fields that one head has at most once: two of them would be two readings (RFC 9110 section 5.3).
cdef enum Once:
    SEEN_HOST = 1, SEEN_LENGTH = 2, SEEN_CODING = 4, SEEN_TYPE = 8, SEEN_AUTHORIZATION = 16, SEEN_AGENT = 32
    SEEN_ETAG = 64, SEEN_SERVER = 128, SEEN_FORWARDS = 256, SEEN_RANGE = 512, SEEN_LOCATION = 1024, SEEN_EXPECT = 2048

cdef struct Seen:
    unsigned int once       # of Once
    int unusual             # the first Reason to hand over, 0: none
    bint absolute           # the target has its own authority
    bint closes             # Connection says close
    bint keeps              # Connection says keep-alive


cdef inline void note(Seen *seen, int reason) noexcept nogil:
    if seen.unusual == NO_REASON:
        seen.unusual = reason


cdef inline bint refuse(Walk *walk, int reason, const unsigned char *at) noexcept nogil:
    walk.reason = reason
    walk.at = at
    return False


cdef void clear_request(RequestHead *head, Seen *seen) noexcept nogil:
    head.method_size = head.target_at = head.target_size = head.path_size = 0
    head.minor = 1
    head.content_length = -1
    head.chunked = head.has_body = head.close = head.expect = False
    head.host = head.content_type = head.content_encoding = head.connection = -1
    head.count = 0
    seen.once = 0
    seen.unusual = NO_REASON
    seen.absolute = seen.closes = seen.keeps = False


cdef void clear_response(ResponseHead *head, Seen *seen) noexcept nogil:
    head.status = 0
    head.minor = 1
    head.content_length = -1
    head.chunked = head.close = False
    head.content_type = head.connection = -1
    head.count = 0
    seen.once = 0
    seen.unusual = NO_REASON
    seen.absolute = seen.closes = seen.keeps = False


cdef inline const unsigned char *next_element(
    const unsigned char *p, const unsigned char *end, Piece *element
) noexcept nogil:
    """The list element at ``p`` without the white space around it, maybe empty (RFC 9110 section 5.6.1.2)."""
    cdef const void *comma = memchr(p, b",", end - p)
    cdef const unsigned char *stop = <const unsigned char *>comma if comma != NULL else end
    cdef const unsigned char *after = stop + 1 if comma != NULL else end
    while p < stop and is_blank(p[0]):
        p += 1
    while stop > p and is_blank((stop - 1)[0]):
        stop -= 1
    element.at = p
    element.size = stop - p
    return after


# -- targets and hosts

cdef bint is_address(const unsigned char *p, Py_ssize_t size) noexcept nogil:
    """An IPv6 address, without a zone (RFC 3986 section 3.2.2)."""
    cdef char text[46]
    cdef unsigned char address[16]
    if size < 2 or size >= <Py_ssize_t>sizeof(text):
        return False
    memcpy(text, p, size)
    text[size] = 0
    return inet_pton(AF_INET6, text, address) == 1


cdef bint is_authority(const unsigned char *p, const unsigned char *end, bint *empty) noexcept nogil:
    """``uri-host [":" port]`` without user information (RFC 9110 section 7.2); ``empty``: the host has no character."""
    cdef const unsigned char *start = p
    cdef const void *bracket
    cdef int port = 0
    if p < end and p[0] == b"[":
        bracket = memchr(p, b"]", end - p)
        if bracket == NULL or not is_address(p + 1, <const unsigned char *>bracket - p - 1):
            return False
        p = <const unsigned char *>bracket + 1
    else:
        while p < end and CLASSES[p[0]] & NAMED:
            if p[0] == b"%" and (end - p < 3 or not (CLASSES[p[1]] & CLASSES[p[2]] & HEX)):
                return False
            p += 1
    empty[0] = p == start
    if p == end:
        return True
    if p[0] != b":" or end - p > 6:
        return False
    p += 1
    while p < end:
        if not b"0" <= p[0] <= b"9":
            return False
        port = port * 10 + p[0] - 0x30
        p += 1
    return port <= 65535


cdef bint weigh_target(Walk *walk, RequestHead *head, Seen *seen) noexcept nogil:
    """The four forms of a target (RFC 9112 section 3.2); only origin-form is for us."""
    cdef const unsigned char *target = walk.text + head.target_at
    cdef const unsigned char *end = target + head.target_size
    cdef const void *mark = memchr(target, b"?", head.target_size)
    head.path_size = <uint32_t>(<const unsigned char *>mark - target) if mark != NULL else head.target_size
    if head.method_size == 7 and memcmp(walk.text, <const char *>b"CONNECT", 7) == 0:
        return refuse(walk, CONNECT_REFUSED, walk.text)
    if head.minor == 0:
        note(seen, HTTP_1_0)
    if target[0] == b"/":
        return True
    if head.target_size == 1 and target[0] == b"*":
        if head.method_size != 7 or memcmp(walk.text, <const char *>b"OPTIONS", 7) != 0:
            return refuse(walk, BAD_TARGET, target)
        note(seen, ASTERISK_FORM)
        return True
    return weigh_absolute(walk, target, end, seen)


cdef bint weigh_absolute(
    Walk *walk, const unsigned char *target, const unsigned char *end, Seen *seen
) noexcept nogil:
    """``http`` or ``https``, ``://``, an authority with a host and without user information (RFC 9110 section 4.2)."""
    cdef const unsigned char *p = target
    cdef const unsigned char *stop
    cdef bint empty = False
    if end - p > 7 and same(p, b"http://", 7):
        p += 7
    elif end - p > 8 and same(p, b"https://", 8):
        p += 8
    else:
        return refuse(walk, BAD_TARGET, target)
    stop = p
    while stop < end and stop[0] != b"/" and stop[0] != b"?":
        stop += 1
    if memchr(p, b"@", stop - p) != NULL:
        return refuse(walk, USERINFO, p)
    if not is_authority(p, stop, &empty) or empty:
        return refuse(walk, BAD_TARGET, p)
    seen.absolute = True
    note(seen, ABSOLUTE_FORM)
    return True


# -- framing

cdef bint weigh_length(
    Walk *walk, const unsigned char *p, Py_ssize_t size, Seen *seen, int64_t *length
) noexcept nogil:
    """Content-Length: digits, once, below 2^63, without a Transfer-Encoding (RFC 9112 section 6.3)."""
    cdef const unsigned char *end = p + size
    cdef uint64_t value = 0
    if seen.once & SEEN_LENGTH:
        return refuse(walk, REPEATED_FIELD, walk.line)
    if seen.once & SEEN_CODING:
        return refuse(walk, LENGTH_AND_CODING, walk.line)
    seen.once |= SEEN_LENGTH
    if not 0 < size <= 19:              # 19 digits fit 64 bits
        return refuse(walk, BAD_LENGTH, p)
    while p < end:
        if not b"0" <= p[0] <= b"9":
            return refuse(walk, BAD_LENGTH, p)
        value = value * 10 + (p[0] - 0x30)
        p += 1
    if value >> 63:
        return refuse(walk, BAD_LENGTH, p - size)
    length[0] = <int64_t>value
    return True


cdef bint weigh_coding(Walk *walk, const unsigned char *p, Py_ssize_t size, Seen *seen, int minor) noexcept nogil:
    """Transfer-Encoding: ``chunked`` alone, once, and in HTTP/1.1 (RFC 9112 section 6.1)."""
    cdef const unsigned char *end = p + size
    cdef const unsigned char *next_at
    cdef Piece coding
    cdef bint others = False, last = False
    if seen.once & SEEN_CODING:
        return refuse(walk, REPEATED_FIELD, walk.line)
    if seen.once & SEEN_LENGTH:
        return refuse(walk, LENGTH_AND_CODING, walk.line)
    if minor == 0:
        return refuse(walk, CODING_IN_1_0, walk.line)
    seen.once |= SEEN_CODING
    if size == 7 and same(p, b"chunked", 7):
        return True
    next_at = p
    while next_at < end:
        next_at = next_element(next_at, end, &coding)
        # chunked twice or before another one, an element that does not begin with a token
        if last or coding.size == 0 or not CLASSES[coding.at[0]] & TOKEN:
            return refuse(walk, BAD_CODING, p)
        last = coding.size == 7 and same(coding.at, b"chunked", 7)
        others = others or not last
    return refuse(walk, UNKNOWN_CODING if last and others else BAD_CODING, p)


cdef bint weigh_connection(Walk *walk, const unsigned char *p, Py_ssize_t size, Seen *seen) noexcept nogil:
    """Connection: tokens (RFC 9110 section 7.6.1). One ``close`` or ``keep-alive`` is usual, all else is not."""
    cdef const unsigned char *end = p + size
    cdef Piece option
    if size == 10 and same(p, b"keep-alive", 10):
        seen.keeps = True
        return True
    if size == 5 and same(p, b"close", 5):
        seen.closes = True
        return True
    note(seen, CONNECTION_OPTION)
    while p < end:
        p = next_element(p, end, &option)
        if skip(option.at, option.at + option.size, TOKEN) != option.at + option.size:
            return refuse(walk, BAD_CONNECTION, option.at)
        if option.size == 10 and same(option.at, b"keep-alive", 10):
            seen.keeps = True
        elif option.size == 5 and same(option.at, b"close", 5):
            seen.closes = True
    return True


# -- fields

cdef inline bint once(Walk *walk, Seen *seen, unsigned int which) noexcept nogil:
    if seen.once & which:
        return refuse(walk, REPEATED_FIELD, walk.line)
    seen.once |= which
    return True


cdef bint weigh_request_field(Walk *walk, RequestHead *head, Seen *seen) noexcept nogil:
    """The newest field; most are none of ours."""
    cdef const Field *field = &head.fields[head.count - 1]
    cdef const unsigned char *name = walk.text + field.name_at
    cdef const unsigned char *value = walk.text + field.value_at
    cdef Py_ssize_t size = field.value_size
    cdef bint empty = False
    cdef uint32_t length = field.name_size
    if length == 4:
        if same(name, b"host", 4):
            if not is_authority(value, value + size, &empty):
                return refuse(walk, BAD_HOST, value)
            if empty:
                note(seen, EMPTY_HOST)
            head.host = head.count - 1
            return once(walk, seen, SEEN_HOST)
        if same(name, b"etag", 4):
            return once(walk, seen, SEEN_ETAG)
    elif length == 10:
        if same(name, b"connection", 10):
            if head.connection >= 0:
                note(seen, CONNECTION_OPTION)
            else:
                head.connection = head.count - 1
            return weigh_connection(walk, value, size, seen)
        if same(name, b"user-agent", 10):
            return once(walk, seen, SEEN_AGENT)
    elif length == 12:
        if same(name, b"content-type", 12):
            head.content_type = head.count - 1
            return once(walk, seen, SEEN_TYPE)
        if same(name, b"max-forwards", 12):
            return once(walk, seen, SEEN_FORWARDS)
    elif length == 13:
        if same(name, b"authorization", 13):
            return once(walk, seen, SEEN_AUTHORIZATION)
        if same(name, b"content-range", 13):
            return once(walk, seen, SEEN_RANGE)
    elif length == 14:
        if same(name, b"content-length", 14):
            return weigh_length(walk, value, size, seen, &head.content_length)
    elif length == 16:
        if same(name, b"content-encoding", 16):
            if head.content_encoding >= 0:
                note(seen, SEVERAL_CODINGS)
            else:
                head.content_encoding = head.count - 1
        elif same(name, b"proxy-connection", 16):   # RFC 9112 appendix C.2.2: none of HTTP/1.1, but some obey it
            note(seen, CONNECTION_OPTION)
        elif same(name, b"content-location", 16):
            return once(walk, seen, SEEN_LOCATION)
    elif length == 17:
        if same(name, b"transfer-encoding", 17):
            if not weigh_coding(walk, value, size, seen, head.minor):
                return False
            head.chunked = True
            note(seen, CHUNKED_BODY)
    elif length == 6:
        if same(name, b"expect", 6):
            if size != 12 or not same(value, b"100-continue", 12):
                return refuse(walk, UNKNOWN_EXPECTATION, value)
            head.expect = head.minor == 1       # RFC 9110 section 10.1.1: ignored in HTTP/1.0
            note(seen, CONTINUE_EXPECTED)
            return once(walk, seen, SEEN_EXPECT)
        if same(name, b"server", 6):
            return once(walk, seen, SEEN_SERVER)
    elif length == 7:
        if same(name, b"upgrade", 7):
            note(seen, UPGRADE_OFFERED)
        elif same(name, b"trailer", 7):
            note(seen, TRAILERS_OFFERED)
    elif length == 2:
        if same(name, b"te", 2):
            note(seen, TRAILERS_OFFERED)
    elif length == 18:
        if same(name, b"sec-websocket-key1", 18):   # a draft of WebSocket with a body that no header announces
            note(seen, UPGRADE_OFFERED)
    return True


cdef bint weigh_request(Walk *walk, RequestHead *head, Seen *seen) noexcept nogil:
    """The whole head."""
    if head.minor == 1 and head.host < 0:
        return refuse(walk, NO_HOST, walk.at)
    head.close = seen.closes or (head.minor == 0 and not seen.keeps)
    head.has_body = head.chunked or head.content_length > 0
    return True


cdef bint weigh_response_field(Walk *walk, ResponseHead *head, Seen *seen) noexcept nogil:
    """The newest field; of an upstream only the framing is weighed."""
    cdef const Field *field = &head.fields[head.count - 1]
    cdef const unsigned char *name = walk.text + field.name_at
    cdef const unsigned char *value = walk.text + field.value_at
    cdef Py_ssize_t size = field.value_size
    cdef uint32_t length = field.name_size
    if length == 10:
        if same(name, b"connection", 10):
            if head.connection < 0:
                head.connection = head.count - 1
            seen.closes = seen.closes or has_token(value, size, b"close", 5)
            seen.keeps = seen.keeps or has_token(value, size, b"keep-alive", 10)
    elif length == 12:
        if head.content_type < 0 and same(name, b"content-type", 12):
            head.content_type = head.count - 1
    elif length == 14:
        if same(name, b"content-length", 14):
            return weigh_length(walk, value, size, seen, &head.content_length)
    elif length == 17:
        if same(name, b"transfer-encoding", 17):
            if not weigh_coding(walk, value, size, seen, head.minor):
                return False
            head.chunked = True
    return True
