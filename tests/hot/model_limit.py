"""Limits over dicts in whole numbers: no table, no eviction, one worker, no leases. The compiled ones must agree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from agw_proxy._hot import limit
from tests.hot.model_limit_lines import At, Bucket, Calendar, Gate, Hold, Line, Room, Sliding, Total

MAX_TOKENS = 2**31
MAX_COST = 2**52
NAMES = ("key", "team", "user", "channel", "model", "upstream", "tool", "session")
Subject = tuple[object, ...]


class Subjects(TypedDict, total=False):
    """Who asks, and whether for a stream."""

    key: int
    team: int
    user: int
    channel: int
    model: int
    upstream: int
    tool: int
    session: int
    stream: bool


class Ask(Subjects, total=False):
    """All that ``admit`` takes beside the time."""

    input_tokens: int
    output_tokens: int
    cost: int


def count_of(rule: limit.Rule, tokens: tuple[int, int], cost: int) -> int:
    """What the rule counts."""
    asked, answered = (min(count, MAX_TOKENS) for count in tokens)
    return {
        limit.REQUESTS: 1,
        limit.TOKENS: min(asked + answered, MAX_TOKENS),
        limit.INPUT: asked,
        limit.OUTPUT: answered,
        limit.COST: min(cost, MAX_COST),
    }.get(rule.unit, 0)


@dataclass
class Table:
    """What all sets of rules share."""

    wall_ns: int = 0
    origin: int | None = None
    lines: dict[Subject, Line] = field(default_factory=dict)

    def at(self, now_ns: int) -> At:
        """The moment on both clocks."""
        if self.origin is None:
            self.origin = now_ns
        return At(max(0, now_ns - self.origin), self.wall_ns + now_ns)

    def line(self, rule: limit.Rule, who: Subjects) -> Line:
        """Where the rule counts these subjects."""
        parts = tuple(who.get(name, 0) for i, name in enumerate(NAMES) if rule.per >> i & 1)
        subject: Subject = (rule.name, rule.unit, parts)
        if subject not in self.lines:
            kinds: dict[int, Callable[[limit.Rule], Line]]
            kinds = {limit.SLIDING: Sliding, limit.CALENDAR: Calendar, limit.TOTAL: Total, limit.BUCKET: Bucket}
            self.lines[subject] = Gate(rule) if rule.unit >= limit.CONCURRENT else kinds[rule.algorithm](rule)
        return self.lines[subject]


def applies(rule: limit.Rule, who: Subjects) -> bool:
    """Whether the rule is for such a request."""
    bit, value = rule.only
    values = {1 << i: who.get(name, 0) for i, name in enumerate(NAMES)}
    if bit and values[bit] != value:
        return False
    if any(rule.per & bit and not values[bit] for bit in (limit.PER_UPSTREAM, limit.PER_TOOL, limit.PER_SESSION)):
        return False
    return rule.unit != limit.STREAMS or who.get("stream", False)


@dataclass
class Grant:
    """The model's outcome."""

    limits: "Limits"
    who: Subjects
    tokens: tuple[int, int]
    cost: int
    holds: list[Hold] = field(default_factory=list)
    rule: limit.Rule | None = None
    retry_after_ns: int = 0
    rooms: list[Room] = field(default_factory=list)
    crossed: list[tuple[limit.Rule, float]] = field(default_factory=list)
    settled: bool = False
    released: bool = False

    @property
    def granted(self) -> bool:
        """No rule refused."""
        return self.rule is None

    def gather(self, at: At, *, moving: bool = False) -> limit.Rule | None:
        """Take by each rule that applies; the one that refused, whose hold is not kept."""
        for rule in self.limits.rules:
            if not applies(rule, self.who) or (moving and not of_upstream(rule)):
                continue
            hold = Hold(rule, self.limits.table.line(rule, self.who), count_of(rule, self.tokens, self.cost))
            wait = self.decide(hold, at)
            if wait is not None:
                self.retry_after_ns = wait
                return rule
            self.holds.append(hold)
        return None

    def decide(self, hold: Hold, at: At) -> int | None:
        """One rule's decision: None, or how long to wait."""
        if hold.rule.unit != limit.COST or hold.rule.algorithm == limit.BUCKET:
            hold.count = min(hold.count, hold.rule.burst)
        wait = hold.line.take(hold, at)
        self.crossed += hold.crossed
        hold.crossed = []
        return wait

    def drop(self, hold: Hold, at: At) -> None:
        """Give all back."""
        self.correct(hold, -hold.count, at)
        if isinstance(hold.line, Gate):
            hold.line.inside -= 1

    def correct(self, hold: Hold, extra: int, at: At) -> None:
        """Take or give back the difference."""
        if not isinstance(hold.line, Gate) and extra:
            hold.line.correct(hold, extra, at)
            self.crossed += hold.crossed
            hold.crossed = []

    def settle(self, input_tokens: int, output_tokens: int, cost: int, now_ns: int) -> bool:
        """Replace the estimates."""
        if self.settled or not self.granted:
            return False
        self.settled = True
        for hold in self.holds:
            if hold.rule.unit != limit.REQUESTS and not isinstance(hold.line, Gate):
                truth = count_of(hold.rule, (input_tokens, output_tokens), cost)
                self.correct(hold, truth - hold.count, self.limits.table.at(now_ns))
        return True

    def cancel(self, now_ns: int) -> bool:
        """Undo all but the gates."""
        if self.settled or not self.granted:
            return False
        self.settled = True
        for hold in self.holds:
            if not isinstance(hold.line, Gate):
                self.drop(hold, self.limits.table.at(now_ns))
        return True

    def release(self) -> bool:
        """Leave the gates."""
        if self.released or not self.granted:
            return False
        self.released = True
        for hold in self.holds:
            if isinstance(hold.line, Gate):
                hold.line.inside -= 1
        return True

    def extend(self, output_tokens: int, cost: int, now_ns: int) -> limit.Rule | None:
        """Reserve more."""
        if self.settled or not self.granted or not self.holds:
            return None
        at = self.limits.table.at(now_ns)
        added: list[tuple[Hold, Hold]] = []
        for hold in self.holds:
            count = 0 if hold.rule.unit == limit.REQUESTS else count_of(hold.rule, (0, output_tokens), cost)
            if isinstance(hold.line, Gate) or not count:
                continue
            more = Hold(hold.rule, hold.line, count)
            wait = self.decide(more, at)
            if wait is not None:
                self.retry_after_ns = wait
                for _, taken in added:
                    self.correct(taken, -taken.count, at)
                return hold.rule
            added.append((hold, more))
        for hold, more in added:
            hold.count += more.count
            hold.cost += more.cost
        self.tokens, self.cost = (self.tokens[0], self.tokens[1] + output_tokens), self.cost + cost
        return None

    def move(self, upstream: int, now_ns: int) -> limit.Rule | None:
        """Go on at another upstream."""
        if self.settled or self.released or not self.granted or upstream == self.who.get("upstream", 0):
            return None
        self.who = {**self.who, "upstream": upstream}
        if not any(of_upstream(rule) for rule in self.limits.rules):
            return None
        at = self.limits.table.at(now_ns)
        for hold in self.holds:
            if of_upstream(hold.rule):
                self.drop(hold, at)
        self.holds = [hold for hold in self.holds if not of_upstream(hold.rule)]
        kept = len(self.holds)
        refused = self.gather(at, moving=True)
        if refused is not None:
            for hold in self.holds[kept:]:
                self.drop(hold, at)
            del self.holds[kept:]
            self.who["upstream"] = 0
        return refused


