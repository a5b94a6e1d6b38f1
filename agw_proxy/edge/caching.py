"""Answers that are given again: what a caller says about it, where they are kept, and one call for all who ask the same.

``Caching.look`` decides on a request, once its model is known to be the key's: the answer is here, or on its way, or has
to be asked for. Nothing here changes what a caller gets: the same bytes, by the same way, to its own bounds.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec
from aiohttp import web

from agw_proxy._hot.lane import Kept, Lane
from agw_proxy._hot.route import Target
from agw_proxy.config.storage import Cache
from agw_proxy.edge.answers import Entry, decode, replayed
from agw_proxy.edge.canonical import Apart, canonical, digest, varying
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.flights import Ask, Flight
from agw_proxy.edge.full_lane import Connection
from agw_proxy.edge.headers import towards_client
from agw_proxy.edge.own_timeouts import HEADER as TIMEOUT_HEADER
from agw_proxy.edge.state import State
from agw_proxy.errors import InvalidParameter, LimitsUnavailable, NotCached, PolicyError, UpstreamError
from agw_proxy.store.base import Store
from agw_proxy.store.memory import Memory
from agw_proxy.types import Routed
from agw_proxy.upstreams.opening import Opened

Way = Literal["use", "refresh", "only", "off", "none"]
MAX_WRITES = 256  # answers on their way to a store; beyond them an answer is not kept
MAX_AGE_DIGITS = 9
MAX_SPELLINGS = 8  # of one answer's requests that the fast lane knows


class Counted(Protocol):
    """Who counts."""

    def cached(self, outcome: str, count: int = 1) -> None:
        """One of a closed set: hit, joined, miss, bypass, stored, evicted, dropped."""
        ...

    def cache_bytes(self, step: int) -> None:
        """So many bytes more are kept in memory, or less."""
        ...


class Wish(msgspec.Struct, frozen=True):
    """What the caller says about kept answers."""

    way: Way = "use"
    stores: bool = True
    max_age: float | None = None


AS_CONFIGURED = Wish()


def wish_of(cache_control: Sequence[str], own: str | None) -> Wish:
    """``Cache-Control`` (RFC 9111 section 5.2.1) and ``x-agw-cache``, which wins. Raises InvalidParameter for another word in it."""
    if own is not None:
        word = own.strip().lower()
        if word == "off":
            return Wish("off", stores=False)
        if word == "refresh":
            return Wish("refresh")
        if word == "only":
            return Wish("only")
        raise InvalidParameter("The header x-agw-cache is one of off, refresh and only.", param="x-agw-cache")
    if not cache_control:
        return AS_CONFIGURED
    directives = [directive.strip().partition("=") for directive in ",".join(cache_control).lower().split(",")]
    names = {name for name, _, _ in directives}
    if "only-if-cached" in names:
        way: Way = "none" if names & {"no-cache", "no-store"} else "only"
    elif "no-store" in names:
        return Wish("off", stores=False)
    else:
        way = "refresh" if "no-cache" in names else "use"
    age = None
    for name, _, value in directives:
        if name == "max-age":
            digits = value.strip('" ')
            age = float(digits) if digits.isdecimal() and len(digits) <= MAX_AGE_DIGITS else 0.0
    return Wish(way, max_age=age)


class Spelt(msgspec.Struct, frozen=True):
    """A request as its bytes, by which the fast lane knows it again."""

    lane: Lane
    state: State
    subject: int
    target: bytes
    varies: bytes
    body: bytes


def age_of(entry: Entry, now: float) -> tuple[str, str]:
    """The header of a hit (RFC 9111 section 5.1). ``now``: seconds since 1970."""
    return "age", f"{int(max(now - entry.made, 0.0))}"


def opening(entry: Entry) -> bytes:
    """Status line, the answer's own headers and its framing, as the fast lane sends them."""
    lines = [f"{name}: {value}" for name, value in towards_client(entry.headers, limits=False)]
    if entry.dropped:
        lines.append(f"x-agw-dropped: {', '.join(entry.dropped)}")
    if entry.stream:
        lines += ["Cache-Control: no-cache", "X-Accel-Buffering: no", "Transfer-Encoding: chunked"]
    else:
        lines.append(f"Content-Length: {len(entry.body)}")
    return ("HTTP/1.1 200 OK\r\n" + "".join(f"{line}\r\n" for line in lines)).encode()


