"""What is recorded of an exchange over real sockets: the wire's bytes with their times, and never a credential."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agw_proxy import tape
from agw_proxy._hot.route import RouteTable
from agw_proxy.config.resilience import Timeouts
from agw_proxy.config.settings import Upstream as UpstreamSettings
from agw_proxy.errors import UpstreamBroken, UpstreamError
from agw_proxy.types import Call, Reply
from agw_proxy.upstreams.keyring import Keyring
from agw_proxy.upstreams.replay import Replay
from agw_proxy.upstreams.taping import Taped
from agw_proxy.upstreams.websocket import Socket
from tests.support.behaviours import answer, reset, stream, zipped
from tests.support.sockets import Provider
from tests.support.upstream import Upstream, unreachable

KEY = "upstream-key-5c1d"
ROUTE = RouteTable([("up", ("*",))], []).find("m")
assert ROUTE is not None
TARGET = ROUTE.targets[0]
JSON = ("Content-Type", "application/json")


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    with Upstream(answer(b'{"ok":true}')) as running:
        yield running


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


class Shelf:
    """A Keeper. ``room``: bytes until there is none left."""

    def __init__(self, room: int = 1 << 20) -> None:
        self.room = room
        self.kept: list[tape.Draft] = []
        self.dropped: list[tape.Draft] = []

    def hold(self, draft: tape.Draft, size: int) -> tape.End | None:
        if size > self.room:
            return "too_large"
        self.room -= size
        draft.size += size
        return None

    def drop(self, draft: tape.Draft) -> None:
        self.dropped.append(draft)

    def keep(self, draft: tape.Draft) -> None:
        self.kept.append(draft)


@asynccontextmanager
async def taped(url: str, shelf: Shelf, **fields: object) -> AsyncIterator[Taped]:
    settings = UpstreamSettings.model_validate({"name": "up", "base_url": f"{url}/v1", "api_key": KEY, **fields})
    times = Timeouts.model_validate({"connect": 0.3, "first_byte": 0.5, "between_bytes": 0.5, "total": 5})
    made = Taped(settings, times, None, None, shelf)
    try:
        yield made
    finally:
        await made.close()
        await asyncio.sleep(0)


def call(body: bytes | AsyncIterator[bytes] | None = b'{"a":1}', **changed: object) -> Call:
    made = Call("POST", "/chat/completions", "", [JSON], body, None, "req-7")
    for name, value in changed.items():
        setattr(made, name, value)
    return made


async def whole(reply: Reply) -> bytes:
    taken = b""
    try:
        while not reply.ended:
            taken += await reply.read()
    finally:
        reply.close()
        reply.close()
    return taken


async def test_an_exchange_is_kept_once_with_what_was_sent_and_said(upstream: Upstream) -> None:
    shelf = Shelf()
    upstream.script(stream([b"data: 1\n\n", b"data: 2\n\n"], pace_ms=30))
    async with taped(upstream.url, shelf) as made:
        body = await whole(await made.open(TARGET, call()))
    (draft,) = shelf.kept
    assert (draft.method, draft.path, draft.model, draft.target) == ("POST", "/chat/completions", "m", "up/m")
    assert (b"".join(draft.body), draft.body_end, draft.end, draft.status) == (b'{"a":1}', "whole", "whole", 200)
    assert b"".join(data for _, data in draft.pieces) == body == b"data: 1\n\ndata: 2\n\n"
    times = [ms for ms, _ in draft.pieces]
    assert times == sorted(times)
    assert draft.head_ms > 0
    assert ("x-request-id", "req-7") in draft.headers
    assert draft.size == len(body) + 7


async def test_no_header_with_a_credential_is_kept(upstream: Upstream) -> None:
    shelf = Shelf()
    names = [
        "Authorization",
        "X-Api-Key",
        "api-key",
        "x-goog-api-key",
        "Cookie",
        "Cookie2",
        "x-auth-token",
        "my-secret",
        "Ocp-Apim-Subscription-Key",
        "x-functions-key",
    ]
    names += ["Proxy-Authorization", "x-amz-security-token", "X-Password", "aws-credentials", "x-agw-key"]
    headers = [
        *((name, "value-of-a-credential") for name in names),
        ("x-kept", "yes"),
        ("anthropic-beta", "tokens-1"),
        ("Idempotency-Key", "i-1"),
    ]
    upstream.script(
        answer(b"{}", headers=[("Set-Cookie", "a=b"), ("x-api-key", "b"), ("x-ratelimit-remaining-tokens", "5")])
    )
    async with taped(upstream.url, shelf, headers={"x-team": "value-of-a-setting", "X-Kept-Too": "hidden"}) as made:
        await whole(await made.open(TARGET, call(headers=headers)))
    (draft,) = shelf.kept
    sent = {name.lower(): value for name, value in draft.headers}
    assert sent == {
        "x-kept": "yes",
        "anthropic-beta": "tokens-1",
        "idempotency-key": "i-1",
        "x-team": "***",
        "x-kept-too": "***",
        "x-request-id": "req-7",
    }
    told = {name.lower() for name, _ in draft.answer_headers}
    assert told == {"content-type", "content-length", "x-ratelimit-remaining-tokens"}


async def test_a_callers_own_credential_is_a_secret_of_this_exchange(upstream: Upstream) -> None:
    shelf = Shelf()
    own = [("Authorization", "Bearer sk-own-credential-1"), ("openai-project", "p1")]
    async with taped(upstream.url, shelf, auth="passthrough", api_key=None) as made:
        await whole(await made.open(TARGET, call(own_credentials=own)))
    assert upstream.last.value("authorization") == "Bearer sk-own-credential-1"
    assert shelf.kept[0].secrets == ("sk-own-credential-1",)


async def test_credentials_in_a_query_are_hidden(upstream: Upstream) -> None:
    shelf = Shelf()
    async with taped(upstream.url, shelf) as made:
        await whole(await made.open(TARGET, call(query="alt=sse&key=AIza-secret&a=")))
        await whole(await made.open(TARGET, call(query="alt=sse&beta")))
        await whole(await made.open(TARGET, call(query="X-Amz-Signature=f0f0&client_secret=x&limit=1")))
    assert [draft.query for draft in shelf.kept] == [
        "alt=sse&key=***&a=",
        "alt=sse&beta",
        "X-Amz-Signature=***&client_secret=***&limit=1",
    ]


async def test_a_streamed_body_is_kept_as_it_goes_by(upstream: Upstream) -> None:
    async def portions() -> AsyncIterator[bytes]:
        yield b"one,"
        yield b"two"

    shelf = Shelf()
    async with taped(upstream.url, shelf) as made:
        await whole(await made.open(TARGET, call(portions())))
    assert upstream.last.body == b"one,two"
    assert shelf.kept[0].body == [b"one,", b"two"]


async def test_an_upload_that_was_answered_before_its_end_is_not_told_to_be_whole(upstream: Upstream) -> None:
    answered = asyncio.Event()

    async def portions() -> AsyncIterator[bytes]:
        yield b"one,"
        await answered.wait()
        yield b"two"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"one,")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
        await asyncio.gather(reader.read(), return_exceptions=True)
        writer.close()

    shelf = Shelf()
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, taped(f"http://127.0.0.1:{port}", shelf) as made:
        reply = await made.open(TARGET, call(portions()))
        assert await reply.read() == b"{}"
        answered.set()  # the rest goes out while the answer is not given back yet
        for _ in range(20):
            await asyncio.sleep(0)
        reply.close()
    (draft,) = shelf.kept
    assert (draft.status, draft.body, draft.body_end) == (413, [b"one,"], "left")
    assert draft.size == 6


async def test_a_websocket_passes_as_it_is() -> None:
    shelf = Shelf()
    with Provider("/{any:(v1)}/realtime") as provider:
        async with taped(provider.url, shelf) as made:
            upgrade = call(None, method="GET", path="/realtime", upgrade=(), by_model=True)
            socket = await made.open(TARGET, upgrade)
            assert isinstance(socket, Socket)
            socket.close()
    assert (shelf.kept, shelf.dropped) == ([], [])


async def test_what_is_too_large_is_cut_and_says_so_and_passes_whole(upstream: Upstream) -> None:
    shelf = Shelf(room=20)
    upstream.script(stream([b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"], pace_ms=30))
    async with taped(upstream.url, shelf) as made:
        assert len(await whole(await made.open(TARGET, call()))) == 27
        await whole(await made.open(TARGET, call(b"x" * 100)))
    first, second = shelf.kept
    assert (first.body_end, first.end, first.pieces[0][1]) == ("whole", "too_large", b"data: 1\n\n")
    assert (second.body_end, second.body) == ("too_large", [])


async def test_what_is_compressed_is_not_kept_since_it_cannot_be_searched(upstream: Upstream) -> None:
    shelf = Shelf()
    upstream.script(zipped(b'{"ok":true}'))
    async with taped(upstream.url, shelf) as made:
        await whole(await made.open(TARGET, call(headers=[JSON, ("Content-Encoding", "gzip")])))
    (draft,) = shelf.kept
    assert (draft.body, draft.body_end, draft.pieces, draft.end) == ([], "encoded", [], "encoded")


async def test_breaks_and_leavers_are_told_apart(upstream: Upstream) -> None:
    shelf = Shelf()
    upstream.script(stream([b"data: 1\n\n"], ending="fin"), stream([b"data: 1\n\n"], ending="hang"))
    async with taped(upstream.url, shelf) as made:
        broken = await made.open(TARGET, call())
        await broken.read()
        with pytest.raises(UpstreamBroken):
            await broken.read()
        broken.close()
        left = await made.open(TARGET, call())
        await left.read()
        left.close()
    assert [draft.end for draft in shelf.kept] == ["broken", "left"]


async def test_without_an_answer_nothing_is_kept(upstream: Upstream) -> None:
    shelf = Shelf()
    upstream.script(reset())
    async with taped(upstream.url, shelf) as made:
        with pytest.raises(UpstreamError):
            await made.open(TARGET, call())
    with unreachable() as nowhere:
        async with taped(nowhere, shelf) as made:
            with pytest.raises(UpstreamError):
                await made.open(TARGET, call())
    assert shelf.kept == []
    assert len(shelf.dropped) == 2


async def test_a_deployments_path_is_the_one_that_was_asked(upstream: Upstream, tmp_path: Path) -> None:
    shelf = Shelf()
    azure = {"dialect": "azure", "api_version": "2024-10-21"}
    async with taped(upstream.url, shelf, **azure) as made:
        await whole(await made.open(TARGET, call()))
    assert (shelf.kept[0].path, shelf.kept[0].query) == ("/deployments/m/chat/completions", "api-version=2024-10-21")
    assert upstream.last.target.endswith("/deployments/m/chat/completions?api-version=2024-10-21")
    settings = UpstreamSettings.model_validate({"name": "up", "replay": tmp_path, **azure})
    with pytest.raises(UpstreamError, match="recording of POST /deployments/m/chat/completions"):
        await Replay(settings, tmp_path).open(TARGET, call())


async def test_with_several_keys_none_is_kept(upstream: Upstream) -> None:
    shelf = Shelf()
    keys = Keyring(
        "up", [("Authorization", "Bearer key-one-1"), ("Authorization", "Bearer key-two-2")], lambda *_: None
    )
    settings = UpstreamSettings.model_validate({"name": "up", "base_url": f"{upstream.url}/v1", "api_keys": ["key-one-1", "key-two-2"]})  # fmt: skip
    made = Taped(settings, Timeouts(), keys, None, shelf)
    await whole(await made.open(TARGET, call()))
    await made.close()
    assert upstream.last.value("authorization") == "Bearer key-one-1"
    assert "key-one-1" not in str(shelf.kept[0])
