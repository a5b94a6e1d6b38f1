"""Runs that an agent's own code begins: ``Runner.run(other, ...)`` in a tool, a guardrail or a hook.

The SDK gives such a run models of its vendor's, which need a key that no agent here has. Within a run of the gateway's they
are the gateway's: names mean what they mean in the agent itself, on the same account. What an author has chosen is left
alone: a provider, a client or a key of his own.
"""

from dataclasses import replace
from typing import Any

from agents import Agent, ModelProvider, MultiProvider, RunConfig, RunResult, RunResultStreaming
from agents.models import _openai_shared
from agents.run import AgentRunner, set_default_agent_runner

from agw_proxy.sdk.entry import CURRENT

CHOSEN = ("_client", "_stored_api_key", "_stored_base_url", "_stored_organization", "_stored_project")
"""Of the vendor's provider: set where an author has."""


class Within(AgentRunner):
    """The SDK's runner, for all of a process. Outside of runs of the gateway's it is the SDK's own."""

    def __init__(self, provider: ModelProvider) -> None:
        """``provider``: of the models that agents name."""
        super().__init__()
        self._provider = provider

    def install(self) -> None:
        """From now on ``Runner.run`` and its like ask it."""
        set_default_agent_runner(self)

    async def run(self, starting_agent: Agent[Any], input: Any, **kwargs: Any) -> RunResult:  # noqa: A002  the SDK's
        """See the SDK; ``run_sync`` comes here, too."""
        return await super().run(starting_agent, input, **self._with_models(kwargs))

    def run_streamed(self, starting_agent: Agent[Any], input: Any, **kwargs: Any) -> RunResultStreaming:  # noqa: A002  likewise
        """See the SDK."""
        return super().run_streamed(starting_agent, input, **self._with_models(kwargs))

    def _with_models(self, named: dict[str, Any]) -> Any:
        config = named.get("run_config")
        if CURRENT.get() is None or _has_own_defaults():
            return named
        if config is None or isinstance(config, dict):
            return {**named, "run_config": {"model_provider": self._provider, **(config or {})}}
        if isinstance(config, RunConfig) and _is_vendors(config.model_provider):
            return {**named, "run_config": replace(config, model_provider=self._provider)}
        return named


def _has_own_defaults() -> bool:
    """An author has said which client all of the SDK is to use (``set_default_openai_client``, ``set_default_openai_key``)."""
    return _openai_shared.get_default_openai_client() is not None or _openai_shared.get_default_openai_key() is not None


def _is_vendors(provider: ModelProvider) -> bool:
    """It is what the SDK puts where nobody has chosen one."""
    if type(provider) is not MultiProvider or provider.provider_map is not None:
        return False
    return all(getattr(provider.openai_provider, name, None) is None for name in CHOSEN)
