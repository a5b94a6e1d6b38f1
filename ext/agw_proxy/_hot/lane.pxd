# The fast lane: relaying between two sockets, with the whole policy on. See lane.pyx for the theory of operation.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .http1 cimport MAX_FIELDS, Chunks, Limits1, RequestHead, ResponseHead
from .circuit cimport BAD, GOOD, NEITHER, PROBE, Circuit
from .keys cimport KeyTable
from .limit cimport Grant, Limits
from .meter cimport TALLIES, Meter
from .money cimport Tariff
from .peek cimport Edit, Seen
from .reserve cimport Estimate
from .route cimport Globs, Route, RouteTable, Target
from .sse cimport Buffer, Document, Stream
from .tokens cimport Learner

cdef extern from "sys/uio.h" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef enum:
    MAX_FAST_BODY = 1048576     # a larger request is streamed by the full lane
    MAX_PIPELINED = 65536       # bytes behind the request in process; beyond them the client is not read
    MAX_HELD = 65536            # of an answer before it is begun: its first event, or an error's text
    MAX_KEPT_REQUEST = 65536    # bytes of a request whose kept answer the lane gives itself
    MAX_KEPT_ANSWER = 1048576   # bytes of such an answer, which waits whole in its connection for a slow reader
    KEPT_BYTES = 320            # what a Kept counts for beside its key and head
    MAX_WAYS = 1024             # remembered decisions; forgotten together when full
    MAX_PIECES = 16             # of one gathered write: a head, a body in seven parts, chunk framing
    NAME_SLOTS = 256            # of the table of header names, a power of two
    NAME_BYTES = 31             # the longest header name that means something to us
    KEPT_PREFIXES = 8           # beginnings of names that stay here, at most
    TICK_BITS = 24              # a tick of the wheel: 16.8 ms
    IDS_POOL = 3072             # random bytes fetched at once, for 256 request ids

# Scratch memory to put heads together in, one for all connections of a loop.
cdef struct Pen:
    unsigned char *at
    unsigned char *end
    bint overflow

# What a header's name means to us.
cdef struct Name:
    uint32_t hash
    unsigned char size
    unsigned char flags
    unsigned char which
    unsigned char text[NAME_BYTES]

cdef class Names:
    cdef Name slots[NAME_SLOTS]
    cdef tuple safe_prefixes
    cdef Name kept_prefixes[KEPT_PREFIXES]
    cdef int prefixes
    cdef uint32_t initials      # of those: a bit a letter
    cdef const Name *find(self, const unsigned char *name, Py_ssize_t size) noexcept nogil

# -- time

cdef class Timed:
    cdef uint64_t due           # monotonic nanoseconds, 0: never
    cdef int64_t tick           # where it stands in the wheel, -1: nowhere
    cdef int expired(self, uint64_t now) except -1
    cdef int drop(self) except -1

cdef class Wheel:
    cdef object _loop
    cdef dict _slots            # tick -> set of Timed
    cdef list _ticks            # heap of the dict's keys
    cdef object _timer
    cdef int64_t _planned       # the tick that the timer waits for, -1: none
    cdef int arm(self, Timed item, uint64_t due) except -1
    cdef int leave(self, Timed item) except -1
    cdef int _plan(self, int64_t tick) except -1

# -- sockets

cdef class Wire(Timed):
    cdef readonly object transport
    cdef int fd                 # -1: write through the transport (TLS, Windows)
    cdef bint queued            # the transport holds bytes that the socket has not taken
    cdef int attach(self, object transport) except -1
    cdef int send(self, iovec *parts, int count, Py_ssize_t size) except -1     # 1: on its way, 0: the socket is broken
    cdef int send_bytes(self, bytes data) except -1

# -- policy, compiled

cdef class Caller:
    cdef readonly object principal
    cdef readonly str name
    cdef uint64_t subject
    cdef Globs models
    cdef Limits limits
    cdef int counts             # Limits.counts: what there is to find out about a request
    cdef uint64_t team
    cdef readonly str team_name
    cdef bint derive, needs_price, finishes

cdef class Door:
    cdef readonly str name              # of the endpoint
    cdef readonly str dialect
    cdef bytes upstream_path            # relative to the base URL; None: the asked path behind /v1
    cdef bytes default_model
    cdef bint asks_usage, known_end, needs_json
    cdef bint anthropic                 # in its dialect
    cdef bint google                    # in Google's, where the path says model and stream
    cdef bint counts_only               # it counts tokens and uses none
    cdef bint recalls                   # bodies may refer to what the gateway keeps itself
    cdef bint mixed                     # bodies may hold thoughts of models that are asked in another form
    cdef int remembers                  # 1: bodies may refer to what an upstream has made; 2: answers are such things
    cdef tuple refusals                 # by upstream number: None, or the reason why not from this endpoint
    cdef bytes ping                     # a heartbeat in its form; None: there are none
    cdef str operation                  # of the GenAI metrics, or None

