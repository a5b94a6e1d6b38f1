"""The fast lane: a request on a plain relay goes from socket to socket, with the whole policy on.

Theory of operation. Three objects: a ``Downstream`` is a client's connection, a ``Peer`` one to an upstream, the
``Lane`` what all connections of a loop share. Every connection's bytes pass through its Downstream, which reads heads
strictly (``http1``) and decides once a request: *take* it, *hand it over* to aiohttp's protocol object for that
connection (bytes untouched, exactly one framed request), or *refuse* it. A request that is taken runs through these
states; whatever fails before the first byte of an answer has gone to the client hands the exchange over, with what it
has taken from the buckets and how the first attempt ended:

    HEAD -> BODY -> DIAL -> WAIT -> HOLD -> RELAY -> TAIL -> HEAD
                                      \\-> REFUSED (an upstream's error is read, then handed over)

A request for an agent that another worker runs is *lent* there with its connection, and comes back (``lane_lend.pxi``).

No coroutine runs on this way and no timer is made: deadlines are numbers on one wheel, answers are relayed by the
callbacks of the loop, and what a request needs of Python is a grant, and a Receipt when it has ended.
"""

import json
import os
import time
from heapq import heappop, heappush
from urllib.parse import quote

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strlen
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

from .http1 cimport (
    HAND_OVER, MORE, REFUSE, Piece, has_token, name_is, next_piece, parse_request, parse_response, reason_name,
    reason_text, refusal_status,
)
from .keys cimport CREDENTIAL_HEADERS, Span, bearer_span, rank_of, trim_span
from .circuit cimport GOOD, NEITHER, PROBE, Circuit
from .limit cimport (
    AT_CHANNEL, AT_KEY, AT_MODEL, AT_SESSION, AT_TEAM, AT_UPSTREAM, AT_USER, COUNTS_COST, COUNTS_TOKENS, PER_CHANNEL,
    PER_SESSION, PER_UPSTREAM, PER_USER, Ask, Grant, Rule, hash_of, money_left,
)
from .peek cimport EDITS, plan, scan, spliced_size
from .reserve cimport PARTED, SERVED, UNSERVED, Spent, estimate_, settle_, spent_
from .sse cimport append, release
from .subjects cimport bounds_of, choices_of, session_of, user_of

cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(dict mapping, object key) except? NULL

cdef extern from *:
    """
    #include <sys/socket.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    #ifdef __linux__
    #include <sys/syscall.h>
    #include <unistd.h>
    /* The library's function is a cancellation point, which costs two locked instructions where there are threads. */
    #define agw_sendmsg(fd, message) syscall(SYS_sendmsg, (fd), (message), MSG_NOSIGNAL | MSG_DONTWAIT)
    #else
    #define agw_sendmsg(fd, message) sendmsg((fd), (message), MSG_NOSIGNAL | MSG_DONTWAIT)
    #endif
    """
    Py_ssize_t agw_sendmsg(int fd, const msghdr *message) nogil

cdef extern from "sys/socket.h" nogil:
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen

# Of a client's connection.
cdef enum State:
    HEAD        # no request, or a part of a head
    BODY        # a head that may be taken, and a part of its body
    DIAL        # judged; waiting for a connection to the upstream
    WAIT        # sent; waiting for the answer's head
    HOLD        # the head is here; its first event, or what it takes to judge the answer, is not
    REFUSED     # the upstream answered with an error, which is read for the full lane
    RELAY       # bytes have gone to the client
    TAIL        # all of a stream has gone but its last chunk
    FULL        # aiohttp has the request
    AWAY        # another worker has it, and the connection until it is answered
    LINGER      # said no; what the client still sends is read for a moment, so that it gets to read the answer
    CLOSED

# Of a connection to an upstream.
cdef enum Phase:
    IDLE, IN_HEAD, IN_BODY

cdef enum Framing:
    BY_LENGTH, BY_CHUNKS, BY_CLOSE, NO_BODY

cdef enum:
    MAX_IDLE = 1024             # connections kept for an upstream's next requests
    MAX_INTERIM = 16            # 1xx answers before the one that counts
    PREFIX_BYTES = 512          # of a body: the beginning of a prompt, with what an SDK puts before it
    PAGE_BYTES = 65536          # of scratch beyond the largest head

