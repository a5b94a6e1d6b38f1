"""The contract's sentences on files, overlays, sections, the environment and errors, one test each."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agw_proxy.config.settings import UNSUPPORTED, Settings
from agw_proxy.config.tree import ConfigError, Problem
from tests.config.conftest import Folder

KEY = "agw-0123456789abcdefghij"
UPSTREAM = '{name: up, base_url: "http://127.0.0.1:9/v1"}'


def test_defaults_without_any_file(folder: Folder) -> None:
    loaded = folder.load()
    assert loaded.files == ()
    assert (loaded.settings.server.host, loaded.settings.server.port) == ("127.0.0.1", 8080)
    assert loaded.settings.upstreams == ()
    assert "only agw/echo answers" in loaded.notes[0]


def test_the_contracts_example_loads(folder: Folder) -> None:
    text = """
server:   {host: 127.0.0.1, port: 8080, workers: 1, admin_port: null, max_body_mb: 32, drain_seconds: 30}
upstreams:
  - {name: openai, dialect: openai, base_url: "https://api.openai.com/v1", api_key: "${OPENAI_API_KEY}",
     models: ["gpt-*", "text-embedding-*"]}
  - {name: claude, dialect: anthropic, base_url: "https://api.anthropic.com", api_key: "${ANTHROPIC_API_KEY}",
     models: ["claude-*"]}
models:
  - name: fast
    targets: [{upstream: openai, model: gpt-4o-mini, weight: 3}, {upstream: claude, model: claude-haiku, weight: 1}]
    balance: weighted
    fallbacks: [openai/gpt-4o]
keys:
  - {name: dev, key: "${GATEWAY_DEV_KEY}", models: ["*"], admin: true}
  - {name: app, key_sha256: "%s", models: ["fast", "default/*"], tools: ["math.*"],
     limits: [{per: key, requests: 600, period: 1m, burst: 60}, {per: user, tokens: 200000, period: 1m},
              {per: key, concurrent: 50}]}
