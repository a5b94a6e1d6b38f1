"""Deadlines by phase: each ends the try that exceeds it, on both lanes alike, and the next target gets its turn."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import openai
import pytest

from tests.support.behaviours import answer, raw, silence, stream
from tests.support.fake_openai import chunk, completion, spoken, words
from tests.support.gateway import APP_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Upstream

PATIENT = {"connect": "2s", "first_byte": "5s", "between_bytes": "5s", "total": "20s"}
ONCE = {"attempts": 1}
ROLE = chunk({"role": "assistant", "content": ""})
PING = b": ping\n\n"


@pytest.fixture(params=["auto", "full"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def served(upstream: Upstream, lane: str, **more: object) -> Tree:
    config = configuration(provider(upstream.url, retries=ONCE), timeouts=PATIENT)
    config["server"]["lane"] = lane
    return {**config, **more}


@pytest.mark.parametrize(
    ("phase", "streamed", "behaviour", "words_of_it"),
    [
        ("first_byte", False, silence(), "did not answer within 0.15 s"),
        ("first_byte", True, silence(), "did not answer within 0.15 s"),
        ("total", False, silence(), "total time-out"),
        ("first_token", True, stream([ROLE], ending="hang"), "within 0.15 s"),
        ("first_token", True, stream([PING], ending="hang"), "within 0.15 s"),
        ("between_bytes", False, raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n", "hang"), "silent"),
    ],
)
def test_a_phase_that_takes_too_long_is_a_504(
    upstream: Upstream, lane: str, phase: str, streamed: bool, behaviour: object, words_of_it: str
) -> None:
    with Gateway(served(upstream, lane, timeouts={**PATIENT, phase: "150ms"})) as gateway:
        upstream.default = behaviour  # type: ignore[assignment]
        reply = gateway.chat(stream=streamed)
        assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
        assert words_of_it in str(reply.error["message"]) or phase == "total"
        upstream.wait_gone(upstream.last)
        assert gateway.receipt(reply.request_id)["outcome"] == "upstream_timeout"


@pytest.mark.parametrize("pings", [False, True])
def test_a_stream_that_stalls_within_ends_with_an_error_event(upstream: Upstream, lane: str, pings: bool) -> None:
    """Pings are no tokens: they do not put the clock off."""
    events = [*words()[:2], *([PING] * 60 if pings else [])]
    with Gateway(served(upstream, lane, timeouts={**PATIENT, "between_tokens": "300ms"})) as gateway:
        upstream.default = stream(events, pace_ms=50 if pings else 0, ending="hang")
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=APP_KEY, max_retries=0)
        with client, pytest.raises(openai.APIError, match="silent"):
            for _ in client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}], stream=True
            ):
                pass
        upstream.wait_gone(upstream.last)


def test_a_stream_that_stalls_before_its_first_token_fails_over(upstream: Upstream, lane: str) -> None:
    with Upstream() as other:
        other.default = stream(spoken())
        config = served(upstream, lane, timeouts={**PATIENT, "first_token": "150ms"})
        config["upstreams"].append(provider(other.url, "other"))
        config["models"] = [{"name": "m", "targets": ["fake/gpt-4o-mini", "other/gpt-4o-mini"], "balance": "first"}]
        with Gateway(config) as gateway:
            upstream.default = stream([ROLE], ending="hang")
            reply = gateway.chat(model="m", stream=True)
            assert (reply.status, reply.complete) == (200, True)
            assert b"event: error" not in reply.body
            trail = gateway.receipt(reply.request_id)["trail"]
            assert [attempt["outcome"] for attempt in trail] == ["upstream_timeout", "200"]


def test_a_stream_that_breaks_before_its_first_token_begins_anew_where_that_is_declared(
    upstream: Upstream, lane: str
) -> None:
    config = served(upstream, lane, retries={"attempts": 2, "base": "1ms"})
    config["upstreams"][0].pop("retries")
    config["models"] = [
        {"name": "again", "targets": ["fake/gpt-4o-mini"], "on_break": "restart_if_uncommitted"},
        {"name": "fails", "targets": ["fake/gpt-4o-mini"]},
    ]
    with Gateway(config) as gateway:
        upstream.script(stream([ROLE], ending="rst"), stream(spoken()))
        reply = gateway.chat(model="again", stream=True)
        assert (reply.status, reply.complete, len(upstream.requests)) == (200, True, 2)
        assert b"event: error" not in reply.body
        upstream.reset()
        upstream.script(stream([ROLE], ending="rst"), stream(spoken()))
        reply = gateway.chat(model="fails", stream=True)
        assert (reply.status, reply.complete, len(upstream.requests)) == (200, False, 1)
        assert b"event: error" in reply.body


def test_a_route_and_an_upstream_have_deadlines_of_their_own(upstream: Upstream, lane: str) -> None:
    config = served(upstream, lane)
    config["models"] = [
        {"name": "quick", "targets": ["fake/gpt-4o-mini"], "timeouts": {"first_byte": "100ms"}},
    ]
    with Gateway(config) as gateway:
        upstream.default = silence()
        reply = gateway.chat(model="quick")
        assert (reply.status, "within 0.1 s" in str(reply.error["message"])) == (504, True)


@pytest.mark.parametrize("sent", ["150ms", "0.15", "total=150ms", "first_byte=150ms, total=10s", "total=0.15s"])
def test_a_caller_shortens_its_own_deadlines(upstream: Upstream, lane: str, sent: str) -> None:
    with Gateway(served(upstream, lane)) as gateway:
        upstream.default = silence()
        begun = time.monotonic()
        reply = gateway.chat(headers={"x-agw-timeout": sent})
        assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
        assert time.monotonic() - begun < 3
        assert "x-agw-timeout" not in dict(upstream.last.headers)


def test_a_caller_cannot_lengthen_them(upstream: Upstream, lane: str) -> None:
    with Gateway(served(upstream, lane, timeouts={**PATIENT, "first_byte": "150ms"})) as gateway:
        upstream.default = silence()
        assert gateway.chat(headers={"x-agw-timeout": "first_byte=60s"}).status == 504


@pytest.mark.parametrize("sent", ["soon", "-1", "0", "first=1s", "total=1s, total=2s", "nan", ""])
def test_a_deadline_that_is_none_is_refused(upstream: Upstream, lane: str, sent: str) -> None:
    with Gateway(served(upstream, lane)) as gateway:
        reply = gateway.chat(headers={"x-agw-timeout": sent or " "})
        assert (reply.status, reply.error["param"]) == (400, "x-agw-timeout")
        assert upstream.requests == []


@contextlib.contextmanager
def mute() -> Iterator[str]:
    """A server that takes connections and reads nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        held: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for connection in held:
                connection.close()


