"""The conversation of Chat requests: messages, parts, results of tools, and thoughts that go back to where they came from."""

import pytest

from agw_proxy.dialects.base import (
    Audio,
    File,
    Image,
    Malformed,
    Message,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Untranslatable,
    sealed,
)
from agw_proxy.dialects.openai_chat_requests import write_request
from tests.dialects.chat_published import SCHEMA, asked, sent, written
from tests.dialects.chat_vectors import PIXEL, losses

# -- messages


def test_messages_of_all_roles() -> None:
    request = asked(
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "boss"},
        {"role": "user", "content": "Hi", "name": "ann"},
        {"role": "assistant", "content": [{"type": "text", "text": "x"}, {"type": "refusal", "refusal": "no"}]},
        {"role": "assistant", "content": None, "refusal": "never"},
        {"role": "user", "content": ""},
    )
    assert request.messages == [
        Message("system", [Text("Be brief.")]),
        Message("system", [Text("a"), Text("b")], "boss"),
        Message("user", [Text("Hi")], "ann"),
        Message("assistant", [Text("x"), Refusal("no")]),
        Message("assistant", [Refusal("never")]),
        Message("user", []),
    ]
    assert [message["content"] for message in written(request)[0]["messages"]] == [
        "Be brief.", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "Hi", "x", None, "",
    ]  # fmt: skip


def test_what_the_system_says_in_front_is_one_message_since_many_templates_take_only_one() -> None:
    request = asked(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}]},
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": "Now"},
        {"role": "system", "content": "stop."},
    )
    tree, dropped = written(request)
    assert [(message["role"], message["content"]) for message in tree["messages"]] == [
        ("system", "Be brief.\n\nBe\n\nkind."), ("user", "Hi"), ("system", "Now"), ("system", "stop."),
    ]  # fmt: skip
    assert dropped == []
    request.messages[0].blocks = [Text("a", cache={"type": "ephemeral"})]
    assert written(request)[1] == ["cache_control"]
    request.messages[1].blocks.append(Image(url="https://a.b/c.png"))
    tree, dropped = written(request)
    assert [message["role"] for message in tree["messages"]][:3] == ["system", "system", "user"]
    assert dropped == ["cache_control", "system_media"]


def test_results_of_one_turn_stand_in_one_user_message() -> None:
    calls = [{"id": each, "type": "function", "function": {"name": "f", "arguments": "{}"}} for each in "ab"]
    request = asked(
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "2"}], "name": "f"},
        {"role": "user", "content": "go on"},
        {"role": "tool", "tool_call_id": "c", "content": "3"},
    )
    assert request.messages == [
        Message("assistant", [ToolUse("a", "f", "{}"), ToolUse("b", "f", "{}")]),
        Message("user", [ToolResult("a", [Text("1")]), ToolResult("b", [Text("2")], name="f")]),
        Message("user", [Text("go on")]),
        Message("user", [ToolResult("c", [Text("3")])]),
    ]
    tree, dropped = written(request)
    assert [message["role"] for message in tree["messages"]] == ["assistant", "tool", "tool", "user", "tool"]
    assert dropped == []


def test_the_old_functions_are_tools() -> None:
    request = asked(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
        functions=[{"name": "f", "parameters": SCHEMA}],
        function_call={"name": "f"},
    )
    use, result = request.messages[0].blocks[0], request.messages[1].blocks[0]
    assert isinstance(use, ToolUse)
    assert isinstance(result, ToolResult)
    assert use.id == result.id != ""
    assert request.tools == [Tool("f", schema=SCHEMA)]
    assert request.tool_choice == ToolChoice("one", "f")
    assert asked(functions=[{"name": "f"}], function_call="none").tool_choice == ToolChoice("none")
    written(request)


