"""What agw/echo answers: each promise, and the shapes by the openai SDK's own types."""

import base64
import math
import struct
from typing import Any

import orjson
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import Completion, CreateEmbeddingResponse, Model, ModerationCreateResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from agw_proxy.upstreams.echo_answers import READY, Answered, answer

CHAT, TEXT, VECTORS, VERDICTS = "/chat/completions", "/completions", "/embeddings", "/moderations"
USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "minLength": 2}, "days": {"type": "integer", "minimum": 2}},
    "required": ["city", "days"],
}
TOOLS = [
    {"type": "web_search"},
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "weather_map"}},
]
MINIMAL = '{"city":"xx","days":2}'


def user(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def ask(path: str, method: str = "POST", **members: Any) -> tuple[Answered, bytes]:
    answered = answer(method, path, orjson.dumps(members))
    body = b"".join(answered.pieces)
    assert answered.length in {None, len(body)}
    return answered, body


def get(path: str, **members: Any) -> Any:
    answered, body = ask(path, **members)
    assert answered.status == 200, body
    return orjson.loads(body)


def chat(messages: Any = None, **members: Any) -> ChatCompletion:
    return ChatCompletion.model_validate(
        get(CHAT, messages=user("Say hello") if messages is None else messages, **members)
    )


def said(messages: Any, **members: Any) -> str | None:
    return chat(messages, **members).choices[0].message.content


def refused(path: str, **members: Any) -> tuple[int, Any, str]:
    answered, body = ask(path, **members)
    error = orjson.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answered.status, error["param"], error["message"]


def events(path: str, **members: Any) -> list[Any]:
    answered, body = ask(path, "POST", **(USAGE | members))
    assert (answered.status, answered.length) == (200, None), body
    *lines, done, end = body.decode().split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [orjson.loads(line.removeprefix("data: ")) for line in lines]


def chunks(messages: Any, **members: Any) -> list[ChatCompletionChunk]:
    return [ChatCompletionChunk.model_validate(one) for one in events(CHAT, messages=messages, **members)]


def test_chat_repeats_the_last_user_message_and_counts_words() -> None:
    reply = chat(
        [
            *user("one"),
            {"role": "assistant", "content": None},
            *user("two  more words"),
            {"role": "system", "content": "x"},
        ]
    )
    assert (reply.model, reply.object) == ("agw/echo", "chat.completion")
    assert reply.choices[0].message.content == "two  more words"
    assert (reply.choices[0].message.role, reply.choices[0].finish_reason) == ("assistant", "stop")
    assert reply.usage is not None
    assert reply.usage.prompt_tokens_details is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (5, 3, 8)
    assert reply.usage.prompt_tokens_details.cached_tokens == 0


def test_the_same_request_gives_the_same_bytes_and_another_another_id() -> None:
    assert ask(CHAT, messages=user("a"))[1] == ask(CHAT, messages=user("a"))[1]
    assert chat(user("a")).id != chat(user("b")).id
    assert chat(user("a")).created == chat(user("b")).created


def test_the_model_is_answered_as_it_was_asked() -> None:
    assert chat(model='agw/echo"content":""').model == 'agw/echo"content":""'
    assert chat(model=None).model == "agw/echo"


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([], READY),
        ([{"role": "system", "content": "x"}], READY),
        (user(""), ""),
        (user(None), ""),
        (user("  \n "), "  \n "),
        (user(" a\u00a0b\n\nc \n"), " a\u00a0b\n\nc \n"),
        (user([{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "x"}}]), "see [image_url]"),
        ([*user("q"), {"role": "tool", "tool_call_id": "1", "content": "12 C"}], "Tool result: 12 C"),
        ([{"role": "tool", "content": [{"type": "text", "text": "12 C"}]}, *user("q")], "q"),
    ],
)
def test_what_is_said(messages: Any, text: str) -> None:
    assert said(messages) == text
    parts = chunks(messages)
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == text


def test_a_stream_comes_word_by_word_with_role_first_then_finish_usage_and_done() -> None:
    first, *words, last, usage = chunks(user("Say hello to all "))
    assert first.choices[0].delta.role == "assistant"
    assert first.choices[0].delta.content == ""
    assert [word.choices[0].delta.content for word in words] == ["Say", " hello", " to", " all "]
    assert {word.choices[0].finish_reason for word in (first, *words)} == {None}
    assert (last.choices[0].finish_reason, last.choices[0].delta.content) == ("stop", None)
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens == 4
    assert {part.id for part in (first, *words, last)} == {usage.id}


