"""A model's name leads to targets, to a 404, or to a 403 that lists what the key may use."""

import pytest

from agw_proxy._hot.circuit import BAD, GOOD, Board, Circuit
from agw_proxy._hot.limit import Limits, Table
from agw_proxy._hot.route import Globs
from agw_proxy.config.resilience import Breaker
from agw_proxy.config.settings import Model, Upstream
from agw_proxy.errors import ModelForbidden, ModelNotFound, UpstreamUnavailable
from agw_proxy.policy.routes import NAMES_IN_A_MESSAGE, SHOWN_NAME_CHARACTERS, Routes, listed, shown
from agw_proxy.types import Principal

SECOND = 1_000_000_000
NOW = 1000 * SECOND


def upstream(name: str, *models: str, **more: object) -> Upstream:
    return Upstream.model_validate({"name": name, "base_url": f"https://{name}.example/v1", "models": models, **more})


def principal(*models: str) -> Principal:
    return Principal("app", 1, Globs(models), Globs(()), False, Limits(Table(slots=8, gates=8), ()))


@pytest.fixture
def routes() -> Routes:
    fast = {
        "name": "fast",
        "targets": [{"upstream": "openai", "model": "gpt-4o-mini", "weight": 3}, "claude/haiku"],
        "fallbacks": ["openai/gpt-4o"],
    }
    steady = {"name": "steady", "targets": ["claude/haiku", "openai/gpt-4o"], "balance": "first"}
    return Routes(
        [
            upstream("openai", "gpt-*", "whisper-1"),
            upstream("claude", "claude-*", "gpt-oss", dialect="anthropic"),
        ],
        [Model.model_validate(fast), Model.model_validate(steady)],
    )


ALL = principal("*")


@pytest.mark.parametrize(
    ("model", "targets", "label"),
    [
        ("gpt-4o", ["openai/gpt-4o"], "gpt-*"),
        ("whisper-1", ["openai/whisper-1"], "whisper-1"),
        ("gpt-oss", ["claude/gpt-oss"], "gpt-oss"),
        ("claude/any/thing", ["claude/any/thing"], "claude/*"),
        ("steady", ["claude/haiku", "openai/gpt-4o"], "steady"),
        ("agw/echo", ["agw/echo"], "agw/*"),
    ],
)
def test_a_name_leads_to_its_targets(routes: Routes, model: str, targets: list[str], label: str) -> None:
    routed = routes.resolve(model, ALL, 0)
    assert [target.name for target in routed.plan] == targets
    assert routed.route.label == label


def test_weights_choose_the_first_and_fallbacks_stay_last(routes: Routes) -> None:
    plans = [[target.name for target in routes.resolve("fast", ALL, number << 40).plan] for number in range(400)]
    assert {plan[0] for plan in plans} == {"openai/gpt-4o-mini", "claude/haiku"}
    assert all(sorted(plan[:2]) == ["claude/haiku", "openai/gpt-4o-mini"] for plan in plans)
    assert all(plan[2:] == ["openai/gpt-4o"] for plan in plans)


@pytest.mark.parametrize("model", ["nothing", "", "GPT-4o", "elsewhere/gpt-4o", "agw/", "agw/other", "x" * 300])
def test_what_leads_nowhere_is_404_for_any_key(routes: Routes, model: str) -> None:
    for who in (ALL, principal("nothing-at-all")):
        with pytest.raises(ModelNotFound, match="GET /v1/models") as caught:
            routes.resolve(model, who, 0)
        assert (caught.value.status, caught.value.param) == (404, "model")
        assert len(caught.value.message) < 300


def test_what_exists_but_is_not_for_this_key_is_403_and_lists_what_is(routes: Routes) -> None:
    with pytest.raises(ModelForbidden, match=r"'app' may not use the model 'gpt-4o'.*: fast, claude/\*\.") as caught:
        routes.resolve("gpt-4o", principal("fast", "claude/*"), 0)
    assert (caught.value.status, caught.value.param) == (403, "model")
    assert routes.resolve("fast", principal("fast"), 0).route.name == "fast"
    with pytest.raises(ModelForbidden, match="no model at all"):
        routes.resolve("gpt-4o", principal(), 0)


def test_a_direct_address_needs_a_permission_of_its_own(routes: Routes) -> None:
    with pytest.raises(ModelForbidden):
        routes.resolve("openai/gpt-4o", principal("gpt-*"), 0)
    assert routes.resolve("openai/gpt-4o", principal("openai/gpt-*"), 0).plan[0].model == "gpt-4o"


@pytest.mark.parametrize(
    ("models", "allowed"),
    [(("*",), True), (("openai/*",), True), (("openai/gpt-*",), False), (("gpt-*",), False), ((), False)],
)
def test_paths_without_a_model_need_the_whole_upstream(routes: Routes, models: tuple[str, ...], allowed: bool) -> None:
    assert routes.may_address("openai", principal(*models)) is allowed