class Share:
    """What became of the look: how this request gets its answer."""

    def __init__(self, caching: "Caching", exchange: Exchange, key: bytes, target: Target, *, known_end: bool) -> None:
        self._caching, self._exchange, self._key, self._target = caching, exchange, key, target
        self._known_end = known_end
        self.spelt: Spelt | None = None
        self.entry: Entry | None = None
        self.outcome = "miss"
        """See ``Exchange.cache``: told once the limits have let it pass."""
        self.alone = False
        """It joins nobody."""
        self.stores = True
        self.targets: tuple[Target, ...] = ()
        """Those whose answers are kept: not a fallback's."""

    async def open(self, ask: Ask) -> Opened:
        """The answer, from wherever. ``ask`` opens it upstream. Raises UpstreamError."""
        exchange, caching = self._exchange, self._caching
        exchange.cache = self.outcome
        if self.entry is not None:
            exchange.notes.append(age_of(self.entry, time.time()))
            return replayed(self.entry, self._target)
        if exchange.reuse == "joined" and (entry := caching.held(self._key)) is not None:
            exchange.reuse = exchange.cache = "hit"  # it has come to its end while this one waited for its limits
            exchange.notes.append(age_of(entry, time.time()))
            return replayed(entry, self._target)
        failed = False
        while True:
            flight = None if self.alone else caching.flying(self._key)
            if flight is None or not flight.joinable:
                exchange.pays()
                return await self._lead(ask).join(exchange).open()
            exchange.reuse = "joined"
            try:
                return await flight.join(exchange).open()
            except UpstreamError:
                if failed:
                    raise
                failed = True
            except (PolicyError, LimitsUnavailable):
                continue  # the limits of who led it, which are not this one's

    def _lead(self, ask: Ask) -> Flight:
        caching, key, targets = self._caching, self._key, self.targets
        flight: Flight

        def ended(entry: Entry | None) -> None:
            if entry is not None and flight.opened is not None and flight.opened.target in targets and self.stores:
                caching.keep(key, entry, flight, self.spelt)
            else:
                caching.landed(key, flight)

        flight = Flight(ask, ended, known_end=self._known_end, most=caching.max_answer)
        if not self.alone:
            caching.take_off(key, flight)
        return flight


def spelt(exchange: Exchange, request: web.BaseRequest, state: State, body: bytes) -> Spelt | None:
    """The request as its bytes; None where it did not come through the fast lane, or never will: one in Google's form."""
    protocol = request.protocol
    if exchange.principal is None or exchange.dialect == "gemini" or not isinstance(protocol, Connection):
        return None
    target = request.raw_path.encode("utf-8", "surrogateescape")
    varies = varying(request.raw_headers)
    return Spelt(protocol.downstream.lane, state, exchange.principal.subject, target, varies, body)


