"""Events of real model classes, and of odd ones, as one answer."""

from collections.abc import Callable
from typing import Any

import httpx2
import orjson
import pytest
from agents import Agent, Model, OpenAIChatCompletionsModel, OpenAIResponsesModel, function_tool
from agents.testing import ScriptedModel, assistant_message
from openai import AsyncOpenAI
from openai.types.responses import ResponseOutputMessage

from agw_proxy.config.values import Form
from agw_proxy.dialects import translate
from agw_proxy.dialects.base import (
    Answer,
    BlockStart,
    BlockStop,
    Finish,
    Part,
    Shown,
    Start,
    Text,
    Thinking,
    Tokens,
    ToolUse,
)
from agw_proxy.dialects.played import played
from agw_proxy.sdk.bridge import Bridge, added, gathered
from tests.sdk.agents_served import Served, asking, trees, words_of
from tests.support.providers import Scene, chat, chat_frames


@function_tool
def weather(city: str) -> str:
    return f"Rain in {city}"


def client(answers: Callable[[httpx2.Request], httpx2.Response]) -> AsyncOpenAI:
    transport = httpx2.MockTransport(answers)
    return AsyncOpenAI(
        base_url="http://model/v1", api_key="k", max_retries=0, http_client=httpx2.AsyncClient(transport=transport)
    )


def speaks(request: httpx2.Request) -> httpx2.Response:
    """A model says "Say this", in whichever form it is asked; a stream in Chat tells its usage to whom asks for that only."""
    if not orjson.loads(request.content).get("stream"):
        return httpx2.Response(200, json=chat(Scene(text=("Say this",), prompt=3, cached=0, output=2)))
    answer = Answer("a", "gpt", [Text("Say this")], "stop", Tokens(3, 2))
    form: Form = "responses" if request.url.path.endswith("/responses") else "chat"
    told = orjson.loads(request.content).get("stream_options", {}).get("include_usage", False)
    write = translate.writer(form, Shown(id="a", model="gpt", now=1, include_usage=told)).write
    data = b"".join([write(event) for event in played(answer)])
    return httpx2.Response(200, content=data, headers={"content-type": "text/event-stream"})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", [OpenAIChatCompletionsModel, OpenAIResponsesModel])
async def test_the_sdks_own_model_classes_speak_through_it(kind: Callable[..., Model], stream: bool) -> None:
    served = Served(Agent(name="helper", model=kind("gpt", client(speaks))))
    if stream:
        answer = trees(await served.ask({"input": "Say this", "stream": True}))[-1]["response"]
    else:
        answer = await served.answer("Say this")
    assert [part["text"] for item in answer["output"] for part in item["content"]] == ["Say this"]
    assert answer["usage"]["total_tokens"] == 5
    assert answer["status"] == "completed"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_chat_model_class_calls_tools_unseen(stream: bool) -> None:
    asked: list[Any] = []
    looks = Scene(text=("I look.",), calls=(("weather", {"city": "Oslo"}),), stop="tool")

    def answers(request: httpx2.Request) -> httpx2.Response:
        asked.append(orjson.loads(request.content))
        scene = Scene(text=("It ", "rains.")) if len(asked) > 1 else looks
        if not asked[-1].get("stream"):
            return httpx2.Response(200, json=chat(scene))
        return httpx2.Response(200, content=chat_frames(scene), headers={"content-type": "text/event-stream"})

    served = Served(Agent(name="helper", tools=[weather], model=OpenAIChatCompletionsModel("gpt", client(answers))))
    if stream:
        chunks = trees(await served.ask({**asking("Weather?", "chat"), "stream": True}, "chat"))
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        assert "".join(delta.get("content") or "" for delta in deltas) == "I look.\n\nIt rains."
        assert not any(delta.get("tool_calls") for delta in deltas)
    else:
        message = (await served.answer("Weather?", "chat"))["choices"][0]["message"]
        assert message["content"] == "I look.\n\nIt rains."
        assert not message.get("tool_calls")
    assert [turn["role"] for turn in asked[1]["messages"]] == ["user", "assistant", "tool"]


class Said:
    """An event of a model call, as the bridge sees one."""

    def __init__(self, kind: str, **members: Any) -> None:
        self.type = kind
        self.__dict__.update(members)


class Whole:
    """The Response at a model call's end."""

    def __init__(self, *output: dict[str, Any], status: str = "completed", **members: Any) -> None:
        self.status, self.output = status, output
        self.incomplete_details = self.error = self.usage = None
        self.__dict__.update(members)


def message(text: str) -> dict[str, Any]:
    return {"type": "message", "id": "m", "content": [{"type": "output_text", "text": text, "annotations": []}]}


