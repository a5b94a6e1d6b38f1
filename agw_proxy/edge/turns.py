"""Responses over a WebSocket: each ``response.create`` is a turn, served as ``POST /v1/responses`` would be, one at a time.

OpenAI's WebSocket mode (API reference, Responses, WebSocket events). Any upstream that a Responses request can reach
serves it: the upstream is asked over HTTP. The connection has its own Receipt, and each turn has one.
"""

import asyncio
import contextlib
import math
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from agw_proxy.api.endpoint import Endpoint
from agw_proxy.edge.accounts import Accounts
from agw_proxy.edge.body import Bodies
from agw_proxy.edge.chains import MAX_LANES, Begun, Chains, answered
from agw_proxy.edge.conversation import Clocks, Conversation, End
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.full_lane import Connection
from agw_proxy.edge.respond import common_headers
from agw_proxy.edge.state import State
from agw_proxy.edge.turn import (
    Frames,
    Tree,
    error_event,
    error_of,
    reported,
    request_of,
    told_headers,
)
from agw_proxy.edge.websockets import Accepted, ClientSide, asks_upgrade, check_upgrade, with_key
from agw_proxy.errors import (
    CallerGone,
    Draining,
    GatewayError,
    InternalError,
    InvalidJSON,
    InvalidParameter,
    UpgradeRefused,
    UpstreamInvalid,
)
from agw_proxy.upstreams.websocket import AWAY, BROKEN, CLOSE_SECONDS, MAX_MESSAGE_BYTES, Message

MAX_SESSION_SECONDS = 3600.0  # as OpenAI's; also the longest silence
MAX_WAITING = MAX_LANES  # messages that wait for the turn before them; then no more are read, pings neither
MAX_WAITING_BYTES = 1024 * 1024  # of these together; a longer one waits alone
MAX_UNSENT = 2  # events that the client has not taken; then no more are read of the upstream
MAX_LANE_CHARS = 256  # of a ``stream_id``
OUT_OF_TIME = "websocket_connection_limit_reached"  # the code on which clients connect anew

Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def check_served(request: web.BaseRequest, endpoint: Endpoint, state: State) -> bool:
    """Whether the request asks for a WebSocket. Raises UpgradeRefused where none is served."""
    if not asks_upgrade(request):
        return False
    relay = endpoint.relay
    turns = relay is not None and relay.turns and endpoint.method == "GET" and state.settings.server.responses_websocket
    if relay is None or not (relay.socket or turns):
        raise UpgradeRefused(
            "This gateway serves no WebSocket or other upgrade here. Use plain HTTP; streams come as server-sent events."
        )
    return True


