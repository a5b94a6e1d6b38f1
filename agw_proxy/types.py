"""What crosses the floors of the house: frozen records, and the protocols by which a lower floor reaches a higher one."""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from agw_proxy._hot.limit import Limits
from agw_proxy._hot.peek import Peek
from agw_proxy._hot.route import Globs, Route, Target
from agw_proxy.config.allowances import Budget
from agw_proxy.config.resilience import Timeouts
from agw_proxy.config.values import Dialect as Provider
from agw_proxy.config.values import Form
from agw_proxy.errors import GatewayError
from agw_proxy.states import AgentState, SessionControl, UpstreamState

RawHeaders = Sequence[tuple[bytes, bytes]]
Dialect = Literal["openai", "anthropic", "gemini"]
"""Whose errors and headers a caller expects."""
Lane = Literal["full", "fast"]


class Principal(msgspec.Struct, frozen=True):
    """Who is calling: one configured key. ``subject`` is the 64-bit identity that its limits count under."""

    name: str
    subject: int
    models: Globs
    tools: Globs
    admin: bool
    limits: Limits
    fallbacks: bool = False
    """Its requests may name fallbacks of their own."""
    team: str | None = None
    team_subject: int = 0
    budgets: Mapping[str, Budget] = {}
    """Which of the rules are budgets, by their names."""
    derive: bool = True
    """Its sessions are told apart by how they begin where nothing names them."""
    needs_price: bool = False
    """A model without a price is refused."""
    finishes: bool = False
    """Its streams are made to finish where a budget has no more."""

    @property
    def owner(self) -> str:
        """Whose is what it makes, and is asked for again by an id: its team's, or its own where it has none."""
        return f"team:{self.team}" if self.team is not None else f"key:{self.name}"


class Usage(msgspec.Struct, frozen=True):
    """Tokens as the upstream reported them; -1 where it did not."""

    prompt: int = -1
    completion: int = -1
    cached: int = -1

    @property
    def total(self) -> int:
        """Prompt and completion together, or -1 when neither is known."""
        return -1 if self.prompt < 0 and self.completion < 0 else max(self.prompt, 0) + max(self.completion, 0)


class Stored(msgspec.Struct, frozen=True):
    """What a store of answers has to do with a request to Responses. ``told``: members of the answer that it cannot tell itself."""

    id: str
    """Of an answer that the gateway writes: unique, of letters and digits; what the answer's ids are made of."""
    told: Mapping[str, Any]
    plain: Callable[[], tuple[bytes, Peek]] | None = None
    """The request for an upstream that speaks Responses, where what was kept stands in it; None: the body as it is."""
    thread: str = ""
    """What its conversation begins with: an id of a conversation or a response; empty where nothing will be kept of it."""


class Caller(msgspec.Struct, frozen=True):
    """Who has made a request, for what asks the gateway itself in its name. ``session``: as the caller names it."""

    principal: Principal | None
    session: str | None = None
    trace: str | None = None
    user: str | None = None
    channel: str | None = None


class Call(msgspec.Struct):
    """One request as it goes upstream, before the target is known.

    ``path`` is relative to the upstream's base URL and starts with a slash; ``query`` has no question mark.
    ``headers`` are filtered for forwarding and carry no credential; ``own_credentials`` are the caller's provider credentials
    for an upstream with ``auth: passthrough`` (None: the gateway key did not travel in x-agw-key). ``asks_usage``: streams of
    this endpoint report usage when asked. ``body`` is whole (bytes) or streamed once (an async iterator); ``seen`` is the look
    into a JSON body. ``upgrade``: the subprotocols offered where a WebSocket is asked for. ``pause``: to be awaited between pieces.
    """

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes | AsyncIterator[bytes] | None
    seen: Peek | None
    request_id: str
    dialect: Dialect = "openai"
    form: Form | None = None
    """What the body is written in, where it can be translated for an upstream that speaks something else."""
    caller: Caller | None = None
    front: int = 0
    """Bytes at the body's beginning that are the gateway's own, where Google's form needs some (``edge.gemini``)."""
    stored: Stored | None = None
    memo: dict[str, Any] = {}
    """What one try has worked out that the next ones need, too."""
    asks_usage: bool = False
    by_model: bool = True
    """It was routed by the model in its body, which is replaced by the target's name for it."""
    repeatable: bool = True
    """A second try does no harm where the first may have had an effect: a generation, not a file or a batch."""
    raw: bool = False
    """``path`` stands behind the ``base_url`` as it is configured; else behind that of the dialect's own paths."""
    own_credentials: list[tuple[str, str]] | None = None
    deadlines: Callable[[Timeouts], Timeouts] | None = None
    """What the route and the caller make of an upstream's deadlines; None: nothing."""
    impatient: bool = False
    """The caller has set deadlines of its own: where one runs out, that is nothing for the upstream's circuit to hear."""
    on_ask: Callable[[Target], Coroutine[None, None, GatewayError | None]] | None = None
    """Hears of each target before it is asked, and may say why it must not be."""
    on_wait: Callable[[int], None] | None = None
    """Hears how many nanoseconds a try has waited for a place at its upstream."""
    on_sent: Callable[[], None] | None = None
    """Called when the upstream has the whole request, once or more: the clocks of its answer start."""
    pause: Callable[[], Coroutine[None, None, None]] | None = None
    timeouts: Timeouts | None = None
    """The deadlines of this try; None for the upstream's own."""
    holds: bool = False
    """A stream is held back until its first content, so that another target can take over until then."""
    upgrade: tuple[str, ...] | None = None
    credential: tuple[str, str] | None = None
    """The header with the key that this try uses, of an upstream that has several."""

    @property
    def stream(self) -> bool:
        """The caller asked for a stream."""
        return self.seen is not None and self.seen.stream

    @property
    def replayable(self) -> bool:
        """The body can be sent a second time."""
        return self.body is None or isinstance(self.body, bytes)


