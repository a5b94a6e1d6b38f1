"""The fallbacks that a request names itself: ``"fallbacks": ["model-a", "upstream/model"]``.

The member is the gateway's own: it never goes upstream.
"""

import time
from collections.abc import Sequence

import msgspec
import orjson

from agw_proxy._hot.peek import Peek
from agw_proxy._hot.route import Route, Target
from agw_proxy.edge.state import State
from agw_proxy.errors import CallerError, InvalidParameter, PolicyError, UpstreamUnavailable
from agw_proxy.policy.routes import Routes, shown
from agw_proxy.types import Dialect, Principal, Routed
from agw_proxy.upstreams.ways import PLAIN

MAX_FALLBACKS = 8  # each may be a virtual model with targets of its own
SPACE = b" \t\r\n"


def named(body: bytes, seen: Peek) -> tuple[str, ...]:
    """The names, in order; none where the member is missing or null. Raises InvalidParameter."""
    if seen.fallbacks_start < 0:
        return ()
    names = orjson.loads(body[seen.fallbacks_start : seen.fallbacks_end])
    if names is None:
        return ()
    if not 1 <= len(names) <= MAX_FALLBACKS or not all(isinstance(name, str) and name for name in names):
        raise InvalidParameter(
            f"'fallbacks' must be a list of 1 to {MAX_FALLBACKS} names of models, as texts that are not empty.",
            param="fallbacks",
        )
    return tuple(names)


def without(body: bytes, seen: Peek) -> bytes:
    """The body without the member, and without one of the commas around it."""
    if seen.fallbacks_name < 0:
        return body
    before, after = body[: seen.fallbacks_name], body[seen.fallbacks_end :]
    rest = after.lstrip(SPACE)
    if rest.startswith(b","):
        return before + rest[1:]
    return before.rstrip(SPACE).removesuffix(b",") + after


def planned(
    route: Route,
    names: tuple[str, ...],
    state: State,
    principal: Principal,
    seed: int,
    now_ns: int,
    sticky: int = 0,
    spoken: Dialect | None = None,
    *,
    translated: bool = False,
) -> Routed:
    """The targets to try: the route's, those of ``names`` behind them, each once; the last resort where there are none.

    ``seed``: draws the order of each model's own; ``sticky``: what ties the request to a target, or 0; ``spoken``: only
    upstreams of this dialect understand it, None: any may. ``translated``: it is put into each target's own dialect.
    Raises PolicyError where the key may not name any, ModelForbidden and ModelNotFound for a name as for a model,
    InvalidParameter where an upstream speaks another dialect than the model's, and UpstreamUnavailable where nothing may
    be asked now.
    """
    if names and not principal.fallbacks:
        raise PolicyError(
            f"The key '{principal.name}' may not name fallbacks of its own (its setting fallbacks: true allows it).",
            param="fallbacks",
        )
    routes = [route, *(_route(name, route, state.routes, principal, translated=translated) for name in names)]
    plan: dict[str, Target] = {}
    panic, unavailable = False, None
    for item in routes:
        try:
            routed = state.routes.planned(item, seed, now_ns, sticky)
        except UpstreamUnavailable as error:
            unavailable = unavailable or error
            continue
        panic = panic or routed.panic
        for target in understanding(routed.plan, state.routes, spoken):
            plan.setdefault(target.name, target)
    if not plan and (limited := understanding(resting(routes, now_ns), state.routes, spoken)):
        return Routed(route=route, plan=limited, panic=True)
    if not plan:
        resort = state.ways.get(route.name, PLAIN).last_resort
        if resort is None or not (translated or same_dialect(route, resort, state.routes)):
            raise unavailable or UpstreamUnavailable("Nothing may be asked now.")
        plan[resort.name] = resort
    return Routed(route=route, plan=tuple(plan.values()), panic=panic)


def resting(routes: Sequence[Route], now_ns: int) -> tuple[Target, ...]:
    """Targets that only asked not to be asked for a while, the one that may be first in front.

    Where nothing else is left they are asked all the same: the caller gets the upstream's own word, and a small request
    may pass where a large one did not. What failed too often stays alone.
    """
    found = {target.name: target for route in routes for target in (*route.targets, *route.fallbacks)}
    waits = [
        (circuit.opens_in_ns(now_ns), name)
        for name, target in found.items()
        if (circuit := target.circuit) is not None and circuit.state(now_ns) == "closed" and not circuit.vitals.out
    ]
    return tuple(found[name] for _, name in sorted(waits))


def _route(name: str, first: Route, routes: Routes, principal: Principal, *, translated: bool) -> Route:
    try:
        found = routes.find(name, principal)
    except (PolicyError, CallerError) as error:
        error.param = "fallbacks"
        raise
    if not (translated or same_dialect(first, found.targets[0], routes)):
        raise InvalidParameter(
            f"The fallback '{shown(name)}' is served by an upstream of another dialect than the model.",
            param="fallbacks",
        )
    return found


def same_dialect(route: Route, target: Target, routes: Routes) -> bool:
    """The target's upstream speaks the language of the route's."""
    return routes.dialects[route.targets[0].upstream] == routes.dialects[target.upstream]


def understanding(targets: Sequence[Target], routes: Routes, spoken: Dialect | None) -> tuple[Target, ...]:
    """Those whose upstreams speak this dialect; None: all."""
    return tuple(target for target in targets if spoken in {None, routes.dialects[target.upstream]})


def begun_with(target: Target, route: Route, seed: int, routes: Routes, spoken: Dialect | None) -> Routed:
    """The plan of an exchange whose first target the fast lane has asked already, whatever its circuit says by now."""
    now = time.monotonic_ns()
    rest = (item for item in understanding(route.plan(seed, now), routes, spoken) if item.name != target.name)
    return Routed(route=route, plan=(target, *rest), panic=route.panics(now))


def with_our_credentials(routed: Routed, state: State) -> Routed:
    """Without the targets that are asked with a caller's own credential, for one who brings none; where others are left."""
    plan = tuple(target for target in routed.plan if state.services[target.upstream].auth != "passthrough")
    return msgspec.structs.replace(routed, plan=plan) if plan else routed
