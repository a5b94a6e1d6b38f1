"""Routes: from the model a caller names to the targets that may serve it, compiled once per configuration."""

from collections.abc import Callable, Iterable, Sequence
from typing import final

from agw_proxy._hot.circuit import Circuit

@final
class Globs:
    """A compiled list of shell-style patterns: ``*`` (any run, slashes too), ``?``; case-sensitive; no classes."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """As configured."""
    def __init__(self, patterns: Iterable[str]) -> None:
        """Raises ValueError on an empty pattern, TypeError where one is not a str or ``patterns`` is one string."""
    def match(self, name: str) -> bool:
        """Whether a pattern matches the whole name. Costs at most len(pattern) * len(name) steps a pattern."""

@final
class Target:
    """One upstream (an index) and the model name it knows. ``name`` is ``upstream/model``. Made by RouteTable."""

    @property
    def name(self) -> str: ...
    @property
    def upstream(self) -> int: ...
    @property
    def model(self) -> str: ...
    @property
    def weight(self) -> int: ...
    @property
    def circuit(self) -> Circuit | None:
        """Whether it may be asked; None in a table made without circuits."""

@final
class Route:
    """What a model name leads to. Made by RouteTable; immutable."""

    @property
    def name(self) -> str:
        """The model as asked."""
    @property
    def label(self) -> str:
        """A bounded name for metrics: the virtual model, the exact configured name, or the pattern that matched.

        ``upstream/*`` for direct addressing.
        """
    @property
    def targets(self) -> tuple[Target, ...]:
        """At least one. A target that was configured twice is here once, with the sum of its weights."""
    @property
    def fallbacks(self) -> tuple[Target, ...]:
        """Without what is among ``targets`` already, each once."""
    @property
    def balance(self) -> str:
        """``first``, ``weighted``, ``least_busy`` or ``fastest``; ``first`` where there is one target only."""
    def plan(self, random: int, now_ns: int = 0, sticky: int = 0) -> tuple[Target, ...]:
        """Targets in the order to try, each once, without those whose circuits say no; () where all do.

        First the route's own. ``weighted``: drawn by weight (``random``: any 64-bit number). ``least_busy``: by requests
        under way in this process, equals drawn. ``fastest``: of two drawn the one with the shorter time to the first
        byte, unknown ones first. ``sticky``, unless 0: by rendezvous hashing of it, whatever the balance, so that one
        number keeps to one target and others' outages do not move it. Then the fallbacks, in order.
        In a panic all of its own are there. The same arguments and circuits give the same plan. Raises OverflowError
        where a number is not in 0..2**64-1.
        """
    def first(self, random: int, now_ns: int = 0, sticky: int = 0) -> Target | None:
        """``plan``'s first without making the plan, None where it is empty."""
    def panics(self, now_ns: int) -> bool:
        """Too few are left: all of its own targets are to be asked, with ``Circuit.begin(..., force=True)``.

        So it is where a route has more than one target, less than the share ``panic`` of them may be asked, and no
        fallback may be either.
        """

@final
class RouteTable:
    """Immutable, but for two bounded memos of names found (1,024 routes from globs and direct names, 256 spans)."""

    def __init__(
        self,
        upstreams: Sequence[tuple[str, Sequence[str]]],
        models: Sequence[tuple[str, Sequence[tuple[int, str, int]], str, Sequence[str]]],
        circuits: Callable[[int, str, bool], Circuit | None] | None = None,
        panic: float = 0.0,
    ) -> None:
        """``upstreams``: (name, model patterns), index = position.

        ``models``: (name, [(upstream, model, weight)], balance, [fallback name]). A fallback is any name that ``find``
        resolves (its targets are flattened in, without their own fallbacks).
        ``circuits`` is asked for each target made: (index of the upstream, ``upstream/model``, whether the configuration
        names it; otherwise a caller did, also later on). ``panic``: a share, see ``Route.panics``.
        Raises ValueError on a duplicate name, an index out of range, a weight outside 1..1,000,000, no target or more
        than 64, an unknown fallback or one that names its own model, an upstream's name with a slash, and names and
        patterns that are empty or over 256 characters; the message names it.
        """
    def find(self, model: str) -> Route | None:
        """The route, or None.

        Precedence: virtual model; ``upstream/model`` where that upstream exists and ``model`` is not empty; exact name
        (of the first upstream that lists it); globs in order of upstreams, then of their patterns.
        Direct addressing does not look at the upstream's patterns. Names over 256 characters are never found.
        """
    def find_bytes(self, model: bytes) -> Route | None:
        """The same for a name's UTF-8 bytes (others are never found), as the fast lane does with a span of a body."""
    def names(self) -> tuple[str, ...]:
        """Virtual and exact names, in order, each once (what a models list can show without asking upstreams)."""
