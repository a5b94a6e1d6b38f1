# Part of lane.pyx: what in a body may have been made by one upstream, so that the full lane has to find out by which.

# Names of members as they stand in a body, with their quotes: within a text the closing one would be escaped. The last
# ones say that the answer may bring something to be remembered: they count where a model's targets are at several
# upstreams. The same as ``policy.affinity.MARKS``.
cdef const char *MARKS[16]
MARKS[0] = b'"file_id"'
MARKS[1] = b'"file_ids"'
MARKS[2] = b'"vector_store_ids"'
MARKS[3] = b'"previous_response_id"'
MARKS[4] = b'"conversation"'
MARKS[5] = b'"encrypted_content"'
MARKS[6] = b'"signature"'
MARKS[7] = b'"redacted_thinking"'
MARKS[8] = b'"thought_signature"'
MARKS[9] = b'"reasoning_details"'
MARKS[10] = b'"thoughtSignature"'
MARKS[11] = b'"thinking"'
MARKS[12] = b'"reasoning"'
MARKS[13] = b'"reasoning_effort"'
MARKS[14] = b'"thinkingConfig"'
MARKS[15] = b'"thinking_config"'
cdef enum:
    MARKS_OF_HISTORY = 11
    MARKS_OF_ALL = 16
    MARKS_OF_STORE = 3
# What may be kept by the gateway itself. The same as ``policy.affinity.RECALLS``.
cdef const char *RECALLS[3]
RECALLS[0] = b'"previous_response_id"'
RECALLS[1] = b'"conversation"'
RECALLS[2] = b'"item_reference"'

# What may come from a model that was asked in another form. The same as ``policy.affinity.SEALS``.
cdef enum:
    SEALS_OF_ALL = 5
cdef const char *SEALS[5]
SEALS[0] = b'"agw:'
SEALS[1] = b'"YWd3O'
SEALS[2] = b'"rs_req_'
SEALS[3] = b'"signature":""'
SEALS[4] = b'"signature": ""'


cdef str refusal_of(Downstream d, Way way, const unsigned char *body):
    """Why a request needs the full lane that no kept answer serves; None: it does not."""
    if d.kept is not None:
        return None
    if way.refusal is not None:
        return way.refusal
    if way.door.recalls and marked(body, d.seen.size, RECALLS, MARKS_OF_STORE):
        return "store"
    if way.door.mixed and marked(body, d.seen.size, SEALS, SEALS_OF_ALL):
        return "affinity"
    return "affinity" if way.marks and marked(body, d.seen.size, MARKS, way.marks) else None


cdef bint marked(const unsigned char *body, Py_ssize_t size, const char **marks, int count) noexcept nogil:
    """One of the first ``count`` of ``marks`` stands in the body."""
    cdef int i
    for i in range(count):
        if memmem(body, size, marks[i], strlen(marks[i])) != NULL:
            return True
    return False


cdef int set_affinity(Policy policy, Way way) except -1:
    """What of a way's requests goes by the full lane, since one of several upstreams may have to be found again."""
    cdef int spread = policy.spread.get(way.route.name, 0) if policy.spread else 0
    if spread == 0 or way.door.remembers == 0:
        return 0
    if spread == 2 and way.door.remembers == 2:
        way.refusal = way.refusal or "affinity"
    way.marks = MARKS_OF_ALL if spread == 2 else MARKS_OF_HISTORY
    return 0
