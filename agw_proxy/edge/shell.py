"""What the compiled lane leaves to Python: connecting, errors and their words, Receipts, the full lane's half of a connection.

Nothing here runs for a request that goes well on a connection that exists, but for its Receipt.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from agw_proxy._hot.circuit import BAD, Circuit
from agw_proxy._hot.lane import Downstream, Lane, Origin, Peer
from agw_proxy._hot.limit import Grant
from agw_proxy.edge.arriving import Arriving
from agw_proxy.edge.exchange import Carried
from agw_proxy.edge.hangup import HANGUP_SECONDS, hung_up
from agw_proxy.edge.respond import attempts_text, error_event, last_words, refuse_unparsed
from agw_proxy.edge.state import State
from agw_proxy.errors import (
    CallerGone,
    Draining,
    GatewayError,
    HeadTooLarge,
    InvalidHTTP,
    OutOfDescriptors,
    RequestTimeout,
    UpstreamBroken,
    UpstreamError,
    UpstreamFailed,
    UpstreamInvalid,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from agw_proxy.policy.limits import refusal
from agw_proxy.types import Attempt, Dialect, Principal, Receipt
from agw_proxy.upstreams.failures import error_of, error_of_event, rest, verdict
from agw_proxy.upstreams.health import NUMBERS
from agw_proxy.upstreams.names import Names, literal
from agw_proxy.upstreams.trust import NO_DESCRIPTOR, out_of_descriptors, reason

if TYPE_CHECKING:
    from agw_proxy.edge.full_lane import Connection
    from agw_proxy.edge.server import Edge

# kind -> (class, words); {} is the upstream's name, {detail} what the lane knows more
WORDS: dict[str, tuple[type[GatewayError], str]] = {
    "gone": (CallerGone, "The client closed the connection before the answer was complete."),
    "draining": (Draining, "This gateway is shutting down and could not wait for the end of this answer."),
    "head_too_large": (HeadTooLarge, "The request's header fields are too large to be sent on to upstream '{name}'."),
    "reset": (UpstreamReset, "Upstream '{name}' closed the connection before it answered."),
    "invalid": (UpstreamInvalid, "Upstream '{name}' sent no valid HTTP answer ({detail})."),
    "html": (
        UpstreamInvalid,
        "Upstream '{name}' answered with an HTML page instead of JSON; check its base_url.",
    ),
    "no_stream": (UpstreamInvalid, "Upstream '{name}' was asked for a stream, and answered with none."),
    "no_event": (UpstreamReset, "Upstream '{name}' ended its stream before the first event."),
    "cut_json": (UpstreamReset, "Upstream '{name}' cut its answer: the JSON is not whole."),
    "cut_answer": (UpstreamBroken, "The upstream's answer was cut: its JSON is not whole."),
    "cut": (UpstreamBroken, "The answer of upstream '{name}' broke off (its framing was cut or wrong)."),
    "framing": (UpstreamBroken, "The answer of upstream '{name}' broke off (its framing was cut or wrong)."),
    "unfinished": (UpstreamBroken, "The upstream ended its stream without finishing the answer."),
    "error_event": (UpstreamBroken, "The upstream reported an error within its stream."),
    "reported": (UpstreamFailed, "The upstream ended its answer as a failed one."),
    "event_too_long": (UpstreamBroken, "The upstream sent an event over 16 MB."),
    "first_byte": (UpstreamTimeout, "Upstream '{name}' did not answer within {detail} s."),
    "write": (UpstreamTimeout, "Upstream '{name}' did not take the request within {detail} s."),
    "first_token": (UpstreamTimeout, "Upstream '{name}' sent nothing of its answer within {detail} s."),
    "tokenless": (UpstreamTimeout, "The answer of upstream '{name}' was silent for {detail} s."),
    "silent": (UpstreamTimeout, "The answer of upstream '{name}' was silent for {detail} s."),
    "total": (UpstreamTimeout, "The answer of upstream '{name}' took longer than its total time-out."),
}


class Shell:
    """The Python side of one ``Lane``."""

    receipt = Receipt
    carried = Carried
    attempt = Attempt

    def __init__(self, edge: "Edge", *, max_connections: int, head_seconds: float) -> None:
        self._edge = edge
        self._accounts = edge.accounts
        self._log = edge.accounts.log
        self._metrics = edge.accounts.metrics
        self._descriptors = edge.descriptors
        self._max_connections = max_connections
        self._head_seconds = head_seconds
        loop = self._loop = asyncio.get_running_loop()
        self._names = Names(lambda host, port: loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), loop.time)
        self.prompt = edge.prompt.targets
        self.writes_receipts = self._log.writes_receipts
        self.writes_lines = self._log.writes_lines
        self.open = 0
        self.arriving: set[asyncio.Task[None]] = set()
        """Requests that wait for the full lane to be there."""

    # -- connections

    def opened(self, downstream: Downstream) -> bool:
        """A client has connected; False where it is one too many (it was told so)."""
        self.open += 1
        self._metrics.connections(1)
        room = self._descriptors.room(downstream.transport.get_extra_info("socket"))
        if self.open <= self._max_connections and room:
            return True
        self._metrics.dropped("connection" if room else "descriptor")
        if not room and self._edge.full is None:  # it is read from files: while there is something left to open them
            self._prepare()
        if self._descriptors.may_say(time.monotonic()):
            self._log.events.warning(
                "connections.full",
                open=self.open,
                max_connections=self._max_connections,
                descriptors_left=room,
                descriptors_limit=self._descriptors.limit,
            )
        self._edge.say_full(downstream)
        return False

    def _prepare(self) -> None:
        async def load() -> None:
            with contextlib.suppress(Exception):  # whoever needs it is told
                await self._edge.load_full()

        task = self._loop.create_task(load())
        self.arriving.add(task)
        task.add_done_callback(self.arriving.discard)

    def closed(self, downstream: Downstream) -> None:  # noqa: ARG002  the lane's call
        """A client's connection has ended."""
        self.open -= 1
        self._metrics.connections(-1)

    def adopt(self, downstream: Downstream) -> "Connection | Arriving":
        """The full lane's protocol for a connection that needs it for the first time."""
        full = self._edge.full
        if full is not None:
            return full.adopt(downstream)
        arriving = Arriving(self, downstream)
        task = self._loop.create_task(self._arrive(arriving, downstream))
        self.arriving.add(task)
        task.add_done_callback(self.arriving.discard)
        return arriving

    async def _arrive(self, arriving: Arriving, downstream: Downstream) -> None:
        try:
            full = await self._edge.load_full()
        except Exception as defect:  # noqa: BLE001  a broken installation: say so and close, whatever it is
            self._log.events.error("gateway.defect", error=repr(defect), where="import of the full lane")
            arriving.give_up()
            return
        if not arriving.lost:
            arriving.give_way(full.adopt(downstream))

    def answer(self, downstream: Downstream, head: bytes, started: int, close: bool) -> bytes:
        """The whole answer to a request for one of ``prompt``. ``close``: the client's connection ends with it."""
        return self._edge.prompt.answer(head, self.address(downstream.transport), started, close=close)

    def watch(self, downstream: Downstream) -> None:
        """Look after a client that is not read at the moment: it counts as gone when it has closed its side."""

        def look() -> None:
            transport = downstream.transport
            if transport is None or not downstream.reading_held:
                downstream.watched = False
            elif hung_up(transport):
                transport.abort()
            else:
                self._loop.call_later(HANGUP_SECONDS, look)

        self._loop.call_later(HANGUP_SECONDS, look)

    def dial(
        self, downstream: Downstream, origin: Origin, serial: int, seconds: float, tls_seconds: float
    ) -> "asyncio.Task[None]":
        """Connect to an upstream; ``downstream`` is told how it went. ``seconds``: for all of it."""
        return self._loop.create_task(self._dial(downstream, origin, serial, seconds, tls_seconds))

    async def _dial(
        self, downstream: Downstream, origin: Origin, serial: int, seconds: float, tls_seconds: float
    ) -> None:
        begun = time.monotonic()
        lane = downstream.lane
        name = origin.name
        error: UpstreamError
        try:
            async with asyncio.timeout(seconds):
                tls: ssl.SSLContext | None = None
                if origin.tls is not None:
                    tls = await self._loop.run_in_executor(None, origin.tls)
                peer = await self._connect(lane, origin, tls, min(tls_seconds, seconds))
        except TimeoutError:
            error = UpstreamUnreachable(f"No connection to upstream '{name}' within {seconds:g} s.")
        except ConnectionAbortedError:  # what the loop makes of a handshake that takes too long
            error = UpstreamUnreachable(f"No TLS connection to upstream '{name}' within {tls_seconds:g} s.")
        except (OSError, ValueError) as failed:  # ValueError: a name that IDNA refuses
            if out_of_descriptors(failed):
                error = OutOfDescriptors(NO_DESCRIPTOR.format(name))
            else:
                error = UpstreamUnreachable(f"No connection to upstream '{name}': {reason(failed)}.")
        except Exception as defect:  # noqa: BLE001  whatever it is, the client that waits must hear of it
            self._log.events.error("gateway.defect", error=repr(defect), where=f"dialing {name}")
            error = UpstreamUnreachable(f"No connection to upstream '{name}': {type(defect).__name__}.")
        else:
            peer.connect_ms = (time.monotonic() - begun) * 1000.0
            downstream.dialed(serial, peer)
            return
        downstream.dial_failed(serial, error)

    async def _connect(self, lane: Lane, origin: Origin, tls: ssl.SSLContext | None, tls_seconds: float) -> Peer:
        """At the first of its addresses that takes the connection. Raises what the last of them did."""
        hosts = [origin.host]
        if not literal(origin.host):
            found = await self._names.find(origin.host, origin.port)
            hosts = [str(address[0]) for *_, address in found]
        failed: OSError | None = None
        for host in hosts:
            try:
                _, peer = await self._loop.create_connection(
                    lambda: Peer(lane, origin),
                    host,
                    origin.port,
                    ssl=tls,
                    server_hostname=origin.host if tls is not None else None,
                    ssl_handshake_timeout=tls_seconds if tls is not None else None,
                )
            except (ssl.SSLError, ConnectionAbortedError):
                raise  # somebody is there
            except OSError as error:
                failed = error
            else:
                return peer
        raise failed or socket.gaierror(socket.EAI_NONAME, "no address")

    # -- errors

    def error(self, kind: str, name: str, detail: str) -> GatewayError:
        """What went wrong, as an error of ours. ``kind``: of WORDS."""
        made, words = WORDS[kind]
        return made(words.format(name=name, detail=detail.replace("_", " ")))

    def refused(
        self, state: State, upstream: int, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> UpstreamError:
        """The error for an upstream's answer of 300 and above."""
        service = state.services[upstream]
        name = service.upstream.name
        if status < 400:
            return UpstreamInvalid(f"Upstream '{name}' answered with a redirect ({status}), which is not followed.")
        return error_of(status, body, headers, name, service.secrets, ours=service.auth == "key")

    def first_event(self, state: State, upstream: int, data: bytes) -> UpstreamError:
        """The error for a stream whose first event is one."""
        service = state.services[upstream]
        return error_of_event(data, service.upstream.name, service.secrets, ours=service.auth == "key")

    def pass_error_on(self, state: State, upstream: int, chunk: bytes, data: bytes, dialect: Dialect) -> bytes:
        """The last bytes of a stream in which the upstream reported an error."""
        return last_words(chunk, data, state.services[upstream].secrets, dialect)

    def error_event(self, error: GatewayError, dialect: Dialect, request_id: bytes) -> bytes:
        """What ends a broken stream."""
        return error_event(error, dialect, request_id.decode())

    def refuse(self, downstream: Downstream, status: int, name: str, told: str, started: int) -> bytes:
        """The whole answer to bytes that are no request, or not in time; accounts for it. ``name``: the reason in a word."""
        error: GatewayError
        if name == "head_timeout":
            error = RequestTimeout(f"The request's head did not arrive within {self._head_seconds:g} s.")
        elif name == "draining":
            error = self.error("draining", "", "")
        elif name == "body_timeout":
            seconds = downstream.lane.policy.state.settings.server.body_seconds
            error = RequestTimeout(f"The request body did not arrive within {seconds:g} s.")
        elif status == 431:
            error = HeadTooLarge(f"{told} (server.max_header_kb)")
        else:
            error = InvalidHTTP(told)
            error.status = status
        exchange = self._accounts.begin_unparsed(downstream, self.address(downstream.transport), started, name)
        reply = refuse_unparsed(exchange, error)
        self._accounts.finish(exchange)
        return reply

    def limited(
        self,
        downstream: Downstream,
        carried: Carried,
        model: str,
        label: str,
        stream: bool,
        session: int,
        close: bool,
    ) -> bytes:
        """The whole answer to a request that a limit has refused; accounts for it. ``close``: the connection ends with it."""
        exchange = self._accounts.begin_unparsed(downstream, self.address(downstream.transport), 0, "limited")
        exchange.carry_on(carried)
        exchange.carried = None
        exchange.lane, exchange.stream, exchange.session = "fast", stream, session
        exchange.model, exchange.model_label = model, label
        grant, principal = carried.grant, carried.principal
        budget = grant.rule is not None and grant.rule.name in principal.budgets
        error = refusal(grant, budget=budget, dialect=exchange.dialect)
        try:
            return refuse_unparsed(exchange, error, close=close)
        finally:
            self._accounts.finish(exchange)

    def left(self, downstream: Downstream, started: int, carried: Carried | None = None) -> None:
        """A client has gone before its request was whole, or before anybody could look at it."""
        exchange = self._accounts.begin_unparsed(downstream, None, started, "incomplete")
        if carried is not None:
            exchange.carry_on(carried)
        exchange.error = self.error("gone", "", "")
        exchange.status = 200 if carried is not None and carried.beaten else exchange.error.status
        self._accounts.finish(exchange)

    # -- the account

    def receipts(self, receipts: Sequence[Receipt]) -> None:
        """Canonical lines of exchanges that have ended."""
        self._log.receipts(receipts)

    def lines(self, lines: bytes, count: int) -> None:
        """Canonical lines as the log writes them, made by the lane; the last one without its end."""
        self._log.writer.put(lines, count)

    def line_parts(
        self, endpoint: str, model: str, label: str, upstream: str, target: str, trail: tuple[Attempt, ...]
    ) -> tuple[bytes, bytes]:
        """What the lines of one way have in common: from the request's id to the duration, and from the model to the trail."""
        receipt = Receipt(
            event="request",
            time="",
            request_id="",
            endpoint=endpoint,
            method="POST",
            status=200,
            lane="fast",
            outcome="ok",
            duration_ms=0.0,
            overhead_us=0,
            model=model,
            model_label=label,
            upstream=upstream,
            target=target,
            attempts=len(trail),
            trail=trail,
        )
        opening, closing = self._log.encode(receipt).removesuffix(b"}").split(b'0.0,"overhead_us":0', 1)
        return opening.partition(b'"request_id":"')[2], closing

    def count(self, receipt: Receipt, prompt: int, completion: int) -> None:
        """Metrics of an exchange that did not go well, with the tokens it pays for; the lane counts the others itself."""
        self._metrics.account(receipt, (prompt, completion))

    def book(self, key: str, model: str, upstream: str) -> int:
        """The handle of what a key has used of a model at an upstream."""
        return self._metrics.book(key, model, upstream)

    def crossed(self, grant: Grant, principal: Principal, user: str | None) -> None:
        """An exchange has made counts reach marks of their rules."""
        self._accounts.alert(grant, principal, user)

    def dropped(self, what: str) -> None:
        """Something did not fit."""
        self._metrics.dropped(what)

    def uncommitted(self, error: GatewayError) -> GatewayError:
        """An answer broke of which the client has seen nothing: as good as none, so it may be asked for again."""
        return UpstreamReset(error.message) if isinstance(error, UpstreamBroken) else error

    def judged(self, circuit: Circuit, error: GatewayError, others: bool) -> int:
        """How an attempt counts for its target; one that named a time rests until then, where there are ``others``."""
        if isinstance(error, UpstreamError) and others:
            rest(circuit, error)
        how = verdict(error)
        if how == BAD:
            circuit.vitals.fault = NUMBERS[error.code]
        return how

    def trail(self, target: str, upstream: str, status: int, replayed: bool) -> tuple[Attempt, ...]:
        """The tries of an exchange. ``status``: 0 where nothing was answered; ``replayed``: on a second connection."""
        first = (Attempt(target, upstream, UpstreamReset.code),) if replayed else ()
        return (*first, Attempt(target, upstream, str(status))) if status else first

    def attempts(self, trail: Sequence[Attempt]) -> bytes:
        """The value of ``x-agw-attempts``."""
        return attempts_text(trail).encode()

    def address(self, transport: asyncio.BaseTransport | None) -> str | None:
        """The client's address, for the log."""
        found = transport.get_extra_info("peername") if transport is not None else None
        if isinstance(found, tuple):
            return str(found[0])
        return None

    def date(self, second: int) -> str:
        """A Date header line (RFC 9110 section 6.6.1)."""
        return f"Date: {formatdate(second, usegmt=True)}\r\n"

    def phrase(self, status: int) -> bytes:
        """The reason phrase with the space before it."""
        try:
            return f" {HTTPStatus(status).phrase}".encode()
        except ValueError:
            return b" "