class Kept:
    """See ``chains.Held``: at most half of what bodies may take, so that turns of old never keep new requests out."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies

    @property
    def room(self) -> int:
        """See ``Held``."""
        return self._bodies.bounds.max_bodies_bytes // 2 - self._bodies.held

    def keep(self, size: int) -> None:
        """See ``Held``."""
        self._bodies.held += size


class Waiting:
    """Messages that wait for the turn before them. One task puts them there, one gets them."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()

    async def put(self, data: bytes) -> None:
        """One more; returns once there is room for it."""
        while self._messages and (len(self._messages) >= MAX_WAITING or self._bytes + len(data) > MAX_WAITING_BYTES):
            await self._change()
        self._messages.append(data)
        self._bytes += len(data)
        self._changed.set()

    async def get(self) -> bytes:
        """The first of them."""
        while not self._messages:
            await self._change()
        data = self._messages.popleft()
        self._bytes -= len(data)
        self._changed.set()
        return data

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class Turns:
    """One connection, from its checked head to its end. For ``Conversation`` it is the other side."""

    def __init__(
        self,
        serve: Serve,
        exchange: Exchange,
        request: web.BaseRequest,
        state: Callable[[], State],
        bodies: Bodies,
        accounts: Accounts,
    ) -> None:
        """``serve``: answers a request, as the handler does. ``exchange``: the connection's. ``state``: in force now."""
        self._serve, self._exchange, self._request = serve, exchange, request
        self._state, self._accounts = state, accounts
        self._most = min(bodies.bounds.max_body_bytes, MAX_MESSAGE_BYTES)
        self._chains = Chains(Kept(bodies))
        self._asked = Waiting()
        self._said: asyncio.Queue[Message] = asyncio.Queue(MAX_UNSENT)
        self._idle = True
        """No turn is under way: a client that just goes has got all that it asked for."""
        self._until = asyncio.get_running_loop().time() + MAX_SESSION_SECONDS
        found = with_key(request)
        self._key = found[-1][1] if len(found) > len(request.raw_headers) else None

    # -- conversation.Side

    async def receive(self) -> Message:
        """See ``Side``: the next event."""
        return await self._said.get()

    async def send(self, kind: WSMsgType, data: bytes) -> None:
        """See ``Side``: a message of the client's. Waits while too many are waiting already."""
        if kind is WSMsgType.PING:
            if self._said.empty():
                self._said.put_nowait(Message(WSMsgType.PONG, data))
        elif kind is WSMsgType.BINARY:
            await self._tell(error_of(InvalidParameter("Events come as text messages.", param=None), None))
        else:
            await self._asked.put(data)

    # -- the connection

    async def serve(self) -> web.StreamResponse:
        """Switch protocols, and serve turns until one side ends it. Raises GatewayError while an HTTP answer is possible."""
        exchange, request = self._exchange, self._request
        check_upgrade(request)
        if self._accounts.draining:
            raise Draining(
                "This gateway is shutting down. Try again; another instance may answer.", retry_after_ms=1000
            )
        accepted = Accepted(None, self._most)
        exchange.head_at = time.monotonic_ns()
        for name, value in common_headers(exchange):
            accepted.headers[name] = value
        exchange.status = 101
        await accepted.prepare(request)
        if isinstance(request.protocol, Connection):
            request.protocol.downstream.upgraded()
        client = ClientSide(accepted, request)
        write_seconds = self._state().settings.server.write_seconds
        conversation = Conversation(
            client,
            self,
            Clocks(idle=MAX_SESSION_SECONDS, client_write=write_seconds, upstream_write=math.inf),
            from_upstream=_as_it_is,
            scrub=bytes,
        )
        work = asyncio.get_running_loop().create_task(self._work())
        try:
            end = await conversation.run()
        except asyncio.CancelledError:
            error = exchange.cancelled()
            if isinstance(error, CallerGone):
                exchange.complete = self._idle
                raise
            end = End(error, (AWAY, b""), None, "gateway")
        finally:
            self._accounts.leave(exchange)
            work.cancel()
            self._chains.clear()
            await asyncio.gather(work, return_exceptions=True)
        exchange.error = None if self._idle and isinstance(end.error, CallerGone) else end.error
        exchange.complete = True
        await _close(client, end)
        return accepted

    async def _work(self) -> None:
        """Turn by turn, to the close. A defect here ends the connection as a failed one."""
        try:
            code = await self._turns()
        except Exception as defect:  # noqa: BLE001  the client must hear of it, and the log too
            self._accounts.defect(self._exchange, defect)
            code = BROKEN
        await self._said.put(Message(WSMsgType.CLOSE, b"", code))

    async def _turns(self) -> int:
        while True:
            self._idle = True
            self._accounts.park(self._exchange)
            data = await self._asked.get()
            self._accounts.leave(self._exchange)
            self._idle = False
            if asyncio.get_running_loop().time() >= self._until:
                told = {"type": "invalid_request_error", "code": OUT_OF_TIME}
                told["message"] = "This WebSocket has been open for 60 minutes. Connect anew to go on."
                await self._tell(error_event(400, told, None))
                return AWAY
            await self._event(data)

    async def _tell(self, event: bytes) -> None:
        await self._said.put(Message(WSMsgType.TEXT, event))

    # -- a turn

    async def _event(self, data: bytes) -> None:
        """A message of the client's."""
        lane: str | None = None
        try:
            tree = _object(data)
            lane = _lane(tree.pop("stream_id", None))
            kind = tree.pop("type", None)
            if kind == "response.steer":
                await self._tell(_not_steered(tree, lane))
                return
            if kind != "response.create":
                raise InvalidParameter("'type' must be 'response.create'.", param="type")
            if tree.get("background"):
                raise InvalidParameter("'background' is not served over a WebSocket.", param="background")
            tree.pop("background", None)
            generate = tree.pop("generate", None)
            before = tree.get("previous_response_id")
            begun = self._chains.begin(tree)
            if generate is False:
                await self._prepare(tree, lane, begun)
                return
            tree["stream"] = True
            body = orjson.dumps(tree)
        except GatewayError as error:
            await self._tell(error_of(error, lane))
            return
        except orjson.JSONEncodeError:  # it takes deeper trees in than it gives out
            await self._tell(error_of(InvalidJSON("A message is nested too deeply."), lane))
            return
        failed = await self._turn(tree, body, lane, begun)
        if failed is not None:
            self._chains.forget(before)
            await self._tell(failed)

    async def _turn(self, tree: Tree, body: bytes, lane: str | None, begun: Begun | None) -> bytes | None:
        """Serve it (``body`` is ``tree``); the event by which it has failed."""

        def ended(turn: Exchange | None, response: Tree, done: list[object]) -> None:
            native, stored = self._native(turn), tree.get("store") is not False
            there = stored and (native or self._kept(response))
            output = response.get("output") or done
            identity = response.get("id")
            with contextlib.suppress(orjson.JSONEncodeError):  # likewise: it is not remembered
                answer = answered(output if isinstance(output, list) else [], native=native, stored=stored)
                if isinstance(identity, str):
                    self._chains.end(lane or "", identity, begun, answer, there=there)

        frames = Frames(self._tell, lane, ended)
        request = request_of(self._request, self._key, tree, body, frames)
        try:
            response = await self._serve(request)
        except ConnectionError:
            return error_of(UpstreamInvalid("The upstream sent what is no stream of events."), lane)
        except Exception:  # noqa: BLE001  a defect, of which the handler has told the log
            return error_of(InternalError("The gateway failed within an answer."), lane)
        if isinstance(response, web.Response):
            told = response.body if isinstance(response.body, bytes) else b""
            return error_event(response.status, reported(told), lane, told_headers(response))
        error = frames.exchange.error if frames.exchange is not None else None
        if frames.failed is not None:
            return error_event(error.status if error is not None else 502, reported(frames.failed), lane)
        if frames.streams:
            return None
        return error_of(UpstreamInvalid("The upstream was asked for a stream, and answered with none."), lane)

    def _native(self, turn: Exchange | None) -> bool:
        """Whoever has answered speaks Responses itself, and keeps them."""
        name = turn.trail[-1].upstream if turn is not None and turn.trail else None
        return any(
            service.upstream.name == name and "responses" in service.speaks and service.keeps
            for service in self._state().services
        )

    def _kept(self, response: Tree) -> bool:
        """The gateway has it, whoever has answered."""
        store = self._state().settings.store
        return store is not None and store.keeps and response.get("store") is True

    async def _prepare(self, tree: Tree, lane: str | None, begun: Begun | None) -> None:
        """``generate: false``: what is said here is known for the next turn, and no model is asked."""
        identity = f"resp_{secrets.token_hex(16)}"
        self._chains.end(lane or "", identity, begun, (), there=False)
        response = {
            "id": identity,
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "model": tree.get("model"),
            "output": [],
            "parallel_tool_calls": tree.get("parallel_tool_calls", True),
            "tool_choice": tree.get("tool_choice", "auto"),
            "tools": [],
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "usage": None,
        }
        used: Tree = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        used |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        mark = {} if lane is None else {"stream_id": lane}
        created: Tree = {"type": "response.created", "sequence_number": 0, "response": response, **mark}
        whole = {**response, "status": "completed", "usage": used}
        await self._tell(orjson.dumps(created))
        await self._tell(
            orjson.dumps({**created, "type": "response.completed", "sequence_number": 1, "response": whole})
        )


