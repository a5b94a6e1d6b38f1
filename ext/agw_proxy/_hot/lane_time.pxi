# Part of lane.pyx: the clock, and one wheel of deadlines for all connections of a loop.
#
# A deadline is a number in the object; the wheel only keeps each object in one slot that is not later than it. Putting
# a deadline off, which every event of a stream does, is therefore one store: when the slot comes up, the object moves
# on to where it belongs by then.

cdef inline uint64_t now_ns() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <uint64_t>time.tv_sec * 1000000000 + <uint64_t>time.tv_nsec


cdef class Timed:
    def __cinit__(self):
        self.tick = -1

    cdef int expired(self, uint64_t now) except -1:
        """The deadline has passed; it is to be set anew where there is a next one."""
        return 0

    cdef int drop(self) except -1:
        """Close at once: something went wrong here."""
        return 0


@cython.final
cdef class Wheel:
    """Deadlines, coarse (``TICK_BITS``), on one timer of the loop."""

    def __cinit__(self, loop not None):
        self._loop = loop
        self._slots = {}
        self._ticks = []
        self._planned = -1

    cdef int arm(self, Timed item, uint64_t due) except -1:
        """``due``: monotonic nanoseconds; 0 for none."""
        cdef int64_t tick
        item.due = due
        if due == 0:
            return 0
        tick = <int64_t>(due >> TICK_BITS) + 1
        if 0 <= item.tick <= tick:
            return 0
        self.leave(item)
        item.due = due
        item.tick = tick
        slot = self._slots.get(tick)
        if slot is None:
            slot = self._slots[tick] = set()
            heappush(self._ticks, tick)
        (<set>slot).add(item)
        if self._planned < 0 or tick < self._planned:
            self._plan(tick)
        return 0

    cdef int leave(self, Timed item) except -1:
        """Forget it: the connection has ended."""
        item.due = 0
        if item.tick >= 0:
            slot = self._slots.get(item.tick)
            if slot is not None:
                (<set>slot).discard(item)
            item.tick = -1
        return 0

    cdef int _plan(self, int64_t tick) except -1:
        cdef uint64_t now = now_ns()
        cdef uint64_t due = <uint64_t>tick << TICK_BITS
        if self._timer is not None:
            self._timer.cancel()
        self._planned = tick
        self._timer = self._loop.call_later((due - now) / 1e9 if due > now else 0.0, self._turn)
        return 0

    def _turn(self):
        cdef uint64_t now = now_ns()
        cdef int64_t reached = <int64_t>(now >> TICK_BITS)
        cdef Timed item
        self._timer = None
        self._planned = -1
        while self._ticks and <int64_t>self._ticks[0] <= reached:
            slot = self._slots.pop(heappop(self._ticks))
            for entry in slot:
                (<Timed>entry).tick = -1
            for entry in slot:
                item = <Timed>entry
                if item.due == 0 or item.tick >= 0:     # ended, or armed anew, by what another's end has set off
                    continue
                if item.due > now:
                    self.arm(item, item.due)
                    continue
                item.due = 0
                try:
                    item.expired(now)
                except Exception as error:              # a defect in one connection is no other's
                    told = {"message": "a connection's deadline could not be acted upon", "exception": error}
                    self._loop.call_exception_handler(told)
                    item.drop()
        if self._ticks and self._planned < 0:
            self._plan(self._ticks[0])

    def close(self):
        """No deadline is kept any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._slots.clear()
        self._ticks.clear()

    def __len__(self):
        return sum([len(slot) for slot in self._slots.values()])
