"""What must be true of every answer, whatever was asked: the form of a refusal, and that nothing of ours shows."""

import re

import orjson

from tests.e2e.corpus.vector import CHAT, MARK, STREAMED, Drip, HalfClose, Step, Vector
from tests.e2e.corpus.wire import Answer, Talk
from tests.support.gateway import APP_KEY, UPSTREAM_KEY
from tests.support.strict import STREAM, WHOLE, Seen

LEAKS = re.compile(rb"Traceback|File \"|<class '| object at 0x|b'|b\"|Error\(|Exception|\.py\b|\.pyx\b")
"""Of a stack trace or a Python repr."""
UNTOLD = (Drip, HalfClose)
"""Steps of a client whose connection may end without a word about it."""


def stamped(steps: tuple[Step, ...], mark: str) -> tuple[Step, ...]:
    """The steps with a vector's number in the place of MARK."""
    field, numbered = b"x-vector: " + MARK, b"x-vector: " + mark.encode()
    return tuple(step.replace(field, numbered) if isinstance(step, bytes) else step for step in steps)


def talk_faults(vector: Vector, talk: Talk) -> list[str]:
    """What is wrong with the answers."""
    faults = list(talk.faults)
    if talk.end not in vector.ends:
        faults.append(f"ended as '{talk.end}', and not as one of {sorted(vector.ends)}")
    if vector.interim is not None and tuple(talk.interim) not in vector.interim:
        faults.append(f"interim answers {talk.interim}, and not one of {vector.interim}")
    ids = tuple(identity for answer in talk.answers for identity in answer.values("x-request-id"))
    if ids[: len(vector.order)] != vector.order[: len(talk.answers)]:
        faults.append(f"answers to {ids}, and not in the order {vector.order}")
    old = b" HTTP/1.0\r\n" in vector.data
    for number, answer in enumerate(talk.answers):
        last = number == len(talk.answers) - 1
        closed = last and talk.closing == "closed" and not any(isinstance(step, UNTOLD) for step in vector.steps)
        faults += answer_faults(
            answer, vector, old=old, closed=closed and talk.announced, to_head=number in vector.heads
        )
        if closed and not talk.announced:
            faults.append(f"closed behind a {answer.status} that does not say so")
    return faults


def answer_faults(answer: Answer, vector: Vector, *, old: bool, closed: bool, to_head: bool) -> list[str]:
    """``old``: the request was of HTTP/1.0. ``closed``: the connection ended with this answer."""
    faults = []
    shown = answer.body + repr(answer.fields).encode()
    if LEAKS.search(answer.body):
        faults.append(f"something of Python shows: {answer.body[:300]!r}")
    if APP_KEY.encode() in shown or UPSTREAM_KEY.encode() in shown:
        faults.append("a key is in the answer")
    if not answer.complete:
        faults.append(f"a {answer.status} without its end")
    if len(answer.values("x-request-id")) != 1:
        faults.append(f"a {answer.status} with x-request-id {answer.values('x-request-id')}")
    if answer.minor == 0 and not old:
        faults.append("an answer of HTTP/1.0")
    if closed and not old and "close" not in answer.tokens:
        faults.append(f"a {answer.status} before the close without Connection: close")
    if answer.status >= 400:
        faults += refusal_faults(answer, vector.dialect, to_head=to_head)
    elif answer.body.startswith(b'{"id"') and answer.body != WHOLE:
        faults.append(f"not the upstream's answer: {answer.body[:300]!r}")
    elif answer.values("content-type") == ["text/event-stream"] and answer.body != STREAM:
        faults.append(f"not the upstream's stream: {answer.body[-300:]!r}")
    return faults


def refusal_faults(answer: Answer, dialect: str, *, to_head: bool = False) -> list[str]:
    """A refusal is JSON of the caller's dialect, with its length."""
    faults = []
    if [kind.partition(";")[0] for kind in answer.values("content-type")] != ["application/json"]:
        faults.append(f"a {answer.status} of type {answer.values('content-type')}")
    if len(answer.values("content-length")) != 1:
        faults.append(f"a {answer.status} without Content-Length")
    if to_head:
        return faults
    try:
        tree = orjson.loads(answer.body)
        error = tree["error"]
        named = error["code"] if dialect == "openai" else error["type"]
        good = isinstance(error["message"], str) and error["message"] and isinstance(named, str) and named
    except (orjson.JSONDecodeError, KeyError, TypeError):
        good = False
    if not good:
        faults.append(f"a {answer.status} that is no error of the {dialect} dialect: {answer.body[:300]!r}")
    return faults


def upstream_faults(vector: Vector, end: str, seen: list[Seen]) -> list[str]:
    """What is wrong with the requests that reached the upstream; they are well-formed, or they would not be here."""
    faults = []
    wanted = vector.relays(end) if end in vector.ends else len(seen)
    if "left" not in end and len(seen) != wanted and not (end == "closed" and len(seen) < 2):
        faults.append(f"{len(seen)} requests reached the upstream, and not {wanted}")
    bodies = _sent_bodies(vector)
    for request in seen:
        if request.body not in bodies and _without_options(request.body) not in bodies:
            faults.append(f"the upstream read the body {request.body[:300]!r}")
        faults += [f"{name.decode()} reached the upstream" for name in vector.hidden if request.values(name)]
        for name in {name for name, _ in vector.shown}:
            values = [value for key, value in vector.shown if key == name]
            if request.values(name) != values:
                faults.append(f"{name.decode()} reached the upstream as {request.values(name)}, and not as {values}")
        if not request.target.startswith((b"/v1/chat/completions", b"/v1/files")):
            faults.append(f"the upstream was asked for {request.target!r}")
    return faults


def _without_options(body: bytes) -> bytes:
    """The body without what the gateway may add to learn the usage of a stream."""
    return re.sub(rb'[,]?"stream_options":\{"include_usage":true\}', b"", body)


def _sent_bodies(vector: Vector) -> tuple[bytes, ...]:
    return (CHAT, STREAMED, b"abc") if b"/v1/files" in vector.data else (CHAT, STREAMED)
