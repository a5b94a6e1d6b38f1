"""Virtual models over the gateway's own: the echo model, and agents; alone, beside an upstream, and behind one."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.sdk.folders import says, write
from tests.support.gateway import Gateway, configuration, provider
from tests.support.upstream import Upstream, unreachable

MODELS: list[dict[str, Any]] = [
    {"name": "fast", "targets": ["agw/echo"]},
    {"name": "sky", "targets": [{"upstream": "agents", "model": "default/sky"}]},
    {"name": "first", "balance": "first", "targets": ["fake/gpt-4o", "agw/echo"]},
    {"name": "behind", "targets": ["dead/gpt-4o"], "fallbacks": ["agents/default/sky"]},
    {"name": "gone", "targets": ["dead/gpt-4o"], "fallbacks": ["sky"]},
]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Upstream() as upstream, unreachable() as nobody:
        dead = provider(nobody, "dead", models=["dead-*"])
        config = configuration(provider(upstream.url), dead, models=MODELS)
        running = Gateway(config)
        write(running.folder / "work" / "agents", {"sky/agent.py": says("blue")})
        with running:
            yield running


@pytest.mark.parametrize("model", ["sky", "behind", "gone"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_agent_answers_under_another_name(gateway: Gateway, model: str, stream: bool) -> None:
    reply = gateway.chat(model=model, stream=stream)
    assert reply.status == 200
    assert b"blue" in reply.body


def test_the_echo_model_answers_under_another_name(gateway: Gateway) -> None:
    reply = gateway.chat(model="fast", messages=[{"role": "user", "content": "good day"}])
    assert b"good day" in reply.body


def test_an_upstream_before_the_echo_model_keeps_the_fast_lane(gateway: Gateway) -> None:
    reply = gateway.chat(model="first")
    assert reply.status == 200
    line = gateway.receipt(reply.value("x-request-id") or "")
    assert (line["lane"], line["upstream"]) == ("fast", "fake")


def test_without_a_folder_of_agents_a_model_of_theirs_is_not_there() -> None:
    with Gateway(configuration(models=MODELS[:2])) as gateway:
        assert gateway.chat(model="fast").status == 200
        assert gateway.chat(model="sky").status == 404
