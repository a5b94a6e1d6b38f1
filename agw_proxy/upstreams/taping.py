"""An upstream over HTTP whose exchanges are recorded: it asks like any other, and hands each exchange on when it ends.

What is recorded is what goes over the wire to the upstream and comes from it, before any translation of the answer.
"""

import time
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from agw_proxy._hot.route import Target
from agw_proxy.config.resilience import Timeouts
from agw_proxy.config.settings import Upstream as UpstreamSettings
from agw_proxy.errors import UpstreamError
from agw_proxy.tape import HIDDEN, Draft, End, is_credential, shown_query
from agw_proxy.types import Call, Reply
from agw_proxy.upstreams.http import Cloud, HttpUpstream, placed
from agw_proxy.upstreams.keyring import Keyring
from agw_proxy.upstreams.passing import PassedOn
from agw_proxy.upstreams.queue import Places
from agw_proxy.upstreams.unwrapped import lost_by

CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
SECRET_CHARACTERS = 8  # a shorter value is no secret


class Keeper(Protocol):
    """Where exchanges are kept. All of it returns at once."""

    def hold(self, draft: Draft, size: int) -> End | None:
        """Room for so many bytes more of an exchange; gives why there is none."""
        ...

    def drop(self, draft: Draft) -> None:
        """It was no exchange: there is no answer."""
        ...

    def keep(self, draft: Draft) -> None:
        """It has ended."""
        ...


class Taped(HttpUpstream):
    """Records what has got an answer; what has not is in the log alone."""

    def __init__(
        self,
        settings: UpstreamSettings,
        timeouts: Timeouts,
        keys: Keyring | None,
        places: Places | None,
        keeper: Keeper,
        cloud: Cloud | None = None,
    ) -> None:
        """See ``HttpUpstream``. What a cloud wraps is recorded as it is without."""
        super().__init__(settings, timeouts, keys, places, cloud)
        self._keeper = keeper
        self._extra = settings.headers

    async def open(self, target: Target, call: Call) -> Reply:
        """See ``types.Upstream``. A WebSocket is none of what is recorded."""
        if call.upgrade is not None:
            return await super().open(target, call)
        await self._ready()  # what the first one of all has to wait for is not the upstream's time
        draft = self._draft(target, placed(self._settings, target, call))
        body = call.body
        if isinstance(body, bytes):
            _note(draft, self._keeper, body)
        elif body is not None:
            draft.body_end = draft.body_end if draft.body_end == "encoded" else "left"  # until all of it has gone
            call = msgspec.structs.replace(call, body=_heard(body, draft, self._keeper))
        begun = time.monotonic_ns()
        try:
            reply = await super().open(target, call)
        except BaseException:
            draft.over = True
            self._keeper.drop(draft)
            raise
        draft.head_ms = (time.monotonic_ns() - (reply.began_ns or begun)) / 1e6
        return TapedReply(reply, draft, self._keeper)

    def _draft(self, target: Target, call: Call) -> Draft:
        sent = [
            (name, value) for name, value in call.headers if name.lower() not in {key.lower() for key in self._extra}
        ]
        own = [(name, HIDDEN) for name in self._extra]  # a setting's value may be a secret, whatever its name
        passed = [value.rpartition(" ")[2] for _, value in call.own_credentials or ()]
        draft = Draft(
            at_ns=time.time_ns(),
            upstream=self.name,
            dialect=self.dialect,
            target=target.name,
            model=target.model,
            method=call.method,
            path=call.path,
            query=shown_query(call.query),
            headers=[
                (name, value)
                for name, value in [*sent, *own, ("x-request-id", call.request_id)]
                if not is_credential(name)
            ],
            secrets=tuple(value for value in passed if len(value) >= SECRET_CHARACTERS),
        )
        if _encoded(draft.headers):
            draft.body_end = "encoded"
        return draft


class TapedReply(PassedOn):
    """A Reply that hears what is read of it."""

    def __init__(self, reply: Reply, draft: Draft, keeper: Keeper) -> None:
        """``draft``: of this exchange, with its request."""
        super().__init__(reply)
        self._draft, self._keeper = draft, keeper
        self.dropped = lost_by(reply)
        self._begun = time.monotonic_ns()
        draft.status = reply.status
        draft.answer_headers = [
            (plain, value.decode("utf-8", "replace"))
            for name, value in reply.headers
            if not is_credential(plain := name.decode("ascii", "replace")) and plain.lower() not in CONNECTION
        ]
        if _encoded(draft.answer_headers):
            draft.end = "encoded"

    async def read(self, *, progress: bool = True) -> bytes:
        """See ``types.Reply``."""
        try:
            chunk = await super().read(progress=progress)
        except UpstreamError:
            self._end("broken")
            raise
        if chunk and not self._draft.over and self._draft.end == "left":
            cut = self._keeper.hold(self._draft, len(chunk))
            if cut is None:
                self._draft.pieces.append(((time.monotonic_ns() - self._begun) / 1e6, chunk))
            else:
                self._draft.end = cut
        if self._reply.ended:
            self._end("whole")
        return chunk

    def close(self) -> None:
        """See ``types.Reply``."""
        super().close()
        self._end("left")

    def _end(self, how: End) -> None:
        """The first time only. What was cut before stays so."""
        if self._draft.over:
            return
        if self._draft.end == "left":
            self._draft.end = how
        self._draft.over = True
        self._keeper.keep(self._draft)


async def _heard(body: AsyncIterator[bytes], draft: Draft, keeper: Keeper) -> AsyncIterator[bytes]:
    async for portion in body:
        _note(draft, keeper, portion)
        yield portion
    if draft.body_end == "left" and not draft.over:
        draft.body_end = "whole"


def _note(draft: Draft, keeper: Keeper, portion: bytes) -> None:
    """A portion of the request's body; after the answer's end nobody keeps it any more."""
    if draft.over or draft.body_end not in {"whole", "left"}:
        return
    cut = keeper.hold(draft, len(portion))
    if cut is None:
        draft.body.append(portion)
    else:
        draft.body_end = cut


def _encoded(headers: list[tuple[str, str]]) -> bool:
    """The body is compressed: a secret could hide in it."""
    return any(name.lower() == "content-encoding" and value.strip().lower() != "identity" for name, value in headers)
