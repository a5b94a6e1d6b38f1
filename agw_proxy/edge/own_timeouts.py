"""The header ``x-agw-timeout``: a caller's own, shorter deadlines for one request.

``x-agw-timeout: 30s`` is the whole exchange; ``x-agw-timeout: total=30s, first_token=2s`` names phases, as ``timeouts``
in the configuration has them. Each is at most what is configured.
"""

from collections.abc import Callable

from agw_proxy.config.resilience import TimeoutOverride, Timeouts
from agw_proxy.config.settings import Model
from agw_proxy.config.values import duration
from agw_proxy.errors import InvalidParameter

HEADER = "x-agw-timeout"
PHASES = tuple(TimeoutOverride.model_fields)
SHOWN_CHARACTERS = 60


def own_timeouts(value: str) -> dict[str, float]:
    """Seconds by phase. Raises InvalidParameter."""
    found: dict[str, float] = {}
    for part in value.split(","):
        phase, equals, text = part.strip().partition("=")
        if not equals:
            phase, text = "total", phase
        phase = phase.strip().lower()
        try:
            seconds = duration(text.strip())
        except ValueError:
            seconds = 0.0
        if phase not in PHASES or phase in found or not seconds > 0:
            raise InvalidParameter(
                f"The header {HEADER} is a time such as 30s or 500ms, or a list of phase=time with phases of "
                f"{', '.join(PHASES)}; {value[:SHOWN_CHARACTERS]!r} came.",
                param=HEADER,
            )
        found[phase] = seconds
    return found


def lowered(times: Timeouts, own: dict[str, float]) -> Timeouts:
    """``times``, where ``own`` does not say less."""
    fallback = {"tls": times.connect, "first_token": times.first_byte, "between_tokens": times.between_bytes}
    lower = {}
    for phase, seconds in own.items():
        ceiling = getattr(times, phase)
        lower[phase] = min(seconds, fallback[phase] if ceiling is None else ceiling)
    return times.model_copy(update=lower)


def deadlines(model: Model | None, sent: str | None) -> Callable[[Timeouts], Timeouts] | None:
    """What a virtual model and its caller make of an upstream's deadlines; None for nothing. Raises InvalidParameter.

    ``sent``: the header's value.
    """
    own = own_timeouts(sent) if sent is not None else {}
    override = model.timeouts if model is not None else None

    def applied(times: Timeouts) -> Timeouts:
        return lowered(times if override is None else override.over(times), own)

    return applied if own or override is not None else None
