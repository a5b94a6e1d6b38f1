"""Streams that are ended: whole events pass at any split, and what is open is closed."""

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy._hot.limit import PER_KEY, REQUESTS, Rule
from agw_proxy.edge.finishing import BOOKS, STEP_TOKENS, Finisher, data_of
from tests.support.behaviours import event
from tests.support.fake_openai import chunk, spoken

RULE = Rule("keys.a/small", PER_KEY, REQUESTS, 1, 10**9)


NAMES = st.sampled_from(
    ["choices", "delta", "type", "index", "item", "usage", "message", "content", "part", "response"]
)
KINDS = st.sampled_from(["response.output_item.added", "message_start", "content_block_start", "response.created"])
ODD = st.recursive(st.none() | KINDS | st.integers(), lambda item: st.dictionaries(NAMES, item) | st.lists(item))


def finisher(endpoint: str, steps: int, *, usage_wanted: bool = False) -> Finisher:
    """One whose budget pays for so many steps beyond the first."""
    asked: list[int] = []

    async def more(tokens: int) -> Rule | None:
        asked.append(tokens)
        return None if len(asked) <= steps else RULE

    return Finisher(endpoint, more, prompt_tokens=5, reason=lambda rule: rule.name[:4], usage_wanted=usage_wanted)


def events_of(data: bytes) -> list[dict[str, Any]]:
    found = [data_of(part + b"\n\n") for part in data.split(b"\n\n")]
    return [tree for tree in found if tree is not None]


def pushed(made: Finisher, chunk: bytes) -> bytes:
    """What becomes of a chunk; nothing here waits for anything."""
    return asyncio.run(made.push(chunk))


@given(st.lists(st.integers(1, 60)), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.booleans())
def test_a_stream_that_is_paid_for_passes_byte_by_byte(cuts: list[int], line_end: bytes, comment: bool) -> None:
    whole = b"".join([b": ping\n\n" if comment else b"", *spoken(usage=True)]).replace(b"\n", line_end)
    made, out, at = finisher("chat_completions", 99), b"", 0
    for cut in [*cuts, len(whole)]:
        out += pushed(made, whole[at : at + cut])
        at += cut
    assert out + made.rest() == whole
    assert made.finished is None


def test_the_end_of_a_chat_closes_the_choices_that_are_open() -> None:
    made = finisher("chat_completions", 0, usage_wanted=True)
    call = {"index": 0, "function": {"name": "f", "arguments": "x" * 4 * STEP_TOKENS}}
    first = {"id": "c", "object": "chat.completion.chunk", "model": "m", "created": 1}
    both = [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}, {"index": 1, "delta": {}}]
    out = pushed(made, event({**first, "choices": both}))
    out += pushed(
        made, event({**first, "choices": [{"index": 1, "delta": {"tool_calls": [call]}}]}) + chunk({"content": "more"})
    )
    assert made.finished is not None
    assert out.endswith(b"data: [DONE]\n\n")
    assert b"more" not in out
    end, usage = events_of(out)[-2:]
    assert end["choices"] == [{"index": 1, "delta": {}, "finish_reason": "length"}]
    assert end["agw"] == {"reason": "keys", "rule": "keys.a/small"}
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 5, "completion_tokens": 258, "total_tokens": 263}


def test_the_older_completions_end_in_their_own_form() -> None:
    made = finisher("completions", 0)
    text = {"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": "word" * STEP_TOKENS}]}
    end = events_of(pushed(made, event(text)))[-1]
    assert end["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}]


def test_nothing_is_ended_that_has_ended() -> None:
    made = finisher("chat_completions", 0)
    last = chunk({"content": "word" * STEP_TOKENS}, "stop")
    assert pushed(made, last) == last
    assert pushed(made, b"data: [DO") == b"data: [DO"
    assert made.finished is None


def test_a_function_call_of_a_response_is_closed_with_what_came() -> None:
    made = finisher("responses", 0)
    item = {
        "id": "fc_1",
        "type": "function_call",
        "name": "f",
        "call_id": "c",
        "arguments": "",
        "status": "in_progress",
    }
    trees: list[dict[str, object]] = [
        {"type": "response.created", "response": {"id": "r", "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "fc_1", "delta": "1234" * 256},
    ]
    out = b"".join(pushed(made, event({**tree, "sequence_number": at})) for at, tree in enumerate(trees))
    ends = events_of(out)[3:]
    assert [(end["type"], end["sequence_number"]) for end in ends] == [
        ("response.function_call_arguments.done", 3),
        ("response.output_item.done", 4),
        ("response.incomplete", 5),
    ]
    assert ends[1]["item"] == {**item, "arguments": "1234" * 256, "status": "incomplete"}


def test_a_message_ends_with_its_open_block() -> None:
    made = finisher("messages", 0)
    trees: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use"}},
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": "1234" * 256},
        },
    ]
    ends = events_of(b"".join(pushed(made, event(tree, str(tree["type"]))) for tree in trees))[5:]
    assert [end["type"] for end in ends] == ["content_block_stop", "message_delta", "message_stop"]
    assert ends[0]["index"] == 1
    assert ends[1]["usage"] == {"input_tokens": 9, "output_tokens": 256}


@pytest.mark.parametrize("endpoint", sorted(BOOKS))
@given(data=ODD)
def test_odd_events_stop_nothing(endpoint: str, data: object) -> None:
    made = finisher(endpoint, 0)
    sent = b"data: " + orjson.dumps(data, default=str) + b"\n\n" if _encodable(data) else b": x\n\n"
    assert pushed(made, sent) == sent


def _encodable(data: object) -> bool:
    try:
        orjson.dumps(data)
    except (TypeError, ValueError):
        return False
    return True
