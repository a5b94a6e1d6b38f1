# Part of route.pyx: shell-style patterns, one and a list of them.

@cython.final
cdef class Pattern:
    """One shell-style pattern: `*` is any run of characters (slashes too), `?` one code point, the rest literal."""

    def __cinit__(self, str text not None):
        if not text:
            raise ValueError("a pattern must not be empty")
        cdef str literal = text
        while "**" in literal:
            literal = literal.replace("**", "*")
        self.text = text
        self.wild = "*" in literal or "?" in literal
        if not self.wild:
            self._kind = EXACT
        elif literal == "*":
            self._kind = ANY
        elif "?" not in literal and literal.index("*") == len(literal) - 1:
            self._kind = PREFIX
            literal = literal[:len(literal) - 1]
        else:
            self._kind = GENERAL
        self._literal = literal

    cdef bint match_(self, str name):
        if self._kind == ANY:
            return True
        if self._kind == PREFIX:
            return has_prefix(name, self._literal)
        if self._kind == EXACT:
            return name == self._literal
        return matches(self._literal, name)


cdef bint has_prefix(str name, str prefix):
    cdef Py_ssize_t size = PyUnicode_GET_LENGTH(prefix)
    if PyUnicode_GET_LENGTH(name) < size:
        return False
    if PyUnicode_KIND(name) == PyUnicode_1BYTE_KIND and PyUnicode_KIND(prefix) == PyUnicode_1BYTE_KIND:
        return memcmp(PyUnicode_DATA(name), PyUnicode_DATA(prefix), <size_t>size) == 0
    return name.startswith(prefix)


cdef bint matches(str pattern, str name):
    """Greedy two-pointer matching: only the last star is revisited, so the work is at most len(pattern) * len(name)."""
    cdef int pattern_kind = PyUnicode_KIND(pattern)
    cdef int name_kind = PyUnicode_KIND(name)
    cdef void *pattern_data = PyUnicode_DATA(pattern)
    cdef void *name_data = PyUnicode_DATA(name)
    cdef Py_ssize_t pattern_size = PyUnicode_GET_LENGTH(pattern)
    cdef Py_ssize_t name_size = PyUnicode_GET_LENGTH(name)
    cdef Py_ssize_t p = 0, n = 0
    cdef Py_ssize_t after_star = -1   # where the pattern goes on after the last star seen
    cdef Py_ssize_t resume = 0        # where the name goes on once that star takes one character more
    cdef Py_UCS4 wanted
    while n < name_size:
        wanted = PyUnicode_READ(pattern_kind, pattern_data, p) if p < pattern_size else 0
        if p < pattern_size and wanted == c'*':
            p += 1
            after_star = p
            resume = n
        elif p < pattern_size and (wanted == c'?' or wanted == PyUnicode_READ(name_kind, name_data, n)):
            p += 1
            n += 1
        elif after_star >= 0:
            resume += 1
            n = resume
            p = after_star
        else:
            return False
    while p < pattern_size and PyUnicode_READ(pattern_kind, pattern_data, p) == c'*':
        p += 1
    return p == pattern_size


@cython.final
cdef class Globs:
    """A compiled list of patterns; an empty list matches nothing."""

    def __cinit__(self, patterns):
        if isinstance(patterns, (str, bytes)):
            raise TypeError("patterns must be a list of str, not one string")
        self.patterns = tuple(patterns)
        cdef list compiled = [Pattern(text) for text in self.patterns]
        cdef Pattern pattern
        self._any = False
        self._wild = []
        exact = []
        for pattern in compiled:
            if pattern._kind == ANY:
                self._any = True
            elif pattern._kind == EXACT:
                exact.append(pattern.text)
            else:
                self._wild.append(pattern)
        self._exact = frozenset(exact)

    cdef bint match_(self, str name):
        cdef Pattern pattern
        if self._any or name in self._exact:
            return True
        for pattern in self._wild:
            if pattern.match_(name):
                return True
        return False

    def match(self, str name not None) -> bool:
        """Whether any pattern matches the whole name."""
        return self.match_(name)

    def __repr__(self):
        return f"Globs({list(self.patterns)!r})"