cdef uint64_t IDLE_NS = <uint64_t>30 * 1000000000       # shorter than what servers commonly allow an idle connection
cdef uint64_t TAIL_NS = <uint64_t>250 * 1000000         # for the last chunk after [DONE]; it is nearly always there
cdef uint64_t LINGER_NS = <uint64_t>1000 * 1000000
cdef uint64_t WALL_NS = <uint64_t>100 * 1000000         # a step of the wall clock shows after this at the latest
cdef int64_t LINGER_BYTES = 262144

include "lane_time.pxi"
include "lane_wire.pxi"
include "lane_heads.pxi"
include "lane_policy.pxi"
include "lane_peer.pxi"
include "lane_client.pxi"
include "lane_request.pxi"
include "lane_lend.pxi"
include "lane_full.pxi"
include "lane_count.pxi"
include "lane_affinity.pxi"
include "lane_google.pxi"
include "lane_judge.pxi"
include "lane_ask.pxi"
include "lane_answer.pxi"
include "lane_stream.pxi"
include "lane_beat.pxi"
include "lane_line.pxi"
include "lane_account.pxi"
include "lane_cache.pxi"
include "lane_usage.pxi"


@cython.final
cdef class Lane:
    """What all connections of one edge share. One loop's; not to be used from another thread."""

    def __cinit__(
        self, loop not None, shell not None, Names names not None, Meter meter not None, Policy policy not None, *,
        int max_line, int max_head, Py_ssize_t max_held,
    ):
        """``shell``: what is done in Python (``edge.shell``). ``max_held``: bytes of request bodies in memory."""
        self.loop = loop
        self.shell = shell
        self.receipt = shell.receipt
        self.writes_receipts = shell.writes_receipts
        self.prompt = shell.prompt
        self.writes_lines = shell.writes_lines
        self.names = names
        self.meter = meter
        self.policy = policy
        self.wheel = Wheel(loop)
        self.connections = set()
        self.known = frozenset()
        self.answers = {}
        self.limits.max_line = max_line
        self.limits.max_head = max_head
        self.answer_limits.max_line = MAX_ANSWER_LINE
        self.answer_limits.max_head = MAX_ANSWER_HEAD
        self.max_held = max_held
        self.page_size = max(max_head, MAX_ANSWER_HEAD) + PAGE_BYTES
        self.page = <unsigned char *>malloc(self.page_size)
        self.lines = <unsigned char *>malloc(LINES_BYTES)
        if self.page == NULL or self.lines == NULL:
            raise MemoryError
        self.h_active = meter.series("agw_active_requests")
        self.h_streams = meter.series("agw_active_streams")
        self.h_overhead = meter.series("agw_overhead_seconds", ("fast",))
        self.h_taken = meter.series("agw_lane_total", ("fast", "taken"))
        self.h_cache_hits = meter.series("agw_cache_total", ("hit",))
        self.ids = b""
        self.date_second = -1
        self.random = <uint64_t>int.from_bytes(os.urandom(8), "little") | 1
        self.ring = []
        self.stamp_second = -1
        self.empty = self._empty
        self.now = now_ns()

    def __dealloc__(self):
        free(self.page)
        free(self.lines)
        release(&self.gathered)

    def __call__(self):
        """A protocol for a new client connection."""
        return Downstream.__new__(Downstream, self)

    def swap(self, Policy policy not None):
        """``policy``: in force from the next request on."""
        self.policy = policy

    def know(self, names not None):
        """Model names and ``upstream/model`` that metrics may show."""
        self.known = names
        self.policy.forget()

    def keep(
        self, state, subject, bytes target not None, bytes varies not None, bytes body not None, bytes head not None,
        bytes answer not None, *, bint stream, int64_t made, double due,
    ):
        """See ``lane.pyi``."""
        return keep_answer(self, state, subject, target, varies, body, head, answer, stream, made, due)

    def visitor(self, visit not None, marks not None, Py_ssize_t slot, bytes request not None):
        """A protocol for a connection that another worker lends; see ``lane.pyi``."""
        cdef Downstream d = Downstream.__new__(Downstream, self)
        cdef unsigned char[::1] view = marks
        d.visit = visit
        d.marks = memoryview(marks)     # keeps it where it is
        d.mark = &view[slot]
        d.drains = &view[view.shape[0] - 1]
        d.rest = request
        return d

    def drain(self):
        """Take no more requests, and close the connections that wait for none."""
        self.draining = True
        if self.lender is not None:
            self.lender.drain()
        for item in list(self.connections):
            leave_if_idle(<Downstream>item)

    def end_all(self):
        """End what is under way: streams by an error event, the rest is answered by the full lane. Gives how many."""
        count = 0
        for item in list(self.connections):
            if (<Downstream>item).state == AWAY:
                count += 1
                self.lender.recall(item)
            elif (<Downstream>item).running or (<Downstream>item).state == BODY:
                count += 1
                try:
                    end_early(<Downstream>item)
                except Exception as error:      # a defect in one connection is no other's
                    told = {"message": "an exchange could not be ended", "exception": error}
                    self.loop.call_exception_handler(told)
                    (<Downstream>item).drop()
        return count

    def close(self):
        """Close every connection, whatever it is doing."""
        for item in list(self.connections):
            shut(<Downstream>item)
        self.wheel.close()
        self._empty()

    def _empty(self):
        """Hand the Receipts of the last moments to the log."""
        self.emptying = False
        self.hand_out()

    cdef int hand_out(self) except -1:
        cdef Py_ssize_t size
        cdef int count
        if self.ring:
            receipts, self.ring = self.ring, []
            self.shell.receipts(receipts)
        if self.line_count:
            count, self.line_count = self.line_count, 0
            size, self.lines_size = self.lines_size, 0
            self.shell.lines(PyBytes_FromStringAndSize(<const char *>self.lines, size - 1), count)
        return 0