limits:   [{per: global, requests: 5000, period: 1s}]
agents:   {paths: ["agents"], allow: ["*"], deny: [], auto_reload: false, namespace: default}
""" % ("ab" * 32)
    loaded = folder.load(text, OPENAI_API_KEY="sk-o", ANTHROPIC_API_KEY="sk-a", GATEWAY_DEV_KEY=KEY)
    made = loaded.settings
    assert [upstream.name for upstream in made.upstreams] == ["openai", "claude"]
    assert made.upstreams[0].api_key is not None
    assert made.upstreams[0].api_key.get_secret_value() == "sk-o"
    assert [(target.upstream, target.weight) for target in made.models[0].targets] == [("openai", 3), ("claude", 1)]
    assert [limit.period for limit in made.keys[1].limits] == [60.0, 60.0, 60.0]
    assert made.limits[0].period == 1.0
    assert made.agents.bounds("default/any")["turns"] == 10


def test_config_wins_over_gateway_config_and_that_over_the_default_file(folder: Folder) -> None:
    folder.write("server: {port: 1}")
    folder.write("server: {port: 2}", "named.yaml")
    given_file = folder.write("server: {port: 3}", "given.yaml")
    assert folder.load().settings.server.port == 1
    assert folder.load(GATEWAY_CONFIG="named.yaml").settings.server.port == 2
    assert folder.load_file(given_file, GATEWAY_CONFIG="named.yaml").settings.server.port == 3


def test_a_named_file_that_is_missing_is_an_error(folder: Folder) -> None:
    found = folder.problem(environ={"GATEWAY_CONFIG": "none.yaml"})
    assert found.variable == "GATEWAY_CONFIG"
    assert "none.yaml: cannot be read: No such file" in found.message
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        folder.load_file(folder.path / "none.yaml")


def test_a_directory_is_no_file(folder: Folder) -> None:
    assert "expected a regular file" in folder.problem(environ={"GATEWAY_CONFIG": "/", "GATEWAY_ENV": "x"}).message


def test_the_overlay_merges_over_the_file_lists_by_name(folder: Folder) -> None:
    folder.write(f"server: {{port: 1, drain_seconds: 3}}\nupstreams: [{UPSTREAM}]")
    folder.write(
        "server: {port: 2}\nupstreams: [{name: up, models: [b]}, {name: two, base_url: http://x}]", "gateway.prod.yaml"
    )
    loaded = folder.load(GATEWAY_ENV="prod")
    assert (loaded.settings.server.port, loaded.settings.server.drain_seconds) == (2, 3.0)
    assert [(item.name, item.base_url, item.models) for item in loaded.settings.upstreams] == [
        ("up", "http://127.0.0.1:9/v1", ("b",)),
        ("two", "http://x", ("*",)),
    ]
    assert [path.name for path in loaded.files] == ["gateway.yaml", "gateway.prod.yaml"]


def test_a_missing_overlay_is_a_note_and_a_strange_name_an_error(folder: Folder) -> None:
    assert any("no overlay gateway.prod.yaml" in note for note in folder.load("{}", GATEWAY_ENV="prod").notes)
    assert folder.problem(environ={"GATEWAY_ENV": "../prod"}).variable == "GATEWAY_ENV"


def test_a_broken_file_is_the_only_problem(folder: Folder) -> None:
    environ = {"GATEWAY_DEV_KEY": "x", "GATEWAY_SERVER__HOST": "0.0.0.0", "GATEWAY_UPSTREAMS__up__API_KEY": "k"}
    found = folder.problem("keys: [{name: dev, key: '${GATEWAY_DEV_KEY}'}\nupstreams: [", environ)
    assert found.message.startswith("not valid YAML")


def test_an_error_in_the_overlay_names_the_overlay(folder: Folder) -> None:
    folder.write("server:\n  port: 1\n")
    folder.write("server:\n\n  port: x\n", "gateway.prod.yaml")
    found = folder.problem(environ={"GATEWAY_ENV": "prod"})
    assert (found.file, found.line, found.path) == ("gateway.prod.yaml", 3, "server.port")


def test_sections_live_in_files_of_their_own(folder: Folder) -> None:
    folder.write("server: {port: 1}\nupstreams: [{name: up, base_url: http://old}]")
    folder.write("upstreams: [{name: up, base_url: http://new}]\nmodels: [{name: m, targets: [up/x]}]", "parts/up.yaml")
    folder.write(f"keys: [{{name: k, key: {KEY}}}]\nlimits: [{{per: key, concurrent: 1}}]", "parts/sec.yaml")
    folder.write("agents: {namespace: mine}", "parts/agents.yaml")
    loaded = folder.load(
        GATEWAY_UPSTREAM_CONFIG="parts/up.yaml",
        GATEWAY_SECURITY_CONFIG="parts/sec.yaml",
        GATEWAY_AGENT_CONFIG="parts/agents.yaml",
    )
    made = loaded.settings
    assert made.upstreams[0].base_url == "http://new"
    assert (made.models[0].name, made.keys[0].name, made.limits[0].concurrent, made.agents.namespace) == (
        "m",
        "k",
        1,
        "mine",
    )


def test_a_section_file_holds_its_own_sections_only(folder: Folder) -> None:
    folder.write("keys: []\n", "up.yaml")
    found = folder.problem(environ={"GATEWAY_UPSTREAM_CONFIG": "up.yaml"})
    assert (found.file, found.line) == ("up.yaml", 1)
    assert "upstreams and models only" in found.message


def test_tools_may_have_a_file_of_their_own(folder: Folder) -> None:
    folder.write('tools: [{name: math.add, python: "tools/math.py:add"}]\n', "tools.yaml")
    environ = {"GATEWAY_TOOL_CONFIG": "tools.yaml", "GATEWAY_TOOLS__math.add__TIMEOUT": "5s"}
    settings = folder.load(**environ).settings
    assert [(tool.name, tool.timeout) for tool in settings.tools] == [("math.add", 5.0)]


def test_dotenv_is_read_and_the_real_environment_wins(folder: Folder) -> None:
    folder.write("GATEWAY_SERVER__PORT=1\nGATEWAY_SERVER__DRAIN_SECONDS=5\nSOMEBODY_ELSES=1\n", ".env")
    made = folder.load(GATEWAY_SERVER__PORT="2").settings
    assert (made.server.port, made.server.drain_seconds) == (2, 5.0)


def test_an_unknown_gateway_name_in_dotenv_says_the_line(folder: Folder) -> None:
    folder.write("A=1\nGATEWAY_SERVR__PORT=1\n", ".env")
    found = folder.problem()
    assert str(found) == "environment GATEWAY_SERVR__PORT (.env:2): unknown name; did you mean GATEWAY_SERVER__PORT?"


def test_dotenv_may_name_the_file(folder: Folder) -> None:
    folder.write("GATEWAY_CONFIG=other.yaml\n", ".env")
    folder.write("server: {port: 7}", "other.yaml")
    assert folder.load().settings.server.port == 7


def test_all_errors_are_listed_at_once_with_file_line_and_path(folder: Folder) -> None:
    text = """server:
  prot: 1
  port: high
upstreams:
  - name: up
    base_url: ftp://x
    models: gpt-4
models:
  - name: fast
    targets: [upp/x]
