"""Settings of what happens when upstreams fail or are slow: deadlines, retries, breaker, probes, queues, hedges.

Each comes twice: with its defaults, and as what one upstream or one route has different from them.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agw_proxy.config.values import LongerThanZero, Name, Share, Whole


class Part(BaseModel):
    """A section or an item of one."""

    # Built with what it is a part of: on its own it would be once more, a tenth of a start.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)


class Timeouts(Part):
    """Deadlines of an upstream request, by phase."""

    connect: LongerThanZero = Field(5.0, description="To a ready connection (name, TCP and TLS).")
    tls: LongerThanZero | None = Field(None, description="For the TLS handshake alone; null is as long as `connect`.")
    write: LongerThanZero = Field(60.0, description="For the upstream to take the whole request.")
    first_byte: LongerThanZero = Field(300.0, description="From the request's last byte to the answer's first.")
    first_token: LongerThanZero | None = Field(
        None, description="From the request's last byte to a stream's first content; null is as long as `first_byte`."
    )
    between_bytes: LongerThanZero = Field(120.0, description="Longest silence within an answer.")
    between_tokens: LongerThanZero | None = Field(
        None, description="Longest wait for a stream's next event that is no ping; null is as long as `between_bytes`."
    )
    total: LongerThanZero = Field(1800.0, description="The whole exchange, all tries together.")


class TimeoutOverride(Part):
    """What one upstream or one route has different from `timeouts`."""

    connect: LongerThanZero | None = Field(None, description="To a ready connection (name, TCP and TLS).")
    tls: LongerThanZero | None = Field(None, description="For the TLS handshake alone.")
    write: LongerThanZero | None = Field(None, description="For the upstream to take the whole request.")
    first_byte: LongerThanZero | None = Field(None, description="From the request's last byte to the answer's first.")
    first_token: LongerThanZero | None = Field(None, description="From the request's last byte to the first content.")
    between_bytes: LongerThanZero | None = Field(None, description="Longest silence within an answer.")
    between_tokens: LongerThanZero | None = Field(None, description="Longest wait for the next event that is no ping.")
    total: LongerThanZero | None = Field(None, description="The whole exchange, all tries together.")

    def over(self, base: Timeouts) -> Timeouts:
        """Give ``base`` with what is set here."""
        return base.model_copy(update=self.model_dump(exclude_none=True))


Strategy = Literal["exponential", "linear", "fixed", "fibonacci"]


class Retries(Part):
    """Attempts before the first byte has gone to the client."""

    attempts: Whole = Field(
        3, ge=1, le=10, description="Attempts in all, the first one counted; 1 switches retries off."
    )
    strategy: Strategy = Field(
        "exponential", description="How the wait grows: `exponential`, `linear`, `fibonacci`, or not (`fixed`)."
    )
    base: LongerThanZero = Field(0.2, description="The wait before the second attempt, at most: it is drawn from 0 up.")
    max: LongerThanZero = Field(5.0, description="Longest wait between two attempts.")
    budget: Share = Field(
        0.2,
        description="Retries an upstream may get, as a share of the requests of the last ten seconds; 0 allows none.",
    )
    budget_floor: Whole = Field(
        10, ge=0, le=1_000_000, description="Retries in ten seconds that are allowed however few requests there are."
    )


class RetryOverride(Part):
    """What one upstream or one route has different from `retries`."""

    attempts: Whole | None = Field(None, ge=1, le=10, description="Attempts in all, the first one counted.")
    strategy: Strategy | None = Field(None, description="How the wait grows.")
    base: LongerThanZero | None = Field(None, description="The wait before the second attempt, at most.")
    max: LongerThanZero | None = Field(None, description="Longest wait between two attempts.")
    budget: Share | None = Field(None, description="Retries as a share of the requests of the last ten seconds.")
    budget_floor: Whole | None = Field(None, ge=0, le=1_000_000, description="Retries that are always allowed.")

    def over(self, base: Retries) -> Retries:
        """Give ``base`` with what is set here."""
        return base.model_copy(update=self.model_dump(exclude_none=True))


class Breaker(Part):
    """When a target is left alone for a while."""

    enabled: bool = Field(True, description="`false` asks every target, whatever happened.")
    consecutive: Whole = Field(5, ge=1, le=10_000, description="Failures in a row that open it.")
    ratio: Share = Field(0.5, gt=0, description="Share of failures in the window that opens it.")
    min_requests: Whole = Field(20, ge=1, le=1_000_000, description="Requests in the window before `ratio` counts.")
    window: LongerThanZero = Field(30.0, le=3600, description="The sliding window that `ratio` looks at.")
    cool_down: LongerThanZero = Field(5.0, description="How long it stays open; it doubles each time in a row.")
    cool_down_max: LongerThanZero = Field(300.0, description="The longest that it stays open.")
    probes: Whole = Field(1, ge=1, le=16, description="Requests at once that may try whether it works again.")
    slow: LongerThanZero | None = Field(
        None, description="An answer whose first byte takes longer counts as a failure; null: none does."
    )
    panic: Share = Field(
        0.5,
        description="Where less than this share of a model's targets (of two or more) is left, and no fallback either, "
        "all are asked; 0: never.",
    )


class BreakerOverride(Part):
    """What one upstream has different from `breaker`."""

    enabled: bool | None = Field(None, description="`false` asks it whatever happened.")
    consecutive: Whole | None = Field(None, ge=1, le=10_000, description="Failures in a row that open it.")
    ratio: Share | None = Field(None, gt=0, description="Share of failures in the window that opens it.")
    min_requests: Whole | None = Field(None, ge=1, le=1_000_000, description="Requests before `ratio` counts.")
    window: LongerThanZero | None = Field(None, le=3600, description="The sliding window that `ratio` looks at.")
    cool_down: LongerThanZero | None = Field(None, description="How long it stays open at first.")
    cool_down_max: LongerThanZero | None = Field(None, description="The longest that it stays open.")
    probes: Whole | None = Field(None, ge=1, le=16, description="Requests at once that may try it.")
    slow: LongerThanZero | None = Field(None, description="A first byte later than this counts as a failure.")

    def over(self, base: Breaker) -> Breaker:
        """Give ``base`` with what is set here."""
        return base.model_copy(update=self.model_dump(exclude_none=True))


class Probe(Part):
    """Asking an upstream regularly whether it is well."""

    path: Name | None = Field(
        None, description="What to ask with GET, from the base URL on, e.g. `/models`; null asks nothing."
    )
    interval: LongerThanZero = Field(10.0, description="Between two probes, with a tenth of jitter.")
    timeout: LongerThanZero = Field(2.0, description="A probe that takes longer has failed.")
    unhealthy: Whole = Field(3, ge=1, le=100, description="Failed probes in a row that take the upstream out.")
    healthy: Whole = Field(2, ge=1, le=100, description="Good probes in a row that bring it back.")


class Queue(Part):
    """Requests that wait for a place at an upstream."""

    size: Whole = Field(100, ge=0, le=100_000, description="Most that wait, in each worker; over it 503.")
    wait: LongerThanZero = Field(5.0, description="Longest wait; over it 503.")


class Hedge(Part):
    """A second attempt for an answer that is late."""

    after: LongerThanZero | Literal["p95"] = Field(
        "p95", description="When it starts: a time, or `p95` of what this route's first bytes took lately."
    )
    budget: Share = Field(0.1, description="Second attempts as a share of the route's requests.")


class Adaptive(Part):
    """A bound on requests at once that follows what the upstream can do (a gradient of its latency; errors halve it)."""

    min: Whole = Field(1, ge=1, le=1_000_000, description="Never fewer places than this.")
    max: Whole = Field(200, ge=1, le=1_000_000, description="Never more, in each worker.")
    start: Whole = Field(20, ge=1, le=1_000_000, description="Places at first.")
    tolerance: float = Field(
        1.5, ge=1.0, le=10.0, description="How many times its latency at rest an upstream may take before places go."
    )

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is more than max ({self.max})")
        return self
