"""Gateway keys: who is calling. Keys are stored as SHA-256 digests and compared in constant time.

The table is open-addressed on the first eight bytes of the digest. These are uniformly distributed and nobody can
choose them without breaking SHA-256, so there is no further hash and no seed. What time tells is at most where in the
table a digest would stand; the comparison itself reads all 32 bytes, and a miss makes one too.
"""

import hashlib
from collections.abc import Sequence

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

Headers = Sequence[tuple[bytes, bytes]]

# OpenSSL's, through the public module: the interpreter's private _sha256 is 0.1 us faster a call, and gone in 3.12.
cdef object new_sha256 = hashlib.sha256
cdef tuple NAMES = ("x-agw-key", "authorization", "x-api-key", "api-key", "x-goog-api-key")


class DuplicateCredential(ValueError):
    """A credential header came more than once; ``header`` is its lower-case name."""

    def __init__(self, header: str) -> None:
        super().__init__(f"expected at most one {header} header, got more; send the gateway key once")
        self.header = header


@cython.final
cdef class Credential:
    """The caller's key as sent. Only ``credential`` makes one; its representation never shows the value."""

    def __init__(self):
        raise TypeError("a Credential comes from credential(headers)")

    def __repr__(self):
        return f"<Credential from {self.header}>"


cdef inline bint same_name(const unsigned char* name, const char* lower, Py_ssize_t length) noexcept nogil:
    """Whether ``name`` is ``lower`` but for the case of ASCII letters; both have ``length`` bytes."""
    cdef Py_ssize_t i
    cdef unsigned char c
    for i in range(length):
        c = name[i]
        if 65 <= c <= 90:
            c |= 32
        if c != <unsigned char>lower[i]:
            return False
    return True


cdef int rank_of(const unsigned char* name, Py_ssize_t length) noexcept nogil:
    # Length and first byte send nearly every other header away before a loop begins.
    cdef unsigned char first
    if length < 7 or length > 14:
        return -1
    first = name[0] | 32
    if length == 9 and first == c"x":
        if same_name(name, b"x-agw-key", 9):
            return 0
        return 2 if same_name(name, b"x-api-key", 9) else -1
    if length == 13 and first == c"a":
        return 1 if same_name(name, b"authorization", 13) else -1
    if length == 7 and first == c"a":
        return 3 if same_name(name, b"api-key", 7) else -1
    if length == 14 and first == c"x":
        return 4 if same_name(name, b"x-goog-api-key", 14) else -1
    return -1


cdef Span trim_span(const unsigned char* value, Py_ssize_t length) noexcept nogil:
    cdef Span span
    while length > 0 and (value[length - 1] == c" " or value[length - 1] == c"\t"):
        length -= 1
    while length > 0 and (value[0] == c" " or value[0] == c"\t"):
        value += 1
        length -= 1
    span.start = value
    span.length = length
    return span


cdef Span bearer_span(const unsigned char* value, Py_ssize_t length) noexcept nogil:
    cdef Span span = trim_span(value, length)
    if span.length < 6 or not same_name(span.start, b"bearer", 6) or (span.length > 6 and span.start[6] != c" "):
        span.start = NULL
        span.length = 0
        return span
    return trim_span(span.start + 6, span.length - 6)


cdef bytes sha256_of(bytes value):
    return <bytes?>new_sha256(value).digest()


def digest(bytes value not None):
    """SHA-256 of a key, 32 bytes (FIPS 180-4)."""
    return sha256_of(value)


