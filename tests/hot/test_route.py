"""Routes: globs, precedence, plans by weight, and agreement with the plain-Python model."""

import random as randoms
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agw_proxy._hot.route import Globs, Route, RouteTable, Target
from tests.hot import model_route

Models = list[tuple[str, list[tuple[int, str, int]], str, list[str]]]

UPSTREAMS = [
    ("openai", ["gpt-*", "text-embedding-?", "o1", "shared"]),
    ("claude", ["claude-*", "gpt-4*", "shared", "openai/o9"]),
    ("router", ["*/*", "shared-*"]),
]
MODELS: Models = [
    ("fast", [(0, "gpt-4o-mini", 3), (1, "claude-haiku", 1)], "weighted", ["steady", "openai/gpt-4o", "gpt-4o"]),
    ("steady", [(2, "a/b", 1), (0, "o1", 5)], "first", ["fast"]),
    ("openai/o1", [(1, "o1", 1)], "first", []),
]


def names(targets: Sequence[Target]) -> list[str]:
    return [target.name for target in targets]


def found(table: RouteTable, model: str) -> Route:
    route = table.find(model)
    assert route is not None, model
    return route


def shape(route: Route | None) -> object:
    """A route as the model writes it."""
    if route is None:
        return None

    def plain(targets: Sequence[Target]) -> tuple[model_route.Target, ...]:
        return tuple(model_route.Target(t.name, t.upstream, t.model, t.weight) for t in targets)

    return model_route.Route(route.label, plain(route.targets), plain(route.fallbacks), route.balance)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*", "", True),
        ("*", "a/b\n", True),
        ("**", "x", True),
        ("gpt-*", "gpt-", True),
        ("gpt-*", "gpt-4o/x", True),
        ("gpt-*", "GPT-4", False),
        ("gpt-*", "gpt", False),
        ("gpt-**", "gpt-4", True),
        ("o1", "o1", True),
        ("o1", "o11", False),
        ("o1", "", False),
        ("?", "\U0001f600", True),
        ("?", "", False),
        ("??", "é", False),
        ("é*", "été", True),
        ("\U0001f600*", "abc", False),
        ("*-mini", "gpt-4o-mini", True),
        ("*-mini", "gpt-4o-mini-", False),
        ("*/*", "a/b/c", True),
        ("*/*", "ab", False),
        ("a*b*c", "aXbXbXc", True),
        ("a*b*c", "aXbXbX", False),
        ("a?*", "a", False),
        ("a?*", "ab", True),
        ("*?", "", False),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("a.c", "abc", False),
        ("a\\*", "a\\b", True),
        ("a\0*b", "a\0-b", True),
        ("*a", "\0a", True),
        ("a", "a\0", False),
    ],
)
def test_glob_vectors(pattern: str, name: str, expected: bool) -> None:
    assert Globs([pattern]).match(name) is expected
    assert model_route.matches(pattern, name) is expected


TRICKY = st.text(alphabet="ab*?/é\U0001f600", max_size=8)


@given(pattern=TRICKY.filter(bool), name=st.text(alphabet="ab/é\U0001f600*?", max_size=12))
@settings(max_examples=400, deadline=None)
def test_globs_agree_with_regular_expressions(pattern: str, name: str) -> None:
    assert Globs([pattern]).match(name) is model_route.matches(pattern, name)


@given(patterns=st.lists(TRICKY.filter(bool), max_size=5), name=TRICKY)
@settings(max_examples=200, deadline=None)
def test_a_list_of_globs_matches_when_any_does(patterns: list[str], name: str) -> None:
    assert Globs(patterns).match(name) is any(model_route.matches(pattern, name) for pattern in patterns)


def test_matching_does_not_explode() -> None:
    """Backtracking over 60 stars would take longer than the universe; the run's own time-out ends such a test."""
    globs = Globs(["a*" * 60 + "b"])
    assert globs.match("a" * 5_000 + "b")
    assert not globs.match("a" * 5_000)


