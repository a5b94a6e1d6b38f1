"""Messages and Responses, read in passing: ends, content, pings, tokens. Splits are in ``test_sse``."""

import json
from typing import Any

import pytest

from agw_proxy._hot.sse import Document, Stream
from agw_proxy.dialects.openai_chat_usage import read_tokens
from tests.hot.vectors_sse import (
    CREATED,
    DOCUMENTS,
    MESSAGE,
    PING,
    RESPONSE,
    START,
    STOP,
    TEXT,
    TURN,
    WORDS,
    event,
    response_end,
    typed,
)


def fed(*events: bytes) -> Stream:
    stream = Stream()
    for one in events:
        assert stream.feed(one) is one
    return stream


def choice(index: int, reason: str | None) -> bytes:
    return event({"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": reason}]})


def test_a_chat_ends_with_the_last_of_its_choices() -> None:
    stream = fed(choice(0, None), choice(1, None), choice(0, "stop"))
    assert (stream.complete, stream.finish_reason) == (False, "stop")
    assert fed(choice(0, "stop"), choice(1, None)).complete is False
    stream.feed(choice(1, "length"))
    assert (stream.complete, stream.finish_reason) == (True, "length")
    stream.feed(choice(0, None))  # as some servers tell the usage
    assert stream.complete is True


def test_a_message_ends_with_message_stop_alone() -> None:
    stream = fed(*MESSAGE[:-1])
    assert (stream.complete, stream.finished, stream.finish_reason) == (False, False, "end_turn")
    stream.feed(STOP)
    assert (stream.complete, stream.finished, stream.failed, stream.done) == (True, True, False, False)
    assert (stream.events, stream.content, stream.pings) == (8, 2, 1)


def test_a_messages_tokens_come_in_two_events() -> None:
    stream = fed(START)
    assert (stream.prompt_tokens, stream.completion_tokens, stream.cached_tokens) == (128, 1, 100)
    stream.feed(TURN)
    assert (stream.prompt_tokens, stream.completion_tokens, stream.cached_tokens) == (128, 15, 100)


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
def test_a_response_ends_with_each_of_its_three_ends(status: str) -> None:
    stream = fed(CREATED, WORDS)
    assert (stream.complete, stream.finish_reason) == (False, None)
    stream.feed(response_end(status))
    assert (stream.complete, stream.finished, stream.finish_reason) == (True, True, status)
    assert stream.failed is (status == "failed")
    assert stream.error is None
    assert (stream.prompt_tokens, stream.completion_tokens, stream.cached_tokens) == (9, 6, 4)
    assert (stream.events, stream.content) == (3, 1)


def test_a_broken_event_ends_nothing() -> None:
    assert not fed(STOP.replace(b"}", b"]")).complete
    assert not fed(RESPONSE[-1].replace(b"}}\n", b"}\n")).complete
    assert not fed(event("x", "message_stop")).complete


def test_an_error_by_its_type_alone_is_an_error() -> None:
    stream = fed(CREATED, event({"type": "error", "code": "server_error", "message": "no"}))
    assert stream.error == b'{"type":"error","code":"server_error","message":"no"}'
    assert not stream.complete


def test_pings_and_comments_are_no_progress() -> None:
    stream = fed(START)
    before = stream.progress
    for idle in (PING, PING.replace(b'{"type":"ping"}', b"{}"), b": hi\n\n", b"\n", b"", typed("keepalive")):
        stream.feed(idle)
        assert stream.progress == before
    stream.feed(PING[:-2])
    assert stream.progress == before
    for one in (TEXT, b"\n\n" + STOP, b"data: [DONE]\n\n"):
        stream.feed(one)
        assert stream.progress > before
        before = stream.progress


def test_a_long_event_makes_progress_while_it_comes() -> None:
    stream = Stream()
    stream.feed(b'data: {"x":"' + b"a" * 60)
    assert stream.progress == 1
    stream.feed(b"a")
    assert stream.progress == 2
    stream.feed(b"")
    assert stream.progress == 2
    stream.feed(b"\n: a comment\n")
    assert stream.progress == 2


