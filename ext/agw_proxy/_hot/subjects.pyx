"""Subjects that a request's body tells: its user, and the session that it is a turn of.

Everything here reads text that ``peek.scan`` has accepted, so the walk needs no checks but its ends. A session is named
by ``conversation``, by ``prompt_cache_key`` or within ``metadata.user_id``; else it is known by how its conversation
begins: the texts of the system prompt and of the messages up to the first one of the user. Only texts count, so what a
client adds to its messages from turn to turn (marks for the provider's cache) makes no other session of it.
"""

import json

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from .limit cimport hash_of
from .peek cimport (
    NOTE_BEST_OF, NOTE_CACHE_KEY, NOTE_CHOICES, NOTE_CONFIG, NOTE_CONFIG_TOO, NOTE_CONVERSATION, NOTE_INSTRUCTIONS,
    NOTE_MESSAGES, NOTE_METADATA, NOTE_PROMPT, NOTE_SYSTEM, Note, Peek, Seen,
)

cdef enum:
    BEGINNING = 4096            # bytes of text that a conversation is known by
    LOOKED_AT = 65536           # bytes of the body that are looked at for them
    MAX_USER = 1024             # bytes of user and metadata.user_id, as written: they stand in each line of the log
    MAX_CHOICES = 128
    COUNT_DIGITS = 10           # of a number in generationConfig; those that count have 32 bits

cdef uint64_t GOLDEN = <uint64_t>0x9E3779B97F4A7C15
SESSION_MARK = "_session_"      # in metadata.user_id, before the session's id


cdef struct Text:
    unsigned char[BEGINNING] bytes
    Py_ssize_t size


cdef inline const unsigned char *past_space(const unsigned char *p, const unsigned char *end) noexcept nogil:
    while p < end and (p[0] == b" " or p[0] == b"\n" or p[0] == b"\r" or p[0] == b"\t"):
        p += 1
    return p


cdef inline const unsigned char *past_string(const unsigned char *p, const unsigned char *end) noexcept nogil:
    """``p``: at the opening quote. The place behind the closing one."""
    cdef const unsigned char *quote = p
    cdef const unsigned char *before
    while True:
        quote += 1
        quote = <const unsigned char *>memchr(quote, b'"', end - quote) if quote < end else NULL
        if quote == NULL:
            return end
        before = quote
        while (before - 1)[0] == b"\\":
            before -= 1
        if (quote - before) % 2 == 0:       # an even number of backslashes escapes itself
            return quote + 1


cdef const unsigned char *past_value(const unsigned char *p, const unsigned char *end) noexcept nogil:
    cdef int depth = 0
    cdef unsigned char c
    while p < end:
        c = p[0]
        if c == b'"':
            p = past_string(p, end)
        elif c == b"{" or c == b"[":
            depth += 1
            p += 1
        elif c == b"}" or c == b"]":
            if depth == 0:
                return p
            depth -= 1
            p += 1
        elif depth == 0 and (c == b"," or c == b" " or c == b"\n" or c == b"\r" or c == b"\t"):
            return p
        else:
            p += 1
            continue
        if depth == 0:
            return p
    return end


cdef bint find(
    const unsigned char *p, const unsigned char *end, const char *name, Py_ssize_t size, Note *found
) noexcept nogil:
    """The last member of that name of the object at ``p``, its place counted from ``p``."""
    cdef const unsigned char *start = p
    cdef const unsigned char *after
    cdef bint same, here = False
    if p >= end or p[0] != b"{":
        return False
    p = past_space(p + 1, end)
    while p < end and p[0] == b'"':
        after = past_string(p, end)
        same = after - p == size + 2 and memcmp(p + 1, name, size) == 0
        p = past_space(after, end)
        p = past_space(p + 1, end)          # the colon
        after = past_value(p, end)
        if same:
            found.start, found.end, here = p - start, after - start, True
        p = past_space(after, end)
        if p < end and p[0] == b",":
            p = past_space(p + 1, end)
    return here


