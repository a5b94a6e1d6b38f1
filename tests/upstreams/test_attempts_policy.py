"""What bounds the attempts besides their number: circuits, the budget of retries, keys, a rival, and a last resort."""

import asyncio
import time
from collections.abc import Sequence

import msgspec
import pytest

from agw_proxy._hot.circuit import Board, Circuit
from agw_proxy._hot.route import RouteTable, Target
from agw_proxy.config.resilience import Adaptive, Hedge, Timeouts
from agw_proxy.errors import UpstreamError, UpstreamReset, UpstreamTimeout, UpstreamUnavailable
from agw_proxy.types import Attempt, Call
from agw_proxy.upstreams.attempts import HEDGED_LOST, Skipped, open_first
from agw_proxy.upstreams.echo import Echo
from agw_proxy.upstreams.hedge import Hedging
from agw_proxy.upstreams.keyring import Keyring
from agw_proxy.upstreams.opening import Opened
from agw_proxy.upstreams.queue import Places
from agw_proxy.upstreams.service import Service
from agw_proxy.upstreams.ways import PLAIN, Way
from tests.upstreams.scripted import SSE, Answered, Scripted, call, service

FOREVER_NS = 60 * 10**9


class Shop:
    """Upstreams with circuits on one board, and exchanges with them one after the other."""

    def __init__(
        self,
        *services: Service,
        models: Sequence[str] = ("m",),
        consecutive: int = 3,
        way: Way = PLAIN,
        slow_ns: int = 0,
    ) -> None:
        board = Board()
        self.services = services
        names = [item.upstream.name for item in services]
        vitals = {name: board.vitals(name) for name in names}

        def made(upstream: int, target: str, configured: bool) -> Circuit:
            return board.circuit(
                target, vitals[names[upstream]], enabled=True, consecutive=consecutive, ratio=0.9, min_requests=1000,
                window_ns=FOREVER_NS, cool_down_ns=FOREVER_NS, cool_down_max_ns=FOREVER_NS, probes=1, slow_ns=slow_ns,
                configured=configured,
            )  # fmt: skip

        table = RouteTable([(name, ("*",)) for name in names], [], made)
        found = [table.find(f"{name}/{model}") for name in names for model in models]
        self.plan = tuple(route.targets[0] for route in found if route is not None)
        self.way = way
        self.trail: list[Attempt] = []
        self.hedges: list[str] = []

    def circuit(self, number: int = 0) -> Circuit:
        found = self.plan[number].circuit
        assert found is not None
        return found

    async def run(self, asked: Call | None = None, **more: object) -> Opened:
        self.trail = []
        return await open_first(
            self.plan, self.services, asked or call(), trail=self.trail, way=self.way, on_hedge=self.hedges.append, **more  # type: ignore[arg-type]
        )  # fmt: skip

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(attempt.target, attempt.outcome) for attempt in self.trail]


def good() -> Answered:
    return Answered(b'{"ok":true}')


def refused(status: int, *headers: tuple[str, str]) -> Answered:
    return Answered(b'{"error":{"message":"no"}}', status=status, headers=headers)


def with_keys(item: Service, size: int, dead: list[str]) -> Service:
    headers = [("Authorization", f"Bearer {number}") for number in range(size)]
    return msgspec.structs.replace(item, keys=Keyring("a", headers, lambda _, key: dead.append(key)))


def sent(upstream: Scripted) -> list[str]:
    """The numbers of the keys that it saw."""
    return [asked.credential[1].removeprefix("Bearer ") if asked.credential else "" for _, asked in upstream.calls]


# -- circuits


async def test_a_target_whose_circuit_is_open_is_passed_over_and_not_in_the_trail() -> None:
    sick, well = Scripted("a", *[UpstreamReset("x")] * 3), Scripted("b", *[good() for _ in range(9)])
    shop = Shop(service(sick, attempts=1), service(well))
    for _ in range(5):
        await shop.run()
    assert shop.circuit().state(0) == "open"
    assert (len(sick.calls), len(well.calls)) == (3, 5)
    assert shop.told == [("b/m", "200")]


async def test_where_nobody_may_be_asked_the_answer_says_when() -> None:
    sick = Scripted("a", *[UpstreamReset("x")] * 3)
    shop = Shop(service(sick, attempts=9))
    with pytest.raises(UpstreamReset):
        await shop.run()
    with pytest.raises(Skipped) as caught:
        await shop.run()
    assert (len(sick.calls), shop.told) == (3, [])
    assert 50_000 < (caught.value.retry_after_ms or 0) <= 60_000


