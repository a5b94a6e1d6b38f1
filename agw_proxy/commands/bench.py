"""``agw bench``: a short, bounded load on the running gateway, and what it answered how fast.

The quick form, to see what a setting costs or whether a gateway is well: a client in Python is slower than the gateway
itself, so the requests a second are a lower bound, and the gateway's CPU is not known from here.
"""

import argparse
import asyncio
import http.client
import json
import math
import os
import sys
import time
from array import array
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from agw_proxy.commands.running import Failure, Place, ask, complaint, find

if TYPE_CHECKING:
    import aiohttp

EXAMPLES = """\
examples:
  agw bench                                       5 s at 16 connections on the built-in echo model
  agw bench --stream --connections 100            time to first token and between tokens
  agw bench --model gpt-4o-mini --seconds 30      costs what the model's requests cost
  agw bench --json > before.json                  to compare with a later run

Address and key are found as `agw chat` finds them. The status is 1 where a request failed.
"""
PATH = "/v1/chat/completions"
QUESTION = "Say in one short sentence what a token bucket is."
MOST_CONNECTIONS = 1000
MOST_SECONDS = 600.0
MOST_SAMPLES = 1_000_000  # of each kind; 8 bytes each. Later ones are counted, but no longer timed
SILENCE_SECONDS = 60.0  # from the answer's side; over it a request has failed
PROGRESS_SECONDS = 0.5
PAUSE_SECONDS = 0.05  # after a failure: a gateway that refuses is not to be flooded
DONE = b"[DONE]"
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the program's parser."""
    parser = subparsers.add_parser(
        "bench",
        help="put a short load on the running gateway",
        description="Sends chat requests over some connections for some seconds, and tells how fast they were answered.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="agw/echo", help="model to ask (default: agw/echo, which costs nothing)")
    parser.add_argument("--stream", action="store_true", help="ask for streams, and time their tokens")
    parser.add_argument("--connections", type=_connections, default=16, help="requests at the same time (default: 16)")
    parser.add_argument("--seconds", type=_seconds, default=5.0, help="for how long (default: 5)")
    parser.add_argument("--url", help="address of the gateway, with or without /v1")
    parser.add_argument("--key", help="key to present")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)


class Load(NamedTuple):
    """What is asked, and how much of it."""

    model: str
    stream: bool
    connections: int
    seconds: float

    def body(self) -> dict[str, object]:
        """The chat request."""
        return {"model": self.model, "messages": [{"role": "user", "content": QUESTION}], "stream": self.stream}


class Tally:
    """What has come of the requests so far. Times are kept in seconds."""

    def __init__(self) -> None:
        self.requests = 0
        self.events = 0
        self.errors: Counter[str] = Counter()
        self.latency = array("d")
        self.ttft = array("d")
        self.gaps = array("d")

    def figures(self, load: Load, url: str, seconds: float) -> dict[str, object]:
        """Everything as it is printed with --json: times in ms; None where nothing was timed."""
        found: dict[str, object] = {
            "url": url,
            "model": load.model,
            "stream": load.stream,
            "connections": load.connections,
            "seconds": round(seconds, 3),
            "requests": self.requests,
            "failed": self.errors.total(),
            "errors": dict(self.errors),
            "requests_per_second": round(self.requests / seconds, 1),
            "latency_ms": percentiles(self.latency),
        }
        if load.stream:
            found |= {
                "events": self.events,
                "events_per_second": round(self.events / seconds, 1),
                "ttft_ms": percentiles(self.ttft),
                "inter_token_ms": percentiles(self.gaps),
            }
        return found


def run(args: argparse.Namespace) -> int:
    """Print the figures; give 0, or 1 where a request failed or none could be made (said on standard error)."""
    load = Load(args.model, args.stream, args.connections, args.seconds)
    try:
        place = find(args.url, args.key, os.environ)
        _try_once(place, load)
        import uvloop  # noqa: PLC0415  after the first answer: a mistake is told at once

        tally, seconds = uvloop.run(_bench(place, load))
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    figures = tally.figures(load, place.url, seconds)
    print(json.dumps(figures, indent=2) if args.json else _text(load, tally, figures))
    if not tally.requests and not tally.errors:
        print(f"no request was answered in {load.seconds:g} s: give more --seconds", file=sys.stderr)
        return 1
    return int(tally.errors.total() > 0)


