"""Exact counts where tiktoken and its data are at hand, the estimate where not, and never a download."""

import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from agw_proxy._hot.tokens import IMAGE_TOKENS, MESSAGE_TOKENS, REPLY_TOKENS, count
from agw_proxy.policy import tokens
from agw_proxy.policy.tokens import counting, encoding_of, exact, readable

DATA = b"aGk= 0\n"
BODY = json.dumps({"messages": [{"role": "user", "content": "one two three"}]}).encode()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A tiktoken that splits at blanks, and a cache with its data; what was asked of it."""
    names: list[str] = []

    def get_encoding(name: str) -> Any:
        names.append(name)
        return SimpleNamespace(encode_ordinary=str.split)

    module = ModuleType("tiktoken")
    module.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    module.get_encoding = get_encoding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tiktoken", module)
    monkeypatch.setitem(tokens._DATA, "o200k_base", ("cached", hashlib.sha256(DATA).hexdigest()))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    (tmp_path / "cached").write_bytes(DATA)
    return names


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4.1", "o200k_base"),
        ("gpt-5-nano", "o200k_base"),
        ("o3", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("claude-sonnet", None),
        ("gpt-4all", None),
    ],
)
def test_models_have_their_encodings(model: str, encoding: str | None) -> None:
    assert encoding_of(model) == encoding


def test_with_the_data_at_hand_counts_are_the_tokenizers(asked: list[str]) -> None:
    counter, is_exact = counting("gpt-4o")
    assert is_exact
    assert counter(BODY) == 3 + MESSAGE_TOKENS + REPLY_TOKENS
    assert asked == ["o200k_base"]


def test_data_that_is_not_what_it_should_be_is_never_asked_for(asked: list[str], tmp_path: Path) -> None:
    (tmp_path / "cached").write_bytes(DATA + b"!")
    assert exact("o200k_base") is None
    (tmp_path / "cached").unlink()
    assert exact("o200k_base") is None
    assert exact("cl100k_base") is None
    assert asked == []


def test_a_cache_that_is_switched_off_is_none(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert exact("o200k_base") is None
    assert asked == []


def test_the_default_cache_is_where_tiktoken_looks(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert exact("o200k_base") is None
    (tmp_path / "data-gym-cache").mkdir()
    (tmp_path / "data-gym-cache" / "cached").write_bytes(DATA)
    assert exact("o200k_base") is not None


def test_without_tiktoken_the_estimate_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert counting("gpt-4o") == (count, False)


def test_models_of_others_are_estimated(asked: list[str]) -> None:
    assert counting("claude-sonnet") == (count, False)
    assert exact("p50k_base") is None
    assert asked == []


def test_a_message_with_a_picture_and_a_call() -> None:
    found = readable(
        {
            "model": "claude-sonnet",
            "system": "Be kind.",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                        {"type": "text", "text": "What is it?"},
                    ],
                },
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 5}}],
                },
            ],
            "tools": [{"name": "look", "input_schema": {}}],
        }
    )
    assert found.texts == ["Be kind.", "What is it?", "look", '{"at":5}', '[{"name":"look","input_schema":{}}]']
    assert found.around == REPLY_TOKENS + 3 * MESSAGE_TOKENS + IMAGE_TOKENS


def test_a_response_and_embeddings() -> None:
    assert readable({"input": "hello", "instructions": "hi"}) == (["hello", "hi"], REPLY_TOKENS + 2 * MESSAGE_TOKENS)
    assert readable({"input": ["a", "b"], "dimensions": 256}) == (["a", "b"], REPLY_TOKENS)
    items = [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'},
        {"role": "user", "content": "x"},
    ]
    assert readable({"input": items}) == (["f", '{"a":1}', "x"], REPLY_TOKENS + MESSAGE_TOKENS)
