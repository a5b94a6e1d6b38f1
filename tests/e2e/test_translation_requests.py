"""What a client asks arrives at every upstream: as its provider publishes requests, and with nothing of it lost in silence."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.e2e.test_translation import UPSTREAMS, upstreams
from tests.support.client import Reply
from tests.support.gateway import Gateway, configuration
from tests.support.providers import SCENES, plays
from tests.support.upstream import Upstream

Tree = dict[str, Any]

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
SYSTEM, QUESTION, RESULT, THEN = "Be brief.", "What is in the picture?", "4 degrees", "And now?"
ARGUMENTS = {"city": "Oslo"}

CHAT: Tree = {
    "messages": [
        {"role": "system", "content": SYSTEM},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": QUESTION},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_a",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": orjson.dumps(ARGUMENTS).decode()},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_a", "content": RESULT},
        {"role": "user", "content": THEN},
    ],
    "tools": [
        {"type": "function", "function": {"name": "get_weather", "description": "By city.", "parameters": SCHEMA}}
    ],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "max_completion_tokens": 300,
    "temperature": 0.5,
    "seed": 7,
}
RESPONSES: Tree = {
    "instructions": SYSTEM,
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": QUESTION},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
            ],
        },
        {
            "type": "function_call",
            "call_id": "call_a",
            "name": "get_weather",
            "arguments": orjson.dumps(ARGUMENTS).decode(),
        },
        {"type": "function_call_output", "call_id": "call_a", "output": RESULT},
        {"role": "user", "content": THEN},
    ],
    "tools": [
        {"type": "function", "name": "get_weather", "description": "By city.", "parameters": SCHEMA, "strict": False}
    ],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "max_output_tokens": 300,
    "temperature": 0.5,
    "store": False,
}
MESSAGES: Tree = {
    "system": SYSTEM,
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": QUESTION},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "call_a", "name": "get_weather", "input": ARGUMENTS}],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_a", "content": RESULT},
                {"type": "text", "text": THEN},
            ],
        },
    ],
    "tools": [{"name": "get_weather", "description": "By city.", "input_schema": SCHEMA}],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "max_tokens": 300,
    "temperature": 0.5,
    "top_k": 5,
}
GEMINI: Tree = {
    "systemInstruction": {"parts": [{"text": SYSTEM}]},
    "contents": [
        {"role": "user", "parts": [{"text": QUESTION}, {"inlineData": {"mimeType": "image/png", "data": PIXEL}}]},
        {"role": "model", "parts": [{"functionCall": {"name": "get_weather", "args": ARGUMENTS}}]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "get_weather", "response": {"result": RESULT}}}, {"text": THEN}],
        },
    ],
    "tools": [
        {"functionDeclarations": [{"name": "get_weather", "description": "By city.", "parametersJsonSchema": SCHEMA}]}
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
    "generationConfig": {"maxOutputTokens": 300, "temperature": 0.5, "topK": 5},
}
ASKED = {"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES, "gemini": GEMINI}
TUNED = {"chat": {"seed"}, "responses": set(), "messages": {"top_k"}, "gemini": {"top_k"}}
"""What is asked for in each that not all targets know."""
KNOWN = {
    "chat": {"seed"},
    "responses": set[str](),
    "messages": {"top_k"},
    "gemini": {"top_k", "seed"},
}


@pytest.fixture(scope="module")
def gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(configuration(*upstreams(shared_upstream.url))) as running:
        yield running


def ask(gateway: Gateway, client: str, model: str, body: Tree, *, stream: bool = False) -> Reply:
    """One request in a client's form."""
    paths = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
    if client == "gemini":
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        path, tree = f"/v1beta/models/{model}:{verb}", body
    else:
        path, tree = paths[client], {"model": model, "stream": stream, **body}
    with gateway.connect() as connection:
        connection.send("POST", path, orjson.dumps(tree), gateway.headers())
        return connection.reply()


