# Part of sse.pyx: the names that mean something to us, of members and of events' types.

# What a container is to us.
cdef enum Layer:
    ELSEWHERE, TOP, CHOICES, CHOICE, DELTA, TOOL_CALLS, USAGE, PROMPT_DETAILS, INPUT_DETAILS, COMPLETION_DETAILS
    TURN, MESSAGE, RESPONSE, FEEDBACK

# What the next value is to us. The first NUMBERS are indices into Json.numbers; those from IS_TEXT to IS_OBJECT are
# strings of which only what they are is kept, those from IS_TYPE to IS_STATUS are kept where they come in pieces.
cdef enum Role:
    PROMPT_TOKENS, INPUT_TOKENS, COMPLETION_TOKENS, OUTPUT_TOKENS, PROMPT_CACHED, INPUT_CACHED, CACHE_READ
    CACHE_CREATED, THOUGHT_TOKENS, TOOL_PROMPT_TOKENS, CACHE_HIT, REASONING_TOKENS, TOTAL_TOKENS, CHOICE_INDEX
    NOTHING, IS_TEXT, IS_TYPE, IS_OBJECT, IS_REASON, IS_STOP, IS_BLOCK, IS_STATUS
    IS_USAGE, IS_CHOICES, IS_ERROR, IS_DELTA, IS_TOOL_CALLS, IS_CALL, IS_PROMPT_DETAILS, IS_INPUT_DETAILS
    IS_COMPLETION_DETAILS, IS_TURN, IS_MESSAGE, IS_RESPONSE, IS_INNER_USAGE, IS_FEEDBACK

# What an event's type says, by the member ``type`` of its data or by its field ``event``.
cdef enum Type:
    UNTYPED, UNKNOWN, PING, CONTENT, CUMULATIVE, LAST, FAILED, FAULT


cdef inline bint same(const unsigned char *text, const char *name, Py_ssize_t size) noexcept nogil:
    return memcmp(text, name, size) == 0


cdef int type_of(const unsigned char *name, Py_ssize_t size) noexcept nogil:
    """What an event of this type is: Anthropic API reference, Streaming; OpenAI API reference, Responses, Streaming."""
    if size == 0:
        return UNTYPED
    if size >= TYPE_BYTES:
        return UNKNOWN
    if size == 4:
        return PING if same(name, b"ping", 4) else UNKNOWN
    elif size == 5:
        return FAULT if same(name, b"error", 5) else UNKNOWN
    elif size == 9 and same(name, b"keepalive", 9):
        return PING
    elif size == 12 and same(name, b"message_stop", 12):
        return LAST
    elif size == 13 and same(name, b"message_delta", 13):
        return CUMULATIVE
    elif size == 15 and same(name, b"response.failed", 15):
        return FAILED
    elif size == 18 and same(name, b"response.completed", 18):
        return LAST
    elif size == 19 and same(name, b"response.incomplete", 19):
        return LAST
    elif size == 19 and same(name, b"content_block_delta", 19):
        return CONTENT
    elif size > 15 and same(name, b"response.", 9) and same(name + size - 6, b".delta", 6):
        return CONTENT
    return UNKNOWN


