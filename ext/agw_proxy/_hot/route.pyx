"""Routes: from the model a caller names to the targets that may serve it, compiled once per configuration."""

cimport cython
from cpython.object cimport PyObject
from cpython.unicode cimport (
    PyUnicode_1BYTE_KIND, PyUnicode_DATA, PyUnicode_DecodeUTF8, PyUnicode_FindChar,
    PyUnicode_GET_LENGTH, PyUnicode_KIND, PyUnicode_READ,
)
from libc.string cimport memcmp

cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(dict mapping, object key) except? NULL

cdef enum:
    ANY = 0       # "*"
    EXACT = 1     # no wildcard
    PREFIX = 2    # one star, at the end
    GENERAL = 3

cdef int MAX_WEIGHT = 1_000_000   # nobody needs finer shares, and the sum over all targets is far from any overflow


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


@cython.final
cdef class Target:
    """One upstream and the model name it knows. Made by RouteTable."""

    def __cinit__(self, str name not None, int upstream, str model not None, int weight=1):
        if not 0 < weight <= MAX_WEIGHT:
            raise ValueError(f"the weight of target {name!r} is {weight}, expected 1 to {MAX_WEIGHT}")
        self.name = name
        self.upstream = upstream
        self.model = model
        self.weight = weight

    def __repr__(self):
        return f"<Target {self.name} weight={self.weight}>"


