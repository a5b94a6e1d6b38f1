"""The figures that agw is to reach, and what a run shows of them."""

from typing import NamedTuple

from bench.proxies.results import Results, Spread


class Target(NamedTuple):
    """One bound on a figure of agw, or on its ratio to another peer's."""

    text: str
    scenario: str
    figure: str
    bound: float
    least: bool = False  # the bound is a floor, not a ceiling
    against: str = ""  # empty: the figure itself
    added: bool = False  # both less the direct way's
    peer: str = "agw"


TARGETS = (
    Target("JSON, 64 connections: requests/s against nginx", "json64", "requests_per_s", 1.0, True, "nginx"),
    Target("JSON, 64 connections: requests/s against Envoy", "json64", "requests_per_s", 2.2, True, "envoy"),
    Target("JSON, one connection: added p50 against nginx", "json1", "latency_p50_us", 1.1, False, "nginx", True),
    Target("500 streams at 20 ms: CPU an event against nginx", "sse500", "cpu_us_per_event", 1.1, False, "nginx"),
    Target("500 streams at 20 ms: added delay p99 against nginx", "sse500", "delay_p99_us", 1.2, False, "nginx", True),
    Target("2,000 streams at 100 ms: CPU an event against nginx", "sse2000", "cpu_us_per_event", 1.1, False, "nginx"),
    Target(
        "2,000 streams at 100 ms: added delay p99 against nginx", "sse2000", "delay_p99_us", 1.2, False, "nginx", True
    ),
    Target("unpaced streams: events/s against nginx", "burst200", "events_per_s", 1.0, True, "nginx"),
    Target("TLS to the upstream: requests/s against nginx", "tls", "requests_per_s", 0.7, True, "nginx"),
    Target("two workers: CPU a request against one", "workers", "cpu_us_per_request", 1.1, False, "agw", peer="agw-2"),
    Target("2,000 streams: KB of memory each", "sse2000", "kb_per_stream", 10.0),
    Target("9,000 streams: errors and missing events", "sse9000", "wrong", 0.0),
    Target("idle PSS in MB", "", "idle_pss_mb", 50.0),
    Target("cold start in s", "", "cold_s", 0.35),
)


def table(results: Results) -> list[str]:
    """The targets that this run says something about."""
    lines = ["## Targets", "", "| agw | target | measured | |", "|---|---:|---:|---|"]
    for target in TARGETS:
        found = _measured(results, target)
        if found is None:
            continue
        met = found.median >= target.bound if target.least else found.median <= target.bound
        bound = f"{'at least' if target.least else 'at most'} {target.bound:g}"
        unit = " x" if target.against else ""
        spread = f" ({found.least:.2f} - {found.most:.2f})" if found.least < found.most else ""
        lines.append(
            f"| {target.text} | {bound}{unit} | {found.median:.2f}{unit}{spread} | {'met' if met else '**missed**'} |"
        )
    return lines


def _measured(results: Results, target: Target) -> Spread | None:
    if target.against:
        return results.ratio(target.scenario, target.peer, target.against, target.figure, added=target.added)
    if target.figure == "wrong":
        if not results.rounds(target.scenario, target.peer):
            return None
        wrong = sum(results.total(target.scenario, target.peer, figure) for figure in ("errors", "missing"))
        return Spread(wrong, wrong, wrong)
    if not target.scenario:
        return results.over_all(target.peer, target.figure)
    return results.spread(target.scenario, target.peer, target.figure)
