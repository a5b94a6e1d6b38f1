"""WebSockets: an upgrade is checked, authenticated, limited and routed as any request, then relayed until it ends.

One exchange is one session: its concurrency slot, its place at the upstream and its stream last as long as the
connection, and its Receipt has the usage of all its answers.
"""

import asyncio
import base64
import binascii
import contextlib
import time
from collections.abc import Awaitable
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
from aiohttp import WSMsgType, hdrs, web
from aiohttp.http import WebSocketWriter
from multidict import CIMultiDict

from agw_proxy._hot.circuit import BAD
from agw_proxy.api.endpoint import Relay
from agw_proxy.edge.asking import Asking, Shared
from agw_proxy.edge.conversation import Clocks, Conversation, End
from agw_proxy.edge.credentials import passed_credentials
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.fallbacks import with_our_credentials
from agw_proxy.edge.full_lane import Connection
from agw_proxy.edge.headers import label, towards_client, towards_upstream
from agw_proxy.edge.own_timeouts import HEADER, deadlines
from agw_proxy.edge.raw import without_keys
from agw_proxy.edge.realtime import Book, error_message, is_delta
from agw_proxy.edge.respond import common_headers
from agw_proxy.edge.routing import route
from agw_proxy.edge.state import State
from agw_proxy.errors import (
    CallerError,
    CallerGone,
    GatewayError,
    InvalidHTTP,
    InvalidParameter,
    KeyMissing,
    UpgradeNeeded,
    UpstreamError,
    UpstreamInvalid,
)
from agw_proxy.observe.metrics import Metrics
from agw_proxy.policy.limits import limited
from agw_proxy.types import Call, RawHeaders, Routed
from agw_proxy.upstreams.attempts import open_first
from agw_proxy.upstreams.failures import scrubbed, verdict
from agw_proxy.upstreams.opening import Opened
from agw_proxy.upstreams.service import Service
from agw_proxy.upstreams.ways import PLAIN
from agw_proxy.upstreams.websocket import (
    AWAY,
    CLOSE_SECONDS,
    MAX_MESSAGE_BYTES,
    WRITE_BYTES,
    Message,
    Socket,
    plain,
    sendable,
)

MAX_QUERY_FIELDS = 100
KEY_PROTOCOL = "openai-insecure-api-key."
OWN_PROTOCOLS = (KEY_PROTOCOL, "openai-organization.", "openai-project.")
"""Subprotocols that stand in for headers with credentials, since a browser can set none: they end here, as those do."""
MODEL_FIELDS = ("model", "deployment")  # Azure's clients call the model so
CREDENTIAL_FIELDS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key", "x-agw-key"})
UPSTREAMS_FIELDS = frozenset(
    {"api-version", "api-key", "key"}
)  # of the query: the upstream's settings say what is meant


def asks_upgrade(request: web.BaseRequest) -> bool:
    """The request offers to switch to a WebSocket."""
    return request.headers.get("Upgrade", "").strip().lower() == "websocket"


def protocols(request: web.BaseRequest) -> list[str]:
    """The subprotocols that the client offers, in order."""
    sent = ",".join(request.headers.getall("Sec-WebSocket-Protocol", ()))
    return [name for part in sent.split(",") if (name := part.strip())]


def with_key(request: web.BaseRequest) -> RawHeaders:
    """The headers, with the key that came as a subprotocol in its header's place where none came there."""
    headers: RawHeaders = request.raw_headers
    if any(name.lower() in CREDENTIAL_FIELDS for name in request.headers):
        return headers
    keys = [name.removeprefix(KEY_PROTOCOL) for name in protocols(request) if name.startswith(KEY_PROTOCOL)]
    return [*headers, *((b"Authorization", f"Bearer {key}".encode("utf-8", "surrogateescape")) for key in keys)]


def check_upgrade(request: web.BaseRequest) -> tuple[str, ...]:
    """The subprotocols that go on to the upstream. Raises UpgradeNeeded, InvalidHTTP (RFC 6455 section 4.2.1)."""
    headers = request.headers
    options = {part.strip().lower() for value in headers.getall("Connection", ()) for part in value.split(",")}
    if not asks_upgrade(request) or "upgrade" not in options or request.method != "GET":
        raise UpgradeNeeded("This endpoint is a WebSocket: ask for an upgrade with 'Connection: Upgrade'.")
    if headers.get("Sec-WebSocket-Version", "").strip() != "13":
        raise UpgradeNeeded("This gateway speaks version 13 of the WebSocket protocol.")
    if request.body_exists:
        raise InvalidHTTP("A request for a WebSocket has no body.")
    try:
        whole = len(base64.b64decode(headers.get("Sec-WebSocket-Key", "").strip(), validate=True)) == 16
    except (binascii.Error, ValueError):
        whole = False
    if not whole:
        raise InvalidHTTP("Sec-WebSocket-Key is not 16 bytes in base64 (RFC 6455 section 4.1).")
    return tuple(name for name in protocols(request) if not name.startswith(OWN_PROTOCOLS))


