"""What is measured: each scenario is one kind of load, the same for every peer that it is for."""

from typing import NamedTuple

FAST, PLAIN, SLOW = (
    3,
    2,
    1,
)  # how much load a peer can take: tens of thousands of requests a second, thousands, hundreds


class Scenario(NamedTuple):
    """One load. Times in ms; a stream is ``events`` events, ``pace_us`` apart."""

    name: str
    title: str
    connections: int
    measure_ms: int = 2000
    warmup_ms: int = 500
    ramp_ms: int = 0
    rate: int = 0  # requests a second, due at fixed times; 0: each connection asks when it has its answer
    events: int = 0  # 0: the answer is JSON
    pace_us: int = 0
    tls: bool = False  # towards the upstream
    least_speed: int = SLOW
    slow_connections: int = 0  # for peers of the speed SLOW; 0: the same
    peers: frozenset[str] = frozenset()  # empty: all that are fast enough
    quick: bool = False

    def connections_for(self, speed: int) -> int:
        """How many connections a peer of this speed gets."""
        return self.slow_connections if speed == SLOW and self.slow_connections else self.connections

    @property
    def expected_events(self) -> float:
        """Events a second of one stream at the upstream's pace; 0 where there is no pace."""
        # N events take N - 1 paces, and the next stream begins at once.
        return 1e6 / self.pace_us * self.events / (self.events - 1) if self.events > 1 and self.pace_us else 0.0


SCENARIOS = (
    Scenario("json64", "JSON, 64 connections", 64, quick=True),
    Scenario("json1", "JSON, one connection", 1, measure_ms=1500, quick=True),
    Scenario("open2k", "JSON, 2,000 requests/s at fixed times", 64, rate=2000, least_speed=PLAIN),
    Scenario("open15k", "JSON, 15,000 requests/s at fixed times", 128, rate=15000, least_speed=FAST),
    Scenario("burst200", "200 streams of 100 events, unpaced", 200, events=100, slow_connections=20, quick=True),
    Scenario(
        "sse500",
        "500 streams, an event every 20 ms",
        500,
        measure_ms=2500,
        warmup_ms=1300,
        ramp_ms=1013,  # no multiple of the pace: the streams must not fall into step
        events=100,
        pace_us=20_000,
        slow_connections=50,
        quick=True,
    ),
    Scenario(
        "sse2000",
        "2,000 streams, an event every 100 ms",
        2000,
        measure_ms=2500,
        warmup_ms=1800,
        ramp_ms=1507,
        events=30,
        pace_us=100_000,
        least_speed=PLAIN,
        quick=True,
    ),
    Scenario(
        "sse9000",
        "9,000 streams, an event a second",
        9000,
        measure_ms=4000,
        warmup_ms=5500,
        ramp_ms=4013,
        events=30,
        pace_us=1_000_000,
        peers=frozenset({"direct", "agw", "nginx"}),
    ),
    Scenario(
        "tls",
        "JSON, 64 connections, TLS to the upstream",
        64,
        tls=True,
        peers=frozenset({"agw", "nginx"}),
    ),
    Scenario(
        "workers",
        "JSON, 64 connections, one worker and two",
        64,
        peers=frozenset({"agw", "agw-2", "nginx"}),
    ),
)
