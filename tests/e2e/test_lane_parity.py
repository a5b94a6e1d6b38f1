"""Both lanes tell the same story: client, upstream, log and buckets see no difference but which lane it was."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

import pytest

from tests.e2e.lane_cases import (
    CASES,
    COUNTED_KEY,
    COUNTED_LIMITS,
    FORBIDDEN_KEY,
    ONCE_KEY,
    Case,
)
from tests.e2e.lane_ends import ENDS
from tests.e2e.lane_google import GOOGLE
from tests.support.behaviours import DONE, silence, stream
from tests.support.client import Reply
from tests.support.fake_openai import words
from tests.support.gateway import APP_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Recorded, Upstream, unreachable

GENERATED = re.compile(rb"req_[0-9a-f]{24}")
# Where the upstream does not say it: a second may have passed between the two lives.
CREATED = re.compile(rb'(?<="created":)[0-9]+')
TIMED = ("date", "server-timing")
TIMES = ("time", "duration_ms", "overhead_us", "ttft_ms", "inter_token_ms")
LEFT, RESET = "x-ratelimit-remaining-", "x-ratelimit-reset-"
THEIR_LEFT = re.compile(r"anthropic-ratelimit-(requests|tokens)-remaining")
THEIR_RESET = re.compile(r"anthropic-ratelimit-(requests|tokens)-reset")
WAIT = re.compile(rb'Try again in [0-9.hms]+|"retryDelay":"[0-9.]+s"')
LANES = ("lane", "lane_reason", "request_id")
PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
JITTER_SECONDS = 20.0  # between the same moment in the two lives that are compared
_numbers = count()


@dataclass
class Told:
    """What one gateway made of a case."""

    replies: list[Tree] = field(default_factory=list)
    asked: list[Tree] = field(default_factory=list)
    receipts: list[Tree] = field(default_factory=list)
    lanes: list[str] = field(default_factory=list)
    before: dict[str, float] = field(default_factory=dict)
    """What was left of the buckets at first, and the seconds until they were full."""


PATIENT = {"connect": "3s", "first_byte": "10s", "between_bytes": "10s", "total": "20s"}
HASTY = {**PATIENT, "first_byte": "600ms", "between_bytes": "600ms"}


def policy(upstream: Upstream, lane: str, dead: str = "http://127.0.0.1:1", times: Mapping[str, str] = PATIENT) -> Tree:
    """``dead``: where nobody listens."""
    url = upstream.url
    anthropic = provider(url, "claude", dialect="anthropic", models=["claude-*"])
    anthropic["base_url"] = url
    extra = {"x-team": "edge", "user-agent": "agw-test", "X-Tier": "gold"}
    plain = provider(url, "plain", models=["local-*"], stream_usage=False, headers=extra)
    return configuration(
        provider(url),
        anthropic,
        plain,
        provider(url, "google", dialect="gemini", models=["gemini-*"]),
        provider(dead, "dead", models=["dead-*"], retries={"attempts": 1}),
        provider(f"http://{'a' * 64}.example", "misnamed", models=["misnamed-*"], retries={"attempts": 1}),
        provider(url, "second", models=["other-*"], retries={"attempts": 1}),
        server={"port": 0, "drain_seconds": 1, "body_seconds": 1, "lane": lane},
        timeouts=dict(times),
        retries={"attempts": 3, "base": "1ms", "max": "5ms", "budget_floor": 1_000_000},
        models=[
            {"name": "swift", "targets": ["fake/gpt-4o"], "balance": "first"},
            {
                "name": "spread",
                "targets": [
                    {"upstream": "fake", "model": "gpt-4o", "weight": 1_000_000},
                    {"upstream": "plain", "model": "local-a", "weight": 1},
                ],
                "balance": "weighted",
            },
            {"name": "safe", "targets": ["fake/gpt-4o"], "balance": "first", "fallbacks": ["second/other-1"]},
            {"name": "quick", "targets": ["google/gemini-1 x"], "balance": "first"},
            {"name": "été", "targets": ["fake/gpt-4o"], "balance": "first"},
        ],
        keys=[
            {"name": "app", "key": APP_KEY, "models": ["*"]},
            {"name": "counted", "key": COUNTED_KEY, "models": ["*"], "limits": COUNTED_LIMITS},
            {"name": "once", "key": ONCE_KEY, "limits": [{"per": "user", "requests": 1, "period": "24h"}]},
            {"name": "narrow", "key": FORBIDDEN_KEY, "models": ["gpt-4o"]},
        ],
    )


@pytest.fixture(scope="module")
def both(shared_upstream: Upstream) -> Iterator[tuple[Gateway, Gateway]]:
    with (
        unreachable() as dead,
        Gateway(policy(shared_upstream, "auto", dead)) as auto,
        Gateway(policy(shared_upstream, "full", dead)) as full,
    ):
        yield auto, full


@pytest.fixture(scope="module")
def hasty(shared_upstream: Upstream) -> Iterator[tuple[Gateway, Gateway]]:
    """The same for an upstream that falls silent; what answers must not come late because the machine is busy."""
    with (
        Gateway(policy(shared_upstream, "auto", times=HASTY)) as auto,
        Gateway(policy(shared_upstream, "full", times=HASTY)) as full,
    ):
        yield auto, full


def masked(text: bytes) -> bytes:
    return CREATED.sub(lambda found: b"0" * len(found[0]), GENERATED.sub(b"req_*", text))


def seconds(duration: str) -> float:
    """Of ``1h2m3.5s``."""
    assert PART.sub("", duration) == "", f"{duration!r} is no duration"
    return sum(float(number) * UNITS[unit] for number, unit in PART.findall(duration))


def shown(headers: Sequence[tuple[str, str]], before: Mapping[str, float]) -> list[tuple[str, object]]:
    """Sorted, names in lower case, without the time of day, durations within the jitter, buckets as what was taken."""
    fields: list[tuple[str, object]] = []
    for name, value in headers:
        lower = name.lower()
        if lower in TIMED:
            fields.append((lower, "told"))
        elif LEFT in lower:
            fields.append((lower, before.get(lower, 0) - int(value)))
        elif RESET in lower and seconds(value) > JITTER_SECONDS:
            fields.append((lower, pytest.approx(seconds(value) - before.get(lower, 0.0), abs=JITTER_SECONDS)))
        elif THEIR_RESET.fullmatch(lower):
            ahead = datetime.fromisoformat(value).timestamp() - time.time()
            known = before.get(RESET + lower.split("-", 2)[2].removesuffix("-reset"), 0.0)
            fields.append((lower, pytest.approx(ahead - known, abs=JITTER_SECONDS)))
        elif THEIR_LEFT.fullmatch(lower):
            known = before.get(LEFT + lower.split("-", 2)[2].removesuffix("-remaining"), 0)
            fields.append((lower, known - int(value)))
        elif lower == "retry-after":
            fields.append((lower, pytest.approx(float(value), abs=JITTER_SECONDS)))
        elif lower == "retry-after-ms":
            fields.append((lower, pytest.approx(float(value), abs=JITTER_SECONDS * 1000)))
        else:
            fields.append((lower, masked(value.encode("latin-1"))))
    return sorted(fields, key=lambda field: (field[0], repr(field[1]) if isinstance(field[1], bytes) else ""))


def seen_by_client(reply: Reply, before: Mapping[str, float]) -> Tree:
    body, waits = WAIT.subn(b"Try again in *", reply.body)
    headers = reply.headers
    if waits:  # a wait of 86399.95s has one character less than one of 86399.945s
        assert int(reply.value("content-length") or 0) == len(reply.body)
        headers = [(name, str(len(body)) if name.lower() == "content-length" else value) for name, value in headers]
    return {
        "status": reply.status,
        "headers": shown(headers, before),
        "body": masked(body),
        "complete": reply.complete,
        "informational": reply.informational,
    }


def seen_by_upstream(request: Recorded) -> Tree:
    return {
        "method": request.method,
        "target": request.target,
        "headers": sorted((name.lower(), masked(value.encode("latin-1"))) for name, value in request.headers),
        "body": request.body,
    }


def seen_in_log(receipt: Mapping[str, object]) -> Tree:
    kept = {name: value for name, value in receipt.items() if name not in LANES}
    for name in TIMES:
        kept[name] = "told" if kept.get(name) is not None else None
    if isinstance(message := kept.get("message"), str):
        text, waits = WAIT.subn(b"Try again in *", message.encode())
        kept["message"] = text.decode()
        if waits and kept.get("bytes_out"):
            kept["bytes_out"] = "told"
    return kept


def live(gateway: Gateway, upstream: Upstream, case: Case) -> Told:
    """Go through a case, then ask how much it took of the buckets."""
    told = begin(gateway, upstream)
    upstream.script(*case.script)
    if case.always is not None:
        upstream.default = case.always
    for body in case.bodies:
        with gateway.connect() as connection:
            connection.send("POST", case.path, body, {**gateway.headers(case.key), **case.headers})
            reply = connection.reply()
        keep(told, gateway, reply)
    told.asked = [seen_by_upstream(request) for request in upstream.requests]
    left(told, gateway, upstream)
    return told


def keep(told: Told, gateway: Gateway, reply: Reply) -> None:
    told.replies.append(seen_by_client(reply, told.before))
    note(told, gateway, reply.request_id)


def note(told: Told, gateway: Gateway, identity: str) -> None:
    line = gateway.receipts(identity)[0]
    told.receipts.append(seen_in_log(line))
    told.lanes.append(line["lane"] if line["lane"] == "fast" else str(line["lane_reason"]))


def begin(gateway: Gateway, upstream: Upstream) -> Told:
    """A fresh story, with what the buckets hold now."""
    upstream.reset()
    reply = gateway.chat(key=COUNTED_KEY)
    upstream.reset()
    held = [(name.lower(), value) for name, value in reply.headers]
    before = {name: float(value) for name, value in held if LEFT in name}
    return Told(before=before | {name: seconds(value) for name, value in held if RESET in name})


def left(told: Told, gateway: Gateway, upstream: Upstream) -> None:
    """The buckets after all that, as the next request's headers have them."""
    upstream.reset()
    told.replies.append(seen_by_client(gateway.chat(key=COUNTED_KEY), told.before))


