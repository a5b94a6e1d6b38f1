"""The sessions of agents (``sdk.turns.Books``): in the database that the settings name, and never two runs in one at once.

Who is in a session says so for half a minute, and again every ten seconds: where a worker dies, others go on soon.
"""

import asyncio
import contextlib
import functools
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agw_proxy.config.devkey import state_dir
from agw_proxy.config.settings import Settings
from agw_proxy.config.storage import Store
from agw_proxy.errors import BodyTooLarge, NotKept, SessionBusy, StoreUnavailable
from agw_proxy.sdk.turns import Book, Place, Turn, place_of, thread_of
from agw_proxy.states import SessionState
from agw_proxy.store.responses_file import File, Missing, StoreAway, TooLong
from agw_proxy.store.sessions import SESSIONS, About, Base, Busy, Found
from agw_proxy.store.sessions import Sessions as Kept

FILE = "sessions.db"
LEASE_SECONDS = 30.0
RENEW_SECONDS = 10.0
WAIT_SECONDS = 2.0  # for a run that is about to end: of one whose client has left, its tools may take a little
AGAIN_SECONDS = 0.1

log = logging.getLogger("agw_proxy.sdk")


class Sessions:
    """Of one worker; outlives reloads. Its database is opened when the first session is asked for."""

    def __init__(
        self, settings: Callable[[], Settings], environ: Mapping[str, str], dropped: Callable[[str], None]
    ) -> None:
        """``settings``: those in force. ``environ``: says where the state directory is. ``dropped``: hears of what was not kept."""
        self._settings = settings
        self._environ = environ
        self._dropped = dropped
        self._opened: dict[object, Kept] = {}
        self._held: set[_Book] = set()
        self._doors = _Doors()
        self._beside: set[asyncio.Task[Any]] = set()
        self._renewing: asyncio.Task[None] | None = None

    async def open(self, place: Place, *, alone: bool, begins: bool) -> Book | None:
        """See ``Books``."""
        settings = self._settings()
        if not settings.agents.sessions:
            return None
        kept = await self.kept(settings)
        if alone:
            return await self._enter(kept, place)
        try:
            found = Found(0, ()) if begins else await kept.look(place)
        except (StoreAway, TooLong):  # the caller's own history is enough to go on
            return None
        return _Book(self, kept, place, "", found)

    async def forget_thread(self, owner: str, root: str) -> None:
        """A part of what the Responses store had has been deleted: what agents did there goes with it. Raises StoreUnavailable."""
        settings = self._settings()
        where, path, *_ = self._meant(settings)
        if where is None and not await asyncio.get_running_loop().run_in_executor(None, path.exists):
            return
        try:
            await (await self.kept(settings)).forget(thread_of(owner, "", "").owner, root)
        except Missing:  # no agent has done anything in it
            return
        except StoreAway:
            raise _away() from None

    async def kept(self, settings: Settings) -> Kept:
        """The database of these settings."""
        where, path, megabytes, retention = meant = self._meant(settings)
        if meant not in self._opened:
            if where is None:
                base: Base = File(path, megabytes << 20, time.time, SESSIONS)
            else:
                base = await asyncio.get_running_loop().run_in_executor(None, _postgres, where)
            self._opened.setdefault(meant, Kept(base, retention))
        return self._opened[meant]

    def _meant(self, settings: Settings) -> tuple[str | None, Path, int, float]:
        """Which database: the URL of PostgreSQL's, or a file; its most megabytes, and how long."""
        store = settings.store or Store()
        where = store.url.get_secret_value() if store.url is not None else None
        path = (
            store.path.parent if store.path is not None else state_dir(settings.server.state_dir, self._environ)
        ) / FILE
        return where, path, store.max_mb, store.retention

    async def about(self, key: str, name: str | None, after: tuple[str, str], limit: int) -> list[SessionState]:
        """See ``states.SessionControl``."""
        try:
            found = await (await self.kept(self._settings())).about(place_of(key, "", "").owner, name, after, limit)
        except StoreAway:
            raise _away() from None
        return [_state(each) for each in found]

    async def forget(self, key: str, name: str) -> None:
        """See ``states.SessionControl``."""
        try:
            await (await self.kept(self._settings())).forget(place_of(key, "", "").owner, name)
        except Missing:
            raise NotKept(f"Session '{name}' not found.") from None
        except StoreAway:
            raise _away() from None

    async def close(self) -> None:
        """See ``Books``."""
        if self._renewing is not None:
            self._renewing.cancel()
        while self._beside:
            await self.quiet()
        for kept in self._opened.values():
            await kept.close()
        self._opened.clear()

    async def _enter(self, kept: Kept, place: Place) -> Book:
        holder = secrets.token_hex(12)
        until = asyncio.get_running_loop().time() + WAIT_SECONDS
        try:
            await self._doors.enter(place, until)
            try:
                found = await self._wait(kept, place, holder, until)
            except BaseException:
                self._doors.leave(place)
                raise
        except (Busy, TimeoutError):
            raise SessionBusy(
                "Another request of this session is being answered: send one after the other.", retry_after_ms=1000
            ) from None
        except TooLong:
            raise BodyTooLarge("This session has become too long to go on from: begin a new one.") from None
        except StoreAway:
            raise _away() from None
        book = _Book(self, kept, place, holder, found)
        self._held.add(book)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._renew())
        return book

    async def _wait(self, kept: Kept, place: Place, holder: str, until: float) -> Found:
        """What is in the session, once no other worker is. Raises what ``begin`` raises."""
        loop = asyncio.get_running_loop()
        while True:
            entering = loop.create_task(kept.begin(place, holder, LEASE_SECONDS))
            try:
                return await asyncio.shield(entering)
            except Busy:
                if loop.time() >= until:
                    raise
            except asyncio.CancelledError:  # the caller has gone, and is in it soon all the same
                entering.add_done_callback(functools.partial(self._too_late, kept, place, holder))
                raise
            await asyncio.sleep(AGAIN_SECONDS)

    def _too_late(self, kept: Kept, place: Place, holder: str, entered: asyncio.Task[Found]) -> None:
        if not entered.cancelled() and entered.exception() is None:
            self._leave(kept, place, holder)

    async def _renew(self) -> None:
        """While anybody is in a session."""
        while self._held:
            await asyncio.sleep(RENEW_SECONDS)
            for kept in {book.database for book in self._held}:
                held = [(book.place, book.holder) for book in self._held if book.database is kept]
                with contextlib.suppress(StoreAway):  # there are two more tries before they are out
                    await kept.renew(held, LEASE_SECONDS)

    def left(self, book: "_Book") -> None:
        """A run has ended."""
        if book in self._held:
            self._held.discard(book)
            self._leave(book.database, book.place, book.holder)
            self._doors.leave(book.place)

    def kept_and_left(self, book: "_Book") -> None:
        """A run has ended well, and its last turn has ended its lease."""
        if book in self._held:
            self._held.discard(book)
            self._doors.leave(book.place)

    async def quiet(self) -> None:
        """Whoever has left a session is not in it any more."""
        if self._beside:
            await asyncio.wait(tuple(self._beside))

    def lost(self, place: Place) -> None:
        """What was said in a session is not in it."""
        self._dropped("session")
        log.warning("a turn of a session of agent '%s' could not be kept", place.agent)

    def _leave(self, kept: Kept, place: Place, holder: str) -> None:
        async def leave() -> None:
            with contextlib.suppress(StoreAway):  # then others wait until it is over by itself
                await kept.end(place, holder)

        self._do(leave())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)


