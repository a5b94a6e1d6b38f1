"""Models in the configuration -> the compiled route table, and a model's name -> the targets to try."""

from collections.abc import Iterator, Mapping, Sequence

from agw_proxy._hot.circuit import Board, Circuit
from agw_proxy._hot.route import Globs, Route, RouteTable, Target
from agw_proxy.config.presets import family_of
from agw_proxy.config.resilience import Breaker
from agw_proxy.config.settings import Model, Upstream
from agw_proxy.errors import ModelForbidden, ModelNotFound, UpstreamUnavailable
from agw_proxy.types import Dialect, Principal, Routed

ECHO_UPSTREAM = "agw"
ECHO_MODEL = "echo"
AGENTS_UPSTREAM = "agents"
NAMES_IN_A_MESSAGE = 20  # enough to find one's way, short enough for a terminal
SHOWN_NAME_CHARACTERS = 80
SECOND_NS = 1_000_000_000
MS_NS = 1_000_000


class Routes:
    """Immutable. Upstreams are numbered in order of configuration; the built-in echo model's comes behind them.

    Where there are agents, what runs them comes last.
    """

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        models: Sequence[Model],
        board: Board | None = None,
        breaker: Breaker | None = None,
        agents: Sequence[str] | None = None,
    ) -> None:
        """Raises ValueError for what the settings' own checks let through.

        ``board``: where the targets' circuits are (also those of routes from an earlier configuration); None: a private
        one. The echo model has none: it cannot fail. ``breaker``: what upstreams have not set differently.
        ``agents``: each is a model of its name, unless one is configured; None: nothing runs any. They have no circuits:
        what fails in one is the model that it asks, which has its own.
        """
        board = board if board is not None else Board()
        breaker = breaker if breaker is not None else Breaker()
        own = (ECHO_UPSTREAM,) if agents is None else (ECHO_UPSTREAM, AGENTS_UPSTREAM)
        self.upstream_names = (*(upstream.name for upstream in upstreams), *own)
        ours: tuple[Dialect, ...] = ("openai",) if agents is None else ("openai", "openai")
        self.dialects: tuple[Dialect, ...] = (*(family_of(upstream) for upstream in upstreams), *ours)
        self._echo = len(upstreams)
        free = [agent for agent in agents or () if agent not in {model.name for model in models}]
        self._agents = frozenset(free)
        self._patterns = tuple((upstream.name, Globs(upstream.models)) for upstream in upstreams)
        number = {name: index for index, name in enumerate(self.upstream_names)}
        # They may lead to agents, before there are any.
        self._models = {
            model.name: model for model in models if any(target.upstream in number for target in model.targets)
        }
        absent = {model.name for model in models} - self._models.keys()
        self._circuits = Circuits(board, upstreams, breaker)
        self.table = RouteTable(
            [*((upstream.name, upstream.models) for upstream in upstreams), *((name, ()) for name in own)],
            [
                (
                    model.name,
                    [
                        (number[target.upstream], target.model, target.weight)
                        for target in model.targets
                        if target.upstream in number
                    ],
                    model.balance,
                    [
                        name
                        for name in model.fallbacks
                        if name not in absent and (agents is not None or not name.startswith(f"{AGENTS_UPSTREAM}/"))
                    ],
                )
                for model in self._models.values()
            ]
            + [(agent, [(self._echo + 1, agent, 1)], "first", ()) for agent in free],
            self._circuits.of,
            breaker.panic,
        )

    def resolve(self, model: str, principal: Principal, random: int, now_ns: int = 0, sticky: int = 0) -> Routed:
        """The route for a model as this principal may use it, with the targets that may be asked ``now_ns``.

        ``random``: any 64-bit number; ``sticky``: a hash of what is to keep to one target, or 0.
        Raises ModelNotFound where no route leads there, ModelForbidden where the key's list does not include it,
        UpstreamUnavailable where nothing may be asked now.
        """
        return self.planned(self.find(model, principal), random, now_ns, sticky)

    def planned(self, route: Route, random: int = 0, now_ns: int = 0, sticky: int = 0) -> Routed:
        """Choose among a route's targets. Raises UpstreamUnavailable where nothing may be asked now."""
        panic = route.panics(now_ns)
        plan = route.plan(random, now_ns, sticky)
        if not plan:
            raise unavailable(route, now_ns)
        return Routed(route=route, plan=plan, panic=panic)

    def find(self, model: str, principal: Principal) -> Route:
        """The route alone. Raises ModelNotFound, ModelForbidden."""
        route = self.table.find(model)
        if route is not None and model not in self._models and route.targets[0].upstream >= self._echo:
            target = route.targets[0]
            known = target.model == ECHO_MODEL if target.upstream == self._echo else target.model in self._agents
            route = route if known else None
        if route is None:
            raise ModelNotFound(
                f"The model '{shown(model)}' does not exist here. GET /v1/models lists what this key can use.",
                param="model",
            )
        if not principal.models.match(model):
            raise ModelForbidden(
                f"The key '{principal.name}' may not use the model '{shown(model)}'. It may use: {listed(principal.models.patterns)}.",
                param="model",
            )
        return route

    @property
    def echo(self) -> Target:
        """The built-in echo model."""
        route = self.table.find(f"{ECHO_UPSTREAM}/{ECHO_MODEL}")
        if route is None:
            raise ValueError("the echo model has no route")
        return route.targets[0]

    def targets(self) -> dict[str, Circuit]:
        """The circuits of all targets that the configuration names, and ``upstream/*`` for what else an upstream runs."""
        return dict(self._circuits.configured)

    def may_address(self, upstream: str, principal: Principal) -> bool:
        """The principal may use everything of this upstream (needed for paths that name no model)."""
        return principal.models.match(f"{upstream}/*")

    def whole(self, upstream: str, now_ns: int = 0) -> Routed:
        """The route to an upstream for a path that names no model.

        Raises ModelNotFound where there is none such, UpstreamUnavailable where it may not be asked now.
        """
        route = self.table.find(f"{upstream}/*")
        if route is None:
            raise ModelNotFound(f"There is no upstream '{shown(upstream)}'.")
        return self.planned(route, now_ns=now_ns)

    def served(self, discovered: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
        """(model, owner) of all that can be named: virtual models, exact names, what upstreams listed, and the echo model."""
        names: dict[str, str] = {}
        for name in self.table.names():
            names[name] = "agw" if name in self._models else self._owner(name)
        for upstream, patterns in self._patterns:
            for name in discovered.get(upstream, ()):
                if patterns.match(name) and self._owner(name) == upstream:
                    names.setdefault(name, upstream)
        names.setdefault(f"{ECHO_UPSTREAM}/{ECHO_MODEL}", "agw")
        return list(names.items())

    def owner(self, name: str, principal: Principal, discovered: Mapping[str, Sequence[str]]) -> str:
        """Who serves a model, as ``served`` says it. Raises ModelNotFound, ModelForbidden.

        A name that only a pattern covers exists as long as its upstream has not listed its models without it.
        """
        route = self.find(name, principal)
        upstream = self.upstream_names[route.targets[0].upstream]
        by_pattern = route.label != name and not name.startswith(f"{upstream}/")
        if by_pattern and upstream in discovered and name not in discovered[upstream]:
            raise ModelNotFound(
                f"The model '{shown(name)}' is not among those of upstream '{upstream}'.", param="model"
            )
        return "agw" if name in self._models else upstream

    def labels(self, discovered: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """Names that metrics may show: what ``served`` gives, and the same as ``upstream/model``."""
        for name, _ in self.served(discovered):
            yield name
            route = self.table.find(name)
            if route is not None:
                yield from (target.name for target in (*route.targets, *route.fallbacks))

    def _owner(self, name: str) -> str:
        route = self.table.find(name)
        return self.upstream_names[route.targets[0].upstream] if route is not None else ECHO_UPSTREAM


class Circuits:
    """Makes the circuits of one version of the routes."""

    def __init__(self, board: Board, upstreams: Sequence[Upstream], breaker: Breaker) -> None:
        """Makes the circuits ``upstream/*``, which count what has no place of its own."""
        self._board = board
        self._breakers = tuple(upstream.breaker.over(breaker) for upstream in upstreams)
        self.vitals = tuple(board.vitals(upstream.name) for upstream in upstreams)
        self.configured: dict[str, Circuit] = {}
        for index, upstream in enumerate(upstreams):
            self.of(index, f"{upstream.name}/*", configured=True)

    def of(self, upstream: int, target: str, configured: bool) -> Circuit | None:
        """The circuit of a target, None for the echo model; names that callers made up are not kept."""
        if upstream >= len(self.vitals):
            return None
        known = self.configured.get(target)
        if known is not None:
            return known
        breaker = self._breakers[upstream]
        circuit = self._board.circuit(
            target,
            self.vitals[upstream],
            enabled=breaker.enabled,
            consecutive=breaker.consecutive,
            ratio=breaker.ratio,
            min_requests=breaker.min_requests,
            window_ns=nanoseconds(breaker.window),
            cool_down_ns=nanoseconds(breaker.cool_down),
            cool_down_max_ns=nanoseconds(breaker.cool_down_max),
            probes=breaker.probes,
            slow_ns=nanoseconds(breaker.slow) if breaker.slow is not None else 0,
            configured=configured,
        )
        if configured:
            self.configured[target] = circuit
        return circuit


def nanoseconds(seconds: float) -> int:
    """At least a microsecond: circuits divide their window."""
    return max(1000, round(seconds * SECOND_NS))


def unavailable(route: Route, now_ns: int) -> UpstreamUnavailable:
    """Why none of a route's targets may be asked: names the one that may be first, and says when."""
    waits = [
        (target.circuit.opens_in_ns(now_ns), target.name)
        for target in (*route.targets, *route.fallbacks)
        if target.circuit is not None
    ]
    wait_ns, name = min(waits, default=(SECOND_NS, route.label))
    wait_ms = max(1, -(-wait_ns // MS_NS))
    return UpstreamUnavailable(
        f"The model '{shown(route.name)}' cannot be served now: what runs it has failed too often lately. "
        f"'{shown(name)}' may be asked again in {wait_ms / 1000:.1f} s.",
        retry_after_ms=wait_ms,
    )


def shown(name: str) -> str:
    """A caller's text, shortened for a message."""
    return name if len(name) <= SHOWN_NAME_CHARACTERS else name[:SHOWN_NAME_CHARACTERS] + "..."


def listed(names: Sequence[str]) -> str:
    """Names for a message, with a bound."""
    if not names:
        return "no model at all"
    more = len(names) - NAMES_IN_A_MESSAGE
    return ", ".join(names[:NAMES_IN_A_MESSAGE]) + (f" and {more} more" if more > 0 else "")
