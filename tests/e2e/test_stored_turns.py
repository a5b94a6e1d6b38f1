"""Responses that the gateway keeps, where more than one request of one client is about them: over a WebSocket, counted, repeated."""

import sqlite3
import threading
from typing import Any

import orjson
import pytest

from tests.e2e.test_cache_flights import in_flight, opened_by
from tests.e2e.test_responses_socket import talking
from tests.e2e.test_stored import TURN, file_of, played, running, turn, words
from tests.support.behaviours import answer
from tests.support.fake_openai import spoken
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream

__all__ = ["played", "running"]  # fixtures


def test_an_upstream_that_counts_is_asked_with_all_of_it_and_with_nothing_else(
    running: Gateway, upstream: Upstream
) -> None:
    made = turn(running, model="messages-x", input="one").json["id"]
    upstream.script(answer({"object": "response.input_tokens", "input_tokens": 7}))
    reply = running.post(f"{TURN}/input_tokens", {"model": "responses-x", "input": "two", "previous_response_id": made})
    assert reply.json == {"object": "response.input_tokens", "input_tokens": 7}
    assert upstream.last.json.keys() == {"model", "input"}
    assert words(upstream) == ["one", "Hello world", "two"]


def test_what_is_nested_too_deeply_to_be_kept_is_refused(running: Gateway) -> None:
    items = b'[{"role":"user","content":' + b"[" * 300 + b"]" * 300 + b"}]"
    for path, body in (
        (TURN, b'{"model":"chat-x","input":' + items + b"}"),
        ("/v1/conversations", b'{"items":' + items + b"}"),
    ):
        reply = running.post(path, body)
        assert (reply.status, reply.error["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("store", [True, False])
async def test_a_connection_that_goes_on_from_a_kept_one_loses_nothing_of_it(
    running: Gateway, upstream: Upstream, store: bool
) -> None:
    at = turn(running, model="chat-x", input="one").json["id"]
    async with talking(running, key=running.key) as talk:
        for word in ("two", "three", "four"):
            last = await talk.turn(model="chat-x", input=word, previous_response_id=at, store=store)
            if store:  # it is asked for by its id, and not kept with all before it once more
                assert last["response"]["previous_response_id"] == at
            at = last["response"]["id"]
    said = [word for word in words(upstream) if word != "Hello world"]
    assert said == ["one", "two", "three", "four"]
    with sqlite3.connect(file_of(running)) as file:
        found = file.execute("SELECT count(*) FROM item JOIN thing ON thing.n = item.thing WHERE thing.id = ?", (at,))
        assert found.fetchone()[0] == (2 if store else 0)


@pytest.mark.parametrize("store", [True, False])
def test_one_whose_first_asker_has_left_is_kept_for_who_asked_again(
    running: Gateway, upstream: Upstream, store: bool
) -> None:
    talk = running.post("/v1/conversations", {}).json["id"]
    body = {"model": "chat-x", "input": "one", "conversation": talk, "store": store, "stream": True}
    go = threading.Event()
    upstream.script(opened_by(spoken()[:2], go, spoken()[2:]))
    headers = running.headers(more={"Idempotency-Key": f"left-{store}"})
    with running.connect() as first, running.connect() as second, running.connect() as third:
        first.send("POST", TURN, body, headers)
        first.head()
        heads = []
        for retry in (second, third):
            retry.send("POST", TURN, body, headers)
            heads.append((retry, retry.head()))
        first.reset()
        running.until(lambda: in_flight(running) == 2, "the first has not left")
        go.set()
        told = [b"".join(retry.pieces(head)) for retry, head in heads]
    last = [orjson.loads(text.rstrip().rpartition(b"data: ")[2]) for text in told]
    assert [each["type"] for each in last] == ["response.completed"] * 2
    made = last[0]["response"]["id"]
    assert running.get(f"{TURN}/{made}").status == (200 if store else 404)
    items: Any = running.get(f"/v1/conversations/{talk}/items").json
    assert len(items["data"]) == 2
