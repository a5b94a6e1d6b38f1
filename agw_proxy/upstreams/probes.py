"""Asks upstreams regularly whether they are well (``health``), and takes those out that are not, for all workers.

A probe is bad where no whole answer comes in time, or one of 500 and above. Any other answer is life: a probe that may
not ask or is limited (401, 404, 429) has found somebody at home. One worker probes; the others see what it found.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from agw_proxy.config.resilience import Probe
from agw_proxy.errors import InternalError, UpstreamError, UpstreamReset
from agw_proxy.states import ProbeState
from agw_proxy.types import Call, Reply

JITTER = 0.1  # of the interval, either way: upstreams of many gateways are not asked all at once
MAX_BYTES = 65536  # of an answer; a connection with more to come is not kept


class Asked(Protocol):
    """Whom to ask: an upstream, past its queue."""

    name: str

    async def ask(self, call: Call) -> Reply:
        """Send the call and wait for the head of the answer. Raises UpstreamError."""
        ...


class Vitals(Protocol):
    """Where all workers see whether an upstream is out."""

    out: bool


class Told(Protocol):
    """Who hears of it: the metrics."""

    def probed(self, upstream: str, *, good: bool) -> None:
        """One probe has ended."""
        ...

    def taken_out(self, upstream: str, step: int) -> None:
        """The upstream is out (1) or back (-1)."""
        ...


class Subject(NamedTuple):
    """One upstream to probe."""

    upstream: Asked
    probe: Probe
    vitals: Vitals


class Streak:
    """What the latest probes of one upstream say; decides, without asking anybody."""

    def __init__(self, probe: Probe, vitals: Vitals) -> None:
        """``vitals``: may say that it is out already, as the process before this one has found."""
        self._probe = probe
        self._vitals = vitals
        self.good = 0
        self.bad = 0
        self.last: str | None = None
        self.at: str | None = None
        self.out_since: str | None = None

    def note(self, error: str | None) -> bool | None:
        """A probe has ended, with the code of an error or well (None). Gives True: it is out now; False: back; None."""
        self.last = error or "ok"
        self.at = _now()
        if error is None:
            self.good, self.bad = self.good + 1, 0
            if self._vitals.out and self.good >= self._probe.healthy:
                self._vitals.out, self.out_since = False, None
                return False
        else:
            self.good, self.bad = 0, self.bad + 1
            if not self._vitals.out and self.bad >= self._probe.unhealthy:
                self._vitals.out, self.out_since = True, self.at
                return True
        return None


class NotAsked(Exception):
    """The gateway could not ask at all: that tells nothing of the upstream."""


class Probes:
    """All probes of a process: a task for each upstream that has a path to ask."""

    def __init__(self, told: Told, say: Callable[..., object]) -> None:
        """``say``: takes an event's name and its fields, for the log."""
        self._told = told
        self._say = say
        self._running: dict[str, tuple[Subject, Streak, asyncio.Task[None]]] = {}

    def take_up(self, subjects: Sequence[Subject]) -> None:
        """Probe these from now on; one that is probed just so already goes on."""
        wanted = {subject.upstream.name: subject for subject in subjects if subject.probe.path is not None}
        for name, (subject, _, task) in list(self._running.items()):
            new = wanted.get(name)
            if new is not None and new.upstream is subject.upstream and new.probe == subject.probe:
                del wanted[name]
                continue
            task.cancel()
            del self._running[name]
            if subject.vitals.out:
                self._told.taken_out(name, -1)
            if new is None:
                self._bring_back(subject)
        for subject in subjects:
            if subject.probe.path is None:  # a process before this one may have found it out
                self._bring_back(subject)
        for name, subject in wanted.items():
            streak = Streak(subject.probe, subject.vitals)
            if subject.vitals.out:
                self._told.taken_out(name, 1)
            task = asyncio.get_running_loop().create_task(self._probe(subject, streak))
            self._running[name] = (subject, streak, task)

    def _note(self, subject: Subject, streak: Streak, error: str | None) -> None:
        name = subject.upstream.name
        turned = streak.note(error)
        self._told.probed(name, good=error is None)
        if turned is None:
            return
        self._told.taken_out(name, 1 if turned else -1)
        if turned:
            self._say("upstream.out", upstream=name, error=error)
        else:
            self._say("upstream.back", upstream=name)

    def state(self, name: str) -> ProbeState | None:
        """What is known of an upstream's probes; None where this process does not probe it."""
        found = self._running.get(name)
        if found is None:
            return None
        subject, streak, _ = found
        return ProbeState(
            path=subject.probe.path or "",
            last=streak.last,
            at=streak.at,
            good_in_a_row=streak.good,
            bad_in_a_row=streak.bad,
            out_since=streak.out_since,
        )

    async def close(self) -> None:
        """Probe no more."""
        tasks = [task for _, _, task in self._running.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _bring_back(self, subject: Subject) -> None:
        """Nobody would, who probes it."""
        if subject.vitals.out:
            subject.vitals.out = False
            self._say("upstream.back", upstream=subject.upstream.name)

    async def _probe(self, subject: Subject, streak: Streak) -> None:
        while True:
            with contextlib.suppress(NotAsked):
                self._note(subject, streak, await ask(subject.upstream, subject.probe))
            await asyncio.sleep(subject.probe.interval * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311  spreads load


async def ask(upstream: Asked, probe: Probe) -> str | None:
    """One probe; gives the code of what was wrong, None where nothing was. Raises NotAsked."""
    try:
        async with asyncio.timeout(probe.timeout):
            try:
                return await _ask(upstream, probe)
            except UpstreamReset:  # perhaps only a connection that has been idle for too long
                return await _ask(upstream, probe)
    except UpstreamError as error:
        if error.blameless:
            raise NotAsked from None
        return error.code
    except TimeoutError:
        return "upstream_timeout"
    except Exception:  # noqa: BLE001  whatever it is, it must not end the probing: nobody would bring the upstream back
        return InternalError.code


async def _ask(upstream: Asked, probe: Probe) -> str | None:
    path, _, query = (probe.path or "").partition("?")
    path = path if path.startswith("/") else f"/{path}"
    reply = await upstream.ask(Call("GET", path, query, [("Accept", "*/*")], None, None, "health-probe"))
    try:
        size = 0
        while not reply.ended and size <= MAX_BYTES:
            size += len(await reply.read())
    finally:
        reply.close()
    return "upstream_unavailable" if reply.status >= 500 else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
