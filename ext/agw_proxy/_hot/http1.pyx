"""Heads and chunked bodies of HTTP/1.1, read strictly (RFC 9112, RFC 9110).

Theory of operation. A head is lexed from left to right, a line at a time (``http1_lines.pxi``), and each field is
weighed as soon as its line is whole (``http1_fields.pxi``): the first fault in the order of bytes is the one reported,
so that the answer does not depend on how the bytes were split. A head that is not whole keeps nothing but ``scanned``:
bytes that do not end a line lex that line anew, and bytes that end one lex the head anew, which ``MAX_FIELDS`` bounds.
``http1_chunks.pxi`` is the automaton of chunked bodies, ``http1_reason.pxi`` what a verdict looks like to the caller,
and ``http1_face.pxi`` what Python sees of all this: tests, fuzzers and tools, not the gateway.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp, memcpy

cdef extern from *:
    """
    /* Blocks of BLOCK bytes: which of them are control bytes (tab and DEL among them), and which are no letter, digit
       or dash, of which nearly all names are made. Only the first mark is exact. */
    #ifdef __SSE2__
    #include <emmintrin.h>
    #define AGW_BLOCK 16
    #define AGW_FIRST_MARK(m) __builtin_ctzll(m)
    #define AGW_UP_TO(x, most) _mm_cmpeq_epi8(_mm_min_epu8((x), _mm_set1_epi8(most)), (x))
    static inline uint64_t agw_controls(const unsigned char *p) {
        __m128i block = _mm_loadu_si128((const __m128i *)p);
        __m128i marks = _mm_or_si128(AGW_UP_TO(block, 0x1F), _mm_cmpeq_epi8(block, _mm_set1_epi8(0x7F)));
        return (unsigned int)_mm_movemask_epi8(marks);
    }
    static inline uint64_t agw_odd_in_name(const unsigned char *p) {
        __m128i block = _mm_loadu_si128((const __m128i *)p);
        __m128i letter = _mm_sub_epi8(_mm_or_si128(block, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
        __m128i digit = _mm_sub_epi8(block, _mm_set1_epi8('0'));
        __m128i plain = _mm_or_si128(AGW_UP_TO(letter, 25), AGW_UP_TO(digit, 9));
        plain = _mm_or_si128(plain, _mm_cmpeq_epi8(block, _mm_set1_epi8('-')));
        return (unsigned int)_mm_movemask_epi8(plain) ^ 0xFFFFU;
    }
    #else
    #define AGW_BLOCK 8
    #define AGW_ONES 0x0101010101010101ULL
    #define AGW_ZERO(w) (((w) - AGW_ONES) & ~(w))
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define AGW_FIRST_MARK(m) (__builtin_ctzll(m) >> 3)
    #else
    #define AGW_FIRST_MARK(m) 0 /* the caller goes on byte by byte */
    #endif
    static inline uint64_t agw_controls(const unsigned char *p) {
        uint64_t word;
        memcpy(&word, p, 8);
        return (((word - AGW_ONES * 0x20) & ~word) | AGW_ZERO(word ^ (AGW_ONES * 0x7F))) & (AGW_ONES << 7);
    }
    #define agw_odd_in_name(p) 1 /* the caller goes on byte by byte */
    #endif
    """
    enum:
        BLOCK "AGW_BLOCK"
    uint64_t controls "agw_controls"(const unsigned char *block) noexcept nogil
    uint64_t odd_in_name "agw_odd_in_name"(const unsigned char *block) noexcept nogil
    int first_mark "AGW_FIRST_MARK"(uint64_t marks) noexcept nogil

cdef extern from "<arpa/inet.h>" nogil:
    enum:
        AF_INET6
    int inet_pton(int family, const char *text, void *address)

# What a byte may be part of (RFC 9110 sections 5.5 and 5.6.2, RFC 3986).
cdef enum Class:
    TOKEN = 1       # tchar
    VISIBLE = 2     # of a target: VCHAR but "#"
    VALUE = 4       # of a field's value: VCHAR, obs-text, SP, HTAB
    NAMED = 8       # of a host: unreserved, sub-delims, "%"
    HEX = 16

cdef unsigned char CLASSES[256]


cdef void fill_tables():
    cdef int c
    for c in range(256):
        CLASSES[c] = 0
        if 0x20 <= c != 0x7F or c == 0x09:
            CLASSES[c] |= VALUE
        if 0x20 < c < 0x7F and c != 0x23:
            CLASSES[c] |= VISIBLE
    for c in b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ":
        CLASSES[c] |= TOKEN | NAMED
    for c in b"!#$%&'*+-.^_`|~":
        CLASSES[c] |= TOKEN
    for c in b"-._~!$&'()*+,;=%":
        CLASSES[c] |= NAMED
    for c in b"0123456789abcdefABCDEF":
        CLASSES[c] |= HEX


fill_tables()

include "http1_lines.pxi"
include "http1_fields.pxi"
include "http1_chunks.pxi"
include "http1_reason.pxi"
include "http1_face.pxi"


cdef bint has_token(
    const unsigned char *value, Py_ssize_t size, const char *wanted, Py_ssize_t wanted_size
) noexcept nogil:
    cdef const unsigned char *end = value + size
    cdef Piece element
    while value < end:
        value = next_element(value, end, &element)
        if name_is(element.at, element.size, wanted, wanted_size):
            return True
    return False


cdef inline bint resumed(const unsigned char *text, Py_ssize_t size, Py_ssize_t scanned) noexcept nogil:
    """Whether the bytes since the last call do not even end the line that was open: it alone is lexed."""
    return 0 < scanned < size and memchr(text + scanned, b"\n", size - scanned) == NULL


cdef void begin(Walk *walk, const unsigned char *text, Py_ssize_t size, const Limits1 *limits) noexcept nogil:
    walk.text = text
    walk.end = text + min(size, limits.max_head)
    walk.line = walk.at = text
    walk.max_line = limits.max_line
    walk.reason = NO_REASON


cdef int unfinished(Walk *walk, const Limits1 *limits, Py_ssize_t *scanned) noexcept nogil:
    """The bytes ran out in the line at ``walk.line``: note it, or refuse a head that has used up its room."""
    if walk.end - walk.text >= limits.max_head:
        walk.at = walk.end
        walk.reason = LARGE_HEAD
        return REFUSE
    # Of a line without a byte yet, the end of the line before is kept: its first byte is met by the whole walk,
    # which knows how many fields there were.
    scanned[0] = walk.line - walk.text - (1 if walk.line == walk.end and walk.line > walk.text else 0)
    return MORE


cdef void parse_request(
    const unsigned char *text, Py_ssize_t size, const Limits1 *limits, RequestHead *head
) noexcept nogil:
    cdef Walk walk
    cdef Seen seen
    cdef Field line
    cdef int step
    begin(&walk, text, size, limits)
    head.size = 0
    if resumed(text, size, head.scanned):
        walk.line = walk.at = text + head.scanned
        step = read_field(&walk, &line)
    else:
        clear_request(head, &seen)
        step = read_request_line(&walk, head, &seen)
        while step == LINE:
            walk.line = walk.at
            if head.count == MAX_FIELDS:
                step = past_last_field(&walk)
                if step != LINE:
                    break
            step = read_field(&walk, &head.fields[head.count])
            if step == LINE:
                head.count += 1
                if not weigh_request_field(&walk, head, &seen):
                    step = FAULT
        if step == LAST and not weigh_request(&walk, head, &seen):
            step = FAULT
    if step == LAST:
        head.reason = seen.unusual
        head.verdict = TAKE if seen.unusual == NO_REASON else HAND_OVER
    elif step == SHORT:
        head.verdict = unfinished(&walk, limits, &head.scanned)
        head.reason = walk.reason
    else:
        head.verdict = REFUSE
        head.reason = walk.reason
    if head.verdict != MORE:
        head.size = walk.at - text


cdef void parse_response(
    const unsigned char *text, Py_ssize_t size, const Limits1 *limits, ResponseHead *head
) noexcept nogil:
    cdef Walk walk
    cdef Seen seen
    cdef Field line
    cdef int step
    begin(&walk, text, size, limits)
    head.size = 0
    if resumed(text, size, head.scanned):
        walk.line = walk.at = text + head.scanned
        step = read_field(&walk, &line)
    else:
        clear_response(head, &seen)
        step = read_status_line(&walk, head)
        while step == LINE:
            walk.line = walk.at
            if head.count == MAX_FIELDS:
                step = past_last_field(&walk)
                if step != LINE:
                    break
            step = read_field(&walk, &head.fields[head.count])
            if step == LINE:
                head.count += 1
                if not weigh_response_field(&walk, head, &seen):
                    step = FAULT
        if step == LAST:
            head.close = seen.closes or (head.minor == 0 and not seen.keeps)
    head.reason = NO_REASON
    if step == LAST:
        head.verdict = TAKE
    elif step == SHORT:
        head.verdict = unfinished(&walk, limits, &head.scanned)
        head.reason = walk.reason
    else:
        head.verdict = REFUSE
        head.reason = walk.reason
    if head.verdict != MORE:
        head.size = walk.at - text
