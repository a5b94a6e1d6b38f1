"""Many runs at once in workers of their own: their traces go on there, and what their clients leave leaves nothing behind."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from agw_proxy.upstreams.agents_apart import _rank
from tests.sdk.folders import write
from tests.support.collector import Collector
from tests.support.gateway import APP_KEY, Gateway, configuration, provider
from tests.support.mcp_servers import Children
from tests.support.providers import TEXT, plays
from tests.support.upstream import Upstream

pytestmark = pytest.mark.timeout(900)
SECONDS = 300.0  # for whatever is waited for, on a busy machine
CALLERS, ABOVE = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
NAMES = ("north", "south")
COUPLE = ("left", "right")  # both at home in the same worker
MANY = 50  # of each
LEAVE = ("first", "tool", "mcp", "text")  # where they are when their clients go
ASKS = 'from agents import Agent\n\nagent = Agent(name="Asks", model="gpt-4o-mini")\n'
EACH_OTHER = """\
import asyncio
from pathlib import Path
from agents import Agent

HERE = Path(__file__).parent

async def begins(context, agent):
    (HERE / "in").touch()
    while not (HERE.parent / "both").exists():
        await asyncio.sleep(0.02)
    return ""

agent = Agent(name="Asks", instructions=begins, model="default/{other}")
"""
DOES = """\
import asyncio
from pathlib import Path
from agents import Agent, function_tool
from agents.mcp import MCPServerStdio
from agw_proxy.sdk import FunctionModel

HERE = Path(__file__).parent

def note(said):
    with (HERE / "notes").open("a") as file:
        file.write(said + "\\n")

@function_tool
async def work(said: str) -> str:
    note(said)
    while not (HERE / "go").exists():
        await asyncio.sleep(0.02)
    return "worked"

@function_tool
async def look() -> str:
    return f"{{len(asyncio.all_tasks())}} tasks."

async def answers(turn):
    kind = turn.said.partition(" ")[0]
    if turn.results:
        return turn.results[0] if kind == "look" else "Done."
    if kind in ("first", "mcp"):
        note(turn.said)
    if kind == "first":
        await asyncio.Event().wait()
    if kind == "look":
        return turn.use("look")
    if kind == "go":
        return turn.use("echo", text=turn.said)
    if kind == "mcp":
        return turn.use("wait")
    words = ["I begin."] if kind == "text" else []
    return [*words, turn.use("work", said=turn.said)]

