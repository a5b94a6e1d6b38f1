"""The whole-process comparison: ``python -m bench.proxies.compare [--quick] [--peers a,b] [--scenarios a,b] [--rounds N]``.

A proxy under test has one core to itself; the load generator and the upstream share another. Peers take turns within each
round of each scenario, so that the machine's mood falls on all alike. bench/proxies/README.md tells how to read it.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence

from bench.proxies import install, report
from bench.proxies.measure import Bench, Cores, Sample
from bench.proxies.peer import Peer
from bench.proxies.peers import PEERS
from bench.proxies.results import Results
from bench.proxies.scenarios import SCENARIOS, Scenario

ROUNDS = 3
DISTURBED = 0.1  # of a core: others' work beyond which a measurement is made again
QUICK_PEERS = ("agw", "nginx")


def suits(peer: Peer, scenario: Scenario) -> bool:
    """Whether a peer takes part in a scenario."""
    if scenario.peers:
        return peer.name in scenario.peers
    return peer.speed >= scenario.least_speed and peer.workers == 1


def turns(peers: Sequence[Peer], round_number: int) -> list[Peer]:
    """Give the peers in another order each round, so that none always runs after the same one."""
    start = round_number % len(peers)
    return [*peers[start:], *peers[:start]]


def calmest(bench: Bench, peer: Peer, scenario: Scenario, tries: int) -> Sample:
    """Measure until nothing else has used the cores, ``tries`` times at most; give the least disturbed sample."""
    samples: list[Sample] = []
    while len(samples) < tries and (not samples or samples[-1]["foreign_share"] > DISTURBED):
        samples.append(bench.sample(peer, scenario))
    return min(samples, key=lambda sample: sample["foreign_share"])


def measure(peers: Sequence[Peer], scenarios: Sequence[Scenario], rounds: int, cores: Cores, tries: int) -> Results:
    """Measure everything; tell the progress on standard error. A peer that does not start is left out, and why is kept."""
    results = Results()
    able: list[Peer] = []
    for peer in peers:
        why = peer.missing()
        if why is None:
            results.versions[peer.name] = peer.version()
            able.append(peer)
        else:
            results.not_run[peer.name] = why
    with Bench(cores) as bench:
        for scenario in scenarios:
            taking_part = [peer for peer in able if suits(peer, scenario)]
            for number in range(rounds if taking_part else 0):
                for peer in turns(taking_part, number):
                    if (scenario.name, peer.name) in results.failed:
                        continue
                    begun = time.monotonic()
                    try:
                        sample = calmest(bench, peer, scenario, tries)
                    except RuntimeError as error:
                        results.failed[scenario.name, peer.name] = str(error)
                        _tell(f"{scenario.name:9} {peer.name:9} not run: {error}")
                        continue
                    results.add(scenario.name, peer.name, number, sample)
                    _tell(report.progress(scenario.name, peer.name, number, sample, time.monotonic() - begun))
    return results


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _chosen(text: str | None, known: Sequence[str], default: Sequence[str]) -> list[str]:
    names = text.split(",") if text else list(default)
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return [name for name in known if name in names]


def main() -> int:
    """Measure, print the tables; write them too where the run was a whole one."""
    parser = argparse.ArgumentParser(description="agw beside other proxies, as whole processes.")
    parser.add_argument("--quick", action="store_true", help="one round of the main scenarios with agw and nginx")
    parser.add_argument("--peers", help=f"of {','.join(peer.name for peer in PEERS)}")
    parser.add_argument("--scenarios", help=f"of {','.join(scenario.name for scenario in SCENARIOS)}")
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}")
    parser.add_argument("--tries", type=int, help="measure again while others use the cores (default 2; quick: 1)")
    parser.add_argument("--cores", default="0,1", help="of the proxy, and of all else (default 0,1)")
    parser.add_argument("--install", action="store_true", help="fetch the other proxies first")
    parser.add_argument("--write", action="store_true", help="write bench/results/proxies.{md,svg,json} of a part, too")
    args = parser.parse_args()
    proxy_core, load_core = (int(core) for core in args.cores.split(","))
    if not {proxy_core, load_core} <= os.sched_getaffinity(0):
        sys.exit(f"expected two of the cores {sorted(os.sched_getaffinity(0))}, got --cores {args.cores}")
    if args.install:
        for line in install.install():
            _tell(line)
    # An end from outside ends the peers too, which are sessions of their own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    all_peers = [peer.name for peer in PEERS]
    chosen = _chosen(args.peers, all_peers, QUICK_PEERS if args.quick else all_peers)
    peers = [peer for peer in PEERS if peer.name in {"direct", *chosen}]
    default = [scenario.name for scenario in SCENARIOS if scenario.quick or not args.quick]
    names = _chosen(args.scenarios, [scenario.name for scenario in SCENARIOS], default)
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in names]
    rounds = args.rounds or (1 if args.quick else ROUNDS)
    tries = args.tries or (1 if args.quick else 2)
    begun = time.monotonic()
    results = measure(peers, scenarios, rounds, Cores(proxy_core, load_core), tries)
    text = report.markdown(results, peers, scenarios, rounds, sys.argv[1:])
    print(text)
    if args.write or not (args.quick or args.peers or args.scenarios):
        report.write(results, peers, text)
    _tell(f"{time.monotonic() - begun:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