cdef class Origin:
    cdef readonly str name
    cdef readonly str host
    cdef readonly int port
    cdef readonly object tls            # makes an SSLContext; None: plain text
    cdef readonly object health
    cdef readonly object places         # where its requests at once are bounded: take() and give(), else None
    cdef bytes base                     # the path that all requests begin with
    cdef bytes authority                # for Host
    cdef bytes extra                    # whole header lines: credentials, configured headers
    cdef frozenset overridden           # names of those, lower case
    cdef bint stream_usage
    cdef public bint replays            # a request may go out again where an idle connection turns out to be dead
    cdef list idle
    cdef readonly int open
    cdef bint closed

cdef class Way:
    cdef Door door
    cdef Route route
    cdef Target target
    cdef Origin origin
    cdef str refusal                    # why the full lane, or None
    cdef bytes quoted                   # the upstream's name for the model, as JSON
    cdef bint renames                   # it is another than the caller's
    cdef bytes opening                  # request line, as far as it is always the same
    cdef bytes closing                  # from behind its target to the last line that is ours
    cdef uint64_t subject               # of the model, for limits
    cdef uint64_t upstream_subject
    cdef Learner learner
    cdef str model_label
    cdef Tariff tariff                  # None: nobody has said what it costs
    cdef dict books                     # Caller -> the handle of what the two have used
    cdef Caller book_of                 # the Caller whose book was asked for last
    cdef int book                       # and its handle
    cdef tuple trail
    cdef double connect_seconds, tls_seconds
    cdef uint64_t write_ns, first_byte_ns, between_bytes_ns, between_tokens_ns, total_ns
    cdef uint64_t first_token_ns        # 0: not set
    cdef bint holds                     # a stream is begun with its first content, not with its first event
    cdef bint lends                     # it leads to one agent, and nowhere else
    cdef bint caches                    # the full lane keeps answers of it
    cdef int marks                      # how many MARKS send a request to the full lane
    cdef bint counts_hits
    cdef int h_hits, h_hit_seconds
    cdef bytes line_opening, line_closing   # of its lines in the log, see lane_line.pxi
    cdef int h_requests, h_seconds, h_operation, h_in, h_out, h_in_use, h_out_use, h_ttft, h_gap, h_attempt

cdef class Policy:
    cdef readonly KeyTable keys
    cdef readonly list callers
    cdef readonly RouteTable routes
    cdef list origins                   # by upstream number; None: in process
    cdef dict doors                     # path -> Door
    cdef Door google                    # of generations in Google's form, whatever their model; None: there is none
    cdef dict sticky                    # name of a virtual model -> "session" or "prefix"
    cdef dict spread                    # name of a virtual model at several upstreams -> 1 or 2, see policy.affinity
    cdef object terms                   # (name of a model, upstream number) -> seconds by phase
    cdef object prices                  # policy.prices.Prices
    cdef object learners                # policy.learners.Learners
    cdef dict ways                      # (Door, Route, Target) -> Way
    cdef Way last_way                   # the one asked for last
    cdef readonly object state
    cdef int lends                      # the number of the upstream whose models other workers run, -1: there is none
    cdef readonly str why               # all requests go by the full lane, and this is the reason; None: they need not
    cdef int json_depth
    cdef uint64_t head_ns, body_ns, idle_ns, write_ns
    cdef uint64_t ping_ns               # between two heartbeats, 0: there are none
    cdef uint64_t ping_late             # they may come so much later, to come together: all ones

cdef class Kept:
    cdef Lane lane
    cdef Policy policy                  # it is given while this is in force
    cdef bytes key, head, answer        # head: status line, the answer's own fields, framing
    cdef bint stream
    cdef public bint used               # it was, since somebody set this False
    cdef int64_t made                   # UTC nanoseconds
    cdef uint64_t due                   # monotonic nanoseconds

cdef class Lane:
    cdef readonly Policy policy
    cdef readonly object shell
    cdef frozenset prompt               # what the shell answers at once: method and path
    cdef readonly object loop
    cdef readonly Wheel wheel
    cdef readonly set connections
    cdef public bint draining
    cdef public int max_requests        # at once, together with ``others``; 0: no bound
    cdef public int others              # requests that the full lane relays
    cdef public bint shedding           # overloaded: the full lane says so to whoever asks
    cdef readonly int active            # exchanges of this lane in flight
    cdef readonly uint64_t begun        # so far, and answers from the cache
    cdef readonly int away              # connections that other workers have at the moment
    cdef public object lender           # who lends them, None where all agents are run here
    cdef readonly int reading           # requests whose body is on its way
    cdef public Py_ssize_t held         # bytes of request bodies, of both lanes
    cdef Py_ssize_t max_held
    cdef Names names
    cdef Limits1 limits
    cdef Limits1 answer_limits
    cdef RequestHead request
    cdef ResponseHead answer
    cdef unsigned char *page
    cdef Py_ssize_t page_size
    cdef Buffer gathered
    cdef Meter meter
    cdef int h_active, h_streams, h_overhead, h_taken, h_cache_hits
    cdef dict answers                   # the bytes of a request -> Kept
    cdef object known                   # model names that metrics may show
    cdef bytes date_text, stamp_text, ids
    cdef int64_t stamp_second
    cdef uint64_t now                   # of the callback that is running, about
    cdef unsigned char flags[MAX_FIELDS]    # of the fields of `request`
    cdef object empty                   # bound once
    cdef object receipt
    cdef bint writes_receipts
    cdef int hand_out(self) except -1
    cdef int64_t date_second, wall_offset
    cdef uint64_t walled_at
    cdef Py_ssize_t ids_at
    cdef uint64_t random
    cdef list ring                      # Receipts on their way to the log
    cdef unsigned char *lines           # whole lines on their way to the log, see lane_line.pxi; or the ring, or these
    cdef Py_ssize_t lines_size
    cdef int line_count
    cdef bint writes_lines
    cdef bint emptying

