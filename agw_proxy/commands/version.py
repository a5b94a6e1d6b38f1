"""``agw version``: the version, and what it runs on."""

import argparse
import platform
from importlib import metadata

from agw_proxy import __version__

EXAMPLES = """\
examples:
  agw version
  agw version --short
"""
PARTS = ("aiohttp", "uvloop", "msgspec", "pydantic")


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the program's parser."""
    parser = subparsers.add_parser(
        "version",
        help="print the version",
        description="Prints the version, and those of Python and of the libraries that a bug report should name.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--short", action="store_true", help="the number alone")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the version and give 0."""
    if args.short:
        print(__version__)
        return 0
    print(f"agw {__version__}")
    print(f"  python {platform.python_version()} ({platform.system()} {platform.machine()})")
    for name in PARTS:
        print(f"  {name} {_installed(name)}")
    return 0


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "is not installed"
