"""Limits against the plain model: every algorithm, unit and subject, alone and together, in virtual time."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agw_proxy._hot import limit
from tests.hot import model_limit
from tests.hot.rules import DAY, HOUR, MINUTE, SECOND, budget, cap, gate, limits, requests, sliding, tokens

WALL = int(dt.datetime(2027, 2, 28, 23, 59, 30, tzinfo=dt.UTC).timestamp()) * SECOND
UP = limit.PER_UPSTREAM
RULES = (
    requests(3, SECOND, per=limit.PER_GLOBAL, name="all"),
    requests(7, 3 * SECOND, burst=2),
    tokens(97, 11 * SECOND + 1, per=limit.PER_USER),
    tokens(50, SECOND, burst=120, per=limit.PER_MODEL, name="m"),
    tokens(10**12, SECOND, per=limit.PER_USER | limit.PER_MODEL, name="huge"),
    limit.Rule("in", limit.PER_KEY, limit.INPUT, 90, 5 * SECOND),
    limit.Rule("out", limit.PER_TEAM, limit.OUTPUT, 70, 4 * SECOND),
    limit.Rule("money", limit.PER_KEY, limit.COST, 500, 60 * SECOND, marks=()),
    gate(2),
    gate(3, per=limit.PER_USER, name="u"),
    limit.Rule("streams", limit.PER_KEY, limit.STREAMS, 1),
    sliding(4, 7 * SECOND),
    sliding(130, 3 * SECOND, unit=limit.TOKENS, per=limit.PER_USER, name="st"),
    sliding(200, 10 * SECOND, unit=limit.COST, per=limit.PER_GLOBAL, name="sc"),
    sliding(5, MINUTE, per=limit.PER_USER | limit.PER_SESSION, name="us"),
    budget(300, limit.HOUR, marks=(0.5, 0.8, 1.0)),
    budget(10**15, limit.DAY, per=limit.PER_TEAM, name="bd"),
    budget(400, limit.WEEK, name="bw", marks=(0.25,)),
    budget(250, limit.MONTH, unit=limit.TOKENS, per=limit.PER_KEY | limit.PER_USER, name="bm"),
    cap(5, 3 * SECOND),
    limit.Rule("ct", limit.PER_SESSION, limit.TOKENS, 200, 2 * SECOND, algorithm=limit.TOTAL, marks=(0.7,)),
    requests(2, 2 * SECOND, per=UP, name="up"),
    limit.Rule("up/in", limit.PER_GLOBAL, limit.INPUT, 100, 9 * SECOND, algorithm=limit.SLIDING, only=(UP, 1)),
    limit.Rule("up/gate", limit.PER_GLOBAL, limit.CONCURRENT, 1, only=(UP, 2)),
    limit.Rule("model", limit.PER_KEY, limit.REQUESTS, 1, SECOND, only=(limit.PER_MODEL, 3)),
)
AMOUNTS = st.integers(0, 130)
ASKS = st.fixed_dictionaries(
    {"key": st.integers(0, 1), "user": st.integers(0, 2), "upstream": st.integers(0, 2)},
    optional={
        "team": st.integers(0, 1),
        "model": st.integers(2, 3),
        "session": st.integers(0, 1),
        "stream": st.booleans(),
        "input_tokens": AMOUNTS,
        "output_tokens": AMOUNTS,
        "cost": st.integers(0, 350),
    },
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(-SECOND, 4 * SECOND), st.just(0), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([MINUTE, HOUR, DAY, 3 * DAY]), st.just(0), st.just(0)),
        st.tuples(st.just("admit"), ASKS, st.just(0), st.just(0)),
        st.tuples(st.just("look"), ASKS, st.just(0), st.just(0)),
        st.tuples(
            st.sampled_from(["settle", "cancel", "release", "extend", "move"]), st.integers(0, 20), AMOUNTS, AMOUNTS
        ),
    ),
    max_size=60,
)


def seen(grant: limit.Grant) -> tuple[object, ...]:
    return (
        grant.rule,
        grant.retry_after_ns,
        (grant.requests_limit, grant.requests_remaining, grant.requests_reset_ns),
        (grant.tokens_limit, grant.tokens_remaining, grant.tokens_reset_ns),
        (grant.input_tokens_limit, grant.input_tokens_remaining, grant.input_tokens_reset_ns),
        (grant.output_tokens_limit, grant.output_tokens_remaining, grant.output_tokens_reset_ns),
        list(grant.crossed),
    )


def wanted(grant: model_limit.Grant) -> tuple[object, ...]:
    rooms = [(room.limit, room.remaining, room.reset_ns) for room in grant.rooms]
    return grant.rule, grant.retry_after_ns, *rooms, grant.crossed[:8]


def same(what: str, mine: limit.Grant, theirs: model_limit.Grant, a: int, b: int, now: int) -> None:
    """One step of a grant's life: both do the same."""
    if what == "settle":
        assert mine.settle(a, b, a + b, now) == theirs.settle(a, b, a + b, now)
    elif what == "cancel":
        assert mine.cancel(now) == theirs.cancel(now)
    elif what == "release":
        assert mine.release() == theirs.release()
    elif what == "extend":
        assert mine.extend(a, b, now) is theirs.extend(a, b, now)
    else:
        assert mine.move(a % 3, now) is theirs.move(a % 3, now)
    assert list(mine.crossed) == theirs.crossed[:8]
    assert not mine.granted or mine.retry_after_ns == theirs.retry_after_ns


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(RULES), unique=True, max_size=8), STEPS)
def test_every_decision_is_the_models(rules: list[limit.Rule], steps: list[tuple[str, object, int, int]]) -> None:
    real = limits(*rules, table=limit.Table(wall_ns=WALL))
    model = model_limit.Limits(model_limit.Table(WALL), rules)
    grants: list[tuple[limit.Grant, model_limit.Grant]] = []
    now = 10 * SECOND
    for what, arg, a, b in steps:
        if isinstance(arg, dict):
            if what == "look":
                who = {name: arg[name] for name in arg if name in model_limit.NAMES}
                found = [(item.rule, item.remaining, item.reset_ns) for item in real.look(now, **who)]
                rooms = model.look(now, stream=True, **who)
                assert found == [(rule, room.remaining, room.reset_ns) for rule, room in rooms]
                continue
            grants.append((real.admit(now, **arg), model.admit(now, **arg)))
            assert seen(grants[-1][0]) == wanted(grants[-1][1])
        elif what == "wait" and isinstance(arg, int):
            now = max(0, now + arg)
        elif grants and isinstance(arg, int):
            mine, theirs = grants[arg % len(grants)]
            same(what, mine, theirs, a, b, now)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(RULES), unique=True, min_size=1, max_size=3),
    st.lists(
        st.tuples(
            st.integers(0, 30), st.integers(0, 130), st.integers(0, 2 * SECOND), st.integers(0, 3), st.booleans()
        ),
        min_size=20,
        max_size=150,
    ),
)
def test_a_crowded_table_is_never_laxer_than_the_model(
    rules: list[limit.Rule], steps: list[tuple[int, int, int, int, bool]]
) -> None:
    table = limit.Table(slots=8, gates=8, windows=8, leases=8, wall_ns=WALL)
    real, model = limits(*rules, table=table), model_limit.Limits(model_limit.Table(WALL), rules)
    grants: list[tuple[limit.Grant, model_limit.Grant]] = []
    now = 10 * SECOND
    for who, amount, wait, ending, pause in steps:
        now += wait * pause
        ask: model_limit.Ask = {"key": who, "team": who, "user": who, "model": who, "upstream": who, "session": who}
        ask = {**ask, "input_tokens": amount, "cost": amount}
        mine = real.admit(now, **ask)
        if not mine.granted:
            continue
        theirs = model.admit(now, **ask)
        assert theirs.granted
        grants.append((mine, theirs))
        done, reference = grants[who % len(grants)]
        if ending == 0:
            assert done.settle(amount * 2, 0, amount, now) == reference.settle(amount * 2, 0, amount, now)
        elif ending == 1:
            assert done.cancel(now) == reference.cancel(now)
        elif ending == 2:
            assert done.release() == reference.release()


