"""The form of a request vector, and the few builders that its bytes are written with.

An end is written as the final statuses in order and then what became of the connection: ``200 open`` (it has served a
probe afterwards), ``200 400 closed``, ``closed`` (without a byte).
"""

from dataclasses import dataclass
from typing import Literal

from tests.support.gateway import APP_KEY

MARK = b"00000000"
"""Stands in every vector where its number goes; of the same length."""
HOST = b"gateway.test"
CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
STREAMED = CHAT[:-1] + b',"stream":true}'
CHAT_PATH = b"/v1/chat/completions"

BAD = ("400 closed",)
BAD_OR_GONE = ("400 closed", "closed")
SERVED = ("200 open",)
SERVED_AND_CLOSED = ("200 closed",)
LENIENT = ("200 open", "400 closed")
"""The RFC leaves it to the recipient; what it reads must be one request all the same."""
BAD_CODING = ("400 closed", "501 closed")
BAD_VERSION = ("400 closed", "505 closed")
TOO_LARGE = ("400 closed", "414 closed", "431 closed")
NOWHERE = ("400 closed", "400 open", "404 closed", "404 open")


@dataclass(frozen=True)
class Interim:
    """Wait for this 1xx before going on; the final answer in its place ends the waiting, too."""

    status: int


@dataclass(frozen=True)
class Wait:
    """Say nothing for so long."""

    seconds: float


@dataclass(frozen=True)
class Drip:
    """These bytes over and over, so far apart, until the other side has had enough."""

    data: bytes
    seconds: float


@dataclass(frozen=True)
class HalfClose:
    """A FIN, and go on reading."""


@dataclass(frozen=True)
class Leave:
    """Go, with an RST or a FIN."""

    reset: bool


Step = bytes | Interim | Wait | Drip | HalfClose | Leave


@dataclass(frozen=True)
class Vector:
    """Bytes of a client, and what must become of them."""

    name: str
    section: str
    """The section of RFC 9112 (or 9110, then named) that speaks of it."""
    steps: tuple[Step, ...]
    ends: frozenset[str]
    relayed: int | None = None
    """Requests that reach the upstream; None: one for each 200 where a chat was asked, else none."""
    hidden: tuple[bytes, ...] = ()
    """Field names (lower case) that must not reach the upstream."""
    shown: tuple[tuple[bytes, bytes], ...] = ()
    """Fields that must reach it as they came; the name in lower case."""
    order: tuple[str, ...] = ()
    """The ``x-request-id`` of the answers, in order."""
    heads: frozenset[int] = frozenset()
    """Which answers, counted from 0, are to HEAD."""
    interim: tuple[tuple[int, ...], ...] | None = None
    """The acceptable sequences of 1xx; None: whatever comes."""
    dialect: Literal["openai", "anthropic"] = "openai"
    split: bool = False
    """Cheap and telling enough to be cut at every byte in every run."""

    @property
    def data(self) -> bytes:
        """All its bytes."""
        return b"".join(step for step in self.steps if isinstance(step, bytes))

    @property
    def divisible(self) -> bool:
        """Can be cut in two anywhere: nothing but bytes, and not too many of them."""
        return all(isinstance(step, bytes) for step in self.steps) and len(self.data) <= MAX_SPLIT_BYTES

    @property
    def most(self) -> int:
        """The largest number of final answers in an acceptable end."""
        return max(len(end.split()) - 1 for end in self.ends)

    def relays(self, end: str) -> int:
        """How many requests must have reached the upstream, given this end."""
        if self.relayed is not None:
            return self.relayed
        return end.split().count("200") if CHAT_PATH in self.data else 0


MAX_SPLIT_BYTES = 1500


def vector(
    name: str,
    section: str,
    data: Step | tuple[Step, ...],
    ends: tuple[str, ...],
    *,
    relayed: int | None = None,
    hidden: tuple[bytes, ...] = (),
    shown: tuple[tuple[bytes, bytes], ...] = (),
    order: tuple[str, ...] = (),
    heads: frozenset[int] = frozenset(),
    interim: tuple[tuple[int, ...], ...] | None = None,
    dialect: Literal["openai", "anthropic"] = "openai",
    split: bool = False,
) -> Vector:
    """See ``Vector``."""
    steps = data if isinstance(data, tuple) else (data,)
    return Vector(
        name, section, steps, frozenset(ends), relayed, hidden, shown, order, heads, interim, dialect, split
    )  # fmt: skip


def lines(start: bytes, *fields: bytes) -> bytes:
    """A head of exactly these lines."""
    return b"\r\n".join((start, *fields)) + b"\r\n\r\n"


def get(*fields: bytes, target: bytes = b"/health", version: bytes = b"HTTP/1.1", host: bytes | None = HOST) -> bytes:
    """A GET that needs no key. ``host`` None: no such field."""
    named = () if host is None else (b"Host: " + host,)
    return lines(b"GET " + target + b" " + version, *named, *fields)


def post_head(
    *fields: bytes,
    target: bytes = CHAT_PATH,
    version: bytes = b"HTTP/1.1",
    host: bytes | None = HOST,
    kind: bytes | None = b"application/json",
    key: str | None = APP_KEY,
) -> bytes:
    """The head of a chat request; its framing is among ``fields``."""
    own = [] if host is None else [b"Host: " + host]
    if key is not None:
        own.append(b"Authorization: Bearer " + key.encode())
    if kind is not None:
        own.append(b"Content-Type: " + kind)
    return lines(b"POST " + target + b" " + version, *own, b"x-vector: " + MARK, *fields)


def sized(body: bytes = CHAT) -> bytes:
    """The Content-Length field of a body."""
    return b"Content-Length: %d" % len(body)


def post(
    *fields: bytes,
    body: bytes = CHAT,
    target: bytes = CHAT_PATH,
    version: bytes = b"HTTP/1.1",
    host: bytes | None = HOST,
    kind: bytes | None = b"application/json",
    key: str | None = APP_KEY,
) -> bytes:
    """A whole chat request, framed by its length."""
    return post_head(sized(body), *fields, target=target, version=version, host=host, kind=kind, key=key) + body


CHUNKED = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"
WHOLE_CHUNK = b"%x\r\n%s\r\n" % (len(CHAT), CHAT)


def chunked(body: bytes, *fields: bytes) -> bytes:
    """A chat request with this text for its chunked body, whatever that is."""
    return post_head(CHUNKED, *fields) + body
