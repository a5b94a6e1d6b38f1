"""Requests that get stuck on their way: each part of it has a clock, and whoever waits hears of it."""

from collections.abc import Mapping

from tests.faults.fault import Fault, Needs, Part, Scene, both
from tests.support.behaviours import silence
from tests.support.gateway import Tree, provider

CLIENT = "agw_proxy/upstreams/client.py: `Client.open`; the lane's deadlines"
LONG: Tree = {"user": "x" * (9 * 512 * 1024)}
"""Added to a request: more than the kernel takes for somebody who reads nothing (and than the fast lane does)."""


def at(place: str, scheme: str = "http", **more: object) -> Needs:
    """An upstream of the row's own at one of the stage's places; ``at-{}`` leads there, ``over-{}`` also to the spare."""

    def needs(own: str, urls: Mapping[str, str]) -> Part:
        url = urls[place] if "//" in urls[place] else f"{scheme}://{urls[place]}"
        entry = provider(url, f"at-{own}", models=[f"at-{own}"], retries={"attempts": 1}, **more)
        over = {"name": f"over-{own}", "targets": [f"at-{own}/at-{own}"], "fallbacks": [f"spare/gpt-{own}"]}
        return Part((entry,), (over,))

    return needs


def nameless(own: str, _: Mapping[str, str]) -> Part:
    """An upstream whose name no host has (RFC 6761 section 6.4)."""
    return at("host")(own, {"host": f"{own}.invalid"})


def stuck(code: str, status: int, model: str = "at-{}", **more: object) -> Scene:
    """Nobody heard of the request."""
    return Scene("refused", status=status, code=code, outcome=code, attempts=0, model=model, **more)  # type: ignore[arg-type]


OVER = both(Scene("whole", model="over-{}", attempts=0, spare=1))
SLOW = at("deaf", timeouts={"connect": "150ms"})
ROWS = (
    Fault(
        "connect-stalls",
        "A connection that never stands is a 502 as soon as its time is over.",
        CLIENT,
        **both(stuck("upstream_unreachable", 502)),
        needs=SLOW,
    ),
    Fault(
        "connect-stalls-elsewhere",
        "A connection that never stands fails over.",
        "agw_proxy/upstreams/attempts.py: the loop over attempts",
        **OVER,
        needs=SLOW,
    ),
    Fault(
        "handshake-stalls",
        "So is a TLS handshake that never ends; it has a clock of its own.",
        "agw_proxy/upstreams/client.py: `Connector`; the lane's deadlines",
        **both(stuck("upstream_unreachable", 502)),
        needs=at("mute", "https", timeouts={"tls": "150ms", "connect": "60s", "first_byte": "60s"}),
    ),
    Fault(
        "write-stalls",
        "A request that the upstream does not take is a 504 when the time for that is over.",
        CLIENT,
        **both(stuck("upstream_timeout", 504, extra=LONG)),
        needs=at("mute", timeouts={"write": "150ms", "first_byte": "60s"}),
    ),
    Fault(
        "name-elsewhere",
        "A name that no host has fails over.",
        "agw_proxy/upstreams/attempts.py: the loop over attempts",
        **OVER,
        needs=nameless,
    ),
    Fault(
        "own-deadline",
        "A request's own deadline (`x-agw-timeout`) is kept, where it is shorter than the configured one.",
        "agw_proxy/edge/own_timeouts.py",
        **both(
            Scene(
                "refused",
                always=silence(),
                sent=(("x-agw-timeout", "first_byte=200ms"),),
                status=504,
                code="upstream_timeout",
                outcome="upstream_timeout",
                model="at-{}",
                cut=True,
            )
        ),
        needs=at("fake", timeouts={"first_byte": "60s"}),
    ),
    Fault(
        "own-deadline-longer",
        "One that is longer changes nothing.",
        "agw_proxy/edge/own_timeouts.py",
        **both(
            Scene(
                "refused",
                always=silence(),
                sent=(("x-agw-timeout", "first_byte=60s, total=600s"),),
                status=504,
                code="upstream_timeout",
                outcome="upstream_timeout",
                cut=True,
            )
        ),
    ),
)
