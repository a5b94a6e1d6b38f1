"""An upstream that fails in its own dialect, for clients of every dialect: nothing cut ever looks whole, and nothing stays."""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import orjson
import pytest

from tests.e2e.test_translation import CLIENTS, UPSTREAMS, upstreams
from tests.support.behaviours import CURSED_PAGE, Ending, answer, event, failure, raw, silence, stream, zipped
from tests.support.client import Reply
from tests.support.gateway import Gateway, Tree, configuration
from tests.support.providers import FORMS, SCENES, plays
from tests.support.published import ready
from tests.support.upstream import Behaviour, Upstream

GEMINI = "/v1beta/models"
FORMS_OF_CLIENTS = ("chat", "responses", "messages", "gemini")
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
TERMINATORS = (b"[DONE]", b"response.completed", b"message_stop", b"finishReason", b'"finish_reason":"')
SLOTS = 3
CANCEL_SECONDS = 0.1
RAISED = (openai.OpenAIError, anthropic.AnthropicError, httpx2.TransportError)
SAID = "told so by the provider"
ERRORS: dict[str, bytes] = {
    "chat": event({"error": {"message": SAID, "type": "server_error", "param": None, "code": None}}),
    "responses": event(
        {"type": "error", "code": "server_error", "message": SAID, "param": None, "sequence_number": 9}, "error"
    ),
    "messages": event({"type": "error", "error": {"type": "overloaded_error", "message": SAID}}, "error"),
    "gemini": event({"error": {"code": 500, "message": SAID, "status": "INTERNAL"}}),
}


@pytest.fixture(scope="module")
def gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    config = configuration(*upstreams(shared_upstream.url), retries={"attempts": 1})
    config["keys"][0]["limits"] = [{"per": "key", "concurrent": SLOTS, "name": "slots"}]
    ready()
    with Gateway(config) as running:
        yield running


def events(spoken: str) -> list[bytes]:
    """The stream of the scene "text" as an upstream sends it."""
    frames = FORMS[spoken][1](SCENES["text"]).replace(b"\r\n", b"\n")
    return [frame + b"\n\n" for frame in frames.split(b"\n\n")[:-1]]


def begun(spoken: str) -> list[bytes]:
    """Its beginning, with the first word and nothing of the end."""
    found = events(spoken)
    return found[: next(at for at, frame in enumerate(found) if b"Hel" in frame) + 1]


def body_of(form: str, model: str, *, streamed: bool = False, **more: object) -> Tree:
    """A small request in a dialect."""
    turn = [{"role": "user", "content": "Say hello"}]
    bodies: dict[str, Tree] = {
        "chat": {"model": model, "messages": turn, "stream": streamed},
        "responses": {"model": model, "input": "Say hello", "stream": streamed},
        "messages": {"model": model, "max_tokens": 50, "messages": turn, "stream": streamed},
        "gemini": {"contents": [{"role": "user", "parts": [{"text": "Say hello"}]}]},
    }
    return {**bodies[form], **more}


def path_of(form: str, model: str, *, streamed: bool = False) -> str:
    """Where it is asked."""
    verb = "streamGenerateContent?alt=sse" if streamed else "generateContent"
    return PATHS.get(form) or f"{GEMINI}/{model}:{verb}"


def ask(gateway: Gateway, form: str, model: str, *, streamed: bool = False, identity: str = "", **more: Any) -> Reply:
    """By plain HTTP."""
    headers = {"x-request-id": identity} if identity else {}
    path = path_of(form, model, streamed=streamed)
    return gateway.post(path, body_of(form, model, streamed=streamed, **more), headers=headers)


def nothing_stays(gateway: Gateway, identity: str) -> Tree:
    """One Receipt, which says that it failed, and all slots are free."""
    receipt = gateway.receipt(identity)
    told = gateway.post("/explain", {"request": body_of("chat", "chat-1")}).json
    limits = told["limits"]
    assert isinstance(limits, list)
    assert [rule["remaining"] for rule in limits if rule["unit"] == "concurrent"] == [SLOTS]
    return receipt


