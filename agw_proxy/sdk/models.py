"""The models of agents: names of the gateway's route table, asked through the gateway itself.

``model="fast"``, ``model="openai/gpt-4o"`` and ``model="default/otheragent"`` mean what they mean to any client of the
gateway, under the key of the run's caller. Models with a client of their own, which an author gives as an object, never
come here.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx2
from agents import Model, ModelProvider, ModelResponse, ModelSettings
from agents.items import TResponseStreamEvent
from agents.models import get_default_model, get_default_model_settings
from openai import AsyncOpenAI
from openai.types.responses import (
    ParsedResponse,
    ParsedResponseOutputMessage,
    ParsedResponseOutputText,
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseUsage,
)
from pydantic import BaseModel

from agw_proxy.sdk.entry import ModelCalls
from agw_proxy.sdk.transport import BASE_URL, Transport
from agw_proxy.sdk.whole import Noted, NotingClient

AT_SETTINGS = 2  # among the arguments of ``Model.get_response`` and ``stream_response``
NO_KEY = "none"  # the SDK wants one, and the way it goes nobody reads it


RECORDS: tuple[type[BaseModel], ...] = (
    ParsedResponse, ParsedResponseOutputMessage, ParsedResponseOutputText, Response, ResponseCompletedEvent,
    ResponseFunctionToolCall, ResponseOutputMessage, ResponseUsage,
)  # fmt: skip
"""Of the library's, those that every run makes."""


def client(calls: ModelCalls) -> AsyncOpenAI:
    """A plain OpenAI client whose requests are the run's under way. It tries nothing twice: the gateway does.

    Nothing of the environment has a say in it.
    """
    http = httpx2.AsyncClient(transport=Transport(calls), timeout=None, trust_env=False)
    return NotingClient(
        api_key=NO_KEY, base_url=BASE_URL, organization="", project="", max_retries=0, timeout=None, http_client=http
    )


def provider(calls: ModelCalls, default: Callable[[], str | None] = lambda: None) -> ModelProvider:
    """For ``RunConfig(model_provider=...)``.

    ``default``: the model of agents that name none, asked for at each of their calls; None: the SDK's own default.
    Takes a fifth of a second the first time, on any thread: the library imports and builds what it would put off until
    the first run, which would do so on the loop.
    """
    asked = client(calls)
    _ = asked.responses
    for record in RECORDS:
        record.model_rebuild()
    return _Models(asked, default)


class _Models(ModelProvider):
    """A model a name: which names there are is the route table's to say, when it is asked."""

    def __init__(self, asked: AsyncOpenAI, default: Callable[[], str | None]) -> None:
        self._client = asked
        self._default = default

    def get_model(self, model_name: str | None) -> Model:
        """See ``ModelProvider``."""
        if model_name is not None:
            return Noted(model_name, self._client)
        default = self._default()
        if default is None:
            return Noted(get_default_model(), self._client, model_is_explicit=False)
        return _Default(default, self._client)

    async def aclose(self) -> None:
        """See ``ModelProvider``."""
        await self._client.close()


class _Default(Noted):
    """The configured model in place of the SDK's own default.

    The SDK gives an agent without a model the settings (reasoning, verbosity) that its own default wants. They are kept
    from another model, which may know nothing of the kind; what an author has set to something else stays.
    """

    async def get_response(self, *args: Any, **members: Any) -> ModelResponse:
        """See ``Model``."""
        return await super().get_response(*_adapted(args, members), **members)

    def stream_response(self, *args: Any, **members: Any) -> AsyncIterator[TResponseStreamEvent]:
        """See ``Model``."""
        return super().stream_response(*_adapted(args, members), **members)


def _adapted(args: Sequence[Any], members: dict[str, Any]) -> list[Any]:
    """The arguments without settings that nobody has chosen; ``members`` is changed in place."""
    given = list(args)
    if "model_settings" in members:
        members["model_settings"] = _chosen(members["model_settings"])
    elif len(given) > AT_SETTINGS:
        given[AT_SETTINGS] = _chosen(given[AT_SETTINGS])
    return given


def _chosen(settings: ModelSettings) -> ModelSettings:
    implied = get_default_model_settings()
    return replace(
        settings,
        reasoning=None if settings.reasoning == implied.reasoning else settings.reasoning,
        verbosity=None if settings.verbosity == implied.verbosity else settings.verbosity,
    )
