# Routes, compiled: from the bytes of a model's name to the targets to try.
#
# The lane's way through: RouteTable.find_utf8 (span of the body -> Route), Globs.match_ (the key's ACL on Route.name),
# Route.first_ (the target), its circuit's begin_ (where that says no, again with Route.panics_ as ``force``), and only
# where that fails Route.plan_ (all the others). What these return belongs to the table or its cache; hold a reference
# while it is used.

cimport cython
from libc.stdint cimport int64_t, uint64_t

from .circuit cimport Circuit

cdef enum:
    MAX_NAME_CHARS = 256      # longest model name that is looked up (OpenRouter's longest are under 100)
    MAX_TARGETS = 64          # of one virtual model: the weights of one draw live on the stack
    MAX_CACHED_NAMES = 1024   # routes made from globs and direct names; the cache is emptied when full
    RECENT_SLOTS = 256        # direct-mapped memo of find_utf8; a power of two


@cython.final
cdef class Pattern:
    cdef readonly str text            # as configured
    cdef readonly bint wild           # has `*` or `?`
    cdef int _kind                    # ANY, EXACT, PREFIX or GENERAL
    cdef str _literal                 # the text without a PREFIX's star, runs of stars made one
    cdef bint match_(self, str name)


@cython.final
cdef class Globs:
    cdef readonly tuple patterns
    cdef bint _any
    cdef frozenset _exact
    cdef list _wild
    cdef bint match_(self, str name)


@cython.final
cdef class Target:
    cdef readonly str name
    cdef readonly int upstream
    cdef readonly str model
    cdef readonly int weight
    cdef readonly Circuit circuit     # None in a table without circuits
    cdef uint64_t _mark               # hash of the name


@cython.final
cdef class Route:
    cdef readonly str name
    cdef readonly str label
    cdef readonly tuple targets
    cdef readonly tuple fallbacks
    cdef readonly str balance
    cdef int _kind
    cdef double _panic                # share of the targets
    cdef bytes _utf8                  # the name, for find_utf8's comparison
    cdef uint64_t _total              # sum of the targets' weights
    cdef Target first_(self, uint64_t random, uint64_t now, uint64_t sticky)    # plan_'s first, None where it is empty
    cdef tuple plan_(self, uint64_t random, uint64_t now, uint64_t sticky)
    cdef bint panics_(self, uint64_t now)
    cdef Py_ssize_t order_(self, Py_ssize_t *order, uint64_t random, uint64_t now, uint64_t sticky, Py_ssize_t most)
    cdef Py_ssize_t nearest_(self, const uint64_t *weights, uint64_t sticky)
    cdef Py_ssize_t idlest_(self, const uint64_t *weights, uint64_t random)
    cdef Py_ssize_t faster_(self, uint64_t *weights, Py_ssize_t one, uint64_t random, uint64_t now)


@cython.final
cdef class RouteTable:
    cdef dict _upstreams              # upstream name -> index
    cdef dict _fixed                  # virtual and exact names -> Route
    cdef list _globs                  # (Pattern, upstream index, upstream name), in order of precedence
    cdef tuple _names
    cdef dict _cache                  # other names found -> Route
    cdef list _recent                 # Route or None, by hash of the name's bytes
    cdef object _circuits             # (upstream index, target's name, configured) -> Circuit or None
    cdef double _panic
    cdef bint _configured             # what is made now is of the configuration, not of a caller
    cdef Target _target(self, str name, int upstream, str model, int weight)
    cdef Route find_(self, str model)
    cdef Route find_utf8(self, const unsigned char *text, Py_ssize_t size)   # None also where the bytes are not UTF-8
    cdef int _add_upstream(self, object name, object patterns, list exact) except -1
    cdef Route _with_fallbacks(self, str name, object others)
    cdef Py_ssize_t _addressed(self, str model) except -2
    cdef Route _make(self, str model)
