"""Limits: token buckets (GCRA), sliding windows, calendars, totals and concurrency gates, in memory that workers may share."""

from collections.abc import Callable, Sequence

from typing_extensions import Buffer

# Who has a count of their own: any of these, joined by |. A rule per UPSTREAM, TOOL or SESSION leaves out
# requests that have none.
PER_GLOBAL: int
PER_KEY: int
PER_TEAM: int
PER_USER: int
PER_CHANNEL: int
PER_MODEL: int
PER_UPSTREAM: int
PER_TOOL: int
PER_SESSION: int
# Beside them in Limits.counts.
COUNTS_TOKENS: int
COUNTS_COST: int
COUNTS_LEASES: int
# Units. TOKENS is INPUT and OUTPUT together; COST is in micro-dollars; CONCURRENT and STREAMS are counted at once.
REQUESTS: int
TOKENS: int
INPUT: int
OUTPUT: int
COST: int
CONCURRENT: int
STREAMS: int
# Algorithms.
BUCKET: int
SLIDING: int
CALENDAR: int
TOTAL: int
# Calendars (UTC; a week begins on Monday).
HOUR: int
DAY: int
WEEK: int
MONTH: int
# Lease modes.
LEASED: int
OPEN: int
CLOSED: int
LOCAL: int

def subject(text: bytes) -> int:
    """A 64-bit hash that is the same in every worker (not Python's), for users and models.

    It has no secret key, so a caller can make names that collide or that crowd one place of the table. That buys
    nothing: a key's own rules carry the key's name, so a collision shares one bucket among users of that key (the
    caller could as well have sent the other's name), and crowding sends new subjects to the rule's overflow slot, which
    is stricter.
    """

