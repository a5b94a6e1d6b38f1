"""A double of the metrics that parts of the gateway tell how it goes: it counts."""

from collections import Counter


class ToldRedis:
    """What was told of Redis."""

    def __init__(self) -> None:
        self.answers = 0
        self.failures: Counter[str] = Counter()
        self.up = 0
        self.leases: Counter[str] = Counter()
        self.events: list[str] = []

    def redis_answered(self, nanoseconds: int) -> None:
        self.answers += 1

    def redis_failed(self, why: str) -> None:
        self.failures[why] += 1

    def redis_up(self, step: int) -> None:
        self.up += step

    def leased(self, outcome: str, count: int = 1) -> None:
        self.leases[outcome] += count

    def info(self, event: str, **_: object) -> None:
        self.events.append(event)

    def warning(self, event: str, **_: object) -> None:
        self.events.append(event)
