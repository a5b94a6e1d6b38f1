"""A decision of three rules by one process, and by two at once over the same subject of the same table.

``python -m bench.contended --rounds 30``: each round takes both, one right after the other, each process on a core of its own.
"""

import argparse
import mmap
import os
import statistics
import time
from multiprocessing import Barrier, Process, SimpleQueue
from multiprocessing.synchronize import Barrier as Gate

from agw_proxy._hot import limit
from agw_proxy._hot.limit import Limits, Rule, Table

DECISIONS = 100_000
HOUR_NS = 3_600_000_000_000
AMOUNT = 10**9  # an hour, so that nothing is refused: a refusal costs less


def decide(memory: mmap.mmap, worker: int, core: int, together: Gate, told: "SimpleQueue[float]") -> None:
    """Put how many nanoseconds one decision took, of DECISIONS."""
    os.sched_setaffinity(0, {core})
    rules = [
        Rule("minute", limit.PER_KEY, limit.REQUESTS, AMOUNT, HOUR_NS),
        Rule("tokens", limit.PER_KEY, limit.TOKENS, AMOUNT, HOUR_NS),
        Rule("all", limit.PER_GLOBAL, limit.REQUESTS, AMOUNT, HOUR_NS),
    ]
    limits = Limits(Table(memory, worker=worker), rules)
    now = time.monotonic_ns()
    together.wait()
    begun = time.perf_counter_ns()
    for _ in range(DECISIONS):
        limits.admit(now, key=1, input_tokens=10)
    took = time.perf_counter_ns() - begun
    if not limits.admit(now, key=1, input_tokens=10).granted:
        raise SystemExit("the rules were used up, and a refusal costs less")
    told.put(took / DECISIONS)


def taken(count: int) -> float:
    """Nanoseconds of a decision where so many processes decide at once: the mean of them."""
    with mmap.mmap(-1, Table.size()) as memory:
        told: SimpleQueue[float] = SimpleQueue()
        together = Barrier(count)
        cores = sorted(os.sched_getaffinity(0))
        workers = [Process(target=decide, args=(memory, n, cores[n], together, told)) for n in range(count)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return statistics.mean(told.get() for _ in workers)


def main() -> None:
    """Print both, and the ratio round by round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("two processes at once need two cores")
    pairs = [(taken(1), taken(2)) for _ in range(rounds)]
    alone, both = zip(*pairs, strict=True)
    ratios = statistics.quantiles([two / one for one, two in pairs], n=4)
    print(f"| alone | {statistics.median(alone):.0f} ns | least {min(alone):.0f} |")
    print(f"| two at once | {statistics.median(both):.0f} ns | least {min(both):.0f} |")
    print(f"| ratio | {ratios[1]:.2f} x | middle half {ratios[0]:.2f} - {ratios[2]:.2f} |")


if __name__ == "__main__":
    main()
