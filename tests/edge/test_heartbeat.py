"""Heartbeats before a stream's first token, in one process: who gets them, and how they end."""

import asyncio
import socket
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from aiohttp.http import HttpVersion11
from aiohttp.test_utils import make_mocked_request

from agw_proxy._hot.route import Target
from agw_proxy._hot.sse import Stream
from agw_proxy.edge import handler
from agw_proxy.edge.answers import Entry, Replay
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.heartbeat import Heartbeat
from agw_proxy.upstreams.opening import Opened
from tests.edge.inprocess import Running, serving
from tests.support.behaviours import failure, gate, silence, stream
from tests.support.fake_openai import spoken
from tests.support.gateway import APP_KEY, Tree, chat_body
from tests.support.upstream import Upstream

COMMENT = b": ping\n\n"
TARGET = cast("Target", object())  # whose answer it is does not matter here


@pytest.fixture
def beating(config: Tree) -> Tree:
    """Heartbeats at once, and an upstream that may be silent for long."""
    config["server"] |= {"ping_seconds": "10ms", "lane": "full"}
    config["timeouts"] = {"connect": "5s", "first_byte": "60s", "between_bytes": "60s", "total": "120s"}
    config["retries"] = {"attempts": 1}
    return config


def asking(version: str) -> bytes:
    """A streamed chat."""
    body = orjson.dumps(chat_body(stream=True))
    head = f"POST /v1/chat/completions HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {APP_KEY}\r\n"
    return head.encode() + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


async def test_a_heartbeat_begins_the_answer_and_nothing_of_it_counts(
    beating: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    go, behaviour = gate(stream(spoken()))
    upstream.script(behaviour)
    async with serving(beating, tmp_path) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
        writer.write(asking("1.1"))
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readuntil(COMMENT)
            go.set()
            rest = await reader.readuntil(b"[DONE]\n\n")
        writer.close()
        line = await running.receipt()
    assert b"data: " in rest
    assert (line["outcome"], line["bytes_out"]) == ("ok", len(b"".join(spoken())))
    assert line["overhead_us"] < line["duration_ms"] * 1000


@pytest.mark.parametrize("lane", ["auto", "full"])
async def test_a_drain_ends_an_answer_of_nothing_but_heartbeats_as_a_broken_one(
    beating: Tree, upstream: Upstream, tmp_path: Path, lane: str
) -> None:
    beating["server"] |= {"drain_seconds": "50ms", "lane": lane}
    upstream.script(silence())
    async with serving(beating, tmp_path) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
        writer.write(asking("1.1"))
        async with asyncio.timeout(20):
            await reader.readuntil(COMMENT)
            await running.stop()
            rest = await reader.read()
        writer.close()
        receipts: list[Tree] = running.receipts()
    assert rest.count(b"event: error\n") == 1
    assert not rest.endswith(b"0\r\n\r\n")
    assert [(line["status"], line["outcome"]) for line in receipts] == [(200, "gateway_draining")]


async def test_a_defect_behind_a_heartbeat_is_told_in_the_stream_too(
    beating: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = asyncio.Event()

    async def broken(*_: object, **__: object) -> Opened:
        await heard.wait()
        raise RuntimeError("inner words")

    monkeypatch.setattr(handler, "open_first", broken)
    async with serving(beating, tmp_path) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
        writer.write(asking("1.1"))
        async with asyncio.timeout(20):
            await reader.readuntil(COMMENT)
            heard.set()
            rest = await reader.read()
        writer.close()
        line = await running.receipt()
        running.log.lines.clear()
    assert rest.count(b"event: error\n") == 1
    assert b"inner words" not in rest
    assert not rest.endswith(b"0\r\n\r\n")
    assert (line["status"], line["outcome"]) == (200, "gateway_internal")


async def test_an_http_1_0_client_gets_none_and_so_a_real_status(
    beating: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    go, behaviour = gate(failure(503, "worn out"))
    upstream.script(behaviour)
    async with serving(beating, tmp_path) as running:
        asked = asyncio.create_task(running.send(asking("1.0")))
        await running.until(lambda: upstream.requests)
        await both(running, upstream)
        go.set()
        assert (await asked).status == 503


async def both(running: Running, upstream: Upstream) -> None:
    """As long as another stream takes for some heartbeats."""
    go, behaviour = gate(stream(spoken()))
    upstream.script(behaviour)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
    writer.write(asking("1.1"))
    async with asyncio.timeout(10):
        for _ in range(3):
            await reader.readuntil(COMMENT)
        go.set()
        await reader.readuntil(b"[DONE]")
    writer.close()


async def test_a_client_that_takes_no_heartbeats_gets_the_rest_once_it_reads_again(
    beating: Tree, upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The full lane, which tells of the failure, begins on a connection that takes nothing at the moment."""
    path = str(tmp_path / "socket")
    beating["server"] |= {"lane": "auto", "host": f"unix:{path}"}  # there each write takes a place of its own
    go, behaviour = gate(failure(503, "worn out"))
    upstream.script(behaviour)
    async with serving(beating, tmp_path) as running:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(path)
            client.sendall(asking("1.1"))
            (downstream,) = await running.until(lambda: edge_of(running).lane.connections)
            transport = downstream.transport
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            await running.until(lambda: transport.get_write_buffer_size() > 0)
            go.set()
            await running.until(lambda: downstream.state_name == "full")
            text = await asyncio.to_thread(everything, client)
        line = await running.receipt()
    assert (text.count(b"HTTP/1.1"), text.count(b"event: error\n")) == (1, 1)
    assert not text.endswith(b"0\r\n\r\n")
    assert (line["status"], line["outcome"]) == (200, "upstream_unavailable")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def everything(client: socket.socket) -> bytes:
    """Until the connection ends."""
    text = b""
    while piece := client.recv(65536):
        text += piece
    return text


def edge_of(running: Running) -> Any:
    """The one that it serves at."""
    (edge,) = running.gateway._edges
    return edge


class Stuck(Heartbeat):
    """A heartbeat that the client does not take."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.begun = asyncio.Event()

    async def _begin(self, ping: bytes) -> None:
        self.begun.set()
        await asyncio.Event().wait()


async def test_an_answer_that_comes_while_a_heartbeat_is_stuck_is_given_back_when_the_client_goes() -> None:
    request: Any = make_mocked_request("POST", "/", version=HttpVersion11)
    exchange = Exchange("req_1", "POST", None)
    exchange.stream = True
    beat = Stuck(request, exchange, "chat", 0.001)
    reply = Replay(Entry(0.0, 200, (), b"", stream=True))
    closed: list[bool] = []
    reply.close = lambda: closed.append(True)  # type: ignore[method-assign]
    come = asyncio.Event()

    async def answer() -> Opened:
        await beat.begun.wait()
        come.set()
        return Opened(reply, TARGET, Stream(), b"")

    task = asyncio.create_task(beat.opened(answer()))
    await come.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [True]
