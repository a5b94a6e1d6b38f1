"""Reading a real SDK's head and a chunked body: ours, h11 and aiohttp's parser in C, each through Python."""

from typing import Any
from unittest.mock import Mock

import h11
import pytest
from aiohttp.http_parser import HttpRequestParserC
from pytest_benchmark.fixture import BenchmarkFixture

from agw_proxy._hot.http1 import ChunkDecoder, ParsedRequest, parse_request_head
from tests.hot.vectors_http1 import SDK

FIELDS = SDK.count(b"\r\n") - 2
HEAD = SDK.replace(b"Content-Length: 1500\r\n", b"")  # no body: aiohttp's parser then reads head after head
CHUNKS = 80
DATA = b'data: {"choices":[{"index":0,"delta":{"content":" word"}}]}\n\n' * 3
BODY = b"%x\r\n%b\r\n" % (len(DATA), DATA) * CHUNKS
LAST = b"0\r\n\r\n"


@pytest.mark.benchmark(group="head: an SDK's, 21 fields")
def test_head_compiled(benchmark: BenchmarkFixture) -> None:
    parsed: ParsedRequest = benchmark(parse_request_head, SDK)
    assert (parsed.verdict, len(parsed.fields)) == ("take", FIELDS)


@pytest.mark.benchmark(group="head: an SDK's, 21 fields")
def test_head_compiled_and_all_its_fields(benchmark: BenchmarkFixture) -> None:
    assert len(benchmark(lambda: parse_request_head(SDK).fields)) == FIELDS


@pytest.mark.benchmark(group="head: an SDK's, 21 fields")
def test_head_aiohttp(benchmark: BenchmarkFixture) -> None:
    parser = HttpRequestParserC(Mock(), Mock(), 1 << 16)
    messages: Any = benchmark(parser.feed_data, HEAD)[0]
    assert len(messages[0][0].raw_headers) == FIELDS - 1


@pytest.mark.benchmark(group="head: an SDK's, 21 fields")
def test_head_h11(benchmark: BenchmarkFixture) -> None:
    def read() -> Any:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(SDK)
        return connection.next_event()

    assert len(benchmark(read).headers) == FIELDS


@pytest.mark.benchmark(group="body: 80 chunks, 15 KB")
def test_body_compiled(benchmark: BenchmarkFixture) -> None:
    decoder = ChunkDecoder()
    assert benchmark(decoder.feed, BODY) == DATA * CHUNKS


@pytest.mark.benchmark(group="body: 80 chunks, 15 KB")
def test_body_h11(benchmark: BenchmarkFixture) -> None:
    def read() -> bytes:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY + LAST)
        connection.next_event()
        pieces = []
        while isinstance(event := connection.next_event(), h11.Data):
            pieces.append(bytes(event.data))
        return b"".join(pieces)

    assert benchmark(read) == DATA * CHUNKS
