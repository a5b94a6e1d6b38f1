"""One attempt at one target, until its answer is good to pass on: the head, then the first event or the first bytes."""

import asyncio
import contextlib
import time
from urllib.parse import quote, unquote

import msgspec

from agw_proxy._hot.circuit import GOOD, NEITHER, Circuit
from agw_proxy._hot.peek import rewrite
from agw_proxy._hot.route import Target
from agw_proxy._hot.sse import Document, EventTooLong, Stream
from agw_proxy.errors import (
    GatewayError,
    UpstreamBroken,
    UpstreamError,
    UpstreamInvalid,
    UpstreamRejected,
    UpstreamReset,
    UpstreamTimeout,
)
from agw_proxy.types import Call, Reply
from agw_proxy.upstreams.asking import translating_ready
from agw_proxy.upstreams.disowned import LOST, own_thoughts
from agw_proxy.upstreams.failures import error_of_event, refused, verdict
from agw_proxy.upstreams.service import Service
from agw_proxy.upstreams.unwrapped import lost_by

BODILESS = frozenset({204, 304})  # RFC 9110 sections 15.3.5 and 15.4.5
MAX_HELD_BYTES = 65536  # of a stream before its first event; beyond, it is passed on as it comes
KEYS_IN_QUERY = frozenset({"key", "access_token", "oauth_token"})  # of Google's API, beside its headers
PROBE = 2  # what Circuit.begin gives for one


class Underway:
    """An attempt that its circuit counts, until ``end``."""

    __slots__ = ("_begun", "_circuit", "_first_ns", "_started", "queued")

    def __init__(self, circuit: Circuit | None, begun: int) -> None:
        """``begun``: what ``circuit.begin`` gave."""
        self._circuit, self._begun = circuit, begun
        self._started = time.monotonic_ns()
        self._first_ns = -1
        self.queued = False
        """It has waited for a place at its upstream, and the upstream has not got its request yet."""

    def waited(self, nanoseconds: int) -> None:
        """So long for a place, which the upstream had no part in."""
        self._started += nanoseconds
        self.queued = True

    def sent(self) -> None:
        """The upstream has the request."""
        self.queued = False

    def answered(self) -> None:
        """The first byte is here. A probe has seen enough: a long stream does not keep its circuit half open."""
        self._first_ns = time.monotonic_ns() - self._started
        if self._begun == PROBE:
            self.end(GOOD)

    def end(self, how: int) -> None:
        """The first time only."""
        circuit, self._circuit = self._circuit, None
        if circuit is not None:
            circuit.end(time.monotonic_ns(), how, self._begun, self._first_ns)


class Opened(msgspec.Struct):
    """An answer that is good to pass on.

    ``first``: bytes already read and ready to send; ``stream``: what follows them. Whoever has it ends it.
    """

    reply: Reply
    target: Target
    stream: Stream | None
    first: bytes
    underway: Underway | None = None
    impatient: bool = False
    """See ``Call``."""
    raw: bytes = b""
    """Of a stream: ``first`` as it came, with the usage event that ``strips`` takes out."""
    strips: bool = False
    """The caller did not ask for the usage event."""
    dropped: tuple[str, ...] = ()
    """What the request lost when it was translated for the target."""

    def end(self, error: GatewayError | None) -> None:
        """The answer is over: whole, or broken by ``error``."""
        if self.impatient and isinstance(error, UpstreamError):
            error.hurried = error.out_of_time
        if self.underway is not None:
            self.underway.end(verdict(error))

    def abandon(self) -> None:
        """Nobody wants it."""
        self.reply.close()
        if self.underway is not None:
            self.underway.end(NEITHER)


async def open_target(target: Target, service: Service, call: Call) -> Opened:
    """One attempt, until its answer is good to pass on. Raises UpstreamError; nothing has gone to the caller then."""
    times = service.timeouts
    if call.deadlines is not None:
        times = call.deadlines(times)
        call = msgspec.structs.replace(call, timeouts=times)
    patience = times.first_token if call.stream else None
    if call.pause is not None:
        await call.pause()
    begun = time.monotonic_ns()
    loop, told = asyncio.get_running_loop(), call.on_sent
    try:
        async with asyncio.timeout(None) as clock:

            def sent() -> None:
                nonlocal begun
                if clock.when() is None:
                    begun = time.monotonic_ns()  # not before: it may have waited for a place
                if told is not None:
                    told()
                if patience is not None and clock.when() is None:
                    with contextlib.suppress(RuntimeError):  # the answer was good before the request had all gone
                        clock.reschedule(loop.time() + patience)

            opened = await _open(target, service, msgspec.structs.replace(call, on_sent=sent))
    except UpstreamBroken as error:
        raise UpstreamReset(error.message) from None  # nobody has seen any of it: as good as none
    except TimeoutError:
        if not clock.expired():
            raise
        late = UpstreamTimeout(f"Upstream '{service.upstream.name}' sent nothing of its answer within {patience:g} s.")
        if service.places is not None:
            service.places.refused(begun, late)
        raise late from None
    if service.places is not None:
        service.places.answered(opened.reply.began_ns)
    if call.pause is not None:
        try:
            await call.pause()
        except BaseException:
            opened.reply.close()
            raise
    return opened


