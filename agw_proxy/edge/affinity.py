"""What an upstream has made goes back there: stored responses, conversations, files, batches and encrypted reasoning.

Only where there is a choice: a model at several upstreams, or a path without a model where several are configured. Who has
made what is remembered by a digest of it and of its owner (the caller's team, or its key), so that nobody reaches what is
somebody else's by its name. What nobody remembers goes where it went before.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Protocol

import msgspec
from aiohttp import web

from agw_proxy._hot.route import Target
from agw_proxy.api.endpoint import Relay
from agw_proxy.config.devkey import state_dir
from agw_proxy.config.settings import Settings
from agw_proxy.config.values import Form
from agw_proxy.dialects.base import Malformed, unsealed
from agw_proxy.dialects.sse import Events
from agw_proxy.edge.canonical import digest
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.state import State
from agw_proxy.errors import UpstreamUnavailable
from agw_proxy.observe.log import Log
from agw_proxy.policy.affinity import READ_PATHS, Told, first_id, kind_of, opens, referred, tells, told
from agw_proxy.policy.routes import shown
from agw_proxy.store.base import Store
from agw_proxy.types import Principal, Reply, Routed
from agw_proxy.upstreams.opening import Opened, content_type
from agw_proxy.upstreams.passing import PassedOn
from agw_proxy.upstreams.ways import Way

KEEP_SECONDS = 30 * 86400.0  # since it was made or last asked for: so long a provider keeps a response
RENEW_SECONDS = 86400.0
MAX_LOCAL = 16384  # in the memory of a worker; some 5 MB
MAX_FILE_BYTES = 64 * 1024 * 1024  # of the file for all workers, some 250,000 of them
MAX_ANSWER_BYTES = 1048576  # of an answer that is read for what it tells; a longer one, by its beginning only
UPSTREAM_HEADER = "x-agw-upstream"
_LAST = frozenset({"response.completed", "response.incomplete", "response.failed", "message_stop"})


class Made(msgspec.Struct, frozen=True, array_like=True):
    """Where something is from. ``noted``: seconds since 1970."""

    upstream: str
    target: str
    noted: float


_MADE = msgspec.msgpack.Decoder(Made)


class Shared(Protocol):
    """What several nodes have together."""

    def store(self, part: str) -> Store:
        """Values of one kind."""
        ...


class Memory:
    """Who has made what: of this worker at once, of all others through a store."""

    def __init__(self, store: Store, most: int = MAX_LOCAL) -> None:
        self._store = store
        self._most = most
        self._local: dict[bytes, Made] = {}
        """The one asked for last is the last."""
        self._work: set[asyncio.Task[None]] = set()

    async def find(self, owner: str, what: str) -> Made | None:
        """Where it is from, if that owner has it."""
        name = _name(owner, what)
        made = self._local.get(name) or _decoded(await self._store.get(name.hex()))
        if made is None:
            return None
        self._hold(name, made)
        if time.time() - made.noted > RENEW_SECONDS:
            self._later(self.note(owner, what, made.upstream, made.target))
        return made

    async def note(self, owner: str, what: str, upstream: str, target: str) -> None:
        """It is from there. Known here at once, to all others on return."""
        name, made = _name(owner, what), Made(upstream, target, time.time())
        self._hold(name, made)
        await self._store.set(name.hex(), msgspec.msgpack.encode(made), KEEP_SECONDS)

    async def forget(self, owner: str, what: str) -> None:
        """It has been deleted."""
        name = _name(owner, what)
        self._local.pop(name, None)
        await self._store.remove(name.hex())

    def _hold(self, name: bytes, made: Made) -> None:
        self._local.pop(name, None)
        self._local[name] = made
        if len(self._local) > self._most:
            del self._local[next(iter(self._local))]

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)


class Affinity:
    """Of one worker; outlives reloads."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], shared: Shared | None, log: Log) -> None:
        """``environ``: says where the state directory is. ``shared``: with other nodes."""
        self._log = log
        self._folder = state_dir(settings.server.state_dir, environ)
        self._shared = shared
        self._made: Memory | None = None

    @property
    def _memory(self) -> Memory:
        """Opened when there is something to remember."""
        if self._made is None:
            if self._shared is not None:
                store = self._shared.store("affinity")
            else:
                from agw_proxy.store.file import FileStore  # noqa: PLC0415  SQLite only where it is needed

                path = self._folder / "affinity.db"
                store = FileStore(path, MAX_FILE_BYTES, oldest_goes=True, say=self._log.events)
            self._made = Memory(store)
        return self._made

    def reads(self, request: web.BaseRequest, state: State, path: str) -> bool:
        """The body of this request, which names no model, says which upstream it is for."""
        return (
            _choice(state)
            and request.method == "POST"
            and path in READ_PATHS
            and UPSTREAM_HEADER not in request.headers
        )

    async def upstream_of(
        self, exchange: Exchange, request: web.BaseRequest, state: State, path: str, body: bytes | None
    ) -> str | None:
        """The upstream that a path without a model is for, by what it or its body refers to; None: nobody knows."""
        principal = exchange.principal
        if not _choice(state) or principal is None or UPSTREAM_HEADER in request.headers:
            return None
        kind = kind_of(path)
        ids: tuple[str, ...] = ()
        if kind is not None and kind[1] is not None:
            ids = (kind[1],)
        elif body is not None:
            ids = referred(body).ids
        for what in ids:
            made = await self._memory.find(_owner(principal), what)
            if made is not None and may_ask(state, made.upstream, principal):
                return made.upstream
        return None

    async def bind(
        self, exchange: Exchange, state: State, routed: Routed, body: bytes | None, form: Form | None
    ) -> tuple[Routed, bool]:
        """The plan by what the request refers to; True: nobody but the upstream in it may be asked.

        Raises UpstreamUnavailable where that one may not be asked now.
        """
        principal, carried = exchange.principal, exchange.carried
        everyone = (*routed.route.targets, *routed.route.fallbacks, *routed.plan)
        several = _choice(state) and len({target.upstream for target in everyone}) > 1
        if body is None or principal is None or carried is not None or not several:
            return routed, False
        refers = referred(body)
        names = state.routes.upstream_names
        for what in refers.ids:
            made = await self._memory.find(_owner(principal), what)
            known = [target for target in everyone if made is not None and names[target.upstream] == made.upstream]
            if made is None or not known:
                continue
            plan = [target for target in routed.plan if names[target.upstream] == made.upstream]
            if not plan:
                raise away(made.upstream, what, _rests_ms(known))
            return msgspec.structs.replace(routed, plan=_first(plan, made)), True
        if not refers.signatures:
            return routed, False
        for what in refers.signatures:
            made = await self._memory.find(_owner(principal), what)
            if made is not None and any(names[target.upstream] == made.upstream for target in routed.plan):
                theirs = [target for target in routed.plan if names[target.upstream] == made.upstream]
                rest = [target for target in routed.plan if names[target.upstream] != made.upstream]
                return msgspec.structs.replace(routed, plan=(*_first(theirs, made), *rest)), False
        return _likely(routed, state, refers.signatures[0], form), False

    async def watch(
        self, exchange: Exchange, opened: Opened, state: State, relay: Relay, path: str, routed: Routed
    ) -> None:
        """Remember what the answer tells of, before whoever gets it can ask for it. Its bytes pass untouched."""
        principal = exchange.principal
        if not _choice(state) or principal is None or exchange.reuse is not None:
            return
        by_model = exchange.model is not None
        ids = relay.form == "responses" if by_model else tells(path)
        everyone = {target.upstream for target in (*routed.route.targets, *routed.route.fallbacks)}
        signatures = by_model and relay.form not in (None, "completions") and len(everyone) > 1
        here = opened.target.upstream < len(state.settings.upstreams)  # what is in this process keeps nothing
        kind = content_type(opened.reply)
        good = 200 <= opened.reply.status < 300 and kind in {b"application/json", b"text/event-stream"}
        if not (ids or signatures) or not good or not here:
            return
        upstream = state.services[opened.target.upstream].upstream.name
        memory, owner, target = self._memory, _owner(principal), opened.target.name

        def keep(news: Told) -> list[Coroutine[None, None, None]]:
            made = [memory.note(owner, what, upstream, target) for what in (*news.ids, *news.signatures)]
            # What is taken out of something else is there still.
            return made + [memory.forget(owner, what) for what in news.gone if (kind_of(path) or ("", ""))[1] == what]

        watched = Watched(opened.reply, keep, ids=ids, signatures=signatures, stream=opened.stream is not None)
        opened.reply = watched
        try:
            await watched.see(opened.raw or opened.first)
        except BaseException:
            opened.abandon()
            raise


