"""Runs whose caller wants the answer in one piece: their models are asked for one piece, too, which costs far less than a stream.

What a stream's events tell, the SDK's hooks tell here. Of an answer that is not whole the SDK keeps nothing but an exception;
the gateway's own models note on it what there was (``Noted``), and messages that are not whole say so themselves.
"""

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from functools import cached_property
from typing import Any, Protocol

from agents import Agent, ModelResponse, OpenAIResponsesModel, RunContextWrapper, Tool, Usage
from agents.exceptions import ModelBehaviorError
from openai import AsyncOpenAI
from openai.resources.responses import AsyncResponses
from openai.types.responses import Response

from agw_proxy.dialects.base import Tree
from agw_proxy.sdk.entry import Run
from agw_proxy.sdk.equipped import known
from agw_proxy.sdk.hooks import Say, Watch, call_of
from agw_proxy.sdk.results import dumped, member

TELLING = frozenset({"agents.models.openai_responses", "agents.extensions.models.any_llm_model"})
"""Where the SDK has its classes that speak Responses."""
NOTED = "agw_response"
_FETCHED: ContextVar[list[Response] | None] = ContextVar("agw_fetched", default=None)


class _Responses(AsyncResponses):
    async def create(self, *args: Any, **members: Any) -> Any:
        made: Any = await super().create(*args, **members)
        fetched = _FETCHED.get()
        if fetched is not None and isinstance(made, Response):
            fetched.append(made)
        return made


class NotingClient(AsyncOpenAI):
    """A client whose answers ``Noted`` models see before the SDK judges them."""

    @cached_property
    def responses(self) -> AsyncResponses:
        """See the library."""
        return _Responses(self)


class Noted(OpenAIResponsesModel):
    """With a NotingClient: the exception of an answer that is not whole has the answer with it (``noted_of``)."""

    async def get_response(self, *args: Any, **members: Any) -> ModelResponse:
        """See ``Model``."""
        fetched: list[Response] = []
        before = _FETCHED.set(fetched)
        try:
            return await super().get_response(*args, **members)
        except ModelBehaviorError as failure:
            if fetched:
                setattr(failure, NOTED, fetched[-1])
            raise
        finally:
            _FETCHED.reset(before)


def noted_of(failure: Exception) -> Response | None:
    """The model's answer that was taken for a failure, where the gateway knows it."""
    found = getattr(failure, NOTED, None)
    return found if isinstance(found, Response) else None


class Hears(Protocol):
    """Who makes an answer of what a run's hooks tell."""

    def asked(self) -> None:
        """A model call begins."""
        ...

    def heard(self, agent: Agent[Any], response: ModelResponse, usage: Usage) -> None:
        """A model call of the agent's has ended. ``usage``: of the run so far. What it raises ends the run."""
        ...

    def gave(self, call_id: str, output: object) -> None:
        """A tool has given this."""
        ...

    def handed(self, source: Agent[Any], target: Agent[Any]) -> None:
        """Another agent has the conversation now."""
        ...


class Listening(Watch):
    """As ``Watch``, of a run that has no events."""

    def __init__(self, run: Run, say: Say, hears: Hears) -> None:
        super().__init__(run, say)
        self._hears = hears

    async def on_llm_start(self, *_: Any, **__: Any) -> None:
        """See the SDK."""
        self._hears.asked()

    async def on_llm_end(self, context: RunContextWrapper[Any], agent: Agent[Any], response: ModelResponse) -> None:
        """See the SDK."""
        self._hears.heard(agent, response, context.usage)

    async def on_tool_end(self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool, result: object) -> None:
        """See the SDK."""
        await super().on_tool_end(context, agent, tool, result)
        self._hears.gave(call_of(context, tool), result)

    async def on_handoff(self, context: RunContextWrapper[Any], from_agent: Agent[Any], to_agent: Agent[Any]) -> None:
        """See the SDK."""
        await super().on_handoff(context, from_agent, to_agent)
        self._hears.handed(from_agent, to_agent)


def tells_all(agent: Agent[Any]) -> bool:
    """Nothing of it, or of those it may hand over to, tells more in a stream than in one piece.

    Classes of the SDK's that speak Responses do, where an author has made them: only events say what an answer held that was
    cut. So do guardrails beside the first model call: that they have passed only a stream says before the run's end.
    """
    if any(guardrail.run_in_parallel for guardrail in agent.input_guardrails):
        return False
    models = (each.model for each in known(agent))
    return not any(base.__module__ in TELLING for model in models for base in type(model).__mro__)


def is_cut(made: ModelResponse) -> bool:
    """A message of it says that it is not whole."""
    return any(member(item, "status") == "incomplete" for item in made.output)


def end_of(made: ModelResponse) -> Tree:
    """How a model's answer has ended, as far as that is known, with what was used; as a Response without its output."""
    usage = made.usage
    end: Tree = {"status": "completed"}
    if is_cut(made):
        end = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    if usage.input_tokens or usage.output_tokens:
        end["usage"] = {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "input_tokens_details": dumped(usage.input_tokens_details),
            "output_tokens_details": dumped(usage.output_tokens_details),
        }
    return end


def events_of(output: Sequence[Any], end: Tree) -> Iterator[Tree]:
    """The events of a stream that gives each item, and the end, in one piece."""
    for at, item in enumerate(output):
        tree = dumped(item)
        for kind in ("added", "done"):
            yield {"type": f"response.output_item.{kind}", "output_index": at, "item": tree}
    yield {"type": f"response.{end['status']}", "response": end}
