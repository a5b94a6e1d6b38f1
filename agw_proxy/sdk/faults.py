"""How a run has failed -> the gateway's errors. An author's exceptions are told by their types only: their words may be secrets."""

from collections.abc import Iterator

import openai
from agents.exceptions import (
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    ModelBehaviorError,
    ModelTimeoutError,
    OutputGuardrailTripwireTriggered,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
)

from agw_proxy.dialects.base import Fault
from agw_proxy.errors import (
    AgentCallFailed,
    AgentCallLimited,
    AgentError,
    AgentFailed,
    AgentSpent,
    AgentTimeout,
    CallerError,
    GatewayError,
    GuardrailTripped,
    PolicyError,
)
from agw_proxy.sdk.entry import Unconnected

MAX_CAUSES = 16
"""Links of a chain of exceptions that are looked at."""
WORDS = 2000
"""Characters of a model's error that are passed on."""
TRIPWIRES = (
    InputGuardrailTripwireTriggered,
    OutputGuardrailTripwireTriggered,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
)


class TokensSpent(Exception):
    """The run has used as many tokens as it may."""


def error_of(failure: BaseException, fault: Fault | None) -> GatewayError:
    """The error for a run that ended so. ``fault``: what its last model call said of itself."""
    for each in _chain(failure):
        if isinstance(each, PolicyError | CallerError | AgentError):
            return each
        if isinstance(each, GatewayError):
            return _of_call(each.status, each.message, each.retry_after_ms)
        if isinstance(each, openai.APIStatusError):
            return _of_status(each)
        if isinstance(each, Unconnected):
            return AgentCallFailed("An MCP server of the agent's cannot be reached. The gateway's log has more.")
        if isinstance(each, TRIPWIRES):
            return GuardrailTripped(f"The agent's guardrail '{_guardrail(each)}' has stopped this.")
    if isinstance(failure, MaxTurnsExceeded | TokensSpent):
        return AgentSpent(f"The agent has come to its bound before it had an answer: {failure}.")
    if isinstance(failure, ModelTimeoutError | openai.APITimeoutError):
        return AgentTimeout("A model call of the agent's took too long.")
    if isinstance(failure, openai.APIConnectionError):
        return AgentCallFailed("The agent's model could not be reached.")
    if fault is not None:
        return _of_call(fault.status, fault.message, None)
    if isinstance(failure, openai.APIError):
        return AgentCallFailed(f"The agent's model call failed: {failure.message[:WORDS]}")
    if isinstance(failure, ModelBehaviorError):
        return AgentFailed("The agent's model has answered what makes no sense to the agent.")
    return AgentFailed(f"The agent failed: {type(failure).__name__}. The gateway's log has more, by the request's id.")


def _chain(failure: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = failure
    for _ in range(MAX_CAUSES):
        if each is None:
            return
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


def _of_status(error: openai.APIStatusError) -> GatewayError:
    """A client's error knows the status, and what the answer's body said. A 401 speaks of a key that no caller has given."""
    if error.status_code == 401:
        return AgentCallFailed("The agent's model call was refused for its key (401).")
    body = error.body
    words = body.get("message") if isinstance(body, dict) else None
    wait = error.response.headers.get("retry-after-ms", "")
    return _of_call(error.status_code, words if isinstance(words, str) else "", int(wait) if wait.isdigit() else None)


def _of_call(status: int, words: str, wait: int | None) -> GatewayError:
    told = f"A model call of the agent's failed ({status or 'in its stream'}): {words[:WORDS]}"
    if status == 429:
        return AgentCallLimited(told, retry_after_ms=wait)
    return AgentCallFailed(told, status=status if 400 <= status <= 599 else 502, retry_after_ms=wait)


def _guardrail(failure: BaseException) -> str:
    result = getattr(failure, "guardrail_result", None)
    guardrail = result.guardrail if result is not None else getattr(failure, "guardrail", None)
    return str(guardrail.get_name()) if guardrail is not None else "unnamed"


def is_bound(failure: BaseException) -> bool:
    """The run has come to its bound: what it has said is an answer, cut."""
    return isinstance(failure, MaxTurnsExceeded | TokensSpent)
