# Part of sse.pyx: one JSON answer, scanned as it comes. It finds the members that we read by their place in the
# structure (sse_names.pxi), in any split, and is lax about everything else: whoever gets the answer parses it.

cdef enum State:
    WANT_VALUE, WANT_NAME, WANT_COLON, WANT_NEXT, IN_STRING, IN_ESCAPE, IN_SCALAR, CLOSED, LOST

cdef uint64_t MOST = 10 ** 15           # of tokens: no answer has more, and sums of it fit 64 bits

cdef enum Kind:
    ABSENT, NULL_, OBJECT, OTHER

cdef void json_clear(Json *json) noexcept nogil:
    json.state = WANT_VALUE
    json.depth = 0
    json.role = NOTHING
    json.layers[0] = ELSEWHERE
    json.usage = ABSENT
    json.choices_empty = json.error = json.content = json.response = json.counted = json.stopped = False
    json.choices = json.ended = 0
    json.reason_size = 0
    json.type = UNTYPED
    no_numbers(json)


cdef inline void no_numbers(Json *json) noexcept nogil:
    cdef int i
    for i in range(NUMBERS):
        json.numbers[i] = -1


cdef inline bint json_closed(const Json *json) noexcept nogil:
    """The top-level object or array was closed, and only white space followed."""
    return json.state == CLOSED


cdef inline int layer_of(const Json *json) noexcept nogil:
    return json.layers[json.depth] if json.depth <= LAYERS else ELSEWHERE


cdef inline bint is_array(const Json *json) noexcept nogil:
    return json.arrays[(json.depth - 1) >> 6] >> ((json.depth - 1) & 63) & 1


cdef inline void keep(Json *json, const unsigned char *start, const unsigned char *end) noexcept nogil:
    """Add to the token what fits; ``length`` counts all of it."""
    cdef Py_ssize_t size
    if json.keep:
        size = min(end - start, TOKEN_BYTES - json.length)
        if size > 0:
            memcpy(json.token + json.length, start, size)
    json.length += end - start


cdef void unescape(Json *json) noexcept nogil:
    """Replace the token by what it spells (never longer). Of one that was cut this is a beginning."""
    cdef unsigned char plain[TOKEN_BYTES]
    cdef Spelling cursor = spelling(json.token, json.token + min(json.length, TOKEN_BYTES))
    cdef Py_ssize_t size = 0
    cdef int c = next_byte(&cursor)
    while c >= 0 and size < TOKEN_BYTES:
        plain[size] = <unsigned char>c
        size += 1
        c = next_byte(&cursor)
    if c == -2 and json.length <= TOKEN_BYTES:
        size = 0
    memcpy(json.token, plain, size)
    json.length = size


cdef long long count_of(const Json *json) noexcept nogil:
    """The token as a non-negative integer up to MOST, or -1."""
    cdef uint64_t value = 0
    cdef Py_ssize_t i
    if json.length > 19 or (json.token[0] == b"0" and json.length > 1):
        return -1
    for i in range(json.length):
        if not b"0" <= json.token[i] <= b"9":
            return -1
        value = value * 10 + (json.token[i] - 0x30)
    return <long long>value if value <= MOST else -1


cdef inline void after_value(Json *json) noexcept nogil:
    json.role = NOTHING
    json.state = WANT_NEXT if json.depth else CLOSED


cdef void string_ends(Json *json, const unsigned char *text, Py_ssize_t size) noexcept nogil:
    """``text``: what it spells, of which TOKEN_BYTES are there at least; anything where the string is not kept."""
    if json.name:
        json.role = role_of(layer_of(json), text, size) if json.keep else NOTHING
        json.state = WANT_COLON
        return
    if size and (
        json.role == IS_REASON or json.role == IS_STOP or json.role == IS_BLOCK
        or (json.role == IS_STATUS and (json.reason_size == 0 or json.reason_role == IS_STATUS))
    ):
        json.reason_role = json.role
        json.reason_size = <int>min(size, REASON_BYTES)
        # A character that does not fit whole is left out.
        if size > REASON_BYTES:
            while json.reason_size and text[json.reason_size] & 0xC0 == 0x80:
                json.reason_size -= 1
        memcpy(json.reason, text, json.reason_size)
        json.stopped = json.stopped or json.role == IS_REASON
        if json.role == IS_BLOCK:       # there will be no candidates: that is all of the answer
            json.choices |= 1
            json.ended |= 1
    elif json.role >= IS_TEXT and json.role <= IS_OBJECT:
        text_ends(json, text, size)
    after_value(json)


