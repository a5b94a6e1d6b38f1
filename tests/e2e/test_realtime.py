"""Realtime sessions: a WebSocket through the gateway, both ways, and how it ends."""

import asyncio
import contextlib
import signal
import socket
import struct
from collections.abc import Iterator
from typing import Any

import openai
import orjson
import pytest
from aiohttp import WSMsgType

from tests.support.gateway import ADMIN_KEY, APP_KEY, UPSTREAM_KEY, Gateway, configuration, provider
from tests.support.sockets import Provider
from tests.support.talking import ASK, answer, events, session

Tree = dict[str, Any]
NARROW_KEY = "agw-bench-narrow-61c0f2a97d3b48e5"
ONE_KEY = "agw-bench-one-5b19e08d4f7a4c62"
FEW_KEY = "agw-bench-few-0d8e7c1f5a3942b6"
PAID_KEY = "agw-bench-paid-7f2b6d1c904e48a3"
UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def settings(url: str, **sections: object) -> Tree:
    models = ["gpt-realtime*", "refuse-*"]
    azure = {"dialect": "azure", "api_version": "2026-10-01", "models": ["az-*"], "base_url": f"{url}/openai"}
    config = configuration(
        provider(url, models=models, max_concurrent=100),
        provider(f"{url}", "azure", **azure),
        provider(url, "claude", dialect="anthropic", models=["claude-*"]),
        **sections,
    )
    config["models"] = [
        {"name": "voice", "targets": [{"upstream": "fake", "model": "refuse-500"}, {"upstream": "fake", "model": "gpt-realtime"}],
         "balance": "first"},
    ]  # fmt: skip
    config["keys"] += [
        {"name": "narrow", "key": NARROW_KEY, "models": ["gpt-4o"]},
        {"name": "one", "key": ONE_KEY, "models": ["*"], "limits": [{"per": "key", "concurrent": 1}]},
        {"name": "few", "key": FEW_KEY, "models": ["*"], "limits": [{"per": "key", "tokens": 50, "period": "1h"}]},
        {"name": "paid", "key": PAID_KEY, "models": ["*"], "limits": [{"per": "key", "input_tokens": 1000, "period": "1h"}]},
    ]  # fmt: skip
    return config


@pytest.fixture(scope="module")
def shared() -> Iterator[Provider]:
    with Provider("/{any:(v1|openai)}/realtime") as running:
        yield running


@pytest.fixture(scope="module")
def running(shared: Provider) -> Iterator[Gateway]:
    with Gateway(settings(shared.url)) as gateway:
        yield gateway


@pytest.fixture
def upstream(shared: Provider) -> Provider:
    shared.reset()
    return shared


@pytest.fixture
def gateway(running: Gateway, upstream: Provider) -> Gateway:
    return running


def sessions(gateway: Gateway) -> list[Tree]:
    """The Receipts of all sessions so far."""
    return [line for line in gateway.logs() if line.get("event") == "request" and line["endpoint"] == "realtime"]


SEEN = {"count": 0}  # of those Receipts: older ones belong to earlier tests


def last(gateway: Gateway, count: int = 1) -> Tree:
    """The newest session's Receipt, once there are ``count`` new ones."""
    gateway.until(lambda: len(sessions(gateway)) >= SEEN["count"] + count, "no receipt")
    lines = sessions(gateway)
    SEEN["count"] = len(lines)
    return lines[-1]


@pytest.fixture(autouse=True)
def _counted(gateway: Gateway) -> None:
    gateway.receipts(gateway.get("/health", key=None).request_id)
    SEEN["count"] = len(sessions(gateway))


async def test_messages_pass_both_ways_and_the_receipt_has_the_usage(gateway: Gateway, upstream: Provider) -> None:
    async with session(gateway) as ws:
        first, second = await answer(ws), await answer(ws)
        assert [event["type"] for event in first] == [
            "response.created",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.done",
        ]
        assert first == second
        await ws.send_str('{"type": "echo", "text": "\u00e9\u4e16"}')
        assert orjson.loads(await ws.receive_str()) == {"type": "echo", "text": "\u00e9\u4e16"}
        await ws.send_bytes(b"\x00\xff\x01")
        assert await ws.receive_bytes() == b"\x00\xff\x01"
    dialog = upstream.dialog()
    assert dialog.query == {"model": "gpt-realtime"}
    assert dialog.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert not [value for _, value in dialog.headers if APP_KEY in value]
    assert dialog.close == 1000
    line = last(gateway)
    assert (line["status"], line["outcome"], line["model"], line["upstream"]) == (101, "ok", "gpt-realtime", "fake")
    assert (line["prompt_tokens"], line["completion_tokens"], line["cached_tokens"]) == (40, 20, 10)
    assert line["stream"] is True
    assert line["ttft_ms"] > 0
    assert line["bytes_out"] > 100


