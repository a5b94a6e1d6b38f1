"""Responses that the gateway keeps: conversations over every upstream, by the OpenAI SDK, and who may have what of them."""

import signal
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from agw_proxy.policy.affinity import RECALLS, recalls
from tests.e2e.test_translation import upstreams
from tests.support.behaviours import answer, stream
from tests.support.gateway import Gateway, Tree, configuration
from tests.support.providers import TEXT, THINKING, TOOLS, message_frames, plays, response, response_frames
from tests.support.upstream import Upstream

MATE, STRANGER = "agw-bench-mate-6d1f08b3c2e94a57", "agw-bench-stranger-8c20e7f5a91b4d36"
TURN = "/v1/responses"


def config(url: str, **sections: object) -> Tree:
    patient = {"connect": "20s", "first_byte": "20s", "between_bytes": "20s", "total": "40s"}
    made = configuration(*upstreams(url), **{"store": {}, "timeouts": patient, **sections})
    targets = [{"upstream": spoken, "model": f"{spoken}-x"} for spoken in ("messages", "responses")]
    made["models"] = [{"name": "mixed", "targets": targets, "balance": "first"}]
    made["keys"][0]["team"] = "crew"
    made["keys"] += [
        {"name": "mate", "key": MATE, "models": ["*"], "team": "crew"},
        {"name": "stranger", "key": STRANGER, "models": ["messages-*"]},
    ]
    made["teams"] = [{"name": "crew"}]
    made["server"]["json_depth"] = 400
    return made


@pytest.fixture(scope="module")
def running(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(config(shared_upstream.url)) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def played(upstream: Upstream) -> None:
    upstream.default = plays(TEXT)


def turn(gateway: Gateway, *, key: str = "", **members: object) -> Any:
    """One request, and its reply."""
    return gateway.post(TURN, members, key=key or gateway.key)


def client(gateway: Gateway, key: str = "") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key or gateway.key, max_retries=0, timeout=40)


def file_of(gateway: Gateway) -> Path:
    return gateway.folder / "home" / "state" / "agw" / "responses.db"


def words(upstream: Upstream) -> list[str]:
    """All that the last request says, in order."""
    body: Any = upstream.requests[-1].json
    found: list[str] = []

    def read(value: Any) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                if name in {"text", "content", "input"} and isinstance(item, str):
                    found.append(item)
                else:
                    read(item)
        elif isinstance(value, list):
            for item in value:
                read(item)

    read([body.get(name) for name in ("messages", "contents", "input")])
    return found


@pytest.mark.parametrize("spoken", ["chat", "messages", "gemini"])
def test_a_conversation_goes_on_over_an_upstream_that_keeps_nothing(
    running: Gateway, upstream: Upstream, spoken: str
) -> None:
    model = f"{spoken}-x"
    with client(running) as sdk:
        first: Any = sdk.responses.create(model=model, input="one", instructions="Be brief.")
        assert first.store is True
        with sdk.responses.stream(model=model, input="two", previous_response_id=first.id) as events:
            second: Any = next(event.response for event in events if event.type == "response.completed")
        assert (second.store, second.previous_response_id) == (True, first.id)
        third = sdk.responses.create(model=model, input="three", previous_response_id=second.id, user="u")
        assert words(upstream) == ["one", "Hello world", "two", "Hello world", "three"]
        assert b"Be brief." not in upstream.requests[-1].body  # instructions are for one turn
        again = sdk.responses.retrieve(third.id)
        assert again == third
        asked: Any = sdk.responses.input_items.list(third.id, order="asc", limit=2)
        assert [item.content[0].text for item in asked] == ["one", "Hello world", "two", "Hello world", "three"]
        sdk.responses.delete(second.id)
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(second.id)
        with pytest.raises(openai.BadRequestError, match=second.id) as lost:
            sdk.responses.create(model=model, input="four", previous_response_id=third.id)
    assert lost.value.code == "previous_response_not_found"
    assert lost.value.param == "previous_response_id"


