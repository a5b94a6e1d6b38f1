"""What would become of a request: route, limits, tokens, money, lane. Asks nobody, takes nothing.

It calls the very objects that decide. Where chance has a part (weights), what is told is one draw.
"""

import time
from collections.abc import Mapping, Sequence

import msgspec

from agw_proxy._hot import subjects
from agw_proxy._hot.lane import odd_target
from agw_proxy._hot.limit import (
    BUCKET,
    CALENDAR,
    CLOSED,
    CONCURRENT,
    COST,
    COUNTS_COST,
    INPUT,
    LEASED,
    OPEN,
    OUTPUT,
    PER_CHANNEL,
    PER_KEY,
    PER_MODEL,
    PER_SESSION,
    PER_TEAM,
    PER_TOOL,
    PER_UPSTREAM,
    PER_USER,
    REQUESTS,
    STREAMS,
    TOKENS,
    TOTAL,
    Rule,
    Standing,
    subject,
)
from agw_proxy._hot.money import Tariff
from agw_proxy._hot.peek import Peek
from agw_proxy._hot.reserve import Reserve, estimate
from agw_proxy._hot.route import Route, Target
from agw_proxy.api.endpoint import Endpoint, Matcher, Relay
from agw_proxy.api.passthrough import COUNTING_PATHS
from agw_proxy.api.table import ENDPOINTS
from agw_proxy.edge.asking import named as subject_of
from agw_proxy.edge.asking import of_upstream
from agw_proxy.edge.counting import COUNTING
from agw_proxy.edge.fallbacks import named, planned, same_dialect, without
from agw_proxy.edge.gemini import shaped, usual
from agw_proxy.edge.headers import idempotency_key, label
from agw_proxy.edge.lane import full_lane_reason, serves
from agw_proxy.edge.own_timeouts import own_timeouts
from agw_proxy.edge.reading import look_into, sticky_of
from agw_proxy.edge.state import State
from agw_proxy.errors import (
    BudgetSpent,
    CallerError,
    GatewayError,
    InvalidParameter,
    MissingParameter,
    RateLimited,
    SessionSpent,
    Unpriced,
)
from agw_proxy.policy.limits import PERIODS, duration
from agw_proxy.types import ExplainWanted, Principal

UNITS = {
    REQUESTS: "requests", TOKENS: "tokens", INPUT: "input_tokens", OUTPUT: "output_tokens", COST: "micro_usd",
    CONCURRENT: "concurrent", STREAMS: "streams",
}  # fmt: skip
SUBJECTS = {
    PER_KEY: "key", PER_TEAM: "team", PER_USER: "user", PER_CHANNEL: "channel", PER_MODEL: "model",
    PER_UPSTREAM: "upstream", PER_TOOL: "tool", PER_SESSION: "session",
}  # fmt: skip
USUAL = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
FAST_BODY_BYTES = 1 << 20  # larger ones are the full lane's
Tree = dict[str, object]


def explain(state: State, principal: Principal, wanted: ExplainWanted, now_ns: int | None = None) -> Tree:
    """What would become of it. Raises CallerError where what is to be explained is no request to a model."""
    now = time.monotonic_ns() if now_ns is None else now_ns
    seen = look_into(wanted.body, state.settings.server.json_depth)
    path = wanted.path or _usual_path(state, principal, seen.model)
    path, _, query = path.partition("?")
    path = usual("POST", path)
    endpoint, _ = Matcher(ENDPOINTS).match("POST", path)
    relay = endpoint.relay
    if relay is not None and relay.form == "gemini":  # its path says model and stream
        wanted = msgspec.structs.replace(wanted, body=shaped(path, query or "alt=sse", wanted.body).body)
        seen = look_into(wanted.body, state.settings.server.json_depth)
    if relay is None or not (relay.json_only or relay.model_paths is None or path in relay.model_paths):
        raise InvalidParameter(f"'{path}' is no endpoint that takes a request to a model as JSON.", param="path")
    model = seen.model or relay.default_model
    if model is None:
        raise MissingParameter("The request names no model: 'model' must be a non-empty string.", param="model")
    told: Tree = {
        "object": "explanation",
        "key": principal.name,
        "endpoint": endpoint.name,
        "model": model,
        "stream": seen.stream,
        "outcome": "ok",
    }
    try:
        _explain(told, state, principal, wanted, path, endpoint, relay, seen, model, now)
    except GatewayError as error:
        told["outcome"] = {"status": error.status, "code": error.alias or error.code, "message": error.message}
    return told


