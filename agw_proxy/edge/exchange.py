"""One exchange from its first byte to its Receipt: what is known so far, what was taken, and that it ends exactly once."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from agw_proxy._hot.limit import Grant
from agw_proxy._hot.money import Tariff
from agw_proxy._hot.reserve import PARTED, REJECTED, SERVED, UNSERVED, Reserve
from agw_proxy._hot.route import Target
from agw_proxy._hot.tokens import Learner
from agw_proxy.config.settings import Server
from agw_proxy.edge.finishing import Ending
from agw_proxy.edge.state import State
from agw_proxy.errors import CallerGone, GatewayError, UpstreamError, UpstreamRejected
from agw_proxy.spans import Span
from agw_proxy.types import Attempt, Caller, Dialect, Lane, Principal, Receipt, Usage

if TYPE_CHECKING:
    from aiohttp import web

NOTHING = Usage(0, 0, 0)
BODIES_BYTES = 256 * 1024 * 1024  # all request bodies in memory together, unless one alone may be larger


class Exchange:
    """Mutable, owned by one task. Times are monotonic nanoseconds."""

    def __init__(self, request_id: str, method: str, peer: str | None) -> None:
        """``peer``: the client's address, for the log."""
        self.request_id = request_id
        self.method = method
        self.peer = peer
        self.lane: Lane = "full"
        self.lane_reason: str | None = None
        self.carried: Carried | None = None
        self.started = time.monotonic_ns()
        self.task = asyncio.current_task()
        self.endpoint = "unknown"
        self.dialect: Dialect = "openai"
        self.principal: Principal | None = None
        self.grant: Grant | None = None
        self.reserve = Reserve()
        """What it may need, as it was reserved."""
        self.uses_tokens = True
        """False where the upstream only counts them: nothing is paid for."""
        self.delegated = False
        """Whoever answers asks models itself: those exchanges pay for the tokens, and not this one as well."""
        self.within: Within | None = None
        """A run has made it."""
        self.behind: Behind | None = None
        """It answers nobody who waits: it is a run in the background."""
        self.asked = False
        """The latest attempt has sent the request: what its upstream reads of the prompt has to be paid for."""
        self.session = 0
        self.user: str | None = None
        self.channel: str | None = None
        self.trace_id: str | None = None
        self.span: Span | None = None
        """Its own in that trace; None where nothing is traced."""
        self.model: str | None = None
        self.model_label = "none"
        self.trail: list[Attempt] = []
        self.fallback: str | None = None
        """What answers in place of the targets, which all failed."""
        self.reuse: str | None = None
        """Its answer is somebody else's, and costs nothing: kept (``hit``), under way (``joined``), given before (``replayed``)."""
        self.cache: str | None = None
        """What became of it at the cache: hit, joined, miss, bypass; None where nothing is kept."""
        self.notes: list[tuple[str, str]] = []
        """More headers for its answer."""
        self.stream = False
        self.streaming = False
        self.status = 0
        self.error: GatewayError | None = None
        self.ending: GatewayError | None = None
        """Why the gateway itself ends this exchange (drain); set before its task is cancelled."""
        self.fail: Callable[[GatewayError], web.StreamResponse] | None = None
        """Ends an answer of which nothing but heartbeats has gone out."""
        self.complete = False
        """The last bytes of the answer are on their way: nothing that happens now changes the outcome."""
        self.body_error: GatewayError | None = None
        """What was wrong with a body that was streamed through."""
        self.usage = Usage()
        self.tariff: Tariff | None = None
        """What the target costs that was asked last."""
        self.learner: Learner | None = None
        """What that one's answers have taught; None where nobody counts tokens."""
        self.finish_reason: str | None = None
        self.ended_by: Ending | None = None
        """Why the gateway has ended the stream before its upstream did."""
        self.owes_all = False
        """Others have got all of its answer: it pays for that, though it has left."""
        self._taken_over = Usage(), 0, 0
        """What those had of its answer who would have paid for it and have left: it pays for no less."""
        self.bytes_out = 0
        self.first_token = 0
        self.last_token = 0
        self.tokens_seen = 0
        self.waited = 0
        """Time spent waiting for others: the client's body, the upstream."""
        self.auth_ns = 0
        self.limit_ns = 0
        self.connect_ms = 0.0
        self.upstream_ns = 0
        self.queue_ns = 0
        """Of ``upstream_ns``, what was spent waiting for a place at an upstream."""
        self.head_at = 0
        """When the first byte of the answer was ready to go out."""
        self.accounted = False
        """It has ended in its Receipt."""

    def carry_on(self, carried: "Carried") -> None:
        """Go on where the fast lane stopped: nothing of what it did is done twice."""
        self.carried = carried
        self.request_id = carried.request_id
        self.started = carried.started
        self.principal = carried.principal
        self.grant = carried.grant
        self.reserve = Reserve(*carried.reserve)
        self.auth_ns, self.limit_ns = carried.auth_ns, carried.limit_ns
        self.waited = carried.waited
        self.connect_ms = carried.connect_ms

    def end(self, error: GatewayError) -> None:
        """Let the gateway end this exchange: its task is cancelled and answers with ``error``."""
        if self.ending is None and self.task is not None and not self.task.done():
            self.ending = error
            self.task.cancel()

    def cancelled(self) -> GatewayError:
        """What a cancellation means: the gateway's own end, or the client has gone."""
        if self.ending is not None:
            if self.task is not None:
                self.task.uncancel()
            return self.ending
        return CallerGone("The client closed the connection before the answer was complete.")

    def caller(self, session: str | None) -> Caller:
        """Who has made the request; ``session``: as it names it."""
        return Caller(self.principal, session, self.trace_id, self.user, self.channel)

    def admit(self) -> None:
        """Its key, its route and the limits let it pass."""
        if self.behind is not None:
            self.behind.admitted()

    def queued(self, nanoseconds: int) -> None:
        """A try has waited so long for a place at its upstream."""
        self.queue_ns += nanoseconds

    def sent(self) -> None:
        """An upstream has it."""
        self.asked = True

    def pays(self) -> None:
        """The answer is its own after all: it is charged for it."""
        self.reuse = None
        if self.cache == "joined":
            self.cache = "miss"

    def pays_for(self, other: "Exchange") -> None:
        """The other one leaves an answer that both read, and this one pays in its place: for no less than the other has had."""
        self.pays()
        self.asked = self.asked or other.asked
        if other.ended_by is None:
            self._taken_over = other.had()
            other.reuse = "joined"

    def had(self) -> tuple[Usage, int, int]:
        """What it pays for: usage as told, content events and bytes."""
        told, tokens, size = self._taken_over
        used = self.usage
        if told.total >= 0:
            used = Usage(
                max(used.prompt, told.prompt), max(used.completion, told.completion), max(used.cached, told.cached)
            )
        return used, max(self.tokens_seen, tokens), max(self.bytes_out, size)

    def owes(self, usage: Usage) -> None:
        """It leaves an answer that others have got whole, for nothing. ``usage``: of all of it."""
        self.usage, self.owes_all = usage, True

    def saw_content(self, events: int) -> None:
        """``events``: content events of the stream so far."""
        if events > self.tokens_seen:
            self.last_token = time.monotonic_ns()
            if not self.tokens_seen:
                self.first_token = self.last_token
            self.tokens_seen = events

    def end_by(self, ending: Ending) -> None:
        """The gateway has ended the stream: what came of it until then is what was used, and of the prompt what was told."""
        self.ended_by = ending
        self.learner = None  # it says nothing about how long answers are
        self.finish_reason = "length"
        told = self.usage
        prompt = told.prompt if told.prompt >= 0 else ending.prompt_tokens
        self.usage = Usage(prompt, ending.completion_tokens, told.cached)

    def settle(self) -> None:
        """Put the truth in place of the estimate, once: reported usage, else what went out, else the estimate."""
        grant = self.grant
        if grant is None:
            return
        if self.reuse is not None:  # somebody else's answer
            grant.settle(0, 0, 0, time.monotonic_ns())
            return
        usage, tokens, size = self.had()
        tariff, usage = (self.tariff, usage) if self.uses_tokens else (None, NOTHING)
        how, now = self.ending_kind(), time.monotonic_ns()
        self.reserve.settle(grant, how, self.learner, tariff, usage, tokens, size, now)

    def ending_kind(self) -> int:
        """How it has ended for whoever pays for it: SERVED, PARTED, UNSERVED or REJECTED."""
        if self.error is None or self.complete or self.owes_all:
            return SERVED
        if self.bytes_out or self._taken_over[2]:
            return PARTED
        if isinstance(self.error, UpstreamRejected):
            return REJECTED  # else who sends nothing but bad requests would have no limit
        hurried = isinstance(self.error, UpstreamError) and self.error.hurried
        left = isinstance(self.error, CallerGone) or self.error is self.ending or hurried
        return PARTED if left and self.asked else UNSERVED

    def server_timing(self) -> str:
        """Milliseconds by phase (W3C Server Timing); ``own`` is the gateway's share of the time until now."""
        self.head_at = self.head_at or time.monotonic_ns()
        parts = [
            f"auth;dur={self.auth_ns / 1e6:.3f}",
            f"limit;dur={self.limit_ns / 1e6:.3f}",
        ]
        if self.queue_ns:
            parts.append(f"queue;dur={self.queue_ns / 1e6:.3f}")
        if self.trail:
            parts.append(f"connect;dur={self.connect_ms:.3f}")
            parts.append(f"ttfb;dur={max(self.upstream_ns - self.queue_ns, 0) / 1e6:.3f}")
        parts.append(f"own;dur={self.overhead_ns() / 1e6:.3f}")
        return ", ".join(parts)

    def overhead_ns(self) -> int:
        """The gateway's own share of the time until the first byte was ready."""
        return max((self.head_at or time.monotonic_ns()) - self.started - self.waited, 0)

    def account(self, emit: Callable[[Receipt], None], clock: Callable[[], str]) -> None:
        """Settle, release and hand out the Receipt: the first time only (invariants 1 and 2)."""
        if self.accounted:
            return
        self.accounted = True
        self.settle()
        emit(self._receipt(clock()))

    def release(self) -> None:
        """Give the concurrency slots back: when the last byte has gone or the exchange has failed."""
        if self.grant is not None:
            self.grant.release()

    def forget_frames(self) -> None:
        """Let go of the frames that the error has passed.

        They hold the request's body and the error itself, a circle that the collector would find much later.
        """
        error, self.fail = self.error, None
        if error is not None:
            error.__traceback__ = error.__context__ = error.__cause__ = None

    def _receipt(self, now: str) -> Receipt:
        duration = time.monotonic_ns() - self.started
        gaps = self.tokens_seen - 1
        last = self.trail[-1] if self.trail else None
        # What no upstream has used anything for counts nothing, and nothing counts twice.
        used = self.had()[0] if self.reuse is None and not self.delegated else Usage()
        told = self.reuse is None or self.reuse == "joined"  # else its events say nothing about an upstream's pace
        return Receipt(
            event="request",
            time=now,
            request_id=self.request_id,
            endpoint=self.endpoint,
            method=self.method,
            status=self.status,
            lane=self.lane,
            lane_reason=self._why_full(),
            cache=self.reuse if self.reuse == "replayed" else self.cache,
            outcome=self.error.code if self.error is not None else "ok",
            duration_ms=round(duration / 1e6, 3),
            overhead_us=self.overhead_ns() // 1000,
            key=self.principal.name if self.principal is not None else None,
            user=self.user,
            channel=self.channel,
            trace_id=self.trace_id,
            model=self.model,
            model_label=self.model_label,
            upstream=last.upstream if last is not None else "none",
            target=last.target if last is not None else None,
            attempts=len(self.trail),
            trail=tuple(self.trail),
            stream=self.stream,
            ttft_ms=round((self.first_token - self.started) / 1e6, 3) if self.first_token and told else None,
            inter_token_ms=round((self.last_token - self.first_token) / gaps / 1e6, 3) if gaps > 0 and told else None,
            finish_reason=self.finish_reason,
            prompt_tokens=used.prompt,
            completion_tokens=used.completion,
            cached_tokens=used.cached,
            bytes_out=self.bytes_out,
            rule=self.ended_by.rule if self.ended_by is not None else getattr(self.error, "rule", None),
            peer=self.peer,
            message=self.error.message if self.error is not None else None,
            cost=self.charged()[2],
            team=self.principal.team if self.principal is not None else None,
            session=session_text(self.session),
            run_id=self.within.run_id if self.within is not None else None,
            agent=self.within.agent if self.within is not None else None,
        )

    def _why_full(self) -> str | None:
        if self.behind is not None:
            return "background"
        return self.lane_reason if self.within is None else "run"

    def charged(self) -> tuple[int, int, int]:
        """Tokens in and out and micro-dollars for what there was, as limits settle it.

        The last is -1 where nobody has said what it costs, or nothing was served.
        """
        how = self.ending_kind()
        if self.reuse is not None:
            return 0, 0, 0
        unserved = how in {UNSERVED, REJECTED}
        if unserved or not self.uses_tokens:
            return 0, 0, -1 if unserved else 0
        read, written, cost = self.reserve.spent(how, self.tariff, *self.had())
        return read, written, cost if self.tariff is not None else -1


