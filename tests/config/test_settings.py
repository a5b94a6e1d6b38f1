"""The settings' fields: what each accepts, what it refuses, and the rules between them."""

import contextlib
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agw_proxy.config import values
from agw_proxy.config.resilience import Retries, RetryOverride, TimeoutOverride, Timeouts
from agw_proxy.config.settings import Settings
from tests.config.conftest import Folder

KEY = "agw-0123456789abcdefghij"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest().upper()
UPSTREAM: dict[str, Any] = {"name": "up", "base_url": "http://x"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("1m", 60),
        ("1h", 3600),
        ("1d", 86400),
        ("2", 2),
        (2, 2),
        (0.5, 0.5),
        (" 3 s ", 3),
        ("0", 0),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert values.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "-1s",
        "1w",
        "1 m 2 s",
        "1e3",
        "inf",
        "nan",
        True,
        None,
        [],
        -1,
        10**400,
        float("nan"),
        float("inf"),
        "400d",
        "١s",
    ],
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration such as"):
        values.duration(text)


@given(st.floats(0, 1e6).map(lambda value: round(value, 6)))
def test_a_duration_in_milliseconds_is_a_thousandth(number: float) -> None:
    assert values.duration(f"{number:.6f}ms") == pytest.approx(values.duration(f"{number:.6f}s") / 1000)


@given(st.text(max_size=12) | st.integers() | st.floats())
def test_a_duration_is_finite_and_not_negative_or_refused(value: object) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= values.duration(value) <= values.MAX_SECONDS


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434"),
        ("http://[::1]:1/v1//", "http://[::1]:1/v1"),
        ("http://my_host/", "http://my_host"),
    ],
)
def test_base_urls(text: str, kept: str) -> None:
    assert values.base_url(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "ftp://x", "http://", "https://u:p@x", "http://u@x", "http://x?a=b", "http://x?",
        "http://x#", "http://x/ y", "http://x\r\nA: b", "http://x:99999",
        "http://x:0", "http://x:a", "http://[::1", "http://ü", "file:///etc", "//x", "http://x\\y", "http://a,b",
    ],
)  # fmt: skip
def test_what_is_no_base_url(text: str) -> None:
    with pytest.raises(ValueError, match="expected a"):
        values.base_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "unix:",
        "unix:rel",
        "unix:/a/",
        "unix:/" + "a" * 107,
        "example.com",
        "127.0.0.1:80",
        "256.1.1.1",
        "[::1",
        "",
        "1",
    ],
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        values.host(text)


@pytest.mark.parametrize(
    "text",
    ["", "changeme", "ChangeMe", "sk-1234", "secret", "test", "your-key", "a" * 21, "a" * 30,
     "abcabcabcabcabcabcabcabc", "my-very-long-prefix-for-change-me", "changeme-changeme-changeme",
     "with space 0123456789abcdef", "with\nbreak0123456789abcdef", "ümläut0123456789abcdefgh"],
)  # fmt: skip
def test_keys_that_can_be_guessed_or_sent_wrongly_are_refused(folder: Folder, text: str) -> None:
    found = folder.problems(environ={"GATEWAY_KEYS__k__KEY": text, "GATEWAY_KEYS__k__ADMIN": "true"})
    assert any(item.path in {"keys.k.key", "keys.k"} for item in found)
    assert not text or text not in str(found[0].message)


