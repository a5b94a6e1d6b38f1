# Part of lane.pyx: requests in Google's form, whose path says model and stream; read as ``edge.gemini`` reads them.
#
# Policy looks at a body with these members in front of the caller's own: the very bytes that the full lane makes. The
# upstream gets the caller's body, and a path made anew. What is spelt in an unusual way is the full lane's to read.

cdef enum:
    MODEL_BYTES = 1024          # of a model's name, decoded; a longer one has no route anyway
    FRONT_BYTES = 128           # room for what stands in front of a body beside the model's name
    MAX_BETA = 15               # of "/v1beta/models/"
    MAX_STABLE = 11             # of "/v1/models/"
    ONCE = 16                   # of ":generateContent"
    STREAMED = 22               # of ":streamGenerateContent"
    LEAST_KEY = 8               # bytes: no key is as short

# What a path of theirs says.
cdef struct Wanted:
    unsigned char[MODEL_BYTES] model
    Py_ssize_t size
    const unsigned char *verb           # with its colon
    Py_ssize_t verb_size
    bint stream


cdef inline Py_ssize_t before_model(const unsigned char *path, Py_ssize_t size) noexcept nogil:
    """How many bytes stand before the model's name; 0 for another path."""
    if size > MAX_BETA and memcmp(path, <const char *>b"/v1beta/models/", MAX_BETA) == 0:
        return MAX_BETA
    if size > MAX_STABLE and memcmp(path, <const char *>b"/v1/models/", MAX_STABLE) == 0:
        return MAX_STABLE
    return 0


cdef inline Py_ssize_t verb_size(const unsigned char *path, Py_ssize_t size) noexcept nogil:
    """Of the verb that a path ends in, with its colon; 0 where that is none of a generation."""
    if size > ONCE and memcmp(path + size - ONCE, <const char *>b":generateContent", ONCE) == 0:
        return ONCE
    if size > STREAMED and memcmp(path + size - STREAMED, <const char *>b":streamGenerateContent", STREAMED) == 0:
        return STREAMED
    return 0


cdef bint generates(const unsigned char *path, Py_ssize_t size) noexcept nogil:
    """A path of a generation: /v1beta/models/MODEL:generateContent or the stream of it, also beneath /v1."""
    return before_model(path, size) > 0 and verb_size(path, size) > 0


cdef int hex_of(unsigned char c) noexcept nogil:
    """-1 for what is no hexadecimal digit."""
    if b"0" <= c <= b"9":
        return c - 0x30
    c |= 0x20
    return c - 0x61 + 10 if b"a" <= c <= b"f" else -1


cdef bint read_path(const unsigned char *path, Py_ssize_t size, Wanted *wanted) noexcept nogil:
    """The model with its escapes undone, and the verb.

    False where the name has other characters than JSON takes as they are, a semicolon (some take it and what follows
    for no part of a segment), or an empty or a dot segment.
    """
    cdef const unsigned char *p = path + before_model(path, size)
    cdef const unsigned char *end
    cdef Py_ssize_t segment = 0         # where the last one begins, of the decoded name
    cdef int c
    wanted.verb_size = verb_size(path, size)
    wanted.verb = end = path + size - wanted.verb_size
    wanted.stream = wanted.verb_size == STREAMED
    wanted.size = 0
    while p < end:
        c = p[0]
        p += 1
        if c == b"%":
            if end - p < 2 or hex_of(p[0]) < 0 or hex_of(p[1]) < 0:
                return False
            c = hex_of(p[0]) << 4 | hex_of(p[1])
            p += 2
        if not 0x20 < c < 0x7F or c == b'"' or c == b"\\" or c == b";" or wanted.size == MODEL_BYTES:
            return False
        if c == b"/":
            if odd_segment(wanted, segment):
                return False
            segment = wanted.size + 1
        wanted.model[wanted.size] = <unsigned char>c
        wanted.size += 1
    return not odd_segment(wanted, segment)


cdef inline bint odd_segment(const Wanted *wanted, Py_ssize_t start) noexcept nogil:
    """What has been read from ``start`` on is nothing, or dots."""
    cdef Py_ssize_t size = wanted.size - start
    if size <= 0:
        return True
    return size <= 2 and wanted.model[start] == b"." and wanted.model[wanted.size - 1] == b"."


