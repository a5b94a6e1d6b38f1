"""What a Claude model takes, by its name: the Messages API has grown, and lets older models refuse what newer ones need.

Anthropic documentation, "Adaptive thinking", "Extended thinking", "Structured outputs", "Effort". A name without a version
in it (an alias, another vendor's model behind a Messages API) is taken for an older one, the common ground of such servers.
"""

import re

_VERSION = re.compile(
    r"claude-(?:(?P<major>\d{1,2})(?:[-.](?P<minor>\d{1,2}))?-[a-z]|[a-z]+-(?P<new>\d{1,2})(?:[-.](?P<newer>\d{1,2}))?(?!\d))"
)
_ADAPTIVE_SINCE = (4, 6)
_SAMPLING_UNTIL = (4, 7)
_STRUCTURED_SINCE = (4, 5)


def version(model: str) -> tuple[int, int] | None:
    """Of ``claude-3-7-sonnet-20250219``: (3, 7); of ``claude-opus-4-20250514``: (4, 0); None where the name has none."""
    found = _VERSION.search(model)
    if found is None:
        return (5, 0) if "claude-mythos" in model else None
    major, minor = found["major"] or found["new"], found["minor"] or found["newer"]
    return int(major), int(minor or 0)


def thinks_adaptively(model: str) -> bool:
    """It is told an effort (``thinking.type`` adaptive), not a budget of tokens (enabled)."""
    found = version(model)
    return found is not None and found >= _ADAPTIVE_SINCE


def takes_sampling(model: str) -> bool:
    """It takes ``temperature``, ``top_p`` and ``top_k``; newer models answer them with 400."""
    found = version(model)
    return found is None or found < _SAMPLING_UNTIL


def takes_schemas(model: str) -> bool:
    """It can be held to a schema: ``output_config.format`` and a tool's ``strict``."""
    found = version(model)
    return found is None or found >= _STRUCTURED_SINCE


def highest_effort(model: str, effort: str) -> str:
    """The nearest effort that the model knows: Anthropic has no ``minimal``, and ``xhigh`` since 4.7 only."""
    if effort == "minimal":
        return "low"
    found = version(model)
    return "high" if effort == "xhigh" and found is not None and found < _SAMPLING_UNTIL else effort