cdef inline void text_ends(Json *json, const unsigned char *text, Py_ssize_t size) noexcept nogil:
    """A string of which we want to know only what it is; ``role`` says which."""
    if json.role == IS_TEXT:
        if size:
            json.content = True
    elif json.role == IS_TYPE:
        json.type = type_of(text, size)
    else:
        json.response = size == 8 and same(text, b"response", 8)


cdef inline void counts_begin(Json *json, unsigned char c) noexcept nogil:
    """The last usage object tells; one that is null takes nothing back."""
    if c == b"{":
        json.counted = True
        no_numbers(json)


cdef void value_begins(Json *json, unsigned char c) noexcept nogil:
    """Note what can be known from a value's first byte."""
    cdef int layer = layer_of(json)
    if layer == CHOICES:
        json.choices_empty = False
    elif layer == TOOL_CALLS:
        json.content = True
    if json.role == IS_USAGE:
        json.usage = OBJECT if c == b"{" else NULL_ if c == b"n" else OTHER
        counts_begin(json, c)
    elif json.role == IS_INNER_USAGE:
        counts_begin(json, c)
    elif json.role == IS_ERROR:
        json.error = c != b"n"
    elif json.role == IS_CHOICES:
        json.choices_empty = c == b"["
    elif json.role == IS_CALL and c == b"{":
        json.content = True
    elif json.role == IS_TYPE:
        json.type = UNTYPED


cdef void container_begins(Json *json, bint array) noexcept nogil:
    cdef int layer = ELSEWHERE, around = layer_of(json)
    if json.depth == 0:
        layer = ELSEWHERE if array else TOP
    elif array:
        layer = CHOICES if json.role == IS_CHOICES else TOOL_CALLS if json.role == IS_TOOL_CALLS else ELSEWHERE
    elif around == CHOICES:
        layer = CHOICE
    elif json.role == IS_DELTA:
        layer = DELTA
    elif json.role == IS_USAGE or json.role == IS_INNER_USAGE:
        layer = USAGE
    elif json.role == IS_PROMPT_DETAILS:
        layer = PROMPT_DETAILS
    elif json.role == IS_INPUT_DETAILS:
        layer = INPUT_DETAILS
    elif json.role == IS_COMPLETION_DETAILS:
        layer = COMPLETION_DETAILS
    elif json.role == IS_TURN:
        layer = TURN
    elif json.role == IS_MESSAGE:
        layer = MESSAGE
    elif json.role == IS_RESPONSE:
        layer = RESPONSE
    elif json.role == IS_FEEDBACK:
        layer = FEEDBACK
    json.role = NOTHING
    if json.depth >= DEEPEST_WORDS * 64:
        json.state = LOST
        return
    if array:
        json.arrays[json.depth >> 6] |= <uint64_t>1 << (json.depth & 63)
    else:
        json.arrays[json.depth >> 6] &= ~(<uint64_t>1 << (json.depth & 63))
    json.depth += 1
    if json.depth <= LAYERS:
        json.layers[json.depth] = layer
    json.state = WANT_VALUE if array else WANT_NAME


cdef inline bint ends_scalar(unsigned char c) noexcept nogil:
    if 0x30 <= c <= 0x39:
        return False
    return c <= 0x20 or c == b"," or c == b"}" or c == b"]" or c == b'"' or c == b":" or c == b"{" or c == b"["


cdef inline const unsigned char *to_quote(const unsigned char *p, const unsigned char *end) noexcept nogil:
    """The next quote or backslash, or the end."""
    cdef uint64_t found
    while end - p >= BLOCK:
        found = quotes(p)
        if found:
            p += first_mark(found)
            break
        p += BLOCK
    while p < end and p[0] != b'"' and p[0] != b"\\":
        p += 1
    return p


cdef inline void token_begins(Json *json, bint keep) noexcept nogil:
    json.keep = keep
    json.escaped = False
    json.length = 0


cdef void choice_ends(Json *json) noexcept nogil:
    """One without an index is the first, and the only one."""
    cdef long long index = max(json.numbers[<int>CHOICE_INDEX], 0)
    if index < CHOICES_TOLD_APART:
        json.choices |= <uint64_t>1 << index
        json.ended |= <uint64_t>json.stopped << index
    json.numbers[<int>CHOICE_INDEX] = -1
    json.stopped = False


cdef inline void container_ends(Json *json) noexcept nogil:
    if layer_of(json) == CHOICE:
        choice_ends(json)
    json.depth -= 1
    after_value(json)