def _explain(
    told: Tree,
    state: State,
    principal: Principal,
    wanted: ExplainWanted,
    path: str,
    endpoint: Endpoint,
    relay: Relay,
    seen: Peek,
    model: str,
    now: int,
) -> None:
    """Fill in what is known, as far as the request would get. Raises what would refuse it."""
    fallbacks = named(wanted.body, seen)
    body = without(wanted.body, seen)
    if seen.fallbacks_name >= 0:
        seen = look_into(body, state.settings.server.json_depth)
    route = state.routes.find(model, principal)
    told["route"] = _route(state, route, now, translated=relay.form is not None)
    if (
        relay.form is None
        and relay.upstream_path
        and state.routes.dialects[route.targets[0].upstream] != endpoint.dialect
    ):
        raise CallerError("The model's upstream speaks another dialect than this endpoint.", param="model")
    kind = state.models[route.name].sticky if route.name in state.models else None
    sticky = sticky_of(kind, wanted.headers.get("x-session-id"), body)
    routed = planned(route, fallbacks, state, principal, subject(body), now, sticky, translated=relay.form is not None)
    made = _Made(state, principal, wanted, path, endpoint, relay, body, seen, model)
    chosen, rules = _choose(made, routed.plan, now)
    rest = [target for target in routed.plan if target is not chosen]
    told["plan"] = [target.name for target in (chosen, *rest)]
    tariff, reserve = made.tariff(chosen), made.reserve(chosen)
    likely = min(made.expected(chosen), reserve.output) if relay.known_end else 0
    told["tokens"] = {"input": reserve.prompt, "output_reserved": reserve.output, "output_likely": likely}
    told["cost"] = {
        "priced": tariff is not None,
        "reserved_usd": reserve.cost / 1e6,
        "likely_usd": (tariff.cost(reserve.prompt, 0, likely) + reserve.extra) / 1e6 if made.pays and tariff else 0.0,
        "as_of": state.prices.as_of or None,
    }
    reason = made.lane_reason(route, chosen)
    told["lane"] = {"lane": "full" if reason else "fast", "reason": reason}
    if "x-agw-timeout" in wanted.headers:
        own_timeouts(wanted.headers["x-agw-timeout"])
    if "idempotency-key" in wanted.headers:
        idempotency_key([wanted.headers["idempotency-key"]])
    told["cache"] = _cache(state, model, routed.plan, bool(fallbacks), wanted.headers)
    told["limits"] = rules
    if tariff is None and principal.needs_price:
        raise Unpriced(f"The model '{chosen.name}' has no price, and a budget of the key or of its team wants one.")
    refusing = next((rule for rule in rules if not rule["passes"]), None)
    if refusing is not None:
        raise _refusal(refusing, endpoint)