class Caching:
    """The answers of one worker, and the calls for them that are under way."""

    def __init__(self, settings: Cache, counted: Counted, store: Store | None) -> None:
        """``store``: where they are kept, but for the ``memory`` backend."""
        self.settings = settings
        self.max_answer = settings.max_answer_kb << 10
        self._counted = counted
        self._store = store
        self.memory: Memory[Entry] = Memory(settings.max_mb << 20, dropped=self._dropped, fresh=self._fresh)
        self._bytes = self._evicted = 0
        self._flights: dict[bytes, Flight] = {}
        self._writes: set[asyncio.Task[None]] = set()
        self._closed = False
        self._aliases: dict[bytes, list[Kept]] = {}

    async def look(
        self,
        exchange: Exchange,
        request: web.BaseRequest,
        path: str,
        query: str,
        body: bytes,
        routed: Routed,
        state: State,
        *,
        known_end: bool,
    ) -> Share | None:
        """How the request gets its answer; None: as if there were no cache. Raises NotCached, InvalidParameter."""
        wish = wish_of(request.headers.getall("Cache-Control", ()), request.headers.get("x-agw-cache"))
        key = None
        if wish.way not in {"off", "none"}:
            key = self._key(exchange, request, path, query, body, routed)
        if key is None:
            if wish.way in {"only", "none"}:
                raise NotCached("There is no kept answer to this request, and it asks for none but a kept one.")
            exchange.cache = "bypass"
            return None
        share = Share(self, exchange, key, routed.route.targets[0], known_end=known_end)
        share.targets, share.stores = routed.route.targets, wish.stores
        if self._store is None and wish is AS_CONFIGURED:
            share.spelt = spelt(exchange, request, state, body)
        now = time.time()
        entry = None
        if wish.way != "refresh":
            entry = await self._find(key)
            age = 0.0 if entry is None else max(now - entry.made, 0.0)
            if entry is not None and wish.max_age is not None and age > wish.max_age:
                entry = None
            if entry is not None:
                share.entry = entry
                if share.spelt is not None:
                    self._spell(key, entry, share.spelt)
                    self._count_bytes()
                exchange.reuse = share.outcome = "hit"
                return share
        if wish.way == "only":
            raise NotCached("There is no kept answer to this request, and it asks for none but a kept one.")
        # Whoever has deadlines of its own neither imposes them on others nor waits by theirs.
        own_pace = TIMEOUT_HEADER in request.headers
        share.alone = wish.way == "refresh" or own_pace or not self.settings.single_flight
        flight = None if share.alone else self.flying(key)
        if flight is not None and flight.joinable:
            exchange.reuse = share.outcome = "joined"
        return share

    def _key(
        self,
        exchange: Exchange,
        request: web.BaseRequest,
        path: str,
        query: str,
        body: bytes,
        routed: Routed,
    ) -> bytes | None:
        owner = b"key:" + exchange.principal.name.encode() if exchange.principal is not None else b"nobody"
        try:
            same = canonical(exchange.endpoint, path, body)
        except Apart:
            return None
        return digest(
            exchange.endpoint.encode(),
            query.encode("utf-8", "surrogateescape"),
            varying(request.raw_headers),
            routed.route.name.encode("utf-8", "surrogatepass"),
            "\n".join(target.name for target in routed.route.targets).encode("utf-8", "surrogatepass"),
            b"" if self.settings.scope == "shared" else owner,
            same,
        )

    async def _find(self, key: bytes) -> Entry | None:
        if self._store is None:
            entry = self.memory.get(key, time.monotonic())
            self._count_bytes()
            return entry
        found = await self._store.get(f"cache:{key.hex()}")
        entry = decode(found) if found is not None else None
        # It may have been stored for longer, before a reload or by another gateway.
        return entry if entry is not None and time.time() - entry.made <= self.settings.ttl else None

    def held(self, key: bytes) -> Entry | None:
        """The answer, where it is in memory."""
        return self.memory.get(key, time.monotonic()) if self._store is None else None

    # -- calls under way

    def flying(self, key: bytes) -> Flight | None:
        """The call for this, if there is one."""
        return self._flights.get(key)

    def take_off(self, key: bytes, flight: Flight) -> None:
        """It can be joined from now on."""
        self._flights[key] = flight

    def landed(self, key: bytes, flight: Flight) -> None:
        """It cannot be joined any more."""
        if self._flights.get(key) is flight:
            del self._flights[key]

    def keep(self, key: bytes, entry: Entry, flight: Flight, spelt: Spelt | None) -> None:
        """Put an answer where it is kept; until then its call can be joined."""
        if self._closed:
            self.landed(key, flight)
        elif self._store is None:
            kept = self.memory.set(key, entry, self.settings.ttl, time.monotonic())
            self._counted.cached("stored" if kept else "dropped")
            if kept and spelt is not None:
                self._spell(key, entry, spelt)
            self._count_bytes()
            self.landed(key, flight)
        elif len(self._writes) >= MAX_WRITES:
            self._counted.cached("dropped")
            self.landed(key, flight)
        else:
            task = asyncio.get_running_loop().create_task(self._write(key, entry, flight, self._store))
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)

    async def _write(self, key: bytes, entry: Entry, flight: Flight, store: Store) -> None:
        try:
            kept = await store.set(f"cache:{key.hex()}", entry.encode(), self.settings.ttl)
            self._counted.cached("stored" if kept else "dropped")
        finally:
            self.landed(key, flight)

    def _count_bytes(self) -> None:
        if self.memory.bytes != self._bytes:
            self._counted.cache_bytes(self.memory.bytes - self._bytes)
            self._bytes = self.memory.bytes
        if self.memory.evicted != self._evicted:
            self._counted.cached("evicted", self.memory.evicted - self._evicted)
            self._evicted = self.memory.evicted

    # -- what the fast lane gives itself

    def _spell(self, key: bytes, entry: Entry, spelt: Spelt) -> None:
        """Let the fast lane answer these very bytes, the next time."""
        aliases = self._aliases.setdefault(key, [])
        for alias in [alias for alias in aliases if not alias.current]:
            aliases.remove(alias)
            alias.drop()
            self.memory.charge(key, -alias.size, time.monotonic())
        if len(aliases) >= MAX_SPELLINGS:
            return
        made = spelt.lane.keep(
            spelt.state,
            spelt.subject,
            spelt.target,
            spelt.varies,
            spelt.body,
            opening(entry),
            entry.body,
            stream=entry.stream,
            made=int(entry.made * 1e9),
            due=self.memory.due(key),
        )
        if made is not None:
            aliases.append(made)
            self.memory.charge(key, made.size, time.monotonic())

    def _dropped(self, key: bytes) -> None:
        for alias in self._aliases.pop(key, ()):
            alias.drop()

    def _fresh(self, key: bytes) -> bool:
        """Whether the fast lane has given it since it was last asked."""
        used = False
        for alias in self._aliases.get(key, ()):
            used, alias.used = used or alias.used, False
        return used

    def close(self) -> None:
        """Forget all that is kept in memory, and keep nothing more: of calls that are under way still."""
        self._closed = True
        self.memory.clear()
        self._count_bytes()
