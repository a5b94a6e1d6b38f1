"""``agw keys``: makes a key for a caller, or hashes one that there is. A key never stands on a command line."""

import argparse
import getpass
import hashlib
import json
import re
import sys
from typing import TextIO

from agw_proxy.config.devkey import generate

EXAMPLES = """\
examples:
  agw keys new --name app
  export GATEWAY_DEV_KEY=$(agw keys new)
  agw keys hash                          # asks for the key, and does not show it
  cat /run/secrets/app | agw keys hash --stdin
"""
MAX_BYTES = 4096  # of a key on standard input; a header could hold no more
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}  # YAML 1.1 reads these as something else


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its two parts to the program's parser."""
    parser = subparsers.add_parser(
        "keys",
        help="make or hash a key for a caller",
        description="Makes gateway keys, and the lines of gateway.yaml that admit them. The file needs the hash only.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    new = parts.add_parser(
        "new", help="make a key", description="Prints a new key; and on standard error its hash and the YAML to paste."
    )
    new.add_argument("--name", default="app", help="its name in logs, metrics and messages (default: app)")
    new.set_defaults(run=run_new)
    hashed = parts.add_parser("hash", help="hash a key", description="Prints the hash of a key and the YAML to paste.")
    hashed.add_argument("--stdin", action="store_true", help="read the key from standard input, do not ask for it")
    hashed.add_argument("--name", default="app", help="the name in the YAML (default: app)")
    hashed.set_defaults(run=run_hash)


def run_new(args: argparse.Namespace) -> int:
    """Print a new key, once, and on standard error how to admit it; give 0."""
    key = generate()
    print(key, flush=True)
    print("That is the key, shown this once: give it to the caller.", file=sys.stderr)
    _admit(args.name, key, sys.stderr)
    return 0


def run_hash(args: argparse.Namespace) -> int:
    """Print how to admit the key that was read; give 1 where it cannot be one."""
    try:
        key = _read(from_stdin=args.stdin)
    except (EOFError, KeyboardInterrupt):
        print("\nno key was given", file=sys.stderr)
        return 1
    problem = complaint(key)
    if problem is not None:
        print(problem, file=sys.stderr)
        return 1
    _admit(args.name, key, sys.stdout)
    return 0


def complaint(key: str) -> str | None:
    """Say what is wrong with a key, without showing it; None where the configuration would take it."""
    from pydantic import SecretStr  # noqa: PLC0415  pydantic takes longer to load than all the rest of this command

    from agw_proxy.config.values import gateway_key  # noqa: PLC0415  likewise

    if not key:
        return "no key was given"
    try:
        gateway_key(SecretStr(key))
    except ValueError as error:
        return f"this key cannot be used: {error}"
    return None


def yaml_lines(name: str, key: str) -> list[str]:
    """Give the item of ``keys`` that admits ``key``."""
    plain = PLAIN.fullmatch(name) is not None and name.lower() not in WORDS
    shown = name if plain else json.dumps(name)  # a JSON string is a YAML string
    return ["keys:", f"  - name: {shown}", f"    key_sha256: {_sha256(key)}", '    models: ["*"]']


def _read(*, from_stdin: bool) -> str:
    if not from_stdin:
        return getpass.getpass("key (not shown): ")
    return sys.stdin.buffer.read(MAX_BYTES).decode("utf-8", "replace").rstrip("\r\n")


def _admit(name: str, key: str, stream: TextIO) -> None:
    print("SHA-256:", f"  {_sha256(key)}", "for gateway.yaml:", sep="\n", file=stream)
    print(*(f"  {line}" for line in yaml_lines(name, key)), sep="\n", file=stream)


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