cdef inline void name_begins(Json *json) noexcept nogil:
    json.name = True
    token_begins(json, layer_of(json) != ELSEWHERE)
    json.state = IN_STRING


cdef void structure(Json *json, unsigned char c) noexcept nogil:
    """One byte outside strings and scalars that is not white space."""
    cdef bint array = json.depth > 0 and is_array(json)
    if json.state == WANT_VALUE:
        if c == b"]" and array:
            container_ends(json)
        elif c == b"}" or c == b"]" or c == b"," or c == b":" or (json.depth == 0 and c != b"{" and c != b"["):
            json.state = LOST
        else:
            value_begins(json, c)
            if c == b"{" or c == b"[":
                container_begins(json, c == b"[")
            elif c == b'"':
                json.name = False
                token_begins(json, json.role >= IS_TYPE and json.role <= IS_STATUS)
                json.state = IN_STRING
            else:
                token_begins(json, json.role < NUMBERS)
                json.token[0] = c
                json.length = 1
                json.state = IN_SCALAR
    elif json.state == WANT_NEXT:
        if c == b",":
            json.state = WANT_VALUE if array else WANT_NAME
        elif (c == b"]" and array) or (c == b"}" and not array):
            container_ends(json)
        else:
            json.state = LOST
    elif json.state == WANT_NAME:
        if c == b'"':
            name_begins(json)
        elif c == b"}":
            container_ends(json)
        else:
            json.state = LOST
    elif json.state == WANT_COLON and c == b":":
        json.state = WANT_VALUE
    else:
        json.state = LOST


cdef inline const unsigned char *member(Json *json, const unsigned char *p, const unsigned char *end) noexcept nogil:
    """From a name's opening quote as far as the member is here and as usual; what ``json_feed`` does in steps, in one.

    Returns where to go on, in the state that belongs there.
    """
    cdef int layer = layer_of(json)
    cdef const unsigned char *quote = to_quote(p + 1, end)
    if quote == end or quote[0] != b'"':
        name_begins(json)
        return p + 1
    json.role = role_of(layer, p + 1, quote - p - 1) if layer != ELSEWHERE else NOTHING
    json.state = WANT_COLON
    p = quote + 1
    if p == end or p[0] != b":":
        return p
    json.state = WANT_VALUE
    p += 1
    if p < end and p[0] == b" ":
        p += 1
    # A string that is worth no look at its first byte, and is not to be kept.
    if p == end or p[0] != b'"' or json.role > IS_OBJECT:
        return p
    quote = to_quote(p + 1, end)
    if quote == end or quote[0] != b'"':
        return p
    if json.role > NOTHING:
        text_ends(json, p + 1, quote - p - 1)
    after_value(json)
    p = quote + 1
    if p < end and p[0] == b",":
        json.state = WANT_NAME      # names stand in objects alone
        p += 1
    return p


cdef void json_feed(Json *json, const unsigned char *p, const unsigned char *end) noexcept nogil:
    cdef const unsigned char *start
    while p < end:
        start = p
        if json.state == IN_STRING:
            p = to_quote(p, end)
            if json.length == 0 and p < end and p[0] == b'"':
                string_ends(json, start, p - start)     # whole and as spelt, nearly always
                p += 1
                continue
            keep(json, start, p)
            if p == end:
                return
            if p[0] == b'"':
                if json.keep and json.escaped:
                    unescape(json)
                string_ends(json, json.token, json.length)
            else:
                json.escaped = True
                json.state = IN_ESCAPE
                keep(json, p, p + 1)
            p += 1
        elif json.state == IN_SCALAR:
            while p < end and not ends_scalar(p[0]):
                p += 1
            keep(json, start, p)
            if p == end:
                return
            if json.role < NUMBERS:
                json.numbers[json.role] = count_of(json)
            after_value(json)
        elif json.state == IN_ESCAPE:
            # What follows a backslash says nothing about where the string ends; \\u's digits are ordinary content.
            keep(json, p, p + 1)
            json.state = IN_STRING
            p += 1
        elif json.state == LOST:
            return
        else:
            if p[0] == b'"' and json.state == WANT_NAME:
                p = member(json, p, end)
                continue
            if p[0] == b":" and json.state == WANT_COLON:
                json.state = WANT_VALUE
            elif p[0] != b" " and p[0] != b"\n" and p[0] != b"\r" and p[0] != b"\t":
                structure(json, p[0])
            p += 1
