"""Models on Amazon Bedrock: Anthropic's by ``InvokeModel`` (their own form), all others by ``Converse``.

Amazon Bedrock API reference, "InvokeModel", "InvokeModelWithResponseStream", "CountTokens", "Converse", "ConverseStream";
user guide, "Anthropic Claude Messages API".
"""

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote

import msgspec
import orjson

from agw_proxy._hot.route import Target
from agw_proxy.config.settings import Upstream as UpstreamSettings
from agw_proxy.errors import UpstreamInvalid, UpstreamRefused, UpstreamRejected
from agw_proxy.types import Call, RawHeaders
from agw_proxy.upstreams.bedrock_faults import CREDENTIALS, fault_of
from agw_proxy.upstreams.bedrock_signing import Signer
from agw_proxy.upstreams.crossing import Crossing
from agw_proxy.upstreams.http import Sent
from agw_proxy.upstreams.messages_elsewhere import (
    COUNTING,
    MESSAGES,
    betas,
    enveloped,
    fault,
    not_served,
    whole_body,
)
from agw_proxy.upstreams.unwrapped import Rewritten, all_of, words_of

VERSION = "bedrock-2023-05-31"
MAX_RAW_BYTES = 25_000_000  # Bedrock's bound of a body; one that is signed is held whole
MAX_COUNT_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024  # of one that is translated whole
FRAMES = b"application/vnd.amazon.eventstream"
AMAZONS = "x-amz-"
SIGNING = Crossing(never=(("prefix", AMAZONS, "Amazon's own are the gateway's to say, which signs the request."),))
WRAPPING = Crossing(
    added=(
        ("content-type", "application/json: the body is wrapped for Bedrock."),
        ("accept", "JSON, or Amazon's event stream."),
    ),
    never=(
        ("prefix", AMAZONS, "Amazon's own are the gateway's to say."),
        ("prefix", "anthropic-", "In the body there: the version, and betas that Bedrock may know."),
        ("prefix", "x-stainless-", "Tells of an SDK for another API."),
    ),
)
KEPT_BACK = tuple(name for _, name, _ in WRAPPING.never)
MADE_ANEW = frozenset(name for name, _ in WRAPPING.added)
_AREA = re.compile(r"^(?:[a-z]{2,6}(?:-gov)?)\.(?=anthropic\.)")


