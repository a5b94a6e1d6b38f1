"""Agents with scripted models, asked as the gateway asks them: in any of its forms, through its own translation."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from agents import Agent, MultiProvider, Usage, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

from agw_proxy._hot.peek import peek
from agw_proxy._hot.route import RouteTable, Target
from agw_proxy.config.resilience import Retries, Timeouts
from agw_proxy.config.values import Form
from agw_proxy.sdk.entry import Bounds, Entry, Shows
from agw_proxy.sdk.lookout import EVENT as BLOCKED
from agw_proxy.sdk.runner import Runner
from agw_proxy.sdk.turns import Books
from agw_proxy.types import Call, Caller
from agw_proxy.upstreams.agent import Agents
from agw_proxy.upstreams.health import Health
from agw_proxy.upstreams.opening import Opened, open_target
from agw_proxy.upstreams.service import Service

NAME = "default/helper"
PATHS: dict[Form, str] = {"chat": "/chat/completions", "responses": "/responses", "messages": "/messages"}


def words_of(answer: Any, form: Form) -> str:
    if form == "chat":
        return str(answer["choices"][0]["message"]["content"])
    blocks = answer["content"] if form == "messages" else [p for i in answer["output"] for p in i.get("content", ())]
    return "".join(block["text"] for block in blocks if "text" in block)


def said(*texts: str, usage: tuple[int, int] = (10, 5)) -> list[ModelStep]:
    return [ModelStep([assistant_message(text)], used(*usage)) for text in texts]


def used(given: int, made: int) -> Usage:
    return Usage(requests=1, input_tokens=given, output_tokens=made, total_tokens=given + made)


@function_tool
def weather(city: str) -> str:
    return f"Rain in {city}"


def with_weather(*after: ModelStep) -> ScriptedModel:
    call = function_call("weather", {"city": "Oslo"}, call_id="call_1")
    return ScriptedModel([ModelStep([assistant_message("I look."), call], used(20, 7)), *after])


class Served:
    """One agent behind the upstream ``agents``. ``told``: the events of its runs, but for what any busy machine may add."""

    def __init__(
        self,
        agent: Agent[Any],
        bounds: Bounds | None = None,
        shows: Shows = "hidden",
        *,
        books: Books | None = None,
        caller: Caller | None = None,
        threads: int = 32,
        runner: Runner | None = None,
    ) -> None:
        self.caller = caller
        self.told: list[tuple[str, dict[str, object]]] = []
        self.blocked: list[tuple[str, dict[str, object]]] = []
        self.entry = Entry(NAME, agent, "1", "agent.py", bounds=bounds or Bounds(), shows=shows)
        self.runner = runner or Runner(MultiProvider(), self._say, lambda: threads)
        self.upstream = Agents(lambda name: self.entry if name == NAME else None, self.runner, books=books)
        self.service = Service(
            upstream=self.upstream,
            retries=Retries(attempts=1),
            health=Health(),
            secrets=(),
            timeouts=Timeouts(),
            auth="none",
            stream_usage=True,
            speaks=("responses",),
        )

    def _say(self, event: str, members: Mapping[str, object]) -> None:
        (self.blocked if event == BLOCKED else self.told).append((event, dict(members)))

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.told]

    async def open(self, tree: dict[str, Any], form: Form = "responses") -> Opened:
        body = orjson.dumps({"model": NAME, **tree})
        call = Call(
            method="POST",
            path=PATHS[form],
            query="",
            headers=[],
            body=body,
            seen=peek(body),
            request_id="req-1",
            form=form,
            asks_usage=True,
            caller=self.caller,
        )
        return await open_target(target(), self.service, call)

    async def ask(self, tree: dict[str, Any], form: Form = "responses") -> bytes:
        """The whole body of the answer."""
        opened = await self.open(tree, form)
        try:
            return await rest(opened)
        finally:
            opened.reply.close()

    async def answer(self, words: str | Sequence[Any] = "Hello", form: Form = "responses", **more: Any) -> Any:
        """The answer to these words, in one piece, as a tree."""
        return orjson.loads(await self.ask({**asking(words, form), **more}, form))


def target() -> Target:
    route = RouteTable([("agents", ())], []).find(f"agents/{NAME}")
    assert route is not None
    return route.targets[0]


def asking(words: str | Sequence[Any], form: Form) -> dict[str, Any]:
    if form == "responses":
        return {"input": words}
    messages = [{"role": "user", "content": words}] if isinstance(words, str) else words
    return {"messages": messages, **({"max_tokens": 100} if form == "messages" else {})}


async def rest(opened: Opened) -> bytes:
    taken = opened.first
    while not opened.reply.ended:
        taken += await opened.reply.read()
    return taken


def trees(stream: bytes) -> list[dict[str, Any]]:
    """The data of a stream's events."""
    lines = [line[6:] for line in stream.split(b"\n") if line.startswith(b"data: ")]
    return [orjson.loads(line) for line in lines if line != b"[DONE]"]
