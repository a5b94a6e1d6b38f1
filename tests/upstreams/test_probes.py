"""Probes take an upstream out after so many bad ones in a row and bring it back after so many good ones."""

import asyncio
from types import SimpleNamespace

import pytest

from agw_proxy.config.resilience import Probe
from agw_proxy.errors import OutOfDescriptors, UpstreamError, UpstreamReset, UpstreamUnreachable
from agw_proxy.types import Call, RawHeaders, Reply
from agw_proxy.upstreams.probes import MAX_BYTES, Probes, Streak, Subject, ask


class Answering:
    """An answer; endless where ``size`` is None."""

    def __init__(self, status: int, size: int | None = 0) -> None:
        self.status = status
        self.headers: RawHeaders = ()
        self.connect_ms = 0.0
        self.began_ns = 0
        self.left = size
        self.ended = size == 0
        self.read_bytes = 0
        self.closed = 0

    async def read(self, *, progress: bool = True) -> bytes:
        size = 4096 if self.left is None else min(self.left, 4096)
        if self.left is not None:
            self.left -= size
            self.ended = self.left == 0
        self.read_bytes += size
        return b"x" * size

    def close(self) -> None:
        self.closed += 1


class Scripted:
    """Answers by its script, then always by the last entry of it."""

    def __init__(self, *script: int | UpstreamError | Answering) -> None:
        self.name = "u"
        self.script = list(script)
        self.calls: list[Call] = []

    async def ask(self, call: Call) -> Reply:
        self.calls.append(call)
        entry = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(entry, UpstreamError):
            raise entry
        return entry if isinstance(entry, Answering) else Answering(entry)


class Heard:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.probes: list[bool] = []
        self.out = 0
        self.said: list[tuple[str, object]] = []

    def probed(self, upstream: str, *, good: bool) -> None:
        assert upstream == "u"
        self.probes.append(good)

    def taken_out(self, upstream: str, step: int) -> None:
        assert upstream == "u"
        self.out += step

    def say(self, event: str, *, upstream: str, error: str | None = None) -> None:
        assert upstream == "u"
        self.said.append((event, error))


def probe(**members: object) -> Probe:
    return Probe.model_validate({"path": "/models", "interval": "2ms", "unhealthy": 3, "healthy": 2, **members})


@pytest.mark.parametrize("status", [200, 204, 304, 401, 403, 404, 429])
async def test_any_answer_below_500_is_life(status: int) -> None:
    assert await ask(Scripted(status), probe()) is None


@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_an_answer_of_500_and_above_is_bad(status: int) -> None:
    assert await ask(Scripted(status), probe()) == "upstream_unavailable"


async def test_no_answer_is_bad_by_its_class() -> None:
    assert await ask(Scripted(UpstreamUnreachable("x")), probe()) == "upstream_unreachable"
    assert await ask(Scripted(UpstreamReset("x")), probe()) == "upstream_reset"


async def test_a_connection_that_was_idle_for_too_long_is_tried_once_more() -> None:
    upstream = Scripted(UpstreamReset("x"), 200)
    assert await ask(upstream, probe()) is None
    assert len(upstream.calls) == 2


async def test_what_is_the_gateways_own_fault_counts_neither_way() -> None:
    heard, vitals = Heard(), SimpleNamespace(out=True)
    upstream = Scripted(OutOfDescriptors("x"))
    probes = Probes(heard, heard.say)
    probes.take_up([Subject(upstream, probe(healthy=1, unhealthy=1), vitals)])
    await until(lambda: len(upstream.calls) > 3)
    found = probes.state("u")
    await probes.close()
    assert found is not None
    assert (vitals.out, found.good_in_a_row, found.bad_in_a_row, heard.probes) == (True, 0, 0, [])


async def test_a_probe_has_its_time() -> None:
    class Silent(Scripted):
        async def ask(self, call: Call) -> Reply:
            self.calls.append(call)
            await asyncio.sleep(3600)
            raise AssertionError("nobody waits for that")

    assert await ask(Silent(200), probe(timeout="10ms")) == "upstream_timeout"


async def test_an_endless_answer_is_read_to_a_bound_and_closed() -> None:
    answering = Answering(200, None)
    assert await ask(Scripted(answering), probe()) is None
    assert (answering.read_bytes <= MAX_BYTES + 4096, answering.closed) == (True, 1)


