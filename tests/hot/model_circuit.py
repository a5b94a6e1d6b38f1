"""Circuits in plain Python: what agw_proxy._hot.circuit has to agree with, one process and no shared words."""

from dataclasses import dataclass, field

MS = 1_000_000
SECOND = 1_000_000_000
PARTS = 8
MAX_PROBES = 16
MAX_LEVEL = 15
LEASE_NS = 60 * SECOND
MAX_REST_NS = 600 * SECOND
HALF_LIFE = 240
EIGHTH_NS = SECOND // 8
GOOD, BAD, NEITHER = range(3)


@dataclass(frozen=True)
class Terms:
    """Settings of a circuit, as ``Board.circuit`` takes them."""

    enabled: bool = True
    consecutive: int = 3
    ratio: float = 0.5
    min_requests: int = 10
    window_ns: int = 8 * SECOND
    cool_down_ns: int = 1 * SECOND
    cool_down_max_ns: int = 10 * SECOND
    probes: int = 1
    slow_ns: int = 0


@dataclass
class Circuit:
    """What all workers together know; ``seen`` and ``in_flight`` are by worker."""

    terms: Terms
    out: bool = False
    open: bool = False
    until_ms: int = 0  # until when it is open, or since when closed
    level: int = 0
    streak: int = 0
    counted: list[tuple[int, bool]] = field(default_factory=list)  # (eighth of the window, failed) since it last closed
    rest_ns: int = 0
    leases: list[tuple[int, int] | None] = field(default_factory=lambda: [None] * MAX_PROBES)  # (end in ms, worker)
    learnt: tuple[int, int] | None = None  # (eighth of a second, value in 1,024 ns)
    openings: int = 0
    requests: int = 0
    failures: int = 0
    seen: dict[int, int] = field(default_factory=dict)
    in_flight: dict[int, int] = field(default_factory=dict)

    def half_open(self, now: int) -> bool:
        return self.open and self.until_ms * MS <= now

    def free_lease(self, now: int) -> int | None:
        for place in range(min(self.terms.probes, MAX_PROBES)):
            lease = self.leases[place]
            if lease is None or lease[0] * MS <= now:
                return place
        return None

    def may(self, now: int) -> bool:
        if self.rest_ns > now or self.out:
            return False
        if not self.open or not self.terms.enabled:
            return True
        return self.half_open(now) and self.free_lease(now) is not None

    def state(self, now: int) -> str:
        if not self.open or not self.terms.enabled:
            return "closed"
        return "half_open" if self.half_open(now) else "open"

    def opens_in_ns(self, now: int) -> int:
        if self.may(now):
            return 0
        until = max(self.rest_ns, self.until_ms * MS if self.open and self.terms.enabled else 0)
        return until - now if until > now else SECOND

    def begin(self, worker: int, now: int, *, force: bool) -> int:
        self.seen[worker] = max(now, self.seen.get(worker, 0))
        if not self.may(now):
            begun = int(force)
        elif self.open and self.terms.enabled:
            place = self.free_lease(now)
            assert place is not None
            self.leases[place] = ((now + LEASE_NS) // MS, worker)
            begun = 2
        else:
            begun = 1
        self.in_flight[worker] = self.in_flight.get(worker, 0) + bool(begun)
        return begun

    def end(self, worker: int, now: int, how: int, begun: int, first: int) -> None:
        if not begun:
            return
        self.seen[worker] = max(now, self.seen.get(worker, 0))
        self.in_flight[worker] -= 1
        if how != NEITHER:
            self.learn(now, first)
            bad = how == BAD or 0 < self.terms.slow_ns < first
            self.requests += 1
            self.failures += bad
            if self.terms.enabled:
                self.decide(now, begun, bad=bad)
        if begun == 2:
            own = [place for place, lease in enumerate(self.leases) if lease is not None and lease[1] == worker]
            if own:
                self.leases[min(own, key=lambda place: self.leases[place] or (0, 0))] = None

    def decide(self, now: int, begun: int, *, bad: bool) -> None:
        if self.open:
            if begun == 2 and self.half_open(now):
                if bad:
                    self.open_up(now)
                else:
                    self.open, self.until_ms, self.streak = False, now // MS, 0
                    self.counted.clear()
            return
        index = now // (self.terms.window_ns // PARTS)
        self.counted = [*((when, failed) for when, failed in self.counted if index - when < PARTS), (index, bad)]
        self.streak = self.streak + 1 if bad else 0
        recent = [failed for _, failed in self.counted]
        many = len(recent) >= self.terms.min_requests and sum(recent) >= self.terms.ratio * len(recent)
        if bad and (self.streak >= self.terms.consecutive or many):
            if now // MS >= self.until_ms + self.terms.window_ns // MS:
                self.level = 0
            self.open_up(now)

    def open_up(self, now: int) -> None:
        pause = min(
            min(self.terms.cool_down_ns, self.terms.cool_down_max_ns) << self.level, self.terms.cool_down_max_ns
        )
        self.open, self.until_ms, self.streak = True, -(-(now + pause) // MS), 0
        self.level = min(self.level + 1, MAX_LEVEL)
        self.openings += 1

    def learn(self, now: int, first: int) -> None:
        if first < 0:
            return
        clock, value = now // EIGHTH_NS, float(first)
        if self.learnt is not None:
            value += 0.8 * faded(clock - self.learnt[0]) * (float(self.learnt[1] << 10) - value)
        self.learnt = clock, int(value) >> 10

    def first_ns(self, now: int) -> int:
        if self.learnt is None or not (left := faded(now // EIGHTH_NS - self.learnt[0])):
            return -1
        return int(left * float(self.learnt[1] << 10))

    def bury(self, worker: int) -> int:
        held = [place for place, lease in enumerate(self.leases) if lease is not None and lease[1] == worker]
        for place in held:
            self.leases[place] = None
        self.in_flight[worker] = self.seen[worker] = 0
        return len(held)


def faded(age: int) -> float:
    """What is left of 1 after ``age`` eighths of a second: it halves in 30 s, straight in between, 0 after ten times."""
    halves = max(age, 0) // HALF_LIFE
    return (1.0 - 0.5 * (max(age, 0) % HALF_LIFE) / HALF_LIFE) / 2.0**halves if halves < 10 else 0.0