def percentiles(seconds: "array[float]") -> dict[str, float] | None:
    """Give the p50, p90 and p99 (nearest rank) in ms; None where there are no times."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    return {name: round(ordered[math.ceil(share * len(ordered)) - 1] * 1000, 3) for name, share in SHARES.items()}


def _try_once(place: Place, load: Load) -> None:
    """Ask once, so that a wrong address, key or model is told in words. Raises Failure."""
    connection, response = ask(place, "POST", PATH, load.body(), seconds=SILENCE_SECONDS)
    try:
        if response.status != http.HTTPStatus.OK:
            raise Failure(complaint(place, response))
        response.read()
    except (OSError, http.client.HTTPException):
        raise Failure("the answer broke off: the connection was lost") from None
    finally:
        connection.close()


async def _bench(place: Place, load: Load) -> tuple[Tally, float]:
    """Keep all connections busy until the time is over; what is still under way then is not counted."""
    import aiohttp  # noqa: PLC0415  only this command's load needs it

    tally = Tally()
    headers = {"Authorization": f"Bearer {place.key}"} if place.key is not None else {}
    session = aiohttp.ClientSession(
        headers=headers,
        connector=aiohttp.TCPConnector(limit=load.connections),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS),
    )
    begun = time.perf_counter()
    async with session:
        askers = [asyncio.ensure_future(_ask_on(session, place, load, tally)) for _ in range(load.connections)]
        if sys.stderr.isatty():
            askers.append(asyncio.ensure_future(_tell_progress(tally, begun)))
        done, _ = await asyncio.wait(askers, timeout=load.seconds, return_when=asyncio.FIRST_EXCEPTION)
        seconds = time.perf_counter() - begun
        for asker in askers:
            asker.cancel()
        await asyncio.gather(*askers, return_exceptions=True)
        for asker in done:
            asker.result()
    return tally, seconds


async def _ask_on(session: "aiohttp.ClientSession", place: Place, load: Load, tally: Tally) -> None:
    """Ask again and again."""
    import aiohttp  # noqa: PLC0415  loaded already
    from aiohttp.http_exceptions import LineTooLong  # noqa: PLC0415  likewise

    content = json.dumps(load.body()).encode()
    headers = {"Content-Type": "application/json"}
    while True:
        begun = time.perf_counter()
        try:
            async with session.post(place.url + PATH, data=content, headers=headers) as response:
                if response.status != http.HTTPStatus.OK:
                    wrong: str | None = f"status {response.status}"
                elif load.stream:
                    wrong = await _read_stream(response, begun, tally)
                else:
                    wrong = None if b'"choices"' in await response.read() else "no chat completion"
        except (aiohttp.ClientError, LineTooLong, OSError) as error:
            wrong = type(error).__name__
        if wrong is None:
            tally.requests += 1
            _keep(tally.latency, time.perf_counter() - begun)
        else:
            tally.errors[wrong] += 1
            await asyncio.sleep(PAUSE_SECONDS)


async def _read_stream(response: "aiohttp.ClientResponse", begun: float, tally: Tally) -> str | None:
    """Read server-sent events (WHATWG HTML, section 9.2) to [DONE]; give what is wrong, or None."""
    last = 0.0
    done = False
    async for line in response.content:
        name, _, value = line.partition(b":")
        if name == b"event" and value.strip() == b"error":
            return "error event"
        if name != b"data":
            continue
        if value.strip() == DONE:
            done = True
            continue
        now = time.perf_counter()
        tally.events += 1
        _keep(tally.gaps if last else tally.ttft, now - (last or begun))
        last = now
    return None if done else "unfinished stream"


def _keep(times: "array[float]", seconds: float) -> None:
    if len(times) < MOST_SAMPLES:
        times.append(seconds)


async def _tell_progress(tally: Tally, begun: float) -> None:
    """Rewrite one line of the terminal now and then; wipe it at the end."""
    try:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            seconds = time.perf_counter() - begun
            failed = tally.errors.total()
            print(
                f"\r\x1b[K{seconds:4.1f} s  {tally.requests:,} answered{f', {failed:,} failed' if failed else ''}",
                end="",
                file=sys.stderr,
                flush=True,
            )
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _text(load: Load, tally: Tally, figures: dict[str, object]) -> str:
    """The figures for a reader."""
    kind = "streams" if load.stream else "answers"
    lines = [
        f"{load.model} at {figures['url']}: {kind} on {load.connections} connections for {figures['seconds']:.1f} s"
    ]
    lines.append(f"requests        {tally.requests:,} ({figures['requests_per_second']:,}/s)")
    rows = {"latency": "latency_ms"}
    if load.stream:
        lines.append(f"events          {tally.events:,} ({figures['events_per_second']:,}/s)")
        rows |= {"first token": "ttft_ms", "between tokens": "inter_token_ms"}
    for name, figure in rows.items():
        times = figures[figure]
        if isinstance(times, dict):
            lines.append(f"{name:14}  " + "   ".join(f"{share} {value:,.2f} ms" for share, value in times.items()))
    lines += [f"failed          {count:,}: {what}" for what, count in tally.errors.most_common()]
    return "\n".join(lines)


def _connections(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if not 1 <= value <= MOST_CONNECTIONS:
        raise argparse.ArgumentTypeError(f"expected 1 to {MOST_CONNECTIONS}, got {text!r}")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"expected more than 0 and at most {MOST_SECONDS:g} seconds, got {text!r}")
    return value
