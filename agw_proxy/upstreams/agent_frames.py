"""What goes between a worker that relays and one that runs agents: one connection a run, frames either way.

A frame is a byte for its kind, four bytes for its length, and so many bytes. The relaying worker sends one: what is
wanted. The other one sends SENT when the run has begun, then HEAD, any number of DATA, and as the last one LAST or
ERROR. Whoever wants no more closes the connection, and one that closes without a last frame has ended in the midst.
"""

import asyncio
import struct
from collections.abc import Mapping
from typing import Any

import msgspec

from agw_proxy.errors import CODES, GatewayError, InternalError
from agw_proxy.spans import CURRENT
from agw_proxy.states import AgentState
from agw_proxy.types import Call, RawHeaders

HEAD_FORMAT = struct.Struct("!BI")
SENT, HEAD, DATA, LAST, ERROR = range(1, 6)
PLAIN = (str, int, float, bool, type(None))


class Wanted(msgspec.Struct, frozen=True, tag="run"):
    """A run. Of the caller only the key's name goes along: both workers have the same keys."""

    agent: str
    method: str
    path: str
    body: bytes | None
    request_id: str
    key: str | None
    session: str | None
    trace: str | None
    user: str | None
    channel: str | None
    counted: int
    """The session that its model calls count under; 0: none."""
    stored: tuple[str, Mapping[str, Any], bool, str] | None
    """``types.Stored``: its id, ``told``, whether what was kept stands in the body, and its thread."""
    traceparent: str | None = None
    """Of the span that is under way where it was asked for; None where nothing is traced."""


class Look(msgspec.Struct, frozen=True, tag="look"):
    """Which agents there are. Answered with ``Known``, as a LAST frame."""


class Known(msgspec.Struct, frozen=True):
    """The agents of one worker. ``longest_seconds``: see ``services.AgentUpstream``."""

    ids: tuple[str, ...]
    longest_seconds: float
    states: tuple[AgentState, ...]


class Sent(msgspec.Struct, frozen=True):
    """``waited``: nanoseconds for a place at the agent."""

    waited: int


class Head(msgspec.Struct, frozen=True):
    """Of an answer."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    dropped: tuple[str, ...]


class Raised(msgspec.Struct, frozen=True):
    """A GatewayError: its code, and what is plain of its attributes."""

    code: str
    told: Mapping[str, str | int | float | bool | None]


_FIRST: msgspec.msgpack.Decoder[Wanted | Look] = msgspec.msgpack.Decoder(Wanted | Look)
_ENCODER = msgspec.msgpack.Encoder()


def frame(kind: int, data: bytes) -> bytes:
    """The bytes of a frame."""
    return HEAD_FORMAT.pack(kind, len(data)) + data


def packed(record: msgspec.Struct) -> bytes:
    """What ``unpacked`` reads."""
    return _ENCODER.encode(record)


def unpacked(data: bytes, kind: type[msgspec.Struct]) -> Any:
    """A record of that kind."""
    return msgspec.msgpack.decode(data, type=kind)


def first_of(data: bytes) -> Wanted | Look:
    """What a relaying worker wants."""
    return _FIRST.decode(data)


class Frames:
    """Reads frames. A read that is cancelled loses nothing."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._head: tuple[int, int] | None = None

    async def next(self) -> tuple[int, bytes]:
        """The kind and the data of the next one. Raises EOFError (or ConnectionError) where none comes any more."""
        if self._head is None:
            self._head = HEAD_FORMAT.unpack(await self._reader.readexactly(HEAD_FORMAT.size))
        data = await self._reader.readexactly(self._head[1])
        kind, self._head = self._head[0], None
        return kind, data


def wanted_of(agent: str, call: Call, counted: int) -> Wanted:
    """The call as it is sent. ``counted``: see ``Wanted``."""
    caller = call.caller
    principal = caller.principal if caller is not None else None
    stored, span = call.stored, CURRENT.get()
    return Wanted(
        agent,
        call.method,
        call.path,
        call.body if isinstance(call.body, bytes) else None,
        call.request_id,
        principal.name if principal is not None else None,
        caller.session if caller is not None else None,
        caller.trace if caller is not None else None,
        caller.user if caller is not None else None,
        caller.channel if caller is not None else None,
        counted,
        (stored.id, stored.told, stored.plain is not None, stored.thread) if stored is not None else None,
        span.traceparent if span is not None else None,
    )


def head_of(status: int, headers: RawHeaders, dropped: tuple[str, ...]) -> Head:
    """The record of an answer's head."""
    return Head(status, tuple((bytes(name), bytes(value)) for name, value in headers), dropped)


def raised(error: GatewayError) -> Raised:
    """The record of an error."""
    told = {name: value for name, value in vars(error).items() if isinstance(value, PLAIN)}
    return Raised(error.code, told)


def error_of(record: Raised) -> GatewayError:
    """The error again: of the same class, with what is plain of its attributes."""
    kind = CODES.get(record.code, InternalError)
    error = kind.__new__(kind)
    GatewayError.__init__(error, str(record.told.get("message", "")))
    vars(error).update(record.told)
    return error
