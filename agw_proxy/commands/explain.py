"""``agw explain``: what would become of a request, asked of the running gateway or worked out from the configuration."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from agw_proxy.commands.check import BOLD, GREEN, RED, YELLOW, paint
from agw_proxy.commands.running import Failure, ask, complaint, find

EXAMPLES = """\
examples:
  agw explain --model fast                          by the running gateway, for your own key
  agw explain --model gpt-4o --key-name app         for another key (needs an admin key)
  agw explain --file request.json --path /v1/messages
  agw explain --model fast --offline --key-name app from the configuration; no gateway need run

Nothing is called, and nothing is taken from any limit.
"""
TREE = Mapping[str, Any]


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the program's parser."""
    parser = subparsers.add_parser(
        "explain",
        help="tell which route, limits, price and lane a request would get",
        description="Tells what would become of a request, without making it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", help="the model that is asked for (with --file: instead of its own)")
    parser.add_argument("--file", metavar="FILE", help="the request's JSON; - reads standard input")
    parser.add_argument("--stream", action="store_true", help="as a stream")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="the request's max_tokens")
    parser.add_argument("--path", help="of the endpoint (default: what the model's upstream speaks)")
    parser.add_argument("--key-name", metavar="NAME", help="name of the key that would ask")
    parser.add_argument("--url", help="address of the gateway, with or without /v1")
    parser.add_argument("--key", help="key to present")
    parser.add_argument("--offline", action="store_true", help="work it out from the configuration")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration, with --offline")
    parser.add_argument("--json", action="store_true", help="print JSON, as it does where nobody looks on")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the explanation and give 0; say on standard error what is wrong and give 1."""
    try:
        request = _request(args)
        told = counted(_offline(args, request) if args.offline or args.config else _online(args, request), request)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    if args.json or not sys.stdout.isatty():
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        for line in lines(told):
            print(paint(line, BOLD, sys.stdout) if line and not line.startswith(" ") else line)
    return 0


def counted(told: TREE, request: Mapping[str, Any]) -> TREE:
    """The same with the prompt's exact tokens, where the tokenizer of the model's encoding is at hand."""
    from agw_proxy.policy.tokens import counting  # noqa: PLC0415  it may bring a tokenizer

    if not told.get("plan") or "tokens" not in told:
        return told
    count, exact = counting(told["plan"][0].partition("/")[2])
    if not exact:
        return told
    return {**told, "tokens": {**told["tokens"], "input_exact": count(json.dumps(request).encode())}}


def _request(args: argparse.Namespace) -> dict[str, Any]:
    request: Any = {"messages": [{"role": "user", "content": "Say hello"}]}
    if args.file:
        try:
            text = sys.stdin.read() if args.file == "-" else Path(args.file).read_text("utf-8")
            request = json.loads(text)
        except (OSError, ValueError) as error:
            raise Failure(f"{args.file}: {error}") from None
    if not isinstance(request, dict):
        raise Failure(f"{args.file}: expected a JSON object")
    more = {"model": args.model, "stream": args.stream or None, "max_tokens": args.max_tokens}
    request |= {name: value for name, value in more.items() if value is not None}
    if "model" not in request and args.path != "/v1/moderations":
        raise Failure("which model? give --model, or a --file that names one")
    return request


def _online(args: argparse.Namespace, request: dict[str, Any]) -> TREE:
    place = find(args.url, args.key, os.environ)
    query = {name: value for name, value in (("path", args.path), ("key", args.key_name)) if value}
    connection, response = ask(
        place, "POST", "/explain" + (f"?{urlencode(query)}" if query else ""), {"request": request}
    )
    try:
        if response.status != HTTPStatus.OK:
            raise Failure(complaint(place, response))
        told: TREE = json.loads(response.read())
    finally:
        connection.close()
    return told


def _offline(args: argparse.Namespace, request: dict[str, Any]) -> TREE:
    """Work it out with empty buckets' worth of room and closed circuits: nothing has happened yet."""
    from agw_proxy._hot.circuit import Board  # noqa: PLC0415  the gateway's own modules, where it is not asked itself
    from agw_proxy._hot.limit import Table  # noqa: PLC0415  likewise
    from agw_proxy.config.loader import load  # noqa: PLC0415  likewise
    from agw_proxy.config.settings import Key  # noqa: PLC0415  likewise
    from agw_proxy.config.tree import ConfigError  # noqa: PLC0415  likewise
    from agw_proxy.edge.explaining import explain  # noqa: PLC0415  likewise
    from agw_proxy.edge.state import compile_state  # noqa: PLC0415  likewise
    from agw_proxy.errors import GatewayError  # noqa: PLC0415  likewise
    from agw_proxy.types import ExplainWanted  # noqa: PLC0415  likewise

    try:
        settings = load(args.config, os.environ, Path.cwd()).settings
        keys = settings.keys or (Key(name="development", key_sha256="0" * 64, admin=True),)
        state = compile_state(settings, keys, Table(), Board(), None, lambda _upstream, _key: None)
        principal = state.keys.named(args.key_name or keys[0].name)
        wanted = ExplainWanted(args.path, json.dumps(request).encode())
        return explain(state, principal, wanted, time.monotonic_ns())
    except (ConfigError, ValueError, GatewayError) as error:
        raise Failure(str(error)) from None


