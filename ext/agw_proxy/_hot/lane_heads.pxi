# Part of lane.pyx: heads, read by name and put together in scratch memory.

cdef extern from "string.h" nogil:
    void *memmem(const void *text, size_t size, const void *sought, size_t sought_size)

cdef enum Flag:
    KEPT = 1        # of a request: stays on this side of the gateway
    SAFE = 2        # of an answer: goes to the client
    LIMIT = 4       # of an answer: likewise, unless a limit of ours says more
    READ = 8        # of a request: `which` says what it is to us

cdef enum Which:
    NOTHING, USER_ID, CHANNEL_ID, REQUEST_ID, TRACE_PARENT, OWN_WAY, SESSION_ID, ORDER_KEY, CACHE_WAY, VARIES


cdef inline uint32_t name_hash(const unsigned char *name, Py_ssize_t size) noexcept nogil:
    """Of the name's beginning, end and length, in lower case: enough to tell the few names that we know from others."""
    cdef uint32_t head = 0, tail = 0
    cdef Py_ssize_t i
    if size >= 4:
        memcpy(&head, name, 4)
        memcpy(&tail, name + size - 4, 4)
    else:
        for i in range(size):
            head = head << 8 | name[i]
    head |= 0x20202020
    tail |= 0x20202020
    head = (head ^ <uint32_t>size * <uint32_t>0x9E3779B1) * <uint32_t>0x85EBCA77
    return (head ^ (head >> 15) ^ tail) * <uint32_t>0xC2B2AE3D >> 7


@cython.final
cdef class Names:
    """Header names that mean something to the gateway. ``kept``, ``safe``: whole names in lower case.

    ``kept_prefixes``: beginnings of names that are kept, too; each begins with a letter.
    """

    def __cinit__(self, kept not None, safe not None, safe_prefixes not None, kept_prefixes=()):
        flags = {}
        for name in kept:
            flags[name] = flags.get(name, 0) | KEPT
        for name in safe:
            flags[name] = flags.get(name, 0) | SAFE
        which = {
            b"x-user-id": USER_ID, b"x-channel-id": CHANNEL_ID, b"x-request-id": REQUEST_ID,
            b"traceparent": TRACE_PARENT, b"x-agw-timeout": OWN_WAY, b"x-session-id": SESSION_ID,
            b"idempotency-key": ORDER_KEY, b"cache-control": CACHE_WAY, b"x-agw-cache": CACHE_WAY,
            b"anthropic-version": VARIES, b"anthropic-beta": VARIES, b"openai-beta": VARIES,
            b"x-goog-fieldmask": VARIES,
        }
        for name in which:
            flags[name] = flags.get(name, 0) | READ
        self.safe_prefixes = tuple(safe_prefixes)
        for prefix in kept_prefixes:
            self._add_prefix(prefix)
        for name, flag in flags.items():
            self._add(name, flag, which.get(name, NOTHING))

    def _add(self, bytes name not None, int flags, int which):
        cdef uint32_t mark = name_hash(<const unsigned char *>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
        cdef int slot = mark & (NAME_SLOTS - 1)
        if not 0 < PyBytes_GET_SIZE(name) <= NAME_BYTES or name != name.lower():
            raise ValueError(f"expected a lower-case header name of at most {NAME_BYTES} bytes, got {name!r}")
        while self.slots[slot].size:
            slot = (slot + 1) & (NAME_SLOTS - 1)
        self.slots[slot].hash = mark
        self.slots[slot].size = <unsigned char>PyBytes_GET_SIZE(name)
        self.slots[slot].flags = <unsigned char>flags
        self.slots[slot].which = <unsigned char>which
        memcpy(self.slots[slot].text, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))

    def _add_prefix(self, bytes prefix not None):
        cdef Py_ssize_t size = PyBytes_GET_SIZE(prefix)
        if not 0 < size <= NAME_BYTES or prefix != prefix.lower() or not prefix[:1].isalpha():
            raise ValueError(f"expected the beginning of a header name in lower case, got {prefix!r}")
        if self.prefixes == KEPT_PREFIXES:
            raise ValueError(f"expected at most {KEPT_PREFIXES} prefixes")
        self.kept_prefixes[self.prefixes].size = <unsigned char>size
        memcpy(self.kept_prefixes[self.prefixes].text, PyBytes_AS_STRING(prefix), size)
        self.prefixes += 1
        self.initials |= <uint32_t>1 << (prefix[0] & 31)

    cdef const Name *find(self, const unsigned char *name, Py_ssize_t size) noexcept nogil:
        cdef uint32_t mark = name_hash(name, size)
        cdef int slot = mark & (NAME_SLOTS - 1)
        cdef const Name *found
        while True:
            found = &self.slots[slot]
            if found.size == 0:
                return NULL
            if found.hash == mark and name_is(name, size, <const char *>found.text, found.size):
                return found
            slot = (slot + 1) & (NAME_SLOTS - 1)


