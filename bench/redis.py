"""What shared limits cost: ``python -m bench.redis [--rounds N]``. The same gateway and limits, alone and with a Redis.

A key's two limits (requests and tokens) are large enough to let all pass and small enough that parts of them are taken
all the time. The gateway has a core to itself; Redis shares the other with the load generator and the upstream, and
answers at once, as one on the same machine does.
"""

import argparse
import functools
import json
import os
import statistics
import sys
from collections.abc import Sequence

from bench.proxies import compare
from bench.proxies.gateways import AGW
from bench.proxies.measure import Cores
from bench.proxies.peer import Launch, Peer, Setting
from bench.proxies.results import Results
from bench.proxies.scenarios import SCENARIOS
from tests.support.redis_server import RedisServer

REQUESTS = 100_000  # a second: three times what passes
TOKENS = 100_000_000
ROUNDS = 5
SCENARIO = "json64"
FIGURES = {
    "requests_per_s": "requests/s",
    "cpu_us_per_request": "CPU us/request",
    "latency_p99_us": "p99 us",
    "errors": "errors",
}


def launch(setting: Setting, url: str | None) -> Launch:
    """The comparison's gateway with limits that matter, and with ``redis`` where there is a URL."""
    made = AGW.launch(setting)
    file = setting.folder / "gateway.yaml"
    config = json.loads(file.read_text())
    config["keys"][0]["limits"] = [
        {"per": "key", "requests": REQUESTS, "period": "1s"},
        {"per": "key", "tokens": TOKENS, "period": "1s"},
    ]
    if url is not None:
        config["redis"] = {"url": url}
    file.write_text(json.dumps(config))
    return made


def table(results: Results, peers: Sequence[Peer]) -> str:
    """Medians of the rounds, and the ratio within each."""
    alone = peers[0].name
    lines = ["| | " + " | ".join(FIGURES.values()) + " | requests/s against alone |", "|---|---:|---:|---:|---:|---:|"]
    for peer in peers:
        rounds = results.rounds(SCENARIO, peer.name)
        cells = []
        for figure in FIGURES:
            spread = results.spread(SCENARIO, peer.name, figure)
            cells.append("-" if spread is None else f"{spread.median:,.1f}")
        ratios = [
            rounds[number]["requests_per_s"] / results.rounds(SCENARIO, alone)[number]["requests_per_s"]
            for number in rounds
        ]
        cells.append(f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})")
        lines.append(f"| {peer.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure in turns and print the table."""
    parser = argparse.ArgumentParser(description="What limits cost that are shared through Redis.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--cores", default="0,1", help="of the gateway, and of all else (default 0,1)")
    args = parser.parse_args()
    proxy_core, load_core = (int(core) for core in args.cores.split(","))
    scenarios = [scenario for scenario in SCENARIOS if scenario.name == SCENARIO]
    with RedisServer() as redis:
        os.sched_setaffinity(redis.process.pid, {load_core})
        peers = [
            AGW._replace(name="alone", title="alone", launch=functools.partial(launch, url=None)),
            AGW._replace(name="redis", title="shared through Redis", launch=functools.partial(launch, url=redis.url)),
        ]
        results = compare.measure(peers, scenarios, args.rounds, Cores(proxy_core, load_core), tries=3)
        takes = redis.command("INFO", "commandstats").decode(errors="replace")
    print(table(results, peers))
    print("\n".join(line for line in takes.splitlines() if "evalsha" in line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
