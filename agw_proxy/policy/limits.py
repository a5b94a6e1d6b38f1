"""Limits in the configuration -> compiled rules, and refusals -> errors and headers."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from agw_proxy._hot.limit import (
    BUCKET,
    CALENDAR,
    CONCURRENT,
    COST,
    DAY,
    HOUR,
    INPUT,
    MONTH,
    OUTPUT,
    PER_CHANNEL,
    PER_GLOBAL,
    PER_KEY,
    PER_MODEL,
    PER_SESSION,
    PER_TEAM,
    PER_TOOL,
    PER_UPSTREAM,
    PER_USER,
    REQUESTS,
    SLIDING,
    STREAMS,
    TOKENS,
    TOTAL,
    WEEK,
    Grant,
    Limits,
    Rule,
)
from agw_proxy.config.allowances import Budget, Limit, Sessions, Subject
from agw_proxy.errors import BudgetSpent, LimitsUnavailable, RateLimited, SessionSpent
from agw_proxy.types import Dialect

PER: dict[Subject, int] = {
    "global": PER_GLOBAL,
    "key": PER_KEY,
    "team": PER_TEAM,
    "user": PER_USER,
    "channel": PER_CHANNEL,
    "model": PER_MODEL,
    "upstream": PER_UPSTREAM,
    "tool": PER_TOOL,
    "session": PER_SESSION,
}
CALENDARS = {"hour": HOUR, "day": DAY, "week": WEEK, "month": MONTH}
PERIODS = {calendar: word for word, calendar in CALENDARS.items()}
UNITS = {
    REQUESTS: "requests",
    TOKENS: "tokens",
    INPUT: "input tokens",
    OUTPUT: "output tokens",
    CONCURRENT: "concurrent requests",
    STREAMS: "streams at the same time",
}
NANOSECONDS = 1_000_000_000
MICRO = 1_000_000  # micro-dollars in a dollar
WAIT_MS = 1000  # for a place among requests at the same time: nobody knows when one is free
NEVER_MS = 3_600_000  # for what no waiting helps: by then the settings may be others


class Place(NamedTuple):
    """Where limits stand: ``name`` begins their rules' names, ``here`` is who counts where they do not say.

    ``only``: (a PER_ bit, a subject) of the requests that they are for; 0 for all.
    """

    name: str
    here: Subject = "global"
    only: tuple[int, int] = (0, 0)
    leased: bool = False
    """They are kept in Redis, and spent here by parts."""


class Names:
    """Gives each rule of a place a name of its own: stable over reloads, bounded as a metric label."""

    def __init__(self, place: Place) -> None:
        self._place = place.name
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """``place/name``, numbered where it is taken."""
        made = base = f"{self._place}/{name}"
        number = 2
        while made in self._taken:
            made, number = f"{base}-{number}", number + 1
        self._taken.add(made)
        return made


def compile_limits(limits: Sequence[Limit], place: Place, names: Names) -> list[Rule]:
    """Rules named ``place/per-unit`` (or ``place/name``). Raises ValueError for what cannot be counted."""
    rules: list[Rule] = []
    for limit in limits:
        unit, word, amount = _counted(limit)
        per, who = _per(limit.per, place)
        name = names.take(limit.name or f"{word}-per-{who}")
        if unit in {CONCURRENT, STREAMS}:
            rules.append(Rule(name, per, unit, amount, only=place.only))
            continue
        sliding = limit.algorithm == "sliding_window"
        burst = (limit.burst or 0) * (MICRO if unit == COST else 1)
        rules.append(
            Rule(
                name,
                per,
                unit,
                amount,
                round(limit.period * NANOSECONDS),
                0 if sliding else burst,
                algorithm=SLIDING if sliding else BUCKET,
                only=place.only,
                leased=place.leased,
            )
        )
    return rules


def compile_budgets(budgets: Sequence[Budget], place: Place, names: Names) -> list[tuple[Rule, Budget]]:
    """Windows over what calls cost, named ``place/budget-per-key-month`` and the like. Raises ValueError."""
    made: list[tuple[Rule, Budget]] = []
    for budget in budgets:
        per, who = _per(budget.per, place)
        calendar = CALENDARS.get(budget.period, -1) if isinstance(budget.period, str) else -1
        period_ns = 0 if isinstance(budget.period, str) else round(budget.period * NANOSECONDS)
        word = budget.period if isinstance(budget.period, str) else duration(period_ns)
        rule = Rule(
            names.take(budget.name or f"budget-per-{who}-{word}"),
            per,
            COST,
            budget.usd,
            period_ns,
            algorithm=SLIDING if calendar < 0 else CALENDAR,
            calendar=calendar,
            only=place.only,
            leased=place.leased,
            marks=tuple(sorted(set(budget.alerts) - {0.0})),
        )
        made.append((rule, budget))
    return made


def within_runs(limits: Limits) -> Limits:
    """The rules for requests that a run makes while it answers one: those that count tokens and money.

    The request that the run answers has been counted as one, and has its place among those at the same time for as long
    as the run takes; with a second one for each of the run's own, a key with one place could never finish a run. Rules
    that look at models or upstreams stay, whatever they count: the run's requests ask others than the one it answers. So
    do those that look at tools: an agent that is asked by another calls its own.
    """
    kept = [
        rule
        for rule in limits.rules
        if rule.unit in {TOKENS, INPUT, OUTPUT, COST}
        or (rule.per | rule.only[0]) & (PER_MODEL | PER_UPSTREAM | PER_TOOL)
    ]
    return limits if len(kept) == len(limits.rules) else Limits(limits.table, kept)


def compile_sessions(sessions: Sessions, place: Place, names: Names) -> list[Rule]:
    """Caps on each session: ``place/session-turns``, ``session-tokens``, ``session-usd``. Raises ValueError."""
    idle_ns = round(sessions.idle * NANOSECONDS)
    amounts = ((REQUESTS, sessions.turns, "turns"), (TOKENS, sessions.tokens, "tokens"), (COST, sessions.usd, "usd"))
    return [
        Rule(
            names.take(f"session-{word}"),
            PER_SESSION,
            unit,
            amount,
            idle_ns,
            algorithm=TOTAL,
            leased=place.leased,
        )
        for unit, amount, word in amounts
        if amount is not None
    ]


def _counted(limit: Limit) -> tuple[int, str, int]:
    """Unit, the word for it in a rule's name, and how much of it."""
    amounts = (
        (REQUESTS, "requests", limit.requests),
        (TOKENS, "tokens", limit.tokens),
        (INPUT, "input-tokens", limit.input_tokens),
        (OUTPUT, "output-tokens", limit.output_tokens),
        (COST, "usd", limit.usd),
        (CONCURRENT, "concurrent", limit.concurrent),
        (STREAMS, "streams", limit.streams),
    )
    return next((unit, word, amount) for unit, word, amount in amounts if amount is not None)


