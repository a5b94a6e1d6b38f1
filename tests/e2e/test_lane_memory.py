"""Requests leave nothing behind: no object of ours, no memory, whatever they ended in.

The gateway runs in the test's process, so that its objects can be counted; the clients are threads with plain sockets.
"""

import asyncio
import gc
import json
import os
import subprocess
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.load.build import program
from bench.proxies import request
from tests.edge.inprocess import Running, serving
from tests.support.behaviours import failure, silence, stream
from tests.support.client import Connection, bearer
from tests.support.fake_openai import openai_like, spoken, words
from tests.support.gateway import APP_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Exchange, Upstream

ROUND = 40  # requests of one kind on one connection
ROUNDS = 12  # between two looks
STRAY_OBJECTS = 60  # of all types together, between two looks: timers and caches of the loop in another phase
STRAY_BYTES = 96 * 1024
WARM_ROUNDS = 2
LARGE_BYTES = 4 << 20  # of a request
MILLION = 1_000_000
STRAIN_MS = 10_000
STRAY_RSS_BYTES = 2 << 20  # under 3 bytes a request


async def by_model(exchange: Exchange) -> None:
    """Misbehave as the model's name says."""
    model = str(exchange.request.json.get("model")) if exchange.request.method == "POST" else ""
    behaviours = {
        "fails": failure(400),
        "breaks": stream(words()[:2], ending="fin"),
        "silent": silence(),
        "lasting": stream([*words()[:2]], ending="hang"),
        "lingers": stream(spoken(), ending="fin"),
    }
    await behaviours.get(model, openai_like)(exchange)


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    with Upstream(by_model) as running:
        yield running


@pytest.fixture
def config(shared_upstream: Upstream) -> Tree:
    models = ["gpt-4o-mini", "gpt-4o", "fails", "breaks", "silent", "lasting", "lingers"]
    return configuration(provider(shared_upstream.url, models=models))


def ask(connection: Connection, **members: object) -> int:
    connection.send("POST", "/v1/chat/completions", chat_body(**members), bearer(APP_KEY))
    return len(connection.reply().body)


