"""What shared limits cost the fast lane: CPU a request without limits, and with some that are shared through a Redis.

    python -m bench.redis [--rounds N] [--ms N] [--cores GATEWAY,LOAD]

A key a case, all of one process, as in `bench.rules`, which says why. The limits are large enough to let all pass and
small enough that parts of them are taken all the time: the asking, too, is paid for by the requests of its case. A key in
use takes anew long before its parts are old; here keys rest while others have their turns, so parts may grow old. The
gateway has a core to itself; Redis shares the other with the load generator and the upstream.
"""

import os
import tempfile
from pathlib import Path

from bench import rules
from tests.support.redis_server import RedisServer

REQUESTS = 100_000  # a second: twice what passes
TOKENS = 1000  # a request
REST = 60  # seconds


def limits(count: int, period: str, seconds: int) -> dict[str, list[dict[str, object]]]:
    """So many of the three, over a period: parts are a twentieth of it, so a second's are taken sixty times as often."""
    amount = REQUESTS * seconds
    three = [
        {"per": "key", "requests": amount},
        {"per": "key", "tokens": amount * TOKENS},
        {"per": "user", "requests": amount},
    ]
    return {"limits": [{**limit, "period": period} for limit in three[:count]]}


CASES: rules.Cases = {
    "no limits": {},
    "no limits, once more": {},
    "one shared limit a minute, in requests": limits(1, "1m", 60),
    "two, one in tokens": limits(2, "1m", 60),
    "three": limits(3, "1m", 60),
    "one shared limit a second, in requests": limits(1, "1s", 1),
    "three a second": limits(3, "1s", 1),
}


def main() -> None:
    """Measure in turns and print the table, and what Redis was asked."""
    given = rules.arguments("What shared limits cost the fast lane.")
    with RedisServer() as redis, tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(redis.process.pid, {given.cores[1]})
        found = rules.measure(given, Path(folder), CASES, {"redis": {"url": redis.url, "lease": {"seconds": REST}}})
        takes = redis.command("INFO", "commandstats").decode(errors="replace")
    print("\n".join(rules.table(found)))
    print("\n".join(line for line in takes.splitlines() if "evalsha" in line))


if __name__ == "__main__":
    main()