class Bedrock:
    """Bedrock, as an upstream's ``http.Cloud``."""

    def __init__(self, settings: UpstreamSettings) -> None:
        """Signs where it may and has no key."""
        if settings.aws is None:
            raise ValueError(f"upstream '{settings.name}': dialect: bedrock needs aws")
        self._name, self._base = settings.name, settings.base_url
        self._own = list(settings.headers.items())
        self._ours = settings.auth == "key"
        keyed = settings.api_key is not None or bool(settings.api_keys)
        self._signer = (
            Signer(settings.name, settings.aws.region, settings.aws.profile) if self._ours and not keyed else None
        )

    async def send(self, target: Target | None, call: Call, go: Callable[[Call], Awaitable[Sent]]) -> Sent:
        """See ``http.Cloud``."""
        if target is None or call.raw:
            return await go(await self._signed(call))
        if _by_converse(target.model):
            return await self._converse(target, call, go)
        wire, counts = self._asked(target, call), call.path == COUNTING
        reply = await go(await self._signed(wire))
        if reply.status >= 400:
            return await self._refused(reply)
        if _type_of(reply.headers) == FRAMES:
            await _ready(_import_frames)
            from agw_proxy.upstreams.bedrock_frames import Chunks, Events  # noqa: PLC0415  it brings botocore

            return Events(reply, self._name, Chunks())
        return await self._counted(reply) if counts else reply

    def sources(self) -> Mapping[str, str]:
        """See ``http.Cloud``."""
        names = ("authorization", "x-amz-date", "x-amz-security-token")
        return dict.fromkeys(names, "aws") if self._signer is not None else {}

    @property
    def always(self) -> Crossing:
        """See ``http.Cloud``."""
        return SIGNING if self._signer is not None else Crossing()

    @property
    def wrapping(self) -> Crossing:
        """See ``http.Cloud``."""
        return WRAPPING

    async def close(self) -> None:
        """See ``http.Cloud``."""
        if self._signer is not None:
            await self._signer.close()

    def _asked(self, target: Target, call: Call) -> Call:
        """The call as Bedrock wants it. Raises UpstreamRejected, InvalidJSON."""
        body = whole_body(call, self._name, "bedrock")
        model = target.model
        put: dict[str, object] = {"anthropic_version": VERSION}
        if flags := betas(call.headers):
            put["anthropic_beta"] = flags
        accept = "application/json"
        if call.path == MESSAGES:
            made = enveloped(body, without=("model", "stream"), put=put)
            written, verb = made.body, "invoke"
            if made.stream:
                verb, accept = "invoke-with-response-stream", FRAMES.decode()
        elif call.path == COUNTING:
            inner = enveloped(body, without=("model", "stream"), put={**put, "max_tokens": 1}).body
            written = orjson.dumps({"input": {"invokeModel": {"body": base64.b64encode(inner).decode()}}})
            model, verb = _AREA.sub("", model), "count-tokens"  # a profile counts nothing: the model itself does
        else:
            raise not_served(self._name, "bedrock")
        return _wire(call, f"/model/{quote(model, safe='')}/{verb}", accept, written)

    async def _converse(self, target: Target, call: Call, go: Callable[[Call], Awaitable[Sent]]) -> Sent:
        """A generation by Converse. Raises UpstreamError, InvalidParameter, InvalidJSON."""
        body = whole_body(call, self._name, "bedrock")
        if call.path != MESSAGES:
            raise not_served(self._name, "bedrock")
        await _ready(_import_converse)
        from agw_proxy.upstreams.bedrock_converse import Talk  # noqa: PLC0415  it brings all dialects
        from agw_proxy.upstreams.bedrock_frames import Events  # noqa: PLC0415  likewise

        talk = Talk(body, target.model, call.request_id, self._name)
        verb, accept = ("converse-stream", FRAMES.decode()) if talk.stream else ("converse", "application/json")
        wire = _wire(call, f"/model/{quote(target.model, safe='')}/{verb}", accept, talk.body)
        reply = await go(await self._signed(wire))
        if reply.status >= 400:
            return await self._refused(reply)
        made: Events | Rewritten
        if _type_of(reply.headers) == FRAMES:
            made = Events(reply, self._name, talk)
        else:
            made = Rewritten(reply, reply.status, talk.answer(await all_of(reply, self._name, MAX_ANSWER_BYTES)))
        made.dropped = talk.dropped
        return made

    async def _signed(self, call: Call) -> Call:
        if self._signer is None:
            return call
        body = call.body
        if body is not None and not isinstance(body, bytes):
            body = await self._held(call)
        given = {name.lower() for name, _ in self._own}
        kept = [
            (name, value)
            for name, value in call.headers
            if (lower := name.lower()) not in given and not lower.startswith(AMAZONS)
        ]
        url = f"{self._base}{call.path}" + (f"?{call.query}" if call.query else "")
        signed = await self._signer.signed(call.method, url, [*kept, *self._own], body or b"")
        return msgspec.structs.replace(call, headers=signed, body=body)

    async def _held(self, call: Call) -> bytes:
        """The body of a raw call: its hash is signed. Raises UpstreamRejected where it is longer than Bedrock takes."""
        held = bytearray()
        if call.body is not None and not isinstance(call.body, bytes):
            async for portion in call.body:
                held += portion
                if len(held) > MAX_RAW_BYTES:
                    raise UpstreamRejected(f"Upstream '{self._name}' takes bodies up to 25 MB.", status=413)
        return bytes(held)

    async def _refused(self, reply: Sent) -> Sent:
        """The answer as Anthropic would have said it. Raises UpstreamRefused where the gateway's credentials are meant."""
        code = next((value for name, value in reply.headers if name.lower() == b"x-amzn-errortype"), b"")
        found = fault_of(code.decode("latin-1"), await words_of(reply), status=reply.status)
        if found.name in CREDENTIALS and self._ours:
            if self._signer is not None:
                self._signer.refused()
            raise UpstreamRefused(
                f"Upstream '{self._name}' refused the gateway's own AWS credentials ({found.message})."
            )
        return Rewritten(reply, found.status, fault(found.status, found.message))

    async def _counted(self, reply: Sent) -> Sent:
        body = await all_of(reply, self._name, MAX_COUNT_BYTES)
        try:
            tokens = orjson.loads(body)["inputTokens"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise UpstreamInvalid(f"Upstream '{self._name}' counted tokens and told no number.") from None
        return Rewritten(reply, reply.status, orjson.dumps({"input_tokens": tokens}))


def _type_of(headers: RawHeaders) -> bytes:
    kind = next((value for name, value in headers if name.lower() == b"content-type"), b"")
    return kind.split(b";", 1)[0].strip().lower()


def _by_converse(model: str) -> bool:
    """Another vendor's: its id, or that at an ARN's end, names the vendor (``us.amazon.nova-pro-v1:0``)."""
    return "anthropic." not in model and "." in model.rpartition("/")[2]


def _wire(call: Call, path: str, accept: str, body: bytes) -> Call:
    kept = [
        (name, value)
        for name, value in call.headers
        if (lower := name.lower()) not in MADE_ANEW and not lower.startswith(KEPT_BACK)
    ]
    headers = [*kept, ("content-type", "application/json"), ("accept", accept)]
    return msgspec.structs.replace(call, path=path, query="", headers=headers, body=body)


_BROUGHT: set[Callable[[], None]] = set()


async def _ready(bring: Callable[[], None]) -> None:
    """Return when what ``bring`` imports can be imported at once."""
    if bring not in _BROUGHT:
        await asyncio.get_running_loop().run_in_executor(None, bring)
        _BROUGHT.add(bring)


def _import_frames() -> None:
    from agw_proxy.upstreams import bedrock_frames  # noqa: F401, PLC0415  for it to happen here


def _import_converse() -> None:
    from agw_proxy.upstreams import bedrock_converse  # noqa: F401, PLC0415  likewise
