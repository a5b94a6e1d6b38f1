"""Runs in the background of one worker: each is a request to Responses made in this process, whose events are written down.

It passes the handler as any client's request does: the same key, limits, route, retries and Receipt. What its events
come to is told by ``store.runs`` to whoever asks, at any worker; here they wait for it for a moment, to be written
together.
"""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping
from typing import Any

import orjson
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from agw_proxy.api.responses import PATH
from agw_proxy.api.runs import Row, Tree, ended, in_background, obituary
from agw_proxy.edge.behind import Serve
from agw_proxy.edge.canonical import digest
from agw_proxy.edge.exchange import Behind
from agw_proxy.edge.full_lane import BEHIND
from agw_proxy.edge.headers import PRINTABLE, named_by_connection
from agw_proxy.edge.heartbeat import SILENT
from agw_proxy.edge.idempotency import HEADER
from agw_proxy.edge.inner import in_process
from agw_proxy.edge.ongoing import Live
from agw_proxy.edge.respond import error_tree
from agw_proxy.edge.turn import LAST, OF_THE_UPGRADE, Frames, reported
from agw_proxy.errors import (
    BodyTooLarge,
    GatewayError,
    IdempotencyConflict,
    InternalError,
    InvalidJSON,
    InvalidParameter,
    Overloaded,
    RateLimited,
    StoreUnavailable,
    UpstreamBroken,
    UpstreamInvalid,
)
from agw_proxy.store.responses_file import Missing, StoreAway
from agw_proxy.store.runs import Begun, Kept, Once, Runs
from agw_proxy.types import Principal

WRITE_SECONDS = 0.04  # between two writings: what comes meanwhile goes together
AGAIN_SECONDS = 1.0  # until the file is tried again that could not be written
WISH_SECONDS = 0.5  # between two looks whether another worker was asked to cancel one
CLOSE_SECONDS = 3.0  # for the last words of all runs
STOPPED = {"code": "gateway_draining", "message": "The gateway was shut down while this run was under way."}
TOLD_BY_US = frozenset({"response.created", "response.queued"})


def written(row: Kept, now: int) -> tuple[bytes, bytes, bytes]:
    """See ``store.runs.Obituary``."""
    return obituary(Row(*row), now)


