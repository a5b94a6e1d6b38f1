"""A route's choice among the targets that may be asked: balance, stickiness, panic, and agreement with the model."""

import random as randoms
from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agw_proxy._hot.circuit import GOOD, Board, Circuit
from agw_proxy._hot.route import Route, RouteTable, Target
from tests.hot import model_route
from tests.hot.model_circuit import MS, SECOND, Terms
from tests.hot.model_route import State

NOW = 1000 * SECOND
BALANCES = ["first", "weighted", "least_busy", "fastest"]


def build(
    balance: str, weights: list[int], *, fallbacks: int = 0, panic: float = 0.0
) -> tuple[Route, dict[str, Circuit]]:
    """A route over ``a/m0``, ``a/m1`` ... and to ``b/f0`` ..., with its circuits."""
    board = Board()
    circuits: dict[str, Circuit] = {}

    def of(upstream: int, name: str, configured: bool) -> Circuit:
        assert configured
        return circuits.setdefault(name, board.circuit(name, board.vitals("ab"[upstream]), **asdict(Terms())))

    targets = [(0, f"m{number}", weight) for number, weight in enumerate(weights)]
    names = [f"b/f{number}" for number in range(fallbacks)]
    route = RouteTable([("a", []), ("b", [])], [("v", targets, balance, names)], of, panic).find("v")
    assert route is not None
    return route, circuits


def put(circuits: dict[str, Circuit], states: dict[str, State]) -> None:
    """Bring circuits into these states."""
    for name, state in states.items():
        one = circuits[name]
        if state.first_ns >= 0:
            one.end(NOW, GOOD, one.begin(NOW), state.first_ns)
        for _ in range(state.busy):
            one.begin(NOW)
        if not state.may:
            one.rest(NOW + SECOND, NOW)


def names(targets: tuple[Target, ...]) -> list[str]:
    return [target.name for target in targets]


def shares(route: Route, draws: int = 20_000, now: int = NOW) -> Counter[str]:
    generator = randoms.Random(2026)
    chosen = [route.first(generator.getrandbits(64), now) for _ in range(draws)]
    return Counter(target.name for target in chosen if target is not None)


@pytest.mark.parametrize("balance", BALANCES)
def test_what_may_not_be_asked_is_left_out(balance: str) -> None:
    route, circuits = build(balance, [5, 1, 1], fallbacks=2)
    put(circuits, {name: State(may=False) for name in ("a/m0", "b/f0")})
    for number in range(100):
        plan = names(route.plan(number, NOW))
        assert sorted(plan[:2]) == ["a/m1", "a/m2"]
        assert plan[2:] == ["b/f1"]
        assert names(route.plan(number, NOW + SECOND)).count("a/m0") == 1  # its rest is over
    put(circuits, {name: State(may=False) for name in ("a/m1", "a/m2")})
    first = route.first(7, NOW)
    assert first is not None
    assert (first.name, names(route.plan(7, NOW))) == ("b/f1", ["b/f1"])
    put(circuits, {"b/f1": State(may=False)})
    assert (route.first(7, NOW), route.plan(7, NOW), route.panics(NOW)) == (None, (), False)


def test_what_is_left_out_leaves_its_share_to_the_others_by_their_weights() -> None:
    """Chi-square with 2 degrees of freedom: 13.82 is passed by chance once in 1,000 seeds, and this seed is fixed."""
    route, circuits = build("weighted", [1, 2, 5, 3])
    put(circuits, {"a/m2": State(may=False)})
    seen = shares(route)
    expected = {"a/m0": 20_000 / 6, "a/m1": 20_000 / 3, "a/m3": 20_000 / 2}
    assert set(seen) == set(expected)
    assert sum((seen[name] - count) ** 2 / count for name, count in expected.items()) < 13.82


def test_the_least_busy_is_the_one_with_the_fewest_under_way() -> None:
    route, circuits = build("least_busy", [1, 1, 1])
    put(circuits, {"a/m0": State(busy=2), "a/m1": State(busy=1), "a/m2": State(busy=3)})
    assert {tuple(names(route.plan(number, NOW))) for number in range(50)} == {("a/m1", "a/m0", "a/m2")}
    circuits["a/m0"].end(NOW, GOOD, 1)
    assert shares(route).keys() == {"a/m0", "a/m1"}  # equals are drawn
    assert min(shares(route).values()) > 9_000


def test_the_fastest_gets_most_and_the_slowest_none_but_an_unknown_one_is_tried() -> None:
    route, circuits = build("fastest", [1, 1, 1])
    put(circuits, {f"a/m{number}": State(first_ns=(number + 1) * 100 * MS) for number in range(3)})
    seen = shares(route)
    # Of two drawn the faster: the fastest is among them in two of three cases, the slowest never alone.
    assert seen.keys() == {"a/m0", "a/m1"}
    assert 12_900 < seen["a/m0"] < 13_800
    later = NOW + 300 * SECOND
    circuits["a/m0"].end(later, GOOD, circuits["a/m0"].begin(later), 100 * MS)
    circuits["a/m1"].end(later, GOOD, circuits["a/m1"].begin(later), 100 * MS)
    seen = shares(route, now=later)
    assert max(seen, key=lambda name: seen[name]) == "a/m2"  # not heard of for five minutes


