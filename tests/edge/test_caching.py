"""The cache of one worker: what it holds, and what becomes of those who wait for the same answer."""

import asyncio
import time
from typing import Any, cast

import msgspec
import pytest

from agw_proxy._hot.lane import Lane
from agw_proxy._hot.route import Target
from agw_proxy.config.storage import Cache
from agw_proxy.edge.answers import Entry
from agw_proxy.edge.caching import Caching, Share, Spelt
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.flights import Flight
from agw_proxy.edge.state import State
from agw_proxy.errors import RateLimited
from agw_proxy.types import RawHeaders
from agw_proxy.upstreams.opening import Opened

KEY = b"k" * 32
ENTRY = Entry(0.0, 200, ((b"content-type", b"application/json"),), b"{}", stream=False)
TARGET = cast("Target", object())  # whose answer it is does not matter here


class Alias:
    """What the fast lane has of an answer."""

    size = 100

    def __init__(self) -> None:
        self.current = True
        self.used = False
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True


class FastLane:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.aliases: list[Alias] = []

    def keep(self, *_: Any, **__: Any) -> Alias:
        self.aliases.append(Alias())
        return self.aliases[-1]


class Counts:
    """What was counted."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.bytes = 0

    def cached(self, outcome: str, count: int = 1) -> None:
        self.outcomes += [outcome] * count

    def cache_bytes(self, step: int) -> None:
        self.bytes += step


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def caching(counts: Counts) -> Caching:
    return Caching(Cache(), counts, None)


def spelt(lane: FastLane, body: bytes) -> Spelt:
    return Spelt(cast("Lane", lane), cast("State", object()), 1, b"/v1/chat/completions", b"", body)


def landing() -> Flight:
    return cast("Flight", object())


async def test_what_the_fast_lane_has_from_before_a_reload_is_taken_from_it(caching: Caching, counts: Counts) -> None:
    """Else it would be there for ever, under bytes that nobody may send again, and counted by nobody."""
    lane = FastLane()
    caching.keep(KEY, ENTRY, landing(), spelt(lane, b"{}"))
    before = caching.memory.bytes
    lane.aliases[0].current = False
    caching._spell(KEY, ENTRY, spelt(lane, b"{ }"))
    assert [alias.dropped for alias in lane.aliases] == [True, False]
    assert caching.memory.bytes == before


async def test_an_answer_that_comes_after_the_end_is_not_kept(caching: Caching, counts: Counts) -> None:
    """The settings have changed under a call: nobody would ever ask here for its answer again."""
    caching.keep(KEY, ENTRY, landing(), None)
    assert counts.bytes > 0
    caching.close()
    caching.keep(KEY, ENTRY, landing(), None)
    assert counts.bytes == 0
    assert caching.held(KEY) is None


class Whole:
    """An upstream's answer that is all here."""

    connect_ms = 0.0
    began_ns = 0
    status = 200
    headers: RawHeaders = ((b"content-type", b"application/json"),)

    def __init__(self) -> None:
        self.ended = False

    async def read(self, *, progress: bool = True) -> bytes:
        self.ended = True
        return b"{}"

    def close(self) -> None:
        """Nothing to close."""


def share_of(caching: Caching, reuse: str | None = None) -> tuple[Share, Exchange]:
    exchange = Exchange("request", "POST", None)
    exchange.reuse = exchange.cache = reuse
    share = Share(caching, exchange, KEY, TARGET, known_end=True)
    share.targets = (TARGET,)
    return share, exchange


async def test_nobody_is_refused_by_the_limits_of_who_leads_a_call(caching: Caching) -> None:
    """They are another key's, maybe, and its business; and this one's have let it pass."""
    go = asyncio.Event()
    asked: list[str] = []

    async def refused() -> Opened:
        asked.append("leader")
        await go.wait()
        raise RateLimited("Somebody else's limit has no more.", rule="theirs", retry_after_ms=None)

    async def answered() -> Opened:
        asked.append("follower")
        return Opened(Whole(), TARGET, None, b"")

    leader = asyncio.ensure_future(share_of(caching)[0].open(refused))
    await asyncio.sleep(0)
    followers = [share_of(caching, "joined")[0] for _ in range(3)]
    waiting = [asyncio.ensure_future(share.open(answered)) for share in followers]
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(RateLimited):
        await leader
    for opened in await asyncio.gather(*waiting):
        assert await opened.reply.read() == b"{}"
    assert asked == ["leader", "follower"]


async def test_an_answer_that_came_while_one_waited_is_a_hit_with_its_age(caching: Caching) -> None:
    caching.keep(KEY, ENTRY, landing(), None)
    share, exchange = share_of(caching, "joined")

    async def ask() -> Opened:
        raise AssertionError("it is there")

    await share.open(ask)
    assert (exchange.reuse, exchange.cache) == ("hit", "hit")
    assert [name for name, _ in exchange.notes] == ["age"]


class Elsewhere:
    """A store with one answer that does not expire there."""

    def __init__(self, entry: Entry) -> None:
        self._value = entry.encode()

    async def get(self, key: str) -> bytes | None:
        return self._value

    async def set(self, key: str, value: bytes, ttl: float) -> bool:
        return True

    async def add(self, key: str, value: bytes, ttl: float) -> bool | None:
        return True

    async def remove(self, key: str) -> None:
        """It stays."""

    async def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize(("age", "found"), [(50.0, True), (70.0, False)])
async def test_an_answer_that_was_stored_for_longer_is_given_for_the_ttl_in_force(
    counts: Counts, age: float, found: bool
) -> None:
    """By an earlier configuration, or another gateway's."""
    old = msgspec.structs.replace(ENTRY, made=time.time() - age)
    caching = Caching(Cache(ttl=60.0), counts, Elsewhere(old))
    assert (await caching._find(KEY) is not None) is found