class _Doors:
    """One at a time to each place, in the order in which they come; those of one worker do not ask the database in turn."""

    def __init__(self) -> None:
        self._locks: dict[Place, asyncio.Lock] = {}
        self._there: dict[Place, int] = {}
        """How many are in it, or wait for it."""

    async def enter(self, place: Place, until: float) -> None:
        """Wait until nobody else is in it. ``until``: of the loop's clock. Raises TimeoutError."""
        self._there[place] = self._there.get(place, 0) + 1
        try:
            async with asyncio.timeout_at(until):
                await self._locks.setdefault(place, asyncio.Lock()).acquire()
        except BaseException:
            self._gone(place)
            raise

    def leave(self, place: Place) -> None:
        """Let the next one in."""
        self._locks[place].release()
        self._gone(place)

    def _gone(self, place: Place) -> None:
        self._there[place] -= 1
        if not self._there[place]:
            del self._there[place], self._locks[place]


class _Book:
    """See ``sdk.turns.Book``. ``holder``: who is in it; empty where others may be, too."""

    def __init__(self, sessions: Sessions, kept: Kept, place: Place, holder: str, found: Found) -> None:
        self.database, self.place, self.holder = kept, place, holder
        self.turns: Sequence[Turn] = found.turns
        self._sessions = sessions
        self._version = found.version

    async def keep(self, before: int, turns: Sequence[Turn]) -> None:
        """See ``Book``."""
        try:
            done = await self.database.keep(self.place, self._version, before, turns, self.holder)
        except StoreAway:
            done = False
        if done:
            self._sessions.kept_and_left(self)
        elif self.holder:
            self._sessions.lost(self.place)

    async def leave(self) -> None:
        """See ``Book``."""
        self.end()
        await self._sessions.quiet()

    def end(self) -> None:
        """See ``Book``."""
        self._sessions.left(self)


def _away() -> StoreUnavailable:
    return StoreUnavailable("Sessions cannot be read or written now. Try again.", retry_after_ms=1000)


def _state(about: About) -> SessionState:
    return SessionState(
        id=about.name,
        agent=about.agent,
        created_at=_rfc3339(about.made),
        used_at=_rfc3339(about.used),
        expires_at=_rfc3339(about.due),
        turns=about.turns,
        bytes=about.size,
    )


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _postgres(url: str) -> Base:
    from agw_proxy.store.postgres import Postgres  # noqa: PLC0415  it brings PostgreSQL's client

    return Postgres(url, SESSIONS)
