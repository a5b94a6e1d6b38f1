"""The link between supervisor and worker: whole messages, configurations by descriptor, and what breaks."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from agw_proxy.config.loader import ConfigError, Loaded, load
from agw_proxy.config.tree import problem
from agw_proxy.edge import worker_link
from agw_proxy.edge.listeners import listen
from agw_proxy.edge.server import Edge
from agw_proxy.edge.shared import Shared
from agw_proxy.edge.worker_link import (
    MAX_ERROR_CHARACTERS,
    Answer,
    Ask,
    Channel,
    Drain,
    Failed,
    Message,
    Ready,
    Stand,
    Take,
    Taken,
    WorkerLink,
    hand_over,
    receive_handed,
    shorten,
)
from agw_proxy.errors import ReloadFailed

SECRET = "agw-0123456789abcdefghij"
MESSAGES: list[Message] = [
    Ready("uvloop"), Failed("no"), Ask(7, discover=True), Taken(3, None), Taken(3, "no"), Take(3, 2, discover=False),
    Answer(7, None), Drain(hurry=True), Stand(1, accept=False),
]  # fmt: skip


def configuration(folder: Path) -> Loaded:
    return load(None, {"GATEWAY_KEYS__app__KEY": SECRET}, folder)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_arrive_whole_and_one_by_one(message: Message) -> None:
    one, other = Channel.pair()
    assert other.receive() is None
    assert one.send(message)
    assert one.send(Drain(hurry=False))
    assert other.receive() == (message, None)
    assert other.receive() == (Drain(hurry=False), None)
    assert other.receive() is None
    one.close()
    with pytest.raises(EOFError):
        other.receive()
    assert not other.send(message)
    other.close()


def test_the_longest_error_fits() -> None:
    one, other = Channel.pair()
    for character in ("\x01", "\U0001f600", '"'):
        failed = Failed(shorten(character * (MAX_ERROR_CHARACTERS + 5)))
        assert one.send(failed)
        assert other.receive() == (failed, None)
    one.close()
    other.close()


def test_a_side_that_lets_all_lie_does_not_block_the_other() -> None:
    one, other = Channel.pair()
    assert any(not one.send(Drain(hurry=False)) for _ in range(100_000))
    assert other.receive() is not None
    one.close()
    other.close()


def test_a_configuration_is_handed_over_with_its_secrets_to_all_alike(tmp_path: Path) -> None:
    loaded = configuration(tmp_path)
    descriptor = hand_over(loaded)
    copies = [receive_handed(os.dup(descriptor)) for _ in range(2)]
    os.close(descriptor)
    for copy in copies:
        assert copy == loaded
        key = copy.settings.keys[0].key
        assert key is not None
        assert key.get_secret_value() == SECRET


def test_so_is_the_reason_why_there_is_none() -> None:
    descriptor = hand_over(ConfigError([problem("expected another", "server.port")]))
    with pytest.raises(ConfigError, match=r"server\.port"):
        receive_handed(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


class Door:
    """Stands for an edge: knows on which sockets it accepts."""

    def __init__(self) -> None:
        self.accounts = SimpleNamespace(draining=False)
        self.open: list[socket.socket] = []

    async def accept_on(self, sock: socket.socket) -> None:
        self.open.append(sock)

    def leave(self, sock: socket.socket) -> None:
        self.open.remove(sock)


class Linked:
    """A worker's open link with a gateway that notes what it is told, and the supervisor's end."""

    def __init__(self) -> None:
        self.ours, theirs = Channel.pair()
        self.listeners = listen("127.0.0.1", 0, None, 2)
        self.link = WorkerLink(1, 4, theirs, Shared(2), self.listeners)
        self.door = Door()
        self.taken: list[tuple[int, bool, int]] = []
        self.retold: list[bool] = []
        self.stops: list[bool] = []

    async def take_up(self, version: int, *, discover: bool, heard: bool) -> str | None:
        try:
            loaded = await asyncio.to_thread(self.link.load)
        except ConfigError as error:
            return str(error)
        self.taken.append((version, discover, len(loaded.settings.keys)))
        self.retold.append(not heard)
        return None

    def hand(self, turn: int, outcome: Loaded | ConfigError, *, heard: bool = False) -> None:
        """As the supervisor does."""
        descriptor = hand_over(outcome)
        assert self.ours.send(Take(turn, turn, discover=True, heard=heard), descriptor)
        os.close(descriptor)

    async def heard(self) -> Message:
        """The worker's next message."""
        while (came := self.ours.receive()) is None:
            await asyncio.sleep(0.002)
        return came[0]

    async def until(self, probe: Callable[[], object]) -> None:
        """Wait for it."""
        while not probe():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def linked() -> AsyncIterator[Linked]:
    made = Linked()
    async with asyncio.timeout(10):
        await made.link.open([cast("Edge", made.door)], made, made.stops.append)
        assert isinstance(await made.heard(), Ready)
        try:
            yield made
        finally:
            await made.link.close()
            made.ours.close()
            made.listeners.close()