def asked_for(query: str) -> tuple[str | None, str]:
    """The model that the query names, and the rest of it. Raises CallerError."""
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise CallerError(f"The query has more than {MAX_QUERY_FIELDS} fields.") from None
    named = [value for name, value in fields if name.lower() in MODEL_FIELDS]
    if len(named) > 1:
        raise InvalidParameter("The query names more than one model.", param="model")
    if named == [""]:
        raise InvalidParameter("'model' must be a non-empty string.", param="model")
    rest = [(name, value) for name, value in fields if name.lower() not in {*MODEL_FIELDS, *UPSTREAMS_FIELDS}]
    return (named[0] if named else None), urlencode(rest, quote_via=quote)


class Accepted(web.WebSocketResponse):
    """The client's side: aiohttp's, which never sees what the client offered.

    It would log the subprotocols that it does not choose, and the key may be one of them.
    """

    def __init__(self, protocol: str | None, max_message_bytes: int) -> None:
        """``protocol``: the subprotocol that is chosen."""
        super().__init__(
            timeout=CLOSE_SECONDS,
            autoclose=False,
            autoping=False,
            compress=False,
            max_msg_size=max_message_bytes,
            writer_limit=WRITE_BYTES,
            decode_text=False,
        )
        self._chosen = protocol

    def _handshake(self, request: web.BaseRequest) -> tuple["CIMultiDict[str]", str | None, int, bool]:
        """See ``WebSocketResponse``; held by the contract test."""
        shown = CIMultiDict(request.headers)
        shown.popall(hdrs.SEC_WEBSOCKET_PROTOCOL, None)
        headers, _, compress, no_takeover = super()._handshake(request.clone(headers=shown))
        if self._chosen is not None:
            headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = self._chosen
        return headers, self._chosen, compress, no_takeover

    async def write_eof(self, data: bytes = b"") -> None:
        """See ``StreamResponse``; whoever relays has closed it, in form or not."""