def fault(kind: str, spoken: str) -> Behaviour:
    """What becomes of a stream."""
    head, whole = begun(spoken), events(spoken)
    endings: dict[str, Ending] = {"fin": "fin", "rst": "rst", "missing end": "whole", "stall": "hang"}
    if kind in endings:
        return stream(head, ending=endings[kind])
    if kind == "before content":
        return stream([b": hi\n\n"], ending="fin")
    if kind == "error":
        return stream([*head, ERRORS[spoken]])
    if kind == "error, and on":
        return stream([*head, ERRORS[spoken], *whole[len(head) :]])
    if kind == "error first":
        return stream([ERRORS[spoken]])
    if kind == "bad json":
        return stream([*head, b'data: {"choices": [\n\n', *whole[len(head) :]])
    assert kind == "no object"
    return stream([*head, b"data: [1, 2]\n\n", *whole[len(head) :]])


STREAM_FAULTS = (
    "fin", "rst", "missing end", "stall", "before content", "error", "error, and on", "error first", "bad json",
    "no object",
)  # fmt: skip


RELAYED = frozenset({"bad json", "no object"})
"""Passed on as they came to one who speaks the upstream's dialect: its bytes are not read."""


def faults(client: str) -> list[tuple[str, str]]:
    """What may happen at each upstream, for a client."""
    return [(spoken, kind) for spoken in UPSTREAMS for kind in STREAM_FAULTS if spoken != client or kind not in RELAYED]


@pytest.mark.parametrize(
    ("client", "spoken", "kind"), [(client, *found) for client in CLIENTS for found in faults(client)]
)
def test_a_stream_that_breaks_upstream_raises_in_the_sdk(
    gateway: Gateway, upstream: Upstream, client: str, spoken: str, kind: str
) -> None:
    upstream.default = fault(kind, spoken)
    identity = f"broken-{client}-{spoken}-{STREAM_FAULTS.index(kind)}"
    with pytest.raises(RAISED):
        CLIENTS[client](gateway, f"{spoken}-1", stream=True, tools=False, identity=identity)
    receipt = nothing_stays(gateway, identity)
    assert receipt["outcome"] not in {"ok", "caller_gone"}, receipt
    assert receipt["upstream"] == spoken


@pytest.mark.parametrize(("spoken", "kind"), faults("gemini"))
def test_a_gemini_client_sees_that_it_broke(gateway: Gateway, upstream: Upstream, spoken: str, kind: str) -> None:
    upstream.default = fault(kind, spoken)
    identity = f"broken-gemini-{spoken}-{STREAM_FAULTS.index(kind)}"
    reply = ask(gateway, "gemini", f"{spoken}-1", streamed=True, identity=identity)
    if reply.status == 200:
        assert not reply.complete
        last = orjson.loads(reply.body.rstrip().rpartition(b"data: ")[2])
        assert isinstance(last["error"]["message"], str)
        assert b"finishReason" not in reply.body
    else:
        assert reply.error["status"]
    assert nothing_stays(gateway, identity)["outcome"] != "ok"


@pytest.mark.parametrize("spoken", UPSTREAMS)
@pytest.mark.parametrize("client", FORMS_OF_CLIENTS)
def test_no_terminator_follows_what_broke(gateway: Gateway, upstream: Upstream, client: str, spoken: str) -> None:
    for kind in {"fin", "missing end", "error, and on", "bad json"} - (RELAYED if client == spoken else set()):
        upstream.default = fault(kind, spoken)
        reply = ask(gateway, client, f"{spoken}-1", streamed=True)
        assert (reply.status, reply.complete) == (200, False), kind
        assert b"Hel" in reply.body
        assert not any(word in reply.body for word in TERMINATORS), (kind, reply.body)
        assert reply.body.count(b"event: error\n") == (0 if client == "gemini" else 1), (kind, reply.body)


