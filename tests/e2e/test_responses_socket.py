"""Responses over a WebSocket: turns through the whole policy, for any upstream, and what happens when something goes wrong."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import orjson
import pytest
from aiohttp import WSMsgType

from agw_proxy.conformance import responses
from tests.e2e.test_translation import UPSTREAMS, upstreams
from tests.support.behaviours import answer, event, failure, gate, silence, stream
from tests.support.gateway import APP_KEY, UPSTREAM_KEY, Gateway, configuration
from tests.support.providers import SCENES, plays
from tests.support.sockets import CLOSED
from tests.support.upstream import Upstream

Tree = dict[str, Any]
NARROW_KEY = "agw-bench-narrow-61c0f2a97d3b48e5"
ONE_KEY = "agw-bench-one-5b19e08d4f7a4c62"
LAST = {"response.completed", "response.incomplete", "response.failed", "error", "response.steer.failed"}
TEXT = "".join(SCENES["text"].text)


@pytest.fixture(scope="module")
def gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    config = configuration(*upstreams(shared_upstream.url), retries={"attempts": 1})
    config["server"] |= {"max_body_mb": 1, "ping_seconds": "20ms"}
    config["timeouts"] = {"connect": "5s", "first_byte": "30s", "between_bytes": "30s", "total": "60s"}
    config["keys"] += [
        {"name": "narrow", "key": NARROW_KEY, "models": ["chat-*"]},
        {"name": "one", "key": ONE_KEY, "models": ["*"], "limits": [{"per": "key", "requests": 1, "period": "1h"}]},
    ]
    with Gateway(config) as running:
        yield running


@pytest.fixture
def upstream(upstream: Upstream) -> Upstream:
    upstream.default = plays(SCENES["text"])
    return upstream


class Talk:
    """A client's side."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def say(self, **members: object) -> None:
        """A ``response.create``."""
        await self.ws.send_json({"type": "response.create", **members})

    async def event(self) -> Tree:
        """The next one."""
        message = await self.ws.receive(timeout=20)
        assert message.type is WSMsgType.TEXT, message
        tree = orjson.loads(message.data)
        assert isinstance(tree, dict)
        return tree

    async def events(self) -> list[Tree]:
        """Those of one turn."""
        found = [await self.event()]
        while found[-1]["type"] not in LAST:
            found.append(await self.event())
        return found

    async def turn(self, **members: object) -> Tree:
        """The last event of one turn."""
        await self.say(**members)
        return (await self.events())[-1]

    async def end(self) -> int | None:
        """The code with which the gateway closes."""
        async with asyncio.timeout(20):
            while (await self.ws.receive()).type not in CLOSED:
                pass
        return self.ws.close_code


@asynccontextmanager
async def talking(gateway: Gateway, key: str | None = APP_KEY, **options: Any) -> AsyncIterator[Talk]:
    headers = gateway.headers(key, options.pop("headers", None))
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(f"{gateway.url}/v1/responses", headers=headers, max_msg_size=0, **options) as ws,
    ):
        yield Talk(ws)


def text_of(last: Tree) -> str:
    """Of a response that is whole."""
    assert last["type"] == "response.completed", last
    return "".join(part["text"] for item in last["response"]["output"] for part in item.get("content", ()))


@pytest.mark.parametrize("spoken", UPSTREAMS)
async def test_turns_go_to_any_upstream_and_are_whole_streams(
    gateway: Gateway, upstream: Upstream, spoken: str
) -> None:
    async with talking(gateway, headers={"x-user-id": "ann", "cookie": "a=b"}) as talk:
        for _ in range(2):
            await talk.say(model=f"{spoken}-1", input="hello", store=False)
            events = await talk.events()
            assert responses.check([(tree["type"], orjson.dumps(tree)) for tree in events]) is None
            assert text_of(events[-1]) == TEXT
    asked = upstream.last
    assert not [value for _, value in asked.headers if APP_KEY in value]
    assert [value for _, value in asked.headers if UPSTREAM_KEY in value]
    names = {name.lower() for name, _ in asked.headers}
    assert not names & {"cookie", "upgrade", "sec-websocket-key", "sec-websocket-version", "x-user-id"}
    gateway.until(lambda: receipts(gateway, "responses_get"), "no receipt of the connection")
    line = receipts(gateway, "responses")[-1]
    assert (line["status"], line["outcome"], line["user"], line["completion_tokens"]) == (200, "ok", "ann", 9)


def receipts(gateway: Gateway, endpoint: str) -> list[Tree]:
    """So far."""
    return [line for line in gateway.logs() if line.get("event") == "request" and line["endpoint"] == endpoint]