def test_a_refused_key_points_to_the_command_that_makes_one(folder: Folder) -> None:
    for text in ("changeme", "short", "a" * 40):
        assert "`agw keys new`" in folder.problem(environ={"GATEWAY_KEYS__k__KEY": text}).message


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"name": "UP"}, "name"),
        ({"name": "agw"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"adaptive": {"min": 20, "max": 10}}, "adaptive"),
        ({"name": ".a"}, "name"),
        ({"dialect": "cobol"}, "dialect"),
        ({"speaks": ["completions", "chat"]}, "speaks"),
        ({"auth": "yes"}, "auth"),
        ({"api_key": "a b"}, "api_key"),
        ({"api_key": "a\r\nb"}, "api_key"),
        ({"api_key": ""}, "api_key"),
        ({"models": [""]}, "models.0"),
        ({"models": ["a\nb"]}, "models.0"),
        ({"models": "gpt-*"}, "models"),
        ({"headers": {"a b": "c"}}, "headers"),
        ({"headers": {"a": "b\nc"}}, "headers"),
        ({"headers": {"a": "b\0c"}}, "headers"),
        ({"headers": {"Connection": "x"}}, "headers"),
        ({"headers": {"Transfer-Encoding": "x"}}, "headers"),
        ({"headers": {"Accept-Encoding": "gzip"}}, "headers"),
        ({"headers": {"X-Request-Id": "x"}}, "headers"),
        ({"headers": {"a": "1", "A": "2"}}, "headers"),
        ({"timeouts": {"connect": 0}}, "timeouts.connect"),
        ({"retries": {"attempts": 11}}, "retries.attempts"),
        ({"verify": False}, "verify"),
        ({"optional": "maybe"}, "optional"),
    ],
)
def test_an_upstream_refuses(folder: Folder, changes: dict[str, Any], path: str) -> None:
    import yaml

    found = folder.problems(yaml.safe_dump({"upstreams": [UPSTREAM | changes]}))
    name = changes.get("name", "up")
    assert [item.path for item in found] == [f"upstreams.{name}.{path}"]


@pytest.mark.parametrize(
    ("section", "fields", "path"),
    [
        ("server", {"port": 65536}, "port"),
        ("server", {"port": -1}, "port"),
        ("server", {"port": True}, "port"),
        ("server", {"port": 1.5}, "port"),
        ("server", {"workers": 0}, "workers"),
        ("server", {"workers": 29}, "workers"),
        ("server", {"workers": "many"}, "workers"),
        ("server", {"workers": True}, "workers"),
        ("server", {"heartbeat_seconds": "100ms"}, "heartbeat_seconds"),
        ("server", {"host": "example.com"}, "host"),
        ("server", {"max_body_mb": 0}, "max_body_mb"),
        ("server", {"body_seconds": 0}, "body_seconds"),
        ("timeouts", {"total": "soon"}, "total"),
        ("retries", {"attempts": 0}, "attempts"),
        ("log", {"format": "xml"}, "format"),
        ("metrics", {"key": "short"}, "key"),
        ("budgets", [{"usd": 1, "period": "fortnight"}], "0.period"),
        ("budgets", [{"usd": 1, "period": 0}], "0.period"),
        ("budgets", [{"usd": 1, "period": [1]}], "0.period"),
        ("alerts", {"webhook": "https://x/?a b"}, "webhook"),
        ("alerts", {"webhook": "https://x/?a#b"}, "webhook"),
        ("alerts", {"webhook": "ftp://x/?a"}, "webhook"),
        ("agents", {"namespace": "agw"}, "namespace"),
        ("agents", {"overrides": [{"name": "weather"}]}, "overrides.weather.name"),
        ("agents", {"overrides": [{"name": "default/Weather"}]}, "overrides.default/Weather.name"),
        ("agents", {"overrides": [{"name": "default/w"}, {"name": "default/w"}]}, "overrides.default/w.name"),
        ("agents", {"shows": "all"}, "shows"),
        ("upstreams", [{"name": "agents", "base_url": "http://127.0.0.1/v1"}], "agents.name"),
    ],
)
def test_a_section_refuses(folder: Folder, section: str, fields: dict[str, Any], path: str) -> None:
    import yaml

    assert folder.problem(yaml.safe_dump({section: fields})).path == f"{section}.{path}"


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (
            {"per": "key"},
            "exactly one of requests, tokens, input_tokens, output_tokens, usd, concurrent, streams; came none",
        ),
        ({"per": "key", "requests": 1, "tokens": 1}, "came requests and tokens"),
        ({"per": "key", "concurrent": 1, "period": "1m"}, "no period and no burst"),
        ({"per": "key", "concurrent": 1, "burst": 1}, "no period and no burst"),
        ({"per": "key", "requests": 0}, "expected at least 1, came 0"),
        ({"per": "nobody", "requests": 1}, "'upstream', 'tool' or 'session'"),
        ({"per": ["key", "global"], "requests": 1}, "goes with no other subject"),
        ({"per": ["key", "key"], "requests": 1}, "a list of different ones"),
        ({"per": "key", "requests": 1, "burst": 1, "algorithm": "sliding_window"}, "has no burst"),
        ({"per": "key", "requests": 1, "period": 0}, "expected more than 0"),
    ],
)
def test_a_limit_refuses(folder: Folder, limit: dict[str, Any], message: str) -> None:
    import yaml

    found = folder.problem(yaml.safe_dump({"limits": [limit]}))
    assert message in found.message
    with pytest.raises(ValidationError):
        Settings.model_validate({"limits": [limit]})


