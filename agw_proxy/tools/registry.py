"""The tools by their names, and the policy of each call: who may, how often, for how long; what the log and metrics hear.

Arguments and results are the caller's and the tool's: neither is ever told to the log.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Literal, Protocol

import msgspec

from agw_proxy._hot.limit import PER_TOOL, Grant, Limits, Rule, subject
from agw_proxy.config.tools import Tool as Settings
from agw_proxy.policy.limits import refusal
from agw_proxy.tools.threads import on_thread
from agw_proxy.types import Principal

LOAD_SECONDS = 30.0
"""For one tool to be loaded."""
MAX_KNOWN = 256
"""Keys whose rules for tools are kept, and refusals that are not said again."""
ELSE = "other"
"""In metrics: what there is no tool for."""
log = logging.getLogger("agw_proxy.tools")
Outcome = Literal["ok", "failed", "invalid", "timeout", "denied", "limited", "missing", "cancelled"]


class Refused(Exception):
    """A call has given nothing. The message is for the model that asked."""

    def __init__(self, message: str, outcome: Outcome) -> None:
        """``outcome``: for the log and the metrics."""
        super().__init__(message)
        self.outcome = outcome


class Spec(msgspec.Struct, frozen=True):
    """What a model is told of a tool."""

    description: str
    schema: dict[str, object]
    """JSON Schema of its input, an object."""


Begin = Callable[[Callable[[], None]], Awaitable[str]]
"""Begins a call, and gives words for a model. What it is given is called once, when nothing of the call is left."""


class Tool(Protocol):
    """One tool, of any kind, that can be called."""

    spec: Spec
    version: str
    """Changes with what it is made of."""

    def prepare(self, arguments: str) -> Begin:
        """Check the arguments, JSON as a model writes it. Raises Refused (``invalid``); the call whatever the tool does."""
        ...


class Asker(msgspec.Struct, frozen=True):
    """On whose behalf a tool is called. ``about``: what the log says of it."""

    principal: Principal | None = None
    user: str | None = None
    channel: str | None = None
    session: str | None = None
    about: Mapping[str, object] = {}


class Events(Protocol):
    """Where the registry says what has happened."""

    def info(self, event: str, **fields: object) -> object:
        """Something happened as it should."""
        ...

    def warning(self, event: str, **fields: object) -> object:
        """Something did not."""
        ...


class Shared(Protocol):
    """Where limits are shared with other gateways (``edge.replicas``)."""

    def may_wait(self, begun_ns: int) -> bool:
        """Whether a call that began to ask then may ask once more."""
        ...

    async def take(self, short: Sequence[tuple[Rule, int, int]]) -> object | None:
        """Take what a grant is short of. None: ask for it again."""
        ...


class Metrics(Protocol):
    """What of the metrics the registry tells."""

    def tool_called(self, tool: str, outcome: str, nanoseconds: int) -> None:
        """A call has ended."""
        ...


class Uncounted:
    """Metrics that nobody reads."""

    def tool_called(self, tool: str, outcome: str, nanoseconds: int) -> None:
        """See ``Metrics``."""


class _Entry:
    """A tool as it is configured, with its places."""

    def __init__(self, settings: Settings, tool: Tool) -> None:
        self.settings, self.tool = settings, tool
        self.subject = subject(f"tool:{settings.name}".encode())
        self.places = asyncio.Semaphore(settings.concurrent)


class Registry:
    """All tools of one process. Used on one loop."""

    def __init__(self, events: Events, metrics: Metrics, shared: Callable[[], Shared | None] = lambda: None) -> None:
        """``shared``: where limits are shared with other gateways."""
        self._events, self._metrics, self._shared = events, metrics, shared
        self._entries: dict[str, _Entry] = {}
        self.failed: dict[str, str] = {}
        """Those that could not be loaded, or not in their newest version, and why."""
        self._limits: dict[int, tuple[Limits, Limits]] = {}
        self._denied: set[tuple[str, str]] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Of those that can be called."""
        return tuple(sorted(self._entries))

    def spec(self, name: str) -> Spec | None:
        """What a model is told of it; None: there is none."""
        entry = self._entries.get(name)
        return entry.tool.spec if entry is not None else None

    async def refresh(self, settings: Sequence[Settings]) -> None:
        """Take up what is configured now. What cannot be loaded hurts no other, and leaves the version before as it was."""
        wanted = {each.name: each for each in settings}
        for name in [name for name in self._entries if name not in wanted]:
            del self._entries[name]
            self._events.info("tool.gone", tool=name)
        self.failed = {name: why for name, why in self.failed.items() if name in wanted}
        self._denied.clear()
        await asyncio.gather(*(self._take_up(each) for each in wanted.values()))

    async def _take_up(self, settings: Settings) -> None:
        from agw_proxy.tools.local import load  # noqa: PLC0415  it takes its time, and most gateways have no tools

        name, old = settings.name, self._entries.get(settings.name)
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                tool = await on_thread(
                    lambda: load(settings, old.tool if old is not None else None), f"agw-tool {name}"
                )
        except TimeoutError:
            self._fails(name, f"it was not there within {LOAD_SECONDS:g} s")
        except Exception as error:  # noqa: BLE001  a module of somebody else's may raise anything
            self._fails(name, str(error) or type(error).__name__)
        else:
            self.failed.pop(name, None)
            if old is None or (old.settings, old.tool) != (settings, tool):
                self._entries[name] = _Entry(settings, tool)
                self._events.info("tool.loaded", tool=name, version=tool.version)

    def _fails(self, name: str, why: str) -> None:
        if self.failed.get(name) != why:
            serving = self._entries[name].tool.version if name in self._entries else None
            self._events.warning("tool.failed", tool=name, error=why, serving=serving)
        self.failed[name] = why

    def allows(self, name: str, principal: Principal | None) -> bool:
        """The key may use it; said once where it may not. Nobody may."""
        if principal is not None and principal.tools.match(name):
            return True
        told = (name, principal.name if principal is not None else "")
        if told not in self._denied and len(self._denied) < MAX_KNOWN:
            self._denied.add(told)
            self._events.warning("tool.denied", tool=name, key=told[1])
        return False

    async def call(self, name: str, arguments: str, asker: Asker) -> str:
        """Words for the model. Raises Refused; a failure of the tool's own is one too, and the log has more of it."""
        begun = time.monotonic_ns()
        entry, grant = self._entries.get(name), None
        outcome: Outcome = "cancelled"
        try:
            if entry is None:
                raise Refused(f"There is no tool '{name}' any more.", "missing")
            if not self.allows(name, asker.principal):
                raise Refused(f"The key of this request may not use the tool '{name}'.", "denied")
            begin = entry.tool.prepare(arguments)
            grant = await self._admit(entry, asker)
            words = await _bounded(entry, begin)
            outcome = "ok"
            return words
        except Refused as refused:
            outcome = refused.outcome
            raise
        finally:
            if grant is not None:
                grant.release()
            spent = time.monotonic_ns() - begun
            self._metrics.tool_called(name if entry is not None else ELSE, outcome, spent)
            version = entry.tool.version if entry is not None else None
            told = {"tool": name, "version": version, "outcome": outcome, "duration_ms": round(spent / 1e6, 3)}
            self._events.info("tool.invoked", **{**asker.about, **told})

    async def _admit(self, entry: _Entry, asker: Asker) -> Grant | None:
        """Take from the rules that count by tools. Raises Refused (``limited``)."""
        limits = self._rules(asker.principal)
        if limits is None or asker.principal is None:
            return None
        begun, shared = time.monotonic_ns(), self._shared()
        grant = _ask(limits, entry, asker, asker.principal)
        while grant.short and shared is not None and shared.may_wait(begun):
            if await shared.take(grant.short) is not None:
                break
            grant = _ask(limits, entry, asker, asker.principal)
        if grant.granted:
            return grant
        raise Refused(f"The tool '{entry.settings.name}' was not called: {refusal(grant).message}", "limited")

    def _rules(self, principal: Principal | None) -> Limits | None:
        """Of a key's rules those that count by tools; None: there are none."""
        if principal is None or not principal.limits.counts & PER_TOOL:
            return None
        found = self._limits.get(id(principal.limits))
        if found is None or found[0] is not principal.limits:
            if len(self._limits) >= MAX_KNOWN:
                self._limits.clear()  # after reloads, most of them are of the past
            kept = [rule for rule in principal.limits.rules if rule.per & PER_TOOL]
            found = self._limits[id(principal.limits)] = principal.limits, Limits(principal.limits.table, kept)
        return found[1]


