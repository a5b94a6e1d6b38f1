"""Who is calling: the C side of ``keys.pyi``.

The lane walks its own parsed head: ``rank_of`` says whether a header name is a credential and which one,
``bearer_span`` and ``trim_span`` cut the value out in place, ``KeyTable.lookup`` answers with the principal's index.
"""

from libc.stdint cimport int64_t

cdef enum:
    DIGEST_BYTES = 32
    MAX_KEY_BYTES = 1024    # far above any provider's key; bounds the work that a caller can cause before it is known
    CREDENTIAL_HEADERS = 5
    NO_KEY = -1

cdef struct Span:
    # Bytes inside somebody else's buffer; valid as long as that. A NULL start means "not there at all".
    const unsigned char* start
    Py_ssize_t length

cdef struct Entry:
    unsigned char digest[DIGEST_BYTES]
    int64_t index           # NO_KEY where the slot is free

cdef class Credential:
    cdef readonly bytes value
    cdef readonly str header

cdef class KeyTable:
    cdef Entry* entries
    cdef size_t mask
    cdef Py_ssize_t count
    # The index of the key with this text, or NO_KEY. Hashes through hashlib, hence needs the GIL.
    cdef int64_t lookup(self, bytes value) except -2
    # The same for 32 bytes of SHA-256.
    cdef int64_t lookup_digest(self, const unsigned char* wanted) noexcept nogil

# Place of a header name in the order of precedence (0 decides first), or -1. Any case.
cdef int rank_of(const unsigned char* name, Py_ssize_t length) noexcept nogil
# The token of an Authorization value: NULL start for another scheme, length 0 for Bearer without a token.
cdef Span bearer_span(const unsigned char* value, Py_ssize_t length) noexcept nogil
# The value without optional white space around it (RFC 9110 section 5.6.3).
cdef Span trim_span(const unsigned char* value, Py_ssize_t length) noexcept nogil
# SHA-256, 32 bytes.
cdef bytes sha256_of(bytes value)
