"""Reading answers in passing: event boundaries, usage and finish reason out of a stream (or a JSON answer).

Theory of operation. ``Stream`` walks lines (WHATWG HTML section 9.2: LF, CR or CRLF), lines make events, and the
data of an event runs through the incremental scanner of ``sse_json.pxi`` as it comes, so that nothing depends on how
the bytes are split and no event has to be in memory whole. What an event says counts when it has ended. Bytes are
passed on up to the last boundary; the rest is held, so that on a break an error event can stand between whole ones.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy

from .peek cimport Spelling, next_byte, spelling

cdef extern from *:
    """
    #define AGW_ONES 0x0101010101010101ULL
    #define AGW_ZERO(w) (((w) - AGW_ONES) & ~(w))
    /* Marks quotes and backslashes in a word; only the lowest mark is exact. */
    #define AGW_QUOTES(w) ((AGW_ZERO((w) ^ (AGW_ONES * '"')) | AGW_ZERO((w) ^ (AGW_ONES * '\\\\'))) & (AGW_ONES << 7))
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define AGW_FIRST_MARK(m) (__builtin_ctzll(m) >> 3)
    #else
    #define AGW_FIRST_MARK(m) 0 /* the caller goes on byte by byte */
    #endif
    #ifdef __SSE2__
    #include <emmintrin.h>
    #define AGW_BLOCK 16
    #undef AGW_FIRST_MARK
    #define AGW_FIRST_MARK(m) __builtin_ctzll(m)
    static inline uint64_t agw_quotes(const unsigned char *p) {
        __m128i block = _mm_loadu_si128((const __m128i *)p);
        __m128i marks = _mm_cmpeq_epi8(block, _mm_set1_epi8('"'));
        marks = _mm_or_si128(marks, _mm_cmpeq_epi8(block, _mm_set1_epi8('\\\\')));
        return (unsigned int)_mm_movemask_epi8(marks);
    }
    #else
    #define AGW_BLOCK 8
    static inline uint64_t agw_quotes(const unsigned char *p) {
        uint64_t word;
        memcpy(&word, p, 8);
        return AGW_QUOTES(word);
    }
    #endif
    """
    enum:
        BLOCK "AGW_BLOCK"
    uint64_t quotes "agw_quotes"(const unsigned char *block) noexcept nogil
    int first_mark "AGW_FIRST_MARK"(uint64_t marks) noexcept nogil

# Where in a line we are.
cdef enum Part:
    IN_NAME, BEFORE_DATA, IN_DATA, BEFORE_TYPE, IN_TYPE, IN_REST

cdef const unsigned char *NEWLINE = <const unsigned char *>b"\n"

include "sse_names.pxi"
include "sse_json.pxi"


cdef inline bint opens_object(const unsigned char *data, Py_ssize_t size) noexcept nogil:
    """What the scanner took for closed begins as an object: it reads other texts, and what is no JSON, too kindly."""
    cdef Py_ssize_t at = 0
    while at < size and (data[at] == b" " or data[at] == b"\n" or data[at] == b"\r" or data[at] == b"\t"):
        at += 1
    return at < size and data[at] == b"{"


class EventTooLong(ValueError):
    """One event is longer than the bound."""


cdef int append(Buffer *buffer, const unsigned char *data, Py_ssize_t size) except -1:
    cdef Py_ssize_t room = buffer.room
    cdef unsigned char *grown
    if size <= 0:
        return 0
    if buffer.size + size > room:
        room = max(room * 2, buffer.size + size, 512)
        grown = <unsigned char *>realloc(buffer.data, room)
        if grown == NULL:
            raise MemoryError
        buffer.data = grown
        buffer.room = room
    memcpy(buffer.data + buffer.size, data, size)
    buffer.size += size
    return 0


cdef void release(Buffer *buffer) noexcept:
    free(buffer.data)
    buffer.data = NULL
    buffer.size = buffer.room = 0


cdef inline const unsigned char *find(const unsigned char *p, const unsigned char *end, int byte) noexcept nogil:
    cdef const void *found = memchr(p, byte, end - p)
    return <const unsigned char *>found if found != NULL else end


@cython.final
cdef class Stream:
    """Follows one ``text/event-stream`` of Chat Completions, Messages, Responses or Gemini, fed in any chunking."""

    def __cinit__(
        self, *, bint strip_usage=False, Py_ssize_t max_event_bytes=16777216, Py_ssize_t max_hold_bytes=65536
    ):
        if max_event_bytes < 1 or max_hold_bytes < 0:
            raise ValueError(f"bounds must not be negative, got {max_event_bytes} and {max_hold_bytes}")
        self._strip_usage = strip_usage
        self._max_event_bytes = max_event_bytes
        self._max_hold_bytes = max_hold_bytes
        self.prompt_tokens = self.completion_tokens = self.cached_tokens = -1
        self.at_boundary = self._first_line = True
        self._part = IN_NAME
        self._begin_event()

    def __dealloc__(self):
        release(&self._out)
        release(&self._hold)
        release(&self._data)

    cdef bint terminal(self) noexcept:
        return self.done or self.finished or (self._choices != 0 and self._choices == self._ended_choices)

    cdef void _begin_event(self) noexcept:
        self._event_size = self._data_size = self._data.size = self._piece_size = self._seen_size = 0
        self._has_data = self._has_field = self._passing = False
        self._named = UNTYPED
        self._piece = NULL
        json_clear(&self._json)

    cdef int _settle_piece(self) except -1:
        """Copy the newest piece of data, before the bytes it lies in go or another comes."""
        cdef const unsigned char *piece = self._piece
        cdef Py_ssize_t size = min(self._piece_size, ERROR_BYTES - self._data.size)
        self._piece = NULL
        self._piece_size = 0
        if piece != NULL:
            append(&self._data, piece, size)
        return 0

    cdef int _take_data(self, const unsigned char *p, const unsigned char *end) except -1:
        if p < end:
            self._settle_piece()
            self._piece = p
            self._piece_size = end - p
            self._data_size += end - p
            json_feed(&self._json, p, end)
        return 0

    cdef int _name_ends(self) except -1:
        """The field's name is in ``_prefix``; an empty one makes a comment."""
        cdef const unsigned char *name = self._prefix
        cdef int size = self._prefix_size
        if self._first_line and size >= 3 and name[0] == 0xEF and name[1] == 0xBB and name[2] == 0xBF:
            name += 3
            size -= 3
        self._prefix_size = 0
        self._part = IN_REST
        if size == 0:
            return 0
        self._has_field = True
        if size == 4 and memcmp(name, <const char *>b"data", 4) == 0:
            if self._has_data:
                self._take_data(NEWLINE, NEWLINE + 1)
            self._has_data = True
            self._part = BEFORE_DATA
        elif size == 5 and memcmp(name, <const char *>b"event", 5) == 0:
            self._part = BEFORE_TYPE
        return 0

    cdef int _take_line(self, const unsigned char *p, const unsigned char *stop) except -1:
        """A piece of a line, without its end."""
        if self._part == IN_NAME:
            while p < stop and p[0] != b":":
                if self._prefix_size < TYPE_BYTES:
                    self._prefix[self._prefix_size] = p[0]
                    self._prefix_size += 1
                p += 1
            if p == stop:
                return 0
            p += 1
            self._name_ends()
        if p < stop and (self._part == BEFORE_DATA or self._part == BEFORE_TYPE):
            if p[0] == b" ":
                p += 1
            self._part = IN_DATA if self._part == BEFORE_DATA else IN_TYPE
        if self._part == IN_DATA:
            self._take_data(p, stop)
        elif self._part == IN_TYPE:
            while p < stop and self._prefix_size < TYPE_BYTES:
                self._prefix[self._prefix_size] = p[0]
                self._prefix_size += 1
                p += 1
        return 0

    cdef int _line_ends(self) except -1:
        cdef bint blank = False
        if self._part == IN_NAME:
            blank = self._prefix_size == 0
            if not blank:
                # Either a name without a colon, which is a field with an empty value, or nothing but the mark.
                self._name_ends()
                blank = self._first_line and self._part == IN_REST and not self._has_field
        if self._part == IN_TYPE or self._part == BEFORE_TYPE:
            self._named = type_of(self._prefix, self._prefix_size)
        self._part = IN_NAME
        self._prefix_size = 0
        self._first_line = False
        return blank

    cdef int _read_data(self, bint may_go) except -1:
        cdef Json *json = &self._json
        cdef const unsigned char *data
        cdef Py_ssize_t size
        cdef bint closed = json_closed(json), strip, fault
        if self._data.size:
            self._settle_piece()
            data, size = self._data.data, self._data.size
        else:
            data, size = self._piece, self._piece_size
        if self._data_size <= 64:
            while size and (data[size - 1] == b" " or data[size - 1] == b"\t"):
                size -= 1
            while size and (data[0] == b" " or data[0] == b"\t"):
                data += 1
                size -= 1
            if size == 6 and memcmp(data, <const char *>b"[DONE]", 6) == 0:
                self.done = True
                self.progress += 1
                return 0
        strip = False
        fault = self._named == FAULT
        if closed and opens_object(data, size):
            fault = fault or json.error or json.type == FAULT
            strip = may_go and json.choices_empty and json.usage >= OBJECT and not fault
            self._read_json()
        else:
            self.progress += 1
        if self.error is None and fault:
            self.error = PyBytes_FromStringAndSize(<const char *>data, min(size, ERROR_BYTES))
        self.events += not strip
        return strip

    cdef int _read_json(self) except -1:
        """What a whole JSON object says: what kind of event it is, tokens, why the answer has ended."""
        cdef Json *json = &self._json
        cdef int type_ = json.type if json.type != UNTYPED else self._named
        cdef long long prompt, completion, cached
        if json.counted:
            prompt, completion, cached = prompt_of(json), completion_of(json), cached_of(json)
            if type_ == CUMULATIVE:     # adds to what the first event has told
                prompt, cached = max(prompt, self.prompt_tokens), max(cached, self.cached_tokens)
                completion = completion if completion >= 0 else self.completion_tokens
            self.prompt_tokens, self.completion_tokens, self.cached_tokens = prompt, completion, cached
        if json.reason_size and (json.reason_role != IS_STATUS or type_ == LAST or type_ == FAILED):
            self.finish_reason = json.reason[:json.reason_size].decode("utf-8", "replace")
        self._choices |= json.choices
        self._ended_choices |= json.ended
        if type_ == LAST or type_ == FAILED:
            self.finished = True
            self.failed = self.failed or type_ == FAILED
        self.content += json.content or type_ == CONTENT
        if type_ == PING:
            self.pings += 1
        else:
            self.progress += 1
        return 0

    cdef int _event_ends(self, Py_ssize_t size) except -1:
        """``size``: bytes of it in all. One that is longer than what is held may have gone already: never dropped."""
        cdef bint may_go = size <= self._max_hold_bytes
        if size > self._max_event_bytes:
            self._ended = True
            raise EventTooLong(f"expected events of at most {self._max_event_bytes} bytes, got one of {size}")
        if self._has_data:
            self._dropped = self._read_data(may_go and self._strip_usage)
        else:
            self._dropped = may_go and self._has_field
        self._begin_event()
        return self._dropped

    cdef int _emit(self, const unsigned char *start, const unsigned char *end) except -1:
        """The last bytes to pass on now."""
        if self._out.size:
            append(&self._out, start, end - start)
            self.ready, self.ready_size = self._out.data, self._out.size
        else:
            self.ready, self.ready_size = start, end - start
        return 0

    cdef int push(self, const unsigned char *data, Py_ssize_t size) except -1:
        cdef const unsigned char *p = data
        cdef const unsigned char *end = data + size
        cdef const unsigned char *start = data      # passed on from here; before it is in `_out`, or dropped
        cdef const unsigned char *event = data      # where the event begins, or goes on
        cdef const unsigned char *lf = NULL         # the next of each at or after p, so that each is looked for once
        cdef const unsigned char *cr = NULL
        cdef const unsigned char *after
        self.ready, self.ready_size = data, 0
        self._piece = NULL      # only an exception leaves one behind
        self._out.size = 0
        if self._out.room > KEPT_BYTES:
            release(&self._out)
        if self._ended:
            raise ValueError("expected no more bytes after the end of the stream")
        if size == 0:
            return 0
        if self._skip_lf:
            self._skip_lf = False
            if p[0] == b"\n":
                p += 1
                if self._event_size == 0:
                    event = p
                    start = p if self._dropped else data
        while p < end:
            if lf == NULL or lf < p:
                lf = find(p, end, b"\n")
            if cr == NULL or cr < p:
                cr = find(p, end, b"\r")
            after = min(lf, cr)
            if p < after:
                self._take_line(p, after)
            if after == end:
                break
            p = after + 1
            if after == cr:
                if p == end:
                    self._skip_lf = True
                elif p[0] == b"\n":
                    p += 1
            if not self._line_ends():
                continue
            if self._event_ends(self._event_size + (after + 1 - event)):
                append(&self._out, start, event - start)
                start = p
            else:
                append(&self._out, self._hold.data, self._hold.size)
            self._hold.size = 0
            event = p
        return self._leave(start, event, end)

    cdef int _leave(
        self, const unsigned char *start, const unsigned char *event, const unsigned char *end
    ) except -1:
        """At the end of a chunk: decide about the unfinished event."""
        self._settle_piece()
        self._event_size += end - event
        if self._data_size > PING_BYTES and self._data_size > self._seen_size:
            self._seen_size = self._data_size
            self.progress += 1
        if self._event_size > self._max_event_bytes:
            self._ended = True
            raise EventTooLong(f"expected events of at most {self._max_event_bytes} bytes, got a longer one")
        if self._event_size > self._max_hold_bytes and not self._passing:
            self._passing = True
            append(&self._out, self._hold.data, self._hold.size)
            self._hold.size = 0
        self.at_boundary = not self._passing
        if self._passing:
            self._emit(start, end)
        else:
            append(&self._hold, event, end - event)
            self._emit(start, event)
        return 0

    cdef int close(self) except -1:
        self.ready, self.ready_size = NULL, 0
        self._piece = NULL
        if self._ended:
            return 0
        self._ended = True
        if self._event_size:
            self._line_ends()
            if not self._event_ends(self._event_size):
                self.ready, self.ready_size = self._hold.data, self._hold.size
                self.at_boundary = False
        return 0

    def feed(self, bytes chunk not None):
        cdef const unsigned char *data = <const unsigned char *>PyBytes_AS_STRING(chunk)
        self.push(data, PyBytes_GET_SIZE(chunk))
        if self.ready == data and self.ready_size == PyBytes_GET_SIZE(chunk):
            return chunk
        return PyBytes_FromStringAndSize(<const char *>self.ready, self.ready_size)

    def finish(self):
        self.close()
        return PyBytes_FromStringAndSize(<const char *>self.ready, self.ready_size)

    @property
    def complete(self):
        return self.terminal()


include "sse_document.pxi"
