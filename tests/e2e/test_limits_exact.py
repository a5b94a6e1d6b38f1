"""Limits are exact over workers: of 4,000 requests offered on 64 connections at a limit of 1,000, 1,000 pass."""

import asyncio
from collections import Counter
from urllib.parse import urlsplit

import orjson
import pytest

from tests.support.behaviours import answer
from tests.support.fake_openai import completion
from tests.support.gateway import Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Upstream

KEY = "agw-exact-cy-0c5e7b1a94d2f836"
CONNECTIONS, REQUESTS, LIMIT, WORKERS = 64, 4000, 1000, 4


async def ask(host: str, port: int, request: bytes, times: int) -> Counter[int]:
    """Statuses of so many requests on one connection."""
    reader, writer = await asyncio.open_connection(host, port)
    found: Counter[int] = Counter()
    for _ in range(times):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        await reader.readexactly(int(lower.split(b"content-length:")[1].split(b"\r\n")[0]))
        found[int(head[9:12])] += 1
    writer.close()
    return found


async def offer(url: str) -> Counter[int]:
    parts = urlsplit(url)
    body = orjson.dumps(chat_body())
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    each = [REQUESTS // CONNECTIONS + (number < REQUESTS % CONNECTIONS) for number in range(CONNECTIONS)]
    asked = [ask(parts.hostname or "", parts.port or 0, request, times) for times in each]
    return sum(await asyncio.gather(*asked), Counter())


@pytest.mark.parametrize(
    "limit",
    [
        {"per": "key", "requests": LIMIT, "period": "30d"},  # one comes back every 43 minutes
        {"per": "key", "requests": LIMIT, "period": "30d", "algorithm": "sliding_window"},
    ],
    ids=["bucket", "sliding"],
)
async def test_four_workers_admit_exactly_the_limit(shared_upstream: Upstream, limit: Tree) -> None:
    shared_upstream.reset()
    shared_upstream.default = answer(completion())
    config = configuration(
        provider(shared_upstream.url),
        server={"port": 0, "drain_seconds": 1, "body_seconds": 5, "workers": WORKERS},
        timeouts={"connect": "10s", "first_byte": "30s", "between_bytes": "30s", "total": "60s"},
    )
    config["keys"].append({"name": "cy", "key": KEY, "limits": [limit]})
    with Gateway(config) as gateway:
        found = await asyncio.wait_for(offer(gateway.url), 120)
    assert found == {200: LIMIT, 429: REQUESTS - LIMIT}
    assert len(shared_upstream.requests) == LIMIT
    shared_upstream.reset()
