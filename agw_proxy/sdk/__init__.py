"""Agents of the OpenAI Agents SDK, served as models. Only these modules import the SDK, and only where there are agents.

*Discovery* finds candidates on disk, *loading* and *declared* make agents of them, whose *parts* are looked at first; the
*catalog* holds those that are served as *entries*, with their *mcp_servers* connected. Of a call, *requests* is what the caller asks, *equipped* the agent
with what the caller brings, the *runner* one run of it, and the *bridge* its events in the hub's words, which any dialect
can write. *Models* and *transport* take the run's own model calls back through the gateway, *nested* those of runs that
its code begins itself, *gateway_tools* its calls of the gateway's tools; *tracing* makes spans of what the SDK tells.

For authors of agents, here by name: ``gateway_tool`` (docs/tools.md), ``FunctionModel`` (docs/agents-guide.md), and ``retry``,
``timeout``, ``rate_limit`` and ``track`` (docs/agent-helpers.md).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agw_proxy.sdk.function_model import FunctionModel as FunctionModel
    from agw_proxy.sdk.gateway_tools import gateway_tool as gateway_tool
    from agw_proxy.sdk.rates import rate_limit as rate_limit
    from agw_proxy.sdk.retries import retry as retry
    from agw_proxy.sdk.timeouts import timeout as timeout
    from agw_proxy.sdk.tracking import track as track

EXPORTS = {
    "FunctionModel": "function_model",
    "gateway_tool": "gateway_tools",
    "rate_limit": "rates",
    "retry": "retries",
    "timeout": "timeouts",
    "track": "tracking",
}
"""What authors import from here, and the module that it is in. Imported when it is asked for: some bring the SDK."""


def __getattr__(name: str) -> Any:
    if name not in EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  few processes need it

    value = globals()[name] = getattr(import_module(f"{__name__}.{EXPORTS[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *EXPORTS})
