"""A worker that relays lends connections: for a request of an agent, to the worker that runs it, until that has answered.

So nothing that an agent's answer costs (its parsing, its limits, its translation, its events) is spent where relays are.
What a lent connection asks for is that worker's in all respects, with the policy that all workers have, and its Receipt
is written there. Here stays a descriptor of the connection, which nobody reads meanwhile: it is gone on with when the
answer is out, and tells the client what has happened where that worker ends first.

A request that cannot be lent (its model leads to several targets, too much waits there, the worker is about to be
replaced, ...) is served by the full lane here, which has the agent run by a frame (``upstreams.agents_apart``).
"""

import asyncio
import mmap
import os
import socket
import time
from collections.abc import Callable

from agw_proxy._hot.lane import Downstream
from agw_proxy.edge.accounts import Accounts
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.hangup import hung_up
from agw_proxy.edge.posts import (
    BACK,
    BEGUN,
    DRAINS,
    END,
    GONE,
    HEAD,
    INLINE_BYTES,
    LEFT,
    LEND,
    MARKS,
    MARKS_BYTES,
    NOT_TAKEN,
    SLOTS,
    TAKEN,
    UNTAKEN,
    Post,
    in_memory,
    read_memory,
)
from agw_proxy.edge.respond import refuse_unparsed
from agw_proxy.errors import AgentError, GatewayError, UpstreamUnreachable
from agw_proxy.upstreams.agents_apart import RETRY_AFTER_MS

REASON = "in_process"  # as the full lane has it for agents
LOOK_SECONDS = 0.5  # between two looks at what is away and not at work
UNTAKEN_SECONDS = 10.0  # for a worker to look at a request: as long as one waits for a worker elsewhere


class Lent:
    """A connection that is away, and what its request named. ``since``: monotonic seconds."""

    def __init__(self, downstream: Downstream, agent: str, model: str, label: str) -> None:
        self.downstream = downstream
        self.agent, self.model, self.label = agent, model, label
        self.since = time.monotonic()
        self.slot = -1


class Borrower:
    """One worker that runs agents, as it is now: another process in its place is another Borrower."""

    def __init__(
        self,
        sock: socket.socket,
        heard: Callable[["Borrower", int, int, bytes], None],
        ended: Callable[["Borrower"], None],
    ) -> None:
        """``heard``: gets the kind of what it says, of which number, and what was read beyond the request.

        ``ended``: called when it has gone, while ``lent`` says what went with it. Raises OSError.
        """
        self.lent: dict[int, Lent] = {}
        self._heard, self._ended = heard, ended
        self._free = list(range(SLOTS - 1, -1, -1))
        self._number = 0
        descriptor = os.memfd_create("agw-marks")
        try:
            os.ftruncate(descriptor, MARKS_BYTES)
            self._marks = mmap.mmap(descriptor, MARKS_BYTES)
            self._post = Post(sock, self._hear, self._gone)
            if not self._post.send_now(HEAD.pack(MARKS, 0, 0), [descriptor]):
                self._post.close()
                raise OSError("it could not be told where the marks are")
        finally:
            os.close(descriptor)

    def lend(self, lent: Lent, descriptor: int, request: bytes) -> int:
        """The number under which it is away; 0: it is not."""
        if not self._free:
            return 0
        lent.slot = self._free[-1]
        self._marks[lent.slot] = UNTAKEN
        self._number += 1
        head = HEAD.pack(LEND, lent.slot, self._number)
        if not self._send(head, descriptor, request):
            return 0
        self._free.pop()
        self.lent[self._number] = lent
        return self._number

    def _send(self, head: bytes, descriptor: int, request: bytes) -> bool:
        if len(request) <= INLINE_BYTES:
            return self._post.send_now(head + request, [descriptor])
        try:
            memory = in_memory("agw-request", request)
        except OSError:
            return False
        try:
            return self._post.send_now(head, [descriptor, memory])
        finally:
            os.close(memory)

    def mark(self, lent: Lent) -> int:
        """How far it has got."""
        return self._marks[lent.slot]

    def forget(self, number: int) -> Lent | None:
        """It is there no more."""
        lent = self.lent.pop(number, None)
        if lent is not None:
            self._free.append(lent.slot)
        return lent

    def end(self, number: int, why: int) -> None:
        """Have it ended there: END or LEFT."""
        self._post.send(HEAD.pack(why, 0, number))

    def drain(self) -> None:
        """Have answers tell that their connections end with them."""
        self._marks[DRAINS] = 1

    def close(self) -> None:
        """Let go of it."""
        self._post.close()

    def _hear(self, message: bytes, descriptors: list[int]) -> None:
        kind, apart, number = HEAD.unpack_from(message)
        rest = message[HEAD.size :]
        try:
            if kind == BACK and apart:
                rest = read_memory(descriptors[0])
        except (OSError, IndexError):  # no descriptor was free: what was read is lost, and the connection with it
            kind = GONE
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._heard(self, kind, number, rest)

    def _gone(self) -> None:
        self._ended(self)


