"""Misframed and unusual answers of an upstream, against a running gateway.

Every vector is asked for as JSON and as a stream, and sent in one piece and byte by byte. Whatever came: the client
gets it whole and right, or a clean refusal, or an answer that visibly broke off; the next request works; and a
connection on which anything was wrong is not used again. Each vector has an upstream entry of its own in the gateway,
so that what one leaves behind in a pool meets its own next request and nobody else's.
"""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import orjson
import pytest
import uvloop

from tests.e2e.corpus import responses
from tests.e2e.corpus.judge import LEAKS, refusal_faults
from tests.e2e.corpus.responses import BODIES, Kind, Response
from tests.e2e.corpus.vector import lines, post
from tests.e2e.corpus.wire import Answer, Talk, converse
from tests.support.gateway import APP_KEY, UPSTREAM_KEY, Gateway, configuration, provider
from tests.support.strict import Reaction, StrictUpstream

LANES = ("auto", "full")
KINDS: tuple[Kind, ...] = ("json", "sse")
CASES = [(vector, kind) for vector in responses.VECTORS for kind in KINDS]
AT_ONCE = 32
BYTEWISE_BYTES = 4096  # larger answers come in one piece only
SETTLE_SECONDS = 0.2
HEADS: dict[str, tuple[bytes, bool]] = {
    "with-length": (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n", True),
    "chunked": (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", True),
    "with-interim": (b"HTTP/1.1 103 Hint\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", True),
    "with-body": (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", False),
    "with-chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", False),
}
"""Answers to HEAD, which have no body whatever they announce (RFC 9110 section 9.3.2), and whether that is all."""
NOBODYS = ("set-cookie", "openai-organization", "keep-alive", "upgrade", "trailer", "x-powered-by")
"""Fields that no answer to a client carries, whatever an upstream says."""
Results = dict[tuple[str, Kind], list[str]]
GIVEN_UP_SECONDS = 2.0


@dataclass
class Stage:
    """A gateway with one upstream entry a vector and kind, all of them the same strict upstream."""

    gateway: Gateway
    upstream: StrictUpstream
    marks: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @property
    def port(self) -> int:
        """Of the gateway."""
        return urlsplit(self.gateway.url).port or 0

    async def ask(self, number: int, kind: Kind, mark: str) -> Talk:
        """A chat with the model of case ``number``."""
        tree = {"model": model(number), "messages": [{"role": "user", "content": "x"}]}
        body = orjson.dumps(tree if kind == "json" else {**tree, "stream": True})
        data = post(body=body).replace(b"x-vector: 00000000", b"x-vector: " + mark.encode())
        return await converse(self.port, [data], most=1, probe_id=f"probe-{mark}")

    async def _given_up(self, mark: str) -> None:
        """Until the connections that served it are closed: what comes behind an answer may come after it has gone out."""
        until = asyncio.get_running_loop().time() + GIVEN_UP_SECONDS
        while {seen.connection for seen in self.upstream.by_mark(mark)} - self.upstream.closed:
            if asyncio.get_running_loop().time() > until:
                return  # told by the one who is asked again on it
            await asyncio.sleep(0.001)

    async def play(self, number: int, vector: Response, kind: Kind, *, bytewise: bool) -> list[str]:
        """The vector, then a good answer over the same upstream entry."""
        mark, next_mark = f"{next(self.marks):08d}", f"{next(self.marks):08d}"
        self.upstream.answers[mark] = vector.reaction(kind, bytewise=bytewise)
        talk = await self.ask(number, kind, mark)
        faults = judge(vector, kind, talk)
        if not vector.reusable:
            await self._given_up(mark)
        again = await self.ask(number, "json", next_mark)
        if [(answer.status, answer.body) for answer in again.answers] != [(200, BODIES["json"])]:
            faults.append(
                f"the next request ended as '{again.end}' with {[answer.body[:200] for answer in again.answers]}"
            )
        used = [seen.connection for seen in self.upstream.by_mark(mark)]
        later = [seen.connection for seen in self.upstream.by_mark(next_mark)]
        if not used:
            faults.append("the upstream was not asked at all")
        if not vector.reusable and (len(set(used)) < len(used) or set(used) & set(later)):
            faults.append(f"a connection was used again: first {used}, then {later}")
        faults += [
            f"upstream: {oddity.complaint}" for oddity in self.upstream.oddities if oddity.mark in {mark, next_mark}
        ]
        return faults


def model(number: int) -> str:
    """The model that only the upstream entry of this case has."""
    return f"case-{number}-m"


def judge(vector: Response, kind: Kind, talk: Talk) -> list[str]:
    """What is wrong with what the client got."""
    faults = list(talk.faults)
    if talk.closing == "hang" or len(talk.answers) != 1:
        return [*faults, f"it ended as '{talk.end}'"]
    answer = talk.answers[0]
    outcome = told(answer, vector.content(kind), kind)
    if outcome not in vector.outcomes:
        faults.append(f"it became '{outcome}', and not one of {sorted(vector.outcomes)}: {answer.body[-300:]!r}")
    if talk.interim:
        faults.append(f"interim answers {talk.interim} came through")
    if outcome == "refused":
        faults += refusal_faults(answer, "openai")
    if outcome == "broken" and talk.closing != "closed":
        faults.append(f"a broken answer, and then the connection was '{talk.closing}'")
    if LEAKS.search(answer.body):
        faults.append(f"something of Python shows: {answer.body[:300]!r}")
    if UPSTREAM_KEY.encode() in answer.body + repr(answer.fields).encode():
        faults.append("the upstream's key is in the answer")
    faults += [f"{name} came through" for name in {*NOBODYS, *vector.hidden} if answer.values(name)]
    if (
        answer.values("server") != ["agw"]
        or len(answer.values("x-request-id")) != 1
        or answer.values("x-request-id") == ["theirs"]
    ):
        faults.append(f"Server {answer.values('server')}, x-request-id {answer.values('x-request-id')}")
    return faults


def told(answer: Answer, wanted: bytes, kind: Kind) -> str:
    """What an answer says it is, as ``responses`` names it; ``wrong ...`` for what must never be."""
    if answer.status in {502, 503, 504} and answer.complete:
        return "refused"
    if not answer.complete:
        if kind == "sse" and not answer.body.rstrip().endswith(b"data: [DONE]"):
            begun, _, event = answer.body.rpartition(b"event: error\ndata: {")
            if not event:
                return "wrong: a stream that broke off without an error event"
            return "broken" if wanted.startswith(begun.rstrip(b"\n")) else "wrong: other events than the upstream's"
        return "broken"
    if answer.status != 200:
        return str(answer.status) if not answer.body else f"wrong: a {answer.status} with a body"
    if answer.by_close:
        return "wrong: its end cannot be told from a cut"
    same = answer.body == wanted or (kind == "sse" and answer.body.rstrip() == wanted.rstrip())
    return "relay" if same else "wrong: it looks finished, and is not what the upstream sent"


@pytest.fixture(scope="module", params=LANES)
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def stage(lane: str) -> Iterator[Stage]:
    env = {} if lane == "auto" else {"GATEWAY_SERVER__LANE": lane}
    with StrictUpstream(secrets=(APP_KEY.encode(),)) as upstream:
        entries = [provider(upstream.url, f"case-{number}", models=[model(number)]) for number, _ in enumerate(CASES)]
        entries += [provider(upstream.url, f"head-{number}", models=["none"]) for number, _ in enumerate(HEADS)]
        config = configuration(
            *entries,
            timeouts={"connect": "5s", "first_byte": "2s", "between_bytes": "700ms", "total": "10s"},
            retries={"attempts": 2, "base": "10ms", "max": "50ms"},
        )
        with Gateway(config, env=env) as gateway:
            yield Stage(gateway, upstream)


@pytest.fixture(scope="module")
def results(stage: Stage, request: pytest.FixtureRequest) -> Results:
    """Of all cases whose tests are going to run, played side by side."""
    wanted = set()
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.path == request.path and "case" in item.fixturenames:
            vector, kind = cast("tuple[Response, Kind]", item.callspec.params["case"])
            wanted.add((vector.name, kind))

    async def work() -> Results:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int, vector: Response, kind: Kind) -> tuple[tuple[str, Kind], list[str]]:
            async with gate:
                faults = await stage.play(number, vector, kind, bytewise=False)
                if len(vector.reaction(kind, bytewise=True).data) <= BYTEWISE_BYTES:
                    late = await stage.play(number, vector, kind, bytewise=True)
                    faults += [f"byte by byte: {fault}" for fault in late]
                return (vector.name, kind), faults

        chosen = [(number, *case) for number, case in enumerate(CASES) if (case[0].name, case[1]) in wanted]
        done = await asyncio.gather(*(one(*case) for case in chosen))
        await asyncio.sleep(SETTLE_SECONDS)
        return dict(done)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].name}-{case[1]}")
