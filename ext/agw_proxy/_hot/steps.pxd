"""Steps of agents' code on the loop: ``Contained`` around each coroutine of a run, and whose step the loop is in.

``Step`` has one instance, ``STEP``; its members are written by the loop's thread and may be read from any.
"""

from libc.stdint cimport uint64_t

cdef class Step:
    cdef public object run          # None: none of a run
    cdef public object hears        # told of steps that took ``most`` seconds or longer, or None
    cdef readonly double began
    cdef readonly uint64_t number
    cdef readonly double most

cdef class Contained:
    cdef object _inner
    cdef object _run

    # The next step, with what the coroutine awaits; StopIteration with what it returns.
    cdef object _sent(self, object value)
    cdef void _begin(self) noexcept
    cdef int _end(self) except -1

cdef class Tasks:
    cdef object _current
    cdef object _serving
