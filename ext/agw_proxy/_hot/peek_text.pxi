# Part of peek.pyx: JSON's grammar. A step returns the place after what it read, or NULL with the fault noted.

cdef const unsigned char *fail(Walk *walk, int fault, const unsigned char *at, int param=NONE) noexcept nogil:
    walk.seen.fault = fault
    walk.seen.param = param
    walk.seen.fault_at = at - walk.text
    return NULL


cdef inline const unsigned char *skip_space(const unsigned char *p, const unsigned char *end) noexcept nogil:
    while p < end and (p[0] == b" " or p[0] == b"\n" or p[0] == b"\r" or p[0] == b"\t"):
        p += 1
    return p


cdef inline const unsigned char *skip_plain(const unsigned char *p, const unsigned char *end) noexcept nogil:
    """Past characters that need no thought: ASCII but controls, quote and backslash, sixteen at a time."""
    cdef unsigned int found
    while end - p >= 16:
        found = marks_16(p)
        if found:
            return p + first_mark_16(p, found)
        p += 16
    while p < end and 0x20 <= p[0] < 0x80 and p[0] != b'"' and p[0] != b"\\":
        p += 1
    return p


cdef const unsigned char *skip_utf8(Walk *walk, const unsigned char *p) noexcept nogil:
    """Past one character that is not ASCII (RFC 3629 section 4: shortest form, no surrogates, up to U+10FFFF)."""
    cdef unsigned char lead = p[0], low = 0x80, high = 0xBF
    cdef int more, i
    if 0xC2 <= lead <= 0xDF:
        more = 1
    elif 0xE0 <= lead <= 0xEF:
        more = 2
        if lead == 0xE0:
            low = 0xA0
        elif lead == 0xED:
            high = 0x9F
    elif 0xF0 <= lead <= 0xF4:
        more = 3
        if lead == 0xF0:
            low = 0x90
        elif lead == 0xF4:
            high = 0x8F
    else:
        return fail(walk, UTF8, p)
    if walk.end - p <= more or p[1] < low or p[1] > high:
        return fail(walk, UTF8, p)
    for i in range(2, more + 1):
        if p[i] & 0xC0 != 0x80:
            return fail(walk, UTF8, p)
    return p + more + 1


cdef inline int hex_digit(unsigned char c) noexcept nogil:
    if b"0" <= c <= b"9":
        return c - 0x30
    c |= 0x20
    return c - 0x61 + 10 if b"a" <= c <= b"f" else -1


cdef int hex_unit(const unsigned char *p, const unsigned char *end) noexcept nogil:
    """The UTF-16 unit that four hexadecimal digits spell, or -1."""
    cdef int unit = 0, i, digit
    if end - p < 4:
        return -1
    for i in range(4):
        digit = hex_digit(p[i])
        if digit < 0:
            return -1
        unit = unit << 4 | digit
    return unit


cdef const unsigned char *skip_string(Walk *walk, const unsigned char *p) noexcept nogil:
    """``p``: after the opening quote. Returns the place after the closing one."""
    cdef const unsigned char *end = walk.end
    cdef const unsigned char *opening = p - 1
    cdef unsigned char c
    walk.escaped = False
    while True:
        p = skip_plain(p, end)
        if p >= end:
            return fail(walk, UNCLOSED, opening)
        c = p[0]
        if c == b'"':
            return p + 1
        elif c == b"\\":
            walk.escaped = True
            if end - p < 2:
                return fail(walk, UNCLOSED, opening)
            c = p[1]
            if c == b"u":
                if hex_unit(p + 2, end) < 0:
                    return fail(walk, HEX, p)
                p += 6
            elif c == b"n" or c == b'"' or c == b"\\" or c == b"/" or c == b"t" or c == b"r" or c == b"b" or c == b"f":
                p += 2
            else:
                return fail(walk, ESCAPE, p + 1)
        elif c >= 0x80:
            while p < end and p[0] >= 0x80:
                p = skip_utf8(walk, p)
                if p == NULL:
                    return NULL
        elif c < 0x20:
            return fail(walk, CONTROL, p)
        else:
            p += 1


cdef inline const unsigned char *skip_digits(const unsigned char *p, const unsigned char *end) noexcept nogil:
    while p < end and b"0" <= p[0] <= b"9":
        p += 1
    return p


cdef const unsigned char *skip_number(Walk *walk, const unsigned char *p) noexcept nogil:
    """RFC 8259 section 6, with a bound."""
    cdef const unsigned char *end = walk.end
    cdef const unsigned char *start = p
    cdef const unsigned char *digits
    if p[0] == b"-":
        p += 1
    digits = p
    p = skip_digits(p, end)
    if p == digits:
        return fail(walk, NUMBER, p)
    if digits[0] == b"0" and p - digits > 1:
        return fail(walk, LEADING_ZERO, start)
    if p < end and p[0] == b".":
        digits = p + 1
        p = skip_digits(digits, end)
        if p == digits:
            return fail(walk, NUMBER, p)
    if p < end and (p[0] == b"e" or p[0] == b"E"):
        p += 1
        if p < end and (p[0] == b"+" or p[0] == b"-"):
            p += 1
        digits = p
        p = skip_digits(digits, end)
        if p == digits:
            return fail(walk, NUMBER, p)
    if p - start > NUMBER_CHARS:
        return fail(walk, LONG_NUMBER, start)
    return p


