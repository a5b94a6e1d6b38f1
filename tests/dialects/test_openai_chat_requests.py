"""Chat requests: what is read, what is written, what the published types take, and that a round trip changes nothing."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agw_proxy.dialects.base import (
    Format,
    Malformed,
    Message,
    Reasoning,
    Request,
    Tree,
    Untranslatable,
)
from agw_proxy.dialects.openai_chat_requests import read_request, write_request
from tests.dialects.chat_published import SCHEMA, TOOLS, asked, published, written
from tests.dialects.chat_vectors import PIXEL, losses


def test_the_published_types_refuse_what_openai_does_not_know() -> None:
    for tree in (
        {"model": "m", "messages": [], "top_k": 1},
        {"model": "m", "messages": [{"role": "user", "content": "", "x": 1}]},
    ):
        with pytest.raises(ValidationError):
            published(tree)


def test_bounds_on_tokens_go_by_the_name_that_the_server_knows() -> None:
    assert asked(max_tokens=5).max_tokens == asked(max_completion_tokens=5, max_tokens=9).max_tokens == 5
    assert written(asked(max_tokens=5))[0]["max_completion_tokens"] == 5
    tree = write_request(asked(max_tokens=5), losses(), max_tokens_name="max_tokens")
    assert tree["max_tokens"] == 5
    assert "max_completion_tokens" not in tree


def test_stop_sequences_are_a_string_or_strings() -> None:
    assert [asked(stop=stop).stop for stop in (None, "", "x", ["x", "", "y"])] == [[], [], ["x"], ["x", "y"]]


def test_a_user_of_a_long_name_is_told_by_its_digest() -> None:
    users = [written(asked(user=user))[0]["user"] for user in ("u" * 64, "u" * 65, "u" * 65, "v" * 65)]
    assert users[0] == "u" * 64
    assert users[1] == users[2] != users[3]
    assert {len(user) for user in users} == {64}


def test_streams_always_ask_for_usage() -> None:
    request = asked(stream=True)
    assert request.include_usage is False
    assert written(request)[0]["stream_options"] == {"include_usage": True}
    assert asked(stream=True, stream_options={"include_usage": True}).include_usage is True
    assert "stream_options" not in written(asked())[0]
    obscured = asked(stream=True, stream_options={"include_obfuscation": True})
    assert written(obscured)[0]["stream_options"] == {"include_usage": True, "include_obfuscation": True}
    assert written(asked(stream_options={"include_obfuscation": True}))[1] == ["stream_options.include_obfuscation"]


@pytest.mark.parametrize(
    ("members", "wanted", "effort", "dropped"),
    [
        ({}, None, None, []),
        ({"reasoning_effort": "high"}, Reasoning("high"), "high", []),
        ({"reasoning_effort": "none"}, Reasoning("none", enabled=False), "none", []),
        ({"reasoning": {"max_tokens": 3000}}, Reasoning(None, 3000, "auto"), "low", ["reasoning_summary"]),
        ({"reasoning": {"effort": "low", "exclude": True}}, Reasoning("low"), "low", []),
        ({"reasoning": {"enabled": False}}, Reasoning(enabled=False), None, ["reasoning"]),
        ({"include_reasoning": True}, Reasoning(summary="auto"), None, ["reasoning_summary"]),
    ],
)
def test_reasoning(members: Tree, wanted: Reasoning | None, effort: str | None, dropped: list[str]) -> None:
    request = asked(**members)
    assert request.reasoning == wanted
    tree, lost = written(request)
    assert (tree.get("reasoning_effort"), lost) == (effort, dropped)


@pytest.mark.parametrize(("budget", "effort"), [(1024, "low"), (8192, "medium"), (99999, "high")])
def test_budgets_become_efforts(budget: int, effort: str) -> None:
    assert (
        written(Request("m", [Message("user", [])], reasoning=Reasoning(budget=budget)))[0]["reasoning_effort"]
        == effort
    )


def test_an_effort_that_openai_does_not_know_is_told() -> None:
    tree, dropped = written(Request("m", [Message("user", [])], reasoning=Reasoning("huge")))
    assert "reasoning_effort" not in tree
    assert dropped == ["reasoning"]


def test_forms_of_answers() -> None:
    assert asked(response_format={"type": "text"}).format is None
    assert asked(response_format={"type": "json_object"}).format == Format()
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True, "description": "d"}}
    request = asked(response_format=schema)
    assert request.format == Format(SCHEMA, "n", "d", strict=True)
    assert written(request)[0]["response_format"] == schema


def test_bounds_and_words_of_the_reference_hold() -> None:
    request = Request(
        "m", [Message("user", [])], stop=list("abcde"), top_k=3, logprobs=30, verbosity="huge",
        service_tier="batch", metadata={"a": "b", "c": 1},
    )  # fmt: skip
    tree, dropped = written(request)
    assert tree["stop"] == list("abcd")
    assert tree["top_logprobs"] == 20
    assert tree["metadata"] == {"a": "b"}
    assert set(dropped) == {"top_k", "stop", "verbosity", "service_tier", "metadata"}
    assert written(Request("m", [Message("user", [])], service_tier="standard_only"))[0]["service_tier"] == "default"


def test_other_members_are_carried_to_who_knows_them_and_told_of_elsewhere() -> None:
    request = asked(prompt_cache_key="k", min_p=0.1, odd=None, user="u", safety_identifier="s")
    assert request.extra == {"prompt_cache_key": "k", "min_p": 0.1, "safety_identifier": "s"}
    tree, dropped = written(request)
    assert (tree["prompt_cache_key"], tree["safety_identifier"], tree["user"]) == ("k", "s", "u")
    assert dropped == ["min_p"]
    assert asked(safety_identifier="s").user == "s"
    assert written(Request("m", [Message("user", [])], extra={"prompt_cache_key": 5}))[1] == ["prompt_cache_key"]


def test_options_of_the_cache_are_carried_where_the_reference_knows_them() -> None:
    known: Tree = {"mode": "explicit", "ttl": "30m"}
    assert written(asked(prompt_cache_options=known))[0]["prompt_cache_options"] == known
    odds: list[Tree] = [{"ttl": "12h", "prewarm": True}, {"ttl": []}]
    for odd in odds:
        assert written(asked(prompt_cache_options=odd))[1] == ["prompt_cache_options"]


def test_spoken_answers_go_by_the_name_in_the_table() -> None:
    spoken = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
    request = asked(**spoken)
    assert request.extra == {"audio_output": spoken}
    assert {name: written(request)[0][name] for name in spoken} == spoken
    assert asked(modalities=["text"]).extra == {}
    assert written(asked(modalities=["text", "image"]))[1] == ["modalities"]


def test_what_only_an_upstream_knows_is_refused() -> None:
    with pytest.raises(Untranslatable) as caught:
        written(Request("m", [Message("user", [])], extra={"previous_response_id": "resp_1"}))
    assert caught.value.param == "previous_response_id"


def test_a_spoken_answer_that_the_history_names_is_told() -> None:
    request = asked({"role": "user", "content": "Hi"}, {"role": "assistant", "audio": {"id": "audio_1"}})
    assert written(request)[1] == ["messages.audio"]


def test_several_choices_are_refused_since_one_answer_is_read_back() -> None:
    with pytest.raises(Untranslatable) as caught:
        written(Request("m", [Message("user", [])], n=2))
    assert caught.value.param == "n"


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"messages": "x"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "odd"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [1]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "odd"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].image_url"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]},
         "messages[0].content[0].image_url.url"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "!", "format": "wav"}}]}]},
         "messages[0].content[0].input_audio.data"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "messages[0].content[0].file.file_data"),
        ({"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": "https://a.b"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "assistant", "content": [{"type": "image_url", "image_url": "https://a.b"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "tool", "tool_call_id": "a", "content": [{"type": "refusal", "refusal": "x"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].name"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls[0].function"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}, "messages[0].tool_calls[0].id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {}}}]}]},
         "messages[0].tool_calls[0].function.arguments"),
        ({"model": None}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"seed": 1e300}, "seed"),
        ({"temperature": True}, "temperature"),
        ({"stream": 1}, "stream"),
        ({"stop": [1]}, "stop[0]"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"response_format": {"type": "odd"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
        ({"tool_choice": "odd"}, "tool_choice"),
        ({"tool_choice": {"type": "odd"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "none"}}}, "tool_choice.allowed_tools.mode"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}}, "tool_choice.allowed_tools.tools"),
        ({"function_call": "odd"}, "function_call"),
    ],
)  # fmt: skip
def test_bad_members_are_named(members: Tree, param: str) -> None:
    with pytest.raises(Malformed) as caught:
        asked(**members) if "messages" not in members else read_request({"model": "m", **members})
    assert caught.value.param == param


# -- properties

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=5)
names = st.sampled_from(["f", "g"])
text_part = st.builds(lambda word: {"type": "text", "text": word}, words)
image_part = st.sampled_from(
    [
        {"type": "image_url", "image_url": {"url": "https://a.b/c", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "input_audio", "input_audio": {"data": PIXEL, "format": "mp3"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PIXEL}"}},
    ]
)
many_texts = st.lists(text_part, min_size=2, max_size=3)
user = st.builds(
    lambda content: {"role": "user", "content": content},
    words | st.lists(text_part | image_part, min_size=2, max_size=4) | image_part.map(lambda part: [part]),
)
system = st.builds(lambda content: {"role": "system", "content": content, "name": "n"}, words | many_texts)
function = st.builds(
    lambda identity, name: {"id": identity, "type": "function", "function": {"name": name, "arguments": "{}"}},
    words,
    names,
)
assistant = st.builds(
    lambda content, calls: {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {}),
    words, st.lists(function, max_size=2),
) | st.builds(lambda word: {"role": "assistant", "content": None, "refusal": word}, words)  # fmt: skip
tool = st.builds(
    lambda identity, content: {"role": "tool", "tool_call_id": identity, "content": content}, words, words | many_texts
)
tools = st.sampled_from(
    [TOOLS, [{"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}}]]
)
requests = st.fixed_dictionaries(
    {"model": words, "messages": st.lists(user | system | assistant | tool, min_size=1, max_size=5)},
    optional={
        "temperature": st.floats(0, 2), "top_p": st.floats(0, 1), "max_completion_tokens": st.integers(1, 9),
        "stop": st.lists(words, min_size=1, max_size=4), "n": st.just(1), "seed": st.integers(),
        "presence_penalty": st.floats(-2, 2), "frequency_penalty": st.floats(-2, 2), "logit_bias": st.just({"5": 1}),
        "tools": tools, "reasoning_effort": st.sampled_from(["none", "low", "max"]), "verbosity": st.just("low"),
        "user": words, "metadata": st.just({"a": "b"}), "service_tier": st.just("flex"), "store": st.booleans(),
        "response_format": st.just({"type": "json_object"}), "prompt_cache_key": words,
        "prediction": st.just({"type": "content", "content": "x"}),
    },
)  # fmt: skip


@given(
    requests, st.booleans(), st.booleans(), st.sampled_from(["auto", {"type": "function", "function": {"name": "f"}}])
)
def test_a_round_trip_changes_nothing(tree: Tree, stream: bool, logprobs: bool, choice: Any) -> None:
    if stream:
        tree |= {"stream": True, "stream_options": {"include_usage": True}}
    if logprobs:
        tree |= {"logprobs": True, "top_logprobs": 2}
    if "tools" in tree:
        tree |= {"tool_choice": choice, "parallel_tool_calls": False}
    made, dropped = written(read_request(tree))
    tree.pop("n", None)
    assert made == tree
    assert dropped == []


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False)
    | st.sampled_from(["", "x", "user", "tool", "assistant", "function", "text", "auto", "json_schema"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "function", "name", "tool_calls", "id", "image_url", "url",
                                       "file", "reasoning_details", "mode", "tools", "allowed_tools"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
MEMBERS = sorted(
    {
        *Request.__struct_fields__,
        "function_call",
        "functions",
        "response_format",
        "reasoning_effort",
        "stream_options",
        "audio",
    }
)


@given(st.dictionaries(st.sampled_from(MEMBERS), anything, max_size=4), st.lists(anything, min_size=1, max_size=3))
def test_no_tree_whatever_raises_anything_but_malformed(members: Tree, messages: list[Any]) -> None:
    for tree in ({"model": "m", "messages": [{"role": "user"}], **members}, {"model": "m", "messages": messages}):
        try:
            request = read_request(tree)
        except Malformed:
            continue
        assert msgspec.convert(msgspec.to_builtins(request), Request) == request, "a member is not of its type"
        with suppress(Untranslatable):
            write_request(request, losses())