class Keep(Protocol):
    """Who remembers."""

    def __call__(self, news: Told) -> list[Coroutine[None, None, None]]:
        """What is to be done for that to be remembered."""
        ...


class Watched(PassedOn):
    """A Reply that is read for what it tells of, on its way."""

    def __init__(self, reply: Reply, keep: Keep, *, ids: bool, signatures: bool, stream: bool) -> None:
        """``ids``, ``signatures``: what is wanted. ``stream``: it is one."""
        super().__init__(reply)
        self._keep = keep
        self._ids, self._signatures = ids, signatures
        self._events = Events() if stream else None
        self._held = bytearray()
        self._seen: set[str] = set()
        self._work: set[asyncio.Task[None]] = set()
        self._done = False

    async def read(self, *, progress: bool = True) -> bytes:
        """See ``types.Reply``. The last bytes come when all that they tell of is known to everybody."""
        chunk = await super().read(progress=progress)
        await self.see(chunk)
        return chunk

    async def see(self, chunk: bytes) -> None:
        """These bytes are about to go to the caller."""
        last = self._reply.ended
        if self._done:
            return
        if self._events is None:
            self._held += chunk[: max(MAX_ANSWER_BYTES + 1 - len(self._held), 0)]
            if last and len(self._held) <= MAX_ANSWER_BYTES:
                self._note(told(bytes(self._held), ids=self._ids, signatures=self._signatures))
            elif last and self._ids:
                self._note(Told(first_id(self._held)))
        else:
            last = self._events_of(self._events, chunk) or last
        if last:
            self._done = True
            self._held.clear()
            if self._work:
                await asyncio.wait(self._work)

    def _events_of(self, events: Events, chunk: bytes) -> bool:
        """Whether the last event that counts is among them."""
        try:
            found = events.feed(chunk)
            if self._reply.ended:
                found += events.end()
        except Malformed:
            return True
        for _, data in found:
            self._note(told(data, ids=self._ids and opens(data), signatures=self._signatures))
        return any(name in _LAST or data == b"[DONE]" for name, data in found)

    def _note(self, news: Told) -> None:
        fresh = Told(_unseen(news.ids, self._seen), _unseen(news.signatures, self._seen), news.gone)
        self._seen.update(fresh.ids, fresh.signatures)
        for work in self._keep(fresh):
            task = asyncio.get_running_loop().create_task(work)
            self._work.add(task)
            task.add_done_callback(self._work.discard)


