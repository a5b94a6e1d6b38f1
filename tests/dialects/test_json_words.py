"""Formats that are told in words: where OpenAI wants the word itself, and where a server knows no schemas."""

from typing import Any

import orjson
import pytest

from agw_proxy.config.presets import BY_NAME, Quirks
from agw_proxy.config.values import Spoken
from agw_proxy.dialects import translate
from agw_proxy.dialects.base import Format, Message, Request, Role, Text

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}
DEEPSEEK = BY_NAME["deepseek"].quirks


def written(target: Spoken, form: Format, *said: tuple[Role, str], quirks: Quirks | None = None) -> tuple[Any, Any]:
    request = Request("m", [Message(role, [Text(words)]) for role, words in said], format=form)
    made = translate.write_request(request, target, "m", quirks or Quirks())
    return orjson.loads(made.body), made.dropped


@pytest.mark.parametrize("target", ["chat", "responses"])
def test_the_word_is_said_where_it_has_to_be(target: Spoken) -> None:
    member = "messages" if target == "chat" else "input"
    body, dropped = written(target, Format(), ("system", "Be brief."), ("user", "A recipe"))
    assert "JSON" in str(body[member])
    assert dropped == ()
    alone, _ = written(target, Format(), ("user", "A recipe"))
    assert "JSON" in str(alone[member])
    said, _ = written(target, Format(), ("system", "Be brief."), ("user", "A recipe, as json"))
    assert "JSON" not in str(said)


def test_in_responses_the_instructions_do_not_count() -> None:
    body, _ = written("responses", Format(), ("system", "Answer in JSON."), ("user", "A recipe"))
    assert body["instructions"] == "Answer in JSON."
    assert "JSON" in str(body["input"])
    chat, _ = written("chat", Format(), ("system", "Answer in JSON."), ("user", "A recipe"))
    assert [message["role"] for message in chat["messages"]] == ["system", "user"]


def test_a_schema_is_told_where_the_server_knows_none() -> None:
    body, dropped = written("chat", Format(SCHEMA), ("system", "Be brief."), ("user", "Who?"), quirks=DEEPSEEK)
    assert body["response_format"] == {"type": "json_object"}
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["messages"][0]["content"].startswith("Be brief.\n\nAnswer in JSON")
    assert '"name"' in body["messages"][0]["content"]
    assert dropped == ("json_schema",)
    other, lost = written("chat", Format(SCHEMA), ("user", "Who?"))
    assert (other["response_format"]["type"], len(other["messages"]), lost) == ("json_schema", 1, ())


@pytest.mark.parametrize("target", ["messages", "gemini"])
def test_others_are_asked_in_their_own_way(target: Spoken) -> None:
    body, _ = written(target, Format(), ("user", "A recipe"))
    assert "JSON" not in str(body.get("system")) + str(body.get("systemInstruction"))