def test_a_handshake_that_never_ends_has_its_own_clock(upstream: Upstream, lane: str) -> None:
    with mute() as address:
        config = served(upstream, lane, timeouts={**PATIENT, "tls": "150ms"})
        config["upstreams"][0]["base_url"] = f"https://{address}/v1"
        with Gateway(config) as gateway:
            reply = gateway.chat()
            assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")


def test_a_request_that_is_not_taken_has_its_own_clock(upstream: Upstream) -> None:
    """Beyond what the kernel's buffers take, so that only the full lane's bodies are large enough."""
    with mute() as address:
        config = served(upstream, "auto", timeouts={**PATIENT, "write": "300ms"})
        config["server"]["max_body_mb"] = 64
        config["upstreams"][0]["base_url"] = f"http://{address}/v1"
        with Gateway(config) as gateway:
            body = chat_body(messages=[{"role": "user", "content": "x" * (32 << 20)}])
            reply = gateway.post("/v1/chat/completions", body)
            assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
            assert "did not take the request within 0.3 s" in str(reply.error["message"])


def test_waiting_for_a_slow_client_is_no_silence_of_the_upstreams(upstream: Upstream, lane: str) -> None:
    with Gateway(served(upstream, lane, timeouts={**PATIENT, "between_bytes": "300ms"})) as gateway:
        upstream.script(answer({**completion(), "filler": "x" * (8 << 20)}))
        with gateway.connect(receive_buffer=4096) as connection:
            connection.send("POST", "/v1/chat/completions", chat_body(), gateway.headers())
            time.sleep(0.8)
            reply = connection.reply()
        assert (reply.status, reply.complete) == (200, True)
