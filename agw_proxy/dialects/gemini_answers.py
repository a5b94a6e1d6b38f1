"""Answers of the Gemini API (reference, ``GenerateContentResponse``) and its errors (Google's ``google.rpc.Status``)."""

from http import HTTPStatus

import orjson

from agw_proxy.dialects import members
from agw_proxy.dialects.base import (
    Answer,
    Block,
    Fault,
    Image,
    Malformed,
    Refusal,
    Shown,
    Stop,
    Text,
    Thinking,
    Tokens,
    ToolUse,
    Tree,
)
from agw_proxy.dialects.gemini_names import branch, branches, camel, integer, shown_signature
from agw_proxy.dialects.gemini_parts import call_part, join, read_part
from agw_proxy.dialects.gemini_sources import citations_of, grounding_of, logprobs_of, logprobs_result

WORDS_OF_ERROR = 1000
"""Characters of an error page that is not Google's JSON, for a message."""
_STOPS: dict[str, Stop] = {
    "STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "pause",
    "SAFETY": "refusal", "RECITATION": "refusal", "LANGUAGE": "refusal", "BLOCKLIST": "refusal",
    "PROHIBITED_CONTENT": "refusal", "SPII": "refusal", "IMAGE_SAFETY": "refusal", "IMAGE_RECITATION": "refusal",
    "IMAGE_PROHIBITED_CONTENT": "refusal", "MODEL_ARMOR": "refusal", "OTHER": "refusal", "ESCALATION": "refusal",
}  # fmt: skip
_FAILURES = frozenset({
    "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE", "IMAGE_OTHER", "NO_IMAGE",
})  # fmt: skip
"""Reasons by which the answer is not one that the model has meant."""
FINISHES: dict[Stop, str] = {"length": "MAX_TOKENS", "refusal": "SAFETY"}
"""Of the others Google says STOP."""
_KINDS = {
    "INVALID_ARGUMENT": "invalid_request_error", "FAILED_PRECONDITION": "invalid_request_error",
    "OUT_OF_RANGE": "invalid_request_error", "UNAUTHENTICATED": "authentication_error",
    "PERMISSION_DENIED": "permission_error", "NOT_FOUND": "not_found_error", "RESOURCE_EXHAUSTED": "rate_limit_error",
    "UNAVAILABLE": "overloaded_error", "DEADLINE_EXCEEDED": "timeout_error", "INTERNAL": "api_error",
}  # fmt: skip
_STATUSES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 402: "FAILED_PRECONDITION", 403: "PERMISSION_DENIED",
    404: "NOT_FOUND", 408: "DEADLINE_EXCEEDED", 409: "ABORTED", 429: "RESOURCE_EXHAUSTED", 499: "CANCELLED",
    500: "INTERNAL", 501: "UNIMPLEMENTED", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}  # fmt: skip
_STATUS_OF_KIND = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "insufficient_quota": 429,
    "permission_error": 403, "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429,
    "timeout_error": 504, "overloaded_error": 503,
}  # fmt: skip


def stop_of(reason: str, called: bool) -> Stop | None:
    """Why an answer ended; None: it failed. Google says STOP also where tools are called."""
    if reason in _FAILURES:
        return None
    stop = _STOPS.get(reason, "stop")
    return "tool" if called and stop == "stop" else stop


def failure_of(candidate: Tree) -> str:
    """What to say of a candidate that has failed."""
    told = candidate.get("finishMessage")
    words = told if isinstance(told, str) and told else "no details are given"
    return f"The model's answer failed ({candidate.get('finishReason')}): {words}"


def block_reason(tree: Tree) -> str | None:
    """What to say of a prompt that was blocked; None: it was not. Raises Malformed."""
    feedback = branch(tree, "promptFeedback")
    reason = members.text(feedback, "blockReason", "promptFeedback") if feedback is not None else None
    if feedback is None or reason is None:
        return None
    told = members.text(feedback, "blockReasonMessage", "promptFeedback")
    return told or f"The prompt was blocked by the provider: {reason}."


