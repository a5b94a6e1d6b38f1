"""The Anthropic SDK's tool runner: it lets the provider hold the conversation, and has to send all of it to others."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.e2e.test_translation import UPSTREAMS, settings, upstreams
from tests.support.behaviours import answer
from tests.support.gateway import Gateway, configuration
from tests.support.providers import HELLO, TEXT, TOOLS, message, plays
from tests.support.upstream import Upstream

Tree = dict[str, Any]
ASKED: Tree = {"max_tokens": 50, "messages": [{"role": "user", "content": "What is it like there?"}]}
OTHERS = [spoken for spoken in UPSTREAMS if spoken != "messages"]


@anthropic.beta_tool
def get_weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


@anthropic.beta_tool
def get_time(zone: str) -> str:
    """The time."""
    return f"noon in {zone}"


@pytest.fixture(scope="module")
def gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(configuration(*upstreams(shared_upstream.url))) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, **settings("")) as made:
        yield made


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("spoken", OTHERS)
def test_each_turn_of_the_tool_runner_has_all_that_was_said(
    client: anthropic.Anthropic, upstream: Upstream, spoken: str, *, stream: bool
) -> None:
    upstream.script(plays(TOOLS), plays(TOOLS), plays(TEXT))
    runner: Any = client.beta.messages.tool_runner(
        model=f"{spoken}-1", tools=[get_weather, get_time], stream=stream, **ASKED
    )
    turns = [turn.get_final_message() if stream else turn for turn in runner]
    assert [len(turn.content) for turn in turns] == [3, 3, 1]
    assert turns[-1].content[0].text == "".join(HELLO)
    for before, request in enumerate(upstream.wait(3)):
        assert request.body.count(b"What is it like there?") == 1
        assert (request.body.count(b"sunny in Oslo"), request.body.count(b"noon in CET")) == (before, before)
        assert b'"get_time"' in request.body


@pytest.mark.parametrize("spoken", OTHERS)
def test_who_insists_on_a_held_conversation_is_told(
    client: anthropic.Anthropic, upstream: Upstream, spoken: str
) -> None:
    thread = client.beta.messages.thread(model=f"{spoken}-1", max_tokens=50)
    with pytest.raises(anthropic.BadRequestError, match="cannot hold a conversation"):
        thread.send({"role": "user", "content": "Hello"})
    assert not upstream.requests


def test_anthropic_itself_holds_it(client: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.default = answer(message(TEXT))
    thread = client.beta.messages.thread(model="messages-1", max_tokens=50)
    for words in ("Hello", "And now?"):
        thread.send({"role": "user", "content": words})
    first, second = (request.json for request in upstream.wait(2))
    assert first["thread"] == {"type": "create"}
    assert second["thread"] == {"type": "continue", "previous_message_id": "msg_01"}
