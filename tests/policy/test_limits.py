"""Configured limits become rules with stable names; refusals say what was reached and when to come again."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy._hot.limit import (
    CALENDAR,
    CONCURRENT,
    COST,
    INPUT,
    MONTH,
    OUTPUT,
    PER_GLOBAL,
    PER_KEY,
    PER_MODEL,
    PER_TEAM,
    PER_USER,
    REQUESTS,
    SLIDING,
    TOKENS,
    Grant,
    Limits,
    Rule,
    Table,
)
from agw_proxy.config.allowances import Budget, Limit
from agw_proxy.errors import RateLimited
from agw_proxy.policy.limits import (
    Names,
    Place,
    compile_budgets,
    compile_limits,
    dollars,
    duration,
    limit_headers,
    refusal,
    within_runs,
)

SECOND = 1_000_000_000
UNITS_MS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def limit(**fields: object) -> Limit:
    return Limit.model_validate(fields)


def compiled(limits: list[Limit], scope: str) -> list[Rule]:
    place = Place(scope)
    return compile_limits(limits, place, Names(place))


def decide(*rules: Rule, tokens: int = 0, times: int = 1) -> Grant:
    limits = Limits(Table(slots=8, gates=8), rules)
    grants = [limits.admit(SECOND, key=1, user=2, model=3, input_tokens=tokens) for _ in range(times)]
    return grants[-1]


def test_every_unit_becomes_a_rule_with_its_numbers() -> None:
    rules = compiled(
        [
            limit(per="key", requests=600, period="1m", burst=60),
            limit(per="user", tokens=200000, period="1m"),
            limit(per="global", concurrent=50),
        ],
        "keys.app",
    )
    shape = [(rule.name, rule.per, rule.unit, rule.amount, rule.period_ns, rule.burst) for rule in rules]
    assert shape == [
        ("keys.app/requests-per-key", PER_KEY, REQUESTS, 600, 60 * SECOND, 60),
        ("keys.app/tokens-per-user", PER_USER, TOKENS, 200000, 60 * SECOND, 200000),
        ("keys.app/concurrent-per-global", PER_GLOBAL, CONCURRENT, 50, 0, 0),
    ]


def test_names_are_taken_over_and_kept_apart() -> None:
    rules = compiled(
        [
            limit(per="key", requests=1),
            limit(per="key", requests=2, period="1h"),
            limit(per="key", requests=3, period="1d"),
            limit(per="key", requests=4, name="nightly"),
        ],
        "global",
    )
    assert [rule.name for rule in rules] == [
        "global/requests-per-key",
        "global/requests-per-key-2",
        "global/requests-per-key-3",
        "global/nightly",
    ]


@pytest.mark.parametrize(
    ("rule", "tokens", "said"),
    [
        (Rule("app/r", PER_KEY, REQUESTS, 1, 60 * SECOND), 0, "1 requests per 1m. Try again in 1m."),
        (Rule("app/t", PER_KEY, TOKENS, 100, SECOND), 100, "100 tokens per 1s. Try again in 1s."),
        (Rule("app/c", PER_KEY, CONCURRENT, 1), 0, "1 concurrent requests. Wait for one to finish"),
    ],
    ids=["requests", "tokens", "concurrent"],
)
def test_a_refusal_names_its_rule_and_when_to_come_again(rule: Rule, tokens: int, said: str) -> None:
    limits = Limits(Table(slots=8, gates=8), [rule])
    first = limits.admit(SECOND, key=1, user=2, model=3, input_tokens=tokens)
    error = refusal(limits.admit(SECOND, key=1, user=2, model=3, input_tokens=tokens))
    assert first.granted
    assert isinstance(error, RateLimited)
    assert (error.status, error.rule, error.code) == (429, rule.name, "policy_rate_limited")
    assert f"'{rule.name}'" in error.message
    assert said in error.message
    assert error.retry_after_ms is not None
    assert error.retry_after_ms >= 1


def test_what_was_granted_is_no_refusal() -> None:
    with pytest.raises(ValueError, match="granted"):
        refusal(decide(Rule("r", PER_KEY, REQUESTS, 1, SECOND)))


def test_the_wait_is_rounded_up_so_that_the_retry_passes() -> None:
    limits = Limits(Table(slots=8, gates=8), [Rule("r", PER_KEY, REQUESTS, 7, SECOND, 1)])
    assert limits.admit(SECOND, key=1, user=2, model=3).granted
    wait_ms = refusal(limits.admit(SECOND, key=1, user=2, model=3)).retry_after_ms
    assert wait_ms == 143
    assert limits.admit(SECOND + wait_ms * 1_000_000, key=1, user=2, model=3).granted


def test_headers_tell_of_both_units_and_of_none_that_is_not_limited() -> None:
    requests = Rule("r", PER_KEY, REQUESTS, 10, 60 * SECOND)
    tokens = Rule("t", PER_KEY, TOKENS, 1000, 60 * SECOND)
    assert limit_headers(decide()) == []
    assert dict(limit_headers(decide(requests))) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "6s",
    }
    both = dict(limit_headers(decide(requests, tokens, tokens=250)))
    assert len(both) == 6
    assert both["x-ratelimit-remaining-tokens"] == "750"
    assert both["x-ratelimit-reset-tokens"] == "15s"
    refused = dict(limit_headers(decide(requests, times=11)))
    assert refused["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (-5, "0ms"),
        (0, "0ms"),
        (1, "1ms"),
        (120_000_000, "120ms"),
        (SECOND, "1s"),
        (1_500_000_000, "1.5s"),
        (60 * SECOND, "1m"),
        (150 * SECOND, "2m30s"),
        (3600 * SECOND, "1h"),
        (3601 * SECOND, "1h1s"),
        (86_400 * SECOND, "24h"),
        (59_999_999_999, "1m"),
    ],
)
def test_durations_are_written_as_openai_does(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text


@given(st.integers(0, 10**18))
def test_a_duration_reads_back_to_the_millisecond_rounded_up(nanoseconds: int) -> None:
    text = duration(nanoseconds)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", text)
    assert "".join(number + unit for number, unit in parts) == text
    assert round(sum(float(number) * UNITS_MS[unit] for number, unit in parts)) == -(-nanoseconds // 1_000_000)


def compile_budget(**fields: object) -> tuple[Rule, str]:
    place = Place("teams.red", "team")
    ((rule, budget),) = compile_budgets([Budget.model_validate(fields)], place, Names(place))
    grant = Limits(Table(), [rule]).admit(SECOND, team=1, cost=budget.usd + 1)
    return rule, refusal(grant, budget=True).message


def test_a_budget_is_a_window_over_money() -> None:
    rule, said = compile_budget(usd=50, period="month", alerts=[1.0, 0.5])
    assert (rule.name, rule.unit, rule.per) == ("teams.red/budget-per-team-month", COST, PER_TEAM)
    assert (rule.algorithm, rule.calendar, rule.amount, rule.marks) == (CALENDAR, MONTH, 50_000_000, (0.5, 1.0))
    assert "$50.00 a month" in said
    rule, said = compile_budget(usd="0.25", period="30d", per=["team", "model"])
    assert (rule.name, rule.per) == ("teams.red/budget-per-team-model-720h", PER_TEAM | PER_MODEL)
    assert (rule.algorithm, rule.period_ns) == (SLIDING, 30 * 86_400 * SECOND)
    assert "$0.25 in 720h" in said


def test_what_a_whole_budget_is_too_small_for_is_told_so() -> None:
    place = Place("keys.app", "key")
    ((rule, _),) = compile_budgets([Budget.model_validate({"usd": "0.0012", "period": "day"})], place, Names(place))
    limits = Limits(Table(), [rule])
    error = refusal(limits.admit(SECOND, key=1, cost=10_240), budget=True)
    assert "It alone may cost up to $0.01024." in error.message
    assert error.retry_after_ms is not None
    assert error.retry_after_ms >= 3_600_000
    assert limits.admit(SECOND, key=1, cost=1000).granted
    assert "What is spent or reserved" in refusal(limits.admit(SECOND, key=1, cost=1000), budget=True).message


def test_what_has_gone_on_over_several_days_is_not_told_that_it_never_fits_into_one() -> None:
    place, day = Place("keys.app", "key"), 24 * 3600 * SECOND
    ((rule, _),) = compile_budgets([Budget.model_validate({"usd": "0.0012", "period": "day"})], place, Names(place))
    limits = Limits(Table(), [rule])
    grant = limits.admit(SECOND, key=1, cost=1000)
    assert grant.extend(0, 1000, 3 * day) is None
    refused = grant.extend(0, 1000, 3 * day + SECOND)
    assert refused is rule
    error = refusal(grant, refused, budget=True)
    assert "What is spent or reserved" in error.message


def test_anthropics_headers_tell_each_unit_apart() -> None:
    rules = [
        Rule("r", PER_KEY, REQUESTS, 10, 60 * SECOND),
        Rule("i", PER_KEY, INPUT, 100, 60 * SECOND),
        Rule("o", PER_KEY, OUTPUT, 50, 60 * SECOND),
    ]
    grant = Limits(Table(), rules).admit(SECOND, key=1, input_tokens=25, output_tokens=49)
    told = dict(limit_headers(grant, "anthropic"))
    left = {name: told[f"anthropic-ratelimit-{name}-remaining"] for name in ("requests", "input-tokens", "tokens")}
    assert left == {"requests": "9", "input-tokens": "75", "tokens": "1"}
    assert told["anthropic-ratelimit-output-tokens-limit"] == "50"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told["anthropic-ratelimit-tokens-reset"])
    assert {name for name in told if name.startswith("x-ratelimit")} == set(dict(limit_headers(grant)))


@pytest.mark.parametrize(
    ("micro", "text"), [(250_000, "$0.25"), (12, "$0.000012"), (1_000_000_000, "$1,000.00"), (1_500_000, "$1.50")]
)
def test_money_is_written_with_cents_or_as_finely_as_it_takes(micro: int, text: str) -> None:
    assert dollars(micro) == text


def test_within_runs_tokens_and_money_count_and_requests_only_by_whom_they_ask() -> None:
    amounts: list[dict[str, object]] = [
        {"requests": 1, "period": "1m"},
        {"tokens": 2, "period": "1m"},
        {"input_tokens": 3, "period": "1m"},
        {"output_tokens": 4, "period": "1m"},
        {"usd": 5, "period": "1m"},
        {"concurrent": 6},
        {"streams": 7},
        {"requests": 8, "period": "1m", "per": ["key", "model"]},
        {"concurrent": 9, "per": "upstream"},
        {"requests": 11, "period": "1m", "per": ["key", "tool"]},
    ]
    rules = compiled([limit(**amount) for amount in amounts], "keys.app")
    only = Place("models.gpt", "model", (PER_MODEL, 5))
    rules += compile_limits([limit(requests=10, period="1m", per="key")], only, Names(only))
    limits = Limits(Table(slots=64, gates=8), rules)
    kept = within_runs(limits)
    assert [rule.unit for rule in kept.rules] == [TOKENS, INPUT, OUTPUT, COST, REQUESTS, CONCURRENT, REQUESTS, REQUESTS]
    assert within_runs(kept) is kept


def test_what_counts_within_runs_counts_outside_of_them() -> None:
    limits = Limits(Table(slots=8, gates=8), compiled([limit(tokens=10, period="1h"), limit(concurrent=1)], "keys.app"))
    outer = limits.admit(SECOND, key=1)
    inner = within_runs(limits).admit(SECOND, key=1, input_tokens=10)
    assert (outer.granted, inner.granted) == (True, True)
    outer.release()
    assert not limits.admit(SECOND, key=1, input_tokens=1).granted
