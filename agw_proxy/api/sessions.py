"""Sessions of agents: which there are, and their end. A key has its own, an admin key those of any.

What was said in them is not told: whoever has said it knows it.
"""

import re
from collections.abc import Mapping

import msgspec

from agw_proxy.api.endpoint import Endpoint, Parameter, Response, Schema
from agw_proxy.errors import AdminOnly, InvalidParameter, KeyMissing, NotKept, StoreUnavailable
from agw_proxy.states import SessionState
from agw_proxy.types import Answer, Asked, Control

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
_NUMBER = re.compile(r"[0-9]{1,4}")
_WHOSE = Parameter(
    "key", {"type": "string"}, "Whose, by the key's name; only an admin key may name another than itself."
)
_TIME: Schema = {"type": "string", "format": "date-time"}
_SESSION: Schema = {
    "type": "object",
    "required": list(SessionState.__struct_fields__),
    "properties": {
        "id": {"type": "string", "description": "As `x-session-id` names it."},
        "agent": {"type": "string", "description": "Each agent has a session of that name of its own."},
        "created_at": _TIME,
        "used_at": _TIME,
        "expires_at": _TIME,
        "turns": {"type": "integer", "minimum": 0},
        "bytes": {"type": "integer", "minimum": 0},
    },
}
_LIST: Schema = {
    "type": "object",
    "required": ["object", "data", "has_more"],
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": _SESSION},
        "has_more": {"type": "boolean"},
        "last_id": {"type": ["string", "null"], "description": "What `after` takes."},
    },
}
_DELETED: Schema = {
    "type": "object",
    "required": ["id", "object", "deleted"],
    "properties": {"id": {"type": "string"}, "object": {"const": "session"}, "deleted": {"const": True}},
}


async def list_sessions(control: Control, asked: Asked) -> Answer:
    """Those of a key, in order of their agents. Raises AdminOnly, InvalidParameter, StoreUnavailable."""
    limit = asked.query.get("limit", str(DEFAULT_LIMIT))
    if not _NUMBER.fullmatch(limit) or not 1 <= int(limit) <= MAX_LIMIT:
        raise InvalidParameter(f"'limit' has to be 1 to {MAX_LIMIT}, and is '{limit}'.", param="limit")
    after = asked.query.get("after", "")
    if not after.isprintable():  # a database may take it for no text
        raise InvalidParameter("'after' has to be the 'last_id' of the page before.", param="after")
    agent, _, name = after.partition(" ")
    most = int(limit)
    found = await control.sessions(_whose(asked), None, (agent, name), most + 1)
    return _told(found[:most], more=len(found) > most)


async def show(control: Control, asked: Asked) -> Answer:
    """Those of one name, one for each agent. Raises AdminOnly, NotKept, StoreUnavailable."""
    name = asked.path_values["id"]
    found = await control.sessions(_whose(asked), name, ("", ""), MAX_LIMIT)
    if not found:
        raise NotKept(f"Session '{name}' not found.")
    return _told(found, more=False)


async def delete(control: Control, asked: Asked) -> Answer:
    """Those of one name, with every agent. Raises AdminOnly, NotKept, StoreUnavailable."""
    name = asked.path_values["id"]
    await control.forget_sessions(_whose(asked), name)
    return Answer(200, msgspec.json.encode({"id": name, "object": "session", "deleted": True}))


def _whose(asked: Asked) -> str:
    principal = asked.principal
    if principal is None:
        raise KeyMissing("Sessions are told to who has them.")
    key = asked.query.get("key", principal.name)
    if key != principal.name and not principal.admin:
        raise AdminOnly(f"The key '{principal.name}' is not an admin key; it has its own sessions: leave out 'key'.")
    if not key.isprintable():
        raise InvalidParameter("'key' has to be the name of a key.", param="key")
    return key


def _told(found: list[SessionState], *, more: bool) -> Answer:
    tree: Mapping[str, object] = {
        "object": "list",
        "data": found,
        "has_more": more,
        "last_id": f"{found[-1].agent} {found[-1].id}" if found else None,
    }
    return Answer(200, msgspec.json.encode(tree))


ENDPOINTS = (
    Endpoint(
        name="sessions",
        method="GET",
        path="/sessions",
        access="key",
        handler=list_sessions,
        summary="List the sessions of agents",
        description="Those of the asking key, in order of their agents and names; never what was said in them.",
        tag="Sessions",
        query=(
            _WHOSE,
            Parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                "How many at most.",
            ),
            Parameter("after", {"type": "string"}, "The `last_id` of the page before."),
        ),
        responses={200: Response("A page of sessions.", {"application/json": _LIST})},
        errors=(AdminOnly, InvalidParameter, StoreUnavailable),
    ),
    Endpoint(
        name="session",
        method="GET",
        path="/sessions/{id}",
        access="key",
        handler=show,
        summary="Show a session of agents",
        tag="Sessions",
        query=(_WHOSE,),
        responses={200: Response("One for each agent that was asked in it.", {"application/json": _LIST})},
        errors=(AdminOnly, NotKept, StoreUnavailable),
    ),
    Endpoint(
        name="session_delete",
        method="DELETE",
        path="/sessions/{id}",
        access="key",
        handler=delete,
        summary="Forget a session of agents",
        description="All that was said and done in it, with every agent. A run that is in it ends, and is not kept.",
        tag="Sessions",
        query=(_WHOSE,),
        responses={200: Response("It is gone.", {"application/json": _DELETED})},
        errors=(AdminOnly, NotKept, StoreUnavailable),
    ),
)