sever: 1
"""
    found = folder.problems(text, {"GATEWAY_LOG__LEVEL": "loud"})
    assert [(item.file, item.line, item.variable, item.path) for item in found] == [
        ("gateway.yaml", 2, None, "server.prot"),
        ("gateway.yaml", 3, None, "server.port"),
        ("gateway.yaml", 6, None, "upstreams.up.base_url"),
        ("gateway.yaml", 7, None, "upstreams.up.models"),
        ("gateway.yaml", 10, None, "models.fast.targets.0"),
        ("gateway.yaml", 11, None, "sever"),
        (None, None, "GATEWAY_LOG__LEVEL", "log.level"),
    ]
    text = str(ConfigError(found))
    assert "gateway.yaml:2: server.prot: unknown field; did you mean port?" in text
    assert "server.port: expected a whole number, came 'high'" in text
    assert "there is no upstream 'upp'; did you mean up?" in text
    assert "sever: unknown section; did you mean server?" in text
    assert "log.level: expected 'debug', 'info', 'warning' or 'error', came 'loud'" in text


@pytest.mark.parametrize("section", UNSUPPORTED)
def test_sections_of_later_versions_are_refused_by_name(folder: Folder, section: str) -> None:
    found = folder.problem(f"{section}: {{}}")
    assert (found.path, found.message) == (section, "not yet supported in this version")
    found = folder.problem("{}", {f"GATEWAY_{section.upper()}__X": "1"})
    assert "not yet supported in this version" in found.message


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("upstreams: [{name: u, base_url: http://x, proxy: {}}]", "upstreams.u.proxy"),
    ],
)
def test_values_of_later_versions_are_refused_by_name(folder: Folder, text: str, path: str) -> None:
    found = folder.problem(text)
    assert found.path == path
    assert "not yet supported in this version" in found.message


def test_well_known_upstreams_serve_also_when_only_another_section_is_given(folder: Folder) -> None:
    loaded = folder.load("server: {port: 1}", OPENAI_API_KEY="sk-o")
    assert [item.name for item in loaded.settings.upstreams] == ["openai"]
    assert any("OPENAI_API_KEY" in note for note in loaded.notes)


@pytest.mark.parametrize("text", ["upstreams: []", f"upstreams: [{UPSTREAM}]"])
def test_an_upstreams_section_switches_the_well_known_ones_off(folder: Folder, text: str) -> None:
    names = [item.name for item in folder.load(text, OPENAI_API_KEY="sk-o").settings.upstreams]
    assert "openai" not in names


def test_a_well_known_key_that_cannot_be_sent_names_its_variable(folder: Folder) -> None:
    found = folder.problem(environ={"OPENAI_API_KEY": "sk canary"})
    assert found.variable == "OPENAI_API_KEY"
    assert "canary" not in str(found)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "::", "[2001:db8::1]"])
def test_without_keys_only_loopback_is_listened_on(folder: Folder, host: str) -> None:
    found = folder.problem(environ={"GATEWAY_SERVER__HOST": host})
    assert found.path == "server.host"
    assert "GATEWAY_KEYS__app__KEY=$(agw keys new)" in found.message
    assert folder.load(GATEWAY_SERVER__HOST=host, GATEWAY_KEYS__app__KEY=KEY).settings.keys[0].name == "app"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "unix:/run/agw.sock"])
def test_loopback_and_unix_sockets_need_no_keys(folder: Folder, host: str) -> None:
    assert folder.load(GATEWAY_SERVER__HOST=host).settings.server.host


def test_the_settings_are_frozen(folder: Folder) -> None:
    made = folder.load(f"upstreams: [{UPSTREAM}]").settings
    for part, field in ((made, "server"), (made.server, "port"), (made.upstreams[0], "name")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(part, field, None)


def test_the_environment_is_the_one_handed_in(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER", '{"port": 1}')
    monkeypatch.setenv("GATEWAY_SERVER__PORT", "1")
    assert folder.load().settings.server.port == 8080


def test_pydantic_settings_own_arguments_are_no_sections(folder: Folder) -> None:
    assert folder.problem("_env_file: /etc/passwd").message.startswith("unknown section")


names = st.sampled_from(
    ["server", "upstreams", "models", "keys", "limits", "name", "targets", "port", "headers", "agents", "api_key", "x"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["${X}", "up/x", "1m", "up"])
)
trees: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.dictionaries(names, trees, max_size=5))
def test_any_yaml_loads_or_gives_config_error(folder: Folder, value: dict[str, Any]) -> None:
    import yaml

    problems: tuple[Problem, ...] = ()
    try:
        folder.load(yaml.safe_dump(value))
    except ConfigError as error:
        problems = error.problems
        listed = str(error)
    else:
        listed = ""
    assert len(problems) == max(len(listed.splitlines()) - 1, 0)
    assert problems or set(value) <= set(Settings.model_fields)
