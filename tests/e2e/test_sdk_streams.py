"""The official SDKs, unmodified: what they make of a stream that is whole, and of each kind that is not."""

from collections.abc import Callable, Iterator

import anthropic
import openai
import pytest

from tests.e2e.lane_cases import ANTHROPIC_EVENTS, RESPONSE
from tests.support.behaviours import event, stream
from tests.support.fake_openai import ANSWER, spoken
from tests.support.gateway import Gateway, configuration, provider
from tests.support.upstream import Behaviour, Upstream

Read = Callable[[Gateway], str]
OUTPUT = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
}
OPENED = {**OUTPUT, "status": "in_progress", "content": []}
PART = {"type": "output_text", "text": "", "annotations": []}
WHOLE = {
    **RESPONSE,
    "created_at": 1,
    "status": "completed",
    "model": "gpt-4o",
    "output": [OUTPUT],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}


def numbered(*trees: dict[str, object]) -> list[bytes]:
    """Events of a response with their gapless numbers."""
    return [event({**tree, "sequence_number": at}, str(tree["type"])) for at, tree in enumerate(trees)]


RESPONSE_EVENTS = numbered(
    {"type": "response.created", "response": {**WHOLE, "status": "in_progress", "output": [], "usage": None}},
    {"type": "response.output_item.added", "output_index": 0, "item": OPENED},
    {"type": "response.content_part.added", "item_id": "msg_1", "output_index": 0, "content_index": 0, "part": PART},
    {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": "Hello",
        "logprobs": [],
    },
    {"type": "response.output_item.done", "output_index": 0, "item": OUTPUT},
    {"type": "response.completed", "response": WHOLE},
)


@pytest.fixture(scope="module", params=["auto", "full"])
def shared_gateway(shared_upstream: Upstream, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    url = shared_upstream.url
    claude = provider(url, "claude", dialect="anthropic", models=["claude-*"])
    claude["base_url"] = url
    settings = {"port": 0, "drain_seconds": 1, "lane": request.param}
    seconds = {"connect": "300ms", "first_byte": "400ms", "between_bytes": "400ms", "total": "20s"}
    with Gateway(configuration(provider(url), claude, server=settings, timeouts=seconds)) as running:
        yield running


def chat(gateway: Gateway) -> str:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, timeout=10) as client:
        pieces = client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "x"}], stream=True
        )
        return "".join(piece.choices[0].delta.content or "" for piece in pieces)


def responses(gateway: Gateway) -> str:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, timeout=10) as client:
        events = client.responses.create(model="gpt-4o", input="x", stream=True)
        return "".join(one.delta for one in events if one.type == "response.output_text.delta")


def responses_helper(gateway: Gateway) -> str:
    """By the SDK's own accumulation of events."""
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, timeout=10) as client,
        client.responses.stream(model="gpt-4o", input="x") as events,
    ):
        return events.get_final_response().output_text


def messages(gateway: Gateway) -> str:
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0, timeout=10) as client:
        events = client.messages.create(
            model="claude-small", max_tokens=64, messages=[{"role": "user", "content": "x"}], stream=True
        )
        deltas = [one.delta for one in events if one.type == "content_block_delta"]
        return "".join(delta.text for delta in deltas if delta.type == "text_delta")


def messages_helper(gateway: Gateway) -> str:
    """By the SDK's own accumulation of events."""
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0, timeout=10) as client,
        client.messages.stream(
            model="claude-small", max_tokens=64, messages=[{"role": "user", "content": "x"}]
        ) as events,
    ):
        return events.get_final_text()


READERS: list[tuple[Read, list[bytes], int, str]] = [
    (chat, spoken(), 2, ANSWER),
    (responses, RESPONSE_EVENTS, 1, "Hello"),
    (responses_helper, RESPONSE_EVENTS, 1, "Hello"),
    (messages, ANTHROPIC_EVENTS, 1, "Hello"),
    (messages_helper, ANTHROPIC_EVENTS, 1, "Hello"),
]
"""How it is read; its events; how many of the last ones make its end; its text."""

SICK = {"type": "error", "error": {"type": "overloaded_error", "message": "overloaded", "code": "x"}}
FAULTS: dict[str, Callable[[list[bytes], int], Behaviour]] = {
    "cut": lambda events, end: stream(events[:-end], ending="fin"),
    "reset": lambda events, end: stream(events[:-end], ending="rst"),
    "stalled": lambda events, end: stream(events[:-end], ending="hang"),
    "no-terminator": lambda events, end: stream(events[:-end][:-1] if end > 1 else events[:-end]),
    "close-delimited": lambda events, end: stream(events[:-end][:3], framing="close"),
    "early-close": lambda events, _: stream(events[:1], framing="close"),
    "early-end": lambda events, _: stream(events[:1]),
    "truncated": lambda events, end: stream([*events[:-end][:-1], events[-end - 1][:-12]]),
    "truncated-and-cut": lambda events, end: stream([*events[:-end][:-1], events[-end - 1][:-12]], ending="fin"),
    "error": lambda events, end: stream([*events[:2], event(SICK), *events[-end:]], pace_ms=5),
    "named-error": lambda events, end: stream([*events[:2], event(SICK, "error"), *events[-end:]], pace_ms=5),
    "malformed": lambda events, _: stream([*events[:3], events[3].replace(b"}", b"]"), *events[4:]]),
    "malformed-end": lambda events, end: stream([*events[:-end], events[-end].replace(b"}", b"]")]),
}


@pytest.mark.parametrize(("read", "events", "end", "text"), READERS, ids=[reader[0].__name__ for reader in READERS])
def test_a_whole_stream_is_read_whole(
    gateway: Gateway, upstream: Upstream, read: Read, events: list[bytes], end: int, text: str
) -> None:
    assert end < len(events)
    shapes = [{}, {"split": 7}, {"framing": "close"}, {"ending": "hang"}]
    upstream.script(*(stream(events, **shape) for shape in shapes))  # type: ignore[arg-type]
    for _ in shapes:
        assert read(gateway) == text


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("read", "events", "end", "text"), READERS, ids=[reader[0].__name__ for reader in READERS])
def test_every_other_stream_raises(
    gateway: Gateway, upstream: Upstream, read: Read, events: list[bytes], end: int, text: str, fault: str
) -> None:
    assert text
    upstream.script(FAULTS[fault](events, end))
    with pytest.raises((openai.APIError, anthropic.APIError, ValueError)):
        read(gateway)
    assert len(upstream.requests) == 1, "no second try after the first byte"
