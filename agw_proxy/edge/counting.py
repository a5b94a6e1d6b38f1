"""Answers how many tokens a prompt has where the model's upstream cannot be asked: by the estimate that limits go by."""

import msgspec
import orjson

from agw_proxy._hot.route import Target
from agw_proxy._hot.tokens import count
from agw_proxy.config.values import Form
from agw_proxy.edge.state import State
from agw_proxy.types import Routed

COUNTING = ":countTokens"


def counted(state: State, target: Target, form: Form, body: bytes) -> bytes:
    """The answer in the caller's form.

    Anthropic API reference, "Count tokens in a Message"; OpenAI's "Get input token counts"; Gemini's "countTokens".
    """
    learner = state.learners.of(state.services[target.upstream].upstream.name, target.model)
    tokens = learner.prompt(count(body))
    if form == "messages":
        return orjson.dumps({"input_tokens": tokens})
    if form == "gemini":
        return orjson.dumps({"totalTokens": tokens})
    return orjson.dumps({"object": "response.input_tokens", "input_tokens": tokens})


def able(state: State, routed: Routed, form: Form) -> Routed | None:
    """The plan without the targets that cannot be asked in this form, which must not be asked for a generation instead.

    None where the first one cannot: its count is an estimate.
    """
    plan = tuple(target for target in routed.plan if form in state.services[target.upstream].speaks)
    return msgspec.structs.replace(routed, plan=plan) if plan[:1] == routed.plan[:1] else None