async def _as_it_is(data: bytes) -> tuple[bytes, GatewayError | None]:
    return data, None


async def _close(client: ClientSide, end: End) -> None:
    """Close the connection in form; why, where the gateway ends it."""
    if end.client is None:
        client.cut()
        return
    if end.error is not None and end.by == "gateway":
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await client.send(WSMsgType.TEXT, error_of(end.error, None))
        except (ConnectionError, TimeoutError):
            client.cut()
            return
    await client.part(*end.client, answered=end.by == "client")


def _object(data: bytes) -> dict[str, Any]:
    try:
        tree = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidJSON(f"A message is not valid JSON: {error}") from None
    if not isinstance(tree, dict):
        raise InvalidJSON("A message is not a JSON object.")
    return tree


def _lane(given: object) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or not 0 < len(given) <= MAX_LANE_CHARS:
        raise InvalidParameter(f"'stream_id' must be a string of 1 to {MAX_LANE_CHARS} characters.", param="stream_id")
    return given


def _not_steered(tree: Tree, lane: str | None) -> bytes:
    """The published refusal of a message that would change a response under way; its input comes back."""
    error = {
        "type": "invalid_request_error",
        "code": "steering_not_supported",
        "message": "This gateway does not steer responses under way. Send the input with the next response.create.",
    }
    steer = {"previous_response_id": tree.get("previous_response_id"), "input": tree.get("input")}
    told = {"type": "response.steer.failed", "sequence_number": 0, "error": error, "steer": steer}
    return orjson.dumps(told if lane is None else {**told, "stream_id": lane})
