"""Hostile and unusual bytes from clients, against a running gateway with an upstream that forgives nothing.

All chosen vectors are played at once when the first of them asks for its result; each then fails under its own name.
What is checked of every one: its end is an acceptable one; the upstream got nothing, or exactly the requests that were
legally sent; another connection is served right after; no answer shows anything of Python; nothing hangs.
"""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import pytest
import uvloop

from tests.e2e.corpus import chunks, connections, framing, heads, targets
from tests.e2e.corpus.judge import stamped, talk_faults, upstream_faults
from tests.e2e.corpus.vector import STREAMED, Vector, Wait, post
from tests.e2e.corpus.wire import PATIENCE_SECONDS, Talk, converse
from tests.support.behaviours import head_bytes
from tests.support.gateway import APP_KEY, Gateway, configuration, provider
from tests.support.strict import Reaction, StrictUpstream

VECTORS = framing.VECTORS + chunks.VECTORS + heads.VECTORS + targets.VECTORS + connections.VECTORS
SPLIT = [vector for vector in VECTORS if vector.split]
DIVISIBLE = [vector for vector in VECTORS if vector.divisible]
LANES = ("auto", "full")
# aiohttp's client writes header values as UTF-8 text without white space of any kind around it: what is not that comes
# through whole by the fast lane only, and does not come through at all by the full one.
FAST_LANE_ONLY = {"value-obs-text", "value-no-break-space-at-its-ends"}
AT_ONCE = 48  # conversations; enough to keep both sides busy while some wait for a deadline
GAP_SECONDS = 0.001  # between two segments, so that they are read apart
SETTLE_SECONDS = 0.2  # for what a client left behind to be noticed by all
SHOWN_FAULTS = 5  # of one vector in all its cuts
STREAM_BYTES = 64 * 1024 * 1024  # more than the kernel's buffers take at both ends
HELD_BYTES = 24 * 1024 * 1024  # of memory for one client that takes nothing, the allocator's slack included
Results = dict[str, list[str]]


@dataclass
class Stage:
    """A gateway, and the strict upstream behind it."""

    gateway: Gateway
    upstream: StrictUpstream
    marks: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    given: set[str] = field(default_factory=set)

    @property
    def port(self) -> int:
        """Of the gateway."""
        return urlsplit(self.gateway.url).port or 0

    def mark(self) -> str:
        """A number that no vector has had."""
        mark = f"{next(self.marks):08d}"
        self.given.add(mark)
        return mark

    async def play(self, vector: Vector, cut: int = 0) -> tuple[str, Talk]:
        """One conversation, in two segments where ``cut`` is not 0; gives its number and what came back."""
        mark = self.mark()
        steps = stamped(vector.steps, mark)
        if cut:
            data = b"".join(step for step in steps if isinstance(step, bytes))
            steps = (data[:cut], Wait(GAP_SECONDS), data[cut:])
        talk = await converse(self.port, steps, most=vector.most, heads=vector.heads, probe_id=f"probe-{mark}")
        return mark, talk

    async def others_are_served(self) -> list[str]:
        """A chat on a connection of its own, right now."""
        _, talk = await self.play(PROBE)
        return [] if talk.end == "200 open" else [f"a request on another connection ended as '{talk.end}'"]

    def faults(self, vector: Vector, mark: str, talk: Talk) -> list[str]:
        """All that was wrong with one conversation; asked when everything has settled."""
        faults = talk_faults(vector, talk)
        faults += [f"upstream: {oddity.complaint}" for oddity in self.upstream.oddities if oddity.mark == mark]
        return faults + upstream_faults(vector, talk.end, self.upstream.by_mark(mark))


PROBE = Vector("another-connection", "", (post(),), frozenset({"200 open"}))


@contextlib.contextmanager
def stage(lane: str, env: dict[str, str] | None = None, **server: object) -> Iterator[Stage]:
    """``server``: settings of that section."""
    env = dict(env or {})
    if lane != "auto":
        env["GATEWAY_SERVER__LANE"] = lane
    with StrictUpstream(secrets=(APP_KEY.encode(),)) as upstream:
        config = configuration(provider(upstream.url, timeouts={"first_byte": "5s", "connect": "5s"}))
        config["server"] |= {"max_body_mb": 1, "max_header_kb": 8, **server}
        with Gateway(config, env=env) as gateway:
            yield Stage(gateway, upstream)


