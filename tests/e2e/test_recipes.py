"""The recipes of docs/recipes.md, to the letter: each page's YAML serves, and does what its text says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.behaviours import answer, stream
from tests.support.fake_openai import completion, words
from tests.support.gateway import Gateway, chat_body
from tests.support.upstream import Upstream

PAGE = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"
RECIPES = dict(re.findall(r"```yaml\n# (\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL))
KEYS = {name: f"agw-recipe-{name.lower()}-2e9b40c7d815fa63" for name in ("APP", "ADA", "LIN", "WEB", "BATCH", "LAPTOP")}
MESSAGE = {"model": "claude-sonnet-4-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Fix it."}]}


def serving(name: str, upstream: Upstream) -> Gateway:
    """The recipe with its upstreams' hosts replaced by the scripted one; all else as the page has it."""
    tree: dict[str, Any] = yaml.safe_load(RECIPES[name])
    for entry in tree["upstreams"]:
        entry["base_url"] = upstream.url + ("/v1" if entry["base_url"].endswith("/v1") else "")
    tree["server"] = {"port": 0, "drain_seconds": 1}
    tree["prices"] = [{"model": "gpt-*", "input": "2.5", "output": 10, "max_output": 16384}]
    tree["prices"] += [{"model": "claude-*", "input": 3, "output": 15, "max_output": 64000}]
    env = {f"{who}_KEY": key for who, key in KEYS.items()}
    env |= {"OPENAI_API_KEY": "provider-key-1", "ANTHROPIC_API_KEY": "provider-key-2"}
    upstream.reset()
    return Gateway(tree, env=env)


@pytest.fixture
def used(upstream: Upstream) -> Iterator[Upstream]:
    upstream.default = answer({**completion(), "usage": {"prompt_tokens": 1000, "completion_tokens": 500}})
    yield upstream
    upstream.reset()


def test_every_recipe_is_tried_here() -> None:
    assert sorted(RECIPES) == ["agent", "saas", "team", "vllm"]


def test_users_of_an_application_have_a_share_each(used: Upstream) -> None:
    with serving("saas", used) as gateway:
        key = KEYS["APP"]
        assert [gateway.chat(key=key, user="ann", max_tokens=50).status for _ in range(6)] == [200] * 5 + [429]
        refused = gateway.chat(key=key, user="ann", max_tokens=50)
        assert "keys.app/requests-per-user" in str(refused.error["message"])
        assert gateway.chat(key=key, headers={"x-user-id": "bob"}, max_tokens=50).status == 200


def test_a_team_shares_one_purse(used: Upstream) -> None:
    with serving("team", used) as gateway:
        dear = {"prompt_tokens": 8_000_000, "completion_tokens": 6_000_000}  # 80 dollars at the prices above
        used.script(answer({**completion(), "usage": dear}))
        first = gateway.chat(key=KEYS["ADA"], model="gpt-4o", max_tokens=50)
        assert first.status == 200
        gateway.receipts(first.request_id)
        assert gateway.chat(key=KEYS["LIN"], model="gpt-4o", max_tokens=50).status == 429
        reply = gateway.chat(key=KEYS["LIN"], model="gpt-4o-mini", max_tokens=50)
        assert reply.status == 200
        assert gateway.receipts(reply.request_id)[0]["team"] == "research"


def test_what_a_local_server_cannot_take_goes_elsewhere(used: Upstream) -> None:
    with serving("vllm", used) as gateway:
        used.script(*[stream(words()[:2], ending="hang") for _ in range(4)])
        connections = [gateway.connect() for _ in range(4)]
        for connection in connections:
            body = chat_body(model="chat", stream=True)
            connection.send("POST", "/v1/chat/completions", body, gateway.headers(KEYS["WEB"]))
            connection.head()
        fifth = gateway.chat(key=KEYS["WEB"], model="chat")
        assert fifth.status == 200
        assert gateway.receipts(fifth.request_id)[0]["upstream"] == "openai"
        assert gateway.chat(key=KEYS["BATCH"], model="vllm/llama-3.3-70b").status == 200
        for connection in connections:
            connection.close()


def test_a_coding_agents_loop_ends(used: Upstream) -> None:
    with serving("agent", used) as gateway:
        used.default = answer({"type": "message", "usage": {"input_tokens": 4_000_000, "output_tokens": 0}})
        body = {**MESSAGE, "metadata": {"user_id": "user_1_account_2_session_3"}}
        first = gateway.post("/v1/messages", body, key=KEYS["LAPTOP"])
        assert first.status == 200
        gateway.receipts(first.request_id)  # 12 dollars
        second = gateway.post("/v1/messages", body, key=KEYS["LAPTOP"])
        assert second.status == 200
        gateway.receipts(second.request_id)
        third = gateway.post("/v1/messages", body, key=KEYS["LAPTOP"])
        assert third.status == 429
        assert "keys.laptop/session-usd" in str(third.error["message"])
        body["metadata"] = {"user_id": "user_1_account_2_session_4"}
        assert gateway.post("/v1/messages", body, key=KEYS["LAPTOP"]).status == 200
