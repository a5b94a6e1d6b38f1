"""A look into a JSON request body without building objects: what policy needs, and the spans needed to rewrite it.

Theory of operation. One pass, no recursion but one: ``read_members`` walks the members of the top level (and, called
once from there, those of ``stream_options``), ``skip_value`` validates every value of no interest with a stack of its
own. Every step takes the place it starts at and returns the place after what it read, or NULL when the fault has been
noted. Policy and upstream must not read two different requests, so what parsers disagree about is refused: duplicate
names, bytes that are not UTF-8, NaN, unbounded numbers and depth.
"""

import json
import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memcmp, memcpy, memset

cdef extern from *:
    """
    typedef unsigned __int128 agw_u128;
    #define AGW_ONES 0x0101010101010101ULL
    #define AGW_HIGH 0x8080808080808080ULL
    /* Marks bytes of a word that end a run of plain string content: controls, quote, backslash, not ASCII. Borrows can
       mark bytes above a marked one wrongly, so only the lowest mark (first in memory on little-endian) is exact. */
    #define AGW_ZERO(w) (((w) - AGW_ONES) & ~(w))
    #define AGW_MARKS(w) ((((((w) - AGW_ONES * 0x20) & ~(w)) | AGW_ZERO((w) ^ (AGW_ONES * '"')) \
        | AGW_ZERO((w) ^ (AGW_ONES * '\\\\'))) | (w)) & AGW_HIGH)
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define AGW_FIRST_MARK(m) (__builtin_ctzll(m) >> 3)
    #else
    #define AGW_FIRST_MARK(m) 0 /* the caller goes on byte by byte */
    #endif
    /* The same of sixteen bytes where the machine can, each bit exact; otherwise nonzero where there is any. */
    #ifdef __SSE2__
    #include <emmintrin.h>
    static inline unsigned int agw_marks_16(const unsigned char *p) {
        __m128i block = _mm_loadu_si128((const __m128i *)p);
        /* As signed numbers, what is not ASCII is below the controls. */
        __m128i marks = _mm_cmplt_epi8(block, _mm_set1_epi8(0x20));
        marks = _mm_or_si128(marks, _mm_cmpeq_epi8(block, _mm_set1_epi8('"')));
        marks = _mm_or_si128(marks, _mm_cmpeq_epi8(block, _mm_set1_epi8('\\\\')));
        return (unsigned int)_mm_movemask_epi8(marks);
    }
    #define AGW_FIRST_MARK_16(p, m) __builtin_ctz(m)
    #else
    static inline unsigned int agw_marks_16(const unsigned char *p) {
        uint64_t one, two;
        memcpy(&one, p, 8);
        memcpy(&two, p + 8, 8);
        return AGW_MARKS(one) || AGW_MARKS(two);
    }
    static inline int agw_first_mark_16(const unsigned char *p) {
        uint64_t word;
        memcpy(&word, p, 8);
        if (AGW_MARKS(word)) return AGW_FIRST_MARK(AGW_MARKS(word));
        memcpy(&word, p + 8, 8);
        return 8 + AGW_FIRST_MARK(AGW_MARKS(word));
    }
    #define AGW_FIRST_MARK_16(p, m) agw_first_mark_16(p)
    #endif
    """
    unsigned int marks_16 "agw_marks_16"(const unsigned char *block) noexcept nogil
    int first_mark_16 "AGW_FIRST_MARK_16"(const unsigned char *block, unsigned int marks) noexcept nogil
    ctypedef unsigned long long u128 "agw_u128"

cdef enum Fault:
    FINE, EMPTY, BOM, TOP, NAME, COLON, NEXT_MEMBER, NEXT_ELEMENT, VALUE, LITERAL, NUMBER, LEADING_ZERO, LONG_NUMBER
    UNCLOSED, CONTROL, ESCAPE, HEX, SURROGATE, UTF8, DEPTH, TOO_MANY, DUPLICATE, TRAILING, TYPE, COUNT

