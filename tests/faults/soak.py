"""A gateway under load, with all that can go wrong at random: ``python -m tests.faults.soak [seconds] [seed]``.

Two workers, a crowd of clients of whom some leave, an upstream that fails in every way, a reload or a killed worker now
and then. In the end: every request has had an answer or a plain end, none a lie; nothing is in flight; descriptors and
memory are where they were after the warm-up. Ends with status 1 where that is not so.
"""

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.crowd import Crowd
from tests.faults.stage import family, gauges, memory, sockets
from tests.support.behaviours import failure, html_502, limited, raw, reset, silence, stream
from tests.support.fake_openai import openai_like, words
from tests.support.gateway import ADMIN_KEY, Gateway, configuration, provider
from tests.support.upstream import Behaviour, Exchange, Upstream

CLIENTS = 24
LEAVING = 0.1  # share of requests whose client does not wait
FAILING = 0.2  # share of answers of the upstream that go wrong
ROUGH_SHARE, WARM_SHARE = 0.5, 0.2  # of the time: with killed workers, and without until memory is measured
INCIDENT_SECONDS = 3.0  # between a reload or a kill and the next
SETTLE_SECONDS = 10.0
GROWTH_BYTES = 16 * 1024 * 1024  # of all workers together, from the warm-up to the end
GROWTH_SOCKETS = 40  # idle connections to the upstream that the pools may hold at one moment and not at another
KEPT_REQUESTS = 1000  # of the upstream's record, so that the test bench does not grow either
RELOADS = ("reload", "bad reload")
ENDS = {"whole", "refused", "broken", "left", "dropped"}
FAULTS: tuple[Behaviour, ...] = (
    failure(500),
    failure(503),
    failure(400),
    limited((("retry-after-ms", "5"),)),
    limited((("retry-after", "60"),)),
    html_502(),
    reset(),
    silence(),
    raw(b"HTTP/1.1 200 OK\r\ncontent-ty"),
    raw(b"nonsense\r\n\r\n"),
    raw(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id": "x", "cho'),
    stream(words()[:3], ending="fin"),
    stream(words()[:3], ending="rst"),
    stream(words()[:3]),
    stream(words()[:3], ending="hang"),
)


@dataclass
class Report:
    """What is printed, and what was wrong."""

    wrong: list[str] = field(default_factory=list)

    def say(self, what: str, value: object, *, good: bool = True) -> None:
        """One line."""
        print(f"{'ok ' if good else 'BAD'} {what}: {value}", flush=True)  # noqa: T201  its output
        if not good:
            self.wrong.append(what)


def moody(seed: int) -> Behaviour:
    """Well, but for a share of its answers."""
    chance = random.Random(seed)

    async def behave(exchange: Exchange) -> None:
        wrong = chance.random() < FAILING
        await (chance.choice(FAULTS) if wrong else openai_like)(exchange)

    return behave


def incidents(
    gateway: Gateway, chance: random.Random, seconds: float, keep: Callable[[], None], kinds: tuple[str, ...]
) -> Counter[str]:
    """One of these kinds every few seconds, until the time is over."""
    good = gateway.file.read_text()
    happened: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(INCIDENT_SECONDS, max(end - time.monotonic(), 0)))
        keep()
        what = chance.choice(kinds)
        happened[what] += 1
        if what == "kill -9":
            os.kill(chance.choice(family(gateway)), signal.SIGKILL)
            gateway.until(lambda: len(family(gateway)) == 2, "no replacement")
        else:
            put(gateway, good if what == "reload" else "serverr: {}\n")
            os.kill(gateway.pid, signal.SIGHUP)
    put(gateway, good)
    return happened


def put(gateway: Gateway, text: str) -> None:
    """Replace the configuration in one step: a reload that is under way must not read half a file."""
    fresh = gateway.file.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(0o600)
    fresh.replace(gateway.file)


