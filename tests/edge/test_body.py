"""Request bodies: within their bounds and deadlines, and given back whatever happens."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import AsyncMock

import msgspec
import pytest
from aiohttp import ClientConnectionResetError
from aiohttp.test_utils import make_mocked_request

from agw_proxy._hot.lane import Lane
from agw_proxy.edge.body import Bodies, check_json
from agw_proxy.edge.exchange import Bounds
from agw_proxy.errors import Overloaded, UnsupportedMediaType
from tests.edge.inprocess import Running, serving
from tests.support.gateway import APP_KEY, Tree
from tests.support.upstream import Upstream

MEGABYTE = 1 << 20
HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {APP_KEY}\r\nContent-Type: application/json\r\n"  # fmt: skip
CHUNKED = (HEAD + "Transfer-Encoding: chunked\r\n\r\n").encode()


@pytest.fixture
def small(config: Tree) -> Tree:
    config["server"] |= {"max_body_mb": 1, "body_seconds": 0.2}
    return config


def held(running: Running) -> int:
    """Bytes of request bodies that the gateway counts as in memory."""
    full = running.gateway._edges[0].full
    return 0 if full is None else full.handler._bodies.held


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json", None]
)
def test_json_is_accepted_under_its_names_and_untyped(kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    check_json(make_mocked_request("POST", "/", headers={**headers, "Content-Encoding": "identity"}))


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"Content-Type": "text/plain"}, "text/plain"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, "multipart/form-data"),
        ({"Content-Type": ""}, "'' came"),
        ({"Content-Type": "application/xml+jsonx"}, "xml"),
        ({"Content-Encoding": "gzip"}, "gzip"),
        ({"Content-Encoding": "identity, br"}, "br"),
    ],
)
def test_another_type_or_coding_is_415_and_named(headers: dict[str, str], named: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=named) as caught:
        check_json(make_mocked_request("POST", "/", headers=headers))
    assert caught.value.status == 415


@pytest.mark.both_loops
async def test_a_body_at_the_bound_passes_and_is_given_back(small: Tree, upstream: Upstream, tmp_path: Path) -> None:
    filler = {"model": "gpt-4o", "messages": [], "pad": "x" * (MEGABYTE - 100)}
    async with serving(small, tmp_path) as running:
        assert (await running.ask("POST", "/v1/chat/completions", filler)).status == 200
        assert held(running) == 0
    assert len(upstream.last.body) > MEGABYTE - 100


@pytest.mark.both_loops
async def test_a_body_announced_too_large_is_refused_unread(small: Tree, upstream: Upstream, tmp_path: Path) -> None:
    async with serving(small, tmp_path) as running:
        reply = await running.send(HEAD.encode() + b"Content-Length: %d\r\n\r\n{" % (MEGABYTE + 1))
        assert (reply.status, reply.value("connection")) == (413, "close")
        assert (await running.receipt())["outcome"] == "caller_body_too_large"
    assert upstream.requests == []


@pytest.mark.both_loops
async def test_a_chunked_body_is_counted_as_it_comes(small: Tree, upstream: Upstream, tmp_path: Path) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    async with serving(small, tmp_path) as running:
        assert (await running.send(CHUNKED + chunk * 17)).status == 413
        assert held(running) == 0
    assert upstream.requests == []


@pytest.mark.both_loops
@pytest.mark.parametrize("begun", [b"", b'{"model":'])
async def test_a_body_that_does_not_come_is_408(small: Tree, begun: bytes, tmp_path: Path) -> None:
    async with serving(small, tmp_path) as running:
        reply = await running.send(HEAD.encode() + b"Content-Length: 100\r\n\r\n" + begun)
        assert (reply.status, reply.error["code"]) == (408, "request_timeout")
        line = await running.receipt()
        assert (line["status"], line["outcome"]) == (408, "caller_timeout")
        assert held(running) == 0


@pytest.mark.both_loops
async def test_a_client_that_leaves_within_its_body_is_gone_and_nothing_is_held(small: Tree, tmp_path: Path) -> None:
    small["server"]["body_seconds"] = 30

    async with serving(small, tmp_path) as running:

        def leave() -> None:
            with running.connect() as connection:
                connection.socket.sendall(HEAD.encode() + b"Content-Length: 100\r\n\r\n{")

        await asyncio.to_thread(leave)
        assert (await running.receipt())["outcome"] == "caller_gone"
        assert held(running) == 0


@pytest.mark.both_loops
@pytest.mark.parametrize("broken", [b"nonsense\r\n", b"5\r\nabcdeXX", b"-1\r\n"])
async def test_a_body_with_bad_framing_is_400(small: Tree, upstream: Upstream, broken: bytes, tmp_path: Path) -> None:
    async with serving(small, tmp_path) as running:
        reply = await running.send(CHUNKED + b"1\r\n{\r\n" + broken)
        assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")
        assert held(running) == 0
        assert (await running.receipt())["status"] == 400
    assert upstream.requests == []


@pytest.mark.both_loops
async def test_all_bodies_together_have_a_bound(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    async with serving(config, tmp_path) as running:
        bodies: Bodies = (await running.gateway._edges[0].load_full()).handler._bodies
        bodies.bounds = msgspec.structs.replace(bodies.bounds, max_bodies_bytes=100)
        bodies.held = 90
        reply = await running.send(CHUNKED + b"5b\r\n" + b" " * 91 + b"\r\n0\r\n\r\n")
        assert (reply.status, reply.error["code"]) == (503, "gateway_overloaded")
        assert reply.value("retry-after") == "1"
        assert bodies.held == 90
    assert upstream.requests == []


@pytest.mark.both_loops
async def test_a_client_that_waits_is_told_to_go_on(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    body = b'{"model":"gpt-4o","messages":[]}'
    head = HEAD.encode() + b"Connection: close\r\nExpect: 100-Continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with serving(config, tmp_path) as running:
        answer = await running.raw(head, more=body)
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert upstream.last.body == body
    assert upstream.last.value("expect") is None


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ((APP_KEY, "agw-some-other-key-000000"), 401),
        (("100-continue", "tea"), 417),
        (("100\r\n\r\n", "9000000\r\n\r\n"), 413),
    ],
    ids=["key", "expectation", "length"],
)
async def test_a_client_that_waits_is_refused_without_its_body(
    small: Tree, change: tuple[str, str], expected: int, tmp_path: Path
) -> None:
    head = HEAD + "Expect: 100-continue\r\nContent-Length: 100\r\n\r\n"
    async with serving(small, tmp_path) as running:
        reply = await running.send(head.replace(*change).encode())
        assert (reply.status, reply.value("connection"), reply.informational) == (expected, "close", [])


async def test_a_client_that_goes_while_it_is_told_to_go_on_is_no_defect(
    small: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(_: object) -> None:
        raise ClientConnectionResetError("Cannot write to closing transport")  # what aiohttp's writer says then

    monkeypatch.setattr("agw_proxy.edge.body._continue", gone)
    head = HEAD + "Expect: 100-continue\r\nContent-Length: 100\r\n\r\n"
    async with serving(small, tmp_path) as running:
        await running.raw(head.encode())
        line = await running.receipt()
    assert (line["outcome"], line["status"]) == ("caller_gone", 499)


def test_a_body_that_grows_is_held_as_what_it_has_become() -> None:
    lane = SimpleNamespace(held=10)
    bounds = Bounds(max_head_bytes=1, max_body_bytes=100, max_bodies_bytes=100, body_seconds=1.0, json_depth=8)
    bodies = Bodies(bounds, cast("Lane", lane), AsyncMock())
    assert bodies.swap(10, 30) == 30
    assert bodies.swap(30, 5) == 5
    with pytest.raises(Overloaded):
        bodies.swap(5, 101)
    assert lane.held == 5
    bodies.free(5)
    assert lane.held == 0
