"""A WebSocket relay while it lives: whole messages both ways, and one end for both sides.

Each direction is a task that reads a message and waits until the other side has taken it: who takes nothing is not read
for either. A third task watches the clocks. Whichever of them ends first says how both sides are closed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from aiohttp import WebSocketError, WSMsgType

from agw_proxy.errors import (
    BodyTooLarge,
    CallerError,
    CallerGone,
    GatewayError,
    RequestTimeout,
    UpstreamBroken,
    UpstreamFailed,
    UpstreamTimeout,
)
from agw_proxy.upstreams.websocket import AWAY, BROKEN, NORMAL, POLICY, Message, sendable

PING_SECONDS = 30.0  # of silence, before a side is asked whether it is there
PONG_SECONDS = 20.0  # for its answer
GRACE_SECONDS = 0.1  # between a write that fails and the end, for a close that has come before
FAILING = frozenset({1011, 1012, 1013, 1014})  # closes by which an upstream says that it cannot go on
TOO_BIG = 1009
DATA = frozenset({WSMsgType.TEXT, WSMsgType.BINARY})


class Side(Protocol):
    """One end of the relay."""

    async def receive(self) -> Message:
        """The next message. Raises WebSocketError for what is none, and any other exception where the side has gone."""
        ...

    async def send(self, kind: WSMsgType, data: bytes) -> None:
        """Returns once there is room for more. Raises ConnectionError."""
        ...


class End(msgspec.Struct, frozen=True):
    """How it ended. Each side is sent its close, unless it is None: then it has gone."""

    error: GatewayError | None
    client: tuple[int, bytes] | None
    upstream: tuple[int, bytes] | None
    by: str
    """``client``, ``upstream`` or ``gateway``: a side that has closed is not waited for."""


class Clocks(msgspec.Struct, frozen=True):
    """In seconds."""

    idle: float
    """Longest time without a message from either side."""
    client_write: float
    """Longest time that a side may take nothing."""
    upstream_write: float
    ping: float = PING_SECONDS
    pong: float = PONG_SECONDS


class _Half:
    """A side with what is known of it."""

    def __init__(self, side: Side, name: str, now: float) -> None:
        self.side, self.name = side, name
        self.heard = now
        self.pinged = 0.0
        self.writing_since = 0.0
        self.listening = False

    async def receive(self, now: Callable[[], float]) -> Message:
        self.listening = True
        try:
            message = await self.side.receive()
        finally:
            self.listening = False
        self.heard, self.pinged = now(), 0.0
        return message

    async def send(self, kind: WSMsgType, data: bytes, now: Callable[[], float]) -> None:
        self.writing_since = now()
        await self.side.send(kind, data)
        self.writing_since = 0.0


class Conversation:
    """Between a client and an upstream."""

    def __init__(
        self,
        client: Side,
        upstream: Side,
        clocks: Clocks,
        *,
        from_upstream: Callable[[bytes], Awaitable[tuple[bytes, GatewayError | None]]],
        scrub: Callable[[bytes], bytes],
    ) -> None:
        """``from_upstream``: what goes to the client of a message, and why the session must end behind it.

        ``scrub``: takes secrets out of the upstream's reason for a close.
        """
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._client, self._upstream = _Half(client, "client", now), _Half(upstream, "upstream", now)
        self._clocks = clocks
        self._from_upstream = from_upstream
        self._scrub = scrub
        self._last = now  # message of either side

    async def run(self) -> End:
        """Relay until one side, a clock or a limit ends it. Cancellation leaves both sides open."""
        tasks = [
            self._loop.create_task(work)
            for work in (self._listen(self._client), self._listen(self._upstream), self._watch())
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task in done).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, half: _Half) -> End:
        now = self._loop.time
        while True:
            try:
                message = await half.receive(now)
            except WebSocketError as error:
                return self._misspoken(half, error)
            except Exception:  # noqa: BLE001  aiohttp's readers raise what the connection's end has left them
                return self._gone(half)
            if message.kind is WSMsgType.CLOSE:
                return self._closed(half, message)
            if message.kind is WSMsgType.PING:
                try:
                    await half.side.send(WSMsgType.PONG, message.data)
                except ConnectionError:
                    return self._gone(half)
            elif message.kind in DATA:
                self._last = now()
                end = await self._pass_on(half, message)
                if end is not None:
                    return end
                self._last = now()

    async def _pass_on(self, half: _Half, message: Message) -> End | None:
        data, error = message.data, None
        other = self._upstream
        if half is self._upstream:
            other = self._client
            data, error = await self._from_upstream(data)
        try:
            await other.send(message.kind, data, self._loop.time)
        except ConnectionError:
            await asyncio.sleep(GRACE_SECONDS)  # it may have closed in form, and whoever reads it tells with which code
            return self._gone(other)
        return None if error is None else End(error, (POLICY, b""), (NORMAL, b""), "gateway")

    def _closed(self, half: _Half, message: Message) -> End:
        code, reason = sendable(message.code, message.data)
        if half is self._client:
            return End(None, (code, b""), (code, reason), "client")
        error = None
        if code in FAILING:
            error = UpstreamFailed(f"The upstream ended the session as one that failed ({code}).")
        return End(error, (code, self._scrub(reason)), (code, b""), "upstream")

    def _misspoken(self, half: _Half, error: WebSocketError) -> End:
        """What came is no message that is accepted."""
        code = int(error.code)
        if half is self._upstream:
            broken = UpstreamBroken(f"The upstream sent no valid WebSocket message ({code}).")
            return End(broken, (BROKEN, b""), (code, b""), "gateway")
        told: GatewayError = CallerError(f"A WebSocket message was not valid ({code}, RFC 6455).")
        if code == TOO_BIG:
            told = BodyTooLarge("A WebSocket message is larger than this gateway takes.")
        return End(told, (code, b""), (AWAY, b""), "gateway")

    def _gone(self, half: _Half) -> End:
        """The connection has ended without a close."""
        if half is self._client:
            gone = CallerGone("The client closed the connection without a WebSocket close.")
            return End(gone, None, (AWAY, b""), "client")
        broken = UpstreamBroken("The upstream closed the connection without a WebSocket close.")
        return End(broken, (BROKEN, b""), None, "upstream")

    async def _watch(self) -> End:
        clocks = self._clocks
        tick = min(clocks.idle, clocks.client_write, clocks.upstream_write, clocks.ping, clocks.pong) / 4
        while True:
            await asyncio.sleep(tick)
            now = self._loop.time()
            since = self._client.writing_since
            if since and now - since >= clocks.client_write:
                return End(CallerGone("The client took nothing for too long."), None, (AWAY, b""), "client")
            since = self._upstream.writing_since
            if since and now - since >= clocks.upstream_write:
                late = UpstreamTimeout("The upstream took nothing for too long.")
                return End(late, (BROKEN, b""), None, "upstream")
            if now - self._last >= clocks.idle:
                idle = RequestTimeout(f"Nothing was sent in this session for {clocks.idle:g} s.")
                return End(idle, (AWAY, b""), (AWAY, b""), "gateway")
            for half in (self._client, self._upstream):
                if await self._absent(half, now):
                    return self._gone(half)

    async def _absent(self, half: _Half, now: float) -> bool:
        """A side that is listened to, and says nothing, is asked whether it is there."""
        if not half.listening:  # what it says would not be heard
            half.pinged = 0.0
            half.heard = now
        elif half.pinged:
            return now - half.pinged >= self._clocks.pong
        elif now - half.heard >= self._clocks.ping and not half.writing_since:
            half.pinged = now
            try:
                await half.side.send(WSMsgType.PING, b"")
            except ConnectionError:
                return True
        return False
