"""Meters in plain Python: what agw_proxy._hot.meter has to agree with, for any number of workers in one object."""

from bisect import bisect_left
from collections.abc import Sequence

from agw_proxy._hot.meter import COUNTER, HISTOGRAM, Family, Sample

LABEL_TEXT_BYTES = 63
INT64_MAX = 2**63 - 1
Row = list[int]


def kept(label: str) -> str:
    """What of a label's value is kept: the longest beginning that fits."""
    while len(label.encode("utf-8", "surrogatepass")) > LABEL_TEXT_BYTES:
        label = label[:-1]
    return label


class Meter:
    def __init__(self, families: Sequence[Family], workers: int) -> None:
        self.families = {family.name: family for family in families}
        self.overflows = 0
        # By worker and family: {labels: values}. Values are one number, or a count for each bucket and the sum.
        self.rows: list[dict[str, dict[tuple[str, ...], Row]]] = [
            {family.name: {("other",) * len(family.labels): self.empty(family)} for family in families}
            for _ in range(workers)
        ]
        # Over all workers, in order of first use.
        self.order: dict[str, list[tuple[str, ...]]] = {
            family.name: [("other",) * len(family.labels)] for family in families
        }

    @staticmethod
    def empty(family: Family) -> Row:
        return [0] * (len(family.bounds) + 2 if family.kind == HISTOGRAM else 1)

    def row(self, worker: int, name: str, labels: tuple[str, ...]) -> Row:
        """The values that a use of this series goes to."""
        family, rows = self.families[name], self.rows[worker][name]
        labels = tuple(kept(label) for label in labels)
        if labels not in rows and len(rows) >= family.max_series:
            self.overflows += 1
            return rows[("other",) * len(labels)]
        if labels not in self.order[name]:
            self.order[name].append(labels)
        return rows.setdefault(labels, self.empty(family))

    def add(self, worker: int, name: str, labels: tuple[str, ...], amount: int) -> None:
        row = self.row(worker, name, labels)
        if amount < 0 and self.families[name].kind == COUNTER:
            raise ValueError
        row[0] = max(-INT64_MAX - 1, min(INT64_MAX, row[0] + amount))

    def observe(self, worker: int, name: str, labels: tuple[str, ...], value: int) -> None:
        row = self.row(worker, name, labels)
        row[bisect_left(self.families[name].bounds, value)] += 1
        row[-1] = max(-INT64_MAX - 1, min(INT64_MAX, row[-1] + value))

    def collect(self) -> list[Sample]:
        samples = []
        for name, family in self.families.items():
            for labels in self.order[name]:
                rows = [worker[name][labels] for worker in self.rows if labels in worker[name]]
                total = [sum(values) for values in zip(*rows, strict=True)]
                if family.kind == HISTOGRAM:
                    samples.append(Sample(family, labels, sum(total[:-1]), tuple(total[:-1]), total[-1]))
                else:
                    samples.append(Sample(family, labels, total[0], (), 0))
        return samples
