"""Asks upstreams which models they have, for the models list; nobody waits for it but a refresh."""

import asyncio
from collections.abc import Mapping, Sequence

import orjson

from agw_proxy._hot.route import RouteTable
from agw_proxy.config.settings import Upstream as Settings
from agw_proxy.errors import UpstreamError
from agw_proxy.types import Call, Upstream
from agw_proxy.upstreams.service import Service

SECONDS = 10.0
MAX_BYTES = 8 * 1024 * 1024  # the largest list seen in the field is about 1 MiB
MAX_MODELS = 10_000


class Catalog:
    """The models that upstreams have told of. ``models``: by upstream, as last told; ``errors``: why one could not."""

    def __init__(self) -> None:
        self.models: dict[str, tuple[str, ...]] = {}
        self.errors: dict[str, str] = {}

    async def ask(self, upstreams: Sequence[tuple[Service, Settings]]) -> Mapping[str, str]:
        """Ask those whose models are given by pattern; gives ``errors``."""
        asked = [
            service.upstream
            for service, settings in upstreams
            if settings.dialect == "openai"
            and settings.auth != "passthrough"
            and any("*" in name or "?" in name for name in settings.models)
        ]
        models, self.errors = await discover(asked)
        kept = {name: self.models[name] for name in self.errors if name in self.models}
        self.models = {**kept, **models}
        return self.errors


async def discover(upstreams: Sequence[Upstream]) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """(models by upstream, error code by upstream) of those asked, all at once, each within SECONDS."""
    found = await asyncio.gather(*(_ask(upstream) for upstream in upstreams))
    models = {
        upstream.name: names for upstream, names in zip(upstreams, found, strict=True) if isinstance(names, tuple)
    }
    errors = {upstream.name: names for upstream, names in zip(upstreams, found, strict=True) if isinstance(names, str)}
    return models, errors


async def _ask(upstream: Upstream) -> tuple[str, ...] | str:
    target = RouteTable([(upstream.name, ("*",))], []).find(f"{upstream.name}/models")
    call = Call("GET", "/models", "", [("Accept", "application/json")], None, None, "models-list")
    if target is None:
        return "upstream_invalid"
    try:
        async with asyncio.timeout(SECONDS):
            reply = await upstream.open(target.targets[0], call)
            try:
                body = bytearray()
                while not reply.ended and len(body) <= MAX_BYTES:
                    body += await reply.read()
            finally:
                reply.close()
    except UpstreamError as error:
        return error.code
    except TimeoutError:
        return "upstream_timeout"
    if reply.status != 200 or len(body) > MAX_BYTES:
        return "upstream_invalid"
    return _names(bytes(body))


def _names(body: bytes) -> tuple[str, ...] | str:
    try:
        tree = orjson.loads(body)
        names = [item["id"].removeprefix("models/") for item in tree["data"][:MAX_MODELS]]
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return "upstream_invalid"
    return tuple(names)