cdef enum Known:
    NONE, MODEL, STREAM, USER, TOOLS, FUNCTIONS, MAX_COMPLETION_TOKENS, MAX_OUTPUT_TOKENS, MAX_TOKENS, OPTIONS
    INCLUDE_USAGE, FALLBACKS
    NOTED                           # + NOTE_ of peek.pxd: members of any kind, whose spans alone are kept

cdef struct Walk:
    const unsigned char *text
    const unsigned char *end
    Seen *seen
    int max_depth
    bint escaped                    # the last string read has an escape
    int names                       # of the members open now
    uint64_t hashes[MEMBERS]
    Py_ssize_t starts[MEMBERS]      # of the names, at their quotes

include "peek_fault.pxi"
include "peek_text.pxi"
include "peek_names.pxi"
include "peek_splice.pxi"


cdef const unsigned char *read_text(Walk *walk, int which, const unsigned char *p) noexcept nogil:
    """``model`` or ``user``: a string whose escapes spell whole characters."""
    cdef const unsigned char *after = skip_string(walk, p + 1)
    cdef Seen *seen = walk.seen
    cdef Spelling cursor
    cdef int c = 0
    if after == NULL:
        return NULL
    if walk.escaped:
        seen.escaped = True
        cursor = spelling(p + 1, after - 1)
        while c >= 0:
            c = next_byte(&cursor)
        if c == -2:
            return fail(walk, SURROGATE, p, which)
    if which == MODEL:
        seen.model_escaped = walk.escaped
        seen.model = after - p > 2
    else:
        seen.user_escaped = walk.escaped
        seen.user = True
    return after


cdef const unsigned char *read_count(Walk *walk, int which, const unsigned char *p, long long *count) noexcept nogil:
    """A non-negative integer that fits 63 bits."""
    cdef const unsigned char *after = skip_number(walk, p)
    cdef const unsigned char *digit = p
    cdef uint64_t value = 0
    if after == NULL:
        return NULL
    if after - p > 19:              # 2^63 has 19 digits; 19 digits fit 64 bits
        return fail(walk, COUNT, p, which)
    while digit < after:
        if not b"0" <= digit[0] <= b"9":
            return fail(walk, COUNT, p, which)
        value = value * 10 + (digit[0] - 0x30)
        digit += 1
    if value >> 63:
        return fail(walk, COUNT, p, which)
    count[0] = <long long>value
    return after


cdef const unsigned char *read_value(Walk *walk, int which, const unsigned char *p, long long *counts) noexcept nogil:
    """The value of a member that we look at. ``null`` counts as absent everywhere; its span is kept for ``rewrite``."""
    cdef Seen *seen = walk.seen
    cdef const unsigned char *after
    cdef unsigned char c = p[0] if p < walk.end else 0
    if c == b"n":
        after = skip_scalar(walk, p)
    elif which == MODEL or which == USER:
        if c != b'"':
            return fail(walk, TYPE, p, which)
        after = read_text(walk, which, p)
    elif which == STREAM or which == INCLUDE_USAGE:
        if c != b"t" and c != b"f":
            return fail(walk, TYPE, p, which)
        after = skip_scalar(walk, p)
        if which == STREAM:
            seen.stream = c == b"t"
        else:
            seen.include_usage = c == b"t"
    elif which == TOOLS or which == FUNCTIONS:
        if c != b"[":
            return fail(walk, TYPE, p, which)
        after = skip_value(walk, p, 1)
        if after != NULL and skip_space(p + 1, walk.end)[0] != b"]":
            seen.tools = True
    elif which == FALLBACKS:
        if c != b"[":
            return fail(walk, TYPE, p, which)
        after = skip_value(walk, p, 1)
    elif which == OPTIONS:
        if c != b"{":
            return fail(walk, TYPE, p, which)
        if walk.max_depth < 2:
            return fail(walk, DEPTH, p)
        seen.options = True
        after = read_members(walk, p + 1, False)
    else:
        if c != b"-" and not b"0" <= c <= b"9":
            return fail(walk, TYPE, p, which)
        after = read_count(walk, which, p, &counts[which - MAX_COMPLETION_TOKENS])
    if after == NULL:
        return NULL
    if which == MODEL:
        seen.model_start, seen.model_end = p - walk.text, after - walk.text
    elif which == USER:
        seen.user_start, seen.user_end = p - walk.text, after - walk.text
    elif which == OPTIONS:
        seen.options_start, seen.options_end = p - walk.text, after - walk.text
    elif which == INCLUDE_USAGE:
        seen.usage_start, seen.usage_end = p - walk.text, after - walk.text
    elif which == FALLBACKS:
        seen.fallbacks_name = walk.starts[walk.names - 1]
        seen.fallbacks_start, seen.fallbacks_end = p - walk.text, after - walk.text
    return after


