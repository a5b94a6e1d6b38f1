"""Parts of the shared limits for this node: taken from Redis, spent in the table without asking, what is left returned.

A request whose subject has no credit here asks for it (``cover``) and waits, within the client's bound; all that is asked
for while a round trip is under way goes with the next one, so there is one at a time, and one question a subject. Credit
that runs low is taken anew in the background, before it is missed. What was used beyond the credit (an answer was longer
than its estimate) is charged with whatever is sent next for that subject. Credit that has not been used for
``lease.seconds`` goes back, and all of it when the node leaves.

While Redis is away the table decides alone, as the policies say (``lease_mode``); nothing here is asked then.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from redis.asyncio import Redis

from agw_proxy._hot.limit import CLOSED, LEASED, LOCAL, OPEN, Rule, Table
from agw_proxy.config.storage import Redis as Settings
from agw_proxy.store.client import Away, Client
from agw_proxy.store.nodes import Nodes
from agw_proxy.store.scripts import Kept, Take, Taken, run

MODES = {"local": LOCAL, "fail_open": OPEN, "fail_closed": CLOSED}
LOOK_SECONDS = 0.1  # between two looks at what runs low, where nobody tells of it: other workers, and what comes back
PAUSE_SECONDS = 0.005  # between two looks at least
SWEEPS = 4  # looks at what has expired in the time of a lease
MAX_KNOWN = 8192  # subjects that are remembered to have nothing
MAX_MARKS = 32768  # subjects of which it is remembered where they took last: twice those that the table has places for
MAX_REFUSED_NS = 250_000_000  # for so long at most: others may give something back
MAX_BATCH = 128  # takes in one round trip: while a script runs, Redis answers nobody else
CLOSE_SECONDS = 1.0  # to give all back at the end

Short = Sequence[tuple[Rule, int, int]]
"""Rule, tag of the subject, and what is missing: see ``Grant.short``."""


class Told(Protocol):
    """Who hears what became of it: the metrics."""

    def leased(self, outcome: str, count: int = 1) -> None:
        """Parts of limits were ``taken``; ``refused``: there was nothing; ``returned``; ``away``: no answer in time.

        ``no_place``: one was given back at once, since the table here is full.
        """
        ...


class Refused(NamedTuple):
    """A rule has nothing left, on any node."""

    rule: Rule
    retry_after_ns: int
    """When it may have."""


class _Held(NamedTuple):
    """What is known of one subject's credit here."""

    rule: Rule
    expires_ns: int
    then: int
    """The credit once it was lent."""


class _Asked:
    """What is to be sent for one subject, and who waits for what comes."""

    __slots__ = ("answer", "back", "base", "credit", "missing", "need", "owed", "rule")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.need = 0
        """The least that anybody waits for."""
        self.missing = 0
        """What all of them wait for."""
        self.base = 0
        """What is wanted for those to come."""
        self.credit = 0
        """What was left here when it was asked."""
        self.owed = 0
        self.back = 0
        self.answer: asyncio.Future[Taken | None] = asyncio.get_running_loop().create_future()
        """None: nothing came."""