cdef str text_at(const unsigned char *start, Py_ssize_t size):
    """The string whose quotes are the first and the last byte; None where it is none that can be written down."""
    cdef str text
    if size < 2 or size > MAX_USER or start[0] != b'"':
        return None
    if memchr(start, b"\\", size) == NULL:
        return PyUnicode_DecodeUTF8(<const char *>start + 1, size - 2, NULL) or None
    text = json.loads(PyBytes_FromStringAndSize(<const char *>start, size))
    return text if text and is_writable(text) else None


cdef bint is_writable(str text):
    """It has no half of a surrogate pair, which no log could write down."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


cdef tuple told_of(const unsigned char *body, const Seen *seen):
    """(user, session) as ``metadata.user_id`` has them: in a text with a mark between, or in an object in a text."""
    cdef const Note *note = &seen.noted[NOTE_METADATA]
    cdef Note found
    cdef str text, user, session
    if note.start == 0 or not find(body + note.start, body + note.end, b"user_id", 7, &found):
        return None, None
    text = text_at(body + note.start + found.start, found.end - found.start)
    if text is None:
        return None, None
    if text.startswith("{"):
        try:
            tree = json.loads(text)
        except (ValueError, RecursionError):
            return text, None
        user = next((
            tree[name] for name in ("account_uuid", "user_id", "device_id")
            if isinstance(tree.get(name), str) and tree[name] and is_writable(tree[name])
        ), None)
        session = tree.get("session_id") if isinstance(tree.get("session_id"), str) else None
        return user or text, session or None
    user, _, session = text.rpartition(SESSION_MARK)
    return (user, session) if user and session else (text, None)


cdef str user_of(const unsigned char *body, const Seen *seen, bint messages):
    if seen.user:
        return text_of_user(body, seen)
    return told_of(body, seen)[0] if messages and seen.noted[NOTE_METADATA].start else None


cdef str text_of_user(const unsigned char *body, const Seen *seen):
    cdef Py_ssize_t size = seen.user_end - seen.user_start
    if size > MAX_USER:
        return None
    if seen.user_escaped:
        return json.loads(PyBytes_FromStringAndSize(<const char *>body + seen.user_start, size))
    return PyUnicode_DecodeUTF8(<const char *>body + seen.user_start + 1, size - 2, NULL)


cdef inline void keep(Text *text, const unsigned char *start, const unsigned char *end) noexcept nogil:
    cdef Py_ssize_t size = min(end - start, BEGINNING - text.size)
    if size > 0:
        memcpy(text.bytes + text.size, start, size)
        text.size += size
    if text.size < BEGINNING:
        text.bytes[text.size] = 0
        text.size += 1


cdef void gather(Text *text, const unsigned char *p, const unsigned char *end) noexcept nogil:
    """The text at ``p``, or the texts in what stands there: values of members named ``text`` or ``content``."""
    cdef const unsigned char *start
    cdef const unsigned char *after
    cdef bint wanted = True
    while text.size < BEGINNING:
        p = <const unsigned char *>memchr(p, b'"', end - p) if p < end else NULL
        if p == NULL:
            return
        start = p
        p = past_string(p, end)
        after = past_space(p, end)
        if after < end and after[0] == b":":
            wanted = (p - start == 6 and memcmp(start, <const char *>b'"text"', 6) == 0) or (
                p - start == 9 and memcmp(start, <const char *>b'"content"', 9) == 0)
        elif wanted:
            keep(text, start + 1, p - 1)


cdef void gather_turns(Text *text, const unsigned char *p, const unsigned char *end) noexcept nogil:
    """Of a list of messages: their texts up to the first one of the user. Of a text: itself."""
    cdef const unsigned char *after
    cdef Note role
    if p < end and p[0] == b'"':
        gather(text, p, past_string(p, end))
        return
    if p >= end or p[0] != b"[":
        return
    p = past_space(p + 1, end)
    while p < end and p[0] == b"{":
        after = past_value(p, end)
        gather(text, p, after)
        if find(p, after, b"role", 4, &role) and role.end - role.start == 6:
            if memcmp(p + role.start, <const char *>b'"user"', 6) == 0:
                return
        p = past_space(after, end)
        if p < end and p[0] == b",":
            p = past_space(p + 1, end)


cdef uint64_t beginning_of(const unsigned char *body, const Seen *seen) noexcept nogil:
    """Of the texts that the conversation begins with; 0 where there are none."""
    cdef Text text
    cdef const Note *note
    cdef int which
    text.size = 0
    for which in range(NOTE_MESSAGES, NOTE_INSTRUCTIONS + 1):
        note = &seen.noted[which]
        if note.start == 0:
            continue
        if which == NOTE_SYSTEM or which == NOTE_INSTRUCTIONS:
            gather(&text, body + note.start, body + min(note.end, note.start + LOOKED_AT))
        else:
            gather_turns(&text, body + note.start, body + min(note.end, note.start + LOOKED_AT))
    return hash_of(text.bytes, text.size) if text.size else 0


cdef uint64_t session_of(
    const unsigned char *body, const Seen *seen, uint64_t header, uint64_t key, bint messages, bint derive
) except? 0:
    cdef const Note *note = &seen.noted[NOTE_CONVERSATION]
    cdef Note inner
    cdef uint64_t found = header
    cdef bytes name
    cdef str told
    if not found and note.start and body[note.start] == b'"' and note.end - note.start > 2:
        found = hash_of(body + note.start, note.end - note.start) ^ NOTE_CONVERSATION
    elif not found and note.start and find(body + note.start, body + note.end, b"id", 2, &inner):
        if body[note.start + inner.start] == b'"':
            found = hash_of(body + note.start + inner.start, inner.end - inner.start) ^ NOTE_CONVERSATION
    note = &seen.noted[NOTE_CACHE_KEY]
    if not found and note.start and body[note.start] == b'"' and note.end - note.start > 2:
        found = hash_of(body + note.start, note.end - note.start) ^ NOTE_CACHE_KEY
    if not found and messages and seen.noted[NOTE_METADATA].start:
        told = told_of(body, seen)[1]
        if told is not None:
            name = told.encode("utf-8", "surrogatepass")
            found = hash_of(<const unsigned char *><const char *>name, len(name)) ^ NOTE_METADATA
    if not found and derive:
        found = beginning_of(body, seen) ^ NOTE_MESSAGES
        if found == NOTE_MESSAGES:
            return 0
    return ((found ^ key) * GOLDEN) | 1 if found else 0


cdef int64_t choices_of(const unsigned char *body, const Seen *seen) noexcept nogil:
    cdef const Note *prompt = &seen.noted[NOTE_PROMPT]
    cdef int64_t each = max(number_at(body, &seen.noted[NOTE_CHOICES]), number_at(body, &seen.noted[NOTE_BEST_OF]))
    return each * prompts_in(body + prompt.start, body + prompt.end)


cdef int64_t number_at(const unsigned char *body, const Note *note) noexcept nogil:
    """1 to MAX_CHOICES; 1 for a member that is not there or no whole number."""
    cdef int64_t count = 0
    cdef Py_ssize_t at = note.start
    while at < note.end:
        if not b"0" <= body[at] <= b"9" or count > MAX_CHOICES:
            break
        count = count * 10 + (body[at] - 0x30)
        at += 1
    return min(max(count, 1), MAX_CHOICES)


cdef int64_t prompts_in(const unsigned char *p, const unsigned char *end) noexcept nogil:
    """How many prompts a list has, each answered apart: texts or lists of tokens. 1 for whatever else there is."""
    cdef int64_t count = 0
    if p >= end or p[0] != b"[":
        return 1
    p = past_space(p + 1, end)
    if p >= end or (p[0] != b'"' and p[0] != b"["):
        return 1                            # the tokens of one
    while p < end and p[0] != b"]":
        count += 1
        p = past_space(past_value(p, end), end)
        if p < end and p[0] == b",":
            p = past_space(p + 1, end)
    return count


cdef bint bounds_of(const unsigned char *body, const Seen *seen, int64_t *most, int64_t *choices) noexcept nogil:
    cdef const Note *note = &seen.noted[NOTE_CONFIG]
    cdef const unsigned char *p
    cdef const unsigned char *end
    cdef const unsigned char *after
    cdef int64_t *count
    cdef int known = 0, which
    if note.start and seen.noted[NOTE_CONFIG_TOO].start:
        return False
    if note.start == 0:
        note = &seen.noted[NOTE_CONFIG_TOO]
    if note.start == 0 or body[note.start] != b"{":
        return True
    p, end = body + note.start, body + note.end
    p = past_space(p + 1, end)
    while p < end and p[0] == b'"':
        after = past_string(p, end)
        if memchr(p, b"\\", after - p) != NULL:
            return False
        which = count_named(p + 1, after - p - 2)
        p = past_space(after, end)
        p = past_space(p + 1, end)          # the colon
        after = past_value(p, end)
        if which:
            count = most if which == 1 else choices
            if known & which or not whole_number(p, after, count):
                return False
            known |= which
        p = past_space(after, end)
        if p < end and p[0] == b",":
            p = past_space(p + 1, end)
    return True


cdef int count_named(const unsigned char *name, Py_ssize_t size) noexcept nogil:
    """1: of the answer's tokens, 2: of the answers, 0: neither. Protocol buffers take both spellings in JSON."""
    if size == 15:
        return 1 if memcmp(name, <const char *>b"maxOutputTokens", 15) == 0 else (
            2 if memcmp(name, <const char *>b"candidate_count", 15) == 0 else 0)
    if size == 17:
        return 1 if memcmp(name, <const char *>b"max_output_tokens", 17) == 0 else 0
    return 2 if size == 14 and memcmp(name, <const char *>b"candidateCount", 14) == 0 else 0


