"""What an agent has done in a turn that ended with a call of the caller's tool, kept until the caller comes with the result.

The caller's history is the truth, but the agent's own calls, and who has the conversation now, are not in it: without them
the agent would do again what it has done. It is a memory and no store: where it has forgotten, the run goes on from
what the caller sends.
"""

import hashlib
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
    """One turn that waits for its caller. ``items``: the agent's own calls and their results. ``agent``: who goes on.

    ``before``: how many items its caller's history had, and ``mark`` what they were: ids of calls are not always unique.
    """

    items: tuple[Tree, ...]
    agent: Any
    before: int
    mark: bytes
    size: int
    until: float


class Carried:
    """Turns by caller, agent and the ids of the calls that the caller has got. Used on one loop."""

    def __init__(self) -> None:
        self._turns: OrderedDict[tuple[str, str, str], Turn] = OrderedDict()
        self._bytes = 0

    def keep(
        self,
        place: tuple[str, str],
        call_ids: Sequence[str],
        history: Sequence[Tree],
        items: Sequence[Tree],
        agent: Any,
        now: float,
    ) -> None:
        """``place``: the caller's owner, and the agent with its version, so that nothing is carried over a reload.

        ``history``: what the caller had sent; ``items``, ``agent``: see ``Turn``. ``now``: monotonic seconds.
        """
        size = _size(items)
        if not call_ids or size > MAX_TURN_BYTES:
            return
        turn = Turn(tuple(items), agent, len(history), _mark(history), size, now + SECONDS)
        for call_id in call_ids:
            self._drop((*place, call_id))
            self._turns[*place, call_id] = turn
            self._bytes += size
        while self._turns and (
            len(self._turns) > MAX_KEPT or self._bytes > MAX_BYTES or next(iter(self._turns.values())).until < now
        ):
            self._drop(next(iter(self._turns)))

    def restore(self, place: tuple[str, str], items: Sequence[Tree], now: float) -> tuple[list[Tree], Any | None]:
        """The history with what was done before the calls in it, and who has it now; None: nobody is known."""
        made: list[Tree] = []
        agent = None
        told: set[int] = set()
        for at, item in enumerate(items):
            turn = None
            if item.get("type") == "function_call":
                turn = self._turns.get((*place, str(item.get("call_id"))))
            known = turn is not None and id(turn) not in told and turn.until >= now and turn.before <= at
            if turn is not None and known and turn.mark == _mark(items[: turn.before]):
                told.add(id(turn))
                made += turn.items
                agent = turn.agent
            made.append(item)
        return made, agent

    def _drop(self, key: tuple[str, str, str]) -> None:
        turn = self._turns.pop(key, None)
        if turn is not None:
            self._bytes -= turn.size


def _size(items: Sequence[Tree]) -> int:
    """In bytes of JSON; over any bound where it is none."""
    try:
        return len(orjson.dumps(items))
    except (orjson.JSONEncodeError, TypeError):
        return MAX_TURN_BYTES + 1


def _mark(history: Sequence[Tree]) -> bytes:
    return hashlib.sha256(orjson.dumps([spelt(item) for item in history], option=orjson.OPT_SORT_KEYS)).digest()


def spelt(item: Tree) -> Tree:
    """The item as it always is spelt: a message may have a type, and its words in parts, or not."""
    if "role" not in item:
        return item
    content = item.get("content")
    parts = [{"text": content}] if isinstance(content, str) else content
    if isinstance(parts, list):
        content = [_part(part) if isinstance(part, dict) else part for part in parts]
    return {"role": item["role"], "content": content}


def _part(part: Tree) -> object:
    """Its words; a picture without what it is listed with where nothing was said."""
    return (
        part["text"] if "text" in part else {key: part[key] for key in part if (key, part[key]) != ("detail", "auto")}
    )