def same(one: Told, other: Told) -> None:
    assert one.replies == other.replies
    assert one.asked == other.asked
    assert one.receipts == other.receipts


ALL = [*CASES, *ENDS, *GOOGLE]


def alike(both: tuple[Gateway, Gateway], upstream: Upstream, case: Case) -> None:
    auto, full = (live(gateway, upstream, case) for gateway in both)
    assert auto.lanes[-1] == case.lane
    assert full.lanes == ["forced"] * len(full.lanes)
    assert auto.replies[-2]["status"] == case.status
    same(auto, full)
    for reply, receipt in zip(auto.replies, auto.receipts, strict=False):
        if reply["status"] == 200 and reply["complete"]:
            assert receipt["bytes_out"] == len(reply["body"])


@pytest.mark.parametrize("case", [case for case in ALL if not case.silent], ids=lambda case: case.name)
def test_both_lanes_do_the_same(both: tuple[Gateway, Gateway], upstream: Upstream, case: Case) -> None:
    alike(both, upstream, case)


@pytest.mark.parametrize("case", [case for case in ALL if case.silent], ids=lambda case: case.name)
def test_both_lanes_do_the_same_in_silence(hasty: tuple[Gateway, Gateway], upstream: Upstream, case: Case) -> None:
    alike(hasty, upstream, case)