def of_upstream(rule: limit.Rule) -> bool:
    """Whether the rule looks at the upstream."""
    return bool((rule.per | rule.only[0]) & limit.PER_UPSTREAM)


class Limits:
    """A set of rules over a model table."""

    def __init__(self, table: Table, rules: Sequence[limit.Rule]) -> None:
        self.table = table
        self.rules = tuple(rules)

    def admit(self, now_ns: int, *, input_tokens: int = 0, output_tokens: int = 0, cost: int = 0, **who: int) -> Grant:
        """All or nothing."""
        subjects: Subjects = {**who}  # type: ignore[typeddict-item]
        grant = Grant(self, subjects, (input_tokens, output_tokens), cost)
        if self.rules:
            at = self.table.at(now_ns)
            grant.rule = grant.gather(at)
            if grant.rule is not None:
                for hold in reversed(grant.holds):
                    grant.drop(hold, at)
                grant.holds = []
        counted = [limit.TOKENS, limit.INPUT, limit.OUTPUT]
        for units in ([limit.REQUESTS], counted, [limit.INPUT], [limit.OUTPUT]):
            grant.rooms.append(self.tightest(units, grant, now_ns))
        return grant

    def tightest(self, units: Sequence[int], grant: Grant, now_ns: int) -> Room:
        """The tightest rule in these units."""
        rooms = []
        for rule, room in self.look(now_ns, **grant.who):
            if rule.unit in units:
                rooms.append(Room(room.limit, 0 if rule is grant.rule else room.remaining, room.reset_ns))
        return min(rooms, key=lambda room: (room.remaining, -room.reset_ns), default=Room())

    def look(self, now_ns: int, **who: int) -> list[tuple[limit.Rule, Room]]:
        """What each rule that applies has left."""
        subjects: Subjects = {**who}  # type: ignore[typeddict-item]
        found = []
        for rule in self.rules:
            if applies(rule, subjects):
                found.append((rule, self.table.line(rule, subjects).room(self.table.at(now_ns))))
        return found
