"""Asks an upstream in another form than the caller's, and gives its answer back in the caller's: a Reply like any other.

All that looks at answers (the first event, usage, ends, errors) sees them in the caller's form, and need not know.
"""

import re
import time
from collections.abc import Sequence
from urllib.parse import quote

import msgspec
import orjson

from agw_proxy._hot.route import Target
from agw_proxy.config.values import Form, Spoken
from agw_proxy.dialects import translate
from agw_proxy.dialects.base import Event, Finish, Malformed, Request, Shown, Unthreadable, Untranslatable
from agw_proxy.dialects.played import played
from agw_proxy.dialects.sse import Events
from agw_proxy.errors import (
    CallerError,
    InvalidJSON,
    InvalidParameter,
    ThreadUnsupported,
    UpstreamBroken,
    UpstreamError,
    UpstreamInvalid,
)
from agw_proxy.policy.retry_after import told_ms
from agw_proxy.types import Call, RawHeaders, Reply
from agw_proxy.upstreams.failures import MAX_ERROR_BYTES, SPENT, STATUS_OF_KIND
from agw_proxy.upstreams.passing import PassedOn
from agw_proxy.upstreams.service import Service
from agw_proxy.upstreams.unwrapped import lost_by

MAX_ANSWER_BYTES = 64 * 1024 * 1024  # of one that is translated whole: it is in memory, twice
PATHS: dict[Spoken, str] = {"chat": "/chat/completions", "responses": "/responses", "messages": "/messages"}
ANTHROPIC_VERSION = "2023-06-01"
OF_A_DIALECT = ("anthropic-", "openai-", "x-goog-", "x-stainless-")
OF_A_BODY = frozenset({"content-type", "content-encoding", "content-md5", "content-digest", "repr-digest", "digest"})
ADDED: dict[Spoken, tuple[tuple[str, str], ...]] = {
    "chat": (("content-type", "application/json"),),
    "responses": (("content-type", "application/json"),),
    "messages": (("content-type", "application/json"), ("anthropic-version", ANTHROPIC_VERSION)),
    "gemini": (("content-type", "application/json"),),
}
"""Headers of a request that is written in this form."""
_REQUEST = "request"
MAX_DROPPED = 32  # names in one header
MAX_DROPPED_CHARS = 64  # of each
_SPENT = re.compile(rb'"(?:code|type)"\s*:\s*"(?:%s)"' % "|".join(sorted(SPENT)).encode())
_PING = re.compile(rb'\s*\{\s*"type"\s*:\s*"ping"')
_UNFIT = re.compile(r"[^A-Za-z0-9_.:\[\]/-]")


async def ask(target: Target, service: Service, call: Call, spoken: Spoken) -> "Translated":
    """Ask in ``spoken``. Raises InvalidParameter for what cannot be said there, UpstreamError."""
    if call.form is None or not isinstance(call.body, bytes):
        raise ValueError("only a whole body in a known form can be translated")
    request = _read(call.form, call)
    stored = call.stored
    if stored is not None and request.store:
        request.store = None  # done here
    try:
        written = translate.write_request(request, spoken, target.model, service.quirks, ask_usage=service.stream_usage)
    except Untranslatable as error:
        raise InvalidParameter(error.message, param=_as_called(error.param, call.form)) from None
    wire = msgspec.structs.replace(
        call,
        path=path_of(spoken, target.model, stream=request.stream),
        query="alt=sse" if spoken == "gemini" and request.stream else "",
        headers=_headers(call.headers, spoken),
        body=written.body,
    )
    reply = await service.upstream.open(target, wire)
    try:
        if call.pause is not None:
            await call.pause()
        shown = Shown(
            id=_plain(call.request_id) if stored is None else stored.id,
            model=request.model,
            now=int(time.time()),
            include_usage=True,
            request=_outlines(request),
            told={} if stored is None else dict(stored.told),
            clock=time.time,
        )
        dropped = told(tuple(dict.fromkeys((*written.dropped, *lost_by(reply)))))
        made = Translated(reply, service.upstream.name, spoken, call.form, shown, dropped, stream=request.stream)
        await made.begin()
    except BaseException:
        reply.close()
        raise
    return made


