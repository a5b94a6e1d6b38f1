"""A WebSocket to an upstream (RFC 6455): the handshake on the upstream's own session, then whole messages both ways.

aiohttp's reader and writer of frames do the work. Its client would throw away the body of a refused handshake, with
the upstream's reason in it; so the handshake is a request like any other here, with the same deadlines and errors.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import aiohttp
from aiohttp import WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http import WS_KEY, WebSocketReader, WebSocketWriter, WSMessage
from aiohttp.http_websocket import WSMessageTextBytes

from agw_proxy.errors import UpstreamBroken, UpstreamInvalid
from agw_proxy.types import RawHeaders

MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # of one message: what the providers take at most, with its frame around it
QUEUE_BYTES = 65536  # above twice this, messages that nobody has taken stop the reading from the socket
WRITE_BYTES = 65536  # above this a writer waits until the peer has taken some
CLOSE_SECONDS = 1.0  # for the peer to answer a close; then the connection is cut
MAX_REASON_BYTES = 123  # of a close (RFC 6455 section 5.5)
UNSENT_CODES = frozenset({0, 1005, 1006, 1015})  # they stand for a close that said nothing (section 7.4.1)
NORMAL, AWAY, BROKEN, POLICY = 1000, 1001, 1011, 1008


class Message(NamedTuple):
    """Whole. Of a close: its reason and its code, which is 0 where it came without one."""

    kind: WSMsgType
    data: bytes
    code: int = 0


def offer(protocols: Sequence[str]) -> dict[str, str]:
    """The headers that ask for a WebSocket (RFC 6455 section 4.1); extensions, compression for one, are not offered."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    if protocols:
        headers["Sec-WebSocket-Protocol"] = ", ".join(protocols)
    return headers


def switched(
    response: aiohttp.ClientResponse, name: str, asked: Mapping[str, str], protocols: Sequence[str], connect_ms: float
) -> "Socket":
    """The socket behind an answer with status 101. ``asked``: the request's headers. Raises UpstreamInvalid."""
    told = response.headers
    expected = base64.b64encode(hashlib.sha1(asked["Sec-WebSocket-Key"].encode() + WS_KEY).digest()).decode()  # noqa: S324  the RFC's choice
    options = {option.strip().lower() for option in told.get("Connection", "").split(",")}
    chosen = told.get("Sec-WebSocket-Protocol")
    wrong = None
    if told.get("Upgrade", "").strip().lower() != "websocket" or "upgrade" not in options:
        wrong = "it switched to something else"
    elif told.get("Sec-WebSocket-Accept", "").strip() != expected:
        wrong = "its Sec-WebSocket-Accept does not fit"
    elif chosen is not None and chosen not in protocols:
        wrong = "it chose a subprotocol that was not offered"
    elif "Sec-WebSocket-Extensions" in told:
        wrong = "it chose an extension that was not offered"
    if wrong is not None or response.connection is None or response.connection.protocol is None:
        response.close()
        raise UpstreamInvalid(f"Upstream '{name}' failed the WebSocket handshake: {wrong or 'it has gone'}.")
    return Socket(response, name, chosen, connect_ms)


def sendable(code: int, reason: bytes = b"") -> tuple[int, bytes]:
    """A close as it may be sent: one that said nothing is a normal one; a reason is cut to its bound."""
    if code in UNSENT_CODES:
        return NORMAL, b""
    cut = reason[:MAX_REASON_BYTES].decode("utf-8", "ignore")
    return code, cut.encode()


class Socket:
    """A ``Reply`` with status 101, and what is behind it. One task reads, one writes."""

    def __init__(self, response: aiohttp.ClientResponse, name: str, protocol: str | None, connect_ms: float) -> None:
        """``protocol``: the subprotocol that the upstream chose."""
        self.status = response.status
        self.headers: RawHeaders = response.raw_headers
        self.protocol = protocol
        self.connect_ms = connect_ms
        self.began_ns = 0
        self.ended = False
        self.on_close: Callable[[], None] | None = None
        """Called once, by the first ``close``."""
        self._response = response
        self._name = name
        connection = response.connection
        handler = connection.protocol if connection is not None else None
        transport = connection.transport if connection is not None else None
        if handler is None or transport is None:
            raise UpstreamInvalid(f"Upstream '{name}' left right after the WebSocket handshake.")
        loop = asyncio.get_running_loop()
        self._queue = WebSocketDataQueue(handler, QUEUE_BYTES, loop=loop)
        # Held here: the queue knows it by a weak reference only.
        self._reader = WebSocketReader(self._queue, MAX_MESSAGE_BYTES, compress=False, decode_text=False)
        self._writer = WebSocketWriter(handler, transport, use_mask=True, limit=WRITE_BYTES)
        handler.set_parser(self._reader, self._queue)

    async def read(self, *, progress: bool = True) -> bytes:  # noqa: ARG002  see ``types.Reply``
        """No body follows a 101: what comes is read by ``receive``."""
        raise UpstreamBroken(f"Upstream '{self._name}' has switched protocols; there is no body.")

    async def receive(self) -> Message:
        """The next message, control frames too. Raises what aiohttp's queue does: EofStream, WebSocketError, ClientError."""
        return plain(await self._queue.read())

    async def send(self, kind: WSMsgType, data: bytes) -> None:
        """Send a message; waits while the upstream takes none. Raises ConnectionError."""
        await self._writer.send_frame(data, kind)

    async def part(self, code: int, reason: bytes = b"", *, answered: bool = False) -> None:
        """Close in form, for at most CLOSE_SECONDS. ``answered``: its own close has come, so none is waited for."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.close(*sendable(code, reason))
                while not answered:
                    answered = (await self.receive()).kind is WSMsgType.CLOSE
        self.close()

    def close(self) -> None:
        """See ``types.Reply``."""
        self._response.close()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()


def plain(message: WSMessage | WSMessageTextBytes) -> Message:
    """A message of aiohttp's, whose close has its code for data and its reason beside it."""
    if message.type is WSMsgType.CLOSE:
        return Message(WSMsgType.CLOSE, str(message.extra or "").encode(), int(message.data or 0))
    return Message(message.type, bytes(message.data or b""))