def soak(seconds: float, seed: int) -> Report:
    """All of it."""
    report = Report()
    with Upstream(moody(seed)) as upstream:
        config = configuration(
            provider(upstream.url),
            timeouts={"connect": "300ms", "first_byte": "300ms", "between_bytes": "300ms", "total": "5s"},
            retries={"attempts": 3, "base": "1ms", "max": "20ms"},
            breaker={"cool_down": "50ms", "cool_down_max": "200ms"},
        )
        config["server"] = {"port": 0, "workers": 2, "drain_seconds": 1}
        with Gateway(config) as gateway, Crowd(gateway, CLIENTS, seed=seed, leaving=LEAVING) as crowd:

            def forget() -> None:
                del upstream.requests[:-KEPT_REQUESTS]

            chance = random.Random(seed)
            rough = incidents(gateway, chance, seconds * ROUGH_SHARE, forget, (*RELOADS, "kill -9"))
            warm = incidents(gateway, chance, seconds * WARM_SHARE, forget, RELOADS)
            bytes_before, sockets_before = memory(gateway), sockets(gateway)
            later = incidents(gateway, chance, seconds * (1 - ROUGH_SHARE - WARM_SHARE), forget, RELOADS)
            bytes_loaded, sockets_loaded = memory(gateway), sockets(gateway)
            crowd.__exit__()
            verdict(report, gateway, crowd, rough + warm + later)
            grown = bytes_loaded - bytes_before
            report.say(
                "memory under load, MiB", f"{bytes_before >> 20} -> {bytes_loaded >> 20}", good=grown < GROWTH_BYTES
            )
            more = sockets_loaded - sockets_before
            report.say("descriptors under load", f"{sockets_before} -> {sockets_loaded}", good=more < GROWTH_SOCKETS)
            rested = sockets(gateway)
            report.say("descriptors at rest", rested, good=rested <= sockets_before + GROWTH_SOCKETS)
            status = gateway.stop()
            report.say("exit status", status, good=status == 0)
    return report


def verdict(report: Report, gateway: Gateway, crowd: Crowd, happened: Counter[str]) -> None:
    """What became of the requests, once nobody asks any more."""
    told = crowd.told
    report.say("incidents", dict(happened))
    report.say("requests", sum(told.values()), good=told["whole"] > 0)
    report.say("fates", dict(told), good=set(told) <= ENDS)
    statuses = Counter(fate.status for fate in crowd.fates if fate.what == "refused")
    report.say("statuses of those refused", dict(sorted(statuses.items())))
    # A killed worker takes at most what every client had under way; nothing else may drop a connection.
    report.say("dropped", told["dropped"], good=told["dropped"] <= CLIENTS * happened["kill -9"])
    deadline = time.monotonic() + SETTLE_SECONDS
    rest = {"agw_active_requests": 1.0, "agw_active_streams": 0.0, "agw_connections": 1.0}
    while (now := gauges(gateway)) != rest and time.monotonic() < deadline:
        time.sleep(0.05)
    report.say("in flight at rest", now, good=now == rest)
    lines = Counter(line["request_id"] for line in gateway.logs() if line.get("event") == "request")
    ended = [fate.request_id for fate in crowd.fates if fate.what in {"whole", "refused"}]
    twice = [identity for identity, count in lines.items() if count > 1]
    missing = [identity for identity in ended if lines[identity] == 0]
    report.say("receipts written twice", len(twice), good=not twice)
    # Lines of the last twentieth of a second die with a killed worker.
    report.say("receipts missing", len(missing), good=len(missing) <= 100 * happened["kill -9"])
    tracebacks = gateway.output.count("Traceback")
    report.say("tracebacks", tracebacks, good=not tracebacks)
    status = gateway.get("/metrics", key=ADMIN_KEY).status
    report.say("metrics answer", status, good=status == 200)


def main() -> None:
    """Print the report; the exit status says whether it is good."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    print(f"{seconds:g} s with seed {seed}", flush=True)  # noqa: T201  its output
    sys.exit(1 if soak(seconds, seed).wrong else 0)


if __name__ == "__main__":
    main()
