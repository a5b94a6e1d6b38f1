"""``agw serve``: runs the gateway until SIGTERM or Ctrl-C."""

import argparse
import contextlib
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agw_proxy.app import Gateway
    from agw_proxy.config.loader import Loaded
    from agw_proxy.edge.worker_link import WorkerLink
    from agw_proxy.observe.log import Log

EXAMPLES = """\
examples:
  agw serve                                  no file needed: upstreams from OPENAI_API_KEY and the like
  agw serve --config gateway.yaml
  GATEWAY_SERVER__PORT=9000 agw serve        every value of the file also by environment
  agw serve --workers auto                   one process a processor, all on the same port
  kill -HUP PID                              reads the configuration again; a bad one changes nothing
"""


PLUGINS_OFF = "PYDANTIC_DISABLE_PLUGINS"  # pydantic's own name for it
GC_THRESHOLD = 20_000  # new containers between two looks for cycles: requests make few, and none that lives long
SWITCH_SECONDS = 0.0001
"""So long a thread that computes (a tool, the log) keeps the interpreter from the loop, which needs it anew for each event."""


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
    parser.add_argument("--workers", help="processes on the port, a number or auto (as GATEWAY_SERVER__WORKERS)")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="DIR",
        help="keep every exchange with an upstream there (as GATEWAY_SERVER__RECORD)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve. 0 after a drain, 1 where the configuration or the address cannot be used."""
    environ = dict(os.environ)
    for name in ("host", "port", "workers", "record"):
        if getattr(args, name) is not None:
            environ[f"GATEWAY_SERVER__{name.upper()}"] = str(getattr(args, name))
    cwd = Path.cwd()
    gc.disable()  # what a start makes is kept, modules above all: looking for garbage in it would cost a tenth of the time
    with _without_plugins():
        from agw_proxy.config.extras import check_extras  # noqa: PLC0415  behind that
        from agw_proxy.config.loader import load  # noqa: PLC0415  likewise
        from agw_proxy.config.tree import ConfigError  # noqa: PLC0415  likewise

    def read() -> "Loaded":
        loaded = load(args.config, environ, cwd)
        check_extras(loaded.settings)
        return loaded

    try:
        loaded = read()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    if loaded.settings.server.workers > 1 or loaded.settings.agents.workers:
        return _supervise(loaded, read, environ)
    return _serve(loaded, read, environ)


@contextlib.contextmanager
def _without_plugins() -> Iterator[None]:
    """Models that are made meanwhile have none of pydantic's plugins, for which it would look into every package there is.

    The models are the settings'. An agent's own are made later, and have what is installed for them.
    """
    before = os.environ.get(PLUGINS_OFF)
    os.environ[PLUGINS_OFF] = "__all__"
    try:
        yield
    finally:
        del os.environ[PLUGINS_OFF]
        if before is not None:
            os.environ[PLUGINS_OFF] = before


def _serve(
    loaded: "Loaded", read: "Callable[[], Loaded]", environ: Mapping[str, str], link: "WorkerLink | None" = None
) -> int:
    """Serve in this process: alone, or as the worker that has ``link``."""
    import uvloop  # noqa: PLC0415  after the configuration, so that a bad one is told at once

    from agw_proxy.app import Gateway  # noqa: PLC0415  likewise
    from agw_proxy.config.tree import ConfigError  # noqa: PLC0415  likewise
    from agw_proxy.edge.kept import kept_limits  # noqa: PLC0415  likewise
    from agw_proxy.observe.log import Bridge, open_log  # noqa: PLC0415  likewise

    settings = loaded.settings
    tell = _complain if link is None else link.say_failed
    try:
        log = open_log(level=settings.log.level, form=settings.log.format, file=settings.log.file, environ=environ)
        logging.getLogger().handlers = [Bridge(log)]
        limits = kept_limits(settings, environ) if link is None else None
        gateway = Gateway(loaded, read, log, environ, link, limits)
    except (ConfigError, OSError, ValueError) as error:
        tell(f"agw cannot start: {error}" if link is None else str(error))
        return 1
    log.writer.on_drop(lambda count: gateway.metrics.dropped("log_line", count))
    if link is None:
        _note(loaded, log)
    else:
        log.events = log.events.bind(worker=link.worker)
    gc.freeze()  # without collecting: of what a start makes hardly a hundredth is garbage, and finding it takes a while
    gc.enable()
    gc.set_threshold(GC_THRESHOLD, 50, 50)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        uvloop.run(gateway.serve(_ready))
    except OSError as error:
        tell(_deaf(loaded, error))
        return 1
    finally:
        log.writer.close()
    return 0


def _supervise(loaded: "Loaded", read: "Callable[[], Loaded]", environ: Mapping[str, str]) -> int:
    """Start the workers and watch them; a worker returns from here too, once it has served."""
    from agw_proxy.app import Gateway  # noqa: PLC0415  before the fork, so that the workers share it
    from agw_proxy.config.tree import ConfigError  # noqa: PLC0415  likewise
    from agw_proxy.edge.direct_log import open_direct  # noqa: PLC0415  only for several workers
    from agw_proxy.edge.kept import kept_limits  # noqa: PLC0415  likewise
    from agw_proxy.edge.listeners import listen  # noqa: PLC0415  likewise
    from agw_proxy.edge.supervisor import Supervisor  # noqa: PLC0415  likewise
    from agw_proxy.observe.log import Bridge  # noqa: PLC0415  likewise

    settings = loaded.settings
    server = settings.server
    try:
        log = open_direct(level=settings.log.level, form=settings.log.format, file=settings.log.file, environ=environ)
        logging.getLogger().handlers = [Bridge(log)]
        trial = Gateway(loaded, read, log, environ)  # never serves: it shows that the workers can
        limits = kept_limits(settings, environ)
    except (ConfigError, OSError, ValueError) as error:
        _complain(f"agw cannot start: {error}")
        return 1
    try:
        listeners = listen(server.host, server.port, server.admin_port, server.workers)
    except OSError as error:
        _complain(_deaf(loaded, error))
        return 1
    _note(loaded, log)

    def announce(url: str, loop: str) -> None:
        _announce(trial, url, loop, server.workers)

    supervisor = Supervisor(loaded, lambda: trial.check(read()), listeners, log, announce, limits)
    outcome = supervisor.run()
    if not isinstance(outcome, int):
        return _serve(supervisor.loaded, outcome.load, environ, outcome)
    if supervisor.fault is not None:
        _complain(f"agw cannot start: {supervisor.fault}")
    return outcome


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


def _deaf(loaded: "Loaded", error: OSError) -> str:
    server = loaded.settings.server
    place = server.host if server.host.startswith("unix:") else f"{server.host}:{server.port}"
    return f"agw cannot listen on {place}: {error.strerror or error}"


def _note(loaded: "Loaded", log: "Log") -> None:
    for note in loaded.notes:
        log.events.info("config.note", note=note)


def _ready(gateway: "Gateway", url: str) -> None:
    import asyncio  # noqa: PLC0415  it is there long since; who reads --help does without

    _announce(gateway, url, type(asyncio.get_running_loop()).__module__, 1)


def _announce(gateway: "Gateway", url: str, loop: str, workers: int) -> None:
    """Say where the gateway is; on a terminal, and for a generated key, ready to paste."""
    gateway.log.events.info(
        "server.ready", url=url, version=gateway.version, pid=os.getpid(), loop=loop, workers=workers
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