async def _open(target: Target, service: Service, call: Call) -> Opened:
    form = call.form
    spoken = service.into if form is not None and form not in service.speaks else None
    dropped: tuple[str, ...] = ()
    if spoken is None and form in service.mixed and call.stored is None:
        own = await own_thoughts(call, target.model)
        call, dropped = (call, ()) if own is None else (own, (LOST,))
    seen = call.seen
    strip = False
    wire = call
    if seen is not None and isinstance(call.body, bytes):
        told = service.stream_usage or spoken is not None  # who translates tells it always
        strip = call.asks_usage and told and seen.stream and not seen.include_usage
        if spoken is None and form == "gemini":
            wire = as_gemini(call, target.model)
        elif spoken is None:
            model = target.model if call.by_model and target.model != seen.model else None
            body = call.body
            if call.stored is not None and call.stored.plain is not None:
                body, seen = call.stored.plain()
            wire = msgspec.structs.replace(call, body=rewrite(body, seen, model, strip))
    spent = False
    if spoken is None:
        reply = await service.upstream.open(target, wire)
        dropped += lost_by(reply)
    else:
        await translating_ready()
        from agw_proxy.upstreams import translating  # noqa: PLC0415  it brings all dialects

        reply = translated = await translating.ask(target, service, call, spoken)
        dropped, spent = translated.dropped, translated.spent
    if call.on_sent is not None:
        call.on_sent()  # at the latest: there is an answer to wait for
    name = service.upstream.name
    if reply.status >= 400:
        error = await refused(reply, name, service.secrets, ours=service.auth == "key")
        if isinstance(error, UpstreamRejected):
            error.elsewhere = error.elsewhere or spent
        raise _told(reply, service, error)
    if call.upgrade is not None:
        if reply.status != 101:
            reply.close()
            raise _told(reply, service, UpstreamInvalid(f"Upstream '{name}' opened no WebSocket ({reply.status})."))
        return Opened(reply, target, None, b"", impatient=call.impatient)
    kind = content_type(reply)
    try:
        if kind == b"text/event-stream":
            holds = call.holds or _patient(service, call)
            opened = await _first_event(reply, target, service, strip=strip, holds=holds, impatient=call.impatient)
            opened.dropped = dropped
            return opened
        if kind == b"text/html" and call.seen is not None:
            raise UpstreamInvalid(f"Upstream '{name}' answered with an HTML page instead of JSON; check its base_url.")
        first = b"" if call.stream else await reply.read()
        if unframed_json(reply, call.method):
            while not reply.ended and len(first) < MAX_HELD_BYTES:
                first += await reply.read()
            if reply.ended and not whole(first):  # a short answer is judged before it is begun
                raise UpstreamReset(f"Upstream '{name}' cut its answer: the JSON is not whole.")
    except UpstreamError as error:
        reply.close()
        raise _told(reply, service, error) from None
    except BaseException:
        reply.close()
        raise
    return Opened(reply, target, None, first, impatient=call.impatient, dropped=dropped)


def as_gemini(call: Call, model: str) -> Call:
    """The call to a Gemini upstream, from one who speaks its form: the path says what the body's front did."""
    verb = call.path.rpartition(":")[2]
    body = call.body
    if isinstance(body, bytes):  # less than its front where the only member behind that was taken out
        body = b"{" + (body[call.front :] or b"}")
    # A key in the query would be the caller's, for this gateway.
    query = "&".join(field for field in call.query.split("&") if unquote(field.partition("=")[0]) not in KEYS_IN_QUERY)
    return msgspec.structs.replace(call, path=f"/models/{quote(model, safe='')}:{verb}", query=query, body=body)


def _told(reply: Reply, service: Service, error: UpstreamError) -> UpstreamError:
    """The same, once it is known where places follow what the upstream can do."""
    if service.places is not None:
        service.places.refused(reply.began_ns, error)
    return error


def _patient(service: Service, call: Call) -> bool:
    """There is a clock for the first token, so the stream is held back until that is here."""
    return (call.timeouts or service.timeouts).first_token is not None


async def _first_event(
    reply: Reply, target: Target, service: Service, *, strip: bool, holds: bool, impatient: bool
) -> Opened:
    """Hold the stream back until its first event that is no ping.

    An error there gets a real status, and another target may take over.

    ``holds``: until its first content.
    """
    name = service.upstream.name
    stream = Stream(strip_usage=strip)
    held = raw = b""
    known = 0
    try:
        while not (reply.ended or _begun(stream, holds)) and len(held) < MAX_HELD_BYTES:
            progress, known = stream.progress > known, stream.progress
            chunk = await reply.read(progress=progress)
            raw += chunk
            held += stream.feed(chunk)
        if reply.ended and stream.events == stream.pings:
            held += stream.finish()  # an only event without its blank line
    except EventTooLong:
        raise UpstreamInvalid(f"Upstream '{name}' sent an event over 16 MB.") from None
    if stream.error is not None and (stream.events - stream.pings <= 1 or (holds and not stream.content)):
        raise error_of_event(stream.error, name, service.secrets, ours=service.auth == "key")
    if reply.ended and not (_begun(stream, holds) or (holds and stream.complete)):
        raise UpstreamReset(f"Upstream '{name}' ended its stream before the first event.")
    return Opened(reply, target, stream, held, impatient=impatient, raw=raw, strips=strip)


def _begun(stream: Stream, holds: bool) -> bool:
    """What the caller waits for is here."""
    return stream.done or stream.error is not None or bool(stream.content if holds else stream.events > stream.pings)


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
