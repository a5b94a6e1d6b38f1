"""An upstream over HTTP whose exchanges are recorded: it asks like any other, and hands each exchange on when it ends.

What is recorded is what goes over the wire to the upstream and comes from it, before any translation of the answer.
"""

import re
import time
from collections.abc import AsyncIterator
from typing import Protocol
from urllib.parse import parse_qsl, urlencode

import msgspec

from agw_proxy._hot.route import Target
from agw_proxy.config.resilience import Timeouts
from agw_proxy.config.settings import Upstream as UpstreamSettings
from agw_proxy.errors import UpstreamError
from agw_proxy.tape import Draft, End
from agw_proxy.types import Call, RawHeaders, Reply
from agw_proxy.upstreams.http import Cloud, HttpUpstream, placed
from agw_proxy.upstreams.keyring import Keyring
from agw_proxy.upstreams.queue import Places
from agw_proxy.upstreams.unwrapped import lost_by

CREDENTIAL = re.compile(
    r"(?:.*[-_])?(?:authorization|cookie2?|token|secret|password|credentials?|(?:api|agw|goog|access)[-_]?key)", re.IGNORECASE
)  # fmt: skip
"""Names of headers that are not recorded."""
QUERIED = frozenset({"key", "api_key", "api-key", "apikey", "access_token", "token", "sig", "signature", "code"})
"""Members of a query whose values are not."""
CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
HIDDEN = "***"
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
        """See ``types.Upstream``."""
        draft = self._draft(target, placed(self._settings, target, call))
        body = call.body
        if isinstance(body, bytes):
            _note(draft, self._keeper, body)
        elif body is not None:
            call = msgspec.structs.replace(call, body=_heard(body, draft, self._keeper))
        begun = time.monotonic_ns()
        try:
            reply = await super().open(target, call)
        except BaseException:
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
            query=_shown(call.query),
            headers=[
                (name, value)
                for name, value in [*sent, *own, ("x-request-id", call.request_id)]
                if not _is_credential(name)
            ],
            secrets=tuple(value for value in passed if len(value) >= SECRET_CHARACTERS),
        )
        if _encoded(draft.headers):
            draft.body_end = "encoded"
        return draft


class TapedReply:
    """A Reply that hears what is read of it."""

    def __init__(self, reply: Reply, draft: Draft, keeper: Keeper) -> None:
        """``draft``: of this exchange, with its request."""
        self._reply, self._draft, self._keeper = reply, draft, keeper
        self.dropped = lost_by(reply)
        self._begun = time.monotonic_ns()
        self._open = True
        draft.status = reply.status
        draft.answer_headers = [
            (plain, value.decode("utf-8", "replace"))
            for name, value in reply.headers
            if not _is_credential(plain := name.decode("ascii", "replace")) and plain.lower() not in CONNECTION
        ]
        if _encoded(draft.answer_headers):
            draft.end = "encoded"

    @property
    def status(self) -> int:
        """See ``types.Reply``."""
        return self._reply.status

    @property
    def headers(self) -> RawHeaders:
        """See ``types.Reply``."""
        return self._reply.headers

    @property
    def connect_ms(self) -> float:
        """See ``types.Reply``."""
        return self._reply.connect_ms

    @property
    def ended(self) -> bool:
        """See ``types.Reply``."""
        return self._reply.ended

    @property
    def began_ns(self) -> int:
        """See ``types.Reply``."""
        return self._reply.began_ns

    async def read(self, *, progress: bool = True) -> bytes:
        """See ``types.Reply``."""
        try:
            chunk = await self._reply.read(progress=progress)
        except UpstreamError:
            self._end("broken")
            raise
        if chunk and self._open and self._draft.end == "left":
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
        self._reply.close()
        self._end("left")

    def _end(self, how: End) -> None:
        """The first time only. What was cut before stays so."""
        if not self._open:
            return
        self._open = False
        if self._draft.end == "left":
            self._draft.end = how
        self._keeper.keep(self._draft)


async def _heard(body: AsyncIterator[bytes], draft: Draft, keeper: Keeper) -> AsyncIterator[bytes]:
    async for portion in body:
        _note(draft, keeper, portion)
        yield portion


def _note(draft: Draft, keeper: Keeper, portion: bytes) -> None:
    """A portion of the request's body."""
    if draft.body_end != "whole":
        return
    cut = keeper.hold(draft, len(portion))
    if cut is None:
        draft.body.append(portion)
    else:
        draft.body_end = cut


def _is_credential(name: str) -> bool:
    return CREDENTIAL.fullmatch(name) is not None


def _encoded(headers: list[tuple[str, str]]) -> bool:
    """The body is compressed: a secret could hide in it."""
    return any(name.lower() == "content-encoding" and value.strip().lower() != "identity" for name, value in headers)


def _shown(query: str) -> str:
    """A query without the values that are credentials; as it came where it has none."""
    fields = parse_qsl(query, keep_blank_values=True)
    if not any(name.lower() in QUERIED for name, _ in fields):
        return query
    return urlencode([(name, HIDDEN if name.lower() in QUERIED else value) for name, value in fields], safe="*")
