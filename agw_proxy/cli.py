"""The command line: one thin file; the work is in ``commands``, of which only the one that is asked for is imported."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from agw_proxy import __version__

COMMANDS = {
    "serve": "run the gateway",
    "init": "write a first configuration file",
    "check": "validate the configuration without serving",
    "keys": "make or hash a key for a caller",
    "chat": "ask a model through the running gateway",
    "agents": "make, list, check and ask agents",
    "explain": "tell which route, limits, price and lane a request would get",
    "doctor": "check a model of the running gateway in every client dialect",
    "status": "ask the running gateway how it is",
    "bench": "put a short load on the running gateway",
    "version": "print the version",
}
"""Each is a module of ``commands``; what it does is said there too, in the same words."""
EXAMPLES = """\
examples:
  agw serve                 start the gateway; prints what to paste into your client
  agw init                  write a commented gateway.yaml
  agw check                 validate the configuration without serving
  agw chat "hi"             ask a model through the running gateway
  agw agents new Weather    write a first agent, which is served as a model
  agw explain --model fast  what would become of a request, without making it
  agw doctor --model fast   whether every client dialect works with it
  agw keys new --name app   make a key and the lines for gateway.yaml
  agw bench                 put a short load on the running gateway

Each command has --help with examples of its own.
"""


def parser(wanted: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser with the ``wanted`` commands; where none is, with all of them, by name only: without their options."""
    made = argparse.ArgumentParser(
        prog="agw",
        description="agw: an LLM and agent gateway that runs as a sidecar.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"agw {__version__}")
    subparsers = made.add_subparsers(metavar="COMMAND", required=True)
    for name, does in COMMANDS.items():
        if name in wanted:
            import_module(f"agw_proxy.commands.{name}").add(subparsers)
        elif not wanted:
            subparsers.add_parser(name, help=does)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    if sys.platform == "win32":
        sys.exit("agw runs on Linux (and macOS for development). On Windows use WSL or the container image.")
    given = sys.argv[1:] if argv is None else list(argv)
    args = parser([word for word in given[:1] if word in COMMANDS]).parse_args(given)
    try:
        status = int(args.run(args))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever reads has what they want (`agw explain ... | head`); what is left is not written at the end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status
