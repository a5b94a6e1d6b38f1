"""``agw agents``: makes, lists, checks and asks agents that are dropped into a folder."""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agw_proxy.commands import chat
from agw_proxy.commands.running import Failure, error_message, fetch, find

if TYPE_CHECKING:
    from agw_proxy.states import AgentState

EXAMPLES = """\
examples:
  agw agents new Weather             writes agents/Weather/agent.py
  agw agents check                   loads what is in the configured folders, without serving
  agw agents list                    those of the running gateway, with the reason where one is not served
  agw agents run weather "Berlin?"   asks default/weather of the running gateway
"""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
TEMPLATE = '''\
"""{name}: an agent, asked for as the model {id}."""

from agents import Agent, function_tool


@function_tool
def word_count(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


agent = Agent(
    name="{name}",
    instructions="You are helpful and brief.",
    # Any model of the gateway, as its callers name it; agw/echo works offline and repeats what it is told.
    model="agw/echo",
    tools=[word_count],
)
'''
REASON_INDENT = "    "


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its parts to the program's parser."""
    parser = subparsers.add_parser(
        "agents",
        help="make, list, check and ask agents",
        description="Agents of the OpenAI Agents SDK in folders of their own; each is served as a model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    new = parts.add_parser("new", help="write a first agent", description="Writes NAME/agent.py, ready to be served.")
    new.add_argument("name", metavar="NAME", help="of its folder: letters, digits, '_' and '-'")
    new.add_argument("--in", dest="root", type=Path, default=Path("agents"), metavar="FOLDER", help="default: agents")
    new.set_defaults(run=run_new)
    listed = parts.add_parser("list", help="list the agents of the running gateway", description="Needs an admin key.")
    check = parts.add_parser(
        "check",
        help="load the agents without serving",
        description="Loads each as `agw serve` would, and ends it again.",
    )
    check.add_argument("--config", type=Path, metavar="FILE", help="default: $GATEWAY_CONFIG or ./gateway.yaml")
    check.set_defaults(run=run_check)
    asked = parts.add_parser("run", help="ask an agent of the running gateway", description="Prints what it answers.")
    asked.add_argument("name", metavar="NAME", help="namespace/name, or the name alone of one in the default namespace")
    asked.add_argument("text", metavar="PROMPT", help="what to ask; - reads standard input")
    asked.add_argument("--no-stream", action="store_true", help="wait for the whole answer")
    for part, run in ((listed, run_list), (asked, run_asked)):
        part.add_argument("--url", help="address of the gateway, with or without /v1")
        part.add_argument("--key", help="key to present")
        part.set_defaults(run=run)


def run_new(args: argparse.Namespace) -> int:
    """Write the agent and give 0; 1 where there is one already, or the name cannot be one's."""
    if NAME.fullmatch(args.name) is None:
        print(f"expected a name of letters, digits, '_' and '-', got {args.name!r}", file=sys.stderr)
        return 1
    file = args.root / args.name / "agent.py"
    identity = f"default/{args.name.lower()}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as opened:
            opened.write(TEMPLATE.format(name=args.name, id=identity))
    except OSError as error:
        print(f"{file}: {error.strerror or error}", file=sys.stderr)
        return 1
    print(f'wrote {file}\ntry:  agw agents check    then:  agw serve    and:  agw agents run {args.name} "hi"')
    return 0


def run_list(args: argparse.Namespace) -> int:
    """Print a line for each agent and give 0; or say on standard error why that is not known, and give 1."""
    try:
        place = find(args.url, args.key, os.environ)
        status, content = fetch(place, "/agents?limit=1000")
        if status != HTTPStatus.OK or not isinstance(content, dict):
            raise Failure(error_message(content) or f"{place.url} answered {status}: is this a gateway?")
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    found = content.get("data", [])
    if not found:
        print(f"no agents at {place.url}: `agw agents new` writes one", file=sys.stderr)
    _print(found)
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Load all agents and tools; 0 where each could be that is not denied, 1 where one could not or the configuration is not valid."""
    from agw_proxy.config.loader import load  # noqa: PLC0415  the other parts do without
    from agw_proxy.config.tree import ConfigError  # noqa: PLC0415  likewise

    try:
        settings = load(args.config, os.environ, Path.cwd()).settings
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    import asyncio  # noqa: PLC0415  likewise

    import msgspec  # noqa: PLC0415  likewise

    from agw_proxy.sdk.catalog import Catalog, Silent  # noqa: PLC0415  likewise
    from agw_proxy.sdk.discovery import discover  # noqa: PLC0415  likewise
    from agw_proxy.tools.registry import REGISTRY, Registry, Uncounted  # noqa: PLC0415  likewise

    async def look() -> "tuple[list[AgentState], dict[str, str]]":
        catalog = Catalog(Silent())
        tools = Registry(Silent(), Uncounted())
        try:
            await tools.refresh(settings.tools)
            REGISTRY.set(tools)
            await catalog.refresh(settings.agents, {model.name for model in settings.models})
            return catalog.states(), tools.failed
        finally:
            await catalog.close()

    states, broken = asyncio.run(look())
    for tool, why in sorted(broken.items()):
        print(f"failed   tool {tool}\n{REASON_INDENT}{why}".translate(chat.CONTROLS))
    if not states:
        print(f"no agents in {', '.join(map(str, settings.agents.paths))}")
    _print([msgspec.to_builtins(state) for state in states])
    wanted = settings.agents
    seen = discover(wanted.paths, wanted.namespace, wanted.allow, wanted.deny)
    denied = {(each.id, each.source) for each in seen.blocked if each.denied}
    return int(bool(broken) or any(state.error and (state.id, state.source) not in denied for state in states))


def run_asked(args: argparse.Namespace) -> int:
    """Print the answer and give 0; or say on standard error what is wrong and give 1."""
    args.model = (args.name if "/" in args.name else f"default/{args.name}").lower()
    return chat.run(args)


def _print(agents: list[dict[str, Any]]) -> None:
    for agent in agents:
        for line in _lines(agent):
            print(line.translate(chat.CONTROLS))


def _lines(agent: dict[str, Any]) -> Iterator[str]:
    """What is said of one: never more than a terminal takes as text."""
    version, description = agent.get("version"), agent.get("description")
    yield (
        f"{agent['status']:<8} {agent['id']}"
        + (f"  {version}" if version else "")
        + (f"  {description}" if description else "")
    )
    if agent.get("error"):
        yield f"{REASON_INDENT}{agent['source']}: {agent['error']}"
