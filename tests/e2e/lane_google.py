"""Google's form, for both lanes (tests/e2e/test_lane_parity.py): the path names model and stream."""

from collections.abc import Iterator

from tests.e2e.lane_cases import COUNTED_KEY, CUT_CLOSE, CUT_LENGTH, FORBIDDEN_KEY, LONG_TEXT, ONCE_KEY, TRACE, Case
from tests.support.behaviours import Ending, answer, event, failure, limited, raw, reset, silence, stream
from tests.support.gateway import UPSTREAM_KEY, Tree
from tests.support.upstream import Behaviour

MODELS = "/v1beta/models/"
WORDS = [{"role": "user", "parts": [{"text": "Hello"}]}]
USED = {"promptTokenCount": 11, "candidatesTokenCount": 5, "thoughtsTokenCount": 2, "totalTokenCount": 18}
NO = {"error": {"code": 503, "message": f"overloaded {UPSTREAM_KEY}", "status": "UNAVAILABLE"}}
ODD_FIELDS = "a=%20&key=AIza-theirs&b&access_token=t&oauth_token=t&key=2"


def said(text: str, *, last: bool = False, index: int = 0) -> Tree:
    """A GenerateContentResponse, or a chunk of one."""
    candidate: Tree = {"content": {"role": "model", "parts": [{"text": text}]}, "index": index}
    return {
        "candidates": [{**candidate, "finishReason": "STOP"} if last else candidate],
        "usageMetadata": USED if last else {"promptTokenCount": 11},
        "modelVersion": "gemini-1",
    }


EVENTS = [event(said("Hel")), event(said("lo")), event(said("!", last=True))]
WHOLE = answer(said("Hello", last=True))


def once(
    name: str, lane: str = "fast", status: int = 200, *, model: str = "gemini-1", query: str = "", **more: object
) -> Case:
    """A plain generation. ``config``: its generationConfig; ``more``: of ``Case``."""
    body: Tree = {"contents": WORDS}
    if "config" in more:
        body["generationConfig"] = more.pop("config")
    told = {"body": body, "path": f"{MODELS}{model}:generateContent{query}", "always": WHOLE, **more}
    return Case(f"google-{name}", lane, status, **told)  # type: ignore[arg-type]  # named as its fields


def streamed(
    name: str, script: Behaviour, lane: str = "fast", status: int = 200, *, query: str = "?alt=sse", **more: object
) -> Case:
    """A stream of one."""
    path = f"{MODELS}gemini-1:streamGenerateContent{query}"
    told = {"body": {"contents": WORDS}, "path": path, "always": script, **more}
    return Case(f"google-{name}", lane, status, **told)  # type: ignore[arg-type]  # likewise


def paths() -> Iterator[Case]:
    """Paths, names and queries."""
    yield once("plain", headers={"traceparent": TRACE, "x-goog-api-client": "genai/1", "x-user-id": "bob"})
    yield once("key", key=None, headers={"x-goog-api-key": COUNTED_KEY})
    yield once("stable", path="/v1/models/gemini-1:generateContent")
    yield once("renamed", model="quick")
    yield once("escaped-name", model="gemini-1%2e5%3Ab%40c")
    yield once("direct", model="google/gemini-9")
    yield once("escaped-slash", model="google%2Fgemini-9")
    yield once("fields", query=f"?{ODD_FIELDS}")
    yield once("keys-alone", query="?key=AIza-theirs")
    yield once("alt", query="?alt=json&$prettyPrint=false")
    yield once("key-in-query", "key", key=None, query=f"?key={COUNTED_KEY}")
    yield once("empty-field", "query", query="?a=1&&b=2")
    yield once("quoted", "model_name", 404, model="a%22b")
    yield once("dots", "model_name", 404, model="a/%2e%2E")
    yield once("unknown", "no_route", 404, model="no-such")
    yield once("forbidden", "model_forbidden", 403, key=FORBIDDEN_KEY)
    yield once("limited", status=429, key=ONCE_KEY, headers={"x-user-id": "google"}, times=2)
    yield streamed("alt-missing", stream(EVENTS), "query", 400, query="")
    yield streamed("alt-json", stream(EVENTS), "query", 400, query="?alt=json")