def test_a_limits_period_is_a_minute_by_default() -> None:
    made = Settings.model_validate({"limits": [{"per": "key", "requests": 1}]})
    assert (made.limits[0].period, made.limits[0].burst) == (60.0, None)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("upstreams: [U, U]", "upstreams.up.name", "'up' is taken already, at gateway.yaml:1"),
        (f"keys: [{{name: k, key: {KEY}}}, {{name: k, key: {KEY}2}}]", "keys.k.name", "taken already"),
        (f"keys: [{{name: k, key: {KEY}}}, {{name: l, key: {KEY}}}]", "keys.l.key", "the same key as k"),
        (
            (f"keys: [{{name: k, key: {KEY}}}, "
            f"{{name: l, key_sha256: {DIGEST}}}]"),
            "keys.l.key_sha256", "the same key as k",
        ),
        (f"keys: [{{name: k, key: {KEY}}}]\nmetrics: {{key: {KEY}}}", "metrics.key", "the same key as k"),
        ("keys: [{name: k}]", "keys.k", "exactly one of key, key_sha256; came none"),
        (f"keys: [{{name: k, key: {KEY}, key_sha256: {'ab' * 32}}}]", "keys.k", "came key and key_sha256"),
        (
            ("upstreams: [U]\n"
            "models: [{name: m, targets: [up/x]}, {name: m, targets: [up/x]}]"),
            "models.m.name", "taken already",
        ),
        (
            ("upstreams: [U]\n"
            "models: [{name: m, targets: [{upstream: upp, model: x}]}]"),
            "models.m.targets.0.upstream", "did you mean up?",
        ),
        ("upstreams: [U]\nmodels: [{name: m, targets: [noslash]}]", "models.m.targets.0", "expected upstream/model"),
        ("upstreams: [U]\nmodels: [{name: m, targets: []}]", "models.m.targets", "at least one item"),
        ("upstreams: [U]\nmodels: [{name: up/x, targets: [up/x]}]", "models.up/x.name", "addresses up directly"),
        (
            ("upstreams: [U]\n"
            "models: [{name: agw/echo, targets: [up/x]}]"),
            "models.agw/echo.name", "addresses agw directly",
        ),
        ("upstreams: [U]\nmodels: [{name: m, targets: [up/x],fallbacks: [m]}]", "models.m.fallbacks.0", "own fallback"),
        (
            ("upstreams: [{name: u, base_url: http://x, models: [a]}]\n"
            "models: [{name: m, targets: [u/x], fallbacks: [mm]}]"),
            "models.m.fallbacks.0", "did you mean m?",
        ),
        (
            "upstreams: [{name: u, base_url: http://x, api_key: k, headers: {Authorization: b}}]",
            "upstreams.u.headers.Authorization", "second credential",
        ),
        (
            "upstreams: [{name: u, base_url: http://x, api_keys: [k, l], headers: {Authorization: b}}]",
            "upstreams.u.headers.Authorization", "second credential",
        ),
        ("cache: {backend: redis}", "cache.backend", "there is no 'redis' section"),
        (
            "upstreams: [{name: u, base_url: http://x, api_key: j, api_keys: [k, l]}]",
            "upstreams.u.api_keys", "put all keys into api_keys",
        ),
    ],
)  # fmt: skip
def test_rules_between_values(folder: Folder, text: str, path: str, message: str) -> None:
    found = folder.problem(text.replace("U", "{name: up, base_url: http://x}") if "[U" in text else text)
    assert found.path == path
    assert message in found.message


