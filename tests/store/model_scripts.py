"""The scripts in plain Python and exact fractions, on a clock that is given in microseconds."""

import math
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import NamedTuple

from agw_proxy._hot.limit import BUCKET, CALENDAR, SLIDING

PARTS = 24
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Terms(NamedTuple):
    """What the scripts read of a rule."""

    algorithm: int
    amount: int
    period_ns: int = 0
    burst: int = 0
    calendar: int = -1


def part(left: Fraction | int, need: int, want: int, nodes: int) -> int:
    if left < need or left < 1:
        return 0
    return max(need, min(want, math.ceil(Fraction(math.floor(left), nodes))))


class Bucket:
    def __init__(self, terms: Terms) -> None:
        self.rate = Fraction(terms.amount * 1000, terms.period_ns)
        self.full = terms.burst or terms.amount
        self.level, self.at = Fraction(self.full), 0

    def take(self, now: int, need: int, want: int, owed: int, back: int, mark: str, nodes: int) -> tuple[int, str]:
        level = min(Fraction(self.full), self.level + max(now - self.at, 0) * self.rate)
        level = min(Fraction(self.full), level + back) - owed
        got = part(level, need, want, nodes)
        if need > self.full and level >= self.full:
            got = need
        self.level, self.at = level - got, now
        return got, ""


class Sliding:
    def __init__(self, terms: Terms) -> None:
        self.amount = terms.amount
        self.width = math.ceil(terms.period_ns // 1000 / (PARTS - 1))
        self.counts: dict[int, int] = {}

    def take(self, now: int, need: int, want: int, owed: int, back: int, mark: str, nodes: int) -> tuple[int, str]:
        slot = now // self.width
        self.counts = {at: count for at, count in self.counts.items() if at > slot - PARTS}
        if mark and int(mark) in self.counts:
            self.counts[int(mark)] -= min(back, self.counts[int(mark)])
        got = part(self.amount - sum(self.counts.values()) - owed, need, want, nodes)
        self.counts[slot] = self.counts.get(slot, 0) + got + owed
        return got, str(slot)


class Calendar:
    def __init__(self, terms: Terms) -> None:
        self.amount, self.calendar = terms.amount, terms.calendar
        self.used: dict[str, int] = {}

    def window(self, now: int) -> str:
        day = EPOCH + timedelta(microseconds=now)
        if self.calendar == 0:
            return str(int((day - EPOCH).total_seconds()) // 3600)
        if self.calendar == 1:
            return str((day.date() - EPOCH.date()).days)
        if self.calendar == 2:
            monday = day.date() - timedelta(days=day.weekday())
            return str((monday - EPOCH.date()).days // 7 + 1)
        return str(day.year * 12 + day.month)

    def take(self, now: int, need: int, want: int, owed: int, back: int, mark: str, nodes: int) -> tuple[int, str]:
        window = self.window(now)
        used = self.used.get(window, 0)
        if mark == window:
            used = max(used - back, 0)
        got = part(self.amount - used - owed, need, want, nodes)
        self.used[window] = used + owed + got
        return got, window


class Total:
    """Without its end by silence, which is a key's lifetime in Redis."""

    def __init__(self, terms: Terms) -> None:
        self.amount, self.used = terms.amount, 0

    def take(self, now: int, need: int, want: int, owed: int, back: int, mark: str, nodes: int) -> tuple[int, str]:
        self.used = max(self.used - back, 0) + owed
        got = part(self.amount - self.used, need, want, nodes)
        self.used += got
        return got, ""


def model(terms: Terms) -> Bucket | Sliding | Calendar | Total:
    if terms.algorithm == BUCKET:
        return Bucket(terms)
    if terms.algorithm == SLIDING:
        return Sliding(terms)
    return Calendar(terms) if terms.algorithm == CALENDAR else Total(terms)
