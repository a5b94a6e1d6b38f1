"""Places that follow what the upstream can do: by either lane, shown, and never below what is configured."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.behaviours import answer, failure, silence, stream
from tests.support.fake_openai import completion, spoken
from tests.support.gateway import ADMIN_KEY, Gateway, configuration, provider
from tests.support.upstream import Behaviour, Upstream

CLIENTS = 16


@pytest.fixture(params=["auto", "full"])
def running(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[Gateway]:
    adaptive = {"start": 8, "min": 2, "max": 64}
    entry = provider(upstream.url, adaptive=adaptive, queue={"size": 100, "wait": "20s"}, retries={"attempts": 1})
    config = configuration(entry, timeouts={"connect": "5s", "first_byte": "5s", "between_bytes": "5s", "total": "30s"})
    config["server"]["lane"] = request.param
    with Gateway(config) as gateway:
        yield gateway


def places(gateway: Gateway) -> int:
    found: Any = gateway.get("/upstreams", key=ADMIN_KEY).json
    return int(found["data"][0]["queue"]["places"])


@pytest.mark.parametrize("bad", [failure(503), failure(429), silence()], ids=["503", "429", "late"])
def test_overload_halves_the_places(running: Gateway, upstream: Upstream, bad: Behaviour) -> None:
    assert places(running) == 8
    for left in (4, 2, 2):
        upstream.script(bad)
        assert running.chat().status >= 429
        assert places(running) == left
    text = running.get("/metrics/prometheus", key=ADMIN_KEY).body
    assert b'agw_adaptive_limit{upstream="fake"} 2.0' in text


def test_an_error_of_the_caller_changes_nothing(running: Gateway, upstream: Upstream) -> None:
    upstream.script(failure(400))
    assert running.chat().status == 400
    assert places(running) == 8


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_an_upstream_that_keeps_up_gets_more(running: Gateway, upstream: Upstream, streamed: bool) -> None:
    upstream.default = stream(spoken(usage=True), delay_ms=5) if streamed else answer(completion(), delay_ms=5)
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in range(400):  # a machine that does other things at the same time takes places away now and then
            replies = pool.map(lambda _: running.chat(stream=streamed).status, range(CLIENTS))
            assert set(replies) == {200}
            if (most := places(running)) > 10:
                break
    assert most > 10