def bodies() -> Iterator[Case]:
    """What is reserved for an answer, and bodies that are none."""
    nothing = answer({"candidates": []})  # no usage: the reservation counts
    plain: dict[str, object] = {
        "bounded": {"maxOutputTokens": 40},
        "several": {"max_output_tokens": 40, "candidateCount": 3, "responseSchema": {"maxOutputTokens": 7}},
        "one": {"candidate_count": 1, "maxOutputTokens": 0},
        "nulls": {"candidateCount": None, "maxOutputTokens": None},
        "list": [{"maxOutputTokens": 40}],
    }
    for name, told in plain.items():
        yield once(f"config-{name}", config=told, always=nothing)
    yield once("config-snake", body={"contents": WORDS, "generation_config": {"maxOutputTokens": 40}}, always=nothing)
    unusual: dict[str, Tree] = {
        "text": {"maxOutputTokens": "40"},
        "negative": {"maxOutputTokens": -1},
        "both": {"maxOutputTokens": 40, "max_output_tokens": 50},
    }
    for name, config in unusual.items():
        yield once(f"config-{name}", "bounds", config=config, always=nothing)
    escaped = b'{"contents":[],"generationConfig":{"max\\u004futputTokens":40}}'
    yield once("config-escaped", "bounds", body=escaped, always=nothing)
    both = {"contents": WORDS, "generationConfig": {}, "generation_config": {"maxOutputTokens": 40}}
    yield once("config-twice", "bounds", body=both, always=nothing)
    yield once("spaced", body=b' \n{ "contents" : [ ] ,\t"generationConfig" : { "maxOutputTokens" : 9 } } \r\n')
    yield once("empty", body=b"{ }")
    yield once("large", body={"contents": [{"parts": [{"text": LONG_TEXT}]}], "tools": [{"codeExecution": {}}]})
    yield once("model-in-body", "json", body={"contents": WORDS, "model": "gemini-1"})
    yield once("other-model-in-body", "json", 400, body={"contents": WORDS, "model": "gemini-2"})
    bounded = {"contents": WORDS, "max_tokens": 1, "generationConfig": {"maxOutputTokens": 40}}
    yield once("bound-in-body", "json", 400, body=bounded)
    yield once("bad-json", "json", 400, body=b'{,"contents":[]}')
    yield once("trailing", "json", 400, body=b"{}{}")
    yield once("fallbacks", "fallbacks", 403, body={"contents": WORDS, "fallbacks": ["google/gemini-9"]})


def answers() -> Iterator[Case]:
    """Streams, and what becomes of failures."""
    yield streamed("stream", stream(EVENTS, pace_ms=5))
    yield streamed("stream-split", stream(EVENTS, split=9, pace_ms=1), query="?key=AIza-theirs&alt=sse&x=1")
    yield streamed("stream-until-close", stream(EVENTS, framing="close"))
    late = event({"usageMetadata": USED})
    yield streamed("stream-usage-last", stream([*EVENTS[:2], event(said("!", last=True)), late], pace_ms=5))
    blocked = event({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": USED})
    yield streamed("stream-blocked", stream([blocked]))
    yield streamed("stream-two", stream([event(said("a", last=True)), event(said("b", last=True, index=1))], pace_ms=5))
    yield streamed("error-mid-stream", stream([*EVENTS[:2], event(NO)], pace_ms=20))
    endings: tuple[Ending, ...] = ("fin", "rst", "hang", "whole")
    for ending in endings:
        yield streamed(f"stream-{ending}", stream(EVENTS[:2], pace_ms=5, ending=ending))
    for status in (400, 429):
        refused = failure(status) if status != 429 else limited((("retry-after", "7"),))
        yield once(f"upstream-{status}", "upstream_failed", status, always=refused)
    yield once("upstream-503", "upstream_failed", 503, always=failure(503))
    yield once("upstream-503-once", "upstream_failed", script=[failure(503)])
    yield once("reset", "upstream_failed", 502, always=reset())
    yield once("silence", "upstream_failed", 504, always=silence())
    yield once("cut", script=[raw(CUT_LENGTH)])
    yield once("cut-unframed", "upstream_failed", 502, always=raw(CUT_CLOSE))
    yield streamed("error-first", stream([event(NO)]), "upstream_failed", 503)


GOOGLE = [*paths(), *bodies(), *answers()]