cdef const unsigned char *skip_scalar(Walk *walk, const unsigned char *p) noexcept nogil:
    cdef Py_ssize_t left = walk.end - p
    if left <= 0:
        return fail(walk, VALUE, p)
    if p[0] == b'"':
        return skip_string(walk, p + 1)
    if p[0] == b"-" or b"0" <= p[0] <= b"9":
        return skip_number(walk, p)
    if p[0] == b"t" or p[0] == b"n":
        if left >= 4 and memcmp(p, <const char *>b"true" if p[0] == b"t" else <const char *>b"null", 4) == 0:
            return p + 4
        return fail(walk, LITERAL, p)
    if p[0] == b"f":
        if left >= 5 and memcmp(p, <const char *>b"false", 5) == 0:
            return p + 5
        return fail(walk, LITERAL, p)
    return fail(walk, VALUE, p)


cdef inline const unsigned char *skip_colon(Walk *walk, const unsigned char *p) noexcept nogil:
    """From the end of a name to the start of its value."""
    p = skip_space(p, walk.end)
    if p >= walk.end or p[0] != b":":
        return fail(walk, COLON, p)
    return skip_space(p + 1, walk.end)


cdef inline const unsigned char *skip_name(Walk *walk, const unsigned char *p) noexcept nogil:
    if p >= walk.end or p[0] != b'"':
        return fail(walk, NAME, p)
    p = skip_string(walk, p + 1)
    if p == NULL:
        return NULL
    return skip_colon(walk, p)


cdef const unsigned char *skip_value(Walk *walk, const unsigned char *p, int depth) noexcept nogil:
    """Any value; ``depth``: containers open around it."""
    cdef unsigned char closers[DEEPEST]
    cdef const unsigned char *end = walk.end
    cdef int level = 0
    cdef unsigned char closer
    while True:
        if p < end and (p[0] == b"{" or p[0] == b"["):
            if depth + level >= walk.max_depth:
                return fail(walk, DEPTH, p)
            closer = p[0] + 2       # in ASCII both closers stand two places after their openers
            p = skip_space(p + 1, end)
            if p < end and p[0] == closer:
                p += 1
            else:
                closers[level] = closer
                level += 1
                if closer == b"}":
                    p = skip_name(walk, p)
                    if p == NULL:
                        return NULL
                continue
        else:
            p = skip_scalar(walk, p)
            if p == NULL:
                return NULL
        while level:
            closer = closers[level - 1]
            p = skip_space(p, end)
            if p < end and p[0] == b",":
                p = skip_space(p + 1, end)
                if closer == b"}":
                    p = skip_name(walk, p)
                    if p == NULL:
                        return NULL
                break
            if p >= end or p[0] != closer:
                return fail(walk, NEXT_MEMBER if closer == b"}" else NEXT_ELEMENT, p)
            p += 1
            level -= 1
        else:
            return p


cdef Spelling spelling(const unsigned char *start, const unsigned char *end) noexcept nogil:
    cdef Spelling cursor
    memset(&cursor, 0, sizeof(cursor))
    cursor.at = start
    cursor.end = end
    return cursor


cdef int next_byte(Spelling *cursor) noexcept nogil:
    cdef int unit, low, i
    cdef unsigned char c
    if cursor.waiting_at < cursor.waiting_size:
        cursor.waiting_at += 1
        return cursor.waiting[cursor.waiting_at - 1]
    if cursor.at >= cursor.end:
        return -1
    c = cursor.at[0]
    cursor.at += 1
    if c != b"\\":
        return c
    if cursor.at >= cursor.end:
        return -2
    c = cursor.at[0]
    cursor.at += 1
    if c != b"u":
        if c == b"n":
            return b"\n"
        elif c == b"t":
            return b"\t"
        elif c == b"r":
            return b"\r"
        elif c == b"b":
            return b"\b"
        elif c == b"f":
            return b"\f"
        return c
    unit = hex_unit(cursor.at, cursor.end)
    if unit < 0 or 0xDC00 <= unit <= 0xDFFF:
        return -2
    cursor.at += 4
    if unit < 0x80:
        return unit
    if 0xD800 <= unit <= 0xDBFF:
        if cursor.end - cursor.at < 6 or cursor.at[0] != b"\\" or cursor.at[1] != b"u":
            return -2
        low = hex_unit(cursor.at + 2, cursor.end)
        if low < 0xDC00 or low > 0xDFFF:
            return -2
        cursor.at += 6
        unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
    cursor.waiting_size = 2 if unit < 0x800 else 3 if unit < 0x10000 else 4
    for i in range(cursor.waiting_size - 1, 0, -1):
        cursor.waiting[i] = 0x80 | (unit & 0x3F)
        unit >>= 6
    cursor.waiting[0] = (0xC0 if cursor.waiting_size == 2 else 0xE0 if cursor.waiting_size == 3 else 0xF0) | unit
    cursor.waiting_at = 1
    return cursor.waiting[0]