def _per(per: Sequence[Subject] | None, place: Place) -> tuple[int, str]:
    """PER_ bits, and the word for them."""
    subjects = (place.here,) if per is None else per
    bits = 0
    for subject in subjects:
        bits |= PER[subject]
    return bits, "-".join(subjects)


def refusal(
    grant: Grant,
    rule: Rule | None = None,
    *,
    budget: bool = False,
    dialect: Dialect = "openai",
    wait_ns: int | None = None,
) -> RateLimited | LimitsUnavailable:
    """The error for a request that was not granted, or not any more.

    ``rule``: the one that refused a move or an extension. ``budget``: the rule is one.
    ``wait_ns``: until the request may pass, where that is known better than the grant does.
    """
    rule = rule or grant.rule
    if rule is None:
        raise ValueError("the request was granted")
    if grant.closed:
        return LimitsUnavailable(
            f"Limit '{rule.name}' is shared with other gateways, and what they share does not answer. Try again soon.",
            retry_after_ms=WAIT_MS,
        )
    if rule.unit in {CONCURRENT, STREAMS}:
        message = (
            f"Limit '{rule.name}' reached: {rule.amount} {UNITS[rule.unit]}. Wait for one to finish and try again."
        )
        return RateLimited(message, rule=rule.name, retry_after_ms=WAIT_MS)
    wait_ns = grant.retry_after_ns if wait_ns is None else wait_ns
    wait_ms = -(-wait_ns // 1_000_000)
    amount = dollars(rule.amount) if rule.unit == COST else f"{rule.amount} {UNITS[rule.unit]}"
    if rule.algorithm == TOTAL:
        what = "turns" if rule.unit == REQUESTS else amount
        said = f"{rule.amount} turns" if rule.unit == REQUESTS else what
        message = (
            f"Limit '{rule.name}' reached: {said} a session. Begin a new session, "
            f"or leave this one alone for {duration(rule.period_ns)}."
        )
        return SessionSpent(message, rule=rule.name, retry_after_ms=wait_ms)
    if budget:
        period = f"a {PERIODS[rule.calendar]}" if rule.algorithm == CALENDAR else f"in {duration(rule.period_ns)}"
        message = f"Budget '{rule.name}' does not allow this request: {amount} {period}. "
        if not grant.granted and grant.cost > rule.amount:
            message += f"It alone may cost up to {dollars(grant.cost)}. Ask for a shorter answer."
            wait_ms = max(wait_ms, NEVER_MS)
        else:
            message += f"What is spent or reserved leaves too little until {stamp(wait_ns)}."
        return BudgetSpent(message, rule=rule.name, retry_after_ms=wait_ms, dialect=dialect)
    message = (
        f"Limit '{rule.name}' reached: {amount} per {duration(rule.period_ns)}. "
        f"Try again in {duration(wait_ms * 1_000_000)}."
    )
    return RateLimited(message, rule=rule.name, retry_after_ms=wait_ms)


def limit_headers(grant: Grant, dialect: Dialect = "openai") -> list[tuple[str, str]]:
    """``x-ratelimit-*`` of the tightest rule in requests and in tokens; for Anthropic's clients their own, too."""
    headers: list[tuple[str, str]] = []
    if grant.requests_limit >= 0:
        headers += [
            ("x-ratelimit-limit-requests", str(grant.requests_limit)),
            ("x-ratelimit-remaining-requests", str(grant.requests_remaining)),
            ("x-ratelimit-reset-requests", duration(grant.requests_reset_ns)),
        ]
    if grant.tokens_limit >= 0:
        headers += [
            ("x-ratelimit-limit-tokens", str(grant.tokens_limit)),
            ("x-ratelimit-remaining-tokens", str(grant.tokens_remaining)),
            ("x-ratelimit-reset-tokens", duration(grant.tokens_reset_ns)),
        ]
    return headers + _anthropic(grant) if dialect == "anthropic" else headers


def _anthropic(grant: Grant) -> list[tuple[str, str]]:
    kinds = (
        ("requests", grant.requests_limit, grant.requests_remaining, grant.requests_reset_ns),
        ("tokens", grant.tokens_limit, grant.tokens_remaining, grant.tokens_reset_ns),
        ("input-tokens", grant.input_tokens_limit, grant.input_tokens_remaining, grant.input_tokens_reset_ns),
        ("output-tokens", grant.output_tokens_limit, grant.output_tokens_remaining, grant.output_tokens_reset_ns),
    )
    headers: list[tuple[str, str]] = []
    for kind, limit, remaining, reset_ns in kinds:
        if limit >= 0:
            headers += [
                (f"anthropic-ratelimit-{kind}-limit", str(limit)),
                (f"anthropic-ratelimit-{kind}-remaining", str(remaining)),
                (f"anthropic-ratelimit-{kind}-reset", stamp(reset_ns)),
            ]
    return headers


def limited(grant: Grant) -> bool:
    """Headers of ours tell of it, in place of the upstream's."""
    return grant.requests_limit >= 0 or grant.tokens_limit >= 0


def stamp(nanoseconds: int) -> str:
    """The time so far ahead, in RFC 3339 and UTC, rounded up to a whole second."""
    now = datetime.now(UTC).timestamp()
    return datetime.fromtimestamp(-(-(now * NANOSECONDS + nanoseconds) // NANOSECONDS), UTC).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )


def dollars(micro: int) -> str:
    """``$0.25``, ``$1,000.00``, ``$0.000012``."""
    text = f"{micro / MICRO:,.6f}".rstrip("0")
    whole, _, cents = text.partition(".")
    return f"${whole}.{cents:0<2}"


def duration(nanoseconds: int) -> str:
    """As OpenAI writes it: ``2m30s``, ``1.5s``, ``120ms``; rounded up to whole milliseconds."""
    milliseconds = -(-max(nanoseconds, 0) // 1_000_000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if minutes else ""
    return text + (f"{seconds}s" if rest or not text else "")
