"""What receipts add up to, as Prometheus and as JSON, with labels that nobody outside can multiply."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agw_proxy._hot.meter import COUNTER, HISTOGRAM, TALLY, Meter
from agw_proxy.observe.metrics import (
    COST_HELP,
    FAMILIES,
    HELP,
    MAX_KEY_BYTES,
    MAX_KNOWN_NAMES,
    USAGE,
    USED,
    Metrics,
    key_label,
)
from agw_proxy.types import Attempt, Receipt


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics(Meter(FAMILIES), "1.2.3")
    made.know(["gpt-4o", "fake/gpt-4o"])
    return made


def receipt(**changes: object) -> Receipt:
    fields: dict[str, object] = {
        "event": "request",
        "time": "2026-11-21T10:11:12.345Z",
        "request_id": "r",
        "endpoint": "chat_completions",
        "method": "POST",
        "status": 200,
        "lane": "full",
        "outcome": "ok",
        "duration_ms": 250.0,
        "overhead_us": 120,
        "model": "gpt-4o",
        "model_label": "gpt-*",
        "upstream": "fake",
        "attempts": 1,
        "trail": (Attempt("fake/gpt-4o", "fake", "200"),),
        "lane_reason": "endpoint",
        **changes,
    }
    return Receipt(**fields)  # type: ignore[arg-type]  # fields by name


def scraped(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of a scrape by its name and labels."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "a series came twice"
            found[key] = sample.value
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return scraped(metrics).get((name, tuple(sorted(labels.items()))))


REQUEST = {"endpoint": "chat_completions", "model": "gpt-4o", "upstream": "fake", "status": "200", "lane": "full"}


def test_every_family_has_a_help_and_its_kind(metrics: Metrics) -> None:
    metrics.account(receipt(rule="r", ttft_ms=1.0, inter_token_ms=1.0, prompt_tokens=1, completion_tokens=1))
    kinds = {"counter": COUNTER, "histogram": HISTOGRAM}
    found = {family.name: family for family in text_string_to_metric_families(metrics.text().decode())}
    assert found["agw_cost_usd"].documentation == COST_HELP
    for family in FAMILIES:
        if family.kind == TALLY:
            continue  # only what it costs is shown here
        name = family.name.removesuffix("_total") if family.kind == COUNTER else family.name
        assert found[name].documentation == HELP[family.name]
        assert kinds.get(found[name].type, family.kind) == family.kind


def test_an_exchange_is_counted_and_timed(metrics: Metrics) -> None:
    metrics.account(receipt())
    metrics.account(receipt())
    assert value(metrics, "agw_requests_total", **REQUEST) == 2
    assert value(metrics, "agw_request_seconds_count", **REQUEST) == 2
    assert value(metrics, "agw_request_seconds_sum", **REQUEST) == pytest.approx(0.5)
    assert value(metrics, "agw_request_seconds_bucket", le="0.1", **REQUEST) == 0
    assert value(metrics, "agw_request_seconds_bucket", le="0.25", **REQUEST) == 2
    assert value(metrics, "agw_request_seconds_bucket", le="+Inf", **REQUEST) == 2
    assert value(metrics, "agw_overhead_seconds_sum", lane="full") == pytest.approx(0.00024)
    assert value(metrics, "agw_lane_total", lane="full", reason="endpoint") == 2


def test_streams_tokens_and_refusals_are_counted_where_they_are_known(metrics: Metrics) -> None:
    metrics.account(receipt(ttft_ms=30.0, inter_token_ms=20.0, prompt_tokens=11, completion_tokens=7))
    metrics.account(receipt(status=429, rule="keys.app/requests-per-key", attempts=0, trail=(), upstream="none"))
    assert value(metrics, "agw_time_to_first_token_seconds_sum", model="gpt-4o") == pytest.approx(0.03)
    assert value(metrics, "agw_inter_token_seconds_count", model="gpt-4o") == 1
    assert value(metrics, "agw_tokens_total", model="gpt-4o", direction="input") == 11
    assert value(metrics, "agw_tokens_total", model="gpt-4o", direction="output") == 7
    assert value(metrics, "agw_rate_limited_total", rule="keys.app/requests-per-key") == 1
    conventions = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "gpt-4o"}
    assert value(metrics, "gen_ai_client_token_usage_sum", gen_ai_token_type="input", **conventions) == 11
    assert value(metrics, "gen_ai_client_operation_duration_seconds_count", **conventions) == 1


@pytest.mark.parametrize(
    ("endpoint", "operation"),
    [("completions", "text_completion"), ("messages", "chat"), ("responses", "chat"), ("embeddings", "embeddings")],
)
def test_every_generation_has_the_conventions_name_for_it(metrics: Metrics, endpoint: str, operation: str) -> None:
    metrics.account(receipt(endpoint=endpoint, prompt_tokens=11))
    conventions = {"gen_ai_operation_name": operation, "gen_ai_request_model": "gpt-4o"}
    assert value(metrics, "gen_ai_client_operation_duration_seconds_count", **conventions) == 1
    assert value(metrics, "gen_ai_client_token_usage_sum", gen_ai_token_type="input", **conventions) == 11


def test_tries_and_retries_are_counted_by_target(metrics: Metrics) -> None:
    trail = (
        Attempt("fake/gpt-4o", "fake", "upstream_reset"),
        Attempt("fake/gpt-4o", "fake", "upstream_reset"),
        Attempt("fake/secret-name", "fake", "200"),
    )
    metrics.account(receipt(trail=trail, attempts=3))
    made = {"upstream": "fake", "outcome": "upstream_reset"}
    assert value(metrics, "agw_upstream_requests_total", target="fake/gpt-4o", **made) == 2
    assert value(metrics, "agw_upstream_requests_total", upstream="fake", outcome="200", target="fake/*") == 1
    assert value(metrics, "agw_retries_total", **made) == 1
    assert value(metrics, "agw_retries_total", upstream="fake", outcome="200") == 1


def test_gauges_go_up_and_down(metrics: Metrics) -> None:
    metrics.requests(1)
    metrics.requests(1)
    metrics.requests(-1)
    metrics.streams(1)
    metrics.connections(1)
    metrics.connections(-1)
    metrics.dropped("log_line", 5)
    assert value(metrics, "agw_active_requests") == 1
    assert value(metrics, "agw_active_streams") == 1
    assert value(metrics, "agw_connections") == 0
    assert value(metrics, "agw_dropped_total", what="log_line") == 5
    assert value(metrics, "agw_build_info", version="1.2.3") == 1


def test_a_name_that_nobody_configured_is_shown_as_what_it_matched(metrics: Metrics) -> None:
    for number in range(5000):
        name = f"gpt-{number}"
        metrics.account(receipt(model=name, trail=(Attempt(f"fake/{name}", "fake", "200"),), prompt_tokens=1))
    labels = {text for _, pairs in scraped(metrics) for key, text in pairs if "model" in key or key == "target"}
    assert labels == {"gpt-*", "fake/*"}
    assert value(metrics, "agw_requests_total", **{**REQUEST, "model": "gpt-*"}) == 5000


def test_names_that_are_known_are_bounded_too(metrics: Metrics) -> None:
    names = [f"m{number}" for number in range(MAX_KNOWN_NAMES + 10)]
    metrics.know(iter(names))
    for name in (names[0], names[-1]):
        metrics.account(receipt(model=name))
    assert value(metrics, "agw_requests_total", **{**REQUEST, "model": "m0"}) == 1
    assert value(metrics, "agw_requests_total", **{**REQUEST, "model": names[-1]}) is None
    for name in names[:MAX_KNOWN_NAMES]:
        metrics.account(receipt(model=name))
    series = {key for key in scraped(metrics) if key[0] == "agw_requests_total"}
    limit = next(family.max_series for family in FAMILIES if family.name == "agw_requests_total")
    assert len(series) <= limit
    assert ("agw_requests_total", tuple(sorted(dict.fromkeys(REQUEST, "other").items()))) in series


@pytest.mark.parametrize("odd", ['quo"te', "back\\slash", "line\nbreak", "ü"])
def test_label_values_are_escaped(metrics: Metrics, odd: str) -> None:
    metrics.account(receipt(model=None, model_label=odd))
    assert value(metrics, "agw_requests_total", **{**REQUEST, "model": odd}) == 1


def test_a_fresh_scrape_shows_no_series_that_nothing_fell_into(metrics: Metrics) -> None:
    assert {name for name, labels in scraped(metrics) if any(key != "le" for key, _ in labels)} == {"agw_build_info"}
    unlabelled = {family.name for family in FAMILIES if not family.labels}
    assert set(metrics.tree()) == unlabelled | {"agw_build_info"}


def test_the_tree_holds_the_same_numbers(metrics: Metrics) -> None:
    metrics.account(receipt())
    tree: dict[str, Any] = dict(metrics.tree())
    assert tree["agw_requests_total"] == [{"labels": REQUEST, "value": 1}]
    entry = tree["agw_request_seconds"][0]
    assert (entry["labels"], entry["count"], entry["sum"]) == (REQUEST, 1, pytest.approx(0.25))
    assert entry["bounds"][:2] == pytest.approx([0.001, 0.0025])
    assert len(entry["buckets"]) == len(entry["bounds"]) + 1
    assert entry["buckets"][entry["bounds"].index(0.25)] == 1


def used(metrics: Metrics) -> dict[tuple[str, ...], dict[str, int]]:
    """What was used, by labels, where it is anything."""
    return {
        sample.labels: dict(zip(USED, sample.buckets, strict=True))
        for sample in metrics.meter.collect(USAGE)
        if any(sample.buckets)
    }


def test_what_a_key_uses_is_counted_by_model_and_upstream(metrics: Metrics) -> None:
    tokens = {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 4}
    metrics.account(receipt(key="app", **tokens, cost=1_250_000))
    metrics.account(receipt(key="app", **tokens))
    metrics.account(receipt(key="app", outcome="upstream_failed", status=502))
    metrics.account(receipt(key="dev", model="made-up", cost=250_000))
    metrics.account(receipt(key=None))
    metrics.account(receipt(key="app", model=None, model_label="none"))
    assert used(metrics) == {
        ("app", "gpt-4o", "fake"): {
            "requests": 3, "errors": 1, "input": 20, "cached": 8, "output": 10, "cost": 1_250_000, "unpriced": 1,
        },
        ("dev", "gpt-*", "fake"): {
            "requests": 1, "errors": 0, "input": 0, "cached": 0, "output": 0, "cost": 250_000, "unpriced": 0,
        },
    }  # fmt: skip
    assert value(metrics, "agw_cost_usd_total", model="gpt-4o", key="app") == 1.25
    assert value(metrics, "agw_cost_usd_total", model="gpt-*", key="dev") == 0.25
    assert metrics.tree()["agw_cost_usd_total"] == [
        {"labels": {"model": "gpt-4o", "key": "app"}, "value": 1.25},
        {"labels": {"model": "gpt-*", "key": "dev"}, "value": 0.25},
    ]
    assert USAGE not in metrics.tree()


def test_long_names_of_keys_stay_apart() -> None:
    one, other = ("k" * 70 + end for end in ("1", "2"))
    assert key_label("k" * MAX_KEY_BYTES) == "k" * MAX_KEY_BYTES
    assert key_label(one) != key_label(other)
    assert len(key_label("é" * 100).encode()) <= MAX_KEY_BYTES


def test_places_that_do_not_follow_any_more_are_not_shown(metrics: Metrics) -> None:
    metrics.adapted("a", 20)
    metrics.adapted("b", 7)
    metrics.adapted("a", 30)
    assert value(metrics, "agw_adaptive_limit", upstream="a") == 30
    metrics.adapting({"b"})
    assert value(metrics, "agw_adaptive_limit", upstream="a") == 0
    assert value(metrics, "agw_adaptive_limit", upstream="b") == 7
