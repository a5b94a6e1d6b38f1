"""An upstream over HTTP: where it is, what every request to it carries, and (from the first one on) the client that asks it.

The client is aiohttp's, which takes a twelfth of a second and ten megabytes to import: a gateway whose requests all take
the fast lane does without.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol
from urllib.parse import SplitResult, quote, urlsplit

import msgspec

from agw_proxy._hot.route import Target
from agw_proxy.config.resilience import Timeouts
from agw_proxy.config.settings import Upstream as UpstreamSettings
from agw_proxy.config.values import Dialect
from agw_proxy.errors import UpstreamError
from agw_proxy.types import Call, Reply
from agw_proxy.upstreams.asking import client_ready
from agw_proxy.upstreams.crossing import Crossing
from agw_proxy.upstreams.keyring import Keyring
from agw_proxy.upstreams.queue import Places
from agw_proxy.upstreams.trust import system_trust, trust

if TYPE_CHECKING:
    from agw_proxy.upstreams.client import Client

CREDENTIAL_HEADER = {
    "openai": ("Authorization", "Bearer "),
    "anthropic": ("x-api-key", ""),
    "gemini": ("x-goog-api-key", ""),
    "azure": ("api-key", ""),
    "bedrock": ("Authorization", "Bearer "),
    "vertex": ("x-goog-api-key", ""),
}
PORTS = {"http": 80, "https": 443}


class Address(msgspec.Struct, frozen=True):
    """Where an upstream is and what every request to it carries, for those who write to it themselves.

    ``tls``: makes the context, or None for plain text. ``base``: the path before a call's own.
    """

    host: str
    port: int
    tls: Callable[[], ssl.SSLContext] | None
    authority: bytes
    base: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class Sent(Reply, Protocol):
    """An answer that gives a place back with its end."""

    began_ns: int
    on_close: Callable[[], None] | None


class Cloud(Protocol):
    """A cloud that has a provider's models: it wants requests wrapped and signed, and wraps answers in its own way."""

    async def send(self, target: Target | None, call: Call, go: Callable[[Call], Awaitable[Sent]]) -> Sent:
        """Ask by ``go``. ``target`` None: as it is, with credentials only. Raises CallerError, UpstreamError."""
        ...

    def sources(self) -> Mapping[str, str]:
        """See ``HttpUpstream.sources``: its own headers."""
        ...

    @property
    def always(self) -> Crossing:
        """What becomes of the headers of any request."""
        ...

    @property
    def wrapping(self) -> Crossing:
        """What becomes on top of those of a generation, or of a counting of its tokens."""
        ...

    async def close(self) -> None:
        """Fetch no more credentials."""
        ...


