"""Sessions of agents: what was said and done there before is known, in every dialect, over restarts and failures."""

import contextlib
import sqlite3
import stat
import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import orjson
import pytest

from tests.sdk.folders import write
from tests.support.client import request
from tests.support.gateway import APP_KEY, Gateway, configuration

OTHER_KEY, MATE_KEY = "agw-bench-other-5a0c7e1b93d24f68", "agw-bench-mate-77e0d2c4b81f4a35"
CLERK = '''\
"""Answers with all that it was given: u(ser), a(ssistant), s(ystem), calls and their results."""

import asyncio
from pathlib import Path

from agents import Agent, ModelSettings, function_tool, handoff
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call


@function_tool
def weather(city: str) -> str:
    return f"rain in {city}"


@function_tool
async def broken(city: str) -> str:
    raise SystemExit(city)


def spelt(item):
    kind = item.get("type")
    if kind == "function_call":
        return f"{item['name']}()"
    if kind == "function_call_output":
        return f"={item['output']}"
    content = item["content"]
    text = content if isinstance(content, str) else " ".join(part.get("text", "?") for part in content)
    return f"{item['role'][0]}:{text}"


async def answer(call):
    items = call.input if isinstance(call.input, list) else [{"role": "user", "content": call.input}]
    last = items[-1]
    words = last.get("content", "") if last.get("role") == "user" else ""
    words = words if isinstance(words, str) else words[0]["text"]
    if words == "wait":
        folder = Path(__file__).parent
        (folder / "in").touch()
        while not (folder / "go").exists():
            await asyncio.sleep(0.02)
        return [assistant_message("ok")]
    if words == "fail":
        raise RuntimeError("not now")
    if words == "both":
        return [function_call(name, {"city": "Oslo"}, call_id=f"{name}_{len(items)}") for name in ("weather", "mail")]
    for name in ("weather", "mail", "transfer_to_expert", "broken"):
        if words.startswith(name):
            arguments = {} if name == "transfer_to_expert" else {"city": "Oslo"}
            return [function_call(name, arguments, call_id=f"call_{len(items)}")]
    if words == "short":
        return [assistant_message("ok")]
    return [assistant_message("[" + "|".join(map(spelt, items)) + "]")]


model = ScriptedModel([ModelStep.respond(answer)] * 2000)
expert = Agent(name="expert", model=model)
agent = Agent(name="Clerk", tools=[weather, broken], handoffs=[expert], model=model)
'''
MODEL = "default/clerk"
MAIL = {
    "name": "mail",
    "description": "Send it.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CHAT_TOOLS: Any = [{"type": "function", "function": MAIL}]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    config = configuration(store={}, cache={})
    config["server"]["drain_seconds"] = 1
    config["keys"] += [
        {"name": "other", "key": OTHER_KEY, "models": ["*"], "team": "crew"},
        {"name": "mate", "key": MATE_KEY, "models": ["*"], "team": "crew"},
    ]
    config["teams"] = [{"name": "crew"}]
    made = Gateway(config)
    write(made.folder / "work" / "agents", {"clerk/agent.py": CLERK, "second/agent.py": CLERK})
    with made:
        yield made


class Talking:
    """A client of one session."""

    def __init__(self, gateway: Gateway, session: str | None, key: str = APP_KEY) -> None:
        self.gateway, self.key = gateway, key
        self.headers = {"x-session-id": session} if session is not None else {}

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.gateway.url}/v1", api_key=self.key, max_retries=0, default_headers=self.headers
        )

    def chat(self, *messages: Any, model: str = MODEL, **more: Any) -> Any:
        given: list[Any] = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
        with self.client() as client:
            return client.chat.completions.create(model=model, messages=given, **more).choices[0].message

    def says(self, *messages: Any, **more: Any) -> str:
        return str(self.chat(*messages, **more).content)

    def responds(self, given: Any, **more: Any) -> Any:
        with self.client() as client:
            return client.responses.create(model=MODEL, input=given, **more)


def test_what_is_new_is_enough(gateway: Gateway) -> None:
    talking = Talking(gateway, "new")
    assert talking.says("one") == "[u:one]"
    assert talking.says("weather") == "[u:one|a:[u:one]|u:weather|weather()|=rain in Oslo]"
    assert talking.says({"role": "system", "content": "now"}, "short") == "ok"
    known = "u:one|a:[u:one]|u:weather|weather()|=rain in Oslo|a:[u:one|a:[u:one]|u:weather|weather()|=rain in Oslo]"
    assert talking.says("x") == f"[{known}|u:short|a:ok|u:x]"


