"""Gateway keys: who is calling. Keys are stored as SHA-256 digests and compared in constant time."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

class DuplicateCredential(ValueError):
    """A credential header came more than once; ``header`` is its lower-case name."""

    header: str
    def __init__(self, header: str) -> None: ...

class Credential:
    """The caller's key as sent: ``value`` (bytes, never logged) and ``header`` (lower-case name it came in).

    Made by ``credential`` alone. ``repr`` shows the header only.
    """

    @property
    def value(self) -> bytes: ...
    @property
    def header(self) -> str: ...

def digest(value: bytes) -> bytes:
    """SHA-256 of a key, 32 bytes (FIPS 180-4)."""

def bearer(value: bytes) -> bytes | None:
    """The token of an ``Authorization`` value with the Bearer scheme (RFC 6750 section 2.1), or None for any other.

    The scheme in any case, one space or more behind it, white space around the value ignored. A Bearer scheme without a
    token gives ``b""``.
    """

def credential(headers: Headers) -> Credential | None:
    """The key among raw headers, or None.

    Looked at in this order, and the first header present decides: x-agw-key, Authorization: Bearer, x-api-key,
    api-key, x-goog-api-key. Names in any case; white space around values is ignored. An empty value and an
    Authorization with another scheme count as absent. Raises DuplicateCredential when one of these names comes twice,
    whatever the values.
    """

class KeyTable:
    """An immutable table from key digests to small integers (the caller's index of principals)."""

    def __init__(self, entries: Iterable[tuple[bytes, int]]) -> None:
        """``entries``: (32-byte digest, index >= 0). Raises ValueError on a wrong size, index or a duplicate."""

    def find(self, value: bytes) -> int:
        """The index that belongs to this key, or -1. The full digest is compared in constant time.

        An empty key and one of more than 1024 bytes are unknown.
        """

    def find_digest(self, sha256: bytes) -> int:
        """The index that belongs to the key with this SHA-256, or -1. Raises ValueError unless it has 32 bytes."""

    def __len__(self) -> int: ...
