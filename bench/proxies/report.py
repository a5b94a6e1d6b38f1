"""The tables: a run as markdown, and the files under bench/results."""

import datetime as dt
import json
import os
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.proxies import plot, targets
from bench.proxies.measure import Sample
from bench.proxies.peer import ROOT, Peer
from bench.proxies.results import Results, Spread
from bench.proxies.scenarios import Scenario

FOLDER = ROOT / "bench" / "results"
REFERENCE = "nginx"
SHOWN = 0.05  # of a core: others' work that is worth a word


class Column(NamedTuple):
    """A column of a scenario's table."""

    title: str
    figure: str
    digits: int = 0
    spread: bool = False  # shown with least and most
    percent: bool = False


JSON_COLUMNS = (
    Column("requests/s", "requests_per_s", spread=True),
    Column("CPU us/request", "cpu_us_per_request", 1, spread=True),
    Column("p50 us", "latency_p50_us"),
    Column("p99 us", "latency_p99_us"),
    Column("p99.9 us", "latency_p999_us"),
)
STREAM_COLUMNS = (
    Column("events/s", "events_per_s"),
    Column("on time", "on_time", percent=True),
    Column("CPU us/event", "cpu_us_per_event", 1, spread=True),
    Column("TTFT p50 us", "ttft_p50_us"),
    Column("TTFT p99 us", "ttft_p99_us"),
    Column("delay p50 us", "delay_p50_us"),
    Column("delay p99 us", "delay_p99_us"),
    Column("delay p99.9 us", "delay_p999_us"),
    Column("gap p99 us", "gap_p99_us"),
    Column("KB/stream", "kb_per_stream", 1),
)
START_COLUMNS = (
    Column("cold start s", "cold_s", 2, spread=True),
    Column("idle RSS MB", "idle_rss_mb", 1),
    Column("idle PSS MB", "idle_pss_mb", 1),
)
READING = """\
The proxy under test has one core to itself, the load generator and the upstream share the other; peers take turns within
each round. Medians of the rounds, with least - most in brackets. **Trust the ratios, not the digits**: each is taken within
one round, then the median of the rounds is shown. CPU is the process's own accounting, of all its processes and threads.
Latency in the open loop counts from the time at which a request was due. *Delay* is the time from an event's departure at
the upstream to its arrival at the client, so an event's way through the proxy; *gap* is how much further apart than there two
events of a stream arrive; *on time* is the share of the events that the upstream would send to as many streams.
*KB/stream* is RSS with all streams open less RSS when idle, divided by the streams. "added" means less the direct way's.

agw runs with its whole policy: key check, a bucket of requests and one of tokens, a virtual model whose name is replaced in
each body, usage asked for in streams (and taken out again), rate-limit headers, metrics, a log line a request to a file.
nginx, HAProxy and Envoy replace the key and write an access log. The aiohttp relay does nothing but relay."""


def progress(scenario: str, peer: str, number: int, sample: Sample, seconds: float) -> str:
    """One line on one measurement."""
    rate = sample.get("requests_per_s", sample.get("events_per_s", 0))
    cpu = sample.get("cpu_us_per_request", sample.get("cpu_us_per_event", 0))
    middle, high = (sample.get(f"latency_{share}_us", sample.get(f"delay_{share}_us", 0)) for share in ("p50", "p99"))
    wrong, foreign = sample["errors"] + sample["missing"], sample["foreign_share"]
    return (
        f"{scenario:9} {peer:9} #{number + 1} {rate:9,.0f}/s  {cpu:8.1f} us CPU  p50 {middle:7.0f}  p99 {high:7.0f} us"
        f"  core {sample['cpu_share']:4.0%}  {seconds:4.1f} s{f'  {wrong:.0f} WRONG' if wrong else ''}"
        f"{f'  others used {foreign:.0%} of a core' if foreign > SHOWN else ''}"
    )


def markdown(
    results: Results, peers: Sequence[Peer], scenarios: Sequence[Scenario], rounds: int, arguments: Sequence[str]
) -> str:
    """The whole report."""
    command = shlex.join(["python", "-m", "bench.proxies.compare", *arguments])
    kernel = platform.release().partition("-")[0]  # what follows names whose machine it is
    today = dt.datetime.now(dt.UTC)
    head = [
        "# agw beside other proxies",
        "",
        f"`{command}` repeats this.",
        f"{today:%Y-%m-%d}, Linux {kernel}, {os.cpu_count()} CPUs, Python {platform.python_version()}, rounds: {rounds}.",
        "",
        READING,
        "",
    ]
    parts = [_versions(results, peers)]
    if {"agw", REFERENCE} <= set(results.versions):
        parts.append(targets.table(results))
    parts += [_table(results, peers, scenario) for scenario in scenarios]
    parts += [_starts(results, peers), _calm(results)]
    parts.append(_absent(results))
    return "\n".join([*head, *(line for part in parts if part for line in [*part, ""])]).rstrip() + "\n"


