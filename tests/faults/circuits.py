"""Upstreams that are left alone for a while, and those that have only so many places."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from select import select

from tests.faults.fault import Fault, Needs, Part, Play, Scene, both
from tests.support.behaviours import answer, failure, gate
from tests.support.client import Connection, Reply, bearer
from tests.support.fake_openai import completion
from tests.support.gateway import ADMIN_KEY, APP_KEY, Gateway, Tree, chat_body, provider
from tests.support.upstream import Upstream

CONSECUTIVE = 3  # failures that open a circuit
HOURS = "3h"  # a circuit that stays open for the whole test
SOON = "100ms"
LEAVE_SECONDS = 0.35  # 100 ms, and what a busy machine may add
REFUSED = 5  # requests while one probe is out
CIRCUIT = "ext/agw_proxy/_hot/circuit.pyx: `begin`"
QUEUE = "agw_proxy/upstreams/queue.py: `Places`"


def circuit(cool_down: str) -> Needs:
    """``open-{}``: an upstream of the row's own with a circuit; ``pair-{}``: two of them."""

    def needs(own: str, urls: Mapping[str, str]) -> Part:
        breaker = {"enabled": True, "consecutive": CONSECUTIVE, "cool_down": cool_down, "min_requests": 10_000}
        common = {"retries": {"attempts": 1}, "breaker": breaker}
        first = provider(urls["fake"], f"first-{own}", models=[f"open-{own}"], **common)
        second = provider(urls["spare"], f"second-{own}", models=[f"other-{own}"], **common)
        targets = [f"first-{own}/open-{own}", f"second-{own}/other-{own}"]
        return Part((first, second), ({"name": f"pair-{own}", "targets": targets, "balance": "first"},))

    return needs


def places(size: int, wait: str) -> Needs:
    """An upstream with one place in each worker and a queue."""

    def needs(own: str, urls: Mapping[str, str]) -> Part:
        name = f"narrow-{own}"
        queue = {"size": size, "wait": wait}
        patient = {"first_byte": "60s", "between_bytes": "60s"}
        return Part((provider(urls["fake"], name, models=[name], max_concurrent=1, queue=queue, timeouts=patient),))

    return needs


def refuse(play: Play) -> Reply:
    """A request that is turned away."""
    reply = play.gateway.chat(model=play.model, stream=play.streamed)
    assert (reply.status, reply.error["code"]) == (503, "upstream_unavailable"), reply.body
    return reply


@contextmanager
def half_open(play: Play) -> Iterator[None]:
    """It opens, lets one probe through after its time, and only when that is good all others."""
    play.upstream.default = failure(500)
    for _ in range(CONSECUTIVE):
        assert play.gateway.chat(model=play.model).status == 502
    assert len(play.upstream.requests) == CONSECUTIVE
    go, held = gate(answer(completion()))
    play.upstream.default = held
    with ThreadPoolExecutor(1) as pool:
        probe = until_asked(play, lambda: pool.submit(play.gateway.chat, model=play.model))
        assert len(play.upstream.requests) == CONSECUTIVE + 1
        for _ in range(REFUSED):
            refuse(play)
        assert len(play.upstream.requests) == CONSECUTIVE + 1
        go.set()
        assert probe.result().status == 200
    play.upstream.reset()
    yield


def until_asked(play: Play, ask: Callable[[], Future[Reply]]) -> Future[Reply]:
    """The request that got through to the upstream, while it is being answered."""
    before = len(play.upstream.requests)
    sent = ask()

    def through() -> bool:
        nonlocal sent
        if sent.done():
            assert sent.result().status == 503
            sent = ask()
        return len(play.upstream.requests) > before

    play.gateway.until(through, "the circuit does not let a probe through")
    return sent


@contextmanager
def both_open(play: Play) -> Iterator[None]:
    """Both targets have failed so often that they would be left alone."""
    play.upstream.default = play.spare.default = failure(500)
    play.gateway.until(lambda: failed(play), "the circuits do not open")
    play.upstream.reset()
    play.spare.reset()
    yield


def failed(play: Play) -> bool:
    """One more request fails; whether all circuits of the model are open."""
    assert play.gateway.chat(model=play.model).status >= 500
    own = play.model.removeprefix("pair-")
    data: list[Tree] = play.gateway.get("/upstreams", key=ADMIN_KEY).json["data"]  # type: ignore[assignment]
    names = {f"first-{own}/open-{own}", f"second-{own}/other-{own}"}
    circuits = {one["name"]: one["circuit"] for item in data for one in item["targets"] if one["name"] in names}
    return circuits == dict.fromkeys(names, "open")


def depth(gateway: Gateway, upstream: str) -> int:
    """How many wait for a place there, in all workers."""
    rows = gateway.get("/metrics", key=ADMIN_KEY).json.get("agw_queue_depth", [])
    assert isinstance(rows, list)
    return sum(int(row["value"]) for row in rows if row["labels"] == {"upstream": upstream})