def lines(told: TREE) -> Iterator[str]:
    """The explanation for people; headings begin at the margin."""
    outcome = told["outcome"]
    verdict = "would be asked" if outcome == "ok" else f"would be refused: {outcome['status']} {outcome['code']}"
    yield f"{told['model']} for key {told['key']} ({told['endpoint']})"
    yield f"  {paint(verdict, GREEN if outcome == 'ok' else RED, sys.stdout)}"
    if outcome != "ok":
        yield f"  {outcome['message']}"
    if "route" in told:
        yield from _route(told["route"], told.get("plan", []))
    if "limits" in told:
        yield "limits"
        yield from (_limit(rule) for rule in told["limits"])
        if not told["limits"]:
            yield "  none"
    if "tokens" in told:
        tokens, cost = told["tokens"], told["cost"]
        yield "tokens and money"
        exact = f" (exactly {tokens['input_exact']})" if "input_exact" in tokens else ""
        yield f"  prompt about {tokens['input']}{exact}, answer up to {tokens['output_reserved']}, likely {tokens['output_likely']}"
        if cost["priced"]:
            since = f" (prices of {cost['as_of']})" if cost["as_of"] else ""
            yield f"  reserved ${cost['reserved_usd']:.6f}, likely ${cost['likely_usd']:.6f}{since}"
        else:
            yield f"  {paint('no price is known', YELLOW, sys.stdout)}: set one in prices"
        lane, cache = told["lane"], told["cache"]
        yield "lane"
        yield f"  {lane['lane']}" + (f", because: {lane['reason']}" if lane["reason"] else "")
        yield "cache"
        yield "  would be looked up" if cache["looked_up"] else f"  not looked up: {cache['why']}"


def _route(route: TREE, plan: list[str]) -> Iterator[str]:
    yield f"route {route['label']}" + (f", balance {route['balance']}" if len(route["targets"]) > 1 else "")
    for kind, targets in (("target", route["targets"]), ("fallback", route["fallbacks"])):
        for target in sorted(
            targets, key=lambda one: plan.index(one["target"]) if one["target"] in plan else len(plan)
        ):
            place = f"{plan.index(target['target']) + 1}." if target["target"] in plan else "- "
            state = target["circuit"] if not target["out"] else "out (its probes fail)"
            if target["opens_in_ms"]:
                state += f", again in {target['opens_in_ms'] / 1000:g} s"
            told = [f"weight {target['weight']}"] if len(targets) > 1 and kind == "target" else []
            told += [f"circuit {state}", f"{target['in_flight']} under way"]
            places, price = target["places"], target["price"]
            if places is not None:
                told.append(f"{places['taken']} of {places['most']} places taken, {places['waiting']} waiting")
            if price is not None:
                told.append(
                    f"${price['input']:g} / ${price['output']:g} a million tokens" if any(price.values()) else "free"
                )
            yield (
                f"  {place} {target['target']}" + (" (fallback)" if kind == "fallback" else "") + f": {', '.join(told)}"
            )
    if route["last_resort"]:
        yield f"  then {route['last_resort']}"


def _limit(rule: TREE) -> str:
    mark = paint("ok", GREEN, sys.stdout) if rule["passes"] else paint("no", RED, sys.stdout)
    money = rule["unit"] == "micro_usd"
    left, asks, amount = (
        f"${rule[name] / 1e6:.6g}" if money else str(rule[name]) for name in ("remaining", "asks", "amount")
    )
    unit = "" if money else f" {rule['unit'].replace('_', ' ')}"
    period = f" a {rule['period']}" if rule["period"] else ""
    return f"  {mark} {rule['rule']}: {left} of {amount}{unit}{period} left, asks {asks}"