def path_of(spoken: Spoken, model: str, *, stream: bool) -> str:
    """Where a generation is asked for, relative to the upstream's base URL."""
    if spoken == "gemini":
        return gemini_path(model, "streamGenerateContent" if stream else "generateContent")
    return PATHS[spoken]


def gemini_path(model: str, verb: str) -> str:
    """Google's path of a model. A name is one segment, whatever is in it: a caller chooses it, and must not choose the path."""
    return f"/models/{quote(model, safe='')}:{verb}"


def told(dropped: tuple[str, ...]) -> tuple[str, ...]:
    """What was dropped, fit for a header: no more than MAX_DROPPED, each without what a header must not have in it.

    Some are words of the caller's own (the type of an unknown item).
    """
    return tuple(_UNFIT.sub("?", name)[:MAX_DROPPED_CHARS] for name in dropped[:MAX_DROPPED])


def status_of(body: bytes) -> int | None:
    """The status that an answer should have had, of a body that reports an error in any form; None: it reports none."""
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    error = tree.get("error") if isinstance(tree, dict) else None
    if not isinstance(error, dict):
        return None
    code = error.get("code")
    if isinstance(code, int) and 400 <= code <= 599:
        return code
    return STATUS_OF_KIND.get(str(code), STATUS_OF_KIND.get(str(error.get("type")), 502))


def _read(form: Form, call: Call) -> Request:
    """The request, read once for all tries."""
    found = call.memo.get(_REQUEST)
    if isinstance(found, Request):
        return found
    try:
        request = translate.read_request(form, call.body if isinstance(call.body, bytes) else b"")
    except (Malformed, Untranslatable) as error:
        raise unread(error) from None
    except orjson.JSONDecodeError as error:  # what the gateway only passes on it need not be able to hold
        raise InvalidJSON(f"The body cannot be translated for the model's upstream: {error}") from None
    call.memo[_REQUEST] = request
    return request


def unread(error: Malformed | Untranslatable) -> CallerError:
    """What a caller is told whose request cannot be read."""
    kind = ThreadUnsupported if isinstance(error, Unthreadable) else InvalidParameter
    return kind(error.message, param=error.param)


def _outlines(request: Request) -> Request:
    """What answers tell of it. What has been said, but for the system's words in front, need not be held for so long."""
    first = request.messages[:1]
    return msgspec.structs.replace(request, messages=first if first and first[0].role == "system" else [])


def _as_called(param: str | None, form: Form) -> str | None:
    """Where in the request, as its caller calls it: a writer knows turns as ``messages``, and not whose they are."""
    turns = {"responses": "input", "gemini": "contents", "completions": "prompt"}.get(form)
    return turns if turns is not None and param is not None and param.startswith("messages") else param


def _brings(name: str, data: bytes) -> bool:
    """The upstream is at work: no ping, for which a writer may have bytes; also where it is not passed on (a call waits its turn)."""
    return name != "ping" and _PING.match(data) is None


def _plain(request_id: str) -> str:
    """A request id without what an answer's ids must not have in them."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in request_id)


def _headers(headers: list[tuple[str, str]], spoken: Spoken) -> list[tuple[str, str]]:
    """Without what means something in the caller's dialect only, or for the body as it was."""
    return [
        *(
            (name, value)
            for name, value in headers
            if (lower := name.lower()) not in OF_A_BODY and not lower.startswith(OF_A_DIALECT)
        ),
        *ADDED[spoken],
    ]


