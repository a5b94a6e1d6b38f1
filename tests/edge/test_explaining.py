"""What would become of a request: the same as does, and nothing has happened afterwards."""

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson
import pytest

from agw_proxy._hot.circuit import BAD, Board
from agw_proxy._hot.limit import CLOSED, LEASED, LOCAL, OPEN, Table, subject
from agw_proxy.config.settings import Settings
from agw_proxy.edge.explaining import explain
from agw_proxy.edge.state import State, compile_state
from agw_proxy.errors import CallerError, InvalidJSON, InvalidParameter
from agw_proxy.types import ExplainWanted

KEY = "agw-explain-0b1c2d3e4f5a69788796a5b4"
CONFIG: dict[str, Any] = {
    "upstreams": [
        {"name": "one", "base_url": "https://api.openai.com/v1", "api_key": "k" * 30, "models": ["gpt-*"], "max_concurrent": 2},
        {"name": "two", "base_url": "http://127.0.0.1:9/v1", "models": ["llama"]},
        {"name": "claude", "dialect": "anthropic", "base_url": "https://api.anthropic.com", "models": ["claude-*"]},
        {"name": "keyed", "base_url": "https://models.example.com/v1", "api_keys": ["a" * 30, "b" * 30], "models": ["many"]},
    ],
    "models": [
        {"name": "fast", "targets": [{"upstream": "one", "model": "gpt-4o-mini", "weight": 3}, "two/llama"], "fallbacks": ["one/gpt-4o"]},
        {"name": "hedged", "targets": ["one/gpt-4o", "two/llama"], "hedge": {"after": "1s"}},
        {"name": "kept", "targets": ["two/llama"], "cache": True, "last_resort": "echo"},
    ],
    "keys": [
        {"name": "app", "key": KEY, "limits": [{"per": "key", "requests": 2, "period": "1h"}, {"per": "user", "tokens": 1000, "period": "1h"}]},
        {"name": "narrow", "key": KEY + "n", "models": ["fast"]},
        {"name": "free", "key": KEY + "f", "fallbacks": True},
    ],
}  # fmt: skip


@pytest.fixture
def state() -> State:
    return compiled()


def compiled(**changes: object) -> State:
    settings = Settings.model_validate({**CONFIG, **changes})
    return compile_state(settings, settings.keys, Table(), Board(), None, lambda _upstream, _key: None)


