"""Routes: from the model a caller names to the targets that may serve it, compiled once per configuration."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport (
    PyUnicode_1BYTE_KIND, PyUnicode_DATA, PyUnicode_DecodeUTF8, PyUnicode_FindChar,
    PyUnicode_GET_LENGTH, PyUnicode_KIND, PyUnicode_READ,
)
from libc.math cimport log
from libc.string cimport memcmp

from .circuit cimport Circuit
from .limit cimport hash_of

cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(dict mapping, object key) except? NULL

cdef enum:
    ANY = 0       # "*"
    EXACT = 1     # no wildcard
    PREFIX = 2    # one star, at the end
    GENERAL = 3

cdef enum:        # in the order of BALANCES
    FIRST = 0
    WEIGHTED = 1
    LEAST_BUSY = 2
    FASTEST = 3

cdef tuple BALANCES = ("first", "weighted", "least_busy", "fastest")
cdef int MAX_WEIGHT = 1_000_000   # nobody needs finer shares, and the sum over all targets is far from any overflow


include "route_globs.pxi"
include "route_choice.pxi"


cdef object checked(object name, str what):
    """A configured name that a look-up can reach."""
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a str, not {type(name).__name__}")
    if not name:
        raise ValueError(f"{what} must not be empty")
    if len(name) > MAX_NAME_CHARS:
        raise ValueError(f"{what} {name[:40]!r}... has {len(name)} characters; at most {MAX_NAME_CHARS} are looked up")
    return name


cdef tuple make_targets(str model, object configured, list upstreams, RouteTable table):
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
        table._target(f"{upstreams[upstream]}/{name}", upstream, name, weight)
        for (upstream, name), weight in weights.items()
    ])


@cython.final
cdef class RouteTable:
    """All routes of one configuration. Nothing changes after construction but two bounded memos of what was found."""

    def __cinit__(self, upstreams, models, circuits=None, double panic=0.0):
        self._circuits = circuits
        self._panic = panic
        self._configured = True
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
        for name, targets, balance, others in models:
            if checked(name, "the name of a model") in fallbacks:
                raise ValueError(f"model {name!r} is defined twice")
            if isinstance(others, str):
                raise TypeError(f"model {name!r}: fallbacks must be a list of str, not one string")
            self._fixed[name] = Route(name, name, make_targets(name, targets, order, self), (), balance, panic)
            fallbacks[name] = others
        self._names = tuple(dict.fromkeys([*fallbacks, *[target.model for target in exact]]))
        for target in exact:
            if self._addressed(target.model) < 0:   # otherwise it addresses an upstream, which comes first
                self._fixed.setdefault(target.model, Route(target.model, target.model, (target,)))
        # All names are known by now, so that a fallback may be a model further down.
        self._fixed.update({name: self._with_fallbacks(name, others) for name, others in fallbacks.items()})
        self._configured = False

    cdef Target _target(self, str name, int upstream, str model, int weight):
        circuit = None
        if self._circuits is not None:
            circuit = self._circuits(upstream, name, self._configured)
        return Target(name, upstream, model, weight, circuit)

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
                exact.append(self._target(f"{name}/{text}", index, text, 1))
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
        return Route(name, name, route.targets, tuple(fallbacks), route.balance, self._panic)

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
            target = self._target(model, self._upstreams[upstream], model[slash + 1:], 1)
            return Route(model, f"{upstream}/*", (target,))
        cdef Pattern pattern
        for entry in self._globs:
            pattern = <Pattern>(<tuple>entry)[0]
            if pattern.match_(model):
                _, index, upstream = entry
                target = self._target(f"{upstream}/{model}", index, model, 1)
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
