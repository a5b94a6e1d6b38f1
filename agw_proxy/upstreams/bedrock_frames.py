"""Amazon's event stream, read as server-sent events.

A message is a prelude (its length, its headers' length, their checksum), headers, payload and a checksum (Amazon
documentation, "Event stream encoding"; Bedrock API reference, "InvokeModelWithResponseStream"). botocore takes them apart
and proves the checksums.
"""

import base64
import binascii
import struct
from typing import Any, Protocol

import orjson
from botocore.eventstream import EventStreamBuffer, EventStreamMessage, ParserError

from agw_proxy.errors import UpstreamBroken
from agw_proxy.upstreams.bedrock_faults import fault_of
from agw_proxy.upstreams.http import Sent
from agw_proxy.upstreams.messages_elsewhere import fault
from agw_proxy.upstreams.unwrapped import Unwrapped

PRELUDE_BYTES = 12
LEAST_BYTES = PRELUDE_BYTES + 4
MAX_MESSAGE_BYTES = 24 * 1024 * 1024  # base64 of the longest event that the gateway takes (16 MB), and its frame
_MALFORMED = (ParserError, struct.error, IndexError, KeyError, UnicodeDecodeError)
"""What botocore raises for messages that are none."""


class MalformedFrame(Exception):
    """The bytes are no event stream."""


class Frames:
    """Takes messages out of bytes, cut anywhere. Never holds more than one unfinished message."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._begun: EventStreamBuffer | None = None
        self._length = 0

    def feed(self, data: bytes) -> list[EventStreamMessage]:
        """The messages that are whole now. Raises MalformedFrame."""
        self._held += data
        found = []
        try:
            while (begun := self._next()) is not None and len(self._held) >= self._length:
                begun.add_data(bytes(self._held[PRELUDE_BYTES : self._length]))
                found.append(next(begun))
                del self._held[: self._length]
                self._begun = None
        except StopIteration:
            raise MalformedFrame("its lengths contradict each other") from None
        except _MALFORMED as error:
            raise MalformedFrame(type(error).__name__) from None
        return found

    def _next(self) -> EventStreamBuffer | None:
        """The next message, once its prelude is here and proven, so that its length can be waited for."""
        if self._begun is None and len(self._held) >= PRELUDE_BYTES:
            begun = EventStreamBuffer()
            begun.add_data(bytes(self._held[:PRELUDE_BYTES]))
            next(begun, None)
            self._length = int.from_bytes(self._held[:4], "big")
            if not LEAST_BYTES <= self._length <= MAX_MESSAGE_BYTES:
                raise MalformedFrame(f"a message of {self._length} bytes")
            self._begun = begun
        return self._begun

    @property
    def unfinished(self) -> bool:
        """Some of a message is here, and its rest is not."""
        return bool(self._held)


class Told(Protocol):
    """What makes a client's events of the messages of one stream."""

    def event(self, kind: str, payload: bytes) -> bytes:
        """Of one message; ``kind``: its ``:event-type``. Empty where it says nothing to a client. Raises MalformedFrame."""
        ...

    def end(self) -> bytes:
        """The stream has ended: what is still to be said."""
        ...


class Events(Unwrapped):
    """A streamed answer."""

    def __init__(self, reply: Sent, name: str, told: Told) -> None:
        """``name``: of the upstream."""
        super().__init__(reply, reply.status, b"text/event-stream")
        self._name, self._told = name, told
        self._frames = Frames()

    async def read(self, *, progress: bool = True) -> bytes:
        """See ``types.Reply``. Raises UpstreamBroken where a message is cut or damaged."""
        made = b""
        while not (made or self.ended):
            chunk = await self._reply.read(progress=progress)
            try:
                made = b"".join([self._event(message) for message in self._frames.feed(chunk)])
            except MalformedFrame as error:
                raise UpstreamBroken(f"Upstream '{self._name}' sent what is no event stream ({error}).") from None
            if self._reply.ended and not self.ended:
                if self._frames.unfinished:
                    raise UpstreamBroken(f"Upstream '{self._name}' cut its event stream within a message.")
                self.ended = True
                made += self._told.end()
        return made

    def _event(self, message: EventStreamMessage) -> bytes:
        """A message as events. Raises MalformedFrame."""
        if self.ended:  # behind an error
            return b""
        headers: dict[str, Any] = message.headers
        kind = headers.get(":message-type", "event")
        if kind in {"exception", "error"}:
            self.ended = True
            code = headers.get(":exception-type") or headers.get(":error-code") or ""
            said = fault_of(str(code), message.payload, str(headers.get(":error-message") or ""))
            return b"event: error\ndata: " + fault(said.status, said.message) + b"\n\n"
        return self._told.event(str(headers.get(":event-type")), message.payload) if kind == "event" else b""


class Chunks:
    """Of ``InvokeModelWithResponseStream``: each message holds an event of the vendor's own form, here of Messages."""

    def event(self, kind: str, payload: bytes) -> bytes:
        """See ``Told``."""
        if kind != "chunk":
            return b""
        try:
            data = base64.b64decode(orjson.loads(payload)["bytes"], validate=True)
            tree = orjson.loads(data)
            name = tree["type"]
        except (orjson.JSONDecodeError, binascii.Error, KeyError, TypeError, ValueError):
            raise MalformedFrame("a chunk without an event") from None
        if not isinstance(name, str) or not name.isidentifier():
            raise MalformedFrame("an event without a name")
        if tree.pop("amazon-bedrock-invocationMetrics", None) is not None or b"\n" in data or b"\r" in data:
            data = orjson.dumps(tree)
        return b"event: %s\ndata: %s\n\n" % (name.encode(), data)

    def end(self) -> bytes:
        """See ``Told``: the last event was the last message's."""
        return b""
