"""Server-sent events as bytes (WHATWG HTML, section 9.2): whole events out of any chunks, and events as frames.

Two nouns: ``Events`` reads, ``frame`` writes. Fields other than ``event`` and ``data`` mean nothing to us and are passed over.
"""

from agw_proxy.dialects.base import Malformed

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Of what is held back for an event that is not whole yet: an answer with a picture in one event has to fit."""

_BOM = b"\xef\xbb\xbf"


class Events:
    """Reads one stream. Chunks may be split anywhere; lines end in LF, CRLF or CR; comments are passed over."""

    __slots__ = ("_after_cr", "_begun", "_held", "_searched")

    def __init__(self) -> None:
        self._held = bytearray()
        self._searched = 0
        self._after_cr = False
        self._begun = False

    def feed(self, chunk: bytes) -> list[tuple[str, bytes]]:
        """The events that are whole now: (name, data); an empty name where none is given. Raises Malformed beyond the bound."""
        if not self._begun:
            chunk = self._beginning(chunk)
        if self._after_cr or b"\r" in chunk:
            chunk = self._plain(chunk)
        if not self._held and chunk[-2:] == b"\n\n":
            return _parsed(chunk[:-2])
        self._held += chunk
        # The blank line may have begun in the chunk before.
        end = self._held.rfind(b"\n\n", max(0, self._searched - 1))
        if end < 0:
            self._searched = len(self._held)
            if self._searched > MAX_EVENT_BYTES:
                self._held.clear()
                self._searched = 0
                raise Malformed(f"An event of the stream is longer than {MAX_EVENT_BYTES} bytes.")
            return []
        whole = bytes(self._held[:end])
        del self._held[: end + 2]
        self._searched = len(self._held)
        return _parsed(whole)

    def end(self) -> list[tuple[str, bytes]]:
        """The stream has ended: an event whose last line is whole counts, also without the blank line that some leave out."""
        held, self._held = bytes(self._held), bytearray()
        self._searched = 0
        return _parsed(held[:-1]) if held.endswith(b"\n") else []

    def _beginning(self, chunk: bytes) -> bytes:
        """Take the mark off that a stream may begin with, however it is split."""
        held = bytes(self._held) + chunk
        if len(held) < len(_BOM) and _BOM.startswith(held):
            self._held[:] = held
            return b""
        self._held.clear()
        self._begun = True
        return held.removeprefix(_BOM)

    def _plain(self, chunk: bytes) -> bytes:
        """The chunk with LF as its only line end; a CR at its end is one, and an LF after that belongs to it."""
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 0x0A:
                chunk = chunk[1:]
        if chunk[-1:] == b"\r":
            self._after_cr = True
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _parsed(block: bytes) -> list[tuple[str, bytes]]:
    """The events in text that ends where its last event's blank line begins."""
    found: list[tuple[str, bytes]] = []
    for event in block.split(b"\n\n"):
        if event[:6] == b"data: " and b"\n" not in event:
            found.append(("", event[6:]))
            continue
        name = ""
        data: list[bytes] = []
        for line in event.split(b"\n"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value.decode("utf-8", "replace")
        if data:
            found.append((name, b"\n".join(data)))
    return found


def frame(name: str, data: bytes) -> bytes:
    """One whole event. ``name``: empty for none. Line ends within ``data`` become lines of their own."""
    if b"\n" in data or b"\r" in data:
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        data = b"\ndata: ".join(lines)
    if name:
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
    return b"data: %b\n\n" % data
