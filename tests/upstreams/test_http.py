"""Calls over real sockets to an upstream that misbehaves: every fault has its error, every deadline its phase."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from agw_proxy._hot.route import RouteTable
from agw_proxy.config.resilience import Timeouts
from agw_proxy.config.settings import Upstream as UpstreamSettings
from agw_proxy.errors import (
    UpstreamBroken,
    UpstreamError,
    UpstreamInvalid,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from agw_proxy.types import Call, Reply
from agw_proxy.upstreams.client import SLICE_BYTES, Resolver
from agw_proxy.upstreams.http import HttpUpstream
from tests.support.behaviours import answer, huge, raw, redirect, reset, silence, stream
from tests.support.upstream import Behaviour, Exchange, Upstream, unreachable

pytestmark = pytest.mark.both_loops
KEY = "upstream-key-5c1d"
ROUTE = RouteTable([("up", ("*",))], []).find("m")
assert ROUTE is not None
TARGET = ROUTE.targets[0]
SHORT = {"connect": 0.2, "first_byte": 0.3, "between_bytes": 0.15, "total": 5}
PATIENT: dict[str, float] = {"connect": 5, "first_byte": 5, "between_bytes": 5, "total": 20}
"""Where no silence is the case: a busy machine is silent, too."""
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    with Upstream(answer(b'{"ok":true}')) as running:
        yield running


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


@asynccontextmanager
async def towards(url: str, *, timeouts: dict[str, float] | None = None, **fields: object) -> AsyncIterator[HttpUpstream]:  # fmt: skip
    entry = {"name": "up", "base_url": f"{url}/v1", "api_key": KEY, **fields}
    made = HttpUpstream(UpstreamSettings.model_validate(entry), Timeouts.model_validate({**SHORT, **(timeouts or {})}))
    try:
        yield made
    finally:
        await made.close()
        await asyncio.sleep(0)  # transports close one turn later


def call(
    body: "bytes | AsyncIterator[bytes] | None" = b"{}",
    *,
    query: str = "",
    headers: list[tuple[str, str]] | None = None,
    own: list[tuple[str, str]] | None = None,
) -> Call:
    return Call("POST", "/chat", query, headers or [], body, None, "req-7", own_credentials=own)


async def whole(reply: Reply) -> bytes:
    """All of the body, and the connection given back."""
    taken = b""
    try:
        while not reply.ended:
            taken += await reply.read()
    finally:
        reply.close()
    return taken


async def fails(url: str, kind: type[UpstreamError], **fields: object) -> str:
    """What the error of an open says."""
    async with towards(url, **fields) as up:  # type: ignore[arg-type]  # timeouts and fields of the settings
        with pytest.raises(UpstreamError) as caught:
            await up.open(TARGET, call())
    assert type(caught.value) is kind
    assert "'up'" in caught.value.message
    assert KEY not in caught.value.message
    assert "127.0.0.1" not in caught.value.message
    return caught.value.message


async def test_a_call_arrives_as_it_should_and_its_answer_is_read(upstream: Upstream) -> None:
    sent = [("Content-Type", "application/json"), ("x-any", "1"), ("User-Agent", "tool/1")]
    async with towards(upstream.url, headers={"x-team": "blue"}) as up:
        reply = await up.open(TARGET, call(b'{"a":1}', query="x=%2F&y", headers=sent))
        assert (reply.status, await whole(reply)) == (200, b'{"ok":true}')
        assert (b"content-type", b"application/json") in [(name.lower(), value) for name, value in reply.headers]
        assert reply.connect_ms > 0
    seen = upstream.last
    assert (seen.method, seen.target, seen.body) == ("POST", "/v1/chat?x=%2F&y", b'{"a":1}')
    names = {name.lower(): value for name, value in seen.headers}
    assert names.pop("host") == upstream.url.removeprefix("http://")
    assert names == {
        "content-type": "application/json",
        "x-any": "1",
        "user-agent": "tool/1",
        "x-team": "blue",
        "authorization": f"Bearer {KEY}",
        "accept-encoding": "identity",
        "x-request-id": "req-7",
        "content-length": "7",
    }


async def test_nothing_is_sent_that_the_caller_did_not_send(upstream: Upstream) -> None:
    async with towards(upstream.url) as up:
        await whole(await up.open(TARGET, call(None)))
    names = {name.lower() for name, _ in upstream.last.headers}
    assert names <= {"host", "authorization", "accept-encoding", "x-request-id", "content-length"}


async def test_credentials_go_where_the_settings_say(upstream: Upstream) -> None:
    own = [("Authorization", "Bearer own-login"), ("x-api-key", "own-key")]
    async with towards(upstream.url, auth="none") as up:
        await whole(await up.open(TARGET, call(own=own)))
    assert upstream.last.value("authorization") is None
    async with towards(upstream.url, auth="passthrough", api_key=None) as up:
        await whole(await up.open(TARGET, call(own=own)))
    assert upstream.last.value("authorization") == "Bearer own-login"
    assert upstream.last.value("x-api-key") == "own-key"
    async with towards(upstream.url) as up:
        await whole(await up.open(TARGET, call(own=own)))
    assert upstream.last.value("authorization") == f"Bearer {KEY}"


@pytest.mark.parametrize("base", ["", "/v1"])
async def test_an_anthropic_upstream_gets_its_own_header_and_its_v1(upstream: Upstream, base: str) -> None:
    async with towards(upstream.url, dialect="anthropic", base_url=upstream.url + base) as up:
        await whole(await up.open(TARGET, call()))
    assert (upstream.last.target, upstream.last.value("x-api-key")) == ("/v1/chat", KEY)
    assert upstream.last.value("authorization") is None


async def test_a_connection_serves_again_after_a_whole_answer(upstream: Upstream) -> None:
    async with towards(upstream.url) as up:
        replies = []
        for _ in range(3):
            reply = await up.open(TARGET, call())
            await whole(reply)
            replies.append(reply.connect_ms)
    assert len({seen.connection for seen in upstream.requests}) == 1
    assert replies[0] > 0
    assert replies[1:] == [0.0, 0.0]


async def test_bytes_after_an_answer_cost_the_connection_and_nothing_else(upstream: Upstream) -> None:
    upstream.script(answer(b"{}", after=b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"))
    async with towards(upstream.url) as up:
        assert await whole(await up.open(TARGET, call())) == b"{}"
        await asyncio.sleep(0.02)
        assert await whole(await up.open(TARGET, call())) == b'{"ok":true}'
    assert upstream.requests[0].connection != upstream.requests[1].connection


async def test_a_reply_that_is_closed_early_cuts_its_request(upstream: Upstream) -> None:
    upstream.script(stream([b"data: 1\n\n"], ending="hang"))
    async with towards(upstream.url) as up:
        reply = await up.open(TARGET, call())
        assert await reply.read() == b"data: 1\n\n"
        reply.close()
        reply.close()
        await asyncio.to_thread(upstream.wait_gone, upstream.last)
        await whole(await up.open(TARGET, call()))
    assert upstream.requests[0].connection != upstream.requests[1].connection


async def test_a_cancelled_open_cuts_its_request(upstream: Upstream) -> None:
    upstream.script(silence())
    async with towards(upstream.url, timeouts={"first_byte": 60}) as up:
        task = asyncio.create_task(up.open(TARGET, call()))
        seen = (await asyncio.to_thread(upstream.wait))[0]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(upstream.wait_gone, seen)


@pytest.mark.parametrize("size", [SLICE_BYTES, SLICE_BYTES + 1, 5 * MEGABYTE])
async def test_a_body_of_any_size_arrives_whole_with_its_length(upstream: Upstream, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with towards(upstream.url) as up:
        await whole(await up.open(TARGET, call(body)))
    assert upstream.last.body == body
    assert upstream.last.value("content-length") == str(size)
    assert upstream.last.value("transfer-encoding") is None


async def portions(count: int, pause: float = 0.0) -> AsyncIterator[bytes]:
    for number in range(count):
        await asyncio.sleep(pause)
        yield b"%05d" % number


async def test_a_streamed_body_is_sent_chunked_or_with_the_length_it_announces(upstream: Upstream) -> None:
    async with towards(upstream.url) as up:
        await whole(await up.open(TARGET, call(portions(3))))
        await whole(await up.open(TARGET, call(portions(3), headers=[("Content-Length", "15")])))
    assert [seen.body for seen in upstream.requests] == [b"000000000100002"] * 2
    assert upstream.requests[0].value("transfer-encoding") == "chunked"
    assert upstream.requests[1].value("transfer-encoding") is None


async def test_the_clock_of_the_first_byte_starts_with_the_requests_last_byte(upstream: Upstream) -> None:
    async with towards(upstream.url) as up:
        reply = await up.open(TARGET, call(portions(10, 0.05)))
        assert (reply.status, await whole(reply)) == (200, b'{"ok":true}')


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (reset(), UpstreamReset),
        (raw(b""), UpstreamReset),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-le"), UpstreamReset),
        (raw(b"Good evening\r\n\r\n"), UpstreamInvalid),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-length: minus\r\n\r\n"), UpstreamInvalid),
        (raw(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 40000 + b"\r\n\r\n"), UpstreamInvalid),
        (raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "hang"), UpstreamInvalid),
        (redirect("https://elsewhere.example/v1/chat"), UpstreamInvalid),
        (silence(), UpstreamTimeout),
    ],
    ids=["rst", "fin", "half-a-head", "garbage", "bad-length", "long-header", "101", "redirect", "silence"],
)  # fmt: skip
async def test_a_fault_before_the_answer_has_its_error(
    upstream: Upstream, behaviour: Behaviour, kind: type[UpstreamError]
) -> None:
    upstream.script(behaviour)
    message = await fails(upstream.url, kind)
    assert "elsewhere.example" not in message
    assert len(upstream.requests) == 1


async def test_interim_answers_are_swallowed(upstream: Upstream) -> None:
    upstream.script(answer(b"{}", before=b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"))
    async with towards(upstream.url) as up:
        reply = await up.open(TARGET, call())
        assert (reply.status, await whole(reply)) == (200, b"{}")


async def test_nobody_listening_is_unreachable() -> None:
    with unreachable() as nowhere:
        assert "refused" in await fails(nowhere, UpstreamUnreachable)


async def test_a_handshake_that_never_ends_is_unreachable_within_its_deadline() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        port = deaf.getsockname()[1]
        message = await fails(f"https://127.0.0.1:{port}", UpstreamUnreachable, timeouts={"first_byte": 60})
    assert "within 0.2 s" in message


async def test_a_name_that_is_not_found_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def not_found(*_: object, **__: object) -> list[object]:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", not_found)
    assert "its name was not found" in await fails("http://upstream.example", UpstreamUnreachable)


async def misframed(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
    await asyncio.sleep(0.05)  # together with the head it would be a fault before the answer
    await exchange.send(b"nonsense\r\n")
    exchange.end()


@pytest.mark.parametrize(
    "broken",
    [
        stream([b"data: 1\n\n"], ending="fin"),
        stream([b"data: 1\n\n"], ending="rst"),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ndata: 1\n\n"),
        misframed,
    ],
    ids=["no-last-chunk", "rst", "short", "bad-chunk"],
)
async def test_an_answer_that_breaks_off_is_broken(upstream: Upstream, broken: Behaviour) -> None:
    upstream.script(broken)
    async with towards(upstream.url, timeouts=PATIENT) as up:
        reply = await up.open(TARGET, call())
        with pytest.raises(UpstreamBroken, match="'up' broke off") as caught:
            await whole(reply)
    assert "127.0.0.1" not in caught.value.message


async def test_a_body_that_ends_with_the_connection_is_whole(upstream: Upstream) -> None:
    upstream.script(answer(b"to the end", framing="close"))
    async with towards(upstream.url) as up:
        assert await whole(await up.open(TARGET, call())) == b"to the end"


async def test_silence_within_an_answer_is_a_time_out(upstream: Upstream) -> None:
    upstream.script(stream([b"data: 1\n\n"], ending="hang"))
    async with towards(upstream.url) as up:
        reply = await up.open(TARGET, call())
        with pytest.raises(UpstreamTimeout, match=r"silent for 0\.15 s"):
            await whole(reply)
        await asyncio.to_thread(upstream.wait_gone, upstream.last)


async def test_a_slow_answer_that_goes_on_is_not_silent(upstream: Upstream) -> None:
    upstream.script(stream([b"data: 1\n\n"] * 5, pace_ms=300))
    async with towards(upstream.url, timeouts=PATIENT | {"between_bytes": 1}) as up:
        assert await whole(await up.open(TARGET, call())) == b"data: 1\n\n" * 5


async def test_what_is_worth_nothing_does_not_stop_the_silence_clock(upstream: Upstream) -> None:
    upstream.script(stream([b": ping\n\n"] * 1000, pace_ms=20))
    async with towards(upstream.url) as up:
        reply = await up.open(TARGET, call())
        taken: list[bytes] = []

        async def read() -> None:
            while not reply.ended:
                taken.append(await reply.read(progress=False))

        with pytest.raises(UpstreamTimeout, match="silent"):
            await read()
        reply.close()
    assert 0 < len(taken) < 1000


async def test_a_reader_who_takes_his_time_is_no_silence_of_the_upstreams(upstream: Upstream) -> None:
    upstream.script(stream([b"data: 1\n\n"] * 2, pace_ms=1))
    async with towards(upstream.url) as up:
        reply = await up.open(TARGET, call())
        taken = await reply.read()
        await asyncio.sleep(0.4)
        assert taken + await whole(reply) == b"data: 1\n\n" * 2


async def test_the_whole_exchange_has_a_deadline(upstream: Upstream) -> None:
    upstream.script(stream([b"data: 1\n\n"] * 1000, pace_ms=20))
    async with towards(upstream.url, timeouts=PATIENT | {"total": 0.3}) as up:
        reply = await up.open(TARGET, call())
        with pytest.raises(UpstreamTimeout, match="total"):
            await whole(reply)
    upstream.script(silence())
    assert "did not answer" in await fails(upstream.url, UpstreamTimeout, timeouts={"total": 0.1, "first_byte": 60})


async def test_an_upstreams_own_deadlines_override_the_defaults(upstream: Upstream) -> None:
    upstream.script(silence())
    entry = {"name": "up", "base_url": f"{upstream.url}/v1", "timeouts": {"first_byte": 0.05}}
    up = HttpUpstream(UpstreamSettings.model_validate(entry), Timeouts())
    with pytest.raises(UpstreamTimeout, match=r"within 0\.05 s"):
        await up.open(TARGET, call())
    await up.close()


async def test_an_answer_that_nobody_reads_is_not_taken_from_the_upstream(upstream: Upstream) -> None:
    upstream.script(huge(64 * MEGABYTE))
    async with towards(upstream.url) as up:
        reply = await up.open(TARGET, call())
        seen, before = upstream.last, -1
        while seen.accepted != before:
            before = seen.accepted
            await asyncio.sleep(0.1)
        assert seen.accepted < 16 * MEGABYTE
        reply.close()


async def test_an_upstream_that_nobody_asked_closes_too() -> None:
    async with towards("http://127.0.0.1:9") as up:
        assert up._client is None


async def test_the_first_bytes_clock_starts_when_there_is_a_connection(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(_self: object, host: str, port: int = 0, **_: object) -> list[dict[str, object]]:
        await asyncio.sleep(1.2)
        found = {"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET}
        return [{**found, "proto": 0, "flags": socket.AI_NUMERICHOST}]

    monkeypatch.setattr(Resolver, "resolve", slow)
    url = upstream.url.replace("127.0.0.1", "slow.invalid")
    async with towards(url, timeouts={"connect": 5, "first_byte": 1}) as up:
        assert await whole(await up.open(TARGET, call())) == b'{"ok":true}'


async def test_an_answer_that_begins_before_the_request_has_ended_is_read_to_its_end() -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(b"k")
        await reader.read()
        writer.close()

    opened = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await opened.wait()
        yield b"two"

    server = await asyncio.start_server(early, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with towards(f"http://127.0.0.1:{port}") as up:
            reply = await up.open(TARGET, call(body()))
            opened.set()
            assert await whole(reply) == b"ok"
