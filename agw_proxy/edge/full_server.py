"""The full lane of one edge: aiohttp's server, which never sees a socket. Imported at the first request that needs it."""

import asyncio

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from agw_proxy._hot.lane import Downstream
from agw_proxy.edge.exchange import Carried
from agw_proxy.edge.full_lane import Asked, Connection, Facade
from agw_proxy.edge.handler import Handler
from agw_proxy.edge.server import Edge

IDLE_SECONDS = 3600.0  # of a connection's unused aiohttp half; the lane closes idle connections


class Full(web.Server):
    """aiohttp's server with our handler, for all connections of one edge."""

    def __init__(self, handler: Handler, edge: Edge) -> None:
        super().__init__(handler, request_factory=self._request, handler_cancellation=True)
        self.handler = handler
        self.accounts = edge.accounts
        self._edge = edge
        self._options: dict[str, object] = {
            "keepalive_timeout": IDLE_SECONDS,
            "access_log": None,
            "auto_decompress": False,
            "max_line_size": edge.max_header_bytes,
            "max_field_size": edge.max_header_bytes,
            "lingering_time": 1.0,
        }

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> Asked:
        return Asked(message, payload, protocol, writer, task, asyncio.get_running_loop())

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  aiohttp's own
        """See ``web.Server``; runs in the background have been ended by the drain, and are written down."""
        await self.handler.runs.close()
        await super().shutdown(timeout)

    def left(self, downstream: Downstream, carried: Carried | None) -> None:
        """A client has gone before its request was looked at."""
        self._edge.shell.left(downstream, downstream.began, carried)

    def adopt(self, downstream: Downstream) -> Connection:
        """The protocol of one connection; its transport must be there."""
        connection = Connection(self, downstream, **self._options)
        connection.connection_made(Facade(downstream, downstream.transport))
        return connection
