"""The model that is a function: what it is told of a turn, and what the SDK makes of its answers."""

from typing import Any

import pytest
from agents import Agent, Runner, function_tool
from pydantic import BaseModel

from agw_proxy.sdk.function_model import Answer, FunctionModel, Turn


@function_tool
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


class Sum(BaseModel):
    value: int


def answers(turn: Turn) -> Answer:
    return f"It is {turn.results[0]}." if turn.results else [turn.use("double", number=int(turn.said))]


async def test_tools_are_called_and_what_they_gave_is_told() -> None:
    agent = Agent(name="Counts", model=FunctionModel(answers), tools=[double])
    assert (await Runner.run(agent, "21")).final_output == "It is 42."
    assert (await Runner.run(agent, "4")).final_output == "It is 8."


async def test_a_turn_tells_what_was_said_and_what_there_is() -> None:
    seen: list[Turn] = []

    async def look(turn: Turn) -> Answer:
        seen.append(turn)
        return "ok"

    other = Agent(name="Other", model=FunctionModel(lambda turn: f"other: {turn.said}"))
    agent = Agent(name="One", instructions="Look.", model=FunctionModel(look), tools=[double], handoffs=[other])
    said: Any = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": [{"type": "input_text", "text": "second"}]},
    ]
    await Runner.run(agent, said)
    (turn,) = seen
    assert (turn.before, turn.said, turn.results) == (["first"], "second", [])
    assert (turn.instructions, turn.tools) == ("Look.", ["double"])
    with pytest.raises(ValueError, match=r"expected an agent to hand over to \(Other\), got 'Nobody'"):
        turn.hand_to("Nobody")


async def test_it_hands_over() -> None:
    other = Agent(name="Other", model=FunctionModel(lambda turn: f"other: {turn.said} {turn.results}"))
    agent = Agent(name="One", model=FunctionModel(lambda turn: turn.hand_to("Other")), handoffs=[other])
    result = await Runner.run(agent, "hello")
    assert result.last_agent.name == "Other"
    assert result.final_output == "other: hello []", "a handoff is no tool, and has no result"


async def test_structured_output_and_usage() -> None:
    agent = Agent(name="Sums", model=FunctionModel(lambda _: Sum(value=3)), output_type=Sum)
    result = await Runner.run(agent, "1 and 2")
    assert result.final_output == Sum(value=3)
    assert result.context_wrapper.usage.total_tokens > 2
    plain = Agent(name="Tree", model=FunctionModel(lambda _: {"value": 4}), output_type=Sum)
    assert (await Runner.run(plain, "x")).final_output == Sum(value=4)


async def test_what_the_function_raises_is_the_models_error() -> None:
    def fails(turn: Turn) -> Answer:
        raise ConnectionError(turn.said)

    with pytest.raises(TypeError, match="got None"):
        await Runner.run(Agent(name="Forgets", model=FunctionModel(lambda _: None)), "hello")  # type: ignore[arg-type,return-value]
    with pytest.raises(ConnectionError, match="hello"):
        await Runner.run(Agent(name="Fails", model=FunctionModel(fails)), "hello")