@contextmanager
def occupied(play: Play, *, waiting: int) -> Iterator[None]:
    """Every worker's place is taken, and ``waiting`` wait for it in each; all of them are answered in the end.

    The kernel chooses a connection's worker: one that is turned away, or would be one more in the queue, goes again.
    """
    go, held = gate(answer(completion()))
    play.upstream.default = held
    body = chat_body(model=play.model)
    staying: list[Connection] = []
    with ExitStack() as stack:

        def there() -> tuple[int, int]:
            return len(play.upstream.requests), depth(play.gateway, play.model)

        def one_more(before: tuple[int, int]) -> None:
            connection = stack.enter_context(play.gateway.connect())
            connection.send("POST", "/v1/chat/completions", body, bearer(APP_KEY))
            play.gateway.until(lambda: there() != before or told(connection), "it is neither asked nor told")
            if there() == before:
                connection.close()  # turned away
            elif there()[1] > play.workers * waiting:
                connection.close()
                play.gateway.until(lambda: there() == before, "it still waits")
            else:
                staying.append(connection)

        while there() != (play.workers, play.workers * waiting):
            one_more(there())
        yield
        assert there() == (play.workers, play.workers * waiting)
        go.set()
        assert {connection.reply().status for connection in staying} == {200}
        assert len(play.upstream.requests) == play.workers * (1 + waiting)
    play.upstream.reset()
    for _ in range(REFUSED * play.workers):
        assert play.gateway.chat(model=play.model).status == 200
    assert depth(play.gateway, play.model) == 0


def told(connection: Connection) -> bool:
    """There is an answer."""
    return bool(select([connection.socket], [], [], 0)[0])


@contextmanager
def full(play: Play) -> Iterator[None]:
    """Nobody else may wait."""
    with occupied(play, waiting=1):
        yield


@contextmanager
def busy(play: Play) -> Iterator[None]:
    """One may wait."""
    with occupied(play, waiting=0):
        yield


def leave_queue(gateway: Gateway, _: Upstream, body: Tree, headers: dict[str, str]) -> float:
    """Go while waiting; the turn is given back within the time that an upstream would be told in."""
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", body, headers)
        gateway.until(lambda: depth(gateway, body["model"]) == 1, "it does not wait")
    left = time.monotonic()
    gateway.until(lambda: depth(gateway, body["model"]) == 0, "it still waits", LEAVE_SECONDS)
    return left


CIRCUITS = (
    Fault(
        "circuit-opens",
        "An upstream that has failed so many times in a row is left alone: it sees no further request, and the client "
        "gets a 503 at once.",
        CIRCUIT,
        **both(
            Scene(
                "refused",
                always=failure(500),
                model="open-{}",
                times=CONSECUTIVE + 1,
                earlier=Scene("refused", status=502, code="upstream_failed", outcome="upstream_failed"),
                before=CONSECUTIVE,
                attempts=0,
                status=503,
                code="upstream_unavailable",
                outcome="upstream_unavailable",
                free=True,
            ),
        ),
        needs=circuit(HOURS),
    ),
    Fault(
        "circuit-half-open",
        "When its time is over one request tries it, alone; if that is good, all come back.",
        CIRCUIT,
        **both(Scene("whole", model="open-{}", around=half_open)),
        needs=circuit(SOON),
    ),
    Fault(
        "circuit-panic",
        "Where most targets of a model are out, all are asked rather than none.",
        "ext/agw_proxy/_hot/route_choice.pxi: `panics`; agw_proxy/upstreams/attempts.py: `panic`",
        **both(Scene("whole", model="pair-{}", around=both_open)),
        needs=circuit(HOURS),
    ),
)
QUEUES = (
    Fault(
        "queue-full",
        "Where all places at an upstream are taken and its queue is full, the client gets a 503 at once.",
        QUEUE,
        **both(
            Scene(
                "refused",
                model="narrow-{}",
                attempts=0,
                status=503,
                code="upstream_queue_full",
                outcome="upstream_queue_full",
                headers=(("retry-after", "30"),),
                around=full,
            ),
        ),
        needs=places(1, "60s"),
    ),
    Fault(
        "queue-late",
        "Whoever waits for a place too long gets a 503, too.",
        QUEUE,
        **both(
            Scene(
                "refused",
                model="narrow-{}",
                attempts=0,
                status=503,
                code="upstream_queue_full",
                outcome="upstream_queue_full",
                headers=(("retry-after", "1"),),
                around=busy,
            ),
        ),
        needs=places(100, "150ms"),
    ),
    Fault(
        "leaves-queued",
        "A client that leaves the queue gives its turn back, and nobody is asked for it.",
        QUEUE,
        **both(
            Scene(
                "left",
                model="narrow-{}",
                attempts=0,
                client=leave_queue,
                outcome="caller_gone",
                around=busy,
            ),
        ),
        needs=places(100, "60s"),
    ),
)
ROWS = (*CIRCUITS, *QUEUES)
