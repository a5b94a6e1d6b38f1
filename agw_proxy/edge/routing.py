"""Which targets a request goes to: by the model that it names, or by the upstream where no model is named."""

import random
import time

from aiohttp import web

from agw_proxy._hot.peek import Peek
from agw_proxy.api.endpoint import Relay
from agw_proxy.edge.affinity import away
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.fallbacks import begun_with, planned
from agw_proxy.edge.reading import CONTROL, sticky_of
from agw_proxy.edge.state import State
from agw_proxy.errors import (
    CallerError,
    InvalidParameter,
    KeyMissing,
    MissingParameter,
    ModelForbidden,
    UpstreamUnavailable,
)
from agw_proxy.types import Principal, Routed

MAX_MODEL_CHARS = 256  # of a name in the log: none that is longer is served


def route(
    exchange: Exchange,
    relay: Relay,
    state: State,
    seen: Peek | None,
    request: web.BaseRequest,
    fallbacks: tuple[str, ...],
    body: bytes | None,
    upstream: str | None = None,
    maker: str | None = None,
) -> Routed:
    """The name is resolved before the limits, so that only models that exist get buckets of their own.

    ``upstream``: what the path itself names; None: it names none.
    ``maker``: the upstream that has what a path without a model is about, see ``edge.affinity``.
    """
    principal = exchange.principal
    if principal is None:
        raise KeyMissing("This endpoint needs a key.")
    if upstream is not None:
        return _whole(principal, state, upstream)
    model = (seen.model if seen is not None else None) or relay.default_model
    if model is None:
        if relay.needs_model:
            raise MissingParameter("The request names no model: 'model' must be a non-empty string.", param="model")
        return _without_model(exchange, state, request, maker)
    if CONTROL.search(model):
        raise InvalidParameter("'model' must be a name without control characters.", param="model")
    exchange.model, exchange.model_label = model[:MAX_MODEL_CHARS], "other"
    carried = exchange.carried
    seed = carried.seed if carried is not None else random.getrandbits(64)
    route = state.routes.find(model, principal)
    exchange.model_label = route.label
    dialects = {state.routes.dialects[target.upstream] for target in route.targets}
    # A path of the upstream's own is its to understand; a generation is translated where it has to be.
    spoken = exchange.dialect if relay.upstream_path and relay.form is None else None
    if spoken is not None and spoken not in dialects:
        raise CallerError(
            f"The model '{model}' is served by an upstream of the {dialects.pop()} dialect, which has no such endpoint.",
            param="model",
        )
    if carried is not None and carried.target is not None:  # asked already, and maybe left alone since then
        return begun_with(carried.target, route, seed, state.routes, spoken)
    kind = state.models[route.name].sticky if route.name in state.models else None
    sticky = sticky_of(kind, request.headers.get("x-session-id"), body or b"")
    now = time.monotonic_ns()
    translated = relay.form is not None
    return planned(route, fallbacks, state, principal, seed, now, sticky, spoken, translated=translated)


def _without_model(exchange: Exchange, state: State, request: web.BaseRequest, maker: str | None) -> Routed:
    """Paths that name no model go to the upstream in ``x-agw-upstream``, to their ``maker``, or to the first.

    For keys that may use all of it.
    """
    principal = exchange.principal
    names = state.routes.upstream_names
    asked = request.headers.get("x-agw-upstream")
    name = asked if asked is not None else maker or names[0]
    if principal is None or name not in names:
        raise CallerError("The header x-agw-upstream names no upstream of this gateway.", param="x-agw-upstream")
    return _whole(principal, state, name, maker)


def _whole(principal: Principal, state: State, name: str, maker: str | None = None) -> Routed:
    """Raises ModelForbidden where the key may not use all of that upstream, UpstreamUnavailable where it may not be asked."""
    if not state.routes.may_address(name, principal):
        raise ModelForbidden(
            f"This path names no model, and the key '{principal.name}' may not use all of upstream '{name}' (its models would have to include '{name}/*')."
        )
    try:
        return state.routes.whole(name, time.monotonic_ns())
    except UpstreamUnavailable as error:
        raise away(name, None, error.retry_after_ms or 0) if name == maker else error from None
