"""What agw/echo refuses: each wrong member is named by its path."""

import json
from typing import Any

import pytest

from agw_proxy.upstreams.echo_answers import MAX_VALUES, answer
from tests.upstreams.test_echo_answers import CHAT, TEXT, VECTORS, VERDICTS, refused, user


@pytest.mark.parametrize(
    ("path", "members", "param"),
    [
        (CHAT, {}, "messages"),
        (CHAT, {"messages": 3}, "messages"),
        (CHAT, {"messages": [3]}, "messages[0]"),
        (CHAT, {"messages": [{}]}, "messages[0].role"),
        (CHAT, {"messages": user(3)}, "messages[0].content"),
        (CHAT, {"messages": user([{"text": 3}])}, "messages[0].content[0].text"),
        (CHAT, {"messages": [], "model": 3}, "model"),
        (CHAT, {"messages": [], "model": "x" * 257}, "model"),
        (CHAT, {"messages": [], "stream": "yes"}, "stream"),
        (CHAT, {"messages": [], "tools": [{"function": {"name": ""}}]}, "tools[0].function.name"),
        (CHAT, {"messages": [], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        (CHAT, {"messages": [], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        (CHAT, {"messages": [], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        (CHAT, {"messages": [], "tool_choice": "required"}, "tool_choice"),
        (CHAT, {"messages": [], "tool_choice": "other"}, "tool_choice"),
        (CHAT, {"messages": [], "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            CHAT,
            {"messages": [], "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}},
            "response_format.json_schema.schema",
        ),
        (
            CHAT,
            {
                "messages": [],
                "tool_choice": "required",
                "tools": [{"function": {"name": "a", "parameters": {"$ref": "#"}}}],
            },
            "tools[0].function.parameters",
        ),
        (TEXT, {"prompt": ["a", 1]}, "prompt"),
        (TEXT, {"prompt": ["a"] * 65}, "prompt"),
        (VECTORS, {}, "input"),
        (VECTORS, {"input": []}, "input"),
        (VECTORS, {"input": ["a", [1]]}, "input"),
        (VECTORS, {"input": ["a"] * 2049}, "input"),
        (VECTORS, {"input": "a", "dimensions": 4097}, "dimensions"),
        (VECTORS, {"input": ["a"] * (MAX_VALUES // 4096 + 1), "dimensions": 4096}, "dimensions"),
        (VECTORS, {"input": "a", "encoding_format": "x"}, "encoding_format"),
        (VERDICTS, {"input": []}, "input"),
        *(
            (CHAT, {"messages": [], "agw_echo": {name: value}}, f"agw_echo.{name}")
            for name, values in {
                "delay_ms": (-1, 60_001),
                "pace_ms": (-1, 10_001),
                "chunks": (0, 100_001),
                "bytes": (0, (64 << 20) + 1),
                "status": (399, 600),
                "break_after": (-1, "x"),
            }.items()
            for value in values
        ),
        (CHAT, {"messages": [], "agw_echo": {"dealy_ms": 1}}, "agw_echo"),
        (CHAT, {"messages": [], "agw_echo": {"chunks": 1, "bytes": 1}}, "agw_echo"),
    ],
)
def test_what_is_wrong_is_named(path: str, members: dict[str, Any], param: str) -> None:
    status, named, message = refused(path, **members)
    assert (status, named) == (400, param)
    assert len(message) < 400


@pytest.mark.parametrize(
    "body", [None, b"", b"[]", b'{"messages": "\\ud800"}', b'{"x":' + b"[" * 9999 + b"]" * 9999 + b"}"]
)
def test_a_body_that_cannot_be_read_is_refused(body: bytes | None) -> None:
    answered = answer("POST", CHAT, body)
    assert answered.status == 400
    assert b'"error"' in b"".join(answered.pieces)


def test_an_answer_that_would_be_nested_too_deeply_is_refused() -> None:
    value: Any = 0
    for _ in range(230):
        value = [value]
    schema: Any = {"const": value}
    for _ in range(50):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    body = json.dumps({"messages": [], "response_format": form}).encode()
    answered = answer("POST", CHAT, body)
    assert answered.status == 400
    assert b"nested too deeply" in b"".join(answered.pieces)
