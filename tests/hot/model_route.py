"""Routes in plain Python: what agw_proxy._hot.route has to agree with, written for the reader and not for speed."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MAX_NAME_CHARS = 256
MASK = 2**64 - 1


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


class Route(NamedTuple):
    label: str
    targets: tuple[Target, ...]
    fallbacks: tuple[Target, ...]
    weighted: bool

    def plan(self, random: int) -> tuple[Target, ...]:
        return (*(draw(self.targets, random) if self.weighted else self.targets), *self.fallbacks)


def draw(targets: Sequence[Target], random: int) -> list[Target]:
    """Without replacement, by weight; SplitMix64 seeded with ``random`` gives a number for each draw."""
    left = list(targets)
    order = []
    while left:
        random = (random + 0x9E3779B97F4A7C15) & MASK
        mixed = random
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        point = (mixed ^ (mixed >> 31)) % sum(target.weight for target in left)
        chosen = 0
        while point >= left[chosen].weight:
            point -= left[chosen].weight
            chosen += 1
        order.append(left.pop(chosen))
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
        models: Sequence[tuple[str, Sequence[tuple[int, str, int]], bool, Sequence[str]]],
    ) -> None:
        self.upstreams = upstreams
        self.virtual: dict[str, Route] = {}
        for name, configured, weighted, _ in models:
            targets = merged(Target(f"{upstreams[i][0]}/{model}", i, model, weight) for i, model, weight in configured)
            self.virtual[name] = Route(name, targets, (), weighted and len(targets) > 1)
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
        return Route(label, (Target(f"{self.upstreams[upstream][0]}/{model}", upstream, model, 1),), (), weighted=False)

    def names(self) -> tuple[str, ...]:
        exact = [pattern for _, patterns in self.upstreams for pattern in patterns if not wild(pattern)]
        return tuple(dict.fromkeys([*self.virtual, *exact]))
