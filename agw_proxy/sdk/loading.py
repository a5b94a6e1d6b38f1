"""Makes agents of modules that were found: imports them by file under names of their own, and calls what they export.

A module lives in a private package of one version (``tools.modules``), whose path is the root it was found under: so
relative imports work, two folders may be called alike, nothing of a user's folder shadows a package of somebody else,
and a new version is imported anew, with all that belongs to it, while runs go on in the old one.
"""

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from agw_proxy.sdk.contained import Contained
from agw_proxy.sdk.discovery import Found
from agw_proxy.sdk.entry import Run
from agw_proxy.tools.modules import forget, import_file, new_package
from agw_proxy.tools.threads import Quit, on_thread

SDK = "agents"
DISTRIBUTION = "openai-agents"
STARTS, ENDS = "on_startup", "on_shutdown"
EXPORT = "agent"
END_SECONDS = 5.0  # for one on_shutdown

_importing = threading.Lock()
_quieted: list[ModuleType] = []


class Failed(Exception):
    """An agent cannot be made of what is there. The message is for whoever writes it: what was expected, and what came."""


class Waits(Failed):
    """Nothing is wrong with the agent itself: what it needs is elsewhere, and may come."""


class Context(msgspec.Struct, frozen=True):
    """What a factory and the lifespan hooks are given, where they take an argument."""

    id: str
    """What the agent is asked for as."""
    folder: Path
    """Where its files are."""
    version: str
    """A short hash of them."""


class Made(msgspec.Struct, frozen=True):
    """An agent of one version, and how to let go of it."""

    agent: Any
    context: Context
    package: str | None = None
    """The private package that its modules are in."""
    ends: Callable[..., Any] | None = None
    """Its ``on_shutdown``."""
    description: str = ""


