"""How streams of Messages and Responses end, for both lanes (tests/e2e/test_lane_parity.py)."""

import dataclasses
from collections.abc import Iterator

from tests.e2e.lane_cases import ANTHROPIC_EVENTS, RESPONSE_EVENTS, VERSION, Case
from tests.support.behaviours import DONE, Ending, event, stream
from tests.support.gateway import UPSTREAM_KEY

FAILED = event(
    {"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error", "message": "no"}}},
    "response.failed",
)
INCOMPLETE = event(
    {"type": "response.incomplete", "response": {"status": "incomplete", "usage": {"input_tokens": 3}}},
    "response.incomplete",
)
OVERLOADED = event(
    {"type": "error", "error": {"type": "overloaded_error", "message": f"overloaded {UPSTREAM_KEY}"}}, "error"
)
SICK = event({"type": "error", "code": "server_error", "message": "no", "param": None, "sequence_number": 3})
ENDINGS: tuple[Ending, ...] = ("fin", "rst", "hang", "whole")
WITHOUT_NAMES = [part.partition(b"\n")[2] for part in ANTHROPIC_EVENTS]
BROKEN_LAST = ANTHROPIC_EVENTS[-1].replace(b"}", b"]")


def messages(name: str, events: list[bytes], *, pace_ms: float = 0, split: int = 0, ending: Ending = "whole") -> Case:
    """A streamed answer on /v1/messages."""
    return Case(
        f"messages-{name}",
        path="/v1/messages",
        body={"model": "claude-small", "max_tokens": 64, "messages": [], "stream": True},
        headers=VERSION,
        script=[stream(events, pace_ms=pace_ms, split=split, ending=ending)],
    )


def responses(name: str, events: list[bytes], *, path: str = "", pace_ms: float = 0, ending: Ending = "whole") -> Case:
    """A streamed answer on /v1/responses, or another path."""
    return Case(
        f"responses-{name}",
        path=path or "/v1/responses",
        body={"model": "gpt-4o", "input": "x", "stream": True},
        script=[stream(events, pace_ms=pace_ms, ending=ending)],
    )


def ends() -> Iterator[Case]:
    """Whole, cut and failed."""
    yield messages("split", ANTHROPIC_EVENTS, split=23, pace_ms=1)
    yield messages("unnamed", WITHOUT_NAMES)
    yield messages("tail-hangs", ANTHROPIC_EVENTS, ending="hang")
    yield messages("tail", [*ANTHROPIC_EVENTS, b": bye\n\n"], pace_ms=5)
    yield messages("last-is-malformed", [*ANTHROPIC_EVENTS[:-1], BROKEN_LAST])
    yield messages("error", [*ANTHROPIC_EVENTS[:4], OVERLOADED], pace_ms=10)
    yield messages("ping-first", [ANTHROPIC_EVENTS[2], *ANTHROPIC_EVENTS], pace_ms=5)
    yield messages("slow-first", ANTHROPIC_EVENTS[:1] + ANTHROPIC_EVENTS, split=60, pace_ms=20)
    for name, events in (("error", [OVERLOADED]), ("nothing", []), ("silence", [ANTHROPIC_EVENTS[2]] * 60)):
        first = messages(f"ping-then-{name}", [ANTHROPIC_EVENTS[2], *events], pace_ms=25)
        yield dataclasses.replace(
            first, lane="upstream_failed", status=504 if name == "silence" else 529 if events else 502,
            script=(), always=first.script[0],
        )  # fmt: skip
    yield responses("failed", [*RESPONSE_EVENTS[:2], FAILED], pace_ms=5)
    yield responses("failed-hangs", [*RESPONSE_EVENTS[:2], FAILED], ending="hang")
    yield responses("incomplete", [*RESPONSE_EVENTS[:2], INCOMPLETE, DONE])
    yield responses("error", [*RESPONSE_EVENTS[:2], SICK], pace_ms=10)
    yield responses("elsewhere", RESPONSE_EVENTS[:2], path="/v1/images/generations")
    for ending in ENDINGS:
        yield messages(f"cut-{ending}", ANTHROPIC_EVENTS[:-1], pace_ms=3, ending=ending)
        yield messages(f"cut-event-{ending}", [b"".join(ANTHROPIC_EVENTS)[:-30]], ending=ending)
        yield responses(f"cut-{ending}", RESPONSE_EVENTS[:-1], pace_ms=3, ending=ending)


ENDS = [*ends()]
