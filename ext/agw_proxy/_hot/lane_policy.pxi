# Part of lane.pyx: the policy as the lane reads it. Built whole from the configuration, replaced whole by a reload.

@cython.final
cdef class Caller:
    """A principal, unpacked: what a request's way through the lane reads of it."""

    def __cinit__(self, principal not None):
        self.principal = principal
        self.name = principal.name
        self.subject = principal.subject
        self.models = principal.models
        self.limits = principal.limits
        self.counts = self.limits.counts
        self.team = principal.team_subject
        self.team_name = principal.team
        self.derive = principal.derive
        self.needs_price = principal.needs_price
        self.finishes = principal.finishes


@cython.final
cdef class Door:
    """An endpoint that relays, as the lane sees it."""

    def __cinit__(
        self, str name not None, str dialect not None, *, upstream_path, default_model, bint asks_usage,
        bint known_end, bint needs_json, tuple refusals not None, operation, bint counts_only=False,
        int remembers=0, bint recalls=False, bytes ping=None, bint mixed=False,
    ):
        """``known_end``: a stream without its last event is broken. ``counts_only``: it counts tokens and uses none.

        ``recalls``: see ``policy.affinity.recalls``. ``remembers``: see ``edge.lane.remembers``. ``refusals``: by
        upstream number why a request from here goes by the full lane, or None. ``ping``: a heartbeat in this form, None
        where there are none. ``mixed``: see ``edge.lane.mixed``.
        """
        self.name = name
        self.dialect = dialect
        self.upstream_path = upstream_path.encode() if upstream_path else None
        self.default_model = default_model.encode() if default_model else None
        self.asks_usage = asks_usage
        self.known_end = known_end
        self.needs_json = needs_json
        self.anthropic = dialect == "anthropic"
        self.google = dialect == "gemini"
        self.counts_only = counts_only
        self.remembers = remembers
        self.recalls = recalls
        self.mixed = mixed
        self.refusals = refusals
        self.ping = ping
        self.operation = operation


@cython.final
cdef class Origin:
    """Where an upstream is, what every request to it carries, and its idle connections."""

    def __cinit__(
        self, str name not None, *, str host not None, int port, tls, bytes authority not None,
        bytes base not None, headers, bint stream_usage, bint replays, health, kept, places=None,
    ):
        """``headers``: (name, value) in bytes, sent with every request in place of the caller's own of that name.

        ``kept``: names that are not sent on anyway. ``replays``: a request may go out a second time where a
        connection that was idle turns out to be dead.
        """
        lines = []
        for field, value in headers:
            if any([char in field + value for char in (b"\r", b"\n", b"\0")]):
                raise ValueError(f"upstream {name!r}: a header's value holds a line end or NUL")
            lines.append(field + b": " + value + b"\r\n")
        self.name = name
        self.host = host
        self.port = port
        self.tls = tls
        self.authority = authority
        self.base = base
        self.extra = b"".join(lines)
        self.overridden = frozenset([field.lower() for field, _ in headers]) - frozenset(kept)
        self.stream_usage = stream_usage
        self.replays = replays
        self.health = health
        self.places = places
        self.idle = []

    def close(self):
        """Close what is idle; what is in use closes when it is done."""
        self.closed = True
        for item in list(self.idle):
            cut(<Peer>item)

    @property
    def waiting(self):
        """Idle connections."""
        return len(self.idle)


cdef Peer take_idle(Origin origin):
    """An open connection that nobody uses, the youngest first; None where there is none."""
    cdef Peer peer
    while origin.idle:
        peer = <Peer>origin.idle.pop()
        if not peer.gone:
            peer.reused = True
            return peer
    return None


cdef int give_idle(Origin origin, Peer peer) except -1:
    if origin.closed or peer.gone or len(origin.idle) >= MAX_IDLE or peer.queued:
        return cut(peer)
    origin.idle.append(peer)
    peer.lane.wheel.arm(peer, peer.lane.now + IDLE_NS)
    return 0


@cython.final
cdef class Policy:
    """One version of the policy: keys, routes, upstreams, bounds."""

    def __cinit__(
        self, *, KeyTable keys not None, callers, RouteTable routes not None, origins, doors, terms, state,
        int json_depth, seconds, google=None, prices=None, learners=None, sticky=None, spread=None, why=None,
        double ping_seconds=0.0, int lends=-1,
    ):
        """``origins``: by upstream number, None for one in this process. ``doors``: path -> Door.

        ``google``: the Door of generations in Google's form, whose paths name their models; or None.

        ``terms``: (model, upstream number) -> why the full lane or None, then seconds for connecting, TLS, writing, the
        first byte, the first token (or None), between bytes, between tokens, in all; and whether a stream is held back
        until its first content. ``prices``, ``learners``: what models cost at upstreams, and what their answers have
        taught about tokens, by both names. ``sticky``: model -> what
        ties requests to a target. ``spread``: model -> how far it is spread over upstreams, see
        ``policy.affinity``. ``seconds``: for a head, for a body, for an idle connection, for a client that reads
        nothing. ``why``: the reason why all requests go by the full lane, or None. ``ping_seconds``: between two
        heartbeats of a stream that waits for its first token, 0 for none. ``lends``: the number of the upstream whose
        requests go to other workers, where the lane has a lender; -1: there is none.
        """
        self.keys = keys
        self.callers = list(callers)
        self.routes = routes
        self.origins = list(origins)
        self.doors = {path.encode(): door for path, door in doors.items()}
        self.google = google
        self.terms = terms
        self.prices = prices
        self.learners = learners
        self.sticky = dict(sticky or {})
        self.spread = dict(spread or {})
        self.ways = {}
        self.state = state
        self.why = why
        self.lends = lends
        self.json_depth = json_depth
        self.head_ns = <uint64_t>(seconds[0] * 1e9)
        self.body_ns = <uint64_t>(seconds[1] * 1e9)
        self.idle_ns = <uint64_t>(seconds[2] * 1e9)
        self.write_ns = <uint64_t>(seconds[3] * 1e9)
        self.ping_ns = <uint64_t>(ping_seconds * 1e9)
        while self.ping_late * 2 + 1 <= self.ping_ns // 64:
            self.ping_late = self.ping_late * 2 + 1

    def forget(self):
        """The names that metrics may show have changed: decide anew which label each way counts under."""
        self.ways.clear()
        self.last_way = None


