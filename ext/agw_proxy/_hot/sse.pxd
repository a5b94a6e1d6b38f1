# Reading answers in passing: a stream of server-sent events, or one JSON document.
#
# For the lane: push() takes the bytes as they came and leaves what is to be passed on now in `ready`, `ready_size`
# (inside the caller's bytes or in the stream's own memory; valid until the next call). Python objects are made
# only for the first error event.

from libc.stdint cimport uint64_t

cdef enum:
    ERROR_BYTES = 65536         # kept of an error event's data; providers send a few hundred bytes
    REASON_BYTES = 64           # kept of a finish_reason; the known ones have under 20
    TOKEN_BYTES = 384           # of a name, finish_reason or number as written: REASON_BYTES with all of it escaped
    LAYERS = 5                  # containers whose members we know; deeper ones are only counted
    PING_BYTES = 64             # of data; an unfinished event that is longer is no ping
    DEEPEST_WORDS = 4           # 64 containers inside one another each; beyond them the text is not looked at
    KEPT_BYTES = 262144         # a buffer larger than this is given back as soon as it is empty
    NUMBERS = 14                # of the usage object and a choice, see Role of sse_names.pxi
    CHOICES_TOLD_APART = 64     # of one chat, a bit each; what is said of others ends nothing
    TYPE_BYTES = 64             # of an event's type; the longest that we know has some 50

# One JSON text, scanned as it comes. Plain memory: copy and clear freely.
cdef struct Json:
    int state
    int depth
    int role                            # of the value that comes next
    int layers[LAYERS + 1]              # what the open container at each depth is to us
    uint64_t arrays[DEEPEST_WORDS]     # one bit a depth: an array
    bint keep                           # the token is of interest
    bint name                           # the string is a member's name
    bint escaped
    Py_ssize_t length                   # of the token, as written
    unsigned char token[TOKEN_BYTES]
    # What was found
    bint counted                        # numbers: a usage object was there
    int usage                           # Kind of the top-level member: ABSENT, NULL_, OBJECT or OTHER
    bint choices_empty                  # the top-level member is an empty array
    bint error                          # the top-level member is there and not null
    bint content                        # a choice carries something
    bint stopped                        # the open one has told its finish_reason
    uint64_t choices, ended             # which were there, and which of them had a finish_reason
    int type                            # Type of sse_names.pxi, by the top-level member
    bint response                       # the top-level ``object`` is "response"
    long long numbers[NUMBERS]
    int reason_role                     # where the reason stood: IS_REASON, IS_STOP or IS_STATUS
    int reason_size
    unsigned char reason[REASON_BYTES]

cdef void json_clear(Json *json) noexcept nogil
cdef void json_feed(Json *json, const unsigned char *p, const unsigned char *end) noexcept nogil
cdef bint json_closed(const Json *json) noexcept nogil

cdef struct Buffer:
    unsigned char *data
    Py_ssize_t size
    Py_ssize_t room

cdef int append(Buffer *buffer, const unsigned char *data, Py_ssize_t size) except -1
cdef void release(Buffer *buffer) noexcept

cdef class Stream:
    cdef readonly long long events, content, pings, progress, prompt_tokens, completion_tokens, cached_tokens
    cdef readonly bint done, finished, failed, at_boundary
    cdef readonly bytes error
    cdef readonly str finish_reason
    cdef bint _strip_usage
    cdef Py_ssize_t _max_event_bytes, _max_hold_bytes
    # Ready to pass on
    cdef const unsigned char *ready
    cdef Py_ssize_t ready_size
    cdef Buffer _out                    # puts `ready` together where it is not one piece of the caller's bytes
    cdef Buffer _hold                   # the unfinished event
    # The line
    cdef int _part                      # where in it we are: Part of sse.pyx
    cdef int _prefix_size
    cdef unsigned char _prefix[TYPE_BYTES]  # the field's name (and a byte order mark), then the event's type
    cdef bint _first_line, _skip_lf, _ended
    cdef uint64_t _choices, _ended_choices  # of a chat, by their index: which began, and which told their finish_reason
    cdef bint _dropped                  # the event before was, and a line feed that belongs to it goes as well
    # The event
    cdef Py_ssize_t _event_size         # bytes of it in earlier chunks
    cdef Py_ssize_t _data_size          # bytes of its data so far, lines joined
    cdef Py_ssize_t _seen_size          # of its data, at the end of the chunk before
    cdef int _named                     # Type, by its field ``event``
    cdef bint _has_data, _has_field, _passing
    cdef Json _json
    cdef Buffer _data                   # its data but the newest piece, at most ERROR_BYTES
    cdef const unsigned char *_piece    # the newest, in the caller's bytes
    cdef Py_ssize_t _piece_size

    cdef int push(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef int close(self) except -1      # at the end of the body: `ready` is what was held
    cdef bint terminal(self) noexcept   # `complete`
    cdef void _begin_event(self) noexcept
    cdef int _take_line(self, const unsigned char *p, const unsigned char *stop) except -1
    cdef int _take_data(self, const unsigned char *p, const unsigned char *end) except -1
    cdef int _settle_piece(self) except -1
    cdef int _name_ends(self) except -1
    cdef int _line_ends(self) except -1             # 1: it was blank
    cdef int _event_ends(self, Py_ssize_t size) except -1     # 1: it is not to be passed on
    cdef int _read_data(self, bint may_go) except -1          # 1: it is the usage event that nobody asked for
    cdef int _read_json(self) except -1
    cdef int _leave(
        self, const unsigned char *start, const unsigned char *event, const unsigned char *end
    ) except -1
    cdef int _emit(self, const unsigned char *start, const unsigned char *end) except -1

cdef class Document:
    cdef Json _json
    cdef void usage(self, long long *prompt, long long *completion, long long *cached) noexcept nogil
    cdef void push(self, const unsigned char *data, Py_ssize_t size) noexcept nogil
