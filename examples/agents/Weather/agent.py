"""An agent with a tool: asked "What is the weather in Oslo?", it looks there and says so.

    agw agents run weather "What is the weather in Oslo?"

It runs offline, by a function that plays the model. EXAMPLE_MODEL=fast (any model of the gateway) takes a real one.
"""

import os
import re

from agents import Agent, function_tool

from agw_proxy.sdk.function_model import Answer, FunctionModel, Turn

SKIES = {"oslo": "snow, -4 degrees", "lisbon": "sun, 19 degrees", "berlin": "rain, 7 degrees"}


@function_tool
def weather(city: str) -> str:
    """Tell the weather of a city right now."""
    return SKIES.get(city.lower(), "fog, 11 degrees")


def plays(turn: Turn) -> Answer:
    """What a model would do: ask the tool about each city, then tell what it gave."""
    cities = re.findall(r"\b(?:in|and|for) ([A-Z][a-z]+)", turn.said)
    if not cities:
        return "Which city?"
    if turn.results:
        return " ".join(f"{city}: {sky}." for city, sky in zip(cities, turn.results, strict=False))
    return [turn.use("weather", city=city) for city in cities]


agent = Agent(
    name="Weather",
    handoff_description="Tells the weather of cities.",
    instructions="Tell the weather of the cities you are asked about. Use your tool; never guess.",
    model=os.environ.get("EXAMPLE_MODEL") or FunctionModel(plays),
    tools=[weather],
)