cdef inline const unsigned char *field_end(const unsigned char *p, const unsigned char *end) noexcept nogil:
    cdef const unsigned char *found = <const unsigned char *>memchr(p, b"&", end - p) if p < end else NULL
    return found if found != NULL else end


cdef Py_ssize_t field_name(const unsigned char *p, const unsigned char *end) noexcept nogil:
    """The size of a field's name; -1 where it is written with escapes."""
    cdef const unsigned char *start = p
    while p < end and p[0] != b"=":
        if p[0] == b"%" or p[0] == b"+":
            return -1
        p += 1
    return p - start


cdef bint plain_query(const unsigned char *p, Py_ssize_t size, bint stream) noexcept nogil:
    """No empty fields, names without escapes; and of a stream one ``alt`` alone, which says ``sse``.

    ``p``: behind the question mark.
    """
    cdef const unsigned char *end = p + size
    cdef const unsigned char *after
    cdef Py_ssize_t name
    cdef int alts = 0
    while size > 0:
        after = field_end(p, end)
        name = field_name(p, after)
        if name < 0 or after == p:
            return False
        if stream and name == 3 and memcmp(p, <const char *>b"alt", 3) == 0:
            if after - p != 7 or memcmp(p, <const char *>b"alt=sse", 7) != 0:
                return False
            alts += 1
        if after == end:
            break
        p = after + 1
    return not stream or alts == 1


cdef bint holds_key(const unsigned char *name, Py_ssize_t size) noexcept nogil:
    """A field of the query with a key of the caller's; as ``upstreams.opening.KEYS_IN_QUERY``."""
    if size == 3:
        return memcmp(name, <const char *>b"key", 3) == 0
    if size == 11:
        return memcmp(name, <const char *>b"oauth_token", 11) == 0
    return size == 12 and memcmp(name, <const char *>b"access_token", 12) == 0


cdef bint queried(Downstream d, const unsigned char *text, const RequestHead *head, const Span *key) except -1:
    """A key of the gateway's stands in the query too, from where it must not go on: the caller's, or a field's value.

    As ``edge.raw.without_keys``, which takes it out.
    """
    cdef const unsigned char *p = text + head.target_at + head.path_size
    cdef const unsigned char *end = text + head.target_at + head.target_size
    cdef const unsigned char *after
    cdef bytes value
    if end - p <= LEAST_KEY:
        return False
    if end - p > key.length and memmem(p, end - p, key.start, key.length) != NULL:
        return True
    while p < end:                      # at the mark before a field
        after = field_end(p + 1, end)
        value = value_of(p + 1, after)
        if value is not None and d.policy.keys.lookup(value) >= 0:
            return True
        p = after
    return False


cdef bytes value_of(const unsigned char *p, const unsigned char *end):
    """A field's value with its escapes undone and nothing white around it; None where it is too short for a key."""
    cdef unsigned char *at
    cdef bytes made
    cdef int c
    while p < end and p[0] != b"=":
        p += 1
    p += 1
    if end - p < LEAST_KEY:
        return None
    made = PyBytes_FromStringAndSize(NULL, end - p)
    at = <unsigned char *>PyBytes_AS_STRING(made)
    while p < end:
        c = p[0]
        p += 1
        if c == b"+":
            c = b" "
        elif c == b"%" and end - p >= 2 and hex_of(p[0]) >= 0 and hex_of(p[1]) >= 0:
            c = hex_of(p[0]) << 4 | hex_of(p[1])
            p += 2
        at[0] = <unsigned char>c
        at += 1
    return made[:at - <unsigned char *>PyBytes_AS_STRING(made)].strip()


cdef int put_call(Pen *pen, const unsigned char *text, const RequestHead *head) noexcept:
    """The verb, and the query without the caller's keys: what follows the upstream's name for the model."""
    cdef const unsigned char *path = text + head.target_at
    cdef const unsigned char *p = path + head.path_size
    cdef const unsigned char *end = path + head.target_size
    cdef const unsigned char *after
    cdef Py_ssize_t size = verb_size(path, head.path_size)
    cdef bint begun = False
    put(pen, p - size, size)
    while p < end:                      # at the mark before a field
        after = field_end(p + 1, end)
        size = after - p
        if size > 1 and not holds_key(p + 1, field_name(p + 1, after)):
            put(pen, <const char *>b"&" if begun else <const char *>b"?", 1)
            put(pen, p + 1, size - 1)
            begun = True
        p = after
    return 0


