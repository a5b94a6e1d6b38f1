"""The samples of a run, their medians with spread, and ratios taken within a round."""

import math
import statistics
from collections.abc import Callable
from typing import NamedTuple

from bench.proxies.measure import Sample


class Spread(NamedTuple):
    """Median of the rounds, and their extremes."""

    median: float
    least: float
    most: float


class Results:
    """Samples by scenario, peer and round; what could not run, and why."""

    def __init__(self) -> None:
        self.samples: dict[tuple[str, str], dict[int, Sample]] = {}
        self.versions: dict[str, str] = {}
        self.not_run: dict[str, str] = {}  # peer -> why
        self.failed: dict[tuple[str, str], str] = {}  # (scenario, peer) -> why

    def add(self, scenario: str, peer: str, round_number: int, sample: Sample) -> None:
        """Keep one sample."""
        self.samples.setdefault((scenario, peer), {})[round_number] = sample

    def rounds(self, scenario: str, peer: str) -> dict[int, Sample]:
        """The samples of a peer in a scenario by round; empty where there are none."""
        return self.samples.get((scenario, peer), {})

    def spread(self, scenario: str, peer: str, figure: str) -> Spread | None:
        """A figure over the rounds; None where no round has it."""
        return _spread([sample.get(figure, math.nan) for sample in self.rounds(scenario, peer).values()])

    def total(self, scenario: str, peer: str, figure: str) -> float:
        """The sum of a figure over the rounds."""
        return sum(sample.get(figure, 0.0) for sample in self.rounds(scenario, peer).values())

    def ratio(
        self, scenario: str, peer: str, against: str, figure: str, *, added: bool = False, other: str = ""
    ) -> Spread | None:
        """``peer`` / ``against`` within each round, then the median of these; ``added``: both less the direct way's.

        ``other``: the scenario of ``against``, where that is another.
        """
        mine, theirs, direct = (
            self.rounds(scenario, peer),
            self.rounds(other or scenario, against),
            self.rounds(scenario, "direct"),
        )

        def less_direct(sample: Sample, number: int) -> float:
            floor = direct.get(number, {}).get(figure, math.nan) if added else 0.0
            return sample.get(figure, math.nan) - floor

        quotient: Callable[[int], float] = lambda number: _divided(  # noqa: E731  one expression, used once
            less_direct(mine[number], number), less_direct(theirs[number], number)
        )
        return _spread([quotient(number) for number in mine if number in theirs])

    def over_all(self, peer: str, figure: str) -> Spread | None:
        """A figure over all scenarios and rounds of a peer (of a start, which every measurement has)."""
        samples = [sample for (_, name), rounds in self.samples.items() if name == peer for sample in rounds.values()]
        return _spread([sample.get(figure, math.nan) for sample in samples])

    def tree(self) -> dict[str, object]:
        """Everything as JSON: scenario -> peer -> figure -> [median, least, most]."""
        found: dict[str, dict[str, dict[str, list[float]]]] = {}
        for (scenario, peer), rounds in self.samples.items():
            names = sorted({name for sample in rounds.values() for name in sample})
            spreads = {name: self.spread(scenario, peer, name) for name in names}
            found.setdefault(scenario, {})[peer] = {
                name: [round(value, 4) for value in spread] for name, spread in spreads.items() if spread is not None
            }
        not_run = {**self.not_run, **{f"{peer} in {scenario}": why for (scenario, peer), why in self.failed.items()}}
        return {"versions": self.versions, "not_run": not_run, "scenarios": found}


def _divided(one: float, by: float) -> float:
    return one / by if by else math.nan


def _spread(values: list[float]) -> Spread | None:
    there = [value for value in values if not math.isnan(value)]
    return Spread(statistics.median(there), min(there), max(there)) if there else None
