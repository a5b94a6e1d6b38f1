"""Between the supervisor and a worker: a socket pair with whole messages either way, and the worker's end of it.

The worker says that it is ready and asks for reloads; the supervisor hands out configurations, has a worker stand in
for a sibling that does not accept, and tells it to drain. Where the link breaks, the supervisor has gone: the worker
drains and ends. A configuration travels as a descriptor, so that no message is ever too long for the socket.
"""

import asyncio
import contextlib
import os
import pickle
import socket
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Protocol

import msgspec

from agw_proxy.config.loader import ConfigError, Loaded
from agw_proxy.edge.inboxes import Inboxes
from agw_proxy.edge.listeners import Listeners
from agw_proxy.edge.server import Edge
from agw_proxy.edge.shared import Shared
from agw_proxy.errors import ReloadFailed

TICK_SECONDS = 0.1  # a worker counts as late after twice that
ASK_SECONDS = 300.0  # for an answer to a reload: above what the supervisor waits for the workers
MAX_MESSAGE_BYTES = 65536
MAX_ERROR_CHARACTERS = 8192  # at most four bytes each, escaped six: within a message


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker serves. ``loop``: the module of its event loop."""

    loop: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The worker cannot start, for this reason."""

    error: str


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Somebody asked the worker for a reload. ``number``: comes back with the answer. ``heard``: another gateway did."""

    number: int
    discover: bool
    heard: bool = False


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """What was handed over as ``turn`` is in force; ``error``: it is not, because."""

    turn: int
    error: str | None


class Take(msgspec.Struct, frozen=True, tag="take"):
    """Take up the configuration that comes with this (or note why there is no new one).

    ``version``: of what is in force then. ``discover``: ask the upstreams for their models, too.
    ``heard``: other gateways have heard of it.
    """

    turn: int
    version: int
    discover: bool
    heard: bool = False


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """To an ``Ask``: all workers have it, or what went wrong."""

    number: int
    error: str | None


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Finish what runs and end; ``hurry``: end it now."""

    hurry: bool


class Stand(msgspec.Struct, frozen=True, tag="stand"):
    """Accept on the sockets of ``worker`` too, or leave them to it again."""

    worker: int
    accept: bool


FromWorker = Ready | Failed | Ask | Taken
ToWorker = Take | Answer | Drain | Stand
Message = FromWorker | ToWorker


class Channel:
    """One end of a link. Never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        """``sock``: of a pair of type SOCK_SEQPACKET."""
        sock.setblocking(False)
        self._socket = sock
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(Message)

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Two ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def send(self, message: Message, descriptor: int | None = None) -> bool:
        """Whether it went out: not where the other side has gone or has let too much lie."""
        try:
            socket.send_fds(self._socket, [self._encoder.encode(message)], [] if descriptor is None else [descriptor])
        except OSError:
            return False
        return True

    def receive(self) -> tuple[Message, int | None] | None:
        """The next message and the descriptor that came with it; None: there is none. Raises EOFError: the end."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, MAX_MESSAGE_BYTES, 1)
        except BlockingIOError:
            return None
        except OSError:
            raise EOFError from None
        if not data:
            raise EOFError
        return self._decoder.decode(data), descriptors[0] if descriptors else None

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()


def hand_over(outcome: Loaded | ConfigError) -> int:
    """A descriptor of memory that holds it, for ``receive_handed``; the caller closes it."""
    descriptor = os.memfd_create("agw-configuration")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        pickle.dump(outcome, file)
    return descriptor


def receive_handed(descriptor: int) -> Loaded:
    """What was handed over, read without moving the descriptor's offset, which all workers share; closes it.

    Raises ConfigError where that was what was handed over.
    """
    try:
        data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)
    outcome = pickle.loads(data)  # noqa: S301  our own parent's, over a socket pair that nobody else has
    if isinstance(outcome, ConfigError):
        raise outcome
    if not isinstance(outcome, Loaded):
        raise TypeError(f"expected a configuration, got {type(outcome).__name__}")
    return outcome


def shorten(text: str) -> str:
    """An error that fits into a message."""
    return text if len(text) <= MAX_ERROR_CHARACTERS else f"{text[:MAX_ERROR_CHARACTERS]} ..."


class Served(Protocol):
    """What a link does to its worker's gateway."""

    async def take_up(self, version: int, *, discover: bool, heard: bool) -> str | None:
        """Put in force what the link's ``load`` gives; gives why not."""
        ...