cdef Py_ssize_t brace_of(const unsigned char *body, Py_ssize_t size) noexcept nogil:
    """Where the object begins; ``size`` where something else does."""
    cdef Py_ssize_t at = 0
    while at < size and is_space(body[at]):
        at += 1
    return at if at < size and body[at] == b"{" else size


cdef inline bint is_space(unsigned char c) noexcept nogil:
    return c == b" " or c == b"\n" or c == b"\r" or c == b"\t"


cdef bytes fronted(const Wanted *wanted, const unsigned char *body, Py_ssize_t size, int64_t most, int64_t choices):
    """``body`` with model and stream in front, then ``most`` tokens and ``choices`` where they say something."""
    cdef unsigned char[MODEL_BYTES + FRONT_BYTES] front
    cdef Pen pen
    cdef Py_ssize_t at = brace_of(body, size) + 1, next_at
    cdef Py_ssize_t length
    cdef bytes made
    if at > size:
        return None
    pen.at = front
    pen.end = front + MODEL_BYTES + FRONT_BYTES
    pen.overflow = False
    put(&pen, <const char *>b'{"model":"', 10)
    put(&pen, wanted.model, wanted.size)
    put(&pen, <const char *>b'","stream":', 11)
    put(&pen, <const char *>b"true" if wanted.stream else <const char *>b"false", 4 if wanted.stream else 5)
    if most > 0:
        put(&pen, <const char *>b',"max_tokens":', 14)
        put_number(&pen, most)
    if choices > 1:
        put(&pen, <const char *>b',"n":', 5)
        put_number(&pen, choices)
    next_at = at
    while next_at < size and is_space(body[next_at]):
        next_at += 1
    if next_at < size and body[next_at] != b"}":
        put(&pen, <const char *>b",", 1)
    length = pen.at - front
    made = PyBytes_FromStringAndSize(NULL, length + size - at)
    memcpy(PyBytes_AS_STRING(made), front, length)
    memcpy(PyBytes_AS_STRING(made) + length, body + at, size - at)
    return made


cdef object shaped(Downstream d, const unsigned char *text, RequestHead *head):
    """The body as policy looks at it (bytes), scanned into ``d.seen``; or why the full lane is to read it (a str)."""
    cdef const unsigned char *path = text + head.target_at
    cdef Py_ssize_t asked = head.target_size - head.path_size
    cdef const unsigned char *body = text + head.size
    cdef int64_t most = 0, choices = 1
    cdef Wanted wanted
    cdef bytes made
    if not read_path(path, head.path_size, &wanted):
        return "model_name"
    if not plain_query(path + head.path_size + 1, max(asked - 1, 0), wanted.stream):
        return "query"
    made = fronted(&wanted, body, head.content_length, most, choices)
    if made is None or not scanned(d, made):
        return "json"
    if not bounds_of(<const unsigned char *>PyBytes_AS_STRING(made), &d.seen, &most, &choices):
        return "bounds"
    if most > 0 or choices > 1:
        made = fronted(&wanted, body, head.content_length, most, choices)
        if not scanned(d, made):
            return "json"
    return made


cdef bint scanned(Downstream d, bytes body) except -1:
    return scan(
        <const unsigned char *>PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), d.policy.json_depth, &d.seen)


def odd_target(bytes path not None, bytes query not None):
    cdef const unsigned char *text = <const unsigned char *>PyBytes_AS_STRING(path)
    cdef Wanted wanted
    if not generates(text, PyBytes_GET_SIZE(path)):
        return "endpoint"
    if not read_path(text, PyBytes_GET_SIZE(path), &wanted):
        return "model_name"
    if not plain_query(
        <const unsigned char *>PyBytes_AS_STRING(query), PyBytes_GET_SIZE(query), wanted.stream
    ):
        return "query"
    return None
