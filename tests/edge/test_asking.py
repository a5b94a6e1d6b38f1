"""What the limits are asked for a request on its way from target to target, and that nothing of it stays behind."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from agw_proxy._hot.circuit import Board
from agw_proxy._hot.limit import Rule, Table
from agw_proxy.config.settings import Settings
from agw_proxy.edge.asking import Asking
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.reading import look_into
from agw_proxy.edge.state import State, compile_state
from agw_proxy.types import Routed
from agw_proxy.upstreams.opening import Opened
from tests.upstreams.scripted import Answered

SECOND = 1_000_000_000
BODY = orjson.dumps(
    {"model": "both", "max_tokens": 100, "messages": [{"role": "user", "content": "How many roads are there?"}]}
)
CONFIG: dict[str, Any] = {
    "upstreams": [
        {"name": name, "base_url": f"https://{name}.example.com/v1", "api_key": "k" * 30, "models": ["m"]}
        for name in ("one", "two")
    ],
    "models": [{"name": "both", "targets": ["one/m", "two/m"], "balance": "first"}],
    "prices": [{"model": "*", "input": 1, "output": 10}],
    "keys": [{"name": "app", "key": "agw-asking-0b1c2d3e4f5a69788796a5b4"}],
}


class Slow:
    """Shared limits that nobody gives anything of: ``asked`` is set once somebody waits."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    def may_wait(self, begun_ns: int) -> bool:
        return True

    async def take(self, short: Sequence[tuple[Rule, int, int]]) -> None:
        self.asked.set()
        await asyncio.Event().wait()


class Asked:
    """A request to ``both``, and what asks for it."""

    def __init__(self, replicas: Slow | None = None, **changes: Any) -> None:
        settings = Settings.model_validate({**CONFIG, **changes})
        self.table = Table()
        self.state: State = compile_state(settings, settings.keys, self.table, Board(), None, lambda *_: None)
        self.principal = self.state.keys.principals[0]
        self.exchange = Exchange("req_1", "POST", None)
        self.exchange.principal, self.exchange.model = self.principal, "both"
        self.asking = Asking(
            self.exchange, self.principal, self.state, BODY, look_into(BODY, 8), session=None, generates=True,
            uses_tokens=True, replicas=replicas,
        )  # fmt: skip
        route = self.state.routes.find("both", self.principal)
        self.routed = Routed(route=route, plan=tuple(route.targets))


@pytest.mark.parametrize(
    ("limit", "price", "may"),
    [
        ({"budgets": [{"usd": 1}]}, {"output": 10}, True),
        ({"budgets": [{"usd": 1}]}, {"output": 11}, False),
        ({"budgets": [{"usd": 1}]}, None, True),
        ({"budgets": [{"usd": 1, "unpriced": "refuse"}]}, None, False),
        ({"limits": [{"tokens": 9000}]}, {"output": 11}, True),
    ],
)
async def test_a_second_attempt_beside_the_first_is_paid_for_by_what_is_reserved(
    limit: dict[str, Any], price: dict[str, int] | None, may: bool
) -> None:
    prices = [{"model": "one/m", "output": 10}, *([{"model": "two/m", **price}] if price else [])]
    made = Asked(prices=prices, keys=[{**CONFIG["keys"][0], **limit}])
    await made.asking.decide(made.routed)
    tariff = made.exchange.tariff
    assert made.asking.may_hedge(made.routed.plan[0])
    assert made.asking.may_hedge(made.routed.plan[1]) == may
    assert made.exchange.tariff is tariff


def shared() -> dict[str, Any]:
    upstreams = [{**upstream, "limits": [{"requests": 10}]} for upstream in CONFIG["upstreams"]]
    return {"upstreams": upstreams, "redis": {"url": "redis://127.0.0.1:1"}}


async def asked_of_the_first(replicas: Slow) -> Asked:
    """The first upstream has lent of its limit; the second lends nothing."""
    made = Asked(replicas, **shared())
    for _, tag, _ in made.asking.ask(made.routed.plan[0]).short:
        assert made.table.lend(tag, 5, time.monotonic_ns() + 60 * SECOND, time.monotonic_ns())
    await made.asking.decide(made.routed)
    return made


async def test_an_answer_is_left_where_its_caller_goes_while_limits_are_asked() -> None:
    replicas = Slow()
    made = await asked_of_the_first(replicas)
    reply = Answered(b"{}")
    task = asyncio.create_task(made.asking.opened(Opened(reply, made.routed.plan[1], None, b"")))
    await replicas.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reply.closed == 1


async def test_what_an_attempt_waits_for_limits_is_not_counted_twice() -> None:
    replicas = Slow()
    made = await asked_of_the_first(replicas)
    before = made.exchange.waited
    task = asyncio.create_task(made.asking.enter(made.routed.plan[1]))
    await replicas.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made.exchange.waited == before  # the attempts' time is counted as a whole
