"""Tries targets in order until one answers: once each, then round again with growing waits.

Everything here happens before the first byte has gone to the caller; afterwards there is no second try (invariant 3).
"""

import asyncio
import random
from collections.abc import Callable, Sequence

import msgspec

from agw_proxy._hot.peek import rewrite
from agw_proxy._hot.route import Target
from agw_proxy._hot.sse import Document, EventTooLong, Stream
from agw_proxy.config.settings import Retries
from agw_proxy.errors import GatewayError, UpstreamError, UpstreamInvalid, UpstreamReset, UpstreamTimeout
from agw_proxy.types import Attempt, Call, Reply, Upstream
from agw_proxy.upstreams.failures import again, elsewhere, error_of_event, refused
from agw_proxy.upstreams.health import Health

BODILESS = frozenset({204, 304})  # RFC 9110 sections 15.3.5 and 15.4.5
MAX_HELD_BYTES = 65536  # of a stream before its first event; beyond, it is passed on as it comes


class Opened(msgspec.Struct):
    """An answer that is good to pass on.

    ``first``: bytes already read and ready to send; ``stream``: what follows them.
    """

    reply: Reply
    target: Target
    stream: Stream | None
    first: bytes


class Service(msgspec.Struct, frozen=True):
    """One upstream with what the attempts need to know of it."""

    upstream: Upstream
    retries: Retries
    health: Health
    secrets: tuple[str, ...]
    """What must never be shown: its key and the values of its configured headers."""
    total: float
    """Seconds that an exchange may take in all, its tries together."""
    auth: str
    """``key``, ``passthrough`` (it is asked with the caller's own provider credentials) or ``none``."""
    stream_usage: bool
    """Streams are asked to report usage, also where the caller did not ask."""


async def open_first(
    plan: Sequence[Target],
    services: Sequence[Service],
    call: Call,
    *,
    trail: list[Attempt],
    caller_fault: Callable[[], GatewayError | None] = lambda: None,
    failed: UpstreamError | None = None,
    spent: float = 0.0,
) -> Opened:
    """The first good answer; every try is added to ``trail``. Raises the last UpstreamError when none was good.

    ``plan``: targets in order of preference. Each is tried once without a wait; then, within the number of attempts of
    the first one's upstream, those that may be asked again follow with back-off and full jitter, or after the time that
    the upstream named. ``caller_fault`` tells what was wrong with a streamed body: then it is raised, and the upstream
    is not blamed. ``failed``: how the latest try has ended already, made elsewhere
    (those before it are in ``trail``) within ``spent`` seconds. A longer wait than the configured ``max`` is not sat out: the caller gets the error with it.
    """
    loop = asyncio.get_running_loop()
    retries = services[plan[0].upstream].retries
    deadline = loop.time() + services[plan[0].upstream].total - spent
    allowed = max(retries.attempts, len(plan)) if call.replayable else 1
    queue = [(target, 0.0) for target in plan]  # with the time before which it is not to be asked
    tries = len(trail)
    while True:
        target, _ = queue.pop(0)
        service = services[target.upstream]
        tries += 1
        try:
            if failed is not None:
                before, failed = failed, None
                raise before
            opened = await _open_in_time(target, service, call, deadline)
        except UpstreamError as error:
            trail.append(Attempt(target.name, service.upstream.name, _outcome(error)))
            fault = caller_fault()
            if fault is not None:
                raise fault from None
            service.health.failed(error)
            named = (error.retry_after_ms or 0) / 1000
            if again(error, call) and named <= retries.max:
                queue.append((target, loop.time() + named))
            if tries >= allowed or not queue or not elsewhere(error, call):
                raise
            wait = max(_back_off(tries - len(plan), retries, error), queue[0][1] - loop.time(), 0.0)
            if loop.time() + wait >= deadline:
                raise
            if wait:
                await asyncio.sleep(wait)
        else:
            trail.append(Attempt(target.name, service.upstream.name, str(opened.reply.status)))
            service.health.worked()
            return opened


