"""Requests of the Gemini API: read in both spellings, and written so that Google takes them."""

from base64 import b64encode
from typing import Any

import pytest

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
    Text,
    Thinking,
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


def ask(**members: Any) -> Any:
    tree = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}], **members}
    return read_request(tree, "gemini-2.5-flash", False)


def test_model_and_stream_are_of_the_path() -> None:
    request: Any = read_request({"contents": [{"parts": [{"text": "Hi"}]}]}, "m", True)
    assert (request.model, request.stream, request.messages) == ("m", True, [Message("user", [Text("Hi")])])


def test_both_spellings_are_read_alike() -> None:
    camel = {
        "contents": [{"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}],
        "systemInstruction": {"parts": [{"text": "Be brief"}]},
        "tools": [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": SCHEMA}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {"maxOutputTokens": 5, "topP": 0.5, "thinkingConfig": {"thinkingBudget": 7}},
    }
    snake = {
        "contents": [{"role": "user", "parts": [{"inline_data": {"mime_type": "image/png", "data": "AAAA"}}]}],
        "system_instruction": {"parts": [{"text": "Be brief"}]},
        "tools": [{"function_declarations": [{"name": "f", "parameters_json_schema": SCHEMA}]}],
        "tool_config": {"function_calling_config": {"mode": "any", "allowed_function_names": ["f"]}},
        "generation_config": {"max_output_tokens": 5, "top_p": 0.5, "thinking_config": {"thinking_budget": 7}},
    }
    assert read_request(camel, "m", False) == read_request(snake, "m", False)
    assert read_request(snake, "m", False).tool_choice == ToolChoice("one", "f")


def test_one_object_may_stand_for_a_list_of_one() -> None:
    single = {
        "contents": {"parts": {"text": "Hi"}},
        "system_instruction": {"parts": {"text": "Be brief"}},
        "tools": {"functionDeclarations": {"name": "f"}},
    }
    listed = {
        "contents": [{"parts": [{"text": "Hi"}]}],
        "system_instruction": {"parts": [{"text": "Be brief"}]},
        "tools": [{"functionDeclarations": [{"name": "f"}]}],
    }
    assert read_request(single, "m", False) == read_request(listed, "m", False)


@pytest.mark.parametrize("role", ["user", "function", "tool"])
def test_the_user_responds_to_calls_of_the_model_and_never_the_other_way(role: str) -> None:
    call: Any = {"parts": [{"functionCall": {"name": "f", "id": "a"}}]}
    response: Any = {"parts": [{"functionResponse": {"name": "f", "response": {"output": "1"}}}]}
    request = ask(contents=[{"role": "model", **call}, {"role": role, **response}])
    assert request.messages[1] == Message("user", [ToolResult("a", [Text("1")], name="f")])
    for wrong in ({"role": role, **call}, {"role": "model", **response}):
        with pytest.raises(Malformed) as raised:
            ask(contents=[wrong])
        assert raised.value.param == "contents[0].parts[0]"


def test_what_asks_for_nothing_is_no_loss() -> None:
    config = {"responseModalities": ["TEXT"], "speechConfig": {}, "candidateCount": "1"}
    assert ask(generationConfig=config, safetySettings=[], cachedContent="").extra == {}
    assert ask(generationConfig={"responseModalities": ["text", "IMAGE"]}).extra


def test_several_candidates_are_refused_as_others_give_one() -> None:
    with pytest.raises(Untranslatable) as raised:
        ask(generationConfig={"candidateCount": 2})
    assert raised.value.param == "generationConfig.candidateCount"


def test_an_enumeration_is_no_json() -> None:
    config = {"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["a", "b"]}}
    request = ask(generationConfig=config)
    assert (request.format, request.extra) == (None, {"responseMimeType": "text/x.enum"})


@pytest.mark.parametrize("name", ["responseSchema", "responseJsonSchema"])
def test_the_words_of_an_enumeration_are_told_behind_the_instructions(name: str) -> None:
    config = {"responseMimeType": "text/x.enum", name: {"type": "STRING", "enum": ["a", 'b "c"']}}
    request = ask(generationConfig=config, systemInstruction={"parts": [{"text": "Be brief"}]})
    told = [block.text for message in request.messages[:2] for block in message.blocks if isinstance(block, Text)]
    assert [message.role for message in request.messages] == ["system", "system", "user"]
    assert told[0] == "Be brief"
    assert told[1].endswith(r': "a", "b \"c\"".')


def test_pictures_of_an_instruction_are_told_as_lost() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    request = ask(systemInstruction={"parts": [{"text": "Be brief"}, picture]})
    assert (request.messages[0], list(request.extra)) == (Message("system", [Text("Be brief")]), ["system_media"])


def test_names_within_arguments_and_schemas_are_left_alone() -> None:
    request: Any = read_request(
        {
            "contents": [{"role": "model", "parts": [{"function_call": {"name": "f", "args": {"max_size": 1}}}]}],
            "tools": [{"functionDeclarations": [{"name": "f", "parameters": {"properties": {"max_size": {}}}}]}],
        },
        "m",
        False,
    )
    assert request.messages[0].blocks[0].arguments == '{"max_size":1}'
    assert request.tools[0].schema == {"properties": {"max_size": {}}}


def test_googles_own_schema_becomes_json_schema() -> None:
    own = {
        "type": "OBJECT",
        "properties": {
            "when": {"type": "STRING", "nullable": True, "enum": ["now", "later"], "example": "now"},
            "sizes": {"type": "ARRAY", "items": {"type": "INTEGER", "format": "int32"}, "min_items": "1"},
            "either": {"anyOf": [{"type": "NUMBER"}, {"type": "TYPE_UNSPECIFIED"}], "nullable": True},
        },
        "required": ["when"],
        "propertyOrdering": ["when", "sizes"],
    }
    request = ask(tools=[{"functionDeclarations": [{"name": "f", "description": "d", "parameters": own}]}])
    assert request.tools[0].schema == {
        "type": "object",
        "properties": {
            "when": {"type": ["string", "null"], "enum": ["now", "later", None], "examples": ["now"]},
            "sizes": {"type": "array", "items": {"type": "integer", "format": "int32"}, "minItems": 1},
            "either": {"anyOf": [{"type": "number"}, {}, {"type": "null"}]},
        },
        "required": ["when"],
    }


def test_calls_without_ids_get_ids_by_turn_and_position_and_their_results_find_them() -> None:
    tree = {
        "contents": [
            {"role": "user", "parts": [{"text": "go"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f"}}, {"functionCall": {"name": "f"}}]},
            {
                "role": "user",
                "parts": [
                    {"text": "so?"},
                    {"functionResponse": {"name": "f", "response": {"output": "one"}}},
                    {"functionResponse": {"name": "f", "id": "f-17-cli", "response": {"error": "two"}}},
                ],
            },
        ]
    }
    request: Any = read_request(tree, "m", False)
    first, second = request.messages[1].blocks
    assert first.id != second.id
    assert request == read_request(tree, "m", False)
    assert request.messages[2].blocks == [
        ToolResult(first.id, [Text("one")], name="f"),
        ToolResult(second.id, [Text("two")], failed=True, name="f"),
        Text("so?"),
    ]


def test_a_result_goes_by_its_id_where_the_call_has_it() -> None:
    calls = [{"functionCall": {"name": "f", "id": each}} for each in "ab"]
    results = [{"functionResponse": {"name": "f", "id": each, "response": {}}} for each in "ba"]
    contents = [{"role": "model", "parts": calls}, {"role": "function", "parts": results}]
    request: Any = read_request({"contents": contents}, "m", False)
    assert [block.id for block in request.messages[1].blocks] == ["b", "a"]
    assert request.messages[1].role == "user"


def test_a_structured_response_and_its_media_are_read() -> None:
    media = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    result = {"name": "f", "response": {"temp": 20, "ok": True}, "parts": [media]}
    request = ask(contents=[{"parts": [{"functionResponse": result}]}])
    assert request.messages[0].blocks[0].content == [
        Text('{"temp":20,"ok":true}'),
        Image(data="AAAA", media_type="image/png"),
    ]


@pytest.mark.parametrize(
    ("part", "block"),
    [
        ({"text": "x", "thoughtSignature": "c2ln"}, Text("x", signature="agw:gemini:c2ln")),
        ({"thoughtSignature": "c2ln"}, Text("", signature="agw:gemini:c2ln")),
        ({"text": "x", "thought": True}, Thinking("x")),
        ({"text": "", "thought": True, "thoughtSignature": "c2ln"}, Thinking("", "agw:gemini:c2ln", hidden=True)),
        ({"inlineData": {"mimeType": "audio/mpeg", "data": "AA"}}, Audio("AA==", "mp3")),
        ({"inlineData": {"mimeType": "image/png", "data": "-_-_"}}, Image(data="+/+/", media_type="image/png")),
        (
            {"inlineData": {"mimeType": "application/pdf", "data": "AAAA", "displayName": "a.pdf"}},
            File(data="AAAA", media_type="application/pdf", name="a.pdf"),
        ),
        ({"fileData": {"fileUri": "https://x.org/a", "mimeType": "text/csv"}}, File(url="https://x.org/a", media_type="text/csv")),
        (
            {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/a", "mimeType": "image/png"}},
            Image(file_id="https://generativelanguage.googleapis.com/v1beta/files/a", media_type="image/png"),
        ),
    ],
)  # fmt: skip
def test_parts_become_blocks(part: Any, block: Any) -> None:
    assert ask(contents=[{"parts": [part]}]).messages[0].blocks == [block]


def test_the_rarer_words_of_schemas_are_translated() -> None:
    own = {
        "anyOf": [{"type": "STRING"}], "defs": {"a": {"type": "STRING"}}, "type": ["STRING", "NULL"],
        "minimum": "1.5", "maxItems": "many", "additionalProperties": False, "nullable": True, "title": None,
    }  # fmt: skip
    found = ask(generationConfig={"responseSchema": {"type": "OBJECT", "properties": {"a": own}}}).format.schema
    assert found["properties"]["a"] == {
        "anyOf": [{"type": "string"}, {"type": "null"}], "$defs": {"a": {"type": "string"}}, "type": ["string", "null"],
        "minimum": 1.5, "maxItems": "many", "additionalProperties": False,
    }  # fmt: skip
    referred = ask(generationConfig={"responseSchema": {"ref": "#/$defs/a", "nullable": True}}).format.schema
    assert referred == {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}


def test_an_instruction_may_be_a_string_and_odd_tiers_are_kept() -> None:
    request = ask(systemInstruction="Be brief", serviceTier="STANDARD", store=False)
    assert request.messages[0] == Message("system", [Text("Be brief")])
    assert (request.service_tier, request.store) == ("default", False)
    assert ask(serviceTier="flex").service_tier == "flex"
    assert ask(serviceTier="unspecified").service_tier is None


def test_what_is_no_media_in_a_result_or_new_in_a_declaration_is_kept_by_its_name() -> None:
    sound = {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}
    request = ask(
        contents=[{"parts": [{"functionResponse": {"name": "f", "parts": [sound]}}]}],
        tools=[{"functionDeclarations": [{"name": "f", "behavior": "BLOCKING"}]}],
    )
    assert set(request.extra) == {"functionResponse.parts", "behavior"}


@pytest.mark.parametrize("mark", ["YWd3O", "YWd3Og=", "YWd3Ov8"])
def test_a_signature_that_only_looks_like_anothers_is_googles(mark: Any) -> None:
    call = {"functionCall": {"name": "f", "id": "a"}, "thoughtSignature": mark + "!"}
    assert ask(contents=[{"role": "model", "parts": [call]}]).messages[0].blocks[0].signature == f"agw:gemini:{mark}!"


@pytest.mark.parametrize("strip", [False, True])
def test_another_providers_signature_comes_back_as_it_was_sealed(strip: Any) -> None:
    seal = sealed("messages", "ErUB/+x=")
    carried = b64encode(seal.encode()).decode()
    if strip:  # as Google's Python SDK writes bytes
        carried = carried.replace("+", "-").replace("/", "_").rstrip("=")
    call = {"functionCall": {"name": "f", "id": "a"}, "thoughtSignature": carried}
    assert ask(contents=[{"role": "model", "parts": [call]}]).messages[0].blocks[0].signature == seal


def test_chunks_of_a_stream_that_sdks_keep_apart_are_put_together() -> None:
    seal = sealed("messages", "ErUB")
    carried = b64encode(seal.encode()).decode()
    said = [
        {"text": "h", "thought": True}, {"text": "m", "thought": True}, {"text": "", "thought": True, "thoughtSignature": carried},
        {"text": "It "}, {"text": "is"}, {"functionCall": {"name": "f", "id": "a"}}, {"text": ""},
    ]  # fmt: skip
    contents = [
        *({"role": "model", "parts": [each]} for each in said),
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "1"}}}]},
        {"role": "user", "parts": [{"text": "so"}, {"text": "?"}]},
    ]
    assert ask(contents=contents).messages == [
        Message("assistant", [Thinking("hm", seal), Text("It is"), ToolUse("a", "f", "{}")]),
        Message("user", [ToolResult("a", [Text("1")], name="f")]),
        Message("user", [Text("so"), Text("?")]),
    ]


def test_what_only_google_knows_is_kept_by_its_name() -> None:
    request = ask(
        contents=[{"parts": [{"executableCode": {"code": "1"}}, {"text": "x", "videoMetadata": {"fps": 1}}]}],
        safetySettings=[{"category": "c", "threshold": "t"}],
        cachedContent="cachedContents/a",
        generationConfig={"mediaResolution": "MEDIA_RESOLUTION_LOW", "responseMimeType": "text/x.enum"},
        toolConfig={"retrievalConfig": {"languageCode": "de"}},
        tools=[{"googleSearch": {}}, {"code_execution": {}}],
    )
    assert set(request.extra) == {
        "executableCode", "videoMetadata", "safetySettings", "cachedContent", "mediaResolution", "responseMimeType",
        "retrievalConfig",
    }  # fmt: skip
    assert request.hosted == [
        Hosted("googleSearch", "gemini", {"googleSearch": {}}),
        Hosted("codeExecution", "gemini", {"codeExecution": {}}),
    ]
    losses = Losses("gemini", decide)
    tree = write_request(request, losses)
    conforms(tree)
    assert tree["safetySettings"] == [{"category": "c", "threshold": "t"}]
    assert tree["generationConfig"] == {"mediaResolution": "MEDIA_RESOLUTION_LOW"}
    assert sorted(losses.dropped) == ["executableCode", "responseMimeType", "videoMetadata"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"mode": "AUTO"}, ToolChoice("auto")),
        ({"mode": "NONE"}, ToolChoice("none")),
        ({"mode": "ANY"}, ToolChoice("required")),
        ({"mode": "ANY", "allowedFunctionNames": ["a", "b"]}, ToolChoice("required", allowed=["a", "b"])),
        ({"mode": "VALIDATED", "allowedFunctionNames": ["a"]}, ToolChoice("auto", allowed=["a"])),
        ({}, None),
    ],
)
def test_tool_choices_are_read(config: Any, expected: Any) -> None:
    request = ask(
        tools=[{"functionDeclarations": [{"name": "a"}]}],
        toolConfig={"functionCallingConfig": config},
    )
    assert request.tool_choice == expected
    assert request.tools[0].strict is (True if config.get("mode") == "VALIDATED" else None)


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ({"thinkingBudget": 0}, Reasoning(enabled=False)),
        ({"thinkingBudget": -1, "includeThoughts": True}, Reasoning(adaptive=True, summary="auto")),
        ({"thinkingBudget": "4096"}, Reasoning(budget=4096)),
        ({"thinkingLevel": "LOW"}, Reasoning(effort="low")),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, Reasoning()),
    ],
)
def test_thinking_is_read(thinking: Any, expected: Any) -> None:
    assert ask(generationConfig={"thinkingConfig": thinking}).reasoning == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"responseMimeType": "application/json"}, Format()),
        ({"responseMimeType": "application/json", "responseSchema": {"type": "STRING"}}, Format({"type": "string"})),
        ({"responseJsonSchema": SCHEMA}, Format(SCHEMA)),
        ({"responseMimeType": "text/plain"}, None),
    ],
)
def test_formats_are_read(config: Any, expected: Any) -> None:
    assert ask(generationConfig=config).format == expected


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"contents": None}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": {"parts": []}}, "contents"),
        ({"contents": ["Hi"]}, "contents[0]"),
        ({"contents": [{"role": "assistant", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"parts": [{}]}]}, "contents[0].parts[0]"),
        ({"contents": [{"parts": [{"text": 1}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [{"functionCall": 1}]}]}, "contents[0].parts[0].functionCall"),
        ({"contents": [{"parts": [{"functionCall": None}]}]}, "contents[0].parts[0].functionCall"),
        ({"contents": [{"parts": [{"functionCall": {"args": {}}}]}]}, "contents[0].parts[0].functionCall.name"),
        ({"contents": [{"parts": [{"functionResponse": None}]}]}, "contents[0].parts[0].functionResponse"),
        ({"contents": [{"parts": [{"inlineData": {}}]}]}, "contents[0].parts[0].inlineData.data"),
        ({"contents": [{"parts": [{"fileData": {}}]}]}, "contents[0].parts[0].fileData.fileUri"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name"),
        (
            {"tools": [{"functionDeclarations": [{"name": "f", "parameters": {"items": []}}]}]},
            "tools[0].functionDeclarations[0].parameters.items",
        ),
        ({"toolConfig": {"functionCallingConfig": {"mode": "X"}}}, "toolConfig.functionCallingConfig.mode"),
        ({"generationConfig": {"topK": "x"}}, "generationConfig.topK"),
        ({"generationConfig": {"stopSequences": "x"}}, "generationConfig.stopSequences"),
        ({"systemInstruction": 1}, "systemInstruction"),
        ({"generationConfig": {"responseSchema": []}}, "generationConfig.responseSchema"),
        ({"generationConfig": {"responseSchema": {"anyOf": {}}}}, "generationConfig.responseSchema.anyOf"),
        ({"generationConfig": {"responseSchema": {"properties": []}}}, "generationConfig.responseSchema.properties"),
        ({"contents": [{"role": "model", "parts": []}]}, "contents"),
        (
            {"generationConfig": {"thinkingConfig": {"thinkingLevel": "HUGE"}}},
            "generationConfig.thinkingConfig.thinkingLevel",
        ),
    ],
)
def test_what_is_not_of_the_api_is_named(members: Any, param: Any) -> None:
    with pytest.raises(Malformed) as raised:
        ask(**members)
    assert raised.value.param == param


def test_trees_without_a_bottom_are_malformed() -> None:
    schema: Any = {"type": "OBJECT"}
    arguments: Any = {}
    for _ in range(300):
        schema, arguments = {"items": schema}, {"a": arguments}
    with pytest.raises(Malformed):
        ask(generationConfig={"responseSchema": schema})
    with pytest.raises(Malformed):
        ask(contents=[{"role": "model", "parts": [{"functionCall": {"name": "f", "args": arguments}}]}])
