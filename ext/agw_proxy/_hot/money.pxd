"""What calls cost: the C side of ``money.pyi``. Whole micro-dollars (millionths of a US dollar), never a float."""

cimport cython
from libc.stdint cimport int64_t


@cython.final
cdef class Tariff:
    cdef readonly int64_t input         # a million tokens of the prompt
    cdef readonly int64_t cached        # a million of them from the provider's cache
    cdef readonly int64_t output        # a million tokens of the answer
    cdef readonly int64_t request
    cdef readonly int64_t image
    cdef readonly int64_t minute
    cdef readonly int64_t max_output    # tokens; 0 where nobody knows
    cdef int64_t pieces_(self, int64_t images, int64_t milliseconds) noexcept nogil
    # Tokens below 0 are unknown ones and cost nothing; of ``cached`` no more counts than of ``input``.
    cdef int64_t cost_(self, int64_t input, int64_t cached, int64_t output) noexcept nogil