class _Made:
    """A request as far as it is known, before a target is."""

    def __init__(
        self,
        state: State,
        principal: Principal,
        wanted: ExplainWanted,
        path: str,
        endpoint: Endpoint,
        relay: Relay,
        body: bytes,
        seen: Peek,
        model: str,
    ) -> None:
        self._state, self._principal, self._wanted, self._path = state, principal, wanted, path
        self._endpoint, self._relay, self._body, self._seen = endpoint, relay, body, seen
        messages = endpoint.dialect == "anthropic"
        session = wanted.headers.get("x-session-id")
        self._subjects = {
            "key": principal.subject,
            "team": principal.team_subject,
            "user": subject_of("user", subjects.user(body, seen, messages) or label(wanted.headers, "x-user-id")),
            "channel": subject_of("channel", label(wanted.headers, "x-channel-id")),
            "model": subject_of("model", model),
            "session": subjects.session(
                body,
                seen,
                session.encode("utf-8", "surrogateescape") if session else None,
                principal.subject,
                messages,
                principal.derive and relay.known_end,
            ),
        }

    def tariff(self, target: Target) -> Tariff | None:
        """What it costs there."""
        return _tariff(self._state, target)

    def reserve(self, target: Target) -> Reserve:
        """What it may need there; nothing where tokens are only counted, or who is asked asks models in its turn."""
        if not self.pays or self._state.services[target.upstream].delegates:
            return Reserve()
        return estimate(
            self._body,
            self._state.learners.of(_upstream(self._state, target), target.model),
            self.tariff(target),
            self._seen.max_tokens,
            subjects.choices(self._body, self._seen),
            self._relay.known_end,
            self._steps,
            not self._principal.limits.counts & COUNTS_COST,
        )

    @property
    def pays(self) -> bool:
        """It uses tokens."""
        return self._path not in COUNTING_PATHS and not self._path.endswith(COUNTING)

    def expected(self, target: Target) -> int:
        """The tokens of an answer there, by what earlier ones were."""
        tariff = self.tariff(target)
        learner = self._state.learners.of(_upstream(self._state, target), target.model)
        return learner.output(-1, tariff.max_output if tariff is not None else 0)

    def rules(self, target: Target, now: int) -> list[tuple[Rule, Tree]]:
        """What limits it there, with what is left."""
        reserve = self.reserve(target)
        asks = {
            REQUESTS: 1, CONCURRENT: 1, STREAMS: int(self._seen.stream), COST: reserve.cost, INPUT: reserve.prompt,
            OUTPUT: reserve.output, TOKENS: reserve.prompt + reserve.output,
        }  # fmt: skip
        upstream = subject_of("upstream", _upstream(self._state, target))
        standings = self._principal.limits.look(now, upstream=upstream, **self._subjects)
        return [(one.rule, _rule(one, asks[one.rule.unit], self._principal)) for one in standings]

    def _odd_target(self) -> str | None:
        """Why a path or a query of Google's form is the full lane's to read; None: it is not."""
        if self._relay.form != "gemini":
            return None
        query = (self._wanted.path or "").partition("?")[2]
        return odd_target(self._path.encode(), (query or "alt=sse").encode())

    def lane_reason(self, route: Route, target: Target) -> str | None:
        """Why it would go by the full lane; None: it would not."""
        state, principal = self._state, self._principal
        places = state.services[target.upstream].places
        if state.settings.server.lane == "full":
            return "forced"
        if state.settings.server.record is not None:
            return "recording"
        odd = self._odd_target()
        if odd == "endpoint":
            return odd
        if len(self._wanted.body) > FAST_BODY_BYTES:
            return "large_body"
        if "x-agw-timeout" in self._wanted.headers:
            return "own_timeouts"
        if "idempotency-key" in self._wanted.headers:
            return "idempotency"
        if odd is not None:
            return odd
        if self._relay.form == "gemini" and subjects.bounds(self._body, self._seen) is None:
            return "bounds"
        if len(self._body) < len(self._wanted.body):
            return "fallbacks"
        reason = full_lane_reason(state, self._endpoint, route.name, target.upstream, self._body)
        if reason is not None:
            return reason
        if principal.needs_price and self.tariff(target) is None:
            return "unpriced"
        if self._steps:
            return "budget"
        return "queue" if places is not None and places.taken >= places.most else None

    @property
    def _steps(self) -> bool:
        return self._principal.finishes and self._seen.stream and self._relay.known_end


def _choose(made: _Made, plan: Sequence[Target], now: int) -> tuple[Target, list[Tree]]:
    """The first target whose rules let it pass, where only an upstream's own stand in the way; else the first of all."""
    first: tuple[Target, list[Tree]] | None = None
    for target in plan:
        rules = made.rules(target, now)
        refusing = next((rule for rule, tree in rules if not tree["passes"]), None)
        found = target, [tree for _, tree in rules]
        if refusing is None:
            return found
        first = first or found
        if not of_upstream(refusing):
            break
    if first is None:
        raise ValueError("a plan names a target")
    return first


def _usual_path(state: State, principal: Principal, model: str | None) -> str:
    """Where a client would ask for the model."""
    try:
        route = state.routes.find(model or "", principal)
    except GatewayError:
        return USUAL["openai"]
    return USUAL.get(state.routes.dialects[route.targets[0].upstream], USUAL["openai"])


def _route(state: State, route: Route, now: int, *, translated: bool) -> Tree:
    model = state.models.get(route.name)
    return {
        "label": route.label,
        "virtual": model is not None,
        "balance": route.balance,
        "targets": [_target(state, target, now) for target in route.targets],
        "fallbacks": [
            _target(state, target, now)
            for target in route.fallbacks
            if translated or same_dialect(route, target, state.routes)
        ],
        "last_resort": model.last_resort if model is not None else None,
    }


