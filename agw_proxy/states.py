"""How upstreams, agents and sessions stand, as the gateway's endpoints tell it."""

from typing import Protocol

import msgspec


class TargetState(msgspec.Struct, frozen=True):
    """One model at an upstream, as its circuit stands."""

    name: str
    circuit: str
    """``closed``, ``open`` or ``half_open``."""
    opens_in_ms: int
    """Until it may be asked again; 0 where it may be."""
    in_flight: int


class QueueState(msgspec.Struct, frozen=True):
    """The places at an upstream with ``max_concurrent``, in this process."""

    places: int
    taken: int
    waiting: int


class ProbeState(msgspec.Struct, frozen=True):
    """What an upstream's probes have found."""

    path: str
    last: str | None
    """``ok``, or the code of the error; None: none has ended yet."""
    at: str | None
    good_in_a_row: int
    bad_in_a_row: int
    out_since: str | None
    """Since when they keep the upstream out."""


class UpstreamState(msgspec.Struct, frozen=True):
    """What ``GET /upstreams`` tells of one upstream; never a credential."""

    name: str
    dialect: str
    base_url: str
    auth: str
    models: tuple[str, ...]
    state: str
    """``up``, ``failing`` (the last exchange failed), ``out`` (its probes fail) or ``unused``; to all workers the same."""
    since: str | None
    last_error: str | None
    requests: int
    failures: int
    targets: tuple[TargetState, ...] = ()
    dead_keys: int = 0
    """How many of its keys the upstream has refused; the log names them by number."""
    queue: QueueState | None = None
    """None: it takes any number of requests at once."""
    probe: ProbeState | None = None
    """None: it is not probed, or by another worker."""


class AgentState(msgspec.Struct, frozen=True):
    """What ``GET /agents`` tells of one agent that was found."""

    id: str
    """What it is asked for as; of a blocked one what it would be."""
    status: str
    """``ready``; ``stale``: an older version serves, since the newest failed; ``failed``; ``blocked``: it was not loaded."""
    source: str
    version: str | None = None
    """Of what serves: a short hash of its files."""
    description: str = ""
    declared: bool = False
    """In an ``agents.yaml``."""
    model: str | None = None
    """What it asks for itself, where that is a name."""
    tools: tuple[str, ...] = ()
    handoffs: tuple[str, ...] = ()
    loaded_at: str | None = None
    running: int = 0
    """Runs of this version, in this worker."""
    bounds: dict[str, float] = {}
    error: str | None = None
    """Why it, or its newest version, is not served."""
    error_at: str | None = None
    waits: bool = False
    """For what it needs (an MCP server): it is tried again without being asked for."""


class SessionState(msgspec.Struct, frozen=True):
    """What ``GET /sessions`` tells of one session. Times as RFC 3339 has them."""

    id: str
    """As the caller has named it."""
    agent: str
    created_at: str
    used_at: str
    expires_at: str
    turns: int
    bytes: int


class SessionControl(Protocol):
    """The part of ``types.Control`` that is about sessions."""

    async def sessions(self, key: str, name: str | None, after: tuple[str, str], limit: int) -> list[SessionState]:
        """Those of the key of that name, of one name only or all, in order of agents and names, after such a pair.

        Raises StoreUnavailable.
        """
        ...

    async def forget_sessions(self, key: str, name: str) -> None:
        """Delete those of that name. Raises NotKept, StoreUnavailable."""
        ...
