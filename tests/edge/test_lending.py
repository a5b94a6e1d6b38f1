"""Connections that are lent: what is asked for, and in which worker it is answered."""

import asyncio
from pathlib import Path

import orjson
import pytest

from agw_proxy.edge import posts
from tests.edge.lent import Pair, asks, lent, said, settings, streamed, waiting
from tests.support.behaviours import stream
from tests.support.fake_openai import ANSWER, spoken
from tests.support.gateway import APP_KEY, Tree, chat_body
from tests.support.upstream import Upstream

pytestmark = pytest.mark.both_loops


async def test_one_connection_goes_and_comes_back_as_often_as_its_requests_say(pair: Pair, upstream: Upstream) -> None:
    upstream.script(*[stream(spoken())] * 2)

    def talk() -> list[str]:
        heard = []
        with pair.running.connect() as connection:
            for _ in range(2):
                asks(connection, "default/sky")
                heard.append(said(connection.reply()))
                asks(connection, "gpt-4o-mini", stream=True)
                heard.append(streamed(connection.reply()))
                asks(connection, "default/sky", stream=True)
                heard.append(streamed(connection.reply()))
        return heard

    assert await asyncio.to_thread(talk) == ["blue", ANSWER, "blue"] * 2
    await pair.running.until(lambda: len(pair.running.receipts()) == 6)
    lines = pair.running.receipts()
    assert [line["lane"] for line in lines] == ["full", "fast", "full"] * 2
    assert {line["upstream"] for line in lines if line["lane"] == "full"} == {"agents"}
    await pair.running.until(lambda: not pair.away)
    assert not pair.home._here


