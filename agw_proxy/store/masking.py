"""Takes secrets out of bytes, however they are spelt in JSON or a URL, without changing how many bytes there are.

So a body that came in pieces can be searched as a whole and cut up again where it was cut, and a length that was
announced stays right.
"""

import functools
import hashlib
import re
import time
from collections.abc import Collection

SLICE_BYTES = 32768  # searched at once: the search holds the interpreter, and the loop must not wait for it
LONGEST_SPELLING = 9  # of one character: "\\\\u0041"
TOKEN = re.compile(rb"[A-Za-z0-9._~+/=-]{22,512}")  # what a key that is known by its digest only may look like
MARK = b"*"


class Mask:
    """Made for one set of secrets."""

    def __init__(self, secrets: Collection[str], digests: Collection[str] = ()) -> None:
        """``digests``: SHA-256 in lower-case hexadecimal, of secrets of visible ASCII that are not known themselves."""
        self._longest_first = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        self._reach = max((len(secret.encode()) for secret in self._longest_first), default=0) * LONGEST_SPELLING
        self._digests = frozenset(digests)

    def __call__(self, data: bytes) -> bytes:
        """The same bytes with stars in the place of each secret. It takes its time, and lets others run in between."""
        made: bytearray | None = None
        for begin, end in [*self._spellings(data), *self._digested(data)]:
            if made is None:
                made = bytearray(data)
            made[begin:end] = MARK * (end - begin)
        return data if made is None else bytes(made)

    @functools.cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        """Made when it is used: of many secrets it is large."""
        return re.compile(b"|".join(_spelt(secret) for secret in self._longest_first))

    def _spellings(self, data: bytes) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        at = 0
        while self._longest_first and at < len(data):
            match = self._pattern.search(data, at, at + SLICE_BYTES + self._reach)
            if match is not None and match.start() < at + SLICE_BYTES:
                found.append(match.span())
                at = match.end()
                continue
            at += SLICE_BYTES
            time.sleep(0)
        return found

    def _digested(self, data: bytes) -> list[tuple[int, int]]:
        if not self._digests:
            return []
        return [match.span() for match in TOKEN.finditer(data) if hashlib.sha256(match[0]).hexdigest() in self._digests]


def _spelt(secret: str) -> bytes:
    r"""A pattern for a secret as itself, behind backslashes, as ``\u0041`` and as ``%41``."""
    return b"".join(
        b"(?:%b|(?i:%b))" % (rb"\\{0,4}" + re.escape(bytes([byte])), rb"\\{1,4}u00%02x|%%%02x" % (byte, byte))
        for byte in secret.encode()
    )
