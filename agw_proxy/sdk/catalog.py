"""The agents that are served. A refresh looks at the folders anew, makes what has changed, and keeps what cannot be made.

One owner calls ``refresh`` and ``close``, one after the other; ``find`` and ``using`` are for every run.
"""

import asyncio
import contextlib
import hashlib
import importlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from agw_proxy.config.agents import Agents
from agw_proxy.sdk.declared import build, refers
from agw_proxy.sdk.discovery import VERSION_DIGITS, Discovered, Found, discover
from agw_proxy.sdk.entry import Bounds, Entry, Unconnected
from agw_proxy.sdk.loading import Failed, Made, Waits, import_sdk, let_go, load, words
from agw_proxy.states import AgentState
from agw_proxy.tools.threads import on_thread

if TYPE_CHECKING:
    from agw_proxy.sdk.gateway_tools import GatewayTool
    from agw_proxy.sdk.mcp_servers import Servers

LINE_SECONDS = (
    75.0  # on top of a run's own: it may have had to wait for its session and a place, and takes a moment to end
)
RETIRE_SECONDS = 3600.0  # longest that an old version waits for its runs, where they have no bound of their own


class Events(Protocol):
    """Where the catalog says what has happened: the part of a log that it needs."""

    def info(self, event: str, **fields: object) -> object:
        """Something happened as it should."""
        ...

    def warning(self, event: str, **fields: object) -> object:
        """Something did not."""
        ...


class Silent:
    """Events that nobody hears."""

    def info(self, event: str, **fields: object) -> None:
        """See ``Events``."""

    def warning(self, event: str, **fields: object) -> None:
        """See ``Events``."""


class _Kept:
    """One version of one agent, with how many runs use it."""

    def __init__(self, found: Found, made: Made, entry: Entry, holds: "Sequence[_Kept]") -> None:
        """``holds``: others that a run of it may come to."""
        self.found, self.made, self.entry, self.holds = found, made, entry, holds
        self.servers: Servers | None = None
        self.loaded_at = time.time()
        self.runs = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def begin(self) -> None:
        """A run has begun."""
        for each in (self, *self.holds):
            each.runs += 1
            each.idle.clear()

    def end(self) -> None:
        """One has ended."""
        for each in (self, *self.holds):
            each.runs -= 1
            if not each.runs:
                each.idle.set()