class ClientSide:
    """See ``conversation.Side``."""

    def __init__(self, accepted: Accepted, request: web.BaseRequest) -> None:
        self._request = request
        reader, writer = accepted._reader, accepted._writer  # noqa: SLF001  held by the contract test
        if reader is None or writer is None:
            raise ConnectionResetError("the client left within the handshake")
        self._reader = reader
        self._writer: WebSocketWriter = writer

    async def receive(self) -> Message:
        """See ``Side``."""
        return plain(await self._reader.read())

    async def send(self, kind: WSMsgType, data: bytes) -> None:
        """See ``Side``."""
        await self._writer.send_frame(data, kind)

    async def part(self, code: int, reason: bytes, *, answered: bool) -> None:
        """Close in form, for at most CLOSE_SECONDS. ``answered``: its own close has come, so none is waited for."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.close(*sendable(code, reason))
                while not answered:
                    answered = (await self.receive()).kind is WSMsgType.CLOSE

    def cut(self) -> None:
        """End the connection as it is."""
        transport = self._request.transport
        if transport is not None:
            transport.abort()


class Session:
    """One WebSocket of a client's, from its checked head to its end."""

    def __init__(
        self,
        exchange: Exchange,
        request: web.BaseRequest,
        state: State,
        metrics: Metrics,
        *,
        replicas: Shared | None,
        max_message_bytes: int,
    ) -> None:
        """``replicas``: see ``Asking``."""
        self._exchange, self._request, self._state, self._metrics = exchange, request, state, metrics
        self._replicas = replicas
        self._max_message_bytes = min(max_message_bytes, MAX_MESSAGE_BYTES)
        self._book = Book()

    async def serve(self, relay: Relay, query: str) -> web.StreamResponse:
        """Open it at an upstream, switch protocols, relay. Raises GatewayError while an HTTP answer is possible."""
        exchange, request, state = self._exchange, self._request, self._state
        principal = exchange.principal
        if principal is None:
            raise KeyMissing("This endpoint needs a key.")
        offered = check_upgrade(request)
        model, rest = asked_for(query)
        exchange.stream = True
        exchange.user, exchange.channel = label(request.headers, "x-user-id"), label(request.headers, "x-channel-id")
        named = msgspec.structs.replace(relay, default_model=model)
        routed = route(exchange, named, state, None, request, (), None)
        if "x-agw-key" not in request.headers:
            routed = with_our_credentials(routed, state)
        session = request.headers.get("x-session-id")
        asking = Asking(
            exchange,
            principal,
            state,
            None,
            None,
            session=session.encode("utf-8", "surrogateescape") if session else None,
            generates=False,
            uses_tokens=True,
            replicas=self._replicas,
        )
        begun = time.monotonic_ns()
        try:
            routed = await asking.decide(routed)
        finally:
            exchange.limit_ns += time.monotonic_ns() - begun
        opened = await self._open(relay, routed, asking, offered, rest)
        service = state.services[opened.target.upstream]
        if not isinstance(opened.reply, Socket):
            opened.abandon()
            raise UpstreamInvalid(f"Upstream '{service.upstream.name}' opened no WebSocket.")
        exchange.usage = self._book.total
        exchange.streaming = True
        self._metrics.streams(1)
        try:
            return await self._relay(opened.reply, service, asking)
        finally:
            exchange.usage = self._book.used
            opened.reply.close()
            opened.end(exchange.error)
            if isinstance(exchange.error, UpstreamError) and verdict(exchange.error) == BAD:
                service.health.broke(exchange.error)
            self._metrics.streams(-1)

    async def _open(self, relay: Relay, routed: Routed, asking: Asking, offered: tuple[str, ...], query: str) -> Opened:
        exchange, request, state = self._exchange, self._request, self._state
        model = state.models.get(routed.route.name)
        call = Call(
            method="GET",
            path=relay.upstream_path,
            query=without_keys(query, state.keys.knows),
            headers=towards_upstream(request.headers),
            body=None,
            seen=None,
            request_id=exchange.request_id,
            dialect=exchange.dialect,
            by_model=exchange.model is not None,
            own_credentials=passed_credentials(request, state, routed),
            deadlines=deadlines(model, request.headers.get(HEADER)),
            impatient=HEADER in request.headers,
            on_wait=exchange.queued,
            on_ask=asking.enter,
            on_sent=exchange.sent,
            upgrade=offered,
        )
        way = state.ways.get(routed.route.name, PLAIN)
        begun = time.monotonic_ns()
        try:
            opened = await open_first(
                routed.plan,
                state.services,
                call,
                trail=exchange.trail,
                way=way,
                panic=routed.panic,
                on_hedge=self._metrics.hedged,
                may_hedge=asking.may_hedge,
            )
        finally:
            exchange.upstream_ns = time.monotonic_ns() - begun
            exchange.waited += exchange.upstream_ns
        await asking.opened(opened)
        exchange.connect_ms = opened.reply.connect_ms
        return opened

    async def _relay(self, socket: Socket, service: Service, asking: Asking) -> web.StreamResponse:
        """From the switch of protocols to the end of both sides."""
        exchange, request = self._exchange, self._request
        accepted = Accepted(socket.protocol, self._max_message_bytes)
        exchange.head_at = time.monotonic_ns()
        limits = exchange.grant is None or not limited(exchange.grant)
        for name, value in (*towards_client(socket.headers, limits=limits), *common_headers(exchange)):
            accepted.headers[name] = value
        exchange.status = 101
        await accepted.prepare(request)
        if isinstance(request.protocol, Connection):
            request.protocol.downstream.upgraded()
        client = ClientSide(accepted, request)
        times = service.timeouts

        async def from_upstream(data: bytes) -> tuple[bytes, GatewayError | None]:
            used = self._book.read(data)
            exchange.saw_content(self._book.deltas)
            if not is_delta(data):
                data = scrubbed(data, service.secrets)
            exchange.bytes_out += len(data)
            if used is None:
                return data, None
            exchange.usage = self._book.total
            return data, await asking.spend(used)

        conversation = Conversation(
            client,
            socket,
            Clocks(
                idle=times.total,
                client_write=self._state.settings.server.write_seconds,
                upstream_write=times.write,
            ),
            from_upstream=from_upstream,
            scrub=lambda reason: scrubbed(reason, service.secrets),
        )
        try:
            end = await conversation.run()
        except asyncio.CancelledError:
            error = exchange.cancelled()
            gone = isinstance(error, CallerGone)
            end = End(error, None if gone else (AWAY, b""), (AWAY, b""), "client" if gone else "gateway")
            if gone:
                exchange.error = error
                await _part(socket, end)
                raise
        exchange.error = end.error
        exchange.usage = self._book.used
        exchange.settle()
        exchange.complete = True  # how it ends is known, whatever becomes of the last words
        await self._close(client, socket, end)
        return accepted

    async def _close(self, client: ClientSide, socket: Socket, end: End) -> None:
        """Both sides at the same time; the client hears why first where it was not one of them that ended it."""
        waits: list[Awaitable[None]] = [_part(socket, end)]
        if end.client is None:
            client.cut()
        else:
            waits.append(self._tell(client, end, *end.client))
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(*waits)

    async def _tell(self, client: ClientSide, end: End, code: int, reason: bytes) -> None:
        # An upstream that closes in form has said why itself.
        if end.error is not None and not (end.by == "upstream" and end.upstream is not None):
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await client.send(WSMsgType.TEXT, error_message(end.error, self._exchange.request_id))
        await client.part(code, reason, answered=end.by == "client")


async def _part(socket: Socket, end: End) -> None:
    if end.upstream is None:
        socket.close()
    else:
        await socket.part(*end.upstream, answered=end.by == "upstream" or end.client is None)
