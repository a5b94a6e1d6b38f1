"""Plays a scene on a running gateway, and judges what client, upstreams, log and limits have seen."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.faults.ask import TOKENS, Heard, ask
from tests.faults.fault import KINDS, Fault, Kind, Lane, Part, Play, Scene
from tests.faults.holes import deaf, mute
from tests.support.client import Reply
from tests.support.fake_openai import ANSWER, USAGE
from tests.support.gateway import ADMIN_KEY, APP_KEY, UPSTREAM_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.untrusted import untrusted
from tests.support.upstream import Recorded, Upstream, unreachable

KEY = "agw-faults-counted-5e0b8d13f7a2496c"
# Refilled so slowly that hardly a unit comes back while a fault is played: what is left is exact. One request at a
# time, so that a place which is not given back refuses all that comes after.
LIMITS = [
    {"per": "key", "requests": 1, "period": "1h", "burst": 15_000},
    {"per": "key", "tokens": 1, "period": "30s", "burst": 2_000_000},
    {"per": "key", "concurrent": 1},
]
PROMPT = 20  # tokens of the request's, at most
REFILL = 2  # tokens that may come back meanwhile
CANCEL_SECONDS = 0.1
NOISE_SECONDS = 0.25  # what a busy machine may add
TRIES = 3  # for a cancellation: the best of them counts, so that a busy machine is not taken for a slow gateway
SETTLE_SECONDS = 5.0
SPARE_SOCKETS = 24  # idle connections that pools keep, and what a lazily imported module opens
GROWTH_BYTES = 48 * 1024 * 1024  # of a gateway's memory over all faults: pools, arenas, 17 MB of one event
_numbers = count()


@dataclass
class Stage:
    """One gateway with the two upstreams behind it."""

    gateway: Gateway
    upstream: Upstream
    spare: Upstream
    lane: Lane
    workers: int
    asked: list[str] = field(default_factory=list)
    """The request ids of all that was played."""
    idle_sockets: int = 0
    idle_bytes: int = 0


def parts(faults: Sequence[Fault], urls: Mapping[str, str]) -> Iterator[Part]:
    """What each scene of these has configured for itself."""
    for fault in faults:
        for kind in KINDS:
            scene, own = fault.scene(kind), f"{fault.name}-{kind}"
            if scene is None:
                continue
            if fault.needs is not None:
                yield fault.needs(own, urls)
            for prefix, first in (("safe", "fake"), ("lost", "dead")):
                if scene.model.startswith(f"{prefix}-"):
                    yield Part(models=(in_turn(f"{prefix}-{own}", f"{first}/gpt-{own}", f"spare/gpt-{own}"),))


def in_turn(name: str, target: str, *fallbacks: str, **more: object) -> Tree:
    """A virtual model: the first of these that answers."""
    return {"name": name, "targets": [target], "balance": "first", "fallbacks": list(fallbacks), **more}


def settings(lane: Lane, workers: int, urls: Mapping[str, str], faults: Sequence[Fault]) -> Tree:
    """The gateway's configuration. ``urls``: of the upstreams, by name."""
    url = urls["fake"]
    claude = provider(url, "claude", dialect="anthropic", models=["claude-*"])
    claude["base_url"] = url
    once = {"retries": {"attempts": 1}}
    own = list(parts(faults, urls))
    return configuration(
        provider(url, models=["gpt-*"]),
        claude,
        provider(urls["spare"], "spare", models=["spare-*"]),
        provider(url, "brief", models=["brief-*"], timeouts={"total": "500ms"}),
        provider(urls["dead"], "dead", models=["dead-*"], **once),
        provider(f"http://{'a' * 64}.example", "misnamed", models=["misnamed-*"], **once),
        provider(urls["tls"], "tls", models=["tls-*"], **once),
        *(upstream for part in own for upstream in part.upstreams),
        server={
            "port": 0,
            "drain_seconds": 1,
            "lane": "auto" if lane == "fast" else "full",
            "workers": workers,
            "heartbeat_seconds": 0,
        },
        timeouts={"connect": "500ms", "first_byte": "300ms", "between_bytes": "300ms", "total": "20s"},
        retries={"attempts": 3, "base": "1ms", "max": "50ms", "budget_floor": 100_000},
        models=[model for part in own for model in part.models],
        keys=[
            {"name": "counted", "key": KEY, "models": ["*"], "limits": LIMITS, "fallbacks": True},
            {"name": "app", "key": APP_KEY, "models": ["*"]},
            {"name": "boss", "key": ADMIN_KEY, "models": ["*"], "admin": True},
        ],
    )


