"""``agw check``: validates the configuration and says what it serves, without serving."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from agw_proxy.config.agents import Agents
from agw_proxy.config.allowances import AMOUNTS, AT_ONCE, Limit
from agw_proxy.config.extras import check_extras
from agw_proxy.config.loader import Loaded, load
from agw_proxy.config.settings import Key, Model, Upstream
from agw_proxy.config.tree import ConfigError

EXAMPLES = """\
examples:
  agw check
  agw check --config deploy/gateway.yaml
  GATEWAY_ENV=production agw check
"""
RED, GREEN, YELLOW, BOLD = "31", "32", "33", "1"


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the program's parser."""
    parser = subparsers.add_parser(
        "check",
        help="validate the configuration without serving",
        description="Reads the configuration as `agw serve` would; lists every problem, or says what would be served.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the file (default: $GATEWAY_CONFIG or ./gateway.yaml)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what is served and give 0; or every problem on standard error and give 1."""
    try:
        loaded = load(args.config, os.environ, Path.cwd())
        check_extras(loaded.settings)
    except ConfigError as error:
        head, *rest = str(error).splitlines()
        print(paint(head, RED, sys.stderr), *rest, sep="\n", file=sys.stderr)
        return 1
    refused = _unservable(loaded)
    if refused is not None:
        print(paint("the configuration cannot be served", RED, sys.stderr), f"  {refused}", sep="\n", file=sys.stderr)
        return 1
    for line in summary(loaded):
        print(paint(line, BOLD, sys.stdout) if line and not line.startswith(" ") else line)
    for note in loaded.notes:
        print(f"{paint('note:', YELLOW, sys.stdout)} {note}")
    print(paint("configuration is valid", GREEN, sys.stdout))
    return 0


def _unservable(loaded: Loaded) -> str | None:
    """Why `agw serve` would refuse what the settings let through (a certificate file, a rule's arithmetic); or None."""
    from agw_proxy._hot.circuit import Board  # noqa: PLC0415  after the configuration, so that a bad one is told at once
    from agw_proxy._hot.limit import Table  # noqa: PLC0415  likewise
    from agw_proxy.edge.state import compile_state  # noqa: PLC0415  likewise

    keys = loaded.settings.keys or (Key(name="development", key_sha256="0" * 64),)
    try:
        compile_state(loaded.settings, keys, Table(), Board(), None, lambda *_: None)
    except (OSError, ValueError) as error:
        return str(error)
    return None


def paint(text: str, colour: str, stream: TextIO) -> str:
    """Colour ``text`` where ``stream`` is a terminal and NO_COLOR is not set (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def summary(loaded: Loaded) -> Iterator[str]:
    """Give the lines that say what is served; headings begin at the margin. No secrets, no paths of upstream URLs."""
    settings = loaded.settings
    server = settings.server
    host = f"[{server.host}]" if ":" in server.host and not server.host.startswith("unix:") else server.host
    yield "files"
    yield from (f"  {path}" for path in loaded.files)
    if not loaded.files:
        yield "  none (defaults and environment)"
    yield "server"
    yield f"  {host}" if host.startswith("unix:") else f"  http://{host}:{server.port}"
    yield "upstreams"
    yield from (_upstream(upstream) for upstream in settings.upstreams)
    yield "  agw        built in, models agw/echo"
    if settings.models:
        yield "models"
        yield from (_model(model) for model in settings.models)
    if settings.agents.anywhere:
        yield "agents"
        yield from _agents(settings.agents)
    yield "keys"
    yield from (line for key in settings.keys for line in _key(key))
    if not settings.keys:
        yield "  none: a development key is generated"
    if settings.limits:
        yield "limits"
        yield from (f"  {_limit(limit)}" for limit in settings.limits)


def _upstream(upstream: Upstream) -> str:
    place = urlsplit(upstream.base_url).netloc if upstream.replay is None else f"replay of {upstream.replay}"
    credential = {"key": "with a key" if upstream.api_key else "without a key"}.get(
        upstream.auth, f"auth {upstream.auth}"
    )
    if upstream.auth == "key" and not (upstream.api_key or upstream.api_keys):
        credential = {"bedrock": "signed for AWS", "vertex": "with Google's tokens"}.get(upstream.dialect, credential)
    return f"  {upstream.name:<10} {place} ({upstream.dialect}, {credential}), models {', '.join(upstream.models)}"


def _model(model: Model) -> str:
    targets = ", ".join(
        f"{target.upstream}/{target.model}" + (f" x{target.weight}" if target.weight != 1 else "")
        for target in model.targets
    )
    fallbacks = f", then {', '.join(model.fallbacks)}" if model.fallbacks else ""
    return f"  {model.name:<10} {model.balance} over {targets}{fallbacks}"


def _agents(agents: Agents) -> Iterator[str]:
    """Those that are found; whether each can be loaded, `agw agents check` says."""
    from agw_proxy.sdk.discovery import discover  # noqa: PLC0415  few configurations have agents

    seen = discover(agents.paths, agents.namespace, agents.allow, agents.deny)
    yield from (f"  {agents.served_as(found.id):<10} {found.file}" for found in seen.found)
    yield from (f"  {blocked.id:<10} left out: {blocked.reason}" for blocked in seen.blocked)
    if not seen.found and not seen.blocked:
        yield f"  none in {', '.join(map(str, agents.paths))}"


def _key(key: Key) -> Iterator[str]:
    yield f"  {key.name:<10} models {', '.join(key.models)}{', admin' if key.admin else ''}"
    yield from (f"    {_limit(limit)}" for limit in key.limits)


def _limit(limit: Limit) -> str:
    name = f"{limit.name}: " if limit.name else ""
    per = f"per {' and '.join(limit.per)}: " if limit.per else ""
    unit = next(unit for unit in AMOUNTS if getattr(limit, unit) is not None)
    amount = getattr(limit, unit)
    if unit in AT_ONCE:
        return f"{name}{per}{amount} {'streams' if unit == 'streams' else 'requests'} at the same time"
    shown = f"{amount / 1e6:g} US dollars" if unit == "usd" else f"{amount} {unit.replace('_', ' ')}"
    burst = f", burst {limit.burst}" if limit.burst is not None else ""
    return f"{name}{per}{shown} in {limit.period:g} s{burst}"