class Leases:
    """One worker's; the credit itself stands in the table and is all workers'."""

    def __init__(self, client: Client, nodes: Nodes, settings: Settings, table: Table, told: Told) -> None:
        """To be made on the loop. ``nodes``: how many share the limits."""
        self._client = client
        self._nodes = nodes
        self._table = table
        self._told = told
        self._share = settings.lease.share
        self._lease_ns = round(settings.lease.seconds * 1e9)
        self._modes = (MODES[settings.on_failure], MODES[settings.budgets_on_failure])
        self._held: dict[int, _Held] = {}
        self._marks: dict[int, str] = {}
        """From where each subject took last, for what goes back later."""
        self._refused: dict[int, tuple[int, int, int, Refused]] = {}
        """Who has nothing: until when that is known, when there may be something, what was needed, and the answer."""
        self._owed: dict[int, tuple[Rule, int]] = {}
        """Debts that could not be sent."""
        self._next: dict[int, _Asked] = {}
        self._flying: dict[int, _Asked] = {}
        self._round: asyncio.Task[None] | None = None
        self._kept = Kept()
        self._sweeping: asyncio.Task[None] | None = None
        self._looking: asyncio.Handle | None = None
        """The next look at what runs low, where somebody has told of it."""
        self._ticking: asyncio.Handle | None = None
        """The next look in any case."""
        self._looked = 0.0
        client.watch(self._turned)

    def start(self) -> None:
        """Look after what is held, in the background."""
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())
        self._tick()
        self._table.hear(self._hear)

    async def close(self) -> None:
        """Give all back, as far as Redis answers."""
        self._table.hear(None)
        for under_way in (self._looking, self._ticking, self._sweeping):
            if under_way is not None:
                under_way.cancel()
        if self._sweeping is not None:
            await asyncio.gather(self._sweeping, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while (under_way := self._leave()) is not None:
                    await asyncio.wait({under_way})
                    await asyncio.sleep(0)  # until it is noted

    def _leave(self) -> asyncio.Task[None] | None:
        """Give back all that is not being asked for; the round trip that takes it, or another that is under way."""
        late = [(rule, tag) for rule, tag, _ in self._table.wanting()]  # settled since its part went back
        for rule, tag in [*((held.rule, tag) for tag, held in self._held.items()), *late]:
            if tag not in self._flying:
                self._return(rule, tag, renew=False)
        for tag, (rule, _) in list(self._owed.items()):
            if tag not in self._next and tag not in self._flying:
                self._line(rule, tag)
        self._kick()
        return self._round

    def lease(self, rule: Rule) -> int:
        """How much of a rule's full amount one node takes at a time."""
        return max(round((rule.burst or rule.amount) * self._share), 1)

    # -- for requests

    async def cover(self, short: Short) -> Refused | None:
        """Take what is missing: None once it is lent (to whoever asks the table first), or the rule that has no more.

        Raises Away where no answer came within the client's bound; the table then decides as the policies say.
        """
        waited: list[tuple[int, int, bool, _Asked]] = []
        for rule, tag, amount in short:
            refused = self._known(tag, amount)
            if refused is not None:
                self._told.leased("refused")
                return refused
            flying = self._flying.get(tag)
            if flying is not None:
                waited.append((tag, amount, False, flying))
            else:
                waited.append((tag, amount, True, self._ask(rule, tag, amount)))
        self._kick()
        futures = {asked.answer for *_, asked in waited}
        _, pending = await asyncio.wait(futures, timeout=self._client.timeout)
        if pending or any(future.result() is None for future in futures):
            self._give_up()
            raise Away
        for tag, amount, own, asked in waited:
            taken = asked.answer.result()
            if own and taken is not None and taken.got < asked.need:
                return self._refuse(asked.rule, tag, amount, taken)
        return None

    def _ask(self, rule: Rule, tag: int, amount: int) -> _Asked:
        """Ask for ``amount`` at least, which counts a debt that stands in the table."""
        asked = self._next.get(tag)
        if asked is None:
            asked, debt = self._line(rule, tag)
            amount -= debt
            asked.base = max(self.lease(rule) - asked.credit, 0)
        amount = max(amount, 1)
        asked.missing += amount
        asked.need = min(asked.need, amount) if asked.need else amount
        return asked

    def _line(self, rule: Rule, tag: int) -> tuple[_Asked, int]:
        """A line for a subject in what is sent next, with what it owes; and how much of that stood in the table.

        What it has stays there.
        """
        asked = self._next[tag] = _Asked(self._table.current(rule))
        credit = self._table.reclaim_credit(tag)
        if credit > 0:
            now = time.monotonic_ns()
            self._table.lend(tag, credit, now + self._lease_ns, now)
            asked.credit = credit
        debt = max(-credit, 0)
        asked.owed = debt + self._owed.pop(tag, (rule, 0))[1]
        return asked, debt

    def _known(self, tag: int, amount: int) -> Refused | None:
        """The answer without asking, where as much was refused a moment ago."""
        known = self._refused.get(tag)
        if known is None:
            return None
        until, passes, needed, refused = known
        now = time.monotonic_ns()
        if now >= until:
            del self._refused[tag]
            return None
        return refused._replace(retry_after_ns=passes - now) if amount >= needed else None

    def _refuse(self, rule: Rule, tag: int, amount: int, taken: Taken) -> Refused:
        self._told.leased("refused")
        refused = Refused(rule, taken.wait_ns)
        if len(self._refused) >= MAX_KNOWN:
            self._refused.clear()
        now = time.monotonic_ns()
        until = now + min(taken.wait_ns, MAX_REFUSED_NS)
        self._refused[tag] = (until, now + taken.wait_ns, amount, refused)
        return refused

    def _give_up(self) -> None:
        """No answer in time: until there is one again, which is tried at once, the policies hold."""
        self._told.leased("away")
        if self._client.up:
            self._client.trip()
        else:  # another worker may have had an answer
            self._turned(up=False)

    def _turned(self, up: bool) -> None:
        for group, mode in enumerate(self._modes):
            self._table.set_lease_mode(group, LEASED if up else mode)

    # -- round trips

    def _kick(self) -> None:
        """Send what is to be sent, unless a round trip is under way: then it goes with the next."""
        if self._round is not None or not self._next:
            return
        try:
            self._round = self._client.begin(self._go)
        except Away:
            unsent, self._next = self._next, {}
            for tag, asked in unsent.items():
                self._keep(tag, asked)
            self._unanswered(unsent)
            return
        self._round.add_done_callback(self._landed)

    def _keep(self, tag: int, asked: _Asked) -> None:
        """What was to go back and was not sent is held on, and goes back when it expires."""
        if asked.back:
            now = time.monotonic_ns()
            expires = now + self._lease_ns
            if self._table.lend(tag, asked.back, expires, now):
                self._held[tag] = _Held(asked.rule, expires, asked.credit + asked.back)

    def _landed(self, _: object) -> None:
        self._round = None
        unanswered, self._flying = self._flying, {}
        self._unanswered(unanswered)
        self._kick()

    def _unanswered(self, lines: dict[int, _Asked]) -> None:
        """Debts are kept. Perhaps one was charged and the answer lost: then it is charged twice, on the strict side."""
        for tag, asked in lines.items():
            if asked.answer.done():  # what came after it has failed
                continue
            if asked.owed:
                self._owed[tag] = (asked.rule, asked.owed + self._owed.get(tag, (asked.rule, 0))[1])
            asked.answer.set_result(None)

    async def _go(self, redis: Redis) -> None:
        flying = {tag: self._next.pop(tag) for tag in list(self._next)[:MAX_BATCH]}
        self._flying = flying
        takes = [
            Take(
                asked.rule,
                tag,
                asked.need,
                max(asked.base, asked.missing),
                asked.owed,
                asked.back,
                self._marks.get(tag, ""),
            )
            for tag, asked in flying.items()
        ]
        answers = await run(redis, self._kept, self._client.prefix, takes, self._nodes.count)
        now = time.monotonic_ns()
        for (tag, asked), taken in zip(flying.items(), answers, strict=True):
            if taken.got and not self._lend(tag, asked, taken, now):
                taken = Taken(0, MAX_REFUSED_NS, taken.left, taken.mark)  # noqa: PLW2901  for whoever waits it is nothing
            asked.answer.set_result(taken)
        self._flying = {}

    def _lend(self, tag: int, asked: _Asked, taken: Taken, now: int) -> bool:
        expires = now + self._lease_ns
        if not self._table.lend(tag, taken.got, expires, now, max(taken.left, 0)):
            self._homeless(tag, asked, taken)
            return False
        self._told.leased("taken")
        self._refused.pop(tag, None)
        self._held[tag] = _Held(asked.rule, expires, asked.credit + taken.got)
        self._mark(tag, taken)
        return True

    def _mark(self, tag: int, taken: Taken) -> None:
        """Remember where it was taken from. Who took longest ago is forgotten: what goes back of it then is lost."""
        if not taken.mark:
            return
        self._marks.pop(tag, None)
        if len(self._marks) >= MAX_MARKS:
            del self._marks[next(iter(self._marks))]
        self._marks[tag] = taken.mark

    def _homeless(self, tag: int, asked: _Asked, taken: Taken) -> None:
        """The table is full of others' credit: it goes back, and its requests are refused until there is a place."""
        self._told.leased("no_place")
        asked = self._next[tag] = self._next.get(tag) or _Asked(asked.rule)
        asked.back += taken.got
        self._mark(tag, taken)

    # -- in the background

    def _tick(self) -> None:
        self._ticking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._tick)
        if self._looking is None:
            self._refill()

    def _hear(self) -> None:
        """Something runs low: from within a decision, so it is looked at later."""
        if self._looking is None:
            loop = asyncio.get_running_loop()
            pause = self._looked + PAUSE_SECONDS - time.monotonic()
            self._looking = loop.call_later(pause, self._refill) if pause > 0 else loop.call_soon(self._refill)

    def _refill(self) -> None:
        """Take anew what runs low, before it is missed."""
        self._looking = None
        self._looked = time.monotonic()
        if not self._client.up:
            return
        for rule, tag, amount in self._table.wanting():
            if tag in self._next or tag in self._flying:
                continue
            if amount < 0:
                self._return(rule, tag, renew=False)
                continue
            asked, _ = self._line(rule, tag)
            asked.base = max(self.lease(rule) - asked.credit, 0)
            if self._known(tag, 1) is not None:
                asked.base = 0
            asked.need = min(asked.base, 1)
            if not asked.base and not asked.owed:
                del self._next[tag]
        self._kick()

    async def _sweep(self) -> None:
        """Give back what expires; take it anew where it is in use."""
        pause = self._lease_ns / 1e9 / SWEEPS
        while True:
            await asyncio.sleep(pause)
            if not self._client.up:
                continue
            soon = time.monotonic_ns() + round(pause * 1e9)
            expired = [(tag, held.rule) for tag, held in self._held.items() if held.expires_ns < soon]
            owing = [(tag, rule) for tag, (rule, _) in self._owed.items()]
            for tag, rule in expired:
                if tag not in self._next and tag not in self._flying:
                    self._return(rule, tag, renew=True)
            for tag, rule in owing:
                if tag not in self._next and tag not in self._flying:
                    self._line(rule, tag)
            self._kick()

    def _return(self, rule: Rule, tag: int, *, renew: bool) -> None:
        """Give back what a subject has here. ``renew``: and take anew, if it has used some, by what its rule says now."""
        held = self._held.pop(tag, None)
        credit = self._table.reclaim_credit(tag)
        renew = renew and held is not None and credit != held.then
        rule = self._table.current(rule)
        if not credit and not renew:
            return
        asked = self._next.get(tag) or _Asked(rule)
        self._next[tag] = asked
        asked.back += max(credit, 0)
        asked.owed += max(-credit, 0)
        if credit > 0:
            self._told.leased("returned")
        if renew:
            asked.base = self.lease(rule)
            asked.need = asked.need or 1
