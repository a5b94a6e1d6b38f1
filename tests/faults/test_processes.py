"""Signals, reloads and what the machine runs out of, under load, on both lanes."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.test_workers import ask, owner
from tests.faults.clock import jumping_clock
from tests.faults.crowd import crowd
from tests.faults.fault import KINDS, LANES, Lane
from tests.faults.processes import PROMISES
from tests.faults.stage import family
from tests.support.behaviours import answer, failure, stream
from tests.support.fake_openai import openai_like, spoken, words
from tests.support.gateway import ADMIN_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Exchange, Upstream

STREAMS = 6
DAY_SECONDS = 86_400
OUTAGE = 100  # requests of clients
LOG_LINES = 200  # more than a gateway without descriptors may write, and far under what a spinning one does
ONCE_KEY = "agw-faults-once-5e0b8d13f7a2496c"


def cases(name: str) -> pytest.MarkDecorator:
    """The lanes and numbers of workers of a promise; the quick tests take one."""
    [promise] = [promise for promise in PROMISES if promise.name == name]
    quick = PROMISES.index(promise) % 2
    found = []
    for lane in LANES:
        for workers in promise.workers:
            chosen = lane == LANES[quick] and workers == promise.workers[-1 if quick else 0]
            marks = [] if chosen else [pytest.mark.full]
            found.append(pytest.param(name, lane, workers, marks=marks, id=f"{name}-{lane}-{workers}"))
    return pytest.mark.parametrize(("promise", "lane", "workers"), found)


@pytest.fixture(autouse=True)
def recorded(record_property: Callable[[str, object], None], promise: str, lane: Lane, workers: int) -> None:
    """Each is about plain answers and streams alike."""
    for kind in KINDS:
        record_property("fault", [promise, kind, lane, workers])


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


def settings(upstream: Upstream, lane: Lane, workers: int, **sections: object) -> Tree:
    server = {"port": 0, "drain_seconds": 1, "workers": workers, "heartbeat_seconds": 0}
    config = configuration(provider(upstream.url), **sections)
    config["server"] = {**server, "lane": "auto" if lane == "fast" else "full"}
    config["keys"].append({"name": "once", "key": ONCE_KEY, "limits": [{"per": "key", "requests": 1, "period": "1h"}]})
    return config


@contextmanager
def serving(upstream: Upstream, lane: Lane, workers: int, **more: object) -> Iterator[Gateway]:
    with Gateway(settings(upstream, lane, workers), **more) as gateway:  # type: ignore[arg-type]  # files and names
        assert [gateway.chat(stream=True).status for _ in range(4 * workers)] == [200] * 4 * workers
        upstream.reset()
        yield gateway


@cases("outage")
def test_retries_do_not_multiply_an_outage(upstream: Upstream, promise: str, lane: Lane, workers: int) -> None:
    retries = {"attempts": 3, "base": "1ms", "max": "2ms", "budget": 0.2, "budget_floor": 0}
    config = settings(upstream, lane, workers, retries=retries, breaker={"enabled": False})
    upstream.default = failure(500)
    with Gateway(config) as gateway:
        assert [gateway.chat(stream=number % 2 == 0).status for number in range(OUTAGE)] == [502] * OUTAGE
    assert OUTAGE <= len(upstream.requests) <= OUTAGE * 1.2


@cases("sigterm")
def test_sigterm_loses_no_stream_that_ends_in_time(upstream: Upstream, promise: str, lane: Lane, workers: int) -> None:
    with serving(upstream, lane, workers) as gateway, ExitStack() as stack:
        upstream.script(*[stream(spoken(), pace_ms=60)] * STREAMS, stream(words() * 1000, pace_ms=50))
        open_ones = [stack.enter_context(gateway.connect()) for _ in range(STREAMS + 1)]
        replies = []
        for connection in open_ones:
            connection.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers())
            replies.append(connection.head())
        gateway.process.send_signal(signal.SIGTERM)
        for connection, reply in zip(open_ones, replies, strict=True):
            reply.body = b"".join(connection.pieces(reply))
        assert gateway.wait() == 0
        whole, late = replies[:-1], replies[-1]
        assert [(reply.complete, reply.body) for reply in whole] == [(True, b"".join(spoken()))] * STREAMS
        assert not late.complete
        assert b"event: error\n" in late.body
        assert b"[DONE]" not in late.body
        assert [len(gateway.receipts(reply.request_id)) for reply in replies] == [1] * (STREAMS + 1)


@cases("kill-9")
def test_a_killed_worker_loses_only_what_was_under_way_there(
    upstream: Upstream, promise: str, lane: Lane, workers: int
) -> None:
    with serving(upstream, lane, workers) as gateway, crowd(gateway, 12) as load:
        held = dict(load.ports)
        with gateway.connect() as probe:
            assert ask(probe).status == 200
            victim = owner(gateway, probe)
        assert victim in family(gateway)
        theirs = ports_of(victim, gateway)
        os.kill(victim, signal.SIGKILL)
        load.wait(60)
        gateway.until(lambda: victim not in family(gateway), "the worker is still there")
        gateway.until(lambda: len(family(gateway)) == workers, "no replacement")
        load.wait(60)
    lost = [fate for fate in load.fates if fate.what in {"dropped", "broken"}]
    assert {fate.port for fate in lost} <= theirs
    assert len(lost) <= len(theirs & set(held.values()))
    assert set(load.told) <= {"whole", "dropped", "broken"}, load.told


def ports_of(pid: int, gateway: Gateway) -> set[int]:
    """The clients' ends of the connections that a process has accepted."""
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    port = f":{int(gateway.url.rpartition(':')[2]):04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(line[2].rpartition(":")[2], 16) for line in lines if line[9] in inodes and line[1].endswith(port)}


