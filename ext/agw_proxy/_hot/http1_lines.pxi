# Part of http1.pyx: the lines of a head, lexed from left to right.

# How a step ended.
cdef enum Step:
    SHORT       # the bytes ran out
    LINE        # a line was read; ``walk.at`` is behind it
    LAST        # the empty line was read; ``walk.at`` is behind it
    FAULT       # ``walk.reason`` says which, ``walk.at`` where

cdef struct Walk:
    const unsigned char *text
    const unsigned char *end        # of what is there, within the head's room
    const unsigned char *line       # the start of the line in work
    const unsigned char *at
    Py_ssize_t max_line
    int reason


cdef inline int fail(Walk *walk, int reason, const unsigned char *at) noexcept nogil:
    walk.reason = reason
    walk.at = at
    return FAULT


cdef inline const unsigned char *line_bound(const Walk *walk) noexcept nogil:
    """Where the line's CR has to be at the latest, or the end of the bytes before it."""
    return walk.line + walk.max_line if walk.end - walk.line > walk.max_line else walk.end


cdef inline bint is_blank(unsigned char c) noexcept nogil:
    return c == b" " or c == b"\t"


cdef inline const unsigned char *skip(const unsigned char *p, const unsigned char *end, int kind) noexcept nogil:
    while p < end and CLASSES[p[0]] & kind:
        p += 1
    return p


cdef inline const unsigned char *skip_value(const unsigned char *p, const unsigned char *end) noexcept nogil:
    """Past bytes that a value may hold, a block at a time."""
    cdef uint64_t marks
    while end - p >= BLOCK:
        marks = controls(p)
        if marks == 0:
            p += BLOCK
            continue
        p += first_mark(marks)
        if not CLASSES[p[0]] & VALUE:
            return p
        p += 1
    return skip(p, end, VALUE)


cdef inline const unsigned char *skip_name(const unsigned char *p, const unsigned char *end) noexcept nogil:
    """Past bytes that a token may hold, a block at a time as long as they are the usual ones."""
    cdef uint64_t marks
    while end - p >= BLOCK:
        marks = odd_in_name(p)
        if marks:
            p += first_mark(marks)
            break
        p += BLOCK
    return skip(p, end, TOKEN)


cdef int stopped(Walk *walk, const unsigned char *p, int wrong, int too_long) noexcept nogil:
    """What it means that the part in work stopped at ``p``, where another kind of byte was expected."""
    cdef unsigned char c
    if p == walk.end:
        return SHORT
    c = p[0]
    if p - walk.line >= walk.max_line and c != b"\r":
        return fail(walk, too_long, p)
    if c == b"\n":
        return fail(walk, BARE_LF, p)
    if c != b"\r" and c != b"\t" and not CLASSES[c] & VALUE:
        return fail(walk, CONTROL_BYTE, p)
    return fail(walk, wrong, p)


cdef inline int end_line(Walk *walk, const unsigned char *p, int wrong, int too_long) noexcept nogil:
    """The line has to end at ``p`` (RFC 9112 section 2.2: a bare CR is a fault, and so is a bare LF here)."""
    if p == walk.end or p[0] != b"\r":
        return stopped(walk, p, wrong, too_long)
    if p + 1 == walk.end:
        return SHORT
    if p[1] != b"\n":
        return fail(walk, BARE_CR, p)
    walk.at = p + 2
    return LINE


cdef int past_last_field(Walk *walk) noexcept nogil:
    """``MAX_FIELDS`` have been read: only the empty line may follow."""
    if walk.line == walk.end:
        return SHORT
    return LINE if walk.line[0] == b"\r" else fail(walk, MANY_FIELDS, walk.line)


cdef inline int read_field(Walk *walk, Field *field) noexcept nogil:
    """A field line or the empty line (RFC 9112 section 5): no folding, no space before the colon."""
    cdef const unsigned char *bound = line_bound(walk)
    cdef const unsigned char *name = walk.line
    cdef const unsigned char *p = skip_name(name, bound)
    cdef const unsigned char *value
    cdef const unsigned char *value_end
    cdef int step
    if p == bound or p[0] != b":" or p == name:
        return not_a_field(walk, p)
    field.name_at = <uint32_t>(name - walk.text)
    field.name_size = <uint32_t>(p - name)
    value = p + 1
    while value < bound and is_blank(value[0]):
        value += 1
    p = skip_value(value, bound)
    step = end_line(walk, p, LONG_FIELD, LONG_FIELD)
    if step == LINE:
        value_end = p
        while value_end > value and is_blank((value_end - 1)[0]):
            value_end -= 1
        field.value_at = <uint32_t>(value - walk.text)
        field.value_size = <uint32_t>(value_end - value)
    return step