def test_the_whole_of_an_upstream_is_a_route(routes: Routes) -> None:
    routed = routes.whole("claude")
    assert [routes.upstream_names[target.upstream] for target in routed.plan] == ["claude"]
    assert routed.route.label == "claude/*"
    with pytest.raises(ModelNotFound, match="no upstream 'nobody'"):
        routes.whole("nobody")


def test_the_list_holds_what_can_be_named_and_each_once(routes: Routes) -> None:
    discovered = {
        "openai": ("gpt-4o", "dall-e", "whisper-1", "gpt-oss"),
        "claude": ("claude-1", "gpt-4o"),
        "gone": ("x",),
    }
    assert routes.served({}) == [("fast", "agw"), ("steady", "agw"), ("whisper-1", "openai"), ("gpt-oss", "claude"), ("agw/echo", "agw")]  # fmt: skip
    assert dict(routes.served(discovered)) == {
        "fast": "agw",
        "steady": "agw",
        "whisper-1": "openai",
        "gpt-oss": "claude",
        "agw/echo": "agw",
        "gpt-4o": "openai",
        "claude-1": "claude",
    }


def test_labels_are_what_is_served_and_its_targets(routes: Routes) -> None:
    labels = set(routes.labels({"openai": ("gpt-4o",)}))
    served = {"fast", "steady", "whisper-1", "gpt-oss", "agw/echo", "gpt-4o"}
    targets = {"openai/gpt-4o-mini", "openai/gpt-4o", "openai/whisper-1", "claude/haiku", "claude/gpt-oss", "agw/echo"}
    assert labels == served | targets


def test_dialects_and_names_are_numbered_alike_with_the_echo_model_last(routes: Routes) -> None:
    assert routes.upstream_names == ("openai", "claude", "agw")
    assert routes.dialects == ("openai", "anthropic", "openai")


def test_agents_are_models_of_their_names_behind_all_upstreams() -> None:
    taken = Model.model_validate({"name": "default/taken", "targets": ["openai/gpt-4o"]})
    ids = ("default/sky", "default/taken", "team/tax")
    routes = Routes([upstream("openai", "*/*")], [taken], agents=ids)
    assert routes.upstream_names == ("openai", "agw", "agents")
    assert routes.dialects == ("openai", "openai", "openai")
    found = {
        name: routes.resolve(name, ALL, 0) for name in ("default/sky", "agents/team/tax", "default/taken", "agw/echo")
    }
    assert {name: [target.name for target in routed.plan] for name, routed in found.items()} == {
        "default/sky": ["agents/default/sky"],
        "agents/team/tax": ["agents/team/tax"],
        "default/taken": ["openai/gpt-4o"],
        "agw/echo": ["agw/echo"],
    }
    assert (found["default/sky"].route.label, found["default/sky"].plan[0].circuit) == ("default/sky", None)
    for name in ("agents/default/none", "agents/*", "agents/default/taken"):
        with pytest.raises(ModelNotFound):
            routes.resolve(name, ALL, 0)
    with pytest.raises(ModelForbidden):
        routes.find("default/sky", principal("team/*"))
    assert ("team/tax", "agents") in routes.served({})
    assert routes.owner("default/sky", ALL, {}) == "agents"
    assert {"default/sky", "agents/default/sky"} <= set(routes.labels({}))


def test_where_there_are_no_agents_their_upstream_is_one_like_any_other(routes: Routes) -> None:
    with pytest.raises(ModelNotFound):
        routes.find("agents/default/sky", ALL)


def test_messages_are_bounded() -> None:
    assert shown("a" * SHOWN_NAME_CHARACTERS) == "a" * SHOWN_NAME_CHARACTERS
    assert shown("a" * 1000) == "a" * SHOWN_NAME_CHARACTERS + "..."
    names = [f"m{number}" for number in range(NAMES_IN_A_MESSAGE + 3)]
    assert listed(names[:2]) == "m0, m1"
    assert listed(names).endswith(f"m{NAMES_IN_A_MESSAGE - 1} and 3 more")


def break_(circuit: Circuit, times: int = 5) -> None:
    for _ in range(times):
        circuit.end(NOW, BAD, circuit.begin(NOW))


def model(**settings: object) -> Model:
    return Model.model_validate({"name": "v", "targets": ["openai/a", "claude/b"], **settings})


UPSTREAMS = [
    upstream("openai", "gpt-*"),
    upstream("claude", dialect="anthropic", breaker={"consecutive": 2, "cool_down": "20s"}),
]


