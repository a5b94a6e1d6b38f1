"""``agw serve``: runs the gateway until SIGTERM or Ctrl-C."""

import argparse
import asyncio
import gc
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agw_proxy.config.loader import load
from agw_proxy.config.tree import ConfigError

if TYPE_CHECKING:
    from agw_proxy.app import Gateway

EXAMPLES = """\
examples:
  agw serve                                  no file needed: upstreams from OPENAI_API_KEY and the like
  agw serve --config gateway.yaml
  GATEWAY_SERVER__PORT=9000 agw serve        every value of the file also by environment
  kill -HUP PID                              reads the configuration again; a bad one changes nothing
"""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the program's parser."""
    parser = subparsers.add_parser(
        "serve",
        help="run the gateway",
        description="Runs the gateway in the foreground until SIGTERM or Ctrl-C, then drains.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the file (default: $GATEWAY_CONFIG or ./gateway.yaml)"
    )
    parser.add_argument("--host", help="address to listen on, for this run (as GATEWAY_SERVER__HOST)")
    parser.add_argument("--port", type=int, help="port to listen on, for this run (as GATEWAY_SERVER__PORT)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve. 0 after a drain, 1 where the configuration or the address cannot be used."""
    environ = dict(os.environ)
    for name in ("host", "port"):
        if getattr(args, name) is not None:
            environ[f"GATEWAY_SERVER__{name.upper()}"] = str(getattr(args, name))
    cwd = Path.cwd()
    try:
        loaded = load(args.config, environ, cwd)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    import uvloop  # noqa: PLC0415  after the configuration, so that a bad one is told at once

    from agw_proxy.app import Gateway  # noqa: PLC0415  likewise
    from agw_proxy.observe.log import Bridge, open_log  # noqa: PLC0415  likewise

    settings = loaded.settings
    try:
        log = open_log(level=settings.log.level, form=settings.log.format, file=settings.log.file, environ=environ)
        logging.getLogger().handlers = [Bridge(log)]
        gateway = Gateway(loaded, lambda: load(args.config, environ, cwd), log, environ)
    except (ConfigError, OSError, ValueError) as error:
        print(f"agw cannot start: {error}", file=sys.stderr)
        return 1
    log.writer.on_drop(lambda count: gateway.metrics.dropped("log_line", count))
    for note in loaded.notes:
        log.events.info("config.note", note=note)
    gc.collect()
    gc.freeze()
    try:
        uvloop.run(gateway.serve(_ready))
    except OSError as error:
        print(
            f"agw cannot listen on {settings.server.host}:{settings.server.port}: {error.strerror or error}",
            file=sys.stderr,
        )
        return 1
    finally:
        log.writer.close()
    return 0


def _ready(gateway: "Gateway", url: str) -> None:
    """Say where the gateway is; on a terminal, and for a generated key, ready to paste."""
    gateway.log.events.info(
        "server.ready",
        url=url,
        version=gateway.version,
        pid=os.getpid(),
        loop=type(asyncio.get_running_loop()).__module__,
    )
    if gateway.development_key is None:
        if sys.stdout.isatty():
            print(f"\nagw listens on {url}\n", flush=True)
        return
    if url.startswith("unix:"):
        print(
            f"\nagw listens on {url} with a generated development key:\n\nexport OPENAI_API_KEY={gateway.development_key}\n",
            flush=True,
        )
        return
    print(
        f"\nagw listens on {url} with a generated development key. Paste this where your client runs:\n\n"
        f"export OPENAI_BASE_URL={url}/v1\nexport OPENAI_API_KEY={gateway.development_key}\n\n"
        f'and try:  agw chat "hi"    or:  curl $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" '
        f'-H \'Content-Type: application/json\' -d \'{{"model": "agw/echo", "messages": [{{"role": "user", "content": "hi"}}]}}\'\n',
        flush=True,
    )


__all__ = ["add", "run"]
