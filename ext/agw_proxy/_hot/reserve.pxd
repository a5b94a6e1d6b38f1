"""What a request may use, and what it has used: the C side of ``reserve.pyi``. Both lanes count here."""

from libc.stdint cimport int64_t

from .limit cimport Grant
from .money cimport Tariff
from .tokens cimport Learner

# How an exchange has ended, for whoever pays for it.
cpdef enum:
    SERVED = 0          # the answer is whole
    PARTED = 1          # the caller has gone, or the answer broke off: it pays for what there was
    UNSERVED = 2        # there was no answer: it pays nothing, the request does not count
    REJECTED = 3        # the upstream has said no to the request: it counts, and pays nothing else

cdef enum:
    BYTES_PER_TOKEN = 4         # of an answer whose upstream tells no usage: an English-and-code average
    STEP_TOKENS = 256           # that are reserved at a time where a stream may be made to finish

# What is reserved for a request. Tokens are 0 where nobody counts them.
cdef struct Estimate:
    int64_t raw                 # tokens of the prompt, before anything learnt; 0 where they were not counted
    int64_t prompt
    int64_t output
    int64_t cost                # micro-dollars
    int64_t extra               # of these, for the images that it asks for
    int64_t size                # bytes of the body

# What it has used.
cdef struct Spent:
    int64_t input
    int64_t output
    int64_t cost

# ``learner`` and ``tariff`` may be None. ``max_tokens``: -1 where the request sets none. ``steps``: money is reserved
# for STEP_TOKENS of the answer only, more follows as it comes. ``by_bytes``: a prompt need not be looked at where its
# size says enough; of money, which is reserved for the worst case, there should be plenty then.
cdef void estimate_(
    Estimate *made, Learner learner, Tariff tariff, const unsigned char *body, Py_ssize_t size, int64_t max_tokens,
    int64_t choices, bint generates, bint steps, bint by_bytes
) noexcept
# ``content``: events with content so far; tokens below 0 are not known.
cdef void spent_(
    Spent *spent, int how, const Estimate *made, Tariff tariff, int64_t prompt, int64_t completion, int64_t cached,
    int64_t content, int64_t bytes_out
) noexcept
# Settle: True the first time only.
cdef bint settle_(
    Grant grant, int how, const Estimate *made, Learner learner, Tariff tariff, int64_t prompt, int64_t completion,
    int64_t cached, int64_t content, int64_t bytes_out, int64_t now
)