async def test_messages_and_responses_are_lent_too(pair: Pair) -> None:
    body: Tree = {"model": "default/sky", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    message = await pair.running.ask("POST", "/v1/messages", body)
    assert [block["text"] for block in orjson.loads(message.body)["content"]] == ["blue"]
    response = await pair.running.ask("POST", "/v1/responses", {"model": "default/sky", "input": "hi"})
    assert orjson.loads(response.body)["output"][0]["content"][0]["text"] == "blue"
    assert pair.lender._borrowers[0]._number == 2
    await pair.running.until(lambda: len(pair.lender._borrowers[0]._free) == posts.SLOTS)


@pytest.mark.parametrize("size", [10, posts.INLINE_BYTES - 400, posts.INLINE_BYTES, 900_000])
async def test_requests_of_any_size_go(pair: Pair, size: int) -> None:
    reply = await pair.running.chat(model="default/length", messages=[{"role": "user", "content": "x" * size}])
    assert said(reply) == str(size)
    assert pair.lender._borrowers[0]._number == 1


async def test_what_leads_to_several_targets_stays(pair: Pair) -> None:
    assert said(await pair.running.chat(model="either")) == "blue"
    assert not pair.lender._borrowers


async def test_a_request_that_comes_behind_is_answered_in_its_turn(
    pair: Pair, tmp_path: Path, upstream: Upstream
) -> None:
    upstream.script(stream(spoken()))
    with pair.running.connect() as connection:
        asks(connection, "default/waits")
        await waiting(pair, tmp_path)
        asks(connection, "gpt-4o-mini", stream=True)
        (tmp_path / "agents/waits/go").touch()
        assert said(await asyncio.to_thread(connection.reply)) == "I try. Done: worked"
        assert streamed(await asyncio.to_thread(connection.reply)) == ANSWER
    await pair.running.until(lambda: len(pair.running.receipts()) == 2)
    assert [line["lane"] for line in pair.running.receipts()] == ["full", "fast"]


@pytest.mark.parametrize("size", [40_000, 900_000])
async def test_much_that_comes_behind_goes_back_with_the_connection(pair: Pair, tmp_path: Path, size: int) -> None:
    with pair.running.connect() as connection:
        asks(connection, "default/waits")
        await waiting(pair, tmp_path)
        members = {"messages": [{"role": "user", "content": "x" * size}]}
        sending = asyncio.create_task(asyncio.to_thread(asks, connection, "default/length", **members))
        await asyncio.sleep(0.05)
        (tmp_path / "agents/waits/go").touch()
        assert said(await asyncio.to_thread(connection.reply)) == "I try. Done: worked"
        await sending
        assert said(await asyncio.to_thread(connection.reply)) == str(size)
    assert pair.lender._borrowers[0]._number == 2


async def test_requests_sent_at_once_are_answered_in_order(pair: Pair) -> None:
    with pair.running.connect() as connection:
        for size in (1, 2, 3):
            asks(connection, "default/length", messages=[{"role": "user", "content": "x" * size}])
        heard = [said(await asyncio.to_thread(connection.reply)) for _ in range(3)]
    assert heard == ["1", "2", "3"]


async def test_a_client_that_leaves_ends_its_run(pair: Pair, tmp_path: Path) -> None:
    connection = pair.running.connect()
    asks(connection, "default/waits")
    await waiting(pair, tmp_path)
    connection.close()
    await pair.running.until(lambda: not pair.away)
    await pair.running.until(pair.running.receipts)
    (line,) = pair.running.receipts()
    assert (line["outcome"], line["model"]) == ("caller_gone", "default/waits")
    assert not pair.lender._away


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_drain_waits_and_then_ends_what_is_lent(pair: Pair, tmp_path: Path, *, is_stream: bool) -> None:
    with pair.running.connect() as connection:
        asks(connection, "default/waits", stream=is_stream)
        await waiting(pair, tmp_path)
        drained = asyncio.create_task(pair.drain(0))
        reply = await asyncio.to_thread(connection.reply)
        await drained
    (line,) = pair.running.receipts()
    assert (line["outcome"], line["status"]) == ("gateway_draining", 200 if is_stream else 503)
    assert b"shutting down" in reply.body
    assert pair.running.log.trees("server.stopped")[0]["ended_early"] == 1


async def test_an_answer_that_ends_in_a_drain_tells_that_its_connection_does(pair: Pair, tmp_path: Path) -> None:
    with pair.running.connect() as connection:
        asks(connection, "default/waits")
        await waiting(pair, tmp_path)
        drained = asyncio.create_task(pair.drain(0))
        await pair.running.until(lambda: pair.running.gateway._edges[0].lane.draining)
        (tmp_path / "agents/waits/go").touch()
        reply = await asyncio.to_thread(connection.reply)
        await drained
    assert (reply.status, reply.value("connection")) == (200, "close")


async def test_clients_of_a_unix_socket_are_lent_too(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "agw.sock"
    config = settings(upstream.url, tmp_path)
    config["server"]["host"] = f"unix:{path}"
    async with lent(config, tmp_path) as pair:
        reader, writer = await asyncio.open_unix_connection(str(path))
        body = orjson.dumps(chat_body(model="default/sky"))
        for _ in range(2):
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {APP_KEY}\r\n"
            writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            assert b"200 OK" in await reader.readline()
            answer = await reader.readuntil(b"}}")
            assert b'"blue"' in answer
        writer.close()
        await writer.wait_closed()
        assert pair.lender._borrowers[0]._number == 2


async def test_responses_that_nobody_waits_for_are_not_lent(pair: Pair) -> None:
    body = {"model": "default/sky", "input": "hi", "background": False}
    assert (await pair.running.ask("POST", "/v1/responses", body)).status == 200
    assert not pair.lender._borrowers


async def test_what_cannot_be_lent_is_run_there_all_the_same(pair: Pair) -> None:
    assert said(await pair.running.chat(model="default/sky")) == "blue"
    await pair.running.until(lambda: not pair.away)
    borrower = pair.lender._borrowers[0]
    taken, borrower._free[:] = list(borrower._free), []
    assert said(await pair.running.chat(model="default/sky")) == "blue"
    borrower._free[:] = taken
    assert borrower._number == 1
    await pair.running.until(lambda: len(pair.running.receipts()) == 2)
    assert {line["model"] for line in pair.running.receipts()} == {"default/sky"}


async def test_a_worker_of_another_configuration_is_lent_nothing(pair: Pair) -> None:
    assert said(await pair.running.chat(model="default/sky")) == "blue"
    link = pair.running.gateway._link
    assert link is not None
    link.taking = 2  # a reload has begun here
    assert said(await pair.running.chat(model="default/sky")) == "blue"
    assert pair.lender._borrowers[0]._number == 1
