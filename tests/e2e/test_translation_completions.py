"""The older text completions against upstreams that have none, by the official SDK, plain and streamed."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.test_translation import UPSTREAMS, settings, upstreams
from tests.support.behaviours import answer
from tests.support.gateway import Gateway, configuration, provider
from tests.support.providers import SCENES, plays
from tests.support.upstream import Upstream

PROMPT = "Once upon a time"
PLAYED = ("text", "cut", "thinking")


@pytest.fixture(scope="module")
def gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    native = provider(shared_upstream.url, "native", speaks=["chat", "completions"], models=["native-*"])
    with Gateway(configuration(*upstreams(shared_upstream.url), native)) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, **settings("")) as made:
        yield made


def completed(client: openai.OpenAI, model: str, *, stream: bool) -> tuple[str, str, Any]:
    """Words, the reason of their end, and usage."""
    if not stream:
        whole = client.completions.create(model=model, prompt=PROMPT, max_tokens=200)
        assert whole.object == "text_completion"
        return whole.choices[0].text, whole.choices[0].finish_reason, whole.usage
    words, reasons, usage = "", [], None
    for chunk in client.completions.create(
        model=model, prompt=[PROMPT], max_tokens=200, stream=True, stream_options={"include_usage": True}
    ):
        assert (chunk.object, chunk.model) == ("text_completion", model)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            words += choice.text
            reasons += [choice.finish_reason] if choice.finish_reason else []
    (reason,) = reasons
    return words, reason, usage


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("spoken", UPSTREAMS)
def test_every_upstream_completes(
    client: openai.OpenAI, shared_upstream: Upstream, spoken: str, *, stream: bool
) -> None:
    for name in PLAYED:
        told = SCENES[name]
        shared_upstream.reset()
        shared_upstream.default = plays(told)
        words, reason, usage = completed(client, f"{spoken}-1", stream=stream)
        assert (words, reason) == ("".join(told.text), told.stop)
        assert (usage.prompt_tokens, usage.completion_tokens) == (told.prompt, told.output)
        assert usage.prompt_tokens_details.cached_tokens == told.cached
        asked = shared_upstream.requests[-1].body
        assert PROMPT.encode() in asked
        assert b"200" in asked


def test_who_has_completions_gets_the_bytes_as_they_came(client: openai.OpenAI, shared_upstream: Upstream) -> None:
    shared_upstream.reset()
    choice = {"index": 0, "text": "!", "logprobs": None, "finish_reason": "stop"}
    shared_upstream.default = answer(
        {"id": "cmpl-9", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}
    )
    whole = client.completions.create(model="native-1", prompt=[1, 2, 3], suffix="end", echo=True, n=1)
    assert (whole.id, whole.choices[0].text) == ("cmpl-9", "!")
    asked = shared_upstream.requests[-1]
    assert asked.path == "/v1/completions"
    assert asked.json["prompt"] == [1, 2, 3]
    assert asked.json["suffix"] == "end"


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"), ({"prompt": [1, 2]}, "prompt"), ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": None}, "prompt"), ({"suffix": "x"}, "suffix"), ({"echo": True}, "echo"), ({"n": 2}, "n"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_before_anybody_is_asked(
    client: openai.OpenAI, shared_upstream: Upstream, members: dict[str, Any], param: str
) -> None:
    shared_upstream.reset()
    with pytest.raises(openai.BadRequestError) as raised:
        client.completions.create(**{"model": "messages-1", "prompt": PROMPT, **members})
    assert raised.value.param == param
    assert shared_upstream.requests == []


def test_what_is_dropped_is_told_and_usage_only_where_asked_for(
    client: openai.OpenAI, shared_upstream: Upstream
) -> None:
    shared_upstream.reset()
    shared_upstream.default = plays(SCENES["text"])
    with client.completions.with_streaming_response.create(
        model="messages-1", prompt=PROMPT, best_of=3, logprobs=2, stream=True
    ) as raw:
        assert set(raw.headers["x-agw-dropped"].replace(" ", "").split(",")) == {"best_of", "logprobs"}
        body = b"".join(raw.iter_bytes())
    assert b'"prompt_tokens"' not in body
    assert body.endswith(b"data: [DONE]\n\n")


def test_an_upstreams_error_is_the_sdks_own_exception(client: openai.OpenAI, shared_upstream: Upstream) -> None:
    shared_upstream.reset()
    shared_upstream.default = answer(
        {"type": "error", "error": {"type": "invalid_request_error", "message": "too hot"}}, status=400
    )
    with pytest.raises(openai.BadRequestError, match="too hot"):
        client.completions.create(model="messages-1", prompt=PROMPT)


def test_the_echo_model_completes_in_its_own_way(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="agw/echo", prompt=[PROMPT, "Twice"], max_tokens=50)
    assert len(whole.choices) == 2