# -- a pen: it never writes beyond its page, and says so

cdef const char *PAIRS = (          # 00 to 99: a number is written two digits at a time
    "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899"
)


cdef extern from *:
    """
    static inline int agw_digits_of(uint64_t number) {
        static const uint64_t tens[] = {
            0, 10ull, 100ull, 1000ull, 10000ull, 100000ull, 1000000ull, 10000000ull, 100000000ull, 1000000000ull,
            10000000000ull, 100000000000ull, 1000000000000ull, 10000000000000ull, 100000000000000ull,
            1000000000000000ull, 10000000000000000ull, 100000000000000000ull, 1000000000000000000ull,
            10000000000000000000ull,
        };
        /* 1233 / 4096 is the decimal logarithm of 2, near enough: right, or one too many. */
        int guess = ((64 - __builtin_clzll(number | 1)) * 1233) >> 12;
        return guess + (number >= tens[guess]);
    }
    """
    int digits_of "agw_digits_of"(uint64_t number) noexcept nogil


cdef inline void put(Pen *pen, const void *data, Py_ssize_t size) noexcept nogil:
    if pen.end - pen.at < size:
        pen.overflow = True
        return
    memcpy(pen.at, data, size)
    pen.at += size


cdef inline void put_bytes(Pen *pen, bytes data):
    put(pen, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef inline void put_number(Pen *pen, int64_t number) noexcept nogil:
    if 0 <= number < 10 and pen.at < pen.end:
        pen.at[0] = <unsigned char>(48 + number)
        pen.at += 1
    else:
        put_digits(pen, number)


cdef void put_digits(Pen *pen, int64_t number) noexcept nogil:
    """From its end, once it is known how long it is."""
    cdef uint64_t left = <uint64_t>number if number > 0 else 0, rest
    cdef int size = digits_of(left)
    cdef unsigned char *at = pen.at + size
    if pen.end - pen.at < size:
        pen.overflow = True
        return
    pen.at = at
    while left >= 100:
        rest = left
        left //= 100
        at -= 2
        memcpy(at, PAIRS + 2 * (rest - left * 100), 2)
    if left >= 10:
        memcpy(at - 2, PAIRS + 2 * left, 2)
    else:
        (at - 1)[0] = <unsigned char>(48 + left)


cdef void put_thousandths(Pen *pen, int64_t number, bint trim) noexcept nogil:
    """``number``/1000 with three decimals; ``trim``: without zeroes at the end."""
    cdef unsigned char[4] tail
    cdef int64_t rest = number % 1000
    cdef int size = 4
    put_number(pen, number // 1000)
    tail[0] = b"."
    tail[1] = <unsigned char>(48 + rest // 100)
    tail[2] = <unsigned char>(48 + rest // 10 % 10)
    tail[3] = <unsigned char>(48 + rest % 10)
    if trim:
        while size > 1 and tail[size - 1] == 48:
            size -= 1
        if size == 1:
            return
    put(pen, tail, size)


cdef void put_duration(Pen *pen, int64_t nanoseconds) noexcept nogil:
    """As ``policy.limits.duration`` writes it: 2m30s, 1.5s, 120ms; rounded up to whole milliseconds."""
    cdef int64_t ms = (max(nanoseconds, 0) + 999999) // 1000000
    cdef int64_t hours, minutes
    if ms < 1000:
        put_number(pen, ms)
        put(pen, <const char *>b"ms", 2)
        return
    hours = ms // 3600000
    ms %= 3600000
    minutes = ms // 60000
    ms %= 60000
    if hours:
        put_number(pen, hours)
        put(pen, <const char *>b"h", 1)
    if minutes:
        put_number(pen, minutes)
        put(pen, <const char *>b"m", 1)
    if ms:
        put_thousandths(pen, ms, True)
        put(pen, <const char *>b"s", 1)


cdef int put_limits(Pen *pen, Lane lane, Grant grant, bint anthropic) except -1:
    """``x-ratelimit-*`` of the tightest rule in requests and in tokens, as ``policy.limits.limit_headers``."""
    if grant.requests_limit >= 0:
        put_amount(pen, <Rule>grant.limits.rules[grant.requests_rule], b"requests")
        put_number(pen, grant.requests_remaining)
        put(pen, <const char *>b"\r\nx-ratelimit-reset-requests: ", 30)
        put_duration(pen, grant.requests_reset_ns)
        put(pen, <const char *>b"\r\n", 2)
    if grant.tokens_limit >= 0:
        put_amount(pen, <Rule>grant.limits.rules[grant.tokens_rule], b"tokens")
        put_number(pen, grant.tokens_remaining)
        put(pen, <const char *>b"\r\nx-ratelimit-reset-tokens: ", 28)
        put_duration(pen, grant.tokens_reset_ns)
        put(pen, <const char *>b"\r\n", 2)
    if anthropic:
        put_kind(pen, lane, b"requests", grant.requests_limit, grant.requests_remaining, grant.requests_reset_ns)
        put_kind(pen, lane, b"tokens", grant.tokens_limit, grant.tokens_remaining, grant.tokens_reset_ns)
        put_kind(
            pen, lane, b"input-tokens", grant.input_tokens_limit, grant.input_tokens_remaining,
            grant.input_tokens_reset_ns)
        put_kind(
            pen, lane, b"output-tokens", grant.output_tokens_limit, grant.output_tokens_remaining,
            grant.output_tokens_reset_ns)
    return 0


cdef int put_amount(Pen *pen, Rule rule, bytes kind) except -1:
    """What all answers under a rule have in common: its amount, and the name of what follows. Made once a rule."""
    if rule.line is None:
        rule.line = b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: " % (kind, rule.terms.amount, kind)
    put_bytes(pen, rule.line)
    return 0


cdef int put_kind(
    Pen *pen, Lane lane, bytes kind, int64_t limit, int64_t remaining, int64_t reset
) except -1:
    """``anthropic-ratelimit-*``; nothing where no rule counts that."""
    if limit < 0:
        return 0
    put_name(pen, kind)
    put(pen, <const char *>b"-limit: ", 8)
    put_number(pen, limit)
    put(pen, <const char *>b"\r\n", 2)
    put_name(pen, kind)
    put(pen, <const char *>b"-remaining: ", 12)
    put_number(pen, remaining)
    put(pen, <const char *>b"\r\n", 2)
    put_name(pen, kind)
    put(pen, <const char *>b"-reset: ", 8)
    put_moment(pen, wall_ns(lane, lane.now) + max(reset, 0))
    put(pen, <const char *>b"\r\n", 2)
    return 0


cdef inline void put_name(Pen *pen, bytes kind):
    put(pen, <const char *>b"anthropic-ratelimit-", 20)
    put_bytes(pen, kind)


cdef void put_moment(Pen *pen, int64_t wall) noexcept nogil:
    """RFC 3339 in UTC, rounded up to a whole second (days from the civil calendar, whose years begin in March)."""
    cdef int64_t seconds = (wall + 999999999) // 1000000000
    cdef int64_t days = seconds // 86400 + 719468, rest = seconds % 86400
    cdef int64_t era = days // 146097, of_era = days - era * 146097
    cdef int64_t year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    cdef int64_t of_year = of_era - (365 * year + year // 4 - year // 100)
    cdef int64_t month = (5 * of_year + 2) // 153
    cdef int64_t day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year += era * 400 + (1 if month <= 2 else 0)
    put_number(pen, year)
    put_two(pen, b"-", month)
    put_two(pen, b"-", day)
    put_two(pen, b"T", rest // 3600)
    put_two(pen, b":", rest // 60 % 60)
    put_two(pen, b":", rest % 60)
    put(pen, <const char *>b"Z", 1)


cdef void put_two(Pen *pen, unsigned char before, int64_t number) noexcept nogil:
    cdef unsigned char[3] text
    text[0] = before
    text[1], text[2] = <unsigned char>(48 + number // 10), <unsigned char>(48 + number % 10)
    put(pen, text, 3)


cdef void put_milliseconds(Pen *pen, bytes name, int64_t nanoseconds):
    put_bytes(pen, name)
    put_thousandths(pen, max(nanoseconds, 0) // 1000, False)


cdef int put_answer_fields(
    Pen *pen, Lane lane, const unsigned char *text, ResponseHead *head, bint limited, bint stream
) except -1:
    """The upstream's safe headers, by name."""
    cdef const unsigned char *name
    cdef const unsigned char *value
    cdef const Name *known
    cdef Py_ssize_t i
    cdef bint safe
    for i in range(head.count):
        name = text + head.fields[i].name_at
        known = lane.names.find(name, head.fields[i].name_size)
        safe = known != NULL and known.flags & SAFE
        if not safe and ((name[0] | 0x20) == b"x" or (name[0] | 0x20) == b"a"):
            safe = has_safe_prefix(lane, name, head.fields[i].name_size, limited)
        if not safe:
            continue
        if head.connection >= 0 and named_by_connection(text, head, name, head.fields[i].name_size):
            continue
        if stream and name_is(name, head.fields[i].name_size, "cache-control", 13):
            continue
        value = text + head.fields[i].value_at
        if not readable(value, head.fields[i].value_size):
            continue
        put(pen, name, head.fields[i].name_size)
        put(pen, <const char *>b": ", 2)
        put(pen, value, head.fields[i].value_size)
        put(pen, <const char *>b"\r\n", 2)
    return 0


cdef bint named_by_connection(
    const unsigned char *text, ResponseHead *head, const unsigned char *name, Py_ssize_t size
) noexcept nogil:
    """A Connection field makes this one hop-by-hop (RFC 9110 section 7.6.1)."""
    cdef char[NAME_BYTES] lower
    cdef int i
    cdef Py_ssize_t at
    if size > NAME_BYTES:
        return False
    for at in range(size):
        lower[at] = <char>(name[at] | 0x20 if b"A" <= name[at] <= b"Z" else name[at])
    for i in range(head.connection, head.count):
        if name_is(text + head.fields[i].name_at, head.fields[i].name_size, "connection", 10):
            if has_token(text + head.fields[i].value_at, head.fields[i].value_size, lower, size):
                return True
    return False


cdef bint has_safe_prefix(Lane lane, const unsigned char *name, Py_ssize_t size, bint limited) except -1:
    cdef bytes prefix
    cdef Py_ssize_t length
    if size > 11 and name_is(name, 12, "x-ratelimit-", 12):
        return not limited
    if limited and size > 19 and name_is(name, 20, "anthropic-ratelimit-", 20):
        return False
    for item in lane.names.safe_prefixes:
        prefix = <bytes>item
        length = PyBytes_GET_SIZE(prefix)
        if size >= length and name_is(name, length, PyBytes_AS_STRING(prefix), length):
            return True
    return False


cdef bint readable(const unsigned char *value, Py_ssize_t size) except -1:
    """UTF-8, or nothing that a client could read."""
    cdef Py_ssize_t i
    for i in range(size):
        if value[i] >= 0x80:
            try:
                PyUnicode_DecodeUTF8(<const char *>value, size, NULL)
            except UnicodeDecodeError:
                return False
            return True
    return True


cdef int put_request_fields(Pen *pen, Lane lane, Origin origin, const unsigned char *text, RequestHead *head) except -1:
    """The caller's headers without what stays here (``lane.flags`` tells); lines in a row go in one copy."""
    cdef const unsigned char *run = NULL
    cdef const unsigned char *name
    cdef const unsigned char *line_end
    cdef Py_ssize_t i, size
    for i in range(head.count):
        name = text + head.fields[i].name_at
        size = head.fields[i].name_size
        if (
            lane.flags[i] & KEPT
            or (lane.names.initials >> (name[0] & 31) & 1 and kept_by_prefix(lane.names, name, size))
            or (origin.overridden and PyBytes_FromStringAndSize(<const char *>name, size).lower() in origin.overridden)
        ):
            if run != NULL:
                put(pen, run, name - run)
                run = NULL
        elif run == NULL:
            run = name
    if run != NULL:
        line_end = text + head.size - 2
        put(pen, run, line_end - run)
    return 0


cdef bint kept_by_prefix(Names names, const unsigned char *name, Py_ssize_t size) noexcept nogil:
    cdef const Name *prefix
    cdef int i
    for i in range(names.prefixes):
        prefix = &names.kept_prefixes[i]
        if size >= prefix.size and name_is(name, prefix.size, <const char *>prefix.text, prefix.size):
            return True
    return False