class BegunBefore(Exception):
    """The run was asked for before, under the same ``Idempotency-Key``: ``seed`` is its own."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self.seed = seed


class Desk:
    """All runs of this worker, and the file of those of all workers."""

    def __init__(self, store: Runs, most: int, most_bytes: int) -> None:
        """``most``: runs at a time. ``most_bytes``: of the events of one."""
        self.store = store
        self._most, self._most_bytes = most, most_bytes
        self._live: dict[str, Live] = {}
        self._work: asyncio.Task[None] | None = None
        self._beside: set[asyncio.Task[object]] = set()
        self._dirty = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None

    def live(self, what: str) -> Live | None:
        """The run of that seed, where it is under way here."""
        return self._live.get(what)

    async def begin(self, serve: Serve, origin: web.BaseRequest, principal: Principal, asked: Tree) -> Live:
        """Have ``asked`` answered in the background, in the name of who has made the request ``origin``.

        Comes back once nothing of the gateway's own refuses it. Raises what does, Overloaded, BodyTooLarge, StoreUnavailable, BegunBefore.
        """
        if len(self._live) >= self._most or self._closing is not None:
            raise Overloaded(
                f"{self._most} runs are under way here, and no more are taken (runs.concurrent).", retry_after_ms=1000
            )
        try:
            live = Live(principal, asked, self._most_bytes)
            body = orjson.dumps({**asked, "stream": True})
        except orjson.JSONEncodeError:  # it takes deeper trees in than it gives out
            raise InvalidJSON("The body is nested too deeply.") from None
        if live.full:
            raise BodyTooLarge("What a run repeats of its request is more than is kept of one (runs.max_run_mb).")
        await self._write_down(live, once_of(origin, principal, body))
        admitted = asyncio.Event()
        frames = Frames(lambda event: self._event(live, event), None, lambda *_: None)
        live.items = frames.items
        loop = asyncio.get_running_loop()
        live.task = loop.create_task(self._run(serve, headers_of(origin), live, body, frames, admitted))
        live.task.add_done_callback(lambda _: self._end(live, frames))  # also where it never came to run
        if self._work is None or self._work.done():
            self._work = loop.create_task(self._write())
        await self._admitted(live, live.task, admitted)
        return live

    async def _write_down(self, live: Live, once: Once | None) -> None:
        """Before it begins: then whatever becomes of it can be told. Raises StoreUnavailable, BegunBefore."""
        said = live.take()
        if said is None:
            raise ValueError("a run begins with an event")
        self._live[live.seed] = live
        try:
            owner, key = live.principal.owner, live.principal.name
            row = Begun(live.seed, owner, key, live.model, said.head or b"", said.last, said.body, once)
            before = await self.store.begin(row)
        except BaseException as error:
            del self._live[live.seed]
            if isinstance(error, StoreAway):
                raise StoreUnavailable("The run could not be written down, and was not begun.") from None
            self._later(self._forget(live))  # who has asked has gone; it may be in the file all the same
            raise
        if before is not None and once is not None:
            del self._live[live.seed]
            if before[1] != once.asked:
                raise IdempotencyConflict(f"Another request came with this {HEADER} before.")
            raise BegunBefore(before[0])

    async def _admitted(self, live: Live, task: "asyncio.Task[None]", admitted: asyncio.Event) -> None:
        """Wait until it is; one that is refused leaves nothing behind. Raises what refuses it."""
        waiter = asyncio.get_running_loop().create_task(admitted.wait())
        try:
            await asyncio.wait({waiter, task}, return_when=asyncio.FIRST_COMPLETED)
            if admitted.is_set():
                return
            if await self._forget(live):  # else its end is written down, like any other's
                self._live.pop(live.seed, None)
            refused = live.exchange.error if live.exchange is not None else None
            if isinstance(refused, RateLimited):
                del refused.rule  # which the run's own Receipt has counted
            raise refused or InternalError("The run has ended before it began.")
        except asyncio.CancelledError:
            self.cancel(live)  # nobody knows of it; who asks again begins another one
            self._later(self._forget(live))
            raise
        finally:
            waiter.cancel()

    async def _forget(self, live: Live) -> bool:
        """Whether it is in the file no more."""
        try:
            with contextlib.suppress(Missing):
                await self.store.forget(None, live.seed)
        except StoreAway:
            return False
        return True

    def _later(self, work: Coroutine[None, None, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def cancel(self, live: Live) -> None:
        """End it, where it has not ended."""
        if live.ended is None:
            live.cancelled = True
            if live.task is not None:
                live.task.cancel()

    async def close(self) -> None:
        """End what has not ended, and write down how all have ended: once, however often it is asked for."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for live in self._live.values():
            if live.task is not None:
                live.task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                for live in list(self._live.values()):
                    await live.over.wait()
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self.store.close()

    # -- a run

    async def _run(
        self,
        serve: Serve,
        headers: "CIMultiDict[str]",
        live: Live,
        body: bytes,
        frames: Frames,
        admitted: asyncio.Event,
    ) -> None:
        """From its request to its end. What cancels it is the run's end, and nobody else's."""
        headers["x-request-id"] = f"run_{live.seed}"
        headers["Content-Length"] = str(len(body))
        request = in_process(frames, "POST", PATH, headers, body)
        request[SILENT] = True
        request[BEHIND] = Behind(live.seed, admitted.set)
        try:
            response = await serve(request)
            live.failure = _outcome(response, frames)
        except asyncio.CancelledError:
            live.failure = dict(STOPPED)
        except ConnectionError:
            live.failure = told_of(UpstreamInvalid("The upstream sent what is no stream of events."))
        except Exception:  # noqa: BLE001  a defect, of which the handler has told the log
            live.failure = told_of(InternalError("The gateway failed within an answer."))

    def _end(self, live: Live, frames: Frames) -> None:
        """Its last event, of the answer's own telling or of ours."""
        now = int(time.time())
        live.exchange, frames.exchange = frames.exchange, None
        kind = "response.failed"
        if live.finish is not None:
            kind, live.head = live.finish
            live.status = kind.removeprefix("response.")
            live.error = _short(live.head.get("error") or {}) if live.status == "failed" else None
            live.head = {**live.head, "completed_at": live.head.get("completed_at") or now}
        else:
            live.status = "cancelled" if live.cancelled and live.why is None else "failed"
            if live.status == "failed":
                live.error = told_of(live.why) if live.why is not None else live.failure or dict(STOPPED)
            live.head = ended(live.head, live.status, live.error, () if live.full else live.items, now)
        live.ended = now
        live.add(kind, {"response": live.head}, last=True)
        self._dirty.set()

    async def _event(self, live: Live, data: bytes) -> None:
        """An event of the answer. Raises ConnectionResetError where no more of it can be kept."""
        try:
            tree = orjson.loads(data)
        except orjson.JSONDecodeError:
            return
        kind = tree.pop("type", None) if isinstance(tree, dict) else None
        if not isinstance(kind, str) or live.finish is not None:
            return
        try:
            self._note(live, kind, tree)
        except orjson.JSONEncodeError:  # it takes deeper trees in than it gives out
            live.why = UpstreamInvalid("The upstream sent an event that is nested too deeply.")
            raise ConnectionResetError("an event is too deep") from None
        if live.full:
            live.why = UpstreamBroken(
                f"The run has more than {self._most_bytes / (1 << 20):g} MiB of events, and was ended (runs.max_run_mb)."
            )
            raise ConnectionResetError("too many events")
        try:
            await live.room()
        except TimeoutError:
            live.why = StoreUnavailable("The events of the run could not be written down, and it was ended.")
            raise ConnectionResetError("the file is away") from None

    def _note(self, live: Live, kind: str, tree: Tree) -> None:
        """What an event says of its run. Raises JSONEncodeError, and nothing has been noted."""
        response = tree.get("response")
        if isinstance(response, dict):
            told = {**response, **in_background(live.seed), "store": True, "created_at": live.head["created_at"]}
            size = len(orjson.dumps(told))
            if kind in LAST:  # told when it is accounted for, too
                if live.holds(size):
                    live.finish = kind, {**told, "output": told.get("output") or list(live.items)}
                return
            live.head = tree["response"] = told
        if live.begun is None:
            live.status, live.begun = "in_progress", int(time.time())
        if kind in TOLD_BY_US or kind in LAST:
            return
        live.add(kind, tree)
        self._dirty.set()

    # -- the file

    async def _write(self) -> None:
        """Write what is new, and look for wishes of other workers, while there are runs."""
        looked = time.monotonic()
        while self._live:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WISH_SECONDS):
                    await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._write_news()
                if time.monotonic() - looked >= WISH_SECONDS:
                    looked = time.monotonic()
                    there = [live for live in self._live.values() if live.task is not None]  # written down by now
                    going_on = await self.store.going_on()
                    for live in there:
                        if live.seed not in going_on:
                            self.cancel(live)
            except StoreAway:
                await asyncio.sleep(AGAIN_SECONDS)
                self._dirty.set()
            else:
                await asyncio.sleep(WRITE_SECONDS)

    async def _write_news(self) -> None:
        said = [(live, each) for live in self._live.values() if (each := live.take()) is not None]
        if not said:
            return
        try:
            await self.store.say([each for _, each in said])
        except BaseException:
            for live, each in said:
                live.give_back(each)
            raise
        for live, each in said:
            live.told()
            if each.ended is not None:
                live.over.set()
                self._live.pop(live.seed, None)