async def test_calls_and_their_results_go_on_too_asynchronously(running: Gateway, upstream: Upstream) -> None:
    tools: Any = [
        {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}, "strict": False}
        for name in ("get_weather", "get_time")
    ]
    upstream.default = plays(TOOLS)
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0, timeout=40) as sdk:
        made = await sdk.responses.create(model="messages-x", input="How is it?", tools=tools)
        calls = [item for item in made.output if item.type == "function_call"]
        outputs: Any = [
            {"type": "function_call_output", "call_id": call.call_id, "output": f"of {call.name}"} for call in calls
        ]
        upstream.default = plays(TEXT)
        last = await sdk.responses.create(model="messages-x", input=outputs, tools=tools, previous_response_id=made.id)
        listed = [item async for item in sdk.responses.input_items.list(last.id, order="asc")]
    sent: Any = upstream.requests[-1].json
    assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user"]
    assert [part["type"] for part in sent["messages"][2]["content"]] == ["tool_result", "tool_result"]
    kinds = ["message", "message", "function_call", "function_call", "function_call_output", "function_call_output"]
    assert [item.type for item in listed] == kinds
    assert all(item.id for item in listed)


def test_thoughts_are_given_back_to_who_has_had_them(running: Gateway, upstream: Upstream) -> None:
    upstream.default = plays(THINKING)
    thinks: Any = {"model": "messages-x", "reasoning": {"effort": "low"}}
    made = turn(running, **thinks, input="one").json
    turn(running, **thinks, input="two", previous_response_id=made["id"])
    sent: Any = upstream.requests[-1].json
    assert [part["type"] for part in sent["messages"][1]["content"]] == ["thinking", "text"]
    assert sent["messages"][1]["content"][0]["signature"] == "c2lnbmVk"


def test_a_conversation_may_go_on_at_an_upstream_that_speaks_responses(running: Gateway, upstream: Upstream) -> None:
    upstream.default = plays(THINKING)
    with client(running) as sdk:
        first = sdk.responses.create(model="messages-x", input="one", reasoning={"effort": "low"})
        with sdk.responses.stream(model="responses-x", input="two", previous_response_id=first.id) as events:
            second: Any = next(event.response for event in events if event.type == "response.completed")
        sent: Any = upstream.requests[-1].json
        assert "previous_response_id" not in sent
        assert [item.get("role") for item in sent["input"]] == ["user", "assistant", "user"]  # no thought of another's
        assert (second.id, second.previous_response_id, second.store) == ("resp_1", first.id, True)
        plain = sdk.responses.create(model="responses-x", input="three", previous_response_id=second.id)
        assert plain.previous_response_id == second.id
        sent = upstream.requests[-1].json
        kinds = ["message", "message", "message", "reasoning", "message", "message"]  # with what is its own
        assert [item["type"] for item in sent["input"]] == kinds
        assert sent["store"] is False  # one that has it is enough


def test_what_an_upstream_keeps_itself_is_left_to_it(running: Gateway, upstream: Upstream) -> None:
    reply = turn(running, model="responses-x", input="one")
    assert running.receipt(reply.request_id)["lane"] == "fast"
    asked: Any = {"model": "responses-x", "input": "two", "previous_response_id": "resp_theirs"}
    turn(running, **asked)
    assert upstream.requests[-1].json == asked
    asked = {"model": "responses-x", "input": [{"type": "item_reference", "id": "msg_theirs"}]}
    turn(running, **asked)
    assert upstream.requests[-1].json == asked
    upstream.script(answer({"id": "resp_theirs", "object": "response"}))
    there = {"x-agw-upstream": "responses"}
    assert running.get(f"{TURN}/resp_theirs", headers=there).json["id"] == "resp_theirs"