def test_rules_between_values_are_listed_with_the_errors_of_fields(folder: Folder) -> None:
    found = folder.problems(
        "server: {port: x}\nupstreams: [{name: u, base_url: http://x}]\nmodels: [{name: m, targets: [v/x]}]"
    )
    assert [item.path for item in found] == ["server.port", "models.m.targets.0"]


@pytest.mark.parametrize("name", ["u/anything", "other", "a1", "b-any/thing"])
def test_fallbacks_that_lead_somewhere(folder: Folder, name: str) -> None:
    text = (
        "upstreams: [{name: u, base_url: http://x, models: ['a?', 'b-*']}]\n"
        "models: [{name: m, targets: [u/x], fallbacks: ['%s']}, {name: other, targets: [u/x]}]"
    )
    assert folder.load(text % name).settings.models[0].fallbacks == (name,)


def test_patterns_have_no_classes(folder: Folder) -> None:
    text = (
        "upstreams: [{name: u, base_url: http://x, models: ['[ab]']}]\n"
        "models: [{name: m, targets: [u/x], fallbacks: [a]}]"
    )
    assert "no model or upstream 'a'" in folder.problem(text).message


@pytest.mark.parametrize("auth", ["passthrough", "none"])
def test_a_key_that_is_never_sent_is_noted(folder: Folder, auth: str) -> None:
    loaded = folder.load(f"upstreams: [{{name: u, base_url: http://x, api_key: k, auth: {auth}}}]")
    assert f"upstream u: api_key is never sent, because auth is {auth}" in loaded.notes
    loaded = folder.load(f"upstreams: [{{name: u, base_url: http://x, api_keys: [k, l], auth: {auth}}}]")
    assert f"upstream u: api_keys is never sent, because auth is {auth}" in loaded.notes


def test_a_webhook_may_have_a_query(folder: Folder) -> None:
    for url in ("https://x/hook?key=k&token=a/b%3D", "https://x/hook/?k", "https://x"):
        assert folder.load(f"alerts: {{webhook: '{url}'}}").settings.alerts.webhook == url


def test_overrides_change_only_what_they_set() -> None:
    assert TimeoutOverride(connect=1).over(Timeouts()) == Timeouts(connect=1)
    assert TimeoutOverride().over(Timeouts(total=7)).total == 7
    assert RetryOverride(attempts=1).over(Retries()) == Retries(attempts=1)


def test_the_secrets_of_the_settings_are_masked() -> None:
    made = Settings.model_validate({"upstreams": [UPSTREAM | {"api_key": "sk-canary", "headers": {"x-a": "canary"}}]})
    assert "canary" not in repr(made)


def test_a_quoted_hint_for_texts_that_yaml_reads_as_numbers(folder: Folder) -> None:
    found = folder.problem("models: [{name: 4, targets: [up/x]}]\nupstreams: [{name: up, base_url: http://x}]")
    assert found.message == "expected text, came 4 (put it in quotes)"


TIMES = "a duration such as 250ms, 1.5s, 1m, 1h, 1d or a number of seconds"


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("models: [{name: m, targets: [agw/echo], hedge: {after: p200}}]", "models.m.hedge.after", f"{TIMES}, or 'p95', came 'p200'"),
        ("models: [{name: m, targets: [agw/echo], hedge: {after: 0}}]", "models.m.hedge.after", "more than 0, or 'p95', came 0"),
        ("budgets: [{usd: 5, period: year}]", "budgets.0.period", f"'hour', 'day', 'week' or 'month', or {TIMES}, came 'year'"),
        ("breaker: {ratio: 500ms}", "breaker.ratio", "a number, came '500ms'"),
    ],
)  # fmt: skip
def test_a_value_of_either_of_two_kinds_and_a_share_are_asked_for_in_plain_words(
    folder: Folder, text: str, path: str, message: str
) -> None:
    found = folder.problem(text)
    assert (found.path, found.message) == (path, f"expected {message}")
