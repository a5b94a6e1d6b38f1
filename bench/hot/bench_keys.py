"""Key check, compiled against the plain model: per group, the ratio of the medians is what the C earns."""

import hashlib
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from agw_proxy._hot import keys
from tests.hot import model_keys

ENTRIES = [(hashlib.sha256(b"agw_%043d" % i).digest(), i) for i in range(1000)]
KEY = b"agw_%043d" % 500
# What the OpenAI SDK sends.
HEADERS = (
    (b"Host", b"127.0.0.1:8080"),
    (b"Accept-Encoding", b"gzip, deflate"),
    (b"Connection", b"keep-alive"),
    (b"Accept", b"application/json"),
    (b"Content-Type", b"application/json"),
    (b"User-Agent", b"AsyncOpenAI/Python 2.0.0"),
    (b"X-Stainless-Lang", b"python"),
    (b"X-Stainless-Package-Version", b"2.0.0"),
    (b"X-Stainless-OS", b"Linux"),
    (b"X-Stainless-Arch", b"x64"),
    (b"X-Stainless-Runtime", b"CPython"),
    (b"X-Stainless-Runtime-Version", b"3.11.7"),
    (b"Authorization", b"Bearer " + KEY),
    (b"X-Stainless-Async", b"async:asyncio"),
    (b"Content-Length", b"1500"),
)
COMPILED = keys.KeyTable(ENTRIES)
MODEL = model_keys.KeyTable(ENTRIES)


@pytest.mark.benchmark(group="keys.find")
@pytest.mark.parametrize("find", [COMPILED.find, MODEL.find], ids=["compiled", "model"])
def test_find(benchmark: BenchmarkFixture, find: Callable[[bytes], int]) -> None:
    assert benchmark(find, KEY) == 500


@pytest.mark.benchmark(group="keys.find without its SHA-256")
def test_find_digest(benchmark: BenchmarkFixture) -> None:
    assert benchmark(COMPILED.find_digest, ENTRIES[500][0]) == 500


@pytest.mark.benchmark(group="keys.credential")
@pytest.mark.parametrize("scan", [keys.credential, model_keys.credential], ids=["compiled", "model"])
def test_credential(benchmark: BenchmarkFixture, scan: Callable[[object], object]) -> None:
    assert benchmark(scan, HEADERS) is not None
