"""Routes in plain Python: what agw_proxy._hot.route has to agree with, written for the reader and not for speed."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from agw_proxy._hot.limit import subject

MAX_NAME_CHARS = 256
MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def matches(pattern: str, name: str) -> bool:
    """``*`` is any run of characters, ``?`` one, the rest literal; the whole name has to match."""
    parts = {"*": ".*", "?": "."}
    return re.fullmatch("".join(parts.get(c, re.escape(c)) for c in pattern), name, re.DOTALL) is not None


def wild(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


class Target(NamedTuple):
    name: str
    upstream: int
    model: str
    weight: int


class State(NamedTuple):
    """What a target's circuit says."""

    may: bool = True
    busy: int = 0
    first_ns: int = -1


class Route(NamedTuple):
    label: str
    targets: tuple[Target, ...]
    fallbacks: tuple[Target, ...]
    balance: str
    panic: float = 0.0

    def panics(self, states: Mapping[str, State]) -> bool:
        left = [target for target in self.targets if states.get(target.name, State()).may]
        others = [target for target in self.fallbacks if states.get(target.name, State()).may]
        return len(self.targets) > 1 and len(left) < self.panic * len(self.targets) and not others

    def plan(
        self, random: int, states: Mapping[str, State] = MappingProxyType({}), sticky: int = 0
    ) -> tuple[Target, ...]:
        panics = self.panics(states)
        free = [target for target in self.targets if panics or states.get(target.name, State()).may]
        others = [target for target in self.fallbacks if states.get(target.name, State()).may]
        if sticky:
            order = sorted(free, key=lambda target: -affinity(target, sticky))
        elif self.balance == "weighted":
            order = [target for target in draw(self.targets, random) if target in free]
        elif self.balance == "first":
            order = free
        else:
            order = rank(free, random, states, fastest=self.balance == "fastest")
        return (*order, *others)


def mixed(number: int) -> int:
    """The output function of SplitMix64."""
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & MASK
    return number ^ (number >> 31)


def affinity(target: Target, sticky: int) -> float:
    """Score of weighted rendezvous hashing."""
    mark = mixed((sticky + subject(target.name.encode()) * GOLDEN) & MASK)
    return target.weight / -math.log(((mark >> 11) + 0.5) / 2**53)


def pick(targets: Sequence[Target], random: int) -> Target:
    """One by weight."""
    point = mixed(random & MASK) % sum(target.weight for target in targets)
    for target in targets:
        if point < target.weight:
            return target
        point -= target.weight
    raise AssertionError("weights do not add up")


def draw(targets: Sequence[Target], random: int) -> list[Target]:
    """Without replacement, by weight; SplitMix64 seeded with ``random`` gives a number for each draw."""
    left = list(targets)
    order = []
    while left:
        random += GOLDEN
        order.append(pick(left, random))
        left.remove(order[-1])
    return order


def rank(targets: Sequence[Target], random: int, states: Mapping[str, State], *, fastest: bool) -> list[Target]:
    """One after the other: the faster of two drawn, or one drawn from the least busy."""
    left = list(targets)
    order = []

    def state(target: Target) -> State:
        return states.get(target.name, State())

    while left:
        random += GOLDEN
        if fastest:
            two = [pick(left, random)]
            random += GOLDEN
            others = [target for target in left if target != two[0]]
            two += [pick(others, random)] if others else []
            order.append(min(two, key=lambda target: state(target).first_ns))
        else:
            least = min(state(target).busy for target in left)
            order.append(pick([target for target in left if state(target).busy == least], random))
        left.remove(order[-1])
    return order


def merged(targets: Iterable[Target]) -> tuple[Target, ...]:
    kept: dict[str, Target] = {}
    for target in targets:
        seen = kept.get(target.name)
        kept[target.name] = target if seen is None else seen._replace(weight=seen.weight + target.weight)
    return tuple(kept.values())


class RouteTable:
    """Takes valid configurations only."""

    def __init__(
        self,
        upstreams: Sequence[tuple[str, Sequence[str]]],
        models: Sequence[tuple[str, Sequence[tuple[int, str, int]], str, Sequence[str]]],
    ) -> None:
        self.upstreams = upstreams
        self.virtual: dict[str, Route] = {}
        for name, configured, balance, _ in models:
            targets = merged(Target(f"{upstreams[i][0]}/{model}", i, model, weight) for i, model, weight in configured)
            self.virtual[name] = Route(name, targets, (), balance if len(targets) > 1 else "first")
        with_fallbacks = {}
        for name, _, _, fallbacks in models:
            targets = self.virtual[name].targets
            others: dict[str, Target] = {}
            for fallback in fallbacks:
                route = self.find(fallback)
                assert route is not None
                for target in route.targets:
                    others.setdefault(target.name, target)
            kept = tuple(other for other in others.values() if other.name not in {target.name for target in targets})
            with_fallbacks[name] = self.virtual[name]._replace(fallbacks=kept)
        self.virtual = with_fallbacks

    def find(self, model: str) -> Route | None:
        if model in self.virtual:
            return self.virtual[model]
        if not 0 < len(model) <= MAX_NAME_CHARS:
            return None
        first, _, rest = model.partition("/")
        for index, (upstream, _) in enumerate(self.upstreams):
            if upstream == first and rest:
                return self.single(index, rest, f"{upstream}/*")
        for index, (_, patterns) in enumerate(self.upstreams):
            if model in patterns and not wild(model):
                return self.single(index, model, model)
        for index, (_, patterns) in enumerate(self.upstreams):
            for pattern in patterns:
                if wild(pattern) and matches(pattern, model):
                    return self.single(index, model, pattern)
        return None

    def single(self, upstream: int, model: str, label: str) -> Route:
        return Route(label, (Target(f"{self.upstreams[upstream][0]}/{model}", upstream, model, 1),), (), "first")

    def names(self) -> tuple[str, ...]:
        exact = [pattern for _, patterns in self.upstreams for pattern in patterns if not wild(pattern)]
        return tuple(dict.fromkeys([*self.virtual, *exact]))
