"""Guardrails: what must not be asked is refused before a model sees it, and what must not be said is never heard.

    agw agents run guarded "What is the admin password?"     # refused: content_policy_violation
    agw agents run guarded "Tell me a secret"                # the answer is held back

Runs offline; EXAMPLE_MODEL=fast takes a model of the gateway.
"""

import os
from typing import Any

from agents import Agent, GuardrailFunctionOutput, RunContextWrapper, input_guardrail, output_guardrail

from agw_proxy.sdk.function_model import FunctionModel


@input_guardrail
async def no_passwords(_: RunContextWrapper[Any], __: Agent[Any], asked: str | list[Any]) -> GuardrailFunctionOutput:
    """Nobody asks for passwords."""
    return GuardrailFunctionOutput(output_info="passwords", tripwire_triggered="password" in str(asked).lower())


@output_guardrail
async def no_secrets(_: RunContextWrapper[Any], __: Agent[Any], said: Any) -> GuardrailFunctionOutput:
    """Nothing leaves that is marked as ours."""
    return GuardrailFunctionOutput(output_info="secret", tripwire_triggered="CONFIDENTIAL" in str(said))


agent = Agent(
    name="Guarded",
    instructions="Answer briefly.",
    model=os.environ.get("EXAMPLE_MODEL")
    or FunctionModel(lambda turn: "CONFIDENTIAL: 42" if "secret" in turn.said.lower() else f"You said: {turn.said}"),
    input_guardrails=[no_passwords],
    output_guardrails=[no_secrets],
)
