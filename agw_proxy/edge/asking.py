"""What the limits are asked for one request of the full lane: whose it is, what it may need, and of which upstream.

Both lanes find this out by the same compiled functions; here they are called for a request whose head aiohttp has read.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Protocol, TypeVar

from agw_proxy._hot import subjects
from agw_proxy._hot.limit import (
    COUNTS_COST,
    COUNTS_TOKENS,
    PER_CHANNEL,
    PER_SESSION,
    PER_UPSTREAM,
    PER_USER,
    Grant,
    Rule,
    subject,
)
from agw_proxy._hot.peek import Peek
from agw_proxy._hot.reserve import Reserve, estimate
from agw_proxy._hot.route import Target
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.finishing import BOOKS, Finisher
from agw_proxy.edge.state import State
from agw_proxy.errors import GatewayError, Unpriced
from agw_proxy.policy.limits import refusal
from agw_proxy.types import Principal, Routed, Usage
from agw_proxy.upstreams.opening import Opened

T = TypeVar("T")
SESSION: ContextVar[int] = ContextVar("agw_session", default=0)
"""Of the request that is answered by asking models in turn: what is asked in its context belongs to its session."""


class Refused(Protocol):
    """A rule that has no more, on any gateway."""

    @property
    def retry_after_ns(self) -> int:
        """When it may have."""
        ...


class Shared(Protocol):
    """Where limits are shared with other gateways (``edge.replicas``)."""

    def may_wait(self, begun_ns: int) -> bool:
        """Whether a request that began to ask at ``begun_ns`` may ask once more."""
        ...

    async def take(self, short: Sequence[tuple[Rule, int, int]]) -> Refused | None:
        """Take what a grant is short of. None: ask for it again."""
        ...


class Asking:
    """One request before the limits. It asks for the first target of a plan, and again where the exchange goes elsewhere."""

    def __init__(
        self,
        exchange: Exchange,
        principal: Principal,
        state: State,
        body: bytes | None,
        seen: Peek | None,
        *,
        session: bytes | None,
        generates: bool,
        uses_tokens: bool,
        replicas: "Shared | None" = None,
    ) -> None:
        """``session``: the header ``x-session-id``. ``generates``: the endpoint answers in words.

        ``replicas``: from whom parts of shared limits are taken.
        """
        self._exchange, self._principal, self._state = exchange, principal, state
        self._body, self._seen = body, seen
        self._replicas = replicas
        self._wait_ns: int | None = None  # where no node has any more: until one may
        self._generates = generates
        exchange.uses_tokens = self._uses_tokens = uses_tokens
        counts = principal.limits.counts
        self._counted = uses_tokens and bool(counts & (COUNTS_TOKENS | COUNTS_COST))
        self.steps = principal.finishes and exchange.stream and generates
        if counts & PER_SESSION:
            given = exchange.within.session if exchange.within is not None else 0
            exchange.session = given or self._session(session)

    def _session(self, header: bytes | None) -> int:
        principal, messages = self._principal, self._exchange.dialect == "anthropic"
        if self._body is None or self._seen is None:
            return 0
        derive = principal.derive and self._generates
        return subjects.session(self._body, self._seen, header, principal.subject, messages, derive)

    def ask(self, target: Target) -> Grant:
        """Ask for an exchange with that target; all rules or none. Raises Unpriced."""
        exchange, principal = self._exchange, self._principal
        counts, now = principal.limits.counts, time.monotonic_ns()
        exchange.reserve = self._reserve(target)
        own = exchange.reuse is None  # else it counts as a request only
        return principal.limits.admit(
            now,
            key=principal.subject,
            team=principal.team_subject,
            user=named("user", exchange.user) if counts & PER_USER else 0,
            channel=named("channel", exchange.channel) if counts & PER_CHANNEL else 0,
            model=named("model", exchange.model),
            upstream=named("upstream", self._upstream(target)) if own else 0,
            session=exchange.session,
            input_tokens=exchange.reserve.prompt if own else 0,
            output_tokens=exchange.reserve.output if own else 0,
            cost=exchange.reserve.cost if own else 0,
            stream=exchange.stream,
        )

    async def admitted(self, routed: Routed) -> Routed:
        """Take from the limits; what the fast lane has been granted already stays. The plan, whose first target it is for.

        Raises what ``decide`` does.
        """
        exchange, grant = self._exchange, self._exchange.grant
        if grant is not None:
            if grant.granted:
                self.known(routed.plan[0])
                return routed
            elsewhere = len(routed.plan) > 1 and grant.rule is not None and of_upstream(grant.rule)
            if not elsewhere and not grant.short:
                raise self._kept_out(grant)
        begun = time.monotonic_ns()
        try:
            return await self.decide(routed)
        finally:
            exchange.limit_ns += time.monotonic_ns() - begun

    async def decide(self, routed: Routed) -> Routed:
        """Take what the exchange needs, by the plan's first target or, where only an upstream's own limit refuses, another.

        The plan comes back with that one in front. Raises RateLimited and LimitsUnavailable for what is refused.
        """
        first: Grant | None = None
        tried: set[int] = set()
        for target in routed.plan:
            if target.upstream in tried:
                continue
            tried.add(target.upstream)
            grant = self._exchange.grant = await self._shared(target)
            if grant.granted:
                rest = tuple(item for item in routed.plan if item is not target)
                return Routed(route=routed.route, plan=(target, *rest), panic=routed.panic)
            first = first or grant
            if grant.rule is None or not of_upstream(grant.rule):
                break
        if first is None:
            raise ValueError("a plan names a target")
        self._exchange.grant = first
        raise self._kept_out(first)

    async def _shared(self, target: Target) -> Grant:
        """As ``ask``; what is short of shared limits is taken from all first, for as long as ``redis.timeout`` allows."""
        grant = self.ask(target)
        begun = time.monotonic_ns()
        try:
            while grant.short and await self._took(grant, begun):
                grant = self.ask(target)
        finally:
            self._exchange.waited += time.monotonic_ns() - begun
        return grant

    async def _took(self, grant: Grant, begun: int) -> bool:
        """Take what a grant is short of; True: ask again, which decides by what was taken or by the policies."""
        if self._replicas is None or not self._replicas.may_wait(begun):
            return False
        refused = await self._replicas.take(grant.short)
        self._wait_ns = None if refused is None else refused.retry_after_ns
        return refused is None

    def paying(self, ask: Callable[[], Awaitable[T]], routed: Routed) -> Callable[[], Awaitable[T]]:
        """``ask``; who was let in for nothing, and has to pay after all, asks the limits again first, for all that it needs."""
        exchange = self._exchange
        if exchange.reuse is None:
            return ask

        async def again() -> T:
            if exchange.grant is not None:
                exchange.grant.cancel(time.monotonic_ns())
                exchange.grant.release()
            try:
                await self.decide(routed)
            finally:
                if exchange.accounted:  # it has left meanwhile, and another one pays
                    exchange.settle()
                    exchange.release()
            return await ask()

        return again

    def known(self, target: Target) -> None:
        """The fast lane was granted the exchange with that target."""
        if self._counted:
            name = self._upstream(target)
            self._exchange.learner = self._state.learners.of(name, target.model)
            self._exchange.tariff = self._state.prices.of(name, target.model)

    async def enter(self, target: Target) -> GatewayError | None:
        """An attempt at the target begins: what is held is moved there. Why it may not be."""
        exchange, grant = self._exchange, self._exchange.grant
        exchange.asked = False
        if grant is None:
            return None
        free = exchange.delegated
        try:
            made = self._reserve(target)
        except Unpriced as error:
            return error
        rule = await self._move(grant, target)
        old = exchange.reserve
        if rule is None and free and not exchange.delegated:  # nothing was reserved for the one before
            rule = await self._extend(grant, made.cost, made.output, made.prompt)
            old = made
        elif rule is None and made.cost > old.cost:
            rule = await self._extend(grant, made.cost - old.cost)
        if rule is not None:
            return self.refusal(grant, rule)
        exchange.reserve = Reserve(old.raw, old.prompt, old.output, max(made.cost, old.cost), made.extra, old.size)
        return None

    def may_hedge(self, target: Target) -> bool:
        """Whether a second attempt there, beside the first, is paid for by what is reserved."""
        exchange = self._exchange
        before = exchange.tariff, exchange.learner
        if exchange.delegated != self._state.services[target.upstream].delegates:
            return False  # who pays must not depend on who is faster
        try:
            made = self._reserve(target)
        except Unpriced:
            return False
        finally:
            exchange.tariff, exchange.learner = before
        return not self._principal.limits.counts & COUNTS_COST or made.cost <= exchange.reserve.cost

    async def opened(self, answer: Opened) -> None:
        """Its target may be one that nobody waited for first: what counts upstreams follows, and what it costs is known.

        Where this is cut short, nobody wants the answer.
        """
        exchange, target = self._exchange, answer.target
        if exchange.reuse is None and exchange.grant is not None:
            begun = time.monotonic_ns()
            try:
                await self._move(exchange.grant, target)
            except BaseException:
                answer.abandon()
                raise
            finally:
                exchange.waited += time.monotonic_ns() - begun
        if not self._delegates(target):
            exchange.tariff = self._state.prices.of(self._upstream(target), target.model)
            if exchange.learner is not None:
                exchange.learner = self._state.learners.of(self._upstream(target), target.model)
        self._body = None

    async def spend(self, used: Usage) -> GatewayError | None:
        """A session has used so much: it is taken from what is left. Why there is no more, else None."""
        grant, tariff = self._exchange.grant, self._exchange.tariff
        if grant is None:
            return None
        cost = tariff.cost(used.prompt, used.cached, used.completion) - tariff.request if tariff is not None else 0
        begun = time.monotonic_ns()
        rule = grant.extend(used.completion, cost, begun, used.prompt)
        while rule is not None and grant.short and await self._took(grant, begun):
            rule = grant.extend(used.completion, cost, time.monotonic_ns(), used.prompt)
        return None if rule is None else self.refusal(grant, rule)

    async def _move(self, grant: Grant, target: Target) -> Rule | None:
        """What counts upstreams goes there. Gives the rule that refused."""
        upstream, begun = named("upstream", self._upstream(target)), time.monotonic_ns()
        rule = grant.move(upstream, begun)
        while rule is not None and grant.short and await self._took(grant, begun):
            rule = grant.move(upstream, time.monotonic_ns())
        return rule

    async def _extend(self, grant: Grant, cost: int, output: int = 0, prompt: int = 0) -> Rule | None:
        """Reserve more money, and tokens. Gives the rule that refused."""
        begun = time.monotonic_ns()
        rule = grant.extend(output, cost, begun, prompt)
        while rule is not None and grant.short and await self._took(grant, begun):
            rule = grant.extend(output, cost, time.monotonic_ns(), prompt)
        return rule

    def _kept_out(self, grant: Grant) -> GatewayError:
        """The error for a request that is not let in: nobody's answer is given to it, and nothing became of it at the cache."""
        self._exchange.reuse = self._exchange.cache = None
        return self.refusal(grant)

    def refusal(self, grant: Grant, rule: Rule | None = None) -> GatewayError:
        """The error for what was refused. ``rule``: where the grant itself was not."""
        rule = rule or grant.rule
        budget = rule is not None and rule.name in self._principal.budgets
        wait_ns = self._wait_ns if grant.short else None  # of what is shared, and nothing else
        return refusal(grant, rule, budget=budget, dialect=self._exchange.dialect, wait_ns=wait_ns)

    def finisher(self) -> Finisher | None:
        """What ends the stream where a budget has no more for it; None where nothing is to."""
        exchange, seen = self._exchange, self._seen
        if exchange.reuse is not None or not self.steps or exchange.endpoint not in BOOKS or exchange.tariff is None:
            return None
        return Finisher(
            exchange.endpoint,
            self._more,
            prompt_tokens=exchange.reserve.prompt,
            reason=lambda rule: "budget" if rule.name in self._principal.budgets else "limit",
            usage_wanted=seen is not None and seen.include_usage,
        )

    async def _more(self, tokens: int) -> Rule | None:
        grant, tariff = self._exchange.grant, self._exchange.tariff
        if grant is None or tariff is None:
            return None
        return await self._extend(grant, tariff.cost(0, 0, tokens) - tariff.request)

    def _reserve(self, target: Target) -> Reserve:
        """What the exchange may need there; who pays for what is known from then on."""
        exchange, body, seen = self._exchange, self._body, self._seen
        if self._delegates(target):
            return Reserve()
        name = self._upstream(target)
        exchange.tariff = self._state.prices.of(name, target.model)
        if exchange.tariff is None and self._principal.needs_price:
            raise Unpriced(
                f"The model '{target.name}' has no price, and a budget of the key '{self._principal.name}' or of its "
                "team wants one (unpriced: refuse). Add it to 'prices' in the gateway's configuration."
            )
        if not self._counted and not (exchange.tariff is not None and exchange.tariff.image):
            return Reserve()
        exchange.learner = self._state.learners.of(name, target.model)
        if body is None:
            return exchange.reserve
        return estimate(
            body,
            exchange.learner,
            exchange.tariff,
            seen.max_tokens if seen is not None else -1,
            subjects.choices(body, seen) if seen is not None else 1,
            self._generates,
            self.steps,
            not self._principal.limits.counts & COUNTS_COST,
        )

    def _delegates(self, target: Target) -> bool:
        """Whoever is asked asks models in its turn, and those exchanges pay: then this one costs neither tokens nor money."""
        exchange, delegates = self._exchange, self._state.services[target.upstream].delegates
        exchange.delegated = delegates
        exchange.uses_tokens = self._uses_tokens and not delegates
        if delegates:
            exchange.tariff = exchange.learner = None
            SESSION.set(exchange.session)
        return delegates

    def _upstream(self, target: Target) -> str:
        return self._state.services[target.upstream].upstream.name


def of_upstream(rule: Rule) -> bool:
    """Another upstream may serve what this rule refuses."""
    return bool(rule.per & PER_UPSTREAM) or rule.only[0] == PER_UPSTREAM


def named(kind: str, name: str | None) -> int:
    """The subject of that name; who has none shares one."""
    return subject(f"{kind}:{name or ''}".encode("utf-8", "surrogatepass"))
