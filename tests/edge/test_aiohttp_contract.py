"""What we override in aiohttp and rely on is there, as we know it: a new minor version is read before it is taken."""

import asyncio
import inspect
from collections.abc import Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp._websocket import reader_py
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import StreamWriter, WebSocketWriter
from aiohttp.web_protocol import RequestHandler

from agw_proxy.edge.full_lane import Connection
from agw_proxy.edge.relayed import Continued, Relayed
from agw_proxy.edge.websockets import Accepted


def parameters(function: Callable[..., object]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_it_is_the_minor_that_was_read() -> None:
    assert aiohttp.__version__.startswith("3.14.")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (RequestHandler.handle_error, ["request", "status", "exc", "message"]),
        (RequestHandler.connection_made, ["transport"]),
        (RequestHandler.connection_lost, ["exc"]),
        (RequestHandler.force_close, []),
        (RequestHandler.close, []),
        (RequestHandler.shutdown, ["timeout"]),
        (web.Server.pre_shutdown, []),
        (web.Server.shutdown, ["timeout"]),
        (web.Server.connection_made, ["handler", "transport"]),
        (web.Server.__call__, []),
        (web.StreamResponse.write_eof, ["data"]),
        (web.StreamResponse.prepare, ["request"]),
        (web.StreamResponse.write, ["data"]),
        (web.StreamResponse.force_close, []),
    ],
)
def test_a_method_that_we_use_has_its_parameters(function: Callable[..., object], expected: list[str]) -> None:
    assert parameters(function) == expected


def test_a_connection_takes_the_bounds_that_we_set() -> None:
    taken = set(parameters(RequestHandler.__init__))
    assert taken >= {
        "manager",
        "loop",
        "keepalive_timeout",
        "access_log",
        "auto_decompress",
        "max_line_size",
        "max_field_size",
        "lingering_time",
    }
    assert "handler_cancellation" in parameters(web.Server.__init__)


def test_what_we_override_is_called_by_aiohttp_itself() -> None:
    source = inspect.getsource(RequestHandler)
    assert "self.handle_error(request, 500, exc)" in source
    assert "await resp.write_eof()" in source
    assert "handler_cancellation and self._task_handler is not None" in source
    assert "await self.finish_response(request, resp, start_time)" in source
    assert "loop.call_at(close_time, self._process_keepalive)" in source
    for name in ("handle_error", "finish_response", "_handle_request", "_process_keepalive"):
        assert getattr(Connection, name) is not getattr(RequestHandler, name)
    assert Relayed.write_eof is not web.StreamResponse.write_eof
    assert "await self._write_headers()" in inspect.getsource(web.StreamResponse._start)
    assert Continued._write_headers is not web.StreamResponse._write_headers


def test_what_a_websockets_two_sides_are_made_of_is_there() -> None:
    assert parameters(web.WebSocketResponse._handshake) == ["request"]
    assert "self._handshake(request)" in inspect.getsource(web.WebSocketResponse._pre_start)
    assert parameters(reader_py.WebSocketDataQueue.__init__) == ["protocol", "limit", "loop"]
    assert parameters(reader_py.WebSocketReader.__init__) == ["queue", "max_msg_size", "compress", "decode_text"]
    assert {"protocol", "transport", "use_mask", "limit"} <= set(parameters(WebSocketWriter.__init__))
    assert parameters(ResponseHandler.set_parser) == ["parser", "payload", "data_received_cb"]
    accepted = web.WebSocketResponse()
    assert accepted._reader is None
    assert accepted._writer is None
    assert Accepted._handshake is not web.WebSocketResponse._handshake


@pytest.mark.parametrize("name", ["_request_in_progress", "_messages", "_force_close", "_task_handler", "_manager"])
def test_a_private_name_that_we_read_is_a_slot(name: str) -> None:
    assert name in RequestHandler.__slots__


async def test_a_writer_counts_what_has_gone_out_and_may_be_told_otherwise() -> None:
    assert "output_size" in inspect.getsource(AbstractStreamWriter)
    assert parameters(StreamWriter.__init__)[:2] == ["protocol", "loop"]
    reached: list[int] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        reached.append(request.writer.output_size)
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        reached.append(request.writer.output_size)
        request.writer.output_size = 0
        return web.Response(text="x")

    server = web.Server(answer, handler_cancellation=True)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answered = await reader.read()
    writer.close()
    listening.close()
    await server.shutdown(0.5)
    assert answered.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert reached == [0, 25]


async def test_a_handler_is_cancelled_when_its_client_goes() -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(request: web.BaseRequest) -> web.Response:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    server = web.Server(wait, handler_cancellation=True)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.wait_for(entered.wait(), 5)
    writer.close()
    await asyncio.wait_for(cancelled.wait(), 5)
    listening.close()
    await server.shutdown(0.5)


async def test_the_raw_target_and_the_raw_headers_are_there() -> None:
    seen: list[tuple[str, tuple[tuple[bytes, bytes], ...]]] = []

    async def note(request: web.BaseRequest) -> web.Response:
        seen.append((request.raw_path, tuple(request.raw_headers)))
        assert request.content_length is None
        assert not request.body_exists
        return web.Response()

    server = web.Server(note)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    writer.write(b"GET /a%2Fb/../c?x=%20 HTTP/1.1\r\nHost: x\r\nX-Twice: 1\r\nx-twice: 2\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()
    listening.close()
    await server.shutdown(0.5)
    target, headers = seen[0]
    assert target == "/a%2Fb/../c?x=%20"
    assert headers[1:3] == ((b"X-Twice", b"1"), (b"x-twice", b"2"))


async def test_a_client_connection_is_made_by_the_connectors_factory_and_knows_its_payload() -> None:
    connector = aiohttp.TCPConnector()
    made = connector._factory()
    assert isinstance(made, ResponseHandler)
    assert made._payload is None
    await connector.close()