async def test_in_a_panic_it_is_asked_all_the_same() -> None:
    sick = Scripted("a", *[UpstreamReset("x")] * 3, good())
    shop = Shop(service(sick, attempts=3))
    with pytest.raises(UpstreamReset):
        await shop.run()
    assert (await shop.run(panic=True)).reply.status == 200


async def test_an_attempt_is_under_way_until_its_answer_has_ended() -> None:
    shop = Shop(service(Scripted("a", good(), good(), good())))
    opened = await shop.run()
    assert shop.circuit().in_flight == 1
    opened.end(None)
    opened.end(UpstreamReset("counted once"))
    assert shop.circuit().in_flight == 0
    assert (shop.circuit().vitals.requests, shop.circuit().vitals.failures) == (1, 0)
    assert shop.circuit().first_ns >= 0
    (await shop.run()).end(UpstreamReset("broke later"))
    assert (shop.circuit().vitals.requests, shop.circuit().vitals.failures) == (2, 1)
    (await shop.run()).abandon()
    assert (shop.circuit().in_flight, shop.circuit().vitals.requests) == (0, 2)


async def test_a_caller_that_leaves_says_nothing_of_the_target() -> None:
    begun = asyncio.Event()

    class Silent(Scripted):
        async def open(self, target: Target, call: Call) -> Answered:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

    shop = Shop(service(Silent("a")))
    task = asyncio.create_task(shop.run())
    await begun.wait()
    assert shop.circuit().in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (shop.circuit().in_flight, shop.circuit().vitals.requests) == (0, 0)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_target_that_names_a_time_rests_so_long(status: int) -> None:
    first, second = Scripted("a", refused(status, ("retry-after", "9"))), Scripted("b", good(), good())
    shop = Shop(service(first), service(second))
    await shop.run()
    await shop.run()
    assert (len(first.calls), shop.told) == (1, [("b/m", "200")])
    assert shop.circuit().state(0) == "closed"


async def test_our_own_next_try_comes_when_the_rest_is_over() -> None:
    first = Scripted("a", refused(429, ("retry-after-ms", "20")), good())
    shop = Shop(service(first))
    assert (await shop.run()).reply.status == 200
    assert len(first.calls) == 2


# -- the budget


@pytest.mark.parametrize("share", [0.2, 0.5])
async def test_an_upstream_that_is_down_gets_no_more_than_its_share_above_the_requests(share: float) -> None:
    dead = Scripted("a", *[UpstreamReset("x")] * 2000)
    shop = Shop(service(dead, base=1e-9, max=1e-9, budget=share, budget_floor=0), consecutive=10_000)
    for _ in range(500):
        with pytest.raises(UpstreamReset):
            await shop.run()
    assert 500 * (1 + share) * 0.95 <= len(dead.calls) <= 500 * (1 + share)


async def test_two_models_of_one_upstream_share_its_budget() -> None:
    dead = Scripted("a", *[UpstreamReset("x")] * 2000)
    shop = Shop(service(dead, attempts=1, budget=0.2, budget_floor=0), models=("m", "n"), consecutive=10_000)
    for _ in range(500):
        with pytest.raises(UpstreamReset):
            await shop.run()
    assert len(dead.calls) <= 600


async def test_another_upstream_is_no_retry() -> None:
    dead, well = Scripted("a", *[UpstreamReset("x")] * 100), Scripted("b", *[good() for _ in range(100)])
    shop = Shop(
        service(dead, budget=0.0, budget_floor=0), service(well, budget=0.0, budget_floor=0), consecutive=10_000
    )
    for _ in range(100):
        assert (await shop.run()).target.name == "b/m"
    assert (len(dead.calls), len(well.calls)) == (100, 100)


async def test_the_floor_is_allowed_however_few_requests_there_are() -> None:
    dead = Scripted("a", *[UpstreamReset("x")] * 3)
    shop = Shop(service(dead, base=1e-9, max=1e-9, budget=0.0, budget_floor=2), consecutive=10_000)
    with pytest.raises(UpstreamReset):
        await shop.run()
    assert len(dead.calls) == 3


# -- what the fast lane has tried