def test_both_lanes_look_for_what_may_be_kept_here(running: Gateway, upstream: Upstream) -> None:
    for mark in (*RECALLS, b'"input_reference"'):
        body = b'{"model": "responses-x", "input": "x", "metadata": {' + mark + b': "y"}}'
        reply = running.post(TURN, body, headers={"content-type": "application/json"})
        assert reply.status == 200, reply.body
        told = running.receipts(reply.request_id)[0].get("lane_reason")
        assert told == ("store" if recalls(body) else None), body
    asked: Any = {"model": "responses-x", "input": "x", "previous_response_id": "resp_1"}
    explained = running.post("/explain", {"path": TURN, "request": asked}, key=running.admin_key)
    assert b'"store"' in explained.body


def test_nobody_else_has_it_but_the_team(running: Gateway, upstream: Upstream) -> None:
    made = turn(running, model="messages-x", input="secret").json["id"]
    asked = {"model": "messages-x", "input": "go on", "previous_response_id": made}
    assert turn(running, key=MATE, **asked).status == 200
    count = len(upstream.requests)
    assert running.get(f"{TURN}/{made}", key=MATE).json["id"] == made
    refused = turn(running, key=STRANGER, **asked)
    assert (refused.status, refused.json["error"]["code"]) == (400, "previous_response_not_found")
    for path in (made, f"{made}/input_items"):
        reply: Any = running.get(f"{TURN}/{path}", key=STRANGER)
        assert (reply.status, reply.json["error"]["code"]) == (404, "not_found")
    with running.connect() as connection:
        connection.send("DELETE", f"{TURN}/{made}", None, running.headers(STRANGER))
        assert connection.reply().status == 404
    listed: Any = running.get(f"{TURN}/{made}/input_items").json
    item = listed["data"][0]["id"]
    named = [{"type": "item_reference", "id": item}]
    stolen = turn(running, key=STRANGER, model="messages-x", input=named)
    assert stolen.status == 400
    assert len(upstream.requests) == count
    assert running.get(f"{TURN}/{made}").status == 200


def test_an_item_may_be_named_instead_of_sent(running: Gateway, upstream: Upstream) -> None:
    made = turn(running, model="gemini-x", input="one").json
    named = [{"type": "item_reference", "id": made["output"][0]["id"]}, {"role": "user", "content": "two"}]
    assert turn(running, model="chat-x", input=named).status == 200
    assert words(upstream) == ["Hello world", "two"]


@pytest.mark.parametrize("spoken", ["chat", "messages", "gemini"])
def test_to_keep_it_is_nothing_that_the_upstream_is_asked_for(
    running: Gateway, upstream: Upstream, spoken: str
) -> None:
    reply = turn(running, model=f"{spoken}-x", input="one", store=True)
    assert (reply.status, reply.json["store"], reply.value("x-agw-dropped")) == (200, True, None)
    assert b"store" not in upstream.requests[-1].body


def test_what_is_not_to_be_kept_is_not(running: Gateway) -> None:
    made = turn(running, model="chat-x", input="one", store=False).json
    assert made["store"] is False
    assert running.get(f"{TURN}/{made['id']}").status == 404


@pytest.mark.parametrize("cut", [False, True])
def test_a_stream_that_breaks_leaves_nothing(running: Gateway, upstream: Upstream, cut: bool) -> None:
    frames = message_frames(TEXT)
    broken = frames[: frames.index(b"event: message_delta")]
    end = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"no"}}\n\n'
    upstream.script(stream([broken if cut else broken + end]))
    reply = turn(running, model="messages-x", input="one", stream=True)
    assert b"event: error" in reply.body
    found = orjson.loads(reply.body.partition(b"data: ")[2].partition(b"\n")[0])["response"]["id"]
    assert running.get(f"{TURN}/{found}").status == 404


def test_what_cannot_be_asked_of_a_kept_one_is_said(running: Gateway) -> None:
    with client(running) as sdk:
        made = sdk.responses.create(model="chat-x", input="one")
        with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
            sdk.responses.cancel(made.id)
        with pytest.raises(openai.BadRequestError, match="in the background"):
            sdk.responses.retrieve(made.id, stream=True)
        with pytest.raises(openai.BadRequestError, match="exclude each other"):
            sdk.responses.create(model="chat-x", input="x", previous_response_id=made.id, conversation="conv_1")
        with pytest.raises(openai.NotFoundError, match="Conversation with id 'conv_none' not found"):
            sdk.responses.create(model="chat-x", input="x", conversation="conv_none")