def alone(way: Way) -> Way:
    """The same for a request that only one upstream may answer: nobody takes its place."""
    return msgspec.structs.replace(way, last_resort=None)


def may_ask(state: State, upstream: str, principal: Principal) -> bool:
    """It is still configured, and the key may use all of it, as paths without a model need."""
    return upstream in state.routes.upstream_names and state.routes.may_address(upstream, principal)


def away(upstream: str, what: str | None, wait_ms: int) -> UpstreamUnavailable:
    """Why it is not served: nobody else has what it is about."""
    named = f"'{shown(what)}'" if what is not None else "what this request is about"
    return UpstreamUnavailable(
        f"Only upstream '{upstream}' has {named}, and it cannot be asked now: it has failed too often lately. "
        f"It may be asked again in {max(wait_ms, 1) / 1000:.1f} s.",
        retry_after_ms=max(wait_ms, 1),
    )


def _choice(state: State) -> bool:
    """More than one upstream is configured, beside what is in this process."""
    return len(state.settings.upstreams) > 1


def _owner(principal: Principal) -> str:
    return principal.owner


def _name(owner: str, what: str) -> bytes:
    return digest(owner.encode("utf-8", "surrogatepass"), what.encode("utf-8", "surrogatepass"))


def _decoded(found: bytes | None) -> Made | None:
    if found is None:
        return None
    try:
        return _MADE.decode(found)
    except msgspec.MsgspecError:
        return None  # another version's


def _first(targets: Sequence[Target], made: Made) -> tuple[Target, ...]:
    """All of one upstream, the very target that has made it in front."""
    return tuple(sorted(targets, key=lambda target: target.name != made.target))


def _rests_ms(targets: Sequence[Target]) -> int:
    now = time.monotonic_ns()
    waits = [target.circuit.opens_in_ns(now) // 1_000_000 for target in targets if target.circuit is not None]
    return min(waits, default=1000)


def _likely(routed: Routed, state: State, signature: str, form: Form | None) -> Routed:
    """Nobody remembers the signature: those in front who speak the form that it is from."""
    if form is None or form == "completions":  # in which there are none
        return routed
    spoken, _ = unsealed(signature, form)
    order = sorted(routed.plan, key=lambda target: spoken not in state.services[target.upstream].speaks)
    return msgspec.structs.replace(routed, plan=tuple(order))


def _unseen(values: Sequence[str], seen: set[str]) -> tuple[str, ...]:
    return tuple(value for value in values if value not in seen)