class Catalog:
    """Those that are there, each in its newest version that could be made, and why others are not."""

    def __init__(self, events: Events) -> None:
        """``events``: hears ``agent.dropin.loaded``, ``.failed``, ``.blocked`` and ``.gone``."""
        self._events = events
        self._kept: dict[str, _Kept] = {}
        self._failed: dict[str, tuple[Found, str, float]] = {}
        self._blocked: dict[tuple[str, str], str] = {}
        self._retiring: dict[asyncio.Task[None], _Kept] = {}
        self._waiting: set[str] = set()
        """Of those that have failed, who may only have to wait."""
        self._wanted: tuple[Mapping[str, Found], Agents] | None = None

    @property
    def waits(self) -> bool:
        """Whether ``retry`` may find more than there is."""
        return bool(self._waiting)

    @property
    def ids(self) -> tuple[str, ...]:
        """What can be asked for."""
        return tuple(sorted(self._kept))

    @property
    def longest_seconds(self) -> float:
        """How long a run of any of them may take."""
        return max((self._seconds(kept) for kept in self._kept.values()), default=0.0)

    def find(self, identity: str) -> Entry | None:
        """The newest version of an agent that could be made."""
        kept = self._kept.get(identity)
        return kept.entry if kept is not None else None

    @contextlib.contextmanager
    def using(self, identity: str) -> Iterator[None]:
        """A run of that agent is under way: the version that is there now, and those that it names, are not let go of."""
        kept = self._kept.get(identity)
        if kept is None:
            yield
            return
        kept.begin()
        try:
            yield
        finally:
            kept.end()

    async def refresh(self, settings: Agents, taken: Collection[str] = ()) -> None:
        """Look again. ``taken``: names that something else is served under. Never raises for what is wrong with an agent."""
        seen = await on_thread(
            lambda: discover(settings.paths, settings.namespace, settings.allow, settings.deny), "agw-agents"
        )
        wanted = self._named(seen, settings, taken)
        missing = await _sdk_missing() if wanted else None
        self._waiting &= wanted.keys()
        self._wanted = (wanted, settings) if missing is None else None
        if missing is None:
            modules = [self._module(name, found, settings) for name, found in wanted.items() if found.declared is None]
            await asyncio.gather(*modules)
            await self._declared(wanted, settings)
        else:
            for identity, found in wanted.items():
                self._fails(identity, found, missing)
        broken = {Path(each.source): each.reason for each in seen.blocked if each.broken}
        for identity, kept in [(name, kept) for name, kept in self._kept.items() if name not in wanted]:
            file = kept.found.file
            reason = next((broken[path] for path in (file, *file.parents) if path in broken), None)
            if reason is None:
                self._events.info("agent.dropin.gone", agent=identity)
                self._retire(self._kept.pop(identity))
            else:  # it may be there still, and cannot be read
                self._fails(identity, kept.found, reason)
        self._failed = {name: told for name, told in self._failed.items() if name in wanted or name in self._kept}

    async def retry(self) -> bool:
        """Make those that had to wait, of what the last look has found. Whether there are more agents than before."""
        if self._wanted is None:
            return False
        before, (wanted, settings), waiting = self.ids, self._wanted, set(self._waiting)
        await asyncio.gather(*(self._module(name, wanted[name], settings) for name in waiting))
        if self._waiting != waiting:  # others may have failed for want of it
            await self._declared(wanted, settings)
        return self.ids != before

    async def close(self) -> None:
        """Let go of all agents, whatever still runs."""
        for retired in self._retiring.values():
            retired.idle.set()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        kept, self._kept = list(self._kept.values()), {}
        await asyncio.gather(*(self._let_go(each) for each in kept))

    def states(self) -> list[AgentState]:
        """All that was found, as ``GET /agents`` tells it."""
        told = [self._state(identity) for identity in sorted({*self._kept, *self._failed})]
        told += [
            AgentState(id=identity, status="blocked", source=source, error=reason)
            for (identity, source), reason in sorted(self._blocked.items())
        ]
        return [_as_text(state) for state in told]

    def _state(self, identity: str) -> AgentState:
        kept, failed = self._kept.get(identity), self._failed.get(identity)
        error = failed[1] if failed is not None else None
        error_at = _stamp(failed[2]) if failed is not None else None
        if kept is None:
            found = failed[0] if failed is not None else None
            source = str(found.file) if found is not None else ""
            state = AgentState(id=identity, status="failed", source=source, error=error, error_at=error_at)
            return msgspec.structs.replace(state, waits=identity in self._waiting)
        agent, entry = kept.entry.agent, kept.entry
        return AgentState(
            id=identity,
            status="ready" if failed is None else "stale",
            source=entry.source,
            version=entry.version,
            description=entry.description,
            declared=kept.found.declared is not None,
            model=agent.model if isinstance(agent.model, str) else None,
            tools=tuple(_tools(agent)),
            handoffs=tuple(
                str(getattr(each, "name", None) or getattr(each, "agent_name", "?")) for each in agent.handoffs
            ),
            loaded_at=_stamp(kept.loaded_at),
            running=kept.runs,
            bounds=msgspec.structs.asdict(entry.bounds),
            error=error,
            error_at=error_at,
            waits=identity in self._waiting,
        )

    def _named(self, seen: Discovered, settings: Agents, taken: Collection[str]) -> dict[str, Found]:
        """What is to be served, by the name that it is served under; says what is not, once for each reason."""
        blocked = {(each.id, each.source): each.reason for each in seen.blocked}
        wanted: dict[str, Found] = {}
        for found in seen.found:
            identity = settings.served_as(found.id)
            if identity in taken or identity in wanted:
                blocked[identity, str(found.file)] = (
                    f"the name {identity} is taken already, by a model or another agent"
                )
            else:
                wanted[identity] = found
        for (identity, source), reason in blocked.items():
            if self._blocked.get((identity, source)) != reason:
                self._events.warning("agent.dropin.blocked", agent=identity, source=source, reason=reason)
        self._blocked = blocked
        return wanted

    async def _module(self, identity: str, found: Found, settings: Agents) -> None:
        if self._same(identity, found, settings):
            return
        try:
            async with asyncio.timeout(settings.load_seconds):
                made = await load(found, identity)
            servers = await _servers(made, settings.load_seconds)
        except Failed as error:
            self._fails(identity, found, str(error), waits=isinstance(error, Waits))
        except TimeoutError:
            self._fails(identity, found, f"it was not there within {settings.load_seconds:g} s (agents.load_seconds)")
        else:
            self._take(identity, found, made, settings)
            self._kept[identity].servers = servers

    async def _declared(self, wanted: Mapping[str, Found], settings: Agents) -> None:
        """All that are declared together, where one has changed or what it names has."""
        wanted = {name: found for name, found in wanted.items() if found.declared is not None}
        known = {kept.found.id: kept for kept in self._kept.values() if kept.found.declared is None}
        now = {
            identity: msgspec.structs.replace(found, version=_version(found, wanted, known))
            for identity, found in wanted.items()
        }
        same = [self._same(identity, found, settings) for identity, found in now.items()]
        if all(same):
            return
        agents = {name: kept.entry.agent for name, kept in known.items()}
        named = sorted({name for found in now.values() for name in refers(found)})  # by one, or by one that it names
        try:
            async with asyncio.timeout(settings.load_seconds):
                given = await on_thread(lambda: build(list(now.values()), agents), "agw-agents")
        except TimeoutError:
            why = f"it was not there within {settings.load_seconds:g} s (agents.load_seconds)"
            given = {found.id: Failed(why) for found in now.values()}
        except Exception as error:  # noqa: BLE001  what somebody has written may raise anything, and modules go on
            given = {found.id: Failed(words(error)) for found in now.values()}
        for identity, found in now.items():
            made = given[found.id]
            if isinstance(made, Failed):
                self._fails(identity, found, str(made))
            else:
                self._take(identity, found, made, settings, [known[name] for name in named if name in known])

    def _same(self, identity: str, found: Found, settings: Agents) -> bool:
        """That version is served already; within other bounds from now on, where they have changed."""
        kept = self._kept.get(identity)
        if kept is None or kept.found != found or any(tool.outdated for tool in _given(kept.entry.agent)):
            return False
        terms = _terms(found, settings)
        if any(getattr(kept.entry, name) != value for name, value in terms.items()):
            kept.entry = msgspec.structs.replace(kept.entry, **terms)
        self._good(identity)
        return True

    def _take(self, identity: str, found: Found, made: Made, settings: Agents, holds: "Sequence[_Kept]" = ()) -> None:
        old = self._kept.get(identity)
        version = _with_tools(found.version, made.agent)
        entry = Entry(identity, made.agent, version, str(found.file), made.description, **_terms(found, settings))
        self._kept[identity] = _Kept(found, made, entry, holds)
        self._good(identity)
        self._events.info("agent.dropin.loaded", agent=identity, version=version, source=entry.source)
        if old is not None:
            self._retire(old)

    def _good(self, identity: str) -> None:
        self._failed.pop(identity, None)
        self._waiting.discard(identity)

    def _fails(self, identity: str, found: Found, why: str, *, waits: bool = False) -> None:
        (self._waiting.add if waits else self._waiting.discard)(identity)
        kept = self._kept.get(identity)
        known = self._failed.get(identity)
        self._failed[identity] = (found, why, time.time())
        if known is None or known[:2] != (found, why):
            serving = kept.entry.version if kept is not None else None
            self._events.warning(
                "agent.dropin.failed", agent=identity, source=str(found.file), error=why, serving=serving
            )

    def _retire(self, kept: _Kept) -> None:
        async def when_idle() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds(kept) + LINE_SECONDS):
                    await kept.idle.wait()
            await self._let_go(kept)

        task = asyncio.get_running_loop().create_task(when_idle())
        self._retiring[task] = kept
        task.add_done_callback(self._retiring.pop)

    async def _let_go(self, kept: _Kept) -> None:
        try:
            if kept.servers is not None:
                await kept.servers.close()
            await let_go(kept.made)
        except Exception as error:  # noqa: BLE001  a user's hook may raise anything, and the others go on
            words = f"on_shutdown: {type(error).__name__}: {error}"
            self._events.warning("agent.dropin.failed", agent=kept.entry.id, source=kept.entry.source, error=words)

    @staticmethod
    def _seconds(kept: _Kept) -> float:
        return kept.entry.bounds.seconds or RETIRE_SECONDS