def _target(state: State, target: Target, now: int) -> Tree:
    circuit, places, tariff = target.circuit, state.services[target.upstream].places, _tariff(state, target)
    return {
        "target": target.name,
        "weight": target.weight,
        "circuit": circuit.state(now) if circuit is not None else "closed",
        "opens_in_ms": -(-circuit.opens_in_ns(now) // 1_000_000) if circuit is not None else 0,
        "in_flight": circuit.in_flight if circuit is not None else 0,
        "out": circuit is not None and circuit.vitals.out,
        "places": None if places is None else {"most": places.most, "taken": places.taken, "waiting": places.waiting},
        "price": None
        if tariff is None
        else {
            name: getattr(tariff, name) / 1e6 for name in ("input", "cached", "output", "request", "image", "minute")
        },
    }


def _tariff(state: State, target: Target) -> Tariff | None:
    return state.prices.of(_upstream(state, target), target.model)


def _cache(state: State, model: str, plan: Sequence[Target], fallbacks: bool, headers: Mapping[str, str]) -> Tree:
    """Whether an answer that is kept would be looked for. Raises InvalidParameter."""
    from agw_proxy.edge.caching import wish_of  # noqa: PLC0415  it brings aiohttp

    settings, virtual = state.settings.cache, state.models.get(model)
    why: str | None = None
    if settings is None:
        why = "no cache is configured"
    elif virtual is not None and virtual.cache is False:
        why = "the model says cache: false"
    elif not serves(settings, model, virtual.cache if virtual is not None else None):
        why = "the model is none of cache.models"
    elif "idempotency-key" in headers:
        why = "it has an Idempotency-Key"
    elif fallbacks:
        why = "it names fallbacks of its own"
    elif any(state.services[target.upstream].auth == "passthrough" for target in plan):
        why = "it is paid for by the caller's own credential"
    else:
        control = [headers["cache-control"]] if "cache-control" in headers else []
        if wish_of(control, headers.get("x-agw-cache")).way not in {"use", "only"}:
            why = ("x-agw-cache" if "x-agw-cache" in headers else "Cache-Control") + " says so"
    return {"looked_up": why is None, "why": why}


def _rule(standing: Standing, asked: int, principal: Principal) -> Tree:
    rule: Rule = standing.rule
    kind = "budget" if rule.name in principal.budgets else "session" if rule.algorithm == TOTAL else "limit"
    at_once = rule.unit in {CONCURRENT, STREAMS}
    # An estimate above all that a rule ever lets pass counts as that; a window in money refuses it.
    whole = at_once or (rule.unit == COST and rule.algorithm != BUCKET)
    capped = asked if whole else min(asked, rule.burst or asked)
    passes = capped <= standing.remaining
    if rule.leased:
        mode = principal.limits.table.lease_mode(int(rule.unit == COST))
        # What is not here yet may be fetched: who has the rest is not asked.
        passes = mode == OPEN or (mode != CLOSED and (passes or (mode == LEASED and capped <= rule.burst)))
    return {
        "rule": rule.name,
        "kind": kind,
        "per": [name for bit, name in SUBJECTS.items() if rule.per & bit] or ["global"],
        "unit": UNITS[rule.unit],
        "amount": rule.amount,
        "period": None
        if at_once
        else PERIODS[rule.calendar]
        if rule.algorithm == CALENDAR
        else duration(rule.period_ns),
        "remaining": standing.remaining,
        "reset_ms": -(-standing.reset_ns // 1_000_000),
        "shared": rule.leased,
        "asks": asked,
        "passes": passes,
    }


def _refusal(rule: Tree, endpoint: Endpoint) -> GatewayError:
    text = f"Limit '{rule['rule']}' has {rule['remaining']} {rule['unit']} left, and {rule['asks']} would be asked for."
    if rule["kind"] == "budget":
        return BudgetSpent(text, rule=str(rule["rule"]), retry_after_ms=None, dialect=endpoint.dialect)
    kind = SessionSpent if rule["kind"] == "session" else RateLimited
    return kind(text, rule=str(rule["rule"]), retry_after_ms=None)


def _upstream(state: State, target: Target) -> str:
    return state.services[target.upstream].upstream.name
