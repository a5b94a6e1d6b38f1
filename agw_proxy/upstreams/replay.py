"""An upstream in this process that gives recorded answers: to the same request the same bytes, in their own time.

Where a request was recorded several times its answers come in that order, and then again from the first.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from agw_proxy import tape
from agw_proxy._hot.route import Target
from agw_proxy.config.settings import Upstream as UpstreamSettings
from agw_proxy.config.values import Dialect
from agw_proxy.errors import UpstreamBroken, UpstreamRejected, UpstreamReset
from agw_proxy.types import Call, RawHeaders
from agw_proxy.upstreams.http import placed
from agw_proxy.upstreams.recordings import Entry, Recordings, load

MAX_BODY_BYTES = 16 << 20  # of a request that is compared: longer ones are not recorded whole
LONG_BODY_BYTES = 64 << 10  # to compare a longer one takes a while, and the loop does not wait for it
SHOWN_MEMBERS = 8  # of a body, by their names
SHOWN_CHARACTERS = 200  # of a path or a model's name in a message
T = TypeVar("T")


class Replay:
    """One upstream with ``replay``. The folder is read at its first call, and looked through again for what is not found."""

    def __init__(self, settings: UpstreamSettings, folder: Path) -> None:
        """``settings.replay_speed``: 2 is twice as fast as recorded, 0 at once. Raises ValueError: there is no such folder."""
        if not folder.is_dir():
            raise ValueError(f"upstream '{settings.name}': there is no folder {folder} with recordings to replay")
        self.name = settings.name
        self.dialect: Dialect = settings.dialect
        self._settings = settings
        self._speed = settings.replay_speed
        self._recordings = Recordings(folder)
        self._looking = asyncio.Lock()
        self._looked = False
        self._turns: dict[tuple[bytes, str | None], int] = {}

    async def open(self, target: Target, call: Call) -> "Replayed":
        """See ``types.Upstream``. Raises UpstreamRejected (404) where the request was not recorded."""
        call = placed(self._settings, target, call)
        body = await _whole(call)
        if call.on_sent is not None:
            call.on_sent()
        kind = tape.kind_of(call.headers)
        if len(body) > LONG_BODY_BYTES:
            found = await _aside(lambda: tape.identity(call.method, call.path, kind, body))
        else:
            found = tape.identity(call.method, call.path, kind, body)
        answer, pieces = await self._next(target, call, found, body)
        await asyncio.sleep(self._wait(answer.head_ms))
        return Replayed(self.name, answer, pieces, self._speed)

    async def close(self) -> None:
        """Nothing is open."""

    async def _next(
        self, target: Target, call: Call, found: bytes, body: bytes
    ) -> tuple[tape.Told, Sequence[tuple[float, bytes]]]:
        """The answer whose turn it is; a recording that has gone has none. Raises UpstreamRejected, UpstreamReset."""
        query = tape.shown_query(call.query)
        while entries := await self._find(found, query):
            ring = found, query if entries[0].query == query else None  # what callers may write there has no bound
            turn = self._turns.get(ring, 0)
            entry = entries[turn % len(entries)]
            self._turns[ring] = turn + 1
            try:
                return await _aside(partial(load, entry))
            except FileNotFoundError:
                self._recordings.forget(found, entry)
                self._turns[ring] -= 1  # the one behind it has its place now
            except (OSError, ValueError):
                raise UpstreamReset(
                    f"Upstream '{self.name}': the recording of this request can no longer be read."
                ) from None
        asked = call.method, call.path, target.model
        differing = await _aside(lambda: self._recordings.differing(*asked, body))
        raise self._unknown(target, call, differing)

    async def _find(self, found: bytes, query: str) -> list[Entry]:
        entries = self._recordings.find(found, query) if self._looked else []
        if entries:
            return entries
        async with self._looking:  # it may have been recorded since the last look
            try:
                await _aside(self._recordings.look)
            except OSError as error:
                raise UpstreamReset(
                    f"Upstream '{self.name}': its recordings cannot be read ({error.strerror})."
                ) from None
            self._looked = True
            return self._recordings.find(found, query)

    def _wait(self, ms: float) -> float:
        """Seconds instead of so many recorded milliseconds."""
        return ms / 1000 / self._speed if self._speed else 0.0

    def _unknown(self, target: Target, call: Call, differing: Sequence[str]) -> UpstreamRejected:
        """What it is and what comes nearest; never what was in it."""
        asked = f"{call.method} {_short(call.path)}"
        near = self._recordings.nearest(call.method, call.path, target.model)
        if near is None:
            hint = "Nothing is recorded there at all."
        elif (near.method, near.path, near.model) == (call.method, call.path, target.model):
            hint = "Others of this path and model are recorded: the body is another one."
            if differing:
                named = [f"'{_short(name)}'" for name in differing[:SHOWN_MEMBERS]]
                more = f" and {len(differing) - SHOWN_MEMBERS} more" if len(differing) > SHOWN_MEMBERS else ""
                hint += f" The most alike differs in {', '.join(named)}{more}."
        else:
            hint = f"The nearest one is {near.method} {_short(near.path)} with the model '{_short(near.model)}'."
        if self._recordings.unreadable:
            hint += f" {self._recordings.unreadable} of the files are no recordings."
        return UpstreamRejected(
            f"Upstream '{self.name}' has no recording of {asked} with the model '{_short(target.model)}' and this body. {hint}",
            status=404,
        )


class Replayed:
    """A Reply. Times count from the head on, so that a slow reader is not given the time twice."""

    connect_ms: float = 0.0
    began_ns: int = 0

    def __init__(self, name: str, answer: tape.Told, pieces: Sequence[tuple[float, bytes]], speed: float) -> None:
        """``speed``: 0 is at once."""
        self.status: int = answer.status
        self.headers: RawHeaders = [
            (key.encode("ascii", "replace"), value.encode("utf-8", "replace")) for key, value in answer.headers
        ]
        self.ended: bool = False
        self._name, self._end, self._speed = name, answer.end, speed
        self._pieces = pieces
        self._next = 0
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.time()
        self._closed = False

    async def read(self, *, progress: bool = True) -> bytes:  # noqa: ARG002 - its silence is the recorded one
        """See ``types.Reply``. Raises UpstreamBroken where the recorded answer broke off, or ends before its end."""
        if self.ended:
            return b""
        if self._closed:
            raise UpstreamBroken(f"Upstream '{self._name}': the reply was closed before its end.")
        if self._next < len(self._pieces):
            ms, data = self._pieces[self._next]
            due = self._begun + ms / 1000 / self._speed if self._speed else 0.0
            await asyncio.sleep(max(due - self._loop.time(), 0.0))
            self._next += 1  # behind the wait: a read that is cancelled loses nothing
        elif self._end == "whole":
            data = b""
        elif self._end == "broken":
            raise UpstreamBroken(f"Upstream '{self._name}' broke its answer off when it was recorded.")
        else:
            raise UpstreamBroken(f"Upstream '{self._name}': the recording ends before the answer does ({self._end}).")
        self.ended = self._next >= len(self._pieces) and self._end == "whole"
        return data

    def close(self) -> None:
        """Drop what was not read."""
        self._closed = True
        self._pieces = ()
        self._next = 0


async def _whole(call: Call) -> bytes:
    """The request's body. Raises UpstreamRejected where it is too long to have been recorded."""
    body = call.body
    if body is None or isinstance(body, bytes):
        return body or b""
    taken = bytearray()
    async for portion in body:
        taken += portion
        if len(taken) > MAX_BODY_BYTES:
            raise UpstreamRejected(f"No request over {MAX_BODY_BYTES >> 20} MiB is recorded, or replayed.", status=404)
    return bytes(taken)


async def _aside(work: Callable[[], T]) -> T:
    """Off the loop."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