class Lender:
    """What a ``Lane`` lends by, of one edge."""

    def __init__(
        self,
        accounts: Accounts,
        place: Callable[[str], int | None],
        connect: Callable[[int], socket.socket],
        turns: Callable[[int], bool],
    ) -> None:
        """``place``: of the worker that an agent runs in, None where it is not to be had at the moment.

        ``connect``: a connection to the worker there, for whole messages; raises OSError. ``turns``: its loop does.
        """
        self._accounts, self._place, self._connect, self._turns = accounts, place, connect, turns
        self._borrowers: dict[int, Borrower] = {}
        self._away: dict[Downstream, tuple[Borrower, int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    # -- for the lane

    def lend(self, downstream: Downstream, descriptor: int, agent: str, model: str, label: str, request: bytes) -> bool:
        """Whether the worker of ``agent`` has the connection now. ``model``, ``label``: as Receipts and metrics name it."""
        borrower = self._borrower(agent)
        if borrower is None:
            return False
        number = borrower.lend(Lent(downstream, agent, model, label), descriptor, request)
        if number:
            self._away[downstream] = borrower, number
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        return bool(number)

    def recall(self, downstream: Downstream) -> None:
        """The gateway shuts down: what it asked for is to end."""
        away = self._away.get(downstream)
        if away is not None:
            away[0].end(away[1], END)

    def lost(self, downstream: Downstream) -> None:
        """It is closed here, while it is away: what is at work for it there is to end, and says when it has."""
        away = self._away.pop(downstream, None)
        if away is not None:
            away[0].end(away[1], LEFT)

    def drain(self) -> None:
        """The gateway shuts down: no connection goes on after the answer that it waits for."""
        for borrower in self._borrowers.values():
            borrower.drain()

    def close(self) -> None:
        """Nothing is lent any more."""
        if self._timer is not None:
            self._timer.cancel()
        for borrower in self._borrowers.values():
            borrower.close()
        self._borrowers.clear()

    # -- the other side

    def _borrower(self, agent: str) -> Borrower | None:
        place = self._place(agent)
        if place is None:
            return None
        known = self._borrowers.get(place)
        if known is not None:
            return known
        try:
            sock = self._connect(place)
        except OSError:
            return None
        try:
            made = Borrower(sock, self._heard, self._end)
        except OSError:
            sock.close()
            return None
        self._borrowers[place] = made
        return made

    def _heard(self, borrower: Borrower, kind: int, number: int, rest: bytes) -> None:
        lent = borrower.forget(number)
        if lent is None or self._away.pop(lent.downstream, None) is None:
            return
        if kind == BACK:
            lent.downstream.came_back(rest)
        elif kind == NOT_TAKEN:
            self._answer(lent, untaken())
        elif hung_up(lent.downstream.transport):
            lent.downstream.abort()
        else:
            lent.downstream.close()

    def _end(self, borrower: Borrower) -> None:
        """That worker has ended, and all that it had with it."""
        self._borrowers = {place: each for place, each in self._borrowers.items() if each is not borrower}
        for lent in list(borrower.lent.values()):
            if self._away.pop(lent.downstream, None) is None:
                continue
            mark = borrower.mark(lent)
            try:
                if mark == UNTAKEN:
                    self._answer(lent, untaken())
                elif mark == TAKEN:
                    self._answer(lent, ended(lent))
                else:
                    self._break_off(lent, told=mark != BEGUN)
            except Exception as defect:  # noqa: BLE001  one is no other's
                self._accounts.log.events.error("gateway.defect", error=repr(defect), where="a lent connection's end")
                lent.downstream.abort()

    def _break_off(self, lent: Lent, *, told: bool) -> None:
        """Nothing more can be said on it. ``told``: its Receipt is written."""
        if not told:
            exchange = self._exchange(lent)
            exchange.error, exchange.status = ended(lent), 200
            self._accounts.finish(exchange)
        lent.downstream.close()

    def _answer(self, lent: Lent, error: GatewayError) -> None:
        exchange = self._exchange(lent)
        try:
            answer = refuse_unparsed(exchange, error, close=lent.downstream.closes)
        finally:
            self._accounts.finish(exchange)
        lent.downstream.answer_instead(answer)

    def _exchange(self, lent: Lent) -> Exchange:
        downstream = lent.downstream
        peer = downstream.lane.shell.address(downstream.transport)
        exchange = self._accounts.begin_unparsed(downstream, peer, downstream.began, REASON)
        exchange.model, exchange.model_label = lent.model, lent.label
        return exchange

    def _look(self) -> None:
        """Look after those whose client nobody would hear leave: not looked at yet, or in a worker that stands still."""
        late = time.monotonic() - UNTAKEN_SECONDS
        stands = {id(borrower) for place, borrower in self._borrowers.items() if not self._turns(place)}
        for downstream, (borrower, number) in list(self._away.items()):
            lent = borrower.lent[number]
            waits = borrower.mark(lent) == UNTAKEN
            if (waits or id(borrower) in stands) and (hung_up(downstream.transport) or (waits and lent.since < late)):
                downstream.abort()
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look) if self._away else None


def ended(lent: Lent) -> GatewayError:
    """The error for a run that ended with its worker."""
    return AgentError(f"The worker that ran agent '{lent.agent}' has ended, and the run with it.")


def untaken() -> GatewayError:
    """The error for a request that its worker has not looked at."""
    return UpstreamUnreachable(
        "The worker that runs this agent could not take the request. Try again.", retry_after_ms=RETRY_AFTER_MS
    )
