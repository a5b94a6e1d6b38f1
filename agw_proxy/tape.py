"""A recorded exchange with an upstream: what one file of a recording holds, and when two requests are the same. No I/O.

Bodies are kept as the upstream sends and gets them. Bytes that are text are kept as such, others in base64. Times are
milliseconds: ``head_ms`` from the request to the answer's head, those of the pieces from the head on.

What is a credential by its name or its shape is not kept, and does not count when two requests are compared.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import parse_qsl, urlencode

import msgspec
import orjson

VERSION = 1
SUFFIX = ".json"
HIDDEN = "***"
LONGEST_CREDENTIAL = 8192  # bytes, of a member of a request
LONGEST_NAME = 64  # of one
_BOUNDARY = re.compile(rb'boundary="?([^";,\s]+)', re.IGNORECASE)
_NAME = re.compile(
    r"(?:.*[-_])?(?:authorization|cookie2?|token|secret|passw(?:or)?d|passphrase|credentials?|signature|sig|assertion|jwt|"
    r"(?<!idempotency-)key|apikey|accesskey)",
    re.IGNORECASE,
)
_QUERIED = frozenset({"code", "auth"})
_MEMBER = re.compile(
    rb'"(?:[\w-]{0,40}[-_])?(?:authorization(?:[-_]token)?|(?:api|subscription|access|secret|private)[-_]?key|'
    rb'(?:access|auth|bearer|refresh|security|session)[-_]?token|client[-_]?secret|cookie|password)"'
    rb'\s{0,8}:\s{0,8}"((?:[^"\\]|\\.){8,%d})"' % LONGEST_CREDENTIAL,
    re.IGNORECASE | re.DOTALL,
)
_SHAPE = re.compile(
    rb"(?<![A-Za-z0-9_-])(?:(?:sk|xai|pplx|nvapi)-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,256}|AIza[A-Za-z0-9_-]{35}"
    rb"|(?:ek|gsk|hf|r8|gh[opsu]|github_pat)_(?=[A-Za-z_]*[0-9])[A-Za-z0-9_]{20,256})"
)
_PREFIXES = (
    *(
        b"sk-",
        b"xai-",
        b"pplx-",
        b"nvapi-",
        b"AIza",
        b"ek_",
        b"gsk_",
        b"hf_",
        b"r8_",
        b"gho_",
        b"ghp_",
        b"ghs_",
        b"ghu_",
    ),
    b"github_pat_",
)
"""What is searched for first: much faster than the expression."""
_ENDINGS = (b'authorization"', b'key"', b'token"', b'secret"', b'cookie"', b'password"')
_STARS = re.compile(rb"\*{8,}")

End = Literal["whole", "broken", "left", "too_large", "memory", "encoded"]
"""How a body has ended.

``whole``; ``broken``: the upstream broke it off; ``left``: the gateway's side left before its end. Else it is cut:
``too_large`` at the bound of one exchange, ``memory`` at that of all together, ``encoded`` since it was compressed and so
could not be searched for secrets.
"""
GOOD = frozenset({"whole", "broken"})
"""Ends that are all there was."""


class Piece(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bytes that came at once: ``text`` or ``base64``."""

    ms: float = 0.0
    text: str | None = None
    base64: str | None = None

    @property
    def data(self) -> bytes:
        """The bytes. Raises ValueError where they cannot be read."""
        if self.text is not None:
            return self.text.encode()
        try:
            return base64.b64decode(self.base64 or "", validate=True)
        except binascii.Error:
            raise ValueError("the base64 is none") from None