cdef Way way_of(Lane lane, Policy policy, Door door, Route route, Target target):
    """The decision for a door and a target, remembered."""
    cdef Way way = policy.last_way
    cdef PyObject *known
    if way is not None and way.door is door and way.route is route and way.target is target:
        return way
    key = (door, route, target)
    known = PyDict_GetItemWithError(policy.ways, key)
    if known != NULL:
        policy.last_way = <Way>known
        return <Way>known
    if len(policy.ways) >= MAX_WAYS:
        policy.ways.clear()
    way = Way.__new__(Way)
    way.door = door
    way.route = route
    way.target = target
    way.origin = policy.origins[target.upstream]
    way.refusal = door.refusals[target.upstream]
    counted = b"model:" + route.name.encode("utf-8", "surrogatepass")
    way.subject = hash_of(<const unsigned char *>PyBytes_AS_STRING(counted), PyBytes_GET_SIZE(counted))
    if way.refusal is None and way.origin is None:
        way.refusal = "in_process"
    way.lends = target.upstream == policy.lends and len(route.targets) + len(route.fallbacks) == 1
    if way.origin is not None:
        path = door.upstream_path
        if door.google:
            path = b"/models/" + quote(target.model, safe="").encode()
        way.opening = b"POST " + way.origin.base + (path if path is not None else b"")
        way.closing = b" HTTP/1.1\r\nHost: " + way.origin.authority + b"\r\n" + way.origin.extra
        way.quoted = json.dumps(target.model, ensure_ascii=False).encode()
        way.renames = target.model != route.name
        if policy.prices is not None:
            way.tariff = policy.prices.of(way.origin.name, target.model)
        if policy.learners is not None:
            way.learner = policy.learners.of(way.origin.name, target.model)
        counted = b"upstream:" + way.origin.name.encode("utf-8", "surrogatepass")
        way.upstream_subject = hash_of(<const unsigned char *>PyBytes_AS_STRING(counted), PyBytes_GET_SIZE(counted))
        way.books = {}
        way.model_label = route.name if route.name in lane.known else route.label
        way.trail = (lane.shell.attempt(target.name, way.origin.name, "200"),)
        why, *seconds = policy.terms(route.name, target.upstream)
        way.caches = why == "cache"
        way.refusal = way.refusal or why
        set_affinity(policy, way)
        way.connect_seconds, way.tls_seconds = seconds[0], seconds[1]
        way.write_ns = <uint64_t>(seconds[2] * 1e9)
        way.first_byte_ns = <uint64_t>(seconds[3] * 1e9)
        way.first_token_ns = <uint64_t>((seconds[4] or 0.0) * 1e9)
        way.between_bytes_ns = <uint64_t>(seconds[5] * 1e9)
        way.between_tokens_ns = <uint64_t>(seconds[6] * 1e9)
        way.holds = seconds[8]
        way.total_ns = <uint64_t>(seconds[7] * 1e9)
        count_ways(lane, way)
    policy.ways[key] = policy.last_way = way
    return way


cdef int count_ways(Lane lane, Way way) except -1:
    """Handles of the series that an answered request counts in."""
    cdef Meter meter = lane.meter
    cdef str model = way.model_label
    labels = (way.door.name, model, way.origin.name, "200", "fast")
    target = way.target.name if way.target.name in lane.known else f"{way.origin.name}/*"
    way.h_requests = meter.series("agw_requests_total", labels)
    way.h_seconds = meter.series("agw_request_seconds", labels)
    way.h_ttft = meter.series("agw_time_to_first_token_seconds", (model,))
    way.h_gap = meter.series("agw_inter_token_seconds", (model,))
    way.h_in = meter.series("agw_tokens_total", (model, "input"))
    way.h_out = meter.series("agw_tokens_total", (model, "output"))
    way.h_attempt = meter.series("agw_upstream_requests_total", (way.origin.name, target, "200"))
    if way.door.operation is not None:
        way.h_operation = meter.series("gen_ai_client_operation_duration_seconds", (way.door.operation, model))
        way.h_in_use = meter.series("gen_ai_client_token_usage", (way.door.operation, model, "input"))
        way.h_out_use = meter.series("gen_ai_client_token_usage", (way.door.operation, model, "output"))
    return 0
