"""Google's and Anthropic's models on Vertex AI by the official SDKs, with tokens of a service account of our own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anthropic
import openai
import orjson
import pytest

from tests.e2e.test_egress import BODIES, NEVER, PASSED, assert_page
from tests.e2e.test_translation import CLIENTS
from tests.support import google
from tests.support.behaviours import answer
from tests.support.gateway import ADMIN_KEY, Gateway, configuration
from tests.support.google import TokenEndpoint
from tests.support.providers import SCENES
from tests.support.upstream import Behaviour, Exchange, Upstream

MODELS = {"gemini": "gemini-3-pro", "claude": "claude-sonnet-4-5@20250929"}


@pytest.fixture(scope="module")
def tokens() -> TokenEndpoint:
    return TokenEndpoint()


@pytest.fixture(scope="module")
def shared_gateway(
    shared_upstream: Upstream, tokens: TokenEndpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("google")
    with Upstream(tokens) as endpoint, Upstream(google_refuses()) as refusing:
        for name, url in (("good", endpoint.url), ("bad", refusing.url)):
            (folder / name).write_bytes(tokens.account(f"{url}/token"))
        config = configuration(
            entry(shared_upstream, "gemini", folder / "good", models=["gemini-*"]),
            entry(shared_upstream, "claude", folder / "good", models=["claude-*"], speaks=["messages"]),
            entry(shared_upstream, "bad", folder / "bad", models=["bad-*"]),
            timeouts={"connect": "5s", "first_byte": "20s", "between_bytes": "20s", "total": "60s"},
            retries={"attempts": 1},
        )
        with Gateway(config) as running:
            yield running


def entry(upstream: Upstream, name: str, file: Path, **more: Any) -> dict[str, Any]:
    place = {"project": google.PROJECT, "location": google.LOCATION, "credentials": str(file)}
    return {"name": name, "dialect": "vertex", "base_url": f"{upstream.url}/v1", "google": place, **more}


def google_refuses() -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        body = orjson.dumps({"error": "invalid_grant", "error_description": "quotes a-secret-assertion"})
        await google.send(exchange, 400, body)

    return behave


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("scene", ["text", "tools"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_gets_what_the_model_has_said(
    gateway: Gateway, upstream: Upstream, tokens: TokenEndpoint, client: str, model: str, scene: str, *, stream: bool
) -> None:
    told = SCENES[scene]
    upstream.default = google.plays(told, tokens)
    seen = CLIENTS[client](gateway, MODELS[model], stream=stream, tools=bool(told.calls))
    assert (seen.text, seen.calls, seen.stop) == ("".join(told.text), list(told.calls), told.stop)
    assert seen.usage == (told.prompt, told.output, told.cached)
    assert upstream.last.values("x-goog-api-key") == []
    assert gateway.key not in str(upstream.last.headers)


def test_a_token_is_fetched_once_for_each_upstream(gateway: Gateway, upstream: Upstream, tokens: TokenEndpoint) -> None:
    upstream.default = google.plays(SCENES["text"], tokens)
    for _ in range(3):
        CLIENTS["messages"](gateway, MODELS["claude"], stream=False, tools=False)
    before = list(tokens.issued)
    CLIENTS["messages"](gateway, MODELS["claude"], stream=False, tools=False)
    assert tokens.issued == before


def test_googles_own_form_goes_through_as_it_came(gateway: Gateway, upstream: Upstream, tokens: TokenEndpoint) -> None:
    upstream.default = google.plays(SCENES["text"], tokens)
    body = b'{"contents": [{"role":"user","parts":[{"text":"1e5"}]}]}'
    headers = {"x-goog-api-key": gateway.key, "x-goog-user-project": "somebody-elses", "x-goog-api-client": "genai/1"}
    path = f"/v1beta/models/{MODELS['gemini']}"
    plain = gateway.post(f"{path}:generateContent", body, key=None, headers=headers)
    assert plain.json["usageMetadata"]["totalTokenCount"] == 30  # type: ignore[index]
    assert upstream.last.body == body
    assert upstream.last.value("x-goog-api-client") == "genai/1"
    assert upstream.last.value("x-goog-user-project") is None
    streamed = gateway.post(f"{path}:streamGenerateContent?alt=sse", body, key=None, headers=headers)
    assert streamed.body.count(b"data: ") == len(SCENES["text"].text)
    counted = gateway.post(f"{path}:countTokens", body, key=None, headers=headers)
    assert counted.json == {"totalTokens": 55}


def test_claudes_tokens_are_counted_there(gateway: Gateway, upstream: Upstream, tokens: TokenEndpoint) -> None:
    upstream.default = google.plays(SCENES["text"], tokens)
    flags = {"anthropic-beta": "oauth-2025-04-20,context-1m-2025-08-07"}
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, default_headers=flags) as client:
        counted = client.messages.count_tokens(model=MODELS["claude"], messages=[{"role": "user", "content": "Hi"}])
    assert counted.input_tokens == 66
    assert upstream.last.value("anthropic-beta") == "context-1m-2025-08-07"
    assert upstream.last.value("anthropic-version") is None


@pytest.mark.parametrize("model", MODELS)
def test_errors_are_the_sdks_own_exceptions(gateway: Gateway, upstream: Upstream, model: str) -> None:
    async def limited(exchange: Exchange) -> None:
        await google.send(exchange, 429, b"[" + google.refusal(429, "RESOURCE_EXHAUSTED", "Quota is spent.") + b"]")

    upstream.default = limited
    for client, error in (("messages", anthropic.RateLimitError), ("chat", openai.RateLimitError)):
        with pytest.raises(error, match="Quota is spent"):
            CLIENTS[client](gateway, MODELS[model], stream=True, tools=False)


def test_a_token_that_is_refused_is_the_gateways_matter(gateway: Gateway, upstream: Upstream) -> None:
    async def refused(exchange: Exchange) -> None:
        await google.send(exchange, 401, google.refusal(401, "UNAUTHENTICATED", "not shown"))

    upstream.default = refused
    with pytest.raises(openai.AuthenticationError, match=r"credentials \(401\): check those of google"):
        CLIENTS["chat"](gateway, MODELS["gemini"], stream=False, tools=False)


def test_an_account_that_google_refuses_is_told_without_its_secrets(gateway: Gateway, upstream: Upstream) -> None:
    raised: Any
    with pytest.raises(openai.AuthenticationError) as raised:
        CLIENTS["chat"](gateway, "bad-1", stream=False, tools=False)
    assert "got no access token from Google (RefreshError, invalid_grant)" in str(raised.value)
    assert "a-secret-assertion" not in gateway.output
    assert upstream.requests == []


def test_egress_tells_of_the_token(gateway: Gateway) -> None:
    told = gateway.get("/upstreams/claude/egress", key=ADMIN_KEY).body.decode()
    assert "An access token of the credentials of" in told
    assert "ya29" not in told


@pytest.mark.parametrize("name", MODELS)
def test_egress_tells_what_vertex_is_not_sent(
    gateway: Gateway, upstream: Upstream, tokens: TokenEndpoint, name: str
) -> None:
    fields = [(field, "v") for field in (*NEVER, *PASSED, "anthropic-other") if field.lower() != "idempotency-key"]
    fields += [("content-type", "application/json"), ("Authorization", f"Bearer {gateway.key}")]
    own = {"gemini": "gemini", "claude": "messages"}[name]
    for form, (target, tree) in {"raw": (f"/passthrough/{name}/models", {}), **BODIES}.items():
        upstream.default = answer({}) if form == "raw" else google.plays(SCENES["text"], tokens)
        body = orjson.dumps(tree if form in {"raw", "gemini"} else {"model": MODELS[name], **tree})
        named = target.format(quote(MODELS[name], safe=""))
        assert gateway.post(named, body, key=None, headers=dict(fields)).status == 200
        wrapped = form != "raw"
        assert_page(gateway, upstream.last, name, fields, translated=wrapped and form != own, wrapped=wrapped)
