"""Vertex AI and Google's token endpoint, for scripted upstreams: who has no token of a signed assertion gets nothing.

RFC 7523 (JWT profile for OAuth 2.0 grants); Vertex AI API reference, "publishers.models".
"""

import base64
import re
from typing import Any
from urllib.parse import parse_qs

import orjson
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from pydantic import ValidationError

from tests.dialects.schema_gemini import conforms
from tests.support.providers import Scene, gemini, gemini_frames, message, message_frames
from tests.support.published import check_request, ready
from tests.support.upstream import Behaviour, Exchange

Tree = dict[str, Any]

PROJECT, LOCATION = "a-project", "europe-west4"
ACCOUNT = "gateway@a-project.iam.gserviceaccount.com"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_PATH = re.compile(
    rf"/v1/projects/{PROJECT}/locations/{LOCATION}/publishers/(google|anthropic)/models/([^/:]+):([A-Za-z]+)"
)


class TokenEndpoint:
    """Google's, for one service account whose key was made here. ``issued``: its tokens, in order."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.issued: list[str] = []
        self.seconds = 3600

    def account(self, url: str) -> bytes:
        """The file of the service account, with its tokens at ``url``."""
        text = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return orjson.dumps(
            {
                "type": "service_account",
                "project_id": PROJECT,
                "private_key_id": "1",
                "private_key": text.decode(),
                "client_email": ACCOUNT,
                "client_id": "1",
                "token_uri": url,
            }
        )

    async def __call__(self, exchange: Exchange) -> None:
        """A behaviour: gives a token for an assertion that this account has signed."""
        form = parse_qs(exchange.request.body.decode())
        assert form["grant_type"] == [_GRANT]
        head, claims, signature = form["assertion"][0].split(".")
        self._key.public_key().verify(
            _plain(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
        )
        told = orjson.loads(_plain(claims))
        assert (told["iss"], told["scope"]) == (ACCOUNT, "https://www.googleapis.com/auth/cloud-platform")
        self.issued.append(f"ya29.token-{len(self.issued)}-{'x' * 20}")
        body = {"access_token": self.issued[-1], "expires_in": self.seconds, "token_type": "Bearer"}
        await send(exchange, 200, orjson.dumps(body))


def _plain(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def plays(scene: Scene, tokens: TokenEndpoint) -> Behaviour:
    """Answers by the scene, in the form of the model's publisher."""
    ready()

    async def behave(exchange: Exchange) -> None:
        request = exchange.request
        if request.value("authorization") not in {f"Bearer {token}" for token in tokens.issued}:
            await send(exchange, 401, refusal(401, "UNAUTHENTICATED", "Request had invalid credentials."))
            return
        found = _PATH.fullmatch(request.path)
        assert found is not None, f"Vertex has no {request.path}"
        publisher, model, verb = found.groups()
        fault = _fault(publisher, model, request.json)
        if fault:
            await send(exchange, 400, b"[" + refusal(400, "INVALID_ARGUMENT", fault) + b"]")
        elif verb == "countTokens":
            await send(exchange, 200, b'{"totalTokens":55}')
        elif model == "count-tokens":
            await send(exchange, 200, b'{"input_tokens":66}')
        elif publisher == "google":
            streamed = verb == "streamGenerateContent"
            assert request.target.endswith("?alt=sse") is streamed
            await _answer(exchange, orjson.dumps(gemini(scene)), gemini_frames(scene), streamed=streamed)
        else:
            streamed = verb == "streamRawPredict"
            assert streamed is bool(request.json.get("stream"))
            await _answer(exchange, orjson.dumps(message(scene)), message_frames(scene), streamed=streamed)

    return behave


def _fault(publisher: str, model: str, tree: Tree) -> str | None:
    """Why Vertex would not take that body."""
    try:
        if publisher == "google":
            conforms(tree)
            return None
        if tree.get("anthropic_version") != "vertex-2023-10-16":
            return "anthropic_version: Field required"
        if ("model" in tree) is not (model == "count-tokens"):
            return "model: Extra inputs are not permitted"
        rest = {name: value for name, value in tree.items() if name != "anthropic_version"}
        check_request("messages", {"max_tokens": 1, **rest, "model": "m"})
    except (AssertionError, ValidationError) as error:
        return str(error)
    return None


def refusal(status: int, kind: str, words: str) -> bytes:
    """An error as Google says it."""
    return orjson.dumps({"error": {"code": status, "message": words, "status": kind}})


async def send(exchange: Exchange, status: int, body: bytes, kind: str = "application/json") -> None:
    """A whole answer."""
    head = f"HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    await exchange.send(head.encode() + body)


async def _answer(exchange: Exchange, body: bytes, frames: bytes, *, streamed: bool) -> None:
    if streamed:
        await send(exchange, 200, frames, "text/event-stream")
    else:
        await send(exchange, 200, body)
