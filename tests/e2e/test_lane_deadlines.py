"""Deadlines that overlap: whichever ends first, both lanes say the same of it."""

import socket
from collections.abc import Iterator

import pytest

from tests.support.gateway import Gateway, Tree, configuration, provider

PATIENT = {"connect": "8s", "first_byte": "8s", "between_bytes": "8s", "total": "20s"}
ONCE = {"attempts": 1}


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


@pytest.mark.parametrize(
    ("phase", "streamed", "words_of_it"),
    [
        ("first_byte", False, "did not answer within 0.15 s"),
        ("first_byte", True, "did not answer within 0.15 s"),
        ("first_token", True, "sent nothing of its answer within 0.15 s"),
        ("total", False, ""),
    ],
)
def test_a_handshake_that_stalls_past_the_answers_own_deadline_is_a_504(
    mute: str, lane: str, phase: str, streamed: bool, words_of_it: str
) -> None:
    with Gateway(served(mute, lane, **{phase: "150ms"})) as gateway:
        reply = gateway.chat(stream=streamed)
        assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
        assert words_of_it in str(reply.error["message"])
        assert gateway.receipt(reply.request_id)["outcome"] == "upstream_timeout"


def test_one_that_stalls_past_its_own_deadline_alone_is_a_502(mute: str, lane: str) -> None:
    with Gateway(served(mute, lane, connect="150ms")) as gateway:
        reply = gateway.chat()
        assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")
