"""A plain OpenAI client whose requests are a run's: bodies, streams, errors, cancellation, time-outs; never a socket."""

import asyncio
import gc
from pathlib import Path

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from agw_proxy.sdk.entry import CURRENT
from agw_proxy.sdk.models import client
from agw_proxy.sdk.transport import BASE_URL, Transport, _Stream
from tests.sdk.inside import running_within
from tests.support.behaviours import answer, failure, limited, silence, stream
from tests.support.fake_openai import ANSWER, chunk
from tests.support.gateway import Tree
from tests.support.providers import HELLO, TEXT, plays
from tests.support.upstream import Upstream

PATIENT = {"connect": "5s", "first_byte": "60s", "between_bytes": "60s", "total": "90s"}
HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]

JSON = [("content-type", "application/json")]
BODY = b'{"model":"fast","stream":true,"messages":[{"role":"user","content":"Hi"}]}'


async def test_a_client_gets_whole_answers_streams_and_lists(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    async with running_within(config, tmp_path) as (running, inner, _):
        asked = client(inner)
        whole = await asked.chat.completions.create(model="fast", messages=HI)
        assert whole.choices[0].message.content == ANSWER
        parts = await asked.chat.completions.create(model="fast", messages=HI, stream=True)
        text = "".join([part.choices[0].delta.content or "" async for part in parts if part.choices])
        assert text == ANSWER
        upstream.script(plays(TEXT), plays(TEXT))
        response = await asked.responses.create(model="chatty/gpt-chat", input="Hi")
        assert response.output_text == "".join(HELLO)
        events = [event.type async for event in await asked.responses.create(model="fast", input="Hi", stream=True)]
        assert (events[0], events[-1]) == ("response.created", "response.completed")
        assert "fast" in [model.id async for model in asked.models.list()]
        await running.until(lambda: not inner.active)
        lines = running.receipts()
        assert [line["outcome"] for line in lines] == ["ok"] * 5
        assert {line["run_id"] for line in lines} == {"req_outer"}
    assert [request.path for request in upstream.requests] == [
        "/v1/chat/completions",
        "/v1/chat/completions",
        "/v1/chat/completions",
        "/v1/responses",
    ]


async def test_refusals_and_failures_are_the_clients_own_exceptions(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["keys"][0]["limits"] = [{"tokens": 30, "period": "24h"}]
    config["retries"] = {**config["retries"], "attempts": 1}
    async with running_within(config, tmp_path) as (_, inner, _run):
        asked = client(inner)
        with pytest.raises(openai.NotFoundError):
            await asked.responses.create(model="nobody's", input="Hi", max_output_tokens=1)
        upstream.script(limited(), failure(400, "not like this"), failure(500))
        with pytest.raises(openai.RateLimitError) as told:
            await asked.responses.create(model="fast", input="Hi", max_output_tokens=1)
        assert told.value.response.headers["x-agw-error"] == "upstream_rejected"
        with pytest.raises(openai.BadRequestError, match="not like this"):
            await asked.responses.create(model="fast", input="Hi", max_output_tokens=1)
        with pytest.raises(openai.InternalServerError):
            await asked.responses.create(model="fast", input="Hi", max_output_tokens=1)
        upstream.script(plays(TEXT))
        await asked.responses.create(model="fast", input="Hi", max_output_tokens=1)  # 30 tokens
        count = len(upstream.requests)
        with pytest.raises(openai.RateLimitError) as refused:
            await asked.responses.create(model="fast", input="Hi", max_output_tokens=1)
        assert refused.value.code == "rate_limit_exceeded"
        assert len(upstream.requests) == count


async def test_a_stream_that_breaks_raises(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    upstream.script(stream([chunk({"content": "a"})], ending="rst"))
    async with running_within(config, tmp_path) as (_, inner, _run):
        parts = await client(inner).chat.completions.create(model="fast", messages=HI, stream=True)
        with pytest.raises(openai.APIError):
            async for _part in parts:
                pass


async def test_a_task_that_is_cancelled_and_a_stream_that_is_closed_end_their_calls_upstream(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["timeouts"] = PATIENT
    upstream.script(silence(), stream([chunk({"content": "a"})], ending="hang"))
    async with running_within(config, tmp_path) as (running, inner, _):
        asked = client(inner)
        task = asyncio.get_running_loop().create_task(asked.responses.create(model="fast", input="Hi"))
        await running.until(lambda: upstream.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(upstream.wait_gone, upstream.requests[0])
        parts = await asked.chat.completions.create(model="fast", messages=HI, stream=True)
        await anext(aiter(parts))
        await parts.close()
        await asyncio.to_thread(upstream.wait_gone, upstream.requests[1])
        await running.until(lambda: not inner.active and not running.gateway.active)
        assert [line["outcome"] for line in running.receipts()] == ["caller_gone", "caller_gone"]


async def test_a_stream_that_is_begun_and_forgotten_ends_upstream(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["timeouts"] = PATIENT
    upstream.script(stream([chunk({"content": "a"})], ending="hang"))
    async with running_within(config, tmp_path) as (running, inner, _):
        run = CURRENT.get()
        assert run is not None
        reply = await inner.open(run, "POST", "/v1/chat/completions", JSON, BODY)
        forgotten = _Stream(reply, None)
        await anext(aiter(forgotten))
        del forgotten
        gc.collect()
        await asyncio.to_thread(upstream.wait_gone, upstream.requests[0])
        await running.until(lambda: not inner.active)


async def test_another_loop_is_no_place_to_ask_from(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    async with running_within(config, tmp_path) as (_, inner, _run):

        async def elsewhere() -> None:
            async with httpx2.AsyncClient(transport=Transport(inner), base_url=BASE_URL) as http:
                await http.get("/models")

        with pytest.raises(httpx2.RemoteProtocolError, match="event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())
    assert not upstream.requests


async def test_files_go_out_as_they_came(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    upstream.script(answer({"id": "file-1", "object": "file"}), answer({"object": "list", "data": []}))
    async with running_within(config, tmp_path) as (_, inner, _run):
        asked = client(inner)
        made = await asked.files.create(file=("a.txt", b"words"), purpose="user_data")
        assert made.id == "file-1"
        await asked.files.list()
    sent, listed = upstream.requests
    assert b"words" in sent.body
    assert (listed.body, listed.value("content-length"), listed.value("transfer-encoding")) == (b"", None, None)


async def test_a_clients_own_patience_holds(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    config["timeouts"] = PATIENT
    upstream.script(silence(), stream([chunk({"content": "a"})], ending="hang"))
    async with running_within(config, tmp_path) as (running, inner, _):
        http = httpx2.AsyncClient(transport=Transport(inner), base_url=BASE_URL, timeout=0.2)
        body = {"model": "fast", "messages": HI, "stream": True}
        with pytest.raises(httpx2.ReadTimeout, match=r"0\.2 s"):
            await http.post("/chat/completions", json=body)
        with pytest.raises(httpx2.ReadTimeout):
            await http.post("/chat/completions", json=body)
        await running.until(lambda: not inner.active)


async def test_outside_of_runs_there_is_nobody_to_charge(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    async with running_within(config, tmp_path) as (running, inner, _):
        CURRENT.set(None)
        with pytest.raises(openai.BadRequestError, match="no run"):
            await client(inner).responses.create(model="fast", input="Hi")
        assert not running.receipts()


async def test_what_is_asked_after_the_gateway_has_begun_to_end_is_told_as_such(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["timeouts"], config["server"]["drain_seconds"] = PATIENT, 0
    upstream.script(silence())
    async with running_within(config, tmp_path) as (running, inner, _):
        task = asyncio.get_running_loop().create_task(client(inner).responses.create(model="fast", input="Hi"))
        await running.until(lambda: upstream.requests)
        await running.stop()
        with pytest.raises(openai.InternalServerError) as told:
            await task
        assert told.value.status_code == 503
