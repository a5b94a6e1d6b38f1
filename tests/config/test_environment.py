"""Environment names: nesting, list items by name and index, JSON, special names, and what is not known."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agw_proxy.config.environment import ALIASES, static_names
from agw_proxy.config.settings import Settings
from agw_proxy.config.sources import Variable
from agw_proxy.config.tree import ConfigError, Origin
from tests.config.conftest import Folder

KEY = "agw-0123456789abcdefghij"
FILE = """
upstreams:
  - {name: openai, base_url: http://a, models: [x]}
  - {name: my-vllm, base_url: http://b}
keys: [{name: dev, key: "${GATEWAY_DEV_KEY}"}]
limits: [{per: key, requests: 5}]
models: [{name: m, targets: [{upstream: openai, model: x}, my-vllm/y]}]
"""


def loaded(folder: Folder, **environ: str) -> Settings:
    return folder.load(FILE, GATEWAY_DEV_KEY=KEY, **environ).settings


def test_a_list_item_is_addressed_by_its_name(folder: Folder) -> None:
    made = loaded(folder, GATEWAY_UPSTREAMS__openai__API_KEY="sk-1")
    assert made.upstreams[0].api_key is not None
    assert made.upstreams[0].api_key.get_secret_value() == "sk-1"
    assert made.upstreams[0].base_url == "http://a"


@pytest.mark.parametrize(
    "name",
    ["GATEWAY_UPSTREAMS__MY_VLLM__BASE_URL", "gateway_upstreams__my_vllm__base_url", "GATEWAY_UPSTREAMS__1__BASE_URL"],
)
def test_names_fold_case_and_what_the_shell_cannot_write_and_the_index_works(folder: Folder, name: str) -> None:
    made = loaded(folder, **{name: "http://new"})
    assert [item.base_url for item in made.upstreams] == ["http://a", "http://new"]


def test_an_item_is_made_where_there_is_none(folder: Folder) -> None:
    made = loaded(folder, GATEWAY_UPSTREAMS__New__BASE_URL="http://n", GATEWAY_KEYS__App__KEY=KEY + "x")
    assert made.upstreams[2].name == "new"
    assert [key.name for key in made.keys] == ["dev", "App"]


def test_a_made_upstream_with_a_well_known_name_brings_its_address(folder: Folder) -> None:
    made = folder.load(GATEWAY_UPSTREAMS__groq__API_KEY="gsk", OPENAI_API_KEY="sk").settings
    assert [(item.name, item.base_url) for item in made.upstreams] == [("groq", "https://api.groq.com/openai/v1")]


def test_a_made_upstream_of_another_name_needs_an_address(folder: Folder) -> None:
    found = folder.problem(environ={"GATEWAY_UPSTREAMS__mine__API_KEY": "sk"})
    assert (found.path, found.message) == ("upstreams.mine.base_url", "is required")


@pytest.mark.parametrize("text", ['["a", "b,c"]', "a, b", "a"])
def test_lists_of_texts_are_json_or_separated_by_commas(folder: Folder, text: str) -> None:
    expected = json.loads(text) if text.startswith("[") else [part.strip() for part in text.split(",")]
    assert list(loaded(folder, GATEWAY_UPSTREAMS__openai__MODELS=text).upstreams[0].models) == expected


def test_lists_of_items_are_json_and_merge_like_an_overlay(folder: Folder) -> None:
    made = loaded(folder, GATEWAY_UPSTREAMS='[{"name": "openai", "optional": true}]', GATEWAY_SERVER='{"port": 5}')
    assert [item.optional for item in made.upstreams] == [True, False]
    assert made.server.port == 5


def test_a_whole_item_is_json_and_takes_the_name_it_is_addressed_by(folder: Folder) -> None:
    made = loaded(
        folder, GATEWAY_UPSTREAMS__new='{"base_url": "http://n"}', GATEWAY_UPSTREAMS__openai='{"optional": true}'
    )
    assert [(item.name, item.optional) for item in made.upstreams] == [
        ("openai", True),
        ("my-vllm", False),
        ("new", False),
    ]


def test_whole_sections_come_before_their_parts(folder: Folder) -> None:
    made = loaded(folder, GATEWAY_SERVER__PORT="6", GATEWAY_SERVER='{"port": 5, "json_depth": 9}')
    assert (made.server.port, made.server.json_depth) == (6, 9)


def test_deep_items_and_mappings(folder: Folder) -> None:
    made = loaded(
        folder,
        GATEWAY_LIMITS__0__REQUESTS="7",
        GATEWAY_LIMITS__1='{"per": "user", "tokens": 9}',
        GATEWAY_KEYS__dev__LIMITS__0__PER="key",
        GATEWAY_KEYS__dev__LIMITS__0__CONCURRENT="2",
        GATEWAY_MODELS__m__TARGETS__0__WEIGHT="4",
        GATEWAY_UPSTREAMS__openai__TIMEOUTS__CONNECT="250ms",
        **{"GATEWAY_UPSTREAMS__openai__HEADERS__x-team": "blue"},
    )
    assert [limit.requests or limit.tokens for limit in made.limits] == [7, 9]
    assert made.keys[0].limits[0].concurrent == 2
    assert made.models[0].targets[0].weight == 4
    assert made.upstreams[0].timeouts.connect == 0.25
    assert made.upstreams[0].headers == {"x-team": "blue"}


def test_a_part_of_a_shorthand_cannot_be_set(folder: Folder) -> None:
    found = folder.problem(FILE, {"GATEWAY_DEV_KEY": KEY, "GATEWAY_MODELS__m__TARGETS__1__WEIGHT": "4"})
    assert "a part of what is one value at gateway.yaml:7" in found.message


@pytest.mark.parametrize(
    ("name", "value", "path", "expected"),
    [
        ("GATEWAY_AGENT_DISCOVERY_PATH", "a,b", "agents.paths", ["a", "b"]),
        ("GATEWAY_AGENT_DISCOVERY_ALLOWLIST", "a*", "agents.allow", ["a*"]),
        ("GATEWAY_AGENT_DISCOVERY_DENYLIST", '["b"]', "agents.deny", ["b"]),
        ("GATEWAY_AGENT_AUTO_RELOAD", "true", "agents.auto_reload", True),
        ("GATEWAY_UPSTREAM_AUTO_RELOAD", "1", "server.upstream_auto_reload", True),
        ("GATEWAY_TOOL_AUTO_RELOAD", "yes", "server.tool_auto_reload", True),
        ("GATEWAY_LOG_LEVEL", "debug", "log.level", "debug"),
        ("GATEWAY_PROMETHEUS_ENABLED", "false", "metrics.prometheus", False),
    ],
)
def test_the_special_names_set_their_fields(folder: Folder, name: str, value: str, path: str, expected: object) -> None:
    assert set(ALIASES) >= {name}
    section, field = path.split(".")
    got = getattr(getattr(folder.load(**{name: value}).settings, section), field)
    assert ([str(item) for item in got] if isinstance(got, tuple) else got) == expected


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("GATEWAY_SERVER_PORT", "did you mean GATEWAY_SERVER__PORT?"),
        ("GATEWAY_SERVER__PROT", "did you mean GATEWAY_SERVER__PORT?"),
        ("GATEWAY_CONFG", "did you mean GATEWAY_CONFIG?"),
        ("GATEWAY_UPSTREAMS__openai__APIKEY", "did you mean GATEWAY_UPSTREAMS__openai__API_KEY?"),
        ("GATEWAY_LOG_LEVLE", "did you mean GATEWAY_LOG_LEVEL?"),
        ("GATEWAY_QQQ", "unknown name"),
        ("GATEWAY_", "unknown name"),
        ("GATEWAY_SERVER__PORT__X", "holds one value"),
        ("GATEWAY_MODELS__m__TARGETS__first__WEIGHT", "expected the index of an item"),
        ("GATEWAY_LIMITS__3__REQUESTS", "the next index is 0"),
        ("GATEWAY_UPSTREAMS____API_KEY", "expected the index of an item"),
        ("GATEWAY_SERVICE_HOST", "enableServiceLinks"),
        ("GATEWAY_PORT_8080_TCP_ADDR", "enableServiceLinks"),
    ],
)
def test_unknown_names_are_errors_with_the_nearest_known(folder: Folder, name: str, hint: str) -> None:
    found = folder.problems(environ={name: "1"})
    assert found[0].variable == name
    assert hint in found[0].message


def test_an_empty_value_counts_as_not_set_but_its_name_must_be_known(folder: Folder) -> None:
    assert folder.load(GATEWAY_SERVER__PORT="", GATEWAY_UPSTREAMS__x__API_KEY="").settings.upstreams == ()
    assert "did you mean" in folder.problem(environ={"GATEWAY_SERVER__PROT": ""}).message


def test_two_names_for_one_value_are_an_error(folder: Folder) -> None:
    found = folder.problem(environ={"GATEWAY_LOG_LEVEL": "info", "GATEWAY_LOG__LEVEL": "debug"})
    assert "sets the same value as GATEWAY_LOG_LEVEL" in found.message


def test_names_that_the_files_refer_to_may_be_called_anything(folder: Folder) -> None:
    assert folder.load("server: {port: '${GATEWAY_OWN:-5}'}", GATEWAY_OWN="6").settings.server.port == 6


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 1, "a": 2}', "NaN", "[" * 5000, '{"a": ' * 30 + "1" + "}" * 30])
def test_bad_json_is_refused_without_being_shown(folder: Folder, text: str) -> None:
    found = folder.problem(environ={"GATEWAY_SERVER": text})
    assert found.variable == "GATEWAY_SERVER"
    assert "JSON" in found.message


def test_null_clears_what_may_be_nothing(folder: Folder) -> None:
    assert folder.load("server: {admin_port: 5}", GATEWAY_SERVER__ADMIN_PORT="null").settings.server.admin_port is None


def test_two_items_that_fold_to_one_name_need_the_exact_one(folder: Folder) -> None:
    text = "upstreams: [{name: a-b, base_url: http://a}, {name: a.b, base_url: http://b}]"
    assert "use the exact name" in folder.problem(text, {"GATEWAY_UPSTREAMS__A_B__BASE_URL": "http://c"}).message


def test_every_static_name_is_accepted(folder: Folder) -> None:
    assert len(static_names()) > 40
    for name in static_names():
        assert folder.load(**{name: ""}).settings.server.port == 8080


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True).filter(lambda name: name != "agw"),
    port=st.integers(0, 65535),
    drain=st.floats(0, 1000).map(lambda value: round(value, 3)),
    models=st.lists(st.from_regex(r"[a-z0-9*./-]{1,8}", fullmatch=True), min_size=1, max_size=3),
    flag=st.booleans(),
)
def test_what_the_environment_sets_comes_back(
    folder: Folder, *, name: str, port: int, drain: float, models: list[str], flag: bool
) -> None:
    made = folder.load(
        **{
            "GATEWAY_SERVER__PORT": str(port),
            "GATEWAY_SERVER__DRAIN_SECONDS": str(drain),
            f"GATEWAY_UPSTREAMS__{name}__BASE_URL": "http://x",
            f"GATEWAY_UPSTREAMS__{name}__MODELS": json.dumps(models),
            f"GATEWAY_UPSTREAMS__{name}__OPTIONAL": str(flag),
        }
    ).settings
    upstream = made.upstreams[0]
    assert (made.server.port, made.server.drain_seconds) == (port, drain)
    assert (upstream.name, list(upstream.models), upstream.optional) == (name, models, flag)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.lists(
        st.sampled_from(
            ["upstreams", "server", "keys", "limits", "models", "targets", "0", "1", "x", "port", "headers", "", "é"]
        ),
        max_size=5,
    ),
    value=st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
    | st.sampled_from(["[]", "{}", "[{}]", "${X}"]),
)
def test_any_gateway_name_loads_or_gives_config_error(folder: Folder, path: list[str], value: str) -> None:
    name = "GATEWAY_" + "__".join(path)
    try:
        folder.load(FILE, GATEWAY_DEV_KEY=KEY, **{name: value})
    except ConfigError as error:
        problems = error.problems
    else:
        problems = ()
    assert problems or path


def test_a_variable_knows_its_place(folder: Folder) -> None:
    assert str(Variable("1", Origin(".env", 3, "A")).origin) == "environment A (.env:3)"
