"""Steps of agents' code on the loop, each surrounded: it cannot end the process, and its run and its time are known.

Theory of operation. A run of an agent makes some twenty tasks, which take some thirty steps. ``Tasks`` is the loop's
task factory and puts a ``Contained`` around each coroutine of a run; the loop's Task asks that for the next step by its
slot for ``next``, so that a step costs two looks at the clock and a few stores.
"""

import asyncio
from collections.abc import Coroutine

from cpython.contextvars cimport get_value
from cpython.object cimport PyObject

cdef extern from "Python.h":
    int PyIter_Send(object iterator, object sent, PyObject** given) except -1   # 0: it has returned; 1: it goes on

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* now)

cdef extern from *:
    """
    #define taken(reference) ((PyObject*)(reference))
    """
    object taken(PyObject* reference)                       # its count is the caller's now

cdef object Task = asyncio.Task


class Quit(Exception):
    """The agent's code has asked for the end of the process."""


cdef inline double _now() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <double>now.tv_sec + <double>now.tv_nsec * 1e-9


cdef class Step:
    def __cinit__(self):
        self.most = 0.2


STEP = Step()
cdef Step step = STEP


cdef class Contained:
    def __cinit__(self, inner, run=None):
        self._inner = inner
        self._run = run

    def __iter__(self):
        return self

    def __next__(self):
        return self._sent(None)

    def send(self, value):
        return self._sent(value)

    def throw(self, kind, value=None, traceback=None):
        self._begin()
        try:
            return self._inner.throw(kind) if value is None else self._inner.throw(kind, value, traceback)
        except (SystemExit, KeyboardInterrupt) as error:
            raise Quit(f"the agent's code has raised {type(error).__name__}") from error
        finally:
            self._end()

    def close(self):
        self._inner.close()

    def __await__(self):
        return self._inner.__await__()

    cdef object _sent(self, object value):
        cdef PyObject* given = NULL
        cdef int goes_on
        self._begin()
        try:
            goes_on = PyIter_Send(self._inner, value, &given)
        except (SystemExit, KeyboardInterrupt) as error:
            raise Quit(f"the agent's code has raised {type(error).__name__}") from error
        finally:
            self._end()
        found = taken(given)
        if goes_on:
            return found
        raise StopIteration(found)

    cdef void _begin(self) noexcept:
        step.began = _now()
        step.number += 1
        step.run = self._run

    cdef int _end(self) except -1:
        cdef double spent = _now() - step.began
        run = step.run
        step.run = None
        if spent >= step.most and step.hears is not None and run is not None:
            step.hears(run, step.number, spent)
        return 0


Coroutine.register(Contained)


cdef class Tasks:
    def __cinit__(self, current, serving):
        self._current = current
        self._serving = serving

    def __call__(self, loop, coro, **more):
        run = get_value(self._current)
        if run is not None and not isinstance(coro, Contained) and not get_value(self._serving):
            coro = Contained(coro, run)
        if more:
            return Task(coro, loop=loop, **more)
        return Task(coro, loop=loop)