def test_pipelined_requests_are_answered_alike_and_in_order(both: tuple[Gateway, Gateway], upstream: Upstream) -> None:
    stories = []
    for gateway in both:
        told = begin(gateway, upstream)
        identities = [f"piped-{next(_numbers)}" for _ in range(5)]
        bodies = [chat_body(), chat_body(stream=True), None, chat_body(model="no-such"), chat_body(model="swift")]
        with gateway.connect() as connection:
            sent: list[bytes] = []
            connection.socket = Recorder(connection.socket, sent)  # type: ignore[assignment]
            for identity, body in zip(identities, bodies, strict=True):
                method, path = ("POST", "/v1/chat/completions") if body else ("GET", "/health")
                connection.send(method, path, body, gateway.headers(COUNTED_KEY, {"x-request-id": identity}))
            connection.socket = connection.socket.socket  # type: ignore[attr-defined]
            connection.socket.sendall(b"".join(sent))
            replies = [connection.reply() for _ in identities]
        assert [reply.request_id for reply in replies] == identities
        for reply in replies:
            reply.headers = [(name, value) for name, value in reply.headers if name.lower() != "x-request-id"]
            told.replies.append(seen_by_client(reply, told.before))
        for identity in identities:
            note(told, gateway, identity)
        told.asked = [seen_by_upstream(request) for request in upstream.requests]
        for request in told.asked:
            request["headers"] = [item for item in request["headers"] if item[0] != "x-request-id"]
        left(told, gateway, upstream)
        stories.append(told)
    assert [reply["status"] for reply in stories[0].replies[:5]] == [200, 200, 200, 404, 200]
    assert stories[0].lanes == ["fast", "fast", "endpoint", "no_route", "fast"]
    same(*stories)


class Recorder:
    """Keeps what is sent, so that several requests go out in one write."""

    def __init__(self, socket: object, sent: list[bytes]) -> None:
        self.socket = socket
        self.sent = sent

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)


@pytest.mark.parametrize("phase", ["waiting", "streaming", "terminated"])
def test_a_client_that_leaves_is_accounted_alike(both: tuple[Gateway, Gateway], upstream: Upstream, phase: str) -> None:
    events = {"waiting": silence(), "streaming": stream(words()[:3], ending="hang")}
    usual = stream([*words(), DONE], ending="hang")
    stories = []
    for gateway in both:
        told = begin(gateway, upstream)
        upstream.script(events.get(phase, usual))
        identity = f"left-{phase}-{next(_numbers)}"
        with gateway.connect() as connection:
            sent = gateway.headers(COUNTED_KEY, {"x-request-id": identity})
            connection.send("POST", "/v1/chat/completions", chat_body(stream=True, max_tokens=300), sent)
            asked = upstream.wait()[0]
            if phase != "waiting":
                reply, body = connection.head(), b""
                wanted = DONE if phase == "terminated" else b"from"
                pieces = connection.pieces(reply)
                while wanted not in body:
                    body += next(pieces)
        upstream.wait_gone(asked)
        note(told, gateway, identity)
        told.asked = [seen_by_upstream(asked)]
        for request in told.asked:
            request["headers"] = [item for item in request["headers"] if item[0] != "x-request-id"]
        left(told, gateway, upstream)
        stories.append(told)
    assert stories[0].lanes == ["fast"]
    expected = {"waiting": "caller_gone", "streaming": "caller_gone", "terminated": "ok"}[phase]
    assert stories[0].receipts[0]["outcome"] == expected
    same(*stories)