async def test_openais_own_sdk_talks_and_reads_errors(gateway: Gateway, upstream: Upstream) -> None:
    client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=APP_KEY)
    async with client.responses.connect() as connection:
        await connection.response.create(model="messages-1", input="hello")
        seen = ""
        async for found in connection:
            if found.type == "response.output_text.delta":
                seen += found.delta
            if found.type == "response.completed":
                break
        assert seen == TEXT
        upstream.script(failure(429, "slow down", code="rate_limit_exceeded"))
        await connection.response.create(model="chat-1", input="hello")
        told = await connection.recv()
        assert told.type == "error"
        assert (told.status, told.error.code) == (429, "rate_limit_exceeded")


@pytest.mark.parametrize("spoken", ["chat", "messages", "gemini"])
async def test_a_turn_brings_only_what_is_new_and_the_upstream_gets_all_of_it(
    gateway: Gateway, upstream: Upstream, spoken: str
) -> None:
    async with talking(gateway) as talk:
        first = await talk.turn(model=f"{spoken}-1", input="first words", store=False)
        known = first["response"]["id"]
        more = [{"type": "message", "role": "user", "content": "second words"}]
        second = await talk.turn(model=f"{spoken}-1", input=more, store=False, previous_response_id=known)
        assert text_of(second) == TEXT
        body = upstream.last.body
        assert body.index(b"first words") < body.index(TEXT.encode()) < body.index(b"second words")
        assert b"previous_response_id" not in body
        stale = await talk.turn(model=f"{spoken}-1", input="x", previous_response_id=known)
        assert (stale["status"], stale["error"]["code"]) == (400, "previous_response_not_found")
        assert (await talk.turn(model=f"{spoken}-1", input="all of it"))["type"] == "response.completed"


async def test_what_an_upstream_stores_is_asked_for_by_its_id_and_else_all_is_sent(
    gateway: Gateway, upstream: Upstream
) -> None:
    async with talking(gateway) as talk:
        known = (await talk.turn(model="responses-1", input="first words"))["response"]["id"]
        await talk.turn(model="responses-1", input="second words", previous_response_id=known)
        assert upstream.last.json["previous_response_id"] == known
        assert b"first words" not in upstream.last.body
        known = (await talk.turn(model="responses-1", input="third words", store=False))["response"]["id"]
        await talk.turn(model="responses-1", input="fourth words", store=False, previous_response_id=known)
        assert "previous_response_id" not in upstream.last.json
        assert b"third words" in upstream.last.body


async def test_a_warm_up_asks_nobody_and_is_known_to_the_next_turn(gateway: Gateway, upstream: Upstream) -> None:
    async with talking(gateway) as talk:
        await talk.say(model="chat-1", input="long words", generate=False, stream_id="a")
        created, whole = await talk.event(), await talk.event()
        assert (created["type"], whole["type"], whole["stream_id"]) == ("response.created", "response.completed", "a")
        assert not upstream.requests
        done = await talk.turn(
            model="chat-1", input="short", previous_response_id=whole["response"]["id"], stream_id="b"
        )
        assert (done["type"], done["stream_id"]) == ("response.completed", "b")
        assert b"long words" in upstream.last.body
        assert {"generate", "stream_id", "type"}.isdisjoint(upstream.last.json)


async def test_one_turn_at_a_time_in_their_order(gateway: Gateway, upstream: Upstream) -> None:
    go, behaviour = gate(plays(SCENES["text"]))
    upstream.script(behaviour)
    async with talking(gateway, autoping=False) as talk:
        for word in ("one", "two", "three", "four"):
            await talk.say(model="chat-1", input=word)
        await talk.ws.ping(b"here?")  # which ``websockets`` cuts a connection for that says nothing for 20 s
        heard = await talk.ws.receive(timeout=20)
        assert (heard.type, bytes(heard.data)) == (WSMsgType.PONG, b"here?")
        go.set()
        for _ in range(4):
            assert (await talk.events())[-1]["type"] == "response.completed"
    said = [orjson.loads(asked.body)["messages"][0]["content"] for asked in upstream.requests]
    assert said == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"model": "nope", "input": "x"}, 404, "model_not_found"),
        ({"input": "x"}, 400, None),
        ({"model": "chat-1", "input": "x", "background": True}, 400, "invalid_value"),
        ({"model": "chat-1", "input": "x", "stream_id": 7}, 400, "invalid_value"),
        ({"model": "chat-1", "input": 7}, 400, None),
    ],
)
async def test_a_turn_that_is_refused_is_an_error_event_and_the_connection_stays(
    gateway: Gateway, upstream: Upstream, members: Tree, status: int, code: str | None
) -> None:
    async with talking(gateway) as talk:
        told = await talk.turn(**members)
        assert (told["type"], told["status"]) == ("error", status), told
        assert told["error"]["message"]
        assert code is None or told["error"]["code"] == code
        assert (await talk.turn(model="chat-1", input="x"))["type"] == "response.completed"


