"""Counting tokens without a tokenizer: an estimate from classes of characters, and what the answers teach.

The scanner (``tokens_scan.h``) counts words, long words, groups of digits, runs of punctuation, characters of other
scripts and so on in the text that the model will read; the estimate is their weighted sum. The weights were fitted by
least squares to the counts of o200k_base on text that the shipped corpus has no part in (docs/tokens.md).
"""

from libc.stdint cimport int64_t, uint64_t

cdef extern from "tokens_scan.h" nogil:
    enum:
        FEATURES
        UNIT
        IMAGE_TOKENS_ "IMAGE_TOKENS"
        MESSAGE_TOKENS_ "MESSAGE_TOKENS"
        REPLY_TOKENS_ "REPLY_TOKENS"
    const int64_t* WEIGHTS
    ctypedef void (*Scanner)(const unsigned char*, size_t, uint64_t*) noexcept nogil
    Scanner best_scanner()
    void scan_portable(const unsigned char*, size_t, uint64_t*)

cdef enum:
    ROOM = 32               # counts that a scan may fill
    FIRST_ANSWER = 512      # expected of a target that has answered nothing yet
    SLOW = 64               # answers that a learnt figure remembers
    STEADY = 16             # answers of a size until its tokens a byte may stand for a count
    TRUST = 4               # answers after which a size's own ratio weighs as much as the overall one
    MOST_TOKENS = 1 << 30   # no figure is taken for more than that, whatever an upstream says

cdef double LEAST = 0.2
cdef double GREATEST = 5.0
cdef double[SLOW + 1] SHARES    # of the newest among so many answers: a division takes as long as all else here
SHARES[:] = [0.0] + [1.0 / count for count in range(1, SLOW + 1)]
cdef double ALIKE = 0.03     # mean deviation of tokens a byte up to which a size's bodies are alike
cdef double NOTHING = 1e-9   # a smaller deviation is none: towards 0 numbers get subnormal, and those are slow
cdef double SPREAD = 3.0    # mean absolute deviations: 96 % of an exponential distribution lie below, 99 % of a normal

IMAGE_TOKENS = IMAGE_TOKENS_
MESSAGE_TOKENS = MESSAGE_TOKENS_
REPLY_TOKENS = REPLY_TOKENS_

cdef Scanner scan = best_scanner()


cdef int64_t count_(const unsigned char* body, Py_ssize_t length) noexcept nogil:
    cdef uint64_t[ROOM] counts
    cdef int64_t total = REPLY_TOKENS_ * UNIT + UNIT // 2
    cdef int i
    scan(body, <size_t>length, counts)
    for i in range(FEATURES):
        total += <int64_t>counts[i] * WEIGHTS[i]
    return total // UNIT if total > 0 else 0


def count(body: bytes) -> int:
    return count_(body, len(body))


def features(body: bytes, *, portable: bool = False) -> tuple:
    cdef uint64_t[ROOM] counts
    if portable:
        scan_portable(body, len(body), counts)
    else:
        scan(body, len(body), counts)
    return tuple([counts[i] for i in range(FEATURES)])


cdef inline void told(Ratio* ratio, double value) noexcept nogil:
    """A plain mean at first, one that forgets later."""
    if ratio.told < SLOW:
        ratio.told += 1
    ratio.value += (value - ratio.value) * SHARES[ratio.told]


cdef inline double fade(double deviation, double off, double share) noexcept nogil:
    """The mean absolute deviation after one more answer, which was ``off`` by that."""
    deviation += ((off if off >= 0 else -off) - deviation) * share
    return deviation if deviation > NOTHING else 0.0


cdef inline int size_of(int64_t raw) noexcept nogil:
    """Up to 64, 256, 1024, 4096, 16384 tokens, and beyond."""
    cdef int size = 0
    cdef int64_t bound = 64
    while size < SIZES - 1 and raw > bound:
        size += 1
        bound *= 4
    return size


cdef class Learner:
    def __cinit__(self):
        cdef int i
        self.overall.value = 1.0
        for i in range(SIZES):
            self.by_size[i].value = 1.0

    cdef int64_t by_bytes_(self, int64_t size) noexcept nogil:
        cdef Density* own
        if size <= 0:
            return -1
        own = &self.density[size_of(size // 4)]
        if own.told < STEADY or own.off > ALIKE:
            return -1
        return <int64_t>(size * own.value + 0.5)

    cdef void learn_bytes_(self, int64_t size, int64_t prompt_tokens) noexcept nogil:
        cdef Density* own
        cdef double value, off
        if size <= 0 or not 0 < prompt_tokens <= MOST_TOKENS:
            return
        own = &self.density[size_of(size // 4)]
        value = <double>prompt_tokens / <double>size
        off = (value - own.value) / own.value if own.told else 0.0
        if own.told < STEADY:
            own.told += 1
        # Quick to doubt and to forget: what is no longer alike is counted again at once.
        own.off = fade(own.off, off, SHARES[own.told])
        own.value += (value - own.value) * SHARES[own.told]

    cdef int64_t prompt_(self, int64_t raw) noexcept nogil:
        if raw <= 0:
            return 0
        if raw > MOST_TOKENS:
            raw = MOST_TOKENS
        cdef Ratio* own = &self.by_size[size_of(raw)]
        cdef double ratio = (self.overall.value * TRUST + own.value * own.told) / (TRUST + own.told)
        return <int64_t>(raw * ratio + 0.5)

    cdef int64_t output_(self, int64_t max_tokens, int64_t most) noexcept nogil:
        cdef int64_t expected = max_tokens
        if max_tokens < 0:
            expected = FIRST_ANSWER
            if self.answers:
                expected = <int64_t>(self.mean + SPREAD * self.deviation + 0.999)
        return most if 0 < most < expected else expected

    cdef void learn_(self, int64_t raw, int64_t prompt_tokens, int64_t output_tokens) noexcept nogil:
        cdef double ratio, off
        if raw > 0 and prompt_tokens > 0:
            ratio = <double>prompt_tokens / <double>raw
            ratio = LEAST if ratio < LEAST else GREATEST if ratio > GREATEST else ratio
            told(&self.overall, ratio)
            told(&self.by_size[size_of(raw)], ratio)
        if output_tokens >= 0:
            if output_tokens > MOST_TOKENS:
                output_tokens = MOST_TOKENS
            if self.answers < SLOW:
                self.answers += 1
            if self.answers == 1:
                self.mean = output_tokens
                self.deviation = output_tokens / 2.0
                return
            off = output_tokens - self.mean
            self.mean += off * SHARES[self.answers]
            self.deviation = fade(self.deviation, off, SHARES[self.answers])

    def by_bytes(self, size: int) -> int:
        return self.by_bytes_(size)

    def learn_bytes(self, size: int, prompt_tokens: int) -> None:
        self.learn_bytes_(size, prompt_tokens)

    def prompt(self, raw: int) -> int:
        return self.prompt_(raw)

    def output(self, max_tokens: int, most: int) -> int:
        return self.output_(max_tokens, most)

    def learn(self, raw: int, prompt_tokens: int, output_tokens: int) -> None:
        self.learn_(raw, prompt_tokens, output_tokens)