def work(running: Running) -> None:
    """One round: answers, streams, refusals, failures, broken streams, clients that leave."""
    with running.connect() as connection:
        for _ in range(ROUND):
            assert ask(connection)
            assert ask(connection, stream=True)
            assert ask(connection, model="gpt-4o", stream=True, stream_options={"include_usage": True})
    with running.connect() as connection:
        for _ in range(5):
            assert ask(connection, model="fails")
            assert ask(connection, model="no-such")
    for model in ("breaks", "lingers"):
        with running.connect() as connection:
            assert ask(connection, model=model, stream=True)
    for model, wait in (("silent", False), ("lasting", True)):
        with running.connect() as connection:
            connection.send("POST", "/v1/chat/completions", chat_body(model=model, stream=True), bearer(APP_KEY))
            if wait:
                connection.upto(connection.head())
    with running.connect() as connection:
        connection.socket.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Le")
    with running.connect() as connection:
        connection.socket.sendall(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")
        assert connection.reply().status == 400


def census() -> Counter[str]:
    """Objects that the collector knows, by type."""
    return Counter(f"{type(item).__module__}.{type(item).__qualname__}" for item in gc.get_objects())


async def rounds(running: Running, upstream: Upstream, count: int) -> None:
    """Work, then rest until every exchange and every client's connection has ended; log lines are forgotten."""
    for _ in range(count):
        await asyncio.to_thread(work, running)
        running.log.lines.clear()
    [edge] = running.gateway._edges
    await running.until(lambda: not running.gateway.active and not edge.lane.connections)
    assert (edge.lane.held, edge.lane.reading) == (0, 0)
    running.log.lines.clear()
    upstream.requests.clear()
    gc.collect()


async def test_requests_leave_no_objects_and_no_memory_behind(
    shared_upstream: Upstream, config: Tree, tmp_path: Path
) -> None:
    async with serving(config, tmp_path) as running:
        asyncio.get_running_loop().set_debug(enabled=False)
        await rounds(running, shared_upstream, WARM_ROUNDS)
        census().subtract(census())  # the first comparison fills Python's own caches of abstract classes
        before = census()
        await rounds(running, shared_upstream, ROUNDS)
        grown = census()
        grown.subtract(before)
        grown.pop("builtins.set", None)  # the wheel's slots: one for each moment ahead, until it has passed
        assert {kind: count for kind, count in grown.items() if count > STRAY_OBJECTS} == {}
        assert {kind: count for kind, count in grown.items() if count > 2 and kind.startswith("agw_proxy.")} == {}
        tracemalloc.start()
        try:
            await rounds(running, shared_upstream, WARM_ROUNDS)
            first = tracemalloc.take_snapshot()
            await rounds(running, shared_upstream, ROUNDS)
            second = tracemalloc.take_snapshot()
        finally:
            tracemalloc.stop()
        found = [item for item in second.compare_to(first, "lineno") if item.size_diff > STRAY_BYTES]
        assert found == []


@pytest.mark.parametrize("lane", ["auto", "full"])
@pytest.mark.parametrize(("model", "status"), [("fails", 400), ("silent", 504)])
@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_failed_request_lets_go_of_its_body_at_once(
    config: Tree, tmp_path: Path, lane: str, model: str, status: int, size: int
) -> None:
    config["server"]["lane"] = lane
    config["timeouts"]["first_byte"] = "20ms" if model == "silent" else "10s"
    config["retries"] = {"attempts": 1}
    body = chat_body(model=model, user="x" * size)
    async with serving(config, tmp_path) as running:
        assert (await running.ask("POST", "/v1/chat/completions", body)).status == status
        gc.collect()
        gc.disable()  # nothing is left to it
        before = census()["agw_proxy.types.Call"]  # other tests' fakes may have some
        try:
            for _ in range(10):
                await running.ask("POST", "/v1/chat/completions", body)
            assert census()["agw_proxy.types.Call"] - before <= 1  # the last one's task may not have ended yet
        finally:
            gc.enable()


def begin(running: Running, path: str, words: str) -> Connection:
    """A client that has the first words of a stream that goes on."""
    said: Tree = {"input": words} if path == "responses" else {"messages": [{"role": "user", "content": words}]}
    connection = running.connect()
    connection.send("POST", f"/v1/{path}", {"model": "lasting", "stream": True, **said}, bearer(APP_KEY))
    assert connection.head().status == 200
    return connection


@pytest.mark.parametrize(
    ("path", "kept"),
    [("chat/completions", False), ("responses", False), ("responses", True)],
    ids=["as-it-is", "translated", "kept"],
)
async def test_what_a_stream_under_way_holds_of_its_request_counts_as_a_body(
    config: Tree, tmp_path: Path, path: str, kept: bool
) -> None:
    config["server"]["lane"] = "full"
    config["upstreams"][0]["speaks"] = ["chat"]
    config["timeouts"] = {"first_byte": "60s", "between_bytes": "60s", "total": "120s"}
    if kept:
        config["store"] = {}
    async with serving(config, tmp_path) as running:
        (edge,) = running.gateway._edges
        (await asyncio.to_thread(begin, running, path, "warm")).close()
        await running.until(lambda: not running.gateway.active)
        tracemalloc.start()
        try:
            connection = await asyncio.to_thread(begin, running, path, "x" * LARGE_BYTES)
            gc.collect()
            ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/agw_proxy/*")])
        finally:
            tracemalloc.stop()
        large = [item for item in ours.statistics("lineno") if item.size > LARGE_BYTES // 2]
        assert len(large) == int(kept), large
        assert (edge.lane.held >= LARGE_BYTES) is kept
        connection.close()
        await running.until(lambda: not running.gateway.active)
        assert edge.lane.held == 0


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_memory_of_the_process_is_flat_over_a_million_requests(tmp_path: Path, *, streamed: bool) -> None:
    with subprocess.Popen([program("upstream"), "--events", "5", "--pace-us", "0"], stdout=subprocess.PIPE) as peer:
        try:
            assert peer.stdout is not None
            port = int(peer.stdout.readline().split()[1])
            entry = provider(f"http://127.0.0.1:{port}", models=["gpt-4o-mini"])
            with Gateway(configuration(entry)) as gateway:
                done = strain(gateway, tmp_path, streamed=streamed)  # the allocator's pools fill once
                before = gateway.rss_bytes
                while done < MILLION or (gateway.rss_bytes - before >= STRAY_RSS_BYTES and done < 4 * MILLION):
                    done += strain(gateway, tmp_path, streamed=streamed)  # buffers come and go; what leaks stays
                assert gateway.rss_bytes - before < STRAY_RSS_BYTES
        finally:
            peer.kill()


def strain(gateway: Gateway, folder: Path, *, streamed: bool) -> int:
    """Load for some seconds; how many requests were answered, every one of them well."""
    port = int(gateway.url.rpartition(":")[2])
    file = folder / "request"
    file.write_bytes(request.build(port, "gpt-4o-mini", APP_KEY, {}, stream=streamed))
    argv = [str(program("load")), "--port", str(port), "--request", str(file), "--connections", "64"]
    argv += ["--warmup-ms", "0", "--measure-ms", str(STRAIN_MS), *(["--events", "5"] if streamed else [])]
    for printed in (gateway._stdout, gateway._stderr):
        os.truncate(printed, 0)  # a line a request would fill the disk
    finished = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=STRAIN_MS / 1000 + 30)
    found = json.loads(finished.stdout.splitlines()[2])
    assert not any(found["errors"].values()), found
    return int(found["requests"])
