"""Requests that are wrong, odd or hostile, in each dialect and for each upstream: refused in the caller's form, or sent right."""

import copy
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import orjson
import pytest

from tests.e2e.test_translation import UPSTREAMS, upstreams
from tests.e2e.test_translation_faults import FORMS_OF_CLIENTS, GEMINI, ask, body_of, path_of
from tests.support.behaviours import answer, event, failure, stream
from tests.support.client import Reply
from tests.support.gateway import UPSTREAM_KEY, Gateway, Tree, configuration, provider
from tests.support.providers import SCENES, plays, spoken_at
from tests.support.published import ready
from tests.support.upstream import Upstream

OWN_PRESETS = ("mistral", "groq", "deepseek", "openai")
TOOL: dict[str, Tree] = {
    "chat": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
    "responses": {"tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}]},
    "messages": {"tools": [{"name": "f", "input_schema": {"type": "object"}}]},
    "gemini": {"tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "object"}}]}]},
}
MORE: dict[str, Tree] = {
    "chat": {"temperature": 1, "stop": ["x"], "response_format": {"type": "text"}, "reasoning_effort": "low"},
    "responses": {"temperature": 1, "reasoning": {"effort": "low"}, "text": {"format": {"type": "text"}}},
    "messages": {"temperature": 1, "system": "s", "thinking": {"type": "disabled"}, "stop_sequences": ["x"]},
    "gemini": {"generationConfig": {"temperature": 1}, "systemInstruction": {"parts": [{"text": "s"}]}},
}
WRONG: tuple[object, ...] = (7, True, "x", [], [7], {"x": 1}, None)


@pytest.fixture(scope="module")
def gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    url = shared_upstream.url
    azure = {"dialect": "azure", "speaks": [], "models": ["az-*"], "api_version": "2024-10-21"}
    entries = [
        *upstreams(url),
        provider(url, "old", **{**azure, "base_url": f"{url}/openai"}),
        provider(url, "v1", **{**azure, "base_url": f"{url}/openai/v1", "api_version": None, "models": ["v1-*"]}),
        provider(url, "quiet", dialect="anthropic", models=["quiet-*"], stream_usage=False),
        *[provider(url, f"p-{name}", preset=name, speaks=["chat"], models=[f"{name}-*"]) for name in OWN_PRESETS],
    ]
    ready()
    with Gateway(configuration(*entries, retries={"attempts": 1})) as running:
        yield running


def refused(reply: Reply, client: str) -> str:
    """A 400 in the caller's form; its words."""
    assert reply.status == 400, (reply.status, reply.body)
    error = reply.error
    if client == "messages":
        assert error["type"] == "invalid_request_error"
    elif client == "gemini":
        assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    else:
        assert error["type"] == "invalid_request_error"
    return f"{error['message']} {error.get('param')}"


@pytest.mark.parametrize("client", FORMS_OF_CLIENTS)
def test_wrong_types_are_refused_by_name_and_never_a_defect(gateway: Gateway, upstream: Upstream, client: str) -> None:
    upstream.default = plays(SCENES["text"])
    spoken = "gemini" if client != "gemini" else "chat"
    whole = body_of(client, f"{spoken}-1") | TOOL[client] | MORE[client]
    for name in [name for name in whole if name != "model"]:
        for value in WRONG:
            reply = gateway.post(path_of(client, f"{spoken}-1"), {**whole, name: value})
            assert reply.status in {200, 400}, (name, value, reply.status, reply.body)
            if reply.status == 400:
                assert name.lower() in refused(reply, client).lower(), (name, value, reply.body)
    assert '"event":"defect"' not in gateway.output
    assert "Traceback" not in gateway.output


@pytest.mark.parametrize("client", FORMS_OF_CLIENTS)
def test_what_only_bytes_can_hold_is_refused(gateway: Gateway, upstream: Upstream, client: str) -> None:
    upstream.default = plays(SCENES["text"])
    path = path_of(client, "messages-1" if client != "messages" else "chat-1")
    whole = orjson.dumps(body_of(client, "messages-1" if client != "messages" else "chat-1"))
    odd: dict[str, bytes] = {
        "surrogate": whole.replace(b"Say hello", rb"\ud800 x"),
        "number": whole[:-1] + b',"seed":1e999}',
        "digits": whole[:-1] + b',"seed":' + b"9" * 400 + b"}",
        "deep": whole[:-1] + b',"deep":' + b"[" * 900 + b"]" * 900 + b"}",
        "deeper": whole[:-1] + b',"deep":' + b"[" * 90_000 + b"]" * 90_000 + b"}",
        "deep schema": whole[:-1] + b',"tools":' + b'[{"a":' * 60 + b"1" + b"}]" * 60 + b"}",
        "nan": whole[:-1] + b',"seed":NaN}',
        "bytes": whole.replace(b"Say hello", b"\xff\xfe"),
        "mark": b"\xef\xbb\xbf" + whole,
        "twice": whole[:-1] + b',"model":"x","model":"y"}',
        "nothing": b"",
        "list": b"[]",
        "more": whole + b"{}",
    }
    for kind, body in odd.items():
        reply = gateway.post(path, body)
        assert reply.status in {200, 400}, (kind, reply.status, reply.body)
        if kind not in {"deep", "deep schema", "digits", "number"}:
            refused(reply, client)
    assert "Traceback" not in gateway.output


@pytest.mark.parametrize("spoken", UPSTREAMS)
def test_a_name_of_the_callers_own_breaks_no_header(gateway: Gateway, upstream: Upstream, spoken: str) -> None:
    upstream.default = plays(SCENES["text"])
    if spoken == "responses":
        return
    items = [
        {"role": "user", "content": "hi"},
        *({"type": f"x{n}\r\nset-cookie: a=b, \u00e9" + "y" * 500} for n in range(60)),
    ]
    reply = gateway.post("/v1/responses", {"model": f"{spoken}-1", "input": items})
    assert reply.status == 200, reply.body
    told = reply.value("x-agw-dropped") or ""
    assert "input." in told
    assert len(told) < 4096
    assert told.isascii()
    assert reply.value("set-cookie") is None


HOSTILE = (
    "gemini-../../v1/files",
    "gemini-x?key=1",
    "gemini-a/b",
    "gemini-x#y",
    "gemini-é x",
    "gemini-%2e%2e%2f",
    "gemini-x:countTokens",
)


@pytest.mark.parametrize("model", HOSTILE)
@pytest.mark.parametrize("client", FORMS_OF_CLIENTS)
def test_a_models_name_is_one_segment_of_the_path(
    gateway: Gateway, upstream: Upstream, client: str, model: str
) -> None:
    upstream.default = plays(SCENES["text"])
    path = path_of(client, quote(model, safe=""))
    reply = gateway.post(path, body_of(client, model))
    if reply.status != 200:
        assert client == "gemini"  # its path says it, and some are no proper paths
        assert reply.status in {400, 404}
        assert reply.error["status"]
        assert upstream.requests == []
        return
    target = upstream.last.target
    assert target.startswith("/v1beta/models/")
    assert target.count("/") == 3
    assert "?" not in target
    assert unquote(target.removeprefix("/v1beta/models/")) == f"{model}:generateContent"


def test_azures_paths_are_its_own(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = plays(SCENES["text"])
    version = "?api-version=2024-10-21"
    for client in FORMS_OF_CLIENTS:
        for streamed in (False, True):
            reply = ask(gateway, client, "az-4o/../x" if client != "gemini" else "az-4o", streamed=streamed)
            assert reply.status == 200, (client, reply.body)
            seen = upstream.last
            name = "az-4o%2F..%2Fx" if client != "gemini" else "az-4o"
            expected = "/openai/responses" if client == "responses" else f"/openai/deployments/{name}/chat/completions"
            assert seen.target == expected + version
            assert (seen.value("api-key"), seen.value("authorization")) == (UPSTREAM_KEY, None)
            reply = ask(gateway, client, "v1-4o", streamed=streamed)
            assert reply.status == 200, (client, reply.body)
            expected = "responses" if client == "responses" else "chat/completions"
            assert upstream.last.target == f"/openai/v1/{expected}"
    ask(gateway, "messages", "az-4o")
    assert "max_completion_tokens" in upstream.last.json


def test_presets_leave_out_what_they_refuse(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = plays(SCENES["text"])
    asked: Tree = {
        "reasoning": {"effort": "low"},
        "metadata": {"a": "b"},
        "store": True,
        "max_output_tokens": 9,
        "user": "u",
        "prompt_cache_key": "k",  # as Codex CLI always sends it
    }
    seen: dict[str, Tree] = {}
    told: dict[str, str] = {}
    for name in OWN_PRESETS:
        reply = ask(gateway, "responses", f"{name}-1", streamed=True, **asked)
        assert reply.status == 200, (name, reply.body)
        seen[name], told[name] = upstream.last.json, reply.value("x-agw-dropped") or ""
    assert "stream_options" not in seen["mistral"]
    assert "reasoning_effort" not in seen["mistral"]
    assert "reasoning_effort" in told["mistral"]
    assert "stream_options" not in told["mistral"]
    assert "metadata" in told["mistral"]
    assert seen["groq"]["max_completion_tokens"] == 9
    assert seen["openai"]["max_completion_tokens"] == 9
    assert seen["openai"]["metadata"] == {"a": "b"}
    assert seen["mistral"]["max_tokens"] == 9
    assert not {"metadata", "store"} & set(seen["deepseek"])
    assert [name for name in ("openai", "mistral", "groq") if "prompt_cache_key" in seen[name]] == ["openai", "mistral"]
    assert all(tree["stream_options"] == {"include_usage": True} for name, tree in seen.items() if name != "mistral")


def google(gateway: Gateway, model: str, body: bytes, verb: str = "generateContent", query: str = "") -> Reply:
    return gateway.post(f"{GEMINI}/{model}:{verb}{query}", body)


GOOD = b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}'


@pytest.mark.parametrize("spoken", UPSTREAMS)
def test_a_gemini_body_may_look_odd(gateway: Gateway, upstream: Upstream, spoken: str) -> None:
    upstream.default = plays(SCENES["text"])
    spaced = b' \r\n\t{ \n "contents" : [ {"role":"user","parts":[{"text":"hi"}]} ] } \n'
    configured = b',"generationConfig":{"maxOutputTokens":9,"candidateCount":%d}}' % (2 if spoken == "gemini" else 1)
    for body in (GOOD, spaced, GOOD[:-1] + configured, GOOD[:-1] + b',"labels":{}}'):
        reply = google(gateway, f"{spoken}-1", body)
        assert reply.status == 200, reply.body
        if spoken == "gemini":
            assert upstream.last.body.replace(b" ", b"").split(b"{", 2)[1] == body.replace(b" ", b"").split(b"{", 2)[1]
            assert orjson.loads(upstream.last.body) == orjson.loads(body)
    named = b'{"model":"models/%s-1",' % spoken.encode() + GOOD[1:]
    assert google(gateway, f"{spoken}-1", named).status == 200
    assert spoken != "gemini" or orjson.loads(upstream.last.body) == orjson.loads(GOOD)


@pytest.mark.parametrize("spoken", UPSTREAMS)
def test_members_of_the_front_are_not_the_bodys(gateway: Gateway, upstream: Upstream, spoken: str) -> None:
    """A body that names model, stream or bound once more would be read twice: it is refused by name."""
    upstream.default = plays(SCENES["text"])
    for name, value in (("model", b'"other-1"'), ("stream", b"true"), ("stream", b"false")):
        words = refused(google(gateway, f"{spoken}-1", b'{"%s":%s,' % (name.encode(), value) + GOOD[1:]), "gemini")
        assert name in words
    assert upstream.requests == []
    refused(google(gateway, f"{spoken}-1", b'{"contents":[],' + GOOD[1:]), "gemini")


def test_a_blocked_prompt_is_an_answer(gateway: Gateway, upstream: Upstream) -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 5}}
    upstream.default = stream([event(blocked)])
    reply = google(gateway, "gemini-1", GOOD, "streamGenerateContent", "?alt=sse")
    assert (reply.status, reply.complete, reply.body) == (200, True, event(blocked))
    line = gateway.receipt(reply.request_id)
    assert (line["outcome"], line["finish_reason"], line["prompt_tokens"]) == ("ok", "SAFETY", 5)


def test_when_to_come_again_crosses_from_google_and_to_it(gateway: Gateway, upstream: Upstream) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}
    busy = {"error": {"code": 429, "message": "busy", "status": "RESOURCE_EXHAUSTED", "details": [info]}}
    upstream.default = answer(busy, status=429)
    for client in FORMS_OF_CLIENTS:
        reply = ask(gateway, client, f"gemini-busy-{client}")  # each rests for so long
        assert (reply.status, reply.value("retry-after")) == (429, "7"), client
    upstream.default = failure(503, headers=[("retry-after", "7")])
    told = ask(gateway, "gemini", "chat-busy")
    assert (told.status, told.error["details"]) == (503, [{**info, "retryDelay": "7.000s"}])


