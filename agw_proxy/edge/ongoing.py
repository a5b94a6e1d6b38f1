"""A run in the background that this process has: what it has come to, and which of its events wait to be written down."""

import asyncio
import time
from collections.abc import Sequence

import orjson

from agw_proxy.api.runs import Row, Tree, frame, skeleton
from agw_proxy.api.stored_responses import seed
from agw_proxy.edge.exchange import Exchange
from agw_proxy.errors import GatewayError
from agw_proxy.store.runs import Said
from agw_proxy.types import Principal

STALLED_SECONDS = 30.0  # so long a run waits for the file
MAX_UNWRITTEN_BYTES = 1024 * 1024  # of one run; then it waits


class Live:
    """A run that this process has."""

    def __init__(self, principal: Principal, asked: Tree, most_bytes: int) -> None:
        """``principal``: whose it is. ``asked``: the request to Responses. ``most_bytes``: of its events."""
        self.seed = seed()
        self.principal = principal
        self.model = str(asked.get("model"))
        self.status = "queued"
        self.head = skeleton(asked, self.seed, int(time.time()))
        self.error: Tree | None = None
        self.why: GatewayError | None = None
        """Why the gateway ends it."""
        self.cancelled = False
        self.begun: int | None = None
        self.ended: int | None = None
        self.task: asyncio.Task[None] | None = None
        self.exchange: Exchange | None = None
        self.news = asyncio.Event()
        """Something of it has been written; another one is here by then."""
        self.over = asyncio.Event()
        """Its end has been written."""
        self.last = -1
        self.finish: tuple[str, Tree] | None = None
        """The event by which its answer has told its end, and its Response then."""
        self.failure: Tree | None = None
        """Why it has failed, unless it has told that itself."""
        self.items: Sequence[object] = ()
        """Of its answer, as far as they are whole."""
        self.full = False
        """It has more events than are kept of one."""
        self._most, self._size = most_bytes, 0
        self._unwritten: list[bytes] = []
        self._waiting = 0  # bytes of these
        self._kept: Tree | None = None
        self._changed = True
        self._room = asyncio.Event()
        self.add("response.created", {"response": self.head})
        self.add("response.queued", {"response": self.head})

    def add(self, kind: str, tree: Tree, *, last: bool = False) -> None:
        """One more event, unless there is no room for it. ``last``: for that there is. Raises JSONEncodeError for one that is nested too deeply."""
        event = frame(self.last + 1, kind, tree)
        if not last and not self.holds(len(event)):
            return
        self.last += 1
        self._size += len(event)
        self._unwritten.append(event)
        self._waiting += len(event)
        self._changed = True

    def holds(self, size: int) -> bool:
        """There is room for an event of that size; else it is full from now on."""
        if self._size + size > self._most:
            self.full = True
        return not self.full

    async def room(self) -> None:
        """Wait while too much is unwritten. Raises TimeoutError where the file is away for long."""
        while self._waiting > MAX_UNWRITTEN_BYTES:
            self._room.clear()
            async with asyncio.timeout(STALLED_SECONDS):
                await self._room.wait()

    def row(self, holder: int) -> Row:
        """As it is now; ``holder``: this process's number."""
        error = orjson.dumps(self.error) if self.error is not None else None
        made = int(self.head["created_at"])
        return Row(
            0, self.seed, self.principal.owner, self.principal.name, self.model, self.status, made, self.begun, self.ended,
            holder, self.last, orjson.dumps(self.head), error,
        )  # fmt: skip

    def take(self) -> Said | None:
        """What is to be written."""
        if not self._changed:
            return None
        self._changed = False
        body = b"".join(self._unwritten)
        self._unwritten, self._waiting = [], 0
        error = orjson.dumps(self.error) if self.error is not None else None
        head = orjson.dumps(self.head) if self.head is not self._kept else None
        self._kept = self.head
        return Said(self.seed, self.status, self.last, body, head, error, self.begun, self.ended)

    def give_back(self, said: Said) -> None:
        """It could not be written."""
        self._unwritten.insert(0, said.body)
        self._waiting += len(said.body)
        self._changed = True
        if said.head is not None:
            self._kept = None

    def told(self) -> None:
        """It has been written."""
        news, self.news = self.news, asyncio.Event()
        news.set()
        self._room.set()
