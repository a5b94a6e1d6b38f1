"""Counting tokens: the C side of ``tokens.pyi``. Raw estimates, and what a target's answers teach about them."""

from libc.stdint cimport int64_t

cdef enum:
    SIZES = 6               # classes of a prompt's size that have a ratio of their own

# The estimate of a JSON request body's prompt tokens. Safe on any bytes; one pass, nothing is allocated.
cdef int64_t count_(const unsigned char* body, Py_ssize_t length) noexcept nogil


# How often one ratio was told, up to where its memory ends, and the ratio itself.
cdef struct Ratio:
    double value
    int64_t told


# The same of tokens a byte, with how far off single answers were (of the ratio, a mean).
cdef struct Density:
    double value
    double off
    int64_t told


cdef class Learner:
    cdef Ratio overall
    cdef Ratio[SIZES] by_size
    cdef Density[SIZES] density     # by size, a byte taken for a quarter of a token
    cdef double mean                # of the answers' tokens
    cdef readonly double deviation  # from that, a mean
    cdef int64_t answers

    # Tokens of a prompt in a body of so many bytes; -1 where those of its size are not alike enough.
    cdef int64_t by_bytes_(self, int64_t size) noexcept nogil
    cdef void learn_bytes_(self, int64_t size, int64_t prompt_tokens) noexcept nogil
    cdef int64_t prompt_(self, int64_t raw) noexcept nogil
    cdef int64_t output_(self, int64_t max_tokens, int64_t most) noexcept nogil
    cdef void learn_(self, int64_t raw, int64_t prompt_tokens, int64_t output_tokens) noexcept nogil
