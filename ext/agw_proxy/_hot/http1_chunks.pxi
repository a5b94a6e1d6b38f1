# Part of http1.pyx: chunked bodies (RFC 9112 section 7.1), byte by byte but for the data.

# What the next byte is expected to belong to; 0 is the beginning of a body.
cdef enum ChunkState:
    SIZE_FIRST      # a size's first digit
    SIZE            # more of it, or what ends it
    BEFORE_NAME     # of an extension, behind its semicolon
    IN_NAME
    AFTER_NAME      # white space behind an extension's name
    BEFORE_VALUE    # of an extension, behind "="
    IN_VALUE
    IN_QUOTES
    ESCAPED         # the byte behind a backslash in quotes
    AFTER_QUOTES
    BEFORE_SEMICOLON    # white space behind a size or a value
    SIZE_LF
    DATA
    DATA_CR
    DATA_LF
    TRAILER_FIRST   # the first byte of a trailer field, or the CR of the empty line
    TRAILER_NAME
    TRAILER_VALUE
    TRAILER_LF
    LAST_LF

cdef int NOWHERE = -1


cdef inline int after_part(unsigned char c) noexcept nogil:
    """What follows a whole size, name or value."""
    if c == b"\r":
        return SIZE_LF
    if c == b";":
        return BEFORE_NAME
    if is_blank(c):
        return BEFORE_SEMICOLON
    return NOWHERE


cdef int next_in_extension(int state, unsigned char c) noexcept nogil:
    """``*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`` (RFC 9112 section 7.1.1)."""
    cdef bint blank = is_blank(c)
    cdef bint token = CLASSES[c] & TOKEN
    if state == BEFORE_NAME:
        return state if blank else IN_NAME if token else NOWHERE
    if state == IN_NAME:
        if token:
            return state
        return BEFORE_VALUE if c == b"=" else AFTER_NAME if blank else after_part(c)
    if state == AFTER_NAME:
        return state if blank else BEFORE_VALUE if c == b"=" else BEFORE_NAME if c == b";" else NOWHERE
    if state == BEFORE_VALUE:
        return state if blank else IN_QUOTES if c == b'"' else IN_VALUE if token else NOWHERE
    if state == IN_VALUE:
        return state if token else after_part(c)
    if state == IN_QUOTES:
        if c == b'"':
            return AFTER_QUOTES
        return ESCAPED if c == b"\\" else state if CLASSES[c] & VALUE else NOWHERE
    if state == ESCAPED:
        return IN_QUOTES if CLASSES[c] & VALUE else NOWHERE
    if state == AFTER_QUOTES:
        return after_part(c)
    return state if blank else BEFORE_NAME if c == b";" else NOWHERE    # BEFORE_SEMICOLON


cdef int next_in_size(Chunks *chunks, unsigned char c) noexcept nogil:
    """The size line: 1 to 16 digits, below 2^63, and extensions; ``MAX_CHUNK_LINE`` bytes before its CR."""
    cdef int state = chunks.state
    if c != b"\r":
        chunks.line += 1
        if chunks.line > MAX_CHUNK_LINE:
            return NOWHERE
    if state > SIZE:
        return next_in_extension(state, c)
    if CLASSES[c] & HEX:
        if chunks.line > 16 or chunks.left >> 59:
            return NOWHERE
        chunks.left = chunks.left << 4 | (c - 0x30 if c <= b"9" else (c | 0x20) - 0x57)
        return SIZE
    return after_part(c) if state == SIZE else NOWHERE


cdef int next_in_trailer(Chunks *chunks, unsigned char c) noexcept nogil:
    """Trailer fields as fields of a head (RFC 9112 section 7.1.2), ``MAX_TRAILER_BYTES`` in all; and the last line."""
    cdef int state = chunks.state
    if state == LAST_LF:
        chunks.ended = c == b"\n"
        return TRAILER_FIRST if c == b"\n" else NOWHERE
    if state == TRAILER_FIRST and c == b"\r":
        return LAST_LF
    chunks.trailer += 1
    if chunks.trailer > MAX_TRAILER_BYTES:
        return NOWHERE
    if state == TRAILER_FIRST:
        return TRAILER_NAME if CLASSES[c] & TOKEN else NOWHERE
    if state == TRAILER_NAME:
        return state if CLASSES[c] & TOKEN else TRAILER_VALUE if c == b":" else NOWHERE
    if state == TRAILER_VALUE:
        return state if CLASSES[c] & VALUE else TRAILER_LF if c == b"\r" else NOWHERE
    return TRAILER_FIRST if c == b"\n" else NOWHERE     # TRAILER_LF


cdef const unsigned char *next_piece(
    Chunks *chunks, const unsigned char *at, const unsigned char *end, Piece *piece
) noexcept nogil:
    cdef unsigned char c
    cdef int state
    piece.at = at
    piece.size = 0
    while at < end and not chunks.ended and not chunks.broken:
        state = chunks.state
        if state == DATA:
            piece.at = at
            piece.size = <Py_ssize_t>chunks.left if chunks.left < <uint64_t>(end - at) else end - at
            chunks.left -= piece.size
            if chunks.left == 0:
                chunks.state = DATA_CR
            return at + piece.size
        c = at[0]
        if state < SIZE_LF:
            state = next_in_size(chunks, c)
        elif state == SIZE_LF:
            chunks.line = 0
            state = NOWHERE if c != b"\n" else DATA if chunks.left > 0 else TRAILER_FIRST
        elif state == DATA_CR:
            state = DATA_LF if c == b"\r" else NOWHERE
        elif state == DATA_LF:
            state = SIZE_FIRST if c == b"\n" else NOWHERE
        else:
            state = next_in_trailer(chunks, c)
        if state == NOWHERE:
            chunks.broken = True
            break
        chunks.state = state
        at += 1
    return at
