"""Anthropic's models on Amazon Bedrock: asked for as messages, by ``InvokeModel`` and ``InvokeModelWithResponseStream``.

Amazon Bedrock API reference, "InvokeModel", "InvokeModelWithResponseStream", "CountTokens"; user guide, "Anthropic Claude
Messages API". Other vendors' models there have forms of their own, which are not spoken.
"""

import asyncio
import base64
import re
import sys
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
FRAMES = b"application/vnd.amazon.eventstream"
KEPT_BACK = ("x-amz-", "anthropic-", "x-stainless-")
"""Headers of a caller's, by their beginnings: AWS' own are the gateway's to say, Anthropic's are in the body."""
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
        wire, counts = self._asked(target, call), call.path == COUNTING
        reply = await go(await self._signed(wire))
        if reply.status >= 400:
            return await self._refused(reply)
        if _type_of(reply.headers) == FRAMES:
            await _frames_ready()
            from agw_proxy.upstreams.bedrock_frames import Events  # noqa: PLC0415  it brings botocore

            return Events(reply, self._name)
        return await self._counted(reply) if counts else reply

    def sources(self) -> Mapping[str, str]:
        """See ``http.Cloud``."""
        names = ("authorization", "x-amz-date", "x-amz-security-token")
        return dict.fromkeys(names, "aws") if self._signer is not None else {}

    async def close(self) -> None:
        """See ``http.Cloud``."""
        if self._signer is not None:
            await self._signer.close()

    def _asked(self, target: Target, call: Call) -> Call:
        """The call as Bedrock wants it. Raises UpstreamRejected, InvalidJSON."""
        body = whole_body(call, self._name, "bedrock")
        model = target.model
        if "." in model and "anthropic." not in model and not model.startswith("arn:"):
            raise UpstreamRejected(
                f"Upstream '{self._name}' serves Anthropic's models only: '{model[:80]}' is none.", status=404
            )
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
        kept = [
            (name, value)
            for name, value in call.headers
            if (lower := name.lower()) not in {"content-type", "accept"} and not lower.startswith(KEPT_BACK)
        ]
        headers = [*kept, ("content-type", "application/json"), ("accept", accept)]
        return msgspec.structs.replace(
            call, path=f"/model/{quote(model, safe='')}/{verb}", query="", headers=headers, body=written
        )

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
            if (lower := name.lower()) not in given and not lower.startswith("x-amz-")
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


async def _frames_ready() -> None:
    """Return when ``bedrock_frames`` can be imported at once."""
    if "agw_proxy.upstreams.bedrock_frames" not in sys.modules:
        await asyncio.get_running_loop().run_in_executor(None, _import_frames)


def _import_frames() -> None:
    from agw_proxy.upstreams import bedrock_frames  # noqa: F401, PLC0415  for it to happen here
