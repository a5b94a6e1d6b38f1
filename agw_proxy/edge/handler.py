"""The way of a request, in order: receive, authenticate, limit, route, relay, account, log. Read this file first.

``Handler.__call__`` is the frame that every exchange passes: whatever happens inside, it ends in exactly one Receipt and
gives back what it took.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Mapping

from aiohttp import web

from agw_proxy._hot.circuit import BAD
from agw_proxy._hot.lane import Lane
from agw_proxy._hot.peek import Peek
from agw_proxy._hot.subjects import user
from agw_proxy.api.endpoint import Matcher, Relay
from agw_proxy.api.passthrough import COUNTING_PATHS
from agw_proxy.edge import respond
from agw_proxy.edge.accounts import Accounts
from agw_proxy.edge.affinity import Affinity, alone
from agw_proxy.edge.asking import Asking, Shared
from agw_proxy.edge.authentication import authenticate
from agw_proxy.edge.behind import Background, Later
from agw_proxy.edge.body import Bodies, check_json
from agw_proxy.edge.counting import COUNTING, able, counted
from agw_proxy.edge.credentials import passed_credentials
from agw_proxy.edge.exchange import Bounds, Exchange
from agw_proxy.edge.fallbacks import named, with_our_credentials, without
from agw_proxy.edge.full_lane import BEHIND, WITHIN, Connection
from agw_proxy.edge.gemini import GOOGLE, asks, keyed, shaped, usual
from agw_proxy.edge.headers import label, towards_upstream
from agw_proxy.edge.heartbeat import Heartbeat, go_on
from agw_proxy.edge.overload import Overload
from agw_proxy.edge.own_timeouts import HEADER, deadlines
from agw_proxy.edge.pace import Pace
from agw_proxy.edge.raw import addressed, without_keys
from agw_proxy.edge.reading import check_head, fields_of, look_into, target_of
from agw_proxy.edge.relay import Pump
from agw_proxy.edge.reuse import Reuse
from agw_proxy.edge.routing import route
from agw_proxy.edge.state import State
from agw_proxy.edge.storing import Storing
from agw_proxy.edge.turn import Frames
from agw_proxy.edge.turns import Turns, check_served
from agw_proxy.edge.websockets import Session, with_key
from agw_proxy.errors import (
    CallerGone,
    Draining,
    GatewayError,
    InternalError,
    KeyMissing,
    UnknownPath,
    UpstreamError,
    UpstreamReset,
)
from agw_proxy.types import Asked, Attempt, Call, Control, LocalHandler
from agw_proxy.upstreams.attempts import open_first
from agw_proxy.upstreams.failures import verdict
from agw_proxy.upstreams.ways import PLAIN


class Handler:
    """Serves requests by the state in force."""

    def __init__(
        self,
        *,
        matcher: Matcher,
        state: Callable[[], State],
        control: Control,
        bounds: Bounds,
        accounts: Accounts,
        lane: Lane,
        overload: Overload,
        reuse: Reuse,
        affinity: Affinity,
        storing: Storing,
        runs: Background,
        replicas: Shared | None = None,
    ) -> None:
        """``state``: the state in force now; asked once a request, so that a reload never changes one under way."""
        self._matcher = matcher
        self._state = state
        self._control = control
        self.bounds = bounds
        self.pace = Pace(lane)
        self._bodies = Bodies(bounds, lane, self.pace.piece)
        self._accounts = accounts
        self._overload = overload
        overload.watch(self.pace.late_ns)
        self._reuse = reuse
        self._affinity = affinity
        self._storing = storing
        self.runs = runs
        self._replicas = replicas

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """One exchange, from its parsed head to its Receipt."""
        exchange = self.begin(request)
        try:
            return await self._serve(exchange, request)
        except GatewayError as error:
            return self.refuse(exchange, request, error)
        except asyncio.CancelledError:
            if exchange.complete:
                raise
            ended = exchange.cancelled()
            exchange.error = ended
            if isinstance(ended, CallerGone):
                exchange.status = exchange.status or ended.status
                raise
            return self.refuse(exchange, request, ended)
        except ConnectionError:  # what was to be written found the client gone; upstreams' have become UpstreamErrors
            return self.refuse(exchange, request, exchange.cancelled())
        except Exception as defect:
            self._accounts.defect(exchange, defect)
            if request.writer.output_size > 0 and exchange.fail is None:
                exchange.error = InternalError("The gateway failed within an answer.")
                raise  # aiohttp closes the connection: nothing more can be said on it
            return self.refuse(
                exchange, request, InternalError("The gateway failed; its log has the details under this request id.")
            )
        finally:
            self._accounts.finish(exchange)

    def begin(self, request: web.BaseRequest) -> Exchange:
        """Start the account of an exchange."""
        protocol = request.protocol
        exchange = self._accounts.begin(request.headers, request.method, request.remote, request.get(WITHIN))
        exchange.behind = request.get(BEHIND)
        if isinstance(request.writer, Frames):
            request.writer.exchange = exchange
        if isinstance(protocol, Connection):
            carried = protocol.begin(exchange)
            if carried is not None:
                go_on(exchange, carried)
        return exchange

    def refuse(self, exchange: Exchange, request: web.BaseRequest, error: GatewayError) -> web.StreamResponse:
        """The reply for an error; an unread body ends the connection after it."""
        exchange.error = error
        if exchange.fail is not None:
            return exchange.fail(error)
        exchange.status = respond.status_of(error, exchange.dialect)
        unread = request.body_exists and not request.content.is_eof()
        body = respond.error_body(error, exchange.dialect, exchange.request_id)
        headers = respond.error_headers(exchange, error)
        response = web.Response(status=exchange.status, body=body, headers=headers, content_type="application/json")
        if unread:
            response.force_close()
        return response

    async def _serve(self, exchange: Exchange, request: web.BaseRequest) -> web.StreamResponse:
        path, query = target_of(request.raw_path)
        path = usual(request.method, path)
        check_head(request, self._bodies.bounds.max_head_bytes)
        if path.startswith(GOOGLE):  # also where nothing is
            exchange.dialect = "gemini"
        endpoint, values = self._matcher.match(request.method, path)
        exchange.endpoint, exchange.dialect = endpoint.name, endpoint.dialect
        if endpoint.by_asker and "anthropic-version" in request.headers:
            exchange.dialect = "anthropic"
        elif endpoint.by_asker and endpoint.handler is not None and asks(request.headers):
            exchange.dialect = "gemini"
        state = exchange.carried.state if exchange.carried is not None else self._state()
        upgrade = check_served(request, endpoint, state)
        headers = with_key(request) if upgrade else request.raw_headers
        if exchange.dialect == "gemini":
            headers, query = keyed(headers, query)
        authenticate(exchange, headers, endpoint.access, state, knows_keys=endpoint.knows_keys)
        if endpoint.handler is not None:
            response = await self._answer(exchange, request, endpoint.handler, values, query)
        elif endpoint.run is not None:
            asked = fields_of(query)
            response = await self.runs.serve(self, exchange, request, endpoint.run, values, asked, state, self._bodies)
        elif upgrade and endpoint.relay is not None and endpoint.relay.turns:
            response = await Turns(self, exchange, request, self._state, self._bodies, self._accounts).serve()
        elif endpoint.relay is not None:
            carried = exchange.carried
            inner = exchange.within is not None  # what a run needs for an answer that is under way
            begun = inner or (carried is not None and carried.error is not None)  # before the drain
            if self._accounts.draining and not begun:
                raise Draining(
                    "This gateway is shutting down. Try again; another instance may answer.", retry_after_ms=1000
                )
            if carried is None and not inner:
                self._overload.check()
            self._overload.entered()
            try:
                if endpoint.relay.socket:
                    response = await self._session(exchange, request, state).serve(endpoint.relay, query)
                else:
                    response = await self._relay(exchange, request, endpoint.relay, state, path, query)
            finally:
                self._overload.left()
        else:
            raise UnknownPath("Nothing is served here.")
        if isinstance(response, Later):
            response = await response.follow()
        return response

    async def _answer(
        self, exchange: Exchange, request: web.BaseRequest, handler: LocalHandler, values: Mapping[str, str], query: str
    ) -> web.StreamResponse:
        """A local endpoint."""
        body = b"" if request.method in {"GET", "HEAD"} else await self._bodies.read(request, exchange)
        try:
            asked = Asked(exchange.principal, values, fields_of(query), body, exchange.dialect)
            made = await handler(self._control, asked)
        finally:
            self._bodies.free(len(body))
        exchange.status = made.status
        return web.Response(status=made.status, body=made.body, headers=respond.answer_headers(exchange, made))

    async def _relay(
        self, exchange: Exchange, request: web.BaseRequest, relay: Relay, state: State, path: str, query: str
    ) -> web.StreamResponse:
        """A request that goes to an upstream."""
        body: bytes | None = None
        seen: Peek | None = None
        held = front = 0
        fallbacks: tuple[str, ...] = ()
        kind = request.headers.get("Content-Type", "").split(";", 1)[0].strip().lower()
        by_model = relay.model_paths is None or (request.method == "POST" and path in relay.model_paths)
        google = relay.form == "gemini"
        upstream: str | None = None
        if relay.raw:
            upstream, path = addressed(exchange, state, path, request.headers)
        elif not (path.startswith("/v1/") or google):
            raise UnknownPath("Paths of the API begin with /v1/, spelt so.")
        if upstream is None and not by_model:
            behind = await self.runs.answered(self._storing, exchange, request, state, path, query)
            if behind is not None:
                return behind
            kept = await self._storing.serve(exchange, request, state, path, query, self._bodies)
            if kept is not None:
                return self._told(exchange, kept)
        reads = by_model or (upstream is None and self._affinity.reads(request, state, path))
        if relay.json_only or (reads and kind == "application/json"):
            check_json(request)
            body = await self._bodies.read(request, exchange)
            held = len(body)
        recalled = None
        try:
            if body is not None:
                if google:
                    body, front = shaped(path, query, body)
                seen = look_into(body, state.settings.server.json_depth)
                behind = await self.runs.begun(self, exchange, request, state, path, body, seen) if by_model else None
                if behind is not None:
                    return behind
                if by_model and seen.fallbacks_name >= 0:
                    fallbacks = named(body, seen)
                    body = without(body, seen)
                    seen = look_into(body, state.settings.server.json_depth)
                recalled = await self._storing.recall(exchange, state, path, body, seen) if by_model else None
                if recalled is not None:
                    body, seen, held = recalled.body, recalled.seen, self._bodies.swap(held, len(recalled.body))
            exchange.stream = seen is not None and seen.stream
            exchange.user = label(request.headers, "x-user-id")
            if body is not None and seen is not None:
                exchange.user = user(body, seen, exchange.dialect == "anthropic") or exchange.user
            exchange.channel = label(request.headers, "x-channel-id")
            maker = None
            if not by_model and upstream is None:
                maker = await self._affinity.upstream_of(exchange, request, state, path, body)
            named_by = seen if by_model else None
            routed = route(exchange, relay, state, named_by, request, fallbacks, body, upstream, maker)
            bound = False
            if by_model:
                routed, bound = await self._affinity.bind(exchange, state, routed, body, relay.form)
            if "x-agw-key" not in request.headers:
                routed = with_our_credentials(routed, state)
            share = None
            if body is not None and by_model:
                asked = path, query, body if recalled is None else recalled.original
                keeps = recalled is not None and recalled.keeps
                share = await self._reuse.look(exchange, request, relay, state, routed, asked, fallbacks, keeps=keeps)
                del asked
            asking = self._asking(exchange, relay, state, request, path, body if by_model else None, seen)
            routed = await asking.admitted(routed)
            exchange.admit()
            counts = relay.form if google and path.endswith(COUNTING) else COUNTING_PATHS.get(path)
            if counts is not None and body is not None:
                counting = able(state, routed, counts)
                if counting is None:
                    return self._told(exchange, counted(state, routed.plan[0], counts, body))
                routed = counting
            model = state.models.get(routed.route.name)
            call = Call(
                method=request.method,
                path=path if relay.raw else relay.upstream_path or path.removeprefix("/v1"),
                query=without_keys(query, state.keys.knows),
                headers=towards_upstream(request.headers),
                body=body,
                seen=seen,
                request_id=exchange.request_id,
                dialect=exchange.dialect,
                form=relay.form if body is not None and by_model else None,
                caller=exchange.caller(label(request.headers, "x-session-id")),
                front=front,
                stored=recalled.stored if recalled is not None else None,
                asks_usage=relay.sse_usage,
                by_model=exchange.model is not None,
                repeatable=exchange.model is not None,
                raw=relay.raw,
                own_credentials=passed_credentials(request, state, routed),
                deadlines=deadlines(model, request.headers.get(HEADER)),
                impatient=HEADER in request.headers,
                holds=model is not None and model.on_break == "restart_if_uncommitted",
                on_wait=exchange.queued,
                on_ask=asking.enter,
                on_sent=exchange.sent,
                pause=self.pace.piece,
            )
            if body is None and request.body_exists:
                self._bodies.check_length(request)
                call.body = self._bodies.stream(request, exchange)
                if request.content_length is not None:
                    call.headers.append(("Content-Length", str(request.content_length)))
            carried = exchange.carried
            way = state.ways.get(routed.route.name, PLAIN)
            way = alone(way) if bound else way
            if carried is not None and carried.replayed:
                target = routed.plan[0]
                name = state.services[target.upstream].upstream.name
                exchange.trail.append(Attempt(target.name, name, UpstreamReset.code))
            begun = time.monotonic_ns()
            try:
                first = functools.partial(
                    open_first,
                    routed.plan,
                    state.services,
                    call,
                    trail=exchange.trail,
                    way=way,
                    panic=routed.panic,
                    on_hedge=self._accounts.metrics.hedged,
                    may_hedge=asking.may_hedge,
                    caller_fault=lambda: exchange.body_error,
                    failed=carried.error if carried is not None else None,
                    spent=(begun - exchange.started) / 1e9 if carried is not None else 0.0,
                )
                beat = Heartbeat(request, exchange, relay.form, state.settings.server.ping_seconds)
                opened = await beat.opened(first() if share is None else share.open(asking.paying(first, routed)))
            finally:
                exchange.upstream_ns = time.monotonic_ns() - begun
                exchange.waited += exchange.upstream_ns
            call.body, call.stored, call.memo = None, None, {}
            await asking.opened(opened)
            await self._affinity.watch(exchange, opened, state, relay, path, routed)
            if recalled is not None:
                await recalled.watch(exchange, opened, state, self._bodies, shared=share is not None)
        finally:
            if body is not None:
                self._bodies.free(held)
        del body
        exchange.fallback = "echo" if opened.target is way.last_resort else None
        if opened.dropped:
            exchange.notes.append(("x-agw-dropped", ", ".join(opened.dropped)))
        service = state.services[opened.target.upstream]
        pump = Pump(
            request,
            exchange,
            opened,
            known_end=relay.known_end,
            secrets=service.secrets,
            write_seconds=state.settings.server.write_seconds,
            finisher=asking.finisher() if opened.stream is not None else None,
            heartbeat=beat,
            pause=self.pace.piece,
        )
        exchange.streaming = opened.stream is not None
        self._accounts.metrics.streams(1 if exchange.streaming else 0)
        try:
            return await pump.run()
        finally:
            opened.end(exchange.error)
            if isinstance(exchange.error, UpstreamError) and verdict(exchange.error) == BAD:
                service.health.broke(exchange.error)
            self._accounts.metrics.streams(-1 if exchange.streaming else 0)

    def _session(self, exchange: Exchange, request: web.BaseRequest, state: State) -> Session:
        most, metrics = self._bodies.bounds.max_body_bytes, self._accounts.metrics
        return Session(exchange, request, state, metrics, replicas=self._replicas, max_message_bytes=most)

    def _told(self, exchange: Exchange, body: bytes) -> web.Response:
        """What the gateway knows itself."""
        exchange.status, exchange.complete, exchange.bytes_out = 200, True, len(body)
        return web.Response(body=body, headers=respond.common_headers(exchange), content_type="application/json")

    def _asking(
        self,
        exchange: Exchange,
        relay: Relay,
        state: State,
        request: web.BaseRequest,
        path: str,
        body: bytes | None,
        seen: Peek | None,
    ) -> Asking:
        if exchange.principal is None:
            raise KeyMissing("This endpoint needs a key.")
        session = request.headers.get("x-session-id")
        return Asking(
            exchange,
            exchange.principal,
            state,
            body,
            seen,
            session=session.encode("utf-8", "surrogateescape") if session else None,
            generates=relay.known_end,
            uses_tokens=path not in COUNTING_PATHS and not path.endswith(COUNTING),
            replicas=self._replicas,
        )
