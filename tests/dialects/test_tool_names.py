"""Names that a target does not take: they fit there, hang on nothing else, and come back as they were."""

import re
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.config.presets import Quirks
from agw_proxy.dialects import translate
from agw_proxy.dialects.base import Message, Request, Shown, Spoken, Text, Tool, ToolChoice, ToolResult, ToolUse
from agw_proxy.dialects.sse import Events
from agw_proxy.dialects.tool_names import fitting, own_names, renamed
from tests.support.providers import FORMS, Scene

LONG = "mcp__" + "a_server_with_a_long_name__" * 4 + "search.files"
ODD = "files.read"
GRAMMARS: dict[Spoken, str] = {
    "chat": r"[A-Za-z0-9_-]{1,64}", "responses": r"[A-Za-z0-9_-]{1,64}", "messages": r"[A-Za-z0-9_-]{1,128}",
    "gemini": r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}",
}  # fmt: skip
SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}}


@given(st.text(min_size=1, max_size=200), st.sampled_from(get_args(Spoken)))
def test_every_name_becomes_one_that_fits_and_stays_if_it_does(name: str, target: Spoken) -> None:
    made = fitting(name, target)
    assert re.fullmatch(GRAMMARS[target], made)
    assert fitting(made, target) == made
    assert (made == name) == (re.fullmatch(GRAMMARS[target], name) is not None)


def test_names_that_differ_stay_different() -> None:
    names = [LONG, LONG + "x", "a.b", "a_b", "a-b", "a:b"]
    assert len({fitting(name, "chat") for name in names}) == len(names)


def request() -> Request:
    use = ToolUse("c1", LONG, "{}")
    return Request(
        "m",
        [Message("user", [Text("x")]), Message("assistant", [use]), Message("user", [ToolResult("c1", [Text("r")], name=LONG)])],
        tools=[Tool(LONG, schema=SCHEMA), Tool(ODD, schema=SCHEMA), Tool("plain", schema=SCHEMA)],
        tool_choice=ToolChoice("auto", allowed=[LONG, "plain"]),
    )  # fmt: skip


def test_a_request_is_renamed_throughout_and_itself_stays_as_it_is() -> None:
    asked = request()
    made = renamed(asked, "chat")
    short, odd = fitting(LONG, "chat"), fitting(ODD, "chat")
    assert [tool.name for tool in made.tools] == [short, odd, "plain"]
    assert made.tool_choice == ToolChoice("auto", allowed=[short, "plain"])
    assert [block.name for message in made.messages[1:] for block in message.blocks] == [short, short]  # type: ignore[union-attr]
    assert asked == request()
    assert own_names(asked, "chat") == {short: LONG, odd: ODD}
    assert own_names(None, "chat") == {}
    few = Request("m", [], tools=[Tool("plain", schema=SCHEMA)], tool_choice=ToolChoice("one", "plain"))
    assert renamed(few, "chat") is few
    one = Request("m", [], tools=[Tool(ODD, schema=SCHEMA)], tool_choice=ToolChoice("one", ODD))
    assert renamed(one, "chat").tool_choice == ToolChoice("one", odd)


@pytest.mark.parametrize("form", ["chat", "responses", "messages", "gemini"])
@pytest.mark.parametrize("spoken", get_args(Spoken))
def test_a_call_comes_back_under_the_callers_own_name(form: Spoken, spoken: Spoken) -> None:
    asked = request()
    sent = orjson.loads(translate.write_request(asked, spoken, "far", Quirks()).body)
    short = fitting(LONG, spoken)
    assert LONG not in orjson.dumps(sent).decode()
    assert orjson.dumps(sent).decode().count(short) >= 2
    scene = Scene(calls=((short, {"x": "y"}), ("plain", {})), stop="tool")
    shown = Shown("id", "m", 1, request=asked)
    whole = translate.answer(spoken, form, orjson.dumps(FORMS[spoken][0](scene)), shown).decode()
    reader, writer = translate.reader(spoken, asked), translate.writer(form, shown)
    events: list[Any] = [
        event for name, data in Events().feed(FORMS[spoken][1](scene)) for event in reader.read(name, data)
    ]
    streamed = b"".join(writer.write(event) for event in [*events, *reader.end()]).decode()
    for told in (whole, streamed):
        assert LONG in told
        assert short not in told
