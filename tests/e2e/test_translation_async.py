"""The async SDKs over every pair of dialects: an image goes there, a tool is called, its result goes back, a last answer comes."""

import base64
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.e2e.test_translation import QUESTION, SCHEMA, UPSTREAMS, upstreams
from tests.support.gateway import Gateway, configuration
from tests.support.providers import SCENES, Scene, plays, spoken_at
from tests.support.upstream import Upstream

Tree = dict[str, Any]
Client = Callable[[Gateway, str, bool], Awaitable[str]]
PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001"
        "e221bc330000000049454e44ae426082"
    )
).decode()
RESULT = "Snow, -4 degrees"
CALL = Scene(calls=(("get_weather", {"city": "Oslo"}),), stop="tool")
TEXT = SCENES["text"]


@pytest.fixture(scope="module")
def gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(configuration(*upstreams(shared_upstream.url))) as running:
        yield running


def client_of(gateway: Gateway) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, timeout=10)


async def chat(gateway: Gateway, model: str, stream: bool) -> str:
    """Two turns by Chat; the text of the last."""
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    history: list[Any] = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, image]}]
    tools: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
    async with client_of(gateway) as client:
        for _ in range(2):
            asked: Tree = {"model": model, "messages": history, "tools": tools}
            if stream:
                async with client.chat.completions.stream(**asked) as events:
                    whole: Any = await events.get_final_completion()
            else:
                whole = await client.chat.completions.create(**asked)
            message = whole.choices[0].message
            if not message.tool_calls:
                return str(message.content)
            told = message.model_dump(include={"role", "content", "tool_calls"}, exclude_none=True)
            for call in told["tool_calls"]:
                call["function"].pop("parsed_arguments", None)
                call.pop("index", None)
            history += [told, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": RESULT}]
    raise AssertionError("the tool was called again")


async def responses(gateway: Gateway, model: str, stream: bool) -> str:
    """Two turns by Responses, with the history in the request; the text of the last."""
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"}
    history: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}, image]}]
    tools: Any = [{"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}]
    async with client_of(gateway) as client:
        for _ in range(2):
            asked: Tree = {"model": model, "input": history, "tools": tools, "store": False}
            if stream:
                async with client.responses.stream(**asked) as events:
                    whole: Any = await events.get_final_response()
            else:
                whole = await client.responses.create(**asked)
            call = next((item for item in whole.output if item.type == "function_call"), None)
            if call is None:
                return str(whole.output_text)
            history += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in whole.output]
            history.append({"type": "function_call_output", "call_id": call.call_id, "output": RESULT})
    raise AssertionError("the tool was called again")


async def messages(gateway: Gateway, model: str, stream: bool) -> str:
    """Two turns by Messages; the text of the last."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    history: list[Any] = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, image]}]
    tools: Any = [{"name": "get_weather", "input_schema": SCHEMA}]
    settings: Tree = {"base_url": gateway.url, "api_key": gateway.key, "max_retries": 0, "timeout": 10}
    async with anthropic.AsyncAnthropic(**settings) as client:
        for _ in range(2):
            asked: Tree = {"model": model, "messages": history, "tools": tools, "max_tokens": 200}
            if stream:
                async with client.messages.stream(**asked) as events:
                    whole: Any = await events.get_final_message()
            else:
                whole = await client.messages.create(**asked)
            call = next((block for block in whole.content if block.type == "tool_use"), None)
            if call is None:
                return "".join(block.text for block in whole.content if block.type == "text")
            history.append({"role": "assistant", "content": [block.model_dump() for block in whole.content]})
            result = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT}
            history.append({"role": "user", "content": [result]})
    raise AssertionError("the tool was called again")


CLIENTS: dict[str, Client] = {"chat": chat, "responses": responses, "messages": messages}


def called_back(spoken: str, tree: Tree) -> list[tuple[str, str]]:
    """The (id called by, id answered by) of tools in a request's history, in any form; Gemini pairs by name."""
    if spoken == "chat":
        made = [call["id"] for message in tree["messages"] for call in message.get("tool_calls") or ()]
        answered = [message["tool_call_id"] for message in tree["messages"] if message["role"] == "tool"]
    elif spoken == "responses":
        made = [item["call_id"] for item in tree["input"] if item.get("type") == "function_call"]
        answered = [item["call_id"] for item in tree["input"] if item.get("type") == "function_call_output"]
    elif spoken == "messages":
        blocks = [
            block
            for message in tree["messages"]
            if isinstance(message["content"], list)
            for block in message["content"]
        ]
        made = [block["id"] for block in blocks if block["type"] == "tool_use"]
        answered = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    else:
        parts = [part for content in tree["contents"] for part in content["parts"]]
        made = [part["functionCall"]["name"] for part in parts if "functionCall" in part]
        answered = [part["functionResponse"]["name"] for part in parts if "functionResponse" in part]
    return list(zip(made, answered, strict=True))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("spoken", UPSTREAMS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_tool_result_and_an_image_reach_each_upstream(
    gateway: Gateway, shared_upstream: Upstream, client: str, spoken: str, *, stream: bool
) -> None:
    shared_upstream.reset()
    shared_upstream.script(plays(CALL), plays(TEXT))
    assert await CLIENTS[client](gateway, f"{spoken}-1", stream) == "".join(TEXT.text)
    first, second = shared_upstream.requests
    assert spoken_at(first.path) == spoken_at(second.path) == spoken
    assert PIXEL.encode() in first.body
    assert PIXEL.encode() in second.body
    pairs = called_back(spoken, second.json)
    assert len(pairs) == 1
    assert pairs[0][0] == pairs[0][1]
    assert RESULT.encode() in second.body


@pytest.mark.parametrize("spoken", UPSTREAMS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_stream_that_breaks_raises_in_the_async_sdks(
    gateway: Gateway, shared_upstream: Upstream, client: str, spoken: str
) -> None:
    """The provider closes in the middle of its stream: never an answer that looks finished."""
    from tests.support.behaviours import stream as streams
    from tests.support.providers import FORMS

    whole = FORMS[spoken][1](TEXT)
    shared_upstream.reset()
    shared_upstream.script(streams([whole[: len(whole) * 3 // 5]], ending="fin"))
    with pytest.raises((openai.APIError, anthropic.APIError)):
        await CLIENTS[client](gateway, f"{spoken}-1", True)