def test_what_has_failed_too_often_is_left_out_with_the_settings_of_its_upstream() -> None:
    routes = Routes(UPSTREAMS, [model(balance="first")], Board())
    circuits = routes.targets()
    assert circuits.keys() == {"openai/*", "claude/*", "openai/a", "claude/b"}
    break_(circuits["openai/a"], 4)
    break_(circuits["claude/b"], 2)
    routed = routes.resolve("v", ALL, 0, NOW)
    assert ([target.name for target in routed.plan], routed.panic) == (["openai/a"], False)
    assert circuits["claude/b"].opens_in_ns(NOW) == 20 * SECOND
    assert [target.name for target in routes.resolve("v", ALL, 0, NOW + 20 * SECOND).plan] == ["openai/a", "claude/b"]


def test_with_nothing_left_it_is_503_with_the_soonest_time() -> None:
    routes = Routes(UPSTREAMS, [model(balance="first")], Board(), Breaker(panic=0))
    for circuit in routes.targets().values():
        break_(circuit)
    for name, soonest in (("v", "openai/a"), ("openai/a", "openai/a"), ("claude/b", "claude/b")):
        with pytest.raises(UpstreamUnavailable, match=f"'{name}' cannot be served now.*'{soonest}' may be") as caught:
            routes.resolve(name, ALL, 0, NOW + SECOND)
        assert caught.value.retry_after_ms == (4000 if soonest == "openai/a" else 19_000)
    with pytest.raises(UpstreamUnavailable, match="'openai/\\*' cannot be served"):
        routes.whole("openai", NOW)
    assert routes.whole("openai", NOW + 5 * SECOND).plan[0].name == "openai/*"
    assert routes.owner("openai/a", ALL, {}) == "openai"  # that it exists does not depend on how it is


def test_in_a_panic_all_targets_are_planned_and_it_says_so() -> None:
    routes = Routes(UPSTREAMS, [model()], Board())
    for circuit in routes.targets().values():
        break_(circuit)
    routed = routes.resolve("v", ALL, 0, NOW)
    assert (len(routed.plan), routed.panic) == (2, True)
    with pytest.raises(UpstreamUnavailable):  # a single target has its circuit all the same
        routes.resolve("openai/a", ALL, 0, NOW)


def test_the_same_target_has_one_circuit_by_whatever_name_it_is_asked() -> None:
    routes = Routes([upstream("openai", "gpt-*", "exact")], [model(targets=["openai/gpt-4o", "openai/exact"])], Board())
    by_name = {
        name: routes.table.find(name) for name in ("exact", "openai/exact", "v", "gpt-4o", "openai/gpt-4o", "openai/x")
    }
    targets = [target for route in by_name.values() if route is not None for target in route.targets]
    for name in ("openai/exact", "openai/gpt-4o"):
        circuits = {target.circuit for target in targets if target.name == name}
        assert len(circuits) == 1
    assert routes.targets().keys() == {"openai/*", "openai/exact", "openai/gpt-4o"}  # not what a caller made up


def test_names_that_callers_make_up_have_circuits_and_leave_no_trace_in_the_list() -> None:
    routes = Routes(UPSTREAMS, [], Board())
    one, other = (routes.resolve(f"openai/{name}", ALL, 0, NOW).plan[0].circuit for name in ("x", "y"))
    assert one is not None
    assert other is not None
    break_(one)
    with pytest.raises(UpstreamUnavailable):
        routes.resolve("openai/x", ALL, 0, NOW)
    assert other.may(NOW)
    assert routes.targets().keys() == {"openai/*", "claude/*"}


def test_a_reload_keeps_what_the_board_knows() -> None:
    board = Board()
    break_(Routes(UPSTREAMS, [model()], board).targets()["openai/a"])
    again = Routes(UPSTREAMS, [model(balance="first")], board)
    assert again.targets()["openai/a"].state(NOW) == "open"
    assert Routes(UPSTREAMS, [model()]).targets()["openai/a"].state(NOW) == "closed"
    off = Routes(UPSTREAMS, [model()], board, Breaker(enabled=False))
    assert off.targets()["openai/a"].may(NOW)


def test_sticky_numbers_keep_to_a_target() -> None:
    routes = Routes(UPSTREAMS, [model()], Board())
    for sticky in range(1, 50):
        assert len({routes.resolve("v", ALL, number << 40, NOW, sticky).plan[0].name for number in range(20)}) == 1


def test_an_answer_that_is_slow_opens_it_where_so_configured() -> None:
    routes = Routes(
        [upstream("openai", "*", breaker={"slow": "100ms", "consecutive": 1})], [model(targets=["openai/a"])]
    )
    circuit = routes.targets()["openai/a"]
    circuit.end(NOW, GOOD, circuit.begin(NOW), SECOND // 10)
    assert circuit.may(NOW)
    circuit.end(NOW, GOOD, circuit.begin(NOW), SECOND // 10 + 1)
    assert not circuit.may(NOW)


def test_the_echo_model_has_no_circuit() -> None:
    routes = Routes(UPSTREAMS, [])
    assert routes.resolve("agw/echo", ALL, 0, NOW).plan[0].circuit is None
