"""Several workers on one port: starts them, watches them, replaces those that die, and hands out configurations.

The supervisor has no event loop, no thread and no client. It sleeps in one ``select`` for signals and the workers'
messages, looks at the workers' ticks ten times a second, and forks. What it holds outlives a worker: the listening
sockets with the connections that wait there, the shared memory, and the newest configuration that was accepted.
"""

import contextlib
import gc
import mmap
import os
import select
import selectors
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from agw_proxy.config.loader import ConfigError, Loaded, refuse_emptied
from agw_proxy.config.reload import needs_restart, with_fixed
from agw_proxy.config.tree import problem
from agw_proxy.edge.inboxes import Inboxes
from agw_proxy.edge.listeners import Listeners
from agw_proxy.edge.shared import Shared
from agw_proxy.edge.slots import Handing, Slot, stand_in
from agw_proxy.edge.worker_link import (
    TICK_SECONDS,
    Answer,
    Ask,
    Channel,
    Drain,
    Failed,
    Message,
    Ready,
    Take,
    Taken,
    WorkerLink,
    hand_over,
    shorten,
)
from agw_proxy.observe.log import Log

LOOK_SECONDS = 0.1
LATE_SECONDS = 2 * TICK_SECONDS  # a loop that has not turned for so long while clients wait has a sibling stand in
PAUSE_SECONDS = 1.0  # between two looks: then this process stood still too, and old ticks prove nothing
START_SECONDS = 60.0  # for a worker to get ready
START_ATTEMPTS = 3  # by a worker that was never ready, before the whole start is given up
STABLE_SECONDS = 60.0  # a worker that served so long has earned a quick replacement again
LAST_SECONDS = 5.0  # to end after the drain's time, or after having hung up
TAKE_SECONDS = 5.0  # for all workers to take up a configuration
LOADS = 2  # agents are loaded at once, but for those that name others
DISCOVER_SECONDS = 11.0  # and to ask the upstreams for their models (upstreams/catalog.py), on top
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Supervisor:
    """``run`` it once."""

    def __init__(
        self,
        loaded: Loaded,
        load: Callable[[], Loaded],
        listeners: Listeners,
        log: Log,
        announce: Callable[[str, str], None],
        limits: mmap.mmap | None = None,
    ) -> None:
        """``load`` reads the configuration again and checks it to the last, raising ConfigError.

        ``announce`` is told once that all workers are ready: the URL, and the module of their loops.
        ``limits``: memory for them that is kept.
        """
        server = loaded.settings.server
        self.loaded = loaded
        self.fault: str | None = None
        self._load = load
        self._version = 1
        self._listeners = listeners
        self._log = log.events
        self._announce: Callable[[str, str], None] | None = announce
        self._heartbeat = server.heartbeat_seconds
        apart = loaded.settings.agents.workers
        self._inboxes = Inboxes(apart) if apart else None
        self._shared = Shared(server.workers + apart, limits)
        self._slots = [Slot(number, relays=number < server.workers) for number in range(server.workers + apart)]
        self._relays = self._slots[: server.workers]
        self._loop = ""
        self._handings: list[Handing] = []
        self._turn = 0
        self._looked = self._resumed = time.monotonic()
        self._deadline: float | None = None  # of the drain; set: it goes on
        self._selector = selectors.PollSelector()  # unlike epoll's, its state is not shared with the children
        self._knocks = select.poll()
        self._signals, self._wakeup = socket.socketpair()

    def run(self) -> int | WorkerLink:
        """Serve until told to stop. In the supervisor: the exit code (``fault`` says why it is 1).

        In each worker's process, forked here: its link, with which it is to serve; all else of the supervisor is gone.
        """
        self._signals.setblocking(False)
        self._wakeup.setblocking(False)
        for number in SIGNALS:
            signal.signal(number, _noted)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._signals, selectors.EVENT_READ)
        for slot in self._slots:
            for sock in self._listeners.alone(slot.number):
                self._knocks.register(sock, select.POLLIN)
        while self._deadline is None or any(slot.pid for slot in self._slots):
            now = time.monotonic()
            for slot in self._slots:
                if slot.due is not None and slot.due <= now:
                    link = self._start(slot, now)
                    if link is not None:
                        return link
            self._selector.select(LOOK_SECONDS)
            now = time.monotonic()
            self._hear_signals(now)
            for slot in self._slots:
                self._hear(slot, now)
                self._reap(slot, now)
            self._settle(now)
            self._look(now)
            self._dismiss_last(now)
        self._log.info("server.stopped")
        return 1 if self.fault is not None else 0

    # -- processes

    def _start(self, slot: Slot, now: float) -> WorkerLink | None:
        """Fork; gives the link in the child."""
        slot.due = None
        ours, theirs = Channel.pair()
        self._shared.tick(slot.number, time.monotonic_ns())
        gc.collect()
        gc.freeze()  # what is there now is shared with the child as long as neither writes to it
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # none may run our handlers in the child
        try:
            pid = os.fork()
        except OSError as error:
            self._log.error("worker.not_started", worker=slot.number, error=error.strerror)
            slot.postpone(now)
            ours.close()
            theirs.close()
            return None
        else:
            if pid == 0:
                self._leave(slot)
                ours.close()
                return WorkerLink(slot.number, self._version, theirs, self._shared, self._listeners, self._inboxes)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        theirs.close()
        slot.pid, slot.channel, slot.started = pid, ours, now
        slot.ready = slot.ended = slot.waits = None
        slot.late = slot.killed = False
        slot.error = ""
        self._selector.register(ours, selectors.EVENT_READ)
        return None

    def _leave(self, slot: Slot) -> None:
        """In a child: nothing of the supervisor's stays. Ctrl-C and a terminal's end are the supervisor's to judge."""
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            ignored = number in {signal.SIGINT, signal.SIGHUP}
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
        self._signals.close()
        self._wakeup.close()
        self._selector.close()
        for other in self._slots:
            if other.channel is not None:
                other.channel.close()  # or a sibling would not see the supervisor's end
        with contextlib.suppress(OSError):
            name = f"agw {'worker' if slot.relays else 'agents'} {slot.number}"
            Path("/proc/self/comm").write_text(name, "ascii")  # its name in ps and top

    def _reap(self, slot: Slot, now: float) -> None:
        """Bury a worker that has ended, and see to its replacement."""
        if not slot.pid:
            return
        pid, status = os.waitpid(slot.pid, os.WNOHANG)
        if not pid:
            return
        self._hear(slot, now)  # its last words
        self._hang_up(slot)
        slots = self._shared.bury(slot.number)
        code = os.waitstatus_to_exitcode(status)
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        served = 0.0 if slot.ready is None else now - slot.ready
        slot.pid = 0
        slot.ready = None
        for other in self._slots:
            if other.helper == slot.number:
                other.helper = None
        if self._deadline is not None:
            return
        self._log.warning("worker.ended", worker=slot.number, pid=pid, how=how, slots_reclaimed=slots, error=slot.error)
        if served >= STABLE_SECONDS:
            slot.failures = 0
        slot.postpone(now)
        if not slot.relays:
            self._shared.fail(slot.number, failing=not served and slot.failures >= START_ATTEMPTS)
            self._announce_ready()
        elif self._announce is not None and not served and slot.failures >= START_ATTEMPTS:
            why = slot.error or how
            self.fault = f"worker {slot.number} ended {START_ATTEMPTS} times before it was ready: {why}"
            self._stop(now)

    def _kill(self, slot: Slot, why: str) -> None:
        if slot.pid and not slot.killed:
            slot.killed = True
            self._log.error("worker.killed", worker=slot.number, pid=slot.pid, reason=why)
            os.kill(slot.pid, signal.SIGKILL)  # not yet waited for, so the number is still its own

    # -- what comes in

    def _hear_signals(self, now: float) -> None:
        came = b""
        with contextlib.suppress(BlockingIOError):
            came = self._signals.recv(4096)
        for number in came:
            if number in {signal.SIGTERM, signal.SIGINT}:
                self._stop(now)
            elif number == signal.SIGHUP and self._deadline is None:
                self._reload(now, Ask(0, discover=False))

    def _stop(self, now: float) -> None:
        """The first time: drain. Again: end at once."""
        hurry = self._deadline is not None
        seconds = self.loaded.settings.server.drain_seconds
        if not hurry:
            self._log.info("server.draining", workers=len(self._slots), seconds=seconds)
            self._listeners.close()  # the workers close theirs
            self._listeners.remove()
        self._deadline = now + (0.0 if hurry else seconds) + LAST_SECONDS
        for slot in self._slots:
            slot.due = None
            if hurry or slot.relays:
                self._dismiss(slot, hurry)

    @staticmethod
    def _dismiss(slot: Slot, hurry: bool) -> None:
        slot.dismissed = True
        if slot.channel is not None:
            slot.channel.send(Drain(hurry))

    def _dismiss_last(self, now: float) -> None:
        """Those that run agents go once nobody is left who could ask them."""
        if self._deadline is None or any(slot.pid for slot in self._relays):
            return
        for slot in self._slots:
            if not slot.dismissed:
                self._dismiss(slot, hurry=True)
                self._deadline = max(self._deadline, now + LAST_SECONDS)

    def _hear(self, slot: Slot, now: float) -> None:
        """All that a worker has sent."""
        try:
            while slot.channel is not None and (came := slot.channel.receive()) is not None:
                self._heed(slot, came[0], now)
        except EOFError:
            self._hang_up(slot)
            slot.ended = now + LAST_SECONDS

    def _hang_up(self, slot: Slot) -> None:
        if slot.channel is not None:
            self._selector.unregister(slot.channel)
            slot.channel.close()
            slot.channel = None

    def _heed(self, slot: Slot, message: Message, now: float) -> None:
        if isinstance(message, Ready):
            slot.ready = now
            self._loop = message.loop
            self._shared.fail(slot.number, failing=False)
            stand_in(slot, self._relays, self._log)  # who stood in for it may leave now
            self._log.info("worker.ready", worker=slot.number, pid=slot.pid)
            self._announce_ready()
        elif isinstance(message, Failed):
            slot.error = message.error
        elif isinstance(message, Ask):
            self._reload(now, message, slot)
        elif isinstance(message, Taken):
            for handing in self._handings:
                if handing.turn == message.turn and slot.number in handing.waiting:
                    handing.waiting.discard(slot.number)
                    if message.error is not None:
                        handing.failed[slot.number] = message.error

    def _announce_ready(self) -> None:
        """Say it once, when all workers are; for those that only run agents nobody waits who relays, if they cannot start."""
        if self._announce is not None and all(
            slot.ready is not None or (not slot.relays and self._shared.fails(slot.number)) for slot in self._slots
        ):
            announce, self._announce = self._announce, None
            announce(self._listeners.url, self._loop)

    # -- configuration

    @property
    def _loading(self) -> float:
        """Seconds that a worker's agents may take to load."""
        agents = self.loaded.settings.agents
        return LOADS * agents.load_seconds if agents.anywhere else 0.0

    def _reload(self, now: float, ask: Ask, slot: Slot | None = None) -> None:
        """Read it, and hand it to the workers; one that is refused changes nothing, but they learn why."""
        discover = ask.discover
        outcome = self._read()
        self._turn += 1
        handing = Handing(self._turn, now + TAKE_SECONDS, None, slot, ask.number)
        if isinstance(outcome, ConfigError):
            handing.rejected = str(outcome)
            discover = False
            self._log.error("config.rejected", error=handing.rejected, version=self._version)
        else:
            self.loaded = outcome
            self._version += 1
            handing.deadline += self._loading
            files = [str(file) for file in outcome.files]
            self._log.info("config.reloaded", version=self._version, files=files)
        if discover:
            handing.deadline += DISCOVER_SECONDS
        descriptor = hand_over(outcome)
        message = Take(self._turn, self._version, discover, ask.heard)
        for one in self._slots:
            if one.channel is None:
                continue  # its replacement starts with what was accepted last
            if one.channel.send(message, descriptor):
                handing.waiting.add(one.number)
            else:
                handing.failed[one.number] = "it does not listen"
        os.close(descriptor)
        self._handings.append(handing)

    def _read(self) -> Loaded | ConfigError:
        """What a gateway fixes at its start stays as it was there, for replacements too: workers must be alike."""
        try:
            loaded = self._load()
            refuse_emptied(loaded, self.loaded)
        except ConfigError as error:
            return error
        except Exception as error:  # noqa: BLE001  whatever it is: the workers are not to lose their supervisor
            return ConfigError([problem(f"{type(error).__name__}: {error}")])
        first, new = self.loaded.settings, loaded.settings
        if changed := needs_restart(first, new):
            self._log.warning("config.needs_restart", settings=changed)
        return Loaded(with_fixed(first, new), loaded.files, loaded.notes, loaded.blank)

    def _settle(self, now: float) -> None:
        """Answer for the configurations that all workers have, or that some did not take up in time."""
        going = []
        for handing in self._handings:
            handing.waiting = {number for number in handing.waiting if self._slots[number].channel is not None}
            if handing.waiting and now < handing.deadline:
                going.append(handing)
                continue
            handing.failed.update(dict.fromkeys(handing.waiting, "no answer in time"))
            error = None
            if handing.rejected is not None:
                error = f"The new configuration was not accepted, the old one goes on serving:\n{handing.rejected}"
            elif handing.failed:
                which = ", ".join(
                    f"worker {number} (pid {self._slots[number].pid}): {why}" for number, why in handing.failed.items()
                )
                error = f"The new configuration is accepted, but not in force everywhere: {which}. Ask again."
                self._log.error("config.incomplete", version=self._version, error=error)
            if handing.slot is not None and handing.slot.channel is not None:
                handing.slot.channel.send(Answer(handing.number, None if error is None else shorten(error)))
        self._handings = going

    # -- health

    def _look(self, now: float) -> None:
        """At every worker's tick and queue: end those that stand still, have siblings accept for those that do not."""
        if now - self._looked < LOOK_SECONDS:
            return
        if now - self._looked > PAUSE_SECONDS:
            self._resumed = now
        self._looked = now
        knocking = set()
        if self._deadline is None:
            knocking = {descriptor for descriptor, _ in self._knocks.poll(0)}
        for slot in self._slots:
            if not slot.pid:
                continue
            age = now - max(self._shared.ticked_ns(slot.number) / 1e9, self._resumed)
            self._judge(slot, now, age)
            waiting = any(sock.fileno() in knocking for sock in self._listeners.alone(slot.number))
            slot.waits = (slot.waits or now) if waiting else None
            if age < LATE_SECONDS:
                slot.late = False
            elif slot.waits is not None and now - slot.waits >= LATE_SECONDS:
                slot.late = True
        if self._deadline is None and self._announce is None:
            for slot in self._relays:
                stand_in(slot, self._relays, self._log)

    def _judge(self, slot: Slot, now: float, age: float) -> None:
        if self._deadline is not None and now >= self._deadline:
            self._kill(slot, "it did not end in time")
        elif slot.ended is not None:
            if now >= slot.ended:
                self._kill(slot, "it has hung up and did not end")
        elif slot.ready is None:
            if now - slot.started >= START_SECONDS + self._loading:
                self._kill(slot, f"it was not ready within {START_SECONDS + self._loading:g} s")
        elif self._heartbeat and age >= self._heartbeat:
            self._kill(slot, f"its loop stood still for {age:.1f} s (server.heartbeat_seconds)")


def _noted(*_: object) -> None:
    """The wake-up descriptor tells which signal it was."""
