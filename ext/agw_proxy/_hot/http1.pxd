# HTTP/1.1 heads and body framing (RFC 9112), strict: the C side of ``http1.pyi``.
#
# A reader of heads takes bytes from the first one on and answers MORE, TAKE, HAND_OVER or REFUSE; it keeps nothing but
# how far it has looked (``scanned``), so that a head that comes byte by byte is walked once a line and not once a byte.
# ``Chunks`` follows a chunked body in any split. Nothing here makes a Python object or needs the GIL.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    MAX_FIELDS = 100            # of one head: real clients send about twenty; bounds the work before anybody is known
    MAX_CHUNK_LINE = 64         # a chunk's size line with its extension: sixteen digits and a short extension
    MAX_TRAILER_BYTES = 4096    # all trailer fields of one body, which nobody reads

cdef enum Verdict:
    MORE = 0        # well-formed so far, not whole
    TAKE = 1        # the narrow subset: everything about it is known here
    HAND_OVER = 2   # legal, and for a fuller implementation; framing and fields are known all the same
    REFUSE = 3      # not acceptable: answer ``refusal_status(reason)`` and close

# Why not TAKE. Those from HTTP_1_0 on hand a request over, those before refuse a head.
cdef enum Reason:
    NO_REASON
    BARE_LF, BARE_CR, CONTROL_BYTE
    BAD_METHOD, BAD_REQUEST_LINE, BAD_TARGET, USERINFO, CONNECT_REFUSED, BAD_VERSION, UNKNOWN_VERSION
    BAD_STATUS_LINE, BAD_STATUS
    LONG_REQUEST_LINE, LONG_FIELD, LARGE_HEAD, MANY_FIELDS
    OBS_FOLD, SPACE_BEFORE_COLON, BAD_NAME
    NO_HOST, BAD_HOST, REPEATED_FIELD
    BAD_LENGTH, LENGTH_AND_CODING, CODING_IN_1_0, BAD_CODING, UNKNOWN_CODING
    BAD_CONNECTION, UNKNOWN_EXPECTATION
    HTTP_1_0, ABSOLUTE_FORM, ASTERISK_FORM, EMPTY_HOST, CHUNKED_BODY, CONTINUE_EXPECTED, UPGRADE_OFFERED
    CONNECTION_OPTION, TRAILERS_OFFERED, SEVERAL_CODINGS
    REASONS

cdef struct Field:
    # Offsets from the head's first byte; the value is without the white space around it.
    uint32_t name_at, name_size, value_at, value_size

cdef struct Limits1:
    Py_ssize_t max_line         # of the request line, and of one field line
    Py_ssize_t max_head         # all of it, the empty line too

cdef struct RequestHead:
    Py_ssize_t scanned          # in and out: 0 before the first byte
    int verdict
    int reason                  # a Reason: why not TAKE; 0 otherwise
    Py_ssize_t size             # of the whole head with its empty line; where the fault is, for REFUSE
    uint32_t method_size        # the method starts at 0
    uint32_t target_at, target_size
    uint32_t path_size          # of the target up to its question mark (all of it without one)
    int minor                   # 1 for HTTP/1.1, 0 for HTTP/1.0
    int64_t content_length      # -1: none came
    bint chunked                # the body is chunked
    bint has_body               # chunked, or content_length > 0
    bint close                  # the connection ends after this exchange
    bint expect                 # Expect: 100-continue came
    int host, content_type, content_encoding, connection    # index of the field, -1: none
    int count
    Field fields[MAX_FIELDS]

cdef struct ResponseHead:
    Py_ssize_t scanned
    int verdict                 # MORE, TAKE or REFUSE
    int reason
    Py_ssize_t size
    int status                  # 100 to 599
    int minor
    int64_t content_length
    bint chunked
    bint close
    int content_type, connection
    int count
    Field fields[MAX_FIELDS]

cdef struct Chunks:
    # A chunked body on its way; all zeroes at its beginning.
    int state
    uint64_t left               # of the chunk's data
    int line                    # bytes of the line so far
    int trailer                 # bytes of trailer so far
    bint ended                  # the last chunk, its trailer and the empty line have come
    bint broken                 # not chunked coding as we accept it: nothing more is read

cdef struct Piece:
    const unsigned char *at
    Py_ssize_t size

cdef void parse_request(
    const unsigned char *text, Py_ssize_t size, const Limits1 *limits, RequestHead *head
) noexcept nogil
cdef void parse_response(
    const unsigned char *text, Py_ssize_t size, const Limits1 *limits, ResponseHead *head
) noexcept nogil
# The next piece of the body's data in the bytes from ``at`` to ``end``; returns where to go on. A piece of size 0 says
# that there is none any more in these bytes (they are used up, or the body has ended or is broken: see ``chunks``).
cdef const unsigned char *next_piece(
    Chunks *chunks, const unsigned char *at, const unsigned char *end, Piece *piece
) noexcept nogil
cdef int refusal_status(int reason) noexcept nogil      # 400, 414, 417, 431, 501 or 505; 0 for no refusal
cdef const char *reason_text(int reason) noexcept nogil  # what was expected and what came, for the caller
cdef const char *reason_name(int reason) noexcept nogil  # a word for logs and metrics: lower case, underscores

cdef inline bint differs8(const unsigned char *text, const char *wanted) noexcept nogil:
    """Eight bytes; the case bit is passed over exactly where ``wanted``, which is ASCII, has a letter."""
    cdef uint64_t one, other, letters, ones = 0x0101010101010101
    memcpy(&one, text, 8)
    memcpy(&other, wanted, 8)
    letters = (other + ones * 0x1F) & ~(other + ones * 0x05) & (ones << 7)      # from "a" on, but not from "{" on
    return (one | letters >> 2) != other


cdef inline bint differs4(const unsigned char *text, const char *wanted) noexcept nogil:
    cdef uint32_t one, other, letters, ones = 0x01010101
    memcpy(&one, text, 4)
    memcpy(&other, wanted, 4)
    letters = (other + ones * 0x1F) & ~(other + ones * 0x05) & (ones << 7)
    return (one | letters >> 2) != other


cdef inline bint same(const unsigned char *text, const char *wanted, Py_ssize_t size) noexcept nogil:
    """Whether ``text`` is ``wanted`` in any case; ``wanted``: ASCII without capitals."""
    cdef Py_ssize_t i
    if size >= 8:
        for i in range(0, size - 8, 8):
            if differs8(text + i, wanted + i):
                return False
        return not differs8(text + size - 8, wanted + size - 8)
    if size >= 4:
        return not (differs4(text, wanted) or differs4(text + size - 4, wanted + size - 4))
    for i in range(size):
        if text[i] != <unsigned char>wanted[i] and (text[i] | 0x20 != wanted[i] or not b"a" <= wanted[i] <= b"z"):
            return False
    return True


# Whether the field's name is this one; ``wanted`` in lower case.
cdef inline bint name_is(
    const unsigned char *name, Py_ssize_t size, const char *wanted, Py_ssize_t wanted_size
) noexcept nogil:
    return size == wanted_size and same(name, wanted, size)


# Does the comma-separated value hold this token? ``wanted`` in lower case (RFC 9110 section 5.6.1).
cdef bint has_token(
    const unsigned char *value, Py_ssize_t size, const char *wanted, Py_ssize_t wanted_size
) noexcept nogil
