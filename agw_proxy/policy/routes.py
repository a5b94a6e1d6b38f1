"""Models in the configuration -> the compiled route table, and a model's name -> the targets to try."""

from collections.abc import Iterator, Mapping, Sequence

from agw_proxy._hot.route import Globs, RouteTable
from agw_proxy.config.settings import Model, Upstream
from agw_proxy.errors import ModelForbidden, ModelNotFound
from agw_proxy.types import Principal, Routed

ECHO_UPSTREAM = "agw"
ECHO_MODEL = "echo"
NAMES_IN_A_MESSAGE = 20  # enough to find one's way, short enough for a terminal
SHOWN_NAME_CHARACTERS = 80


class Routes:
    """Immutable. Upstreams are numbered in order of configuration; the built-in echo model's comes last."""

    def __init__(self, upstreams: Sequence[Upstream], models: Sequence[Model]) -> None:
        """Raises ValueError for what the settings' own checks let through."""
        self.upstream_names = (*(upstream.name for upstream in upstreams), ECHO_UPSTREAM)
        self.dialects = (*(upstream.dialect for upstream in upstreams), "openai")
        self._patterns = tuple((upstream.name, Globs(upstream.models)) for upstream in upstreams)
        number = {name: index for index, name in enumerate(self.upstream_names)}
        self._virtual = tuple(model.name for model in models)
        self.table = RouteTable(
            [*((upstream.name, upstream.models) for upstream in upstreams), (ECHO_UPSTREAM, ())],
            [
                (
                    model.name,
                    [(number[target.upstream], target.model, target.weight) for target in model.targets],
                    model.balance == "weighted",
                    model.fallbacks,
                )
                for model in models
            ],
        )

    def resolve(self, model: str, principal: Principal, random: int) -> Routed:
        """The route for a model as this principal may use it.

        Raises ModelNotFound where no route leads there, ModelForbidden where the key's list does not include it.
        """
        route = self.table.find(model)
        if route is not None and route.targets[0].upstream == len(self.upstream_names) - 1:
            route = route if route.targets[0].model == ECHO_MODEL else None
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
        return Routed(route=route, plan=route.plan(random))

    def may_address(self, upstream: str, principal: Principal) -> bool:
        """The principal may use everything of this upstream (needed for paths that name no model)."""
        return principal.models.match(f"{upstream}/*")

    def whole(self, upstream: str) -> Routed:
        """The route to an upstream for a path that names no model. Raises ModelNotFound where there is none such."""
        route = self.table.find(f"{upstream}/*")
        if route is None:
            raise ModelNotFound(f"There is no upstream '{shown(upstream)}'.")
        return Routed(route=route, plan=route.plan(0))

    def served(self, discovered: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
        """(model, owner) of all that can be named: virtual models, exact names, what upstreams listed, and the echo model."""
        names: dict[str, str] = {}
        for name in self.table.names():
            names[name] = "agw" if name in self._virtual else self._owner(name)
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
        route = self.resolve(name, principal, 0).route
        upstream = self.upstream_names[route.targets[0].upstream]
        by_pattern = route.label != name and not name.startswith(f"{upstream}/")
        if by_pattern and upstream in discovered and name not in discovered[upstream]:
            raise ModelNotFound(
                f"The model '{shown(name)}' is not among those of upstream '{upstream}'.", param="model"
            )
        return "agw" if name in self._virtual else upstream

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


def shown(name: str) -> str:
    """A caller's text, shortened for a message."""
    return name if len(name) <= SHOWN_NAME_CHARACTERS else name[:SHOWN_NAME_CHARACTERS] + "..."


def listed(names: Sequence[str]) -> str:
    """Names for a message, with a bound."""
    if not names:
        return "no model at all"
    more = len(names) - NAMES_IN_A_MESSAGE
    return ", ".join(names[:NAMES_IN_A_MESSAGE]) + (f" and {more} more" if more > 0 else "")