async def test_an_attempt_made_elsewhere_counts_and_its_circuit_is_not_told_again() -> None:
    first = Scripted("a", UpstreamReset("x"))
    shop = Shop(service(first, attempts=2))
    with pytest.raises(UpstreamReset):
        await shop.run(failed=UpstreamReset("before"))
    assert shop.told == [("a/m", "upstream_reset")] * 2
    assert (len(first.calls), shop.circuit().vitals.requests) == (1, 1)


# -- keys


@pytest.mark.parametrize(("status", "dead"), [(401, ["key 1 of 2"]), (403, ["key 1 of 2"]), (429, [])])
async def test_a_key_that_is_refused_or_limited_gives_way_to_the_next_at_once(status: int, dead: list[str]) -> None:
    told: list[str] = []
    upstream = Scripted("a", refused(status), good(), good())
    shop = Shop(with_keys(service(upstream, base=60.0, max=60.0), 2, told))
    await shop.run()
    assert (sent(upstream), told) == (["0", "1"], dead)
    assert [outcome for _, outcome in shop.told][-1] == "200"
    await shop.run()
    assert sent(upstream)[-1] == "1"
    assert (shop.circuit().vitals.failures, shop.circuit().state(0)) == (0, "closed")


async def test_a_request_that_all_keys_are_refused_for_kills_none() -> None:
    told: list[str] = []
    upstream = Scripted("a", *[refused(403)] * 2, good())
    shop = Shop(with_keys(service(upstream, attempts=9), 2, told))
    with pytest.raises(UpstreamError) as caught:
        await shop.run()
    assert (caught.value.status, sent(upstream), told) == (403, ["0", "1"], [])
    assert (await shop.run()).reply.status == 200


async def test_changing_keys_costs_the_budget_once() -> None:
    upstream = Scripted("a", *[refused(429)] * 3, good())
    shop = Shop(with_keys(service(upstream, attempts=9, budget=0.0, budget_floor=1), 4, []))
    await shop.run()
    assert sent(upstream) == ["0", "1", "2", "3"]


async def test_each_key_is_one_of_the_targets_attempts() -> None:
    upstream = Scripted("a", *[refused(429)] * 4)
    shop = Shop(with_keys(service(upstream, attempts=2), 4, []))
    with pytest.raises(UpstreamError):
        await shop.run()
    assert sent(upstream) == ["0", "1"]


async def test_where_all_keys_rest_the_next_upstream_is_asked_at_once() -> None:
    upstream, other = Scripted("a", refused(429), refused(429)), Scripted("b", good(), good())
    shop = Shop(with_keys(service(upstream), 2, []), service(other))
    await shop.run()
    assert (await shop.run()).target.name == "b/m"
    assert len(upstream.calls) == 2


async def test_dead_keys_alone_are_told_of() -> None:
    upstream = Scripted("a", refused(401), refused(401))
    shop = Shop(with_keys(service(upstream), 2, []))
    with pytest.raises(UpstreamError):
        await shop.run()
    with pytest.raises(Skipped, match="refused all its keys"):
        await shop.run()


# -- a rival, and the last resort


async def test_a_late_answer_gets_a_rival_and_loses() -> None:
    left = asyncio.Event()

    class Slow(Scripted):
        async def open(self, target: Target, call: Call) -> Answered:
            self.calls.append((target.name, call))
            try:
                await asyncio.Event().wait()
            finally:
                left.set()
            raise AssertionError

    shop = Shop(service(Slow("a")), service(Scripted("b", good())), way=Way(hedging=Hedging(Hedge(after=0.01))))
    opened = await shop.run()
    assert left.is_set()
    assert shop.told == [("a/m", HEDGED_LOST), ("b/m", "200")]
    assert (shop.hedges, opened.target.name) == (["won"], "b/m")
    opened.end(None)
    assert (shop.circuit(0).in_flight, shop.circuit(1).in_flight, shop.circuit(0).vitals.failures) == (0, 0, 0)


async def test_a_rival_that_may_not_be_asked_is_not() -> None:
    class Late(Scripted):
        async def open(self, target: Target, call: Call) -> Answered:
            await asyncio.sleep(0.02)
            return await super().open(target, call)

    shop = Shop(service(Late("a", good())), service(Scripted("b")), way=Way(hedging=Hedging(Hedge(after=0.005))))
    opened = await shop.run(may_hedge=lambda target: target.name != "b/m")
    assert opened.target.name == "a/m"
    assert (shop.told, shop.hedges) == ([("a/m", "200")], ["denied"])


