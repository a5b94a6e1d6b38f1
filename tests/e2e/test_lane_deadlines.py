"""Deadlines that overlap: whichever ends first, both lanes say the same of it."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.behaviours import stream
from tests.support.fake_openai import chunk
from tests.support.gateway import Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Upstream

PATIENT = {"connect": "8s", "first_byte": "8s", "between_bytes": "8s", "total": "20s"}
ONCE = {"attempts": 1}
SPOKEN = chunk({"content": "x" * 65536})


@pytest.fixture(params=["auto", "full"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def mute() -> Iterator[str]:
    """Where connections are made, and no handshake is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"


def served(url: str, lane: str, **timeouts: str) -> Tree:
    config = configuration(provider(url, retries=ONCE), timeouts={**PATIENT, **timeouts})
    config["server"]["lane"] = lane
    return config


@pytest.mark.parametrize(("phase", "streamed"), [("first_byte", False), ("first_byte", True), ("first_token", True)])
def test_a_handshake_that_stalls_is_told_of_as_such_whatever_the_answer_may_take(
    mute: str, lane: str, phase: str, streamed: bool
) -> None:
    """Each clock runs in its own phase: an answer's begins when the request has gone."""
    with Gateway(served(mute, lane, **{phase: "50ms", "connect": "250ms"})) as gateway:
        reply = gateway.chat(stream=streamed)
        assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")


def test_a_handshake_that_stalls_past_the_end_of_all_time_is_a_504(mute: str, lane: str) -> None:
    with Gateway(served(mute, lane, total="150ms")) as gateway:
        reply = gateway.chat()
        assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
        assert gateway.receipt(reply.request_id)["outcome"] == "upstream_timeout"


def test_one_that_stalls_past_its_own_deadline_alone_is_a_502(mute: str, lane: str) -> None:
    with Gateway(served(mute, lane, connect="150ms")) as gateway:
        reply = gateway.chat()
        assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")


def test_readers_that_were_slow_hear_of_the_silence_that_follows(upstream: Upstream, lane: str) -> None:
    """The clock of the upstream goes on when a client reads again, not when the client's own would have ended.

    Some of many lengths make the gateway's socket full with the last bytes.
    """
    with Gateway(served(upstream.url, lane, between_tokens="300ms")) as gateway, ThreadPoolExecutor(12) as crowd:

        def ask(number: int) -> tuple[int, bool, bool]:
            with gateway.connect(receive_buffer=4096) as connection:
                connection.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers())
                reply = connection.reply()
            return reply.status, reply.complete, b"was silent for 0.3 s" in reply.body

        for number in range(12):
            upstream.script(stream([SPOKEN] * (64 + number), ending="hang"))
        assert set(crowd.map(ask, range(12))) == {(200, False, True)}
