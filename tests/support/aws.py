"""Bedrock's runtime for a scripted upstream: it proves signatures and speaks in frames.

Frames are written out here by Amazon's "Event stream encoding", not by the library that reads them.
"""

import base64
import re
import struct
import zlib
from typing import Any
from urllib.parse import unquote

import orjson
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.converse import answer, check_converse, messages
from tests.support.providers import Scene, message, message_frames
from tests.support.published import check_request, ready
from tests.support.upstream import Behaviour, Exchange, Recorded

ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = (
    "AKIDEXAMPLE123456789",
    "wJalrXUtnFEMIsecretK7MDENG",
    "session/token+of=many=chars",
)
API_KEY = "bedrock-api-key-7f3d02c95b1e4a68"
REGION = "us-west-2"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_SESSION_TOKEN": SESSION_TOKEN,
    "AWS_EC2_METADATA_DISABLED": "true",
}
MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
_SIGNED = re.compile(r"AWS4-HMAC-SHA256 Credential=([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]{64})")
_PATH = re.compile(r"/model/([^/]+)/(invoke|invoke-with-response-stream|count-tokens|converse|converse-stream)")

Tree = dict[str, Any]


def signature_fault(request: Recorded) -> str | None:
    """What is wrong with a request's signature, or None (AWS, "Signature Version 4", worked out anew from what came)."""
    found = _SIGNED.fullmatch(request.value("authorization") or "")
    if found is None:
        return "no signature"
    scope, names, signature = found[1], found[2].split(";"), found[3]
    stamp = request.value("x-amz-date") or ""
    if scope != f"{ACCESS_KEY}/{stamp[:8]}/{REGION}/bedrock/aws4_request":
        return f"signed for {scope}"
    if not {"host", "x-amz-date", "x-amz-security-token", "content-type"} <= set(names):
        return f"signed are {names} only"
    if request.value("x-amz-security-token") != SESSION_TOKEN:
        return "another session"
    headers = {name: request.value(name) or "" for name in names if name != "host"}
    url = f"http://{request.value('host')}{request.target}"
    anew = AWSRequest(method=request.method, url=url, data=request.body, headers=headers)
    anew.context["timestamp"] = stamp
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, SESSION_TOKEN), "bedrock", REGION)
    wanted = signer.signature(signer.string_to_sign(anew, signer.canonical_request(anew)), anew)
    return None if wanted == signature else "the signature does not match"


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of an event stream; all its headers are strings (type 7)."""
    told = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(told) + len(payload), len(told))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    return prelude + told + payload + struct.pack(">I", zlib.crc32(prelude + told + payload))


def chunk(event: bytes) -> bytes:
    """An event of the Messages API, as Bedrock sends it."""
    payload = orjson.dumps({"bytes": base64.b64encode(event).decode(), "p": "abcdefgh"})
    headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, payload)


def told(kind: str, payload: Tree) -> bytes:
    """An event of ConverseStream; its payload is padded."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, orjson.dumps({**payload, "p": "abcd"}))


def exception(name: str, message: str) -> bytes:
    """What ends a stream that fails."""
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, orjson.dumps({"message": message}))


def chunks(scene: Scene) -> list[bytes]:
    """A scene's stream; the last event tells Bedrock's own measurements, as it does there."""
    events = [part.partition(b"data: ")[2] for part in message_frames(scene).strip().split(b"\n\n")]
    last = {**orjson.loads(events[-1]), "amazon-bedrock-invocationMetrics": {"inputTokenCount": 21}}
    return [chunk(event) for event in (*events[:-1], orjson.dumps(last))]


def fails(name: str, status: int, message: str) -> Behaviour:
    """Refuses as AWS' REST services do."""
    body = orjson.dumps({"message": message})
    kind = f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"

    async def behave(exchange: Exchange) -> None:
        await _send(exchange, f"{status} Refused", "application/json", body, f"x-amzn-ErrorType: {kind}\r\n")

    return behave


def plays(scene: Scene, *, cut: int = 0) -> Behaviour:
    """Answers by the scene. ``cut``: a stream goes out in pieces of so many bytes."""
    ready()

    async def behave(exchange: Exchange) -> None:
        request = exchange.request
        wrong = None if request.value("authorization") == f"Bearer {API_KEY}" else signature_fault(request)
        if wrong:
            quoted = f"{wrong}. The canonical string was ... x-amz-security-token:{SESSION_TOKEN}"
            await fails("InvalidSignatureException", 403, quoted)(exchange)
            return
        found = _PATH.fullmatch(request.path)
        assert found is not None, f"Bedrock has no {request.path}"
        tree = request.json
        if found[2].startswith("converse"):
            await _converse(exchange, scene, tree, streamed=found[2].endswith("stream"))
            return
        assert unquote(found[1]).startswith(("us.anthropic.", "anthropic."))
        if found[2] == "count-tokens":
            await _count(exchange, unquote(found[1]), tree)
            return
        fault = _fault(tree)
        if fault:
            await fails("ValidationException", 400, fault)(exchange)
            return
        if found[2] == "invoke":
            await _send(exchange, "200 OK", "application/json", orjson.dumps(message(scene)))
            return
        data = b"".join(chunks(scene))
        kind = "application/vnd.amazon.eventstream"
        await _send(exchange, "200 OK", kind, b"", f"Content-Length: {len(data)}\r\n")
        for start in range(0, len(data), cut or len(data)):
            await exchange.send(data[start : start + (cut or len(data))])

    return behave


def _fault(tree: Tree) -> str | None:
    """Why Bedrock would not take that body."""
    if tree.get("anthropic_version") != "bedrock-2023-05-31":
        return "anthropic_version: Field required"
    if "model" in tree or "stream" in tree:
        return "model, stream: Extra inputs are not permitted"
    rest = {name: value for name, value in tree.items() if name not in {"anthropic_version", "anthropic_beta"}}
    try:
        check_request("messages", {**rest, "model": "m"})
    except ValueError as error:
        return str(error)
    return None


async def _converse(exchange: Exchange, scene: Scene, tree: Tree, *, streamed: bool) -> None:
    fault = check_converse(tree)
    if fault:
        await fails("ValidationException", 400, fault)(exchange)
    elif streamed:
        data = b"".join(told(kind, payload) for kind, payload in messages(scene))
        await _send(exchange, "200 OK", "application/vnd.amazon.eventstream", data)
    else:
        await _send(exchange, "200 OK", "application/json", orjson.dumps(answer(scene)))


async def _count(exchange: Exchange, model: str, tree: Tree) -> None:
    assert model.startswith("anthropic."), "a profile counts nothing"
    inner = orjson.loads(base64.b64decode(tree["input"]["invokeModel"]["body"]))
    assert _fault(inner) is None, _fault(inner)
    await _send(exchange, "200 OK", "application/json", b'{"inputTokens":77}')


async def _send(exchange: Exchange, status: str, kind: str, body: bytes, more: str = "") -> None:
    length = "" if "Content-Length" in more else f"Content-Length: {len(body)}\r\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nx-amzn-RequestId: 1b2c\r\n{length}{more}\r\n"
    await exchange.send(head.encode() + body)
