"""What kept answers save: ``python -m bench.cache [--rounds N]``. One request over and over, in four settings.

Relayed by the full lane (what a miss costs), given from memory by the full lane, relayed by the fast lane, and given from
memory by the fast lane. The gateway has a core to itself; the upstream answers at once, so a real model's time, which a
kept answer saves as well, is not in the figures.
"""

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Sequence

from bench.proxies import compare
from bench.proxies.gateways import AGW
from bench.proxies.measure import Cores
from bench.proxies.peer import Launch, Peer, Setting
from bench.proxies.results import Results
from bench.proxies.scenarios import SCENARIOS

ROUNDS = 5
SCENARIO = "json64"
SETTINGS = (
    ("full_relay", "relayed, full lane", "full", False),
    ("full_hit", "kept, full lane", "full", True),
    ("fast_relay", "relayed, fast lane", "auto", False),
    ("fast_hit", "kept, fast lane", "auto", True),
)
FIGURES = {
    "requests_per_s": "requests/s",
    "cpu_us_per_request": "CPU us/request",
    "latency_p50_us": "p50 us",
    "latency_p99_us": "p99 us",
    "errors": "errors",
}


def launch(setting: Setting, lane: str, kept: bool) -> Launch:
    """The comparison's gateway in one lane, and with a cache where answers are ``kept``."""
    made = AGW.launch(setting)
    file = setting.folder / "gateway.yaml"
    config = json.loads(file.read_text())
    if lane == "full":
        config["server"]["lane"] = lane
    if kept:
        config["cache"] = {"ttl": "1h"}
    file.write_text(json.dumps(config))
    return made


def table(results: Results, peers: Sequence[Peer]) -> str:
    """Medians of the rounds, and the ratio to the full lane's relay within each."""
    base = peers[0].name
    heads = [*FIGURES.values(), "times the full lane's relay"]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for peer in peers:
        rounds = results.rounds(SCENARIO, peer.name)
        cells = []
        for figure in FIGURES:
            spread = results.spread(SCENARIO, peer.name, figure)
            cells.append("-" if spread is None else f"{spread.median:,.1f}")
        ratios = [
            rounds[number]["requests_per_s"] / results.rounds(SCENARIO, base)[number]["requests_per_s"]
            for number in rounds
        ]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
        lines.append(f"| {peer.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure in turns and print the table."""
    parser = argparse.ArgumentParser(description="What kept answers save.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--cores", default="0,1", help="of the gateway, and of all else (default 0,1)")
    args = parser.parse_args()
    proxy_core, load_core = (int(core) for core in args.cores.split(","))
    scenarios = [scenario for scenario in SCENARIOS if scenario.name == SCENARIO]
    peers = [
        AGW._replace(name=name, title=title, launch=functools.partial(launch, lane=lane, kept=kept))
        for name, title, lane, kept in SETTINGS
    ]
    results = compare.measure(peers, scenarios, args.rounds, Cores(proxy_core, load_core), tries=3)
    print(table(results, peers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
