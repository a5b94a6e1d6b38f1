"""The numbers: in the names that dashboards expect, exact, behind a key, with bounded labels."""

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.behaviours import failure
from tests.support.gateway import APP_KEY, UPSTREAM_KEY, Gateway, configuration, provider
from tests.support.upstream import Upstream

SCRAPE_KEY = "agw-bench-scrape-0f5e92c7a1d84b36"
LIMITED_KEY = "agw-bench-limited-3c7b1e9d05a24f68"
COUNTERS = {
    "agw_requests",
    "agw_tokens",
    "agw_rate_limited",
    "agw_upstream_requests",
    "agw_retries",
    "agw_dropped",
    "agw_lane",
}
OTHERS = {
    "agw_request_seconds": "histogram",
    "agw_overhead_seconds": "histogram",
    "agw_time_to_first_token_seconds": "histogram",
    "agw_inter_token_seconds": "histogram",
    "agw_active_streams": "gauge",
    "agw_build_info": "gauge",
}

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    config = configuration(provider(shared_upstream.url), metrics={"prometheus": True, "key": SCRAPE_KEY})
    once = [{"per": "key", "requests": 1, "period": "1h"}]
    config["keys"].append({"name": "limited", "key": LIMITED_KEY, "limits": once})
    with Gateway(config) as running:
        yield running


def scrape(gateway: Gateway) -> Series:
    reply = gateway.get("/metrics/prometheus", key=SCRAPE_KEY)
    assert reply.status == 200
    assert (reply.value("content-type") or "").startswith("text/plain")
    series: Series = {}
    for family in text_string_to_metric_families(reply.body.decode()):
        for sample in family.samples:
            name = (sample.name, frozenset(sample.labels.items()))
            assert name not in series, f"{name} is exposed twice"
            series[name] = sample.value
    return series


def total(series: Series, name: str, **labels: str) -> float:
    """The sum of a metric over all series that have these labels."""
    wanted = set(labels.items())
    return sum(value for (found, has), value in series.items() if found == name and wanted <= has)


def test_the_families_have_the_agreed_names_and_kinds(gateway: Gateway) -> None:
    assert gateway.chat().status == 200
    assert gateway.chat(stream=True).status == 200
    text = gateway.get("/metrics/prometheus", key=SCRAPE_KEY).body.decode()
    kinds = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert {name: kinds.get(name) for name in COUNTERS} == dict.fromkeys(COUNTERS, "counter")
    assert {name: kinds.get(name) for name in OTHERS} == OTHERS
    assert all(name.startswith(("agw_", "gen_ai_")) for name in kinds)


def test_counts_move_by_exactly_what_was_sent(gateway: Gateway, upstream: Upstream) -> None:
    before = scrape(gateway)
    for streamed in (False, True, True):
        assert gateway.chat(stream=streamed).status == 200
    upstream.script(failure(400, "no"))
    assert gateway.chat().status == 400

    def moved() -> bool:
        after = scrape(gateway)
        requests = total(after, "agw_requests_total", upstream="fake") - total(
            before, "agw_requests_total", upstream="fake"
        )
        return requests >= 4

    gateway.until(moved, "the counters did not move")
    after = scrape(gateway)

    def delta(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    assert delta("agw_requests_total", upstream="fake", status="200") == 3
    assert delta("agw_requests_total", upstream="fake", status="400") == 1
    assert delta("agw_request_seconds_count", upstream="fake") == 4
    assert delta("agw_request_seconds_bucket", upstream="fake", le="+Inf") == 4
    assert delta("agw_upstream_requests_total", upstream="fake") == 4
    assert delta("agw_tokens_total") == 3 * 18
    assert delta("agw_retries_total") == 0
    assert total(after, "agw_active_streams") == 0


def test_a_retry_and_a_refusal_are_counted(gateway: Gateway, upstream: Upstream) -> None:
    before = scrape(gateway)
    upstream.script(failure(503))
    assert gateway.chat().status == 200
    assert [gateway.chat(key=LIMITED_KEY).status for _ in range(2)] == [200, 429]
    after = scrape(gateway)
    assert total(after, "agw_retries_total") - total(before, "agw_retries_total") == 1
    assert total(after, "agw_rate_limited_total") - total(before, "agw_rate_limited_total") == 1


def test_labels_are_bounded_and_nothing_secret_shows(gateway: Gateway) -> None:
    for number in range(5):
        assert gateway.chat(model=f"made-up-{number}").status == 404
        assert gateway.chat(model=f"gpt-made-up-{number}").status == 200
        assert gateway.get(f"/v1/made-up-{number}").status == 404
    text = gateway.get("/metrics/prometheus", key=SCRAPE_KEY).body.decode()
    assert "made-up" not in text
    for secret in (APP_KEY, UPSTREAM_KEY, SCRAPE_KEY, LIMITED_KEY):
        assert secret not in text


def test_the_scrape_key_reads_metrics_and_nothing_else(gateway: Gateway) -> None:
    assert gateway.get("/metrics/prometheus", key=None).status == 401
    assert gateway.get("/metrics/prometheus").status == 403
    assert gateway.get("/metrics/prometheus", key=gateway.admin_key).status == 200
    assert gateway.get("/upstreams", key=SCRAPE_KEY).status in {401, 403}
    assert gateway.chat(key=SCRAPE_KEY).status in {401, 403}


def test_the_same_numbers_come_as_json_for_an_admin(gateway: Gateway) -> None:
    assert gateway.get("/metrics", key=None).status == 401
    assert gateway.get("/metrics").status == 403
    reply = gateway.get("/metrics", key=gateway.admin_key)
    assert reply.status == 200
    assert b"agw_requests_total" in reply.body
    assert reply.json