@cases("reload")
def test_reloads_under_load_drop_nothing(upstream: Upstream, promise: str, lane: Lane, workers: int) -> None:
    with serving(upstream, lane, workers) as gateway:
        config = settings(upstream, lane, workers)
        with crowd(gateway) as load:
            for number in range(5):
                config["keys"] += [{"name": f"new-{number}", "key": f"{ONCE_KEY}-{number}", "models": ["*"]}]
                gateway.write(config)
                assert gateway.post("/security/refresh", key=ADMIN_KEY).status == 200
                load.wait(8)
        assert gateway.chat(key=f"{ONCE_KEY}-4").status == 200
    assert set(load.told) == {"whole"}, load.told


@cases("bad-reload")
def test_a_bad_reload_under_load_changes_nothing(upstream: Upstream, promise: str, lane: Lane, workers: int) -> None:
    with serving(upstream, lane, workers) as gateway:
        with crowd(gateway) as load:
            for _ in range(5):
                gateway.file.write_text("serverr: {port: 1}\n")
                refused = gateway.post("/security/refresh", key=ADMIN_KEY)
                assert (refused.status, refused.error["code"]) == (409, "reload_failed")
                assert "serverr" in str(refused.error["message"])
                load.wait(8)
        assert gateway.chat().status == 200
    assert set(load.told) == {"whole"}, load.told


@cases("descriptors")
def test_out_of_descriptors_the_open_connections_go_on(
    upstream: Upstream, promise: str, lane: Lane, workers: int
) -> None:
    with serving(upstream, lane, workers) as gateway, ExitStack() as stack:
        kept = [stack.enter_context(gateway.connect()) for _ in range(4 * workers)]
        for connection in kept:
            connection.send("POST", "/v1/chat/completions", chat_body(), gateway.headers())
            assert connection.reply().status == 200
        lines = len(gateway.output.splitlines())
        bounds = {pid: descriptors(pid) + 8 for pid in family(gateway)}
        for pid, bound in bounds.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (bound, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        crush = [gateway.connect() for _ in range(40 * workers)]
        gateway.until(lambda: all(descriptors(pid) >= bounds[pid] for pid in bounds), "they do not run out")
        for _ in range(10):
            for connection in kept:
                connection.send("POST", "/v1/chat/completions", chat_body(), gateway.headers())
                assert connection.reply().status == 200
        assert len(gateway.output.splitlines()) - lines - len(kept) * 10 < LOG_LINES
        for connection in crush:
            connection.close()
        gateway.until(lambda: comes_in(gateway), "nothing comes in any more")


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def comes_in(gateway: Gateway) -> bool:
    """A new connection is served; one that came while there was no descriptor for it may have been closed."""
    try:
        return gateway.chat().status == 200
    except (EOFError, ConnectionError):
        return False


@cases("clock")
def test_a_clock_that_jumps_moves_nothing(
    upstream: Upstream, tmp_path: Path, promise: str, lane: Lane, workers: int
) -> None:
    with jumping_clock(tmp_path) as clock, serving(upstream, lane, workers, env=clock.env) as gateway:
        assert gateway.chat(key=ONCE_KEY).status == 200
        upstream.script(stream(spoken(), pace_ms=40))
        with gateway.connect() as connection:
            connection.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers())
            reply = connection.head()
            before = gateway.receipt(gateway.chat().request_id)["time"]
            clock.jump(DAY_SECONDS)
            reply.body = b"".join(connection.pieces(reply))
        assert (reply.complete, reply.body) == (True, b"".join(spoken()))
        after = gateway.receipt(gateway.chat().request_id)["time"]
        assert before[:10] != after[:10], "the clock did not jump"
        assert gateway.chat(key=ONCE_KEY).status == 429
        clock.jump(-DAY_SECONDS)
        assert gateway.chat(key=ONCE_KEY).status == 429
        assert gateway.chat().status == 200


@cases("probes")
def test_probes_take_an_upstream_out_and_bring_it_back(
    upstream: Upstream, promise: str, lane: Lane, workers: int
) -> None:
    asked: list[str] = []
    probe = failure(500)

    async def behave(exchange: Exchange) -> None:
        if exchange.request.path.endswith("/up"):
            await probe(exchange)
        else:
            asked.append(exchange.request.path)
            await openai_like(exchange)

    upstream.default = behave
    health = {"path": "/up", "interval": "20ms", "unhealthy": 2, "healthy": 2}
    with Upstream() as other:
        config = settings(upstream, lane, workers)
        config["upstreams"] = [
            provider(upstream.url, models=["gpt-*"], health=health),
            provider(other.url, "other", models=["other-*"]),
        ]
        config["models"] = [{"name": "m", "targets": ["fake/gpt-1"], "fallbacks": ["other/other-1"]}]
        with Gateway(config) as gateway:

            def said(event: str) -> int:
                return sum(line.get("event") == event for line in gateway.logs())

            gateway.until(lambda: said("upstream.out"), "it never went out")
            for streamed in (False, True) * 4:
                assert gateway.chat(model="m", stream=streamed).status == 200
                assert gateway.chat(model="gpt-1", stream=streamed).status == 503
            assert (asked, len(other.requests)) == ([], 8)
            probe = answer({"ok": True})
            gateway.until(lambda: said("upstream.back"), "it never came back")
            for streamed in (False, True) * 4:
                assert gateway.chat(model="m", stream=streamed).status == 200
            assert (len(asked), len(other.requests)) == (8, 8)
            assert (said("upstream.out"), said("upstream.back")) == (1, 1)
