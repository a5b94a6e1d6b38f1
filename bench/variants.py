"""One gateway in several settings, measured in turns: what measurements of a single feature have in common."""

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.proxies import compare
from bench.proxies.gateways import AGW
from bench.proxies.measure import Cores
from bench.proxies.peer import Launch, Peer, Setting
from bench.proxies.results import Results
from bench.proxies.scenarios import SCENARIOS, Scenario

ROUNDS = 5
JSON = next(scenario for scenario in SCENARIOS if scenario.name == "json64")
TRIES = 3


def launch(setting: Setting, change: Callable[[dict[str, Any]], None]) -> Launch:
    """The comparison's gateway; ``change`` makes of its configuration what is wanted."""
    made = AGW.launch(setting)
    file = setting.folder / "gateway.yaml"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    return made


def arguments(description: str) -> tuple[int, Cores]:
    """Rounds, and the gateway's core and that of all else, off the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--cores", default="0,1", help="of the gateway, and of all else (default 0,1)")
    args = parser.parse_args()
    proxy_core, load_core = (int(core) for core in args.cores.split(","))
    return args.rounds, Cores(proxy_core, load_core)


def measure(peers: Sequence[Peer], rounds: int, cores: Cores, scenario: Scenario = JSON) -> Results:
    """All in turns, by the one scenario."""
    return compare.measure(peers, [scenario], rounds, cores, tries=TRIES)


def table(
    results: Results, peers: Sequence[Peer], figures: Mapping[str, str], against: str, scenario: Scenario = JSON
) -> str:
    """Medians of the rounds, and within each the ratio of the answers a second to those of the first of the peers.

    ``figures``: their columns' heads. ``against``: that of the ratio's.
    """
    rate = "streams_per_s" if scenario.events else "requests_per_s"
    base = results.rounds(scenario.name, peers[0].name)
    lines = ["| | " + " | ".join([*figures.values(), against]) + " |", "|---|" + "---:|" * (len(figures) + 1)]
    for peer in peers:
        rounds = results.rounds(scenario.name, peer.name)
        cells = []
        for figure in figures:
            spread = results.spread(scenario.name, peer.name, figure)
            cells.append("-" if spread is None else f"{spread.median:,.1f}")
        ratios = [rounds[number][rate] / base[number][rate] for number in rounds]
        cells.append(f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})")
        lines.append(f"| {peer.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
