"""Circuit breakers and retry budgets, in memory that workers may share; all times are monotonic nanoseconds."""

from typing import final

from typing_extensions import Buffer

GOOD: int
BAD: int
NEITHER: int
"""How an attempt ended, for the circuit; NEITHER: the caller went, a drain, a 4xx that is the caller's."""

@final
class Board:
    """Lines for 256 upstreams, 1,024 configured targets and 512 others, found by the hash of their names."""

    worker: int
    def __init__(self, memory: Buffer | None = None, *, worker: int = 0) -> None:
        """``memory`` must be writable, 64-byte aligned, zeroed at first use and of ``Board.size()`` bytes.

        Without it private memory is made. Raises ValueError on any other buffer and on a worker outside 0..27.
        """
    @staticmethod
    def size() -> int:
        """Bytes."""
    def vitals(self, upstream: str) -> Vitals:
        """What is known of an upstream; the same line for each who asks with this name."""
    def circuit(
        self,
        target: str,
        vitals: Vitals,
        *,
        enabled: bool,
        consecutive: int,
        ratio: float,
        min_requests: int,
        window_ns: int,
        cool_down_ns: int,
        cool_down_max_ns: int,
        probes: int,
        slow_ns: int,
        configured: bool = True,
    ) -> Circuit:
        """The circuit of a target, with these settings (those of a later call do not change it, nor what is counted).

        ``probes`` above 16 count as 16; ``slow_ns`` 0: nothing is slow. ``configured=False`` for names that callers
        make up: they have lines apart, and where there is none left share the circuit ``upstream/*``. A line may go to
        another target when it was not used for ten minutes. Raises ValueError on numbers out of range.
        """
    def reclaim(self, worker: int) -> int:
        """Take back the probes of a dead worker, before its replacement starts; gives how many."""

@final
class Vitals:
    """Of one upstream, the same for all workers."""

    @property
    def name(self) -> str: ...
    out: bool
    """Taken out by active probes: none of its targets may be asked."""
    @property
    def requests(self) -> int:
        """Attempts noted since the start."""
    @property
    def failures(self) -> int: ...
    @property
    def failing(self) -> bool:
        """The last attempt that was noted, by any worker, was a failure."""
    @property
    def since_ns(self) -> int:
        """When ``failing`` last changed; 0: nothing has been noted yet."""
    fault: int
    """A number for what the last failure was, of the callers' choosing; 0 until one sets it."""
    def asked(self, now_ns: int) -> None:
        """One first attempt: retries are a share of these."""
    def may_retry(self, now_ns: int, share: float, floor: int) -> bool:
        """Take one retry from the budget of the last ten seconds, or say no.

        Yes as long as retries, this one counted, are at most ``max(floor, share * first attempts)``.
        """
    def note(self, now_ns: int, good: bool) -> None:
        """An attempt outside any circuit ended. ``Circuit.end`` does this itself."""

@final
class Circuit:
    """Of one target. Closed, it is asked; open, not until its cool-down is over; half open, by a few probes."""

    @property
    def name(self) -> str: ...
    @property
    def vitals(self) -> Vitals: ...
    @property
    def in_flight(self) -> int:
        """Attempts of this process that have begun and not ended."""
    @property
    def first_ns(self) -> int:
        """Moving average of the time to the first byte as of the last attempt's time, -1 where not known.

        It halves every 30 s without news and is forgotten after five minutes, so that a slow target gets a new chance.
        """
    @property
    def openings(self) -> int:
        """How often it opened."""
    @property
    def since_ns(self) -> int:
        """When it last went from closed to open or back; 0: never."""
    @property
    def shared(self) -> bool:
        """The board had no place for it: it counts together with others of its upstream."""
    def may(self, now_ns: int) -> bool:
        """It could be asked now; takes nothing."""
    def begin(self, now_ns: int, force: bool = False) -> int:
        """0: not now; 1: go; 2: go as a probe. Whatever is not 0 is to be ended. ``force``: never 0."""
    def end(self, now_ns: int, how: int, begun: int, first_ns: int = -1) -> None:
        """An attempt has ended. ``begun``: what ``begin`` gave; ``first_ns``: how long its first byte took, -1: none came.

        Counts at its upstream's vitals too. Raises ValueError where ``how`` is none of the three.
        """
    def rest(self, until_ns: int, now_ns: int = 0) -> None:
        """Not to be asked until then, but for ten minutes at most; the later of two counts. It is no failure.

        The ten minutes are from ``now_ns``, and without that from this object's last ``begin`` or ``end``.
        """
    def state(self, now_ns: int) -> str:
        """``closed``, ``open`` or ``half_open``, whether or not it rests."""
    def opens_in_ns(self, now_ns: int) -> int:
        """Until it may be asked, 0 where it may be; one second where nothing says when."""