def told(
    state: State,
    model: str | None = "fast",
    more: Mapping[str, object] = MappingProxyType({}),
    *,
    key: str = "app",
    path: str | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    request = {**({"model": model} if model else {}), "messages": [{"role": "user", "content": "Say hello"}], **more}
    body = orjson.dumps(request)
    return explain(state, state.keys.named(key), ExplainWanted(path, body, headers))


def test_the_route_is_told_with_all_that_decides(state: State) -> None:
    found = told(state, key="free")
    assert found["outcome"] == "ok"
    assert found["route"]["virtual"]
    assert found["route"]["balance"] == "weighted"
    assert [(target["target"], target["weight"], target["circuit"]) for target in found["route"]["targets"]] == [
        ("one/gpt-4o-mini", 3, "closed"),
        ("two/llama", 1, "closed"),
    ]
    assert [target["target"] for target in found["route"]["fallbacks"]] == ["one/gpt-4o"]
    assert sorted(found["plan"][:2]) == ["one/gpt-4o-mini", "two/llama"]
    assert found["plan"][2] == "one/gpt-4o"
    first, second = found["route"]["targets"]
    assert (first["price"]["input"], first["places"]) == (0.15, {"most": 2, "taken": 0, "waiting": 0})
    assert (second["price"]["input"], second["places"]) == (0, None)


def test_a_circuit_that_is_open_is_told_and_gone_round(state: State) -> None:
    circuit = state.routes.targets()["one/gpt-4o"]
    begun, now = 1, time.monotonic_ns()
    while circuit.may(now):
        begun = circuit.begin(now)
        circuit.end(now, BAD, begun)
    found = told(state, "hedged", key="free")
    target = found["route"]["targets"][0]
    assert target["circuit"] == "open"
    assert target["opens_in_ms"] > 0
    assert found["plan"] == ["two/llama"]


def test_rules_are_told_with_what_is_left_and_nothing_is_taken(state: State) -> None:
    for _ in range(3):
        found = told(state, more={"max_tokens": 100})
        rules = {rule["rule"]: rule for rule in found["limits"]}
        assert (rules["keys.app/requests-per-key"]["remaining"], rules["keys.app/requests-per-key"]["asks"]) == (2, 1)
        tokens = rules["keys.app/tokens-per-user"]
        assert (tokens["remaining"], tokens["asks"]) == (1000, found["tokens"]["input"] + 100)
        assert tokens["per"] == ["user"]
        assert found["outcome"] == "ok"


def test_a_rule_that_would_refuse_is_told(state: State) -> None:
    principal = state.keys.named("app")
    model, user = subject(b"model:fast"), subject(b"user:me")
    for _ in range(2):
        assert principal.limits.admit(time.monotonic_ns(), key=principal.subject, user=user, model=model).granted
    found = told(state, more={"user": "me"})
    assert found["outcome"]["status"] == 429
    assert "keys.app/requests-per-key" in found["outcome"]["message"]


def test_tokens_and_money_are_estimated(state: State) -> None:
    found = told(state, "one/gpt-4o", {"max_tokens": 1000}, key="free")
    read, cost = found["tokens"]["input"], found["cost"]
    assert found["tokens"]["output_reserved"] == 1000
    assert 0 < found["tokens"]["output_likely"] <= 1000
    assert cost["reserved_usd"] == pytest.approx(round(read * 2.5 + 1000 * 10) / 1e6, abs=1.5e-6)
    assert 0 < cost["likely_usd"] <= cost["reserved_usd"]
    assert told(state, "two/llama", key="free")["cost"] == {
        "priced": True, "reserved_usd": 0, "likely_usd": 0, "as_of": cost["as_of"],
    }  # fmt: skip
    assert not told(state, "keyed/many", key="free")["cost"]["priced"]


@pytest.mark.parametrize(
    ("model", "members", "headers", "reason"),
    [
        ("two/llama", {}, {}, None),
        ("hedged", {}, {}, "hedge"),
        ("many", {}, {}, "keys"),
        ("agw/echo", {}, {}, "in_process"),
        ("two/llama", {"fallbacks": ["one/gpt-4o"]}, {}, "fallbacks"),
        ("two/llama", {}, {"x-agw-timeout": "3"}, "own_timeouts"),
        ("two/llama", {}, {"idempotency-key": "once"}, "idempotency"),
        ("two/llama", {"padding": "x" * (1 << 20)}, {}, "large_body"),
    ],
)
def test_the_lane_is_told_and_why(
    state: State, model: str, members: dict[str, object], headers: dict[str, str], reason: str | None
) -> None:
    found = told(state, model, members, key="free", headers=headers)
    assert found["lane"] == {"lane": "full" if reason else "fast", "reason": reason}


def test_full_places_send_a_request_to_the_queue(state: State) -> None:
    places = state.services[0].places
    assert places is not None
    assert places.take()
    assert told(state, "one/gpt-4o", key="free")["lane"]["lane"] == "fast"
    assert places.take()
    assert told(state, "one/gpt-4o", key="free")["lane"]["reason"] == "queue"


def test_all_may_go_by_the_full_lane() -> None:
    assert told(compiled(server={"lane": "full"}), "two/llama", key="free")["lane"]["reason"] == "forced"


def test_the_cache_is_told_of() -> None:
    assert not told(compiled(), "kept", key="free")["cache"]["looked_up"]
    state = compiled(cache={"models": ["gpt-*"]})
    assert told(state, "kept", key="free")["cache"]["looked_up"]
    assert told(state, "gpt-4o", key="free")["cache"]["looked_up"]
    assert not told(state, "two/llama", key="free")["cache"]["looked_up"]
    assert not told(state, "gpt-4o", key="free", headers={"cache-control": "max-age=0, no-store"})["cache"]["looked_up"]


@pytest.mark.parametrize(("model", "key", "status"), [("nothing", "app", 404), ("gpt-4o", "narrow", 403)])
def test_a_request_that_would_be_refused_is_explained_too(state: State, model: str, key: str, status: int) -> None:
    found = told(state, model, key=key, path="/v1/chat/completions")
    assert found["outcome"]["status"] == status
    assert "limits" not in found


def test_a_request_in_another_dialect_is_explained_as_translated(state: State) -> None:
    found = told(state, "claude-x", key="free", path="/v1/chat/completions")
    assert found["lane"]["reason"] == "dialect"
    refused = told(state, "claude-x", key="free", path="/v1/embeddings")
    assert refused["outcome"]["status"] == 400


def test_the_endpoint_is_the_one_that_the_model_speaks(state: State) -> None:
    assert told(state, "claude-x", key="free")["endpoint"] == "messages"
    assert told(state, "gpt-4o", key="free")["endpoint"] == "chat_completions"
    assert told(state, "gpt-4o", key="free", path="/v1/embeddings")["endpoint"] == "embeddings"


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/health", b'{"model":"fast"}', CallerError),
        ("/v1/chat/completions", b"{}", CallerError),
        (None, b"[]", InvalidJSON),
        (None, b'{"model":7}', InvalidParameter),
    ],
)
def test_what_is_no_request_is_refused(state: State, path: str | None, body: bytes, error: type[CallerError]) -> None:
    with pytest.raises(error):
        explain(state, state.keys.named("app"), ExplainWanted(path, body))


