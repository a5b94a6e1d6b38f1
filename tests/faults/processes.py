"""What is promised about whole processes: each is a test in ``test_processes.py`` that carries its name."""

from dataclasses import dataclass

from tests.faults.fault import WORKERS


@dataclass(frozen=True)
class Promise:
    """``workers``: the numbers of workers it is about."""

    name: str
    promise: str
    guard: str
    workers: tuple[int, ...] = WORKERS


PROMISES = (
    Promise(
        "outage",
        "Retries never multiply an outage: an upstream that fails each time gets at most 1.2 requests for each one "
        "of the clients.",
        "agw_proxy/upstreams/attempts.py: the retry budget",
    ),
    Promise(
        "probes",
        "An upstream whose probes (`health`) fail is asked no more, by any worker, and comes back when they are good.",
        "agw_proxy/upstreams/probes.py: `Streak`",
    ),
    Promise(
        "sigterm",
        "SIGTERM under live streams: what ends within the drain time is whole, the rest is told so, the exit status "
        "is 0.",
        "agw_proxy/edge/server.py: the drain",
    ),
    Promise(
        "kill-9",
        "`kill -9` of a worker under load loses the requests that were under way there, and no other; their clients "
        "see a cut, never a whole answer.",
        "agw_proxy/edge/supervisor.py: the replacement",
        workers=(2,),
    ),
    Promise("reload", "Reloads under load drop nothing.", "agw_proxy/edge/state.py: the swap"),
    Promise(
        "bad-reload",
        "A bad file under load is refused with its reason, and the old configuration goes on.",
        "agw_proxy/config/loader.py: built aside",
    ),
    Promise(
        "descriptors",
        "Out of file descriptors, connections that are open go on, the log stays short, and new ones come in again "
        "as soon as there is room.",
        "agw_proxy/edge/listeners.py: accepting pauses",
    ),
    Promise(
        "clock",
        "A wall clock that jumps by a day moves no time-out and refills no bucket.",
        "ext/agw_proxy/_hot/lane_time.pxi and limit.pyx: the monotonic clock",
    ),
)
