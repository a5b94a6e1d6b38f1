"""Settings of agents: where they are, which are served under which name, and what each may use."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from agw_proxy.config.resilience import Part
from agw_proxy.config.values import Duration, FilePath, MicroDollars, Name, Names, UpstreamName, Whole, WorkersApart

AGENT_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}(/[a-z0-9][a-z0-9._-]{0,63}){1,8}")


def agent_id(value: str) -> str:
    """Take what an agent is asked for as: ``namespace/name``, in lower case."""
    if AGENT_ID.fullmatch(value) is None:
        raise ValueError(
            "expected namespace/name of lower-case letters, digits, '.', '_' and '-', such as default/weatheragent"
        )
    return value


Shows = Literal["hidden", "annotated", "visible"]
AgentID = Annotated[str, AfterValidator(agent_id)]


class AgentOverride(Part):
    """What one agent has different."""

    name: AgentID = Field(description="Which one: `namespace/name` as it is found, in lower case.")
    serve_as: AgentID | None = Field(None, description="Another name to serve it under; null: the one that it has.")
    concurrent: Whole | None = Field(None, ge=1, le=10_000, description="Runs at a time, in each worker.")
    queue: Whole | None = Field(None, ge=0, le=100_000, description="Most runs that wait for one to end.")
    seconds: Duration | None = Field(None, description="How long one run may take; 0: no bound.")
    turns: Whole | None = Field(None, ge=0, le=1000, description="Model calls in a row of one run; 0: no bound.")
    tokens: Whole | None = Field(None, ge=0, description="Tokens that one run may use; 0: no bound.")
    cost: MicroDollars | None = Field(None, description="US dollars that one run may spend; 0: no bound.")

    shows: Shows | None = Field(None, description="What callers see of its tool calls and handoffs.")

    def over(self, base: dict[str, Any]) -> dict[str, Any]:
        """Give the bounds in ``base`` with what is set here."""
        return {field: value if (value := getattr(self, field)) is not None else base[field] for field in BOUNDS}


BOUNDS = ("concurrent", "queue", "seconds", "turns", "tokens", "cost")


class Agents(Part):
    """Agents of the OpenAI Agents SDK that are dropped into folders; each is served as a model."""

    paths: tuple[FilePath, ...] = Field(
        (Path("agents"),),
        max_length=64,
        description="Folders to look in: `NAME/agent.py` there is `default/name`, and folders between are namespaces.",
    )
    allow: Names = Field(
        ("*",),
        description="Patterns of the agents to load: of their `namespace/name`, or of their modules, such as "
        "`agents.weather.*`; case aside.",
    )
    deny: Names = Field((), description="Patterns of the agents to leave out; stronger than `allow`.")
    auto_reload: bool = Field(False, description="Take up agents anew when their files change.")
    namespace: UpstreamName = Field(
        "default", description="The part before the slash in `namespace/agent`, of those right below `paths`."
    )
    model: Name | None = Field(
        None, description="The model of agents that name none, as a caller would ask for it; null: they must name one."
    )
    shows: Shows = Field(
        "hidden",
        description="What callers see of an agent's own tool calls and handoffs: nothing (`hidden`), thoughts "
        "(`annotated`), or words in the answer (`visible`).",
    )
    sessions: bool = Field(
        True,
        description="Whether a request with `x-session-id` goes on from what was said there before, with the agent's own "
        "calls, and is kept: in the `store`, or a file in the state directory.",
    )
    load_seconds: Duration = Field(30.0, gt=0, le=120, description="How long one agent may take to load and start.")
    concurrent: Whole = Field(16, ge=1, le=10_000, description="Runs of one agent at a time, in each worker.")
    queue: Whole = Field(64, ge=0, le=100_000, description="Most runs of one agent that wait; over it 503.")
    seconds: Duration = Field(300.0, description="How long one run may take; 0: no bound.")
    turns: Whole = Field(10, ge=0, le=1000, description="Model calls in a row of one run; 0: no bound.")
    tokens: Whole = Field(0, ge=0, description="Tokens that one run may use; 0: no bound.")
    cost: MicroDollars = Field(0, description="US dollars that one run may spend; 0: no bound.")
    workers: WorkersApart = Field(
        0,
        description="Processes of their own that run the agents, so that nothing an agent does holds up a relay; 0: each "
        "worker of `server.workers` runs them itself. Both together at most 28. Linux only.",
    )
    threads: Whole = Field(
        32, ge=1, le=1000, description="Synchronous tools at a time, of all agents together, in each worker."
    )
    overrides: tuple[AgentOverride, ...] = Field((), description="What single agents have different.")

    @property
    def anywhere(self) -> bool:
        """There is a folder to look in."""
        return any(os.path.isdir(path) for path in self.paths)  # noqa: PTH112  a Path raises where it may not look

    def bounds(self, found_as: str) -> dict[str, Any]:
        """What the agent of that name may use, by the names in BOUNDS."""
        base = {field: getattr(self, field) for field in BOUNDS}
        override = self._override(found_as)
        return base if override is None else override.over(base)

    def shown(self, found_as: str) -> Shows:
        """What callers see of the agent of that name."""
        override = self._override(found_as)
        return (override.shows if override is not None else None) or self.shows

    def served_as(self, found_as: str) -> str:
        """The name it is asked for."""
        override = self._override(found_as)
        return (override.serve_as if override is not None else None) or found_as

    def _override(self, found_as: str) -> AgentOverride | None:
        return next((each for each in self.overrides if each.name == found_as), None)
