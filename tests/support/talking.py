"""A client's side of a realtime session."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
from aiohttp import WSMsgType

from tests.support.gateway import APP_KEY, Gateway
from tests.support.sockets import CLOSED

Tree = dict[str, Any]
ASK = {"type": "response.create"}


@asynccontextmanager
async def session(
    gateway: Gateway, query: str = "model=gpt-realtime", *, key: str | None = APP_KEY, **options: Any
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A session's socket, past its first event."""
    headers = gateway.headers(key, options.pop("headers", None))
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(f"{gateway.url}/v1/realtime?{query}", headers=headers, max_msg_size=0, **options) as ws,
    ):
        assert orjson.loads(await ws.receive_str())["type"] == "session.created"
        yield ws


async def events(ws: aiohttp.ClientWebSocketResponse) -> list[Tree]:
    """All that comes until the close."""
    found = []
    async with asyncio.timeout(10):
        while (message := await ws.receive()).type not in CLOSED:
            assert message.type is WSMsgType.TEXT, message
            found.append(orjson.loads(message.data))
    return found


async def answer(ws: aiohttp.ClientWebSocketResponse) -> list[Tree]:
    """One answer's events."""
    await ws.send_json(ASK)
    found: list[Tree] = []
    while not found or found[-1]["type"] != "response.done":
        found.append(orjson.loads(await ws.receive_str(timeout=10)))
    return found
