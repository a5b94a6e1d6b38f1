"""What is explained is what happens, by either lane; and explaining changes nothing."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.behaviours import answer, failure
from tests.support.fake_openai import completion
from tests.support.gateway import ADMIN_KEY, APP_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Upstream, unreachable

FEW_KEY = "agw-explain-few-8e1f6d20c9b74a35"
PRICES = [{"model": "gpt-4o-mini", "input": 1, "output": 2}]


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    with unreachable() as nowhere:
        config = configuration(
            provider(shared_upstream.url),
            provider(nowhere, "dead", models=["dead-*"]),
            provider(shared_upstream.url, "google", dialect="gemini", models=["gemini-*"]),
            provider(shared_upstream.url, "busy", models=["busy-*"], max_concurrent=3),
            models=[
                {"name": "safe", "targets": ["dead/dead-1"], "fallbacks": ["fake/gpt-4o-mini"]},
                {
                    "name": "hedged",
                    "targets": ["fake/gpt-4o-mini", "busy/busy-1"],
                    "balance": "first",
                    "hedge": {"after": "9s"},
                },
            ],
            prices=PRICES,
            breaker={"consecutive": 1, "cool_down": "60s"},
        )
        config["keys"].append(
            {"name": "few", "key": FEW_KEY, "limits": [{"per": "key", "requests": 3, "period": "24h"}]}
        )
        with Gateway(config) as running:
            yield running


def told(
    gateway: Gateway, body: Tree, *, key: str = APP_KEY, query: str = "", headers: Tree | None = None
) -> dict[str, Any]:
    reply = gateway.post(f"/explain{query}", {"request": body, "headers": headers or {}}, key=key)
    assert reply.status == 200, reply.body
    tree = reply.json
    assert isinstance(tree, dict)
    return tree


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"stream": True},
        {"model": "hedged"},
        {"model": "busy-2"},
        {"model": "agw/echo"},
        {"model": "fake/gpt-4o"},
        {"model": "nothing"},
        {"max_tokens": 5},
    ],
    ids=str,
)
def test_what_is_told_is_what_happens(gateway: Gateway, upstream: Upstream, members: Tree) -> None:
    body = chat_body(**members)
    before = told(gateway, body)
    assert told(gateway, body) == before
    assert [one.path for one in upstream.requests if one.method == "POST"] == []
    reply = gateway.post("/v1/chat/completions", body)
    receipt = gateway.receipt(reply.value("x-request-id") or "")
    if before["outcome"] == "ok":
        assert reply.status == 200
        assert receipt["target"] == before["plan"][0]
        assert receipt["lane"] == before["lane"]["lane"]
        assert receipt.get("lane_reason") == before["lane"]["reason"]
        assert ("cost" in receipt) == before["cost"]["priced"]
    else:
        error: Any = reply.json["error"]
        assert (reply.status, error["code"]) == (before["outcome"]["status"], before["outcome"]["code"])


@pytest.mark.parametrize(
    ("target", "config"),
    [
        ("gemini-1:generateContent", {"maxOutputTokens": 5}),
        ("gemini-1:generateContent", {"maxOutputTokens": "5"}),
        ("gemini-1:generateContent?a=1&&b=2", {}),
        ("gemini-1;x:generateContent", {}),
        ("gemini-1:countTokens", {}),
    ],
)
def test_what_is_told_of_googles_form_is_what_happens(
    gateway: Gateway, upstream: Upstream, target: str, config: Tree
) -> None:
    upstream.default = answer({"candidates": [], "totalTokens": 3})
    path, body = f"/v1beta/models/{target}", {"contents": [], "generationConfig": config}
    reply = gateway.post("/explain", {"request": body, "path": path})
    told_of: Any = reply.json
    reply = gateway.post(path, body)
    receipt = gateway.receipt(reply.value("x-request-id") or "")
    assert (reply.status, told_of["outcome"]) == (200, "ok")
    assert told_of["lane"] == {"lane": receipt["lane"], "reason": receipt.get("lane_reason")}


def test_the_headers_of_a_request_count(gateway: Gateway) -> None:
    found = told(gateway, chat_body(), headers={"X-Agw-Timeout": "3"})
    assert found["lane"] == {"lane": "full", "reason": "own_timeouts"}


def test_limits_are_told_as_they_stand(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = answer(completion())
    for left in (3, 2, 1):
        rule = told(gateway, chat_body(), key=FEW_KEY)["limits"][0]
        assert (rule["remaining"], rule["passes"]) == (left, True)
        assert gateway.chat(key=FEW_KEY).status == 200
    found = told(gateway, chat_body(), key=ADMIN_KEY, query="?key=few")
    assert (found["key"], found["outcome"]["status"]) == ("few", 429)
    assert gateway.chat(key=FEW_KEY).status == 429


def test_circuits_are_told_as_they_stand(gateway: Gateway) -> None:
    assert told(gateway, chat_body(model="safe"))["plan"] == ["dead/dead-1", "fake/gpt-4o-mini"]
    assert gateway.chat(model="safe").status == 200
    found = told(gateway, chat_body(model="safe"))
    assert found["route"]["targets"][0]["circuit"] == "open"
    assert found["plan"] == ["fake/gpt-4o-mini"]


def test_another_keys_is_for_admins(gateway: Gateway) -> None:
    assert gateway.post("/explain?key=few", chat_body()).status == 403
    assert gateway.post("/explain?key=none", chat_body(), key=ADMIN_KEY).status == 400
    assert gateway.post("/explain", chat_body(), key=None).status == 401


def test_an_upstream_that_fails_is_not_foreseen(gateway: Gateway, upstream: Upstream) -> None:
    """Nobody is asked: only what has happened is known."""
    upstream.script(failure(400))
    assert told(gateway, chat_body())["outcome"] == "ok"
    assert gateway.chat().status == 400