def test_globs_keep_their_patterns_and_refuse_what_is_none() -> None:
    assert Globs(iter(["b", "a*", "b"])).patterns == ("b", "a*", "b")
    assert not Globs([]).match("")
    with pytest.raises(ValueError, match="empty"):
        Globs(["a", ""])
    with pytest.raises(TypeError, match="one string"):
        Globs("gpt-*")
    with pytest.raises(TypeError):
        Globs([b"gpt-*"])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        Globs(["*"]).match(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "label", "target"),
    [
        ("steady", "steady", "router/a/b"),  # virtual
        ("openai/o1", "openai/o1", "claude/o1"),  # virtual before direct
        ("openai/gpt-9", "openai/*", "openai/gpt-9"),  # direct
        ("claude/gpt-9/x", "claude/*", "claude/gpt-9/x"),  # the rest unchanged, the upstream's own list not asked
        ("openai/o9", "openai/*", "openai/o9"),  # direct before an exact name in another upstream's list
        ("o1", "o1", "openai/o1"),  # exact
        ("shared", "shared", "openai/shared"),  # exact: the first upstream that lists it
        ("gpt-4o", "gpt-*", "openai/gpt-4o"),  # globs: the first upstream
        ("text-embedding-3", "text-embedding-?", "openai/text-embedding-3"),
        ("claude-x", "claude-*", "claude/claude-x"),
        ("meta/llama", "*/*", "router/meta/llama"),  # a slash, but no such upstream
        ("openai/", "*/*", "router/openai/"),  # nothing behind the slash: not a direct address
        ("shared-x", "shared-*", "router/shared-x"),
    ],
)
def test_precedence(model: str, label: str, target: str) -> None:
    table = RouteTable(UPSTREAMS, MODELS)
    for _ in range(2):  # made, then remembered
        route = found(table, model)
        assert (route.name, route.label, route.targets[0].name) == (model, label, target)
        assert table.find_bytes(model.encode()) is table.find(model)


def test_target_names_its_upstream_by_index_and_keeps_the_model() -> None:
    target = found(RouteTable(UPSTREAMS, MODELS), "router/a/b/c").targets[0]
    assert (target.upstream, target.model, target.name, target.weight) == (2, "a/b/c", "router/a/b/c", 1)


@pytest.mark.parametrize("model", ["", "nothing", "GPT-4", "/x", "openai", "text-embedding-10"])
def test_unknown_names_are_not_found(model: str) -> None:
    table = RouteTable(UPSTREAMS[:2], MODELS[2:])
    assert table.find(model) is None
    assert table.find_bytes(model.encode()) is None


def test_names_over_the_bound_are_never_found() -> None:
    table = RouteTable([("all", ["*"])], [])
    assert found(table, "x" * 256).label == "*"
    assert table.find("x" * 257) is None
    assert found(table, "\U0001f600" * 256) is table.find_bytes(("\U0001f600" * 256).encode())
    assert table.find_bytes(b"x" * 257) is None
    assert table.find_bytes(b"x" * 1_025) is None


def test_bytes_that_are_not_utf8_are_never_found() -> None:
    table = RouteTable([("all", ["*"])], [])
    assert table.find_bytes(b"a\xff") is None
    assert table.find_bytes("\ud800".encode("utf-8", "surrogatepass")) is None
    assert found(table, "\ud800").label == "*"


def test_memory_of_names_is_bounded_and_answers_stay_right() -> None:
    table = RouteTable([("a", ["m-*"]), ("b", ["*"])], [])
    first = table.find("m-0")
    assert table.find("m-0") is first
    for number in range(5_000):
        model = f"m-{number}" if number % 2 else f"n-{number}"
        by_bytes = table.find_bytes(model.encode())
        assert by_bytes is not None
        assert by_bytes.targets[0].name == ("a/" if number % 2 else "b/") + model
    assert table.find("m-0") is not first  # the memo was emptied on the way
    assert shape(table.find("m-0")) == shape(first)


def test_fallbacks_are_flattened_once_each_and_without_their_own() -> None:
    table = RouteTable(UPSTREAMS, MODELS)
    fast = found(table, "fast")
    assert names(fast.targets) == ["openai/gpt-4o-mini", "claude/claude-haiku"]
    assert names(fast.fallbacks) == ["router/a/b", "openai/o1", "openai/gpt-4o"]
    assert names(found(table, "steady").fallbacks) == ["openai/gpt-4o-mini", "claude/claude-haiku"]


def test_a_target_named_twice_is_one_with_both_weights() -> None:
    route = found(
        RouteTable([("a", []), ("b", [])], [("v", [(0, "x", 2), (1, "x", 1), (0, "x", 3)], "weighted", ["a/x"])]), "v"
    )
    assert [(target.name, target.weight) for target in route.targets] == [("a/x", 5), ("b/x", 1)]
    assert route.fallbacks == ()
    assert sorted(names(route.plan(1))) == ["a/x", "b/x"]


def test_plan_without_weights_is_in_order() -> None:
    route = found(RouteTable(UPSTREAMS, MODELS), "steady")
    assert route.balance == "first"
    for number in (0, 1, 2**64 - 1):
        assert route.plan(number) == (*route.targets, *route.fallbacks)
        assert route.first(number) is route.targets[0]


