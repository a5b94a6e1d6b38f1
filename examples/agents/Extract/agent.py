"""Structured output: whatever is asked, the answer is JSON of one shape.

    agw agents run extract "Lunch with Ann and Bo on Friday"

Runs offline; EXAMPLE_MODEL=fast takes a model of the gateway.
"""

import os
import re

from agents import Agent
from pydantic import BaseModel

from agw_proxy.sdk.function_model import Answer, FunctionModel, Turn

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Appointment(BaseModel):
    """What is to be found in a text."""

    title: str
    day: str | None
    people: list[str]


def reads(turn: Turn) -> Answer:
    """Days are days, and other capitals are people."""
    words = re.findall(r"\b[A-Z][a-z]+\b", turn.said)
    return Appointment(
        title=turn.said.split(" ")[0],
        day=next((word for word in words if word in DAYS), None),
        people=[word for word in words[1:] if word not in DAYS],
    )


agent = Agent(
    name="Extract",
    instructions="Find the appointment in the text.",
    model=os.environ.get("EXAMPLE_MODEL") or FunctionModel(reads),
    output_type=Appointment,
)
