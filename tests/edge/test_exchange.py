"""One exchange: settled, released and accounted exactly once, by the best truth there is."""

import asyncio

import pytest

from agw_proxy._hot.limit import CONCURRENT, PER_KEY, TOKENS, Grant, Limits, Rule, Table
from agw_proxy._hot.reserve import Reserve
from agw_proxy.edge.exchange import Exchange
from agw_proxy.errors import CallerGone, Draining, GatewayError, RateLimited, UpstreamBroken
from agw_proxy.types import Attempt, Receipt, Usage

SECOND = 1_000_000_000
RULES = [Rule("tokens", PER_KEY, TOKENS, 1000, 3600 * SECOND), Rule("gate", PER_KEY, CONCURRENT, 1)]


@pytest.fixture
def limits() -> Limits:
    return Limits(Table(slots=8, gates=8), RULES)


async def exchange() -> Exchange:
    return Exchange("req_1", "POST", "127.0.0.1")


def admit(limits: Limits, tokens: int = 0, now_ns: int = SECOND) -> Grant:
    return limits.admit(now_ns, key=1, user=2, model=3, input_tokens=tokens)


@pytest.mark.parametrize(
    ("usage", "error", "bytes_out", "tokens"),
    [
        (Usage(11, 7), None, 500, 18),
        (Usage(11, 7), UpstreamBroken("x"), 500, 18),
        (Usage(0, 0), None, 500, 0),
        (Usage(), None, 500, 103),
        (Usage(), UpstreamBroken("x"), 0, 0),
        (Usage(), UpstreamBroken("x"), 500, 103),
    ],
    ids=["reported", "reported-then-broken", "nothing-used", "unknown", "nothing-sent", "broken-off"],
)
async def test_the_estimate_gives_way_to_the_truth(
    limits: Limits, usage: Usage, error: GatewayError | None, bytes_out: int, tokens: int
) -> None:
    made = await exchange()
    made.grant, made.reserve = admit(limits, 400), Reserve(90, 100, 300)
    made.usage, made.error, made.bytes_out = usage, error, bytes_out
    made.saw_content(3)
    made.settle()
    made.settle()
    made.release()
    left = admit(limits)
    assert left.tokens_remaining == 1000 - tokens


async def test_it_is_accounted_once_and_its_slot_given_back_once(limits: Limits) -> None:
    made = await exchange()
    made.grant = admit(limits)
    seen: list[Receipt] = []
    assert not admit(limits).granted
    for _ in range(3):
        made.account(seen.append, lambda: "now")
        made.release()
    first, second = admit(limits), admit(limits)
    assert (len(seen), first.granted, second.granted) == (1, True, False)


async def test_an_exchange_without_a_grant_settles_nothing() -> None:
    made = await exchange()
    seen: list[Receipt] = []
    made.account(seen.append, lambda: "now")
    made.release()
    assert (seen[0].outcome, seen[0].attempts, seen[0].upstream) == ("ok", 0, "none")


async def test_the_receipt_tells_what_happened() -> None:
    made = await exchange()
    made.status, made.stream = 429, True
    made.trail = [Attempt("a/m", "a", "upstream_reset"), Attempt("b/m", "b", "200")]
    made.error = RateLimited("too many", rule="r", retry_after_ms=5)
    made.usage = Usage(1, 2, 3)
    made.started -= SECOND
    made.saw_content(1)
    made.saw_content(1)
    first = made.last_token
    made.saw_content(3)
    made.last_token = made.first_token + 40_000_000
    seen: list[Receipt] = []
    made.account(seen.append, lambda: "2026-11-21T00:00:00.000Z")
    line = seen[0]
    assert (line.event, line.time, line.request_id) == ("request", "2026-11-21T00:00:00.000Z", "req_1")
    assert (line.status, line.outcome, line.rule, line.message) == (429, "policy_rate_limited", "r", "too many")
    assert (line.upstream, line.target, line.attempts) == ("b", "b/m", 2)
    assert (line.prompt_tokens, line.completion_tokens, line.cached_tokens) == (1, 2, 3)
    assert line.duration_ms >= 1000
    assert line.ttft_ms is not None
    assert 1000 <= line.ttft_ms <= line.duration_ms
    assert line.inter_token_ms == 20.0
    assert first == made.first_token


async def test_the_gateways_own_share_leaves_out_what_it_waited_for() -> None:
    made = await exchange()
    made.head_at = made.started + 500_000
    made.waited = 400_000
    assert made.overhead_ns() == 100_000
    made.waited = 600_000
    assert made.overhead_ns() == 0


async def test_the_timing_names_its_phases_and_the_upstreams_only_where_there_was_one() -> None:
    made = await exchange()
    made.auth_ns, made.limit_ns = 1_500_000, 2_000
    timing = made.server_timing()
    assert timing.startswith("auth;dur=1.500, limit;dur=0.002, own;dur=")
    made.trail = [Attempt("a/m", "a", "200")]
    made.connect_ms, made.upstream_ns = 0.25, 3_000_000
    assert "connect;dur=0.250, ttfb;dur=3.000, own;dur=" in made.server_timing()


async def test_a_cancellation_is_the_clients_unless_the_gateway_ended_it() -> None:
    begun = asyncio.Event()
    found: list[GatewayError] = []
    exchanges: list[Exchange] = []

    async def run() -> str:
        made = await exchange()
        exchanges.append(made)
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            found.append(made.cancelled())
        await asyncio.sleep(0)
        return "goes on"

    task = asyncio.create_task(run())
    await begun.wait()
    exchanges[0].end(Draining("ends"))
    exchanges[0].end(Draining("again"))
    assert await task == "goes on"
    begun.clear()
    left = asyncio.create_task(run())
    await begun.wait()
    left.cancel()
    await left
    assert [type(error) for error in found] == [Draining, CallerGone]
    assert found[0].message == "ends"
    exchanges[0].end(Draining("too late"))
    assert exchanges[0].ending is found[0]
