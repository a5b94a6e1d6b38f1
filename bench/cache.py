"""What kept answers save: ``python -m bench.cache [--rounds N]``. One request over and over, in four settings.

Relayed by the full lane (what a miss costs), given from memory by the full lane, relayed by the fast lane, and given from
memory by the fast lane. The gateway has a core to itself; the upstream answers at once, so a real model's time, which a
kept answer saves as well, is not in the first table. The second has streams of a model that says a thousand words a
second, ten times as many as fast ones do, relayed and kept by the fast lane.
"""

import functools
import sys
from collections.abc import Sequence
from typing import Any

from bench import variants
from bench.proxies.gateways import AGW
from bench.proxies.peer import Peer
from bench.proxies.scenarios import Scenario

SETTINGS = (
    ("full_relay", "relayed, full lane", "full", False),
    ("full_hit", "kept, full lane", "full", True),
    ("fast_relay", "relayed, fast lane", "auto", False),
    ("fast_hit", "kept, fast lane", "auto", True),
)
STREAMS = Scenario("kept", "64 streams of 50 events, 1 ms apart", 64, events=50, pace_us=1000)
STREAM_FIGURES = {
    "streams_per_s": "answers/s",
    "cpu_us_per_event": "CPU us/event",
    "ttft_p50_us": "first word us",
    "errors": "errors",
}
FIGURES = {
    "requests_per_s": "requests/s",
    "cpu_us_per_request": "CPU us/request",
    "latency_p50_us": "p50 us",
    "latency_p99_us": "p99 us",
    "errors": "errors",
}


def change(config: dict[str, Any], lane: str, kept: bool) -> None:
    """The gateway in one lane, and with a cache where answers are ``kept``."""
    if lane == "full":
        config["server"]["lane"] = lane
    if kept:
        config["cache"] = {"ttl": "1h"}


def main() -> int:
    """Measure in turns and print the table."""
    rounds, cores = variants.arguments("What kept answers save.")
    peers = made(SETTINGS)
    print(variants.table(variants.measure(peers, rounds, cores), peers, FIGURES, "times the full lane's relay"))
    peers = made(SETTINGS[2:])
    results = variants.measure(peers, rounds, cores, STREAMS)
    print(f"\n{variants.table(results, peers, STREAM_FIGURES, 'times the relay', STREAMS)}")
    return 0


def made(settings: Sequence[tuple[str, str, str, bool]]) -> list[Peer]:
    """The gateway in each of them."""
    return [
        AGW._replace(
            name=name,
            title=title,
            launch=functools.partial(variants.launch, change=functools.partial(change, lane=lane, kept=kept)),
        )
        for name, title, lane, kept in settings
    ]


if __name__ == "__main__":
    sys.exit(main())