class HttpUpstream:
    """A server that speaks an OpenAI-compatible dialect (or another, relayed as it is)."""

    def __init__(
        self,
        settings: UpstreamSettings,
        timeouts: Timeouts,
        keys: Keyring | None = None,
        places: Places | None = None,
        cloud: Cloud | None = None,
    ) -> None:
        """``timeouts``: the defaults that the upstream's own override. ``keys``: where it has several.

        ``places``: each call needs one; None: no bound. ``cloud``: whose models it has, where it is in one.
        Raises ValueError for a bad ``ca_file``.
        """
        self.cloud = cloud
        self.keys = keys
        self.places = places
        self.name = settings.name
        self.dialect: Dialect = settings.dialect
        self._settings = settings
        self.by_deployment = by_deployment(settings)
        self._timeouts = settings.timeouts.over(timeouts)
        # OpenAI's base URLs end in /v1, Anthropic's do not: paths here are relative to it in both dialects.
        self._base = settings.base_url + (
            "/v1" if settings.dialect == "anthropic" and not settings.base_url.endswith("/v1") else ""
        )
        self._key = next(iter(keys_of(settings)), "") if keys is None else ""
        self._client: Client | None = None
        self._trust = trust(settings.name, settings.ca_file) if settings.ca_file else None

    async def open(self, target: Target, call: Call) -> Reply:
        """See ``types.Upstream``. A call that waits for a place is in the upstream's queue, and its time is told apart."""
        client = await self._ready()
        call = placed(self._settings, target, self._with_key(call))
        places = self.places
        if places is None:
            return await self._send(client, target, call)
        if not places.take():
            await self._wait(places, call)
        began = time.monotonic_ns()
        try:
            reply = await self._send(client, target, call)
        except BaseException as error:
            places.give()
            if isinstance(error, UpstreamError):
                places.refused(began, error)
            raise
        reply.on_close = places.give
        reply.began_ns = began
        return reply

    async def _wait(self, places: Places, call: Call) -> None:
        begun = time.monotonic_ns()
        try:
            await places.wait()
        finally:
            if call.on_wait is not None:
                call.on_wait(time.monotonic_ns() - begun)

    async def ask(self, call: Call) -> Reply:
        """Like ``open``, past the queue: for the gateway's own questions."""
        return await self._send(await self._ready(), None, self._with_key(call))

    async def _send(self, client: "Client", target: Target | None, call: Call) -> Sent:
        if self.cloud is None:
            return await client.open(call)
        return await self.cloud.send(target, call, client.open)

    async def _ready(self) -> "Client":
        client = self._client
        if client is None:
            await client_ready()
            from agw_proxy.upstreams.client import Client  # noqa: PLC0415  at its first use

            client = self._client = self._client or Client(
                self.name,
                self._base,
                self._settings.base_url,
                self._timeouts,
                self._own_headers(),
                passthrough=self._settings.auth == "passthrough",
                trust=self._trust,
            )
        return client

    def _with_key(self, call: Call) -> Call:
        """A question of the gateway's own takes a key as any other call, where there are several; none where none may be used."""
        if self.keys is not None and call.credential is None:
            number = self.keys.take(asyncio.get_running_loop().time())
            if number is not None:
                return msgspec.structs.replace(call, credential=self.keys.header(number))
        return call

    def address(self) -> Address:
        """For the fast lane, whose connections are its own."""
        url = urlsplit(self._base)
        return Address(
            host=url.hostname or "",
            port=url.port or PORTS[url.scheme],
            tls=(lambda: self._trust or system_trust()) if url.scheme == "https" else None,
            authority=_authority(url).encode(),
            base=url.path.rstrip("/").encode(),
            headers=tuple((name.encode(), value.encode()) for name, value in self._own_headers()),
        )

    async def close(self) -> None:
        """See ``types.Upstream``."""
        if self.cloud is not None:
            await self.cloud.close()
        if self._client is not None:
            await self._client.close()

    def sources(self) -> Mapping[str, str]:
        """The setting that each header comes from which requests carry whoever asks, by names in lower case."""
        told = dict.fromkeys((name.lower() for name, _ in self._own_headers()), "api_key")
        if self.keys is not None:
            told[self.keys.header(0)[0].lower()] = "api_keys"
        if self.cloud is not None:
            told |= self.cloud.sources()
        return told | dict.fromkeys((name.lower() for name in self._settings.headers), "headers")

    def _own_headers(self) -> list[tuple[str, str]]:
        """What every request carries, whoever asks: its key, and the headers of its settings."""
        headers: dict[str, tuple[str, str]] = {}
        if self._settings.auth == "key" and self._key:
            name, value = header_of(self.dialect, self._key)
            headers[name.lower()] = (name, value)
        for name, value in self._settings.headers.items():
            headers[name.lower()] = (name, value)
        return list(headers.values())


def by_deployment(settings: UpstreamSettings) -> bool:
    """Azure's older API: each model is a path of its own, and the query says which version is meant."""
    return settings.dialect == "azure" and settings.api_version is not None


def placed(settings: UpstreamSettings, target: Target, call: Call) -> Call:
    """The call with the path and query that this upstream has for it. A WebSocket's query names the model."""
    deployed, name = by_deployment(settings), quote(target.model, safe="")
    version = f"api-version={quote(settings.api_version or '', safe='')}" if deployed else ""
    if call.upgrade is not None:
        model = f"{'deployment' if deployed else 'model'}={name}" if call.by_model else ""
        return msgspec.structs.replace(call, query="&".join(part for part in (version, model, call.query) if part))
    if not (deployed and call.by_model):
        return call
    where = "" if call.path == "/responses" else f"/deployments/{name}"
    return msgspec.structs.replace(call, path=where + call.path, query=version)


def keys_of(settings: UpstreamSettings) -> tuple[str, ...]:
    """An upstream's keys, in order."""
    keys = [*([settings.api_key] if settings.api_key is not None else []), *settings.api_keys]
    return tuple(key.get_secret_value() for key in keys)


def header_of(dialect: Dialect, key: str) -> tuple[str, str]:
    """The header that carries a key to an upstream of this dialect."""
    name, scheme = CREDENTIAL_HEADER[dialect]
    return name, scheme + key


def _authority(url: SplitResult) -> str:
    """The Host header's value (RFC 9110 section 7.2): no user, and no port where it is the scheme's own."""
    host = url.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return shown if url.port in {None, PORTS[url.scheme]} else f"{shown}:{url.port}"