@given(number=st.integers(0, 2**64 - 1), weights=st.lists(st.integers(1, 1_000_000), min_size=1, max_size=64))
@settings(max_examples=200, deadline=None)
def test_weighted_plan_is_a_permutation_and_the_model_agrees(number: int, weights: list[int]) -> None:
    configured = [(0, f"m{i}", weight) for i, weight in enumerate(weights)]
    route = found(RouteTable([("u", ["z"])], [("v", configured, "weighted", ["z"])]), "v")
    plan = route.plan(number)
    assert sorted(names(plan)) == sorted([*names(route.targets), "u/z"])
    assert plan[-1].name == "u/z"
    assert plan == route.plan(number)
    assert plan[0] is route.first(number)
    model = model_route.RouteTable([("u", ["z"])], [("v", configured, "weighted", ["z"])]).find("v")
    assert model is not None
    assert names(plan) == [target.name for target in model.plan(number)]


@pytest.mark.parametrize("source", ["random", "counting"])
def test_first_choice_follows_the_weights(source: str) -> None:
    """Chi-square with 3 degrees of freedom; 16.27 is passed by chance once in 1,000 seeds, and this seed is fixed."""
    weights = [1, 2, 3, 10]
    route = found(RouteTable([("u", [])], [("v", [(0, str(w), w) for w in weights], "weighted", [])]), "v")
    draws = 40_000
    generator = randoms.Random(2026)
    numbers = range(draws) if source == "counting" else [generator.getrandbits(64) for _ in range(draws)]
    seen = Counter(first.weight for number in numbers if (first := route.first(number)) is not None)
    expected = {weight: draws * weight / sum(weights) for weight in weights}
    assert sum((seen[w] - expected[w]) ** 2 / expected[w] for w in weights) < 16.27


def test_second_choice_follows_the_weights_of_what_is_left() -> None:
    weights = [1, 2, 3, 10]
    route = found(RouteTable([("u", [])], [("v", [(0, str(w), w) for w in weights], "weighted", [])]), "v")
    generator = randoms.Random(2027)
    plans = [route.plan(generator.getrandbits(64)) for _ in range(40_000)]
    after_ten = Counter(plan[1].weight for plan in plans if plan[0].weight == 10)
    expected = {weight: after_ten.total() * weight / 6 for weight in (1, 2, 3)}
    assert sum((after_ten[w] - expected[w]) ** 2 / expected[w] for w in expected) < 13.82  # 2 degrees, one in 1,000


@pytest.mark.parametrize("number", [-1, 2**64])
def test_plan_takes_64_bits(number: int) -> None:
    route = found(RouteTable(UPSTREAMS, MODELS), "fast")
    with pytest.raises(OverflowError):
        route.plan(number)
    with pytest.raises(OverflowError):
        route.first(number)


def test_names_are_virtual_then_exact_once_each_and_all_lead_somewhere() -> None:
    table = RouteTable(UPSTREAMS, MODELS)
    assert table.names() == ("fast", "steady", "openai/o1", "o1", "shared", "openai/o9")
    assert None not in [table.find(name) for name in table.names()]


def test_routes_and_targets_cannot_be_changed() -> None:
    route = found(RouteTable(UPSTREAMS, MODELS), "fast")
    for thing, attribute in ((route, "label"), (route, "targets"), (route.targets[0], "weight")):
        with pytest.raises(AttributeError):
            setattr(thing, attribute, getattr(thing, attribute))