def _back_off(round_number: int, retries: Retries, error: UpstreamError) -> float:
    """Seconds until the next try: none while there are targets that were not asked yet, nor where a time was named."""
    if round_number < 0 or error.retry_after_ms is not None:
        return 0.0
    ceiling = min(retries.max, retries.base * 2.0 ** min(round_number, 32))
    return random.uniform(0.0, ceiling)  # noqa: S311  spreads load, guards nothing


async def _open_in_time(target: Target, service: Service, call: Call, deadline: float) -> Opened:
    """All tries together end at ``deadline`` (loop time)."""
    try:
        async with asyncio.timeout_at(deadline):
            return await _open(target, service, call)
    except TimeoutError:
        raise UpstreamTimeout(
            f"Upstream '{service.upstream.name}' did not answer within the time for the whole exchange."
        ) from None


async def _open(target: Target, service: Service, call: Call) -> Opened:
    seen = call.seen
    strip = False
    wire = call
    if seen is not None and isinstance(call.body, bytes):
        strip = call.asks_usage and service.stream_usage and seen.stream and not seen.include_usage
        model = target.model if call.by_model and target.model != seen.model else None
        wire = msgspec.structs.replace(call, body=rewrite(call.body, seen, model, strip))
    reply = await service.upstream.open(target, wire)
    name = service.upstream.name
    if reply.status >= 400:
        raise await refused(reply, name, service.secrets, ours=service.auth == "key")
    kind = content_type(reply)
    try:
        if kind == b"text/event-stream":
            return await _first_event(reply, target, service, strip=strip)
        if kind == b"text/html" and call.seen is not None:
            raise UpstreamInvalid(f"Upstream '{name}' answered with an HTML page instead of JSON; check its base_url.")
        first = b"" if call.stream else await reply.read()
        if unframed_json(reply, call.method):
            while not reply.ended and len(first) < MAX_HELD_BYTES:
                first += await reply.read()
            if reply.ended and not whole(first):  # a short answer is judged before it is begun
                raise UpstreamReset(f"Upstream '{name}' cut its answer: the JSON is not whole.")
    except BaseException:
        reply.close()
        raise
    return Opened(reply, target, None, first)


async def _first_event(reply: Reply, target: Target, service: Service, *, strip: bool) -> Opened:
    """Hold the stream back until its first event: an error there gets a real status, and another target may take over."""
    name = service.upstream.name
    stream = Stream(strip_usage=strip)
    held = b""
    try:
        while not (stream.events or stream.done or reply.ended) and len(held) < MAX_HELD_BYTES:
            held += stream.feed(await reply.read(progress=not held.startswith(b":")))
        if reply.ended and not stream.events:
            held += stream.finish()  # an only event without its blank line
    except EventTooLong:
        raise UpstreamInvalid(f"Upstream '{name}' sent an event over 16 MB.") from None
    if stream.error is not None and stream.events <= 1:
        raise error_of_event(stream.error, name, service.secrets, ours=service.auth == "key")
    if reply.ended and not stream.events and not stream.done:
        raise UpstreamReset(f"Upstream '{name}' ended its stream before the first event.")
    return Opened(reply, target, stream, held)


def content_type(reply: Reply) -> bytes:
    """The media type in lower case, without parameters; empty where there is none."""
    for name, value in reply.headers:
        if name.lower() == b"content-type":
            return value.split(b";", 1)[0].strip().lower()
    return b""


def unframed_json(reply: Reply, method: str) -> bool:
    """Only the JSON itself can tell whether this body is whole: its end is the connection's (RFC 9112 section 6.3)."""
    names = {name.lower() for name, _ in reply.headers}
    framed = names & {b"content-length", b"transfer-encoding", b"content-encoding"}
    bodiless = method == "HEAD" or reply.status in BODILESS
    return not framed and not bodiless and content_type(reply) == b"application/json"


def whole(body: bytes) -> bool:
    """The JSON text is closed."""
    document = Document()
    document.feed(body)
    return document.complete


def _outcome(error: UpstreamError) -> str:
    return f"{error.status}" if error.code == "upstream_rejected" else error.code