async def test_a_virtual_model_goes_on_to_its_next_target_in_that_ones_name(
    gateway: Gateway, upstream: Provider
) -> None:
    async with session(gateway, "model=voice&intent=talk") as ws:
        await answer(ws)
    assert [dialog.query for dialog in upstream.dialogs][-1] == {"model": "gpt-realtime", "intent": "talk"}
    line = last(gateway)
    assert line["model"] == "voice"
    assert line["attempts"] == len(upstream.dialogs) > 1


async def test_azures_query_names_the_deployment_and_its_version(gateway: Gateway, upstream: Provider) -> None:
    async with session(gateway, "deployment=azure/az-voice&api-version=1999-01-01") as ws:
        await answer(ws)
    assert upstream.dialog().query == {"api-version": "2026-10-01", "deployment": "az-voice"}
    assert upstream.dialog().header("api-key") == UPSTREAM_KEY
    assert last(gateway)["upstream"] == "azure"


async def test_a_browser_brings_its_key_as_a_subprotocol_which_goes_nowhere(
    gateway: Gateway, upstream: Provider
) -> None:
    offered = [f"openai-insecure-api-key.{APP_KEY}", "openai-organization.org-1", "realtime", "other"]
    async with session(gateway, key=None, protocols=offered) as ws:
        assert ws.protocol == "realtime"
        await answer(ws)
    assert upstream.dialog().header("sec-websocket-protocol") == "realtime, other"
    assert upstream.dialog().header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert last(gateway)["key"] == "app"
    assert APP_KEY not in gateway.output


async def test_a_key_alone_as_subprotocol_is_chosen_by_nobody_and_logged_nowhere(gateway: Gateway) -> None:
    async with session(gateway, key=None, protocols=[f"openai-insecure-api-key.{APP_KEY}"]) as ws:
        assert ws.protocol is None
    assert last(gateway)["key"] == "app"
    assert APP_KEY not in gateway.output


@pytest.mark.parametrize(
    ("query", "key", "status", "code"),
    [
        ("model=gpt-realtime", None, 401, "invalid_api_key"),
        ("model=gpt-realtime", "agw-unknown-key", 401, "invalid_api_key"),
        ("model=gpt-realtime", NARROW_KEY, 403, "model_forbidden"),
        ("intent=transcription", NARROW_KEY, 403, "model_forbidden"),
        ("model=gpt-4o&deployment=gpt-realtime", NARROW_KEY, 400, "invalid_value"),
        ("model=nothing-like-it", APP_KEY, 404, "model_not_found"),
        ("model=claude-1", APP_KEY, 400, "caller_invalid_request"),
        ("model=", APP_KEY, 400, "invalid_value"),
        ("model=refuse-400", APP_KEY, 400, "bad_voice"),
        ("model=refuse-401", APP_KEY, 401, "upstream_authentication_failed"),
        ("model=refuse-429", APP_KEY, 429, "rate_limit_exceeded"),
        ("model=refuse-500", APP_KEY, 502, "upstream_failed"),
        ("model=refuse-200", APP_KEY, 502, "upstream_invalid_response"),
    ],
)
def test_what_fails_before_the_switch_is_a_plain_http_error(
    gateway: Gateway, query: str, key: str | None, status: int, code: str
) -> None:
    reply = gateway.get(f"/v1/realtime?{query}", key=key, headers=UPGRADE)
    assert (reply.status, reply.error["code"]) == (status, code)
    assert UPSTREAM_KEY.encode() not in reply.body
    assert gateway.receipt(reply.request_id)["status"] == status
    if status == 429:
        assert reply.value("retry-after") == "7"


def test_the_echo_model_has_no_sessions(gateway: Gateway) -> None:
    assert 400 <= gateway.get("/v1/realtime?model=agw/echo", headers=UPGRADE).status < 500


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"connection": "", "upgrade": ""}, 426),
        ({"connection": "keep-alive"}, 426),
        ({"sec-websocket-version": "8"}, 426),
        ({"sec-websocket-key": "c2hvcnQ="}, 400),
        ({"content-length": "2"}, 400),
    ],
)
def test_a_handshake_that_is_none_reaches_no_upstream(
    gateway: Gateway, upstream: Provider, changed: dict[str, str], status: int
) -> None:
    reply = gateway.get("/v1/realtime?model=gpt-realtime", headers={**UPGRADE, **changed})
    assert reply.status == status, reply.body
    if status == 426:
        assert reply.value("upgrade") == "websocket"
        assert reply.value("sec-websocket-version") == "13"
    assert upstream.dialogs == []