def test_a_message_without_deltas_is_taken_from_the_end() -> None:
    bridge = Bridge({}, "hidden")
    out = bridge.raw(Said("response.completed", response=Whole(message("All at once."))))
    assert out == [Start("", ""), BlockStart(0, Text("")), Part("All at once."), BlockStop()]
    assert bridge.stop == "stop"
    assert bridge.finish("stop", Tokens(1, 1)) == [Finish("stop", Tokens(1, 1))]


def test_a_call_that_begins_again_closes_what_was_open() -> None:
    bridge = Bridge({}, "hidden")
    out = bridge.raw(Said("response.created"))
    out += bridge.raw(Said("response.output_text.delta", delta="Half", output_index=0, content_index=0, item_id="m"))
    out += bridge.raw(Said("response.created"))
    out += bridge.raw(Said("response.completed", response=Whole(message("Whole."))))
    out += bridge.finish("stop", Tokens())
    found = gathered(out, "", "m")
    assert [block.text for block in found.blocks if isinstance(block, Text)] == ["Half", "\n\nWhole."]


def test_a_failed_call_is_told_to_whoever_asks() -> None:
    bridge = Bridge({}, "hidden")
    bridge.raw(Said("response.failed", response=Whole(status="failed", error={"code": "x", "message": "No more."})))
    assert bridge.fault is not None
    assert bridge.fault.message == "No more."
    assert bridge.stop is None


def test_words_that_begin_with_a_space_need_no_break() -> None:
    bridge = Bridge({}, "hidden")
    out = bridge.raw(Said("response.completed", response=Whole(message("One."))))
    out += bridge.raw(Said("response.completed", response=Whole(message("\nTwo."))))
    out += bridge.finish("stop", Tokens())
    assert [block.text for block in gathered(out, "", "m").blocks if isinstance(block, Text)] == ["One.", "\nTwo."]


@pytest.mark.parametrize("form", ["chat", "messages", "responses"])
async def test_messages_of_one_turn_are_apart(form: Form) -> None:
    model = ScriptedModel([[assistant_message("First."), assistant_message("Then."), assistant_message(" Last.")]])
    answer = await Served(Agent(name="helper", model=model)).answer("Hello", form)
    assert words_of(answer, form) == "First.\n\nThen. Last."


def test_parts_of_one_message_are_not_torn_apart() -> None:
    bridge = Bridge({}, "hidden")
    begun = ResponseOutputMessage(id="m", type="message", role="assistant", status="in_progress", content=[])
    parts: list[dict[str, Any]] = [{"type": "output_text", "text": text, "annotations": []} for text in ("Gra", "ss.")]
    out = bridge.raw(Said("response.output_item.added", output_index=0, item=begun))
    for index, part in enumerate(parts):
        told = {"output_index": 0, "content_index": index, "item_id": "m"}
        out += bridge.raw(Said("response.output_text.delta", delta=part["text"], **told))
    out += bridge.raw(Said("response.completed", response=Whole({**message(""), "content": parts})))
    out += bridge.finish("stop", Tokens())
    assert [block.text for block in gathered(out, "", "m").blocks if isinstance(block, Text)] == ["Gra", "ss."]


def test_a_callers_call_is_named_as_the_caller_names_it() -> None:
    bridge = Bridge({"mail_2": "mail"}, "visible")
    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "mail_2", "arguments": "{}"}
    out = bridge.raw(Said("response.completed", response=Whole(call)))
    out += bridge.finish("tool", Tokens())
    assert gathered(out, "a", "m") == Answer("a", "m", [ToolUse("c", "mail", "{}")], "tool", Tokens())
    assert bridge.calls == 1


def test_notes_are_short_and_never_within_the_models_words() -> None:
    bridge = Bridge({}, "annotated")
    assert bridge.result("c", "too early") == []
    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "look", "arguments": '{"q":"%s"}' % ("x" * 999)}
    out = bridge.raw(Said("response.completed", response=Whole(call)))
    bridge.raw(Said("response.output_text.delta", delta="Hm", output_index=0, content_index=0, item_id="m"))
    assert bridge.result("c", "late") == []
    note = [*out, Finish("stop", Tokens())]
    (thought,) = gathered(note, "", "").blocks
    assert isinstance(thought, Thinking)
    assert thought.text.startswith('Calls look: {"q":"xxx')
    assert len(thought.text) < 350


def test_usage_that_nobody_tells_stays_unknown() -> None:
    assert added(Tokens(), Tokens()) == Tokens(-1, -1)
    assert added(Tokens(), Tokens(3, 4, 1, 1, 2)) == Tokens(3, 4, 1, 1, 2)


def test_events_without_an_end_are_no_answer() -> None:
    with pytest.raises(ValueError, match="no end"):
        gathered([Start("", "")], "", "")
