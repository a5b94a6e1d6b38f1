"""How the upstreams stand, for ``GET /upstreams``: what traffic, circuits, probes and queues say of each."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from agw_proxy._hot.circuit import Board, Circuit
from agw_proxy._hot.route import RouteTable
from agw_proxy.config.settings import Upstream
from agw_proxy.states import QueueState, TargetState, UpstreamState
from agw_proxy.upstreams.health import FAULTS
from agw_proxy.upstreams.http import HttpUpstream
from agw_proxy.upstreams.probes import Probes, Subject
from agw_proxy.upstreams.service import Service

Pairs = Sequence[tuple[Service, Upstream]]


def subjects(services: Pairs, board: Board) -> list[Subject]:
    """What there is to probe."""
    return [
        Subject(service.upstream, settings.health, board.vitals(settings.name))
        for service, settings in services
        if isinstance(service.upstream, HttpUpstream)
    ]


def standing(
    services: Pairs, own: Sequence[Service], table: RouteTable, board: Board, probes: Probes, now_ns: int
) -> list[UpstreamState]:
    """One line an upstream, in the order of ``services``, then those in this process.

    ``table``: numbers upstreams as ``services`` does. States, last errors and counts are of all workers; queues and probes
    are this process's own. ``now_ns``: on the monotonic clock.
    """
    circuits = _circuits(table)
    settled = [
        msgspec.structs.replace(
            _one(service, board, probes, now_ns),
            base_url=settings.base_url if settings.replay is None else f"replay of {settings.replay}",
            models=tuple(settings.models),
            targets=tuple(_target(circuit, now_ns) for circuit in circuits.get(place, {}).values()),
        )
        for place, (service, settings) in enumerate(services)
    ]
    return [*settled, *(_one(service, board, probes, now_ns) for service in own)]


def _circuits(table: RouteTable) -> dict[int, dict[str, Circuit]]:
    """Those of the configured targets, by upstream and name."""
    found: dict[int, dict[str, Circuit]] = {}
    for name in table.names():
        route = table.find(name)
        for target in (*route.targets, *route.fallbacks) if route is not None else ():
            if target.circuit is not None:
                found.setdefault(target.upstream, {})[target.name] = target.circuit
    return found


def _one(service: Service, board: Board, probes: Probes, now_ns: int) -> UpstreamState:
    name, health, vitals = service.upstream.name, service.health, board.vitals(service.upstream.name)
    probe, places = probes.state(name), service.places
    state, since = health.state, health.since
    if vitals.since_ns:
        state, since = "failing" if vitals.failing else "up", _stamp(now_ns - vitals.since_ns)
    if vitals.out:
        state, since = "out", probe.out_since if probe is not None else None
    return UpstreamState(
        name=name,
        dialect=service.upstream.dialect,
        base_url="in process",
        auth=service.auth,
        models=tuple(getattr(service.upstream, "ids", (f"{name}/echo",))),
        state=state,
        since=since,
        last_error=FAULTS[vitals.fault] or health.last_error,
        requests=max(health.requests, vitals.requests),
        failures=max(health.failures, vitals.failures),
        dead_keys=service.keys.dead if service.keys is not None else 0,
        queue=QueueState(places.most, places.taken, places.waiting) if places is not None else None,
        probe=probe,
    )


def _stamp(ago_ns: int) -> str:
    """The time so long ago, in RFC 3339 to the second."""
    return (datetime.now(UTC) - timedelta(microseconds=ago_ns // 1000)).isoformat(timespec="seconds")


def _target(circuit: Circuit, now_ns: int) -> TargetState:
    opens = circuit.opens_in_ns(now_ns)
    return TargetState(circuit.name, circuit.state(now_ns), -(-opens // 1_000_000), circuit.in_flight)
