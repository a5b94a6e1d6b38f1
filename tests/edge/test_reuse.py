"""What is kept over a reload, and what a reload ends."""

from types import SimpleNamespace
from typing import Any, cast

from multidict import CIMultiDict

from agw_proxy.config.settings import Settings
from agw_proxy.edge.reuse import Reuse
from agw_proxy.observe.log import Log
from agw_proxy.observe.metrics import Metrics


def settings_of(**sections: Any) -> Settings:
    return Settings.model_validate({"upstreams": [], **sections})


async def look(reuse: Reuse, settings: Settings) -> None:
    """A request that began under these settings, of a model of which nothing is kept."""
    whole = {
        "exchange": SimpleNamespace(principal=SimpleNamespace(name="app"), carried=None, within=None),
        "request": SimpleNamespace(headers=CIMultiDict[str]()),
        "relay": SimpleNamespace(known_end=True),
        "state": SimpleNamespace(settings=settings, services=[], models={}),
        "routed": SimpleNamespace(plan=(), route=SimpleNamespace(name="m", targets=(None,))),
    }
    assert await reuse.look(**cast("Any", whole), asked=("/v1/x", "", b"{}"), fallbacks=()) is None


async def test_a_request_from_before_a_reload_does_not_bring_the_old_settings_back() -> None:
    """Else every such request would empty the cache, and forget which orders have run."""
    old, new = [settings_of(cache={"ttl": ttl, "models": ["none"]}, idempotency={"ttl": ttl}) for ttl in ("1m", "2m")]
    reuse = Reuse(old, cast("Metrics", object()), {}, True, None, cast("Log", object()))
    await look(reuse, old)
    begun = reuse._caching, reuse._orders
    await look(reuse, new)
    kept = reuse._caching, reuse._orders
    assert (kept[0] is begun[0], kept[1] is begun[1]) == (False, False)
    await look(reuse, old)
    await look(reuse, new)
    assert (reuse._caching is kept[0], reuse._orders is kept[1]) == (True, True)
    await look(reuse, settings_of(cache={"ttl": "2m", "models": ["none"]}, idempotency={"ttl": "2m"}))
    assert (reuse._caching is kept[0], reuse._orders is kept[1]) == (True, True)
