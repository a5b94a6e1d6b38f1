"""The official openai SDK, unmodified, against the running gateway."""

import base64
import struct
from collections.abc import AsyncIterator, Iterator

import openai
import orjson
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from tests.e2e.conftest import NARROW_KEY
from tests.support.behaviours import DONE, answer, event, failure, limited, silence, stream
from tests.support.fake_openai import ANSWER, USAGE, VECTOR, called, completion, spoken, tool_call, words
from tests.support.gateway import Gateway
from tests.support.upstream import Behaviour, Upstream

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello to all"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, timeout=10) as made:
        yield made


@pytest.fixture
async def aclient(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, timeout=10) as made:
        yield made


def test_plain_chat_returns_the_upstreams_text_and_usage(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert reply.choices[0].message.content == ANSWER
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == USAGE["total_tokens"]


async def test_plain_chat_works_with_the_async_client(aclient: openai.AsyncOpenAI) -> None:
    reply = await aclient.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert reply.choices[0].message.content == ANSWER


def test_streamed_chat_arrives_in_pieces_and_without_a_usage_chunk_nobody_asked_for(client: openai.OpenAI) -> None:
    with client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=True) as chunks:
        seen = list(chunks)
    assert "".join(piece.choices[0].delta.content or "" for piece in seen) == ANSWER
    assert seen[-1].choices[0].finish_reason == "stop"
    assert all(piece.usage is None for piece in seen)


async def test_streamed_chat_works_with_the_async_client_and_keeps_the_usage_it_asked_for(
    aclient: openai.AsyncOpenAI,
) -> None:
    chunks = await aclient.chat.completions.create(
        model="gpt-4o-mini", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    async with chunks:
        seen = [piece async for piece in chunks]
    assert "".join(piece.choices[0].delta.content or "" for piece in seen if piece.choices) == ANSWER
    assert seen[-1].usage is not None
    assert seen[-1].usage.total_tokens == USAGE["total_tokens"]


def test_a_tool_call_comes_through_plain(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(answer(completion(None, calls=[tool_call("weather", '{"city":"Oslo","days":2}')])))
    reply = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, tools=[WEATHER])
    calls = reply.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert calls[0].function.arguments == '{"city":"Oslo","days":2}'
    assert upstream.last.json["tools"] == [WEATHER]


def test_a_tool_call_comes_through_streamed_in_fragments(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(stream(called("weather", ['{"city":', '"Oslo"', ',"days":2}']), split=7))
    with client.chat.completions.stream(model="gpt-4o-mini", messages=HELLO, tools=[WEATHER]) as events:
        reply = events.get_final_completion()
    calls = reply.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.name == "weather"
    assert orjson.loads(calls[0].function.arguments) == {"city": "Oslo", "days": 2}


def test_structured_output_is_parsed(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(answer(completion('{"name":"Ada","age":36}')))
    reply = client.chat.completions.parse(model="gpt-4o-mini", messages=HELLO, response_format=Person)
    assert reply.choices[0].message.parsed == Person(name="Ada", age=36)


def test_embeddings_come_as_base64_and_as_floats(client: openai.OpenAI, upstream: Upstream) -> None:
    reply = client.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    assert upstream.last.json["encoding_format"] == "base64"
    assert [item.embedding for item in reply.data] == [list(VECTOR)] * 2
    floats = client.embeddings.create(model="text-embedding-3-small", input="one", encoding_format="float")
    assert floats.data[0].embedding == list(VECTOR)


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert "agw/echo" in names
    assert client.models.retrieve("agw/echo").id == "agw/echo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_moderations_and_completions_are_relayed(client: openai.OpenAI) -> None:
    verdict = client.moderations.create(model="omni-moderation-latest", input="kind words")
    assert verdict.results[0].flagged is False
    text = client.completions.create(model="gpt-4o-mini", prompt="Say hello")
    assert text.choices[0].text == ANSWER


def test_echo_repeats_the_last_user_message(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="agw/echo", messages=HELLO)
    again = client.chat.completions.create(model="agw/echo", messages=HELLO)
    assert first.choices[0].message.content == "Say hello to all"
    assert first.usage is not None
    assert first.usage == again.usage
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens > 0


async def test_echo_streams_word_by_word(aclient: openai.AsyncOpenAI) -> None:
    chunks = await aclient.chat.completions.create(
        model="agw/echo", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    async with chunks:
        seen = [piece async for piece in chunks]
    texts = [piece.choices[0].delta.content for piece in seen if piece.choices and piece.choices[0].delta.content]
    assert [text.strip() for text in texts] == ["Say", "hello", "to", "all"]
    assert "".join(texts) == "Say hello to all"
    assert seen[-1].usage is not None
    assert seen[-1].choices == []


@pytest.mark.parametrize("named", [True, False])
def test_echo_calls_the_tool_with_a_minimal_instance_of_its_schema(client: openai.OpenAI, named: bool) -> None:
    reply = client.chat.completions.create(
        model="agw/echo",
        messages=HELLO,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}} if named else "required",
    )
    assert reply.choices[0].finish_reason in {"tool_calls", "stop"}
    calls = reply.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    arguments = orjson.loads(calls[0].function.arguments)
    assert set(arguments) == {"city", "days"}
    assert isinstance(arguments["city"], str)
    assert arguments["days"] >= 2


def test_echo_streams_tool_calls(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="agw/echo", messages=HELLO, tools=[WEATHER], tool_choice="required"
    ) as events:
        reply = events.get_final_completion()
    calls = reply.choices[0].message.tool_calls
    assert calls is not None
    assert set(orjson.loads(calls[0].function.arguments)) == {"city", "days"}


def test_echo_answers_a_schema_with_a_valid_instance(client: openai.OpenAI) -> None:
    reply = client.chat.completions.parse(model="agw/echo", messages=HELLO, response_format=Person)
    assert isinstance(reply.choices[0].message.parsed, Person)


def test_echo_embeddings_are_deterministic_and_alike_in_both_formats(client: openai.OpenAI) -> None:
    floats = client.embeddings.create(model="agw/echo", input=["one", "two"], encoding_format="float")
    raw = client.embeddings.with_raw_response.create(model="agw/echo", input=["one", "two"], encoding_format="base64")
    packed = orjson.loads(raw.content)["data"]
    assert floats.data[0].embedding != floats.data[1].embedding
    for item, same in zip(floats.data, packed, strict=True):
        content = base64.b64decode(same["embedding"])
        assert list(struct.unpack(f"<{len(content) // 4}f", content)) == pytest.approx(item.embedding, rel=1e-6)


def test_a_wrong_key_is_an_authentication_error(gateway: Gateway) -> None:
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="agw-not-a-known-key-000000", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        stranger.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert caught.value.code == "invalid_api_key"


def test_a_model_outside_the_keys_list_is_a_permission_error_that_names_what_is_allowed(gateway: Gateway) -> None:
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=NARROW_KEY, max_retries=0) as narrow,
        pytest.raises(openai.PermissionDeniedError, match="gpt-4o") as caught,
    ):
        narrow.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert caught.value.status_code == 403