def cut(spoken: str) -> Behaviour:
    """An answer whose connection ends in its midst."""
    whole = orjson.dumps(FORMS[spoken][0](SCENES["text"]))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(whole)
    return raw(head + whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("client", "spoken"),
    [(client, spoken) for client in FORMS_OF_CLIENTS for spoken in UPSTREAMS if spoken != client],
)
def test_no_plain_answer_that_is_none_passes_for_one(
    gateway: Gateway, upstream: Upstream, client: str, spoken: str
) -> None:
    tree = FORMS[spoken][0](SCENES["text"])
    whole = orjson.dumps(tree)
    behaviours: dict[str, Behaviour] = {
        "cut by FIN": cut(spoken),
        "cut text": answer(whole[: len(whole) // 2]),
        "cut, unframed": answer(whole[: len(whole) // 2], framing="close"),
        "page": answer(CURSED_PAGE, content_type="text/html"),
        "page 502": answer(CURSED_PAGE, status=502, content_type="text/html"),
        "list": answer([1]),
        "text": answer("hello"),
        "nothing": answer(b""),
        "empty": answer({}),
        "null": answer(dict.fromkeys(tree)),
        "zipped": zipped(tree),
        "redirect": answer(b"", status=302, headers=(("location", "http://127.0.0.1:1/"),)),
        "silence": silence(),
        "error in 200": answer({"error": {"message": SAID, "type": "server_error", "code": 500, "status": "X"}}),
    }
    for kind, behaviour in behaviours.items():
        upstream.default = behaviour
        identity = f"plain-{client}-{spoken}-{kind.replace(' ', '').replace(',', '')}"
        reply = ask(gateway, client, f"{spoken}-1", identity=identity)
        assert reply.status >= 400, (kind, reply.body)
        assert reply.complete
        assert reply.value("content-type") == "application/json"
        error = reply.error
        assert isinstance(error["message"], str), kind
        assert b"<html" not in reply.body
        assert ("request_id" in reply.json) == (client == "messages"), (kind, reply.body)
        assert ("status" in error) == (client == "gemini"), (kind, reply.body)
        assert nothing_stays(gateway, identity)["outcome"] != "ok"


@pytest.mark.parametrize("spoken", UPSTREAMS)
def test_events_that_nobody_knows_are_passed_over(gateway: Gateway, upstream: Upstream, spoken: str) -> None:
    known = events(spoken)
    odd = [
        b": comment\n\n",
        b"id: 7\nretry: 10\n\n",
        event({"type": "response.something.new", "sequence_number": 3, "delta": "no"}, "response.something.new"),
        event({"type": "new_event", "x": [1]}, "new_event"),
    ]
    mixed = [piece for frame in known for piece in (*odd, frame)]
    for split in (0, 7):
        upstream.default = stream(mixed, split=split)
        for client in FORMS_OF_CLIENTS:
            reply = ask(gateway, client, f"{spoken}-1", streamed=True)
            assert (reply.status, reply.complete) == (200, True), (client, reply.body)
            assert b"error" not in reply.body.replace(b'"error":null', b"")


@pytest.mark.parametrize("phase", ["waiting", "plain", "streaming"])
@pytest.mark.parametrize(("client", "spoken"), [("chat", "gemini"), ("messages", "chat"), ("gemini", "messages")])
def test_a_client_that_goes_takes_the_upstreams_request_along(
    gateway: Gateway, upstream: Upstream, client: str, spoken: str, phase: str
) -> None:
    words = begun(spoken)
    upstream.default = stream([*words, *(words[-1:] * 1000)], pace_ms=20) if phase == "streaming" else silence()
    waits = []
    for number in range(3):
        identity = f"gone-{client}-{spoken}-{phase}-{number}"
        streamed = phase != "plain"
        with gateway.connect() as connection:
            body = body_of(client, f"{spoken}-1", streamed=streamed)
            headers = gateway.headers(more={"x-request-id": identity})
            connection.send("POST", path_of(client, f"{spoken}-1", streamed=streamed), body, headers)
            seen = upstream.wait(number + 1)[-1]
            if phase == "streaming":
                next(connection.pieces(connection.head()))
            connection.close()
            left = time.monotonic()
        waits.append(upstream.wait_gone(seen) - left)
        assert nothing_stays(gateway, identity)["outcome"] == "caller_gone"
    assert statistics.median(waits) < CANCEL_SECONDS


@pytest.mark.parametrize("spoken", UPSTREAMS)
@pytest.mark.parametrize("client", FORMS_OF_CLIENTS)
def test_an_upstreams_refusal_is_told_without_the_key(
    gateway: Gateway, upstream: Upstream, client: str, spoken: str
) -> None:
    key = "upstream-secret-7be2c1904d5f4a83"
    upstream.default = failure(400, f"{SAID}: {key} is no good")
    reply = ask(gateway, client, f"{spoken}-1", identity=f"secret-{client}-{spoken}")
    assert reply.status == 400
    assert SAID in str(reply.error["message"])
    upstream.default = stream([*begun(spoken), ERRORS[spoken].replace(SAID.encode(), f"{SAID}: {key}".encode())])
    late = ask(gateway, client, f"{spoken}-1", streamed=True)
    assert late.status == 200
    assert SAID.encode() in late.body
    for place in (repr(reply.headers), reply.body.decode(), late.body.decode(), gateway.output):
        assert key not in place


@pytest.mark.parametrize("spoken", UPSTREAMS)
def test_a_large_request_arrives(gateway: Gateway, upstream: Upstream, spoken: str) -> None:
    upstream.default = plays(SCENES["text"])
    text = "x" * (1 << 20)
    large: dict[str, Tree] = {
        "chat": {"messages": [{"role": "user", "content": text}]},
        "responses": {"input": text},
        "messages": {"messages": [{"role": "user", "content": text}]},
        "gemini": {"contents": [{"role": "user", "parts": [{"text": text}]}]},
    }
    for client in FORMS_OF_CLIENTS:
        reply = ask(gateway, client, f"{spoken}-1", **large[client])
        assert reply.status == 200, reply.body
        assert text.encode() in upstream.last.body


@pytest.mark.parametrize("client", ["chat", "messages", "gemini"])
def test_an_upstream_at_work_is_not_silent_where_nothing_is_passed_on(
    gateway: Gateway, upstream: Upstream, client: str
) -> None:
    found = events("responses")
    thought = event({"type": "response.web_search_call.searching", "item_id": "w", "output_index": 7}, "x.searching")
    upstream.default = stream([found[0], *[thought] * 7, *found[1:]], pace_ms=120)
    reply = ask(gateway, client, "responses-1", streamed=True)
    assert (reply.status, reply.complete) == (200, True), reply.body


@pytest.mark.parametrize("client", ["chat", "responses", "gemini"])
def test_pings_do_not_hide_a_silence(gateway: Gateway, upstream: Upstream, client: str) -> None:
    upstream.default = stream([*begun("messages"), *[event({"type": "ping"}, "ping")] * 100], pace_ms=50)
    reply = ask(gateway, client, "messages-1", streamed=True)
    assert (reply.status, reply.complete) == (200, False)
    assert upstream.wait_gone(upstream.last)
    assert "silent" in reply.body.decode()


@pytest.mark.parametrize("client", ["chat", "responses", "messages"])
def test_a_number_that_nobody_can_write_ends_a_stream_as_broken(
    gateway: Gateway, upstream: Upstream, client: str
) -> None:
    upstream.default = stream([frame.replace(b'":21', b'":1e300') for frame in events("gemini")])
    identity = f"number-{client}"
    reply = ask(gateway, client, "gemini-1", streamed=True, identity=identity)
    assert not (reply.status == 200 and reply.complete)
    assert b"error" in reply.body
    assert str(nothing_stays(gateway, identity)["outcome"]).startswith("upstream_")


@pytest.mark.parametrize("client", ["chat", "responses", "messages"])
def test_a_gemini_stream_that_said_its_last_word_is_whole_however_it_is_left(
    gateway: Gateway, upstream: Upstream, client: str
) -> None:
    endings: tuple[Ending, ...] = ("fin", "rst", "hang")
    for ending in endings:
        upstream.default = stream(events("gemini"), ending=ending)
        reply = ask(gateway, client, "gemini-1", streamed=True)
        assert (reply.status, reply.complete) == (200, True), (ending, reply.body)
