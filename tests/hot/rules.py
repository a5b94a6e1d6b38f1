"""Short names for rules and sets of rules, for the tests of ``limit``."""

from agw_proxy._hot import limit

SECOND = 10**9
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def requests(
    amount: int, period_ns: int = MINUTE, burst: int = 0, per: int = limit.PER_KEY, name: str = "r"
) -> limit.Rule:
    return limit.Rule(name, per, limit.REQUESTS, amount, period_ns, burst)


def tokens(
    amount: int, period_ns: int = MINUTE, burst: int = 0, per: int = limit.PER_KEY, name: str = "t"
) -> limit.Rule:
    return limit.Rule(name, per, limit.TOKENS, amount, period_ns, burst)


def gate(amount: int, per: int = limit.PER_KEY, name: str = "g") -> limit.Rule:
    return limit.Rule(name, per, limit.CONCURRENT, amount)


def sliding(
    amount: int, period_ns: int = MINUTE, unit: int = limit.REQUESTS, per: int = limit.PER_KEY, name: str = "s"
) -> limit.Rule:
    return limit.Rule(name, per, unit, amount, period_ns, algorithm=limit.SLIDING)


def budget(
    amount: int,
    calendar: int = limit.MONTH,
    unit: int = limit.COST,
    per: int = limit.PER_KEY,
    name: str = "b",
    marks: tuple[float, ...] = (),
) -> limit.Rule:
    return limit.Rule(name, per, unit, amount, algorithm=limit.CALENDAR, calendar=calendar, marks=marks)


def cap(amount: int, idle_ns: int = HOUR, unit: int = limit.REQUESTS, name: str = "c") -> limit.Rule:
    return limit.Rule(name, limit.PER_SESSION, unit, amount, idle_ns, algorithm=limit.TOTAL)


def limits(*rules: limit.Rule, table: limit.Table | None = None) -> limit.Limits:
    return limit.Limits(table or limit.Table(), rules)
