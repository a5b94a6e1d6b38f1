"""What an agent has done in a turn that ended with a call of the caller's tool, kept until the caller comes with the result.

The caller's history is the truth, but the agent's own calls, and who has the conversation now, are not in it: without them
the agent would do again what it has done. It is a memory and no store: where it has forgotten, the run goes on from
what the caller sends.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from agw_proxy.dialects.base import Tree

MAX_KEPT = 2048
"""Turns."""
MAX_BYTES = 32 * 1024 * 1024
"""Of all of them together, as JSON."""
MAX_TURN_BYTES = 512 * 1024
"""Of one; a longer one is not kept."""
SECONDS = 1800.0
"""How long a caller may take over its tools, people's approval counted in."""


class Turn(msgspec.Struct, frozen=True):
    """One turn that waits for its caller. ``items``: the agent's own calls and their results. ``agent``: who goes on."""

    items: tuple[Tree, ...]
    agent: Any
    size: int
    until: float


class Carried:
    """Turns by caller, agent and the ids of the calls that the caller has got. Used on one loop."""

    def __init__(self) -> None:
        self._turns: OrderedDict[tuple[str, str, str], Turn] = OrderedDict()
        self._bytes = 0

    def keep(
        self, owner: str, agent_key: str, call_ids: Sequence[str], turn: Sequence[Tree], agent: Any, now: float
    ) -> None:
        """``agent_key``: with the version, so that nothing is carried over a reload. ``now``: monotonic seconds."""
        try:
            size = len(orjson.dumps(turn))
        except (orjson.JSONEncodeError, TypeError):
            return
        if not call_ids or size > MAX_TURN_BYTES:
            return
        kept = Turn(tuple(turn), agent, size, now + SECONDS)
        for call_id in call_ids:
            self._drop((owner, agent_key, call_id))
            self._turns[owner, agent_key, call_id] = kept
            self._bytes += size
        while self._turns and (
            len(self._turns) > MAX_KEPT or self._bytes > MAX_BYTES or next(iter(self._turns.values())).until < now
        ):
            self._drop(next(iter(self._turns)))

    def restore(self, owner: str, agent_key: str, items: Sequence[Tree], now: float) -> tuple[list[Tree], Any | None]:
        """The history with what was done before the calls in it, and who has it now; None: nobody is known."""
        made: list[Tree] = []
        agent = None
        seen: set[int] = set()
        for item in items:
            call_id = item.get("call_id")
            turn = None
            if item.get("type") == "function_call" and isinstance(call_id, str):
                turn = self._turns.get((owner, agent_key, call_id))
            if turn is not None and turn.until >= now and id(turn) not in seen:
                seen.add(id(turn))
                made += turn.items
                agent = turn.agent
            made.append(item)
        return made, agent

    def _drop(self, key: tuple[str, str, str]) -> None:
        turn = self._turns.pop(key, None)
        if turn is not None:
            self._bytes -= turn.size