def test_an_upgrade_anywhere_else_is_426_at_once(gateway: Gateway) -> None:
    for path in ("/v1/models", "/v1/chat/completions/x", "/v1/files"):
        assert gateway.get(path, headers=UPGRADE).status == 426


@pytest.mark.parametrize(("code", "seen"), [(1000, 1000), (4001, 4001), (1001, 1001)])
async def test_the_clients_close_reaches_the_upstream(
    gateway: Gateway, upstream: Provider, code: int, seen: int
) -> None:
    async with session(gateway) as ws:
        await ws.close(code=code, message=b"bye")
        assert ws.close_code == seen
    assert upstream.dialog().close == seen
    assert last(gateway)["outcome"] == "ok"


@pytest.mark.parametrize(("code", "outcome"), [(1000, "ok"), (4321, "ok"), (1011, "upstream_failed")])
async def test_the_upstreams_close_reaches_the_client(gateway: Gateway, code: int, outcome: str) -> None:
    async with session(gateway, autoclose=False) as ws:
        await ws.send_json({"type": "close", "code": code, "reason": f"because of {UPSTREAM_KEY}"})
        message = await ws.receive(timeout=10)
        assert (message.type, message.data) == (WSMsgType.CLOSE, code)
        assert str(message.extra).startswith("because of ")
        assert UPSTREAM_KEY not in str(message.extra)
        await ws.close(code=code)
    assert last(gateway)["outcome"] == outcome


async def test_a_client_that_just_goes_ends_the_upstreams_connection(gateway: Gateway, upstream: Provider) -> None:
    async with session(gateway) as ws:
        await ws.send_json({**ASK, "cut": True})
        for _ in range(3):
            await ws.receive_str()
        transport = ws._response.connection.transport  # type: ignore[union-attr]  # no close is sent
        assert transport is not None
        transport.abort()
        await asyncio.to_thread(upstream.dialog)
    assert upstream.dialog().close == 1001
    line = last(gateway)
    assert line["outcome"] == "caller_gone"
    assert line["completion_tokens"] == 2, "an answer that was cut counts by its pieces"


async def test_an_upstream_that_just_goes_is_an_error_event_and_1011(gateway: Gateway) -> None:
    async with session(gateway) as ws:
        await ws.send_json({"type": "drop"})
        (event,) = await events(ws)
        assert event["type"] == "error"
        assert event["error"]["code"] == "upstream_stream_broken"
        assert event["event_id"]
        assert ws.close_code == 1011
    assert last(gateway)["outcome"] == "upstream_broken"


async def test_a_client_that_goes_unread_is_noticed_too(gateway: Gateway, upstream: Provider) -> None:
    async with session(gateway) as ws:
        await ws.send_json({"type": "stall"})
        dialog = upstream.dialogs[-1]

        async def flood() -> None:
            while True:
                await ws.send_bytes(b"x" * 65536)

        sending = asyncio.create_task(flood())
        await asyncio.sleep(1)  # by then all buffers on the way are full, and the client is not read any more
        sending.cancel()
        transport = ws._response.connection.transport  # type: ignore[union-attr]
        assert transport is not None
        # With a reset: a FIN would wait behind what is unsent, and tell nobody.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await asyncio.sleep(0)
        line = await asyncio.to_thread(last, gateway)
        dialog.resume.set()
    assert line["outcome"] == "caller_gone"


async def test_a_message_that_is_too_large_ends_the_session_from_either_side(
    gateway: Gateway, upstream: Provider
) -> None:
    async with session(gateway) as ws:
        await ws.send_json({"type": "big"})
        (event,) = await events(ws)
        assert event["error"]["code"] == "upstream_stream_broken"
        assert ws.close_code == 1011
    upstream.dialog()  # it is cut off in the middle of its message
    assert last(gateway)["outcome"] == "upstream_broken"
    async with session(gateway) as ws:
        with contextlib.suppress(ConnectionError):  # the gateway leaves in the middle of it
            await ws.send_str("x" * (1 << 24) + "x")
        await events(ws)
    assert last(gateway)["outcome"] == "caller_body_too_large"