class Translated(PassedOn):
    """An answer in the caller's form."""

    status = 0
    headers: RawHeaders = ()
    ended = False

    def __init__(
        self,
        reply: Reply,
        name: str,
        spoken: Spoken,
        form: Form,
        shown: Shown,
        dropped: tuple[str, ...],
        *,
        stream: bool,
    ) -> None:
        """``reply``: in the upstream's form ``spoken``. ``name``: of the upstream. ``stream``: the caller wants one."""
        super().__init__(reply)
        self._stream, self._name = stream, name
        self._spoken, self._form, self._shown = spoken, form, shown
        self.status = reply.status
        self.dropped = dropped
        """What the request has lost on its way there."""
        self.spent = False
        """The upstream says that what was paid for is used up (which not every dialect has a word for)."""
        self._whole: bytes | None = None
        self._events: Events | None = None
        self._moved = True

    async def begin(self) -> None:
        """Find out what kind of answer it is; one in one piece is read. Raises UpstreamError."""
        kind = next((value for name, value in self._reply.headers if name.lower() == b"content-type"), b"")
        kind = kind.split(b";", 1)[0].strip().lower()
        others = [
            (name, value)
            for name, value in self._reply.headers
            if name.lower() not in {b"content-type", b"content-length", b"transfer-encoding", b"content-encoding"}
        ]
        if self.status < 400 and kind == b"text/event-stream":
            if not self._stream:
                raise UpstreamInvalid(f"Upstream '{self._name}' answered with a stream, which nobody asked for.")
            self._events = Events()
            self._reader = translate.reader(self._spoken, self._shown.request)
            self._writer = translate.writer(self._form, self._shown)
            self.headers = [*others, (b"content-type", b"text/event-stream")]
            return
        body = await self._all(MAX_ERROR_BYTES if self.status >= 400 else MAX_ANSWER_BYTES)
        made = self._made(body) if self.status < 400 else None
        if made is None:
            self.spent = self.status == 429 and _SPENT.search(body) is not None
            wait = told_ms(body)
            if wait is not None:
                others.append((b"retry-after-ms", b"%d" % wait))
            made = translate.fault(self._spoken, self._form, self.status, body, self._shown.id)
        self._whole = made
        streams = self._stream and self.status < 400
        self.headers = [
            *others, (b"content-type", b"text/event-stream" if streams else b"application/json"),
            (b"content-length", b"%d" % len(made)),
        ]  # fmt: skip

    def _made(self, body: bytes) -> bytes | None:
        """The whole answer for the caller, told as a stream where one was asked for.

        None: it is an error (some report one with a good status); ``status`` is what it should have been.
        """
        try:
            if not self._stream:
                return translate.answer(self._spoken, self._form, body, self._shown)
            writer = translate.writer(self._form, self._shown)
            answer = translate.read_answer(self._spoken, body, self._shown)
            return b"".join([writer.write(event) for event in played(answer)])
        except (Malformed, orjson.JSONEncodeError) as error:
            status = status_of(body)
            if status is None:
                raise UpstreamInvalid(
                    f"Upstream '{self._name}' answered with what its dialect does not know: {error}"
                ) from None
            self.status = status
            return None

    async def _all(self, most: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while not self._reply.ended:
            piece = await self._reply.read()
            pieces.append(piece)
            size += len(piece)
            if size > most:
                if self.status >= 400:
                    break
                raise UpstreamInvalid(f"Upstream '{self._name}' sent an answer over {most >> 20} MiB.")
        self._reply.close()
        return b"".join(pieces)

    async def read(self, *, progress: bool = True) -> bytes:  # noqa: ARG002  known better here: not all events are passed on
        """See ``types.Reply``."""
        if self._whole is not None:
            made, self._whole, self.ended = self._whole, None, True
            return made
        events = self._events
        if events is None or self.ended:
            return b""
        while True:
            try:
                chunk = await self._reply.read(progress=self._moved)
            except UpstreamError:
                # Where usage may follow the last word (Gemini), only the end says that all is there: also a broken or a late one.
                left = self._reader.end()
                if not any(isinstance(event, Finish) for event in left):
                    raise
                self.ended = True
                return self._written(left)
            try:
                found = events.feed(chunk)
                if self._reply.ended:
                    found += events.end()
            except Malformed as error:
                raise UpstreamBroken(f"Upstream '{self._name}' sent what is no stream of events: {error}") from None
            said = [event for name, data in found for event in self._reader.read(name, data)]
            if self._reply.ended:
                self.ended = True
                said += self._reader.end()
            made = self._written(said)
            self._moved = any(_brings(name, data) for name, data in found)
            if made or self.ended:
                return made

    def _written(self, said: Sequence[Event]) -> bytes:
        try:
            return b"".join([self._writer.write(event) for event in said])
        except orjson.JSONEncodeError as error:  # a number that is none (of tokens, most likely)
            raise UpstreamBroken(f"Upstream '{self._name}' sent what cannot be written: {error}.") from None

    def close(self) -> None:
        """See ``types.Reply``."""
        self._whole = None
        super().close()