def test_there_are_only_the_keys_of_the_configuration(state: State) -> None:
    with pytest.raises(CallerError, match="no key 'other'"):
        state.keys.named("other")


def test_only_an_upstreams_own_limit_lets_another_one_serve() -> None:
    upstreams = [dict(one) for one in CONFIG["upstreams"]]
    upstreams[1]["limits"] = [{"requests": 1, "period": "1h"}]
    state = compiled(upstreams=upstreams)
    principal = state.keys.named("free")
    both = {"model": "both", "fallbacks": ["one/gpt-4o"]}
    before = told(state, "two/llama", both | {"model": "two/llama"}, key="free")
    assert before["plan"] == ["two/llama", "one/gpt-4o"]
    grant = principal.limits.admit(time.monotonic_ns(), key=principal.subject, upstream=subject(b"upstream:two"))
    assert grant.granted
    after = told(state, "two/llama", {"fallbacks": ["one/gpt-4o"]}, key="free")
    assert (after["plan"], after["outcome"]) == (["one/gpt-4o", "two/llama"], "ok")
    assert told(state, "two/llama", key="free")["outcome"]["status"] == 429


def test_budgets_and_sessions_are_told_as_what_they_are() -> None:
    keys = [
        {"name": "app", "key": KEY, "budgets": [{"usd": "0.0001", "period": "day"}], "sessions": {"turns": 1}},
        {"name": "strict", "key": KEY + "s", "budgets": [{"usd": 1, "unpriced": "refuse", "on_end": "finish"}]},
    ]
    state = compiled(keys=keys)
    found = told(state, "one/gpt-4o", {"max_tokens": 1000})
    rules = {rule["kind"]: rule for rule in found["limits"]}
    assert (rules["budget"]["unit"], rules["budget"]["period"], rules["budget"]["passes"]) == (
        "micro_usd",
        "day",
        False,
    )
    assert (rules["session"]["unit"], rules["session"]["remaining"]) == ("requests", 1)
    assert found["outcome"]["code"] == "insufficient_quota"
    assert told(state, "two/llama")["outcome"] == "ok"
    unpriced = told(state, "keyed/many", key="strict")
    assert unpriced["outcome"]["code"] == "model_unpriced"
    assert told(state, "two/llama", {"stream": True}, key="strict")["lane"]["reason"] == "budget"