@pytest.mark.parametrize("balance", BALANCES)
def test_a_sticky_number_keeps_to_its_target_and_an_outage_moves_only_its_own(balance: str) -> None:
    route, circuits = build(balance, [1, 1, 2])
    numbers = range(1, 4001)

    def homes() -> dict[int, str]:
        firsts = {sticky: route.first(randoms.getrandbits(64), NOW, sticky) for sticky in numbers}
        return {sticky: target.name for sticky, target in firsts.items() if target is not None}

    before = homes()
    assert homes() == before
    counts = Counter(before.values())
    assert 900 < counts["a/m0"] < 1100
    assert 1900 < counts["a/m2"] < 2100
    put(circuits, {"a/m1": State(may=False)})
    after = homes()
    assert all(after[sticky] == home for sticky, home in before.items() if home != "a/m1")
    moved = Counter(after[sticky] for sticky, home in before.items() if home == "a/m1")
    assert moved.keys() == {"a/m0", "a/m2"}


@pytest.mark.parametrize(
    ("targets", "out", "panic", "expected"),
    [
        (4, 2, 0.5, False),  # half is left, and that is not less than half
        (4, 3, 0.5, True),
        (4, 4, 0.5, True),
        (4, 4, 0.0, False),
        (4, 1, 1.0, True),
        (4, 0, 1.0, False),
        (2, 1, 0.5, False),
        (2, 2, 0.5, True),
        (1, 1, 0.5, False),  # one alone is not "most of them"
    ],
)
def test_in_a_panic_all_are_asked(targets: int, out: int, panic: float, expected: bool) -> None:
    for balance in BALANCES:
        route, circuits = build(balance, [1] * targets, panic=panic)
        put(circuits, {f"a/m{number}": State(may=False) for number in range(out)})
        assert route.panics(NOW) is expected
        plans = [route.plan(number, NOW) for number in range(100)]
        assert {len(plan) for plan in plans} == {targets if expected else targets - out}
        assert [route.first(number, NOW) for number in range(100)] == [plan[0] if plan else None for plan in plans]


def test_no_panic_while_a_fallback_may_be_asked() -> None:
    route, circuits = build("weighted", [1, 1], fallbacks=1, panic=0.5)
    put(circuits, {name: State(may=False) for name in ("a/m0", "a/m1")})
    assert (route.panics(NOW), names(route.plan(1, NOW))) == (False, ["b/f0"])
    put(circuits, {"b/f0": State(may=False)})
    assert (route.panics(NOW), sorted(names(route.plan(1, NOW)))) == (True, ["a/m0", "a/m1"])


def test_one_target_has_nothing_to_balance() -> None:
    for balance in BALANCES:
        assert build(balance, [3])[0].balance == "first"


def test_a_kind_of_balance_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="'v': balance is 'best'"):
        build("best", [1, 1])
    with pytest.raises(ValueError, match=r"'v': panic is 1\.5"):
        build("first", [1, 1], panic=1.5)


def test_a_table_asks_for_a_circuit_for_each_target_and_says_whether_a_caller_made_it_up() -> None:
    asked: list[tuple[int, str, bool]] = []

    def of(upstream: int, name: str, configured: bool) -> None:
        asked.append((upstream, name, configured))

    table = RouteTable([("a", ["x", "g-*"]), ("b", [])], [("v", [(1, "m", 1)], "first", ["a/f", "g-1"])], of)
    assert sorted(asked) == [(0, "a/f", True), (0, "a/g-1", True), (0, "a/x", True), (1, "b/m", True)]
    asked.clear()
    for name in ("v", "x", "a/new", "g-2", "a/new"):
        assert table.find(name) is not None
    assert asked == [(0, "a/new", False), (0, "a/g-2", False)]


STATES = st.builds(
    State, may=st.booleans(), busy=st.integers(0, 2), first_ns=st.sampled_from([-1, 100 * MS, 200 * MS, 300 * MS])
)
NUMBERS = st.integers(0, 2**64 - 1)


@given(
    balance=st.sampled_from(BALANCES),
    weights=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    states=st.lists(STATES, min_size=8, max_size=8),
    fallbacks=st.integers(0, 2),
    panic=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    number=NUMBERS,
    sticky=st.one_of(st.just(0), NUMBERS),
)
@settings(max_examples=500, deadline=None)
def test_any_choice_agrees_with_the_model(
    balance: str,
    weights: list[int],
    states: list[State],
    fallbacks: int,
    panic: float,
    number: int,
    sticky: int,
) -> None:
    route, circuits = build(balance, weights, fallbacks=fallbacks, panic=panic)
    given_states = dict(zip(circuits, states, strict=False))
    put(circuits, given_states)

    def plain(targets: tuple[Target, ...]) -> tuple[model_route.Target, ...]:
        return tuple(model_route.Target(t.name, t.upstream, t.model, t.weight) for t in targets)

    model = model_route.Route("v", plain(route.targets), plain(route.fallbacks), route.balance, panic)
    plan = route.plan(number, NOW, sticky)
    assert plain(plan) == model.plan(number, given_states, sticky)
    assert route.first(number, NOW, sticky) is (plan[0] if plan else None)
    assert route.panics(NOW) is model.panics(given_states)
