# Part of http1.pyx: the readers for Python. Thin, and not for the request's path.

cdef tuple VERDICTS = ("more", "take", "hand_over", "refuse")


cdef int set_limits(Limits1 *limits, Py_ssize_t max_line, Py_ssize_t max_head) except -1:
    if max_line < 1 or not 1 <= max_head <= 0x7FFFFFFF:
        raise ValueError(f"expected max_line from 1 and max_head from 1 to 2^31 - 1, got {max_line} and {max_head}")
    limits.max_line = max_line
    limits.max_head = max_head
    return 0


cdef tuple fields_of(bytes data, const Field *fields, int count):
    cdef const char *text = PyBytes_AS_STRING(data)
    cdef list found = []
    cdef int i
    for i in range(count):
        found.append((
            (text + fields[i].name_at)[:fields[i].name_size], (text + fields[i].value_at)[:fields[i].value_size],
        ))
    return tuple(found)


cdef class ParsedRequest:
    cdef RequestHead head
    cdef bytes data
    cdef bint whole

    @property
    def verdict(self):
        return VERDICTS[self.head.verdict]

    @property
    def reason(self):
        return reason_name(self.head.reason).decode()

    @property
    def detail(self):
        return reason_text(self.head.reason).decode()

    @property
    def status(self):
        return refusal_status(self.head.reason)

    @property
    def scanned(self):
        return self.head.scanned

    @property
    def size(self):
        return self.head.size

    @property
    def method(self):
        return self.data[:self.head.method_size] if self.whole else b""

    @property
    def target(self):
        return self.data[self.head.target_at:self.head.target_at + self.head.target_size] if self.whole else b""

    @property
    def path(self):
        return self.data[self.head.target_at:self.head.target_at + self.head.path_size] if self.whole else b""

    @property
    def minor(self):
        return self.head.minor

    @property
    def content_length(self):
        return self.head.content_length

    @property
    def chunked(self):
        return self.head.chunked

    @property
    def has_body(self):
        return self.head.has_body

    @property
    def close(self):
        return self.head.close

    @property
    def expect(self):
        return self.head.expect

    @property
    def known(self):
        return self.head.host, self.head.content_type, self.head.content_encoding, self.head.connection

    @property
    def fields(self):
        return fields_of(self.data, self.head.fields, self.head.count) if self.whole else ()


cdef class ParsedResponse:
    cdef ResponseHead head
    cdef bytes data
    cdef bint whole

    @property
    def verdict(self):
        return VERDICTS[self.head.verdict]

    @property
    def reason(self):
        return reason_name(self.head.reason).decode()

    @property
    def detail(self):
        return reason_text(self.head.reason).decode()

    @property
    def scanned(self):
        return self.head.scanned

    @property
    def size(self):
        return self.head.size

    @property
    def status(self):
        return self.head.status

    @property
    def minor(self):
        return self.head.minor

    @property
    def content_length(self):
        return self.head.content_length

    @property
    def chunked(self):
        return self.head.chunked

    @property
    def close(self):
        return self.head.close

    @property
    def known(self):
        return self.head.content_type, self.head.connection

    @property
    def fields(self):
        return fields_of(self.data, self.head.fields, self.head.count) if self.whole else ()


def parse_request_head(
    bytes data not None, Py_ssize_t max_line=8192, Py_ssize_t max_head=32768, *, Py_ssize_t scanned=0
):
    cdef Limits1 limits
    cdef ParsedRequest parsed = ParsedRequest.__new__(ParsedRequest)
    set_limits(&limits, max_line, max_head)
    if not 0 <= scanned <= PyBytes_GET_SIZE(data):
        raise ValueError(f"expected scanned from 0 to the {len(data)} bytes there are, got {scanned}")
    parsed.data = data
    parsed.head.scanned = scanned
    parse_request(<const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &limits, &parsed.head)
    parsed.whole = parsed.head.verdict == TAKE or parsed.head.verdict == HAND_OVER
    return parsed


def parse_response_head(
    bytes data not None, Py_ssize_t max_line=8192, Py_ssize_t max_head=32768, *, Py_ssize_t scanned=0
):
    cdef Limits1 limits
    cdef ParsedResponse parsed = ParsedResponse.__new__(ParsedResponse)
    set_limits(&limits, max_line, max_head)
    if not 0 <= scanned <= PyBytes_GET_SIZE(data):
        raise ValueError(f"expected scanned from 0 to the {len(data)} bytes there are, got {scanned}")
    parsed.data = data
    parsed.head.scanned = scanned
    parse_response(<const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &limits, &parsed.head)
    parsed.whole = parsed.head.verdict == TAKE
    return parsed


def list_has_token(bytes value not None, bytes wanted not None):
    return has_token(
        <const unsigned char *>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value),
        PyBytes_AS_STRING(wanted), PyBytes_GET_SIZE(wanted),
    )


cdef class ChunkDecoder:
    cdef Chunks chunks
    cdef readonly bytes rest

    def __cinit__(self):
        self.rest = b""

    @property
    def ended(self):
        return self.chunks.ended

    @property
    def broken(self):
        return self.chunks.broken

    def feed(self, bytes data not None):
        cdef const unsigned char *at = <const unsigned char *>PyBytes_AS_STRING(data)
        cdef const unsigned char *end = at + PyBytes_GET_SIZE(data)
        cdef Piece piece
        cdef list pieces = []
        while True:
            at = next_piece(&self.chunks, at, end, &piece)
            if piece.size == 0:
                break
            pieces.append(piece.at[:piece.size])
        if self.chunks.ended:
            self.rest += at[:end - at]
        return b"".join(pieces)
