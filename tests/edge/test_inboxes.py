"""Inboxes: connections come whole and in order, nobody is blocked, and the end of all who put is seen."""

import os
import socket
from collections.abc import Iterator

import pytest

from agw_proxy.edge.inboxes import Inboxes


@pytest.fixture
def inboxes() -> Iterator[Inboxes]:
    made = Inboxes(2)
    yield made
    for ends in made._pairs:
        for end in ends:
            end.close()


def talk(one: socket.socket, other: socket.socket) -> bytes:
    one.send(b"hello")
    return other.recv(99)


def test_who_takes_talks_to_who_has_put(inboxes: Inboxes) -> None:
    assert len(inboxes) == 2
    assert inboxes.take(0) is None
    put = [inboxes.put(1), inboxes.put(1)]
    assert inboxes.take(0) is None
    for ours in put:
        theirs = inboxes.take(1)
        assert theirs is not None
        assert not os.get_inheritable(theirs.fileno())
        assert (talk(ours, theirs), talk(theirs, ours)) == (b"hello", b"hello")
        theirs.close()
        ours.close()


def test_what_was_put_is_there_for_who_comes_later_and_one_that_has_left_is_seen(inboxes: Inboxes) -> None:
    inboxes.put(0).close()
    theirs = inboxes.take(0)
    assert theirs is not None
    assert theirs.recv(1) == b""
    theirs.close()


def test_an_inbox_that_nobody_empties_refuses_and_does_not_block(inboxes: Inboxes) -> None:
    held: list[socket.socket] = []

    def fill() -> None:
        while len(held) < 100_000:
            held.append(inboxes.put(0))

    with pytest.raises(OSError, match=r"unavailable|[Tt]oo many"):
        fill()
    assert held
    for each in held:
        each.close()
    theirs = inboxes.take(0)
    assert theirs is not None
    theirs.close()


def test_who_takes_sees_when_nobody_is_left_to_put(inboxes: Inboxes) -> None:
    other = inboxes._pairs[0][0].dup()  # as another process has it
    inboxes.only_take()
    assert inboxes.take(0) is None
    other.close()
    with pytest.raises(EOFError):
        inboxes.take(0)
