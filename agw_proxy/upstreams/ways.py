"""How the attempts of a virtual model go: what it has different from its upstreams."""

from collections.abc import Mapping, Sequence

import msgspec

from agw_proxy._hot.route import Target
from agw_proxy.config.resilience import Retries
from agw_proxy.config.settings import Settings
from agw_proxy.upstreams.hedge import Hedging
from agw_proxy.upstreams.service import Service


class Way(msgspec.Struct, frozen=True):
    """Of one model. Plain, it changes nothing: every route that is no virtual model goes so."""

    retries: tuple[Retries, ...] = ()
    """By upstream number; empty: the upstreams' own."""
    hedging: Hedging | None = None
    last_resort: Target | None = None
    """The echo model, where it answers in place of targets that all failed."""

    def retries_of(self, upstream: int, services: Sequence[Service]) -> Retries:
        """For attempts at the upstream of this number."""
        return self.retries[upstream] if self.retries else services[upstream].retries


PLAIN = Way()


def compile_ways(
    settings: Settings, services: Sequence[Service], echo: Target, before: Settings | None, old: Mapping[str, Way]
) -> Mapping[str, Way]:
    """By the name of a virtual model. ``old``: of the settings ``before``; what a model's answers took is kept."""
    hedges = {model.name: model.hedge for model in before.models} if before is not None else {}
    ways = {}
    for model in settings.models:
        same = model.hedge is not None and hedges.get(model.name) == model.hedge
        hedging = old[model.name].hedging if same else None
        overrides = bool(model.retries.model_dump(exclude_none=True))
        ways[model.name] = Way(
            retries=tuple(model.retries.over(service.retries) for service in services) if overrides else (),
            hedging=hedging or (Hedging(model.hedge) if model.hedge is not None else None),
            last_resort=echo if model.last_resort == "echo" else None,
        )
    return ways