@pytest.mark.both_loops
async def test_a_worker_accepts_on_its_own_socket_and_ticks() -> None:
    async with linked() as made:
        assert made.door.open == [made.listeners.of(1)[0]]
        first = made.link.shared.ticked_ns(1)
        assert first > 0
        await made.until(lambda: made.link.shared.ticked_ns(1) > first)
        assert made.link.shared.ticked_ns(0) == 0


@pytest.mark.both_loops
async def test_it_stands_in_for_a_sibling_until_told_otherwise() -> None:
    async with linked() as made:
        made.ours.send(Stand(0, accept=True))
        await made.until(lambda: made.listeners.of(0)[0] in made.door.open)
        made.ours.send(Stand(0, accept=False))
        await made.until(lambda: made.door.open == [made.listeners.of(1)[0]])
        made.door.accounts.draining = True
        made.ours.send(Stand(0, accept=True))
        made.hand(1, ConfigError([problem("a fence")]))
        await made.heard()
        assert made.door.open == [made.listeners.of(1)[0]]


@pytest.mark.both_loops
async def test_what_is_handed_over_is_taken_up_in_order_and_said(tmp_path: Path) -> None:
    async with linked() as made:
        made.hand(5, configuration(tmp_path))
        made.hand(6, ConfigError([problem("expected another", "server.port")]))
        made.hand(7, configuration(tmp_path))
        told = [await made.heard() for _ in range(3)]
        assert made.taken == [(5, True, 1), (7, True, 1)]
    assert [message.turn for message in told if isinstance(message, Taken)] == [5, 6, 7]
    refused = told[1]
    assert isinstance(refused, Taken)
    assert "server.port" in str(refused.error)
    assert [told[0], told[2]] == [Taken(5, None), Taken(7, None)]


@pytest.mark.both_loops
async def test_a_defect_while_taking_up_is_told_and_the_next_one_is_taken(tmp_path: Path) -> None:
    async with linked() as made:
        descriptor = os.memfd_create("nonsense")
        os.write(descriptor, b"no pickle")
        made.ours.send(Take(1, 1, discover=False), descriptor)
        os.close(descriptor)
        told = await made.heard()
        assert isinstance(told, Taken)
        assert "UnpicklingError" in str(told.error)
        made.hand(2, configuration(tmp_path))
        assert await made.heard() == Taken(2, None)


async def test_a_worker_learns_which_reload_other_gateways_have_heard_of(tmp_path: Path) -> None:
    async with linked() as made:
        made.hand(1, configuration(tmp_path))
        assert await made.heard() == Taken(1, None)
        made.hand(2, configuration(tmp_path), heard=True)
        assert await made.heard() == Taken(2, None)
        assert made.retold == [True, False]


@pytest.mark.both_loops
async def test_a_reload_asks_the_supervisor_and_waits_for_its_answer() -> None:
    async with linked() as made:
        good = asyncio.create_task(made.link.reload(discover=True))
        bad = asyncio.create_task(made.link.reload(discover=False, heard=True))
        asked = [await made.heard(), await made.heard()]
        assert asked == [Ask(1, discover=True), Ask(2, discover=False, heard=True)]
        made.ours.send(Answer(99, "nobody asked for this"))
        made.ours.send(Answer(2, "worker 0 (pid 7): no answer in time"))
        with pytest.raises(ReloadFailed, match="worker 0"):
            await bad
        made.ours.send(Answer(1, None))
        await good


@pytest.mark.both_loops
async def test_a_drain_is_passed_on_with_its_hurry() -> None:
    async with linked() as made:
        made.ours.send(Drain(hurry=False))
        made.ours.send(Drain(hurry=True))
        await made.until(lambda: made.stops == [False, True])


@pytest.mark.both_loops
async def test_a_broken_link_drains_the_worker_and_ends_what_waits() -> None:
    async with linked() as made:
        waiting = asyncio.create_task(made.link.reload(discover=False))
        await made.heard()
        made.ours.close()
        with pytest.raises(ReloadFailed, match="has gone"):
            await waiting
        assert made.stops == [False]
        with pytest.raises(ReloadFailed, match="cannot be reached"):
            await made.link.reload(discover=False)


@pytest.mark.both_loops
async def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "ASK_SECONDS", 0.01)
    async with linked() as made:
        with pytest.raises(ReloadFailed, match="no answer"):
            await made.link.reload(discover=False)


@pytest.mark.both_loops
async def test_a_drain_lets_go_of_all_sockets_that_came_by_the_fork() -> None:
    async with linked() as made:
        made.link.shut_doors()
        assert [made.listeners.of(worker)[0].fileno() for worker in range(2)] == [-1, -1]
