"""``agw status``: says whether a gateway is running and ready, and how its upstreams are."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from agw_proxy.commands.running import Failure, Place, fetch, find

EXAMPLES = """\
examples:
  agw status
  agw status --json | jq .upstreams
  agw status --url https://gateway.example.com     key from --key or OPENAI_API_KEY

The upstreams are shown to a key with `admin: true` only. The exit status is 0 where the gateway is ready, else 1.
"""
COLUMNS = ("name", "state", "dialect", "requests", "failures", "base_url", "last_error")
MAX_PAGES = 100
CELL_CHARACTERS = 60


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the program's parser."""
    parser = subparsers.add_parser(
        "status",
        help="ask the running gateway how it is",
        description="Shows version, readiness and upstreams of a running gateway.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", help="address of the gateway, with or without /v1")
    parser.add_argument("--key", help="key to present, with admin: true to see the upstreams")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what there is to say; give 0 where the gateway is ready, else 1."""
    try:
        place = find(args.url, args.key, os.environ)
        found = ask_all(place)
    except Failure as failure:
        if args.json:
            print(json.dumps({"status": "unreachable", "error": str(failure)}))
        else:
            print(failure, file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(found))
    else:
        print("\n".join(lines(found)))
    return 0 if found["status"] == "ready" else 1


def ask_all(place: Place) -> dict[str, Any]:
    """Give url, version, status, active, upstreams (None: not shown to this key) and a note. Raises Failure."""
    alive, health = fetch(place, "/health")
    if alive != HTTPStatus.OK or not isinstance(health, dict) or "version" not in health:
        raise Failure(f"{place.url} answered {alive} to /health: this is not a gateway")
    _, ready = fetch(place, "/health/ready")
    ready = ready if isinstance(ready, dict) else {}
    upstreams, note = _upstreams(place)
    return {
        "url": place.url,
        "version": health["version"],
        "status": ready.get("status", "unknown"),
        "active": ready.get("active"),
        "upstreams": upstreams,
        "note": note,
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Give the lines for people."""
    active = f", {found['active']} in flight" if found["active"] is not None else ""
    yield f"agw {found['version']} at {found['url']}: {found['status']}{active}"
    if found["upstreams"] is not None:
        yield ""
        yield from table(found["upstreams"])
    if found["note"]:
        yield found["note"]


def table(upstreams: list[dict[str, Any]]) -> Iterator[str]:
    """Give one line an upstream under a heading, in columns; without what is unknown everywhere."""
    columns = [name for name in COLUMNS if any(item.get(name) is not None for item in upstreams)]
    rows = [[name.replace("_", " ") for name in columns]]
    rows += [[_cell(item.get(name)) for name in columns] for item in upstreams]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cell(value: object) -> str:
    text = "-" if value is None else str(value)
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= CELL_CHARACTERS else f"{text[: CELL_CHARACTERS - 3]}..."


def _upstreams(place: Place) -> tuple[list[dict[str, Any]] | None, str | None]:
    """Give all upstreams, or None and why they are not shown. Raises Failure."""
    if place.key is None:
        return None, "upstreams: give an admin key with --key to see them"
    found: list[dict[str, Any]] = []
    path = "/upstreams"
    for _ in range(MAX_PAGES):
        status, page = fetch(place, path)
        if status == HTTPStatus.UNAUTHORIZED:
            return None, "upstreams: the key is not known to this gateway"
        if status == HTTPStatus.FORBIDDEN:
            return None, "upstreams: this key is no admin key"
        if status != HTTPStatus.OK or not isinstance(page, dict):
            return (
                None,
                f"upstreams: not shown here (status {status}); with server.admin_port, give its address as --url",
            )
        found += page.get("data", [])
        if not page.get("has_more"):
            break
        path = f"/upstreams?after={quote(str(page.get('last_id')), safe='')}"
    return found, None
