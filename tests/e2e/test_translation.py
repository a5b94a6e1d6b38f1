"""Every client dialect against every upstream dialect, by the official SDKs, plain and streamed: the same answer comes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai
import orjson
import pytest

from tests.support.behaviours import answer
from tests.support.gateway import Gateway, configuration, provider
from tests.support.providers import SCENES, Scene, plays
from tests.support.upstream import Behaviour, Recorded, Upstream

Tree = dict[str, Any]

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SYSTEM, QUESTION = "Be brief.", "How is the weather in Oslo?"
UPSTREAMS = ("chat", "responses", "messages", "gemini")


@dataclass
class Seen:
    """An answer as a client's SDK has read it."""

    text: str = ""
    calls: list[tuple[str, Tree]] = field(default_factory=list)
    stop: str = ""
    usage: tuple[int, int, int] = (-1, -1, -1)


def upstreams(url: str) -> list[Tree]:
    """One upstream for each dialect, told apart by the model's prefix."""
    entries = []
    for spoken in UPSTREAMS:
        dialect = {"messages": "anthropic", "gemini": "gemini"}.get(spoken, "openai")
        base = f"{url}/v1beta" if spoken == "gemini" else f"{url}/v1"
        more = {"dialect": dialect, "speaks": [spoken], "base_url": base, "models": [f"{spoken}-*"]}
        entries.append(provider(url, spoken, **more))
    return entries


@pytest.fixture(scope="module")
def gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(configuration(*upstreams(shared_upstream.url))) as running:
        yield running


def settings(identity: str) -> Tree:
    """Of an SDK's client."""
    return {"max_retries": 0, "timeout": 10, "default_headers": {"x-request-id": identity} if identity else {}}


def chat(gateway: Gateway, model: str, *, stream: bool, tools: bool, identity: str = "") -> Seen:
    """By the OpenAI SDK's Chat."""
    asked: Tree = {
        "model": model,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}],
        "max_completion_tokens": 200,
    }
    if tools:
        asked["tools"] = [
            {"type": "function", "function": {"name": name, "parameters": SCHEMA}}
            for name in ("get_weather", "get_time")
        ]
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, **settings(identity)) as client:
        if stream:
            whole: Any = None
            try:
                with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
                    whole = events.until_done().get_final_completion()
            except openai.LengthFinishReasonError as error:  # the SDK's word for a cut answer
                whole = error.completion
        else:
            whole = client.chat.completions.create(**asked)
    choice, usage = whole.choices[0], whole.usage
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    calls = [(call.function.name, orjson.loads(call.function.arguments)) for call in choice.message.tool_calls or ()]
    stop = {"tool_calls": "tool"}.get(choice.finish_reason, choice.finish_reason)
    tokens = (usage.prompt_tokens, usage.completion_tokens, cached)
    return Seen(choice.message.content or "", calls, stop, tokens)


def responses(gateway: Gateway, model: str, *, stream: bool, tools: bool, identity: str = "") -> Seen:
    """By the OpenAI SDK's Responses."""
    asked: Tree = {"model": model, "instructions": SYSTEM, "input": QUESTION, "max_output_tokens": 200, "store": False}
    if tools:
        asked["tools"] = [
            {"type": "function", "name": name, "parameters": SCHEMA, "strict": False}
            for name in ("get_weather", "get_time")
        ]
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, **settings(identity)) as client:
        if stream:
            whole: Any = None
            with client.responses.stream(**asked) as events:
                for event in events:
                    if event.type in {"response.completed", "response.incomplete"}:
                        whole = event.response
        else:
            whole = client.responses.create(**asked)
    calls = [
        (item.name, orjson.loads(item.arguments)) for item in whole.output if item.type == "function_call"
    ]  # fmt: skip
    stop = "tool" if calls else {"completed": "stop", "incomplete": "length"}[whole.status]
    usage = whole.usage
    return Seen(
        whole.output_text, calls, stop,
        (usage.input_tokens, usage.output_tokens, usage.input_tokens_details.cached_tokens),
    )  # fmt: skip


