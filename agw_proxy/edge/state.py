"""The compiled configuration that requests are decided by: immutable, replaced whole by a reload."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from agw_proxy._hot.circuit import Board
from agw_proxy._hot.keys import digest
from agw_proxy._hot.limit import Table
from agw_proxy.config.settings import Key, Model, Settings, Upstream
from agw_proxy.policy.budgets import Common
from agw_proxy.policy.keys import Keys
from agw_proxy.policy.learners import Learners
from agw_proxy.policy.prices import Prices
from agw_proxy.policy.routes import Routes
from agw_proxy.upstreams.queue import Told
from agw_proxy.upstreams.service import Service
from agw_proxy.upstreams.services import AgentUpstream, compile_services
from agw_proxy.upstreams.ways import Way, compile_ways

if TYPE_CHECKING:
    from agw_proxy.upstreams.taping import Keeper


class State(msgspec.Struct, frozen=True):
    """One version of the policy. ``services`` are numbered as ``routes`` numbers upstreams."""

    settings: Settings
    keys: Keys
    routes: Routes
    services: tuple[Service, ...]
    models: Mapping[str, Model]
    """Settings of virtual models by name."""
    scrape_digest: bytes | None
    prices: Prices
    """What models cost at upstreams, by both names."""
    learners: Learners
    """What the answers of targets have taught about tokens."""
    ways: Mapping[str, Way] = {}
    """How the attempts of a virtual model go, by its name."""

    def pairs(self) -> list[tuple[Service, Upstream]]:
        """The services over HTTP with their settings, in order; those of the echo model and of the agents have none."""
        return list(zip(self.services, self.settings.upstreams, strict=False))

    @property
    def own(self) -> tuple[Service, ...]:
        """The services in this process: the echo model's, and the agents' where there are any."""
        return self.services[len(self.settings.upstreams) :]


def compile_state(
    settings: Settings,
    keys: Sequence[Key],
    table: Table,
    board: Board,
    old: State | None,
    on_dead: Callable[[str, str], None],
    *,
    told: Told | None = None,
    keeper: "Keeper | None" = None,
    agents: AgentUpstream | None = None,
) -> State:
    """New tables from settings; what is unchanged (an upstream's pool, its health) is carried over from ``old``.

    ``keys``: those that are let in. ``table``, ``board``: limits and circuits, which outlive a state. ``on_dead``: hears
    of an upstream's keys that were refused, ``told`` of its queue, ``keeper`` of its exchanges. ``agents``: what runs them, where there are any.
    Raises ValueError for what the settings' own checks let through.
    """
    before = old.settings if old is not None else None
    routes = Routes(
        settings.upstreams, settings.models, board, settings.breaker, agents.ids if agents is not None else None
    )
    kept = old.services if old is not None else ()
    services = compile_services(settings, before, kept, on_dead, told=told, keeper=keeper, agents=agents)
    for upstream, service in zip(settings.upstreams, services, strict=False):  # not those in this process
        service.health.vitals = board.vitals(upstream.name)
    return State(
        settings=settings,
        keys=Keys(keys, common_of(settings), table),
        learners=old.learners if old is not None else Learners(),
        routes=routes,
        services=services,
        models={model.name: model for model in settings.models},
        prices=Prices(settings.prices, settings.upstreams),
        scrape_digest=digest(settings.metrics.key.get_secret_value().encode()) if settings.metrics.key else None,
        ways=compile_ways(settings, services, routes.echo, before, old.ways if old is not None else {}),
    )


def longest_seconds(state: State) -> float:
    """After how long the last exchange that this state has decided must have ended: its body, and all its tries.

    A virtual model's deadlines come before its upstreams', and those of its first target are for all of them.
    """
    totals = [service.timeouts.total for service in state.services]
    totals += [model.timeouts.total for model in state.settings.models if model.timeouts.total is not None]
    return state.settings.server.body_seconds + max(totals)


def common_of(settings: Settings) -> Common:
    """What the settings allow elsewhere than at keys."""
    return Common(
        limits=settings.limits,
        budgets=settings.budgets,
        sessions=settings.sessions,
        teams=settings.teams,
        upstreams=[(upstream.name, upstream.limits) for upstream in settings.upstreams if upstream.limits],
        models=[(model.name, model.limits) for model in settings.models if model.limits],
        leased=settings.redis is not None,
    )
