"""Anthropic's models on Bedrock by the official SDKs: signed, wrapped, and back out of Amazon's frames."""

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import anthropic
import openai
import orjson
import pytest

from tests.e2e.test_egress import BODIES, NEVER, PASSED, assert_page
from tests.e2e.test_translation import CLIENTS
from tests.support import aws, converse
from tests.support.behaviours import answer
from tests.support.gateway import ADMIN_KEY, Gateway, configuration
from tests.support.providers import SCENES
from tests.support.upstream import Exchange, Upstream

Tree = dict[str, Any]
NOVA = "us.amazon.nova-pro-v1:0"


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    common = {"dialect": "bedrock", "base_url": shared_upstream.url}
    config = configuration(
        {
            "name": "bedrock",
            "aws": {"region": aws.REGION},
            "models": ["us.*", "anthropic.*"],
            "max_concurrent": 2,
            **common,
        },
        {"name": "keyed", "aws": {"region": aws.REGION}, "api_key": aws.API_KEY, "models": [], **common},
        {"name": "lost", "aws": {"region": aws.REGION, "profile": "nobody"}, "models": ["lost.anthropic.*"], **common},
        timeouts={"connect": "5s", "first_byte": "20s", "between_bytes": "20s", "total": "60s"},
        retries={"attempts": 1},
    )
    with Gateway(config, env=aws.ENVIRONMENT) as running:
        yield running


def claude(gateway: Gateway, **more: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0, timeout=30, **more)


