"""Tells when a budget comes to its end: an event in the log, and a POST to ``alerts.webhook``.

Nothing of it is on a request's path. Who is told by webhook hears in order, one at a time, from a thread; a slow or
absent listener costs alerts (counted as dropped), never requests.
"""

import asyncio
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson

from agw_proxy._hot.limit import Grant
from agw_proxy._hot.reserve import crossings
from agw_proxy.config.allowances import Alerts as Settings
from agw_proxy.types import Principal

if TYPE_CHECKING:
    import socket

MAX_WAITING = 256  # alerts for a listener that is slow; each is some 300 bytes
MAX_TOLD = 4096  # that are remembered, so that none is told twice
ATTEMPTS = 3
PAUSE_SECONDS = 1.0  # before the second attempt; four times as long before the third
POST_SECONDS = 5.0
MICRO = 1_000_000  # micro-dollars in a dollar
EVENT = "budget.alert"
MAX_HEAD = 16384  # of a webhook's answer, until its status is there
STATUS = re.compile(rb"(?:HTTP/1\.[01] 1[^\n]*\n(?:[^\r\n]+\r?\n)*\r?\n)*HTTP/1\.[01] ([2-9][0-9]{2})[ \r\n]")
"""Of an answer, behind interim ones (RFC 9112 section 4)."""
Say = Callable[..., object]


Alert = dict[str, object]
"""What is sent: ``event``, ``time``, and what the log's event says."""


class Alerts:
    """Of one process. What many of them count together is told by the one that crosses a mark."""

    def __init__(self, settings: Settings, say: Say, dropped: Callable[[str], object]) -> None:
        """``say``: the log's events. ``dropped``: hears ``alert`` for each that could not be sent."""
        self._say = say
        self._dropped = dropped
        self._settings = settings
        self._told: dict[tuple[str, float, tuple[int, ...]], float] = {}
        self._waiting: list[Alert] = []
        self._task: asyncio.Task[None] | None = None

    def take_up(self, settings: Settings) -> None:
        """From a configuration that is in force now."""
        self._settings = settings

    def crossed(self, grant: Grant, principal: Principal, user: str | None) -> None:
        """Say what the exchange has crossed, once it is settled or refused."""
        now = time.monotonic()
        for rule, share, remaining, reset_ns, subjects in crossings(grant, time.monotonic_ns()):
            if self._again((rule.name, share, subjects), now, reset_ns / 1e9):
                continue
            wall = datetime.now(UTC)
            ends = wall + timedelta(seconds=reset_ns / 1e9)
            said: Alert = {
                "budget": rule.name,
                "share": share,
                "usd": rule.amount / MICRO,
                "used_usd": (rule.amount - remaining) / MICRO,  # spent, and reserved for what is under way
                "resets_at": ends.isoformat(timespec="seconds"),
                "key": principal.name,
            }
            said |= {name: value for name, value in (("team", principal.team), ("user", user)) if value is not None}
            self._say(EVENT, **said)
            if self._settings.webhook is not None:
                self._send({"event": EVENT, "time": wall.isoformat(timespec="seconds"), **said})

    def _again(self, what: tuple[str, float, tuple[int, ...]], now: float, until: float) -> bool:
        """It was told already, and the window that it was told of is not over."""
        known = self._told.get(what)
        if known is not None and now < known:
            return True
        if len(self._told) >= MAX_TOLD:
            self._told = {item: end for item, end in self._told.items() if end > now}
            if len(self._told) >= MAX_TOLD:
                self._told.clear()
        self._told[what] = now + until
        return False

    def _send(self, alert: Alert) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._dropped("alert")
            return
        self._waiting.append(alert)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._deliver())

    async def _deliver(self) -> None:
        while self._waiting:
            alert = self._waiting[0]
            for attempt in range(ATTEMPTS):
                if attempt:
                    await asyncio.sleep(PAUSE_SECONDS * 4 ** (attempt - 1))
                error = await asyncio.to_thread(post, self._settings, orjson.dumps(alert))
                if error is None:
                    break
            else:
                self._dropped("alert")
                self._say("alert.not_sent", budget=alert["budget"], error=error)
            del self._waiting[0]

    async def close(self) -> None:
        """Wait a moment for what is on its way; the rest is dropped."""
        if self._task is None or self._task.done():
            return
        done, _ = await asyncio.wait({self._task}, timeout=POST_SECONDS)
        if not done:
            self._task.cancel()
            for _alert in self._waiting:
                self._dropped("alert")


def post(settings: Settings, body: bytes, seconds: float = POST_SECONDS) -> str | None:
    """Send to the webhook; gives what went wrong. Redirects are not followed. Blocks, for ``seconds`` in all: for a thread."""
    import http.client  # noqa: PLC0415  not before there is somebody to tell
    import ssl  # noqa: PLC0415  likewise

    url = urlsplit(settings.webhook or "")
    until = time.monotonic() + seconds
    try:
        made: http.client.HTTPConnection
        if url.scheme == "https":
            context = ssl.create_default_context()
            made = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=seconds, context=context)
        else:
            made = http.client.HTTPConnection(url.hostname or "", url.port, timeout=seconds)
        try:
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            made.request("POST", target, body, {"Content-Type": "application/json", **settings.headers})
            status = _status(made.sock, until)
        finally:
            made.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        return type(error).__name__
    return None if 200 <= status < 300 else f"status {status}"


def _status(sock: "socket.socket", until: float) -> int:
    """The status that comes until then, however slowly: ``http.client`` has a bound for each of its reads, and none for all.

    What follows is not read. Raises OSError.
    """
    head = b""
    while (found := STATUS.match(head)) is None:
        left = until - time.monotonic()
        if left <= 0 or len(head) > MAX_HEAD:
            raise TimeoutError
        sock.settimeout(left)
        piece = sock.recv(MAX_HEAD)
        if not piece:
            raise ConnectionResetError
        head += piece
    return int(found[1])