def test_an_unknown_model_is_a_not_found_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=HELLO)
    assert caught.value.code == "model_not_found"


def test_the_upstreams_own_400_is_a_bad_request_with_its_message(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(failure(400, "temperature is too hot", code="invalid_value"))
    with pytest.raises(openai.BadRequestError, match="temperature is too hot"):
        client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert len(upstream.requests) == 1


def test_an_upstream_limit_is_a_rate_limit_error(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.default = limited((("retry-after-ms", "20"),))
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)


def test_a_failing_upstream_is_an_internal_server_error(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.default = failure(500)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)


async def test_the_clients_own_time_out_is_a_time_out_error(aclient: openai.AsyncOpenAI, upstream: Upstream) -> None:
    upstream.default = silence()
    with pytest.raises(openai.APITimeoutError):
        await aclient.chat.completions.create(model="gpt-4o-mini", messages=HELLO, timeout=0.1)


@pytest.mark.parametrize(
    "broken",
    [
        stream(words()[:3], ending="fin"),
        stream(words()[:3], ending="rst"),
        stream(words()[:3]),
        stream(words()[:3], framing="close"),
        stream([*words()[:3], event({"error": {"message": "overloaded", "type": "server_error"}}), DONE]),
    ],
    ids=["cut", "reset", "clean-end", "close-delimited", "error-event"],
)
def test_a_broken_stream_raises(client: openai.OpenAI, upstream: Upstream, broken: Behaviour) -> None:
    upstream.script(broken)
    chunks = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=True)
    with chunks, pytest.raises(openai.APIError):
        list(chunks)


def test_any_shape_of_stream_reads_the_same(client: openai.OpenAI, upstream: Upstream) -> None:
    crlf = [piece.replace(b"\n", b"\r\n") for piece in spoken()]
    upstream.script(stream([b": hi\n\n", *spoken()], split=1), stream(crlf, split=5), stream(spoken(), framing="close"))
    for _ in range(3):
        with client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=True) as chunks:
            assert "".join(piece.choices[0].delta.content or "" for piece in chunks) == ANSWER
