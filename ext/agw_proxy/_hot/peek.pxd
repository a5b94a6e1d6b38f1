# A validating scan of a JSON request body: members that policy needs, and spans to rewrite it.
#
# For the lane: call scan() on the body's bytes; on False, fault() makes the PeekError. Then plan() lists the edits,
# spliced_size() the room they need, and splice() writes the new body. Only fault() needs Python objects.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    DEEPEST = 1024          # containers inside one another that a caller may allow; one byte of stack each
    MEMBERS = 1024          # of the top level and stream_options together; known requests have under 50
    NUMBER_CHARS = 128      # longest number; more digits than any float or token count needs
    ECHO_CHARS = 40         # of the caller's own text in a message
    EDITS = 3               # that plan() can give: the model, stream_options, one more member appended

# Members that subjects and estimates are read from: valid JSON of any kind.
cdef enum:
    NOTE_METADATA, NOTE_CONVERSATION, NOTE_CACHE_KEY, NOTE_MESSAGES, NOTE_INPUT, NOTE_SYSTEM, NOTE_INSTRUCTIONS
    NOTE_CHOICES, NOTE_BEST_OF, NOTE_PROMPT, NOTE_CONFIG, NOTE_CONFIG_TOO
    NOTES

# A value's place in the text; a value never begins at 0, so 0 is for one that is not there.
cdef struct Note:
    Py_ssize_t start, end

cdef struct Seen:
    Py_ssize_t size                                   # of the text this was read from, -1: nothing was read
    Py_ssize_t model_start, model_end                 # spans of values as written, null too; -1: no such member
    Py_ssize_t user_start, user_end
    Py_ssize_t options_start, options_end
    Py_ssize_t usage_start, usage_end                 # stream_options.include_usage
    Py_ssize_t fallbacks_name, fallbacks_start, fallbacks_end   # the member is ours alone: from its name's quote on
    Py_ssize_t close_at                               # the last brace
    int members                                       # of the top level
    int options_members
    bint model, user, options                         # there, and not null (model: nor empty)
    bint model_escaped, user_escaped
    bint stream, tools, include_usage, escaped
    long long max_tokens                              # -1 where absent
    Note[NOTES] noted
    int fault                                         # what is wrong (a Fault of peek.pyx), 0: nothing
    int param                                         # the member at fault (a Known of peek.pyx), 0: the whole text
    Py_ssize_t fault_at

cdef struct Edit:
    Py_ssize_t start, end                             # of the text that goes
    const unsigned char *text                         # what comes instead: a comma first where `comma`
    Py_ssize_t size
    bint comma
    const char *name                                  # a member's name with quotes and colon that goes before, or NULL
    Py_ssize_t name_size

# A cursor over the characters between two quotes, unescaped, as UTF-8 bytes.
cdef struct Spelling:
    const unsigned char *at
    const unsigned char *end
    unsigned char waiting[4]
    int waiting_size
    int waiting_at

cdef Spelling spelling(const unsigned char *start, const unsigned char *end) noexcept nogil
# The next byte, -1 at the end, -2 for a surrogate without its other half or a broken escape.
cdef int next_byte(Spelling *cursor) noexcept nogil

cdef bint scan(const unsigned char *text, Py_ssize_t size, int max_depth, Seen *seen) noexcept nogil
cdef object fault(const unsigned char *text, Py_ssize_t size, const Seen *seen)

# `model`: the new name in quotes, escaped; NULL keeps the one there is. Returns how many edits, in order of place.
cdef int plan(
    const Seen *seen, const unsigned char *model, Py_ssize_t model_size, bint want_usage, Edit *edits
) noexcept nogil
cdef Py_ssize_t spliced_size(const Seen *seen, const Edit *edits, int count) noexcept nogil
cdef void splice(
    const unsigned char *text, const Seen *seen, const Edit *edits, int count, unsigned char *out
) noexcept nogil

cdef class Peek:
    cdef Seen seen
    cdef readonly str model
    cdef readonly str user