def bearer(bytes value not None):
    """The token of an ``Authorization`` value with the Bearer scheme (empty where it has none), or None for others."""
    cdef Span span = bearer_span(<const unsigned char*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if span.start == NULL:
        return None
    return PyBytes_FromStringAndSize(<const char*>span.start, span.length)


def credential(headers not None):
    """The key among raw headers, or None; see ``keys.pyi`` for the order. Raises DuplicateCredential, TypeError."""
    cdef object pairs = headers if isinstance(headers, (tuple, list)) else tuple(headers)
    cdef tuple pair
    cdef bytes name, value, owner = None
    cdef Span span, best
    cdef int rank, best_rank = CREDENTIAL_HEADERS
    cdef unsigned int seen = 0
    cdef Credential found
    best.start = NULL
    best.length = 0
    for item in pairs:
        pair = <tuple?>item
        if len(pair) != 2:
            raise TypeError(f"expected headers as pairs of bytes, got a tuple of {len(pair)}")
        name = <bytes?>pair[0]
        rank = rank_of(<const unsigned char*>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
        if rank < 0:
            continue
        # Counted by name, whatever scheme or value: two answers to "who are you" are one too many.
        if seen & (1U << rank):
            raise DuplicateCredential(NAMES[rank])
        seen |= 1U << rank
        value = <bytes?>pair[1]
        if rank == 1:
            span = bearer_span(<const unsigned char*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        else:
            span = trim_span(<const unsigned char*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        if span.length > 0 and rank < best_rank:
            best_rank = rank
            best = span
            owner = value  # keeps the bytes that ``best`` points into
    if best_rank == CREDENTIAL_HEADERS:
        return None
    found = Credential.__new__(Credential)
    found.header = <str>NAMES[best_rank]
    found.value = PyBytes_FromStringAndSize(<const char*>best.start, best.length)
    owner = None
    return found


cdef inline uint64_t prefix_of(const unsigned char* wanted) noexcept nogil:
    cdef uint64_t prefix
    memcpy(&prefix, wanted, sizeof(prefix))
    return prefix


cdef inline bint equal_digests(const unsigned char* one, const unsigned char* other) noexcept nogil:
    """Reads all bytes of both whatever they hold."""
    cdef unsigned char difference = 0
    cdef int i
    for i in range(DIGEST_BYTES):
        difference |= one[i] ^ other[i]
    return difference == 0


@cython.final
cdef class KeyTable:
    """An immutable table from key digests to small integers (the caller's index of principals)."""

    def __cinit__(self, entries not None):
        cdef list items = list(entries)
        cdef size_t capacity = 8
        cdef size_t i
        while capacity < <size_t>(2 * len(items)):
            capacity *= 2
        # One entry more than the walk ever reaches: what a miss is compared with (all zeroes, no index).
        self.entries = <Entry*>calloc(capacity + 1, sizeof(Entry))
        if self.entries == NULL:
            raise MemoryError
        self.mask = capacity - 1
        for i in range(capacity + 1):
            self.entries[i].index = NO_KEY
        for position, (sha256, index) in enumerate(items):
            self._insert(position, sha256, index)

    def __dealloc__(self):
        free(self.entries)

    def _insert(self, Py_ssize_t position, bytes sha256 not None, index: int):
        cdef const unsigned char* wanted = <const unsigned char*>PyBytes_AS_STRING(sha256)
        cdef size_t slot
        if PyBytes_GET_SIZE(sha256) != DIGEST_BYTES:
            raise ValueError(f"entry {position}: expected a digest of {DIGEST_BYTES} bytes, got {len(sha256)}")
        if not 0 <= index <= INT64_MAX:
            raise ValueError(f"entry {position}: expected an index of 0 or more (63 bits), got {index}")
        slot = <size_t>prefix_of(wanted) & self.mask
        while self.entries[slot].index != NO_KEY:
            if memcmp(self.entries[slot].digest, wanted, DIGEST_BYTES) == 0:
                raise ValueError(f"entry {position}: the same key stands in an earlier entry; give each key once")
            slot = (slot + 1) & self.mask
        memcpy(self.entries[slot].digest, wanted, DIGEST_BYTES)
        self.entries[slot].index = <int64_t>index
        self.count += 1

    cdef int64_t lookup_digest(self, const unsigned char* wanted) noexcept nogil:
        cdef uint64_t prefix = prefix_of(wanted)
        cdef size_t slot = <size_t>prefix & self.mask
        cdef Entry* nobody = &self.entries[self.mask + 1]
        # At most half of the slots are taken, so a free one ends the walk.
        while self.entries[slot].index != NO_KEY:
            if prefix_of(self.entries[slot].digest) == prefix and equal_digests(self.entries[slot].digest, wanted):
                return self.entries[slot].index
            slot = (slot + 1) & self.mask
        # Its index is read from memory, lest the compiler see that the comparison decides nothing and drop it.
        return nobody.index if equal_digests(nobody.digest, wanted) else NO_KEY

    cdef int64_t lookup(self, bytes value) except -2:
        cdef Py_ssize_t length = PyBytes_GET_SIZE(value)
        cdef bint fits = 0 < length <= MAX_KEY_BYTES
        # What cannot be a key takes the same way through hash and table as a wrong one.
        cdef bytes sha256 = sha256_of(value if fits else b"")
        cdef int64_t found = self.lookup_digest(<const unsigned char*>PyBytes_AS_STRING(sha256))
        return found if fits else NO_KEY

    def find(self, bytes value not None):
        """The index that belongs to this key, or -1 (also for an empty one or one over 1024 bytes)."""
        return self.lookup(value)

    def find_digest(self, bytes sha256 not None):
        """The index that belongs to the key with this digest, or -1. Raises ValueError on a wrong size."""
        if PyBytes_GET_SIZE(sha256) != DIGEST_BYTES:
            raise ValueError(f"expected a digest of {DIGEST_BYTES} bytes, got {len(sha256)}")
        return self.lookup_digest(<const unsigned char*>PyBytes_AS_STRING(sha256))

    def __len__(self):
        return self.count
