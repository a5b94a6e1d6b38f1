"""What one writes in an hour: a relay of aiohttp's server and client on uvloop, with no policy at all.

``python -m bench.proxies.plain_aiohttp PORT UPSTREAM_URL KEY``
"""

import sys

import aiohttp
import uvloop
from aiohttp import web
from multidict import CIMultiDict

NOT_FORWARDED = ("Host", "Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "Authorization")


class Relay:
    """Sends each request on to one upstream, and its answer back as it comes."""

    def __init__(self, upstream: str, key: str) -> None:
        self._upstream = upstream
        self._key = key
        self._session: aiohttp.ClientSession | None = None

    async def open(self, _: web.Application) -> None:
        """Make the session: one pool without a bound, and answers as the upstream encoded them."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def close(self, _: web.Application) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Relay one exchange."""
        assert self._session is not None
        headers = _forwarded(request.headers.items())
        headers["Authorization"] = f"Bearer {self._key}"
        url = f"{self._upstream}{request.raw_path}"
        body = await request.read()
        async with self._session.request(request.method, url, headers=headers, data=body) as answer:
            response = web.StreamResponse(status=answer.status, headers=_forwarded(answer.headers.items()))
            if answer.content_length is not None:
                response.content_length = answer.content_length
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response


def _forwarded(items: object) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict(items)  # type: ignore[arg-type]  # pairs of strings, as aiohttp has them
    for name in NOT_FORWARDED:
        headers.popall(name, None)
    return headers


def main() -> None:
    """Serve until SIGTERM."""
    relay = Relay(sys.argv[2], sys.argv[3])
    app = web.Application(client_max_size=32 * 1024 * 1024)
    app.on_startup.append(relay.open)
    app.on_cleanup.append(relay.close)
    app.router.add_route("*", "/{path:.*}", relay.handle)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None, backlog=4096)


if __name__ == "__main__":
    main()
