"""A supervisor whose workers follow a script instead of serving: ``python -m tests.edge.supervised BEHAVIOUR``.

Its log goes to standard error; at the end it prints why it gave up, if it did.
"""

import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

from agw_proxy.config.loader import load
from agw_proxy.edge import supervisor
from agw_proxy.edge.direct_log import open_direct
from agw_proxy.edge.listeners import listen
from agw_proxy.edge.worker_link import Ready, WorkerLink

ENVIRON = {
    "GATEWAY_SERVER__WORKERS": "2",
    "GATEWAY_SERVER__DRAIN_SECONDS": "0",
    "GATEWAY_SERVER__HEARTBEAT_SECONDS": "1h",
}


def fails(link: WorkerLink) -> int:
    """Cannot start, and says why."""
    link.say_failed("no luck today")
    return 3


def dies(_: WorkerLink) -> int:
    """Ends without a word."""
    return 3


def leaves(link: WorkerLink) -> int:
    """Is ready and ends at once."""
    link._channel.send(Ready("none"))
    return 0


def ignores(link: WorkerLink) -> int:
    """Is ready and hears nothing any more."""
    link._channel.send(Ready("none"))
    time.sleep(3600)
    return 0


def hangs_up(link: WorkerLink) -> int:
    """Is ready, closes the link and does not end."""
    link._channel.send(Ready("none"))
    link._channel.close()
    time.sleep(3600)
    return 0


def apart(link: WorkerLink) -> int:
    """Is ready, and hears the drain, where it relays; dies where it is to run agents."""
    if link.apart:
        return 3
    link._channel.send(Ready("none"))
    select.select([link._channel], [], [])
    return 0


BEHAVIOURS: dict[str, Callable[[WorkerLink], int]] = {
    one.__name__: one for one in (fails, dies, leaves, ignores, hangs_up, apart)
}


def main(behaviour: str) -> int:
    """Run it until SIGTERM; the exit code of the supervisor, or of a worker in its process."""
    if behaviour in {"ignores", "hangs_up"}:
        supervisor.LAST_SECONDS = 0.2
    environ = {**ENVIRON, "GATEWAY_AGENTS__WORKERS": "1"} if behaviour == "apart" else ENVIRON
    loaded = load(None, environ, Path.cwd())
    log = open_direct(level="info", form="json", file=None, environ={})

    def announce(url: str, _: str) -> None:
        log.events.info("announced", url=url)

    running = supervisor.Supervisor(loaded, lambda: loaded, listen("127.0.0.1", 0, None, 2), log, announce)
    outcome = running.run()
    if not isinstance(outcome, int):
        return BEHAVIOURS[behaviour](outcome)
    if running.fault is not None:
        sys.stdout.write(running.fault)
    return outcome


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