cdef int role_of(int layer, const unsigned char *name, Py_ssize_t size) noexcept nogil:
    """What the member with this name is, in a container that is ``layer`` to us."""
    if layer == TOP:
        return top_role(name, size)
    elif layer == CHOICE:
        if size == 5 and same(name, b"delta", 5):
            return IS_DELTA
        elif size == 13 and same(name, b"finish_reason", 13):
            return IS_REASON
        elif size == 4 and same(name, b"text", 4):
            return IS_TEXT
        elif size == 5 and same(name, b"index", 5):
            return CHOICE_INDEX
        elif size == 12 and same(name, b"finishReason", 12):
            return IS_REASON
        elif size == 7 and same(name, b"content", 7):
            return IS_CALL
    elif layer == DELTA:
        return delta_role(name, size)
    elif layer == USAGE:
        return usage_role(name, size)
    elif layer == PROMPT_DETAILS or layer == INPUT_DETAILS:
        if size == 13 and same(name, b"cached_tokens", 13):
            return PROMPT_CACHED if layer == PROMPT_DETAILS else INPUT_CACHED
    elif layer == COMPLETION_DETAILS:
        if size == 16 and same(name, b"reasoning_tokens", 16):
            return REASONING_TOKENS
    elif layer == TURN:
        if size == 11 and same(name, b"stop_reason", 11):
            return IS_STOP
    elif layer == FEEDBACK:
        if size == 11 and same(name, b"blockReason", 11):
            return IS_BLOCK
    elif size == 5 and (layer == MESSAGE or layer == RESPONSE):
        if same(name, b"usage", 5):
            return IS_INNER_USAGE
    elif layer == RESPONSE and size == 6 and same(name, b"status", 6):
        return IS_STATUS
    return NOTHING


cdef inline int top_role(const unsigned char *name, Py_ssize_t size) noexcept nogil:
    """Of the answer or the event itself: Chat has choices, Messages a message and a delta, Responses a response.

    Gemini has candidates, which are choices in other words, or says in promptFeedback why there are none.
    """
    if size == 4:
        if same(name, b"type", 4):
            return IS_TYPE
    elif size == 5:
        if same(name, b"usage", 5):
            return IS_USAGE
        elif same(name, b"error", 5):
            return IS_ERROR
        elif same(name, b"delta", 5):
            return IS_TURN
    elif size == 6:
        if same(name, b"object", 6):
            return IS_OBJECT
        elif same(name, b"status", 6):
            return IS_STATUS
    elif size == 7:
        if same(name, b"choices", 7):
            return IS_CHOICES
        elif same(name, b"message", 7):
            return IS_MESSAGE
    elif size == 8:
        if same(name, b"response", 8):
            return IS_RESPONSE
    elif size == 10:
        if same(name, b"candidates", 10):
            return IS_CHOICES
    elif size == 11:
        if same(name, b"stop_reason", 11):
            return IS_STOP
    elif size == 13:
        if same(name, b"usageMetadata", 13):
            return IS_USAGE
    elif size == 14:
        if same(name, b"promptFeedback", 14):
            return IS_FEEDBACK
    return NOTHING


cdef inline int delta_role(const unsigned char *name, Py_ssize_t size) noexcept nogil:
    """Of a chat's delta.

    ``reasoning_content`` and ``reasoning`` are what compatible servers call their thoughts, ``images`` their pictures.
    """
    if size == 5:
        if same(name, b"audio", 5):
            return IS_CALL
    elif size == 6:
        if same(name, b"images", 6):
            return IS_TOOL_CALLS        # a list of what is there as a whole, too
    elif size == 7:
        if same(name, b"content", 7) or same(name, b"refusal", 7):
            return IS_TEXT
    elif size == 9:
        if same(name, b"reasoning", 9):
            return IS_TEXT
    elif size == 10:
        if same(name, b"tool_calls", 10):
            return IS_TOOL_CALLS
    elif size == 13:
        if same(name, b"function_call", 13):
            return IS_CALL
    elif size == 17:
        if same(name, b"reasoning_content", 17):
            return IS_TEXT
    return NOTHING


