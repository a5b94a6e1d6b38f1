"""Streams of ``/v1/responses`` of which an event is lost, or comes twice: the whole that is said at its end helps out."""

from typing import Any

import pytest

from agw_proxy.dialects.base import BlockStart, Event, Fault, Part, Text, ToolUse
from agw_proxy.dialects.openai_responses_blocks import Blocks
from tests.dialects.responses_streams import completed, created, ev, read

CALL = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": ""}
WHOLE = {**CALL, "arguments": '{"a":1}'}
ADDED = ev("output_item.added", output_index=0, item=CALL)
DONE = ev("output_item.done", output_index=0, item=WHOLE)


def pieces(*words: str) -> list[Any]:
    return [ev("function_call_arguments.delta", output_index=0, item_id="fc_1", delta=each) for each in words]


def said(events: list[Event]) -> list[Any]:
    """Its blocks, each with its words."""
    found: list[list[Any]] = []
    for event in events:
        if isinstance(event, BlockStart):
            found.append([event.block, ""])
        elif isinstance(event, Part):
            found[-1][1] += event.text
    return found


@pytest.mark.parametrize("events", [[ADDED, ADDED, *pieces('{"a":1}'), DONE], [DONE, ADDED, *pieces('{"a":1}'), DONE]])
def test_an_item_that_is_announced_twice_is_one(events: list[Any]) -> None:
    assert said(read(created(), *events, completed(output=[WHOLE]))) == [[ToolUse("c", "f"), '{"a":1}']]


@pytest.mark.parametrize("named", [True, False])
def test_items_that_are_all_called_the_first_are_not_taken_for_one_that_is_announced_twice(named: bool) -> None:
    """From a server that counts nothing and gives no ids."""
    events = []
    for name in ("c", "d"):
        call = {"type": "function_call", "call_id": name, "name": "f", "arguments": ""}
        words = {"type": "message", "content": [{"type": "output_text", "text": name, "annotations": []}]}
        item, whole = (call, {**call, "arguments": '{"a":1}'}) if named else ({**words, "content": []}, words)
        events.append(ev("output_item.added", output_index=0, item=item))
        events.append(ev("output_item.done", output_index=0, item=whole))
    found = said(read(created(), *events, completed()))
    assert [words for _, words in found] == (['{"a":1}'] * 2 if named else ["c", "d"])


def test_the_end_of_a_call_that_is_lost_is_taken_from_the_whole() -> None:
    found = read(created(), ADDED, *pieces('{"a"'), DONE, completed(output=[WHOLE]))
    assert said(found) == [[ToolUse("c", "f"), '{"a":1}']]


def test_pieces_that_do_not_make_the_whole_are_a_fault() -> None:
    found = read(created(), ADDED, *pieces('{"a"', '{"a"', ":1}"), DONE)
    assert isinstance(found[-1], Fault)
    spaced = read(created(), ADDED, *pieces('{"a": 1}'), DONE, completed(output=[WHOLE]))
    assert said(spaced) == [[ToolUse("c", "f"), '{"a": 1}']]


def test_the_end_of_a_text_that_is_lost_is_taken_from_the_whole() -> None:
    item = {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}
    added = ev("output_item.added", output_index=0, item={**item, "content": []})
    part = ev("output_text.delta", output_index=0, item_id="m", content_index=0, delta="Hel", logprobs=[])
    done = ev("output_item.done", output_index=0, item=item)
    assert said(read(created(), added, part, done, completed(output=[item]))) == [[Text(""), "Hello"]]


def test_what_a_block_has_said_is_kept_until_it_is_whole() -> None:
    blocks, out = Blocks(), list[Event]()
    told = blocks.begin(Text(""), out)
    blocks.say(told, Part("Hel"), out)
    assert told.said == ["Hel"]
    blocks.close(told, out)
    assert told.said == []
