"""Many clients at once, each asking again and again on a connection that it keeps, and the fate of every request.

A fate is ``whole``, ``refused`` (a status and an error that says so), ``broken`` (cut, and seen to be cut), ``dropped``
(the connection ended before the answer's first byte), ``left`` (the client went), ``silent`` (no answer in time) or
``lie``: a part, or something else, that looks like the whole.
"""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Self

import orjson

from tests.support.behaviours import DONE
from tests.support.client import Connection, Reply
from tests.support.fake_openai import ANSWER
from tests.support.gateway import Gateway, chat_body

_numbers = count()


@dataclass
class Fate:
    """One request. ``port``: the client's end of its connection."""

    request_id: str
    what: str
    port: int
    status: int = 0


class Crowd:
    """``with Crowd(gateway) as crowd``: asking for as long as the block runs; ``fates`` has what became of it."""

    def __init__(self, gateway: Gateway, clients: int = 8, *, seed: int = 1, leaving: float = 0.0) -> None:
        """``leaving``: share of the requests that a client does not wait for."""
        self.gateway = gateway
        self.fates: list[Fate] = []
        self.ports: dict[int, int] = {}
        """Client's number -> its end of the connection now open."""
        self._leaving = leaving
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._live, args=(number, random.Random(seed * 1000 + number)), daemon=True)
            for number in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a client has had no answer"

    @property
    def told(self) -> Counter[str]:
        """How many of each fate."""
        return Counter(fate.what for fate in list(self.fates))

    def wait(self, more: int) -> None:
        """Returns when so many more requests have ended."""
        until = len(self.fates) + more
        self.gateway.until(lambda: len(self.fates) >= until, "the load stands still", 30.0)

    def _live(self, number: int, chance: random.Random) -> None:
        while not self._over.is_set():
            try:
                with self.gateway.connect() as connection:
                    self.ports[number] = connection.socket.getsockname()[1]
                    while not self._over.is_set() and self._ask(connection, chance):
                        pass
            except ConnectionError:
                self.fates.append(Fate("", "unconnected", 0))

    def _ask(self, connection: Connection, chance: random.Random) -> bool:
        """True when the connection may be used again."""
        identity = f"crowd-{next(_numbers)}"
        streamed = chance.random() < 0.5
        leaves = chance.random() < self._leaving
        port = connection.socket.getsockname()[1]
        reply = None
        try:
            headers = self.gateway.headers(more={"x-request-id": identity})
            connection.send("POST", "/v1/chat/completions", chat_body(stream=streamed), headers)
            if leaves and chance.random() < 0.5:
                self.fates.append(Fate(identity, "left", port))
                return False
            reply = connection.head()
            pieces = connection.pieces(reply)
            if leaves:
                reply.body = next(pieces, b"")
                self.fates.append(Fate(identity, "left", port, reply.status))
                return False
            reply.body = b"".join(pieces)
        except TimeoutError:
            self.fates.append(Fate(identity, "silent", port))
            return False
        except (OSError, EOFError, ConnectionError):
            pass
        what = "dropped" if reply is None else judge(reply, streamed=streamed)
        self.fates.append(Fate(identity, what, port, reply.status if reply is not None else 0))
        return reply is not None and reply.complete and (reply.value("connection") or "").lower() != "close"


def judge(reply: Reply, *, streamed: bool) -> str:
    """The fate that this answer is."""
    if not reply.complete:
        return "broken"
    if reply.status != 200:
        return "refused" if b'"error"' in reply.body else "lie"
    if not streamed:
        try:
            said = orjson.loads(reply.body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError):
            return "lie"
        return "whole" if said == ANSWER else "lie"
    return "whole" if told(reply.body) == ANSWER and b"event: error" not in reply.body else "lie"


def told(body: bytes) -> str:
    """The text of a stream that has its terminator; empty without."""
    if not body.endswith(DONE):
        return ""
    events = [orjson.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for one in events for choice in one.get("choices", []))


@contextmanager
def crowd(gateway: Gateway, clients: int = 8) -> Iterator[Crowd]:
    """A crowd that has warmed up; the block does something to the gateway meanwhile."""
    with Crowd(gateway, clients) as made:
        made.wait(clients * 4)
        yield made
        made.wait(clients * 4)