cdef int not_a_field(Walk *walk, const unsigned char *p) noexcept nogil:
    """The line whose name stopped at ``p`` is the empty line, unfinished or wrong."""
    cdef int step
    if p == walk.line and p < walk.end:
        if p[0] == b"\r":
            step = end_line(walk, p, BARE_CR, LONG_FIELD)
            return LAST if step == LINE else step
        if is_blank(p[0]):
            return fail(walk, OBS_FOLD, p)
    elif p < walk.end and p - walk.line < walk.max_line and is_blank(p[0]):
        return fail(walk, SPACE_BEFORE_COLON, p)
    return stopped(walk, p, BAD_NAME, LONG_FIELD)


cdef int read_version(Walk *walk, const unsigned char *p, int *minor) noexcept nogil:
    """``HTTP/1.0`` or ``HTTP/1.1`` at ``p`` (RFC 9112 section 2.3, case-sensitive); LINE: all eight bytes are there."""
    cdef const char *wanted = b"HTTP/0.0"
    cdef const unsigned char *bound = line_bound(walk)
    cdef int i
    if bound - p >= 8 and memcmp(p, <const char *>b"HTTP/1.1", 8) == 0:
        minor[0] = 1
        return LINE
    for i in range(8):
        if p + i >= bound:
            return stopped(walk, p + i, BAD_VERSION, LONG_REQUEST_LINE)
        if p[i] != wanted[i] and not (wanted[i] == b"0" and b"0" <= p[i] <= b"9"):
            return stopped(walk, p + i, BAD_VERSION, LONG_REQUEST_LINE)
    if p[5] != b"1" or p[7] > b"1":
        return fail(walk, UNKNOWN_VERSION, p + 5)
    minor[0] = p[7] - 0x30
    return LINE


cdef int read_request_line(Walk *walk, RequestHead *head, Seen *seen) noexcept nogil:
    """Method, target and version with one space between them (RFC 9112 section 3)."""
    cdef const unsigned char *bound = line_bound(walk)
    cdef const unsigned char *target
    cdef const unsigned char *p = skip(walk.text, bound, TOKEN)
    cdef int step
    if p == bound or p[0] != b" " or p == walk.text:
        if p < walk.end and (p[0] == b"\r" or p[0] == b"\t"):
            return stopped(walk, p, BAD_REQUEST_LINE, LONG_REQUEST_LINE)
        return stopped(walk, p, BAD_METHOD, LONG_REQUEST_LINE)
    head.method_size = <uint32_t>(p - walk.text)
    target = p + 1
    p = skip(target, bound, VISIBLE)
    if p == bound or p[0] != b" " or p == target:
        if p < walk.end and (p[0] == b"\r" or p[0] == b"\t" or p[0] == b" "):
            return stopped(walk, p, BAD_REQUEST_LINE, LONG_REQUEST_LINE)
        return stopped(walk, p, BAD_TARGET, LONG_REQUEST_LINE)
    head.target_at = <uint32_t>(target - walk.text)
    head.target_size = <uint32_t>(p - target)
    step = read_version(walk, p + 1, &head.minor)
    if step != LINE:
        return step
    step = end_line(walk, p + 9, BAD_REQUEST_LINE, LONG_REQUEST_LINE)
    if step != LINE:
        return step
    return LINE if weigh_target(walk, head, seen) else FAULT


cdef int read_status_line(Walk *walk, ResponseHead *head) noexcept nogil:
    """Version, status and reason phrase (RFC 9112 section 4); the phrase may be empty, with or without its space."""
    cdef const unsigned char *p = walk.text
    cdef const unsigned char *bound = line_bound(walk)
    cdef int i, step = read_version(walk, p, &head.minor)
    if step != LINE:
        return step
    p += 8
    if p >= bound or p[0] != b" ":
        return stopped(walk, p, BAD_STATUS_LINE, LONG_FIELD)
    p += 1
    head.status = 0
    for i in range(3):
        if p >= bound or not b"0" <= p[0] <= b"9" or (i == 0 and not b"1" <= p[0] <= b"5"):
            return stopped(walk, p, BAD_STATUS, LONG_FIELD)
        head.status = head.status * 10 + p[0] - 0x30
        p += 1
    if p < bound and p[0] == b" ":
        p = skip_value(p, bound)
    return end_line(walk, p, BAD_STATUS_LINE, LONG_FIELD)