@pytest.mark.parametrize(("tree", "told"), DOCUMENTS)
def test_a_document_tells_its_tokens_and_its_end(tree: Any, told: tuple[int, int, int, str | None]) -> None:
    body = json.dumps(tree).encode()
    for size in (len(body), 1, 7):
        document = Document()
        for at in range(0, len(body), size):
            document.feed(body[at : at + size])
        seen = (document.prompt_tokens, document.completion_tokens, document.cached_tokens, document.finish_reason)
        assert seen == told
        assert document.complete


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"total_tokens": 17, "completion_tokens_details": {"reasoning_tokens": 5}}, (7, -1)),
        ({"total_tokens": 12, "completion_tokens_details": {"reasoning_tokens": 1}}, (2, -1)),
        ({"completion_tokens_details": {"reasoning_tokens": 5}}, (7, -1)),
        ({"completion_tokens_details": {"reasoning_tokens": 2}}, (2, -1)),
        ({"cached_tokens": 4}, (2, 4)),
        ({"prompt_cache_hit_tokens": 4, "prompt_tokens_details": {"cached_tokens": 4}}, (2, 4)),
    ],
)
def test_usage_of_other_servers_of_chat_is_understood(more: dict[str, Any], told: tuple[int, int]) -> None:
    """As the dialect reads it: thoughts beside the answer, the cache's part under another name."""
    usage = {"prompt_tokens": 10, "completion_tokens": 2, **more}
    stream = fed(event({"choices": [], "usage": usage}))
    assert (stream.completion_tokens, stream.cached_tokens) == told
    read = read_tokens(usage)
    assert (read.output, read.cached) == (told[0], max(told[1], 0))


GEMINI_USAGE = {"promptTokenCount": 7, "toolUsePromptTokenCount": 3, "candidatesTokenCount": 2, "thoughtsTokenCount": 4}


def candidates(*reasons: str | None) -> list[Any]:
    made: list[Any] = []
    for index, reason in enumerate(reasons):
        content = {"role": "model", "parts": [{"text": "a"}]}
        made.append({"content": content, "index": index, **({"finishReason": reason} if reason else {})})
    return made


def test_googles_candidates_are_choices() -> None:
    stream = fed(event({"candidates": candidates(None, "STOP")}))
    assert (stream.complete, stream.finish_reason, stream.content) == (False, "STOP", 1)
    stream.feed(event({"candidates": candidates("MAX_TOKENS"), "usageMetadata": GEMINI_USAGE}))
    assert (stream.complete, stream.finish_reason) == (True, "MAX_TOKENS")
    assert (stream.prompt_tokens, stream.completion_tokens) == (10, 6)


@pytest.mark.parametrize("spaces", [None, 1])
def test_a_prompt_that_google_has_blocked_is_answered(spaces: int | None) -> None:
    told = {
        "promptFeedback": {"safetyRatings": [{"blocked": True}], "blockReason": "SAFETY"},
        "usageMetadata": GEMINI_USAGE,
    }
    text = json.dumps(told, indent=spaces)
    whole = "".join(f"data: {line}\n" for line in text.split("\n")).encode() + b"\n"
    for at in range(len(whole)):
        stream = Stream()
        stream.feed(whole[:at])
        assert stream.complete is False
        stream.feed(whole[at:])
        assert (stream.complete, stream.finish_reason, stream.content) == (True, "SAFETY", 0)
    document = Document()
    document.feed(text.encode())
    assert (document.complete, document.finish_reason, document.prompt_tokens) == (True, "SAFETY", 10)
    unsaid = fed(event({"promptFeedback": {"safetyRatings": []}}), event({"promptFeedback": {"blockReason": ""}}))
    assert unsaid.complete is False