REGISTRY: ContextVar[Registry | None] = ContextVar("agw_tools", default=None)
"""Of the gateway that loads an agent, while it does."""


async def _bounded(entry: _Entry, begin: Begin) -> str:
    """One call, in its place and its time. Raises Refused."""
    name, seconds = entry.settings.name, entry.settings.timeout
    clock = asyncio.timeout(seconds)
    try:
        async with clock:
            await entry.places.acquire()
            return await begin(entry.places.release)
    except Refused:
        raise
    except Exception as error:
        if isinstance(error, TimeoutError) and clock.expired():
            raise Refused(f"The tool '{name}' did not answer within {seconds:g} s.", "timeout") from None
        log.warning("tool '%s' failed", name, exc_info=error)
        raise Refused(f"The tool '{name}' failed: {type(error).__name__}: {error}", "failed") from error


def _ask(limits: Limits, entry: _Entry, asker: Asker, principal: Principal) -> Grant:
    return limits.admit(
        time.monotonic_ns(),
        key=principal.subject,
        team=principal.team_subject,
        user=_named("user", asker.user),
        channel=_named("channel", asker.channel),
        session=_named(f"session:{principal.name}", asker.session) if asker.session is not None else 0,
        tool=entry.subject,
    )


def _named(kind: str, name: str | None) -> int:
    """As requests are counted (``edge.asking``), so that a rule per key and user means the same user."""
    return subject(f"{kind}:{name or ''}".encode("utf-8", "surrogatepass"))