def test_a_conversation_gathers_what_is_said_in_it(running: Gateway, upstream: Upstream) -> None:
    with client(running) as sdk:
        begun = sdk.conversations.create(
            items=[{"type": "message", "role": "user", "content": "zero"}], metadata={"topic": "numbers"}
        )
        made = sdk.responses.create(model="gemini-x", input="one", conversation=begun.id)
        assert made.conversation is not None
        assert made.conversation.id == begun.id
        with sdk.responses.stream(model="chat-x", input="two", conversation=begun.id) as events:
            events.until_done()
        said = ["zero", "one", "Hello world", "two", "Hello world"]
        assert words(upstream) == said[:-1]
        items: Any = list(sdk.conversations.items.list(begun.id, order="asc", limit=3))
        assert [item.content[0].text for item in items] == said
        assert [item.id for item in sdk.conversations.items.list(begun.id)] == [item.id for item in reversed(items)]
        assert sdk.conversations.items.retrieve(items[1].id, conversation_id=begun.id) == items[1]
        sdk.conversations.items.delete(items[0].id, conversation_id=begun.id)
        sdk.conversations.items.create(begun.id, items=[{"role": "developer", "content": "three"}])
        changed = sdk.conversations.update(begun.id, metadata={"topic": "letters"})
        assert (sdk.conversations.retrieve(begun.id), changed.metadata) == (changed, {"topic": "letters"})
        sdk.responses.create(model="chat-x", input="five", conversation=begun.id, store=False)
        items = sdk.conversations.items.list(begun.id, limit=2)
        assert [item.content[0].text for item in items.data] == ["Hello world", "five"]
        # The response goes on from what there was, not from what has been said since.
        sdk.responses.create(model="messages-x", input="four", previous_response_id=made.id)
        assert words(upstream) == ["one", "Hello world", "four"]
        assert running.get(f"/v1/conversations/{begun.id}", key=STRANGER).status == 404
        assert sdk.conversations.delete(begun.id).deleted
        with pytest.raises(openai.NotFoundError):
            sdk.conversations.items.list(begun.id)


def test_its_tokens_are_counted_with_what_it_goes_on_from(running: Gateway) -> None:
    made = turn(running, model="messages-x", input="word " * 200).json["id"]
    alone: Any = running.post(f"{TURN}/input_tokens", {"model": "chat-x", "input": "and"}).json
    asked = {"model": "chat-x", "input": "and", "previous_response_id": made}
    together: Any = running.post(f"{TURN}/input_tokens", asked).json
    assert together["input_tokens"] > alone["input_tokens"] + 100


def test_one_that_comes_twice_with_its_key_is_kept_once(running: Gateway, upstream: Upstream) -> None:
    with client(running) as sdk:
        talk = sdk.conversations.create()
        headers = {"Idempotency-Key": "turn-1"}
        first = sdk.responses.create(model="chat-x", input="one", conversation=talk.id, extra_headers=headers)
        again = sdk.responses.create(model="chat-x", input="one", conversation=talk.id, extra_headers=headers)
        assert again == first
        assert len(list(sdk.conversations.items.list(talk.id))) == 2