@pytest.mark.parametrize("calendar", range(4))
@given(st.integers(10**17, 4 * 10**18), st.integers(0, 40 * DAY))
def test_a_calendar_turns_when_utc_does(calendar: int, wall: int, wait: int) -> None:
    real = limits(budget(1, calendar), table=limit.Table(wall_ns=wall))
    model = model_limit.Limits(model_limit.Table(wall), real.rules)
    for now in (0, wait):
        for _ in range(2):
            mine, theirs = real.admit(now, key=1, cost=1), model.admit(now, key=1, cost=1)
            assert (mine.granted, mine.retry_after_ns) == (theirs.granted, theirs.retry_after_ns)


@given(
    st.integers(1, 9),
    st.integers(1, 100 * SECOND),
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 4)), min_size=1, max_size=200),
)
def test_never_more_than_the_amount_within_any_period(amount: int, period: int, steps: list[tuple[int, int]]) -> None:
    rules = limits(sliding(amount, period, unit=limit.INPUT))
    now, taken = SECOND, []
    for share, count in steps:
        now += period * share // 60
        if rules.admit(now, key=1, input_tokens=min(count, amount)).granted:
            taken.append((now, min(count, amount)))
    for first, _ in taken:
        assert sum(count for at, count in taken if first <= at <= first + period) <= amount
