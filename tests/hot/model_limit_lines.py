"""What the plain model of limits counts in: buckets, windows and gates of one rule and subject, in whole numbers.

Taken over are the roundings that the contract states: of what a bucket refills by, and the parts of a sliding window.
"""

import copy
import datetime as dt
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from math import ceil

from agw_proxy._hot import limit

PARTS = 24
FINE = 2**10
SCALE = 2**32
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class At:
    """Nanoseconds since the first decision, and of UTC."""

    ns: int
    wall: int


@dataclass
class Room:
    """What a rule would let pass, and nanoseconds until it is full."""

    limit: int = -1
    remaining: int = -1
    reset_ns: int = -1


class Bucket:
    """Ahead of the clock by what was spent, in 1/64 ns."""

    def __init__(self, rule: limit.Rule) -> None:
        self.rule = rule
        self.tat = 0
        units = rule.period_ns * 64
        self.fine = -(-units // rule.amount) < FINE
        self.cell = -(-units * SCALE // rule.amount) if self.fine else -(-units // rule.amount)
        self.window = self.cell * rule.burst // (SCALE if self.fine else 1)

    def cost(self, count: int) -> int:
        return -(-count * self.cell // SCALE) if self.fine else count * self.cell

    def ahead(self, at: At) -> int:
        return max(self.tat - at.ns * 64, 0)

    def take(self, hold: "Hold", at: At, *, forced: bool = False) -> int | None:
        """None, or nanoseconds to wait."""
        hold.cost = self.cost(hold.count) if forced else min(self.cost(hold.count), self.window)
        wait = self.ahead(at) + hold.cost - self.window
        if wait > 0 and not forced:
            return -(-wait // 64)
        if hold.cost:
            self.tat = max(self.tat, at.ns * 64) + hold.cost
        return None

    def correct(self, hold: "Hold", extra: int, at: At) -> None:
        """Take or give back the difference."""
        change = self.cost(hold.count + extra) - hold.cost
        if change < 0:
            self.tat = max(self.tat + change, 0)
        elif change > 0:
            self.tat = max(self.tat, at.ns * 64) + change

    def room(self, at: At) -> Room:
        left = max(self.window - self.ahead(at), 0)
        left = left * SCALE // self.cell if self.fine else left // self.cell
        return Room(self.rule.amount, left, -(-self.ahead(at) // 64))


class Window(ABC):
    """What is counted now, by the number it was counted under; subclasses say what numbers there are."""

    def __init__(self, rule: limit.Rule) -> None:
        self.rule = rule
        self.counts: Counter[int] = Counter()
        self.newest = -1
        self.told: set[int] = set()

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @abstractmethod
    def number(self, at: At) -> int:
        """What is taken now is counted under."""

    @abstractmethod
    def ends(self, number: int, at: At) -> int:
        """Nanoseconds until what was counted under it is forgotten."""

    def roll(self, at: At) -> None:
        self.newest = max(self.newest, self.number(at))
        self.forget()
        self.told = {i for i in self.told if self.total >= self.rule.marks[i] * self.rule.amount}

    def forget(self) -> None:
        for number in [number for number in self.counts if number < self.newest]:
            self.told.clear()
            del self.counts[number]

    def touch(self, at: At) -> None:  # noqa: B027  only a count of all has a use for it
        """Note that something was taken."""

    def take(self, hold: "Hold", at: At, *, forced: bool = False) -> int | None:
        """None, or nanoseconds to wait."""
        self.roll(at)
        used = self.total + hold.count
        wait = None
        if used <= self.rule.amount or forced:
            hold.number = self.newest
            self.counts[self.newest] += hold.count
            self.touch(at)
        else:
            wait = self.wait(used - self.rule.amount, at)
            used = self.rule.amount
        for i, share in enumerate(self.rule.marks):
            if i not in self.told and used >= share * self.rule.amount:
                self.told.add(i)
                hold.crossed.append((self.rule, share))
        return wait

    def wait(self, lack: int, at: At) -> int:
        for number in sorted(self.counts):
            lack -= self.counts[number]
            if lack <= 0:
                return max(self.ends(number, at), 0)
        return max(self.empty(at), 1)

    def empty(self, at: At) -> int:
        last = max((number for number, count in self.counts.items() if count), default=None)
        return 0 if last is None else max(self.ends(last, at), 0)

    def correct(self, hold: "Hold", extra: int, at: At) -> None:
        """Take or give back the difference."""
        if extra < 0:
            self.roll(at)
            if hold.number in self.counts:
                self.counts[hold.number] -= min(-extra, self.counts[hold.number])
        elif extra > 0:
            more = Hold(self.rule, self, extra)
            self.take(more, at, forced=True)
            hold.crossed += more.crossed

    def room(self, at: At) -> Room:
        seen = copy.deepcopy(self)
        seen.told.clear()
        seen.roll(at)
        return Room(self.rule.amount, max(self.rule.amount - seen.total, 0), seen.empty(at))

    def __deepcopy__(self, memo: dict[int, object]) -> "Window":
        twin = copy.copy(self)
        twin.counts, twin.told = self.counts.copy(), self.told.copy()
        return twin


class Sliding(Window):
    """The part that is now and the 23 before it."""

    def number(self, at: At) -> int:
        return at.ns // ceil(self.rule.period_ns / (PARTS - 1))

    def ends(self, number: int, at: At) -> int:
        return (number + PARTS) * ceil(self.rule.period_ns / (PARTS - 1)) - at.ns

    def forget(self) -> None:
        for number in [number for number in self.counts if number <= self.newest - PARTS]:
            del self.counts[number]


class Calendar(Window):
    """One hour, day, week or month of UTC; numbers are the ordinal days or hours that they begin with."""

    def begin(self, at: At) -> dt.datetime:
        now = EPOCH + dt.timedelta(microseconds=at.wall // 1000)
        hour = now.replace(minute=0, second=0, microsecond=0)
        day = hour.replace(hour=0)
        week = day - dt.timedelta(days=day.weekday())
        return (hour, day, week, day.replace(day=1))[self.rule.calendar]

    def number(self, at: At) -> int:
        return (self.begin(at) - EPOCH) // dt.timedelta(hours=1)

    def ends(self, number: int, at: At) -> int:
        begin = EPOCH + dt.timedelta(hours=number)
        month = (begin.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
        lengths = [dt.timedelta(hours=1), dt.timedelta(days=1), dt.timedelta(days=7), month - begin]
        end = begin + lengths[self.rule.calendar] - EPOCH
        return end // dt.timedelta(microseconds=1) * 1000 - at.wall


class Total(Window):
    """Since the last silence; the number is when that was over."""

    used = 0

    def number(self, at: At) -> int:
        if self.newest < 0 or at.ns - self.used >= self.rule.period_ns:
            self.used = at.ns
            self.told.clear()
            return at.ns
        return self.newest

    def touch(self, at: At) -> None:
        self.used = max(self.used, at.ns)

    def ends(self, number: int, at: At) -> int:
        return self.used + self.rule.period_ns - at.ns


class Gate:
    """Who is in."""

    def __init__(self, rule: limit.Rule) -> None:
        self.rule = rule
        self.inside = 0

    def take(self, hold: "Hold", at: At) -> int | None:
        """None, or 0: nobody knows how long."""
        if self.inside >= self.rule.amount:
            return 0
        self.inside += 1
        return None

    def room(self, at: At) -> Room:
        return Room(self.rule.amount, max(self.rule.amount - self.inside, 0), 0)


Line = Bucket | Window | Gate


@dataclass
class Hold:
    """What one rule took."""

    rule: limit.Rule
    line: Line
    count: int
    cost: int = 0
    number: int = 0
    crossed: list[tuple[limit.Rule, float]] = field(default_factory=list)
