"""Two workers of one gateway in one process, on real sockets: one has the clients and relays, the other runs the agents."""

import asyncio
import copy
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import orjson

from agw_proxy.app import Gateway
from agw_proxy.config.loader import Loaded, load
from agw_proxy.edge.agents_hosted import HostedAgents
from agw_proxy.edge.agents_placed import PlacedAgents
from agw_proxy.edge.inboxes import Inboxes
from agw_proxy.edge.lending import Lender
from agw_proxy.edge.listeners import listen
from agw_proxy.edge.shared import Shared
from agw_proxy.edge.visits import Home
from agw_proxy.edge.worker_link import Channel, Drain, WorkerLink
from agw_proxy.observe.log import Log
from tests.edge.inprocess import Lines, Running, never_blocking, write
from tests.sdk.folders import says
from tests.sdk.folders import write as write_agents
from tests.support.client import Connection, Reply, bearer
from tests.support.gateway import APP_KEY, Tree, chat_body, configuration, provider

SECONDS = 60.0


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


class Pair:
    """``running``: the worker that relays; its log is that of both. ``far``: the one that runs agents."""

    def __init__(
        self, running: Running, far: Gateway, channels: list[Channel], tasks: "list[asyncio.Task[None]]"
    ) -> None:
        self.running, self.far = running, far
        self._channels, self._tasks = channels, tasks

    @property
    def away(self) -> int:
        """How many connections the other worker has."""
        return self.running.gateway._edges[0].lane.away

    @property
    def lender(self) -> Lender:
        placed = self.running.gateway._agents
        assert isinstance(placed, PlacedAgents)
        assert placed._lender is not None
        return placed._lender

    @property
    def home(self) -> Home:
        """How the worker that relays is seen from where its connections go."""
        hosted = self.far._agents
        assert isinstance(hosted, HostedAgents)
        assert hosted._visits is not None
        (home,) = hosted._visits._homes
        return home

    async def drain(self, which: int, *, hurry: bool = False) -> None:
        """As the supervisor ends a worker: 0 is the one that relays."""
        self._channels[2 * which].send(Drain(hurry))
        async with asyncio.timeout(SECONDS):
            await self._tasks[which]


@asynccontextmanager
async def lent(config: Tree, folder: Path) -> AsyncIterator[Pair]:
    """Serve ``config`` by both."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    file = folder / "gateway.yaml"
    write(file, config)
    surroundings = {"XDG_STATE_HOME": str(folder / "state")}

    def read() -> Loaded:
        return load(file, surroundings, folder)

    async with AsyncExitStack() as stack:
        listeners = listen(config["server"].get("host", "127.0.0.1"), 0, None, 1)
        stack.callback(listeners.remove)
        stack.callback(listeners.close)
        inboxes, shared, lines = Inboxes(1), Shared(2), Lines()
        others = copy.copy(inboxes)  # as another process has them
        others._pairs = [(puts.dup(), takes.dup()) for puts, takes in inboxes._pairs]
        channels = [end for _ in range(2) for end in Channel.pair()]
        sockets = [end for one in (inboxes, others) for ends in one._pairs for end in ends]
        for close in (*(each.close for each in channels), *(each.close for each in sockets)):
            stack.callback(close)
        links = [WorkerLink(n, 1, channels[2 * n + 1], shared, listeners, (inboxes, others)[n]) for n in range(2)]
        near, far = (Gateway(read(), read, Log(lines), surroundings, link=link) for link in links)
        tasks = [loop.create_task(each.serve(lambda *_: None)) for each in (near, far)]
        running = Running(near, listeners.url, lines, file, tasks[0])
        pair = Pair(running, far, channels, tasks)
        try:
            await running.until(lambda: all(shared.stands(n)[0] for n in range(2)) or tasks[0].done(), SECONDS)
            with never_blocking():
                yield pair
        finally:
            for which in (0, 1):
                await pair.drain(which, hurry=True)
    assert not lines.trees("gateway.defect"), "a worker had a defect (or blocked the loop)"


def settings(url: str, folder: Path) -> Tree:
    """Of a gateway whose upstream is at ``url``, and whose agents have one worker."""
    write_agents(folder / "agents", AGENTS)
    return configuration(
        provider(url),
        server={"port": 0, "drain_seconds": 1, "body_seconds": 1},
        agents={"paths": [str(folder / "agents")], "workers": 1},
        timeouts={},
        models=[{"name": "either", "targets": ["agents/default/sky"], "fallbacks": ["fake/gpt-4o-mini"]}],
    )


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
    await pair.running.until((tmp_path / "agents/waits/inside").exists, SECONDS)
    assert pair.away == 1