def session_text(session: int) -> str | None:
    """As logs have it: half of the hash."""
    return f"{session >> 32:08x}" if session else None


class Behind(msgspec.Struct, frozen=True):
    """What a run in the background has for the exchange that it is (``edge.background``)."""

    seed: str
    """Of its response's id, which is known before there is a response."""
    admitted: Callable[[], None]
    """Hears that nothing of the gateway's own refuses it."""


class Within(msgspec.Struct):
    """What an exchange belongs to that a run makes while it answers another request (``edge.inner``)."""

    run_id: str
    """Of the request that the run answers; of runs within each other, the outermost."""
    agent: str
    principal: Principal | None
    """Whose that request is, with the limits that those of a run come under."""
    depth: int
    """How many runs are within each other, with this one."""
    session: int = 0
    """Of the request that the run answers, where that has one: the run's own belong to it, however they begin."""
    spent: bool = False
    """The run has come to the bound of what it may cost."""
    exchange: Exchange | None = None
    """Once it has begun."""


class Carried(msgspec.Struct, frozen=True):
    """An exchange that the fast lane began and hands over: what it took, and how its one attempt ended.

    ``error``: None where no upstream was asked (a limit refused, or the gateway shuts down). ``seed``: drew the order of
    targets, and draws the same again. Times are monotonic nanoseconds.
    """

    error: UpstreamError | None
    state: State
    """The configuration that decided it, and goes on to."""
    principal: Principal
    grant: Grant
    request_id: str
    started: int
    seed: int
    auth_ns: int
    limit_ns: int
    waited: int
    """For the client's body and for the upstream."""
    connect_ms: float
    reserve: tuple[int, int, int, int, int, int]
    """As ``Reserve`` takes it."""
    replayed: bool
    """The request went out twice: an idle connection turned out to be dead."""
    target: Target | None = None
    """Who was asked."""
    beaten: int = 0
    """When the last heartbeat has gone out, and so the head of the answer; 0: none has."""


class Bounds(msgspec.Struct, frozen=True):
    """The edge's bounds, in their units."""

    max_head_bytes: int
    max_body_bytes: int
    max_bodies_bytes: int
    body_seconds: float
    json_depth: int

    @classmethod
    def of(cls, server: Server) -> "Bounds":
        """As they are configured."""
        return cls(
            max_head_bytes=server.max_header_kb << 10,
            max_body_bytes=server.max_body_mb << 20,
            max_bodies_bytes=max(BODIES_BYTES, server.max_body_mb << 20),
            body_seconds=server.body_seconds,
            json_depth=server.json_depth,
        )
