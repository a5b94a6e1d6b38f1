"""The composition root: Settings -> Gateway. Everything that is wired is wired here, by name, once."""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from pydantic import SecretStr

from agw_proxy import __version__
from agw_proxy._hot.keys import digest
from agw_proxy._hot.lane import Policy
from agw_proxy._hot.limit import Table
from agw_proxy._hot.meter import Meter
from agw_proxy.api.endpoint import Endpoint, Matcher
from agw_proxy.api.openapi import document
from agw_proxy.api.table import ENDPOINTS
from agw_proxy.config import devkey
from agw_proxy.config.loader import ConfigError, Loaded
from agw_proxy.config.reload import Reloader
from agw_proxy.config.settings import Key, Settings, Upstream
from agw_proxy.config.tree import problem
from agw_proxy.edge.exchange import Bounds
from agw_proxy.edge.handler import Handler
from agw_proxy.edge.lane import Origins, compile_policy
from agw_proxy.edge.server import Edge
from agw_proxy.edge.state import State
from agw_proxy.errors import ReloadFailed
from agw_proxy.observe.log import Log
from agw_proxy.observe.metrics import FAMILIES, Metrics
from agw_proxy.policy.keys import Keys
from agw_proxy.policy.routes import ECHO_UPSTREAM, Routes
from agw_proxy.types import Principal, ServedModel, UpstreamState
from agw_proxy.upstreams.attempts import Service
from agw_proxy.upstreams.catalog import discover
from agw_proxy.upstreams.echo import Echo
from agw_proxy.upstreams.health import Health
from agw_proxy.upstreams.http import HttpUpstream

BODIES_BYTES = 256 * 1024 * 1024  # all request bodies in memory together, unless one alone may be larger
DEVELOPMENT_KEY_NAME = "development"
SECRET_CHARACTERS = 8