def test_googles_verbs_and_paths(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = plays(SCENES["text"])
    assert google(gateway, "chat-1", GOOD, "streamGenerateContent", "?alt=sse").complete
    assert "param" not in google(gateway, "chat-1", GOOD, "streamGenerateContent").error
    for path in ("chat-1", "chat-1:", ":generateContent", "chat-1:embedContent", "chat-1:generatecontent", ""):
        reply = gateway.post(f"{GEMINI}/{path}", GOOD)
        assert reply.status in {404, 405}, (path, reply.body)
        if path:
            assert reply.error["status"] == "NOT_FOUND"
    encoded = gateway.post(f"{GEMINI}/chat%2D1%3AgenerateContent", GOOD)
    assert encoded.status in {200, 404}
    slashed = gateway.post(f"{GEMINI}/chat/chat-1:generateContent", GOOD)
    assert slashed.status == 200, slashed.body
    assert upstream.last.json["model"] == "chat-1"
    stable = gateway.post("/v1/models/gemini%2D1:streamGenerateContent?alt=sse", GOOD)
    assert (stable.complete, spoken_at(upstream.last.path)) == (True, "gemini")
    assert gateway.receipt(stable.request_id)["endpoint"] == "gemini"
    counted = gateway.post("/v1/models/chat-1:countTokens", GOOD)
    assert (counted.status, list(counted.json)) == (200, ["totalTokens"])
    assert gateway.post("/v1/models/chat-1", GOOD).status == 405
    nobody = gateway.post(f"{GEMINI}/chat-1:generateContent", GOOD, key=None)
    assert (nobody.status, nobody.error["status"]) == (401, "UNAUTHENTICATED")
    keyed = gateway.post(f"{GEMINI}/chat-1:generateContent", GOOD, key=None, headers={"x-goog-api-key": gateway.key})
    assert keyed.status == 200
    unknown = google(gateway, "nowhere-1", GOOD)
    assert (unknown.status, unknown.error["status"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("spoken", UPSTREAMS)
def test_the_callers_headers_do_not_confuse_another_provider(gateway: Gateway, upstream: Upstream, spoken: str) -> None:
    upstream.default = plays(SCENES["text"])
    headers = {
        "anthropic-version": "2026-10-21", "anthropic-beta": "x-1", "openai-beta": "y=2", "x-goog-api-client": "z",
        "x-stainless-lang": "python", "cookie": "a=b", "x-custom": "kept",
    }  # fmt: skip
    for client in FORMS_OF_CLIENTS:
        if client == spoken:
            continue
        gateway.post(path_of(client, f"{spoken}-1"), body_of(client, f"{spoken}-1"), headers=headers)
        names = {name.lower() for name, _ in upstream.last.headers}
        assert "x-custom" in names
        assert not names & {"anthropic-beta", "openai-beta", "x-goog-api-client", "x-stainless-lang", "cookie"}
        assert ("anthropic-version" in names) == (spoken == "messages")
        assert spoken_at(upstream.last.path) == spoken


def test_models_are_listed_in_the_askers_form(gateway: Gateway, upstream: Upstream) -> None:
    del upstream
    chat = gateway.get("/v1/models").json
    messages = gateway.get("/v1/models?limit=1000", headers={"anthropic-version": "2023-06-01"}).json
    google_ = gateway.get(GEMINI).json

    def names(tree: dict[str, Any], member: str, name: str) -> list[str]:
        return [str(item[name]).removeprefix("models/") for item in copy.copy(tree[member])]

    assert names(chat, "data", "id") == names(messages, "data", "id") == names(google_, "models", "name")
    assert (
        gateway.get("/v1/models?pageSize=100", headers={"x-goog-api-client": "google-genai-sdk/3.4.0"}).json == google_
    )
    one = names(chat, "data", "id")[0]
    described = gateway.get(f"/v1/models/{one}", headers={"x-goog-api-key": gateway.key}, key=None).json
    assert (described["name"], described) == (f"models/{one}", gateway.get(f"{GEMINI}/{one}").json)
    for path, headers in ((f"{GEMINI}/{one}", {}), (f"/v1/models/{one}", {"anthropic-version": "2023-06-01"})):
        assert gateway.get(path, headers=headers).status == 200
    lost = gateway.get(f"{GEMINI}/nowhere-1")
    assert (lost.status, lost.error["status"]) == (404, "NOT_FOUND")


def test_a_key_in_googles_query_stays_here(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = plays(SCENES["text"])
    for query in (f"?key={gateway.key}", f"?%6bey={gateway.key}&alt=json", f"?alt=json&access_token={gateway.key}"):
        reply = google(gateway, "gemini-1", GOOD, query=query)
        assert reply.status == 200, reply.body
        assert gateway.key not in upstream.last.target
        assert ("alt=json" in upstream.last.target) == ("alt" in query)


def test_a_key_may_come_in_googles_query_alone(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = plays(SCENES["text"])
    key = gateway.key.replace("-", "%2d", 1)
    for path in (f"{GEMINI}/gemini-1:streamGenerateContent?alt=sse&", f"{GEMINI}/chat-1:generateContent?"):
        assert gateway.post(f"{path}key={key}", GOOD, key=None).status == 200
        assert "key" not in upstream.last.target
        wrong = gateway.post(f"{path}key={key}x", GOOD, key=None)
        assert (wrong.status, wrong.error["status"]) == (401, "UNAUTHENTICATED")
        assert gateway.post(f"{path}key={key}&key={key}", GOOD, key=None).status == 400
        assert gateway.post(f"{path}key={key}", GOOD, key="wrong").status == 401  # the header counts
    assert gateway.get(f"{GEMINI}?key={key}", key=None).status == 200
    assert gateway.get(f"/v1/models?key={key}", key=None).status == 401  # it is Google's way alone


def test_usage_is_told_to_nobody_who_did_not_ask(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = plays(SCENES["text"])
    assert b'"usage":{' not in ask(gateway, "chat", "quiet-1", streamed=True).body
    asked = ask(gateway, "chat", "quiet-1", streamed=True, stream_options={"include_usage": True})
    assert b'"usage":{' in asked.body