class Table:
    """A fixed number of lines in a buffer (anonymous shared memory, a file's, or private): one a rule and subject.

    Buckets (``slots``), gates and leases take 64 bytes a line, windows (all but BUCKET) 256: with the default numbers
    4.8 MB, of which untouched pages cost nothing. There are so many windows because those of a monthly budget stay in
    use for the month: 10,000 subjects find room. Where 8 neighbouring lines (of windows 32) are all in use, a subject
    shares its rule's overflow line (64 more a sort), which is stricter, never laxer; a lease is then not given. A line
    goes to another subject 250 ms after nothing was counted in it any more (workers' clocks may differ by that much):
    a full bucket, an empty window, a gate that nobody is in.

    Times reach it as ``now_ns``: one monotonic clock for all workers. A table serves for 4.5 years after its first
    decision. A clock that stands still or goes back grants nothing extra. The wall clock, for calendars, is read once
    when the memory is made, so its jumps change nothing; see ``awake``.
    """

    @property
    def slots(self) -> int: ...
    @property
    def gates(self) -> int: ...
    @property
    def windows(self) -> int: ...
    @property
    def leases(self) -> int: ...
    worker: int
    """0 to 27: whose counts this process writes. May be set after a fork, before the first decision."""
    replicas: int
    """Nodes (1 to 1000) that share the amounts of leased rules while their mode is LOCAL; for all workers at once."""
    def __init__(
        self,
        buffer: Buffer | None = None,
        *,
        slots: int = 16384,
        gates: int = 4096,
        windows: int = 16384,
        leases: int = 16384,
        worker: int = 0,
        wall_ns: int | None = None,
    ) -> None:
        """``buffer`` must be writable, 64-byte aligned, zeroed at first use and of ``Table.size(...)`` bytes.

        Without it private memory is made. ``wall_ns``: UTC nanoseconds since 1970 at the caller's ``now_ns`` of 0; None
        takes it from the system's clocks (then ``now_ns`` must be CLOCK_MONOTONIC); only the first table of a memory
        sets it. Raises ValueError on any other buffer, on one that holds a table of another size or version, and on
        numbers out of range.
        """
    @staticmethod
    def size(slots: int = 16384, gates: int = 4096, windows: int = 16384, leases: int = 16384) -> int:
        """Bytes that such a table needs. Raises ValueError unless all are 8 to 16777216."""
    def overflowed(self) -> int:
        """How often a subject found no line and shared its rule's overflow line."""
    def in_use(self) -> int:
        """Buckets that hold a subject."""
    def reclaim(self, worker: int) -> int:
        """Take back all concurrency slots held by a dead worker; returns how many.

        Also undoes what it had half done in the table. Call it before a replacement with the same number starts.
        """
    @property
    def wall_ns(self) -> int:
        """UTC nanoseconds since 1970 at the caller's ``now_ns`` of 0, as calendars have it."""
    def awake(self, wall_ns: int) -> None:
        """The caller's clock stood still while the machine slept: ``wall_ns`` is that from here on, unless it is later already.

        Calendars then begin when they do; whatever a bucket or a window would have got in its sleep, it has not.
        """
    def resume(self, boot: int, now_ns: int, wall_ns: int) -> None:
        """Go on with memory that is kept in a file: by who alone has it, before anybody else's Table and decision.

        ``boot``: a number of this run of the machine, other than 0. In the same one the monotonic clock goes on; in
        another, as much time has passed as by the wall clock (never less than was seen), so that nothing refills
        wrongly. ``wall_ns``: UTC at ``now_ns``, from here on. What the dead held is free: concurrency slots, locks;
        credits are forgotten, debts are not.
        """
    def lend(self, tag: int, amount: int, expires_ns: int, now_ns: int, beyond: int = -1) -> bool:
        """Add ``amount`` to what may be spent here until ``expires_ns`` (for all of the credit) under that tag.

        ``tag`` is from ``Grant.short`` or ``wanting``. A debt is paid first; what is there already, expired or not, is
        lent with it (take it back with ``reclaim_credit`` before, to ask for less). ``beyond``: what the shared limit
        had left after this, for headers. False where the table has no line for it.
        """
    def current(self, rule: Rule) -> Rule:
        """What became of a leased rule: the one that goes on with its counts in the newest ``Limits`` here that had one."""
    def reclaim_credit(self, tag: int) -> int:
        """Take back all credit under the tag, expired or not. Below 0: a debt to be charged where the limit is kept."""
    def wanting(self, now_ns: int = -1) -> list[tuple[Rule, int, int]]:
        """(rule, tag, amount) of leases that ask for something; told once, to one caller, until an eighth is left. Empty costs nothing.

        Above 0: so much was spent since the last lease that less than a third of it is left (or there is a debt), and
        so much more would fill it up again; with one of these, a few others come along of which a quarter was spent, so
        that they need no round trip of their own. Below 0: so much came back after its lease had expired or been called in:
        ``reclaim_credit`` gives it. ``now_ns`` below 0 reads the monotonic clock.
        """
    def hear(self, heard: Callable[[], object] | None) -> None:
        """Call ``heard`` at a decision of this process after which ``wanting`` would give something; None: no more.

        It is not called again before ``wanting`` was, or a lease mode set. It is called within the decision: it has to be
        quick, must not decide itself, and what it raises is dropped.
        """
    def lease_mode(self, group: int) -> int:
        """LEASED (at first), OPEN, CLOSED or LOCAL. Group 1 is of leased rules in COST, group 0 of all others."""
    def set_lease_mode(self, group: int, mode: int) -> None:
        """For all workers at once, from their next decisions on.

        LEASED: what is taken comes from credit. OPEN: leased rules let all pass. CLOSED: they refuse, with
        ``Grant.closed``. LOCAL: each node has its share, ``amount // replicas`` and at least 1. What is spent here is
        counted in each mode, so LOCAL goes on from it.
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
        """What may come at once: a full bucket, a window's amount; 0 for what is counted at once."""
    @property
    def algorithm(self) -> int: ...
    @property
    def calendar(self) -> int:
        """-1 without one."""
    @property
    def only(self) -> tuple[int, int]: ...
    @property
    def leased(self) -> bool: ...
    @property
    def marks(self) -> tuple[float, ...]: ...
    def __init__(
        self,
        name: str,
        per: int,
        unit: int,
        amount: int,
        period_ns: int = 0,
        burst: int = 0,
        *,
        algorithm: int = ...,
        calendar: int = -1,
        only: tuple[int, int] = (0, 0),
        leased: bool = False,
        marks: Sequence[float] = (),
    ) -> None:
        """``amount`` per ``period_ns`` for each combination of the subjects in ``per``.

        BUCKET: refills all the time up to ``burst`` (0: the full amount); up to twice the amount may pass within one
        period. One request or token refills in ``period_ns / amount``, rounded up to 1/64 ns; where that is under
        16 ns, fractions count and a request is rounded up instead. SLIDING: never more than ``amount`` within
        any ``period_ns``; counted in parts of a 23rd of it, so capacity comes back in such steps and up to one of them
        late. CALENDAR: ``amount`` an hour, day, week or month. TOTAL: ``amount`` in all, forgotten after ``period_ns``
        in which nothing was let pass or settled.

        CONCURRENT and STREAMS take neither period nor algorithm; STREAMS counts requests that stream. They go up to
        1,834,980, and up to 65,535 in one worker. ``only``: (a PER_ bit, a subject): the rule is for requests with
        that subject. ``leased``: the amount is kept elsewhere and spent here from leases. ``marks``: up to 4 shares of
        the amount, told by ``Grant.crossed`` when the count first gets there.

        A BUCKET of any unit, and any rule in tokens, lets an estimate above its burst or amount pass as if it were
        that; a window in COST refuses it. Raises ValueError, also where a full bucket would take longer than 2.2 years
        to refill.
        """

class Standing:
    """What a rule has left for a subject: of a leased one, the credit here."""

    @property
    def rule(self) -> Rule: ...
    @property
    def remaining(self) -> int: ...
    @property
    def elsewhere(self) -> int:
        """Of a leased rule, while it is leased: what was left beyond it when some was last lent to here. Else 0."""
    @property
    def reset_ns(self) -> int:
        """Time until it is full again; 0 for what is counted at once."""