async def test_keys_and_limits_hold_for_each_turn(gateway: Gateway, upstream: Upstream) -> None:
    async with talking(gateway, NARROW_KEY) as talk:
        assert (await talk.turn(model="messages-1", input="x"))["status"] == 403
        assert (await talk.turn(model="chat-1", input="x"))["type"] == "response.completed"
    async with talking(gateway, ONE_KEY) as talk:
        assert (await talk.turn(model="chat-1", input="x"))["type"] == "response.completed"
        told = await talk.turn(model="chat-1", input="x")
        assert (told["status"], told["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(told["headers"]["retry-after"]) > 0
    async with talking(gateway, None, protocols=[f"openai-insecure-api-key.{APP_KEY}"]) as talk:
        assert (await talk.turn(model="chat-1", input="x"))["type"] == "response.completed"
    for key, status in ((None, 401), ("agw-unknown-key", 401)):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with talking(gateway, key):
                pass
        assert refused.value.status == status


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (failure(500, "oops"), 502, "upstream_failed"),
        (stream([event({"type": "response.created", "sequence_number": 0, "response": {"id": "r"}}, "response.created")]),
         502, "upstream_stream_broken"),
        (stream([
            event({"type": "response.created", "sequence_number": 0, "response": {"id": "r"}}, "response.created"),
            event({"type": "error", "code": "server_error", "message": "it broke", "param": None}, "error"),
        ]), 502, "server_error"),
        (answer({"id": "r", "object": "response", "output": []}), 502, "upstream_invalid_response"),
    ],
    ids=["refused", "cut", "told", "no-stream"],
)  # fmt: skip
async def test_an_upstream_that_fails_is_an_error_event_with_a_status_and_no_more(
    gateway: Gateway, upstream: Upstream, behaviour: Any, status: int, code: str
) -> None:
    upstream.script(behaviour)
    async with talking(gateway) as talk:
        await talk.say(model="responses-1", input="x", stream_id="s")
        events = await talk.events()
        assert (events[-1]["status"], events[-1]["error"]["code"], events[-1]["stream_id"]) == (status, code, "s")
        assert all(tree["type"] != "response.completed" for tree in events)
        assert (await talk.turn(model="responses-1", input="x"))["type"] == "response.completed"


async def test_a_client_that_leaves_cancels_its_turn(gateway: Gateway, upstream: Upstream) -> None:
    def left(endpoint: str) -> int:
        return len([line for line in receipts(gateway, endpoint) if line["outcome"] == "caller_gone"])

    before = left("responses"), left("responses_get")
    upstream.script(silence(), silence())
    async with talking(gateway) as talk:
        await talk.say(model="chat-1", input="x")
        asked = (await asyncio.to_thread(upstream.wait, 1))[0]
    await asyncio.to_thread(upstream.wait_gone, asked)
    async with talking(gateway) as talk:
        await talk.say(model="chat-1", input="x")
        asked = (await asyncio.to_thread(upstream.wait, 2))[1]
        transport = talk.ws._response.connection.transport  # type: ignore[union-attr]
        transport.abort()  # type: ignore[union-attr]
        await asyncio.to_thread(upstream.wait_gone, asked)
    gateway.until(lambda: left("responses") >= before[0] + 2, "no receipts of its turns")
    gateway.until(lambda: left("responses_get") >= before[1] + 1, "no receipt of its own")


async def test_what_is_no_event_is_told_and_what_is_too_big_ends_the_connection(
    gateway: Gateway, upstream: Upstream
) -> None:
    async with talking(gateway) as talk:
        for text in ("{", "[]", '{"type": "session.update"}'):
            await talk.ws.send_str(text)
            assert (await talk.event())["status"] == 400
        await talk.ws.send_bytes(b"\x00")
        assert (await talk.event())["status"] == 400
        await talk.ws.send_json({"type": "response.steer", "previous_response_id": "r", "input": "more"})
        told = await talk.event()
        assert (told["type"], told["error"]["code"]) == ("response.steer.failed", "steering_not_supported")
        assert told["steer"] == {"previous_response_id": "r", "input": "more"}
        await talk.say(model="chat-1", input="x" * 1_100_000)
        assert await talk.end() == 1009
    assert not upstream.requests


async def test_a_chain_that_has_grown_too_long_is_not_sent(gateway: Gateway, upstream: Upstream) -> None:
    async with talking(gateway) as talk:
        known = (await talk.turn(model="chat-1", input="x" * 600_000, store=False))["response"]["id"]
        told = await talk.turn(model="chat-1", input="y" * 600_000, store=False, previous_response_id=known)
        assert told["status"] == 413
    assert len(upstream.requests) == 1