def write(results: Results, peers: Sequence[Peer], text: str) -> None:
    """Write the report, the plot and the figures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    _write(FOLDER / "proxies.md", text)
    _write(FOLDER / "proxies.json", json.dumps(results.tree(), indent=1) + "\n")
    drawn = plot.svg(results, peers)
    if drawn:
        _write(FOLDER / "proxies.svg", drawn)


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    print(f"wrote {path.relative_to(ROOT)}")


def number(value: float, digits: int = 0) -> str:
    """A figure as a reader likes it."""
    return f"{value:,.{digits}f}"


def _cell(spread: Spread | None, column: Column, rounds: int) -> str:
    if spread is None:
        return "-"
    if column.percent:
        return f"{spread.median:.1%}"
    shown = number(spread.median, column.digits)
    if column.spread and rounds > 1:
        shown += f" ({number(spread.least, column.digits)} - {number(spread.most, column.digits)})"
    return shown


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(results: Results, peers: Sequence[Peer], scenario: Scenario) -> list[str]:
    there = [peer for peer in peers if results.rounds(scenario.name, peer.name)]
    if not there:
        return []
    columns = list(STREAM_COLUMNS if scenario.events else JSON_COLUMNS)
    # A figure that nobody has (a share of the pace where there is none) needs no column.
    columns = [c for c in columns if any(results.spread(scenario.name, peer.name, c.figure) for peer in there)]
    main, cpu = ("events_per_s", "cpu_us_per_event") if scenario.events else ("requests_per_s", "cpu_us_per_request")
    ratio_titles = [f"rate / {REFERENCE}", f"CPU / {REFERENCE}"]
    lines = [f"## {scenario.title} (`{scenario.name}`)", ""]
    lines.append(_row(["", *(column.title for column in columns), *ratio_titles, "errors"]))
    lines.append(_row(["---", *("---:" for _ in [*columns, *ratio_titles, "errors"])]))
    for peer in there:
        rounds = results.rounds(scenario.name, peer.name)
        cells = [_cell(results.spread(scenario.name, peer.name, c.figure), c, len(rounds)) for c in columns]
        if peer.name == "direct":
            cells = [
                "-" if c.figure.startswith(("cpu", "kb")) else cell for c, cell in zip(columns, cells, strict=True)
            ]
        ratios = [results.ratio(scenario.name, peer.name, REFERENCE, figure) for figure in (main, cpu)]
        if peer.name == "direct":
            ratios[1] = None
        wrong = sum(results.total(scenario.name, peer.name, figure) for figure in ("errors", "missing"))
        title = peer.title
        connections = next(iter(rounds.values()))["connections"]
        if connections != scenario.connections:
            title += f" ({connections:.0f} connections)"
        shown = [f"{ratio.median:.2f} x" if ratio else "-" for ratio in ratios]
        lines.append(_row([title, *cells, *shown, number(wrong)]))
    return lines


def _starts(results: Results, peers: Sequence[Peer]) -> list[str]:
    lines = ["## Start and idle memory", ""]
    lines.append("From the start of the process to the first good answer to a chat request; memory 2 s later.")
    lines += ["", _row(["", *(column.title for column in START_COLUMNS)])]
    lines.append(_row(["---", *("---:" for _ in START_COLUMNS)]))
    for peer in peers:
        spreads = [results.over_all(peer.name, column.figure) for column in START_COLUMNS]
        if any(spreads):
            cells = [_cell(spread, column, 2) for spread, column in zip(spreads, START_COLUMNS, strict=True)]
            lines.append(_row([peer.title, *cells]))
    return lines


def _versions(results: Results, peers: Sequence[Peer]) -> list[str]:
    named = [
        f"{p.title} {results.versions[p.name]}" for p in peers if p.name in results.versions and p.name != "direct"
    ]
    return [f"Versions: {', '.join(named)}."]


def _calm(results: Results) -> list[str]:
    shares = [sample["foreign_share"] for rounds in results.samples.values() for sample in rounds.values()]
    if not shares:
        return []
    disturbed = sum(share > SHOWN for share in shares)
    measured = f"{disturbed} of the {len(shares)} measurements"
    return [f"Other processes used more than {SHOWN:.0%} of a core during {measured} (at most {max(shares):.0%})."]


def _absent(results: Results) -> list[str]:
    lines = [f"- {peer}: not run: {why}" for peer, why in results.not_run.items()]
    lines += [f"- {peer} in `{scenario}`: not run: {why}" for (scenario, peer), why in results.failed.items()]
    return ["## Not run", "", *lines] if lines else []