@pytest.fixture(scope="module", params=LANES)
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def usual(lane: str) -> Iterator[Stage]:
    env = {"GATEWAY_SERVER__HEAD_SECONDS": "3"}
    with stage(lane, env, body_seconds=1) as running:
        yield running


@pytest.fixture(scope="module")
def hasty(lane: str) -> Iterator[Stage]:
    """Deadlines of 0.3 s for heads and bodies."""
    env = {"GATEWAY_SERVER__HEAD_SECONDS": "0.3"}
    with stage(lane, env, body_seconds=0.3, keepalive_seconds=0.5, write_seconds=0.5) as running:
        yield running


def as_carried(vector: Vector, lane: str) -> Vector:
    """What of the vector this lane promises."""
    return replace(vector, shown=()) if lane == "full" and vector.name in FAST_LANE_ONLY else vector


def chosen(request: pytest.FixtureRequest, *tests: Callable[..., None]) -> list[Vector]:
    """The vectors for which one of these tests is going to run, each once."""
    names = {test.__name__ for test in tests}
    found: dict[int, Vector] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.path == request.path and item.originalname in names:
            vector = item.callspec.params["vector"]
            assert isinstance(vector, Vector)
            found[id(vector)] = vector
    return list(found.values())


def run_all(stage: Stage, vectors: Sequence[Vector], cuts: Callable[[Vector], Sequence[int]]) -> Results:
    """Play every cut of every vector (0: whole), and judge when all is quiet."""

    async def work() -> list[tuple[Vector, list[tuple[int, str, Talk]], list[str]]]:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(vector: Vector, cut: int) -> tuple[int, str, Talk]:
            async with gate:
                return (cut, *await stage.play(vector, cut))

        async def all_of(vector: Vector) -> tuple[Vector, list[tuple[int, str, Talk]], list[str]]:
            talks = await asyncio.gather(*(one(vector, cut) for cut in cuts(vector)))
            async with gate:
                return vector, talks, await stage.others_are_served()

        done = await asyncio.gather(*(all_of(vector) for vector in vectors))
        await asyncio.sleep(SETTLE_SECONDS)
        return done

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        done = runner.run(work())
    results: Results = {}
    for vector, talks, neighbours in done:
        faults = list(neighbours)
        for cut, mark, talk in talks:
            where = f"cut at byte {cut}: " if cut else ""
            faults += [where + fault for fault in stage.faults(vector, mark, talk)]
        results[vector.name] = faults
    return results


def whole(vector: Vector) -> Sequence[int]:
    """No cut."""
    return (0,)


def everywhere(vector: Vector) -> Sequence[int]:
    """At every byte."""
    return range(1, len(vector.data))


def where_new(vectors: Sequence[Vector]) -> Callable[[Vector], Sequence[int]]:
    """At every byte behind those that an earlier vector begins with too: those it has been cut at already."""
    begins: dict[str, int] = {}
    for number, vector in enumerate(vectors):
        shared = (shared_bytes(vector.data, other.data) for other in vectors[:number])
        begins[vector.name] = max(shared, default=1)
    return lambda vector: range(max(begins[vector.name], 1), len(vector.data))


