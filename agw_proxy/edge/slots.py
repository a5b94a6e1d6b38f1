"""What the supervisor keeps in mind: of each worker, and of each configuration on its way to them."""

from dataclasses import dataclass, field

from agw_proxy.edge.worker_link import Channel


@dataclass
class Slot:
    """One worker's number, and the process that has it."""

    number: int
    pid: int = 0  # 0: there is none
    channel: Channel | None = None
    started: float = 0.0
    ready: float | None = None  # since when it serves
    due: float | None = 0.0  # when to start one
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
