"""What a trivial agent costs as a model of the gateway, over the SDK's own Runner: CPU of one run, each way in turn.

    python -m bench.agents [runs]

``direct`` is ``Runner.run`` with a scripted model; ``streamed`` is ``Runner.run_streamed`` read to its end; ``plain`` and
``stream`` are the same agent behind the upstream ``agents``, asked in Responses, with its answer in bytes. Who asks plain
has the first, who asks for a stream the second.
"""

import gc
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median

import agents
import orjson
import uvloop
from agents.testing import ModelStep, ScriptedModel, assistant_message

from agw_proxy._hot.peek import peek
from agw_proxy._hot.route import RouteTable
from agw_proxy.commands.serve import GC_THRESHOLD
from agw_proxy.sdk.entry import Entry
from agw_proxy.sdk.runner import Runner
from agw_proxy.types import Call
from agw_proxy.upstreams.agent import Agents

NAME = "default/trivial"
WARMUP = 50


class Nobodys(agents.ModelProvider):
    """A provider that is not the SDK's own, as the gateway's; nobody asks it, since the agent has its model."""

    def get_model(self, model_name: str | None) -> agents.Model:
        """None."""
        raise LookupError(model_name)


def answer() -> ModelStep:
    """What the model says."""
    return ModelStep([assistant_message("It is a fine day, and there is nothing to do.")])


async def measure(runs: int) -> dict[str, float]:
    """Microseconds of the loop's CPU, the median run."""
    model = ScriptedModel()
    agent = agents.Agent(name="trivial", instructions="Answer.", model=model)
    config = agents.RunConfig(tracing_disabled=True)
    entry = Entry(NAME, agent, "1", "agent.py")
    upstream = Agents(lambda _: entry, Runner(Nobodys(), lambda *_: None))
    route = RouteTable([("agents", ())], []).find(f"agents/{NAME}")
    if route is None:
        raise LookupError(NAME)
    target = route.targets[0]

    async def direct() -> None:
        await agents.Runner.run(agent, "Hello", run_config=config)

    async def streamed() -> None:
        result = agents.Runner.run_streamed(agent, "Hello", run_config=config)
        async for _ in result.stream_events():
            pass

    async def ask(body: bytes) -> None:
        call = Call("POST", "/responses", "", [], body, peek(body), "req-1")
        reply = await upstream.open(target, call)
        while not reply.ended:
            await reply.read()
        reply.close()

    async def plain() -> None:
        await ask(orjson.dumps({"model": NAME, "input": "Hello"}))

    async def stream() -> None:
        await ask(orjson.dumps({"model": NAME, "input": "Hello", "stream": True}))

    ways: dict[str, Callable[[], Awaitable[None]]] = {
        "direct": direct,
        "streamed": streamed,
        "plain": plain,
        "stream": stream,
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARMUP + runs):
        if number == WARMUP:  # as a gateway's worker does
            gc.collect()
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD, 50, 50)
        for name, way in ways.items():
            model.extend([answer()])
            begun = time.thread_time_ns()
            await way()
            if number >= WARMUP:
                spent[name].append((time.thread_time_ns() - begun) / 1000)
    await upstream.close()
    return {name: median(found) for name, found in spent.items()}


def main() -> None:
    """Print the figures."""
    found = uvloop.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
    for name, spent in found.items():
        over, base = spent - found["direct"], spent - found["streamed"]
        ratio = spent / found["direct" if name in {"direct", "plain"} else "streamed"]
        print(
            f"{name:9} {spent:8.0f} us a run {over:+8.0f} us over direct {base:+8.0f} us over streamed ({ratio:.2f} x its own)"
        )


if __name__ == "__main__":
    main()
