"""A conversation that moves: from a model that is asked in another form to one that is asked in the caller's own."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from tests.e2e.test_translation import upstreams
from tests.e2e.test_translation_faults import ask, body_of
from tests.support.gateway import Gateway, configuration
from tests.support.providers import SCENES, plays
from tests.support.published import ready
from tests.support.upstream import Upstream

Tree = dict[str, Any]
QUESTION = {"role": "user", "content": "Say hello"}
ASKED = {"role": "user", "parts": [{"text": "Say hello"}]}
HISTORIES: dict[str, Callable[[Tree], Tree]] = {
    "messages": lambda told: {"messages": [QUESTION, {"role": "assistant", "content": told["content"]}, QUESTION]},
    "responses": lambda told: {"input": [QUESTION, *told["output"], QUESTION]},
    "gemini": lambda told: {"contents": [ASKED, told["candidates"][0]["content"], ASKED]},
}
"""The next turn, with what was answered as the client of the form gives it back."""
BEFORE = {"messages": "responses", "responses": "messages", "gemini": "messages"}


@pytest.fixture(scope="module")
def gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    ready()
    with Gateway(configuration(*upstreams(shared_upstream.url))) as running:
        yield running


@pytest.mark.parametrize("form", HISTORIES)
def test_thoughts_of_the_model_before_do_not_break_the_next_turn(
    gateway: Gateway, upstream: Upstream, form: str
) -> None:
    upstream.default = plays(SCENES["thinking"])
    told = ask(gateway, form, f"{BEFORE[form]}-1").json
    history = HISTORIES[form](told)
    body = orjson.dumps({**body_of(form, f"{form}-1"), **history})
    assert b'"agw:' in body or b'"YWd3O' in body
    moved = ask(gateway, form, f"{form}-1", **history)
    assert (moved.status, moved.value("x-agw-dropped")) == (200, "foreign_reasoning"), moved.body
    sent = upstream.last.body
    assert b"agw:" not in sent
    assert b"YWd3O" not in sent
    assert b"Hello world" in sent  # what was said stays
    receipt = gateway.receipt(moved.request_id)
    assert (receipt["lane"], receipt["lane_reason"]) == ("full", "affinity")
    alone = ask(gateway, form, f"{form}-1")
    assert gateway.receipt(alone.request_id)["lane"] == "fast"


def test_a_thought_that_nobody_has_signed_is_looked_at(gateway: Gateway, upstream: Upstream) -> None:
    """Of a Claude it would be refused; who else speaks its form signs nothing."""
    upstream.default = plays(SCENES["text"])
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    turn = {"role": "assistant", "content": [thought, {"type": "text", "text": "Hello"}]}
    body = {"max_tokens": 9, "messages": [QUESTION, turn, QUESTION]}
    for model, kept in (("messages-1", True), ("messages-claude-sonnet-4-5", False)):
        for indent in (None, 1):
            reply = gateway.post("/v1/messages", json.dumps({"model": model, **body}, indent=indent).encode())
            assert reply.status == 200, reply.body
            assert (b"thinking" in upstream.last.body) is kept
            assert gateway.receipt(reply.request_id)["lane_reason"] == "affinity"
