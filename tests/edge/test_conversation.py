"""A relay's rules and clocks, between two sides that are played."""

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import WebSocketError, WSMsgType

from agw_proxy.edge.conversation import Clocks, Conversation, End
from agw_proxy.errors import GatewayError, RateLimited
from agw_proxy.upstreams.websocket import Message, sendable

TEXT, CLOSE, PING, PONG = WSMsgType.TEXT, WSMsgType.CLOSE, WSMsgType.PING, WSMsgType.PONG
SLOW = Clocks(idle=60, client_write=60, upstream_write=60, ping=60, pong=60)


class Played:
    """A side that says what it is given, and keeps what it is sent."""

    def __init__(self, *messages: Message | Exception, stuck: bool = False, answers: bool = False) -> None:
        self.heard: asyncio.Queue[Message | Exception] = asyncio.Queue()
        for message in messages:
            self.heard.put_nowait(message)
        self.sent: list[tuple[WSMsgType, bytes]] = []
        self.broken = False
        self._stuck, self._answers = stuck, answers

    async def receive(self) -> Message:
        message = await self.heard.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, kind: WSMsgType, data: bytes) -> None:
        if self.broken:
            raise ConnectionResetError("gone")
        if self._stuck and kind is TEXT:
            await asyncio.Event().wait()
        self.sent.append((kind, data))
        if kind is PING and self._answers:
            self.heard.put_nowait(Message(PONG, data))


async def talk(
    client: Played,
    upstream: Played,
    clocks: Clocks = SLOW,
    judge: Callable[[bytes], GatewayError | None] = lambda data: None,  # noqa: ARG005
) -> End:
    async def from_upstream(data: bytes) -> tuple[bytes, GatewayError | None]:
        return data, judge(data)

    def scrub(reason: bytes) -> bytes:
        return reason.replace(b"secret", b"***")

    async with asyncio.timeout(5):
        return await Conversation(client, upstream, clocks, from_upstream=from_upstream, scrub=scrub).run()


async def test_messages_pass_in_order_and_a_close_ends_it_on_both_sides() -> None:
    client = Played(Message(TEXT, b"one"), Message(WSMsgType.BINARY, b"two"), Message(CLOSE, b"bye", 4000))
    upstream = Played()
    end = await talk(client, upstream)
    assert upstream.sent == [(TEXT, b"one"), (WSMsgType.BINARY, b"two")]
    assert (end.error, end.client, end.upstream, end.by) == (None, (4000, b""), (4000, b"bye"), "client")


async def test_a_close_without_a_code_is_passed_on_as_a_normal_one() -> None:
    end = await talk(Played(), Played(Message(CLOSE, b"", 0)))
    assert end.client == (1000, b"")


async def test_an_upstreams_reason_is_scrubbed_and_a_failing_code_is_a_failure() -> None:
    end = await talk(Played(), Played(Message(CLOSE, b"a secret", 1011)))
    assert end.client == (1011, b"a ***")
    assert end.error is not None
    assert end.error.code == "upstream_failed"


async def test_a_ping_is_answered_by_the_gateway_and_not_passed_on() -> None:
    client, upstream = Played(Message(PING, b"x"), Message(PONG, b""), Message(CLOSE, b"", 1000)), Played()
    await talk(client, upstream)
    assert client.sent == [(PONG, b"x")]
    assert upstream.sent == []


@pytest.mark.parametrize(("code", "outcome"), [(1009, "caller_body_too_large"), (1002, "caller_invalid_request")])
async def test_who_breaks_the_protocol_is_told_the_code(code: int, outcome: str) -> None:
    wrong = WebSocketError(code, "x")
    end = await talk(Played(wrong), Played())
    assert end.error is not None
    assert (end.error.code, end.client, end.upstream) == (outcome, (code, b""), (1001, b""))
    end = await talk(Played(), Played(wrong))
    assert end.error is not None
    assert (end.error.code, end.client, end.upstream) == ("upstream_broken", (1011, b""), (code, b""))


async def test_a_side_that_is_gone_is_sent_nothing() -> None:
    end = await talk(Played(EOFError()), Played())
    assert (end.error and end.error.code, end.client, end.upstream) == ("caller_gone", None, (1001, b""))
    end = await talk(Played(), Played(EOFError()))
    assert (end.error and end.error.code, end.client, end.upstream) == ("upstream_broken", (1011, b""), None)


async def test_a_close_that_came_before_a_failed_write_is_what_ended_it() -> None:
    upstream = Played()
    upstream.broken = True
    client = Played(Message(TEXT, b"x"))
    asyncio.get_running_loop().call_later(0.02, upstream.heard.put_nowait, Message(CLOSE, b"", 4002))
    assert (await talk(client, upstream)).client == (4002, b"")


async def test_a_limit_ends_it_behind_the_message_that_reached_it() -> None:
    refused = RateLimited("enough", rule="r", retry_after_ms=None)
    client = Played()
    end = await talk(client, Played(Message(TEXT, b"done")), judge=lambda data: refused)  # noqa: ARG005
    assert client.sent == [(TEXT, b"done")]
    assert (end.error, end.client, end.upstream) == (refused, (1008, b""), (1000, b""))


async def test_who_takes_nothing_for_too_long_is_left() -> None:
    clocks = Clocks(idle=60, client_write=0.1, upstream_write=60, ping=60, pong=60)
    end = await talk(Played(stuck=True), Played(Message(TEXT, b"x")), clocks)
    assert (end.error and end.error.code, end.client) == ("caller_gone", None)
    clocks = Clocks(idle=60, client_write=60, upstream_write=0.1, ping=60, pong=60)
    end = await talk(Played(Message(TEXT, b"x")), Played(stuck=True), clocks)
    assert (end.error and end.error.code, end.upstream) == ("upstream_timeout", None)


async def test_a_message_is_not_read_while_the_one_before_waits() -> None:
    clocks = Clocks(idle=60, client_write=0.2, upstream_write=60, ping=60, pong=60)
    upstream = Played(*[Message(TEXT, b"x")] * 3)
    await talk(Played(stuck=True), upstream, clocks)
    assert upstream.heard.qsize() == 2


async def test_silence_of_both_sides_ends_it() -> None:
    clocks = Clocks(idle=0.1, client_write=60, upstream_write=60, ping=60, pong=60)
    end = await talk(Played(), Played(), clocks)
    assert (end.error and end.error.code, end.client, end.upstream) == ("caller_timeout", (1001, b""), (1001, b""))


async def test_a_side_that_answers_no_ping_is_gone_and_one_that_does_is_not() -> None:
    clocks = Clocks(idle=0.8, client_write=60, upstream_write=60, ping=0.1, pong=0.1)
    silent, there = Played(), Played(answers=True)
    end = await talk(silent, there, clocks)
    assert (end.error and end.error.code, end.client) == ("caller_gone", None)
    end = await talk(Played(answers=True), Played(answers=True), clocks)
    assert end.error is not None
    assert end.error.code == "caller_timeout", "pings are no messages: they do not keep an idle session"


async def test_cancellation_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    task = asyncio.create_task(talk(Played(), Played()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


def test_a_reason_is_cut_within_its_bound_at_a_whole_character() -> None:
    code, reason = sendable(4000, ("\u00e9" * 100).encode())
    assert (code, len(reason)) == (4000, 122)
    reason.decode()
    assert sendable(1006, b"x") == (1000, b"")
