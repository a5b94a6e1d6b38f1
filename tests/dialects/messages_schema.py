"""The published schema of requests to the Messages API, as the official SDK's types have it, nothing more allowed."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from anthropic.types import MessageCountTokensParams
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from pydantic import TypeAdapter

_PLAIN: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
_STREAMED: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsStreaming)
_COUNTED: TypeAdapter[Any] = TypeAdapter(MessageCountTokensParams)
_SAMPLING = {"temperature": 1, "top_p": 1, "top_k": 10**9}
"""Only older models take these; the SDK's types have forgotten them."""
_BETA = {"context_management", "mcp_servers"}
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def accept(tree: dict[str, Any]) -> None:
    """Raise where the real API would answer 400."""
    sampling = {name: tree[name] for name in _SAMPLING if name in tree}
    assert all(0 <= value <= _SAMPLING[name] for name, value in sampling.items()), sampling
    assert not {"temperature", "top_p"} <= sampling.keys()
    shown = {name: value for name, value in tree.items() if name not in _SAMPLING and name not in _BETA}
    adapter = _COUNTED if "max_tokens" not in tree else _STREAMED if tree.get("stream") else _PLAIN
    _exhaust(adapter.validate_python(shown, extra="forbid"))
    _accept_turns(tree["messages"])
    for tool in tree.get("tools", []):
        assert 0 < len(tool["name"]) <= 128
        assert _NAME.issuperset(tool["name"])
        if "type" not in tool:
            assert tool["input_schema"]["type"] == "object"
            assert not {"anyOf", "oneOf", "allOf"} & tool["input_schema"].keys()
    _accept_thinking(tree)


def _accept_turns(turns: list[Any]) -> None:
    assert turns
    assert turns[0]["role"] == "user"
    for before, after in pairwise(turns):
        assert before["role"] != after["role"], "two turns of one side"
    for turn in turns:
        assert turn["content"], "an empty turn"
        kinds = [block["type"] for block in turn["content"]]
        assert kinds == sorted(kinds, key=lambda kind: kind != "tool_result") or turn["role"] == "assistant"
        assert turn["role"] == "user" or kinds[-1] not in {"thinking", "redacted_thinking"}
        for block in turn["content"]:
            assert block["type"] != "text" or block["text"].strip(), "an empty text"
            ident = block.get("id", block.get("tool_use_id", "x"))
            assert ident
            assert _NAME.issuperset(ident)
    calls = [block["id"] for turn in turns for block in turn["content"] if block["type"] == "tool_use"]
    assert len(set(calls)) == len(calls), "two calls of one id"
    last = turns[-1]["content"][-1]
    assert turns[-1]["role"] == "user" or last["type"] != "text" or last["text"] == last["text"].rstrip()


def _accept_thinking(tree: dict[str, Any]) -> None:
    thinking = tree.get("thinking", {"type": "disabled"})
    if thinking["type"] == "disabled":
        return
    assert tree.get("tool_choice", {"type": "auto"})["type"] in {"auto", "none"}
    assert "top_k" not in tree
    assert tree.get("temperature", 1) == 1
    assert tree["messages"][-1]["role"] == "user"
    if thinking["type"] == "enabled" and "max_tokens" in tree:
        assert 1024 <= thinking["budget_tokens"] < tree["max_tokens"]


def _exhaust(value: Any) -> None:
    """Pydantic validates iterables as they are walked."""
    if isinstance(value, Mapping):
        for inner in value.values():
            _exhaust(inner)
    elif isinstance(value, Iterator | list) or not isinstance(value, str | int | float | bool | None):
        for inner in value:
            _exhaust(inner)
