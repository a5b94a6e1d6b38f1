"""The agents as the gateway sees them."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from agw_proxy.api.admin.paging import page, page_schema, parameters
from agw_proxy.api.endpoint import Endpoint, Response, Schema
from agw_proxy.errors import InvalidParameter, ReloadFailed
from agw_proxy.states import AgentState
from agw_proxy.types import Answer, Asked, Control

_SORTS: Mapping[str, Callable[[AgentState], Any]] = {
    "id": lambda state: state.id,
    "status": lambda state: state.status,
}
_TEXT: Schema = {"type": ["string", "null"]}
_AGENT: Schema = {
    "type": "object",
    "required": list(AgentState.__struct_fields__),
    "properties": {
        "id": {"type": "string", "description": "What it is asked for as; of one that is blocked maybe its place."},
        "status": {
            "enum": ["ready", "stale", "failed", "blocked"],
            "description": "`stale`: its newest version failed, and the one before goes on; `blocked`: it was not loaded.",
        },
        "source": {"type": "string", "description": "Its file."},
        "version": {**_TEXT, "description": "Of what is served: a short hash of its files."},
        "description": {"type": "string"},
        "declared": {"type": "boolean", "description": "In an `agents.yaml`."},
        "model": {
            **_TEXT,
            "description": "The name of the model that it asks; null: the default, or its own client's.",
        },
        "tools": {"type": "array", "items": {"type": "string"}},
        "handoffs": {"type": "array", "items": {"type": "string"}},
        "loaded_at": _TEXT,
        "running": {
            "type": "integer",
            "description": "Runs of this version: in the worker that answers, or in all that only run agents.",
        },
        "bounds": {
            "type": "object",
            "additionalProperties": {"type": "number"},
            "description": "What it may use; `cost` in micro-dollars.",
        },
        "error": {**_TEXT, "description": "Why it, or its newest version, is not served."},
        "error_at": _TEXT,
        "waits": {
            "type": "boolean",
            "description": "For an MCP server that it needs: it is tried again without being asked for.",
        },
    },
}


async def list_agents(control: Control, asked: Asked) -> Answer:
    """Answer with a page of the agents, in order of their ids, what was left out last. Raises InvalidParameter."""
    return Answer(200, msgspec.json.encode(page(await control.agents(), asked.query, _identity, _SORTS)))


async def refresh(control: Control, _: Asked) -> Answer:
    """Read the configuration and the folders again. Raises ReloadFailed."""
    told = dict(await control.reload())
    agents = await control.agents()
    counts = {
        status: sum(state.status == status for state in agents) for status in ("ready", "stale", "failed", "blocked")
    }
    errors = {state.id: state.error for state in agents if state.error is not None}
    return Answer(200, msgspec.json.encode({**told, "agents": counts, "agent_errors": errors}))


def _identity(state: AgentState) -> str:
    """Two may be blocked that would have one id."""
    return state.id if state.status != "blocked" else f"{state.id} {state.source}"


ENDPOINTS = (
    Endpoint(
        name="agents",
        method="GET",
        path="/agents",
        access="admin",
        handler=list_agents,
        summary="List the agents",
        description="All that were found, also those that could not be loaded, with the reason.",
        tag="Operation",
        query=parameters(tuple(_SORTS)),
        responses={200: Response("A page of agents.", {"application/json": page_schema(_AGENT)})},
        errors=(InvalidParameter,),
    ),
    Endpoint(
        name="agents_refresh",
        method="POST",
        path="/agents/refresh",
        access="admin",
        handler=refresh,
        summary="Read the agents anew",
        description="Takes up the configuration and the agents' files as they are now. Runs under way end in the version "
        "that they have begun in; where a new version cannot be loaded, the one before goes on.",
        tag="Operation",
        responses={200: Response("What was done.", {"application/json": {"type": "object"}})},
        errors=(ReloadFailed,),
    ),
)
