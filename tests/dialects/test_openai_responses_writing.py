"""Requests to ``/v1/responses``: what is written is what OpenAI's own client would send, and comes back."""

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agw_proxy.dialects import custom_tools
from agw_proxy.dialects.base import (
    Audio,
    File,
    Hosted,
    Image,
    Losses,
    Message,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Untranslatable,
    sealed,
)
from agw_proxy.dialects.features import decide
from agw_proxy.dialects.openai_responses_requests import read_request, write_request
from agw_proxy.dialects.openai_responses_tools import flat_name, inner_name
from tests.dialects.responses_schema import check_request

PNG = base64.b64encode(b"\x89PNG").decode()
LOOKUP = {"type": "object", "properties": {"q": {"type": "string"}}}


def read(**members: Any) -> Request:
    return read_request({"model": "m", "input": "hi", **members})


def written(request: Request) -> tuple[dict[str, Any], list[str]]:
    losses = Losses("responses", decide)
    tree = write_request(request, losses)
    check_request(tree)
    return tree, losses.dropped


def asked(*messages: Message, **members: Any) -> Request:
    return Request(model="m", messages=list(messages), **members)


def test_a_conversation_of_another_dialect_is_written() -> None:
    tree, dropped = written(
        asked(
            Message("system", [Text("One."), Text("Two.", cache={"type": "ephemeral"})]),
            Message(
                "user", [Text("look"), Image(data=PNG, media_type="image/png"), File(data=PNG, media_type="text/plain")]
            ),
            Message(
                "assistant",
                [
                    Thinking("hm", signature=sealed("messages", "sig")),
                    Thinking("own", signature=sealed("responses", "rs_9:gAAA")),
                    Text("So "),
                    Text("it is", citations=[{"type": "char_location"}]),
                    ToolUse("toolu_1", "look", "", signature=sealed("gemini", "x")),
                ],
            ),
            Message("user", [ToolResult("toolu_1", [], failed=True), Text("and?")], name="ann"),
            Message("system", [Text("late")]),
        )
    )
    assert tree["instructions"] == "One.\n\nTwo."
    assert tree["input"] == [
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "detail": "auto", "image_url": f"data:image/png;base64,{PNG}"},
                {"type": "input_file", "file_data": f"data:text/plain;base64,{PNG}", "filename": "file.txt"},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_9",
            "summary": [{"type": "summary_text", "text": "own"}],
            "encrypted_content": "gAAA",
        },
        {"type": "message", "role": "assistant", "content": "So it is"},
        {"type": "function_call", "call_id": "toolu_1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "toolu_1", "output": ""},
        {"type": "message", "role": "user", "content": "and?"},
        {"type": "message", "role": "system", "content": "late"},
    ]
    assert tree["include"] == ["reasoning.encrypted_content"]
    assert tree["store"] is False
    assert set(dropped) == {"foreign_reasoning", "citations", "is_error", "message_name", "cache_control"}


def test_the_systems_words_alone_are_the_input() -> None:
    tree, _ = written(asked(Message("system", [Text("Tell a joke.")])))
    assert "instructions" not in tree
    assert tree["input"] == [{"type": "message", "role": "system", "content": "Tell a joke."}]


def test_a_schema_says_that_it_is_an_objects() -> None:
    tree, _ = written(asked(tools=[Tool("a", schema={}), Tool("b", schema={"type": "object", "x": 1})]))
    assert [tool["parameters"] for tool in tree["tools"]] == [
        {"type": "object", "properties": {}},
        {"type": "object", "x": 1},
    ]


def test_custom_tools_get_their_plain_input() -> None:
    tree, _ = written(
        asked(
            Message("assistant", [ToolUse("a", "patch", custom_tools.arguments_of("*** x")), ToolUse("b", "old", "y", custom=True)]),
            Message("user", [ToolResult("a", [Text("ok")]), ToolResult("b", [Text("ok")])]),
            tools=[Tool("patch", "d", grammar={"type": "text"})],
        )
    )  # fmt: skip
    assert tree["tools"] == [{"type": "custom", "name": "patch", "description": "d", "format": {"type": "text"}}]
    assert tree["input"] == [
        {"type": "custom_tool_call", "call_id": "a", "name": "patch", "input": "*** x"},
        {"type": "custom_tool_call", "call_id": "b", "name": "old", "input": "y"},
        {"type": "custom_tool_call_output", "call_id": "a", "output": "ok"},
        {"type": "custom_tool_call_output", "call_id": "b", "output": "ok"},
    ]