def test_all_that_was_said_is_not_said_twice(gateway: Gateway) -> None:
    talking = Talking(gateway, "all")
    history: list[Any] = []
    for words in ("short", "weather", "short"):
        history.append({"role": "user", "content": words})
        history.append({"role": "assistant", "content": talking.says(*history)})
    assert history[-1]["content"] == "ok"
    done = "u:short|a:ok|u:weather|weather()|=rain in Oslo"
    assert history[3]["content"] == f"[{done}]"
    assert talking.says(*history, "x") == f"[{done}|a:[{done}]|u:short|a:ok|u:x]"
    edited = [*history[:2], {"role": "user", "content": "else"}]
    assert talking.says(*edited) == "[u:short|a:ok|u:else]"
    assert talking.says("x") == "[u:short|a:ok|u:else|a:[u:short|a:ok|u:else]|u:x]"


def test_it_is_one_session_in_every_dialect_and_form(gateway: Gateway) -> None:
    talking = Talking(gateway, "dialects")
    assert talking.responds("short", store=False).output_text == "ok"
    with anthropic.Anthropic(
        base_url=gateway.url, api_key=APP_KEY, max_retries=0, default_headers=talking.headers
    ) as claude:
        asked: Any = [{"role": "user", "content": "short"}]
        with claude.messages.stream(model=MODEL, max_tokens=99, messages=asked) as stream:
            assert stream.get_final_text() == "ok"
    with talking.client() as client:
        chunks = list(
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}], stream=True)
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "[u:short|a:ok|u:short|a:ok|u:x]"
    assert talking.responds("y", store=False).output_text == f"[u:short|a:ok|u:short|a:ok|u:x|a:{text}|u:y]"


def test_the_same_words_again_are_not_answered_from_the_cache(gateway: Gateway) -> None:
    first, second = (Talking(gateway, "again").says("one") for _ in range(2))
    assert (first, second) == ("[u:one]", "[u:one|a:[u:one]|u:one]")


def test_without_a_session_nothing_is_known(gateway: Gateway) -> None:
    for _ in range(2):
        assert Talking(gateway, None).says("one") == "[u:one]"


def test_a_session_is_one_keys_and_one_agents(gateway: Gateway) -> None:
    assert Talking(gateway, "mine", OTHER_KEY).says("short") == "ok"
    for key in (APP_KEY, MATE_KEY):  # not even the other keys of its team
        assert Talking(gateway, "mine", key).says("x") == "[u:x]"
    assert Talking(gateway, "mine", OTHER_KEY).says("x", model="default/second") == "[u:x]"
    assert Talking(gateway, "mine", OTHER_KEY).says("x") == "[u:short|a:ok|u:x]"


def test_a_callers_tool_goes_on_where_it_was_called(gateway: Gateway) -> None:
    talking = Talking(gateway, "tools")
    assert talking.says("weather", tools=CHAT_TOOLS).startswith("[u:weather")
    first = talking.responds("mail", tools=[{"type": "function", "strict": False, **MAIL}], store=False)
    (call,) = first.output
    given = [{"type": "function_call_output", "call_id": call.call_id, "output": "sent"}]
    known = "u:weather|weather()|=rain in Oslo|a:[u:weather|weather()|=rain in Oslo]|u:mail|mail()|=sent"
    assert talking.responds(given, store=False).output_text == f"[{known}]"


def test_a_call_that_is_never_answered_does_not_end_the_session(gateway: Gateway) -> None:
    talking = Talking(gateway, "dangling")
    assert talking.chat("mail", tools=CHAT_TOOLS).tool_calls
    assert talking.says("x") == "[u:mail|mail()|=The caller has not answered this call.|u:x]"


@pytest.mark.parametrize("named", [False, True])
def test_a_callers_tool_goes_on_with_or_without_the_name_of_what_came_before(gateway: Gateway, named: bool) -> None:
    talking = Talking(gateway, None)
    tools = [{"type": "function", "strict": False, **MAIL}]
    first = talking.responds("both", tools=tools)
    (call,) = first.output
    given: list[Any] = [{"type": "function_call_output", "call_id": call.call_id, "output": "sent"}]
    if named:
        second = talking.responds(given, tools=tools, previous_response_id=first.id)
    else:
        second = talking.responds([{"role": "user", "content": "both"}, call.to_dict(), *given], tools=tools)
    assert "weather()" in second.output_text
    assert (second.output_text.count("=rain in Oslo"), second.output_text.count("=sent")) == (1, 1)


def test_after_a_handoff_a_result_goes_to_who_has_asked_for_it(gateway: Gateway) -> None:
    talking = Talking(gateway, "handoff")
    said = talking.says("transfer_to_expert")
    assert said.startswith("[u:transfer_to_expert|transfer_to_expert()|=")
    assert talking.says("short") == "ok"
    assert "transfer_to_expert()" in talking.says("x")


@pytest.mark.parametrize("words", ["fail", "broken", "wait"])
def test_a_run_that_does_not_end_well_leaves_the_session_as_it_was(gateway: Gateway, words: str) -> None:
    talking = Talking(gateway, f"after-{words}")
    assert talking.says("short") == "ok"
    with pytest.raises((openai.InternalServerError, openai.APITimeoutError)):
        talking.chat(words, timeout=0.5 if words == "wait" else 30)
    said = gateway.until(lambda: _tried(talking), "the session stayed taken")
    assert said == "[u:short|a:ok|u:x]"