def test_usage_comes_in_a_stream_only_where_it_was_asked_for() -> None:
    for options in (None, {}, {"include_usage": False}):
        parts = events(CHAT, messages=user("a"), stream_options=options)
        assert all(part["choices"] and "usage" not in part for part in parts)


FORMS: list[dict[str, Any]] = [
    {},
    {"n": 3},
    {"max_tokens": 2},
    {"n": 2, "tools": TOOLS, "tool_choice": "required"},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
    {"response_format": {"type": "json_object"}},
    {"agw_echo": {"chunks": 5}},
    {"agw_echo": {"bytes": 1_003}, "n": 2},
]


@pytest.mark.parametrize("members", FORMS)
def test_a_stream_adds_up_to_the_plain_answer(members: dict[str, Any]) -> None:
    plain = chat(user("Say hello to all"), **members)
    state = ChatCompletionStreamState()
    for part in chunks(user("Say hello to all"), **members):
        state.handle_chunk(part)
    whole = state.current_completion_snapshot  # the final one raises for "length"
    for one, other in zip(plain.choices, whole.choices, strict=True):
        assert (one.index, one.finish_reason) == (other.index, other.finish_reason)
        assert one.message.content == other.message.content
        calls, more = ([call.model_dump() for call in m.tool_calls or ()] for m in (one.message, other.message))
        assert [(c["type"], c["function"]["name"], c["function"]["arguments"]) for c in calls] == [
            (c["type"], c["function"]["name"], c["function"]["arguments"]) for c in more
        ]
    assert plain.usage == whole.usage


@pytest.mark.parametrize("member", ["max_tokens", "max_completion_tokens"])
def test_a_bound_on_tokens_cuts_words(member: str) -> None:
    for bound, text, finish in (
        (2, "Say hello", "length"),
        (4, "Say hello to all ", "stop"),
        (9, "Say hello to all ", "stop"),
    ):
        choice = chat(user("Say hello to all "), **{member: bound}).choices[0]
        assert (choice.message.content, choice.finish_reason) == (text, finish)
    assert refused(CHAT, messages=[], **{member: 0})[:2] == (400, member)


def test_up_to_eight_choices() -> None:
    assert [choice.index for choice in chat(n=8).choices] == list(range(8))
    for wrong in (0, 9, "2", True):
        assert refused(CHAT, messages=[], n=wrong)[:2] == (400, "n")


@pytest.mark.parametrize(
    ("text", "choice", "name", "arguments"),
    [
        ("hi", {"type": "function", "function": {"name": "weather"}}, "weather", MINIMAL),
        ("hi", "required", "weather", MINIMAL),
        ("call weather", None, "weather", MINIMAL),
        ("call weather please", "auto", "weather", MINIMAL),
        ("call weather [1]", "auto", "weather", MINIMAL),
        ('call weather {"city": "Oslo"} ', None, "weather", '{"city": "Oslo"}'),
        ('call weather{"city": "Oslo"}', "required", "weather", '{"city": "Oslo"}'),
        ("call weather_map", "required", "weather_map", "{}"),
        ('call weather {"a":1}', {"type": "function", "function": {"name": "weather_map"}}, "weather_map", "{}"),
    ],
)
def test_tools_are_called(text: str, choice: Any, name: str, arguments: str) -> None:
    made = chat(user(text), tools=TOOLS, tool_choice=choice).choices[0]
    assert (made.finish_reason, made.message.content) == ("tool_calls", None)
    assert made.message.tool_calls is not None
    (call,) = made.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == (name, arguments)


def test_several_tools_are_called_where_lines_name_them() -> None:
    text = 'call weather {"city": "Oslo, in the north"}\ncall weather_map\ncall other\nBoth, please.'
    plain = chat(user(text), tools=TOOLS, n=2)
    state = ChatCompletionStreamState()
    for part in chunks(user(text), tools=TOOLS, n=2):
        state.handle_chunk(part)
    streamed = state.get_final_completion()
    seen = set()
    for choice in (*plain.choices, *streamed.choices):
        calls = choice.message.tool_calls or ()
        assert [(call.function.name, call.function.arguments) for call in calls if call.type == "function"] == [
            ("weather", '{"city": "Oslo, in the north"}'),
            ("weather_map", "{}"),
        ]
        assert choice.finish_reason == "tool_calls"
        seen |= {call.id for call in calls}
    assert len(seen) == 8
    assert plain.usage == streamed.usage
    assert said(user(text), tools=TOOLS, tool_choice="none") == text
    forced = {"type": "function", "function": {"name": "weather_map"}}
    made = chat(user(text), tools=TOOLS, tool_choice=forced).choices[0].message.tool_calls
    assert made is not None
    (only,) = made
    assert only.type == "function"
    assert only.function.name == "weather_map"


