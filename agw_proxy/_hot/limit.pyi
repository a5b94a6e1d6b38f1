"""Limits: token buckets (GCRA, one 64-bit word each) and concurrency gates, in memory that workers may share."""

from collections.abc import Sequence

from typing_extensions import Buffer

PER_GLOBAL: int
PER_KEY: int
PER_USER: int
PER_MODEL: int
REQUESTS: int
TOKENS: int
CONCURRENT: int

def subject(text: bytes) -> int:
    """A 64-bit hash that is the same in every worker (not Python's), for users and models.

    It has no secret key, so a caller can make names that collide or that crowd one place of the table. That buys
    nothing: a key's own rules carry the key's name, so a collision shares one bucket among users of that key (the
    caller could as well have sent the other's name), and crowding sends new subjects to the rule's overflow slot, which
    is stricter.
    """

class Table:
    """A fixed number of bucket slots and gate slots, 64 bytes each, in a buffer (anonymous shared memory or private).

    Times reach it as ``now_ns``: one monotonic clock for all workers. The first decision sets the epoch; a table serves
    for 4.5 years after it. A clock that stands still or goes back grants nothing extra. A subject's slot may go to
    another one 250 ms after its bucket was full (workers may differ by that much), or when nobody is in its gate.
    """

    @property
    def slots(self) -> int: ...
    @property
    def gates(self) -> int: ...
    worker: int
    """0 to 27: whose counts this process writes. May be set after a fork, before the first decision."""
    def __init__(self, buffer: Buffer | None = None, *, slots: int = 4096, gates: int = 1024, worker: int = 0) -> None:
        """``buffer`` must be writable, 64-byte aligned, zeroed at first use and of ``Table.size(slots, gates)`` bytes.

        Without it private memory is made. Raises ValueError on any other buffer, on one that holds a table of another
        size or version, and on numbers out of range.
        """
    @staticmethod
    def size(slots: int = 4096, gates: int = 1024) -> int:
        """Bytes that such a table needs. Raises ValueError unless both are 8 to 16777216."""
    def overflowed(self) -> int:
        """How often a subject found no slot and shared its rule's overflow slot (stricter, never laxer)."""
    def in_use(self) -> int:
        """Bucket slots that hold a subject."""
    def reclaim(self, worker: int) -> int:
        """Take back all concurrency slots held by a dead worker; returns how many.

        Also undoes what it had half done in the table. Call it before a replacement with the same number starts.
        """

class Rule:
    """One limit. ``name`` identifies it (also across reloads) and is its metric label."""

    @property
    def name(self) -> str: ...
    @property
    def per(self) -> int: ...
    @property
    def unit(self) -> int: ...
    @property
    def amount(self) -> int: ...
    @property
    def period_ns(self) -> int: ...
    @property
    def burst(self) -> int:
        """Requests or tokens of a full bucket (0 for CONCURRENT)."""
    def __init__(self, name: str, per: int, unit: int, amount: int, period_ns: int = 0, burst: int = 0) -> None:
        """``amount`` per ``period_ns`` with a bucket of ``burst`` (0: the full amount); CONCURRENT takes neither.

        One unit refills in ``period_ns / amount``, rounded to 1/64 ns (at least that). CONCURRENT goes up to 65535.
        Raises ValueError, also where a full bucket would take longer than 2.2 years to refill.
        """

class Limits:
    """The immutable set of rules that a key's requests come under. At most 16, each with a name of its own."""

    def __init__(self, table: Table, rules: Sequence[Rule]) -> None:
        """Rules with the same name and unit as in an earlier set go on with its buckets. Raises ValueError."""
    @property
    def table(self) -> Table: ...
    @property
    def rules(self) -> tuple[Rule, ...]: ...
    def admit(self, key: int, user: int, model: int, tokens: int, now_ns: int) -> Grant:
        """All rules or none.

        ``key``/``user``/``model`` are 64-bit subjects, ``tokens`` an estimate >= 0, ``now_ns`` monotonic.
        An estimate above a rule's burst takes the whole burst, so it passes when the bucket is full. Raises ValueError.
        """

class Grant:
    """The outcome of one decision, and what was taken: a reservation that is settled and released exactly once."""

    @property
    def granted(self) -> bool: ...
    @property
    def rule(self) -> Rule | None:
        """The rule that refused (the first one), or None."""
    @property
    def retry_after_ns(self) -> int:
        """When refused: time until the same request can pass that rule (0 for a gate: unknown)."""
    @property
    def requests_limit(self) -> int:
        """Amount of the tightest rule in requests (-1: no such rule, also in the next two).

        The tightest is the one with the least remaining after this decision; of equals, the one that is full latest.
        """
    @property
    def requests_remaining(self) -> int:
        """What it would still let pass now; 0 where it refused."""
    @property
    def requests_reset_ns(self) -> int:
        """Time until it is full again."""
    @property
    def tokens_limit(self) -> int: ...
    @property
    def tokens_remaining(self) -> int: ...
    @property
    def tokens_reset_ns(self) -> int: ...
    def settle(self, tokens: int, now_ns: int) -> bool:
        """Replace the token estimate by the truth. True the first time, False (and nothing happens) afterwards.

        What was estimated too much goes back, unless the slot has gone to another subject since (the bucket was full
        then) or it came out of an overflow slot. What was estimated too little is charged at ``now_ns`` and may leave a
        debt that later requests wait for. Counts over 2**31 count as that. A refused grant took nothing: False.
        Raises ValueError on numbers below 0.
        """
    def cancel(self, now_ns: int) -> bool:
        """Give back requests and tokens: nothing was sent upstream. The settlement, hence True the first time only."""
    def release(self) -> bool:
        """Give back the concurrency slots. True the first time only. Also happens when the grant is deallocated."""