def test_the_file_is_its_owners_and_its_words_are_not_logged(running: Gateway) -> None:
    turn(running, model="chat-x", input="a very private word")
    for path in file_of(running).parent.glob("responses.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "private word" not in running.output


def test_where_it_cannot_be_kept_the_answer_goes_out_and_says_so(running: Gateway, upstream: Upstream) -> None:
    made = turn(running, model="chat-x", input="one").json["id"]
    holder = sqlite3.connect(file_of(running), isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        reply = turn(running, model="chat-x", input="two", max_tool_calls=3)
        assert (reply.status, reply.json["store"]) == (200, False)
        assert reply.value("x-agw-dropped") == "max_tool_calls, store"
        streamed = turn(running, model="chat-x", input="two", stream=True)
        last = orjson.loads(streamed.body.rstrip().rpartition(b"data: ")[2])
        assert (last["type"], last["response"]["store"]) == ("response.completed", False)
        assert last["response"]["output"][0]["content"][0]["text"] == "Hello world"
    finally:
        holder.close()

    def back() -> bool:
        return running.get(f"{TURN}/{made}").status == 200

    running.until(back, "the store does not come back")


def test_two_workers_and_a_restart_know_the_same(upstream: Upstream) -> None:
    made = config(upstream.url, store={"responses": "all"})
    made["server"] |= {"workers": 2}
    with Gateway(made) as gateway:
        last = None
        for number in range(8):
            asked = {"model": "messages-x" if number else "responses-x", "input": f"turn {number}"}
            reply = turn(gateway, **asked, **({"previous_response_id": last} if last else {}))
            assert reply.status == 200, reply.body
            last = reply.json["id"]
        assert [word for word in words(upstream) if word != "Hello world"] == [f"turn {n}" for n in range(8)]
        assert gateway.stop(signal.SIGTERM) == 0
        gateway.start()
        for _ in range(4):
            assert gateway.get(f"{TURN}/{last}").json["id"] == last
        assert turn(gateway, model="chat-x", input="on", previous_response_id=last).status == 200
        assert len(words(upstream)) == 17


@pytest.fixture(scope="module")
def changing(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(config(shared_upstream.url, store=None)) as gateway:
        yield gateway


def take_up(gateway: Gateway, made: Tree) -> None:
    def count() -> int:
        return sum(line.get("event") == "config.reloaded" for line in gateway.logs())

    before = count()
    gateway.write(made)
    gateway.process.send_signal(signal.SIGHUP)
    gateway.until(lambda: count() > before, "no reload")


@pytest.mark.parametrize("store", [None, {"responses": False}])
def test_without_a_store_it_is_as_it_was(changing: Gateway, upstream: Upstream, store: Tree | None) -> None:
    take_up(changing, config(upstream.url, store=store))
    reply = turn(changing, model="messages-x", input="x", previous_response_id="resp_1")
    assert (reply.status, reply.json["error"]["param"]) == (400, "previous_response_id")
    assert turn(changing, model="messages-x", input="x").json["store"] is False
    assert not file_of(changing).exists()


def test_a_file_that_is_none_is_said_and_stops_no_answer(changing: Gateway, upstream: Upstream) -> None:
    broken = changing.folder / "broken.db"
    broken.write_text("no database " * 1000)
    take_up(changing, config(upstream.url, store={"path": str(broken)}))
    reply = turn(changing, model="chat-x", input="one")
    assert (reply.status, reply.value("x-agw-dropped")) == (200, "store")
    refused: list[Any] = [
        turn(changing, model="chat-x", input="two", previous_response_id="resp_1"),
        changing.get(f"{TURN}/resp_1"),
        changing.post("/v1/conversations", {}),
    ]
    for made in refused:
        assert (made.status, made.json["error"]["code"]) == (503, "store_unavailable")
        assert made.value("retry-after") == "1"


def test_an_answer_whose_last_event_is_short_is_kept_by_what_came_before(changing: Gateway, upstream: Upstream) -> None:
    take_up(changing, config(upstream.url, store={"responses": "all"}))
    frames = response_frames(TEXT)
    whole = orjson.dumps(response(TEXT)["output"])
    assert whole in frames
    head, _, last = frames.rpartition(b"event: response.completed")
    upstream.script(stream([head + b"event: response.completed" + last.replace(whole, b"[]")]))
    reply = turn(changing, model="responses-x", input="one", stream=True)
    assert changing.receipt(reply.request_id)["lane_reason"] == "store"
    kept: Any = changing.get(f"{TURN}/resp_1").json
    assert kept["output"][0]["content"][0]["text"] == "Hello world"
