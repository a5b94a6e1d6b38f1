"""Runs: requests to models and agents that are answered in the background, for whoever asks again later.

A run is a Response that nobody waits for (OpenAI API reference, Responses, ``background``), under two names: ``/runs`` has
it as a run, with its state and its events, ``/v1/responses/{id}`` as the Response that it makes. Who runs them,
``edge.background`` is.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from agw_proxy.api.admin.paging import page_schema
from agw_proxy.api.endpoint import Endpoint, Parameter, Response, Schema
from agw_proxy.errors import (
    BodyTooLarge,
    InvalidJSON,
    InvalidParameter,
    MissingParameter,
    ModelForbidden,
    ModelNotFound,
    NotKept,
    Overloaded,
    RequestTimeout,
    StoreUnavailable,
)

Tree = dict[str, Any]

ACTIVE = ("queued", "in_progress")
STATUSES = (*ACTIVE, "completed", "incomplete", "failed", "cancelled")
DEFAULT_LIMIT, MAX_LIMIT = 20, 100
MAX_SEQUENCE = 2**53
LOST = {
    "code": "gateway_restarted",
    "message": "The gateway was restarted, or has ended, while this run was under way.",
}
_ID = re.compile(r"(run|resp)_(agw[0-9a-f]{40})")
_NUMBER = re.compile(r"[0-9]{1,16}")
_CODES = {"rate_limit_exceeded": "rate_limit_exceeded", "insufficient_quota": "rate_limit_exceeded"}
_ECHOED = (
    "instructions", "max_output_tokens", "max_tool_calls", "metadata", "parallel_tool_calls", "previous_response_id",
    "prompt_cache_key", "reasoning", "safety_identifier", "service_tier", "temperature", "text", "tool_choice", "tools",
    "top_logprobs", "top_p", "truncation", "user",
)  # fmt: skip
"""Members of a request that its Response repeats."""
_DEFAULTS: Tree = {"metadata": {}, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}


class Row(NamedTuple):
    """A run as it is kept. Times are seconds since 1970; ``head``: its Response, ``error``: code and message, both as JSON.

    ``last``: the number of its latest event; ``holder``: the process that runs it.
    """

    n: int
    seed: str
    owner: str
    key: str
    model: str
    status: str
    made: int
    begun: int | None
    ended: int | None
    holder: int
    last: int
    head: bytes
    error: bytes | None

    @property
    def active(self) -> bool:
        """It has not ended."""
        return self.status in ACTIVE


class RunsWanted(NamedTuple):
    """Which runs. ``after``: the seed of the one before."""

    limit: int
    ascending: bool
    after: str | None
    status: str | None
    model: str | None


def seed_of(identity: str, kind: str) -> str | None:
    """What is its own of an id made here. ``kind``: ``run`` or ``resp``."""
    found = _ID.fullmatch(identity)
    return found[2] if found is not None and found[1] == kind else None


def in_background(seed: str) -> Tree:
    """What a Response has that is made in the background, whoever writes it."""
    return {"id": f"resp_{seed}", "background": True}


def asked_for(tree: Tree, namespace: str) -> tuple[Tree, bool]:
    """The request to Responses for a body of ``POST /runs``, and whether it has to be an agent's.

    ``namespace``: of agents that are named without one. Raises InvalidParameter, MissingParameter.
    """
    made = {name: value for name, value in tree.items() if name not in {"agent", "background", "stream"}}
    agent = tree.get("agent")
    if agent is not None:
        if not isinstance(agent, str) or not agent:
            raise InvalidParameter("'agent' must be the id of an agent, such as 'default/weatheragent'.", param="agent")
        if "model" in tree:
            raise InvalidParameter("'agent' and 'model' exclude each other: both say who answers.", param="agent")
        made["model"] = agent if "/" in agent else f"{namespace}/{agent.lower()}"
    if not made.get("model"):
        raise MissingParameter("The request names neither a 'model' nor an 'agent'.", param="model")
    if tree.get("stream"):
        raise InvalidParameter("Runs are not streamed from here: read '/runs/{id}/events'.", param="stream")
    return made, agent is not None


def skeleton(asked: Tree, seed: str, now: int) -> Tree:
    """The Response of a run that has not begun: what it repeats of the request."""
    echoed = {name: asked[name] for name in _ECHOED if asked.get(name) is not None}
    return {
        "object": "response",
        "created_at": now,
        "status": "queued",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": asked.get("model"),
        "output": [],
        "previous_response_id": None,
        "usage": None,
        **_DEFAULTS,
        **echoed,
        **in_background(seed),
        "store": True,
    }


def ended(head: Tree, status: str, error: Tree | None, output: Sequence[Any], now: int) -> Tree:
    """The Response of a run that came to no end of its own. ``error``: code and message as ``/runs`` tells them."""
    told = None
    if status == "failed" and error is not None:
        told = {"code": _CODES.get(str(error.get("code")), "server_error"), "message": error.get("message")}
    return {**head, "status": status, "error": told, "output": list(output), "completed_at": now}


def frame(number: int, kind: str, tree: Tree) -> bytes:
    """One event of a run as server-sent event, with the number to resume behind as its ``id``."""
    data = orjson.dumps({**tree, "type": kind, "sequence_number": number})
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, kind.encode(), data)


def obituary(row: Row, now: int) -> tuple[bytes, bytes, bytes]:
    """For a run whose process has gone: its last event, its Response and its error."""
    head = ended(orjson.loads(row.head), "failed", LOST, (), now)
    return frame(row.last + 1, "response.failed", {"response": head}), orjson.dumps(head), orjson.dumps(LOST)


def run_tree(row: Row, *, whole: bool) -> Tree:
    """A run as ``/runs`` shows it; ``whole``: with its Response."""
    head = orjson.loads(row.head)
    told: Tree = {
        "id": f"run_{row.seed}",
        "object": "run",
        "status": row.status,
        "model": row.model,
        "key": row.key,
        "response_id": f"resp_{row.seed}",
        "created_at": row.made,
        "started_at": row.begun,
        "ended_at": row.ended,
        "last_event_id": row.last,
        "metadata": head.get("metadata") or {},
        "usage": head.get("usage"),
        "error": None if row.error is None else orjson.loads(row.error),
    }
    return {**told, "response": head} if whole else told


def page_of(rows: Sequence[Row], *, more: bool) -> bytes:
    """A page of runs."""
    data = [run_tree(row, whole=False) for row in rows]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return orjson.dumps({"object": "list", "data": data, "has_more": more, "first_id": first, "last_id": last})


def wanted_of(query: Mapping[str, str]) -> RunsWanted:
    """Which runs a list is asked for. Raises InvalidParameter."""
    limit = query.get("limit", str(DEFAULT_LIMIT))
    if not _NUMBER.fullmatch(limit) or not 1 <= int(limit) <= MAX_LIMIT:
        raise InvalidParameter(f"'limit' has to be 1 to {MAX_LIMIT}, and is '{limit}'.", param="limit")
    order = query.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise InvalidParameter(f"'order' has to be asc or desc, and is '{order}'.", param="order")
    status = query.get("status") or None
    if status is not None and status not in STATUSES:
        raise InvalidParameter(f"'status' has to be one of {', '.join(STATUSES)}.", param="status")
    after = query.get("after") or None
    seed = seed_of(after, "run") if after is not None else None
    if after is not None and seed is None:
        raise InvalidParameter(f"'after' names no run: '{after}'.", param="after")
    return RunsWanted(int(limit), order == "asc", seed, status, query.get("model") or None)


def number_of(text: str | None, name: str) -> int:
    """The event behind which to go on; -1 for the first. Raises InvalidParameter."""
    if not text:
        return -1
    if not _NUMBER.fullmatch(text) or int(text) > MAX_SEQUENCE:
        raise InvalidParameter(f"'{name}' has to be the number of an event, and is '{text[:40]}'.", param=name)
    return int(text)


_TEXT: Schema = {"type": ["string", "null"]}
_TIME: Schema = {"type": ["integer", "null"], "description": "Seconds since 1970."}
_RUN: Schema = {
    "type": "object",
    "required": ["id", "object", "status", "model", "created_at", "error"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "run"},
        "status": {"enum": list(STATUSES)},
        "model": {"type": "string"},
        "key": {"type": "string", "description": "The name of the key that has asked."},
        "response_id": {"type": "string", "description": "Its name at `/v1/responses/{id}`."},
        "created_at": {"type": "integer", "description": "Seconds since 1970."},
        "started_at": _TIME,
        "ended_at": _TIME,
        "last_event_id": {"type": "integer", "description": "The number of its latest event."},
        "metadata": {"type": "object"},
        "usage": {"type": ["object", "null"]},
        "error": {
            "type": ["object", "null"],
            "properties": {"code": _TEXT, "message": {"type": "string"}},
            "description": "Why it failed.",
        },
        "response": {"type": "object", "description": "The Response as it is now; not in lists."},
    },
}
_ASKED: Schema = {
    "type": "object",
    "description": "A request to Responses; `agent` may stand in place of `model`.",
    "properties": {
        "model": {"type": "string"},
        "agent": {"type": "string", "description": "The id of an agent; its namespace may be left out."},
        "input": {},
    },
}
_ONE = {200: Response("The run.", {"application/json": _RUN})}
_TAG = "Runs in the background"
_STORED = (NotKept, StoreUnavailable)

ENDPOINTS = (
    Endpoint(
        name="runs_create",
        method="POST",
        path="/runs",
        access="key",
        run="create",
        summary="Begin a run",
        description="Answered at once; the run goes on whatever becomes of the connection. What the key, its limits or its "
        "budgets refuse is refused here.",
        tag=_TAG,
        request=_ASKED,
        responses={202: Response("The run, which has begun.", {"application/json": _RUN})},
        errors=(
            InvalidJSON,
            InvalidParameter,
            MissingParameter,
            ModelNotFound,
            ModelForbidden,
            RequestTimeout,
            BodyTooLarge,
            Overloaded,
            StoreUnavailable,
        ),
    ),
    Endpoint(
        name="runs_list",
        method="GET",
        path="/runs",
        access="key",
        run="list",
        summary="List runs",
        description="The key's own, or its team's; with an admin key those of all.",
        tag=_TAG,
        query=(
            Parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                "How many at most.",
            ),
            Parameter("order", {"enum": ["asc", "desc"], "default": "desc"}, "By when they were made."),
            Parameter("after", {"type": "string"}, "The `last_id` of the page before."),
            Parameter("status", {"enum": list(STATUSES)}, "Only these."),
            Parameter("model", {"type": "string"}, "Only those of this model or agent."),
        ),
        responses={200: Response("A page of runs.", {"application/json": page_schema(_RUN)})},
        errors=(InvalidParameter, StoreUnavailable),
    ),
    Endpoint(
        name="runs_show",
        method="GET",
        path="/runs/{id}",
        access="key",
        run="show",
        summary="Show a run",
        tag=_TAG,
        responses=_ONE,
        errors=_STORED,
    ),
    Endpoint(
        name="runs_delete",
        method="DELETE",
        path="/runs/{id}",
        access="key",
        run="delete",
        summary="Delete a run",
        description="One that is under way is cancelled first.",
        tag=_TAG,
        responses={200: Response("It is gone.", {"application/json": {"type": "object"}})},
        errors=_STORED,
    ),
    Endpoint(
        name="runs_cancel",
        method="POST",
        path="/runs/{id}/cancel",
        access="key",
        run="cancel",
        summary="Cancel a run",
        description="Its model calls and tools are ended. One that has ended already stays as it is.",
        tag=_TAG,
        responses=_ONE,
        errors=_STORED,
    ),
    Endpoint(
        name="runs_events",
        method="GET",
        path="/runs/{id}/events",
        access="key",
        run="events",
        summary="Follow a run",
        description="The events of Responses from the first on, then as they come, to the last. Each has an `id`; a reader "
        "that was cut off goes on behind the one that it sends as `Last-Event-ID`.",
        tag=_TAG,
        query=(Parameter("starting_after", {"type": "integer"}, "In place of `Last-Event-ID`."),),
        responses={
            200: Response("Server-sent events.", {"text/event-stream": {"type": "string"}}),
            204: Response("The run has ended, and all of it has come."),
        },
        errors=(InvalidParameter, *_STORED),
    ),
)
