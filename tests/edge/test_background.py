"""Runs of one worker: begun, written down, bounded, cancelled, and told of whatever becomes of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from agw_proxy.api.runs import Row
from agw_proxy.edge import background, ongoing
from agw_proxy.edge.background import Desk, headers_of, written
from agw_proxy.edge.full_lane import BEHIND
from agw_proxy.edge.turn import Frames
from agw_proxy.errors import BodyTooLarge, InternalError, ModelNotFound, Overloaded, StoreUnavailable
from agw_proxy.store.responses_file import Missing, StoreAway
from agw_proxy.store.runs import Listed, Runs
from agw_proxy.types import Principal

ASKED = {"model": "m", "input": "hi"}
ME = cast("Principal", type("Me", (), {"owner": "key:me", "name": "me"})())
Say = Callable[..., Awaitable[None]]
Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(Runs(tmp_path / "runs.db", 64 << 20, 60.0, written), 2, 1 << 20)
    yield made
    await made.close()


def origin(**more: str) -> web.BaseRequest:
    headers = {"Authorization": "Bearer k", "x-user-id": "ann", "Content-Length": "99", **more}
    return make_mocked_request("POST", "/runs", headers=headers)


def answering(talk: Callable[[Say], Awaitable[None]]) -> Serve:
    """A handler that admits, and streams what ``talk`` says."""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        frames = cast("Frames", request.writer)
        request[BEHIND].admitted()
        await frames.write_headers("HTTP/1.1 200 OK", CIMultiDict({"Content-Type": "text/event-stream"}))

        async def say(kind: str, **members: object) -> None:
            data = orjson.dumps({"type": kind, **members})
            await frames.write(b"event: %s\ndata: %s\n\n" % (kind.encode(), data))

        await talk(say)
        return web.StreamResponse()

    return serve


async def begin(desk: Desk, serve: Serve) -> ongoing.Live:
    return await desk.begin(serve, origin(), ME, ASKED)


async def end(desk: Desk, live: ongoing.Live) -> Row:
    async with asyncio.timeout(20):
        await live.over.wait()
    return Row(*await desk.store.find(None, live.seed))


async def kinds(desk: Desk, live: ongoing.Live) -> list[str]:
    portions, _ = await desk.store.events(live.seed, -1, 1 << 30)
    body = b"".join(portion for _, portion in portions)
    return [line.removeprefix(b"event: ").decode() for line in body.splitlines() if line.startswith(b"event: ")]


async def test_the_headers_of_who_began_it_are_its_own_but_those_of_the_one_request() -> None:
    kept = {
        name.lower()
        for name in headers_of(
            origin(**{"Idempotency-Key": "i", "x-request-id": "r", "Connection": "close, x-hop", "x-hop": "h"})
        )
    }
    assert kept == {"authorization", "x-user-id", "accept", "content-type"}


async def test_a_last_event_without_its_items_gets_those_that_came(desk: Desk) -> None:
    item = {"id": "msg_1", "type": "message"}

    async def talk(say: Say) -> None:
        await say("response.created", response={"id": "resp_theirs", "created_at": 1, "status": "in_progress"})
        await say("response.output_item.done", item=item)
        await say("response.incomplete", response={"id": "resp_theirs", "status": "incomplete", "output": []})

    row = await end(desk, await begin(desk, answering(talk)))
    head = orjson.loads(row.head)
    assert (row.status, head["output"], head["id"], head["background"]) == (
        "incomplete",
        [item],
        f"resp_{row.seed}",
        True,
    )


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (("response.failed", {"response": {"error": {"code": "server_error", "message": "no"}}}), "server_error"),
        (("error", {"error": {"code": "overloaded", "message": "no"}}), "overloaded"),
        (("response.output_text.delta", {"delta": "x"}), "upstream_stream_broken"),
        (("response.completed", {}), "upstream_stream_broken"),
    ],
)
async def test_an_answer_that_fails_is_a_run_that_has_failed(desk: Desk, last: Any, code: str) -> None:
    async def talk(say: Say) -> None:
        await say(last[0], **last[1])

    live = await begin(desk, answering(talk))
    row = await end(desk, live)
    assert (row.status, orjson.loads(row.error or b"{}")["code"]) == ("failed", code)
    assert (await kinds(desk, live))[-1] == "response.failed"


@pytest.mark.parametrize("kind", ["response.created", "response.output_text.delta", "response.completed"])
async def test_an_event_that_is_too_deep_ends_the_run(desk: Desk, kind: str) -> None:
    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        frames = cast("Frames", request.writer)
        request[BEHIND].admitted()
        await frames.write_headers("HTTP/1.1 200 OK", CIMultiDict({"Content-Type": "text/event-stream"}))
        deep = b'{"a":' * 300 + b"1" + b"}" * 300
        data = b'{"type":"%s","response":{"metadata":%s},"delta":%s}' % (kind.encode(), deep, deep)
        await frames.write(b"event: %s\ndata: %s\n\n" % (kind.encode(), data))
        raise AssertionError

    row = await end(desk, await begin(desk, serve))
    assert (row.status, orjson.loads(row.error or b"{}")["code"]) == ("failed", "upstream_invalid_response")


async def test_a_defect_is_told_as_one(desk: Desk) -> None:
    async def talk(_: Say) -> None:
        raise ValueError("a secret")

    row = await end(desk, await begin(desk, answering(talk)))
    assert (row.status, b"secret" in row.head) == ("failed", False)
    assert orjson.loads(row.error or b"{}")["code"] == "internal_error"


async def test_no_more_are_taken_than_there_is_room_for(desk: Desk) -> None:
    over = asyncio.Event()

    async def talk(_: Say) -> None:
        await over.wait()

    first, second = [await begin(desk, answering(talk)) for _ in range(2)]
    with pytest.raises(Overloaded, match=r"runs\.concurrent"):
        await begin(desk, answering(talk))
    over.set()
    await end(desk, first)
    await end(desk, second)
    assert (await end(desk, await begin(desk, answering(talk)))).status == "failed"


async def test_what_is_refused_is_raised_and_leaves_nothing(desk: Desk) -> None:
    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        cast("Frames", request.writer).exchange = cast("Any", type("X", (), {"error": ModelNotFound("no")})())
        return web.Response(status=404)

    with pytest.raises(ModelNotFound):
        await begin(desk, serve)
    assert await desk.store.page(None, Listed(5, ascending=True, after=None, status=None, model=None)) == ([], False)


async def test_what_is_refused_while_the_file_is_away_is_no_run_under_way(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreAway

    async def serve(_: web.BaseRequest) -> web.StreamResponse:
        monkeypatch.setattr(desk.store, "forget", away)
        return web.Response(status=404, body=b'{"error":{"code":"model_not_found","message":"no"}}')

    with pytest.raises(InternalError):  # it has told nothing to raise again
        await begin(desk, serve)
    live = next(iter(desk._live.values()))
    row = await end(desk, live)
    assert (row.status, row.error) == ("failed", b'{"code":"model_not_found","message":"no"}')


async def test_one_with_too_many_events_is_ended(tmp_path: Path) -> None:
    desk = Desk(Runs(tmp_path / "runs.db", 64 << 20, 60.0, written), 2, 20_000)
    said = 0

    async def talk(say: Say) -> None:
        nonlocal said
        for said in range(100):  # noqa: B007
            await say("response.output_text.delta", delta="x" * 1000)

    row = await end(desk, await begin(desk, answering(talk)))
    assert said < 40
    assert "runs.max_run_mb" in orjson.loads(row.error or b"{}")["message"]
    await desk.close()


async def test_one_whose_answer_is_larger_than_what_is_kept_is_ended_and_the_others_go_on(tmp_path: Path) -> None:
    desk = Desk(Runs(tmp_path / "runs.db", 1 << 20, 60.0, written), 2, 60_000)

    async def talk(say: Say) -> None:
        await say("response.completed", response={"status": "completed", "output": [{"text": "x" * 300_000}]})

    async def small(say: Say) -> None:
        await say("response.completed", response={"status": "completed"})

    async def one(say: Say) -> None:
        await say("response.output_item.done", item={"text": "x" * 300_000})

    with pytest.raises(BodyTooLarge):
        await desk.begin(answering(small), origin(), ME, {**ASKED, "instructions": "x" * 300_000})
    assert (await end(desk, await begin(desk, answering(one)))).status == "failed"
    large, other = await begin(desk, answering(talk)), await begin(desk, answering(small))
    row = await end(desk, large)
    assert (row.status, "runs.max_run_mb" in orjson.loads(row.error or b"{}")["message"]) == ("failed", True)
    assert (await end(desk, other)).status == "completed"
    await desk.close()


async def test_one_that_is_cancelled_before_it_came_to_run_has_been_cancelled(desk: Desk) -> None:
    async def talk(_: Say) -> None:
        await asyncio.Event().wait()

    live = await begin(desk, answering(talk))
    desk.cancel(live)
    row = await end(desk, live)
    assert (row.status, row.error) == ("cancelled", None)
    desk.cancel(live)  # it has ended
    assert Row(*await desk.store.find(None, live.seed)).status == "cancelled"


async def test_one_that_was_deleted_by_another_worker_is_ended(desk: Desk) -> None:
    async def talk(_: Say) -> None:
        await asyncio.Event().wait()

    live, other = [await begin(desk, answering(talk)) for _ in range(2)]
    await desk.store.forget(None, live.seed)
    async with asyncio.timeout(20):
        await live.over.wait()
    assert (live.status, other.ended) == ("cancelled", None)


async def test_who_leaves_while_it_is_begun_takes_it_along(desk: Desk) -> None:
    asked = asyncio.Event()

    async def serve(_: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    beginning = asyncio.ensure_future(begin(desk, serve))
    await asked.wait()
    beginning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    live = next(iter(desk._live.values()))
    async with asyncio.timeout(20):
        await live.over.wait()
    assert live.status == "cancelled"
    with pytest.raises(Missing):  # so that who asks again, by the same Idempotency-Key, begins another one
        await desk.store.find(None, live.seed)


async def test_where_it_cannot_be_written_down_it_is_not_begun(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_: object) -> None:
        raise StoreAway

    monkeypatch.setattr(desk.store, "begin", away)
    with pytest.raises(StoreUnavailable):
        await begin(desk, answering(lambda _: asyncio.sleep(0)))
    assert not desk._live


async def test_what_cannot_be_written_is_written_later_and_in_order(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "AGAIN_SECONDS", 0.01)
    told = desk.store.say
    refusals = 3

    async def say(said: Any) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise StoreAway
        await told(said)

    monkeypatch.setattr(desk.store, "say", say)

    async def talk(say: Say) -> None:
        for number in range(4):
            await say(f"response.step_{number}")
            await asyncio.sleep(0.02)
        await say("response.completed", response={"status": "completed"})

    live = await begin(desk, answering(talk))
    assert (await end(desk, live)).status == "completed"
    steps = [f"response.step_{number}" for number in range(4)]
    assert await kinds(desk, live) == ["response.created", "response.queued", *steps, "response.completed"]
    assert refusals == 0


async def test_a_run_waits_for_the_file_and_gives_up_in_the_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ongoing, "MAX_UNWRITTEN_BYTES", 100)
    monkeypatch.setattr(ongoing, "STALLED_SECONDS", 0.05)
    monkeypatch.setattr(background, "AGAIN_SECONDS", 0.01)
    told = desk.store.say
    away = True

    async def say(said: Any) -> None:
        if away:
            raise StoreAway
        await told(said)

    monkeypatch.setattr(desk.store, "say", say)

    async def talk(say: Say) -> None:
        await say("response.output_text.delta", delta="x" * 1000)

    live = await begin(desk, answering(talk))
    while live.ended is None:
        await asyncio.sleep(0.01)
    assert not live.over.is_set()
    away = False
    row = await end(desk, live)
    assert (row.status, orjson.loads(row.error or b"{}")["code"]) == ("failed", "store_unavailable")


async def test_a_close_ends_what_runs_and_says_so(desk: Desk, tmp_path: Path) -> None:
    async def talk(_: Say) -> None:
        await asyncio.Event().wait()

    live = await begin(desk, answering(talk))
    await desk.close()
    assert (live.status, (live.error or {})["code"]) == ("failed", "gateway_draining")
    with pytest.raises(Overloaded):
        await begin(desk, answering(talk))
    again = Runs(tmp_path / "runs.db", 64 << 20, 60.0, written)
    assert Row(*await again.find(None, live.seed)).status == "failed"
    with pytest.raises(Missing):
        await again.find("key:you", live.seed)
    await again.close()
