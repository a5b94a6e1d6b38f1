"""Counters, gauges, histograms and tallies in fixed slots: each worker writes a region of its own, all may read."""

from operator import itemgetter
from typing import NamedTuple

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport INT64_MAX, INT64_MIN, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

# Readers in other processes must never see half a word, and never a published slot whose labels are not yet there.
# One writer a word needs no read-modify-write; only the header's two words are shared by all writers.
cdef extern from *:
    """
    #define agw_load(word) __atomic_load_n((const long long *)(word), __ATOMIC_RELAXED)
    #define agw_store(word, value) __atomic_store_n((long long *)(word), (value), __ATOMIC_RELAXED)
    #define agw_acquire(word) __atomic_load_n((const long long *)(word), __ATOMIC_ACQUIRE)
    #define agw_release(word, value) __atomic_store_n((long long *)(word), (value), __ATOMIC_RELEASE)
    #define agw_next(word) __atomic_add_fetch((long long *)(word), 1, __ATOMIC_RELAXED)
    static inline long long agw_claim(void *word, long long value) {
        long long seen = 0;
        __atomic_compare_exchange_n((long long *)word, &seen, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
        return seen ? seen : value;
    }
    """
    int64_t agw_load(const void *word) noexcept nogil
    void agw_store(void *word, int64_t value) noexcept nogil
    int64_t agw_acquire(const void *word) noexcept nogil
    void agw_release(void *word, int64_t value) noexcept nogil
    int64_t agw_next(void *word) noexcept nogil
    int64_t agw_claim(void *word, int64_t value) noexcept nogil   # value if the word was 0, else what is there

COUNTER = 1
GAUGE = 2
HISTOGRAM = 3
TALLY = 4

cdef enum:
    _COUNTER = 1
    _GAUGE = 2
    _HISTOGRAM = 3
    _TALLY = 4
    SLOT_BITS = 16        # of a handle
    LAYOUT_VERSION = 1    # goes into the hash: two releases that lay out slots differently never share a buffer
    TICKET_WORD = 8       # offset in the header

cdef str OTHER = "other"


class Family(NamedTuple):
    """A metric's name and shape."""

    name: str
    kind: int
    labels: tuple[str, ...] = ()
    bounds: tuple[int, ...] = ()
    max_series: int = 256


class Sample(NamedTuple):
    """One series, summed over workers."""

    family: Family
    labels: tuple[str, ...]
    value: int
    buckets: tuple[int, ...]
    total: int


include "meter_shape.pxi"


cdef bytes cut(str value):
    """A label's bytes as kept: UTF-8 (lone surrogates too), at most LABEL_BYTES - 1 of them, whole characters."""
    cdef bytes text = value.encode("utf-8", "surrogatepass")
    cdef Py_ssize_t size = len(text)
    if size < LABEL_BYTES:
        return text
    cdef const unsigned char *data = text
    size = LABEL_BYTES - 1
    while size > 0 and data[size] & 0xC0 == 0x80:
        size -= 1
    return text[:size]


cdef inline int64_t saturated(int64_t value, int64_t amount) noexcept nogil:
    """The sum, held at the ends of 64 bits rather than wrapped: a counter never goes down."""
    if amount > 0 and value > INT64_MAX - amount:
        return INT64_MAX
    if amount < 0 and value < INT64_MIN - amount:
        return INT64_MIN
    return value + amount