ONE = [(0, "m", 1)]
UNUSABLE: list[tuple[str, list[tuple[str, list[str]]], Models, str]] = [
    ("upstream twice", [("a", []), ("a", [])], [], "'a' is defined twice"),
    ("upstream with a slash", [("a/b", [])], [], "'a/b'"),
    ("upstream without a name", [("", [])], [], "must not be empty"),
    ("empty pattern", [("a", [""])], [], "must not be empty"),
    ("long pattern", [("a", ["x" * 257])], [], "257 characters"),
    ("model twice", [("a", [])], [("v", ONE, "first", []), ("v", ONE, "first", [])], "'v' is defined twice"),
    ("long model name", [("a", [])], [("v" * 257, ONE, "first", [])], "257 characters"),
    ("empty model name", [("a", [])], [("", ONE, "first", [])], "must not be empty"),
    ("index too high", [("a", [])], [("v", [(1, "m", 1)], "first", [])], "'v'.* number 1 "),
    ("index negative", [("a", [])], [("v", [(-1, "m", 1)], "first", [])], "'v'.* number -1 "),
    ("target without a name", [("a", [])], [("v", [(0, "", 1)], "first", [])], "'v'.*must not be empty"),
    ("weight 0", [("a", [])], [("v", [(0, "m", 0)], "first", [])], "'v'.*'m' is 0"),
    ("weight negative", [("a", [])], [("v", [(0, "m", -2)], "weighted", [])], "'v'.*'m' is -2"),
    ("weight huge", [("a", [])], [("v", [(0, "m", 1_000_001)], "weighted", [])], "'v'.*1000001"),
    ("weights of one target", [("a", [])], [("v", [(0, "m", 600_000)] * 2, "weighted", [])], "'v'.*'m' is 1200000"),
    ("no target", [("a", [])], [("v", [], "first", [])], "'v' has 0 targets"),
    ("65 targets", [("a", [])], [("v", [(0, f"m{i}", 1) for i in range(65)], "weighted", [])], "'v' has 65 targets"),
    ("unknown fallback", [("a", [])], [("v", ONE, "first", ["gone"])], "'v'.*'gone'"),
    ("itself as fallback", [("a", [])], [("v", ONE, "first", ["v"])], "'v' names itself"),
]


@pytest.mark.parametrize(
    ("upstreams", "models", "message"), [case[1:] for case in UNUSABLE], ids=[case[0] for case in UNUSABLE]
)
def test_what_cannot_be_is_refused_by_name(
    upstreams: list[tuple[str, list[str]]], models: Models, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RouteTable(upstreams, models)


def test_a_route_made_by_hand_cannot_be_one_that_plans_would_stumble_over() -> None:
    make_target: Callable[..., Target] = Target
    make_route: Callable[..., Route] = Route
    with pytest.raises(ValueError, match="weight of target 'a/m' is 0"):
        make_target("a/m", 0, "m", 0)
    for count in (0, 65):
        with pytest.raises(ValueError, match=f"'v' has {count} targets"):
            make_route("v", "v", (make_target("a/m", 0, "m"),) * count, (), "weighted")
    with pytest.raises(TypeError):
        make_route("v", "v", ("a/m",))


def test_wrong_types_are_refused() -> None:
    with pytest.raises(TypeError, match="one string"):
        RouteTable([("a", "gpt-*")], [])
    with pytest.raises(TypeError, match="one string"):
        RouteTable([("a", [])], [("v", ONE, "first", "ab")])
    with pytest.raises(TypeError, match="must be a str"):
        RouteTable([(1, [])], [])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        RouteTable([], []).find(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        RouteTable([], []).find_bytes("x")  # type: ignore[arg-type]


NAMES = st.sampled_from(["a", "b", "c", "ab", "a/b", "b/a", "a/", "/a", "c/c", "é", "x/y/z"])
PATTERNS = st.one_of(NAMES, st.text(alphabet="abc*?/é", min_size=1, max_size=5))
TARGETS = st.lists(st.tuples(st.integers(0, 1), NAMES, st.integers(1, 9)), min_size=1, max_size=4)


@given(
    first=st.lists(PATTERNS, max_size=4),
    second=st.lists(PATTERNS, max_size=4),
    models=st.lists(
        st.tuples(NAMES, TARGETS, st.sampled_from(["first", "weighted"])), max_size=3, unique_by=lambda model: model[0]
    ),
    wanted=st.lists(st.one_of(PATTERNS, st.just("a" * 257)), min_size=1, max_size=12),
    number=st.integers(0, 2**64 - 1),
)
@settings(max_examples=300, deadline=None)
def test_table_agrees_with_the_model(
    first: list[str],
    second: list[str],
    models: list[tuple[str, list[tuple[int, str, int]], str]],
    wanted: list[str],
    number: int,
) -> None:
    upstreams = [("a", first), ("b", second)]
    virtual = [name for name, _, _ in models]
    configured: Models = [
        (name, targets, balance, [*(other for other in virtual if other != name), *(["a/z"] if name != "a/z" else [])])
        for name, targets, balance in models
    ]
    table = RouteTable(upstreams, configured)
    model = model_route.RouteTable(upstreams, configured)
    assert table.names() == model.names()
    for name in [*wanted, *wanted, *virtual, *first, *second]:
        route, expected = table.find(name), model.find(name)
        assert shape(route) == expected
        assert table.find_bytes(name.encode()) is route
        if route is not None and expected is not None:
            assert names(route.plan(number)) == [target.name for target in expected.plan(number)]
