"""``agw init``: writes a first gateway.yaml out of what the environment offers."""

import argparse
import hashlib
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from agw_proxy.config import devkey, wellknown
from agw_proxy.config.loader import environment
from agw_proxy.config.tree import ConfigError

EXAMPLES = """\
examples:
  agw init
  agw init --force deploy/gateway.yaml
"""
HEAD = """\
# agw: what it serves, to whom, and how much of it. Check it with `agw check`; every field is in docs/configuration.md.
# ${NAME} is taken from the environment, ${file:/path} from a file; no secret needs to stand here.

server:
  host: 127.0.0.1          # an address others can reach needs keys (below)
  port: 8080

"""
NO_UPSTREAM = """\
# No well-known key was in the environment. Take the comments away and set OPENAI_API_KEY, or enter a server of your
# own.
# upstreams:
#   - name: openai
#     base_url: https://api.openai.com/v1
#     api_key: ${OPENAI_API_KEY}
#     models: ["gpt-*", "text-embedding-*"]
"""
TAIL = """
# Names of your own over one or more targets:
# models:
#   - name: fast
#     targets: [openai/gpt-4o-mini]

keys:
  - name: dev
    key_sha256: {digest}     # the key itself was shown once; make more with `agw keys new`
    models: ["*"]
    admin: true
    # limits: [{{per: key, requests: 600, period: 1m}}, {{per: key, concurrent: 50}}]
"""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the program's parser."""
    parser = subparsers.add_parser(
        "init",
        help="write a first configuration file",
        description="Writes a commented gateway.yaml: the upstreams that the environment names, and one new key.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "path", nargs="?", type=Path, default=Path("gateway.yaml"), metavar="PATH", help="default: gateway.yaml"
    )
    parser.add_argument("--force", action="store_true", help="replace the file if there is one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the file and print the new key; give 1 where the file cannot be written or exists already."""
    key = devkey.generate()
    try:
        found = list(wellknown.find(environment(os.environ, Path.cwd())))
        write(args.path, compose(found, key), force=args.force)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    except FileExistsError:
        print(
            f"{args.path} exists already; nothing is changed. To replace it: agw init --force {args.path}",
            file=sys.stderr,
        )
        return 1
    except OSError as error:
        print(f"{args.path} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    print(f"wrote {args.path} with {', '.join(item.service.name for item in found) or 'no upstream yet'}")
    print("your key, shown this once (the file holds its hash only):")
    print(f"  {key}")
    return 0


def compose(found: Sequence[wellknown.Found], key: str) -> str:
    """Give the file's text: upstreams by reference to their environment names, the key as its hash."""
    parts = [HEAD]
    if found:
        parts.append("upstreams:\n")
    for item in found:
        models = ", ".join(f'"{model}"' for model in item.service.models)
        parts.append(f"  - name: {item.service.name}\n")
        if item.service.dialect != "openai":
            parts.append(f"    dialect: {item.service.dialect}\n")
        parts.append(f"    base_url: {item.base_url}\n")
        if item.api_key is not None:
            parts.append(f"    api_key: ${{{item.variable}}}\n")
        parts.append(f"    models: [{models}]\n")
    if not found:
        parts.append(NO_UPSTREAM)
    parts.append(TAIL.format(digest=hashlib.sha256(key.encode()).hexdigest()))
    return "".join(parts)


def write(path: Path, text: str, *, force: bool) -> None:
    """Write ``text`` with mode 0600, whole or not at all; FileExistsError where ``path`` exists and not ``force``."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        if force:
            aside.replace(path)
        else:
            os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)