cdef class Meter:
    """All families of a process, over a buffer that workers may share."""

    def __cinit__(self, families, buffer=None, *, int worker=0, int workers=1):
        if not 0 <= worker < workers:
            raise ValueError(f"worker {worker} is not one of {workers} (they count from 0)")
        self.families = checked(families)
        self.worker = worker
        self.workers = workers
        self._count = <int>len(self.families)
        self._shapes = <Shape *>calloc(<size_t>self._count, sizeof(Shape))
        if self._shapes == NULL:
            raise MemoryError
        self._region_bytes = lay_out_all(self.families, self._shapes)
        self._attach(buffer, LINE_BYTES + workers * self._region_bytes)
        cdef int64_t mark = fingerprint(self.families, workers)
        if agw_claim(self._base, mark) != mark:
            raise ValueError("the buffer was made for other families, another number of workers, or by another release")
        self._own = self._region(worker)
        self._numbers = {family.name: index for index, family in enumerate(self.families)}
        self._resume()

    def __dealloc__(self):
        free(self._shapes)
        free(self._private)
        if self._viewed:
            PyBuffer_Release(&self._view)

    @staticmethod
    def size(families, int workers=1):
        if workers < 1:
            raise ValueError(f"there is no meter for {workers} workers")
        return LINE_BYTES + workers * lay_out_all(checked(families), NULL)

    cdef int _attach(self, object buffer, Py_ssize_t needed) except -1:
        if buffer is None:
            self._private = calloc(1, <size_t>(needed + LINE_BYTES))
            if self._private == NULL:
                raise MemoryError
            self._base = <char *>((<uintptr_t>self._private + LINE_BYTES - 1) & ~<uintptr_t>(LINE_BYTES - 1))
            return 0
        PyObject_GetBuffer(buffer, &self._view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self._viewed = True
        if self._view.len < needed:
            raise ValueError(f"the buffer has {self._view.len} bytes; these families and workers need {needed}")
        if <uintptr_t>self._view.buf % LINE_BYTES:
            raise ValueError(f"the buffer must be aligned to {LINE_BYTES} bytes")
        self._base = <char *>self._view.buf
        return 0

    cdef char *_region(self, int worker) noexcept:
        return self._base + LINE_BYTES + worker * self._region_bytes

    cdef int _resume(self) except -1:
        """Find what the worker before us in this region has published. A slot it died over is still free."""
        cdef int number, slot
        cdef Shape *shape
        cdef char *at
        self._known = []
        self._used = []
        for number in range(self._count):
            shape = &self._shapes[number]
            known = {(OTHER,) * shape.labels: number << SLOT_BITS}
            slot = 1
            at = self._own + shape.start + shape.stride
            while slot < shape.slots and agw_acquire(at):
                known[self._labels(at, shape)] = number << SLOT_BITS | slot
                slot += 1
                at += shape.stride
            self._known.append(known)
            self._used.append(slot)
        return 0

    cdef tuple _labels(self, const char *slot, const Shape *shape):
        cdef const unsigned char *text = <const unsigned char *>slot + shape.text
        cdef list values = []
        cdef int size
        for _ in range(shape.labels):
            size = min(<int>text[0], LABEL_BYTES - 1)
            values.append((<const char *>text)[1:1 + size].decode("utf-8", "surrogatepass"))
            text += LABEL_BYTES
        return tuple(values)

    cdef int series_(self, str family, tuple labels) except -1:
        number = self._numbers[family]
        handle = (<dict>self._known[number]).get(labels)
        return self._place(number, labels) if handle is None else handle

    cdef int _place(self, int number, tuple labels) except -1:
        cdef Shape *shape = &self._shapes[number]
        cdef dict known = <dict>self._known[number]
        cdef int slot = self._used[number]
        cdef char *at
        cdef char *text
        cdef bytes value
        if len(labels) != shape.labels:
            family = self.families[number]
            raise ValueError(f"family {family.name!r} has the labels {family.labels!r}, got the values {labels!r}")
        cdef list kept = [cut(label) for label in labels]
        # Looked up again as kept, so that any number of long values with one beginning is one entry.
        labels = tuple([(<bytes>value).decode("utf-8", "surrogatepass") for value in kept])
        if labels in known:
            return known[labels]
        if slot >= shape.slots:
            agw_store(self._own, agw_load(self._own) + 1)
            return number << SLOT_BITS
        at = self._own + shape.start + slot * shape.stride
        text = at + shape.text
        for value in kept:
            text[0] = <char>len(value)
            memcpy(text + 1, <const char *>value, <size_t>len(value))
            text += LABEL_BYTES
        agw_release(at, agw_next(self._base + TICKET_WORD))
        known[labels] = number << SLOT_BITS | slot
        self._used[number] = slot + 1
        return number << SLOT_BITS | slot

    cdef char *_find(self, int handle, Shape **shape) noexcept nogil:
        """Where the series' slot is, and its family's shape; NULL for a handle that nobody was given."""
        cdef int number = handle >> SLOT_BITS
        cdef int slot = handle & (MAX_SERIES - 1)
        if not 0 <= number < self._count or slot >= self._shapes[number].slots:
            return NULL
        shape[0] = &self._shapes[number]
        cdef char *at = self._own + shape[0].start + slot * shape[0].stride
        return at if slot == 0 or agw_load(at) else NULL

    cdef Outcome try_add(self, int handle, int64_t amount) noexcept nogil:
        cdef Shape *shape = NULL
        cdef char *at = self._find(handle, &shape)
        if at == NULL:
            return UNKNOWN_HANDLE
        if shape.kind == _HISTOGRAM or shape.kind == _TALLY:
            return WRONG_KIND
        if amount < 0 and shape.kind == _COUNTER:
            return NEGATIVE
        agw_store(at + 8, saturated(agw_load(at + 8), amount))
        return DONE

    cdef Outcome try_observe(self, int handle, int64_t value) noexcept nogil:
        cdef Shape *shape = NULL
        cdef char *at = self._find(handle, &shape)
        if at == NULL:
            return UNKNOWN_HANDLE
        if shape.kind != _HISTOGRAM:
            return WRONG_KIND
        # The first bound that is not below the value, by halving; additions instead of branches.
        cdef int low = 0, left = shape.bounds, half
        while left > 1:
            half = left // 2
            low += half * (shape.bound[low + half - 1] < value)
            left -= half
        low += shape.bound[low] < value
        agw_store(at + 8 + 8 * low, agw_load(at + 8 + 8 * low) + 1)
        at += 8 + 8 * (shape.bounds + 1)   # the sum
        agw_store(at, saturated(agw_load(at), value))
        return DONE

    cdef Outcome try_tally(self, int handle, const int64_t *amounts) noexcept nogil:
        cdef Shape *shape = NULL
        cdef char *at = self._find(handle, &shape)
        cdef int i
        if at == NULL:
            return UNKNOWN_HANDLE
        if shape.kind != _TALLY:
            return WRONG_KIND
        for i in range(TALLIES):
            at += 8
            if amounts[i] > 0:
                agw_store(at, saturated(agw_load(at), amounts[i]))
        return DONE

    cdef void add_(self, int handle, long long amount) noexcept nogil:
        self.try_add(handle, amount)

    cdef void observe_(self, int handle, long long value) noexcept nogil:
        self.try_observe(handle, value)

    def series(self, str family not None, tuple labels not None=()) -> int:
        return self.series_(family, labels)

    def add(self, int handle, int64_t amount=1) -> None:
        checked_outcome(self.try_add(handle, amount), handle, amount)

    def tally(self, int handle, *amounts) -> None:
        cdef int64_t[TALLIES] each
        cdef int i
        if len(amounts) != TALLIES:
            raise ValueError(f"expected {TALLIES} amounts, got {len(amounts)}")
        for i in range(TALLIES):
            each[i] = amounts[i]
        checked_outcome(self.try_tally(handle, each), handle, 0)

    def observe(self, int handle, int64_t value) -> None:
        checked_outcome(self.try_observe(handle, value), handle, value)

    def overflowed(self) -> int:
        return sum([agw_load(self._region(worker)) for worker in range(self.workers)])

    def forget_gauges(self, int worker) -> None:
        cdef int number, slot
        cdef Shape *shape
        cdef char *at
        if not 0 <= worker < self.workers:
            raise ValueError(f"worker {worker} is not one of {self.workers} (they count from 0)")
        for number in range(self._count):
            shape = &self._shapes[number]
            if shape.kind == _GAUGE:
                at = self._region(worker) + shape.start
                for slot in range(shape.slots):
                    if slot and not agw_acquire(at):
                        break
                    agw_store(at + 8, 0)
                    at += shape.stride

    def collect(self, str family=None) -> list[Sample]:
        cdef int number
        cdef list samples = []
        if family is not None:
            self._gather(self._numbers[family], samples)
            return samples
        for number in range(self._count):
            self._gather(number, samples)
        return samples

    cdef int _gather(self, int number, list samples) except -1:
        cdef Shape *shape = &self._shapes[number]
        cdef int values = values_of(shape)
        cdef int worker, slot, i
        cdef char *at
        cdef int64_t ticket
        cdef dict rows = {}     # labels -> [earliest ticket, labels, value, ...]
        cdef list row
        for worker in range(self.workers):
            at = self._region(worker) + shape.start
            for slot in range(shape.slots):
                ticket = agw_acquire(at) if slot else 0
                if slot and not ticket:
                    break
                labels = self._labels(at, shape) if slot else (OTHER,) * shape.labels
                row = rows.setdefault(labels, [ticket, labels] + [0] * values)
                row[0] = min(<object>ticket, row[0])
                for i in range(values):
                    row[2 + i] += agw_load(at + 8 + 8 * i)
                at += shape.stride
        family = self.families[number]
        for row in sorted(rows.values(), key=itemgetter(0)):
            if shape.kind == _HISTOGRAM:
                buckets = tuple(row[2:values + 1])
                samples.append(Sample(family, row[1], sum(buckets), buckets, row[values + 1]))
            elif shape.kind == _TALLY:
                samples.append(Sample(family, row[1], row[2], tuple(row[2:]), 0))
            else:
                samples.append(Sample(family, row[1], row[2], (), 0))
        return 0


cdef inline int checked_outcome(Outcome outcome, int handle, int64_t amount) except -1:
    if outcome == DONE:
        return 0
    if outcome == UNKNOWN_HANDLE:
        raise IndexError(f"handle {handle} belongs to no series of this meter")
    if outcome == NEGATIVE:
        raise ValueError(f"a counter does not go down: amount {amount}")
    raise ValueError(
        f"handle {handle} is of another kind: add() is for counters and gauges, observe() for histograms, "
        "tally() for tallies")