def first_candidate(tree: Tree) -> Tree | None:
    """The candidate with index 0, or with none. Raises Malformed."""
    for candidate in branches(tree, "candidates"):
        if not candidate.get("index"):
            return candidate
    return None


def parts_of(candidate: Tree) -> list[Tree]:
    """Raises Malformed."""
    content = branch(candidate, "content", "candidates[0]")
    return [] if content is None else branches(content, "parts", "candidates[0].content")


def read_tokens(tree: Tree) -> Tokens | None:
    """``usageMetadata``: zeros are left out of it; thoughts stand beside the candidates' tokens. Raises Malformed."""
    usage = branch(tree, "usageMetadata")
    if usage is None:
        return None
    read = {name: integer(usage, name, "usageMetadata") for name in usage if name.endswith("TokenCount")}
    counts = {name: count for name, count in read.items() if count is not None and count >= 0}
    prompt = counts.get("promptTokenCount")
    thoughts = counts.get("thoughtsTokenCount") or 0
    written = counts.get("candidatesTokenCount")
    known = prompt is not None or written is not None or thoughts > 0
    return Tokens(
        input=-1 if prompt is None else prompt + (counts.get("toolUsePromptTokenCount") or 0),
        output=(written or 0) + thoughts if known else -1,
        cached=counts.get("cachedContentTokenCount") or 0,
        reasoning=thoughts,
    )


def write_tokens(tokens: Tokens) -> Tree:
    """``usageMetadata``; what is not known is left out."""
    made: Tree = {}
    known = tokens.input >= 0 or tokens.given > 0
    if known:
        made["promptTokenCount"] = tokens.given
    if tokens.cached > 0:
        made["cachedContentTokenCount"] = tokens.cached
    if tokens.output >= 0:
        made["candidatesTokenCount"] = max(tokens.output - tokens.reasoning, 0)
    if tokens.reasoning > 0:
        made["thoughtsTokenCount"] = tokens.reasoning
    if known and tokens.output >= 0:
        made["totalTokenCount"] = tokens.given + tokens.output
    return made


def read_answer(tree: Tree) -> Answer:
    """A whole answer. Raises Malformed."""
    tree = camel(tree)
    made = Answer(
        id=members.text(tree, "responseId") or "",
        model=members.text(tree, "modelVersion") or "",
        blocks=[],
        stop="refusal",
        tokens=read_tokens(tree) or Tokens(),
    )
    candidate = first_candidate(tree)
    if candidate is None:
        blocked = block_reason(tree)
        if blocked is None:
            raise Malformed("The answer has no candidate.", "candidates")
        made.blocks.append(Refusal(blocked))
        return made
    for at, part in enumerate(parts_of(candidate)):
        block = read_part(part, f"candidates[0].content.parts[{at}]", made.id, at)
        if block is not None:
            join(made.blocks, block)
    stop = stop_of(
        members.text(candidate, "finishReason", "candidates[0]") or "STOP",
        any(isinstance(block, ToolUse) for block in made.blocks),
    )
    if stop is None:
        raise Malformed(failure_of(candidate), "candidates[0].finishReason")
    made.stop = stop
    words = [block for block in made.blocks if isinstance(block, Text)]
    if words:
        words[-1].citations = citations_of(candidate)
        words[-1].logprobs = logprobs_of(candidate)
    return made


def write_answer(answer: Answer, shown: Shown) -> Tree:
    """The answer for a caller who speaks Gemini."""
    candidate: Tree = {
        "content": {"role": "model", "parts": _write_parts(answer.blocks)},
        "finishReason": FINISHES.get(answer.stop, "STOP"),
        "index": 0,
    }
    texts = [block for block in answer.blocks if isinstance(block, Text)]
    grounding = grounding_of([(text.citations, len(text.text.encode())) for text in texts])
    if grounding is not None:
        candidate["groundingMetadata"] = grounding
    logprobs = logprobs_result([each for text in texts for each in text.logprobs or ()])
    if logprobs is not None:
        candidate["logprobsResult"] = logprobs
    made: Tree = {"candidates": [candidate]}
    usage = write_tokens(answer.tokens)
    if usage:
        made["usageMetadata"] = usage
    made["modelVersion"] = shown.model
    made["responseId"] = answer.id or shown.id
    return made