cdef const unsigned char *read_members(Walk *walk, const unsigned char *p, bint top) noexcept nogil:
    """The members of the body (``top``) or of ``stream_options``, from after the brace to after the closing one."""
    cdef const unsigned char *end = walk.end
    cdef const unsigned char *name
    cdef const unsigned char *value
    cdef long long counts[3]
    cdef int first = walk.names, which, i
    counts[0] = counts[1] = counts[2] = -1
    p = skip_space(p, end)
    if p < end and p[0] == b"}":
        return p + 1
    while True:
        name = p
        if p >= end or p[0] != b'"':
            return fail(walk, NAME, p)
        p = skip_string(walk, p + 1)
        if p == NULL:
            return NULL
        which = enter_name(walk, name, p, first, top)
        if which < 0:
            return NULL
        p = skip_colon(walk, p)
        if p == NULL:
            return NULL
        if which >= NOTED:
            value = p
            p = skip_value(walk, p, 1)
            if p != NULL:
                walk.seen.noted[which - NOTED].start = value - walk.text
                walk.seen.noted[which - NOTED].end = p - walk.text
        elif which != NONE and kind_known(p, end):
            p = read_value(walk, which, p, counts)
        else:
            p = skip_value(walk, p, 1 if top else 2)
        if p == NULL:
            return NULL
        p = skip_space(p, end)
        if p < end and p[0] == b",":
            p = skip_space(p + 1, end)
        elif p < end and p[0] == b"}":
            break
        else:
            return fail(walk, NEXT_MEMBER, p)
    if top:
        walk.seen.members = walk.names
        for i in range(3):
            if counts[i] >= 0:
                walk.seen.max_tokens = counts[i]
                break
    else:
        walk.seen.options_members = walk.names - first
        walk.names = first
    return p + 1


cdef inline bint kind_known(const unsigned char *p, const unsigned char *end) noexcept nogil:
    """Whether a JSON value begins here: only then is it worth saying that it has the wrong type."""
    cdef unsigned char c = p[0] if p < end else 0
    return (
        c == b'"' or c == b"{" or c == b"[" or c == b"-" or b"0" <= c <= b"9" or c == b"t" or c == b"f" or c == b"n"
    )


cdef void clear(Seen *seen) noexcept nogil:
    memset(seen, 0, sizeof(Seen))
    seen.size = seen.model_start = seen.model_end = seen.user_start = seen.user_end = -1
    seen.options_start = seen.options_end = seen.usage_start = seen.usage_end = seen.max_tokens = -1
    seen.fallbacks_name = seen.fallbacks_start = seen.fallbacks_end = -1


