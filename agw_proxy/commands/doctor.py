"""``agw doctor``: whether every client dialect works with a model of the running gateway."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

from agw_proxy.commands.examining import CHECKS, Examination, Finding, Outcome, compare
from agw_proxy.commands.running import Failure, Place, fetch, find
from agw_proxy.conformance.asking import FORMS, Form

EXAMPLES = """\
examples:
  agw doctor                                      the built-in echo model, in all dialects
  agw doctor --model gpt-4o-mini --only chat,responses
  agw doctor --model fast --json | jq '.checks[] | select(.outcome == "broken")'
  agw doctor --model fast --strict --url https://gateway.example.com     in CI; key from --key or OPENAI_API_KEY

It makes eleven short requests a dialect, and a provider bills eight of them. What the model will not do is "refused" and no
failure, unless it did the same in another dialect. The exit status is 0 where all is well, 1 where something is broken
or could not be tried, 2 where there is nothing to examine: no gateway, a wrong key or a wrong option.
"""
SILENCE_SECONDS = 120.0
FIRST_SECONDS = 10.0  # for the gateway's own answers: who is silent there is no gateway, or a stuck one
COLOURS: dict[Outcome, str] = {"ok": "32", "refused": "33", "broken": "31;1", "failed": "31", "skipped": "2"}
MEANINGS: dict[Outcome, str] = {
    "ok": "as the dialect has it",
    "refused": "the model does not do it",
    "broken": "not what clients of the dialect can read",
    "failed": "could not be tried",
    "skipped": "nothing to try",
}
PASSING: frozenset[Outcome] = frozenset({"ok", "refused", "skipped"})


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the program's parser."""
    parser = subparsers.add_parser(
        "doctor",
        help="check a model of the running gateway in every client dialect",
        description="Runs conformance checks against a model: answers, streams, tools, errors, cancellation.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="agw/echo", help="model to ask (default: agw/echo)")
    parser.add_argument("--only", type=_forms, default=FORMS, metavar="DIALECTS", help=f"some of {','.join(FORMS)}")
    parser.add_argument("--url", help="address of the gateway, with or without /v1")
    parser.add_argument("--key", help="key to present")
    parser.add_argument("--strict", action="store_true", help="what the model refuses is a failure too")
    parser.add_argument("--timeout", type=_seconds, default=SILENCE_SECONDS, help="longest silence, in seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what was found; give 0 where all is well, 1 where not, 2 where there was nothing to examine."""
    try:
        place = find(args.url, args.key, os.environ)
        version = _gateway(place, args.timeout)
    except Failure as failure:
        if args.json:
            print(json.dumps({"passed": False, "error": str(failure)}))
        else:
            print(failure, file=sys.stderr)
        return 2
    findings = compare(list(_examined(place, args.model, args.only, args.timeout)))
    passed = all(_passes(finding, strict=args.strict) for finding in findings)
    if args.json:
        print(json.dumps(document(place, version, args.model, findings, passed=passed)))
        return 0 if passed else 1
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(f"{_plain(args.model)} at {place.url} (agw {version})\n")
    print("\n".join([*table(findings, colours=colours), *remarks(findings, colours=colours), "", _summary(findings)]))
    return 0 if passed else 1


def document(place: Place, version: str, model: str, findings: Sequence[Finding], *, passed: bool) -> dict[str, Any]:
    """Give the JSON form. ``event`` is the first broken event of a stream, numbered from 1."""
    checks = []
    for finding in findings:
        event = None
        if finding.fault is not None:
            number, name, expected, came = finding.fault
            event = {"number": number, "name": name, "expected": expected, "got": came}
        checks.append(
            {
                "dialect": finding.form,
                "check": finding.check,
                "outcome": finding.outcome,
                "detail": finding.detail or None,
                "event": event,
            }
        )
    return {"url": place.url, "version": version, "model": model, "passed": passed, "checks": checks}


def table(findings: Sequence[Finding], *, colours: bool) -> Iterator[str]:
    """Give a line a check, and a column a dialect."""
    forms = list(dict.fromkeys(finding.form for finding in findings))
    outcomes = {(finding.check, finding.form): finding.outcome for finding in findings}
    first = max(map(len, CHECKS))
    yield "  ".join(["".ljust(first), *(form.ljust(9) for form in forms)]).rstrip()
    for check in CHECKS:
        cells = [_coloured(outcomes[check, form], 9, colours=colours) for form in forms]
        yield "  ".join([check.ljust(first), *cells]).rstrip()


def remarks(findings: Sequence[Finding], *, colours: bool) -> Iterator[str]:
    """Give what there is to say of each check, the bad news last: what was printed last is read first."""
    for outcome in ("skipped", "ok", "refused", "failed", "broken"):
        said: dict[str, list[Finding]] = {}
        for finding in findings:
            if finding.outcome == outcome and finding.detail:
                said.setdefault(finding.detail, []).append(finding)
        for detail, alike in said.items():
            forms = ", ".join(dict.fromkeys(finding.form for finding in alike))
            checks = ", ".join(dict.fromkeys(finding.check for finding in alike))
            yield f"\n{_coloured(outcome, 0, colours=colours)}: {checks} ({forms})\n    {_plain(detail)}"


def _summary(findings: Sequence[Finding]) -> str:
    counts = {outcome: sum(finding.outcome == outcome for finding in findings) for outcome in MEANINGS}
    return "\n".join(f"{count:4} {name}: {MEANINGS[name]}" for name, count in counts.items() if count)


def _examined(place: Place, model: str, forms: Sequence[Form], seconds: float) -> Iterator[Finding]:
    shows = sys.stderr.isatty()
    for form in forms:
        for finding in Examination(place, model, form, seconds).run():
            if shows:
                print(f"\r\x1b[K{form}: {finding.check}", end="", file=sys.stderr, flush=True)
            yield finding
    if shows:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _gateway(place: Place, seconds: float) -> str:
    """Give the version of what answers there to this key. Raises Failure."""
    seconds = min(seconds, FIRST_SECONDS)
    status, health = fetch(place, "/health", seconds=seconds)
    if status != HTTPStatus.OK or not isinstance(health, dict) or "version" not in health:
        raise Failure(f"{place.url} answered {status} to /health: this is not a gateway")
    status, _ = fetch(place, "/v1/models", seconds=seconds)
    if status == HTTPStatus.UNAUTHORIZED:
        known = "no key was found: give --key, or set OPENAI_BASE_URL and OPENAI_API_KEY"
        raise Failure(f"{place.url} does not know the key" if place.key else f"{place.url} wants a key, and {known}")
    return _plain(str(health["version"]))


def _passes(finding: Finding, *, strict: bool) -> bool:
    return finding.outcome in PASSING and not (strict and finding.outcome == "refused")


def _coloured(outcome: Outcome, width: int, *, colours: bool) -> str:
    text = outcome.ljust(width)
    return f"\x1b[{COLOURS[outcome]}m{text}\x1b[0m" if colours else text


def _plain(text: str) -> str:
    """Take out what a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)


def _forms(text: str) -> tuple[Form, ...]:
    wanted = [name.strip() for name in text.split(",")]
    unknown = [name for name in wanted if name not in FORMS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(FORMS)}, got {unknown[0]!a}")
    return tuple(form for form in FORMS if form in wanted)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, up to 3600, got {text!a}")
    return value