def test_response(results: Results, case: tuple[Response, Kind]) -> None:
    vector, kind = case
    faults = results[vector.name, kind]
    text = "\n".join(faults)
    assert not faults, f"{vector.name} for {kind} (RFC 9112 section {vector.section}):\n{text}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", HEADS)
def test_answer_to_head(stage: Stage, name: str) -> None:
    """The client gets a head and no byte more; a connection with surplus bytes is not used again."""
    data, reusable = HEADS[name]
    marks = [f"{next(stage.marks):08d}" for _ in range(2)]
    stage.upstream.answers[marks[0]] = Reaction(data)
    fields = (b"Authorization: Bearer " + APP_KEY.encode(), b"x-agw-upstream: head-%d" % list(HEADS).index(name))
    for mark in marks:
        head = lines(b"HEAD /v1/files HTTP/1.1", b"Host: a", b"x-vector: " + mark.encode(), *fields)
        talk = asyncio.run(converse(stage.port, [head], most=1, heads=frozenset({0}), probe_id=f"probe-{mark}"))
        good = ("200 open",) if reusable or mark == marks[1] else ("200 open", "502 open")
        assert (talk.end in good, talk.faults) == (True, []), talk.end
    used = [seen.connection for mark in marks for seen in stage.upstream.by_mark(mark)]
    assert len(used) == len(marks)
    assert reusable or used[0] != used[1]


@pytest.mark.timeout(120)
def test_nothing_broke_in_the_gateway(stage: Stage, results: Results) -> None:
    assert results
    assert stage.gateway.process.poll() is None, stage.gateway.output
    assert [line for line in stage.gateway.logs() if line.get("event") == "gateway.defect"] == []
    assert "Traceback" not in stage.gateway.output
