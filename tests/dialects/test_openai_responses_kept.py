"""Items as a store keeps them, and a request into which they are put back."""

from typing import Any

import orjson
import pytest

from agw_proxy.dialects.base import Malformed, sealed
from agw_proxy.dialects.openai_responses_kept import (
    listed,
    portable,
    put_together,
    reference_of,
    sent,
    taken_apart,
    with_history,
)
from agw_proxy.dialects.openai_responses_signatures import attached

Tree = dict[str, Any]


def mint(prefix: str) -> str:
    return f"{prefix}_new"


def test_a_string_is_a_users_message() -> None:
    assert sent("Hi") == [{"type": "message", "role": "user", "content": "Hi"}]
    assert sent(None) == []
    for value in (1, {"role": "user"}, ["Hi"]):
        with pytest.raises(Malformed):
            sent(value)


@pytest.mark.parametrize(
    ("item", "made"),
    [
        (
            {"role": "user", "content": "Hi"},
            {
                "id": "msg_new", "type": "message", "role": "user", "status": "completed",
                "content": [{"type": "input_text", "text": "Hi"}],
            },
        ),
        (
            {"role": "assistant", "content": "Hi", "id": "msg_1", "status": "incomplete"},
            {
                "id": "msg_1", "type": "message", "role": "assistant", "status": "incomplete",
                "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
            },
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "u"}, "odd"]},
            {
                "id": "msg_new", "type": "message", "role": "user", "status": "completed",
                "content": [{"type": "input_image", "image_url": "u", "detail": "auto"}, "odd"],
            },
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": "o"},
            {"id": "fco_new", "type": "function_call_output", "call_id": "c", "output": "o", "status": "completed"},
        ),
        (
            {"type": "reasoning", "encrypted_content": "e", "summary": []},
            {"id": "item_new", "type": "reasoning", "encrypted_content": "e", "summary": []},
        ),
    ],
)  # fmt: skip
def test_an_item_is_listed_with_all_that_it_has(item: Tree, made: Tree) -> None:
    assert listed(item, mint) == made


def test_what_is_only_named_is_known_as_that() -> None:
    assert reference_of({"type": "item_reference", "id": "a"}) == "a"
    assert reference_of({"id": "a"}) == "a"
    assert reference_of({"id": "a", "role": "user", "content": ""}) is None
    assert reference_of({"id": "a", "type": "reasoning"}) is None
    with pytest.raises(Malformed):
        reference_of({"type": "item_reference", "id": 1})


def test_what_was_kept_goes_to_another_upstream_without_ids_that_it_has_not_given() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    hosted = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    user = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
    thought = {"type": "reasoning", "summary": []}
    kept: list[Tree] = [
        {**user, "id": "msg_1", "status": "completed"},
        {**thought, "id": "rs_1", "encrypted_content": "theirs"},
        {**thought, "id": "rs_agw", "encrypted_content": sealed("messages", "anthropics")},
        {**thought, "id": "rs_agw", "encrypted_content": attached(sealed("gemini", "googles"))},
        {**thought, "id": "rs_2"},
        {
            "type": "message", "id": "msg_2", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "He"}, {"type": "refusal", "refusal": "llo"}],
        },
        {"type": "message", "id": "msg_3", "role": "assistant", "status": "completed", "content": []},
        {**call, "id": "fc_1", "status": "completed"},
        hosted,
    ]  # fmt: skip
    assert portable(kept) == [
        user,
        {**thought, "id": "rs_1", "encrypted_content": "theirs"},
        {"type": "message", "role": "assistant", "content": "Hello"},
        call,
        hosted,
    ]


def test_the_past_stands_before_what_is_asked_now() -> None:
    asked = {"model": "m", "previous_response_id": "a", "conversation": "b", "instructions": "i", "input": "now"}
    made = orjson.loads(with_history(asked, [b'{"id":1}', b'{"id":2}'], [b'{"id":3}']))
    assert made == {"model": "m", "instructions": "i", "input": [{"id": 1}, {"id": 2}, {"id": 3}]}


def test_a_response_comes_together_as_it_was() -> None:
    whole = {"id": "resp_1", "status": "completed", "output": [{"id": "a"}, {"id": "b"}], "store": None}
    apart = taken_apart(whole, {"store": True})
    assert apart is not None
    head, items = apart
    made = orjson.loads(put_together(head, [orjson.dumps(item) for item in items]))
    assert made == {**whole, "store": True}
    for status in ("failed", "in_progress", "queued", "cancelled", None):
        assert taken_apart({**whole, "status": status}, {}) is None
    assert taken_apart({**whole, "output": None}, {}) is None
