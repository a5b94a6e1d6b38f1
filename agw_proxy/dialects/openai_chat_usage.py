"""Usage and the reasons why an answer ends, as Chat has them, both ways; for whole answers and for streams."""

from typing import Any

from agw_proxy.dialects.base import Malformed, Refusal, Stop, Tokens, ToolUse, Tree
from agw_proxy.dialects.openai_chat_fields import count

STOPS: dict[str, Stop] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",  # Mistral
    "tool_calls": "tool",
    "function_call": "tool",
    "content_filter": "refusal",
}
"""What is not here means the answer's own end (``eos``, ``end_turn`` ...)."""
GIVEN_UP = frozenset({"error", "abort", "insufficient_system_resource"})
"""OpenRouter, vLLM and DeepSeek end a broken answer so: it must not pass for a whole one."""
REASONS: dict[Stop, str] = {
    "stop": "stop",
    "length": "length",
    "tool": "tool_calls",
    "refusal": "content_filter",
    "sequence": "stop",
    "pause": "stop",
}


def read_stop(choice: Tree, *, called: bool, refused: bool) -> tuple[Stop, str | None]:
    """Why it ended, and the stop sequence where the server says it (vLLM's ``stop_reason``).

    ``called``, ``refused``: whether there are tool calls or a refusal; many servers say ``stop`` of these too, and a client
    that is told of calls where there are none waits for ever. Raises Malformed for an answer that the server has given up.
    """
    reason = choice.get("finish_reason")
    if isinstance(reason, str) and reason in GIVEN_UP:
        raise Malformed(f"The upstream has given its answer up: {reason}.", "choices[0].finish_reason")
    stop = STOPS.get(reason, "stop") if isinstance(reason, str) else "stop"
    if stop not in {"stop", "tool"}:
        return stop, None
    if called:
        return "tool", None
    if refused:
        return "refusal", None
    sequence = choice.get("stop_reason")
    return ("sequence", sequence) if isinstance(sequence, str) and sequence else ("stop", None)


def write_stop(stop: Stop, *, refused: bool, functions: bool = False) -> str:
    """``refused``: the words of a refusal have been written, and an answer with these ends by itself.

    ``functions``: calls are told in the first form, see ``Request``.
    """
    if functions and stop == "tool":
        return "function_call"
    return "stop" if stop == "refusal" and refused else REASONS[stop]


def read_tokens(usage: Any) -> Tokens:
    """The object ``usage`` of any server. Unknown counts are -1."""
    if not isinstance(usage, dict):
        return Tokens()
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt, int) and not isinstance(completion, int):
        return Tokens()
    before, after = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    before, after = before if isinstance(before, dict) else {}, after if isinstance(after, dict) else {}
    reasoning = count(after.get("reasoning_tokens"))
    output = count(completion)
    # Some (xAI, Google) count thoughts beside the answer's tokens, and only the total tells, or that there are more of them.
    total = count(usage.get("total_tokens"))
    if reasoning and (total == count(prompt) + output + reasoning or (reasoning > output and not total)):
        output += reasoning
    return Tokens(
        input=count(prompt),
        output=output,
        cached=count(before.get("cached_tokens"))
        or count(usage.get("prompt_cache_hit_tokens"))  # DeepSeek
        or count(usage.get("cached_tokens")),  # Moonshot
        written=count(before.get("cache_write_tokens")),
        reasoning=min(reasoning, output),
    )


def write_tokens(tokens: Tokens) -> Tree | None:
    """None where nothing is known."""
    if tokens.input < 0 and tokens.output < 0:
        return None
    given, made = tokens.given, max(tokens.output, 0)
    details = {"cached_tokens": tokens.cached, "audio_tokens": 0}
    if tokens.written:
        details["cache_write_tokens"] = tokens.written
    return {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_tokens_details": details,
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def ended_by(blocks: list[Any]) -> tuple[bool, bool]:
    """(whether tools are called, whether it is refused) in a whole answer."""
    called = any(isinstance(block, ToolUse) for block in blocks)
    return called, any(isinstance(block, Refusal) for block in blocks)
