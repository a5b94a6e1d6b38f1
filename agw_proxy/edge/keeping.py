"""An answer to Responses that is kept on its way: read along, and told as kept only where it is.

The last event of a stream, and the whole of any other answer, waits for the store: who has read it can ask for it at once.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from agw_proxy.dialects.base import Malformed
from agw_proxy.dialects.openai_responses_kept import ENDS
from agw_proxy.dialects.sse import MAX_EVENT_BYTES, Events
from agw_proxy.types import RawHeaders, Reply
from agw_proxy.upstreams.opening import Opened
from agw_proxy.upstreams.passing import PassedOn

Tree = dict[str, Any]

MAX_ANSWER_BYTES = 16 * 1024 * 1024  # of one that is kept; a longer one is relayed only
ITEM_DONE = "response.output_item.done"
_HAVE_ONE = frozenset({"response.created", "response.in_progress", "response.queued", "response.failed"})


class Keeper(Protocol):
    """Who keeps it."""

    @property
    def told(self) -> Mapping[str, Any]:
        """Members that the answer is to have, whoever has written it."""
        ...

    async def keep(self, response: Tree) -> bool:
        """Whether it is kept, if it is to be."""
        ...


class Whole:
    """A Reply of which everything has been read and is to be sent first."""

    ended = True

    def __init__(self, reply: Reply, size: int) -> None:
        """``size``: of what is sent instead of its body."""
        self._reply = reply
        self.status = reply.status
        others = [(name, value) for name, value in reply.headers if name.lower() != b"content-length"]
        self.headers: RawHeaders = [*others, (b"content-length", b"%d" % size)]

    @property
    def connect_ms(self) -> float:
        """See ``types.Reply``."""
        return self._reply.connect_ms

    @property
    def began_ns(self) -> int:
        """See ``types.Reply``."""
        return self._reply.began_ns

    async def read(self, *, progress: bool = True) -> bytes:
        """See ``types.Reply``."""
        del progress
        return b""

    def close(self) -> None:
        """See ``types.Reply``."""
        self._reply.close()


async def keep_whole(opened: Opened, keeper: Keeper) -> bool:
    """Read all of an answer that is no stream, and have it kept. False: it was to be kept, and is not. Raises UpstreamError."""
    pieces, size = [opened.first], len(opened.first)
    while not opened.reply.ended and size <= MAX_ANSWER_BYTES:
        piece = await opened.reply.read()
        pieces.append(piece)
        size += len(piece)
    opened.first = b"".join(pieces)
    if not opened.reply.ended:
        return False
    tree = _object(opened.first)
    if tree is None:
        return True  # no answer of Responses: nothing that could be kept
    kept = await keeper.keep(tree)
    made = _told(tree, keeper.told, kept=kept)
    if made != tree:
        opened.first = orjson.dumps(made)
    opened.reply = Whole(opened.reply, len(opened.first))
    return kept


class Keeping(PassedOn):
    """A Reply whose events are read on their way. It gives whole events only, as they came, but for what the ``Keeper`` tells."""

    def __init__(self, reply: Reply, keeper: Keeper) -> None:
        super().__init__(reply)
        self._keeper = keeper
        self._events: Events | None = Events()
        self._held = bytearray()
        self._items: list[Tree] = []
        self._items_bytes = 0

    async def read(self, *, progress: bool = True) -> bytes:
        """See ``types.Reply``."""
        while True:
            self._held += await self._reply.read(progress=progress)
            end = len(self._held) if self._reply.ended or self._events is None else _boundary(self._held)
            if len(self._held) > MAX_EVENT_BYTES:
                end = len(self._held)
            whole = bytes(self._held[:end])
            del self._held[:end]
            if whole or self._reply.ended:
                return await self.see(whole)
            progress = False  # part of an event is nothing yet that would put the clock off

    async def see(self, chunk: bytes) -> bytes:
        """What goes to the caller for these bytes, once what they end is kept."""
        if self._events is None:
            return chunk
        try:
            found = self._events.feed(chunk)
            if self._reply.ended:
                found += self._events.end()
        except Malformed:
            self._events = None
            return chunk
        for name, data in found:
            made = await self._event(name, data)
            if made is not None:
                chunk = chunk.replace(data, made, 1)
        return chunk

    async def _event(self, name: str, data: bytes) -> bytes | None:
        """What takes the place of an event's data; None: it stays."""
        told = self._keeper.told
        if name and name not in ENDS and name != ITEM_DONE and not (told and name in _HAVE_ONE):
            return None
        tree = _object(data)
        kind = tree.get("type") if tree is not None else None
        if tree is None or not isinstance(kind, str):
            return None
        if kind == ITEM_DONE:
            self._done(tree, len(data))
            return None
        response = tree.get("response")
        if not isinstance(response, dict) or not (kind in ENDS or (told and kind in _HAVE_ONE)):
            return None
        kept = True
        if kind in ENDS:
            whole = response if response.get("output") else {**response, "output": self._items}
            kept = await self._keeper.keep(whole)
        made = _told(response, told, kept=kept)
        return orjson.dumps({**tree, "response": made}) if made != response else None

    def _done(self, tree: Tree, size: int) -> None:
        """Some leave out of the last event what they have said before."""
        self._items_bytes += size
        item = tree.get("item")
        if isinstance(item, dict) and self._items_bytes <= MAX_ANSWER_BYTES:
            self._items.append(item)


def _told(response: Tree, told: Mapping[str, Any], *, kept: bool) -> Tree:
    return {**response, **told, **({} if kept else {"store": False})}


def _boundary(held: bytearray) -> int:
    """Where the last event that is whole ends."""
    lf, crlf = held.rfind(b"\n\n"), held.rfind(b"\r\n\r\n")
    return max(lf + 2 if lf >= 0 else 0, crlf + 4 if crlf >= 0 else 0)


def _object(text: bytes) -> Tree | None:
    try:
        tree = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return tree if isinstance(tree, dict) else None
