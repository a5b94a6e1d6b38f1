"""Answers out of a cloud's wrapping: Replies around the one that came."""

from collections.abc import Callable

from agw_proxy.errors import UpstreamError, UpstreamInvalid
from agw_proxy.types import RawHeaders, Reply
from agw_proxy.upstreams.failures import MAX_ERROR_BYTES
from agw_proxy.upstreams.http import Sent

OF_THE_BODY = frozenset({b"content-type", b"content-length", b"transfer-encoding", b"content-encoding"})


class Unwrapped:
    """An answer whose body is made from another's. ``read`` is the subclass's."""

    def __init__(self, reply: Sent, status: int, content_type: bytes) -> None:
        """``reply``: as it came. ``content_type``: of the body that is made."""
        self._reply = reply
        self.status = status
        self.began_ns = 0
        self.ended = False
        self.dropped: tuple[str, ...] = ()
        """What the request has lost when it was wrapped."""
        kept = [(name, value) for name, value in reply.headers if name.lower() not in OF_THE_BODY]
        self.headers: RawHeaders = [*kept, (b"content-type", content_type)]

    @property
    def connect_ms(self) -> float:
        """See ``types.Reply``."""
        return self._reply.connect_ms

    @property
    def on_close(self) -> Callable[[], None] | None:
        """Called with the first ``close`` from now on."""
        return self._reply.on_close

    @on_close.setter
    def on_close(self, call: Callable[[], None] | None) -> None:
        self._reply.on_close = call

    def close(self) -> None:
        """See ``types.Reply``."""
        self._reply.close()


class Rewritten(Unwrapped):
    """JSON that is here whole, instead of what came."""

    def __init__(self, reply: Sent, status: int, body: bytes) -> None:
        """``reply``: has been read."""
        super().__init__(reply, status, b"application/json")
        self.headers = [*self.headers, (b"content-length", b"%d" % len(body))]
        self._body = body

    async def read(self, *, progress: bool = True) -> bytes:  # noqa: ARG002  it is all here
        """See ``types.Reply``."""
        body, self._body, self.ended = self._body, b"", True
        return body


def lost_by(reply: Reply) -> tuple[str, ...]:
    """What the request has lost when a cloud wrapped it."""
    found: tuple[str, ...] = getattr(reply, "dropped", ())
    return found


async def words_of(reply: Sent) -> bytes:
    """The body of an answer that refuses, as much of it as is for people; empty where it broke off. Ends it."""
    body = bytearray()
    try:
        while not reply.ended and len(body) <= MAX_ERROR_BYTES:
            body += await reply.read()
    except UpstreamError:
        body.clear()  # the status alone still says what happened
    finally:
        reply.close()
    return bytes(body)


async def all_of(reply: Sent, name: str, most: int) -> bytes:
    """The body of an answer. Ends it. Raises UpstreamError, also where it is longer than ``most`` bytes."""
    body = bytearray()
    try:
        while not reply.ended:
            body += await reply.read()
            if len(body) > most:
                raise UpstreamInvalid(f"Upstream '{name}' sent an answer over {most >> 10} KiB.")
    finally:
        reply.close()
    return bytes(body)
