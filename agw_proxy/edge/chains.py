"""What was said on one connection, so that a next turn need not send it again: Responses over a WebSocket.

OpenAI's guide to its WebSocket mode: a turn names the one before it (``previous_response_id``) and brings only what is
new; the latest response of each lane is known to the connection, also where nobody stores it. Here that holds for any
upstream: one that has the response itself is asked by its id, any other gets the whole conversation put together.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import orjson

Tree = dict[str, Any]

MAX_KEPT_BYTES = 8 * 1024 * 1024  # of one connection's turns, as JSON; longer ones are not remembered
MAX_LANES = 16  # of one connection: so many OpenAI runs side by side


class Held(Protocol):
    """The bodies in memory, counted and bounded as a whole."""

    @property
    def room(self) -> int:
        """Bytes that may be kept."""
        ...

    def keep(self, size: int) -> None:
        """So many more are kept; less than 0: so many less."""
        ...


class Begun(NamedTuple):
    """A conversation until now: ``items`` behind the response ``after``, which is not known here; None: these are all."""

    items: tuple[bytes, ...]
    after: str | None = None


class Said(msgspec.Struct, frozen=True):
    """A response, with what led to it (see ``Begun``). ``there``: its upstream, or the gateway, stores it and knows it by its id."""

    id: str
    items: tuple[bytes, ...]
    there: bool
    after: str | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(map(len, self.items))


class Chains:
    """Of one connection: the latest response of each lane."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._lanes: dict[str, Said] = {}
        """The one that was added to last is the last."""
        self._over = False

    def begin(self, tree: Tree) -> Begun | None:
        """Put what came before into a request, where its upstream would not know it. The conversation until now.

        A ``previous_response_id`` that nobody knows here stays: it may be stored at an upstream, or by the gateway. None:
        it is one of the API's own conversations, of which nothing is known here, and which gets the turn by itself.
        """
        if tree.get("conversation") is not None:
            return None
        fresh, named = items_of(tree.get("input")), tree.get("previous_response_id")
        before = self._find(named)
        if before is None:
            return Begun(fresh, named if isinstance(named, str) else None)
        whole = (*before.items, *fresh)
        if not before.there:
            del tree["previous_response_id"]
            if before.after is not None:
                tree["previous_response_id"] = before.after
            tree["input"] = [orjson.Fragment(item) for item in whole]
        return Begun(whole, before.after)

    def end(self, lane: str, response: str, begun: Begun | None, answer: Sequence[bytes], *, there: bool) -> None:
        """A turn has ended well, that was ``begun`` so; ``answer``: its items."""
        self._drop(lane)
        if begun is None or self._over:
            return
        said = Said(response, (*begun.items, *answer), there, begun.after)
        if said.size > min(MAX_KEPT_BYTES - self._size(), self._held.room):
            return
        self._lanes[lane] = said
        self._held.keep(said.size)
        if len(self._lanes) > MAX_LANES:
            self._drop(next(iter(self._lanes)))

    def forget(self, response: object) -> None:
        """A turn that went on from it has failed: the client sends all of it again."""
        for lane, said in list(self._lanes.items()):
            if said.id == response:
                self._drop(lane)

    def clear(self) -> None:
        """The connection ends: nothing more is remembered."""
        self._over = True
        for lane in list(self._lanes):
            self._drop(lane)

    def _find(self, response: object) -> Said | None:
        return next((said for said in self._lanes.values() if said.id == response), None)

    def _size(self) -> int:
        return sum(said.size for said in self._lanes.values())

    def _drop(self, lane: str) -> None:
        said = self._lanes.pop(lane, None)
        if said is not None:
            self._held.keep(-said.size)


def items_of(given: object) -> tuple[bytes, ...]:
    """A request's ``input`` as items; what is none of it stays for the upstream's own judgement."""
    if isinstance(given, str):
        return (_encoded({"type": "message", "role": "user", "content": given}),)
    return tuple(map(_encoded, given)) if isinstance(given, list) else ()


def answered(items: Sequence[object], *, native: bool, stored: bool) -> tuple[bytes, ...]:
    """The items of an answer, fit to be sent again.

    ``native``: made by an upstream that speaks this form. What it does not store it does not know by an id: thoughts
    that are not encrypted cannot go back to it, nor calls that refer to them by their own ids.
    """
    found = [item for item in items if isinstance(item, dict)]
    if native and not stored:
        lost = [item for item in found if item.get("type") == "reasoning" and not item.get("encrypted_content")]
        found = [item for item in found if item not in lost]
        if lost:
            found = [
                {name: value for name, value in item.items() if name != "id"}
                if item.get("type") != "reasoning"
                else item
                for item in found
            ]
    return tuple(map(_encoded, found))


def _encoded(item: object) -> bytes:
    """As JSON, to be kept: a copy, since what orjson gives goes on taking all that it has reserved, many times its size."""
    return bytes(memoryview(orjson.dumps(item)))
