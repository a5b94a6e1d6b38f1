"""What the supervisor keeps in mind: of each worker, and of each configuration on its way to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agw_proxy.edge.worker_link import Channel, Stand

BACKOFF_SECONDS = (0.1, 5.0)  # before a replacement: the first, doubled up to the second


@dataclass
class Slot:
    """One worker's number, and the process that has it."""

    number: int
    relays: bool = True  # else it runs agents for those that do
    pid: int = 0  # 0: there is none
    channel: Channel | None = None
    started: float = 0.0
    ready: float | None = None  # since when it serves
    due: float | None = 0.0  # when to start one
    dismissed: bool = False  # it was told to drain
    failures: int = 0  # since the last stable one
    error: str = ""  # why it could not start, in its own words
    ended: float | None = None  # when to kill it, as it has hung up
    killed: bool = False
    waits: float | None = None  # since when connections wait at each look
    late: bool = False
    helper: int | None = None  # the sibling that stands in

    @property
    def serves(self) -> bool:
        """It accepts, as far as is known."""
        return self.ready is not None and not self.killed and not self.late and self.ended is None

    def postpone(self, now: float) -> None:
        """A process has ended, or could not be started: when the next one is due."""
        first, most = BACKOFF_SECONDS
        self.due = now + min(first * 2**self.failures, most)
        self.failures += 1


@dataclass
class Handing:
    """A configuration on its way to the workers. ``slot``, ``number``: who asked for it, and under which number."""

    turn: int
    deadline: float
    rejected: str | None
    slot: Slot | None
    number: int
    waiting: set[int] = field(default_factory=set)
    failed: dict[int, str] = field(default_factory=dict)


class Events(Protocol):
    """The log."""

    def info(self, event: str, **fields: object) -> object:
        """Something happened as it should."""
        ...


def stand_in(slot: Slot, relays: Sequence[Slot], log: Events) -> None:
    """Have a sibling accept for one that does not, and only then. ``relays``: all that accept, by their numbers."""
    if not slot.relays:
        return
    helper = None if slot.helper is None else relays[slot.helper]
    if helper is not None and (slot.serves or not helper.serves):
        if helper.channel is not None:
            helper.channel.send(Stand(slot.number, accept=False))
        slot.helper = None
    if slot.serves or slot.helper is not None:
        return
    count = len(relays)
    for step in range(1, count):
        sibling = relays[(slot.number + step) % count]
        if sibling.serves and sibling.channel is not None and sibling.channel.send(Stand(slot.number, accept=True)):
            slot.helper = sibling.number
            log.info("worker.relieved", worker=slot.number, by=sibling.number)
            return
