"""One exchange of Converse: names that Amazon does not take fit there, and come back as they were."""

import orjson

from agw_proxy.upstreams.bedrock_converse import Talk
from tests.dialects.test_tool_names import LONG
from tests.support.converse import answer, check_converse, messages
from tests.support.providers import Scene

SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}}
NAME = LONG.replace(".", "_")
"""Fit for Anthropic, and too long for Amazon."""


def talk(*, stream: bool = False) -> Talk:
    call = {"type": "tool_use", "id": "toolu_1", "name": NAME, "input": {}}
    tree = {
        "model": "m",
        "max_tokens": 50,
        "stream": stream,
        "tools": [{"name": NAME, "input_schema": SCHEMA}],
        "tool_choice": {"type": "tool", "name": NAME},
        "messages": [
            {"role": "user", "content": "Go"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "12"}]},
        ],
    }
    return Talk(orjson.dumps(tree), "amazon.nova", "r1", "aws")


def named(body: bytes) -> str:
    """What the tool is called towards Amazon, everywhere the same."""
    tree = orjson.loads(body)
    assert check_converse(tree) is None
    config = tree["toolConfig"]
    names: set[str] = {
        config["tools"][0]["toolSpec"]["name"],
        config["toolChoice"]["tool"]["name"],
        tree["messages"][1]["content"][0]["toolUse"]["name"],
    }
    assert len(names) == 1
    assert len(max(names)) <= 64
    return names.pop()


def test_a_long_name_fits_and_comes_back() -> None:
    assert 64 < len(NAME) <= 128
    made = talk()
    name = named(made.body)
    found = orjson.loads(made.answer(orjson.dumps(answer(Scene(calls=((name, {"x": "1"}),), stop="tool")))))
    assert found["content"][0]["name"] == NAME


def test_a_long_name_comes_back_in_a_stream() -> None:
    made = talk(stream=True)
    told = messages(Scene(calls=((named(made.body), {"x": "1"}),), stop="tool"))
    data = b"".join(made.event(kind, orjson.dumps(payload)) for kind, payload in told) + made.end()
    assert f'"name":"{NAME}"'.encode() in data
    assert data.count(b"event: message_stop") == 1
