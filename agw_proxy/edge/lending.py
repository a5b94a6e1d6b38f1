"""A worker that relays lends connections: for a request of an agent, to the worker that runs it, until that has answered.

So nothing that an agent's answer costs (its parsing, its limits, its translation, its events) is spent where relays are.
What a lent connection asks for is that worker's in all respects, with the policy that all workers have, and its Receipt
is written there. Here stays a descriptor of the connection, which nobody reads meanwhile: it is gone on with when the
answer is out, and tells the client what has happened where that worker ends first.

A request that cannot be lent (its model leads to several targets, too much waits there, the worker is about to be
replaced, ...) is served by the full lane here, which has the agent run by a frame (``upstreams.agents_apart``).
"""

import mmap
import os
import socket
from collections.abc import Callable

from agw_proxy._hot.lane import Downstream
from agw_proxy.edge.accounts import Accounts
from agw_proxy.edge.posts import (
    BACK,
    BEGUN,
    END,
    GONE,
    HEAD,
    INLINE_BYTES,
    LEND,
    MARKS,
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


class Lent:
    """A connection that is away, and what its request named."""

    def __init__(self, downstream: Downstream, slot: int, agent: str, model: str, label: str) -> None:
        self.downstream, self.slot = downstream, slot
        self.agent, self.model, self.label = agent, model, label


class Borrower:
    """One worker that runs agents, as it is now: another process in its place is another Borrower."""

    def __init__(self, sock: socket.socket, ended: Callable[["Borrower"], None]) -> None:
        """``ended``: called when it has gone, while ``lent`` says what went with it. Raises OSError."""
        descriptor = os.memfd_create("agw-marks")
        try:
            os.ftruncate(descriptor, SLOTS)
            self._marks = mmap.mmap(descriptor, SLOTS)
            self._ended = ended
            self.lent: dict[int, Lent] = {}
            self._free = list(range(SLOTS - 1, -1, -1))
            self._number = 0
            self.heard: Callable[[int, int, bytes], None] | None = None
            self._post = Post(sock, self._hear, self._gone)
            self._post.send_now(HEAD.pack(MARKS, 0, 0), [descriptor])
        finally:
            os.close(descriptor)

    def lend(self, lent: "Callable[[int], Lent]", descriptor: int, request: bytes) -> int:
        """The number under which it is away; 0: it is not. ``lent``: makes the record, of its slot."""
        if not self._free:
            return 0
        slot = self._free.pop()
        self._marks[slot] = UNTAKEN
        self._number += 1
        head = HEAD.pack(LEND, slot, self._number)
        if len(request) <= INLINE_BYTES:
            gone = self._post.send_now(head + request, [descriptor])
        else:
            try:
                memory = in_memory("agw-request", request)
            except OSError:
                gone = False
            else:
                gone = self._post.send_now(head, [descriptor, memory])
                os.close(memory)
        if not gone:
            self._free.append(slot)
            return 0
        self.lent[self._number] = lent(slot)
        return self._number

    def took(self, lent: Lent) -> int:
        """The mark of one that is not forgotten yet."""
        return self._marks[lent.slot]

    def forget(self, number: int) -> Lent | None:
        """It is away no more."""
        lent = self.lent.pop(number, None)
        if lent is not None:
            self._free.append(lent.slot)
        return lent

    def end(self, number: int) -> None:
        """Have it ended there."""
        self._post.send(HEAD.pack(END, 0, number))

    def close(self) -> None:
        """Let go of it."""
        self._post.close()

    def _hear(self, message: bytes, descriptors: list[int]) -> None:
        kind, _, number = HEAD.unpack_from(message)
        rest = message[HEAD.size :]
        for descriptor in descriptors:
            rest = read_memory(descriptor)
            os.close(descriptor)
        if self.heard is not None:
            self.heard(kind, number, rest)

    def _gone(self) -> None:
        self._ended(self)


class Lender:
    """What a ``Lane`` lends by, of one edge."""

    def __init__(
        self, accounts: Accounts, place: Callable[[str], int | None], connect: Callable[[int], socket.socket]
    ) -> None:
        """``place``: of the worker that an agent runs in, None where it is not to be had at the moment.

        ``connect``: a connection to the worker there, for whole messages; raises OSError.
        """
        self._accounts, self._place, self._connect = accounts, place, connect
        self._borrowers: dict[int, Borrower] = {}
        self._away: dict[Downstream, tuple[Borrower, int]] = {}

    # -- for the lane

    def lend(self, downstream: Downstream, descriptor: int, agent: str, model: str, label: str, request: bytes) -> bool:
        """Whether the worker of ``agent`` has the connection now. ``model``, ``label``: as Receipts and metrics name it."""
        borrower = self._borrower(agent)
        if borrower is None:
            return False
        number = borrower.lend(lambda slot: Lent(downstream, slot, agent, model, label), descriptor, request)
        if number:
            self._away[downstream] = borrower, number
        return bool(number)

    def recall(self, downstream: Downstream) -> None:
        """The gateway shuts down: what it asked for is to end."""
        borrower, number = self._away[downstream]
        borrower.end(number)

    def lost(self, downstream: Downstream) -> None:
        """It is closed here, while it is away."""
        away = self._away.pop(downstream, None)
        if away is not None:
            borrower, number = away
            borrower.forget(number)
            borrower.end(number)

    def close(self) -> None:
        """Nothing is lent any more."""
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
            made = Borrower(sock, lambda gone: self._end(place, gone))
        except OSError:
            sock.close()
            return None
        made.heard = self._hear_of(made)
        self._borrowers[place] = made
        return made

    def _hear_of(self, borrower: Borrower) -> Callable[[int, int, bytes], None]:
        def heard(kind: int, number: int, rest: bytes) -> None:
            lent = borrower.forget(number)
            if lent is None:
                return
            del self._away[lent.downstream]
            if kind == BACK:
                lent.downstream.came_back(rest)
            elif kind == NOT_TAKEN:
                self._answer(lent, untaken())
            elif kind == GONE:
                self._shut(lent)

        return heard

    def _end(self, place: int, borrower: Borrower) -> None:
        """That worker has ended, and all that it had with it."""
        if self._borrowers.get(place) is borrower:
            del self._borrowers[place]
        for number in list(borrower.lent):
            lent = borrower.lent[number]
            mark = borrower.took(lent)
            borrower.forget(number)
            del self._away[lent.downstream]
            if mark >= BEGUN:
                self._shut(lent)
            elif mark == TAKEN:
                words = f"The worker that ran agent '{lent.agent}' has ended, and the run with it."
                self._answer(lent, AgentError(words))
            else:
                self._answer(lent, untaken())

    def _shut(self, lent: Lent) -> None:
        """Nothing more can be said on it."""
        lent.downstream.close()

    def _answer(self, lent: Lent, error: GatewayError) -> None:
        downstream = lent.downstream
        peer = downstream.lane.shell.address(downstream.transport)
        exchange = self._accounts.begin_unparsed(downstream, peer, downstream.began, REASON)
        exchange.model, exchange.model_label = lent.model, lent.label
        try:
            answer = refuse_unparsed(exchange, error, close=downstream.closes)
        finally:
            self._accounts.finish(exchange)
        downstream.answer_instead(answer)


def untaken() -> GatewayError:
    """The error for a request that its worker has not looked at."""
    return UpstreamUnreachable(
        "The worker that runs this agent was replaced before it took the request. Try again.",
        retry_after_ms=RETRY_AFTER_MS,
    )
