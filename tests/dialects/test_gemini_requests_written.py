"""Requests for Google, further: files of others, thoughts, tools, how to generate; and that nothing is lost on the way."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.dialects.base import (
    Audio,
    File,
    Format,
    Hosted,
    Image,
    Losses,
    Malformed,
    Message,
    Reasoning,
    Refusal,
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
from agw_proxy.dialects.gemini_requests import read_request, write_request
from tests.dialects.schema_gemini import conforms

GEMINI_3 = "gemini-3-flash-preview"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SKIP = "skip_thought_signature_validator"


def written(messages: Any = None, *, model: Any = "gemini-2.5-flash", **members: Any) -> Any:
    losses = Losses("gemini", decide)
    request = Request(model, messages or [Message("user", [Text("Hi")])], **members)
    tree = write_request(request, losses)
    conforms(tree)
    return tree, losses.dropped


def parts_of(*blocks: Any, role: Any = "user", **members: Any) -> Any:
    tree, dropped = written([Message(role, list(blocks))], **members)
    return tree["contents"][0]["parts"], dropped


def test_neighbours_of_a_role_are_one_content_with_the_results_first() -> None:
    tree, _ = written(
        [
            Message("system", [Text("Be brief")]),
            Message("user", [Text("go")]),
            Message("assistant", [ToolUse("a", "f", '{"x":1}'), ToolUse("b", "g", "")]),
            Message("user", [ToolResult("a", [Text("one"), Image(data="AAAA", media_type="image/png")])]),
            Message("user", [ToolResult("b", [Text('{"t": 2}')], failed=False)]),
            Message("user", [Text("and now?")]),
            Message("system", [Text("In French")]),
        ]
    )
    assert tree["systemInstruction"] == {"parts": [{"text": "Be brief"}, {"text": "In French"}]}
    assert tree["contents"][1]["parts"] == [
        {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}},
        {"functionCall": {"id": "b", "name": "g", "args": {}}},
    ]
    assert tree["contents"][2]["parts"] == [
        {"functionResponse": {"id": "a", "name": "f", "response": {"output": "one"}}},
        {"functionResponse": {"id": "b", "name": "g", "response": {"t": 2}}},
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"text": "and now?"},
    ]


def test_results_stand_in_the_order_of_their_calls() -> None:
    tree, _ = written(
        [
            Message("assistant", [ToolUse("call_agw_r_0", "f", '{"x":1}'), ToolUse("call_agw_r_1", "f", '{"x":2}')]),
            Message("user", [ToolResult("call_agw_r_1", [Text("two"), Image(data="BBBB", media_type="image/png")])]),
            Message("system", [Text("Be brief")]),
            Message("user", [Text("both"), ToolResult("call_agw_r_0", [Text("one"), Image(data="AAAA")])]),
            Message("assistant", [ToolUse("call_agw_s_0", "f"), ToolUse("c", "g")]),
            Message("user", [ToolResult("c", [Text("four")]), ToolResult("call_agw_s_0", [Text("three")])]),
        ]
    )
    parts = [part for content in tree["contents"] for part in content["parts"]]
    said = [part["functionResponse"]["response"]["output"] for part in parts if "functionResponse" in part]
    assert said == ["one", "two", "three", "four"]
    assert [part["inlineData"]["data"] for part in parts if "inlineData" in part] == ["AAAA", "BBBB"]


def test_a_failed_result_is_an_error_and_its_name_may_be_its_own() -> None:
    call = Message("assistant", [ToolUse("y", "f")])
    tree, _ = written([call, Message("user", [ToolResult("x", [Text("boom")], failed=True, name="f")])])
    assert tree["contents"][1]["parts"] == [
        {"functionResponse": {"id": "x", "name": "f", "response": {"error": "boom"}}}
    ]
    with pytest.raises(Untranslatable):
        written([Message("user", [ToolResult("x", [Text("boom")])])])


@pytest.mark.parametrize(
    ("use", "args"),
    [
        (ToolUse("a", "f", '{"x":'), {"_raw": '{"x":'}),
        (ToolUse("a", "f", "[1]"), {"_raw": "[1]"}),
        (ToolUse("a", "f", "plain words", custom=True), {"input": "plain words"}),
        (ToolUse("a", "f", " "), {}),
    ],
)
def test_arguments_are_always_an_object(use: Any, args: Any) -> None:
    assert parts_of(use, role="assistant")[0][0]["functionCall"]["args"] == args


def test_arguments_and_results_deeper_than_can_be_written_go_as_words() -> None:
    deep = '{"a":' * 240 + "{}" + "}" * 240
    wide = orjson.dumps({"a": [{}] * 100}).decode()
    for words, whole in ((deep, False), (wide, True)):
        messages = [Message("assistant", [ToolUse("a", "f", words)]), Message("user", [ToolResult("a", [Text(words)])])]
        tree, _ = written(messages)
        assert orjson.dumps(tree)
        call, result = (content["parts"][0] for content in tree["contents"])
        assert call["functionCall"]["args"] == (orjson.loads(wide) if whole else {"_raw": words})
        assert result["functionResponse"]["response"] == (orjson.loads(wide) if whole else {"output": words})


def test_what_is_cached_elsewhere_is_told_wherever_it_stands() -> None:
    mark = {"type": "ephemeral"}
    places: list[Any] = [
        {"tools": [Tool("f", "", SCHEMA, cache=mark)]},
        {"messages": [Message("system", [Text("x", cache=mark)]), Message("user", [Text("x")])]},
        {"messages": [Message("assistant", [ToolUse("a", "f", cache=mark)])]},
        {"messages": [Message("assistant", [ToolUse("a", "f")]), Message("user", [ToolResult("a", [], cache=mark)])]},
        {"messages": [Message("user", [Image(data="AAAA", cache=mark)])]},
    ]
    assert [written(**place)[1] for place in places] == [["cache_control"]] * 5


def test_made_up_ids_never_reach_google() -> None:
    contents = [
        {"role": "user", "parts": [{"text": "go"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "x"}}}]},
    ]
    tree = write_request(read_request({"contents": contents}, "gemini-2.5-flash", False), Losses("gemini", decide))
    assert tree["contents"] == contents


@pytest.mark.parametrize(
    ("block", "part", "dropped"),
    [
        (Image(url="https://x.org/a.png?b=c"), {"fileData": {"mimeType": "image/png", "fileUri": "https://x.org/a.png?b=c"}}, []),
        (Image(url="https://x.org/a", detail="high"), {"fileData": {"fileUri": "https://x.org/a"}}, ["image_detail"]),
        (Image(data="AAAA"), {"inlineData": {"mimeType": "image/jpeg", "data": "AAAA"}}, []),
        (Image(file_id="gs://b/a", media_type="image/png"), {"fileData": {"mimeType": "image/png", "fileUri": "gs://b/a"}}, []),
        (File(data="AAAA", name="a.csv"), {"inlineData": {"mimeType": "text/csv", "data": "AAAA"}}, ["file_name"]),
        (File(text="abc", citations=True), {"inlineData": {"mimeType": "text/plain", "data": "YWJj"}}, ["citations"]),
        (Audio("AAAA", "wav"), {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}, []),
        (Text("x", citations=[{}], cache={}), {"text": "x"}, ["cache_control", "citations"]),
        (Text("", signature=sealed("gemini", "c2ln")), {"text": "", "thoughtSignature": "c2ln"}, []),
        (Refusal("no"), {"text": "no"}, []),
        (Thinking("hm", sealed("gemini", "c2ln")), {"text": "hm", "thought": True, "thoughtSignature": "c2ln"}, []),
    ],
)  # fmt: skip
def test_blocks_become_parts(block: Any, part: Any, dropped: Any) -> None:
    assert parts_of(block) == ([part], dropped)


@pytest.mark.parametrize("block", [Image(file_id="file-1"), File(file_id="file-1")])
def test_another_providers_file_is_refused(block: Any) -> None:
    with pytest.raises(Untranslatable) as raised:
        parts_of(block)
    assert raised.value.param == "messages[0]"


@pytest.mark.parametrize("signature", [None, sealed("messages", "x")])
def test_thoughts_of_others_are_dropped_and_told(signature: Any) -> None:
    assert parts_of(Thinking("hm", signature), Text("so")) == ([{"text": "so"}], ["foreign_reasoning"])


def turn(signature: Any = None) -> list[Message]:
    return [
        Message("user", [Text("go")]),
        Message("assistant", [ToolUse("a", "f", "{}", signature=signature), ToolUse("b", "f", "{}")]),
        Message("user", [ToolResult("a", [Text("1")]), ToolResult("b", [Text("2")])]),
    ]


def signatures(tree: Any) -> Any:
    return [
        part.get("thoughtSignature") for each in tree["contents"] if each["role"] == "model" for part in each["parts"]
    ]


def test_foreign_calls_of_the_current_turn_get_the_documented_signature() -> None:
    messages = [*turn(), Message("assistant", [Text("ok")]), *turn(), Message("assistant", [ToolUse("c", "f")])]
    tree, dropped = written(messages, model=GEMINI_3)
    assert (signatures(tree), dropped) == ([None, None, None, SKIP, None, SKIP], [])
    assert signatures(written(messages, model="gemini-2.5-pro")[0]) == [None] * 6


def test_own_signatures_of_calls_are_sent_and_others_are_not() -> None:
    assert signatures(written(turn(sealed("gemini", "c2ln")), model=GEMINI_3)[0]) == ["c2ln", None]
    assert signatures(written(turn(sealed("messages", "c2ln")), model=GEMINI_3)[0]) == [SKIP, None]


def test_an_instruction_alone_is_what_is_asked() -> None:
    tree, _ = written([Message("system", [Text("Say hi")])])
    assert tree == {"contents": [{"role": "user", "parts": [{"text": "Say hi"}]}]}
    with pytest.raises(Untranslatable):
        written([Message("user", [Text("")])])


def test_pictures_in_an_instruction_are_told() -> None:
    tree, dropped = written(
        [Message("system", [Text("x"), Image(data="AAAA")]), Message("user", [Text("Hi")], name="Al")]
    )
    assert (tree["systemInstruction"], dropped) == ({"parts": [{"text": "x"}]}, ["system_media", "message_name"])


def test_tools_are_written_as_json_schema() -> None:
    tree, dropped = written(
        tools=[
            Tool("f", "Does f", SCHEMA, strict=True),
            Tool("free", "Takes words", None, grammar={"type": "grammar", "syntax": "lark", "definition": "start: A"}),
            Tool("bare", None, {}),
        ],
        hosted=[Hosted("googleSearch", "gemini", {"googleSearch": {}}), Hosted("web_search", "responses", {})],
        parallel=False,
    )
    first, free, bare = tree["tools"][0]["functionDeclarations"]
    assert first == {"name": "f", "description": "Does f", "parametersJsonSchema": SCHEMA}
    assert free["parametersJsonSchema"]["required"] == ["input"]
    assert "start: A" in free["description"]
    assert bare == {"name": "bare", "parametersJsonSchema": {"type": "object", "properties": {}}}
    assert tree["tools"][1:] == [{"googleSearch": {}}]
    assert dropped == ["strict_tools", "hosted_tools", "parallel_tool_calls"]


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        (ToolChoice("auto"), {"mode": "AUTO"}),
        (ToolChoice("none"), {"mode": "NONE"}),
        (ToolChoice("required"), {"mode": "ANY"}),
        (ToolChoice("required", allowed=["f", "g"]), {"mode": "ANY", "allowedFunctionNames": ["f", "g"]}),
        (ToolChoice("one", "g"), {"mode": "ANY", "allowedFunctionNames": ["g"]}),
    ],
)
def test_tool_choices_are_written(choice: Any, config: Any) -> None:
    tools = [Tool("f", "", SCHEMA), Tool("g", "", SCHEMA)]
    tree, dropped = written(tools=tools, tool_choice=choice)
    assert (tree["toolConfig"], dropped) == ({"functionCallingConfig": config}, [])
    assert "toolConfig" not in written(tool_choice=choice)[0]


def test_where_only_some_tools_may_be_called_only_they_are_declared() -> None:
    tools = [Tool("f", "", SCHEMA), Tool("g", "", SCHEMA)]
    tree, dropped = written(tools=tools, tool_choice=ToolChoice("auto", allowed=["g"]))
    assert [each["name"] for each in tree["tools"][0]["functionDeclarations"]] == ["g"]
    assert (tree["toolConfig"]["functionCallingConfig"], dropped) == ({"mode": "AUTO"}, [])


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"seed": 2**40}, "seed"),
        ({"stop": list("abcdef")}, "stop"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"verbosity": "low"}, "verbosity"),
        ({"user": "u"}, "user"),
        ({"metadata": {"a": "b"}}, "metadata"),
        ({"store": True}, "store"),
        ({"service_tier": "scale"}, "service_tier"),
        ({"extra": {"truncation": "auto"}}, "truncation"),
        ({"extra": {"mediaResolution": {"level": "x"}}}, "mediaResolution"),
    ],
)
def test_what_google_does_not_know_is_told(members: Any, told: Any) -> None:
    assert written(**members)[1] == [told]


@pytest.mark.parametrize(
    "quiet", [{"store": False}, {"service_tier": "auto"}, {"service_tier": "default"}, {"extra": {}}]
)
def test_what_google_does_anyway_is_no_loss(quiet: Any) -> None:
    assert written(**quiet) == ({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}, [])


@pytest.mark.parametrize("members", [{"n": 2}, {"extra": {"previous_response_id": "resp_1"}}])
def test_what_would_change_the_answer_is_refused(members: Any) -> None:
    with pytest.raises(Untranslatable):
        written(**members)


def test_jpeg_has_one_name() -> None:
    tree, _ = written(messages=[Message("user", [Image(data="aGk=", media_type="image/jpg")])])
    assert tree["contents"][0]["parts"][0]["inlineData"]["mimeType"] == "image/jpeg"


# -- properties

words = st.text(min_size=1, max_size=20)
names = st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True)
scalars = st.none() | st.booleans() | st.integers(-(2**31), 2**31) | words
objects = st.dictionaries(names, scalars | st.lists(scalars, max_size=3), max_size=3)
signature = st.none() | st.binary(min_size=3, max_size=9).map(
    lambda raw: sealed("gemini", raw.hex() + "0" * (-len(raw.hex()) % 4))
)
schemas = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(names, st.just({"type": "string"}))}
)


@st.composite
def requests(draw: Any) -> Any:
    """Requests of which Google can be asked everything, in the form that reading gives them."""
    messages = []
    if draw(st.booleans()):
        messages.append(Message("system", [Text(each) for each in draw(st.lists(words, min_size=1, max_size=2))]))
    for turn_number in range(draw(st.integers(1, 3))):
        user: list[Any] = [
            Text(draw(words)),
            Image(data="AAAA", media_type="image/png"),
            File(url="https://x.org/a.pdf", media_type="application/pdf"),
        ]
        messages.append(Message("user", user[: draw(st.integers(1, 3))]))
        calls = [
            ToolUse(f"c{turn_number}_{at}", draw(names), _json(draw(objects)), signature=draw(signature))
            for at in range(draw(st.integers(0, 3)))
        ]
        messages.append(Message("assistant", [Text(draw(words), signature=draw(signature)), *calls]))
        if calls:
            results: list[Any] = [
                ToolResult(
                    call.id,
                    [Text(draw(words.filter(lambda said: not said.startswith("{"))))],
                    failed=draw(st.booleans()),
                    name=call.name,
                )
                for call in calls
            ]
            messages.append(Message("user", results))
            messages.append(Message("assistant", [Text(draw(words))]))
    messages.append(Message("user", [Text(draw(words))]))
    tools = [
        Tool(name, draw(st.none() | words), draw(schemas)) for name in draw(st.lists(names, max_size=3, unique=True))
    ]
    return Request(
        "gemini-2.5-flash",
        messages,
        tools=tools,
        max_tokens=draw(st.none() | st.integers(1, 9999)),
        temperature=draw(st.none() | st.floats(0, 2)),
        top_k=draw(st.none() | st.integers(1, 40)),
        stop=draw(st.lists(words, max_size=5)),
        seed=draw(st.none() | st.integers(-(2**31), 2**31 - 1)),
        logprobs=draw(st.none() | st.integers(0, 20)),
        format=None if tools else draw(st.none() | st.just(Format()) | schemas.map(Format)),
        reasoning=draw(st.none() | st.builds(Reasoning, budget=st.integers(1, 24576), summary=st.sampled_from([None, "auto"]))),
        extra=draw(st.fixed_dictionaries({}, optional={"cachedContent": words, "labels": st.just({"a": "b"})})),
    )  # fmt: skip


def _json(tree: Any) -> str:
    return orjson.dumps(tree).decode()


@given(requests())
def test_what_is_written_is_read_again_as_it_was(request: Any) -> None:
    losses = Losses("gemini", decide)
    tree = write_request(request, losses)
    conforms(tree)
    assert read_request(tree, request.model, request.stream) == request
    assert losses.dropped == []


MEMBERS = [
    "contents", "parts", "role", "text", "functionCall", "function_response", "name", "args", "response", "inlineData",
    "mimeType", "data", "fileData", "fileUri", "thought", "thoughtSignature", "systemInstruction", "tools", "type",
    "functionDeclarations", "parameters", "properties", "items", "anyOf", "nullable", "enum", "toolConfig", "mode",
    "functionCallingConfig", "generationConfig", "thinkingConfig", "thinkingBudget", "responseSchema", "topK", "_x",
]  # fmt: skip
trees = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=4),
    max_leaves=25,
)


@given(st.dictionaries(st.sampled_from(MEMBERS), trees, max_size=5), st.lists(trees, max_size=3))
def test_bad_manners_are_malformed_and_never_another_exception(tree: Any, parts: Any) -> None:
    for asked in (tree, {**tree, "contents": [{"parts": parts}]}):
        try:
            request = read_request(asked, GEMINI_3, True)
            write_request(request, Losses("gemini", decide))
        except (Malformed, Untranslatable):
            continue
