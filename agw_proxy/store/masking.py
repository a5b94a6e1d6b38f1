r"""Takes secrets out of bytes, however they are spelt in JSON or a URL, without changing how many bytes there are.

So a body that came in pieces can be searched as a whole and cut up again where it was cut, and a length that was
announced stays right. Searched are the bytes as they are, and as they read with all escapes taken away: ``\u0041``,
``%41``, and a character behind any number of backslashes, which are all gone then. A secret that is known is found in
base64 too, wherever in a longer text it stood there.
"""

import hashlib
import re
import time
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Collection, Iterator

from agw_proxy.tape import shaped, told_members

SLICE_BYTES = 65536  # looked through at once: the search holds the interpreter, and the loop must not wait for it
LONGEST_TOKEN = 512  # bytes
TOKEN = re.compile(rb"[A-Za-z0-9._~+/=-]{22,512}")  # what a key that is known by its digest only may look like
ESCAPE = re.compile(rb"\\+u00([0-9A-Fa-f]{2})|%([0-9A-Fa-f]{2})|\\+([!-\[\]-~])")
BACKSLASH = 0x5C
SHORTEST_ENCODED = 8  # bytes of a secret: of a shorter one too few characters are its own
URL_SAFE = bytes.maketrans(b"+/", b"-_")
REST_EVERY = 256  # escapes
MARK = b"*"

Span = tuple[int, int]


class Mask:
    """Immutable; made for one set of secrets."""

    def __init__(self, secrets: Collection[str], digests: Collection[str] = ()) -> None:
        """``digests``: SHA-256 in lower-case hexadecimal, of secrets of visible ASCII that are not known themselves."""
        plain = {secret.encode() for secret in secrets if secret}
        encoded = sorted(plain.union(*map(_in_base64, plain)))
        self._secrets = encoded
        self._read = sorted({_Read(secret).data for secret in encoded} - {b""})
        self._digests = frozenset(digests)

    def __call__(self, data: bytes, *, request: bool = False) -> bytes:
        """The same bytes with stars in the place of each secret. It takes its time, and lets others run in between.

        ``request``: they are the body of one, whose members may hand on a credential.
        """
        spans = [*_found(data, self._secrets), *self._digested(data), *_telling(data, request=request)]
        if b"\\" in data or b"%" in data:
            read = _Read(data)
            inside = [*_found(read.data, self._read), *self._digested(read.data)]
            spans += [(read.origin(begin), read.origin(end)) for begin, end in inside]
        if not spans:
            return data
        made = bytearray(data)
        for begin, end in spans:
            made[begin:end] = MARK * (end - begin)
        return bytes(made)

    def _digested(self, data: bytes) -> Iterator[Span]:
        for at in range(0, len(data) if self._digests else 0, SLICE_BYTES):
            for match in TOKEN.finditer(data, at, at + SLICE_BYTES + LONGEST_TOKEN):
                if hashlib.sha256(match[0]).hexdigest() in self._digests:
                    yield match.span()
            time.sleep(0)


class _Read:
    """Bytes as they read without their escapes, and where each of them was."""

    def __init__(self, data: bytes) -> None:
        made = bytearray()
        self._here: list[int] = [0]  # begins of parts in ``data`` that are as far apart as they were ...
        self._there: list[int] = [0]  # ... and where they were
        at = 0
        for begin, end, byte in _escapes(data):
            made += data[at:begin]
            self._here.append(len(made))
            self._there.append(begin)
            if byte != BACKSLASH:  # it may be an escape itself, one level further in: there are none left here
                made.append(byte)
                self._here.append(len(made))
                self._there.append(end)
            else:
                self._there[-1] = end
            at = end
        made += data[at:]
        self.data = bytes(made)

    def origin(self, at: int) -> int:
        """Where the byte was that now is at ``at``, or the end of all."""
        part = bisect_right(self._here, at) - 1
        return self._there[part] + at - self._here[part]


def _escapes(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(begin, end, what it means) of each."""
    at, slash, percent = 0, data.find(b"\\"), data.find(b"%")
    count = 0
    while slash >= 0 or percent >= 0:
        count += 1
        if count % REST_EVERY == 0:
            time.sleep(0)
        at = min(place for place in (slash, percent) if place >= 0)
        match = ESCAPE.match(data, at)
        if match is None:
            if data[at] == BACKSLASH:
                yield at, at + 1, BACKSLASH
            at += 1
        else:
            code = match[1] or match[2]
            yield at, match.end(), int(code, 16) if code else match[3][0]
            at = match.end()
        slash = data.find(b"\\", at) if 0 <= slash < at else slash
        percent = data.find(b"%", at) if 0 <= percent < at else percent


def _telling(data: bytes, *, request: bool) -> Iterator[Span]:
    """What tells by itself that it is a credential."""
    yield from shaped(data)
    time.sleep(0)
    if request:
        yield from told_members(data)


def _in_base64(secret: bytes) -> Iterator[bytes]:
    """The characters that a secret alone decides, wherever among three bytes it begins; in both alphabets (RFC 4648)."""
    for before in range(3 if len(secret) >= SHORTEST_ENCODED else 0):
        text = b64encode(bytes(before) + secret)
        first, beyond = (0, 2, 3)[before], (0, 3, 2)[(before + len(secret)) % 3]
        told = text[first : len(text) - beyond]
        yield told
        yield told.translate(URL_SAFE)


def _found(data: bytes, secrets: Collection[bytes]) -> Iterator[Span]:
    for secret in secrets:
        at = data.find(secret)
        while at >= 0:
            yield at, at + len(secret)
            at = data.find(secret, at + 1)
        time.sleep(0)
