"""Targets are tried in order, once each, then again with bounded waits; never what cannot be sent twice."""

import asyncio
import threading
from collections.abc import AsyncIterator

import msgspec
import pytest

from agw_proxy._hot.route import Target
from agw_proxy.errors import (
    UpstreamError,
    UpstreamFailed,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamRejected,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from agw_proxy.types import Attempt, Call
from agw_proxy.upstreams.attempts import MAX_ATTEMPTS, open_first
from agw_proxy.upstreams.opening import MAX_HELD_BYTES, Opened, content_type
from agw_proxy.upstreams.service import Service
from tests.support.behaviours import DONE, event
from tests.support.fake_openai import chunk, spoken
from tests.upstreams.scripted import SSE, Answered, Scripted, call, plan, service

STREAM = b'{"model":"m","stream":true}'
QUOTA = b'{"error":{"message":"spent","code":"insufficient_quota"}}'


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited; none of it really."""
    asked: list[float] = []
    sleep, ours = asyncio.sleep, threading.current_thread()

    async def note(seconds: float) -> None:
        if threading.current_thread() is not ours:  # a scripted upstream of another module
            await sleep(seconds)
            return
        asked.append(seconds)
        await sleep(0)

    monkeypatch.setattr("agw_proxy.upstreams.attempts.asyncio.sleep", note)
    return asked


class Tries:
    """Targets a, b ... with a service each, and the trail of one call."""

    def __init__(self, *services: Service) -> None:
        self.services = services
        self.plan = plan(*(item.upstream.name for item in services))
        self.trail: list[Attempt] = []

    async def run(self, asked: Call | None = None) -> Opened:
        return await open_first(self.plan, self.services, asked or call(), trail=self.trail)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(attempt.target, attempt.outcome) for attempt in self.trail]


def good() -> Answered:
    return Answered(b'{"ok":true}')


def busy(wait_ms: int | None = None) -> UpstreamError:
    return UpstreamUnavailable("busy", retry_after_ms=wait_ms)


async def test_the_first_good_answer_is_taken(waits: list[float]) -> None:
    first, second = Scripted("a", good()), Scripted("b")
    tries = Tries(service(first), service(second))
    opened = await tries.run()
    assert (opened.first, opened.stream, opened.target.name) == (b'{"ok":true}', None, "a/m")
    assert tries.told == [("a/m", "200")]
    assert (second.calls, waits) == ([], [])
    assert tries.services[0].health.state == "up"


async def test_targets_are_tried_in_order_without_a_wait_then_round_again(waits: list[float]) -> None:
    first = Scripted("a", busy(), busy(), good())
    second = Scripted("b", UpstreamReset("x"))
    third = Scripted("c", UpstreamFailed("x"))
    tries = Tries(service(first, attempts=9), service(second), service(third))
    second.script.append(UpstreamFailed("x"))
    third.script.append(UpstreamInvalid("x"))
    await tries.run()
    assert tries.told == [
        ("a/m", "upstream_unavailable"),
        ("b/m", "upstream_reset"),
        ("c/m", "upstream_failed"),
        ("a/m", "upstream_unavailable"),
        ("b/m", "upstream_failed"),
        ("c/m", "upstream_invalid"),
        ("a/m", "200"),
    ]
    assert len(waits) == 4
    assert (tries.services[0].health.failures, tries.services[0].health.state) == (2, "up")
    assert (tries.services[1].health.failures, tries.services[1].health.last_error) == (2, "upstream_failed")


async def test_each_target_has_its_own_attempts(waits: list[float]) -> None:
    first, second = Scripted("a", *[busy()] * 2), Scripted("b", *[busy()] * 4)
    tries = Tries(service(first, attempts=2), service(second, attempts=4))
    with pytest.raises(UpstreamUnavailable):
        await tries.run()
    assert [name for name, _ in tries.told] == ["a/m", "b/m", "a/m", "b/m", "b/m", "b/m"]
    assert len(waits) == 4


async def test_the_attempts_of_an_upstream_are_bounded_and_the_last_error_is_raised() -> None:
    only = Scripted("a", busy(), busy(), UpstreamFailed("the last"))
    tries = Tries(service(only))
    with pytest.raises(UpstreamFailed, match="the last"):
        await tries.run()
    assert len(only.calls) == 3


async def test_every_target_gets_its_one_try_even_beyond_the_attempts() -> None:
    upstreams = [Scripted(name, busy()) for name in "abcd"]
    tries = Tries(*(service(upstream, attempts=1) for upstream in upstreams))
    with pytest.raises(UpstreamUnavailable):
        await tries.run()
    assert [len(upstream.calls) for upstream in upstreams] == [1, 1, 1, 1]


async def test_all_attempts_of_an_exchange_have_a_bound(waits: list[float]) -> None:
    upstreams = [Scripted(f"u{number}", *[busy()] * 10) for number in range(9)]
    tries = Tries(*(service(upstream, attempts=10) for upstream in upstreams))
    with pytest.raises(UpstreamUnavailable):
        await tries.run()
    assert len(tries.trail) == MAX_ATTEMPTS < 90


async def test_waits_grow_with_jitter_up_to_the_bound(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agw_proxy.upstreams.attempts.random.random", lambda: 1.0)
    tries = Tries(service(Scripted("a", *[busy()] * 6), attempts=6))
    with pytest.raises(UpstreamUnavailable):
        await tries.run()
    assert waits == [0.01, 0.02, 0.04, 0.05, 0.05]


async def test_the_jitter_stays_under_the_ceiling(waits: list[float]) -> None:
    for _ in range(20):
        with pytest.raises(UpstreamUnavailable):
            await Tries(service(Scripted("a", *[busy()] * 10), attempts=10)).run()
    assert len(waits) == 180
    assert all(0 <= wait <= 0.05 for wait in waits)
    assert len(set(waits)) > 100


async def test_the_named_time_is_waited(waits: list[float]) -> None:
    tries = Tries(service(Scripted("a", busy(30), busy(0), good())))
    await tries.run()
    assert waits == [pytest.approx(0.03, abs=0.02)]  # less what has passed since; none where the named time is now


async def test_a_named_time_that_is_too_long_is_told_and_not_waited(waits: list[float]) -> None:
    only = Scripted("a", busy(51))
    with pytest.raises(UpstreamUnavailable) as caught:
        await Tries(service(only)).run()
    assert (caught.value.retry_after_ms, len(only.calls), waits) == (51, 1, [])


async def test_another_target_does_not_wait_for_the_first_ones_time(waits: list[float]) -> None:
    tries = Tries(service(Scripted("a", busy(20_000))), service(Scripted("b", good())))
    assert (await tries.run()).target.name == "b/m"
    assert waits == []


async def test_a_target_is_not_asked_again_before_the_time_that_it_named(waits: list[float]) -> None:
    first = Scripted("a", busy(20_000), good())
    second = Scripted("b", UpstreamReset("x"), good())
    opened = await Tries(service(first), service(second)).run()
    assert len(first.calls) == 1
    assert opened.target.name == "b/m"


async def test_what_took_too_long_once_goes_elsewhere_and_never_back() -> None:
    tries = Tries(service(Scripted("a", UpstreamTimeout("x"))), service(Scripted("b", busy(), good())))
    await tries.run()
    assert [name for name, _ in tries.told] == ["a/m", "b/m", "b/m"]
    alone = Scripted("a", UpstreamTimeout("x"))
    with pytest.raises(UpstreamTimeout):
        await Tries(service(alone)).run()
    assert len(alone.calls) == 1


async def test_what_may_have_had_its_effect_is_not_sent_twice() -> None:
    first, second = Scripted("a", UpstreamReset("x")), Scripted("b", good())
    with pytest.raises(UpstreamReset):
        await Tries(service(first), service(second)).run(call(repeatable=False))
    assert second.calls == []


async def test_all_tries_together_have_a_deadline() -> None:
    class Silent(Scripted):
        async def open(self, target: Target, call: Call) -> Answered:
            self.calls.append((target.name, call))
            await asyncio.Event().wait()
            raise AssertionError

    silent, second = Silent("a"), Silent("b")
    tries = Tries(service(silent, total=0.05), service(second))
    with pytest.raises(UpstreamTimeout, match="whole exchange"):
        await tries.run()
    assert tries.told == [("a/m", "upstream_timeout")]
    assert (second.calls, tries.services[1].health.failures) == ([], 0)


async def body() -> AsyncIterator[bytes]:
    yield b"once"


async def test_a_body_that_streams_is_sent_once_to_one_target() -> None:
    first, second = Scripted("a", busy(), good()), Scripted("b", good())
    tries = Tries(service(first), service(second))
    asked = msgspec.structs.replace(call(None), body=body())
    with pytest.raises(UpstreamUnavailable):
        await tries.run(asked)
    assert (len(first.calls), len(second.calls)) == (1, 0)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_the_callers_own_fault_is_tried_nowhere_else(status: int) -> None:
    first, second = Scripted("a", Answered(b'{"error":"no"}', status=status)), Scripted("b", good())
    tries = Tries(service(first), service(second))
    with pytest.raises(UpstreamRejected) as caught:
        await tries.run()
    assert (caught.value.status, caught.value.payload) == (status, b'{"error":"no"}')
    assert tries.told == [("a/m", str(status))]
    assert (second.calls, tries.services[0].health.failures) == ([], 0)


async def test_a_spent_quota_goes_elsewhere_and_never_back(waits: list[float]) -> None:
    first = Scripted("a", Answered(QUOTA, status=429))
    second = Scripted("b", busy(), good())
    tries = Tries(service(first), service(second))
    assert (await tries.run()).target.name == "b/m"
    assert [name for name, _ in tries.told] == ["a/m", "b/m", "b/m"]
    with pytest.raises(UpstreamRejected) as caught:
        await Tries(service(Scripted("a", Answered(QUOTA, status=429)))).run()
    assert caught.value.elsewhere


async def test_refused_credentials_go_elsewhere_and_never_back() -> None:
    tries = Tries(service(Scripted("a", Answered(status=401))), service(Scripted("b", good())))
    await tries.run()
    assert tries.told == [("a/m", "upstream_refused_key"), ("b/m", "200")]
    with pytest.raises(UpstreamRefused):
        await Tries(service(Scripted("a", Answered(status=401)))).run()


async def test_the_models_name_is_the_targets_in_what_is_sent() -> None:
    only = Scripted("a", good())
    await Tries(service(only)).run(call(b'{ "model":"virtual", "n":1 }'))
    assert only.calls[0][1].body == b'{ "model":"m", "n":1 }'


async def test_usage_is_asked_for_and_taken_out_again_where_nobody_else_asked() -> None:
    usage = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    only = Scripted("a", Answered(spoken()[0], usage + DONE, kind=SSE))
    opened = await Tries(service(only)).run(call(STREAM, asks_usage=True))
    assert b'"include_usage":true' in bytes(only.calls[0][1].body or b"")  # type: ignore[arg-type]  # it is bytes here
    assert opened.stream is not None
    assert opened.stream.feed(await opened.reply.read()) == DONE
    assert (opened.stream.prompt_tokens, opened.stream.completion_tokens) == (3, 4)


@pytest.mark.parametrize(("asks", "wanted"), [(False, True), (True, False)])
async def test_usage_is_not_asked_for_where_the_endpoint_or_the_upstream_has_none(asks: bool, wanted: bool) -> None:
    only = Scripted("a", Answered(*spoken(), kind=SSE))
    await Tries(service(only, stream_usage=wanted)).run(call(STREAM, asks_usage=asks))
    assert only.calls[0][1].body == STREAM


async def test_a_stream_is_held_until_its_first_event() -> None:
    first = chunk({"content": "Hi"})
    reply = Answered(b": hello\n\n", first[:20], first[20:], DONE, kind="Text/Event-Stream; charset=utf-8")
    opened = await Tries(service(Scripted("a", reply))).run(call(STREAM))
    assert opened.first == b": hello\n\n" + first
    assert reply.progress == [False, False, False]
    assert not reply.closed


async def test_a_stream_that_begins_with_an_error_is_tried_elsewhere() -> None:
    reply = Answered(event({"error": {"message": "x", "code": 503}}), DONE, kind=SSE)
    tries = Tries(service(Scripted("a", reply)), service(Scripted("b", Answered(*spoken(), kind=SSE))))
    await tries.run(call(STREAM))
    assert tries.told == [("a/m", "upstream_unavailable"), ("b/m", "200")]
    assert reply.closed


@pytest.mark.parametrize(
    ("portions", "kind"),
    [
        ([b""], UpstreamReset),
        ([b": only a comment\n\n"], UpstreamReset),
        ([b": ping\n\n", UpstreamTimeout("silent")], UpstreamTimeout),
    ],
)
async def test_a_stream_that_never_begins_is_a_failure_with_a_status(
    portions: list[bytes | UpstreamError], kind: type[UpstreamError]
) -> None:
    reply = Answered(*portions, kind=SSE)
    with pytest.raises(kind):
        await Tries(service(Scripted("a", reply), attempts=1)).run(call(STREAM))
    assert reply.closed


async def test_an_only_event_without_its_blank_line_is_an_answer() -> None:
    line = chunk({"content": "Hi"}, "stop").rstrip(b"\n")
    opened = await Tries(service(Scripted("a", Answered(line, kind=SSE)))).run(call(STREAM))
    assert opened.first == line


async def test_what_is_held_has_a_bound() -> None:
    comments = [b": " + b"x" * 8190 + b"\n\n"] * 20
    reply = Answered(*comments, kind=SSE)
    opened = await Tries(service(Scripted("a", reply))).run(call(STREAM))
    assert MAX_HELD_BYTES <= len(opened.first) < MAX_HELD_BYTES + 16384
    assert not reply.ended


async def test_a_page_of_html_is_no_answer() -> None:
    page = Answered(b"<html>", kind="text/html; charset=utf-8")
    with pytest.raises(UpstreamInvalid, match="HTML"):
        await Tries(service(Scripted("a", page), attempts=1)).run()
    assert page.closed


async def test_a_reply_is_closed_when_the_caller_leaves_while_it_is_held() -> None:
    begun = asyncio.Event()

    class Stalled(Answered):
        async def read(self, *, progress: bool = True) -> bytes:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

    reply = Stalled(b"never", kind=SSE)
    task = asyncio.create_task(Tries(service(Scripted("a", reply))).run(call(STREAM)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reply.closed


def test_the_media_type_is_read_without_its_parameters() -> None:
    assert content_type(Answered(kind="Application/JSON ; charset=utf-8")) == b"application/json"
    bare = Answered()
    bare.headers = []
    assert content_type(bare) == b""


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 204)])
async def test_an_answer_that_has_no_body_is_not_taken_for_a_cut_one(method: str, status: int) -> None:
    bare = Scripted("a", Answered(b"", status=status))
    opened = await Tries(service(bare)).run(msgspec.structs.replace(call(), method=method))
    assert (opened.first, len(bare.calls)) == (b"", 1)
