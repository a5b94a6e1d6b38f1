"""What the helpers of agents' authors have in common: they go around functions, async ones and async generators alike.

A wrapped function keeps its name, signature, docstring and kind, so that ``@function_tool`` above it sees what it would
have seen.
"""

import contextlib
import functools
import inspect
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, ParamSpec, Protocol, TypeVar

from agw_proxy.tools.modules import PREFIX

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
PRIVATE = re.compile(rf"^{PREFIX}\d+\.")
"""What ``loading`` puts in front of an agent's modules, and which differs from version to version."""


class Helper(Protocol):
    """What is done around one function."""

    def sync(self, call: Callable[[], T]) -> T:
        """Call it, on this thread."""
        ...

    async def awaited(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call it, and wait for what it gives."""
        ...

    def streamed(self, call: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
        """Call it, and pass on what it yields."""
        ...


def wrap(function: Callable[P, R], helper: Helper) -> Callable[P, R]:
    """The function with the helper around it. Raises TypeError where it is none, or one of a kind that helpers do not take."""
    kind = _checked(function)
    given: Any = function
    wrapped: Any
    if kind == "stream":

        @functools.wraps(given)
        async def stream(*args: Any, **named: Any) -> AsyncIterator[Any]:
            async with contextlib.aclosing(helper.streamed(lambda: given(*args, **named))) as items:
                async for item in items:
                    yield item

        wrapped = stream
    elif kind == "async":

        @functools.wraps(given)
        async def coroutine(*args: Any, **named: Any) -> Any:
            return await helper.awaited(lambda: given(*args, **named))

        wrapped = coroutine
    else:

        @functools.wraps(given)
        def plain(*args: Any, **named: Any) -> Any:
            return helper.sync(lambda: given(*args, **named))

        wrapped = plain
    typed: Callable[P, R] = wrapped
    return typed


def name_of(function: Callable[..., object]) -> str:
    """What a function is called in metrics and limits: its module and name, alike in all versions of an agent."""
    module = PRIVATE.sub("", getattr(function, "__module__", None) or "")
    name = getattr(function, "__qualname__", type(function).__name__).replace("<locals>.", "")
    return f"{module}.{name}" if module else name


def _checked(function: object) -> str:
    called = type(function).__call__
    if inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(called):
        return "stream"
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called):
        return "async"
    if isinstance(function, type | classmethod | staticmethod) or not callable(function):
        raise TypeError(
            f"expected a function, got {type(function).__name__}: put the helper right above 'def', and @function_tool, "
            "@staticmethod and the like above it"
        )
    if inspect.isgeneratorfunction(function) or inspect.isgeneratorfunction(called):
        raise TypeError("expected a function, an async function or an async generator, got a generator")
    return "sync"