@contextmanager
def set_up(lane: Lane, workers: int, upstream: Upstream, spare: Upstream, faults: Sequence[Fault]) -> Iterator[Stage]:
    """A gateway in the middle of its life: both lanes imported, a connection to each upstream."""
    with ExitStack() as stack:
        urls = {"fake": upstream.url, "spare": spare.url}
        urls |= {"dead": stack.enter_context(unreachable()), "tls": stack.enter_context(untrusted())}
        urls |= {"deaf": stack.enter_context(deaf()), "mute": stack.enter_context(mute())}
        gateway = stack.enter_context(Gateway(settings(lane, workers, urls, faults)))
        stage = Stage(gateway, upstream, spare, lane, workers)
        for _ in range(8 * workers):
            gateway.until(lambda: gateway.chat().status == 200, "it does not answer")  # the first may be late
            assert gateway.chat(model="agw/echo", stream=True).status == 200
        stage.idle_sockets, stage.idle_bytes = sockets(gateway), memory(gateway)
        yield stage


def family(gateway: Gateway) -> list[int]:
    """The processes of a gateway that serve."""
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    return [int(pid) for pid in children] or [gateway.pid]


def sockets(gateway: Gateway) -> int:
    """Open descriptors of all its processes."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in family(gateway))


def memory(gateway: Gateway) -> int:
    """Resident bytes of all its processes."""
    lines = [line for pid in family(gateway) for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def gauges(gateway: Gateway) -> dict[str, float]:
    """What is in flight, summed over the workers."""
    text = gateway.get("/metrics/prometheus", key=ADMIN_KEY).body.decode()
    names = ("agw_active_requests", "agw_active_streams", "agw_connections")
    return {
        one.name: one.value for group in text_string_to_metric_families(text) for one in group.samples
        if one.name in names
    }  # fmt: skip


def left(stage: Stage) -> tuple[int, int]:
    """Requests and tokens that the key has left, by the headers of a request that uses one and USAGE of them."""
    stage.upstream.reset()
    stage.spare.reset()
    reply = stage.gateway.until(lambda: one_through(stage), "the place of an ended request was not given back")
    assert reply is not None
    stage.gateway.receipts(reply.request_id)  # its place is given back, also where another worker is asked next
    stage.upstream.reset()
    remaining = [reply.value(f"x-ratelimit-remaining-{unit}") for unit in ("requests", "tokens")]
    return int(remaining[0] or -1), int(remaining[1] or -1)


def one_through(stage: Stage) -> Reply | None:
    """A whole answer, or None where the only place is still taken, or a busy machine was late (which costs a request)."""
    reply = stage.gateway.chat(key=KEY, max_tokens=TOKENS)
    assert reply.status in {200, 429, 504}, reply.body
    return reply if reply.status == 200 else None


def play(stage: Stage, fault: Fault, kind: Kind) -> None:
    """Everything that is promised about one fault."""
    scene = fault.scene(kind)
    assert scene is not None
    requests, tokens = left(stage)
    sent = 0
    late: list[float] = []
    for _ in range(TRIES):
        late.append(once(stage, fault, scene, kind))
        sent += scene.times - scene.free
        if late[-1] <= CANCEL_SECONDS + NOISE_SECONDS:
            break
    assert min(late) <= CANCEL_SECONDS + NOISE_SECONDS, f"the upstream was let go after {late} s"
    after = left(stage)
    unanswered = len(late) * (refusals(scene) - scene.free)
    assert requests - after[0] == sent - unanswered + 1, "each request costs one, but those without an answer"
    spent = tokens - after[1] - USAGE["total_tokens"]
    assert_settled(scene, kind, spent, sent)
    quiet(stage)


def refusals(scene: Scene) -> int:
    """How many of a scene's requests cost nothing, not even themselves."""
    earlier = costs_nothing(scene.earlier) if scene.earlier is not None else False
    return (scene.times - 1) * earlier + costs_nothing(scene)


def costs_nothing(scene: Scene) -> bool:
    """No upstream has answered, be it with a refusal, and none was given up by a caller in a hurry."""
    if scene.ends == "left":
        return scene.attempts == 0
    return scene.ends == "refused" and scene.outcome != "upstream_rejected" and not hurried(scene)


def hurried(scene: Scene) -> bool:
    """The caller has set deadlines of its own."""
    return any(name == "x-agw-timeout" for name, _ in scene.sent)