def ask(client: anthropic.Anthropic, model: str = aws.MODEL) -> Any:
    return client.messages.create(model=model, max_tokens=50, messages=[{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("scene", ["text", "tools", "thinking"])
@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_gets_what_the_model_has_said(
    gateway: Gateway, upstream: Upstream, client: str, scene: str, *, stream: bool
) -> None:
    told = SCENES[scene]
    upstream.default = aws.plays(told, cut=7 if scene == "text" else 0)
    identity = f"bedrock-{client}-{scene}-{stream}"
    seen = CLIENTS[client](gateway, aws.MODEL, stream=stream, tools=bool(told.calls), identity=identity)
    assert (seen.text, seen.calls, seen.stop) == ("".join(told.text), list(told.calls), told.stop)
    assert seen.usage == (told.prompt, told.output, told.cached)
    asked = upstream.last
    assert asked.target.startswith("/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke")
    sent = {name.lower(): value for name, value in asked.headers}
    assert not [name for name in sent if name.startswith(("anthropic-", "x-stainless", "x-api-key"))]
    assert gateway.key not in str(sent)
    if scene == "text" and stream:
        receipt = gateway.receipt(identity)
        assert (receipt["prompt_tokens"], receipt["completion_tokens"]) == (21, 9)
        assert receipt["outcome"] == "ok"
        assert receipt["lane_reason"] == ("deployment" if client == "messages" else "dialect")


def test_a_key_of_bedrocks_is_sent_instead_of_a_signature(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = aws.plays(SCENES["text"])
    with claude(gateway) as client:
        assert ask(client, f"keyed/{aws.MODEL}").content[0].text == "Hello world"
    assert upstream.last.value("authorization") == f"Bearer {aws.API_KEY}"
    assert upstream.last.value("x-amz-date") is None


def test_betas_go_into_the_body_without_those_that_only_anthropic_has(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = aws.plays(SCENES["text"])
    flags = "claude-code-20250219,interleaved-thinking-2025-05-14, context-1m-2025-08-07"
    with claude(gateway, default_headers={"anthropic-beta": flags, "x-amz-date": "20010101T000000Z"}) as client:
        ask(client)
    assert upstream.last.json["anthropic_beta"] == ["interleaved-thinking-2025-05-14", "context-1m-2025-08-07"]


def test_what_is_in_a_body_stays_as_it_is(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = aws.plays(SCENES["text"])
    inner = b'[{"role":"user","content":"1e5 \\u00e9 "}]'
    body = b'{"model":"%s","messages":%s,"max_tokens": 9,"temperature":1.0}' % (aws.MODEL.encode(), inner)
    assert gateway.post("/v1/messages", body).status == 200
    assert inner in upstream.last.body
    assert b'"temperature":1.0' in upstream.last.body


def test_a_long_body_is_signed_whole(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = aws.plays(SCENES["text"])
    with claude(gateway) as client:
        client.messages.create(model=aws.MODEL, max_tokens=9, messages=[{"role": "user", "content": "long " * 80_000}])
    assert len(upstream.last.body) > 400_000


def test_a_client_that_goes_takes_its_stream_along(gateway: Gateway, upstream: Upstream) -> None:
    frames = aws.chunks(SCENES["text"])

    async def goes_on(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\n\r\n")
        for part in frames[:4]:
            await exchange.send(part)
        await asyncio.Event().wait()

    upstream.default = goes_on
    with claude(gateway) as client:
        events = stream_of(client)
        next(iter(events))
        events.close()
    upstream.wait_gone(upstream.last)


def test_tokens_are_counted_by_the_model_behind_a_profile(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = aws.plays(SCENES["text"])
    with claude(gateway) as client:
        counted = client.messages.count_tokens(model=aws.MODEL, messages=[{"role": "user", "content": "Hi"}])
    assert counted.input_tokens == 77
    assert upstream.last.path.startswith("/model/anthropic.claude")


@pytest.mark.parametrize(
    ("name", "status", "expected", "code"),
    [
        ("ThrottlingException", 429, "RateLimitError", 429),
        ("ServiceQuotaExceededException", 400, "RateLimitError", 429),
        ("ValidationException", 400, "BadRequestError", 400),
        ("AccessDeniedException", 403, "PermissionDeniedError", 403),
        ("ResourceNotFoundException", 404, "NotFoundError", 404),
        ("ModelTimeoutException", 408, "APIStatusError", 504),
        ("ModelErrorException", 424, "APIStatusError", 502),
        ("ServiceUnavailableException", 503, "APIStatusError", 503),
        ("ExpiredTokenException", 403, "AuthenticationError", 401),
    ],
)
def test_errors_are_the_sdks_own_exceptions(
    gateway: Gateway, upstream: Upstream, name: str, status: int, expected: str, code: int
) -> None:
    words = f"said of arn:aws:iam::123456789012:user/secret-name and {aws.SESSION_TOKEN if status == 403 else 'it'}"
    upstream.default = aws.fails(name, status, words)
    raised: Any
    with claude(gateway) as client, pytest.raises(getattr(anthropic, expected)) as raised:
        ask(client)
    assert raised.value.status_code == code
    assert "secret-name" not in str(raised.value.body)
    if code in {400, 404, 429}:
        assert f"{name}: said of the gateway's identity" in str(raised.value.body)
    if code == 401:
        assert aws.SESSION_TOKEN not in str(raised.value.body)
    with pytest.raises(getattr(openai, expected)) as raised:
        CLIENTS["chat"](gateway, aws.MODEL, stream=True, tools=False)
    assert raised.value.status_code == code


@pytest.mark.parametrize(
    ("name", "expected"), [("throttlingException", 429), ("internalServerException", 502), ("validationException", 400)]
)
def test_a_stream_that_begins_with_an_exception_has_its_status(
    gateway: Gateway, upstream: Upstream, name: str, expected: int
) -> None:
    upstream.default = streams(aws.exception(name, "Too many requests"))
    raised: Any
    with claude(gateway) as client, pytest.raises(anthropic.APIStatusError) as raised:
        list(stream_of(client))
    assert raised.value.status_code == expected


@pytest.mark.parametrize(
    "broken",
    [
        aws.exception("modelStreamErrorException", "The model failed."),
        aws.chunk(b'{"type":"ping"}')[:-3],
        aws.chunk(b'{"type":"ping"}')[:-1] + b"\x00",
        b"\x00\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00",
        b"",
    ],
    ids=["exception", "cut", "checksum", "prelude", "unfinished"],
)
def test_a_stream_that_breaks_is_no_whole_one(gateway: Gateway, upstream: Upstream, broken: bytes) -> None:
    frames = aws.chunks(SCENES["text"])
    raised: Any
    for client in ("messages", "chat"):
        upstream.default = streams(*frames[:4], broken)
        with pytest.raises((anthropic.APIStatusError, anthropic.APIError, openai.APIError)) as raised:
            CLIENTS[client](gateway, aws.MODEL, stream=True, tools=False)
        assert "Hello" not in str(raised.value)


def test_without_credentials_the_callers_are_told_in_our_words(gateway: Gateway, upstream: Upstream) -> None:
    raised: Any
    with claude(gateway) as client, pytest.raises(anthropic.AuthenticationError) as raised:
        ask(client, "lost/anthropic.claude-haiku-4-5")
    assert "got no AWS credentials (ProfileNotFound)" in str(raised.value.body)
    assert upstream.requests == []


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("scene", ["text", "tools", "cut", "thinking"])
@pytest.mark.parametrize("client", CLIENTS)
def test_other_vendors_models_are_asked_by_converse(
    gateway: Gateway, upstream: Upstream, client: str, scene: str, *, stream: bool
) -> None:
    told = SCENES[scene]
    upstream.default = aws.plays(told)
    identity = f"converse-{client}-{scene}-{stream}"
    seen = CLIENTS[client](gateway, NOVA, stream=stream, tools=bool(told.calls), identity=identity)
    assert (seen.text, seen.calls, seen.stop) == ("".join(told.text), list(told.calls), told.stop)
    assert seen.usage == (told.prompt, told.output, told.cached)
    verb = "converse-stream" if stream else "converse"
    assert upstream.last.target == f"/model/us.amazon.nova-pro-v1%3A0/{verb}"
    if scene == "text" and stream:
        receipt = gateway.receipt(identity)
        assert (receipt["prompt_tokens"], receipt["completion_tokens"], receipt["outcome"]) == (21, 9, "ok")


def test_what_converse_cannot_say_is_told(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = aws.plays(SCENES["text"])
    asked = {"model": NOVA, "max_tokens": 2000, "messages": [{"role": "user", "content": "Hi"}], "top_k": 3}
    reply = gateway.post("/v1/messages", orjson.dumps({**asked, "x\u2028y": 1}))
    assert (reply.status, reply.value("x-agw-dropped")) == (200, "x?y, top_k")
    chat = {"model": NOVA, "messages": asked["messages"], "seed": 1, "reasoning_effort": "high"}
    reply = gateway.post("/v1/chat/completions", orjson.dumps(chat))
    assert (reply.status, reply.value("x-agw-dropped")) == (200, "seed, reasoning")
    picture = {"type": "image", "source": {"type": "url", "url": "https://example.com/x.png"}}
    reply = gateway.post("/v1/messages", orjson.dumps({**asked, "messages": [{"role": "user", "content": [picture]}]}))
    assert reply.status == 400
    assert "within the request only" in str(reply.error["message"])


@pytest.mark.parametrize("last", ["exception", "cut"])
def test_a_broken_converse_stream_is_no_whole_one(gateway: Gateway, upstream: Upstream, last: str) -> None:
    frames = [aws.told(kind, payload) for kind, payload in converse.messages(SCENES["text"])[:4]]
    if last == "exception":
        frames.append(aws.exception("throttlingException", "slow"))
    for client in ("messages", "chat"):
        upstream.default = streams(*frames)
        with pytest.raises((anthropic.APIError, openai.APIError)):
            CLIENTS[client](gateway, NOVA, stream=True, tools=False)


def test_paths_of_other_apis_are_not_there(gateway: Gateway, upstream: Upstream) -> None:
    reply = gateway.get("/v1/files", headers={"x-agw-upstream": "bedrock"})
    assert (reply.status, upstream.requests) == (404, [])
    assert "serves generations" in str(reply.error["message"])


def test_a_raw_request_is_signed_as_it_is(gateway: Gateway, upstream: Upstream) -> None:
    seen: list[str | None] = []

    async def converse(exchange: Exchange) -> None:
        seen.append(aws.signature_fault(exchange.request))
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")

    upstream.default = converse
    path = "/passthrough/bedrock/model/amazon.nova-pro-v1%3A0/converse"
    headers = {"content-type": "application/json"}
    assert gateway.post(path, b'{"messages":[]}', headers=headers).status == 200
    assert upstream.last.target == "/model/amazon.nova-pro-v1%3A0/converse"
    assert seen == [None]


def test_egress_tells_what_signs(gateway: Gateway) -> None:
    told = gateway.get("/upstreams/bedrock/egress", key=ADMIN_KEY).body.decode()
    assert told.count("AWS Signature Version 4") == 3
    assert aws.SECRET_KEY not in told


@pytest.mark.parametrize("name", ["bedrock", "keyed"])
def test_egress_tells_what_bedrock_is_not_sent(gateway: Gateway, upstream: Upstream, name: str) -> None:
    mine = ("x-amz-date", "X-Amzn-Bedrock-Trace", "x-amz-other", "anthropic-other", "x-stainless-other", "x-other")
    fields = [(field, "v") for field in (*NEVER, *PASSED, *mine) if field.lower() != "idempotency-key"]
    fields += [("content-type", "application/json"), ("Authorization", f"Bearer {gateway.key}")]
    headers = dict(fields)
    path = f"/passthrough/{name}/model/{quote(aws.MODEL, safe='')}/invoke"
    for form, (target, tree) in {"raw": (path, {}), **BODIES}.items():
        upstream.default = answer({}) if form == "raw" else aws.plays(SCENES["text"])
        body = orjson.dumps(tree if form in {"raw", "gemini"} else {"model": f"{name}/{aws.MODEL}", **tree})
        named = target.format(quote(f"{name}/{aws.MODEL}", safe=""))
        assert gateway.post(named, body, key=None, headers=headers).status == 200
        wrapped = form != "raw"
        assert_page(gateway, upstream.last, name, fields, translated=wrapped and form != "messages", wrapped=wrapped)


def streams(*frames: bytes) -> Any:
    """A stream of these frames, which ends well as far as HTTP goes."""
    data = b"".join(frames)

    async def behave(exchange: Exchange) -> None:
        kind = "application/vnd.amazon.eventstream"
        await exchange.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n".encode())
        await exchange.send(data)

    return behave


def stream_of(client: anthropic.Anthropic) -> Any:
    return client.messages.create(
        model=aws.MODEL, max_tokens=50, messages=[{"role": "user", "content": "Hi"}], stream=True
    )
