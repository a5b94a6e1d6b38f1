"""Connections that are lent: what becomes of them where a worker, a client or the kernel fails."""

import asyncio
import contextlib
import errno
import os
import socket
from pathlib import Path

import pytest

from agw_proxy.edge import posts, visits
from tests.edge.lent import Pair, asks, said, streamed, upto, waiting
from tests.support.behaviours import stream
from tests.support.fake_openai import ANSWER, spoken
from tests.support.upstream import Upstream

pytestmark = pytest.mark.both_loops


async def dies(pair: Pair) -> None:
    """The other worker ends, as far as it can be seen from here."""
    home = pair.home
    home._post._socket.shutdown(socket.SHUT_RDWR)
    for visit in list(home._here.values()):  # nobody reads those connections any more
        if visit.downstream is not None:
            visit.downstream.abort()
    await pair.running.until(lambda: not pair.away)


async def test_who_waits_for_a_worker_that_ends_is_told_and_keeps_the_connection(
    pair: Pair, tmp_path: Path, upstream: Upstream
) -> None:
    upstream.script(stream(spoken()))
    with pair.running.connect() as connection:
        asks(connection, "default/waits")
        await waiting(pair, tmp_path)
        await dies(pair)
        reply = await asyncio.to_thread(connection.reply)
        assert (reply.status, reply.error["code"]) == (502, "agent_error")
        assert "has ended, and the run with it" in str(reply.error["message"])
        asks(connection, "gpt-4o-mini", stream=True)
        assert streamed(await asyncio.to_thread(connection.reply)) == ANSWER
    line = next(line for line in pair.running.receipts() if line["status"] == 502)
    assert (line["outcome"], line["model"], line["key"]) == ("upstream_agent_error", "default/waits", "app")
    assert said(await pair.running.chat(model="default/sky")) == "blue"
    await pair.running.until(lambda: not pair.away)


async def test_an_answer_that_has_begun_breaks_off_with_its_worker(pair: Pair, tmp_path: Path) -> None:
    with pair.running.connect() as connection:
        asks(connection, "default/waits", stream=True)
        head = await asyncio.to_thread(connection.head)
        pieces = connection.pieces(head)
        await asyncio.to_thread(upto, pieces, b"I try. ")
        await waiting(pair, tmp_path)
        await dies(pair)
        rest = await asyncio.to_thread(b"".join, pieces)
    assert (head.status, head.complete, b"[DONE]" in rest) == (200, False, False)


async def test_a_worker_that_ends_before_it_looks_at_a_request_has_it_asked_again(pair: Pair) -> None:
    assert said(await pair.running.chat(model="default/sky")) == "blue"
    await pair.running.until(lambda: not pair.away)
    pair.home._post._loop.remove_reader(pair.home._post._socket.fileno())
    with pair.running.connect() as connection:
        asks(connection, "default/sky")
        await pair.running.until(lambda: pair.away)
        await dies(pair)
        reply = await asyncio.to_thread(connection.reply)
        assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")
        asks(connection, "default/sky")
        assert said(await asyncio.to_thread(connection.reply)) == "blue"


async def test_a_connection_that_comes_without_its_descriptor_is_answered(pair: Pair) -> None:
    """There was none free for it."""
    assert said(await pair.running.chat(model="default/sky")) == "blue"
    pair.home._marks = None
    reply = await pair.running.chat(model="default/sky")
    assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")
    assert pair.away == 0


async def test_who_has_lent_may_end_and_the_answer_is_whole(pair: Pair, tmp_path: Path) -> None:
    with pair.running.connect() as connection:
        asks(connection, "default/waits", stream=True)
        head = await asyncio.to_thread(connection.head)
        await waiting(pair, tmp_path)
        borrower = pair.lender._borrowers.pop(0)
        ((downstream, _),) = pair.lender._away.items()
        borrower.close()  # nobody says that it is to end: as a process goes that is killed
        pair.lender._away.clear()
        downstream.abort()
        (tmp_path / "agents/waits/go").touch()
        head.body = await asyncio.to_thread(lambda: b"".join(connection.pieces(head)))
        assert (streamed(head), head.complete) == ("I try. Done: worked", True)
        assert await asyncio.to_thread(connection.socket.recv, 1) == b""
    assert pair.away == 0


