"""References: names, defaults, files, optional upstreams; and that no secret is ever in a message."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.config.secrets import Surroundings, UnresolvedError, interpolate, references
from agw_proxy.config.sources import Variable
from agw_proxy.config.tree import ConfigError, Origin, from_plain
from tests.config.conftest import Folder

CANARY = "canary7Q4x"


def filled(text: str, folder: Path = Path("/"), **environ: str) -> str:
    variables = {name: Variable(value, Origin(variable=name)) for name, value in environ.items()}
    return interpolate(text, Surroundings(variables, {}, folder), folder)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "1"),
        ("x${A}y${B}z", "x1y2z"),
        ("${C:-d}", "d"),
        ("${E:-d}", "d"),
        ("${A:-d}", "1"),
        ("${C:-}", ""),
        ("${C:-${A}}", "1"),
        ("${C:-a:-b}", "a:-b"),
        ("$${A}", "${A}"),
        ("$$$${A}", "$${A}"),
        ("$$${A}", "$1"),
        ("$A a$ 5$", "$A a$ 5$"),
        ("", ""),
    ],
)
def test_references(text: str, value: str) -> None:
    assert filled(text, A="1", B="2", E="") == value


@pytest.mark.parametrize(
    ("text", "message", "missing"),
    [
        ("${C}", "the environment name C is not set", True),
        ("${E}", "the environment name E is empty", True),
        ("${C:-${D}}", "the environment name D is not set", True),
        ("${A", "without its closing }", False),
        ("${}", r"expected \$\{NAME\}", False),
        ("${A B}", r"expected \$\{NAME\}", False),
        ("${A-d}", r"expected \$\{NAME\}", False),
        ("${vault:a}", "not yet supported", False),
        ("${aws:a}", "not yet supported", False),
        ("${file:}", "expected", False),
        ("${file:/nonexistent/x}", "/nonexistent/x: cannot be read: No such file", True),
        ("${file:/dev/null}", "regular file", True),
        ("${C:-" * 9 + "}" * 9, "nested too deeply", False),
    ],
)
def test_what_gives_no_value(text: str, message: str, missing: bool) -> None:
    with pytest.raises(UnresolvedError, match=message) as caught:
        filled(text, A="1", E="")
    assert caught.value.missing is missing


@pytest.mark.parametrize(
    ("content", "value"), [("s\n", "s"), ("s\r\n", "s"), ("s\n\n", "s\n"), ("s", "s"), (" s ", " s ")]
)
def test_a_files_last_line_break_is_trimmed(tmp_path: Path, content: str, value: str) -> None:
    (tmp_path / "key").write_bytes(content.encode())
    assert filled("${file:key}", tmp_path) == value
    assert filled(f"${{file:{tmp_path}/key}}") == value


@given(st.text(max_size=60))
def test_escaped_text_comes_back_as_it_was(text: str) -> None:
    assert filled(text.replace("$", "$$")) == text


@given(st.text(alphabet="${}:-Afile/ ", max_size=40))
def test_any_text_is_filled_in_or_refused(text: str) -> None:
    with contextlib.suppress(UnresolvedError):
        assert isinstance(filled(text, A="1"), str)


def test_references_finds_every_name() -> None:
    tree = from_plain({"a": ["${A}", "x${B:-${C}}"], "b": "$${D}", "c": 1}, Origin())
    assert references(tree) == {"A", "B", "C"}


def test_an_unset_name_is_an_error_at_its_line(folder: Folder) -> None:
    found = folder.problem("upstreams:\n  - name: up\n    base_url: http://x\n    api_key: ${UP_KEY}\n")
    assert (found.file, found.line, found.path) == ("gateway.yaml", 4, "upstreams.up.api_key")
    assert "UP_KEY is not set" in found.message


def test_a_file_is_relative_to_the_file_that_says_so(folder: Folder) -> None:
    folder.write("sk-file\n", "conf/secrets/key")
    config = folder.write("upstreams: [{name: up, base_url: http://x, api_key: '${file:secrets/key}'}]", "conf/my.yaml")
    made = folder.load_file(config).settings
    assert made.upstreams[0].api_key is not None
    assert made.upstreams[0].api_key.get_secret_value() == "sk-file"


OPTIONAL = """
upstreams:
  - {name: a, base_url: http://a, api_key: "${A_KEY}", optional: true, models: [am]}
  - {name: b, base_url: http://b, models: [bm]}
models:
  - {name: both, targets: [a/x, b/x], fallbacks: [a/y, b/y, only, am, bm]}
  - {name: only, targets: [{upstream: a, model: x}]}
"""


def test_an_optional_upstream_is_left_out_with_what_leads_only_to_it(folder: Folder) -> None:
    loaded = folder.load(OPTIONAL)
    made = loaded.settings
    assert [item.name for item in made.upstreams] == ["b"]
    assert [(model.name, len(model.targets), model.fallbacks) for model in made.models] == [("both", 1, ("b/y", "bm"))]
    assert any(
        "optional upstream a is left out: the environment name A_KEY is not set" in note for note in loaded.notes
    )
    assert any("model only is left out" in note for note in loaded.notes)


def test_an_optional_upstream_whose_name_is_set_serves(folder: Folder) -> None:
    assert [item.name for item in folder.load(OPTIONAL, A_KEY="k").settings.upstreams] == ["a", "b"]


def test_optional_does_not_excuse_a_malformed_reference(folder: Folder) -> None:
    assert (
        "expected ${NAME}"
        in folder.problem("upstreams: [{name: a, base_url: http://a, api_key: '${A KEY}', optional: yes}]").message
    )


def test_the_environment_replaces_an_unset_reference(folder: Folder) -> None:
    text = "upstreams: [{name: a, base_url: http://a, api_key: '${A_KEY}'}]"
    made = folder.load(text, GATEWAY_UPSTREAMS__a__API_KEY="k").settings
    assert made.upstreams[0].api_key is not None


def test_an_empty_result_means_not_given(folder: Folder) -> None:
    made = folder.load(
        "upstreams: [{name: a, base_url: http://a, api_key: '${A_KEY:-}'}]\nserver: {port: '${P:-}'}"
    ).settings
    assert made.upstreams[0].api_key is None
    assert made.server.port == 8080


def test_environment_values_are_literal_but_for_one_whole_reference(folder: Folder) -> None:
    folder.write("from-file\n", "key")
    made = folder.load(
        GATEWAY_UPSTREAMS__a__BASE_URL="http://a",
        GATEWAY_UPSTREAMS__a__API_KEY="pa$$word${X}",
        GATEWAY_UPSTREAMS__b__BASE_URL="http://b",
        GATEWAY_UPSTREAMS__b__API_KEY="${file:key}",
    ).settings
    values = [item.api_key.get_secret_value() for item in made.upstreams if item.api_key]
    assert values == ["pa$$word${X}", "from-file"]


@pytest.mark.parametrize(
    "text",
    [
        f"upstreams: [{{name: u, base_url: http://x, api_key: [{CANARY}]}}]",
        f"upstreams: [{{name: u, base_url: http://x, api_key: {{a: {CANARY}}}}}]",
        f'upstreams: [{{name: u, base_url: http://x, api_key: "{CANARY} space"}}]',
        f"upstreams: [{{name: u, base_url: 'https://me:{CANARY}@x'}}]",
        f"upstreams: [{{name: u, base_url: 'https://x/?key={CANARY}'}}]",
        f"upstreams: [{{name: u, base_url: {CANARY}}}]",
        f"upstreams: [{{name: u, base_url: http://x, headers: {{x-key: ' {CANARY}\\n'}}}}]",
        f"upstreams: [{{name: u, base_url: http://x, headers: {CANARY}}}]",
        f"upstreams: [{{name: u, base_url: http://x, apikey: {CANARY}}}]",
        f"upstreams: {CANARY}",
        f"upstreams: [{CANARY}]",
        f"keys: [{{name: k, key: {CANARY}}}]",
        f"keys: [{{name: k, key_sha256: {CANARY}}}]",
        f"keys: [{{name: k, key: {CANARY}-{CANARY}, key_sha256: {CANARY}}}]",
        f"keys: {CANARY}",
        f"metrics: {{key: {CANARY}}}",
        f"redis: {{url: 'redis//:{CANARY}@h:6379'}}",
        f"redis: {{url: 'redis://:{CANARY}@h:port'}}",
        f"store: {{url: 'postgres//u:{CANARY}@h/d'}}",
        f"alerts: {{webhook: 'https://h:port/services/{CANARY}'}}",
        "server: {port: '${SECRET}'}",
        "log: {level: '${SECRET}'}",
        "server: {state_dir: ['${SECRET}']}",
        "upstreams: [{name: '${SECRET}', base_url: http://x, dialect: '${SECRET}'}]",
        f"upstreams: [{{name: u, base_url: http://x, api_key: '${{A:-{CANARY}'}}]",
        f"upstreams: [{{name: u, base_url: http://x, api_key: '${{{CANARY} x}}'}}]",
        f"upstreams: [{{name: u, base_url: http://x, api_key: *{CANARY}}}]",
        f"upstreams: [{{name: u, base_url: http://x, api_key: !{CANARY} x}}]",
        f'upstreams: [{{name: u, base_url: http://x, api_key: "{CANARY}',
        f"upstreams: [{{name: u, base_url: http://x, api_key: @{CANARY}}}]",
    ],
)
def test_no_secret_is_in_any_error(folder: Folder, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        folder.load(text, SECRET=f"{CANARY}!")
    assert CANARY not in str(caught.value)
    assert CANARY not in repr(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "GATEWAY_UPSTREAMS",
        "GATEWAY_UPSTREAMS__u",
        "GATEWAY_KEYS__k__KEY",
        "GATEWAY_UPSTREAMS__u__APIKEY",
        "GATEWAY_METRICS__KEY",
        "GATEWAY_KEY",
    ],
)
def test_no_secret_of_the_environment_is_in_any_error(folder: Folder, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        folder.load(**{name: f'["{CANARY}"'})
    assert CANARY not in str(caught.value)


def test_no_secret_is_in_the_settings_text(folder: Folder) -> None:
    key = f"{CANARY}-0123456789abcdef"
    loaded = folder.load(
        f"upstreams: [{{name: u, base_url: http://x, api_key: {CANARY}, auth: none, headers: {{x-key: {CANARY}}}}}]\n"
        f"keys: [{{name: k, key: {key}}}]"
    )
    assert CANARY not in repr(loaded)
    assert CANARY not in str(loaded.settings.model_dump_json(exclude={"upstreams": {"__all__": {"headers"}}}))


def test_a_secret_file_that_may_not_be_read_says_so(folder: Folder) -> None:
    os.mkfifo(folder.path / "pipe")
    assert (
        "expected a regular file"
        in folder.problem("upstreams: [{name: a, base_url: http://a, api_key: '${file:pipe}'}]").message
    )
