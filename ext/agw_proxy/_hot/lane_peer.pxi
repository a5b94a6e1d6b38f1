# Part of lane.pyx: connections to upstreams, and the reading of their answers.

cdef enum:
    MAX_ANSWER_LINE = 32768     # of an upstream's answer; content security policies and cookies can be long
    MAX_ANSWER_HEAD = 131072


@cython.final
cdef class Peer(Wire):
    """One connection to an upstream. Between two answers it is idle, in its Origin's list."""

    def __cinit__(self, Lane lane not None, Origin origin not None):
        self.lane = lane
        self.origin = origin

    def __dealloc__(self):
        release(&self.head)

    def connection_made(self, transport):
        self.attach(transport)
        self.origin.open += 1

    def data_received(self, bytes data not None):
        if self.owner is None:
            cut(self)               # nobody has asked: whatever it is, the next answer would be misread
            return
        self.lane.now = now_ns()
        read_answer(self, <const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def eof_received(self):
        if self.owner is None:
            cut(self)               # the end is told of later: nobody is to be given this connection meanwhile
        return None                 # the transport closes itself, and says so

    def pause_writing(self):
        self.queued = True

    def resume_writing(self):
        self.queued = False
        if self.owner is not None and self.owner.state == WAIT:
            self.owner.asked_at = self.lane.now = now_ns()      # the request is on its way: the answer's clock starts
            plan_deadline(self.owner)

    def connection_lost(self, exc):
        cdef Downstream owner = self.owner
        self.gone = True
        if self.transport is not None:
            self.origin.open -= 1
        self.transport = None
        self.fd = -1
        self.lane.wheel.leave(self)
        if self in self.origin.idle:
            self.origin.idle.remove(self)
        if owner is None:
            return
        self.owner = None
        self.lane.now = now_ns()
        if self.phase == IN_BODY and self.framing == BY_CLOSE and exc is None:
            answer_body(owner, NULL, 0, True)
        elif self.phase == IN_BODY:
            answer_broken(owner, "cut")
        else:
            answer_missing(owner, self)

    cdef int expired(self, uint64_t now) except -1:
        if self.owner is None:
            cut(self)
        return 0


cdef int cut(Peer peer) except -1:
    """Close at once, whatever is under way; its owner is not told."""
    peer.owner = None
    peer.gone = True
    if peer.transport is not None:
        peer.transport.abort()
    return 0


cdef int assign(Peer peer, Downstream owner) except -1:
    """The next answer is for ``owner``."""
    peer.owner = owner
    peer.phase = IN_HEAD
    peer.interim = 0
    peer.scanned = 0
    peer.head.size = 0
    peer.keep = False
    if peer.paused:
        hold_answer(peer, False)
    peer.due = 0
    return 0


cdef int hold_answer(Peer peer, bint held) except -1:
    """Stop or go on reading: the client takes no more at the moment."""
    if peer.paused != held and peer.transport is not None:
        peer.paused = held
        if held:
            peer.transport.pause_reading()
        else:
            peer.transport.resume_reading()
    return 0


cdef int read_answer(Peer peer, const unsigned char *data, Py_ssize_t size) except -1:
    cdef ResponseHead *head = &peer.lane.answer
    cdef Downstream owner = peer.owner
    cdef const unsigned char *text = data
    cdef Py_ssize_t text_size = size
    cdef bint gathered = False
    while peer.phase == IN_HEAD:
        if peer.head.size or gathered:
            if not gathered:
                append(&peer.head, data, size)
                gathered = True
            text, text_size = peer.head.data, peer.head.size
        head.scanned = peer.scanned
        parse_response(text, text_size, &peer.lane.answer_limits, head)
        if head.verdict == MORE:
            peer.scanned = head.scanned
            if not gathered:
                append(&peer.head, text, text_size)
            return 0
        if head.verdict == REFUSE:
            return answer_invalid(owner, word_of(head.reason))
        peer.scanned = 0
        if head.status < 200:
            peer.interim += 1
            if head.status == 101:
                return answer_invalid(owner, "switched_protocols")
            if peer.interim > MAX_INTERIM:
                return answer_invalid(owner, "too_many_interim_answers")
            if gathered:
                peer.head.size -= head.size
                memmove(peer.head.data, peer.head.data + head.size, peer.head.size)
                if peer.head.size == 0:
                    return 0
            else:
                data += head.size
                size -= head.size
                text, text_size = data, size
                if size == 0:
                    return 0
            continue
        break
    if peer.phase == IN_HEAD:
        peer.phase = IN_BODY
        peer.keep = not head.close
        peer.left = 0
        if head.status == 204 or head.status == 304:
            peer.framing = NO_BODY
        elif head.chunked:
            peer.framing = BY_CHUNKS
            memset(&peer.chunks, 0, sizeof(Chunks))
        elif head.content_length >= 0:
            peer.framing = BY_LENGTH
            peer.left = head.content_length
        else:
            peer.framing = BY_CLOSE
            peer.keep = False
        answer_begins(owner, text, head)
        if peer.owner is None:
            return 0
        read_body(peer, text + head.size, text_size - head.size)
        if gathered:
            release(&peer.head)
        return 0
    return read_body(peer, data, size)


cdef int read_body(Peer peer, const unsigned char *data, Py_ssize_t size) except -1:
    """The body's data in these bytes, in one piece, to the owner; with the end where it is reached."""
    cdef Downstream owner = peer.owner
    cdef Lane lane = peer.lane
    cdef const unsigned char *end = data + size
    cdef const unsigned char *at = data
    cdef Piece first
    cdef Piece piece
    cdef bint ended = False
    if peer.framing == BY_CHUNKS:
        at = next_piece(&peer.chunks, at, end, &first)
        if first.size:
            at = next_piece(&peer.chunks, at, end, &piece)
            if piece.size:
                lane.gathered.size = 0
                append(&lane.gathered, first.at, first.size)
                while piece.size:
                    append(&lane.gathered, piece.at, piece.size)
                    at = next_piece(&peer.chunks, at, end, &piece)
                first.at, first.size = lane.gathered.data, lane.gathered.size
        ended = peer.chunks.ended
    elif peer.framing == BY_LENGTH:
        first.at = at
        first.size = min(<int64_t>size, peer.left)
        peer.left -= first.size
        at += first.size
        ended = peer.left == 0
    elif peer.framing == BY_CLOSE:
        first.at, first.size = at, size
        at = end
    else:
        first.at, first.size = at, 0
        ended = True
    if peer.framing == BY_CHUNKS and peer.chunks.broken and owner.state == HOLD:
        return answer_invalid(owner, "bad_chunk")   # nothing has gone to the client yet: another try may do better
    if ended:
        let_go(peer, at == end)
    if first.size or ended:
        answer_body(owner, first.at, first.size, ended)
    if peer.framing == BY_CHUNKS and peer.chunks.broken and peer.owner is owner:
        peer.owner = None
        cut(peer)
        answer_broken(owner, "framing")
    return 0


cdef int let_go(Peer peer, bint clean) except -1:
    """The answer has ended. ``clean``: no bytes came behind it, so the next one can be told from it."""
    peer.owner = None
    peer.phase = IDLE
    if not clean or not peer.keep:
        return cut(peer)
    return give_idle(peer.origin, peer)