def _write_parts(blocks: list[Block]) -> list[Tree]:
    """Never empty: Google's SDKs leave turns without a part out of their histories."""
    parts: list[Tree] = []
    for block in blocks:
        if isinstance(block, ToolUse):
            part = call_part(block)
        elif isinstance(block, Thinking):
            part = {"text": block.text, "thought": True}
        elif isinstance(block, Text | Refusal):
            part = {"text": block.text}
        elif isinstance(block, Image) and block.data is not None:
            part = image_part(block)
        else:
            continue
        if isinstance(block, ToolUse | Thinking | Text) and block.signature is not None:
            part["thoughtSignature"] = shown_signature(block.signature)
        parts.append(part)
    return parts or [{"text": ""}]


def image_part(image: Image) -> Tree:
    """A picture whose data is there."""
    return {"inlineData": {"mimeType": image.media_type or "image/png", "data": image.data}}


def read_fault(status: int, body: bytes) -> Fault:
    """An error answer of Google; of any bytes."""
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        tree = None
    return fault_of(tree, status) or Fault(_page(status, body), _kind(_STATUSES.get(status, ""), status), status)


def fault_of(tree: object, status: int = 0) -> Fault | None:
    """The error that a tree tells of; None: of none. A stream that is no event stream tells of it in a list."""
    if isinstance(tree, list) and tree:
        tree = tree[0]
    error = tree.get("error") if isinstance(tree, dict) else None
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return None
    number, word, said = error.get("code"), error.get("status"), error.get("message")
    if not status and type(number) is int:
        status = number
    kind, code = _kind(word if isinstance(word, str) else _STATUSES.get(status, ""), status), None
    for detail in error.get("details") or () if isinstance(error.get("details"), list) else ():
        if isinstance(detail, dict):
            if detail.get("reason") == "API_KEY_INVALID":  # which comes as INVALID_ARGUMENT
                kind = "authentication_error"
            if status == 429 and _is_spent(detail):
                code = "insufficient_quota"
    return Fault(said if isinstance(said, str) and said else _page(status, b""), kind, status, code)


def _is_spent(detail: Tree) -> bool:
    """Whether it is a quota of a day (``google.rpc.QuotaFailure``), which it is no use to wait for."""
    violations = detail.get("violations")
    return isinstance(violations, list) and any(
        isinstance(each, dict) and "PerDay" in str(each.get("quotaId", "")) for each in violations
    )


def _kind(word: str, status: int) -> str:
    return _KINDS.get(word) or ("invalid_request_error" if 400 <= status < 500 else "api_error")


def _page(status: int, body: bytes) -> str:
    words = body.decode(errors="replace").strip()
    if words and not words.startswith("<"):
        return words[:WORDS_OF_ERROR]
    try:
        return f"The upstream answered {status} {HTTPStatus(status).phrase}."
    except ValueError:
        return "The upstream reported an error without a message."


def write_fault(fault: Fault, request_id: str) -> Tree:
    """The error for a caller who speaks Gemini, with the request's id where Google's errors have it (``google.rpc.RequestInfo``)."""
    status = fault.status if fault.status >= 400 else _STATUS_OF_KIND.get(fault.kind, 500)
    fallback = "INVALID_ARGUMENT" if status < 500 else "INTERNAL"
    error: Tree = {"code": status, "message": fault.message, "status": _STATUSES.get(status, fallback)}
    details: list[Tree] = []
    if request_id:
        details.append({"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": request_id})
    if fault.param is not None:
        violation = {"field": fault.param, "description": fault.message}
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})
    if details:
        error["details"] = details
    return {"error": error}