def shared_bytes(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


@pytest.fixture(scope="module")
def whole_results(usual: Stage, lane: str, request: pytest.FixtureRequest) -> Results:
    return run_all(usual, [as_carried(vector, lane) for vector in chosen(request, test_request)], whole)


@pytest.fixture(scope="module")
def hasty_results(hasty: Stage, request: pytest.FixtureRequest) -> Results:
    return run_all(hasty, chosen(request, test_slow_client), whole)


@pytest.fixture(scope="module")
def split_results(usual: Stage, request: pytest.FixtureRequest) -> Results:
    wanted = chosen(request, test_request_in_two_segments)
    return run_all(usual, wanted, where_new(wanted))


@pytest.fixture(scope="module")
def everywhere_results(usual: Stage, lane: str, request: pytest.FixtureRequest) -> Results:
    return run_all(
        usual, [as_carried(vector, lane) for vector in chosen(request, test_request_cut_anywhere)], everywhere
    )


def complain(results: Results, vector: Vector) -> None:
    faults = results[vector.name]
    more = len(faults) - SHOWN_FAULTS
    text = "\n".join([*faults[:SHOWN_FAULTS], *([f"and {more} more"] if more > 0 else [])])
    assert not faults, f"{vector.name} (RFC 9112 section {vector.section}):\n{text}"


def named(vector: Vector) -> str:
    return vector.name


@pytest.mark.parametrize("vector", VECTORS, ids=named)
def test_request(whole_results: Results, vector: Vector) -> None:
    complain(whole_results, vector)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("vector", SPLIT, ids=named)
def test_request_in_two_segments(split_results: Results, vector: Vector) -> None:
    complain(split_results, vector)


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("vector", DIVISIBLE, ids=named)
def test_request_cut_anywhere(everywhere_results: Results, vector: Vector) -> None:
    complain(everywhere_results, vector)


@pytest.mark.parametrize("vector", connections.SLOW, ids=named)
def test_slow_client(hasty_results: Results, vector: Vector) -> None:
    complain(hasty_results, vector)


def test_a_client_that_never_reads_its_answer_is_cut(hasty: Stage) -> None:
    """Its upstream is stopped meanwhile: what the gateway holds of 64 MB is little."""
    mark = hasty.mark()
    text = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 8000 + b'"}}]}\n\n'
    body = text * (STREAM_BYTES // len(text))
    head = head_bytes(200, [("content-type", "text/event-stream"), ("content-length", str(len(body)))])
    hasty.upstream.answers[mark] = Reaction(head + body, "fin")
    before = hasty.gateway.rss_bytes
    with silent_client(hasty) as client:
        (request,) = stamped((post(b"x-request-id: silent", body=STREAMED),), mark)
        assert isinstance(request, bytes)
        client.sendall(request)
        (receipt,) = hasty.gateway.receipts("silent", PATIENCE_SECONDS)
        assert hasty.gateway.rss_bytes - before < HELD_BYTES
        received = read_to_the_end(client)
    assert receipt["outcome"] == "caller_gone"
    assert received.startswith(b"HTTP/1.1 200 ")
    assert len(received) < len(body)
    assert not received.endswith(b"0\r\n\r\n")


def test_a_client_that_asks_on_and_on_and_never_reads_is_stopped(hasty: Stage) -> None:
    before = hasty.gateway.rss_bytes
    (request,) = stamped((post(),), hasty.mark())
    assert isinstance(request, bytes)
    sent = 0
    with silent_client(hasty) as client:
        client.settimeout(2)
        with contextlib.suppress(OSError):
            while sent < STREAM_BYTES:
                sent += client.send(request * 20)
        assert sent < STREAM_BYTES, "it was read without an end"
        assert hasty.gateway.rss_bytes - before < HELD_BYTES
    assert asyncio.run(hasty.others_are_served()) == []


@contextlib.contextmanager
def silent_client(stage: Stage) -> Iterator[socket.socket]:
    """A socket whose own buffer is small."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE_SECONDS)
        client.connect(("127.0.0.1", stage.port))
        yield client


def read_to_the_end(client: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            data += piece
    return data


@pytest.mark.timeout(120)
def test_nothing_else_reached_the_upstream_and_nothing_broke(
    usual: Stage, hasty: Stage, whole_results: Results, hasty_results: Results
) -> None:
    """Behind all the others: requests and bytes that belong to no vector, and what the gateway says of itself."""
    for stage in (usual, hasty):
        assert stage.gateway.process.poll() is None, stage.gateway.output
        assert [seen for seen in stage.upstream.seen if seen.mark not in stage.given] == []
        assert [oddity for oddity in stage.upstream.oddities if oddity.mark not in stage.given] == []
        assert [line for line in stage.gateway.logs() if line.get("event") == "gateway.defect"] == []
        assert "Traceback" not in stage.gateway.output
    assert {**whole_results, **hasty_results}