@pytest.mark.parametrize(
    ("path", "asked"),
    [("/models", ("/models", "")), ("models", ("/models", "")), ("/up?deep=1", ("/up", "deep=1"))],
)
async def test_it_asks_for_the_path_below_the_base_url(path: str, asked: tuple[str, str]) -> None:
    upstream = Scripted(200)
    await ask(upstream, probe(path=path))
    call = upstream.calls[0]
    assert (call.method, (call.path, call.query), call.body) == ("GET", asked, None)


def test_a_streak_decides() -> None:
    vitals = SimpleNamespace(out=False)
    streak = Streak(probe(), vitals)
    turns = [streak.note(error) for error in ("e", "e", None, "e", "e", "e", "e", None, "e", None, None, None)]
    assert turns == [None, None, None, None, None, True, None, None, None, None, False, None]
    assert (vitals.out, streak.out_since, streak.last, streak.good, streak.bad) == (False, None, "ok", 3, 0)


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_out_and_back_are_said_once_each() -> None:
    heard, vitals = Heard(), SimpleNamespace(out=False)
    upstream = Scripted(*[UpstreamUnreachable("x")] * 6, 200)
    probes = Probes(heard, heard.say)
    probes.take_up([Subject(upstream, probe(), vitals)])
    await until(lambda: vitals.out)
    found = probes.state("u")
    assert found is not None
    assert (found.path, found.last, found.good_in_a_row) == ("/models", "upstream_unreachable", 0)
    assert found.out_since is not None
    assert heard.out == 1
    await until(lambda: not vitals.out)
    await probes.close()
    assert heard.said == [("upstream.out", "upstream_unreachable"), ("upstream.back", None)]
    assert (heard.out, heard.probes[:8]) == (0, [False] * 6 + [True] * 2)


async def test_a_reload_keeps_what_is_the_same_and_ends_the_rest() -> None:
    heard, vitals = Heard(), SimpleNamespace(out=False)
    upstream = Scripted(500)
    probes = Probes(heard, heard.say)
    probes.take_up([Subject(upstream, probe(unhealthy=1), vitals)])
    await until(lambda: vitals.out)
    before = probes.state("u")
    assert before is not None
    probes.take_up([Subject(upstream, probe(unhealthy=1), vitals)])
    after = probes.state("u")
    assert after is not None
    assert after.bad_in_a_row >= before.bad_in_a_row >= 1
    probes.take_up([Subject(upstream, Probe(), vitals)])
    assert (probes.state("u"), vitals.out, heard.out) == (None, False, 0)
    asked = len(upstream.calls)
    await asyncio.sleep(0.02)
    assert len(upstream.calls) == asked
    await probes.close()


async def test_a_new_process_goes_on_where_the_old_one_found_it_out() -> None:
    heard, vitals = Heard(), SimpleNamespace(out=True)
    probes = Probes(heard, heard.say)
    probes.take_up([Subject(Scripted(200), probe(), vitals)])
    await until(lambda: not vitals.out)
    await probes.close()
    assert heard.said == [("upstream.back", None)]
    assert heard.out == 0


async def test_an_upstream_that_a_reload_replaces_is_out_once() -> None:
    heard, vitals = Heard(), SimpleNamespace(out=False)
    probes = Probes(heard, heard.say)
    probes.take_up([Subject(Scripted(500), probe(unhealthy=1), vitals)])
    await until(lambda: vitals.out)
    replaced = Scripted(500)
    probes.take_up([Subject(replaced, probe(unhealthy=1), vitals)])
    assert heard.out == 1
    probes.take_up([Subject(replaced, probe(unhealthy=2), vitals)])  # before the probe has begun
    await until(lambda: replaced.calls)
    assert (vitals.out, heard.out) == (True, 1)
    probes.take_up([])
    await probes.close()
    assert (vitals.out, heard.out) == (False, 0)


async def test_who_is_out_and_probed_no_more_comes_back_in_a_new_process_too() -> None:
    heard, vitals = Heard(), SimpleNamespace(out=True)
    probes = Probes(heard, heard.say)
    probes.take_up([Subject(Scripted(500), Probe(), vitals)])
    assert (vitals.out, heard.out, heard.said) == (False, 0, [("upstream.back", None)])


async def test_a_defect_ends_no_probing() -> None:
    class Broken(Scripted):
        async def ask(self, call: Call) -> Reply:
            self.calls.append(call)
            raise OSError("what nobody has thought of")

    heard, vitals = Heard(), SimpleNamespace(out=False)
    upstream = Broken(200)
    probes = Probes(heard, heard.say)
    probes.take_up([Subject(upstream, probe(unhealthy=2), vitals)])
    await until(lambda: vitals.out)
    await probes.close()
    assert heard.said == [("upstream.out", "gateway_internal")]
