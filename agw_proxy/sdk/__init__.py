"""Agents of the OpenAI Agents SDK, served as models. Only these modules import the SDK, and only where there are agents.

*Discovery* finds candidates on disk, *loading* and *declared* make agents of them, the *catalog* holds those that are
served as *entries*, with their *mcp_servers* connected. Of a call, *requests* is what the caller asks, *equipped* the agent
with what the caller brings, the *runner* one run of it, and the *bridge* its events in the hub's words, which any dialect
can write. *Models* and *transport* take the run's own model calls back through the gateway, *gateway_tools* its calls of the
gateway's tools.

For authors of agents: ``from agw_proxy.sdk import gateway_tool``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agw_proxy.sdk.gateway_tools import gateway_tool

__all__ = ["gateway_tool"]

PLACES = {"gateway_tool": "gateway_tools"}
"""What authors import from here -> the module that it is in, imported when it is asked for: some bring the SDK."""


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
