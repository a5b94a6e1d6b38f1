# Part of meter.pyx: what a family may be, and where its series stand in memory.


cdef object normal(object family):
    """The family with tuples for its sequences; ValueError for a shape that cannot be."""
    name, kind, labels, bounds, slots = family
    labels, bounds = tuple(labels), tuple(bounds)
    if not isinstance(name, str) or not name:
        raise ValueError(f"a family's name must be a non-empty str, not {name!r}")
    if kind not in (COUNTER, GAUGE, HISTOGRAM, TALLY):
        raise ValueError(f"family {name!r}: kind {kind!r} is none of COUNTER, GAUGE, HISTOGRAM, TALLY")
    if len(labels) > MAX_LABELS or len(set(labels)) < len(labels):
        raise ValueError(f"family {name!r}: expected at most {MAX_LABELS} different labels, got {labels!r}")
    if kind != HISTOGRAM and bounds:
        raise ValueError(f"family {name!r}: only a histogram has bounds")
    if kind == HISTOGRAM and not 0 < len(bounds) <= MAX_BOUNDS:
        raise ValueError(f"family {name!r}: a histogram has 1 to {MAX_BOUNDS} bounds, not {len(bounds)}")
    if any([type(bound) is not int or not INT64_MIN <= bound <= INT64_MAX for bound in bounds]):
        raise ValueError(f"family {name!r}: bounds must be ints of 64 bits, got {bounds!r}")
    if any([low >= high for low, high in zip(bounds, bounds[1:])]):
        raise ValueError(f"family {name!r}: bounds must ascend, got {bounds!r}")
    if not (2 if labels else 1) <= slots <= MAX_SERIES:
        raise ValueError(f"family {name!r}: max_series must be 1 (2 with labels) to {MAX_SERIES}, not {slots!r}")
    return Family(name, int(kind), labels, bounds, int(slots))


cdef tuple checked(object families):
    cdef tuple normalised = tuple([normal(family) for family in families])
    if not 0 < len(normalised) <= MAX_FAMILIES:
        raise ValueError(f"expected 1 to {MAX_FAMILIES} families, got {len(normalised)}")
    names = [family.name for family in normalised]
    if len(set(names)) < len(names):
        raise ValueError(f"a family is listed twice: {[name for name in names if names.count(name) > 1]!r}")
    return normalised


cdef inline Py_ssize_t lines(Py_ssize_t size) noexcept:
    return (size + LINE_BYTES - 1) // LINE_BYTES * LINE_BYTES


cdef inline int values_of(const Shape *shape) noexcept nogil:
    """The words of a slot behind its ticket."""
    if shape.kind == _HISTOGRAM:
        return shape.bounds + 2
    return TALLIES if shape.kind == _TALLY else 1


cdef Shape lay_out(object family, Py_ssize_t start):
    """Where the family's slots are in a region, when they begin at ``start``."""
    cdef Shape shape
    cdef int i = 0
    shape.kind = family.kind
    shape.labels = len(family.labels)
    shape.slots = family.max_series if family.labels else 1
    shape.bounds = len(family.bounds)
    shape.start = start
    # Ticket; then the value or values, or a count for each bucket (the last is +Inf's) and the sum.
    shape.text = 8 * (1 + values_of(&shape))
    if shape.labels:
        shape.text = lines(shape.text)
    shape.stride = lines(shape.text + shape.labels * LABEL_BYTES)
    for bound in family.bounds:
        shape.bound[i] = bound
        i += 1
    return shape


cdef Py_ssize_t lay_out_all(tuple families, Shape *shapes) except -1:
    """Fill ``shapes`` (one a family, or NULL) and return the bytes of a region."""
    cdef Py_ssize_t end = LINE_BYTES
    cdef Shape shape
    for number, family in enumerate(families):
        shape = lay_out(family, end)
        end += shape.slots * shape.stride
        if shapes != NULL:
            shapes[<int>number] = shape
    return end


cdef int64_t fingerprint(tuple families, int workers) except 0:
    """FNV-1a over all that decides the layout and its meaning: the same in every process, and never 0."""
    cdef uint64_t mark = <uint64_t>0xCBF29CE484222325
    cdef unsigned char byte
    for byte in repr((LAYOUT_VERSION, workers, [tuple(family) for family in families])).encode():
        mark = (mark ^ byte) * <uint64_t>0x100000001B3
    return <int64_t>(mark | 1)