cdef inline uint64_t next_random(Lane lane) noexcept:
    """xorshift64 (Marsaglia 2003): spreads load, guards nothing."""
    lane.random ^= lane.random << 13
    lane.random ^= lane.random >> 7
    lane.random ^= lane.random << 17
    return lane.random


cdef bytes new_id(Lane lane):
    """``req_`` and 24 hexadecimal digits, from the system's randomness."""
    cdef unsigned char[28] text
    cdef const unsigned char *raw
    cdef int i
    if lane.ids_at + 12 > PyBytes_GET_SIZE(lane.ids):
        lane.ids = os.urandom(IDS_POOL)
        lane.ids_at = 0
    raw = <const unsigned char *>PyBytes_AS_STRING(lane.ids) + lane.ids_at
    lane.ids_at += 12
    memcpy(text, <const char *>b"req_", 4)
    for i in range(12):
        text[4 + 2 * i] = HEX[raw[i] >> 4]
        text[5 + 2 * i] = HEX[raw[i] & 15]
    return PyBytes_FromStringAndSize(<const char *>text, 28)


cdef const unsigned char *HEX = <const unsigned char *>b"0123456789abcdef"


cdef int64_t wall_ns(Lane lane, uint64_t now) noexcept:
    """``now`` of the monotonic clock as nanoseconds since 1970; how the two stand is looked up ten times a second."""
    cdef timespec wall
    if now - lane.walled_at > WALL_NS:
        clock_gettime(CLOCK_REALTIME, &wall)
        lane.walled_at = now_ns()
        lane.wall_offset = <int64_t>wall.tv_sec * 1000000000 + wall.tv_nsec - <int64_t>lane.walled_at
    return <int64_t>now + lane.wall_offset


cdef bytes date_line(Lane lane):
    """The Date header (RFC 9110 section 6.6.1), made once a second."""
    cdef int64_t second = wall_ns(lane, lane.now) // 1000000000
    if second != lane.date_second:
        lane.date_second = second
        lane.date_text = lane.shell.date(second).encode()
    return lane.date_text


cdef inline Pen pen_of(Lane lane) noexcept:
    cdef Pen pen
    pen.at = lane.page
    pen.end = lane.page + lane.page_size
    pen.overflow = False
    return pen
