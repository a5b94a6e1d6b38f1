"""Tries targets in order until one answers: once each, then round again with growing waits.

Everything here happens before the first byte has gone to the caller; afterwards there is no second try (invariant 3).
Whose turn it is stands in ``turns``; here is what a turn does: ask the circuit, take a key, ask the upstream, and tell
the circuit, the key, the health and the trail what came of it.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import msgspec

from agw_proxy._hot.circuit import NEITHER
from agw_proxy._hot.route import Target
from agw_proxy.errors import (
    GatewayError,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from agw_proxy.types import Attempt, Call
from agw_proxy.upstreams.failures import elsewhere, rest, verdict
from agw_proxy.upstreams.hedge import BothFailed, Outcome, race
from agw_proxy.upstreams.keyring import blames_key
from agw_proxy.upstreams.opening import Opened, Underway, open_target
from agw_proxy.upstreams.service import Service
from agw_proxy.upstreams.turns import Turn, Turns
from agw_proxy.upstreams.ways import PLAIN, Way

MAX_ATTEMPTS = 64  # of one exchange, whatever is configured: a model has no more targets, and the trail fits a header
HEDGED_LOST = "hedged_lost"  # the outcome of an attempt whose answer nobody waited for any more
EARLY_SECONDS = 0.002  # what rests does so a little shorter than told: our own next try comes at that very time


class Skipped(UpstreamUnavailable):
    """A target was not asked: its circuit is open, or all its keys rest."""


async def open_first(
    plan: Sequence[Target],
    services: Sequence[Service],
    call: Call,
    *,
    trail: list[Attempt],
    way: Way = PLAIN,
    panic: bool = False,
    caller_fault: Callable[[], GatewayError | None] = lambda: None,
    failed: UpstreamError | None = None,
    spent: float = 0.0,
    on_hedge: Callable[[Outcome], None] = lambda outcome: None,  # noqa: ARG005  told by name
    may_hedge: Callable[[Target], bool] = lambda target: True,  # noqa: ARG005  likewise
) -> Opened:
    """The first good answer; every try is added to ``trail``. Raises the last UpstreamError when none was good.

    ``plan``: targets in order of preference. Each is tried once without a wait; then those that may be asked again
    follow, each as often as its upstream's (or the model's) attempts allow, with back-off and full jitter, or after the
    time that the upstream named. ``way``: what the model has different. ``panic``: all are asked, whatever their circuits
    say. ``caller_fault`` tells what was wrong with a streamed body: then it is raised, and the upstream
    is not blamed. ``failed``: how the latest try has ended already, made elsewhere (those before it are in ``trail``; its
    circuit and budget know of it) within ``spent`` seconds. ``on_hedge`` hears how a second attempt ended; ``may_hedge``
    says whether there may be one at that target, of which the call's ``on_ask`` does not hear.
    """
    exchange = _Exchange(plan, services, call, trail, way)
    exchange.deadline -= spent
    exchange.panic, exchange.caller_fault = panic, caller_fault
    exchange.on_hedge, exchange.may_hedge = on_hedge, may_hedge
    try:
        return await exchange.run(failed)
    except UpstreamError as error:
        if way.last_resort is None or not (isinstance(error, Skipped) or elsewhere(error, call)):
            raise
        opened = await exchange.resort(way.last_resort)
        if opened is None:
            raise
        return opened


class _Exchange:
    """The attempts of one exchange."""

    def __init__(
        self, plan: Sequence[Target], services: Sequence[Service], call: Call, trail: list[Attempt], way: Way
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._plan, self._services, self._call, self._way, self._trail = plan, services, call, way, trail
        self._turns = Turns(plan, services, way, call)
        self._begun = self._loop.time()
        times = services[plan[0].upstream].timeouts
        times = times if call.deadlines is None else call.deadlines(times)
        self.deadline = self._begun + times.total
        self.panic = False
        self.caller_fault: Callable[[], GatewayError | None]
        self.on_hedge: Callable[[Outcome], None]
        self.may_hedge: Callable[[Target], bool]

    async def run(self, failed: UpstreamError | None) -> Opened:
        """See ``open_first``."""
        skipped: GatewayError | None = None
        last: UpstreamError | None = None
        if failed is not None:
            turn = self._turns.begun(self._plan[0], len(self._trail) + 1)
            self._note(turn, failed, None)
            self._go_on(turn, failed)
            last = failed
        while True:
            taken = self._turns.take(self._loop.time(), random.random)
            late = taken is not None and self._loop.time() + taken[1] >= self.deadline
            if taken is None or late or len(self._trail) >= MAX_ATTEMPTS:
                break
            turn, wait = taken
            if wait:
                await asyncio.sleep(wait)
            refused = await self._call.on_ask(turn.target) if self._call.on_ask is not None else None
            if refused is not None:
                skipped = refused
                continue
            try:
                opened = await self._ask(turn, first=last is None)
            except Skipped as error:
                skipped = error
            except UpstreamError as error:
                self._go_on(turn, error)
                last = error
            else:
                return self._won(opened)
        raise last or skipped or self._late(self._plan[0])

    async def resort(self, target: Target) -> Opened | None:
        """The echo model's answer; None where it cannot serve this call."""
        service = self._services[target.upstream]
        understood = self._call.form is not None or service.upstream.dialect == self._call.dialect
        if not (understood and self._call.replayable and self._call.by_model):
            return None
        try:
            opened = await open_target(target, service, self._call)
        except UpstreamError:
            return None
        self._trail.append(Attempt(target.name, service.upstream.name, str(opened.reply.status)))
        return opened

    def _go_on(self, turn: Turn, error: UpstreamError) -> None:
        """Return where anyone else, or the same one again, may be asked after ``error``; raises it otherwise."""
        fault = self.caller_fault()
        if fault is not None:
            raise fault from None
        if not self._call.replayable or not (turn.next_key or elsewhere(error, self._call)):
            raise error

    def _won(self, opened: Opened) -> Opened:
        service = self._services[opened.target.upstream]
        self._trail.append(Attempt(opened.target.name, service.upstream.name, str(opened.reply.status)))
        service.health.worked()
        if self._way.hedging is not None:
            self._way.hedging.latencies.note(self._loop.time() - self._begun)
        return opened

    async def _ask(self, turn: Turn, *, first: bool) -> Opened:
        """One attempt, or two at once where the first one is late."""
        hedging = self._way.hedging
        after = hedging.after() if hedging is not None and first else None
        if hedging is None or after is None or not (self._call.repeatable and self._call.replayable):
            return await self._try(turn)
        other = self._turns.second(turn)

        def lost(loser: int) -> None:
            late = other if loser else turn
            self._trail.append(Attempt(late.target.name, late.service.upstream.name, HEDGED_LOST))

        def may() -> bool:
            return self.may_hedge(other.target) and hedging.may() and self._turns.granted(other)

        try:
            opened, outcome = await race(lambda: self._try(turn), lambda: self._try(other), after, may, lost)
        except BothFailed as both:
            self.on_hedge("failed")
            raise both.first from None
        if outcome is not None:
            self.on_hedge(outcome)
        return opened

    async def _try(self, turn: Turn) -> Opened:
        """One attempt; its end is noted unless it was good. Raises Skipped where it was none."""
        call, key = self._with_key(turn)
        circuit, service = turn.target.circuit, turn.service
        begun = circuit.begin(time.monotonic_ns(), self.panic) if circuit is not None else 1
        if circuit is not None and not begun:
            raise Skipped(
                f"Upstream '{service.upstream.name}' has failed too often lately and is left alone for a while.",
                retry_after_ms=circuit.opens_in_ns(time.monotonic_ns()) // 1_000_000,
            )
        self._turns.asked(turn)
        underway = Underway(circuit, begun)
        how = NEITHER
        try:
            async with asyncio.timeout_at(self.deadline):
                opened = await open_target(turn.target, service, _heard(call, underway))
        except TimeoutError:
            self.deadline = 0.0  # the loop's clock is coarse, and may not have come to it yet: nobody else is asked
            late = self._late(turn.target)
            late.hurried = underway.queued or call.impatient
            how = self._note(turn, late, key)
            raise late from None
        except UpstreamError as error:
            error.hurried = call.impatient and error.out_of_time
            how = self._note(turn, error, key)
            raise
        else:
            underway.answered()
            opened.underway, underway = underway, Underway(None, 1)
            self._turns.out(turn)
            if service.keys is not None:
                for number in turn.doubted:
                    service.keys.bury(number)  # this key could do what they could not
            return opened
        finally:
            underway.end(how)

    def _with_key(self, turn: Turn) -> tuple[Call, int | None]:
        """The call with the key whose turn it is, where there are several. Raises Skipped where none may be used."""
        keys = turn.service.keys
        if keys is None:
            return self._call, None
        now = self._loop.time()
        number = keys.take(now, turn.doubted)
        if number is None:
            until, name = keys.until(), turn.service.upstream.name
            if until is None:
                raise Skipped(
                    f"Upstream '{name}' has refused all its keys. Replace them in the gateway's configuration."
                )
            raise Skipped(f"All keys of upstream '{name}' rest.", retry_after_ms=max(round((until - now) * 1000), 0))
        return msgspec.structs.replace(self._call, credential=keys.header(number)), number

    def _note(self, turn: Turn, error: UpstreamError, key: int | None) -> int:
        """An attempt has ended so: who hears of it, and whether its target comes again. How it is for its circuit."""
        service, now = turn.service, self._loop.time()
        self._trail.append(Attempt(turn.target.name, service.upstream.name, _outcome(error)))
        if self.caller_fault() is not None:
            return NEITHER
        service.health.failed(error)
        if service.keys is not None and key is not None and blames_key(error):
            if error.status == 403:
                turn.doubted = (*turn.doubted, key)
            else:
                service.keys.failed(key, error, now - EARLY_SECONDS)
            if service.keys.usable(now, turn.doubted) and self._turns.with_another_key(turn):
                return NEITHER
        self._turns.failed(turn, error, now)
        circuit = turn.target.circuit
        if circuit is not None and len(self._plan) > 1:  # who has no other to ask goes on asking this one
            rest(circuit, error)
        return verdict(error)

    def _late(self, target: Target) -> UpstreamTimeout:
        name = self._services[target.upstream].upstream.name
        return UpstreamTimeout(f"Upstream '{name}' did not answer within the time for the whole exchange.")


def _heard(call: Call, underway: Underway) -> Call:
    """The call, whose attempt hears of its wait for a place and of its request's end."""
    on_wait, on_sent = call.on_wait, call.on_sent

    def waited(nanoseconds: int) -> None:
        underway.waited(nanoseconds)
        if on_wait is not None:
            on_wait(nanoseconds)

    def sent() -> None:
        underway.sent()
        if on_sent is not None:
            on_sent()

    return msgspec.structs.replace(call, on_wait=waited, on_sent=sent)


def _outcome(error: UpstreamError) -> str:
    return f"{error.status}" if error.code == "upstream_rejected" else error.code