def assert_settled(scene: Scene, kind: Kind, spent: int, sent: int) -> None:
    """``spent`` tokens: none for no answer, what a plain answer says of itself, else some, and what was reserved at most."""
    if scene.ends == "refused" and not hurried(scene):
        assert abs(spent) <= REFILL, "an answer that never came was paid for"
    elif scene.ends == "refused" or (scene.ends == "left" and not scene.begun):
        assert -REFILL <= spent <= sent * PROMPT + REFILL, (
            "more was paid for than the prompt that the upstream has read"
        )
    elif scene.ends == "whole" and kind == "json" and scene.text == ANSWER:
        assert abs(spent - sent * USAGE["total_tokens"]) <= REFILL
    else:
        assert spent > 0, "what was passed on was not paid for"
        assert spent <= sent * (TOKENS + 100) or scene.heavy


def once(stage: Stage, fault: Fault, scene: Scene, kind: Kind) -> float:
    """Seconds from the client's leaving to the upstream's learning of it; 0 where nobody leaves."""
    upstream, spare = stage.upstream, stage.spare
    upstream.reset()
    spare.reset()
    upstream.script(*scene.script)
    if scene.always is not None:
        upstream.default = scene.always
    model = scene.model.format(f"{fault.name}-{kind}")
    streamed = kind == "sse"
    late = 0.0
    ours: list[str] = []

    def came(to: Upstream) -> list[Recorded]:
        return [request for request in to.requests if request.value("x-request-id") in ours]

    around = scene.around or (lambda _: nullcontext())
    with around(Play(stage.gateway, upstream, spare, stage.workers, model, streamed)):
        for number in range(scene.times):
            expected = scene if number == scene.times - 1 else scene.earlier or Scene("whole", text=scene.text)
            identity = f"fault-{fault.name}-{kind}-{next(_numbers)}"
            stage.asked.append(identity)
            ours.append(identity)
            headers = {"authorization": f"Bearer {KEY}", "x-request-id": identity, **dict(scene.sent)}
            if scene.client is not None:
                body = chat_body(model=model, stream=streamed, **scene.extra)
                went = scene.client(stage.gateway, upstream, body, headers)
                if scene.outcome == "caller_gone" and scene.attempts:
                    late = upstream.wait_gone(came(upstream)[-1]) - went
            else:
                heard = ask(stage.gateway, scene.api, model, scene.extra, streamed=streamed, headers=headers)
                judge_client(expected, heard)
            [receipt] = stage.gateway.receipts(identity)
            assert receipt["outcome"] == expected.outcome, receipt
            assert receipt.get("stream", False) is streamed or scene.ends == "refused", receipt
        judge_upstreams(scene, came(upstream), came(spare))
    return late


def judge_client(scene: Scene, heard: Heard) -> None:
    """What the application knows is what happened."""
    assert UPSTREAM_KEY not in f"{heard.text} {heard.error} {heard.headers}"
    for name, value in scene.headers:
        assert heard.headers.get(name, "") == value, heard.headers
    if scene.ends == "whole":
        assert heard.error is None, repr(heard.error)
        assert heard.text == scene.text
        return
    assert not heard.whole, f"taken for a whole answer: {heard.text!r}"
    assert heard.error is not None
    if scene.ends == "refused":
        assert (heard.status, heard.code, heard.text) == (scene.status, scene.code, ""), repr(heard.error)
    else:
        assert heard.status == 200, repr(heard.error)
        assert scene.text.startswith(heard.text)


def judge_upstreams(scene: Scene, asked: list[Recorded], spare: list[Recorded]) -> None:
    """As many requests as there may be, and none of them still going on."""
    assert len(asked) == scene.attempts + scene.before, [request.headers for request in asked]
    assert len(spare) == scene.spare
    deadline = time.monotonic() + SETTLE_SECONDS
    while scene.cut and any(request.gone_at is None for request in asked):
        assert time.monotonic() < deadline, "the upstream works on for nobody"
        time.sleep(0.005)


def quiet(stage: Stage) -> None:
    """Nothing is in flight, and no descriptor has stayed behind."""
    gateway = stage.gateway

    def calm() -> bool:
        now = gauges(gateway)
        return now == {"agw_active_requests": 1, "agw_active_streams": 0, "agw_connections": 1}

    gateway.until(calm, f"something is still in flight: {gauges(gateway)}")
    assert sockets(gateway) <= stage.idle_sockets + SPARE_SOCKETS
    assert gateway.process.poll() is None