def test_ids_and_users_that_are_too_long_keep_their_identity() -> None:
    long = "x" * 100
    tree, _ = written(
        asked(
            Message("assistant", [ToolUse(long, "a"), ToolUse(long + "y", "a")]),
            Message("user", [ToolResult(long, [])]),
            user=long,
        )
    )
    first, second, result = (item["call_id"] for item in tree["input"])
    assert first == result != second
    assert len(tree["user"]) == 64


def test_what_responses_cannot_say_is_told() -> None:
    _, dropped = written(
        asked(
            Message("user", [Text("x"), Image(url="https://x/y", detail="tiny")]),
            stop=["END"],
            top_k=1,
            seed=1,
            presence_penalty=1,
            frequency_penalty=1,
            logit_bias={"1": 1},
            max_tokens=3,
            metadata={"a": 1},
            service_tier="standard_only",
            verbosity="chatty",
            hosted=[Hosted("web_search_20250305", "messages", {})],
            reasoning=Reasoning(effort="extreme"),
            tools=[Tool("a", schema={}, cache={"type": "ephemeral"})],
            extra={"context_management": {"edits": []}, "thinking": 1, "truncation": ["x"], "include": [["x"]]},
        )
    )
    assert set(dropped) == {
        "stop", "top_k", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "max_tokens", "metadata", "include",
        "service_tier", "verbosity", "hosted_tools", "reasoning", "cache_control", "context_management", "thinking",
        "truncation", "image_detail",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (asked(n=2), "n"),
        (asked(Message("user", [Audio("x", "wav")])), "audio_input"),
        (asked(Message("user", [Image(file_id="file_011C")])), "file_id"),
        (asked(extra={"container": "c"}), "container"),
    ],
)
def test_what_changes_the_answer_is_refused(request_: Request, param: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        written(request_)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        (Reasoning(budget=1024), {"effort": "low"}),
        (Reasoning(budget=10_000), {"effort": "medium"}),
        (Reasoning(budget=30_000, summary="auto"), {"effort": "high", "summary": "auto"}),
        (Reasoning(effort="xhigh", budget=1, summary="long"), {"effort": "xhigh", "summary": "auto"}),
        (Reasoning(enabled=False, effort="none", summary="auto"), {"effort": "none"}),
        (Reasoning(enabled=True), None),
    ],
)
def test_how_much_to_think(reasoning: Reasoning, expected: object) -> None:
    assert written(asked(reasoning=reasoning))[0].get("reasoning") == expected


def test_thinking_that_is_switched_off_is_not_asked_for() -> None:
    """Models that never think refuse the member."""
    tree, dropped = written(asked(reasoning=Reasoning(enabled=False, effort="high", summary="auto")))
    assert ("reasoning" in tree, dropped) == (False, ["reasoning"])


@pytest.mark.parametrize(
    "thought",
    [
        Thinking("hm"),
        Thinking("hm", signature=sealed("messages", "x")),
        Thinking(signature="agw:unknown:x", hidden=True),
        Thinking("hm", id="rs_1"),
    ],
)
def test_thoughts_that_are_not_openais_are_told(thought: Thinking) -> None:
    tree, dropped = written(asked(Message("user", [Text("x")]), Message("assistant", [thought, Text("y")])))
    assert [item["type"] for item in tree["input"]] == ["message", "message"]
    assert "include" not in tree
    assert dropped == ["foreign_reasoning"]


def test_tools_are_not_strict_unless_they_say_so() -> None:
    tree, _ = written(asked(tools=[Tool("a", schema={}), Tool("b", schema={}, strict=True)]))
    assert [tool["strict"] for tool in tree["tools"]] == [False, True]


def test_a_choice_without_tools_is_left_out() -> None:
    assert "tool_choice" not in written(asked(extra={"tool_choice": {"type": "web_search_preview"}}))[0]
    assert "tool_choice" not in written(asked(tool_choice=ToolChoice("required")))[0]


