"""The upstream agw/echo as the gateway uses it: opening, reading, pacing, breaking and closing; and any JSON object."""

import asyncio
import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Completion, CreateEmbeddingResponse, ModerationCreateResponse
from openai.types.chat import ChatCompletion

from agw_proxy._hot.route import RouteTable, Target
from agw_proxy.errors import UpstreamBroken
from agw_proxy.types import Call, Reply, Upstream
from agw_proxy.upstreams.echo import READ_BYTES, Echo
from agw_proxy.upstreams.echo_answers import answer
from tests.upstreams.test_echo_answers import CHAT, TEXT, TOOLS, VECTORS, VERDICTS


def target() -> Target:
    route = RouteTable([("agw", ())], []).find("agw/echo")
    assert route is not None
    return route.targets[0]


async def opened(method: str = "POST", path: str = CHAT, **members: Any) -> Reply:
    body = orjson.dumps({"messages": [{"role": "user", "content": "Say hello to all"}], **members})
    call = Call(method=method, path=path, query="", headers=[], body=body, seen=None, request_id="r")
    upstream: Upstream = Echo()
    assert (upstream.name, upstream.dialect) == ("agw", "openai")
    return await upstream.open(target(), call)


async def reads(reply: Reply) -> list[bytes]:
    taken = []
    while data := await reply.read():
        taken.append(data)
    assert reply.ended
    assert await reply.read() == b""
    return taken