class Reply(Protocol):
    """An upstream's answer whose head has arrived. ``close`` must be called, at any point, exactly as often as one likes."""

    @property
    def status(self) -> int:
        """Of the final head."""
        ...

    @property
    def headers(self) -> RawHeaders:
        """Of the final head."""
        ...

    @property
    def connect_ms(self) -> float:
        """Time it took to get a connection; 0 for a reused one."""
        ...

    @property
    def ended(self) -> bool:
        """All of the body was returned by ``read``."""
        ...

    @property
    def began_ns(self) -> int:
        """When it was asked for, after any wait for a place; monotonic, 0 where nobody needs to know."""
        ...

    async def read(self, *, progress: bool = True) -> bytes:
        """The next bytes, in the upstream's own chunking; b"" at the end.

        ``progress``: what the last read gave was worth something; else the clock for silence runs on. Raises
        UpstreamError when the body breaks or stalls.
        """
        ...

    def close(self) -> None:
        """Give the connection back if the body has ended, cut it otherwise."""
        ...


class Upstream(Protocol):
    """Something that answers calls: a server over HTTP, or a model in this process."""

    name: str
    dialect: Provider

    async def open(self, target: Target, call: Call) -> Reply:
        """Send the call and wait for the head of the answer. Raises UpstreamError; cancellation cuts the request at once."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class Attempt(msgspec.Struct, frozen=True):
    """One try at one target. ``outcome`` is a status or the code of an error."""

    target: str
    upstream: str
    outcome: str


class Answer(msgspec.Struct, frozen=True):
    """A reply made by the gateway itself."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The account of one exchange; every exchange ends in exactly one. Field names are those of the canonical log line.

    Durations are milliseconds (``overhead_us``: microseconds) on the monotonic clock; tokens are -1 where unknown.
    """

    event: str
    time: str
    request_id: str
    endpoint: str
    method: str
    status: int
    lane: Lane
    outcome: str
    """``ok``, or the code of the error that ended the exchange."""
    duration_ms: float
    overhead_us: int
    key: str | None = None
    user: str | None = None
    channel: str | None = None
    trace_id: str | None = None
    model: str | None = None
    model_label: str = "none"
    upstream: str = "none"
    target: str | None = None
    attempts: int = 0
    trail: tuple[Attempt, ...] = ()
    stream: bool = False
    ttft_ms: float | None = None
    inter_token_ms: float | None = None
    finish_reason: str | None = None
    prompt_tokens: int = -1
    completion_tokens: int = -1
    cached_tokens: int = -1
    bytes_out: int = 0
    rule: str | None = None
    peer: str | None = None
    message: str | None = None
    lane_reason: str | None = None
    """Why the full lane, in a word; None for the fast one."""
    cost: int = -1
    """Micro-dollars; -1 where nobody has said what the model costs."""
    team: str | None = None
    session: str | None = None
    """A short hash of its session, where some limit counts sessions."""
    cache: str | None = None
    """Where the cache was asked: ``hit``, ``joined``, ``miss`` or ``bypass``; ``replayed`` for an Idempotency-Key's answer."""
    run_id: str | None = None
    """A run has made it: the request that the run answers (of runs within each other, the outermost)."""
    agent: str | None = None
    """Whose run that is."""


