"""What the limits are asked for a request: what is held is given back, whatever happens meanwhile."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agw_proxy.edge.asking import Asking
from agw_proxy.edge.exchange import Exchange
from agw_proxy.upstreams.opening import Opened


class Answer:
    """An upstream's answer that somebody has to close."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Waiting:
    """Other nodes that never say whether there is more of a limit."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    def may_wait(self, begun_ns: int) -> bool:
        return True

    async def take(self, short: object) -> None:
        self.asked.set()
        await asyncio.Event().wait()


def refused(upstream: int, now: int) -> object:
    """Of a grant: by which rule."""
    return upstream, now


async def test_a_caller_that_goes_while_a_limit_is_asked_leaves_no_answer_open() -> None:
    """The answer is here, of a target that nobody waited for first, and its upstream's limit is shared with other nodes."""
    exchange, others, answer = Exchange("r", "POST", None), Waiting(), Answer()
    exchange.grant = cast("Any", SimpleNamespace(move=refused, short=("some",)))
    principal = SimpleNamespace(limits=SimpleNamespace(counts=0), finishes=False)
    state = SimpleNamespace(services=[SimpleNamespace(upstream=SimpleNamespace(name="late"))])
    made: Any = {"exchange": exchange, "principal": principal, "state": state, "replicas": others}
    asking = Asking(**made, body=None, seen=None, session=None, generates=True, uses_tokens=True)
    opened = Opened(cast("Any", answer), cast("Any", SimpleNamespace(upstream=0)), None, b"")
    moving = asyncio.ensure_future(asking.moved(opened))
    await others.asked.wait()
    moving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await moving
    assert answer.closed
