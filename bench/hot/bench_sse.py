"""Following answers: compiled, and by the plain model that parses each event with the standard library's json."""

import json
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from agw_proxy._hot.sse import Document, Stream
from tests.hot import model_sse

DELTA = (
    b'data: {"id":"chatcmpl-abc123","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}\n\n'
)
EVENTS = 80  # about 16 KB, a usual read
CHUNK = DELTA * EVENTS
ANSWER = json.dumps(
    {
        "id": "chatcmpl-abc123",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "some words " * 140}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 280, "prompt_tokens_details": {"cached_tokens": 0}},
    }
).encode()


@pytest.mark.benchmark(group="stream: one delta event of 190 bytes")
def test_event_compiled(benchmark: BenchmarkFixture) -> None:
    stream = Stream(strip_usage=True)
    assert benchmark(stream.feed, DELTA) is DELTA


@pytest.mark.benchmark(group="stream: one delta event of 190 bytes")
def test_event_model(benchmark: BenchmarkFixture) -> None:
    assert benchmark(model_sse.follow, DELTA).out == DELTA


@pytest.mark.benchmark(group="stream: 80 events in one chunk")
def test_chunk_compiled(benchmark: BenchmarkFixture) -> None:
    stream = Stream(strip_usage=True)
    assert benchmark(stream.feed, CHUNK) is CHUNK


@pytest.mark.benchmark(group="stream: 80 events in one chunk")
def test_chunk_model(benchmark: BenchmarkFixture) -> None:
    assert benchmark(model_sse.follow, CHUNK).events == EVENTS


@pytest.mark.benchmark(group="stream: 80 events in one chunk")
def test_chunk_compiled_split_in_an_event(benchmark: BenchmarkFixture) -> None:
    stream = Stream(strip_usage=True)
    stream.feed(DELTA[:100])
    assert benchmark(stream.feed, CHUNK[100:] + DELTA[:100]) == CHUNK


@pytest.mark.benchmark(group="document: an answer of 1.8 KB")
def test_document_compiled(benchmark: BenchmarkFixture) -> None:
    def read() -> Document:
        document = Document()
        document.feed(ANSWER)
        return document

    assert benchmark(read).complete


@pytest.mark.benchmark(group="document: an answer of 1.8 KB")
def test_document_model(benchmark: BenchmarkFixture) -> None:
    def read() -> Any:
        into = model_sse.Followed()
        model_sse.read(json.loads(ANSWER), into)
        return into

    assert benchmark(read).finish_reason == "stop"
