"""Limits in exact rational arithmetic over dicts: no table, no eviction, one worker. The compiled ones must agree.

Times are Fractions of a nanosecond since the first decision; the one thing taken over is that a unit refills in a whole
number of 1/64 ns.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor

from agw_proxy._hot import limit

Subject = tuple[str, int, int]
MAX_TOKENS = 2**31


def cell_of(rule: limit.Rule) -> Fraction:
    """Nanoseconds in which one request or token comes back."""
    return Fraction(max(1, floor(Fraction(rule.period_ns * 64, rule.amount) + Fraction(1, 2))), 64)


def subject_of(rule: limit.Rule, key: int, user: int, model: int) -> Subject:
    """What the rule counts this request under."""
    return rule.name, rule.unit, (0, key, user, model)[rule.per]


@dataclass
class Room:
    """How full a bucket is: what it would let pass, and nanoseconds until it is full."""

    limit: int = -1
    remaining: int = -1
    reset_ns: int = -1


@dataclass
class Table:
    """What all sets of rules share."""

    epoch: int | None = None
    tats: dict[Subject, Fraction] = field(default_factory=dict)
    inside: Counter[Subject] = field(default_factory=Counter)

    def since(self, now_ns: int) -> Fraction:
        """Time since the first decision, never negative."""
        if self.epoch is None:
            self.epoch = now_ns
        return Fraction(max(0, now_ns - self.epoch))

    def base(self, subject: Subject, now: Fraction) -> Fraction:
        """Theoretical arrival time, or now where that has passed."""
        return max(self.tats.get(subject, Fraction(0)), now)

    def refund(self, subject: Subject, cost: Fraction) -> None:
        """Give time back, not beyond the epoch."""
        self.tats[subject] = max(Fraction(0), self.tats.get(subject, Fraction(0)) - cost)


@dataclass
class Grant:
    """The model's outcome; ``taken``: (rule, subject, units reserved)."""

    table: Table
    taken: list[tuple[limit.Rule, Subject, int]]
    rule: limit.Rule | None = None
    retry_after_ns: int = 0
    requests: Room = field(default_factory=Room)
    tokens: Room = field(default_factory=Room)
    settled: bool = False
    released: bool = False

    @property
    def granted(self) -> bool:
        """No rule refused."""
        return self.rule is None

    def settle(self, tokens: int, now_ns: int) -> bool:
        """Replace the estimate."""
        if self.settled or not self.granted:
            return False
        self.settled = True
        for rule, subject, reserved in self.taken:
            if rule.unit == limit.TOKENS:
                extra = (min(tokens, MAX_TOKENS) - reserved) * cell_of(rule)
                if extra < 0:
                    self.table.refund(subject, -extra)
                elif extra > 0:
                    self.table.tats[subject] = self.table.base(subject, self.table.since(now_ns)) + extra
        return True

    def cancel(self) -> bool:
        """Undo requests and tokens."""
        if self.settled or not self.granted:
            return False
        self.settled = True
        for rule, subject, reserved in self.taken:
            if rule.unit != limit.CONCURRENT:
                self.table.refund(subject, reserved * cell_of(rule))
        return True

    def release(self) -> bool:
        """Leave the gates."""
        if self.released or not self.granted:
            return False
        self.released = True
        for rule, subject, _ in self.taken:
            if rule.unit == limit.CONCURRENT:
                self.table.inside[subject] -= 1
        return True


class Limits:
    """A set of rules over a model table."""

    def __init__(self, table: Table, rules: Sequence[limit.Rule]) -> None:
        self.table = table
        self.rules = tuple(rules)

    def admit(self, key: int, user: int, model: int, tokens: int, now_ns: int) -> Grant:
        """All or nothing: decide first, then take."""
        now = self.table.since(now_ns) if self.rules else Fraction(0)
        grant = Grant(self.table, [])
        taken = []
        for rule in self.rules:
            subject = subject_of(rule, key, user, model)
            units = 1 if rule.unit != limit.TOKENS else min(tokens, rule.burst)
            taken.append((rule, subject, units))
            if rule.unit == limit.CONCURRENT:
                passes = self.table.inside[subject] < rule.amount
            else:
                wait = self.table.base(subject, now) + (units - rule.burst) * cell_of(rule) - now
                passes = wait <= 0
            if not passes:
                grant.rule = rule
                grant.retry_after_ns = 0 if rule.unit == limit.CONCURRENT else ceil(wait)
                break
        for rule, subject, units in taken if grant.granted else taken[:-1]:
            if rule.unit == limit.CONCURRENT:
                self.table.inside[subject] += grant.granted
            elif units:
                # What is taken and rolled back leaves its mark only for a clock that goes back: full now, not earlier.
                self.table.tats[subject] = self.table.base(subject, now) + units * cell_of(rule) * grant.granted
        grant.taken = taken if grant.granted else []
        grant.requests = self.room(limit.REQUESTS, grant.rule, (key, user, model), now)
        grant.tokens = self.room(limit.TOKENS, grant.rule, (key, user, model), now)
        return grant

    def room(self, unit: int, refused: limit.Rule | None, who: tuple[int, int, int], now: Fraction) -> Room:
        """The tightest rule in this unit."""
        rooms = []
        for rule in self.rules:
            if rule.unit == unit:
                ahead = self.table.base(subject_of(rule, *who), now) - now
                left = 0 if rule is refused else max(0, floor(rule.burst - ahead / cell_of(rule)))
                rooms.append(Room(rule.amount, left, ceil(ahead)))
        return min(rooms, key=lambda room: (room.remaining, -room.reset_ns), default=Room())
