from typing import Any

import pytest

from agw_proxy.dialects.base import (
    Audio,
    File,
    Image,
    Message,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
    Tree,
    Untranslatable,
)
from tests.dialects.messages_requests import model, talk, user, written


def test_turns_alternate_and_results_come_first() -> None:
    tree = written(
        talk(
            Message("system", [Text("one")]),
            user(Text("a")),
            model(Text("b")),
            model(ToolUse("1", "f", '{"x": 1}')),
            user(Text("c")),
            user(ToolResult("1", [Text("r")])),
            Message("system", [Text("two")]),
            user(Text("d")),
            tools=[Tool("f", schema={})],
        )
    )
    assert tree["system"] == [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert [turn["role"] for turn in tree["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for block in tree["messages"][2]["content"]] == ["tool_result", "text", "text"]


def test_empty_texts_are_left_out_and_prefills_trimmed() -> None:
    tree = written(talk(user(Text(""), Text("a"), Text(" \n")), model(Text("")), user(Text("b")), model(Text("so: "))))
    assert tree["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "so:"}]},
    ]


def test_a_conversation_begins_with_the_user() -> None:
    assert written(talk(model(Text("Hi")), user(Text("a"))))["messages"][0]["role"] == "user"
    alone = written(talk(Message("system", [Text("Say hi.")])))
    assert "system" not in alone
    assert alone["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Say hi."}]}]
    with pytest.raises(Untranslatable):
        written(talk(user(Text(""))))


def test_a_turn_does_not_end_in_a_thought() -> None:
    thought = Thinking("t", "agw:messages:s")
    tree = written(talk(user(Text("a")), model(thought), user(Text("b")), model(Text("c"), thought), user(Text("d"))))
    assert [len(turn["content"]) for turn in tree["messages"]] == [2, 1, 1]


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', "{'a': 1}", '{"a":' * 300 + "1" + "}" * 300])
def test_arguments_that_are_no_object_stay_to_be_seen(arguments: str) -> None:
    tree = written(talk(user(Text("a")), model(ToolUse("1", "f", arguments)), user(ToolResult("1", []))))
    assert tree["messages"][1]["content"][0]["input"] == {"_raw": arguments}


def test_ids_of_calls_keep_to_the_letters_and_stay_apart() -> None:
    calls = [ToolUse("f:0", "f"), ToolUse("f.0", "f"), ToolUse("", "f")]
    results = [ToolResult("f.0", []), ToolResult("f:0", []), ToolResult("", [])]
    tree = written(talk(user(Text("a")), model(*calls), user(*results), tools=[Tool("f", schema={})]))
    ids = [block["id"] for block in tree["messages"][1]["content"]]
    assert len(set(ids)) == 3
    assert [block["tool_use_id"] for block in tree["messages"][2]["content"]] == [ids[1], ids[0], ids[2]]


def test_calls_of_one_id_get_their_own() -> None:
    turns = [model(ToolUse("call_0", "f")), user(ToolResult("call_0", [Text("r")]))]
    both = [model(ToolUse("x", "f"), ToolUse("x", "f")), user(ToolResult("x", []), ToolResult("x", []))]
    tree = written(talk(user(Text("a")), *turns, *turns, *both, tools=[Tool("f", schema={})]))
    ids = [block["id"] for turn in tree["messages"] for block in turn["content"] if block["type"] == "tool_use"]
    results = [
        block["tool_use_id"] for turn in tree["messages"] for block in turn["content"] if block["type"] == "tool_result"
    ]
    assert ids == results == ["call_0", "call_0_2", "x", "x_2"]


def test_signatures_of_gemini_are_told() -> None:
    said, call = Text("b", signature="agw:gemini:S"), ToolUse("1", "f", signature="agw:gemini:S")
    written(talk(user(Text("a")), model(said), user(Text("c"))), "foreign_reasoning")
    written(talk(user(Text("a")), model(call), user(ToolResult("1", []))), "foreign_reasoning")


def test_media_that_the_api_does_not_take_are_refused_or_told() -> None:
    for block in (
        Image(data="x", media_type="image/tiff"),
        File(data="x", media_type="application/zip"),
        Audio("x", "wav"),
    ):
        with pytest.raises(Untranslatable) as caught:
            written(talk(user(block)))
        assert caught.value.param == "messages[0]"
    with pytest.raises(Untranslatable):
        written(talk(user(Image(file_id="file-1"))))
    with pytest.raises(Untranslatable):
        written(talk(user(File(data="//8=", media_type="text/plain"))))
    document = written(talk(user(File(data="YQ==", media_type="text/csv; charset=utf-8", name="a.csv"))))
    assert document["messages"][0]["content"][0] == {
        "type": "document", "title": "a.csv", "source": {"type": "text", "media_type": "text/plain", "data": "a"},
    }  # fmt: skip
    written(talk(user(Text("a"), Image(url="https://x.test", detail="high"))), "image_detail")
    written(talk(user(Text("a")), model(Text("b"), Image(url="https://x.test")), user(Text("c"))), "assistant_media")
    written(talk(Message("system", [Image(url="https://x.test")]), user(Text("c"))), "system_media")


WEB = {"type": "web_search_result_location", "url": "https://x.test", "title": None, "cited_text": "x"}
OWN = {**WEB, "encrypted_index": "e"}
FOREIGN: list[Any] = [
    WEB,
    {**WEB, "encrypted_index": ""},
    {**OWN, "cited_text": ""},
    {**OWN, "type": "of_tomorrow"},
    {**OWN, "type": ["char_location"]},
]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_citations_that_point_nowhere_are_dropped(foreign: Tree) -> None:
    tree = written(
        talk(user(Text("a")), model(Text("b", [foreign, {**OWN, "file_id": None}]), Refusal("no")), user(Text("c"))),
        "citations",
    )
    assert tree["messages"][1]["content"] == [
        {"type": "text", "text": "b", "citations": [OWN]},
        {"type": "text", "text": "no"},
    ]
