"""The handshake with an upstream: what is accepted for one, and that the rest is said and closed."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import WSMsgType

from agw_proxy._hot.route import RouteTable
from agw_proxy.config.resilience import Timeouts
from agw_proxy.config.settings import Upstream as UpstreamSettings
from agw_proxy.errors import UpstreamInvalid
from agw_proxy.types import Call
from agw_proxy.upstreams.http import HttpUpstream
from agw_proxy.upstreams.websocket import Socket

ROUTE = RouteTable([("far", ("*",))], []).find("m named")
assert ROUTE is not None
TARGET = ROUTE.targets[0]
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept(head: bytes) -> bytes:
    key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def good(head: bytes) -> bytes:
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept(head) + b"\r\n"
    )


@asynccontextmanager
async def asked(answer: Callable[[bytes], bytes], heads: list[bytes] | None = None) -> AsyncIterator[Socket]:
    """What an upstream makes of an upgrade that answers so, from the empty line of its head on."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heads is not None:
            heads.append(head)
        writer.write(answer(head))
        await reader.read()
        writer.close()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = UpstreamSettings(name="far", dialect="openai", base_url=f"http://127.0.0.1:{port}/v1", models=["m"])
    upstream = HttpUpstream(settings, Timeouts(connect=2, first_byte=2))
    call = Call("GET", "/realtime", "voice=x", [], None, None, "req_1", upgrade=("realtime",))
    try:
        reply = await upstream.open(TARGET, call)
        assert isinstance(reply, Socket)
        yield reply
        reply.close()
    finally:
        try:
            async with asyncio.timeout(5):
                await ended.wait()  # whatever came, the connection is closed
        finally:
            await upstream.close()
            server.close()


async def test_the_model_goes_into_the_query_and_no_extension_is_offered() -> None:
    heads: list[bytes] = []
    async with asked(lambda head: good(head) + b"Sec-WebSocket-Protocol: realtime\r\n\r\n", heads) as socket:
        assert socket.protocol == "realtime"
        assert socket.status == 101
    assert heads[0].startswith(b"GET /v1/realtime?model=m%20named&voice=x HTTP/1.1\r\n")
    assert b"sec-websocket-extensions" not in heads[0].lower()
    assert b"\r\nSec-WebSocket-Protocol: realtime\r\n" in heads[0]


async def test_messages_that_come_with_the_handshake_are_read() -> None:
    async with asked(lambda head: good(head) + b"\r\n\x81\x02hi\x88\x02\x0f\xa1") as socket:
        assert (await socket.receive())[:2] == (WSMsgType.TEXT, b"hi")
        assert (await socket.receive()).code == 4001


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda head: good(head).replace(accept(head), b"x" * 28) + b"\r\n", "Accept"),
        (lambda head: good(head).replace(b"websocket\r\n", b"h2c\r\n") + b"\r\n", "something else"),
        (lambda head: good(head).replace(b", Upgrade", b"") + b"\r\n", "far"),
        (lambda head: good(head) + b"Sec-WebSocket-Protocol: another\r\n\r\n", "subprotocol"),
        (lambda head: good(head) + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", "extension"),
    ],
)
async def test_a_handshake_that_does_not_fit_is_refused_and_closed(answer: Callable[[bytes], bytes], why: str) -> None:
    with pytest.raises(UpstreamInvalid, match=why):
        async with asked(answer):
            pass
