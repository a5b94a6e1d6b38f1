"""Where a request goes when its model's targets fail: chains of the configuration, its own fallbacks, the echo model."""

from collections.abc import Iterator

import pytest

from tests.support.behaviours import failure
from tests.support.gateway import APP_KEY, Gateway, configuration, provider
from tests.support.providers import SCENES, plays
from tests.support.upstream import Upstream

FREE_KEY = "agw-bench-free-b41f7a5c2e9d8063"
NARROW_KEY = "agw-bench-strict-6c9a01f4de7b2358"


@pytest.fixture(scope="module")
def shared_second() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def second(shared_second: Upstream) -> Upstream:
    shared_second.reset()
    return shared_second


@pytest.fixture(scope="module", params=["auto", "full"])
def shared_gateway(
    shared_upstream: Upstream, shared_second: Upstream, request: pytest.FixtureRequest
) -> Iterator[Gateway]:
    config = configuration(
        provider(shared_upstream.url, models=["gpt-*"]),
        provider(shared_second.url, "second", models=["other-*"]),
        {"name": "claude", "dialect": "anthropic", "base_url": shared_second.url, "models": ["claude-*"]},
        models=[
            {"name": "pair", "targets": ["second/other-1", "second/other-2"], "balance": "first"},
            {"name": "chain", "targets": ["fake/gpt-4o"], "fallbacks": ["pair", "second/other-3"]},
            {"name": "safe", "targets": ["fake/gpt-4o"], "last_resort": "echo"},
        ],
        retries={"attempts": 1, "base": "1ms", "max": "5ms"},
        server={"port": 0, "lane": request.param},
    )
    config["keys"] += [
        {"name": "free", "key": FREE_KEY, "fallbacks": True},
        {"name": "strict", "key": NARROW_KEY, "models": ["gpt-4o", "chain"], "fallbacks": True},
    ]
    with Gateway(config) as running:
        yield running


def test_a_virtual_model_in_a_chain_stands_for_its_targets_in_order(
    gateway: Gateway, upstream: Upstream, second: Upstream
) -> None:
    upstream.default = second.default = failure(500)
    reply = gateway.chat(model="chain")
    assert (reply.status, len(upstream.requests)) == (502, 1)
    assert [seen.json["model"] for seen in second.requests] == ["other-1", "other-2", "other-3"]
    trail = [attempt["target"] for attempt in gateway.receipt(reply.request_id)["trail"]]
    assert trail == ["fake/gpt-4o", "second/other-1", "second/other-2", "second/other-3"]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_a_request_may_name_fallbacks_which_never_go_upstream(
    gateway: Gateway, upstream: Upstream, second: Upstream, streamed: bool
) -> None:
    upstream.default = failure(500)
    reply = gateway.chat(model="gpt-4o", stream=streamed, fallbacks=["second/other-9", "pair"], key=FREE_KEY)
    assert reply.status == 200
    assert reply.value("x-agw-attempts") == "fake/gpt-4o=upstream_failed, second/other-9=200"
    for seen in (*upstream.requests, *second.requests):
        assert "fallbacks" not in seen.json
        assert {"model", "messages"} <= set(seen.json)
    receipt = gateway.receipt(reply.request_id)
    assert receipt["lane_reason"] in {"fallbacks", "forced"}
    assert receipt["target"] == "second/other-9"


def test_fallbacks_follow_the_models_own(gateway: Gateway, upstream: Upstream, second: Upstream) -> None:
    upstream.default = second.default = failure(500)
    gateway.chat(model="chain", fallbacks=["second/other-3", "gpt-4o-mini", "pair"], key=FREE_KEY)
    assert [seen.json["model"] for seen in second.requests] == ["other-1", "other-2", "other-3"]
    assert [seen.json["model"] for seen in upstream.requests] == ["gpt-4o", "gpt-4o-mini"]


def test_a_key_needs_leave_to_name_them(gateway: Gateway, upstream: Upstream) -> None:
    reply = gateway.chat(model="gpt-4o", fallbacks=["second/other-1"], key=APP_KEY)
    assert (reply.status, reply.error["param"]) == (403, "fallbacks")
    assert "fallbacks: true" in str(reply.error["message"])
    assert upstream.requests == []


def test_a_fallback_is_bound_by_the_keys_models(gateway: Gateway, upstream: Upstream, second: Upstream) -> None:
    reply = gateway.chat(model="gpt-4o", fallbacks=["second/other-1"], key=NARROW_KEY)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (403, "model_forbidden", "fallbacks")
    assert upstream.requests == second.requests == []


@pytest.mark.parametrize(
    "wrong",
    [[], ["x"] * 9, [1], [""], [None], "gpt-4o", {"a": 1}],
    ids=["none", "nine", "1", "empty", "null", "text", "{}"],
)
def test_anything_but_a_short_list_of_names_is_refused(gateway: Gateway, upstream: Upstream, wrong: object) -> None:
    reply = gateway.chat(model="gpt-4o", fallbacks=wrong, key=FREE_KEY)
    assert (reply.status, reply.error["param"]) == (400, "fallbacks")
    assert upstream.requests == []