def messages(gateway: Gateway, model: str, *, stream: bool, tools: bool, identity: str = "") -> Seen:
    """By the Anthropic SDK."""
    asked: Tree = {
        "model": model,
        "system": SYSTEM,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 200,
    }
    if tools:
        asked["tools"] = [{"name": name, "input_schema": SCHEMA} for name in ("get_weather", "get_time")]
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, **settings(identity)) as client:
        if stream:
            with client.messages.stream(**asked) as events:
                whole: Any = events.get_final_message()
        else:
            whole = client.messages.create(**asked)
    usage = whole.usage
    cached = usage.cache_read_input_tokens or 0
    return Seen(
        "".join(block.text for block in whole.content if block.type == "text"),
        [(block.name, block.input) for block in whole.content if block.type == "tool_use"],
        {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool"}[whole.stop_reason],
        (usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0), usage.output_tokens, cached),
    )


CLIENTS: dict[str, Callable[..., Seen]] = {"chat": chat, "responses": responses, "messages": messages}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("spoken", UPSTREAMS)
@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_gets_what_each_upstream_has_said(
    gateway: Gateway, shared_upstream: Upstream, client: str, spoken: str, scene: str, *, stream: bool
) -> None:
    told: Scene = SCENES[scene]
    shared_upstream.reset()
    shared_upstream.default = plays(told)
    seen = CLIENTS[client](gateway, f"{spoken}-1", stream=stream, tools=bool(told.calls))
    assert seen.text == "".join(told.text)
    assert seen.calls == list(told.calls)
    assert seen.stop == told.stop
    assert seen.usage == (told.prompt, told.output, told.cached)
    asked = shared_upstream.requests[-1]
    assert QUESTION.encode() in asked.body
    assert SYSTEM.encode() in asked.body
    assert b"200" in asked.body
    assert credential(asked, spoken)


def credential(request: Recorded, spoken: str) -> bool:
    """The gateway's own key is where this dialect has it, and the caller's is nowhere."""
    name = {"messages": "x-api-key", "gemini": "x-goog-api-key"}.get(spoken, "authorization")
    told = {key.lower(): value for key, value in request.headers}
    return name in told and not any("agw-" in value for value in told.values())


@pytest.mark.parametrize("spoken", UPSTREAMS)
@pytest.mark.parametrize("client", CLIENTS)
def test_usage_and_end_are_in_the_receipt(
    gateway: Gateway, shared_upstream: Upstream, client: str, spoken: str
) -> None:
    shared_upstream.reset()
    shared_upstream.default = plays(SCENES["text"])
    identity = f"translated-{client}-{spoken}"
    CLIENTS[client](gateway, f"{spoken}-1", stream=True, tools=False, identity=identity)
    receipt = gateway.receipt(identity)
    assert (receipt["prompt_tokens"], receipt["completion_tokens"], receipt["outcome"]) == (21, 9, "ok")
    assert receipt["upstream"] == spoken


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 529])
@pytest.mark.parametrize("spoken", UPSTREAMS)
@pytest.mark.parametrize("client", CLIENTS)
def test_errors_are_the_sdks_own_exceptions(
    gateway: Gateway, shared_upstream: Upstream, client: str, spoken: str, status: int
) -> None:
    shared_upstream.reset()
    shared_upstream.default = refuses(spoken, status)
    expected: type[Exception] = {
        400: (anthropic.BadRequestError if client == "messages" else openai.BadRequestError),
        404: (anthropic.NotFoundError if client == "messages" else openai.NotFoundError),
        429: (anthropic.RateLimitError if client == "messages" else openai.RateLimitError),
    }.get(status, anthropic.APIStatusError if client == "messages" else openai.APIStatusError)
    with pytest.raises(expected) as raised:
        CLIENTS[client](gateway, f"{spoken}-1", stream=False, tools=False)
    if status in {400, 404, 429}:
        assert "told so by the provider" in str(raised.value)
    if status == 529:
        error = raised.value
        assert isinstance(error, openai.APIStatusError | anthropic.APIStatusError)
        assert error.status_code == (529 if client == "messages" else 503)
        assert "retry-after" in error.response.headers


def refuses(spoken: str, status: int) -> Behaviour:
    """An error as this provider words it."""
    words = "told so by the provider"
    body: Tree = {"error": {"message": words, "type": "some_error", "param": None, "code": None}}
    if spoken == "messages":
        body = {"type": "error", "error": {"type": "some_error", "message": words}, "request_id": "r"}
    if spoken == "gemini":
        body = {"error": {"code": status, "message": words, "status": "SOME"}}
    return answer(body, status=status)
