"""One call upstream for all who ask the same: its answer goes into a bounded log, from which everybody reads at their own pace.

The call goes on as long as anybody listens, whoever began it, and is cut when nobody does. The fastest reader sets its
pace; a slow one slows nobody, and is cut off once it lags behind by more than the log holds.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from agw_proxy._hot.sse import EventTooLong, Stream
from agw_proxy.edge.answers import Entry, Recording
from agw_proxy.edge.exchange import Exchange
from agw_proxy.errors import CallerGone, GatewayError, UpstreamBroken, UpstreamError
from agw_proxy.types import RawHeaders
from agw_proxy.upstreams.opening import Opened

AHEAD_BYTES = 262144  # that the upstream may be read ahead of the fastest reader
LOG_BYTES = 1048576  # the least that a slow reader may lag behind, beyond what is kept anyway

Ask = Callable[[], Awaitable[Opened]]
Ended = Callable[[Entry | None], None]
"""Hears of the answer, if it may be kept, before the last readers have got all of it."""


class Flight:
    """One call under way."""

    def __init__(self, ask: Ask, ended: Ended, *, known_end: bool, most: int, picky: bool = True) -> None:
        """``ask`` opens the answer. ``known_end``: its streams have a last event.

        ``most``: bytes of an answer that may be kept. ``picky``: only good ones are, see ``answers.Recording``.
        """
        self._picky = picky
        self.free = False
        """The answer costs nothing: nobody has to pay when its first reader leaves."""
        self._ask = ask
        self._ended_call = ended
        self._known_end = known_end
        self._most = most
        self._window = max(most, LOG_BYTES)
        self._loop = asyncio.get_running_loop()
        self._taps: list[Tap] = []
        self._payer: Tap | None = None
        self._given = False
        """Somebody has got all of the answer."""
        self._recording: Recording | None = None
        self._log: deque[bytes] = deque()
        self.first = 0
        """The number of the oldest piece in the log."""
        self._dropped = 0
        self.total = 0
        self.opened: Opened | None = None
        self.ended = False
        self.error: Exception | None = None
        self._room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def joinable(self) -> bool:
        """All of the answer so far is still here, and it has not failed."""
        return self.error is None and self.first == 0 and bool(self._taps or self.ended)

    def join(self, exchange: Exchange) -> "Tap":
        """Read from its beginning on. The first one starts it, and pays for it."""
        tap = Tap(self, exchange)
        self._taps.append(tap)
        if self._task is None:
            self._payer = tap
            self._task = self._loop.create_task(self._run())
        return tap

    def leave(self, tap: "Tap") -> None:
        """It reads no more: without a reader the call is cut, and without its payer another one pays."""
        if tap not in self._taps:
            return
        self._taps.remove(tap)
        self._given = self._given or tap.exchange.complete
        if self._payer is tap:
            over = self.free or tap.exchange.complete or self.error is not None
            self._payer = None if over else self._pass_bill_on(tap)
        if not self._taps:
            if self._task is not None and not self.ended:
                self._task.cancel()
                if self.opened is None and self.error is None:  # it may not even have begun
                    self._fail(CallerGone("Nobody waits for this answer any more."))
        elif not self.ended:
            self._wake_source()

    def _pass_bill_on(self, tap: "Tap") -> "Tap | None":
        """Who pays in place of one who leaves early: somebody who still reads, else itself for what others have got of it."""
        for other in self._taps:
            if not other.exchange.complete:
                other.exchange.pays_for(tap.exchange)
                return other
        if self._recording is not None and (self._taps or self._given):
            tap.exchange.owes(self._recording.usage)
        return None

    def taken(self) -> None:
        """A reader has taken something."""
        if self._room is not None:
            self._wake_source()

    def read(self, number: int) -> tuple[bytes, int]:
        """All pieces from ``number`` on, and the number of the next one. Raises UpstreamBroken where they are gone."""
        if number < self.first:
            raise UpstreamBroken("This answer is shared with other requests, and the client has read it too slowly.")
        pieces = [self._log[at] for at in range(number - self.first, len(self._log))]
        return b"".join(pieces) if len(pieces) != 1 else pieces[0], number + len(pieces)

    @property
    def next(self) -> int:
        """The number of the piece to come."""
        return self.first + len(self._log)

    # -- towards the upstream

    async def _run(self) -> None:
        try:
            opened = await self._ask()
        except asyncio.CancelledError:
            self._fail(CallerGone("Nobody waits for this answer any more."))
            raise
        except Exception as error:  # noqa: BLE001  whoever listens raises it
            self._fail(error)
            return
        self.opened = opened
        recording = self._recording = Recording(opened, known_end=self._known_end, most=self._most, picky=self._picky)
        try:
            await self._pump(opened, recording)
        except (UpstreamError, EventTooLong) as error:
            broken = error if isinstance(error, UpstreamError) else None
            self._fail(broken or UpstreamBroken("The upstream sent an event over 16 MB."))
        except asyncio.CancelledError:
            if recording.terminal:
                self._ended_call(recording.end(time.time()))
            else:
                self._fail(recording.fault() or CallerGone("Nobody waits for this answer any more."))
            raise
        except Exception as defect:  # noqa: BLE001  as above: they would wait for ever
            self._fail(defect)
        finally:
            opened.reply.close()
            opened.end(recording.fault() or (self.error if isinstance(self.error, GatewayError) else None))

    async def _pump(self, opened: Opened, recording: Recording) -> None:
        reply, known = opened.reply, 0
        chunk = opened.raw if opened.stream is not None else opened.first
        while True:
            recording.feed(chunk)
            if reply.ended:
                self._ended_call(recording.end(time.time()))
                self.ended = True
            self._append(chunk)
            if self.ended:
                return
            while self.total - max((tap.bytes_taken for tap in self._taps), default=0) > AHEAD_BYTES:
                self._room = self._loop.create_future()
                await self._room
            self._room = None
            progress, known = recording.progress > known, recording.progress
            chunk = await reply.read(progress=progress)

    def _append(self, chunk: bytes) -> None:
        if chunk:
            self._log.append(chunk)
            self.total += len(chunk)
            if self.total > self._window:
                self._trim()
        for tap in self._taps:
            tap.wake()

    def _trim(self) -> None:
        """Forget what everybody has, and what is too much for the slowest."""
        needed = min((tap.number for tap in self._taps), default=self.next)
        while self._log and (self.first < needed or self.total - self._dropped > self._window):
            self._dropped += len(self._log.popleft())
            self.first += 1

    def _fail(self, error: Exception) -> None:
        self.error = error
        self._ended_call(None)
        for tap in self._taps:
            tap.wake()

    def _wake_source(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


class Tap:
    """One reader of a flight: an upstream's answer to its request (``types.Reply``)."""

    began_ns = 0

    def __init__(self, flight: Flight, exchange: Exchange) -> None:
        self._flight = flight
        self.exchange = exchange
        self.number = 0
        self.bytes_taken = 0
        self._waiter: asyncio.Future[None] | None = None

    async def open(self) -> Opened:
        """Wait until the answer has begun. Raises what the call failed with; leaves it when cancelled."""
        flight = self._flight
        try:
            while flight.opened is None and flight.error is None:
                await self._wait()
        except BaseException:
            flight.leave(self)
            raise
        if flight.opened is None:
            flight.leave(self)
            raise flight.error or UpstreamBroken("The call has no answer.")
        opened = flight.opened
        stream = Stream(strip_usage=opened.strips) if opened.stream is not None else None
        return Opened(self, opened.target, stream, b"", dropped=opened.dropped)

    @property
    def connect_ms(self) -> float:
        """See ``types.Reply``; of the one who pays."""
        opened = self._flight.opened
        return opened.reply.connect_ms if opened is not None and self.exchange.reuse is None else 0.0

    @property
    def status(self) -> int:
        """See ``types.Reply``."""
        return self._flight.opened.reply.status if self._flight.opened is not None else 0

    @property
    def headers(self) -> RawHeaders:
        """See ``types.Reply``."""
        return self._flight.opened.reply.headers if self._flight.opened is not None else ()

    @property
    def ended(self) -> bool:
        """See ``types.Reply``."""
        return self._flight.ended and self.number == self._flight.next

    async def read(self, *, progress: bool = True) -> bytes:
        """See ``types.Reply``."""
        del progress
        flight = self._flight
        while self.number == flight.next:
            if flight.ended:
                return b""
            if flight.error is not None:
                raise flight.error
            await self._wait()
        chunk, self.number = flight.read(self.number)
        self.bytes_taken += len(chunk)
        flight.taken()
        return chunk

    def close(self) -> None:
        """See ``types.Reply``."""
        self._flight.leave(self)

    def wake(self) -> None:
        """There is something new."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