async def test_what_the_kernel_cannot_send_is_no_workers_end(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many descriptors on their way, for one: who is away stays there, and the next one goes by a frame."""
    with pair.running.connect() as connection:
        asks(connection, "default/waits")
        await waiting(pair, tmp_path)
        with monkeypatch.context() as patch:

            def fails(*_: object) -> None:
                raise OSError(errno.ETOOMANYREFS, "Too many references: cannot splice")

            patch.setattr(pair.lender._borrowers[0]._post, "_put", fails)
            assert said(await pair.running.chat(model="default/sky")) == "blue"
        assert pair.away == 1
        (tmp_path / "agents/waits/go").touch()
        assert said(await asyncio.to_thread(connection.reply)) == "I try. Done: worked"


async def test_what_comes_back_without_its_descriptor_ends_the_connection(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes are missing: whatever came next would be read as something that it is not."""
    with pair.running.connect() as connection:
        asks(connection, "default/waits")
        await waiting(pair, tmp_path)
        post = pair.lender._borrowers[0]._post
        heard = post._heard

        def robbed(message: bytes, descriptors: list[int]) -> None:
            for descriptor in descriptors:
                os.close(descriptor)
            heard(message, [])

        monkeypatch.setattr(post, "_heard", robbed)
        members = {"messages": [{"role": "user", "content": "x" * 60_000}]}
        asks(connection, "default/length", **members)
        await asyncio.sleep(0.05)
        (tmp_path / "agents/waits/go").touch()
        assert said(await asyncio.to_thread(connection.reply)) == "I try. Done: worked"
        with pytest.raises((EOFError, OSError)):
            await asyncio.to_thread(connection.reply)
    await pair.running.until(lambda: not pair.away)


async def test_an_answer_that_breaks_off_has_one_receipt(pair: Pair, tmp_path: Path) -> None:
    with pair.running.connect() as connection:
        asks(connection, "default/waits", stream=True)
        pieces = connection.pieces(await asyncio.to_thread(connection.head))
        await asyncio.to_thread(upto, pieces, b"I try. ")
        await waiting(pair, tmp_path)
        pair.home._post.close()  # its own Receipt says that the client has gone: in a process of its own it would not
        await pair.running.until(lambda: not pair.away)
        await asyncio.to_thread(b"".join, pieces)
    lines = [line for line in pair.running.receipts() if line["outcome"] == "upstream_agent_error"]
    assert [(line["status"], line["model"], line["lane_reason"]) for line in lines] == [
        (200, "default/waits", "in_process")
    ]


async def test_a_client_that_leaves_a_worker_that_stands_still_is_let_go(pair: Pair) -> None:
    assert said(await pair.running.chat(model="default/sky")) == "blue"
    await pair.running.until(lambda: not pair.away)
    loop, descriptor = pair.home._post._loop, pair.home._post._socket.fileno()
    loop.remove_reader(descriptor)
    connection = pair.running.connect()
    asks(connection, "default/sky")
    await pair.running.until(lambda: pair.away)
    connection.close()
    await pair.running.until(lambda: not pair.away)
    loop.add_reader(descriptor, pair.home._post._read)  # the end came before its request was begun
    await pair.running.until(lambda: len(pair.lender._borrowers[0]._free) == posts.SLOTS)
    assert not pair.home._here


async def test_marks_that_cannot_be_had_are_asked_for_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """There was no descriptor free for them."""
    with monkeypatch.context() as patch:
        know = visits.Home._know

        def robbed(home: visits.Home, descriptors: list[int]) -> None:
            for descriptor in descriptors:
                os.close(descriptor)
            know(home, [])

        patch.setattr(visits.Home, "_know", robbed)
        assert pair.lender._borrower("default/sky") is not None
        await pair.running.until(lambda: not pair.lender._borrowers)
    assert said(await pair.running.chat(model="default/sky")) == "blue"
    assert pair.lender._borrowers


async def test_what_is_behind_a_request_is_not_read_without_an_end(pair: Pair) -> None:
    """Also where it is there before the other worker's connection is."""
    assert pair.lender._borrower("default/waits") is not None
    hosted = pair.far._agents
    await pair.running.until(lambda: hosted._visits._homes)  # type: ignore[attr-defined]
    loop, descriptor = pair.home._post._loop, pair.home._post._socket.fileno()
    loop.remove_reader(descriptor)
    with pair.running.connect() as connection:
        asks(connection, "default/waits")
        await pair.running.until(lambda: pair.away)

        def pour() -> int:
            sent = 0
            connection.socket.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                while sent < 64 << 20:
                    sent += connection.socket.send(b"x" * 65536)
            return sent

        before = await asyncio.to_thread(pour)
        loop.add_reader(descriptor, pair.home._post._read)
        assert before + await asyncio.to_thread(pour) < 64 << 20
        connection.reset()
    await pair.running.until(lambda: not pair.away)
