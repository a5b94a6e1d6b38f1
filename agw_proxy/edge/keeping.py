"""An answer to Responses that is kept on its way: read along, and told as kept only where it is.

The last event of a stream, and the whole of any other answer, waits for the store: who has read it can ask for it at once.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from agw_proxy._hot.sse import EventTooLong, Stream
from agw_proxy.dialects.base import Malformed
from agw_proxy.dialects.openai_responses_kept import ENDS
from agw_proxy.dialects.sse import MAX_EVENT_BYTES, Events
from agw_proxy.errors import UpstreamBroken
from agw_proxy.types import RawHeaders, Reply
from agw_proxy.upstreams.opening import Opened
from agw_proxy.upstreams.passing import PassedOn

Tree = dict[str, Any]

MAX_ANSWER_BYTES = 16 * 1024 * 1024  # of one that is kept; a longer one is relayed only
ITEM_DONE = "response.output_item.done"
ENDS_OF_EVENTS = (b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\r")
LONGEST_END = max(map(len, ENDS_OF_EVENTS))
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

    def leave(self) -> None:
        """The stream is over, whichever way; may be told more than once."""
        ...


class Whole(PassedOn):
    """A Reply of which everything has been read and is to be sent first."""

    ended = True
    headers: RawHeaders = ()

    def __init__(self, reply: Reply, size: int) -> None:
        """``size``: of what is sent instead of its body."""
        super().__init__(reply)
        others = [(name, value) for name, value in reply.headers if name.lower() != b"content-length"]
        self.headers = [*others, (b"content-length", b"%d" % size)]

    async def read(self, *, progress: bool = True) -> bytes:
        """See ``types.Reply``."""
        del progress
        return b""


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
        opened.first = _written(made) or opened.first
    opened.reply = Whole(opened.reply, len(opened.first))
    return kept


class Keeping(PassedOn):
    """A Reply whose events are read on their way. It gives whole events only, as they came, but for what the ``Keeper`` tells."""

    def __init__(self, reply: Reply, keeper: Keeper) -> None:
        super().__init__(reply)
        self._keeper = keeper
        self._events: Events | None = Events()
        self._held = bytearray()
        self._searched = 0
        self._items: list[Tree] = []
        self._items_bytes = 0

    @property
    def ended(self) -> bool:
        """See ``types.Reply``."""
        return self._reply.ended and not self._held

    async def begin(self, opened: Opened, stream: Stream) -> None:
        """Look at what was read of it before, which ``stream`` has seen. Of an event that has begun there the rest is read.

        Raises UpstreamError.
        """
        part = bytearray(opened.raw[_boundary(opened.raw, 0) :])
        while part and not self._reply.ended:
            known = len(part)
            part += await self._reply.read()
            end = len(part) if self._reply.ended else _boundary(part, max(known - LONGEST_END, 0))
            try:
                opened.first += stream.feed(bytes(part[known : end or len(part)]))
            except EventTooLong:
                raise UpstreamBroken("The upstream sent an event over 16 MB.") from None
            if end:
                self._held += part[end:]
                break
        opened.first = await self.see(opened.first)
        opened.reply = self

    async def read(self, *, progress: bool = True) -> bytes:
        """See ``types.Reply``."""
        while True:
            self._held += await self._reply.read(progress=progress)
            end = _boundary(self._held, self._searched)
            if self._reply.ended or self._events is None or len(self._held) > MAX_EVENT_BYTES:
                end = len(self._held)
            whole = bytes(self._held[:end])
            del self._held[:end]
            self._searched = max(len(self._held) - LONGEST_END + 1, 0)
            if whole or self._reply.ended:
                return await self.see(whole)
            progress = False  # part of an event is nothing yet that would put the clock off

    def close(self) -> None:
        """See ``types.Reply``."""
        super().close()
        self._keeper.leave()

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
            told_before = not response.get("output")
            whole = {**response, "output": self._items} if told_before else response
            kept = not (told_before and self._items_bytes > MAX_ANSWER_BYTES) and await self._keeper.keep(whole)
        made = _told(response, told, kept=kept)
        return _written({**tree, "response": made}) if made != response else None

    def _done(self, tree: Tree, size: int) -> None:
        """Some leave out of the last event what they have said before."""
        self._items_bytes += size
        item = tree.get("item")
        if isinstance(item, dict) and self._items_bytes <= MAX_ANSWER_BYTES:
            self._items.append(item)


def _told(response: Tree, told: Mapping[str, Any], *, kept: bool) -> Tree:
    return {**response, **told, **({} if kept else {"store": False})}


def _written(tree: Tree) -> bytes | None:
    """None for one that is nested more deeply than can be written, though it could be read: it goes on as it came."""
    try:
        return orjson.dumps(tree)
    except orjson.JSONEncodeError:
        return None


def _boundary(held: bytes | bytearray, start: int) -> int:
    """Where the last event that is whole ends; 0: none does. Before ``start`` no end begins."""
    return max((at + len(end) for end in ENDS_OF_EVENTS if (at := held.rfind(end, start)) >= 0), default=0)


def _object(text: bytes) -> Tree | None:
    try:
        tree = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return tree if isinstance(tree, dict) else None