# -- connections

cdef class Peer(Wire):
    # A connection to an upstream.
    cdef Lane lane
    cdef readonly Origin origin
    cdef Downstream owner               # whose answer it brings; None: idle
    cdef bint reused, gone
    cdef bint paused
    cdef Buffer head                    # an answer's head that came in pieces
    cdef Py_ssize_t scanned
    cdef int phase                      # Phase of lane_peer.pxi
    cdef int interim                    # 1xx answers so far
    cdef int framing
    cdef int64_t left
    cdef Chunks chunks
    cdef bint keep
    cdef public double connect_ms

cdef class Beat(Timed):
    # The next heartbeat of a client's connection.
    cdef Downstream owner

cdef class Downstream(Wire):
    # A client's connection: one request at a time.
    cdef readonly Lane lane
    cdef int state                      # State of lane.pyx
    cdef public object handler          # aiohttp's protocol, once this connection has needed it
    cdef readonly str reason            # why it has the request
    cdef object carried
    cdef readonly bint reading_held
    cdef public bint watched            # somebody looks whether the client has gone while it is not read
    cdef bint pipeline_full, handler_holds, head_begun
    # Bytes in
    cdef Buffer inbox                   # a request in pieces, then whatever came behind it
    cdef Py_ssize_t scanned
    cdef bytes own                      # the bytes that the request came in, where it was one piece
    cdef Py_ssize_t own_at
    cdef Py_ssize_t head_size, request_size
    cdef Py_ssize_t counted             # bytes of it in Lane.held
    # Handed over
    cdef int64_t body_left
    cdef Chunks body_chunks
    cdef bint chunked, fed, was_answered, poisoned
    cdef bint tunnel                    # it has switched protocols: aiohttp gets all that comes
    cdef int64_t handed                 # bytes that aiohttp has written
    cdef int64_t taken                  # of these, when the client was last seen to wait
    # Lent, see lane_lend.pxi
    cdef Way lends                      # where the request leads, if that is an agent in another worker
    cdef object visit                   # whose connection it is, where that is another worker's; else None
    cdef object marks                   # a view of memory that both have
    cdef unsigned char *mark            # what is for this connection there
    cdef unsigned char *drains          # whether the worker that lends it shuts down
    cdef bytes rest                     # what it comes with; what it goes back with, None: it does not go back
    cdef Door door
    # The exchange
    cdef uint64_t serial
    cdef bint running
    cdef Policy policy
    cdef Caller caller
    cdef bytes last_key
    cdef int64_t last_index
    cdef Policy last_policy
    cdef Way way
    cdef Circuit circuit                # of its target, while an attempt counts there
    cdef int begun_as                   # what Circuit.begin_ gave
    cdef bytes varies                   # headers that an answer depends on, None: none
    cdef Kept kept                      # the answer, where it is here
    cdef uint64_t session               # hash of x-session-id, 0: none
    cdef bint placed                    # it holds a place at its upstream
    cdef uint64_t sticky                # what ties it to a target, 0: nothing
    cdef Peer peer
    cdef object dialing
    cdef Grant grant
    cdef Stream stream
    cdef Document document
    cdef bytes request_id
    cdef str user, channel, trace_id, model
    cdef object address
    cdef uint64_t dialed_at, progress
    cdef uint64_t seed, started, asked_at, first_token, last_token, head_at, total_due, stalled
    cdef int64_t body_wait, auth_ns, limit_ns, upstream_ns
    cdef Beat beat                      # made for its first stream
    cdef uint64_t beaten                # when the last heartbeat went out; 0: none has, nor the answer's head
    cdef int64_t content, bytes_out, seen_progress
    cdef Estimate estimate              # what is reserved
    cdef uint64_t session_subject       # 0: none, or nobody counts them
    cdef double connect_ms
    cdef Seen seen
    cdef int status
    cdef bint wants_stream, strip, close_after, replayed, begun, complete, settled, streaming, stream_counted, unframed
    cdef int64_t answer_length          # as announced to the client; -1: chunked
    cdef bytes answer_head              # the first part of it: status and the upstream's fields
    cdef Buffer hold                    # of the answer, before it is begun
    cdef list error_headers             # of an upstream's error, (name, value)
    cdef int error_status