async def test_a_slot_is_held_until_the_session_ends(gateway: Gateway) -> None:
    async with session(gateway, key=ONE_KEY):
        reply = await asyncio.to_thread(gateway.get, "/v1/realtime?model=gpt-realtime", key=ONE_KEY, headers=UPGRADE)
        assert reply.status == 429
        text = (await asyncio.to_thread(gateway.get, "/metrics/prometheus", key=ADMIN_KEY)).body.decode()
        assert "agw_active_streams 1.0" in text
    last(gateway, 2)
    async with session(gateway, key=ONE_KEY) as ws:
        await answer(ws)
    last(gateway)
    assert "agw_active_streams 0.0" in gateway.get("/metrics/prometheus", key=ADMIN_KEY).body.decode()


async def test_tokens_count_while_the_session_lives_and_a_limit_ends_it(gateway: Gateway, upstream: Provider) -> None:
    async with session(gateway, key=FEW_KEY) as ws:
        await answer(ws)
        await ws.send_json(ASK)
        found = await events(ws)
        assert [event["type"] for event in found][-2:] == ["response.done", "error"]
        assert found[-1]["error"]["code"] == "rate_limit_exceeded"
        assert ws.close_code == 1008
    assert upstream.dialog().close == 1000
    line = last(gateway)
    assert (line["outcome"], line["prompt_tokens"], line["completion_tokens"]) == ("policy_rate_limited", 40, 20)


async def test_prompts_count_for_limits_on_input_tokens(gateway: Gateway) -> None:
    async with session(gateway, key=PAID_KEY) as ws:
        await answer(ws)
        reply = await asyncio.to_thread(gateway.get, "/v1/realtime?model=refuse-400", key=PAID_KEY, headers=UPGRADE)
        assert reply.value("x-ratelimit-remaining-tokens") == "980"
    last(gateway, 2)


async def test_a_client_that_reads_nothing_stops_the_reading_from_its_upstream(
    gateway: Gateway, upstream: Provider
) -> None:
    size, count = 65536, 1000
    async with session(gateway) as ws:
        transport = ws._response.connection.transport  # type: ignore[union-attr]  # the client stops reading
        assert transport is not None
        await ws.send_json({"type": "flood", "size": size, "count": count})
        transport.pause_reading()
        dialog = upstream.dialogs[-1]
        await asyncio.to_thread(upstream.until, lambda: dialog.taken > 0)
        before = -1
        while dialog.taken != before:
            before = dialog.taken
            await asyncio.sleep(0.3)
        assert dialog.taken < size * count
        transport.resume_reading()
        for _ in range(count):
            assert len(await ws.receive_bytes(timeout=10)) == size
    assert last(gateway)["outcome"] == "ok"


async def test_silence_ends_a_session_after_the_upstreams_total_time(upstream: Provider) -> None:
    config = settings(upstream.url)
    config["timeouts"]["total"] = "1s"
    SEEN["count"] = 0
    with Gateway(config) as gateway:
        async with session(gateway) as ws:
            (event,) = await events(ws)
            assert event["error"]["code"] == "request_timeout"
            assert ws.close_code == 1001
        assert last(gateway)["outcome"] == "caller_timeout"
    assert upstream.dialog().close == 1001


async def test_a_drain_ends_a_live_session_with_1001(upstream: Provider) -> None:
    SEEN["count"] = 0
    with Gateway(settings(upstream.url)) as gateway:
        async with session(gateway) as ws:
            gateway.process.send_signal(signal.SIGTERM)
            await answer(ws)  # it goes on meanwhile
            (event,) = await events(ws)
            assert event["error"]["code"] == "gateway_draining"
            assert ws.close_code == 1001
        assert await asyncio.to_thread(gateway.wait) == 0
        assert last(gateway)["outcome"] == "gateway_draining"
    assert upstream.dialog().close == 1001


async def test_openais_own_sdk_talks_through_the_gateway(gateway: Gateway) -> None:
    client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=APP_KEY)
    seen = []
    async with client.realtime.connect(model="gpt-realtime") as connection:
        await connection.response.create()
        async for event in connection:
            seen.append(event.type)
            if event.type == "response.done":
                assert event.response.usage is not None
                assert event.response.usage.total_tokens == 30
                break
    assert seen[0] == "session.created"
    assert seen[-1] == "response.done"
    assert last(gateway)["outcome"] == "ok"