cdef bint whole_number(const unsigned char *p, const unsigned char *end, int64_t *count) noexcept nogil:
    """Into ``count``, which stays as it is for null. False for what is neither that nor plain digits."""
    cdef int64_t found = 0
    if end - p == 4 and memcmp(p, <const char *>b"null", 4) == 0:
        return True
    if not 0 < end - p <= COUNT_DIGITS:
        return False
    while p < end:
        if not b"0" <= p[0] <= b"9":
            return False
        found = found * 10 + (p[0] - 0x30)
        p += 1
    count[0] = found
    return True


def user(bytes body not None, Peek seen not None, bint messages):
    return user_of(<const unsigned char *><const char *>body, &checked(body, seen).seen, messages)


def session(bytes body not None, Peek seen not None, bytes header, uint64_t key, bint messages, bint derive):
    cdef uint64_t told = 0
    if header:
        told = hash_of(<const unsigned char *><const char *>header, len(header)) | 1
    return session_of(<const unsigned char *><const char *>body, &checked(body, seen).seen, told, key, messages, derive)


cdef Peek checked(bytes body, Peek seen):
    if len(body) != seen.seen.size:
        raise ValueError(f"this is not the body that was looked at: {seen.seen.size} bytes expected, got {len(body)}")
    return seen


def choices(bytes body not None, Peek seen not None):
    return choices_of(<const unsigned char *><const char *>body, &checked(body, seen).seen)


def bounds(bytes body not None, Peek seen not None):
    cdef int64_t most = 0, each = 1
    if not bounds_of(<const unsigned char *><const char *>body, &checked(body, seen).seen, &most, &each):
        return None
    return most, each