def once_of(origin: web.BaseRequest, principal: Principal, body: bytes) -> Once | None:
    """What makes a request that comes again the same one; None: nothing. Raises InvalidParameter."""
    words = origin.headers.getall(HEADER, ())
    if not words:
        return None
    if len(words) > 1 or PRINTABLE.fullmatch(words[0]) is None:
        raise InvalidParameter(f"The header {HEADER} is one key of 1 to 256 printable characters.", param=HEADER)
    return Once(digest(principal.name.encode(), origin.path.encode(), words[0].encode()), digest(body))


def headers_of(origin: web.BaseRequest) -> "CIMultiDict[str]":
    """What of the headers of the request that begins a run is the run's own, too."""
    without = OF_THE_UPGRADE | named_by_connection(CIMultiDictProxy(CIMultiDict(origin.headers)))
    kept: CIMultiDict[str] = CIMultiDict(
        (name, value) for name, value in origin.headers.items() if name.lower() not in without
    )
    kept["Accept"] = "text/event-stream"
    kept["Content-Type"] = "application/json"
    return kept


def told_of(error: GatewayError) -> Tree:
    """An error as ``/runs`` tells it."""
    tree = error_tree(error, "openai", "")["error"]
    return _short(tree if isinstance(tree, dict) else {})


def _short(error: Mapping[str, Any]) -> Tree:
    return {"code": error.get("code") or "server_error", "message": error.get("message") or "The run failed."}


def _outcome(response: web.StreamResponse, frames: Frames) -> Tree | None:
    """Why it has failed; None: it has told its end itself, or should have."""
    if isinstance(response, web.Response):
        told = response.body if isinstance(response.body, bytes) else b""
        return _short(reported(told))
    if frames.failed is not None:
        return _short(reported(frames.failed))
    if frames.streams:
        return told_of(UpstreamBroken("The answer ended before it was whole."))
    return told_of(UpstreamInvalid("The upstream was asked for a stream, and answered with none."))
