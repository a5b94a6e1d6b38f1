"""Who a request is from, read off its body: the C side of ``subjects.pyi``. Both lanes ask here."""

from libc.stdint cimport int64_t, uint64_t

from .peek cimport Seen

# The body's user, or None. ``messages``: the body is one of Anthropic's Messages, whose user stands in metadata.
cdef str user_of(const unsigned char *body, const Seen *seen, bint messages)
# The session that the body names or, where ``derive``, begins like; 0 for none. ``key``: whose session it is.
cdef uint64_t session_of(
    const unsigned char *body, const Seen *seen, uint64_t header, uint64_t key, bint messages, bint derive
) except? 0
# How many answers are asked for at once (``n``), at least 1.
cdef int64_t choices_of(const unsigned char *body, const Seen *seen) noexcept nogil
# What Google's generationConfig says: tokens that an answer may have, and how many answers; as they are where it says
# nothing of them. False where it is written in an unusual way.
cdef bint bounds_of(const unsigned char *body, const Seen *seen, int64_t *most, int64_t *choices) noexcept nogil
