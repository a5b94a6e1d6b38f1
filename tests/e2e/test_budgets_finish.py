"""``on_end: finish``: a stream that its budget cannot pay for to the end is cut at its longest length, as SDKs know it."""

from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.e2e.test_budgets import KEY, settings
from tests.support.behaviours import DONE, event, stream
from tests.support.fake_openai import chunk, usage_event
from tests.support.gateway import APP_KEY, Gateway
from tests.support.upstream import Upstream

LONG = 2000  # events of a token each; the budget pays for 512 of them, in two steps
BUDGET = {"usd": "0.0055", "on_end": "finish", "name": "small", "alerts": []}


@pytest.fixture
def running(upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(settings(upstream, "auto", BUDGET)) as gateway:
        yield gateway


def chat_events() -> list[bytes]:
    return [chunk({"role": "assistant", "content": ""}), *[chunk({"content": "a "}) for _ in range(LONG)]]


def named(tree: dict[str, object]) -> bytes:
    return event(tree, str(tree["type"]))


def messages_events() -> list[bytes]:
    message: dict[str, object] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 1, "cache_read_input_tokens": 7},
    }
    begun = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    word = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a "}}
    return [named({"type": "message_start", "message": message}), named(begun), *[named(word) for _ in range(LONG)]]


def responses_events() -> list[bytes]:
    response = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-4o-mini",
        "status": "in_progress",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    part = {"type": "output_text", "text": "", "annotations": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    trees: list[dict[str, object]] = [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **place, "part": part},
        *[{"type": "response.output_text.delta", **place, "delta": "a ", "logprobs": []} for _ in range(LONG)],
    ]
    return [named({**tree, "sequence_number": number}) for number, tree in enumerate(trees)]


def told(gateway: Gateway, upstream: Upstream, identity: str) -> None:
    """One Receipt tells of it, the upstream was left, and the budget was charged for what came."""
    upstream.wait_gone(upstream.requests[0])
    line = gateway.receipts(identity)[0]
    assert (line["outcome"], line["finish_reason"], line["rule"]) == ("ok", "length", "keys.cy/small")
    assert (line["lane"], line["lane_reason"]) == ("full", "budget")
    assert line["completion_tokens"] == 512
    assert 5120 <= line["cost"] <= 5500


def test_the_openai_sdk_takes_the_chat_as_one_of_length(running: Gateway, upstream: Upstream) -> None:
    upstream.script(stream(chat_events(), ending="hang"))
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0, timeout=10) as client:
        made = client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"x-request-id": "finish-chat"},
        )
        chunks = list(made)
    text = "".join(piece.choices[0].delta.content or "" for piece in chunks if piece.choices)
    assert text == "a " * 512
    last = chunks[-2]
    assert last.choices[0].finish_reason == "length"
    assert last.model_extra == {"agw": {"reason": "budget", "rule": "keys.cy/small"}}
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 512
    told(running, upstream, "finish-chat")


def test_the_openai_sdk_takes_the_response_as_incomplete(running: Gateway, upstream: Upstream) -> None:
    upstream.script(stream(responses_events(), ending="hang"))
    with (
        openai.OpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0, timeout=10) as client,
        client.responses.stream(
            model="gpt-4o-mini", input="hi", extra_headers={"x-request-id": "finish-responses"}
        ) as events,
    ):
        kinds = []
        final = None
        numbers = []
        for item in events:
            kinds.append(item.type)
            numbers.append(item.sequence_number)
            if item.type == "response.incomplete":
                final = item.response
    assert final is not None
    assert (final.status, final.output_text) == ("incomplete", "a " * 512)
    assert final.incomplete_details is not None
    assert final.incomplete_details.reason == "max_output_tokens"
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert numbers == list(range(len(numbers)))
    assert (final.model_extra or {})["agw"]["rule"] == "keys.cy/small"
    told(running, upstream, "finish-responses")


def test_the_anthropic_sdk_takes_the_message_as_one_of_max_tokens(running: Gateway, upstream: Upstream) -> None:
    upstream.script(stream(messages_events(), ending="hang"))
    with (
        anthropic.Anthropic(base_url=running.url, api_key=KEY, max_retries=0, timeout=10) as client,
        client.messages.stream(
            model="claude-x",
            max_tokens=4000,
            messages=[{"role": "user", "content": "hi"}],
            extra_headers={"x-request-id": "finish-messages"},
        ) as events,
    ):
        message = events.get_final_message()
    assert message.stop_reason == "max_tokens"
    assert message.content[0].type == "text"
    assert message.content[0].text == "a " * 512
    assert message.usage.output_tokens == 512
    told(running, upstream, "finish-messages")
    line = running.receipts("finish-messages")[0]
    assert (line["prompt_tokens"], line["cached_tokens"]) == (16, 7)  # as the upstream has told at the beginning


def test_a_stream_that_fits_goes_through_untouched(running: Gateway, upstream: Upstream) -> None:
    events = [*chat_events()[:300], chunk({}, "stop"), usage_event(), DONE]
    upstream.script(stream(events))
    reply = running.chat(key=KEY, stream=True, stream_options={"include_usage": True})
    assert reply.status == 200
    assert reply.body == b"".join(events)
    assert "rule" not in running.receipts(reply.request_id)[0]


SPLIT = chunk({"content": "two" * 100_000})  # smaller ones are held back until they are whole
FAILED = event({"error": {"message": "no more", "type": "server_error"}})


@pytest.mark.parametrize("last", [FAILED, b""], ids=["error", "unfinished"])
def test_a_stream_that_breaks_loses_nothing_of_what_came(running: Gateway, upstream: Upstream, last: bytes) -> None:
    events = [chunk({"role": "assistant", "content": ""}), chunk({"content": "one"}), SPLIT[:-20], SPLIT[-20:] + last]
    upstream.script(*[stream(events, pace_ms=30)] * 2)
    plain, finishing = (running.chat(key=key, stream=True, max_tokens=9) for key in (APP_KEY, KEY))
    assert running.receipts(finishing.request_id)[0]["lane_reason"] == "budget"
    assert SPLIT in plain.body
    assert finishing.body == plain.body
    assert not finishing.complete
