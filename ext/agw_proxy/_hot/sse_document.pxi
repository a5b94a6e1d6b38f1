# Part of sse.pyx: an answer that is one JSON document.

@cython.final
cdef class Document:
    """Follows one JSON answer, fed in any chunking, in constant memory."""

    def __cinit__(self):
        json_clear(&self._json)

    cdef void push(self, const unsigned char *data, Py_ssize_t size) noexcept nogil:
        json_feed(&self._json, data, data + size)

    cdef void usage(self, long long *prompt, long long *completion, long long *cached) noexcept nogil:
        prompt[0] = prompt_of(&self._json)
        completion[0] = completion_of(&self._json)
        cached[0] = cached_of(&self._json)

    def feed(self, bytes chunk not None):
        self.push(<const unsigned char *>PyBytes_AS_STRING(chunk), PyBytes_GET_SIZE(chunk))

    @property
    def prompt_tokens(self):
        return prompt_of(&self._json)

    @property
    def completion_tokens(self):
        return completion_of(&self._json)

    @property
    def cached_tokens(self):
        return cached_of(&self._json)

    @property
    def finish_reason(self):
        if self._json.reason_size == 0 or (self._json.reason_role == IS_STATUS and not self._json.response):
            return None
        return self._json.reason[:self._json.reason_size].decode("utf-8", "replace")

    @property
    def complete(self):
        return json_closed(&self._json)
