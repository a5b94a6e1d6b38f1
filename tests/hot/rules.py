"""Short names for rules and sets of rules, for the tests of ``limit``."""

from agw_proxy._hot import limit

SECOND = 10**9
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


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


def limits(*rules: limit.Rule, table: limit.Table | None = None) -> limit.Limits:
    return limit.Limits(table or limit.Table(), rules)