def test_what_a_target_has_taught_is_used() -> None:
    state = compiled()
    before = told(state, "two/llama", key="free")["tokens"]
    for _ in range(64):
        state.learners.of("two", "llama").learn(100, 300, 7)
    after = told(state, "two/llama", key="free")["tokens"]
    assert after["input"] > before["input"]
    assert after["output_likely"] < before["output_likely"]


@pytest.mark.parametrize(
    ("members", "headers", "looked_up"),
    [
        ({}, {"cache-control": "no-cache"}, False),
        ({}, {"cache-control": "no-store", "x-agw-cache": "only"}, True),
        ({}, {"x-agw-cache": "refresh"}, False),
        ({}, {"idempotency-key": "once"}, False),
        ({"fallbacks": ["two/llama"]}, {}, False),
    ],
)
def test_the_cache_is_asked_as_the_caller_wishes(
    members: dict[str, object], headers: dict[str, str], looked_up: bool
) -> None:
    state = compiled(cache={"models": ["gpt-*"]})
    assert told(state, "gpt-4o", members, key="free", headers=headers)["cache"]["looked_up"] == looked_up


@pytest.mark.parametrize(
    ("header", "value"), [("x-agw-cache", "bypass"), ("x-agw-timeout", "soon"), ("idempotency-key", "x" * 257)]
)
def test_a_header_that_is_not_understood_is_refused(header: str, value: str) -> None:
    found = told(compiled(cache={}), "gpt-4o", key="free", headers={header: value})
    assert found["outcome"]["status"] == 400


def test_a_bucket_of_money_lets_pass_what_it_never_holds_when_it_is_full() -> None:
    limit = {"usd": "0.001", "period": "1d"}
    for algorithm, passes in (("token_bucket", True), ("sliding_window", False)):
        state = compiled(keys=[{"name": "app", "key": KEY, "limits": [{**limit, "algorithm": algorithm}]}])
        found = told(state, "one/gpt-4o", {"max_tokens": 1000})
        assert [(rule["asks"] > 1000, rule["passes"]) for rule in found["limits"]] == [(True, passes)]


def test_counting_tokens_takes_none() -> None:
    state = compiled(keys=[{"name": "app", "key": KEY, "limits": [{"tokens": 5, "period": "1d"}]}])
    assert state.keys.named("app").limits.admit(time.monotonic_ns(), key=1, input_tokens=5).granted
    found = told(state, "gpt-4o", path="/v1/responses/input_tokens")
    assert (found["outcome"], found["limits"][0]["asks"], found["cost"]["likely_usd"]) == ("ok", 0, 0)


@pytest.mark.parametrize(("mode", "passes"), [(LEASED, True), (OPEN, True), (LOCAL, True), (CLOSED, False)])
def test_parts_of_a_shared_limit_may_still_be_fetched(mode: int, passes: bool) -> None:
    keys = [{"name": "app", "key": KEY, "limits": [{"requests": 5, "period": "1d"}], "budgets": [{"usd": 1}]}]
    state = compiled(keys=keys, redis={"url": "redis://127.0.0.1:1"})
    for group in (0, 1):
        state.keys.named("app").limits.table.set_lease_mode(group, mode)
    found = told(state, "one/gpt-4o", {"max_tokens": 10})
    assert [(rule["shared"], rule["passes"]) for rule in found["limits"]] == [(True, passes)] * 2
    assert (found["outcome"] == "ok") == passes


def test_a_user_that_no_header_names_is_nobody(state: State) -> None:
    odd = "x" * 300
    principal = state.keys.named("app")
    now = time.monotonic_ns()
    assert principal.limits.admit(now, key=9, user=subject(b"user:"), input_tokens=300).granted
    found = told(state, headers={"x-user-id": odd})
    assert {rule["rule"]: rule["remaining"] for rule in found["limits"]}["keys.app/tokens-per-user"] <= 701