class Limits:
    """The immutable set of rules that a key's requests come under.

    At most 256, each with a name of its own; at most 16 that can apply to one request.
    """

    def __init__(self, table: Table, rules: Sequence[Rule]) -> None:
        """Rules with the same name and unit as in an earlier set go on with its counts. Raises ValueError.

        A sliding window whose period has changed begins anew, and so does a rule whose algorithm has.
        """
    @property
    def table(self) -> Table: ...
    @property
    def rules(self) -> tuple[Rule, ...]: ...
    @property
    def counts(self) -> int:
        """What the rules look at: PER_ and COUNTS_ bits. Nobody reads what is not in it, so callers may leave it 0."""
    def admit(
        self,
        now_ns: int,
        *,
        key: int = 0,
        team: int = 0,
        user: int = 0,
        channel: int = 0,
        model: int = 0,
        upstream: int = 0,
        tool: int = 0,
        session: int = 0,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cost: int = 0,
        stream: bool = False,
    ) -> Grant:
        """All rules or none.

        Subjects are 64-bit hashes; tokens and cost (micro-dollars) are estimates >= 0; ``now_ns`` is monotonic. Raises
        ValueError on numbers below 0.
        """
    def look(
        self,
        now_ns: int,
        *,
        key: int = 0,
        team: int = 0,
        user: int = 0,
        channel: int = 0,
        model: int = 0,
        upstream: int = 0,
        tool: int = 0,
        session: int = 0,
    ) -> list[Standing]:
        """What each rule that applies to such a request has left. Takes nothing and makes no lines."""

class Grant:
    """The outcome of one decision, and what was taken: a reservation that is settled and released exactly once."""

    @property
    def granted(self) -> bool: ...
    @property
    def rule(self) -> Rule | None:
        """The rule that refused (the first one), or None."""
    @property
    def closed(self) -> bool:
        """Refused because the rule's lease mode is CLOSED: where the limit is kept cannot be asked."""
    @property
    def short(self) -> tuple[tuple[Rule, int, int], ...]:
        """Refused for want of credit: (rule, tag, what is missing) of all leased rules without enough; else ().

        After ``extend`` and ``move``: of the rule that they gave.
        """
    @property
    def cost(self) -> int:
        """What it asks of rules in COST, in micro-dollars."""
    @property
    def crossed(self) -> tuple[tuple[Rule, float], ...]:
        """(rule, mark) of what this exchange made the counts reach, by its taking, being refused or settling.

        Each mark of a window is told once while the count stays above it; of a leased rule by what is spent here. At
        most 8.
        """
    @property
    def retry_after_ns(self) -> int:
        """When refused: time until the same request can pass that rule (0 for a gate: unknown).

        For one that can never pass: until the count begins anew.
        """
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
    def tokens_limit(self) -> int:
        """The same of rules in TOKENS, INPUT and OUTPUT."""
    @property
    def tokens_remaining(self) -> int: ...
    @property
    def tokens_reset_ns(self) -> int: ...
    @property
    def input_tokens_limit(self) -> int:
        """The same of rules in INPUT alone."""
    @property
    def input_tokens_remaining(self) -> int: ...
    @property
    def input_tokens_reset_ns(self) -> int: ...
    @property
    def output_tokens_limit(self) -> int:
        """The same of rules in OUTPUT alone."""
    @property
    def output_tokens_remaining(self) -> int: ...
    @property
    def output_tokens_reset_ns(self) -> int: ...
    def settle(self, input_tokens: int, output_tokens: int, cost: int, now_ns: int) -> bool:
        """Replace the estimates by the truth. True the first time, False (and nothing happens) afterwards.

        What was estimated too much goes back to where it came from, unless that is not counted any more or is a
        bucket's overflow line; to a lease, too, which never holds more than the full amount by it. What was estimated
        too little is charged at ``now_ns`` and may leave a debt that later requests wait for. Tokens over 2**31 and
        micro-dollars over 2**52 count as that. A refused grant took nothing: False. Raises ValueError on numbers below
        0.
        """
    def extend(self, output_tokens: int, cost: int, now_ns: int, input_tokens: int = 0) -> Rule | None:
        """Reserve more while the answer goes on, by all rules or none; the rule that refused.

        ``input_tokens``: of a session, whose every answer reads a prompt of its own.
        After the settlement nothing happens. Raises ValueError on numbers below 0.
        """
    def move(self, upstream: int, now_ns: int) -> Rule | None:
        """The exchange goes on at another upstream; the rule that refused, then nothing is held of either.

        What rules that look at the upstream took is given back, and taken for the new one. After a refusal (see
        ``retry_after_ns`` and ``closed``) it can move on to yet another. After settlement or release nothing happens.
        """
    def cancel(self, now_ns: int) -> bool:
        """Give back all but the concurrency slots: nothing was sent upstream. The settlement, hence True the first time only."""
    def release(self) -> bool:
        """Give back the concurrency slots. True the first time only. Also happens when the grant is deallocated."""
