"""The command line: one thin file; the work is in ``commands``."""

import argparse
import sys
from collections.abc import Sequence

from agw_proxy import __version__
from agw_proxy.commands import bench, chat, check, doctor, explain, init, keys, serve, status, version

COMMANDS = (serve, init, check, keys, chat, explain, doctor, status, bench, version)
EXAMPLES = """\
examples:
  agw serve                 start the gateway; prints what to paste into your client
  agw init                  write a commented gateway.yaml
  agw check                 validate the configuration without serving
  agw chat "hi"             ask a model through the running gateway
  agw explain --model fast  what would become of a request, without making it
  agw doctor --model fast   whether every client dialect works with it
  agw keys new --name app   make a key and the lines for gateway.yaml
  agw bench                 put a short load on the running gateway

Each command has --help with examples of its own.
"""


def parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    made = argparse.ArgumentParser(
        prog="agw",
        description="agw: an LLM and agent gateway that runs as a sidecar.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"agw {__version__}")
    subparsers = made.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(subparsers)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    if sys.platform == "win32":
        sys.exit("agw runs on Linux (and macOS for development). On Windows use WSL or the container image.")
    args = parser().parse_args(argv)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        return 130