agent = Agent(name="Does", model=FunctionModel(answers), tools=[work, look], mcp_servers=[{server}])
"""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Children:
    return Children(tmp_path_factory.mktemp("mcp"))


@pytest.fixture(scope="module")
def gateway(collector: Collector, upstream: Upstream, children: Children) -> Iterator[Gateway]:
    """One worker that relays, and two that run agents, each of which is the home of one."""
    homes = [min((0, 1), key=lambda place: _rank(f"default/{name}", place)) for name in (*NAMES, *COUPLE)]
    assert homes == [1, 0, 1, 1]
    made = Gateway(
        configuration(
            provider(upstream.url),
            server={"port": 0, "heartbeat_seconds": 0},
            agents={
                "workers": 2,
                "concurrent": MANY,
                "queue": 0,
                "overrides": [{"name": f"default/{name}", "concurrent": 1, "queue": 4} for name in COUPLE],
            },
            trace={"endpoint": collector.url},
            timeouts={},
        )
    )
    files = {f"{name}/agent.py": DOES.format(server=children.source) for name in NAMES}
    files |= {f"{name}/agent.py": EACH_OTHER.format(other=COUPLE[name == COUPLE[0]]) for name in COUPLE}
    write(made.folder / "work" / "agents", {"asks/agent.py": ASKS, **files})
    try:
        made.launch()
        (ready,) = made.until(
            lambda: [line for line in made.logs() if line["event"] == "server.ready"], "late", SECONDS
        )
        made.url = ready["url"]
        yield made
        assert made.stop() == 0
        assert children.alive == []
    finally:
        made.__exit__()


def test_a_trace_goes_on_where_the_run_is(gateway: Gateway, collector: Collector, upstream: Upstream) -> None:
    upstream.script(plays(TEXT))
    sent = {"traceparent": f"00-{CALLERS}-{ABOVE}-01"}
    reply = gateway.post("/v1/responses", {"model": "default/asks", "input": "Well?"}, headers=sent)
    assert reply.status == 200, reply.body
    request, agent = collector.named("chat default/asks", "invoke_agent Asks")
    (inner,) = collector.named("chat gpt-4o-mini", kind="server")
    (call,) = [span for span in collector.spans if span.kind == "client"]
    assert {span.trace_id for span in (request, agent, inner, call)} == {CALLERS}
    assert [request.parent_id, agent.parent_id] == [ABOVE, request.span_id]
    assert [call.parent_id, inner.parent_id] == [agent.span_id, call.span_id]
    assert [asked.value("traceparent") for asked in upstream.wait(1)] == [f"00-{CALLERS}-{inner.span_id}-01"]


async def test_a_hundred_runs_a_third_of_which_is_left_leave_nothing(gateway: Gateway, children: Children) -> None:
    async with asyncio.timeout(SECONDS):
        for name in NAMES:  # what is made for the first is there
            assert "Done." in await talk(gateway, name, "go", "warm")
        before = [await quiet(gateway, name) for name in NAMES], descriptors(gateway)
        processes = children.pids
        asked = [
            ask(gateway, name, f"{'go' if number % 3 else LEAVE[number // 3 % 4]} {number}", f"s{number}")
            for number in range(MANY)
            for name in NAMES
        ]
        told = await asyncio.gather(*asked)
        assert sum(text is None for text in told) == 34
        whole_ones = [text for text in told if text is not None]
        assert all('"status":"completed"' in text and "Done." in text for text in whole_ones)
        assert 20 < sum("response.completed" in text for text in whole_ones) < 46
        while [await quiet(gateway, name) for name in NAMES] != before[0] or descriptors(gateway) > before[1]:
            await asyncio.sleep(0.05)
        assert (children.pids, children.alive) == (processes, processes)
        # All places and all sessions are free again: as many as there are can be held at once.
        held = [asyncio.create_task(talk(gateway, "south", f"hold {number}", f"s{number}")) for number in range(MANY)]
        await noted(gateway, "south", [f"hold {number}" for number in range(MANY)])
        (folder(gateway) / "south" / "go").touch()
        assert all("Done." in text for text in await asyncio.gather(*held))


async def test_two_agents_with_a_place_each_that_ask_each_other_do_not_wait_for_ever(gateway: Gateway) -> None:
    async with asyncio.timeout(SECONDS):
        asked = [asyncio.create_task(whole(*await begin(gateway, name, "hi", ""))) for name in COUPLE]
        while not all((folder(gateway) / name / "in").exists() for name in COUPLE):
            assert not any(each.done() for each in asked)
            await asyncio.sleep(0.02)
        (folder(gateway) / "both").touch()
        answers = "".join(await asyncio.gather(*asked))
    assert answers.count("HTTP/1.1 503") == 2
    assert "taken by runs that wait for that one in turn" in answers


def test_what_was_traced_last_is_sent_before_the_end(
    gateway: Gateway, collector: Collector, upstream: Upstream
) -> None:
    """The last of this module: it ends the gateway."""
    upstream.script(plays(TEXT))
    trace = "a" * 32
    sent = {"traceparent": f"00-{trace}-{ABOVE}-01"}
    assert gateway.post("/v1/responses", {"model": "default/asks", "input": "Well?"}, headers=sent).status == 200
    assert gateway.stop() == 0
    assert "invoke_agent Asks" in [span.name for span in collector.spans if span.trace_id == trace]


def folder(gateway: Gateway) -> Path:
    return gateway.folder / "work" / "agents"


def descriptors(gateway: Gateway) -> list[int]:
    """How many each worker has open."""
    pids = {line["worker"]: line["pid"] for line in gateway.logs() if line.get("event") == "worker.ready"}
    return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for _, pid in sorted(pids.items())]


async def quiet(gateway: Gateway, name: str) -> str:
    """The tasks of the worker where that agent runs."""
    said = await talk(gateway, name, "look")
    return next(line for line in said.splitlines() if "tasks." in line and "output_text.done" in line).partition(
        "tasks"
    )[0][-8:]


async def noted(gateway: Gateway, name: str, said: Sequence[str]) -> None:
    """Until runs have come so far."""
    notes = folder(gateway) / name / "notes"
    while not notes.exists() or not set(said) <= set(notes.read_text().splitlines()):
        await asyncio.sleep(0.02)


async def ask(gateway: Gateway, name: str, said: str, session: str) -> str | None:
    """The whole answer, as a stream or, of odd numbers, in one piece; None where the client leaves in the middle, as the words say."""
    stream = said.startswith("text") or int(said.partition(" ")[2]) % 2 == 0
    if said.startswith("go"):
        return await talk(gateway, name, said, session, stream=stream)
    reader, writer = await begin(gateway, name, said, session, stream=stream)
    if said.startswith("text"):
        await reader.readuntil(b"I begin.")
    await noted(gateway, name, [said])
    writer.transport.abort()
    return None


async def talk(gateway: Gateway, name: str, said: str, session: str = "", *, stream: bool = True) -> str:
    """The whole answer."""
    answer = await whole(*await begin(gateway, name, said, session, stream=stream))
    assert answer.startswith("HTTP/1.1 200"), answer
    return answer


async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """All that comes."""
    answer = await reader.read()
    writer.close()
    return answer.decode()


async def begin(
    gateway: Gateway, name: str, said: str, session: str, *, stream: bool = True
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask on a connection of its own."""
    where = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    body = orjson.dumps({"model": f"default/{name}", "input": said, "stream": stream})
    headers = ["POST /v1/responses HTTP/1.1", "Host: here", f"Authorization: Bearer {APP_KEY}", "Connection: close"]
    headers += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    headers += [f"x-session-id: {session}"] if session else []
    writer.write("\r\n".join([*headers, "", ""]).encode() + body)
    return reader, writer