@pytest.mark.parametrize("spoken", UPSTREAMS)
@pytest.mark.parametrize("client", ASKED)
def test_a_conversation_arrives_whole(gateway: Gateway, shared_upstream: Upstream, client: str, spoken: str) -> None:
    shared_upstream.reset()
    shared_upstream.default = plays(SCENES["tools"])
    reply = ask(gateway, client, f"{spoken}-1", ASKED[client])
    assert reply.status == 200, reply.body
    sent = shared_upstream.requests[-1].json
    text = orjson.dumps(sent).decode()
    for piece in (SYSTEM, QUESTION, RESULT, THEN, PIXEL, "get_weather", "By city.", "Oslo", "300", "0.5"):
        assert text.count(piece) >= 1, f"{piece} is not in {text}"
    assert text.count(QUESTION) == text.count(THEN) == text.count(RESULT) == 1
    dropped = set((reply.value("x-agw-dropped") or "").split(", ")) - {""}
    if client != spoken:
        assert TUNED[client] - KNOWN[spoken] <= dropped
    else:
        assert not dropped


@pytest.mark.parametrize("spoken", UPSTREAMS)
def test_structured_output_is_asked_for_everywhere(gateway: Gateway, shared_upstream: Upstream, spoken: str) -> None:
    shared_upstream.reset()
    shared_upstream.default = plays(SCENES["text"])
    schema = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
    body = {"messages": [{"role": "user", "content": "Where?"}], "response_format": schema}
    reply = ask(gateway, "chat", f"{spoken}-1", body)
    assert reply.status == 200, reply.body
    assert "city" in orjson.dumps(shared_upstream.requests[-1].json).decode()


@pytest.mark.parametrize("spoken", ["responses", "messages", "gemini"])
def test_what_must_not_be_passed_over_is_refused(gateway: Gateway, shared_upstream: Upstream, spoken: str) -> None:
    shared_upstream.reset()
    reply = ask(gateway, "chat", f"{spoken}-1", {"messages": [{"role": "user", "content": "x"}], "n": 2})
    told: Any = reply.json
    assert (reply.status, told["error"]["param"]) == (400, "n")
    assert not shared_upstream.requests


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("scene", ["text", "tools", "cut"])
@pytest.mark.parametrize("spoken", UPSTREAMS)
def test_a_gemini_client_is_served_by_every_upstream(
    gateway: Gateway, shared_upstream: Upstream, spoken: str, scene: str, *, stream: bool
) -> None:
    shared_upstream.reset()
    shared_upstream.default = plays(SCENES[scene])
    reply = ask(gateway, "gemini", f"{spoken}-1", GEMINI, stream=stream)
    assert (reply.status, reply.complete) == (200, True), reply.body
    chunks = [orjson.loads(line[6:]) for line in reply.body.splitlines() if line.startswith(b"data: ")]
    chunks = chunks if stream else [reply.json]
    parts = [part for chunk in chunks for part in chunk["candidates"][0].get("content", {}).get("parts", ())]
    assert "".join(part.get("text", "") for part in parts) == "".join(SCENES[scene].text)
    called = [(part["functionCall"]["name"], part["functionCall"]["args"]) for part in parts if "functionCall" in part]
    assert called == list(SCENES[scene].calls)
    last = chunks[-1]
    assert last["candidates"][0]["finishReason"] == ("MAX_TOKENS" if scene == "cut" else "STOP")
    assert (last["usageMetadata"]["promptTokenCount"], last["usageMetadata"]["candidatesTokenCount"]) == (21, 9)
    receipt = gateway.receipt(reply.request_id)
    assert (receipt["prompt_tokens"], receipt["completion_tokens"], receipt["endpoint"]) == (21, 9, "gemini")


@pytest.mark.parametrize("spoken", ["chat", "responses", "gemini"])
def test_tokens_are_counted_for_every_upstream(gateway: Gateway, shared_upstream: Upstream, spoken: str) -> None:
    shared_upstream.reset()
    body = {"model": f"{spoken}-1", "messages": [{"role": "user", "content": "How many tokens are these few words?"}]}
    with gateway.connect() as connection:
        connection.send("POST", "/v1/messages/count_tokens", orjson.dumps(body), gateway.headers())
        reply = connection.reply()
    assert reply.status == 200
    assert 8 <= int(str(reply.json["input_tokens"])) <= 25
    assert not shared_upstream.requests


def test_models_come_in_the_askers_form(gateway: Gateway) -> None:
    plain = gateway.get("/v1/models").json
    assert plain["object"] == "list"
    theirs: Any = gateway.get("/v1/models", headers={"anthropic-version": "2023-06-01"}).json
    assert theirs["has_more"] is False
    assert all(model["type"] == "model" for model in theirs["data"])
    google: Any = gateway.get("/v1beta/models").json
    assert all(model["name"].startswith("models/") for model in google["models"])
