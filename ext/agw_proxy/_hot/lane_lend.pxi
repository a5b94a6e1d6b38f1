# Part of lane.pyx: a connection that goes to another worker for one request, and comes back when that is answered.
#
# Where agents have workers of their own, a request for one goes there with its connection, so that all that an agent's
# answer costs is spent in that worker. Here the Downstream stays, AWAY, with a descriptor of the same socket, and reads
# nothing. There another Downstream visits: to its worker it is a connection like any other, but that it goes home after
# an answer. Memory that both have tells how far that worker has got, should it end in the midst.

cdef enum:                      # see edge.posts
    MARK_BEGUN = 2
    MARK_OVER = 3
    ASKS_LATER = 1

# An answer that nobody waits for is not to end with a worker that is only lent its request.
cdef const char *LATER[ASKS_LATER]
LATER[0] = b'"background"'


cdef bint lend(Downstream d, const unsigned char *text, RequestHead *head) except -1:
    """Let the worker that runs the agent have this request; False: it cannot, and the full lane is to ask it."""
    cdef Route route = d.lends.route
    if d.fd < 0 or d.queued or d.visit is not None or pipelined(d):
        return False
    if d.door.remembers == 2 and marked(text + head.size, head.content_length, LATER, ASKS_LATER):
        return False
    request = PyBytes_FromStringAndSize(<const char *>text, head.size + head.content_length)
    if not d.lane.lender.lend(d, d.fd, d.lends.target.model, route.name, route.label, request):
        return False
    forget_request(d)
    d.state = AWAY
    d.due = 0
    d.lane.away += 1
    update_reading(d)
    return True


cdef int come_home(Downstream d) except -1:
    """The connection is the lane's again."""
    d.lane.away -= 1
    d.lane.now = now_ns()
    d.state = FULL
    return next_request(d)


cdef inline void touch(Downstream d) noexcept:
    """Bytes of an answer are about to go out."""
    if d.mark != NULL:
        d.mark[0] = MARK_BEGUN


cdef inline bint closing(Downstream d) noexcept:
    """The connection ends with the answer to the request in hand."""
    return d.close_after or d.lane.draining or (d.drains != NULL and d.drains[0] != 0)


cdef int go_home(Downstream d) except -1:
    """A visitor has its answer: close this end of it, after what has been written."""
    d.rest = PyBytes_FromStringAndSize(<const char *>d.inbox.data, d.inbox.size) if d.inbox.size else b""
    release(&d.inbox)
    return shut(d)


cdef int end_visit(Downstream d, object error) except -1:
    """This end of it is closed: the other one goes on, or closes, too."""
    visit, d.visit = d.visit, None
    d.mark = d.drains = NULL
    visit.left(d.rest if error is None else None)
    return 0