def import_sdk() -> ModuleType:
    """The SDK itself, whatever the folders on the path are called: one of agents is likely to be called like it.

    Raises Failed where it is not installed, or cannot be imported. Takes about a second the first time: off the loop.
    """
    with _importing:
        known = sys.modules.get(SDK)
        if known is not None and hasattr(known, "Runner"):
            return _quiet(known)
        try:
            place = Path(str(importlib.metadata.distribution(DISTRIBUTION).locate_file(SDK)))
        except importlib.metadata.PackageNotFoundError:
            raise Failed(f"agents need the package {DISTRIBUTION}: pip install 'agw-proxy[agents]'") from None
        spec = importlib.util.spec_from_file_location(
            SDK, place / "__init__.py", submodule_search_locations=[str(place)]
        )
        if spec is None or spec.loader is None:
            raise Failed(f"the package {DISTRIBUTION} holds no module {SDK}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[SDK] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            for name in [name for name in tuple(sys.modules) if name == SDK or name.startswith(f"{SDK}.")]:
                del sys.modules[name]
            raise
        return _quiet(module)


def _quiet(module: ModuleType) -> ModuleType:
    """What agents do is the gateway's to tell, also while they load; the SDK would send it to its vendor."""
    if module not in _quieted:
        module.set_trace_processors([])
        module.set_tracing_disabled(True)
        _quieted[:] = [module]
    return module


async def load(found: Found, identity: str) -> Made:
    """Import a module that was found, start it and make its agent. Raises Failed; what had begun has ended then.

    ``identity``: what it is served as. What is synchronous runs on a thread of its own, so that it may block.
    """
    context = Context(identity, found.folder, found.version)
    package = new_package()
    ends: Callable[..., Any] | None = None
    try:
        module = await on_thread(lambda: _import(package, found), f"agw-agent {identity}")
        starts, then = _hook(module, STARTS), _hook(module, ENDS)
        if starts is not None:
            await called(starts, context)
        ends = then
        agent = await _agent(module, context)
    except BaseException as error:
        if ends is not None:
            await asyncio.shield(_ended(ends, context))
        forget(package)
        if isinstance(error, Exception | SystemExit):
            raise _failed(error, found) from error
        raise
    return Made(agent, context, package, ends, _description(agent, module))


async def let_go(made: Made) -> None:
    """Run its ``on_shutdown`` and forget its modules. Raises whatever that raises, TimeoutError after END_SECONDS."""
    try:
        if made.ends is not None:
            async with asyncio.timeout(END_SECONDS):
                await called(made.ends, made.context)
    finally:
        if made.package is not None:
            forget(made.package)


async def _ended(ends: Callable[..., Any], context: Context) -> None:
    """The end of what has not begun well: its own trouble is not what anybody needs to hear of."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(END_SECONDS):
            await called(ends, context)


async def called(function: Callable[..., Any], context: Context) -> Any:
    """What a hook or a factory gives: awaited on the loop where it is asynchronous, else from a thread of its own."""
    arguments = (context,) if _takes_one(function) else ()
    if inspect.iscoroutinefunction(function):
        return await _on_loop(function(*arguments), context)
    given = await on_thread(lambda: function(*arguments), f"agw-agent {context.id}")
    if inspect.iscoroutine(given):
        return await _on_loop(given, context)
    return await given if inspect.isawaitable(given) else given


async def _on_loop(coroutine: Coroutine[Any, Any, Any], context: Context) -> Any:
    """In a task of its own, whose steps are known as that agent's. Raises Failed where it has cancelled itself."""
    task = asyncio.get_running_loop().create_task(Contained(coroutine, Run("", None, context.id)))
    try:
        return await task
    except asyncio.CancelledError:
        here = asyncio.current_task()
        if here is not None and here.cancelling():
            raise
        raise Failed("it was cancelled, by what it has begun itself") from None


def _import(package: str, found: Found) -> ModuleType:
    import_sdk()
    return import_file(package, found.root, ".".join((*found.parts, EXPORT)))


async def _agent(module: ModuleType, context: Context) -> Any:
    """What the module exports, see ``docs/agents.md``. Raises Failed."""
    kind = import_sdk().Agent
    exported = getattr(module, EXPORT, None)
    if exported is None:
        return sound(_only(module, kind))
    # A class is a factory too; an Agent could be callable one day.
    made = await called(exported, context) if callable(exported) and not isinstance(exported, kind) else exported
    if not isinstance(made, kind):
        raise Failed(f"'{EXPORT}' is to be an agents.Agent, or a function that gives one; came {_kind(made)}")
    return sound(made)


def sound(agent: Any) -> Any:
    """The agent, with nothing in it that each run would fail at. Raises Failed."""
    from agw_proxy.sdk.parts import misfit  # noqa: PLC0415  it brings the SDK, which is there by now

    found = misfit(agent)
    if found is not None:
        raise Failed(found)
    return agent


def _only(module: ModuleType, kind: type) -> Any:
    """The one agent that stands in the module, or the one to begin with: to which no other hands over. Raises Failed."""
    agents = {id(value): (name, value) for name, value in vars(module).items() if isinstance(value, kind)}
    handed = {
        id(getattr(each, "agent", each)) for _, agent in agents.values() for each in getattr(agent, "handoffs", ())
    }
    first = [name for key, (name, _) in agents.items() if key not in handed]
    if len(first) == 1:
        return getattr(module, first[0])
    came = f"came {', '.join(sorted(name for name, _ in agents.values()))}" if agents else "there is none"
    raise Failed(
        f"expected an agents.Agent called '{EXPORT}', a function of that name that gives one, or one Agent; {came}"
    )


def _hook(module: ModuleType, name: str) -> Callable[..., Any] | None:
    hook = getattr(module, name, None)
    if hook is not None and not callable(hook):
        raise Failed(f"'{name}' is to be a function; came {_kind(hook)}")
    return hook


def _takes_one(function: Callable[..., Any]) -> bool:
    """It wants an argument, or at least takes one. Raises Failed where it wants more than one."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    places = [each for each in parameters if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}]
    needed = [each for each in places if each.default is each.empty]
    named = [each for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty]
    if len(needed) > 1 or named:
        raise Failed(f"'{getattr(function, '__name__', 'it')}' is to take nothing, or one argument: the context")
    return bool(needed) or any(each.name in {"context", "ctx"} for each in places)


def _description(agent: Any, module: ModuleType) -> str:
    told = getattr(agent, "handoff_description", None) or inspect.getdoc(module) or ""
    return str(told).strip().partition("\n")[0]


def _kind(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__module__}.{type(value).__qualname__}"


def words(error: BaseException) -> str:
    """What went wrong, by its kind."""
    if isinstance(error, Failed | Quit):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _failed(error: BaseException, found: Found) -> Failed:
    """What went wrong and on which line of the agent's own."""
    if isinstance(error, Failed | Quit):
        return Failed(words(error))
    place, trace = "", error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(found.root):
            place = f" ({file.relative_to(found.root)}:{trace.tb_lineno})"
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(found.root):
        place = f" ({Path(error.filename).relative_to(found.root)}:{error.lineno})"
    return Failed(f"{words(error)}{place}")