async def test_two_that_both_fail_are_followed_by_the_rest() -> None:
    class Late(Scripted):
        async def open(self, target: Target, call: Call) -> Answered:
            await asyncio.sleep(0.02)
            return await super().open(target, call)

    way = Way(hedging=Hedging(Hedge(after=0.005)))
    shop = Shop(service(Late("a", UpstreamReset("x"), good())), service(Late("b", UpstreamReset("x"))), way=way)
    assert (await shop.run()).reply.status == 200
    assert sorted(shop.told[:2]) == [("a/m", "upstream_reset"), ("b/m", "upstream_reset")]
    assert (shop.told[2:], shop.hedges) == ([("a/m", "200")], ["failed"])


@pytest.mark.parametrize("failure", [UpstreamReset("x"), UpstreamTimeout("x"), UpstreamUnavailable("x")])
async def test_where_all_fail_the_echo_model_answers(failure: UpstreamError) -> None:
    echo = RouteTable([("a", ("*",)), ("agw", ())], []).find("agw/echo")
    assert echo is not None
    own = service(Scripted("a", failure), attempts=1)
    shop = Shop(own, msgspec.structs.replace(own, upstream=Echo()), way=Way(last_resort=echo.targets[0]))
    shop.plan = shop.plan[:1]
    opened = await shop.run(call(b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'))
    assert opened.target is shop.way.last_resort
    assert shop.told == [("a/m", failure.code), ("agw/echo", "200")]


async def test_the_callers_own_fault_is_no_case_for_the_last_resort() -> None:
    echo = RouteTable([("a", ("*",)), ("agw", ())], []).find("agw/echo")
    assert echo is not None
    own = service(Scripted("a", refused(400)))
    shop = Shop(own, msgspec.structs.replace(own, upstream=Echo()), way=Way(last_resort=echo.targets[0]))
    shop.plan = shop.plan[:1]
    with pytest.raises(UpstreamError) as caught:
        await shop.run()
    assert (caught.value.status, shop.told) == (400, [("a/m", "400")])


class Busy(Scripted):
    """An upstream with a queue: there is no place for ``seconds``."""

    def __init__(self, seconds: float, *script: Answered | UpstreamError) -> None:
        super().__init__("a", *script)
        self.seconds = seconds

    async def open(self, target: Target, call: Call) -> Answered:
        begun = time.monotonic_ns()
        try:
            await asyncio.sleep(self.seconds)
        finally:
            assert call.on_wait is not None
            call.on_wait(time.monotonic_ns() - begun)
        return await super().open(target, call)


STREAM = b'{"model":"m","stream":true}'
EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'


async def test_a_wait_for_a_place_is_no_wait_for_the_first_token() -> None:
    times = Timeouts(first_token=0.05, total=10)
    shop = Shop(msgspec.structs.replace(service(Busy(0.2, Answered(EVENT, kind=SSE))), timeouts=times))
    opened = await shop.run(call(STREAM))
    assert opened.first == EVENT


async def test_a_late_first_token_is_told_of_the_request_as_it_went_out() -> None:
    places = Places("a", most=64, size=1, wait=1).follow(Adaptive(start=64))

    class Waiting(Scripted):
        async def open(self, target: Target, call: Call) -> Answered:
            places.refused(time.monotonic_ns(), UpstreamTimeout("another's"))  # while this one waits for its place
            if call.on_sent is not None:
                call.on_sent()
            await asyncio.Event().wait()
            raise AssertionError

    item = msgspec.structs.replace(
        service(Waiting("a"), attempts=1), places=places, timeouts=Timeouts(first_token=0.01)
    )
    with pytest.raises(UpstreamTimeout):
        await Shop(item).run(call(STREAM))
    assert places.most == 16


async def test_a_wait_for_a_place_makes_no_answer_slow() -> None:
    shop = Shop(service(Busy(0.2, good())), consecutive=1, slow_ns=100_000_000)
    (await shop.run()).end(None)
    assert shop.circuit().state(time.monotonic_ns()) == "closed"


async def test_who_was_given_no_place_in_time_says_nothing_of_the_upstream() -> None:
    item = service(Busy(60, good()), total=0.05)
    shop = Shop(item, consecutive=1)
    heard: list[int] = []
    with pytest.raises(UpstreamTimeout):
        await shop.run(msgspec.structs.replace(call(), on_wait=heard.append))
    assert len(heard) == 1
    assert shop.circuit().state(time.monotonic_ns()) == "closed"
    assert (item.health.failures, item.health.state) == (0, "unused")
    assert shop.told == [("a/m", "upstream_timeout")]