def _tried(talking: Talking) -> str | None:
    try:
        return talking.says("x")
    except openai.ConflictError:
        return None


def test_one_after_the_other(gateway: Gateway) -> None:
    talking = Talking(gateway, "busy")
    folder = gateway.folder / "work" / "agents" / "clerk"
    (folder / "in").unlink(missing_ok=True)
    heard: list[str] = []
    waiting = threading.Thread(target=lambda: heard.append(talking.says("wait", timeout=120)))
    waiting.start()
    try:
        gateway.until((folder / "in").exists, "the first is not under way")
        with pytest.raises(openai.ConflictError) as caught:
            talking.says("short")
        refused = caught.value
        assert refused.status_code == 409
        assert refused.code == "conversation_locked"
        assert "x-should-retry" not in refused.response.headers
        assert int(refused.response.headers["retry-after-ms"]) == 1000
        assert Talking(gateway, "busy-not").says("short") == "ok"
    finally:
        (folder / "go").touch()
        waiting.join()
        (folder / "go").unlink()
    assert heard == ["ok"]
    assert talking.says("x").endswith("u:wait|a:ok|u:x]")


def test_responses_and_conversations_have_what_was_done_too(gateway: Gateway) -> None:
    talking = Talking(gateway, None)
    first = talking.responds("weather")
    done = "u:weather|weather()|=rain in Oslo"
    assert first.output_text == f"[{done}]"
    second = talking.responds("short", previous_response_id=first.id)
    third = talking.responds("x", previous_response_id=second.id)
    assert third.output_text == f"[{done}|a:[{done}]|u:short|a:ok|u:x]"
    fork = talking.responds("y", previous_response_id=first.id)
    assert fork.output_text == f"[{done}|a:[{done}]|u:y]"
    stranger = Talking(gateway, None, OTHER_KEY)
    with pytest.raises(openai.BadRequestError):
        stranger.responds("x", previous_response_id=first.id)
    with talking.client() as client:
        conversation = client.conversations.create().id
    for words in ("weather", "short"):
        talking.responds(words, conversation=conversation)
    told = talking.responds("x", conversation=conversation).output_text
    assert told == f"[{done}|a:[{done}]|u:short|a:ok|u:x]"
    assert {first.id, conversation} <= threads(gateway)
    with talking.client() as client:
        client.responses.delete(second.id)
        client.conversations.delete(conversation)
    assert not {first.id, conversation} & threads(gateway)


def threads(gateway: Gateway) -> set[str]:
    """The names of all sessions."""
    with contextlib.closing(sqlite3.connect(gateway.folder / "home" / "state" / "agw" / "sessions.db")) as file:
        return {name for (name,) in file.execute("SELECT name FROM agw_session")}


def test_a_session_and_a_response_before_are_one_history(gateway: Gateway) -> None:
    talking = Talking(gateway, "both")
    first = talking.responds("weather")
    done = "u:weather|weather()|=rain in Oslo"
    second = talking.responds("x", previous_response_id=first.id)
    assert second.output_text == f"[{done}|a:[{done}]|u:x]"


def test_its_owner_sees_and_ends_it(gateway: Gateway) -> None:
    talking = Talking(gateway, "to be gone", MATE_KEY)
    assert talking.says("short") == "ok"
    (told,) = orjson.loads(gateway.get("/sessions", key=MATE_KEY).body)["data"][-1:]
    assert (told["id"], told["agent"], told["turns"]) == ("to be gone", MODEL, 1)
    path = "/sessions/to%20be%20gone"
    assert gateway.get(path, key=OTHER_KEY).status == 404
    assert gateway.get(f"{path}?key=mate", key=OTHER_KEY).status == 403
    assert gateway.get(f"{path}?key=mate", key=gateway.admin_key).status == 200
    assert request(gateway.url, "DELETE", path, None, gateway.headers(MATE_KEY)).status == 200
    assert gateway.get(path, key=MATE_KEY).status == 404
    assert talking.says("x") == "[u:x]"


def test_it_outlives_a_reload_and_a_restart(gateway: Gateway) -> None:
    talking = Talking(gateway, "lasting")
    assert talking.says("weather").startswith("[u:weather")
    write(gateway.folder / "work" / "agents", {"clerk/agent.py": CLERK + "\n# changed\n"})
    assert gateway.post("/agents/refresh", key=gateway.admin_key).status == 200
    done = "u:weather|weather()|=rain in Oslo"
    assert talking.says("short") == "ok"
    gateway.stop()
    gateway.start()
    assert talking.says("x") == f"[{done}|a:[{done}]|u:short|a:ok|u:x]"
    file = gateway.folder / "home" / "state" / "agw" / "sessions.db"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
