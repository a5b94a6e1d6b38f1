"""The response that an upstream's answer goes out in: aiohttp's, but one that can end broken."""

import contextlib
import socket
import struct

from aiohttp import web

LINGER = struct.pack("ii", 1, 0)


class Relayed(web.StreamResponse):
    """A response that can end broken: without the last chunk, and by a reset where the end of the body is the close."""

    broken = False
    last_words = b""
    """Of one that ends broken: what goes out first, where nobody writes it before."""

    async def write_eof(self, data: bytes = b"") -> None:
        """See ``web.StreamResponse``."""
        if self.broken:
            if self.last_words:
                await self.write(self.last_words)
            raise ConnectionResetError("the stream broke and must not look finished")
        await super().write_eof(data)


class Continued(Relayed):
    """The rest of an answer whose head the fast lane has written, before its first heartbeat."""

    async def _write_headers(self) -> None:
        """See ``web.StreamResponse``; they have gone out."""


def reset(request: web.BaseRequest) -> None:
    """A close-delimited client learns of a break only by a reset: no lingering for the socket's close."""
    transport = request.transport
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