class Clock:
    """Stands in for ``asyncio.sleep``: time that is asked for passes at once, and is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[float] = []
        self._sleep = asyncio.sleep
        monkeypatch.setattr("agw_proxy.upstreams.echo.asyncio.sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self._sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_a_plain_answer_is_json_with_its_length() -> None:
    reply = await opened()
    (body,) = await reads(reply)
    assert (reply.status, reply.connect_ms) == (200, 0.0)
    assert dict(reply.headers) == {b"content-type": b"application/json", b"content-length": b"%d" % len(body)}
    assert orjson.loads(body)["choices"][0]["message"]["content"] == "Say hello to all"


async def test_a_stream_is_a_stream_of_events() -> None:
    reply = await opened(stream=True)
    assert dict(reply.headers) == {b"content-type": b"text/event-stream"}
    assert b"".join(await reads(reply)).endswith(b"data: [DONE]\n\n")


async def test_errors_are_replies() -> None:
    reply = await opened(path="/nothing")
    assert (reply.status, dict(reply.headers)[b"content-type"]) == (404, b"application/json")
    assert orjson.loads(b"".join(await reads(reply)))["error"]["code"] == "unknown_url"
    assert dict((await opened("GET")).headers)[b"allow"] == b"POST"


async def test_a_body_that_is_streamed_is_refused() -> None:
    async def body() -> Any:
        yield b"{}"

    call = Call(method="POST", path=CHAT, query="", headers=[], body=body(), seen=None, request_id="r")
    assert (await Echo().open(target(), call)).status == 400


async def test_the_delay_comes_before_the_head_and_the_pace_between_events(clock: Clock) -> None:
    reply = await opened(stream=True, agw_echo={"delay_ms": 60_000, "pace_ms": 250, "chunks": 3})
    assert clock.asked == [60.0]
    taken = await reads(reply)
    assert [data.count(b"data: ") for data in taken] == [1] * 6
    assert clock.asked == [60.0] + [0.25] * 5


async def test_without_a_pace_events_are_joined_up_to_a_bound_and_others_get_their_turn(clock: Clock) -> None:
    taken = await reads(await opened(stream=True, agw_echo={"chunks": 1_000}))
    assert b"".join(taken).count(b"data: ") == 1_003
    assert all(READ_BYTES <= len(data) < READ_BYTES + 1_000 for data in taken[:-1])
    assert clock.asked == [0.0] * (len(taken) - 1)


async def test_ended_is_known_with_the_last_bytes(clock: Clock) -> None:
    reply = await opened(stream=True, agw_echo={"pace_ms": 1, "chunks": 1})
    known = []
    while not reply.ended:
        known.append(await reply.read())
    assert known[-1] == b"data: [DONE]\n\n"


@pytest.mark.parametrize("pace_ms", [0, 5])
@pytest.mark.parametrize("after", [0, 1, 4, 7])
async def test_a_stream_breaks_after_so_many_events(clock: Clock, pace_ms: int, after: int) -> None:
    reply = await opened(stream=True, agw_echo={"chunks": 5, "pace_ms": pace_ms, "break_after": after})
    taken = b""
    while taken.count(b"data: ") < after:
        taken += await reply.read()
    with pytest.raises(UpstreamBroken, match="break_after"):
        await reply.read()
    assert taken.count(b"data: ") == after
    assert b"[DONE]" not in taken
    assert not reply.ended
    with pytest.raises(UpstreamBroken):
        await reply.read()


async def test_a_break_behind_the_end_is_none() -> None:
    assert len(await reads(await opened(stream=True, agw_echo={"chunks": 5, "break_after": 8}))) == 1


async def test_a_json_answer_breaks_before_its_length() -> None:
    reply = await opened(agw_echo={"bytes": 200_000, "break_after": 2})
    data = await reply.read()
    with pytest.raises(UpstreamBroken):
        await reply.read()
    assert 0 < len(data) < int(dict(reply.headers)[b"content-length"])


async def test_a_large_answer_comes_in_portions() -> None:
    reply = await opened(agw_echo={"bytes": 1 << 20})
    taken = await reads(reply)
    assert max(map(len, taken)) <= 1 << 17
    assert sum(map(len, taken)) == int(dict(reply.headers)[b"content-length"])


async def test_a_cancelled_read_loses_nothing() -> None:
    reply = await opened(stream=True, agw_echo={"pace_ms": 10_000, "chunks": 3})
    first = await reply.read()
    waiting = asyncio.ensure_future(reply.read())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.MonkeyPatch.context() as patch:
        Clock(patch)
        taken = [first, *await reads(reply)]
    assert [data.count(b"data: ") for data in taken] == [1] * 6
    assert [b"token 2" in data for data in taken].count(True) == 1


async def test_opening_can_be_cancelled() -> None:
    waiting = asyncio.ensure_future(opened(agw_echo={"delay_ms": 60_000}))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_closing_is_possible_at_any_point_and_never_looks_like_an_end(clock: Clock) -> None:
    reply = await opened(stream=True, agw_echo={"pace_ms": 1, "chunks": 3})
    await reply.read()
    waiting = asyncio.ensure_future(reply.read())
    await asyncio.sleep(0)
    reply.close()
    reply.close()
    with pytest.raises(UpstreamBroken, match="closed"):
        await waiting
    assert not reply.ended


async def test_closing_after_the_end_changes_nothing() -> None:
    reply = await opened()
    await reads(reply)
    reply.close()
    assert reply.ended
    assert await reply.read() == b""
    await Echo().close()


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["call weather {}", "\ud800", "\udc00x"])
)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
LIKELY = {
    "messages": st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["user", "tool", "system"]), "content": ANY}), max_size=3
    ),
    "prompt": ANY,
    "input": ANY,
    "model": ANY,
    "n": st.integers(0, 9),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    "max_tokens": st.integers(-1, 5),
    "tools": st.just(TOOLS) | ANY,
    "tool_choice": st.sampled_from(["required", "auto", "none"]) | ANY,
    "response_format": st.fixed_dictionaries(
        {"type": st.just("json_schema"), "json_schema": st.fixed_dictionaries({"schema": ANY})}
    ),
    "dimensions": st.integers(-1, 70),
    "encoding_format": st.sampled_from(["float", "base64"]) | ANY,
    "agw_echo": st.fixed_dictionaries(
        {}, optional={"chunks": st.integers(0, 9), "bytes": st.integers(0, 99), "status": st.integers(390, 610)}
    )
    | ANY,
}
SHAPES: dict[str, Any] = {
    CHAT: ChatCompletion,
    TEXT: Completion,
    VECTORS: CreateEmbeddingResponse,
    VERDICTS: ModerationCreateResponse,
}


@settings(max_examples=400, deadline=None)
@given(
    path=st.sampled_from(list(SHAPES)),
    members=st.fixed_dictionaries({}, optional={name: values | ANY for name, values in LIKELY.items()}),
)
def test_whatever_json_object_comes_there_is_an_answer_or_a_well_formed_error(
    path: str, members: dict[str, Any]
) -> None:
    answered = answer("POST", path, json.dumps(members).encode())
    body = b"".join(answered.pieces)
    if answered.length is None:
        assert body.endswith(b"data: [DONE]\n\n")
        for line in body.split(b"\n\n")[:-2]:
            assert orjson.loads(line.removeprefix(b"data: "))["id"]
        return
    assert answered.length == len(body)
    if answered.status == 200:
        SHAPES[path].model_validate(orjson.loads(body))
    else:
        assert answered.status == 400 or members["agw_echo"]["status"] == answered.status
        assert set(orjson.loads(body)["error"]) == {"message", "type", "param", "code"}
