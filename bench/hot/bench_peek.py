"""Reading and rewriting a request body: compiled, by its plain model, and by the general parsers that do less."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from agw_proxy._hot.peek import peek, rewrite
from tests.hot import model_peek

CHAT = json.dumps(
    {
        "model": "gpt-4o-mini",
        "stream": True,
        "messages": [
            {"role": "system", "content": "You are a careful assistant. " * 8},
            {"role": "user", "content": 'Tell me a "story" about\na fox and a crow. ' * 20},
            {"role": "assistant", "content": "Once upon a time. " * 15},
        ],
        "temperature": 0.7,
        "max_tokens": 512,
        "user": "u-1234",
    }
).encode()
LONG = {
    "ascii": json.dumps({"model": "m", "x": "lorem ipsum " * 87_000}).encode(),
    "escapes": json.dumps({"model": "m", "x": "a line\n" * 120_000}).encode(),
    "cjk": json.dumps({"model": "m", "x": "漢字" * 170_000}, ensure_ascii=False).encode(),
}


@pytest.mark.benchmark(group="peek: a chat body of 1.5 KB")
@pytest.mark.parametrize(
    "read", [peek, model_peek.peek, orjson.loads, msgspec.json.decode], ids=["compiled", "model", "orjson", "msgspec"]
)
def test_peek_chat(benchmark: BenchmarkFixture, read: Callable[[bytes], Any]) -> None:
    assert benchmark(read, CHAT)


@pytest.mark.benchmark(group="peek: a body of 1 MB")
@pytest.mark.parametrize("kind", list(LONG))
@pytest.mark.parametrize("read", [peek, orjson.loads], ids=["compiled", "orjson"])
def test_peek_long(benchmark: BenchmarkFixture, read: Callable[[bytes], Any], kind: str) -> None:
    assert benchmark(read, LONG[kind])


@pytest.mark.benchmark(group="peek: 1,024 members, the most there may be")
@pytest.mark.parametrize("read", [peek, model_peek.peek], ids=["compiled", "model"])
def test_peek_members(benchmark: BenchmarkFixture, read: Callable[[bytes], Any]) -> None:
    body = b"{" + b",".join(b'"member-%d":1' % i for i in range(1024)) + b"}"
    assert benchmark(read, body)


def _rewrite_by_model(body: bytes) -> bytes:
    return json.dumps(model_peek.rewritten(body, "other-model", want_usage=True)).encode()


def _rewrite_by_orjson(body: bytes) -> bytes:
    tree = orjson.loads(body)
    tree["model"] = "other-model"
    tree["stream_options"] = {"include_usage": True}
    return orjson.dumps(tree)


def _rewrite(body: bytes) -> bytes:
    return rewrite(body, peek(body), "other-model", want_usage=True)


@pytest.mark.benchmark(group="peek and rewrite: a chat body of 1.5 KB")
@pytest.mark.parametrize(
    "change", [_rewrite, _rewrite_by_model, _rewrite_by_orjson], ids=["compiled", "model", "orjson"]
)
def test_rewrite_chat(benchmark: BenchmarkFixture, change: Callable[[bytes], bytes]) -> None:
    assert b"other-model" in benchmark(change, CHAT)
