"""Faults before the first byte of an answer: the gateway may try again, and answers with a status where it has none."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from tests.faults.fault import Fault, Scene, Scenes, both
from tests.support.behaviours import (
    CURSED_PAGE,
    DONE,
    answer,
    event,
    failure,
    html_502,
    limited,
    raw,
    redirect,
    reset,
    silence,
    stream,
)
from tests.support.fake_openai import completion, words
from tests.support.gateway import UPSTREAM_KEY

LATER = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
SICK = event({"error": {"message": "overloaded", "type": "server_error", "code": None}})
LIMITED = event({"error": {"message": "slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded"}})
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
HALF_HEAD = raw(b"HTTP/1.1 200 OK\r\ncontent-ty", "hang")
PINGS = [b": ping\n\n"] * 1000
RETRY = "agw_proxy/upstreams/attempts.py: the loop over attempts"
CLASSES = "agw_proxy/upstreams/failures.py: the classes of failures"
GAVE_UP = (("x-should-retry", "false"),)


def refused(status: int, code: str, outcome: str, attempts: int = 3, **more: object) -> Scenes:
    """The client gets this status; the same for both kinds."""
    scene = Scene("refused", status=status, code=code, outcome=outcome, attempts=attempts)
    scene = replace(scene, **more)  # type: ignore[arg-type]  # fields of Scene
    return both(scene)


LIMITS = (
    Fault(
        "limited-ms",
        "A 429 with `retry-after-ms` is asked again after that time, whatever else it says.",
        "agw_proxy/policy/retry_after.py: `wait_ms`",
        **both(Scene("whole", (limited((("retry-after-ms", "20"), ("retry-after", "200"))),), attempts=2)),
    ),
    Fault(
        "limited-date",
        "A date in `Retry-After` is understood: one that is far away is passed on, capped.",
        "agw_proxy/policy/retry_after.py: `_date`",
        **refused(
            429,
            "rate_limit_exceeded",
            "upstream_rejected",
            attempts=1,
            always=limited((("retry-after", LATER),)),
            headers=(("retry-after", "30"),),
        ),
    ),
    Fault(
        "limited-rubbish",
        "A 429 with a rubbish `Retry-After` is asked again after the gateway's own back-off.",
        "agw_proxy/policy/retry_after.py: `_number`",
        **both(Scene("whole", (limited((("retry-after", "soon; very"),)),), attempts=2)),
    ),
    Fault(
        "limited-long",
        "A longer wait is not sat out: the client gets the 429, with a `Retry-After` of at most 30 seconds.",
        "agw_proxy/policy/retry_after.py: `MAX_WAIT_MS`",
        **refused(
            429,
            "rate_limit_exceeded",
            "upstream_rejected",
            attempts=1,
            always=limited((("retry-after", "200"),)),
            headers=(("retry-after", "30"),),
        ),
    ),
    Fault(
        "limited-elsewhere",
        "A target that asks for a long wait is passed over where the route has another.",
        RETRY,
        **both(Scene("whole", always=limited((("retry-after", "200"),)), model="safe-{}", spare=1)),
    ),
    Fault(
        "quota",
        "A 429 that says the quota is used up is not asked again.",
        CLASSES,
        **refused(
            429,
            "insufficient_quota",
            "upstream_rejected",
            1,
            always=limited((("retry-after-ms", "5"),), "insufficient_quota"),
        ),
    ),
)
SERVERS = (
    Fault("5xx-once", "A 5xx is tried again.", RETRY, **both(Scene("whole", (failure(503, "later"),), attempts=2))),
    Fault(
        "5xx-always",
        "An upstream that answers 5xx only is asked as often as configured, then the client gets a 502 that it is "
        "told not to retry.",
        RETRY,
        **refused(502, "upstream_failed", "upstream_failed", always=failure(500), headers=GAVE_UP),
    ),
    Fault(
        "5xx-elsewhere",
        "Where a target fails, the next of the chain answers.",
        RETRY,
        **both(Scene("whole", always=failure(500), model="safe-{}", spare=1)),
    ),
    Fault(
        "html-page",
        "A load balancer's HTML page is never relayed.",
        CLASSES,
        **refused(502, "upstream_failed", "upstream_failed", always=html_502()),
    ),
    Fault(
        "html-200",
        "An HTML page under a 200 is no answer.",
        "agw_proxy/upstreams/opening.py: `_open`, text/html; ext/agw_proxy/_hot/lane_peer.pxi",
        **refused(
            502,
            "upstream_invalid_response",
            "upstream_invalid",
            always=answer(CURSED_PAGE, content_type="text/html"),
        ),
    ),
    Fault(
        "key-quoted",
        "An error text of an upstream that quotes the gateway's key there does not reach the client.",
        "agw_proxy/upstreams/failures.py: `refused`",
        **refused(400, "bad", "upstream_rejected", 1, always=failure(400, f"no {UPSTREAM_KEY}", code="bad")),
    ),
    Fault(
        "reset-once", "A reset before any byte is tried again.", RETRY, **both(Scene("whole", (reset(),), attempts=2))
    ),
    Fault(
        "reset-always",
        "A connection that is reset each time is a 502.",
        RETRY,
        **refused(502, "upstream_reset", "upstream_reset", always=reset()),
    ),
    Fault(
        "bad-framing",
        "An answer that is no HTTP is tried again, then a 502.",
        "ext/agw_proxy/_hot/http1.pyx: the reader of heads",
        **refused(502, "upstream_invalid_response", "upstream_invalid", always=raw(b"HTTP/1.1 2000 no\r\nx\r\n\r\n")),
    ),
    Fault(
        "switching",
        "A 101 that nobody asked for is never relayed.",
        "ext/agw_proxy/_hot/http1.pyx: 1xx",
        **refused(502, "upstream_invalid_response", "upstream_invalid", always=raw(SWITCH)),
    ),
    Fault(
        "redirect",
        "A redirect is not followed: 502.",
        "agw_proxy/upstreams/failures.py: 3xx",
        **refused(
            502,
            "upstream_invalid_response",
            "upstream_invalid",
            attempts=3,
            always=redirect("http://169.254.169.254/latest"),
        ),
    ),
    Fault(
        "first-event-error-once",
        "A stream whose first event is an error is held back and tried again.",
        "agw_proxy/upstreams/opening.py: `_first_event`; the lane's `first_event`",
        sse=Scene("whole", (stream([SICK, DONE]),), attempts=2),
    ),
    Fault(
        "first-event-error",
        "A stream whose first event is an error gets a real status.",
        "agw_proxy/upstreams/opening.py: `_first_event`; the lane's `first_event`",
        sse=Scene(
            "refused", always=stream([SICK]), status=502, code="upstream_failed", attempts=3, outcome="upstream_failed"
        ),
    ),
    Fault(
        "first-event-elsewhere",
        "A stream whose first event is an error fails over.",
        RETRY,
        sse=Scene("whole", always=stream([LIMITED]), model="safe-{}", spare=1),
    ),
)
STALLS = (
    Fault(
        "silent",
        "An upstream that takes the request and stays silent is a 504; it may be at work, so it is not asked twice, "
        "and its request is cancelled.",
        "agw_proxy/upstreams/client.py: first_byte; the lane's deadlines",
        **refused(504, "upstream_timeout", "upstream_timeout", 1, always=silence(), cut=True),
    ),
    Fault(
        "silent-elsewhere",
        "A stall before the first byte fails over.",
        RETRY,
        **both(Scene("whole", always=silence(), model="safe-{}", spare=1)),
    ),
    Fault(
        "pings-only",
        "A stream of comments alone has not begun: 504, not an endless wait.",
        "agw_proxy/upstreams/opening.py: `_first_event`, `progress`",
        sse=Scene(
            "refused",
            always=stream(PINGS, pace_ms=20),
            status=504,
            code="upstream_timeout",
            outcome="upstream_timeout",
            cut=True,
        ),
    ),
    Fault(
        "head-stalls",
        "Half a head and silence is a time-out, too.",
        "agw_proxy/upstreams/client.py: first_byte; the lane's deadlines",
        **refused(504, "upstream_timeout", "upstream_timeout", 1, always=HALF_HEAD, cut=True),
    ),
)
NOWHERE = (
    Fault(
        "refused-connection",
        "A port where nobody listens is a 502 of a class of its own.",
        "agw_proxy/upstreams/client.py: the connector's errors",
        **refused(502, "upstream_unreachable", "upstream_unreachable", 0, model="dead-{}"),
    ),
    Fault(
        "refused-elsewhere",
        "A port where nobody listens fails over.",
        RETRY,
        **both(Scene("whole", model="lost-{}", attempts=0, spare=1)),
    ),
    Fault(
        "name-unknown",
        "A name that does not resolve is a 502 of a class of its own.",
        "agw_proxy/upstreams/client.py: the resolver's errors",
        **refused(502, "upstream_unreachable", "upstream_unreachable", 0, model="misnamed-{}"),
    ),
    Fault(
        "untrusted",
        "An upstream with a certificate that is not trusted is a 502; verification is never off.",
        "agw_proxy/upstreams/trust.py: verification",
        **refused(502, "upstream_unreachable", "upstream_unreachable", 0, model="tls-{}"),
    ),
)
DEAD_IDLE = (
    Fault(
        "closed-after-answer",
        "A kept connection that the upstream closed behind its answer costs nothing.",
        "the lane's pool; agw_proxy/upstreams/client.py",
        json=Scene("whole", (answer(completion(), close=True),), times=2, before=1),
        sse=Scene("whole", (stream([*words(), DONE], framing="close"),), times=2, before=1),
    ),
    Fault(
        "closed-under-request",
        "A kept connection that dies under a request without a byte is replaced, once.",
        "agw_proxy/upstreams/asking.py; the lane's `replays`",
        json=Scene("whole", (answer(completion()), raw(b"")), times=2, before=1, attempts=2),
        sse=Scene("whole", (stream([*words(), DONE]), raw(b"")), times=2, before=1, attempts=2),
    ),
)
ROWS = (*LIMITS, *SERVERS, *STALLS, *NOWHERE, *DEAD_IDLE)
