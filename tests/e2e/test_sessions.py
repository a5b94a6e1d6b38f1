"""Caps on a session: however it is named, or known by how it begins, alike in both lanes."""

from typing import Any

import pytest

from tests.support.behaviours import answer
from tests.support.fake_openai import completion
from tests.support.gateway import Gateway, Tree, configuration, provider
from tests.support.upstream import Upstream

KEY, OTHER = "agw-session-cy-71f0c2d94be8a635", "agw-session-dee-71f0c2d94be8a635"
USED = {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100}
FIRST = [{"role": "system", "content": "You write code."}, {"role": "user", "content": "Fix the bug."}]
LATER = [*FIRST, {"role": "assistant", "content": "Done?"}, {"role": "user", "content": "No."}]


@pytest.fixture(params=["auto", "full"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def start(upstream: Upstream, lane: str, own: Tree | None = None, **sessions: object) -> Gateway:
    claude = provider(upstream.url, "claude", dialect="anthropic", models=["claude-*"])
    config = configuration(
        provider(upstream.url),
        {**claude, "base_url": upstream.url},
        server={"port": 0, "drain_seconds": 1, "body_seconds": 1, "lane": lane},
        sessions=sessions,
        prices=[{"model": "*", "input": 1, "output": 1, "max_output": 100}],
    )
    config["keys"] += [{"name": "cy", "key": KEY} | ({"sessions": own} if own else {}), {"name": "dee", "key": OTHER}]
    upstream.reset()
    upstream.default = answer({**completion(), "usage": USED})
    return Gateway(config)


def chat(gateway: Gateway, key: str = KEY, **members: Any) -> int:
    return gateway.chat(key=key, **members).status


def test_a_session_in_its_header_has_so_many_turns(upstream: Upstream, lane: str) -> None:
    with start(upstream, lane, turns=2) as gateway:
        one, two = {"x-session-id": "one"}, {"x-session-id": "two"}
        assert [chat(gateway, headers=one) for _ in range(2)] == [200, 200]
        reply = gateway.chat(key=KEY, headers=one)
        assert (reply.status, reply.error["code"]) == (429, "session_limit_exceeded")
        assert reply.value("x-should-retry") == "false"
        assert "'global/session-turns' reached: 2 turns a session" in str(reply.error["message"])
        assert chat(gateway, headers=two) == 200
        assert chat(gateway, OTHER, headers=one) == 200, "another key's session of that name is another session"
        receipt = gateway.receipts(reply.request_id)[0]
        assert len(receipt["session"]) == 8
        assert receipt["rule"] == "global/session-turns"


def test_a_session_is_known_by_how_it_begins(upstream: Upstream, lane: str) -> None:
    with start(upstream, lane, turns=2) as gateway:
        assert [chat(gateway, messages=FIRST), chat(gateway, messages=LATER), chat(gateway, messages=LATER)] == [
            200,
            200,
            429,
        ]
        other = [FIRST[0], {"role": "user", "content": "Write a test."}]
        assert chat(gateway, messages=other) == 200
        assert chat(gateway, messages=LATER, headers={"x-session-id": "apart"}) == 200


def test_nothing_is_derived_where_that_is_off(upstream: Upstream, lane: str) -> None:
    with start(upstream, lane, turns=1, derive=False) as gateway:
        assert [chat(gateway, messages=FIRST) for _ in range(3)] == [200, 200, 200]
        assert [chat(gateway, prompt_cache_key="k") for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    ("path", "naming"),
    [
        ("/v1/responses", {"conversation": "conv_1"}),
        ("/v1/responses", {"conversation": {"id": "conv_1"}}),
        ("/v1/responses", {"prompt_cache_key": "thread-1"}),
        ("/v1/messages", {"metadata": {"user_id": "user_a_account_b_session_c"}}),
        ("/v1/messages", {"metadata": {"user_id": '{"device_id": "d", "session_id": "s"}'}}),
    ],
)
def test_tools_name_their_sessions_in_the_body(upstream: Upstream, lane: str, path: str, naming: Tree) -> None:
    model = "claude-x" if path.endswith("messages") else "gpt-4o-mini"
    with start(upstream, lane, turns=1) as gateway:
        turns = [
            gateway.post(path, {"model": model, **naming, "input": text, "max_tokens": 9}, key=KEY).status
            for text in ("one", "two")
        ]
        assert turns == [200, 429]


def test_tokens_and_money_of_a_session_are_what_was_used(upstream: Upstream, lane: str) -> None:
    with start(upstream, lane, tokens=350, usd="0.01") as gateway:
        head = {"x-session-id": "long"}
        for _ in range(3):
            reply = gateway.chat(key=KEY, headers=head, max_tokens=20)
            assert reply.status == 200
            gateway.receipts(reply.request_id)
        late = gateway.chat(key=KEY, headers=head, max_tokens=50)
        assert (late.status, str(late.error["message"]).split("'")[1]) == (429, "global/session-tokens")


def test_a_keys_own_caps_are_in_place_of_everyones(upstream: Upstream, lane: str) -> None:
    with start(upstream, lane, own={"turns": 1}, turns=3) as gateway:
        head = {"x-session-id": "one"}
        assert [chat(gateway, headers=head) for _ in range(2)] == [200, 429]
        assert [chat(gateway, OTHER, headers=head) for _ in range(4)] == [200, 200, 200, 429]


def test_embeddings_are_no_turns_of_a_derived_session(upstream: Upstream, lane: str) -> None:
    with start(upstream, lane, turns=1) as gateway:
        body = {"model": "text-embedding-3-small", "input": "the same text"}
        assert [gateway.post("/v1/embeddings", body, key=KEY).status for _ in range(3)] == [200, 200, 200]