class Gateway:
    """One process: the state in force, the edge in front of it, and what its own endpoints can do (``types.Control``)."""

    version = __version__

    def __init__(self, loaded: Loaded, load: Callable[[], Loaded], log: Log, environ: Mapping[str, str]) -> None:
        """``load`` reads the configuration again, for reloads. Raises ConfigError where a key cannot be kept."""
        self.log = log
        self._environ = environ
        self._reloader = Reloader(lambda: self._prepare(load()), loaded)
        self._table = Table()
        self.metrics = Metrics(Meter(FAMILIES), __version__)
        self._discovered: dict[str, tuple[str, ...]] = {}
        self._discovery: asyncio.Task[dict[str, str]] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._served: list[tuple[str, str]] = []
        self._edges: list[Edge] = []
        self._origins = Origins()
        self._next: State | None = None
        self.state = self._compile(loaded.settings, None)
        self._know_models()
        self.development_key = _development_key(loaded.settings, environ)
        settings = loaded.settings
        self._bounds = Bounds(
            max_head_bytes=settings.server.max_header_kb << 10,
            max_body_bytes=settings.server.max_body_mb << 20,
            max_bodies_bytes=max(BODIES_BYTES, settings.server.max_body_mb << 20),
            body_seconds=settings.server.body_seconds,
            json_depth=settings.server.json_depth,
        )
        scraped = settings.metrics.prometheus
        endpoints = [endpoint for endpoint in ENDPOINTS if scraped or endpoint.name != "metrics_prometheus"]
        self._document = document(endpoints, __version__)
        admin = [endpoint for endpoint in endpoints if endpoint.access in {"admin", "scrape"}]
        rest = [endpoint for endpoint in endpoints if endpoint not in admin]
        apart = settings.server.admin_port is not None
        self.handler = self._handler(rest if apart else endpoints)
        opened = [endpoint for endpoint in rest if endpoint.access == "open"]
        self.admin_handler = self._handler([*admin, *opened]) if apart else None

    def _handler(self, endpoints: Sequence[Endpoint]) -> Handler:
        return Handler(
            matcher=Matcher(endpoints),
            state=lambda: self.state,
            control=self,
            bounds=self._bounds,
            metrics=self.metrics,
            log=self.log,
        )

    def _edge(self, handler: Handler) -> Edge:
        server = self._reloader.current.settings.server
        edge = Edge(
            handler,
            max_connections=server.max_connections,
            max_header_bytes=server.max_header_kb << 10,
            head_seconds=server.head_seconds,
            policy=self._policy(handler),
            metrics=self.metrics,
            log=self.log,
        )
        self._edges.append(edge)
        return edge

    def _policy(self, handler: Handler) -> Policy:
        """The fast lane's reading of the state in force, for one edge."""
        why = "admin_port" if handler is self.admin_handler else None
        if self.state.settings.server.lane == "full":
            why = "forced"
        return compile_policy(self.state, ENDPOINTS, self._origins, why=why)

    # -- the state in force

    def _compile(self, settings: Settings, old: State | None) -> State:
        """New tables from settings; what is unchanged (an upstream's pool, its health) is carried over."""
        keys = settings.keys
        development = _development_key(settings, self._environ)
        if development is not None:
            keys = (Key(name=DEVELOPMENT_KEY_NAME, key=SecretStr(development), admin=True),)
        known = {service.upstream.name: (service, upstream) for service, upstream in _pairs(old)}
        services: list[Service] = []
        for upstream in settings.upstreams:
            service, before = known.get(upstream.name, (None, None))
            same = (
                service is not None
                and before == upstream
                and old is not None
                and old.settings.timeouts == settings.timeouts
            )
            http = service.upstream if service is not None and same else HttpUpstream(upstream, settings.timeouts)
            services.append(
                Service(
                    upstream=http,
                    retries=upstream.retries.over(settings.retries),
                    health=service.health if service is not None else Health(),
                    secrets=_secrets(upstream),
                    total=upstream.timeouts.over(settings.timeouts).total,
                    auth=upstream.auth,
                    stream_usage=upstream.stream_usage,
                )
            )
        echo = old.services[-1] if old is not None else None
        services.append(
            echo
            or Service(
                upstream=Echo(),
                retries=settings.retries,
                health=Health(),
                secrets=(),
                total=settings.timeouts.total,
                auth="none",
                stream_usage=True,
            )
        )
        return State(
            settings=settings,
            keys=Keys(keys, settings.limits, self._table),
            routes=Routes(settings.upstreams, settings.models),
            services=tuple(services),
            scrape_digest=digest(settings.metrics.key.get_secret_value().encode()) if settings.metrics.key else None,
        )

    async def reload(self) -> Mapping[str, object]:
        """Read the configuration again and swap; a bad one leaves the old tables serving. Raises ReloadFailed."""
        async with self._reloading:  # one after the other: an older reading must not replace a newer one
            return await self._reload()

    def _prepare(self, loaded: Loaded) -> Loaded:
        """Compile what was loaded, still within the reload that can be refused. Raises ConfigError."""
        try:
            self._next = self._compile(loaded.settings, self.state)
        except ValueError as error:
            raise ConfigError([problem(str(error))]) from None
        return loaded

    async def _reload(self) -> Mapping[str, object]:
        try:
            loaded = await asyncio.get_running_loop().run_in_executor(None, self._reloader.reload)
        except ConfigError as error:
            self.log.events.error("config.rejected", error=str(error), version=self._reloader.version)
            raise ReloadFailed(
                f"The new configuration was not accepted, the old one goes on serving:\n{error}"
            ) from None
        old, new = self.state, self._next
        if new is None:
            raise ReloadFailed("Nothing was compiled; the old configuration goes on serving.")
        self.state, self._next = new, None
        for edge in self._edges:
            edge.lane.swap(self._policy(edge.handler))
        self._origins.keep(new.services)
        self._know_models()
        kept = {id(service.upstream) for service in new.services}
        for service in old.services:
            if id(service.upstream) not in kept:
                self._retire(service)
        self.log.events.info(
            "config.reloaded", version=self._reloader.version, files=[str(file) for file in loaded.files]
        )
        return self.configuration()

    def _retire(self, service: Service) -> None:
        """Close a replaced upstream's pool once its longest exchange must have ended."""

        async def close() -> None:
            try:
                await asyncio.sleep(self.state.settings.timeouts.total)
            finally:
                await service.upstream.close()

        task = asyncio.get_running_loop().create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def refresh_upstreams(self) -> Mapping[str, object]:
        """See ``types.Control``."""
        result = dict(await self.reload())
        result["errors"] = await self._discover()
        result["models"] = {name: len(models) for name, models in self._discovered.items()}
        return result

    async def _discover(self) -> dict[str, str]:
        """Ask the upstreams whose models are given by pattern."""
        asked = [
            service.upstream
            for service, upstream in _pairs(self.state)
            if upstream.dialect == "openai"
            and upstream.auth != "passthrough"
            and any("*" in name or "?" in name for name in upstream.models)
        ]
        models, errors = await discover(asked)
        self._discovered = {**{name: self._discovered[name] for name in errors if name in self._discovered}, **models}
        self._know_models()
        for name, error in errors.items():
            self.log.events.warning("upstream.models_unknown", upstream=name, error=error)
        return errors

    def _know_models(self) -> None:
        """What can be listed and shown has changed."""
        self._served = self.state.routes.served(self._discovered)
        self.metrics.know(self.state.routes.labels(self._discovered))
        for edge in self._edges:
            edge.lane.know(self.metrics.known)

    def configuration(self) -> Mapping[str, object]:
        """See ``types.Control``."""
        reloader = self._reloader
        return {
            "version": reloader.version,
            "loaded_at": _stamp(reloader.last_success),
            "files": [str(file) for file in reloader.current.files],
            "keys": len(self.state.keys.principals),
            "upstreams": len(self.state.services) - 1,
            "last_error": str(reloader.last_error) if reloader.last_error is not None else None,
            "last_error_at": _stamp(reloader.last_error_at) if reloader.last_error_at is not None else None,
        }

    # -- what the gateway's own endpoints ask for (types.Control)

    @property
    def draining(self) -> bool:
        """See ``types.Control``."""
        return self.handler.draining

    @property
    def active(self) -> int:
        """See ``types.Control``; the asking request is one of them."""
        return len(self.handler.active) + sum(edge.lane.active + edge.lane.reading for edge in self._edges)

    def models(self, principal: Principal) -> list[ServedModel]:
        """See ``types.Control``."""
        return [ServedModel(id=name, owner=owner) for name, owner in self._served if principal.models.match(name)]

    def model(self, principal: Principal, name: str) -> ServedModel:
        """See ``types.Control``."""
        return ServedModel(id=name, owner=self.state.routes.owner(name, principal, self._discovered))

    def upstreams(self) -> list[UpstreamState]:
        """See ``types.Control``."""
        shown = [(service, upstream.base_url, upstream.models) for service, upstream in _pairs(self.state)]
        shown.append((self.state.services[-1], "in process", (f"{ECHO_UPSTREAM}/echo",)))
        return [
            UpstreamState(
                name=service.upstream.name,
                dialect=service.upstream.dialect,
                base_url=base_url,
                auth=service.auth,
                models=tuple(models),
                state=service.health.state,
                since=service.health.since,
                last_error=service.health.last_error,
                requests=service.health.requests,
                failures=service.health.failures,
            )
            for service, base_url, models in shown
        ]

    def metrics_text(self) -> bytes:
        """See ``types.Control``."""
        return self.metrics.text()

    def metrics_tree(self) -> Mapping[str, object]:
        """See ``types.Control``."""
        return self.metrics.tree()

    def openapi(self) -> bytes:
        """See ``types.Control``."""
        return self._document

    # -- life

    async def serve(self, ready: Callable[["Gateway", str], None]) -> None:
        """Listen, call ``ready`` with the URL, serve until SIGTERM or SIGINT, drain. Raises OSError."""
        settings = self.state.settings.server
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        hurry = asyncio.Event()

        def on_stop() -> None:
            (hurry if stop.is_set() else stop).set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        edge = self._edge(self.handler)
        url = await edge.listen(settings.host, settings.port)
        admin_edge = self._edge(self.admin_handler) if self.admin_handler is not None else None
        if admin_edge is not None:
            await admin_edge.listen(
                settings.host if not settings.host.startswith("unix:") else "127.0.0.1", settings.admin_port or 0
            )
        ready(self, url)
        self._discovery = loop.create_task(self._discover())
        await stop.wait()
        self.log.events.info("server.draining", active=self.active, seconds=settings.drain_seconds)
        drain = loop.create_task(edge.drain(settings.drain_seconds))
        second = loop.create_task(hurry.wait())
        await asyncio.wait({drain, second}, return_when=asyncio.FIRST_COMPLETED)
        second.cancel()
        late = await edge.drain(0) if not drain.done() else drain.result()
        drain.cancel()
        if admin_edge is not None:
            await admin_edge.drain(0)
        await self._close()
        self.log.events.info("server.stopped", ended_early=late)

    async def _close(self) -> None:
        tasks = [task for task in (self._discovery, *self._closing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._origins.close()
        for service in self.state.services:
            await service.upstream.close()

    def _on_hangup(self) -> None:
        async def attempt() -> None:
            try:
                await self.reload()
            except ReloadFailed:
                return  # said in the log, with the reason

        task = asyncio.get_running_loop().create_task(attempt())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _pairs(state: State | None) -> list[tuple[Service, Upstream]]:
    """The services over HTTP with their settings, in order; the built-in echo model's has none."""
    if state is None:
        return []
    return list(zip(state.services[:-1], state.settings.upstreams, strict=True))


def _stamp(seconds: float) -> str:
    """UTC in RFC 3339, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _secrets(upstream: Upstream) -> tuple[str, ...]:
    """What of an upstream's settings must never be shown; a short header value is no secret."""
    values = [upstream.api_key.get_secret_value()] if upstream.api_key is not None else []
    values += [value.rpartition(" ")[2] for value in upstream.headers.values()]
    return tuple(value for value in values if len(value) >= SECRET_CHARACTERS)


def _development_key(settings: Settings, environ: Mapping[str, str]) -> str | None:
    """Without any key configured there is a generated one. Raises ConfigError where it cannot be kept."""
    if settings.keys:
        return None
    return devkey.ensure(devkey.state_dir(settings.server.state_dir, environ))
