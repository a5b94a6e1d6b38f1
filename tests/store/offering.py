"""A node as a process of its own: offers requests without pause and prints when each that passed did.

python -m tests.store.offering URL NAME SECONDS ALGORITHM AMOUNT PERIOD_MS TIMEOUT
"""

import asyncio
import json
import sys
import time

import uvloop
from pydantic import SecretStr

from agw_proxy._hot.limit import PER_KEY, REQUESTS, Rule
from agw_proxy.config.storage import Redis
from tests.store.node import Node, running

SHARE = 0.05
LEASE_SECONDS = 0.3
OFFERERS = 4


def settings(url: str, timeout: float) -> Redis:
    lease = {"share": SHARE, "seconds": LEASE_SECONDS}
    return Redis.model_validate({"url": SecretStr(url), "timeout": timeout, "replicas": 3, "lease": lease})


async def offer(
    url: str, name: str, seconds: float, algorithm: int, amount: int, period_ms: int, timeout: float
) -> list[int]:
    rule = Rule("offered", PER_KEY, REQUESTS, amount, period_ms * 1_000_000, algorithm=algorithm, leased=True)
    node = Node(settings(url, timeout), [rule], name)
    passed: list[int] = []
    async with running(node):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        until = time.monotonic() + seconds

        async def go_on() -> None:
            while time.monotonic() < until:
                grant = await node.ask()
                if grant.granted:
                    passed.append(time.monotonic_ns())
                await asyncio.sleep(0 if grant.granted else 0.002)

        await asyncio.gather(*(go_on() for _ in range(OFFERERS)))
    return passed


if __name__ == "__main__":
    url, name, seconds, algorithm, amount, period_ms, timeout = sys.argv[1:]
    told = float(seconds), int(algorithm), int(amount), int(period_ms), float(timeout)
    found = uvloop.run(offer(url, name, *told))
    sys.stdout.write(json.dumps(found))
