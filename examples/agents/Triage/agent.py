"""Agents that hand over: a first one reads the question, and one that knows the subject answers.

    agw agents run triage "I was billed twice"

Runs offline; EXAMPLE_MODEL=fast takes a model of the gateway.
"""

import os

from agents import Agent

from agw_proxy.sdk.function_model import Answer, FunctionModel, Turn

MODEL = os.environ.get("EXAMPLE_MODEL")


def sorts(turn: Turn) -> Answer:
    """Hand over by what is asked for."""
    about_money = any(word in turn.said.lower() for word in ("bill", "invoice", "paid", "refund"))
    return turn.hand_to("Billing" if about_money else "Support")


billing = Agent(
    name="Billing",
    handoff_description="Invoices, payments, refunds.",
    instructions="You answer questions about money. Be exact.",
    model=MODEL or FunctionModel(lambda turn: f'Billing here. About "{turn.said}": it will be on your next invoice.'),
)
support = Agent(
    name="Support",
    handoff_description="Everything that does not work.",
    instructions="You help with what does not work. Ask for what you need.",
    model=MODEL or FunctionModel(lambda turn: f'Support here. About "{turn.said}": have you tried it again?'),
)
agent = Agent(
    name="Triage",
    instructions="Hand over to who knows. Answer nothing yourself.",
    model=MODEL or FunctionModel(sorts),
    handoffs=[billing, support],
)
