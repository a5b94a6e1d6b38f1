"""Formats whose top is no object: OpenAI gets them in one, and the caller what was in it."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.config.presets import Quirks
from agw_proxy.config.values import Spoken
from agw_proxy.dialects import translate
from agw_proxy.dialects.base import Answer, Format, Message, Request, Shown, Text, Tokens
from agw_proxy.dialects.boxed import boxed, boxes, opened
from agw_proxy.dialects.sse import Events
from tests.support.providers import FORMS, Scene

RECIPE = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
LIST = {"type": "array", "items": {"$ref": "#/$defs/Recipe"}, "$defs": {"Recipe": RECIPE}}
SAID = '[{"name":"a } b"}, {"name":"c"}]'


def request(schema: dict[str, Any], *, stream: bool = False) -> Request:
    asked = [Message("user", [Text("Two recipes")])]
    return Request("m", asked, format=Format(schema), stream=stream)


def shown(schema: dict[str, Any]) -> Shown:
    return Shown(id="r1", model="m", now=0, request=request(schema))


def streamed(spoken: Spoken, words: tuple[str, ...], schema: dict[str, Any]) -> str:
    """What a caller of Gemini's reads of words that an upstream streams."""
    reader, writer = translate.reader(spoken, request(schema)), translate.writer("gemini", shown(schema))
    events = Events()
    frames = events.feed(FORMS[spoken][1](Scene(text=words))) + events.end()
    said = [event for name, data in frames for event in reader.read(name, data)] + reader.end()
    told = Events().feed(b"".join(writer.write(event) for event in said))
    parts = [orjson.loads(data)["candidates"][0]["content"]["parts"][0] for _, data in told]
    return "".join(part.get("text", "") for part in parts)


@pytest.mark.parametrize(
    ("spoken", "path"), [("chat", ("response_format", "json_schema")), ("responses", ("text", "format"))]
)
def test_a_list_stands_in_an_object_for_openai(spoken: Spoken, path: tuple[str, str]) -> None:
    body = orjson.loads(translate.write_request(request(LIST), spoken, "m", Quirks()).body)
    schema = body[path[0]][path[1]]["schema"]
    assert schema == {
        "type": "object",
        "properties": {"answer": {"type": "array", "items": {"$ref": "#/$defs/Recipe"}}},
        "required": ["answer"],
        "additionalProperties": False,
        "$defs": {"Recipe": RECIPE},
    }


def test_what_refers_to_itself_is_a_definition_in_the_object() -> None:
    literal = {"const": {"$ref": "#"}}
    tree = {
        "type": "array",
        "items": {"anyOf": [{"$ref": "#"}, {"$ref": "#/items/anyOf/2"}, {"$ref": "#/$defs/answer"}, literal]},
        "$defs": {"answer": {"type": "object", "properties": {"const": {"$ref": "#"}}}},
    }
    made = boxed(request(tree), "chat").format
    assert made is not None
    assert made.schema == {
        "type": "object",
        "properties": {"answer": {"$ref": "#/$defs/answer_"}},
        "required": ["answer"],
        "additionalProperties": False,
        "$defs": {
            "answer": {"type": "object", "properties": {"const": {"$ref": "#/$defs/answer_"}}},
            "answer_": {
                "type": "array",
                "items": {
                    "anyOf": [
                        {"$ref": "#/$defs/answer_"},
                        {"$ref": "#/$defs/answer_/items/anyOf/2"},
                        {"$ref": "#/$defs/answer"},
                        literal,
                    ]
                },
            },
        },
    }


@pytest.mark.parametrize("definitions", [[RECIPE], "none", None])
def test_what_refers_to_itself_may_have_definitions_that_are_none(definitions: object) -> None:
    made = boxed(request({"type": "array", "items": {"$ref": "#"}, "$defs": definitions}), "chat").format
    assert made is not None
    assert made.schema is not None
    assert made.schema["$defs"] == {"answer": {"type": "array", "items": {"$ref": "#/$defs/answer"}}}


@pytest.mark.parametrize("spoken", ["chat", "responses"])
def test_what_was_in_the_object_is_the_answer(spoken: Spoken) -> None:
    whole = f'{{"answer": {SAID}}}'
    body = orjson.dumps(FORMS[spoken][0](Scene(text=(whole,))))
    made = orjson.loads(translate.answer(spoken, "gemini", body, shown(LIST)))
    assert made["candidates"][0]["content"]["parts"] == [{"text": SAID}]
    pieces = tuple(whole[at : at + 5] for at in range(0, len(whole), 5))
    assert streamed(spoken, pieces, LIST) == SAID


@given(
    st.recursive(
        st.none() | st.integers(-9, 9) | st.text(max_size=9),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.lists(st.integers(1, 7), min_size=1),
    st.sampled_from(["", " ", "\n "]),
)
def test_any_value_cut_anywhere_comes_out_as_it_was(value: object, cuts: list[int], blank: str) -> None:
    inner = orjson.dumps(value).decode()
    whole = f'{blank}{{{blank}"answer"{blank}:{blank}{inner}{blank}}}{blank}'
    pieces: list[str] = []
    at = 0
    while at < len(whole):
        step = cuts[len(pieces) % len(cuts)]
        pieces.append(whole[at : at + step])
        at += step
    assert streamed("chat", tuple(pieces), LIST).strip() == inner
    answer = opened(Answer("", "", [Text(whole)], "stop", Tokens()))
    assert isinstance(answer.blocks[0], Text)
    assert answer.blocks[0].text.strip() == inner


@pytest.mark.parametrize("words", [SAID, "Sorry.", '{"other": 1}', "", '{"answe', " " * 2000 + SAID])
def test_words_in_no_box_stay(words: str) -> None:
    assert streamed("chat", (words,), LIST) == words


def test_what_was_cut_is_what_there_is() -> None:
    assert streamed("chat", ('{"answer":[{"name', '":"a'), LIST) == '[{"name":"a'


@pytest.mark.parametrize(
    ("schema", "needs"),
    [
        (RECIPE, False),
        ({}, False),
        ({"properties": {}}, False),
        ({"$ref": "#/$defs/Recipe", "$defs": {"Recipe": RECIPE}}, False),
        ({"type": "array", "items": {"$ref": "#"}}, True),
        (LIST, True),
        ({"type": ["object", "null"]}, True),
        ({"enum": ["a", "b"]}, True),
        ({"anyOf": [RECIPE, {"type": "string"}]}, True),
    ],
)
def test_only_what_openai_refuses_and_can_be_moved_is_boxed(schema: dict[str, Any], needs: bool) -> None:
    asked = request(schema)
    assert boxes(asked, "chat") == needs
    assert (boxed(asked, "responses") is not asked) == needs
    assert boxed(asked, "messages") is asked
    assert boxed(asked, "gemini") is asked