def _given(agent: Any) -> "list[GatewayTool]":
    """The gateway's tools that it, or one that it leads to, was made with."""
    from agw_proxy.sdk.gateway_tools import given  # noqa: PLC0415  it brings the SDK, which is there by now

    return given(agent)


def _with_tools(version: str, agent: Any) -> str:
    """The version of an agent with the gateway's tools as it was made with them: others are made of it in turn."""
    told = sorted(repr(tool.told) for tool in _given(agent))
    return hashlib.sha256(repr((version, told)).encode()).hexdigest()[:VERSION_DIGITS] if told else version


def _tools(agent: Any) -> Iterator[str]:
    """What its tools are called: its own, and those of its MCP servers."""
    yield from (str(getattr(tool, "name", "?")) for tool in agent.tools)
    for server in agent.mcp_servers:
        yield from getattr(getattr(server, "line", None), "tools", ())


def _terms(found: Found, settings: Agents) -> dict[str, Any]:
    """Of an entry, what the settings say."""
    return {"bounds": Bounds(**settings.bounds(found.id)), "shows": settings.shown(found.id)}


async def _servers(made: Made, seconds: float) -> "Servers | None":
    """Connect the MCP servers of an agent, if it has any. Raises Failed, and has let go of the agent then."""
    from agw_proxy.sdk.equipped import reached  # noqa: PLC0415  it brings the SDK, which is there by now

    try:
        if not any(each.mcp_servers for each in reached(made.agent)):
            return None
        module = await on_thread(lambda: importlib.import_module("agw_proxy.sdk.mcp_servers"), "agw-agents")
        servers: Servers = await module.connect(made.agent, seconds)
        return servers
    except BaseException as error:
        with contextlib.suppress(Exception):
            await asyncio.shield(let_go(made))
        if isinstance(error, Exception) and not isinstance(error, TimeoutError):
            raise (Waits(str(error)) if isinstance(error, Unconnected) else Failed(words(error))) from error
        raise