async def test_a_client_that_reads_nothing_holds_its_upstream_and_leaves_nothing_behind(
    gateway: Gateway, upstream: Upstream
) -> None:
    delta = event({"type": "response.output_text.delta", "delta": "x" * 10_000}, "response.output_text.delta")
    upstream.script(stream([delta] * 3000))
    before = len(receipts(gateway, "responses_get"))
    async with talking(gateway) as talk:
        await talk.say(model="responses-1", input="x")
        asked = (await asyncio.to_thread(upstream.wait, 1))[0]
        held = -1
        while asked.accepted != held or not held:  # until no more is taken for a while
            held = asked.accepted
            await asyncio.sleep(0.3)
        assert not asked.finished
        transport = talk.ws._response.connection.transport  # type: ignore[union-attr]
        transport.abort()  # type: ignore[union-attr]
        await asyncio.to_thread(upstream.wait_gone, asked)
    gateway.until(lambda: len(receipts(gateway, "responses_get")) > before, "the connection has not ended")


async def test_what_is_nested_too_deeply_is_refused_and_the_connection_stays(
    gateway: Gateway, upstream: Upstream
) -> None:
    async with talking(gateway) as talk:
        for depth in (100, 300, 1000, 5000):
            text = '{"type": "response.create", "model": "chat-1", "input": ' + "[" * depth + "]" * depth + "}"
            await talk.ws.send_str(text)
            told = await talk.event()
            assert (told["status"], told["error"]["code"]) == (400, "invalid_json"), told
        assert (await talk.turn(model="chat-1", input="x"))["type"] == "response.completed"


async def test_a_client_that_just_goes_between_turns_has_got_what_it_asked_for(
    gateway: Gateway, upstream: Upstream
) -> None:
    before = len(receipts(gateway, "responses_get"))
    async with talking(gateway) as talk:
        assert (await talk.turn(model="chat-1", input="x"))["type"] == "response.completed"
        transport = talk.ws._response.connection.transport  # type: ignore[union-attr]
        transport.abort()  # type: ignore[union-attr]
    gateway.until(lambda: len(receipts(gateway, "responses_get")) > before, "no receipt")
    fence = gateway.get("/health", key=None)
    gateway.receipts(fence.request_id)
    assert receipts(gateway, "responses_get")[-1]["outcome"] == "ok"


def test_a_request_without_a_proper_upgrade_is_told_so(gateway: Gateway) -> None:
    reply = gateway.get("/v1/responses", headers={"connection": "Upgrade", "upgrade": "websocket"})
    assert reply.status == 426


async def test_a_drain_ends_idle_connections_at_once_and_running_turns_in_time(shared_upstream: Upstream) -> None:
    shared_upstream.reset()
    go, behaviour = gate(plays(SCENES["text"]))
    shared_upstream.script(behaviour)
    config = configuration(*upstreams(shared_upstream.url))
    config["server"] |= {"drain_seconds": "30s"}
    config["timeouts"] = {"first_byte": "30s"}
    with Gateway(config) as gateway:
        async with talking(gateway) as idle, talking(gateway) as busy:
            await busy.say(model="chat-1", input="x")
            await asyncio.to_thread(shared_upstream.wait, 1)
            gateway.process.send_signal(signal.SIGTERM)
            assert (await idle.event())["error"]["code"] == "gateway_draining"
            assert await idle.end() == 1001
            go.set()
            assert (await busy.events())[-1]["type"] == "response.completed"
            assert await busy.end() == 1001
        assert await asyncio.to_thread(gateway.wait) == 0


async def test_what_an_upstream_stores_is_known_also_where_it_came_with_a_reload(shared_upstream: Upstream) -> None:
    shared_upstream.reset()
    shared_upstream.default = plays(SCENES["text"])
    chat, *others = upstreams(shared_upstream.url)
    config = configuration(chat)
    with Gateway(config) as gateway:
        async with talking(gateway) as talk:
            await talk.turn(model="chat-1", input="x")
            gateway.write({**config, "upstreams": [chat, *others]})
            gateway.process.send_signal(signal.SIGHUP)
            gateway.until(lambda: [line for line in gateway.logs() if line["event"] == "config.reloaded"], "no reload")
            known = (await talk.turn(model="responses-1", input="first words"))["response"]["id"]
            await talk.turn(model="responses-1", input="second words", previous_response_id=known)
    assert shared_upstream.last.json["previous_response_id"] == known
    assert b"first words" not in shared_upstream.last.body


async def test_where_it_is_switched_off_an_upgrade_is_426_at_once(shared_upstream: Upstream) -> None:
    config = configuration(*upstreams(shared_upstream.url))
    config["server"] |= {"responses_websocket": False}
    with Gateway(config) as gateway, pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with talking(gateway):
            pass
    assert refused.value.status == 426