def test_one_tool_is_called_where_the_caller_takes_one_at_a_time() -> None:
    made = chat(user("call weather\ncall weather_map"), tools=TOOLS, parallel_tool_calls=False).choices[0].message
    assert [call.function.name for call in made.tool_calls or () if call.type == "function"] == ["weather"]


@pytest.mark.parametrize(
    ("mode", "text", "called"),
    [
        ("required", "hi", ["weather_map"]),
        ("required", "call weather", ["weather_map"]),
        ("auto", "call weather_map", ["weather_map"]),
        ("auto", "call weather", []),
    ],
)
def test_a_choice_of_tools_is_kept_to(mode: str, text: str, called: list[str]) -> None:
    several = {"mode": mode, "tools": [{"type": "function", "function": {"name": "weather_map"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": several}
    made = chat(user(text), tools=TOOLS, tool_choice=choice).choices[0].message
    assert [call.function.name for call in made.tool_calls or () if call.type == "function"] == called


@pytest.mark.parametrize(
    ("stop", "text"), [("two", "one "), (["three", "two"], "one "), (["", "four"], "one two three")]
)
def test_an_answer_ends_before_a_stop_sequence(stop: Any, text: str) -> None:
    made = chat(user("one two three"), stop=stop).choices[0]
    assert (made.message.content, made.finish_reason) == (text, "stop")
    assert get(TEXT, prompt="one two three", stop=stop)["choices"][0]["text"] == text


@pytest.mark.parametrize("text", ["call", "call other", "call weatherman", "recall weather", "call  "])
def test_tools_are_not_called_where_none_is_named(text: str) -> None:
    assert said(user(text), tools=TOOLS) == text


def test_no_tool_is_called_where_that_is_ruled_out_or_after_its_result() -> None:
    assert said(user("call weather"), tools=TOOLS, tool_choice="none") == "call weather"
    result = [*user("call weather"), {"role": "tool", "content": "12 C"}]
    assert said(result, tools=TOOLS) == "Tool result: 12 C"


def test_a_streamed_tool_call_begins_with_its_name_and_goes_on_in_fragments() -> None:
    first, *fragments, last, usage = chunks(user("hi"), tools=TOOLS, tool_choice="required")
    assert first.choices[0].delta.tool_calls is not None
    (start,) = first.choices[0].delta.tool_calls
    assert (start.index, start.type) == (0, "function")
    assert start.id
    assert start.function is not None
    assert (start.function.name, start.function.arguments) == ("weather", "")
    pieces = [part.choices[0].delta.tool_calls for part in fragments]
    assert len(pieces) > 1
    assert "".join(piece[0].function.arguments or "" for piece in pieces if piece and piece[0].function) == MINIMAL
    assert last.choices[0].finish_reason == "tool_calls"
    assert usage.usage is not None
    assert usage.usage.completion_tokens == len(fragments)


def test_a_structured_answer_fits_its_schema() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    assert said(user("hi"), response_format=form) == MINIMAL
    assert said(user("hi"), response_format={"type": "json_schema", "json_schema": {"name": "x"}}) == "{}"
    assert said(user('a "b"'), response_format={"type": "json_object"}) == '{"echo":"a \\"b\\""}'
    assert said(user("hi"), response_format={"type": "text"}) == "hi"


def test_completions_repeat_each_prompt() -> None:
    reply = Completion.model_validate(get(TEXT, prompt=["one two", "three"], n=2, max_tokens=1))
    assert [(choice.index, choice.text, choice.finish_reason) for choice in reply.choices] == [
        (0, "one", "length"),
        (1, "one", "length"),
        (2, "three", "stop"),
        (3, "three", "stop"),
    ]
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 4)
    for prompt, text in ((None, ""), ([1, 2, 3], "[3 tokens]"), ([[1], [2]], "[1 tokens]")):
        assert get(TEXT, prompt=prompt)["choices"][0]["text"] == text


def test_streamed_completions_add_up_to_the_plain_ones() -> None:
    members = {"prompt": ["one two", "three"], "n": 2}
    texts, finishes = [""] * 4, [""] * 4
    *parts, usage = events(TEXT, **members)
    for part in parts:
        (choice,) = part["choices"]
        texts[choice["index"]] += choice["text"]
        finishes[choice["index"]] += choice["finish_reason"] or ""
        choice["finish_reason"] = "stop"  # the SDK's type knows final events only
        Completion.model_validate(part)
    plain = get(TEXT, **members)
    assert [(c["text"], c["finish_reason"]) for c in plain["choices"]] == list(zip(texts, finishes, strict=True))
    assert (usage["choices"], usage["usage"]) == ([], plain["usage"])


@pytest.mark.parametrize(
    ("given", "count", "tokens"), [("a b", 1, 2), (["a b", "c"], 2, 3), ([7, 8], 1, 2), ([[7], [8, 9]], 2, 3)]
)
@pytest.mark.parametrize("dimensions", [None, 1, 4096])
def test_embeddings_have_length_one_and_are_alike_in_both_formats(
    given: Any, count: int, tokens: int, dimensions: int | None
) -> None:
    tree = get(VECTORS, input=given, dimensions=dimensions)
    reply = CreateEmbeddingResponse.model_validate(tree)
    packed = get(VECTORS, input=given, dimensions=dimensions, encoding_format="base64")["data"]
    assert (len(reply.data), reply.usage.prompt_tokens, reply.usage.total_tokens) == (count, tokens, tokens)
    assert len({tuple(item.embedding) for item in reply.data}) == count or dimensions == 1
    for item, same in zip(reply.data, packed, strict=True):
        assert len(item.embedding) == (dimensions or 64)
        assert math.hypot(*item.embedding) == pytest.approx(1, abs=1e-5)
        assert list(struct.unpack(f"<{dimensions or 64}f", base64.b64decode(same["embedding"]))) == item.embedding


def test_moderations_flag_nothing() -> None:
    for given, count in (("a", 1), (["a", "b"], 2), ([{"type": "text", "text": "a"}, {"type": "image_url"}], 1)):
        reply = ModerationCreateResponse.model_validate(get(VERDICTS, input=given))
        assert [result.flagged for result in reply.results] == [False] * count
        assert not any(reply.results[0].categories.model_dump().values())


def test_models_lists_the_one() -> None:
    tree = orjson.loads(ask("/models", "GET")[1])
    assert [Model.model_validate(item).id for item in tree["data"]] == ["agw/echo"]


def test_other_paths_and_methods_are_refused() -> None:
    for path in ("/", "/responses", "/models/echo", "/chat/completions/"):
        assert refused(path)[0] == 404
    for method, path, allow in (("GET", CHAT, "POST"), ("POST", "/models", "GET")):
        answered, _ = ask(path, method)
        assert (answered.status, answered.allow) == (405, allow)


def test_exactly_so_many_chunks_and_characters_are_said() -> None:
    first, *parts, last, _usage = chunks([], agw_echo={"chunks": 3}, max_tokens=1)
    assert [part.choices[0].delta.content for part in parts] == ["token 1 ", "token 2 ", "token 3 "]
    assert (first.choices[0].delta.content, last.choices[0].finish_reason) == ("", "stop")
    for size in (1, 8, 65_536, 200_001):
        assert [len(c.message.content or "") for c in chat(agw_echo={"bytes": size}, n=2).choices] == [size] * 2
        assert len(get(TEXT, prompt="a", agw_echo={"bytes": size})["choices"][0]["text"]) == size


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (429, "rate_limit_error"), (504, "timeout"), (599, "api_error")],
)
def test_an_error_is_answered_where_it_was_asked_for(status: int, kind: str) -> None:
    for path, members in ((CHAT, {"messages": []}), (VECTORS, {"input": "a"})):
        answered, body = ask(path, agw_echo={"status": status}, **members)
        assert (answered.status, orjson.loads(body)["error"]["type"]) == (status, kind)


def test_a_long_stream_is_encoded_as_it_is_taken() -> None:
    answered = answer(
        "POST", CHAT, orjson.dumps({"messages": [], "stream": True, "n": 8, "agw_echo": {"bytes": 64 << 20}})
    )
    assert sum(len(next(answered.pieces)) for _ in range(100)) < 50_000
