"""Helpers leave a function what it was: its kind, signature, docstring and name; and they are here without the SDK."""

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, assert_type

import orjson
import pytest
from agents import Agent, function_tool
from agents.tool_context import ToolContext

import agw_proxy.sdk
from agw_proxy.sdk import rate_limit, retry, timeout, track
from agw_proxy.sdk.wrapping import name_of
from agw_proxy.tools.modules import PREFIX
from tests.support.gateway import PACKAGE_ROOT

HELPERS: list[Any] = [retry, retry(2), retry(attempts=2), timeout, timeout(5), timeout(seconds=5), rate_limit, rate_limit(5),
    rate_limit(requests=5, period=1), track, track("it"), track(name="it")]  # fmt: skip
Wrap = Callable[[Any], Any]


async def look(city: str, days: int = 1) -> str:
    """What the weather is like.

    Args:
        city: Where.
    """
    return f"{city} {days}"


@pytest.mark.parametrize("helper", HELPERS)
async def test_all_kinds_of_functions_go_through(helper: Wrap) -> None:
    def plain(a: int, *, b: int) -> int:
        return a + b

    async def stream(a: int) -> AsyncIterator[int]:
        yield a
        yield a + 1

    class Thing:
        @helper
        async def method(self, a: int) -> tuple[str, int]:
            return type(self).__name__, a

        @staticmethod
        @helper
        def still(a: int) -> int:
            return a

    class Streams:
        async def __call__(self, a: int) -> AsyncIterator[int]:
            yield a

    assert [item async for item in helper(Streams())(1)] == [1]
    assert inspect.isasyncgenfunction(helper(Streams()))
    assert helper(plain)(1, b=2) == 3
    assert await helper(look)("Oslo") == "Oslo 1"
    assert [item async for item in helper(stream)(1)] == [1, 2]
    assert await Thing().method(3) == ("Thing", 3)
    assert Thing.still(4) == 4
    assert await helper(partial(look, days=2))("Oslo") == "Oslo 2"


@pytest.mark.parametrize("helper", HELPERS)
async def test_a_tool_of_the_sdk_sees_what_it_would_have_seen(helper: Wrap) -> None:
    wrapped = helper(look)
    assert inspect.iscoroutinefunction(wrapped)
    assert inspect.signature(wrapped) == inspect.signature(look)
    made, bare = function_tool(wrapped), function_tool(look)
    assert (made.name, made.description) == (bare.name, bare.description)
    assert made.params_json_schema == bare.params_json_schema
    context = ToolContext(None, tool_name="look", tool_call_id="c", tool_arguments="{}", agent=Agent(name="a"))
    assert await made.on_invoke_tool(context, orjson.dumps({"city": "Oslo"}).decode()) == "Oslo 1"


@pytest.mark.parametrize("helper", [retry, timeout, rate_limit, track, track("it")])
def test_what_is_no_function_is_refused_with_what_to_do(helper: Wrap) -> None:
    def generator() -> Any:
        yield 1

    with pytest.raises(TypeError, match="right above 'def'"):
        helper(function_tool(look))
    with pytest.raises(TypeError, match="right above 'def'"):
        helper(staticmethod(look))
    with pytest.raises(TypeError, match="got a generator"):
        helper(generator)


async def test_a_type_checker_sees_what_they_have_wrapped() -> None:
    @track("plain")
    @retry(2)
    def plain(x: int) -> str:
        return str(x)

    @timeout
    @rate_limit(5, period=1)
    async def later(x: int, *, y: str = "") -> str:
        return f"{x}{y}"

    assert_type(plain(1), str)
    assert assert_type(await later(1, y="z"), str) == "1z"


def test_they_can_be_put_over_each_other() -> None:
    calls: list[int] = []

    @track
    @retry(attempts=3, base=0)
    @timeout(5)
    @rate_limit(100)
    def flaky() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError
        return "done"

    assert flaky() == "done"
    assert len(calls) == 3


def test_a_name_is_the_same_in_all_versions_of_an_agent() -> None:
    def tool() -> None: ...

    tool.__module__ = f"{PREFIX}17.Weather.tools"
    assert name_of(tool) == "Weather.tools.test_a_name_is_the_same_in_all_versions_of_an_agent.tool"
    assert name_of(look) == "tests.sdk.test_wrapping.look"


def test_they_are_imported_when_asked_for_and_without_the_sdk() -> None:
    assert set(agw_proxy.sdk.EXPORTS) <= set(dir(agw_proxy.sdk))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = agw_proxy.sdk.nothing
    script = (
        "import sys, agw_proxy.sdk; assert 'agw_proxy.sdk.retries' not in sys.modules\n"
        "from agw_proxy.sdk import retry, timeout, rate_limit, track\n"
        "assert not {'agents', 'openai', 'httpx2', 'opentelemetry', 'aiohttp'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PACKAGE_ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_stream_that_is_left_is_closed() -> None:
    closed = asyncio.Event()

    @track
    @timeout(5)
    @rate_limit(100)
    @retry
    async def stream() -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
        finally:
            closed.set()

    items = stream()
    assert await anext(items) == 0
    await items.aclose()  # type: ignore[attr-defined]  # it is a generator still
    assert closed.is_set()
