"""The fast lane: relaying between two sockets with the whole policy on; see ``lane.pyx`` and docs/performance.md."""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from agw_proxy._hot.keys import KeyTable
from agw_proxy._hot.meter import Meter
from agw_proxy._hot.route import RouteTable

class Names:
    """Header names that mean something to the gateway, in lower case."""

    def __init__(
        self,
        kept: Iterable[bytes],
        safe: Iterable[bytes],
        safe_prefixes: Sequence[bytes],
        kept_prefixes: Sequence[bytes] = (),
    ) -> None:
        """``kept``: of a request, stay here. ``safe``: of an answer, go to the client. Raises ValueError on a bad name."""

class Wheel:
    """Deadlines of all connections on one timer."""

    def close(self) -> None: ...
    def __len__(self) -> int: ...

class Caller:
    """A principal as the lane reads it."""

    principal: Any
    name: str
    def __init__(self, principal: Any) -> None: ...

class Door:
    """An endpoint as the lane sees it."""

    name: str
    dialect: str
    def __init__(
        self,
        name: str,
        dialect: str,
        *,
        upstream_path: str | None,
        default_model: str | None,
        asks_usage: bool,
        known_end: bool,
        needs_json: bool,
        refusals: tuple[str | None, ...],
        operation: str | None,
        counts_only: bool = False,
        remembers: int = 0,
        recalls: bool = False,
        mixed: bool = False,
        ping: bytes | None = None,
    ) -> None: ...

class Origin:
    """An upstream's address with its idle connections."""

    name: str
    host: str
    port: int
    tls: Callable[[], ssl.SSLContext] | None
    health: Any
    replays: bool
    open: int
    def __init__(
        self,
        name: str,
        *,
        host: str,
        port: int,
        tls: Callable[[], ssl.SSLContext] | None,
        authority: bytes,
        base: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        stream_usage: bool,
        replays: bool,
        health: Any,
        kept: Iterable[bytes],
        places: Any = None,
    ) -> None:
        """Raises ValueError for a header that cannot be sent."""
    @property
    def waiting(self) -> int:
        """Idle connections."""
    def close(self) -> None: ...

class Policy:
    """One version of the policy, compiled."""

    keys: KeyTable
    callers: list[Caller]
    routes: RouteTable
    state: Any
    why: str | None
    def __init__(
        self,
        *,
        keys: KeyTable,
        callers: Iterable[Caller],
        routes: RouteTable,
        origins: Iterable[Origin | None],
        doors: Mapping[str, Door],
        terms: Callable[
            [str, int], tuple[str | None, float, float, float, float, float | None, float, float, float, bool]
        ],
        state: Any,
        json_depth: int,
        seconds: tuple[float, float, float, float],
        google: Door | None = None,
        prices: Any = None,
        learners: Any = None,
        sticky: Mapping[str, str] | None = None,
        spread: Mapping[str, int] | None = None,
        why: str | None = None,
        ping_seconds: float = 0.0,
        lends: int = -1,
    ) -> None: ...
    def forget(self) -> None: ...

class Kept:
    """An answer that the lane gives itself."""

    used: bool
    """It was given, since somebody set this False."""
    def drop(self) -> None:
        """It is given no more."""
    @property
    def current(self) -> bool:
        """It is given at present."""
    @property
    def size(self) -> int:
        """Bytes, beside those of the answer."""

class Lane:
    """What the connections of one edge share; also the protocol factory of its listening sockets."""

    policy: Policy
    shell: Any
    wheel: Wheel
    connections: set[Downstream]
    draining: bool
    shedding: bool
    max_requests: int
    others: int
    active: int
    begun: int
    reading: int
    away: int
    lender: Any
    held: int
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        shell: Any,
        names: Names,
        meter: Meter,
        policy: Policy,
        *,
        max_line: int,
        max_head: int,
        max_held: int,
    ) -> None: ...
    def __call__(self) -> Downstream: ...
    def swap(self, policy: Policy) -> None: ...
    def know(self, names: frozenset[str]) -> None: ...
    def keep(
        self,
        state: Any,
        subject: int,
        target: bytes,
        varies: bytes,
        body: bytes,
        head: bytes,
        answer: bytes,
        *,
        stream: bool,
        made: int,
        due: float,
    ) -> Kept | None:
        """Give ``answer`` to these very bytes from now on, as long as ``state`` is in force; None where it is no more.

        ``subject``: of the caller. ``target``, ``body``: of the request. ``varies``: ``edge.canonical.varying`` of its
        headers. ``head``: status line, the answer's own fields and how it is framed. ``made``: in UTC nanoseconds.
        ``due``: when it expires, in seconds of the monotonic clock.
        """
    def visitor(self, visit: Any, marks: Any, slot: int, request: bytes) -> Downstream:
        """A protocol for a connection that another worker lends, with a whole request that it has read.

        ``visit``: its ``left`` is called when the connection is closed. ``marks``: writable memory, where 2 is put at
        ``slot`` once bytes of an answer may have gone out.
        """
    def drain(self) -> None: ...
    def end_all(self) -> int: ...
    def close(self) -> None: ...

class Peer(asyncio.Protocol):
    """A connection to an upstream."""

    transport: asyncio.Transport | None
    origin: Origin
    connect_ms: float
    def __init__(self, lane: Lane, origin: Origin) -> None: ...

class Downstream(asyncio.Protocol):
    """A client's connection."""

    lane: Lane
    transport: asyncio.Transport
    handler: Any
    reason: str | None
    reading_held: bool
    watched: bool
    def __init__(self, lane: Lane) -> None: ...
    @property
    def state_name(self) -> str:
        """What it is at."""
    @property
    def endpoint(self) -> str | None:
        """The endpoint that a request has reached."""
    @property
    def dialect(self) -> Literal["openai", "anthropic"]:
        """In which it wants to be answered."""
    @property
    def told(self) -> tuple[str | None, str | None, str | None, str | None]:
        """(request id, user, channel, trace id) of that request, as far as its head said."""
    @property
    def began(self) -> int:
        """When its head was there, in monotonic nanoseconds."""
    @property
    def principal(self) -> Any:
        """Who sends it."""
    def write(self, data: bytes) -> None: ...
    @property
    def closes(self) -> bool:
        """The connection ends with the answer to the request in hand."""
    def came_back(self, rest: bytes) -> None: ...
    def answer_instead(self, answer: bytes) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def hold_reading(self, held: bool) -> None: ...
    def answered(self) -> None: ...
    def upgraded(self) -> None:
        """aiohttp has switched protocols: all bytes are its own from now on, those too that are here already."""
    def dialed(self, serial: int, peer: Peer) -> None: ...
    def dial_failed(self, serial: int, error: Exception) -> None: ...

def odd_target(path: bytes, query: bytes) -> str | None:
    """Why a request to this path of Google's form goes by the full lane (a value of ``lane_reason``); None: it need not.

    ``path``: as it came, percent-encoded. ``query``: likewise, without its question mark.
    """
