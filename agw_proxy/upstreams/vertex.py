"""Google's and Anthropic's models on Vertex AI: in their own forms, under a project's path, with a token that expires.

Vertex AI API reference, "publishers.models" (generateContent, streamGenerateContent, rawPredict, streamRawPredict);
Anthropic documentation, "Claude on Vertex AI".
"""

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote

import msgspec
import orjson

from agw_proxy._hot.route import Target
from agw_proxy.config.settings import Upstream as UpstreamSettings
from agw_proxy.errors import UpstreamRefused
from agw_proxy.types import Call
from agw_proxy.upstreams.crossing import Crossing
from agw_proxy.upstreams.http import Sent
from agw_proxy.upstreams.messages_elsewhere import (
    BETA,
    COUNTING,
    MESSAGES,
    betas,
    enveloped,
    fault,
    not_served,
    whole_body,
)
from agw_proxy.upstreams.unwrapped import Rewritten, words_of
from agw_proxy.upstreams.vertex_tokens import Tokens

VERSION = "vertex-2023-10-16"
COUNTER = "count-tokens"  # a model of its own there
PAYER = "x-goog-user-project"
GRANTED = Crossing(
    never=(("header", PAYER, "Names who pays: with the gateway's credentials the caller has no say in that."),)
)
ANTHROPICS = "anthropic-"
MESSAGES_THERE = Crossing(
    passes=((BETA, "Without the betas that only Anthropic's own API has."),),
    never=(("prefix", ANTHROPICS, "The version is in the body there."),),
)


class Vertex:
    """Vertex AI, as an upstream's ``http.Cloud``."""

    def __init__(self, settings: UpstreamSettings, *, gemini: bool) -> None:
        """``gemini``: Google's models, else Anthropic's. Raises ValueError for a file that is not there."""
        google = settings.google
        if google is None:
            raise ValueError(f"upstream '{settings.name}': dialect: vertex needs google")
        if google.credentials is not None and not google.credentials.is_file():
            raise ValueError(f"upstream '{settings.name}': there is no file {google.credentials} with credentials")
        self._name, self._gemini = settings.name, gemini
        self._place = f"/projects/{google.project}/locations/{google.location}/publishers"
        keyed = settings.api_key is not None or bool(settings.api_keys)
        tokens = settings.auth == "key" and not keyed
        self._tokens = Tokens(settings.name, google.credentials) if tokens else None

    async def send(self, target: Target | None, call: Call, go: Callable[[Call], Awaitable[Sent]]) -> Sent:
        """See ``http.Cloud``."""
        as_it_is = target is None or call.raw
        if target is not None and not call.raw:
            call = self._as_gemini(call) if self._gemini else self._as_messages(target, call)
        if self._tokens is not None:
            token = await self._tokens.get()
            headers = [(name, value) for name, value in call.headers if name.lower() != PAYER]
            call = msgspec.structs.replace(call, headers=headers, credential=("Authorization", f"Bearer {token}"))
        reply = await go(call)
        if reply.status == 401 and self._tokens is not None:
            reply.close()
            self._tokens.refused()
            raise UpstreamRefused(
                f"Upstream '{self._name}' refused the gateway's own credentials (401): check those of google, and their roles."
            )
        if reply.status < 400 or as_it_is:
            return reply
        body = await words_of(reply)
        return Rewritten(reply, reply.status, _only_one(body) if self._gemini else _as_fault(reply.status, body))

    def sources(self) -> Mapping[str, str]:
        """See ``http.Cloud``."""
        return {"authorization": "google"} if self._tokens is not None else {}

    @property
    def always(self) -> Crossing:
        """See ``http.Cloud``."""
        return GRANTED if self._tokens is not None else Crossing()

    @property
    def wrapping(self) -> Crossing:
        """See ``http.Cloud``."""
        return Crossing() if self._gemini else MESSAGES_THERE

    async def close(self) -> None:
        """See ``http.Cloud``."""
        if self._tokens is not None:
            await self._tokens.close()

    def _as_gemini(self, call: Call) -> Call:
        """Raises UpstreamRejected."""
        whole_body(call, self._name, "vertex")
        if not call.path.startswith("/models/"):
            raise not_served(self._name, "vertex")
        return msgspec.structs.replace(call, path=f"{self._place}/google{call.path}")

    def _as_messages(self, target: Target, call: Call) -> Call:
        """Raises UpstreamRejected, InvalidJSON."""
        body = whole_body(call, self._name, "vertex")
        put: dict[str, object] = {"anthropic_version": VERSION}
        if call.path == MESSAGES:
            made = enveloped(body, without=("model",), put=put)
            model, verb = quote(target.model, safe="@"), "streamRawPredict" if made.stream else "rawPredict"
        elif call.path == COUNTING:
            made = enveloped(body, without=("stream",), put=put)
            model, verb = COUNTER, "rawPredict"
        else:
            raise not_served(self._name, "vertex")
        flags = betas(call.headers)
        headers = [(name, value) for name, value in call.headers if not name.lower().startswith(ANTHROPICS)]
        headers += [(BETA, ",".join(flags))] if flags else []
        path = f"{self._place}/anthropic/models/{model}:{verb}"
        return msgspec.structs.replace(call, path=path, query="", headers=headers, body=made.body)


def _only_one(body: bytes) -> bytes:
    """Google's error without the list around it in which some of its servers say it."""
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    return orjson.dumps(tree[0]) if isinstance(tree, list) and tree else body


def _as_fault(status: int, body: bytes) -> bytes:
    """An error of Google's in Anthropic's form; one of Anthropic's as it is."""
    try:
        tree = orjson.loads(_only_one(body))
    except orjson.JSONDecodeError:
        return fault(status, "The model cannot be used.")
    error = tree.get("error") if isinstance(tree, dict) else None
    if isinstance(error, dict) and isinstance(error.get("type"), str):
        return body
    message = error.get("message") if isinstance(error, dict) else error
    return fault(status, message if isinstance(message, str) and message else "The model cannot be used.")
