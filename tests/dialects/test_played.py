"""Whole answers told as streams: each writer takes them, and the stream says what the answer did."""

from typing import Any

import orjson
import pytest

from agw_proxy.conformance import chat, gemini, messages, responses
from agw_proxy.conformance.frames import events
from agw_proxy.dialects import translate
from agw_proxy.dialects.base import (
    Answer,
    Block,
    BlockStart,
    BlockStop,
    Fault,
    Image,
    Part,
    Refusal,
    Request,
    Shown,
    Text,
    Thinking,
    Tokens,
    ToolUse,
)
from agw_proxy.dialects.played import played
from tests.support.providers import FORMS, SCENES

GRAMMARS = {"chat": chat, "responses": responses, "messages": messages, "gemini": gemini}
SHOWN = Shown(id="req_1", model="m", now=1, include_usage=True, request=Request(model="m", messages=[]))


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("spoken", FORMS)
@pytest.mark.parametrize("form", GRAMMARS)
def test_the_stream_is_whole_and_tells_all_of_the_answer(form: str, spoken: str, scene: str) -> None:
    told = SCENES[scene]
    body = orjson.dumps(FORMS[spoken][0](told))
    answer = translate.read_answer(spoken, body, SHOWN)  # type: ignore[arg-type]
    writer = translate.writer(form, SHOWN)  # type: ignore[arg-type]
    text = b"".join(writer.write(event) for event in played(answer))
    heard, fault = GRAMMARS[form].follow(list(events(text.splitlines(keepends=True))))
    assert fault is None
    assert heard.text == "".join(told.text)
    assert [(call.name, orjson.loads(call.arguments)) for call in heard.calls] == list(told.calls)


@pytest.mark.parametrize("form", GRAMMARS)
def test_odd_blocks_are_told_or_left_out(form: str) -> None:
    blocks: list[Block] = [
        Thinking("", signature="c2ln", hidden=True), Text(""), Image(url="http://x/y.png"),
        ToolUse("c", "f", "", signature="c2ln"), Refusal("no"),
    ]  # fmt: skip
    answer = Answer("a", "m", blocks, "tool", Tokens())
    writer = translate.writer(form, SHOWN)  # type: ignore[arg-type]
    text = b"".join(writer.write(event) for event in played(answer))
    assert GRAMMARS[form].check(list(events(text.splitlines(keepends=True)))) is None


def test_a_calls_signature_comes_with_its_beginning() -> None:
    call = ToolUse("c", "f", "{}", signature="agw:chat:SIG")
    events_ = list(played(Answer("a", "m", [call], "tool", Tokens())))
    assert events_[1:4] == [BlockStart(0, ToolUse("c", "f", signature="agw:chat:SIG")), Part("{}"), BlockStop()]


@pytest.mark.parametrize("form", GRAMMARS)
def test_a_picture_is_told_where_the_form_has_pictures(form: str) -> None:
    picture = Image(data="aGk=", media_type="image/png")
    answer = Answer("a", "m", [Text("See: "), picture, Text("there.")], "stop", Tokens())
    writer = translate.writer(form, SHOWN)  # type: ignore[arg-type]
    text = b"".join(writer.write(event) for event in played(answer))
    heard, fault = GRAMMARS[form].follow(list(events(text.splitlines(keepends=True))))
    assert fault is None
    assert heard.text == "See: there."
    assert (b"aGk=" in text) == (form != "messages")
    if form == "responses":
        (*_, (_, last)) = events(text.splitlines(keepends=True))
        kinds = [item["type"] for item in orjson.loads(last)["response"]["output"]]
        assert kinds == ["message", "image_generation_call", "message"]


def test_pictures_of_streams_are_read() -> None:
    url = "data:image/png;base64,aGk="
    chat_chunks: list[dict[str, Any]] = [
        {"content": "See: "},
        {"images": [{"type": "image_url", "image_url": {"url": url}}]},
        {"content": "there."},
    ]
    reader = translate.reader("chat")
    said = [
        event
        for delta in chat_chunks
        for event in reader.read("", orjson.dumps({"choices": [{"index": 0, "delta": delta}]}))
    ]
    said += (
        reader.read("", orjson.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})) + reader.end()
    )
    starts = [event.block for event in said if isinstance(event, BlockStart)]
    assert starts == [Text(""), Image(data="aGk=", media_type="image/png"), Text("")]
    writer = translate.writer("chat", SHOWN)
    told = b"".join(writer.write(event) for event in said)
    assert told.count(orjson.dumps(chat_chunks[1]["images"][0])[1:-1]) == 1

    parts = [{"text": "See: "}, {"inlineData": {"mimeType": "image/png", "data": "aGk="}}, {"text": "there."}]
    other = translate.reader("gemini")
    said = other.read("", orjson.dumps({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}))
    said += other.end()
    assert [event.block for event in said if isinstance(event, BlockStart)] == starts


def test_a_picture_without_an_address_breaks_the_stream() -> None:
    reader = translate.reader("chat")
    (*_, last) = reader.read("", orjson.dumps({"choices": [{"index": 0, "delta": {"images": [{"x": 1}]}}]}))
    assert isinstance(last, Fault)