class Asked(msgspec.Struct, frozen=True):
    """A request as it went upstream, without credentials; ``path`` is relative to the upstream's base URL."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: Piece
    end: End = "whole"


class Told(msgspec.Struct, frozen=True):
    """Its answer, before any translation."""

    status: int
    headers: tuple[tuple[str, str], ...]
    head_ms: float
    pieces: tuple[Piece, ...]
    end: End


class Tape(msgspec.Struct, frozen=True):
    """One file."""

    agw_recording: int
    at: str
    upstream: str
    dialect: str
    target: str
    model: str
    request: Asked
    answer: Told


class Draft(msgspec.Struct):
    """An exchange while it is recorded.

    ``size``: bytes of bodies that it holds; ``secrets``: known to this request only; ``over``: nothing is added any more.
    """

    at_ns: int
    upstream: str
    dialect: str
    target: str
    model: str
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    secrets: tuple[str, ...] = ()
    body: list[bytes] = []
    body_end: End = "whole"
    status: int = 0
    answer_headers: list[tuple[str, str]] = []
    head_ms: float = 0.0
    pieces: list[tuple[float, bytes]] = []
    end: End = "left"
    size: int = 0
    over: bool = False


def piece(data: bytes, ms: float = 0.0) -> Piece:
    """As text where that gives the same bytes back."""
    try:
        return Piece(round(ms, 3), text=data.decode())
    except UnicodeDecodeError:
        return Piece(round(ms, 3), base64=base64.b64encode(data).decode())


def stamp(at_ns: int) -> str:
    """Nanoseconds since 1970 in RFC 3339, UTC."""
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def read(data: bytes) -> Tape:
    """A file's tape. Raises ValueError for what is none."""
    try:
        tape = msgspec.json.decode(data, type=Tape)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("not a recording") from None
    if tape.agw_recording != VERSION:
        raise ValueError(f"a recording of format {tape.agw_recording}, expected {VERSION}")
    return tape


def is_credential(name: str) -> bool:
    """A header or a field of a query of this name is not kept."""
    return _NAME.fullmatch(name) is not None


def shown_query(query: str) -> str:
    """A query without the values that are credentials; as it came where it has none."""
    fields = parse_qsl(query, keep_blank_values=True)
    hidden = {name for name, _ in fields if is_credential(name) or name.lower() in _QUERIED}
    if not hidden:
        return query
    return urlencode([(name, HIDDEN if name in hidden else value) for name, value in fields], safe="*")


def shaped(data: bytes) -> Iterator[tuple[int, int]]:
    """Where there are credentials, as providers of models and code hand them out, in bytes of either side."""
    for prefix in _PREFIXES:
        at = data.find(prefix)
        while at >= 0:
            match = _SHAPE.match(data, at)
            if match is not None:
                yield match.span()
            at = data.find(prefix, at + len(prefix))


def told_members(data: bytes) -> Iterator[tuple[int, int]]:
    """Where a request in JSON hands on a credential for somebody else (for an MCP server): the member's value."""
    plain = data.lower()
    for ending in _ENDINGS:
        at = plain.find(ending)
        while at >= 0:
            quote = plain.rfind(b'"', max(at - LONGEST_NAME, 0), at)
            match = _MEMBER.match(data, quote) if quote >= 0 else None
            if match is not None:
                yield match.span(1)
            at = plain.find(ending, at + len(ending))


def without_credentials(data: bytes) -> bytes:
    """A request without what a recording does not have, and however many stars that has instead."""
    made = bytearray(data)
    for begin, end in (*told_members(data), *shaped(data)):
        made[begin:end] = b"*" * (end - begin)
    return _STARS.sub(b"********", made)


def identity(method: str, path: str, kind: bytes, body: bytes) -> bytes:
    """What two requests that are the same have in common. ``kind``: the body's Content-Type.

    JSON counts by its value, whatever the order of members and the spaces; of other bodies each byte does, but for the
    boundary of a multipart one, which is drawn anew each time. Credentials do not count.
    """
    body = plain = without_credentials(body)
    if body[:1] in {b"{", b"["} or b"json" in kind.lower():
        try:
            plain = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):
            plain = body
    elif (found := _BOUNDARY.search(kind)) is not None:
        plain = body.replace(found[1], b"boundary")
    made = hashlib.sha256()
    for part in (method.encode(), path.encode(), plain):
        made.update(b"%d:" % len(part))
        made.update(part)
    return made.digest()


def kind_of(headers: "list[tuple[str, str]] | tuple[tuple[str, str], ...]") -> bytes:
    """The Content-Type, as it came."""
    return next((value for name, value in headers if name.lower() == "content-type"), "").encode("utf-8", "replace")