class ServedModel(msgspec.Struct, frozen=True):
    """A line of the models list. ``owner`` is the upstream's name, or ``agw`` for virtual models."""

    id: str
    owner: str
    created: int = 0


class UsageWanted(msgspec.Struct, frozen=True):
    """Which usage, and how it is summed. Days are UTC and spelt ``2026-11-21``; both ends are within."""

    since: str
    until: str
    group: tuple[str, ...]
    """Of ``day``, ``key``, ``team``, ``model``, ``upstream``, in this order of rows."""
    limit: int
    only: Mapping[str, str] = {}
    """What a row must be, by the names of ``group``."""
    after: tuple[str, ...] | None = None
    """The group of the last row before."""


class UsagePage(msgspec.Struct, frozen=True):
    """Rows: the group's values, then requests, errors, input, cached and output tokens, micro-dollars, unpriced requests."""

    rows: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]
    total: tuple[int, ...]
    """Of all that was wanted, not of these rows only."""
    more: bool
    trouble: str | None = None
    """Why only what this start of the gateway has counted is in here; None: all is."""


class ExplainWanted(msgspec.Struct, frozen=True):
    """A request that nobody makes. ``headers``: names in lower case; ``key``: the name of whose it would be, None: the asker's."""

    path: str | None
    """Of the endpoint; None is where the model's upstream is asked by default."""
    body: bytes
    headers: Mapping[str, str] = {}
    key: str | None = None


class Control(SessionControl, Protocol):
    """What the gateway's own endpoints may see and do; wired in ``app``."""

    version: str

    @property
    def draining(self) -> bool:
        """The gateway is shutting down."""
        ...

    @property
    def active(self) -> int:
        """Exchanges in flight."""
        ...

    @property
    def shedding(self) -> str | None:
        """Why new requests are refused at the moment: ``lag`` or ``memory``; None: they are not."""
        ...

    def shows_upstreams(self, principal: Principal | None) -> bool:
        """Whoever asks for readiness as this principal (None: nobody known) may hear of the upstreams."""
        ...

    def models(self, principal: Principal) -> list[ServedModel]:
        """The models that this principal may use, in order."""
        ...

    def model(self, principal: Principal, name: str) -> ServedModel:
        """One of them, or one that an upstream's pattern covers. Raises ModelNotFound, ModelForbidden."""
        ...

    def upstreams(self) -> list[UpstreamState]:
        """The upstreams in order of configuration."""
        ...

    async def agents(self) -> list[AgentState]:
        """The agents that were found, by id, then what was left out."""
        ...

    def egress(self, upstream: str) -> Mapping[str, object]:
        """Which headers go to an upstream, and why; never a value. Raises ModelNotFound."""
        ...

    def redis(self) -> Mapping[str, object] | None:
        """How this worker stands with Redis: ``state``, ``since``, ``last_error``; None: it shares nothing."""
        ...

    async def reload(self, *, heard: bool = False) -> Mapping[str, object]:
        """Read the configuration again; swap if it is good. ``heard``: another gateway told of it. Raises ReloadFailed."""
        ...

    async def refresh_upstreams(self, *, heard: bool = False) -> Mapping[str, object]:
        """The same, and ask the upstreams for their models."""
        ...

    def configuration(self) -> Mapping[str, object]:
        """Version, time and last error of the configuration in force."""
        ...

    def metrics_text(self) -> bytes:
        """All metrics in the Prometheus text format."""
        ...

    def metrics_tree(self) -> Mapping[str, object]:
        """All metrics as a JSON tree."""
        ...

    async def usage(self, wanted: UsageWanted) -> UsagePage:
        """What was used."""
        ...

    def explain(self, principal: Principal, wanted: ExplainWanted) -> Mapping[str, object]:
        """What would become of it. Raises CallerError."""
        ...

    def openapi(self) -> bytes:
        """The OpenAPI document, encoded."""
        ...


class Asked(msgspec.Struct, frozen=True):
    """What a local endpoint gets to see of a request."""

    principal: Principal | None
    path_values: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    dialect: Dialect


LocalHandler = Callable[[Control, Asked], Coroutine[None, None, Answer]]


class Routed(msgspec.Struct, frozen=True):
    """The route a request takes, with the order in which targets are tried."""

    route: Route
    plan: tuple[Target, ...]
    panic: bool = False
    """Too few targets are left: they are asked whatever their circuits say (``Circuit.begin`` with ``force``)."""
