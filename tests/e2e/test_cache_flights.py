"""Single flight: who asks the same while it is being answered gets the same answer, and it is asked for once."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.test_cache import THRIFTY, cached, fresh
from tests.support.behaviours import DONE, GATE_SECONDS, answer, failure, gate, huge, stream
from tests.support.fake_openai import completion, spoken, usage_event, words
from tests.support.gateway import Gateway, Tree, chat_body
from tests.support.upstream import Behaviour, Exchange, Upstream

FOLLOWERS = 6


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(cached(shared_upstream.url, max_answer_kb=1024)) as running:
        yield running


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(FOLLOWERS + 2) as made:
        yield made


def joined(gateway: Gateway, count: int) -> None:
    """Wait until so many requests more are in flight."""
    gateway.until(lambda: in_flight(gateway) >= count, f"fewer than {count} requests are under way")


def in_flight(gateway: Gateway) -> int:
    text = gateway.get("/metrics/prometheus", key=gateway.admin_key).body.decode()
    return (
        int(float(next(line.split()[1] for line in text.splitlines() if line.startswith("agw_active_requests ")))) - 1
    )


@pytest.mark.parametrize("streamed", [False, True])
def test_many_who_ask_at_once_share_one_call(
    gateway: Gateway, upstream: Upstream, pool: ThreadPoolExecutor, streamed: bool
) -> None:
    asked = fresh()
    go, behaviour = gate(stream(spoken()) if streamed else answer(completion()))
    upstream.script(behaviour)
    futures = [pool.submit(gateway.chat, messages=asked, stream=streamed) for _ in range(FOLLOWERS)]
    upstream.wait(1)
    joined(gateway, FOLLOWERS)
    go.set()
    replies = [future.result() for future in futures]
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert sorted(str(reply.value("x-agw-cache")) for reply in replies) == ["joined"] * (FOLLOWERS - 1) + ["miss"]
    assert len(upstream.requests) == 1
    assert gateway.chat(messages=asked, stream=streamed).value("x-agw-cache") == "hit"


def test_who_joins_a_stream_late_gets_it_from_the_beginning(gateway: Gateway, upstream: Upstream) -> None:
    asked = fresh()
    pieces = spoken()
    go = threading.Event()
    upstream.script(opened_by(pieces[:3], go, pieces[3:]))
    body = chat_body(messages=asked, stream=True)
    with gateway.connect() as leader, gateway.connect() as follower:
        leader.send("POST", "/v1/chat/completions", body, gateway.headers())
        first = leader.pieces(leader.head())
        seen = next(first)
        follower.send("POST", "/v1/chat/completions", body, gateway.headers())
        head = follower.head()
        second = follower.pieces(head)
        late = b""
        while len(late) < len(seen):
            late += next(second)
        assert late.startswith(seen)
        go.set()
        whole = seen + b"".join(first)
        assert late + b"".join(second) == whole
        assert whole.endswith(DONE)
        assert head.value("x-agw-cache") == "joined"
    assert len(upstream.requests) == 1


def opened_by(before: list[bytes], go: threading.Event, after: list[bytes]) -> Behaviour:
    """A stream that waits in its middle."""
    halves = [b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in half) for half in (before, after)]

    async def begin(exchange: Exchange) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        await exchange.send(head + halves[0])

    async def end(exchange: Exchange) -> None:
        await exchange.send(halves[1] + b"0\r\n\r\n")

    async def behave(exchange: Exchange) -> None:
        await begin(exchange)
        while not go.is_set():
            await asyncio.sleep(GATE_SECONDS)
        await end(exchange)

    return behave


@pytest.mark.parametrize("begun", [False, True], ids=["before the first byte", "in the middle"])
def test_the_leader_may_leave_and_the_others_get_it_all_and_one_of_them_pays(
    gateway: Gateway, upstream: Upstream, pool: ThreadPoolExecutor, begun: bool
) -> None:
    asked = fresh()
    pieces = spoken(usage=True)
    go = threading.Event()
    upstream.script(opened_by(pieces[:2] if begun else [], go, pieces[2:] if begun else pieces))
    body = chat_body(messages=asked, stream=True, max_tokens=20)
    headers = gateway.headers(THRIFTY)
    with gateway.connect() as leader:
        leader.send("POST", "/v1/chat/completions", body, headers)
        upstream.wait(1)
        if begun:
            next(leader.pieces(leader.head()))
        joined(gateway, 1)
        futures = [pool.submit(gateway.chat, messages=asked, stream=True, max_tokens=20, key=THRIFTY) for _ in range(2)]
        joined(gateway, 3)
    gateway.until(lambda: in_flight(gateway) == 2, "the leader has not left")
    go.set()
    replies = [future.result() for future in futures]
    assert [reply.body for reply in replies] == [replies[0].body] * 2
    assert all(reply.complete for reply in replies)
    assert replies[0].body.endswith(DONE)
    assert usage_event() not in replies[0].body
    lines = [gateway.receipt(reply.request_id) for reply in replies]
    assert sorted(line.get("completion_tokens", 0) for line in lines) == [0, 7]
    assert upstream.requests[0].gone_at is None
    assert len(upstream.requests) == 1


def test_when_all_have_left_the_upstream_is_cut(gateway: Gateway, upstream: Upstream) -> None:
    asked = fresh()
    upstream.script(stream(words()[:2], ending="hang"))
    body = chat_body(messages=asked, stream=True)
    with gateway.connect() as leader, gateway.connect() as follower:
        for connection in (leader, follower):
            connection.send("POST", "/v1/chat/completions", body, gateway.headers())
            upstream.wait(1)
            next(connection.pieces(connection.head()))
        leader.close()
        gateway.until(lambda: in_flight(gateway) == 1, "the leader has not left")
        assert upstream.last.gone_at is None
    upstream.wait_gone(upstream.last)
    assert len(upstream.requests) == 1
    assert gateway.chat(messages=asked, stream=True).value("x-agw-cache") == "miss"


def test_when_the_leader_fails_the_others_share_one_more_try(
    gateway: Gateway, upstream: Upstream, pool: ThreadPoolExecutor
) -> None:
    asked = fresh()
    go, behaviour = gate(failure(400))
    upstream.script(behaviour)
    futures = [pool.submit(gateway.chat, messages=asked) for _ in range(FOLLOWERS)]
    upstream.wait(1)
    joined(gateway, FOLLOWERS)
    go.set()
    statuses = sorted(future.result().status for future in futures)
    assert statuses == [200] * (FOLLOWERS - 1) + [400]
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("spent", [0, 5])
def test_who_goes_on_after_a_leader_that_failed_is_limited_like_everybody(
    shared_upstream: Upstream, upstream: Upstream, pool: ThreadPoolExecutor, spent: int
) -> None:
    """Who joins takes no tokens; who then asks by itself does."""
    with Gateway(cached(shared_upstream.url, scope="shared")) as gateway:
        for _ in range(spent):
            assert gateway.chat(messages=fresh(), max_tokens=5, key=THRIFTY).status == 200
        asked = fresh()
        go, behaviour = gate(failure(400))
        upstream.script(behaviour)
        leader = pool.submit(gateway.chat, messages=asked, max_tokens=50)
        upstream.wait(spent + 1)
        follower = pool.submit(gateway.chat, messages=asked, max_tokens=50, key=THRIFTY)
        joined(gateway, 2)
        go.set()
        assert leader.result().status == 400
        reply = follower.result()
        assert reply.status == (429 if spent else 200)
        if not spent:
            assert int(reply.value("x-ratelimit-remaining-tokens") or 0) <= 50, "nothing was reserved"
            again = gateway.chat(messages=asked, max_tokens=50, key=THRIFTY)
            assert again.value("x-ratelimit-remaining-tokens") == "82"
    assert len(upstream.requests) == spent + (1 if spent else 2)


def test_when_it_fails_again_that_is_the_answer(gateway: Gateway, upstream: Upstream, pool: ThreadPoolExecutor) -> None:
    asked = fresh()
    gates = [gate(failure(400)) for _ in range(2)]
    upstream.script(*[behaviour for _, behaviour in gates])
    futures = [pool.submit(gateway.chat, messages=asked) for _ in range(FOLLOWERS)]
    upstream.wait(1)
    joined(gateway, FOLLOWERS)
    gates[0][0].set()
    upstream.wait(2)
    gateway.until(lambda: in_flight(gateway) == FOLLOWERS - 1, "the leader has not ended")
    gates[1][0].set()
    assert {future.result().status for future in futures} == {400}
    assert len(upstream.requests) == 2


def test_a_slow_follower_does_not_slow_the_leader(gateway: Gateway, upstream: Upstream) -> None:
    """It is given up once it lags behind by more than the log holds; the leader gets everything."""
    asked = fresh()
    go = threading.Event()
    many = [words("x" * 65536)[1]] * 400
    upstream.script(opened_by(words()[:2], go, [*many, DONE]))
    body = chat_body(messages=asked, stream=True)
    with gateway.connect() as leader, gateway.connect(receive_buffer=4096) as follower:
        leader.send("POST", "/v1/chat/completions", body, gateway.headers())
        reply = leader.head()
        pieces = leader.pieces(reply)
        next(pieces)
        follower.send("POST", "/v1/chat/completions", body, gateway.headers())
        late = follower.head()
        assert late.value("x-agw-cache") == "joined"
        go.set()
        assert sum(len(piece) for piece in pieces) > 400 * 65536
        assert reply.complete
        tail = b"".join(follower.pieces(late))[-2000:]
        assert b"event: error" in tail
        assert not late.complete
    assert len(upstream.requests) == 1


def test_without_readers_ahead_the_upstream_is_not_read_either(gateway: Gateway, upstream: Upstream) -> None:
    """A slow client of its own call slows its upstream, as without a cache (memory stays flat)."""
    upstream.script(huge(64 << 20))
    with gateway.connect(receive_buffer=4096) as slow:
        slow.send("POST", "/v1/chat/completions", chat_body(messages=fresh(), stream=True), gateway.headers())
        slow.head()
        taken: list[int] = []

        def settled() -> bool:
            taken.append(upstream.last.accepted)
            return len(taken) > 40 and taken[-1] == taken[-40]

        gateway.until(settled, "the upstream is read on and on", 15)
        assert taken[-1] < 24 << 20


def test_a_refresh_joins_nobody(gateway: Gateway, upstream: Upstream, pool: ThreadPoolExecutor) -> None:
    asked = fresh()
    go, behaviour = gate(answer(completion("old")))
    upstream.script(behaviour, answer(completion("new")))
    future = pool.submit(gateway.chat, messages=asked)
    upstream.wait(1)
    fresher = gateway.chat(messages=asked, headers={"cache-control": "no-cache"})
    go.set()
    assert b"new" in fresher.body
    assert b"old" in future.result().body
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("first", [True, False])
def test_who_has_deadlines_of_its_own_shares_no_call(
    gateway: Gateway, upstream: Upstream, pool: ThreadPoolExecutor, first: bool
) -> None:
    """They would be those of all others, or others' would be its own."""
    asked = fresh()
    headers = [{"x-agw-timeout": "15s"}, {}]
    gates = [gate(answer(completion())) for _ in headers]
    upstream.script(*[behaviour for _, behaviour in gates])
    futures = []
    for number, own in enumerate(headers if first else headers[::-1]):
        futures.append(pool.submit(gateway.chat, messages=asked, headers=own))
        upstream.wait(number + 1)
    for go, _ in gates:
        go.set()
    assert [future.result().value("x-agw-cache") for future in futures] == ["miss", "miss"]
    assert gateway.chat(messages=asked).value("x-agw-cache") == "hit"


def test_single_flight_can_be_switched_off(
    shared_upstream: Upstream, upstream: Upstream, pool: ThreadPoolExecutor
) -> None:
    config: Tree = cached(shared_upstream.url, single_flight=False)
    with Gateway(config) as gateway:
        asked = fresh()
        gates = [gate(answer(completion())) for _ in range(2)]
        upstream.script(*[behaviour for _, behaviour in gates])
        futures = [pool.submit(gateway.chat, messages=asked) for _ in range(2)]
        upstream.wait(2)
        for go, _ in gates:
            go.set()
        assert {future.result().value("x-agw-cache") for future in futures} == {"miss"}
        assert gateway.chat(messages=asked).value("x-agw-cache") == "hit"