# -- there and back

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
NAMES = st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True)
CONTENT = st.lists(
    st.builds(lambda text: {"type": "input_text", "text": text}, WORDS)
    | st.just({"type": "input_image", "image_url": "https://x/y", "detail": "low"})
    | st.just({"type": "input_file", "file_url": "https://x/y"}),
    min_size=2,
    max_size=3,
)
ITEMS = st.one_of(
    st.builds(
        lambda role, content: {"type": "message", "role": role, "content": content},
        st.sampled_from(["user", "system"]),
        WORDS | CONTENT,
    ),
    st.builds(lambda content: {"type": "message", "role": "assistant", "content": content}, WORDS),
    st.builds(
        lambda name, words: {"type": "function_call", "call_id": name, "name": name, "arguments": words}, NAMES, WORDS
    ),
    st.builds(lambda name, words: {"type": "custom_tool_call", "call_id": name, "name": name, "input": words}, NAMES, WORDS),
    st.builds(lambda name, words: {"type": "function_call_output", "call_id": "f" + name, "output": words}, NAMES, WORDS | CONTENT),
    st.builds(
        lambda name, words, seal: {
            "type": "reasoning",
            "id": f"rs_{name}",
            "summary": [{"type": "summary_text", "text": words}] if words else [],
            "encrypted_content": seal,
        },
        NAMES,
        st.just("") | WORDS,
        st.from_regex(r"[A-Za-z0-9_=-]{1,20}", fullmatch=True),
    ),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    st.lists(ITEMS, min_size=1, max_size=6),
    st.fixed_dictionaries(
        {},
        optional={
            "instructions": WORDS,
            "temperature": st.floats(0, 2),
            "max_output_tokens": st.integers(16, 10**6),
            "parallel_tool_calls": st.booleans(),
            "stream": st.just(True),
            "user": NAMES,
            "metadata": st.dictionaries(NAMES, WORDS, max_size=3),
            "reasoning": st.just({"effort": "low", "summary": "detailed"}),
            "text": st.just({"format": {"type": "json_object"}, "verbosity": "high"}),
            "max_tool_calls": st.integers(0, 5),
        },
    ),
)
def test_what_is_read_is_written_again(items: list[dict[str, Any]], members: dict[str, Any]) -> None:
    given_ = {"model": "m", "input": items, "store": False, **members}
    tree, dropped = written(read_request(given_))
    tree.pop("include", None)
    # What leads the conversation is instructions, whichever way it came.
    if "instructions" not in members and isinstance(tree.get("instructions"), str):
        tree["input"].insert(0, {"type": "message", "role": "system", "content": tree.pop("instructions")})
        given_["input"] = [_as_words(items[0]), *items[1:]]
    assert tree == given_
    assert dropped == []


def _as_words(item: dict[str, Any]) -> dict[str, Any]:
    if isinstance(item["content"], list):
        return {**item, "content": "\n\n".join(part["text"] for part in item["content"])}
    return item


@given(st.text("abc_", min_size=1, max_size=70), st.text("abc_", min_size=1, max_size=50))
def test_names_in_namespaces_come_back(namespace: str, name: str) -> None:
    flat = flat_name(namespace, name)
    assert len(flat) <= 64
    assert inner_name(namespace, flat) == name


def test_a_name_that_would_be_too_long_keeps_its_own_part() -> None:
    flat = flat_name("n" * 60, "find")
    assert flat.startswith("n" * 40)
    assert flat.endswith("__find")
    assert len(flat) == 64
    assert flat != flat_name("n" * 61, "find")
    assert inner_name("n" * 60, flat) == "find"
    assert inner_name("other", flat) == flat


def test_calls_in_namespaces_keep_them() -> None:
    item = {"type": "function_call", "call_id": "c", "name": "find", "namespace": "mcp__docs", "arguments": "{}"}
    made = read(input=[item])
    assert made.messages[0].blocks == [ToolUse("c", "mcp__docs__find", "{}", namespace="mcp__docs")]
    assert written(made)[0]["input"] == [item]


def test_a_foreign_signature_comes_back_as_it_went() -> None:
    seal = sealed("messages", "sig==")
    hidden = {"type": "reasoning", "id": "rs_agw", "summary": [], "encrypted_content": seal}
    assert read(input=[hidden]).messages[0].blocks == [Thinking(signature=seal, hidden=True, id="rs_agw")]


def test_the_signature_of_a_call_stands_after_it() -> None:
    seal = sealed("gemini", "sig")
    carrier = {"type": "reasoning", "summary": [], "encrypted_content": f"agw:after:{seal}"}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    assert read(input=[call, carrier]).messages[0].blocks == [ToolUse("c", "f", "{}", signature=seal)]
    assert read(input=[{"role": "user", "content": "x"}, carrier]).messages == [Message("user", [Text("x")])]


def test_a_custom_tool_can_stand_as_a_function() -> None:
    tool = Tool("patch", "Edits.", grammar={"type": "grammar", "syntax": "lark", "definition": "start: x"})
    made = custom_tools.wrapped(tool)
    assert made.schema == {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    assert made.description is not None
    assert "Edits." in made.description
    assert "start: x" in made.description
    assert custom_tools.wrapped(made) == made
    assert custom_tools.wrapped(Tool("bare")).description is None
    for words in ("", 'a "b"\n', "{}"):
        assert custom_tools.input_of(custom_tools.arguments_of(words)) == words
    assert custom_tools.input_of("not json") == "not json"
    assert custom_tools.input_of('{"other": 1}') == '{"other": 1}'
