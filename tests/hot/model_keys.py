"""The plainest correct reading of the keys contract, to test and time the compiled one against."""

import hashlib
from collections.abc import Iterable, Sequence

ORDER = (b"x-agw-key", b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
OWS = b" \t"


class TwiceError(ValueError):
    """A credential header came more than once."""


def bearer(value: bytes) -> bytes | None:
    """The token of a Bearer value, None for another scheme."""
    scheme, _, token = value.strip(OWS).partition(b" ")
    return token.strip(OWS) if scheme.lower() == b"bearer" else None


def credential(headers: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, str] | None:
    """(key, header) or None."""
    names = [name.lower() for name, _ in headers]
    if any(names.count(name) > 1 for name in ORDER):
        raise TwiceError
    found = {name.lower(): value.strip(OWS) for name, value in headers}
    if b"authorization" in found:
        found[b"authorization"] = bearer(found[b"authorization"]) or b""
    for name in ORDER:
        if found.get(name):
            return found[name], name.decode()
    return None


class KeyTable:
    """A dict from digest to index."""

    def __init__(self, entries: Iterable[tuple[bytes, int]]) -> None:
        self.indexes = dict(entries)

    def find(self, value: bytes) -> int:
        """The index, or -1."""
        if not 0 < len(value) <= 1024:
            return -1
        return self.indexes.get(hashlib.sha256(value).digest(), -1)
