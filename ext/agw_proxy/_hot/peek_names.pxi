# Part of peek.pyx: which member a name is, and whether it came before.

# Names are hashed by a polynomial over GF(2^61 - 1) at a point that no caller knows: a body full of names with one
# hash cannot be made, so comparing 1,024 hashes pairwise is the most that duplicate detection costs.
cdef uint64_t PRIME = (<uint64_t>1 << 61) - 1
cdef uint64_t SECRET = (int.from_bytes(os.urandom(8), "little") % ((1 << 61) - (1 << 33))) + (1 << 32)


cdef inline uint64_t fold(uint64_t value, uint64_t piece) noexcept nogil:
    cdef u128 product = <u128>value * SECRET
    value = (<uint64_t>product & PRIME) + <uint64_t>(product >> 61) + piece
    value = (value & PRIME) + (value >> 61)
    return value - PRIME if value >= PRIME else value


cdef bint same_spelling(Walk *walk, Py_ssize_t one, Py_ssize_t other) noexcept nogil:
    """Whether two names, given by the offsets of their quotes, are the same characters."""
    cdef Spelling a = spelling(walk.text + one + 1, walk.end)
    cdef Spelling b = spelling(walk.text + other + 1, walk.end)
    cdef int left, right
    while True:
        # An unescaped quote ends a name; the cursor gives an escaped one with its backslash already consumed.
        if a.waiting_at >= a.waiting_size and a.at[0] == b'"':
            return b.waiting_at >= b.waiting_size and b.at[0] == b'"'
        if b.waiting_at >= b.waiting_size and b.at[0] == b'"':
            return False
        left = next_byte(&a)
        right = next_byte(&b)
        if left != right:
            return False


cdef inline int known(const unsigned char *name, Py_ssize_t size, bint top) noexcept nogil:
    """Which of the members that we look at has this name."""
    if not top:
        return INCLUDE_USAGE if size == 13 and memcmp(name, <const char *>b"include_usage", 13) == 0 else NONE
    if size == 5:
        if memcmp(name, <const char *>b"model", 5) == 0:
            return MODEL
        if memcmp(name, <const char *>b"input", 5) == 0:
            return NOTED + NOTE_INPUT
        return TOOLS if memcmp(name, <const char *>b"tools", 5) == 0 else NONE
    elif size == 6:
        if memcmp(name, <const char *>b"system", 6) == 0:
            return NOTED + NOTE_SYSTEM
        if memcmp(name, <const char *>b"prompt", 6) == 0:
            return NOTED + NOTE_PROMPT
        return STREAM if memcmp(name, <const char *>b"stream", 6) == 0 else NONE
    elif size == 8:
        if memcmp(name, <const char *>b"messages", 8) == 0 or memcmp(name, <const char *>b"contents", 8) == 0:
            return NOTED + NOTE_MESSAGES
        return NOTED + NOTE_METADATA if memcmp(name, <const char *>b"metadata", 8) == 0 else NONE
    elif size == 1:
        return NOTED + NOTE_CHOICES if name[0] == b"n" else NONE
    elif size == 4:
        return USER if memcmp(name, <const char *>b"user", 4) == 0 else NONE
    elif size == 7:
        return NOTED + NOTE_BEST_OF if memcmp(name, <const char *>b"best_of", 7) == 0 else NONE
    elif size == 9:
        if memcmp(name, <const char *>b"functions", 9) == 0:
            return FUNCTIONS
        return FALLBACKS if memcmp(name, <const char *>b"fallbacks", 9) == 0 else NONE
    elif size == 10:
        return MAX_TOKENS if memcmp(name, <const char *>b"max_tokens", 10) == 0 else NONE
    elif size == 12:
        if memcmp(name, <const char *>b"conversation", 12) == 0:
            return NOTED + NOTE_CONVERSATION
        return NOTED + NOTE_INSTRUCTIONS if memcmp(name, <const char *>b"instructions", 12) == 0 else NONE
    elif size == 16:
        if memcmp(name, <const char *>b"generationConfig", 16) == 0:
            return NOTED + NOTE_CONFIG
        return NOTED + NOTE_CACHE_KEY if memcmp(name, <const char *>b"prompt_cache_key", 16) == 0 else NONE
    elif size == 14:
        return OPTIONS if memcmp(name, <const char *>b"stream_options", 14) == 0 else NONE
    elif size == 17:
        if memcmp(name, <const char *>b"systemInstruction", 17) == 0:
            return NOTED + NOTE_SYSTEM
        if memcmp(name, <const char *>b"generation_config", 17) == 0:
            return NOTED + NOTE_CONFIG_TOO
        return MAX_OUTPUT_TOKENS if memcmp(name, <const char *>b"max_output_tokens", 17) == 0 else NONE
    elif size == 18:
        return NOTED + NOTE_SYSTEM if memcmp(name, <const char *>b"system_instruction", 18) == 0 else NONE
    elif size == 21:
        return MAX_COMPLETION_TOKENS if memcmp(name, <const char *>b"max_completion_tokens", 21) == 0 else NONE
    return NONE


cdef int enter_name(
    Walk *walk, const unsigned char *start, const unsigned char *after, int first, bint top
) noexcept nogil:
    """Note the name from the quote at ``start`` to ``after`` its other one. Which it is, or -1 with the fault noted."""
    cdef const unsigned char *p = start + 1
    cdef Spelling cursor
    cdef unsigned char plain[24]    # longer than any name we know
    cdef uint64_t value = 0, piece = 0
    cdef Py_ssize_t size = 0
    cdef int c, i
    if walk.names >= MEMBERS:
        fail(walk, TOO_MANY, start)
        return -1
    if not walk.escaped:
        size = after - 1 - p
        i = 0
        while p < after - 1:
            piece = piece << 8 | p[0]
            p += 1
            i += 1
            if i == 7:
                value = fold(value, piece)
                piece = i = 0
    else:
        cursor = spelling(p, after - 1)
        c = next_byte(&cursor)
        while c >= 0:
            if size < 24:
                plain[size] = <unsigned char>c
            size += 1
            piece = piece << 8 | <unsigned char>c
            if size % 7 == 0:
                value = fold(value, piece)
                piece = 0
            c = next_byte(&cursor)
        if c == -2:
            fail(walk, SURROGATE, start)
            return -1
        walk.seen.escaped |= top
    value = fold(fold(value, piece), <uint64_t>size)
    for i in range(first, walk.names):
        if walk.hashes[i] == value and same_spelling(walk, walk.starts[i], start - walk.text):
            fail(walk, DUPLICATE, start)
            return -1
    walk.hashes[walk.names] = value
    walk.starts[walk.names] = start - walk.text
    walk.names += 1
    if walk.escaped:
        return known(&plain[0], size, top)
    return known(start + 1, size, top)