cdef inline uint64_t mix(uint64_t state) noexcept nogil:
    """SplitMix64's output function (Steele, Lea, Flood 2014): each bit of the state reaches all bits of the result."""
    state = (state ^ (state >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    state = (state ^ (state >> 27)) * <uint64_t>0x94D049BB133111EB
    return state ^ (state >> 31)


cdef uint64_t GOLDEN = 0x9E3779B97F4A7C15   # SplitMix64's step


@cython.final
cdef class Route:
    """What a model name leads to. Made by RouteTable; immutable."""

    def __cinit__(
        self, str name not None, str label not None, tuple targets not None, tuple fallbacks=(), bint weighted=False
    ):
        cdef Target target
        if not 0 < len(targets) <= MAX_TARGETS:
            raise ValueError(f"model {name!r} has {len(targets)} targets; expected 1 to {MAX_TARGETS}")
        self.name = name
        self.label = label
        self.targets = targets
        self.fallbacks = fallbacks
        self.weighted = weighted and len(targets) > 1
        # A name may hold lone surrogates (JSON can spell them); no UTF-8 input equals those bytes, which is right.
        self._utf8 = name.encode("utf-8", "surrogatepass")
        self._in_order = targets + fallbacks
        self._total = 0
        for target in targets:
            self._total += <uint64_t>target.weight

    cdef Target first_(self, uint64_t random):
        cdef Target target = <Target>self.targets[0]
        if not self.weighted:
            return target
        # The remainder's bias is below total / 2**64: less than one in 10**11.
        cdef uint64_t left = mix(random + GOLDEN) % self._total
        for target in self.targets:
            if left < <uint64_t>target.weight:
                return target
            left -= <uint64_t>target.weight
        raise AssertionError("weights do not add up")

    cdef tuple plan_(self, uint64_t random):
        if not self.weighted:
            return self._in_order
        cdef uint64_t[MAX_TARGETS] weights
        cdef uint64_t left, total = self._total
        cdef Py_ssize_t size = len(self.targets)
        cdef Py_ssize_t i = 0
        cdef list order = []
        cdef Target target
        for i in range(size):
            target = <Target>self.targets[i]
            weights[i] = <uint64_t>target.weight
        while total:
            random += GOLDEN
            left = mix(random) % total
            for i in range(size):
                if left < weights[i]:
                    break
                left -= weights[i]
            order.append(self.targets[i])
            total -= weights[i]
            weights[i] = 0
        order.extend(self.fallbacks)
        return tuple(order)

    def first(self, uint64_t random) -> Target:
        return self.first_(random)

    def plan(self, uint64_t random) -> tuple[Target, ...]:
        return self.plan_(random)

    def __repr__(self):
        return f"<Route {self.name!r} label={self.label!r} targets={len(self.targets)} fallbacks={len(self.fallbacks)}>"


cdef object checked(object name, str what):
    """A configured name that a look-up can reach."""
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a str, not {type(name).__name__}")
    if not name:
        raise ValueError(f"{what} must not be empty")
    if len(name) > MAX_NAME_CHARS:
        raise ValueError(f"{what} {name[:40]!r}... has {len(name)} characters; at most {MAX_NAME_CHARS} are looked up")
    return name


cdef tuple make_targets(str model, object configured, list upstreams):
    """The targets of one virtual model. One named twice is kept once, with the sum of its weights: the same odds."""
    cdef dict weights = {}
    for upstream, name, weight in configured:
        if not 0 <= upstream < len(upstreams):
            raise ValueError(f"model {model!r}: there is no upstream number {upstream} (there are {len(upstreams)})")
        checked(name, f"model {model!r}: the name of a target's model")
        total = weights.get((upstream, name), 0) + weight
        if not (0 < weight and total <= MAX_WEIGHT):
            raise ValueError(f"model {model!r}: the weight of target {name!r} is {total}, expected 1 to {MAX_WEIGHT}")
        weights[upstream, name] = total
    return tuple([
        Target(f"{upstreams[upstream]}/{name}", upstream, name, weight)
        for (upstream, name), weight in weights.items()
    ])


@cython.final
cdef class RouteTable:
    """All routes of one configuration. Nothing changes after construction but two bounded memos of what was found."""

    def __cinit__(self, upstreams, models):
        self._upstreams = {}
        self._fixed = {}
        self._globs = []
        self._cache = {}
        self._recent = [None] * RECENT_SLOTS
        cdef list exact = []      # Target, in order of precedence
        cdef dict fallbacks = {}  # virtual model -> names
        for name, patterns in upstreams:
            self._add_upstream(name, patterns, exact)
        cdef list order = list(self._upstreams)
        for name, targets, weighted, others in models:
            if checked(name, "the name of a model") in fallbacks:
                raise ValueError(f"model {name!r} is defined twice")
            if isinstance(others, str):
                raise TypeError(f"model {name!r}: fallbacks must be a list of str, not one string")
            self._fixed[name] = Route(name, name, make_targets(name, targets, order), (), weighted)
            fallbacks[name] = others
        self._names = tuple(dict.fromkeys([*fallbacks, *[target.model for target in exact]]))
        for target in exact:
            if self._addressed(target.model) < 0:   # otherwise it addresses an upstream, which comes first
                self._fixed.setdefault(target.model, Route(target.model, target.model, (target,)))
        # All names are known by now, so that a fallback may be a model further down.
        self._fixed.update({name: self._with_fallbacks(name, others) for name, others in fallbacks.items()})

    cdef int _add_upstream(self, object name, object patterns, list exact) except -1:
        cdef int index = len(self._upstreams)
        cdef Pattern pattern
        if "/" in checked(name, "the name of an upstream"):
            raise ValueError(f"upstream {name!r}: a name with a slash could not be addressed as upstream/model")
        if name in self._upstreams:
            raise ValueError(f"upstream {name!r} is defined twice")
        self._upstreams[name] = index
        cdef Globs globs = Globs(patterns)
        for text in globs.patterns:
            pattern = Pattern(checked(text, f"upstream {name!r}: a model pattern"))
            if pattern.wild:
                self._globs.append((pattern, index, name))
            else:
                exact.append(Target(f"{name}/{text}", index, text))
        return 0

    cdef Route _with_fallbacks(self, str name, object others):
        """The virtual model's route again, with its fallbacks' targets flattened in."""
        cdef Route route = <Route>self._fixed[name]
        cdef Route other
        cdef Target target
        cdef set seen = {target.name for target in route.targets}
        cdef list fallbacks = []
        for fallback in others:
            if fallback == name:
                raise ValueError(f"model {name!r} names itself as a fallback")
            other = self.find_(fallback)
            if other is None:
                raise ValueError(f"model {name!r}: no route leads to its fallback {fallback!r}")
            for target in other.targets:
                if target.name not in seen:
                    seen.add(target.name)
                    fallbacks.append(target)
        return Route(name, name, route.targets, tuple(fallbacks), route.weighted)

    cdef Py_ssize_t _addressed(self, str model) except -2:
        """Where the slash is in ``upstream/model`` with a known upstream and something behind it; -1 in other names."""
        cdef Py_ssize_t size = PyUnicode_GET_LENGTH(model)
        cdef Py_ssize_t slash = PyUnicode_FindChar(model, c'/', 0, size, 1)
        if 0 < slash < size - 1 and model[:slash] in self._upstreams:
            return slash
        return -1

    cdef Route find_(self, str model):
        cdef PyObject *known = PyDict_GetItemWithError(self._fixed, model)
        if known == NULL:
            known = PyDict_GetItemWithError(self._cache, model)
        if known != NULL:
            return <Route>known
        cdef Route route = self._make(model)
        if route is not None:
            if len(self._cache) >= MAX_CACHED_NAMES:
                self._cache.clear()
            self._cache[model] = route
        return route

    cdef Route _make(self, str model):
        """A route by direct addressing or by a glob, or None."""
        cdef Py_ssize_t size = PyUnicode_GET_LENGTH(model)
        if not 0 < size <= MAX_NAME_CHARS:
            return None
        cdef Py_ssize_t slash = self._addressed(model)
        if slash > 0:
            upstream = model[:slash]
            target = Target(model, self._upstreams[upstream], model[slash + 1:])
            return Route(model, f"{upstream}/*", (target,))
        cdef Pattern pattern
        for entry in self._globs:
            pattern = <Pattern>(<tuple>entry)[0]
            if pattern.match_(model):
                _, index, upstream = entry
                target = Target(f"{upstream}/{model}", index, model)
                return Route(model, pattern.text, (target,))
        return None

    cdef Route find_utf8(self, const unsigned char *text, Py_ssize_t size):
        cdef uint64_t mark = <uint64_t>0xCBF29CE484222325   # FNV-1a
        cdef Py_ssize_t i
        cdef Route route
        if not 0 < size <= MAX_NAME_CHARS * 4:
            return None
        for i in range(size):
            mark = (mark ^ text[i]) * <uint64_t>0x100000001B3
        cdef Py_ssize_t slot = <Py_ssize_t>((mark ^ (mark >> 32)) & (RECENT_SLOTS - 1))
        known = self._recent[slot]
        if known is not None:
            route = <Route>known
            if len(route._utf8) == size and memcmp(<const char *>route._utf8, text, <size_t>size) == 0:
                return route
        try:
            model = PyUnicode_DecodeUTF8(<char *>text, size, NULL)
        except UnicodeDecodeError:
            return None
        route = self.find_(model)
        if route is not None:
            self._recent[slot] = route
        return route

    def find(self, str model not None) -> Route | None:
        return self.find_(model)

    def find_bytes(self, bytes model not None) -> Route | None:
        return self.find_utf8(<const unsigned char *><const char *>model, len(model))

    def names(self) -> tuple[str, ...]:
        return self._names

    def __repr__(self):
        return f"<RouteTable upstreams={len(self._upstreams)} names={len(self._names)} globs={len(self._globs)}>"
