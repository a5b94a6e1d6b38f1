"""Whole answers told as streams: each writer takes them, and the stream says what the answer did."""

import orjson
import pytest

from agw_proxy.conformance import chat, gemini, messages, responses
from agw_proxy.conformance.frames import events
from agw_proxy.dialects import translate
from agw_proxy.dialects.base import Answer, Block, Image, Refusal, Request, Shown, Text, Thinking, Tokens, ToolUse
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