cdef bint scan(const unsigned char *text, Py_ssize_t size, int max_depth, Seen *seen) noexcept nogil:
    """Validate and read ``text``. ``max_depth``: 1 to DEEPEST. False: ``seen`` holds the fault."""
    cdef Walk walk
    cdef const unsigned char *p = skip_space(text, text + size)
    clear(seen)
    walk.text = text
    walk.end = text + size
    walk.seen = seen
    walk.max_depth = max_depth
    walk.escaped = False
    walk.names = 0
    if p >= walk.end:
        return fail(&walk, EMPTY, p) != NULL
    if p[0] != b"{":
        if p[0] == 0xEF and walk.end - p >= 3 and p[1] == 0xBB and p[2] == 0xBF:
            return fail(&walk, BOM, p) != NULL
        return fail(&walk, TOP if kind_known(p, walk.end) else VALUE, p) != NULL
    p = read_members(&walk, p + 1, True)
    if p == NULL:
        return False
    seen.close_at = p - 1 - text
    p = skip_space(p, walk.end)
    if p < walk.end:
        return fail(&walk, TRAILING, p) != NULL
    seen.size = size
    return True


cdef class Peek:
    """What was seen. Spans are byte offsets of values as written, quotes included; -1 where there is no such member."""

    def __cinit__(self):
        clear(&self.seen)

    @property
    def model_start(self):
        return self.seen.model_start

    @property
    def model_end(self):
        return self.seen.model_end

    @property
    def stream(self):
        return self.seen.stream

    @property
    def max_tokens(self):
        return self.seen.max_tokens

    @property
    def tools(self):
        return self.seen.tools

    @property
    def include_usage(self):
        return self.seen.include_usage

    @property
    def stream_options_start(self):
        return self.seen.options_start

    @property
    def stream_options_end(self):
        return self.seen.options_end

    @property
    def fallbacks_name(self):
        return self.seen.fallbacks_name

    @property
    def fallbacks_start(self):
        return self.seen.fallbacks_start

    @property
    def fallbacks_end(self):
        return self.seen.fallbacks_end

    @property
    def escaped(self):
        return self.seen.escaped


cdef str text_of(bytes body, Py_ssize_t start, Py_ssize_t end, bint escaped):
    """The string at a span that ``scan`` accepted."""
    if escaped:
        return json.loads(body[start:end])
    return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(body) + start + 1, end - start - 2, NULL)


def peek(bytes body not None, int max_depth=64):
    cdef const unsigned char *text = <const unsigned char *>PyBytes_AS_STRING(body)
    cdef Peek found = Peek.__new__(Peek)
    if not 1 <= max_depth <= DEEPEST:
        raise ValueError(f"max_depth must be between 1 and {DEEPEST}, got {max_depth}")
    if not scan(text, PyBytes_GET_SIZE(body), max_depth, &found.seen):
        raise fault(text, PyBytes_GET_SIZE(body), &found.seen)
    if found.seen.model:
        found.model = text_of(body, found.seen.model_start, found.seen.model_end, found.seen.model_escaped)
    if found.seen.user:
        found.user = text_of(body, found.seen.user_start, found.seen.user_end, found.seen.user_escaped)
    return found


def rewrite(bytes body not None, Peek seen not None, str model, bint want_usage):
    cdef Edit edits[EDITS]
    cdef bytes quoted = b"", out
    cdef int count
    if PyBytes_GET_SIZE(body) != seen.seen.size:
        raise ValueError(f"this is not the body that was looked at: {seen.seen.size} bytes expected, got {len(body)}")
    if model is not None and model != seen.model:
        quoted = json.dumps(model, ensure_ascii=False).encode()
    count = plan(
        &seen.seen, <const unsigned char *>PyBytes_AS_STRING(quoted), PyBytes_GET_SIZE(quoted), want_usage, edits
    )
    if count == 0:
        return body
    out = PyBytes_FromStringAndSize(NULL, spliced_size(&seen.seen, edits, count))
    splice(
        <const unsigned char *>PyBytes_AS_STRING(body), &seen.seen, edits, count,
        <unsigned char *>PyBytes_AS_STRING(out),
    )
    return out