class WorkerLink:
    """The worker's end, with all that it got from the supervisor at the fork.

    ``worker``: its number; ``version``: of the configuration that it starts with.
    """

    def __init__(
        self,
        worker: int,
        version: int,
        channel: Channel,
        shared: Shared,
        listeners: Listeners,
        inboxes: Inboxes | None = None,
    ) -> None:
        """``inboxes``: of the workers that run agents for the others, which have the highest numbers; None: there are none."""
        self.worker = worker
        self.version = version
        self.taking = version
        """Of the configuration that is taken up, or was last."""
        self.inboxes = inboxes
        self.first_apart = shared.workers - (len(inboxes) if inboxes is not None else 0)
        """The number of the first worker that runs agents for the others."""
        self.shared = shared
        self.listeners = listeners
        self._channel = channel
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[str | None]] = {}
        self._handed: int | None = None
        self._edges: Sequence[Edge] = ()
        self._stop: Callable[[bool], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._work: list[asyncio.Task[None]] = []
        # Taking up may wait for upstreams, standing in may not wait for that.
        self._takes: asyncio.Queue[tuple[Take, int | None]] = asyncio.Queue()
        self._stands: asyncio.Queue[Stand] = asyncio.Queue()

    @property
    def apart(self) -> bool:
        """It runs agents for the others, and has no clients."""
        return self.worker >= self.first_apart

    def on_term(self, stop: Callable[[], object]) -> Callable[[], object]:
        """What SIGTERM does: ``stop``; where agents run for others nothing, as those may still need them."""
        return (lambda: None) if self.apart else stop

    def say_failed(self, error: str) -> None:
        """It cannot start."""
        self._channel.send(Failed(shorten(error)))

    async def open(self, edges: Sequence[Edge], served: Served, stop: Callable[[bool], None]) -> None:
        """Accept on the worker's own sockets, tick, and obey. Raises OSError.

        ``edges``: in the order of the listeners' sockets. ``stop``: called to drain, with whether at once.
        """
        loop = asyncio.get_running_loop()
        self._edges, self._stop = edges, stop
        for edge, sock in zip(edges, self.listeners.of(self.worker), strict=not self.apart):
            await edge.accept_on(sock)
        self._tick()
        self._work = [loop.create_task(self._take_up(served)), loop.create_task(self._stand_in())]
        loop.add_reader(self._channel.fileno(), self._read)
        self.shared.stand(self.worker, self.version)
        self._channel.send(Ready(type(loop).__module__))

    def load(self) -> Loaded:
        """What was handed over last, for the reloader; on any thread. Raises ConfigError."""
        descriptor, self._handed = self._handed, None
        if descriptor is None:
            raise RuntimeError("nothing was handed over")
        return receive_handed(descriptor)

    async def reload(self, *, discover: bool, heard: bool = False) -> None:
        """Have the supervisor read the configuration again and wait until all workers have it. Raises ReloadFailed."""
        number = next(self._numbers)
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            if not self._channel.send(Ask(number, discover, heard)):
                raise ReloadFailed("The supervisor of the workers cannot be reached; nothing has changed.")
            async with asyncio.timeout(ASK_SECONDS):
                error = await answer
        except TimeoutError:
            raise ReloadFailed(f"The supervisor of the workers gave no answer within {ASK_SECONDS:g} s.") from None
        finally:
            del self._asked[number]
        if error is not None:
            raise ReloadFailed(error)

    def shut_doors(self) -> None:
        """A drain begins: the sockets that came by the fork, its siblings' too, are not to go on listening for it."""
        self.listeners.close()

    async def close(self) -> None:
        """The end: nothing is heard or ticked any more."""
        self.shared.stand(self.worker, 0)
        self._detach()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        self._channel.close()

    def _detach(self) -> None:
        asyncio.get_running_loop().remove_reader(self._channel.fileno())

    def _tick(self) -> None:
        self.shared.tick(self.worker, time.monotonic_ns())
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _read(self) -> None:
        """What has come, at once: nothing here waits."""
        try:
            while (came := self._channel.receive()) is not None:
                self._heed(*came)
        except EOFError:
            self._detach()
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_result("The supervisor of the workers has gone; this worker is shutting down.")
            if not self.apart:  # else those that it runs agents for may need it until they have gone, too
                self.leave()

    def leave(self) -> None:
        """Drain: nobody is left who would say so."""
        if self._stop is not None:
            self._stop(False)

    def _heed(self, message: Message, descriptor: int | None) -> None:
        if isinstance(message, Drain):
            if self._stop is not None:
                self._stop(message.hurry)
        elif isinstance(message, Answer):
            answer = self._asked.get(message.number)
            if answer is not None and not answer.done():
                answer.set_result(message.error)
        elif isinstance(message, Take):
            self._takes.put_nowait((message, descriptor))
        elif isinstance(message, Stand):
            self._stands.put_nowait(message)

    async def _take_up(self, served: Served) -> None:
        """Configurations, in the order in which they were handed over."""
        while True:
            take, self._handed = await self._takes.get()
            self.taking = take.version
            try:
                error = await served.take_up(take.version, discover=take.discover, heard=take.heard)
            except Exception as failure:  # noqa: BLE001  the worker goes on with what it has, and says so
                error = f"{type(failure).__name__}: {failure}"
            self.shared.stand(self.worker, take.version)
            self._channel.send(Taken(take.turn, None if error is None else shorten(error)))

    async def _stand_in(self) -> None:
        """For siblings, in the order in which it was asked for."""
        own = self.listeners.of(self.worker)
        while True:
            order = await self._stands.get()
            if self._edges[0].accounts.draining:
                continue
            for edge, sock in zip(self._edges, self.listeners.of(order.worker), strict=True):
                if sock in own:  # a Unix socket is every worker's
                    continue
                with contextlib.suppress(OSError):  # no descriptor is free: the sibling's replacement comes soon
                    if order.accept:
                        await edge.accept_on(sock)
                    else:
                        edge.leave(sock)