def test_a_name_that_leads_nowhere_is_not_found(gateway: Gateway) -> None:
    reply = gateway.chat(model="gpt-4o", fallbacks=["nowhere-1"], key=FREE_KEY)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "model_not_found", "fallbacks")


def test_a_model_of_another_dialect_takes_over_in_the_callers_form(
    gateway: Gateway, upstream: Upstream, second: Upstream
) -> None:
    upstream.default = failure(500)
    second.default = plays(SCENES["text"])
    reply = gateway.chat(model="gpt-4o", fallbacks=["claude-1"], key=FREE_KEY)
    assert (reply.status, reply.json["object"]) == (200, "chat.completion")
    assert second.last.path == "/v1/messages"


def test_null_is_none_and_goes_nowhere(gateway: Gateway, upstream: Upstream) -> None:
    assert gateway.chat(model="gpt-4o", fallbacks=None, key=APP_KEY).status == 200
    assert b"fallbacks" not in upstream.last.body


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_the_echo_model_answers_where_all_fail_and_says_so(
    gateway: Gateway, upstream: Upstream, streamed: bool
) -> None:
    upstream.default = failure(500)
    reply = gateway.chat(model="safe", stream=streamed)
    assert (reply.status, reply.value("x-agw-fallback")) == (200, "echo")
    assert b"Say hello" in reply.body or b"hello" in reply.body
    receipt = gateway.receipt(reply.request_id)
    assert (receipt["target"], receipt["upstream"], receipt["outcome"]) == ("agw/echo", "agw", "ok")
    assert [attempt["outcome"] for attempt in receipt["trail"]] == ["upstream_failed", "200"]


def test_the_echo_model_keeps_out_where_the_target_answers_or_the_request_is_wrong(
    gateway: Gateway, upstream: Upstream
) -> None:
    assert gateway.chat(model="safe").value("x-agw-fallback") is None
    upstream.default = failure(400)
    reply = gateway.chat(model="safe")
    assert (reply.status, reply.value("x-agw-fallback")) == (400, None)


@pytest.mark.parametrize("lane", ["auto", "full"])
def test_a_target_that_needs_the_callers_own_credential_is_passed_over_without_one(
    upstream: Upstream, second: Upstream, lane: str
) -> None:
    own = provider(second.url, "own", models=["own-*"], auth="passthrough", api_key=None)
    config = configuration(
        provider(upstream.url, models=["gpt-4o"]),
        own,
        models=[{"name": "mixed", "targets": ["fake/gpt-4o"], "fallbacks": ["own/own-1"]}],
        retries={"attempts": 1},
    )
    config["server"]["lane"] = lane
    with Gateway(config) as gateway:
        assert gateway.chat(model="mixed").status == 200
        upstream.default = failure(500)
        refused = gateway.chat(model="mixed")
        assert (refused.status, refused.value("x-agw-error")) == (502, "upstream_failed")
        assert second.requests == []
        assert gateway.chat(model="own/own-1").status == 401
        headers = {"x-agw-key": APP_KEY, "Authorization": "Bearer sk-own-credential"}
        assert gateway.chat(model="mixed", key=None, headers=headers).status == 200
        assert second.last.value("authorization") == "Bearer sk-own-credential"


@pytest.mark.parametrize("lane", ["auto", "full"])
def test_targets_of_every_dialect_are_asked_in_turn(upstream: Upstream, second: Upstream, lane: str) -> None:
    config = configuration(
        provider(upstream.url, models=["gpt-4o"]),
        {"name": "claude", "dialect": "anthropic", "base_url": second.url, "models": ["claude-*"]},
        models=[
            {"name": "both", "targets": ["claude/claude-1", "fake/gpt-4o"], "balance": "first"},
            {"name": "chain", "targets": ["fake/gpt-4o"], "fallbacks": ["claude/claude-1"]},
            {"name": "other", "targets": ["claude/claude-1"], "fallbacks": ["claude/claude-2"]},
        ],
        retries={"attempts": 1},
    )
    config["server"]["lane"] = lane
    with Gateway(config) as gateway:
        second.default = plays(SCENES["text"])
        assert [gateway.chat(model=name).status for name in ("both", "other")] == [200, 200]
        assert (upstream.requests, len(second.requests)) == ([], 2)
        second.default = failure(500)
        reply = gateway.chat(model="both")
        assert (reply.status, reply.value("x-agw-attempts")) == (
            200,
            "claude/claude-1=upstream_failed, fake/gpt-4o=200",
        )
        upstream.default = failure(500)
        second.default = plays(SCENES["text"])
        assert gateway.chat(model="chain").status == 200
        embedded = gateway.post("/v1/embeddings", {"model": "other", "input": "x"})
        assert (embedded.status, embedded.error["param"]) == (400, "model")
