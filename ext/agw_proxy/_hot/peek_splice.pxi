# Part of peek.pyx: the edits of a body.

cdef const char *ASK_USAGE = b'{"include_usage":true}'
cdef const char *USAGE_NAME = b'"include_usage":'
cdef const char *OPTIONS_NAME = b'"stream_options":'
cdef const char *MODEL_NAME = b'"model":'


cdef inline Edit edit(Py_ssize_t start, Py_ssize_t end, const unsigned char *text, Py_ssize_t size) noexcept nogil:
    cdef Edit made
    made.start, made.end, made.text, made.size = start, end, text, size
    made.comma = False
    made.name = NULL
    made.name_size = 0
    return made


cdef int plan(
    const Seen *seen, const unsigned char *model, Py_ssize_t model_size, bint want_usage, Edit *edits
) noexcept nogil:
    cdef const unsigned char *ask = <const unsigned char *>ASK_USAGE
    cdef int count = 0
    cdef Edit kept
    if model != NULL and model_size > 0:
        if seen.model_start >= 0:
            edits[count] = edit(seen.model_start, seen.model_end, model, model_size)
        else:
            edits[count] = edit(seen.close_at, seen.close_at, model, model_size)
            edits[count].comma = seen.members > 0
            edits[count].name, edits[count].name_size = MODEL_NAME, 8
        count += 1
    if want_usage and not seen.include_usage:
        if seen.options_start < 0:
            edits[count] = edit(seen.close_at, seen.close_at, ask, 22)
            edits[count].comma = seen.members > 0 or (count > 0 and seen.model_start < 0)
            edits[count].name, edits[count].name_size = OPTIONS_NAME, 17
        elif not seen.options:
            edits[count] = edit(seen.options_start, seen.options_end, ask, 22)
        elif seen.usage_start < 0:
            edits[count] = edit(seen.options_end - 1, seen.options_end - 1, ask + 17, 4)
            edits[count].comma = seen.options_members > 0
            edits[count].name, edits[count].name_size = USAGE_NAME, 16
        else:
            edits[count] = edit(seen.usage_start, seen.usage_end, ask + 17, 4)
        count += 1
    if count == 2 and edits[1].start < edits[0].start:
        kept = edits[0]
        edits[0] = edits[1]
        edits[1] = kept
    return count


cdef Py_ssize_t spliced_size(const Seen *seen, const Edit *edits, int count) noexcept nogil:
    cdef Py_ssize_t size = seen.size
    cdef int i
    for i in range(count):
        size += edits[i].comma + edits[i].name_size + edits[i].size - (edits[i].end - edits[i].start)
    return size


cdef void splice(
    const unsigned char *text, const Seen *seen, const Edit *edits, int count, unsigned char *out
) noexcept nogil:
    """Write the edited text to ``out``, which has room for ``spliced_size`` bytes."""
    cdef Py_ssize_t at = 0
    cdef int i
    for i in range(count):
        memcpy(out, text + at, edits[i].start - at)
        out += edits[i].start - at
        at = edits[i].end
        if edits[i].comma:
            out[0] = b","
            out += 1
        if edits[i].name_size:
            memcpy(out, edits[i].name, edits[i].name_size)
            out += edits[i].name_size
        memcpy(out, edits[i].text, edits[i].size)
        out += edits[i].size
    memcpy(out, text + at, seen.size - at)