def _imported() -> None:
    """The SDK, and what brings it of the gateway's own: on a thread, since it takes its time."""
    import_sdk()
    importlib.import_module("agw_proxy.sdk.gateway_tools")


async def _sdk_missing() -> str | None:
    """Why the SDK cannot be used; None: it can."""
    try:
        await on_thread(_imported, "agw-agents")
    except Failed as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  an installation may be broken in any way; relays go on
        return f"the SDK cannot be imported: {type(error).__name__}: {error}"
    return None


def _version(found: Found, declared: Mapping[str, Found], known: Mapping[str, _Kept]) -> str:
    """Of a declared agent: of its own file, of all others that are declared, and of the modules that it names."""
    files = sorted({each.version for each in declared.values()})
    named = sorted(known[name].entry.version for name in refers(found) if name in known)
    return hashlib.sha256(repr((found.declared, files, named)).encode()).hexdigest()[:VERSION_DIGITS]


def _as_text(state: AgentState) -> AgentState:
    """Without halves of surrogate pairs: names of files and words of exceptions may have them, and no answer can."""
    told = msgspec.structs.asdict(state).items()
    odd = {name: value for name, value in told if isinstance(value, str) and not value.isprintable()}
    clean = {name: value.encode("utf-8", "replace").decode() for name, value in odd.items()}
    return msgspec.structs.replace(state, **clean) if clean != odd else state


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
