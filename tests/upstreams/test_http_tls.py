"""TLS towards upstreams: verified always, each kind of failure unreachable with its reason."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from agw_proxy._hot.route import RouteTable
from agw_proxy.config.resilience import Timeouts
from agw_proxy.config.settings import Upstream as UpstreamSettings
from agw_proxy.errors import UpstreamError, UpstreamUnreachable
from agw_proxy.types import Call
from agw_proxy.upstreams.http import HttpUpstream

pytestmark = pytest.mark.both_loops
ROUTE = RouteTable([("up", ("*",))], []).find("m")
assert ROUTE is not None
TARGET = ROUTE.targets[0]
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


def certificate(folder: Path, name: str) -> Path:
    """A certificate for ``name`` with its key and its own authority, made once; in one PEM file."""
    file = folder / f"{name.replace(':', '-')}.pem"
    if not file.exists():
        authority = trustme.CA()
        authority.issue_cert(name.partition(":")[2]).private_key_and_cert_chain_pem.write_to_path(str(file))
        authority.cert_pem.write_to_path(str(file), append=True)
    return file


@asynccontextmanager
async def listening(pem: Path) -> AsyncIterator[str]:
    """The URL of a TLS server that answers every request alike."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def over_tls(url: str, ca_file: Path | None) -> HttpUpstream:
    entry = {"name": "up", "base_url": f"{url}/v1", "ca_file": ca_file}
    return HttpUpstream(UpstreamSettings.model_validate(entry), Timeouts(connect=2.0, first_byte=3.0))


async def ask(up: HttpUpstream) -> int:
    """The status of one call, the upstream's only one."""
    try:
        reply = await up.open(TARGET, Call("GET", "/x", "", [], None, None, "r"))
        while not reply.ended:
            await reply.read()
        reply.close()
        return reply.status
    finally:
        await up.close()
        await asyncio.sleep(0.01)  # a TLS connection says goodbye before it is closed


async def test_a_certificate_that_nobody_vouches_for_is_not_accepted(folder: Path) -> None:
    async with listening(certificate(folder, "IP:127.0.0.1")) as url:
        with pytest.raises(UpstreamUnreachable, match="its certificate was not accepted"):
            await ask(over_tls(url, None))


async def test_the_configured_authority_vouches_for_it(folder: Path) -> None:
    pem = certificate(folder, "IP:127.0.0.1")
    async with listening(pem) as url:
        assert await ask(over_tls(url, pem)) == 200


async def test_a_certificate_of_another_name_is_not_accepted(folder: Path) -> None:
    pem = certificate(folder, "DNS:other.example")
    async with listening(pem) as url:
        with pytest.raises(UpstreamUnreachable, match="its certificate was not accepted"):
            await ask(over_tls(url, pem))


async def test_a_server_that_speaks_no_tls_is_a_failure_of_tls() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        with pytest.raises(UpstreamUnreachable, match="TLS failed"):
            await ask(over_tls(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", None))
    finally:
        server.close()


async def test_authorities_that_have_gone_since_are_no_defect(folder: Path) -> None:
    gone = folder / "gone.pem"
    gone.write_bytes(certificate(folder, "IP:127.0.0.1").read_bytes())
    async with listening(gone) as url:
        up = over_tls(url, gone)
        gone.unlink()
        status = 0
        try:
            status = await ask(up)
        except UpstreamError as error:
            status = error.status
    assert status in {200, 502}


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
async def test_authorities_that_cannot_be_read_are_an_error_of_the_configuration(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"upstream 'up': no certificates can be read from ca_file .*ca\.pem"):
        over_tls("https://127.0.0.1", file)


async def test_the_authorities_are_not_read_on_the_path_of_a_request(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(folder, "IP:127.0.0.1")
    on_loop: list[bool] = []
    load = ssl.SSLContext.load_verify_locations

    def noted(self: ssl.SSLContext, cafile: Path | None = None, capath: None = None, cadata: None = None) -> None:
        on_loop.append(asyncio._get_running_loop() is not None)
        load(self, cafile, capath, cadata)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", noted)
    async with listening(pem) as url:
        up = await asyncio.to_thread(over_tls, url, pem)
        assert await ask(up) == 200
    assert on_loop
    assert not any(on_loop)


async def test_a_try_has_its_own_deadline_for_the_handshake() -> None:
    """A route's, or its caller's: it is not the upstream's."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with server:
        up = over_tls(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", None)
        call = Call("GET", "/models", "", [], None, None, "req-1", timeouts=Timeouts(connect=3, tls=0.1))
        with pytest.raises(UpstreamUnreachable, match=r"No TLS connection to upstream '\w+' within 0.1 s") as caught:
            await up.open(TARGET, call)
        await up.close()
        await asyncio.sleep(0.01)  # its side closes, too
    assert caught.value.out_of_time