def test_pictures_sounds_and_files() -> None:
    url = f"data:image/png;base64,{PIXEL}"
    request = asked(
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "https://a.b/c.png", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "input_audio", "input_audio": {"data": PIXEL, "format": "wav"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PIXEL}"}},
                {"type": "file", "file": {"filename": "a.csv", "file_data": PIXEL}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "https://a.b/a.pdf"}},
                {"type": "file", "file": {"file_id": "file-1"}},
            ],
        }
    )
    blocks = request.messages[0].blocks
    assert blocks == [
        Image(url="https://a.b/c.png", detail="low"),
        Image(data=PIXEL, media_type="image/png"),
        Audio(PIXEL, "wav"),
        File(data=PIXEL, media_type="application/pdf", name="a.pdf"),
        File(data=PIXEL, media_type="text/csv", name="a.csv"),
        File(url="https://a.b/a.pdf", name="a.pdf"),
        File(file_id="file-1"),
    ]
    (message,), dropped = sent(*blocks[:-2])
    assert dropped == []
    assert [part["type"] for part in message["content"]] == ["image_url", "image_url", "input_audio", "file", "file"]
    assert message["content"][1]["image_url"]["url"] == url
    with pytest.raises(Untranslatable) as caught:
        sent(Text("x"), blocks[-1])
    assert caught.value.param == "messages[0].content[1]"


def test_a_document_goes_as_words_or_not_at_all() -> None:
    (message,), _ = sent(File(text="abc", name="a.txt"))
    assert message["content"] == "a.txt:\n\nabc"
    for refused in (File(url="https://a.b/c.pdf"), Image(file_id="f")):
        with pytest.raises(Untranslatable):
            sent(refused)


def test_a_picture_that_a_tool_gave_stands_behind_all_results() -> None:
    picture = Image(data=PIXEL, media_type="image/png")
    messages, _ = sent(ToolResult("a", [picture]), ToolResult("b", [Text("1"), Text("2")]), Text("go on"))
    assert [message["role"] for message in messages] == ["tool", "tool", "user"]
    assert [part["type"] for part in messages[2]["content"]] == ["text", "image_url", "text"]
    assert "a" in messages[2]["content"][0]["text"]
    assert messages[0]["content"]


def test_pictures_of_an_answer_come_back_with_it() -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}, "index": 0}
    request = asked({"role": "user", "content": "Draw"}, {"role": "assistant", "content": "So:", "images": [image]})
    assert request.messages[1].blocks == [Text("So:"), Image(data=PIXEL, media_type="image/png")]
    with pytest.raises(Malformed, match="picture without"):
        asked({"role": "assistant", "content": "So:", "images": [{"type": "image_url"}]})


def test_what_chat_cannot_say_is_told() -> None:
    cached = {"type": "ephemeral"}
    _, dropped = sent(ToolResult("a", [], failed=True), Text("x", citations=[{"type": "char_location"}], cache=cached))
    assert dropped == ["is_error", "cache_control", "citations"]
    assert sent(Image(url="https://a.b/c", detail="odd"))[1] == ["image_detail"]
    assert sent(Audio(PIXEL, "flac"))[1] == ["audio_input"]
    assert sent(File(text="x", citations=True))[1] == ["citations"]
    assert sent(ToolResult("a", [Text("1")], cache=cached))[1] == ["cache_control"]
    assert sent(ToolUse("a", "f", cache=cached), role="assistant")[1] == ["cache_control"]
    messages, dropped = sent(Text("x"), Image(url="https://a.b/c"), role="assistant")
    assert (messages, dropped) == ([{"role": "assistant", "content": "x"}], ["assistant_media"])
    messages, dropped = sent(Text("x"), Image(url="https://a.b/c"), role="system")
    assert (messages, dropped) == ([{"role": "system", "content": "x"}], ["system_media"])
    assert sent(Refusal("no"))[0] == [{"role": "user", "content": "no"}]


