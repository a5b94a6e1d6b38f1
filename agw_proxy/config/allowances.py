"""Settings of what callers may use: limits, budgets, session caps, and the prices that money is counted by."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from agw_proxy.config.resilience import Part
from agw_proxy.config.values import Headers, HookURL, LongerThanZero, MicroDollars, Name, Share, Whole, only_one

MAX_AMOUNT = 10**12  # a trillion a period: far over any use, and far under 2^63 nanoseconds of arithmetic
RATED = ("requests", "tokens", "input_tokens", "output_tokens", "usd")
"""What is counted a period."""
AT_ONCE = ("concurrent", "streams")
"""What is counted at a time."""
AMOUNTS = (*RATED, *AT_ONCE)
CALENDAR = ("hour", "day", "week", "month")

Subject = Literal["global", "key", "team", "user", "channel", "model", "upstream", "tool", "session"]


def _listed(value: object) -> object:
    """One subject may stand for a list of one; ``global`` goes with no other."""
    listed = (value,) if isinstance(value, str) else value
    if isinstance(listed, list | tuple):
        if len(set(map(str, listed))) < len(listed) or not listed:
            raise ValueError("expected one subject or a list of different ones")
        if len(listed) > 1 and "global" in listed:
            raise ValueError("'global' means one bucket for all; it goes with no other subject")
        return tuple(listed)
    return value


Per = Annotated[tuple[Subject, ...], BeforeValidator(_listed)]
Period = Literal["hour", "day", "week", "month"] | LongerThanZero


class Limit(Part):
    """A bound on what a subject may use."""

    per: Per | None = Field(
        None,
        description="Who has a bucket of their own: `global`, or one or several of `key`, `team`, `user`, `channel`, "
        "`model`, `upstream`, `tool` and `session`, together. null: whatever the limit stands at (the key, the team, "
        "the upstream, the model), else `global`.",
    )
    requests: Whole | None = Field(None, ge=1, le=MAX_AMOUNT, description="Requests a period.")
    tokens: Whole | None = Field(None, ge=1, le=MAX_AMOUNT, description="Tokens a period, both directions.")
    input_tokens: Whole | None = Field(None, ge=1, le=MAX_AMOUNT, description="Tokens of prompts a period.")
    output_tokens: Whole | None = Field(None, ge=1, le=MAX_AMOUNT, description="Tokens of answers a period.")
    usd: MicroDollars | None = Field(
        None, ge=1, description="US dollars a period, by `prices`; for amounts that outlive a restart see `budgets`."
    )
    concurrent: Whole | None = Field(None, ge=1, le=1_000_000, description="Requests at the same time.")
    streams: Whole | None = Field(None, ge=1, le=1_000_000, description="Streams at the same time.")
    period: LongerThanZero = Field(60.0, description="The period of what is counted a period.")
    burst: Whole | None = Field(
        None, ge=1, le=MAX_AMOUNT, description="How much may come at once; null is the full amount of a period."
    )
    algorithm: Literal["token_bucket", "sliding_window"] = Field(
        "token_bucket",
        description="`token_bucket` refills all the time, so that up to twice the amount may pass within one period; "
        "`sliding_window` never lets more than the amount pass within any one.",
    )
    name: Name | None = Field(None, description="Name in messages and metrics; null makes one.")

    @model_validator(mode="after")
    def _amounts(self) -> Self:
        wrong = limit_conflict({field for field in self.model_fields_set if getattr(self, field) is not None})
        if wrong is None and self.algorithm == "sliding_window" and "burst" in self.model_fields_set:
            wrong = "a sliding window has no burst"
        if wrong:
            raise ValueError(wrong)
        return self


def limit_conflict(given: set[str]) -> str | None:
    """Say what is wrong with the fields ``given`` of a limit (those that are not null); None where they go together."""
    wrong = only_one(given, AMOUNTS)
    if wrong:
        return wrong
    if given & set(AT_ONCE) and given & {"period", "burst", "algorithm"}:
        return "a limit of what goes on at the same time has no period and no burst, and no algorithm"
    return None


class Budget(Part):
    """An amount of money for a period. What is spent outlives a restart."""

    per: Per | None = Field(None, description="As in `limits`.")
    usd: MicroDollars = Field(ge=1, description="US dollars, e.g. `50` or `0.25`, by `prices`.")
    period: Period = Field(
        "month",
        description="`hour`, `day`, `week` or `month` of the calendar (UTC; a week begins on Monday), or a duration "
        "such as `30d` that rolls.",
    )
    alerts: tuple[Share, ...] = Field(
        (0.8, 1.0), max_length=4, description="Shares of it at which an event is logged and `alerts.webhook` is called."
    )
    on_end: Literal["run", "finish"] = Field(
        "run",
        description="A stream that uses more than was reserved for it: may `run` on to its end; or is made to "
        "`finish` well-formed (`length`) where the budget has no more. New requests are refused either way.",
    )
    unpriced: Literal["allow", "refuse"] = Field(
        "allow", description="A model without a price: counts nothing, or is refused to whoever has this budget."
    )
    name: Name | None = Field(None, description="Name in messages and metrics; null makes one.")


class Team(Part):
    """Several keys that share limits and budgets."""

    name: Name = Field(description="Its name, as keys give it in `team`.")
    limits: tuple[Limit, ...] = Field((), description="Limits of the team, see `limits`.")
    budgets: tuple[Budget, ...] = Field((), description="Budgets of the team, see `budgets`.")


class Sessions(Part):
    """Caps on one session of an agent or a coding tool, whose loops run away."""

    turns: Whole | None = Field(None, ge=1, le=MAX_AMOUNT, description="Requests of one session.")
    tokens: Whole | None = Field(None, ge=1, le=MAX_AMOUNT, description="Tokens of one session, both directions.")
    usd: MicroDollars | None = Field(None, ge=1, description="US dollars of one session.")
    idle: LongerThanZero = Field(3600.0, description="A session that is silent for so long begins anew.")
    derive: bool = Field(
        True,
        description="Requests without `x-session-id` and without `conversation` are told apart by how their "
        "conversation begins; false: such a request has no session.",
    )


class Price(Part):
    """What a model costs, in US dollars."""

    model: Name = Field(description="Pattern of `upstream/model` or of the model's name there; the first match counts.")
    input: MicroDollars = Field(0, description="A million tokens of the prompt.")
    cached: MicroDollars | None = Field(None, description="A million of them from the provider's cache; null: `input`.")
    output: MicroDollars = Field(0, description="A million tokens of the answer.")
    request: MicroDollars = Field(0, description="A request.")
    image: MicroDollars = Field(0, description="An image that is made.")
    minute: MicroDollars = Field(0, description="A minute of audio that is read.")
    max_output: Whole | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="The longest answer in tokens: what is reserved where a request sets none.",
    )


class Alerts(Part):
    """Who hears when a budget comes to its end."""

    webhook: HookURL | None = Field(
        None, description="A URL that a JSON object is sent to by POST; null: the log only."
    )
    headers: Headers = Field(default_factory=dict, repr=False, description="Headers to send with it.")