cdef int usage_role(const unsigned char *name, Py_ssize_t size) noexcept nogil:
    if size == 13 and same(name, b"prompt_tokens", 13):
        return PROMPT_TOKENS
    elif size == 17 and same(name, b"completion_tokens", 17):
        return COMPLETION_TOKENS
    elif size == 12 and same(name, b"input_tokens", 12):
        return INPUT_TOKENS
    elif size == 13 and same(name, b"output_tokens", 13):
        return OUTPUT_TOKENS
    elif size == 21 and same(name, b"prompt_tokens_details", 21):
        return IS_PROMPT_DETAILS
    elif size == 20 and same(name, b"input_tokens_details", 20):
        return IS_INPUT_DETAILS
    elif size == 23 and same(name, b"cache_read_input_tokens", 23):
        return CACHE_READ
    elif size == 27 and same(name, b"cache_creation_input_tokens", 27):
        return CACHE_CREATED
    elif size == 16 and same(name, b"promptTokenCount", 16):
        return PROMPT_TOKENS
    elif size == 20 and same(name, b"candidatesTokenCount", 20):
        return COMPLETION_TOKENS
    elif size == 18 and same(name, b"thoughtsTokenCount", 18):
        return THOUGHT_TOKENS
    elif size == 23 and same(name, b"cachedContentTokenCount", 23):
        return PROMPT_CACHED
    elif size == 23 and same(name, b"toolUsePromptTokenCount", 23):
        return TOOL_PROMPT_TOKENS
    elif size == 25 and same(name, b"completion_tokens_details", 25):
        return IS_COMPLETION_DETAILS
    elif size == 12 and same(name, b"total_tokens", 12):
        return TOTAL_TOKENS
    elif size == 23 and same(name, b"prompt_cache_hit_tokens", 23):     # DeepSeek
        return CACHE_HIT
    elif size == 13 and same(name, b"cached_tokens", 13):               # Moonshot
        return CACHE_HIT
    return NOTHING


# -- what a usage object says

cdef inline long long number(const Json *json, int role) noexcept nogil:
    return json.numbers[role]


cdef inline long long count(const Json *json, int one, int other) noexcept nogil:
    """A number under the first of its two names that has one, or -1."""
    return json.numbers[one] if json.numbers[one] >= 0 else json.numbers[other]


cdef bint thought_beside(const Json *json) noexcept nogil:
    """A server of Chat (xAI, Google) counts thoughts beside the answer; as ``dialects.openai_chat_usage.read_tokens``.

    Only the total tells, or, where there is none, that there are more of them than of all.
    """
    cdef long long made = number(json, COMPLETION_TOKENS), thought = number(json, REASONING_TOKENS)
    cdef long long total = number(json, TOTAL_TOKENS)
    if made < 0 or thought <= 0:
        return False
    if total <= 0:
        return thought > made
    if total < thought or total - thought < made:
        return False
    return total - thought - made == max(number(json, PROMPT_TOKENS), 0)


cdef long long completion_of(const Json *json) noexcept nogil:
    """All of the answer, or -1. Gemini leaves out what was thought before it, as some servers of Chat do."""
    cdef long long found = count(json, COMPLETION_TOKENS, OUTPUT_TOKENS), thought = number(json, THOUGHT_TOKENS)
    if thought_beside(json):
        thought = number(json, REASONING_TOKENS)
    if thought <= 0:
        return found
    return max(found, 0) + thought


cdef long long prompt_of(const Json *json) noexcept nogil:
    """All of the prompt, or -1.

    Anthropic's ``input_tokens`` leave out what was read from and written to its cache, Gemini's what its tools found.
    """
    cdef long long total = number(json, PROMPT_TOKENS)
    cdef long long more = max(number(json, TOOL_PROMPT_TOKENS), 0)
    cdef int role
    if total >= 0:
        return total + more
    if number(json, INPUT_TOKENS) < 0:
        return total
    total = number(json, INPUT_TOKENS)
    for role in range(CACHE_READ, CACHE_CREATED + 1):
        total += max(number(json, role), 0)
    return total


cdef long long cached_of(const Json *json) noexcept nogil:
    """The part of the prompt that came from a cache, or -1."""
    cdef long long found = max(count(json, PROMPT_CACHED, INPUT_CACHED), number(json, CACHE_HIT))
    return found if found >= 0 else number(json, CACHE_READ)
