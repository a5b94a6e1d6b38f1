"""What shared limits cost: ``python -m bench.redis [--rounds N]``. The same gateway and limits, alone and with a Redis.

A key's two limits (requests and tokens) are large enough to let all pass and small enough that parts of them are taken
all the time. The gateway has a core to itself; Redis shares the other with the load generator and the upstream, and
answers at once, as one on the same machine does.
"""

import functools
import os
import sys
from typing import Any

from bench import variants
from bench.proxies.gateways import AGW
from tests.support.redis_server import RedisServer

REQUESTS = 100_000  # a second: three times what passes
TOKENS = 100_000_000
FIGURES = {
    "requests_per_s": "requests/s",
    "cpu_us_per_request": "CPU us/request",
    "latency_p99_us": "p99 us",
    "errors": "errors",
}


def change(config: dict[str, Any], url: str | None) -> None:
    """The gateway with limits that matter, and with ``redis`` where there is a URL."""
    config["keys"][0]["limits"] = [
        {"per": "key", "requests": REQUESTS, "period": "1s"},
        {"per": "key", "tokens": TOKENS, "period": "1s"},
    ]
    if url is not None:
        config["redis"] = {"url": url}


def main() -> int:
    """Measure in turns and print the table."""
    rounds, cores = variants.arguments("What limits cost that are shared through Redis.")
    with RedisServer() as redis:
        os.sched_setaffinity(redis.process.pid, {cores.load})
        peers = [
            AGW._replace(
                name=name,
                title=title,
                launch=functools.partial(variants.launch, change=functools.partial(change, url=url)),
            )
            for name, title, url in (("alone", "alone", None), ("redis", "shared through Redis", redis.url))
        ]
        results = variants.measure(peers, rounds, cores)
        takes = redis.command("INFO", "commandstats").decode(errors="replace")
    print(variants.table(results, peers, FIGURES, "requests/s against alone"))
    print("\n".join(line for line in takes.splitlines() if "evalsha" in line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