def test_marks_for_caches_are_read() -> None:
    mark = {"type": "ephemeral"}
    request = asked(
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": mark},
                                     {"type": "text", "text": "b", "prompt_cache_breakpoint": {"mode": "explicit"}}]},
        tools=[{"type": "function", "function": {"name": "f"}, "cache_control": mark}],
    )  # fmt: skip
    assert [block.cache for block in request.messages[0].blocks if isinstance(block, Text)] == [mark, mark]
    assert request.tools[0].cache == mark


# -- thoughts


def test_own_thoughts_go_back_unchanged_and_foreign_ones_not_at_all() -> None:
    details = [
        {"type": "reasoning.text", "text": "hm", "signature": "SIG", "index": 0},
        {"type": "reasoning.encrypted", "data": "XYZ", "id": "rs_1", "format": "openai-responses-v1", "index": 1},
        {"type": "reasoning.summary", "summary": "so", "id": "rs_2", "index": 2},
    ]
    message = {"role": "assistant", "content": "x", "reasoning": "hm", "reasoning_details": details}
    request = asked(message)
    first = request.messages[0].blocks[0]
    assert first == Thinking("hm", sealed("chat", "SIG"))
    tree = write_request(request, losses())
    assert tree["messages"] == [{"role": "assistant", "content": "x", "reasoning_details": details}]
    foreign = Thinking("hm", sealed("messages", "SIG"))
    messages, dropped = sent(foreign, Text("x"), role="assistant")
    assert messages == [{"role": "assistant", "content": "x"}]
    assert dropped == ["foreign_reasoning"]
    assert sent(foreign, role="assistant") == ([], ["foreign_reasoning"])


def test_a_seal_of_another_provider_is_kept() -> None:
    detail = {"type": "reasoning.text", "text": "hm", "signature": sealed("messages", "SIG"), "index": 0}
    secret = {"type": "reasoning.encrypted", "data": sealed("responses", "XYZ"), "index": 1}
    request = asked(
        {"role": "assistant", "content": "x", "reasoning_content": "hm", "reasoning_details": [detail, secret]}
    )
    assert request.messages[0].blocks[:2] == [
        Thinking("hm", sealed("messages", "SIG")), Thinking(signature=sealed("responses", "XYZ"), hidden=True)
    ]  # fmt: skip


def test_the_plain_member_gives_the_words_that_the_details_leave_out() -> None:
    signed = {"type": "reasoning.text", "signature": "SIG"}
    secret = {"type": "reasoning.encrypted", "data": "XYZ"}
    plain = {"role": "assistant", "content": "x", "reasoning_content": "hm"}
    hidden = Thinking(signature=sealed("chat", "XYZ"), hidden=True)
    first = asked({**plain, "reasoning_details": [signed, secret, 1]}).messages[0]
    assert first.blocks[:-1] == [Thinking("hm", sealed("chat", "SIG")), hidden]
    second = asked({**plain, "reasoning_details": [secret]}).messages[0]
    assert second.blocks[:-1] == [Thinking("hm"), hidden]


def test_plain_thoughts_go_where_the_server_wants_them() -> None:
    request = asked({"role": "assistant", "content": "x", "reasoning_content": "hm"})
    assert written(request)[1] == ["foreign_reasoning"]
    tree = write_request(request, losses(), reasoning_name="reasoning_content")
    assert tree["messages"][0] == {"role": "assistant", "content": "x", "reasoning_content": "hm"}


def test_googles_signature_goes_back_to_its_call() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"},
            "extra_content": {"google": {"thought_signature": "SIG"}}}  # fmt: skip
    request = asked({"role": "assistant", "content": None, "tool_calls": [call]})
    assert request.messages[0].blocks == [ToolUse("a", "f", "{}", signature=sealed("chat", "SIG"))]
    assert write_request(request, losses())["messages"][0]["tool_calls"] == [call]
    messages, dropped = sent(ToolUse("a", "f", signature=sealed("gemini", "SIG")), role="assistant")
    assert "extra_content" not in messages[0]["tool_calls"][0]
    assert dropped == ["foreign_reasoning"]
