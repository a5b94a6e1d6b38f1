"""A realtime provider over WebSockets, as a server of its own: it notes what it is asked and does what messages tell it.

The model in the query says how the handshake goes, ``type`` in a message what happens then.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

Tree = dict[str, Any]
WAIT_SECONDS = 10.0
BIG_BYTES = 17 * 1024 * 1024
REFUSALS: dict[str, tuple[int, Tree]] = {
    "refuse-400": (400, {"error": {"message": "no such voice", "type": "invalid_request_error", "code": "bad_voice"}}),
    "refuse-401": (401, {"error": {"message": "Incorrect API key", "type": "invalid_request_error", "code": "bad"}}),
    "refuse-429": (429, {"error": {"message": "slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}),
    "refuse-500": (500, {"error": {"message": "oops", "type": "server_error", "code": None}}),
    "refuse-200": (200, {"object": "nothing"}),
}
USAGE = {
    "total_tokens": 30,
    "input_tokens": 20,
    "output_tokens": 10,
    "input_token_details": {"cached_tokens": 5, "text_tokens": 20, "audio_tokens": 0},
    "output_token_details": {"text_tokens": 10, "audio_tokens": 0},
}


@dataclass
class Dialog:
    """One connection as the provider saw it."""

    query: dict[str, str]
    headers: list[tuple[str, str]]
    messages: list[bytes | str] = field(default_factory=list)
    close: int | None = None
    """With what the other side closed; 1006: it was just gone."""
    ended: threading.Event = field(default_factory=threading.Event)
    resume: threading.Event = field(default_factory=threading.Event)
    taken: int = 0
    """Bytes of a flood that the other side has taken."""

    def header(self, name: str) -> str | None:
        """The first of that name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class Provider:
    """``with Provider() as provider``: serving at ``provider.url``."""

    def __init__(self, path: str = "/v1/realtime") -> None:
        self.dialogs: list[Dialog] = []
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is not None:
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(WAIT_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS)
        self._loop.close()

    def reset(self) -> None:
        """Forget what was."""
        self.dialogs.clear()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get(self._path, self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        dialog = Dialog(dict(request.query), list(request.headers.items()))
        self.dialogs.append(dialog)
        model = request.query.get("model") or request.query.get("deployment") or ""
        if model in REFUSALS:
            status, tree = REFUSALS[model]
            dialog.ended.set()
            return web.json_response(tree, status=status, headers={"Retry-After": "7"} if status == 429 else {})
        wants = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        ws = web.WebSocketResponse(protocols=[wants[0]] if wants[0] else (), max_msg_size=0, timeout=1.0)
        await ws.prepare(request)
        try:
            await ws.send_json({"type": "session.created", "session": {"model": model}})
            await self._talk(ws, dialog, request)
        finally:
            dialog.close = ws.close_code
            dialog.ended.set()
        return ws

    async def _talk(self, ws: web.WebSocketResponse, dialog: Dialog, request: web.Request) -> None:
        async for message in ws:
            if message.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
                return
            dialog.messages.append(message.data)
            if message.type is WSMsgType.BINARY:
                await ws.send_bytes(message.data)
                continue
            told: Tree = orjson.loads(message.data)
            kind = told.get("type")
            transport = request.transport
            assert transport is not None
            if kind == "response.create":
                await self._answer(ws, cut=bool(told.get("cut")))
            elif kind == "close":
                await ws.close(code=told["code"], message=str(told.get("reason", "")).encode())
            elif kind == "drop":
                transport.abort()
            elif kind == "big":
                await ws.send_str("x" * BIG_BYTES)
            elif kind == "flood":
                for _ in range(told["count"]):
                    await ws.send_bytes(b"x" * told["size"])
                    dialog.taken += told["size"]
            elif kind == "stall":
                found = transport.get_extra_info("socket")
                found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                await asyncio.get_running_loop().run_in_executor(None, dialog.resume.wait, WAIT_SECONDS)
            else:
                await ws.send_str(message.data)

    async def _answer(self, ws: web.WebSocketResponse, *, cut: bool) -> None:
        await ws.send_json({"type": "response.created", "response": {"id": "resp_1"}})
        for word in ("hel", "lo"):
            await ws.send_json({"type": "response.output_text.delta", "delta": word})
        if not cut:
            await ws.send_json({"type": "response.done", "response": {"id": "resp_1", "usage": USAGE}})

    def dialog(self, number: int = -1) -> Dialog:
        """One that has ended, or will within a moment."""
        dialog = self.dialogs[number]
        assert dialog.ended.wait(WAIT_SECONDS), "the provider's connection is still open"
        return dialog

    def until(self, probe: Callable[[], bool]) -> None:
        """Wait until it holds."""
        pause = threading.Event()
        for _ in range(int(WAIT_SECONDS * 100)):
            if probe():
                return
            pause.wait(0.01)
        raise AssertionError("it never came to that")


CLOSED = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED})
AWAY = int(WSCloseCode.GOING_AWAY)
quiet = contextlib.suppress(ConnectionError)
