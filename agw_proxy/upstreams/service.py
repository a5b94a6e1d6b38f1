"""What the attempts need to know of an upstream."""

import asyncio

import msgspec

from agw_proxy.config.presets import Quirks
from agw_proxy.config.resilience import Retries, Timeouts
from agw_proxy.config.values import Form, Spoken
from agw_proxy.types import Upstream
from agw_proxy.upstreams.health import Health
from agw_proxy.upstreams.keyring import Keyring
from agw_proxy.upstreams.queue import Places


class Service(msgspec.Struct, frozen=True):
    """One upstream with what the attempts need to know of it."""

    upstream: Upstream
    retries: Retries
    health: Health
    secrets: tuple[str, ...]
    """What must never be shown: its keys and the values of its configured headers."""
    timeouts: Timeouts
    """Its own over the general ones; ``total`` is for all tries of an exchange together."""
    auth: str
    """``key``, ``passthrough`` (it is asked with the caller's own provider credentials) or ``none``."""
    stream_usage: bool
    """Streams are asked to report usage, also where the caller did not ask."""
    speaks: tuple[Form, ...] = ("chat", "completions")
    """The forms in which it may be asked, the one to translate into first."""
    quirks: Quirks = Quirks()
    by_deployment: bool = False
    """The path of each request names the model."""
    keys: Keyring | None = None
    """Where it has several."""
    keeps: bool = True
    """Where it speaks Responses: it keeps them, too."""
    places: Places | None = None
    """Where only so many requests may run at once; ``upstream.open`` takes and gives them, the fast lane does itself."""
    delegates: bool = False
    """It asks models itself, by exchanges of their own that are paid for (agents): its own exchanges cost no tokens."""

    mixed: frozenset[Form] = frozenset()
    """Forms in which a request may hold thoughts of models that are asked in another form, which this one's would refuse."""

    @property
    def into(self) -> Spoken:
        """The form into which requests in others are translated."""
        first = self.speaks[0]
        return "chat" if first == "completions" else first


async def retire(service: Service, seconds: float) -> None:
    """Close a service that gets no more exchanges once its last one must have ended."""
    try:
        await asyncio.sleep(seconds)
    finally:
        await service.upstream.close()
