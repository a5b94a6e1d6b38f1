"""Who is asked instead: another key, another target beside the first, the request's own choice, the echo model at last."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.faults.clients import leave_retried
from tests.faults.fault import Fault, Part, Play, Scene, both
from tests.faults.stalls import at
from tests.support.behaviours import failure, limited, silence, stream
from tests.support.fake_openai import chunk, openai_like, words
from tests.support.gateway import chat_body, provider
from tests.support.upstream import Behaviour, Exchange

ATTEMPTS = "agw_proxy/upstreams/attempts.py: the loop over attempts"
KEYRING = "agw_proxy/upstreams/keyring.py"
KEYS = [f"upstream-secret-{letter * 16}" for letter in "abc"]
ROUNDS = 4  # of all keys, to see that the one is left out
HEDGE_MS = 60
LEAVE_SECONDS = 0.35  # 100 ms, and what a busy machine may add
SAID = "Say hello"  # what was asked, by the echo model
ROLE = chunk({"role": "assistant", "content": ""})
HALF = stream([ROLE], ending="rst")
"""A stream that breaks before its first token."""


def but(sick: Behaviour, *keys: str) -> Behaviour:
    """So for these keys, well for all others."""

    async def behave(exchange: Exchange) -> None:
        key = (exchange.request.value("authorization") or "").removeprefix("Bearer ")
        await (sick if key in keys else openai_like)(exchange)

    return behave


def keyed(own: str, urls: Mapping[str, str]) -> Part:
    """An upstream with three keys, which are taken in order at first."""
    model = f"keyed-{own}"
    return Part((provider(urls["fake"], model, api_key=None, api_keys=KEYS, models=[model]),))


@contextmanager
def left_out(play: Play) -> Iterator[None]:
    """The first key was asked with once in each worker at most, and its fellows go on; no key is told to anyone."""
    yield
    for _ in range(ROUNDS * len(KEYS)):
        assert play.gateway.chat(model=play.model, stream=play.streamed).status == 200
    seen = [(request.value("authorization") or "").removeprefix("Bearer ") for request in play.upstream.requests]
    assert 1 <= seen.count(KEYS[0]) <= play.workers
    assert {key for key in KEYS if key in seen} == set(KEYS)
    assert not any(key in play.gateway.output for key in KEYS)


def hedged(own: str, urls: Mapping[str, str]) -> Part:
    """A patient route with a second attempt at the spare upstream."""
    [entry] = at("fake", timeouts={"first_byte": "60s"})(own, urls).upstreams
    hedge = {"after": f"{HEDGE_MS}ms", "budget": 1.0}
    targets = [f"at-{own}/at-{own}", f"spare/gpt-{own}"]
    common = {"balance": "first", "hedge": hedge}
    pair = {"name": f"hedged-{own}", "targets": targets, **common}
    return Part((entry,), (pair, {"name": f"alone-{own}", "targets": targets[:1], **common}))


@contextmanager
def loser_is_gone(play: Play) -> Iterator[None]:
    """The late attempt ends as soon as the other one has answered."""
    yield
    [late], [good] = play.upstream.requests, play.spare.requests
    assert good.received_at > late.received_at
    assert play.upstream.wait_gone(late) - good.received_at < LEAVE_SECONDS


@contextmanager
def no_fallbacks_upstream(play: Play) -> Iterator[None]:
    """What the request chose stays here; the rest of it goes on."""
    yield
    for request in (*play.upstream.requests, *play.spare.requests):
        assert "fallbacks" not in request.json
        assert request.json["messages"] == chat_body()["messages"]


def changed(own: str, **more: object) -> Part:
    """A virtual model over the first upstream with something of its own."""
    return Part(models=({"name": f"changed-{own}", "targets": [f"fake/gpt-{own}"], **more},))


def safe(own: str, _: Mapping[str, str]) -> Part:
    """With the echo model behind it."""
    return changed(own, last_resort="echo")


def restarting(own: str, _: Mapping[str, str]) -> Part:
    """Its streams begin anew where nobody has seen any content."""
    return changed(own, on_break="restart_if_uncommitted")


KEY_ROWS = (
    Fault(
        "key-refused",
        "Where an upstream has several keys, one that is refused (401) costs nobody an answer: another one is used, "
        "and that one is left out.",
        KEYRING,
        **both(
            Scene("whole", always=but(failure(401), KEYS[0]), model="keyed-{}", attempts=2, around=left_out),
        ),
        needs=keyed,
    ),
    Fault(
        "key-limited",
        "So is one that is limited (429), for as long as the upstream said.",
        KEYRING,
        **both(
            Scene(
                "whole",
                always=but(limited((("retry-after", "60"),)), KEYS[0]),
                model="keyed-{}",
                attempts=2,
                around=left_out,
            ),
        ),
        needs=keyed,
    ),
    Fault(
        "keys-refused",
        "Where all keys are refused, the client hears that it is the gateway's, not its own.",
        KEYRING,
        **both(
            Scene(
                "refused",
                always=failure(401),
                model="keyed-{}",
                attempts=3,
                status=401,
                code="upstream_authentication_failed",
                outcome="upstream_refused_key",
            ),
        ),
        needs=keyed,
    ),
    Fault(
        "keys-limited",
        "Where all keys are limited, the client gets the 429 and hears when to come again.",
        KEYRING,
        **both(
            Scene(
                "refused",
                always=limited((("retry-after", "20"),)),
                model="keyed-{}",
                attempts=3,
                status=429,
                code="rate_limit_exceeded",
                outcome="upstream_rejected",
                headers=(("retry-after", "20"),),
            ),
        ),
        needs=keyed,
    ),
)
HEDGES = (
    Fault(
        "hedge",
        "Where a second attempt for a late answer is configured, the first to answer wins, and the other one is "
        "cancelled within 100 ms.",
        "agw_proxy/upstreams/hedge.py: `race`",
        **both(
            Scene(
                "whole",
                always=silence(),
                model="hedged-{}",
                spare=1,
                cut=True,
                around=loser_is_gone,
            ),
        ),
        needs=hedged,
    ),
    Fault(
        "leaves-hedged",
        "A client that leaves while two attempts are under way ends both.",
        "agw_proxy/upstreams/hedge.py: `race`",
        **both(
            Scene(
                "left",
                always=silence(),
                model="alone-{}",
                client=leave_retried,
                attempts=2,
                outcome="caller_gone",
                cut=True,
            ),
        ),
        needs=hedged,
    ),
)
CHOICES = (
    Fault(
        "own-fallbacks",
        "A request's own `fallbacks` are asked where its model fails, and are no upstream's business.",
        ATTEMPTS,
        **both(
            Scene(
                "whole",
                always=failure(500),
                extra={"fallbacks": ["spare/gpt-4o"]},
                spare=1,
                around=no_fallbacks_upstream,
            ),
        ),
    ),
    Fault(
        "last-resort",
        "Where all fail and the model says so, the echo model answers, and the answer is marked.",
        "agw_proxy/upstreams/attempts.py: `resort`; agw_proxy/edge/handler.py: `x-agw-fallback`",
        **both(
            Scene(
                "whole",
                always=failure(500),
                model="changed-{}",
                attempts=3,
                text=SAID,
                headers=(("x-agw-fallback", "echo"),),
            ),
        ),
        needs=safe,
    ),
    Fault(
        "last-resort-unneeded",
        "It keeps out where the model answers.",
        "agw_proxy/upstreams/attempts.py: `resort`; agw_proxy/edge/handler.py: `x-agw-fallback`",
        **both(Scene("whole", model="changed-{}", headers=(("x-agw-fallback", ""),))),
        needs=safe,
    ),
    Fault(
        "restart",
        "A stream that breaks before its first token begins anew where the model says `restart_if_uncommitted`.",
        "agw_proxy/upstreams/opening.py: what is held back",
        sse=Scene("whole", (HALF,), model="changed-{}", attempts=2),
        needs=restarting,
    ),
    Fault(
        "restart-too-late",
        "One that breaks behind it ends with an error there, too: what was seen is not taken back.",
        "agw_proxy/upstreams/opening.py: what is held back",
        sse=Scene("broken", (stream(words()[:3], ending="rst"),), model="changed-{}", outcome="upstream_broken"),
        needs=restarting,
    ),
    Fault(
        "no-restart",
        "Without that a stream that has begun ends with an error, even before its first token.",
        "agw_proxy/edge/relay.py: the honest end; the lane's end of a stream",
        sse=Scene("broken", (HALF,), outcome="upstream_broken"),
    ),
)
ROWS = (*KEY_ROWS, *HEDGES, *CHOICES)
