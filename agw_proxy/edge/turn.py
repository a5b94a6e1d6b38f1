"""One turn of a WebSocket as a request like any other: its message is the body, and its answer's events are messages.

So the whole policy holds for it as for ``POST /v1/responses``, by the same code: key, limits, routes, retries, cache, Receipt.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from agw_proxy.api.responses import PATH
from agw_proxy.dialects.base import Malformed
from agw_proxy.dialects.sse import Events
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.headers import HOP_BY_HOP
from agw_proxy.edge.heartbeat import SILENT
from agw_proxy.edge.respond import error_tree
from agw_proxy.errors import GatewayError

Tree = dict[str, Any]
Send = Callable[[bytes], Awaitable[None]]
Ended = Callable[[Exchange | None, Tree, list[object]], None]

OF_THE_UPGRADE = HOP_BY_HOP | {
    "accept", "content-length", "content-type", "content-encoding", "expect", "idempotency-key", "x-request-id",
}  # fmt: skip
"""Headers that mean the connection, or one request of it, and no turn. Nor do those of the handshake itself."""
TOLD = ("retry-after", "retry-after-ms", "x-should-retry", "x-request-id", "x-agw-error")
TOLD_PREFIX = "x-ratelimit-"
"""Headers of an answer that is an error; they go into its event."""
MAX_ANSWER_BYTES = 1024 * 1024  # of an answer that is no stream
TRACES = {"ws_request_header_traceparent": "traceparent", "ws_request_header_tracestate": "tracestate"}
"""Members of ``client_metadata`` in which Codex sends what is a header of an HTTP request."""


class Frames(AbstractStreamWriter):
    """Where the handler writes a turn's answer: each event of the stream goes out as one message.

    An event that says that the turn has failed is kept in ``failed``: it is the last one, and its status is known later.
    """

    def __init__(self, send: Send, lane: str | None, ended: Ended) -> None:
        """``lane``: each event names it, where the turn does.

        ``ended``: hears of a response that has ended well (whole, or cut at its longest length) and of its items, before
        the client does.
        """
        self.exchange: Exchange | None = None
        """The turn's account, once it has begun."""
        self._send = send
        self._ended = ended
        self._mark = b"" if lane is None else b',"stream_id":' + orjson.dumps(lane) + b"}"
        self._events: Events | None = None
        self.plain = bytearray()
        """Of an answer that is no stream."""
        self.failed: bytes | None = None
        self.items: list[object] = []
        """Of the answer, as far as they are whole."""

    @property
    def streams(self) -> bool:
        """The answer is a stream."""
        return self._events is not None

    async def write_headers(self, status_line: str, headers: "CIMultiDict[str]") -> None:  # noqa: ARG002  aiohttp's call
        """See ``AbstractStreamWriter``."""
        if headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/event-stream":
            self._events = Events()

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """See ``AbstractStreamWriter``. Waits while the client takes nothing."""
        data = bytes(chunk)
        self.output_size += len(data)
        if self._events is None:
            self.plain += data[: MAX_ANSWER_BYTES - len(self.plain)]
            return
        try:
            found = self._events.feed(data)
        except Malformed:
            raise ConnectionResetError("an event is too long") from None
        for name, event in found:
            await self._take(name, event)

    async def write_eof(self, chunk: bytes = b"") -> None:
        """See ``AbstractStreamWriter``."""
        await self.write(chunk)

    async def drain(self) -> None:
        """See ``AbstractStreamWriter``; each write has done so."""

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None:
        """See ``AbstractStreamWriter``; messages are not compressed."""

    def enable_chunking(self) -> None:
        """See ``AbstractStreamWriter``; messages have their own framing."""

    def send_headers(self) -> None:
        """See ``AbstractStreamWriter``; there are none."""

    async def _take(self, name: str, event: bytes) -> None:
        tree: Tree = {}
        if not name or name in {"error", "response.output_item.done"} or name in LAST:
            tree = tree_of(event)
            name = str(tree.get("type") or name)
        if name == "error" or (tree and "type" not in tree):
            self.failed = event
            return
        body = event.strip()
        if not (body.startswith(b"{") and body.endswith(b"}")):
            return  # the [DONE] of some servers, or an event that was cut: each message of the API is an object
        if name == "response.output_item.done":
            self.items.append(tree.get("item"))
        if name in LAST and name != "response.failed" and isinstance(tree.get("response"), dict):
            self._ended(self.exchange, tree["response"], self.items)
        await self._send(self._marked(body))

    def _marked(self, event: bytes) -> bytes:
        """An event with its lane, as text that a WebSocket may carry (RFC 6455 section 8.1). ``event``: an object."""
        if not event.isascii():
            event = event.decode("utf-8", "replace").encode()
        return event[:-1] + self._mark if self._mark else event


LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})


def tree_of(text: bytes) -> Tree:
    """A JSON object; empty for anything else."""
    try:
        tree = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return tree if isinstance(tree, dict) else {}


def request_of(
    origin: web.BaseRequest, key: bytes | None, tree: Tree, body: bytes, writer: AbstractStreamWriter
) -> web.BaseRequest:
    """The request for a turn. ``origin``: the one for the connection. ``key``: where it came in no header."""
    headers: CIMultiDict[str] = CIMultiDict(
        (name, value)
        for name, value in origin.headers.items()
        if (lower := name.lower()) not in OF_THE_UPGRADE and not lower.startswith("sec-websocket-")
    )
    if key is not None:
        headers["Authorization"] = key.decode("utf-8", "surrogateescape")
    metadata = tree.get("client_metadata")
    for member, name in TRACES.items():
        told = metadata.get(member) if isinstance(metadata, dict) else None
        if isinstance(told, str) and told.isascii() and told.isprintable():
            headers[name] = told
    headers["Accept"] = "text/event-stream"
    headers["Content-Type"] = "application/json"
    headers["Content-Length"] = str(len(body))
    raw = tuple(
        (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
        for name, value in headers.items()
    )
    message = RawRequestMessage(
        "POST", PATH, HttpVersion11, CIMultiDictProxy(headers), raw, should_close=False, compression=None, upgrade=False,
        chunked=False, url=URL(PATH),
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    content = StreamReader(origin.protocol, len(body) + 1, loop=loop)
    content.feed_data(body)
    content.feed_eof()
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a turn runs in a task")
    made = web.BaseRequest(message, content, origin.protocol, writer, task, loop)
    made[SILENT] = True
    return made


def error_event(status: int, error: Tree, lane: str | None, headers: dict[str, str] | None = None) -> bytes:
    """The event by which a WebSocket tells of an error: what an HTTP answer would have said, with its status."""
    told = {"type": None, "code": None, "message": "", "param": None, **error}
    if told["param"] == "previous_response_id" and status in {400, 404}:
        told["code"] = "previous_response_not_found"  # whereupon clients send the whole conversation
    tree: Tree = {"type": "error", "status": status, "error": told}
    if headers:
        told["headers"] = tree["headers"] = headers
    if lane is not None:
        tree["stream_id"] = lane
    return orjson.dumps(tree)


def error_of(error: GatewayError, lane: str | None, request_id: str = "") -> bytes:
    """The same for one of the gateway's own."""
    tree = error_tree(error, "openai", request_id)["error"]
    return error_event(error.status, tree if isinstance(tree, dict) else {}, lane)


def reported(data: bytes) -> Tree:
    """The error in an event or an answer, whichever way it is told."""
    tree = tree_of(data)
    error = tree.get("error", tree)
    found = error if isinstance(error, dict) else {"message": str(error)}
    return {
        name: found[name] for name in ("type", "code", "message", "param") if name in found and found[name] != "error"
    }


def told_headers(response: web.StreamResponse) -> dict[str, str]:
    """Of an answer that is an error."""
    return {
        name.lower(): value
        for name, value in response.headers.items()
        if name.lower() in TOLD or name.lower().startswith(TOLD_PREFIX)
    }
