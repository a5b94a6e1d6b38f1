"""The comparison's arithmetic and its report, on made-up samples."""

import xml.etree.ElementTree as ET

import pytest

from bench.proxies import plot, report, request, targets
from bench.proxies.compare import suits, turns
from bench.proxies.measure import figures
from bench.proxies.peers import PEERS
from bench.proxies.results import Results, Spread
from bench.proxies.scenarios import SCENARIOS, Scenario

BY_NAME = {peer.name: peer for peer in PEERS}
HISTOGRAM = {"count": 4, "p50": 10.0, "p99": 20.0, "p999": 30.0}
COUNTS = {
    "seconds": 2.0,
    "requests": 100,
    "streams": 4,
    "events": 1000,
    "missing": 3,
    "errors": {"cut": 1, "status": 1},
    "latency": HISTOGRAM,
    "ttft": HISTOGRAM,
    "delay": HISTOGRAM,
    "gap": {**HISTOGRAM, "count": 0},
}


def sample(rate: float, p50: float) -> dict[str, float]:
    figures = {"requests_per_s": rate, "cpu_us_per_request": 1e6 / rate, "latency_p50_us": p50, "cold_s": 0.1}
    return {**figures, "errors": 0, "missing": 0, "connections": 64, "foreign_share": 0.0}


@pytest.fixture
def results() -> Results:
    made = Results()
    made.versions = {"direct": "-", "agw": "1", "nginx": "2"}
    made.not_run = {"smg": "not installed"}
    made.failed = {("json1", "envoy"): "it ended with status 1"}
    rounds = {"direct": (10.0, 5.0, 8.0), "agw": (20.0, 25.0, 18.0), "nginx": (15.0, 15.0, 28.0)}
    for peer, values in rounds.items():
        for number, value in enumerate(values):
            made.add("json64", peer, number, sample(1000 * value, value))
    return made


def test_a_ratio_is_taken_within_each_round_before_the_median(results: Results) -> None:
    assert results.ratio("json64", "agw", "nginx", "requests_per_s") == Spread(20 / 15, 18 / 28, 25 / 15)
    # Less the direct way's of the same round: 10/5, 20/10, 10/20.
    assert results.ratio("json64", "agw", "nginx", "latency_p50_us", added=True) == Spread(2.0, 0.5, 2.0)
    assert results.ratio("json64", "agw", "smg", "requests_per_s") is None
    assert results.spread("json64", "agw", "ttft_p50_us") is None


def test_figures_of_answers_and_of_streams() -> None:
    answers = figures(Scenario("s", "s", 64), COUNTS, 2_000_000, 64)
    assert (answers["requests_per_s"], answers["cpu_us_per_request"]) == (50.0, 20.0)
    assert (answers["latency_p99_us"], answers["errors"], answers["missing"]) == (20.0, 2, 3)
    streams = figures(Scenario("s", "s", 10, events=51, pace_us=20_000), COUNTS, 2_000_000, 10)
    assert (streams["events_per_s"], streams["cpu_us_per_event"]) == (500.0, 2.0)
    assert streams["on_time"] == pytest.approx(500 / (10 * 51))
    assert "gap_p50_us" not in streams


def test_the_report_says_what_was_measured_and_what_was_not(results: Results) -> None:
    text = report.markdown(results, PEERS, SCENARIOS, 3, ["--rounds", "3"])
    assert "`python -m bench.proxies.compare --rounds 3`" in text
    assert "| **agw** | 20,000 (18,000 - 25,000) |" in text
    assert "- smg: not run: not installed" in text
    assert "- envoy in `json1`: not run: it ended with status 1" in text
    assert "1.33 x" in text


def test_targets_are_judged_only_where_they_were_measured(results: Results) -> None:
    lines = targets.table(results)
    assert [line for line in lines if "requests/s against nginx" in line and line.endswith("| met |")]
    assert not [line for line in lines if "Envoy" in line or "streams" in line]


def test_the_plot_is_xml_with_a_bar_a_peer(results: Results) -> None:
    drawn = plot.svg(results, PEERS)
    assert drawn is not None
    bars = [item for item in ET.fromstring(drawn).iter() if item.tag.endswith("rect")]
    assert len(bars) == 2
    assert plot.svg(Results(), PEERS) is None


def test_peers_take_part_where_they_are_fast_enough() -> None:
    scenarios = {scenario.name: scenario for scenario in SCENARIOS}
    names = {name: [peer.name for peer in PEERS if suits(peer, one)] for name, one in scenarios.items()}
    assert names["json64"] == ["direct", "agw", "nginx", "haproxy", "envoy", "aiohttp", "smg", "portkey", "litellm"]
    assert names["open15k"] == ["direct", "agw", "nginx", "haproxy", "envoy"]
    assert set(names["sse9000"]) == {"direct", "agw", "nginx"}
    assert "agw-2" in names["workers"]


def test_every_peer_has_every_turn() -> None:
    peers = [BY_NAME[name] for name in ("agw", "nginx", "envoy")]
    orders = [[peer.name for peer in turns(peers, number)] for number in range(3)]
    assert [set(column) for column in zip(*orders, strict=True)] == [{"agw", "nginx", "envoy"}] * 3


def test_the_request_is_as_large_as_real_ones() -> None:
    text = request.build(8080, "m", "k", {"x-more": "1"}, stream=True)
    head, _, body = text.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert head.endswith(b"x-more: 1")
    assert head.count(b"\r\n") == 20
    assert 1300 <= len(body) <= 1700
    assert b'"stream":true' in body
