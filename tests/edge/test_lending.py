"""Connections that are lent: what is asked for, in which worker it is answered, and what becomes of them whatever happens."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import pytest

from agw_proxy.edge import posts
from tests.edge.lent import Pair, lent
from tests.sdk.folders import says, write
from tests.support.behaviours import stream
from tests.support.client import Connection, Reply, bearer
from tests.support.fake_openai import ANSWER, spoken
from tests.support.gateway import APP_KEY, Tree, chat_body, configuration, provider
from tests.support.upstream import Upstream

PATIENCE = 60.0
pytestmark = pytest.mark.both_loops
WAITS = """\
import asyncio
from pathlib import Path

from agents import Agent, function_tool

from agw_proxy.sdk import FunctionModel

HERE = Path(__file__).parent


@function_tool
async def work() -> str:
    (HERE / "inside").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.005)
    return "worked"


def plays(turn):
    return "Done: " + turn.results[0] if turn.results else ["I try. ", turn.use("work")]


agent = Agent(name="Waits", tools=[work], model=FunctionModel(plays))
"""
LENGTH = """\
from agents import Agent

from agw_proxy.sdk import FunctionModel

agent = Agent(name="Length", model=FunctionModel(lambda turn: str(len(turn.said))))
"""
AGENTS = {
    "sky/agent.py": says("blue"),
    "length/agent.py": LENGTH,
    "waits/agent.py": WAITS,
}


@pytest.fixture
def config(upstream: Upstream, tmp_path: Path) -> Tree:
    write(tmp_path / "agents", AGENTS)
    return configuration(
        provider(upstream.url),
        server={"port": 0, "drain_seconds": 1, "body_seconds": 1},
        agents={"paths": [str(tmp_path / "agents")], "workers": 1},
        timeouts={},
        models=[{"name": "either", "targets": ["agents/default/sky"], "fallbacks": ["fake/gpt-4o-mini"]}],
    )


@pytest.fixture
async def pair(config: Tree, tmp_path: Path) -> AsyncIterator[Pair]:
    async with lent(config, tmp_path) as made:
        yield made


def asks(connection: Connection, model: str, **members: object) -> None:
    connection.send("POST", "/v1/chat/completions", chat_body(model=model, **members), bearer(APP_KEY))


def said(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    return str(orjson.loads(reply.body)["choices"][0]["message"]["content"])


def streamed(reply: Reply) -> str:
    """The text of a stream."""
    assert reply.status == 200, reply.body
    events = [line[6:] for line in reply.body.split(b"\n") if line.startswith(b"data: {")]
    return "".join(
        choice["delta"].get("content") or "" for event in events for choice in orjson.loads(event).get("choices", ())
    )


def upto(pieces: Iterator[bytes], words: bytes) -> None:
    """Read as far as these."""
    seen = b""
    while words not in seen:
        seen += next(pieces, words)


async def waiting(pair: Pair, tmp_path: Path) -> None:
    """The agent's tool is at work, in the other worker."""
    await pair.running.until((tmp_path / "agents/waits/inside").exists, PATIENCE)
    assert pair.away == 1


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
    await pair.running.until(lambda: not pair.away, PATIENCE)
    await pair.running.until(pair.running.receipts, PATIENCE)
    (line,) = pair.running.receipts()
    assert (line["outcome"], line["model"]) == ("caller_gone", "default/waits")
    assert not pair.lender._away


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


async def test_who_has_lent_may_end_and_the_answer_is_whole(pair: Pair, tmp_path: Path) -> None:
    with pair.running.connect() as connection:
        asks(connection, "default/waits", stream=True)
        head = await asyncio.to_thread(connection.head)
        await waiting(pair, tmp_path)
        borrower = pair.lender._borrowers.pop(0)
        (number,) = borrower.lent
        lent = borrower.forget(number)
        assert lent is not None
        borrower.close()  # nobody says that it is to end: as a process goes that is killed
        pair.lender._away.clear()
        lent.downstream.abort()
        (tmp_path / "agents/waits/go").touch()
        head.body = await asyncio.to_thread(lambda: b"".join(connection.pieces(head)))
        assert (streamed(head), head.complete) == ("I try. Done: worked", True)
        assert await asyncio.to_thread(connection.socket.recv, 1) == b""
    assert pair.away == 0


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


async def test_clients_of_a_unix_socket_are_lent_too(config: Tree, tmp_path: Path) -> None:
    path = tmp_path / "agw.sock"
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
