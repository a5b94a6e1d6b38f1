"""The scripts in a real server: against the model on a clock of the test's, and a few words on the server's own."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis as Blocking
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from agw_proxy._hot.limit import BUCKET, CALENDAR, SLIDING, TOTAL
from agw_proxy.store.client import pool
from agw_proxy.store.scripts import TAKES, Kept, Take, arguments, beat, leave, read, run
from tests.store.conftest import redis_settings
from tests.store.model_scripts import Terms, model
from tests.support.redis_server import RedisServer

START = 1_791_000_000_000_000  # microseconds: October 2026
HOUR, DAY, WEEK, MONTH = range(4)
TERMS = [
    Terms(BUCKET, 10, 1_000_000_000),
    Terms(BUCKET, 7, 3_000_000_000, burst=20),
    Terms(BUCKET, 10**12, 60_000_000_000),
    Terms(SLIDING, 10, 1_000_000_000),
    Terms(SLIDING, 10**12, 60_000_000_000),
    Terms(CALENDAR, 50_000_000, calendar=HOUR),
    Terms(CALENDAR, 10, calendar=DAY),
    Terms(CALENDAR, 10, calendar=WEEK),
    Terms(CALENDAR, 10**15, calendar=MONTH),
    Terms(TOTAL, 10, 1_000_000_000),
]


class AtTime:
    """The scripts with a clock that is their third argument."""

    def __init__(self, server: RedisServer) -> None:
        self.redis = Blocking(port=server.port)
        self.shas = {}
        for algorithm, script in TAKES.items():
            source = script.source.replace("redis.call('TIME')", "{0, ARGV[3]}")
            assert source != script.source
            self.shas[algorithm] = str(self.redis.script_load(source))

    def take(self, key: str, take: Take, now: int, nodes: int) -> tuple[int, int, int, str]:
        found: Any = self.redis.evalsha(self.shas[take.rule.algorithm], 1, key, *arguments(take, nodes), str(now))
        self.redis.persist(key)  # its lifetime is on the server's clock
        (taken,) = read(found)
        return taken.got, taken.wait_ns // 1000, taken.left, taken.mark


@pytest.fixture
def at_time(server: RedisServer) -> Iterator[AtTime]:
    timed = AtTime(server)
    yield timed
    timed.redis.close()


def steps(terms: Terms) -> st.SearchStrategy[list[tuple[int, int, int, int, int, int]]]:
    """(microseconds to pass, need, want, owed, back, nodes), with times and amounts that matter to the rule."""
    period = {-1: terms.period_ns // 1000, HOUR: 3_600_000_000, DAY: 86_400_000_000, WEEK: 604_800_000_000}.get(
        terms.calendar, 2_592_000_000_000
    )
    times = st.one_of(st.integers(-1000, 1000), st.integers(0, period // 4), st.integers(0, 2 * period))
    amounts = st.one_of(st.integers(0, 3), st.integers(0, terms.amount // 2), st.integers(0, 2 * terms.amount))
    small = st.one_of(st.just(0), st.integers(0, max(terms.amount // 3, 1)))
    return st.lists(st.tuples(times, amounts, amounts, small, small, st.integers(1, 4)), max_size=25)


@pytest.mark.parametrize("terms", TERMS, ids=str)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(data=st.data())
def test_each_does_what_its_model_does(at_time: AtTime, terms: Terms, data: st.DataObject) -> None:
    at_time.redis.flushdb()
    counted, now, mark = model(terms), START, ""
    for step, need, want, owed, back, nodes in data.draw(steps(terms)):
        now = max(now + step, START)
        expected, new = counted.take(now, need, want, owed, back, mark, nodes)
        got, wait, _, seen = at_time.take("k", Take(terms, 1, need, want, owed, back, mark), now, nodes)
        if terms.amount < 10**9:
            assert (got, seen) == (expected, new)
        else:  # a double: a part in 10^15 may go the other way, at the edge between all and nothing by more
            if (got >= need) != (expected >= need):
                return
            assert abs(got - expected) <= 1
            if got != expected:
                return
        assert (wait > 0) == (got < need)
        mark = seen


@pytest.mark.parametrize("terms", [terms for terms in TERMS if terms.algorithm != TOTAL], ids=str)
def test_after_the_wait_that_it_tells_the_same_passes(at_time: AtTime, terms: Terms) -> None:
    everything = Take(terms, 1, 1, terms.burst or terms.amount)
    assert at_time.take("k", everything, START, 1)[0] == (terms.burst or terms.amount)
    half = (terms.burst or terms.amount) // 2
    asked = Take(terms, 1, half, half)
    got, wait, _, _ = at_time.take("k", asked, START + 5, 1)
    assert got == 0
    assert wait > 0
    assert at_time.take("k", asked, START + 5 + wait + 1, 1)[0] == half


def test_months_begin_where_the_calendar_says(at_time: AtTime) -> None:
    terms = Terms(CALENDAR, 10, calendar=MONTH)
    for year, month in [(1999, 12), (2000, 2), (2024, 2), (2026, 11), (2099, 12), (2100, 2)]:
        ends = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        after = round(ends.timestamp() * 1_000_000)
        key = f"{year}-{month}"
        got, _, _, mark = at_time.take(key, Take(terms, 1, 10, 10), after - 1_000_000, 1)
        assert (got, mark) == (10, str(year * 12 + month))
        got, wait, _, _ = at_time.take(key, Take(terms, 1, 1, 1), after - 1_000_000, 1)
        assert (got, wait) == (0, 1_000_000)
        assert at_time.take(key, Take(terms, 1, 10, 10), after, 1)[0] == 10


def test_a_need_above_the_burst_passes_a_full_bucket_and_leaves_a_debt(at_time: AtTime) -> None:
    terms = Terms(BUCKET, 10, 1_000_000_000)
    assert at_time.take("k", Take(terms, 1, 25, 25), START, 3)[:3] == (25, 0, -15)
    got, wait, _, _ = at_time.take("k", Take(terms, 1, 1, 1), START, 3)
    assert (got, wait) == (0, 1_600_000)


def test_no_key_outlives_what_it_says(at_time: AtTime, server: RedisServer) -> None:
    for terms in TERMS:
        at_time.redis.flushdb()
        sha = at_time.shas[terms.algorithm]
        at_time.redis.evalsha(sha, 1, "k", *arguments(Take(terms, 1, 1, 1), 1), str(START))
        left: Any = at_time.redis.pttl("k")
        assert left != -1, terms  # it would stay for ever
        assert left <= 32 * 86_400_000, terms


async def test_many_in_one_round_trip_and_once_more_where_the_server_has_forgotten_them(server: RedisServer) -> None:
    kept = Kept()
    async with Redis(port=server.port) as redis:
        takes = [Take(terms, tag, 1, 1) for tag, terms in enumerate(TERMS)]
        for _ in range(2):
            server.command("SCRIPT", "FLUSH")
            assert [one.got for one in await run(redis, kept, "agw", takes, 2)] == [1] * len(TERMS)
        server.command("CONFIG", "RESETSTAT")
        assert [one.got for one in await run(redis, kept, "agw", takes, 2)] == [1] * len(TERMS)
        stats = server.command("INFO", "commandstats")
        assert b"cmdstat_evalsha:calls=4," in stats  # one an algorithm
        assert b"cmdstat_eval:" not in stats  # by now they are known


async def test_each_of_a_round_trip_is_answered_for_itself(server: RedisServer) -> None:
    hour = 3_600_000_000_000
    terms = [Terms(algorithm, 10, hour) for algorithm in (BUCKET, SLIDING, TOTAL)]
    terms.append(Terms(CALENDAR, 10, calendar=MONTH))
    kept = Kept()
    async with Redis(port=server.port) as redis:
        takes = [Take(one, tag, 1, 2 + tag % 3, owed=tag % 2) for tag, one in enumerate(terms * 3)]
        for left in (5, 0, -1, -2):  # of the last one, a month's
            together = await run(redis, kept, "many", takes, 1)
            apart = [(await run(redis, kept, "one", [take], 1))[0] for take in takes]
            assert [one.got for one in together] == [one.got for one in apart]
            assert [one.left for one in together] == [one.left for one in apart]
            assert [bool(one.wait_ns) for one in together] == [one.got == 0 for one in together]
            assert [bool(one.mark) for one in together] == [
                take.rule.algorithm in {SLIDING, CALENDAR} for take in takes
            ]
            assert together[-1].left == left
        assert {one.got for one in together} >= {0, 2}


async def test_a_connection_that_is_kept_and_was_closed_meanwhile_is_another_one(server: RedisServer) -> None:
    kept, takes = Kept(), [Take(TERMS[2], 1, 1, 1)]
    redis = Redis.from_pool(pool(redis_settings(server), 1, 1.0))
    for _ in range(3):
        assert (await run(redis, kept, "agw", takes, 1))[0].got == 1
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await asyncio.sleep(0.05)
    assert (await run(redis, kept, "agw", takes, 1))[0].got == 1
    await redis.aclose()


async def test_a_connection_goes_back_to_its_pool_after_an_error_and_where_another_is_kept(server: RedisServer) -> None:
    kept, takes = Kept(), [Take(TERMS[2], 1, 1, 1)]
    async with Redis(port=server.port, max_connections=2) as redis:
        server.command("SET", "agw:limit:0000000000000001", "nonsense")
        for _ in range(5):
            with pytest.raises(ResponseError):
                await run(redis, kept, "agw", takes, 1)
        server.command("DEL", "agw:limit:0000000000000001")
        for _ in range(5):
            both = await asyncio.gather(*(run(redis, kept, "agw", takes, 1) for _ in range(2)))
            assert [one.got for (one,) in both] == [1, 1]
        asking = asyncio.create_task(run(redis, kept, "agw", takes, 1))
        await asyncio.sleep(0)
        asking.cancel()
        assert (await run(redis, kept, "agw", takes, 1))[0].got == 1


async def test_takes_of_many_nodes_at_once_never_give_more_than_there_is(server: RedisServer) -> None:
    terms = Terms(BUCKET, 100, 3_600_000_000_000)

    async def node() -> int:
        got, kept = 0, Kept()
        async with Redis(port=server.port) as redis:
            for _ in range(50):
                got += (await run(redis, kept, "agw", [Take(terms, 7, 1, 7)], 4))[0].got
        return got

    assert sum(await asyncio.gather(*(node() for _ in range(4)))) == 100


async def test_nodes_are_counted_by_their_beats(server: RedisServer) -> None:
    async with Redis(port=server.port) as redis:
        assert await beat(redis, "agw", "one", 5) == 1
        assert await beat(redis, "agw", "two", 5) == 2
        assert await beat(redis, "agw", "one", 5) == 2
        assert await beat(redis, "other", "one", 5) == 1
        await leave(redis, "agw", "two")
        assert await beat(redis, "agw", "one", 5) == 1
        server.command("ZADD", "agw:nodes", "1", "long-gone")
        assert await beat(redis, "agw", "one", 5) == 1
