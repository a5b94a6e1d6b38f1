"""Schemas that OpenAI would refuse in its strict mode are asked for without it, and that is told."""

from typing import Any

import orjson
import pytest

from agw_proxy.config.presets import Quirks
from agw_proxy.dialects import translate

CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
LEFT_OUT = {**CLOSED, "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}
OPEN = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
WHOLE = [
    CLOSED,
    {**CLOSED, "properties": {"a": {"type": "array", "items": CLOSED}}},
    {**CLOSED, "$defs": {"x": CLOSED}},
]
LOOSE = [
    LEFT_OUT, OPEN, {"type": "object"},
    {**CLOSED, "properties": {"a": {"type": "array", "items": LEFT_OUT}}},
    {**CLOSED, "properties": {"a": {"anyOf": [{"type": "null"}, OPEN]}}},
    {**CLOSED, "$defs": {"x": LEFT_OUT}},
]  # fmt: skip


def written(target: Any, schema: object) -> tuple[Any, tuple[str, ...]]:
    """Asked in Anthropic's form: a format and a strict tool of this schema."""
    asked = {
        "model": "m",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"name": "f", "strict": True, "input_schema": schema}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }
    made = translate.write_request(translate.read_request("messages", orjson.dumps(asked)), target, "m", Quirks())
    tree = orjson.loads(made.body)
    if target == "chat":
        return (tree["response_format"]["json_schema"]["strict"], tree["tools"][0]["function"]["strict"]), made.dropped
    return (tree["text"]["format"]["strict"], tree["tools"][0]["strict"]), made.dropped


@pytest.mark.parametrize("target", ["chat", "responses"])
@pytest.mark.parametrize("schema", WHOLE)
def test_what_openai_takes_stays_strict(target: str, schema: object) -> None:
    assert written(target, schema) == ((True, True), ())


@pytest.mark.parametrize("target", ["chat", "responses"])
@pytest.mark.parametrize("schema", LOOSE)
def test_what_it_would_refuse_is_asked_for_without_the_promise(target: str, schema: object) -> None:
    assert written(target, schema) == ((False, False), ("json_schema", "strict_tools"))
