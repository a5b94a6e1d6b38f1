"""Prices: tokens times micro-dollars a million tokens, in integers.

A request of every part rounds once, half up, so that a hundred parts of a call cost what the call does, to half a
micro-dollar. The sum of the products is kept in 128 bits: no price and no count that fits its field can overflow it;
what does not fit 62 bits of micro-dollars is as much as fits.
"""

cimport cython
from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <stdint.h>

    #define AGW_MOST ((int64_t)1 << 62)

    static inline int64_t agw_capped(__int128 amount) {
        return amount > AGW_MOST ? AGW_MOST : (int64_t)amount;
    }

    static inline int64_t agw_cost(
        int64_t input, int64_t cached, int64_t output, int64_t input_price, int64_t cached_price, int64_t output_price,
        int64_t request)
    {
        __int128 sum;
        input = input > 0 ? input : 0;
        output = output > 0 ? output : 0;
        cached = cached > 0 ? (cached < input ? cached : input) : 0;
        sum = (__int128)(input - cached) * input_price + (__int128)cached * cached_price;
        sum += (__int128)output * output_price;
        sum += 500000;
        /* Nearly always 64 bits are enough, and a division of 128 calls a function. */
        sum = sum <= INT64_MAX ? (__int128)((uint64_t)sum / 1000000) : sum / 1000000;
        return agw_capped(sum + request);
    }

    static inline int64_t agw_pieces(int64_t images, int64_t milliseconds, int64_t image_price, int64_t minute_price) {
        __int128 sum = (__int128)(images > 0 ? images : 0) * image_price;
        return agw_capped(sum + ((__int128)(milliseconds > 0 ? milliseconds : 0) * minute_price + 30000) / 60000);
    }
    """
    int64_t agw_cost(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t) nogil
    int64_t agw_pieces(int64_t, int64_t, int64_t, int64_t) nogil


@cython.final
cdef class Tariff:
    """What one model costs."""

    def __cinit__(
        self, int64_t input=0, int64_t cached=0, int64_t output=0, int64_t request=0, int64_t image=0,
        int64_t minute=0, int64_t max_output=0,
    ):
        if min(input, cached, output, request, image, minute, max_output) < 0:
            raise ValueError("no part of a price is below 0")
        self.input, self.cached, self.output, self.request = input, cached, output, request
        self.image, self.minute, self.max_output = image, minute, max_output

    cdef int64_t cost_(self, int64_t input, int64_t cached, int64_t output) noexcept nogil:
        return agw_cost(input, cached, output, self.input, self.cached, self.output, self.request)

    def cost(self, int64_t input_tokens, int64_t cached_tokens, int64_t output_tokens) -> int:
        return self.cost_(input_tokens, cached_tokens, output_tokens)

    cdef int64_t pieces_(self, int64_t images, int64_t milliseconds) noexcept nogil:
        return agw_pieces(images, milliseconds, self.image, self.minute)

    def pieces(self, int64_t images, int64_t milliseconds) -> int:
        return self.pieces_(images, milliseconds)

    @property
    def free(self) -> bool:
        return not (self.input or self.cached or self.output or self.request or self.image or self.minute)

    def _fields(self):
        return self.input, self.cached, self.output, self.request, self.image, self.minute, self.max_output

    def __eq__(self, other):
        return isinstance(other, Tariff) and self._fields() == (<Tariff>other)._fields()

    def __hash__(self):
        return hash(self._fields())

    def __repr__(self):
        return (
            f"Tariff(input={self.input}, cached={self.cached}, output={self.output}, request={self.request}, "
            f"image={self.image}, minute={self.minute}, max_output={self.max_output})"
        )

    def __reduce__(self):
        return Tariff, self._fields()
