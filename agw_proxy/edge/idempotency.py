"""Requests that are to run once: what came with an ``Idempotency-Key`` is answered the same when it comes again.

The same key, caller and body get the answer that the first one got, or join it while it is under way; another body is an
error. What was not billed (a refusal of ours, no connection, an upstream's error) or has not come to its end is forgotten, so
that a retry runs. Workers agree through a store where there are several: a mark there says that one of them is at it.
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Protocol

import msgspec
from aiohttp import web

from agw_proxy._hot.route import Target
from agw_proxy.edge.answers import ENCODER, Entry, decode, replayed
from agw_proxy.edge.canonical import digest, varying
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.flights import Ask, Flight
from agw_proxy.edge.headers import IDEMPOTENCY_KEY, idempotency_key, own_credentials
from agw_proxy.errors import IdempotencyConflict, UpstreamError
from agw_proxy.store.base import Store
from agw_proxy.upstreams.opening import Opened

HEADER = IDEMPOTENCY_KEY
MAX_ANSWER_BYTES = 4194304  # of a body that is given again; a longer one is relayed only
RESERVED_BYTES = 65536  # counted for a request under way
MARK_SECONDS = 15.0  # how long a worker that has died seems to be at it
BEAT_SECONDS = 5.0
LOOK_SECONDS = 0.05  # between two looks whether another worker is done


class Order(msgspec.Struct, array_like=True):
    """What a key stands for, as other workers read it. ``entry`` is empty while it is under way."""

    body: bytes
    """Digest of the request."""
    entry: bytes = b""


Beat = tuple[asyncio.Event, asyncio.Task[None]]
ORDERS = msgspec.msgpack.Decoder(Order)


class Held(msgspec.Struct):
    """The same in this worker: under way, or answered."""

    name: bytes
    body: bytes
    flight: Flight | None
    entry: Entry | None = None
    due: float = 0.0
    """On the monotonic clock; of an answer."""


class Wanted:
    """One request with its key: how it gets its answer."""

    def __init__(
        self, orders: "Orders", exchange: Exchange, name: bytes, body: bytes, target: Target, *, known_end: bool
    ) -> None:
        self._orders, self._exchange, self._name, self._body, self._target = orders, exchange, name, body, target
        self._known_end = known_end

    async def open(self, ask: Ask) -> Opened:
        """The answer, from wherever. Raises UpstreamError, and IdempotencyConflict where another worker knows better."""
        orders, exchange = self._orders, self._exchange
        for last in (False, True):
            held = orders.find(self._name, self._body)
            if held is None:
                exchange.pays()
                return await orders.begin(self._name, self._body, self._lead(ask)).join(exchange).open()
            exchange.reuse = "replayed"
            if held.entry is not None:
                return replayed(held.entry, self._target)
            if held.flight is None or not held.flight.joinable:
                raise IdempotencyConflict(
                    f"The first request with this {HEADER} is still being answered, and too far on to be joined. Try again later."
                )
            try:
                return await held.flight.join(exchange).open()
            except UpstreamError:
                if last:
                    raise
        raise AssertionError

    def _lead(self, ask: Ask) -> Flight:
        orders, name, body, exchange = self._orders, self._name, self._body, self._exchange

        async def once() -> Opened:
            done = await orders.claim(name, body, exchange)
            if done is None:
                return await ask()
            flight.free = True
            exchange.reuse = "replayed"
            return replayed(done, self._target)

        def ended(entry: Entry | None) -> None:
            orders.end(name, flight, None if flight.free else entry)

        flight = Flight(once, ended, known_end=self._known_end, most=MAX_ANSWER_BYTES, picky=False)
        return flight


class Told(Protocol):
    """Who hears of keys that could not be honoured."""

    def dropped(self, what: str, count: int = 1) -> None:
        """``what`` is from a closed set."""
        ...


class Orders:
    """The keys of one worker."""

    def __init__(self, ttl: float, max_bytes: int, told: Told, store: Store | None) -> None:
        """``ttl``: seconds that an answer is given again. ``store``: shared with other workers, None for none."""
        self._ttl = ttl
        self._max_bytes = max_bytes
        self._told = told
        self._store = store
        self._running: dict[bytes, Held] = {}
        self._answered: dict[bytes, Held] = {}
        """In the order in which they expire."""
        self._bytes = 0
        self._beats: dict[bytes, Beat] = {}
        self._writes: set[asyncio.Task[None]] = set()

    def look(
        self,
        exchange: Exchange,
        request: web.BaseRequest,
        target: Target,
        asked: tuple[str, str, bytes],
        fallbacks: tuple[str, ...],
        *,
        known_end: bool,
        credentials: bool,
    ) -> Wanted | None:
        """How it gets its answer; None where it has no key, or the key cannot be honoured, which its answer says then.

        ``asked``: path, query and body. ``credentials``: an upstream is asked with the caller's own. Raises
        IdempotencyConflict and InvalidParameter.
        """
        keys = request.headers.getall(HEADER, ())
        if not keys or exchange.principal is None:
            return None
        path, query, content = asked
        name = digest(
            exchange.principal.name.encode(), path.encode("utf-8", "surrogateescape"), idempotency_key(keys).encode()
        )
        own = own_credentials(request.headers) if credentials else []
        body = digest(
            query.encode("utf-8", "surrogateescape"),
            varying(request.raw_headers),
            content,
            "\n".join(fallbacks).encode("utf-8", "surrogatepass"),
            repr(own).encode("utf-8", "surrogateescape"),
        )
        if self.find(name, body) is not None:
            exchange.reuse = "replayed"
        elif self._bytes + RESERVED_BYTES > self._max_bytes:
            self.refuse(exchange)
            return None
        return Wanted(self, exchange, name, body, target, known_end=known_end)

    def refuse(self, exchange: Exchange) -> None:
        """The key is not honoured, and the answer says so."""
        self._told.dropped("idempotency_key")
        exchange.notes.append(("x-agw-dropped", HEADER.lower()))

    def find(self, name: bytes, body: bytes) -> Held | None:
        """What is known of a key here. Raises IdempotencyConflict for another body."""
        now = time.monotonic()
        while self._answered and (oldest := next(iter(self._answered.values()))).due <= now:
            self._forget(oldest.name)
        held = self._running.get(name) or self._answered.get(name)
        if held is not None and held.body != body:
            raise conflict()
        return held

    def begin(self, name: bytes, body: bytes, flight: Flight) -> Flight:
        """The request with this key runs."""
        self._running[name] = Held(name, body, flight)
        self._bytes += RESERVED_BYTES
        return flight

    async def claim(self, name: bytes, body: bytes, exchange: Exchange) -> Entry | None:
        """Wait until no other worker is at it: its answer, or None where this worker is to run it. Raises IdempotencyConflict."""
        store, key = self._store, name.hex()
        if store is None:
            return None
        mark = ENCODER.encode(Order(body))
        while True:
            added = await self._add(store, key, mark)
            if added is None:
                self.refuse(exchange)
                return None
            if added:
                stop = asyncio.Event()
                self._beats[name] = (stop, asyncio.get_running_loop().create_task(_beat(store, key, mark, stop)))
                return None
            found = await store.get(key)
            order = _read(found)
            if order is None:
                if found is not None:
                    await store.remove(key)  # not ours to read: another version's
            elif order.body != body:
                raise conflict()
            elif (entry := decode(order.entry)) is not None:
                return entry
            await asyncio.sleep(LOOK_SECONDS)

    async def _add(self, store: Store, key: str, mark: bytes) -> bool | None:
        """Set the mark where there is none. Cancelled, it is taken away again once it is known to be there."""
        adding = asyncio.get_running_loop().create_task(store.add(key, mark, MARK_SECONDS))
        try:
            return await asyncio.shield(adding)
        except asyncio.CancelledError:
            self._later(_take_back(store, key, adding))
            raise

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    def end(self, name: bytes, flight: Flight, entry: Entry | None) -> None:
        """It has run. ``entry``: what is to be given again; None: it did not come to its end, and may run again."""
        held = self._running.get(name)
        if held is None or held.flight is not flight:
            return
        del self._running[name]
        self._bytes -= RESERVED_BYTES
        beat = self._beats.pop(name, None)
        if beat is not None and self._store is not None:
            self._later(_settle(self._store, name, beat, held.body, entry, self._ttl))
        elif self._store is None and entry is not None and self._bytes + entry.size <= self._max_bytes:
            self._answered[name] = Held(name, held.body, None, entry, time.monotonic() + self._ttl)
            self._bytes += entry.size

    def _forget(self, name: bytes) -> None:
        held = self._answered.pop(name)
        self._bytes -= held.entry.size if held.entry is not None else 0


def conflict() -> IdempotencyConflict:
    """Another request has this key."""
    return IdempotencyConflict(f"This {HEADER} came with another request before. Send a new key with a new request.")


async def _beat(store: Store, key: str, mark: bytes, stop: asyncio.Event) -> None:
    """Say now and then that this worker is still at it. It is never cut in a write, which could come after the answer."""
    while not stop.is_set():
        try:
            async with asyncio.timeout(BEAT_SECONDS):
                await stop.wait()
        except TimeoutError:
            await store.set(key, mark, MARK_SECONDS)


async def _take_back(store: Store, key: str, adding: asyncio.Task[bool | None]) -> None:
    """Nobody runs what the mark says: a retry must not wait until it has expired."""
    if await adding:
        await store.remove(key)


async def _settle(store: Store, name: bytes, beat: Beat, body: bytes, entry: Entry | None, ttl: float) -> None:
    stop, task = beat
    stop.set()
    await task
    if entry is None or not await store.set(name.hex(), ENCODER.encode(Order(body, entry.encode())), ttl):
        await store.remove(name.hex())


def _read(found: bytes | None) -> Order | None:
    if found is None:
        return None
    try:
        return ORDERS.decode(found)
    except msgspec.MsgspecError:
        return None
