"""Where a request may get an answer that was or is somebody's: the cache, and what its Idempotency-Key has brought before.

One call in ``Handler._relay``; what is configured decides which of the two it asks, and whether any.
"""

from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from agw_proxy.api.endpoint import Relay
from agw_proxy.config.devkey import state_dir
from agw_proxy.config.settings import Settings
from agw_proxy.edge.caching import Caching
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.flights import Ask
from agw_proxy.edge.idempotency import Orders
from agw_proxy.edge.lane import serves
from agw_proxy.edge.state import State
from agw_proxy.observe.log import Log
from agw_proxy.observe.metrics import Metrics
from agw_proxy.policy.routes import AGENTS_UPSTREAM
from agw_proxy.store.base import Store
from agw_proxy.types import Routed
from agw_proxy.upstreams.opening import Opened

ASKS = frozenset({"x-agw-cache", "cache-control"})
"""Headers by which a run asks for kept answers: by itself it gets new ones, since a loop that gets the same again never ends."""


class Shared(Protocol):
    """What several nodes have together."""

    def store(self, part: str) -> Store:
        """Values of one kind."""
        ...


class Found(Protocol):
    """How a request gets its answer."""

    async def open(self, ask: Ask) -> Opened:
        """The answer, from wherever; ``ask`` opens it upstream. Raises UpstreamError."""
        ...


class Reuse:
    """Of one worker; outlives reloads."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        environ: Mapping[str, str],
        alone: bool,
        shared: Shared | None,
        log: Log,
    ) -> None:
        """``environ``: says where the state directory is. ``alone``: there is no other worker. ``shared``: with other nodes."""
        self._log = log
        self._metrics = metrics
        self._folder = state_dir(settings.server.state_dir, environ)
        self._alone = alone
        self._stores = shared.store if shared is not None else None
        self._settings = self._before = settings
        self._caching = self._make_caching(settings)
        self._orders = self._make_orders(settings)

    def _take_up(self, settings: Settings) -> None:
        """After a reload: what is kept stays, unless its settings have changed.

        Requests from before it come here still, and do not bring the old settings back.
        """
        if settings is self._before:
            return
        before = self._before = self._settings
        self._settings = settings
        if settings.cache != before.cache:
            if self._caching is not None:
                self._caching.close()
            self._caching = self._make_caching(settings)
        if settings.idempotency != before.idempotency:
            self._orders = self._make_orders(settings)

    async def look(
        self,
        exchange: Exchange,
        request: web.BaseRequest,
        relay: Relay,
        state: State,
        routed: Routed,
        asked: tuple[str, str, bytes],
        fallbacks: tuple[str, ...],
        *,
        keeps: bool = False,
    ) -> Found | None:
        """How this request gets its answer, None for by itself. ``asked``: path, query and body without ``fallbacks``.

        ``keeps``: its answer is kept by an id of its own. Raises NotCached, IdempotencyConflict and InvalidParameter.
        """
        caching, route = self._caching, routed.route
        if exchange.principal is None or exchange.carried is not None:
            return None
        if state.settings is not self._settings:
            self._take_up(state.settings)
            caching = self._caching
        own = any(state.services[target.upstream].auth == "passthrough" for target in routed.plan)
        end = relay.known_end
        order = self._orders.look(exchange, request, route.targets[0], asked, fallbacks, known_end=end, credentials=own)
        model = state.models.get(route.name)
        unasked = exchange.within is not None and not ASKS.intersection(map(str.lower, request.headers))
        if (
            caching is None
            or unasked
            or not serves(caching.settings, route.name, model.cache if model is not None else None)
        ):
            return order
        keeps = keeps or (
            "x-session-id" in request.headers
            and any(state.services[target.upstream].upstream.name == AGENTS_UPSTREAM for target in routed.plan)
        )
        if order is not None or own or fallbacks or keeps:
            # An order runs once, and is not answered by what others got; what the caller's own credential has paid for
            # is the caller's; and whom somebody names as a fallback may be nobody else's.
            exchange.cache = "bypass"
            return order
        return await caching.look(exchange, request, *asked, routed, state, known_end=end)

    def _make_caching(self, settings: Settings) -> Caching | None:
        cache = settings.cache
        if cache is None:
            return None
        store: Store | None = None
        if cache.backend == "redis" and self._stores is not None:
            store = self._stores("cache")
        elif cache.backend == "disk":
            from agw_proxy.store.disk import DiskStore  # noqa: PLC0415  its library only where it is asked for

            store = DiskStore(cache.path or self._folder / "cache", cache.max_mb << 20, self._log.events)
        return Caching(cache, self._metrics, store)

    def _make_orders(self, settings: Settings) -> Orders:
        most = settings.idempotency.max_mb << 20
        store: Store | None = None
        if self._stores is not None:
            store = self._stores("idempotency")
        elif not self._alone:
            from agw_proxy.store.file import FileStore  # noqa: PLC0415  SQLite only where workers have to agree

            store = FileStore(self._folder / "idempotency.db", most, say=self._log.events)
        return Orders(settings.idempotency.ttl, most, self._metrics, store)
