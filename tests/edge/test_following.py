"""The events of a run for one reader: behind the last that it has, and as they come."""

import asyncio
from pathlib import Path

from agw_proxy.api.runs import frame
from agw_proxy.edge.following import behind
from tests.edge.inprocess import Running, serving
from tests.support.behaviours import gate, silence, stream
from tests.support.client import bearer
from tests.support.gateway import APP_KEY, Tree
from tests.support.providers import TEXT, response_frames
from tests.support.upstream import Upstream

PATIENT = {"first_byte": "50s", "total": "50s"}
EVENTS = [frame(number, "response.x", {"text": "a\n\nb" * number}) for number in (9, 10, 11)]


def test_a_portion_is_cut_behind_the_last_event_that_came() -> None:
    body = b"".join(EVENTS)
    assert behind(body, -1) == behind(body, 8) == body
    assert behind(body, 9) == EVENTS[1] + EVENTS[2]
    assert behind(body, 10) == EVENTS[2]
    assert behind(body, 11) == b""


async def begin(running: Running, **headers: str) -> str:
    reply = await running.ask("POST", "/runs", {"model": "gpt-4o", "input": "hi"}, headers=headers)
    assert reply.status == 202, reply.body
    return f"/runs/{reply.json['id']}"


async def test_a_reader_hears_of_a_silent_run_that_somebody_is_there(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script(silence())
    config["server"]["ping_seconds"] = 0.05
    async with serving({**config, "timeouts": PATIENT}, tmp_path) as running:
        path = await begin(running)

        def first_comment() -> bytes:
            with running.connect() as connection:
                connection.send("GET", f"{path}/events", None, bearer(APP_KEY))
                return connection.upto(connection.head(), b": ping\n\n", "GET")

        assert (await asyncio.to_thread(first_comment)).endswith(b": ping\n\n")
        assert (await running.ask("DELETE", path)).status == 200


async def test_a_run_that_is_deleted_ends_its_readers_with_an_error(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    opened, behaviour = gate(stream([response_frames(TEXT)]))
    upstream.script(behaviour)
    async with serving({**config, "timeouts": PATIENT}, tmp_path) as running:
        path = await begin(running)
        reader = asyncio.ensure_future(running.ask("GET", f"{path}/events"))
        await running.until(lambda: len(running.gateway.accounts.active) == 2)
        assert (await running.ask("DELETE", path)).json["deleted"] is True
        reply = await reader
        assert b"event: response.failed" in reply.body or b"event: error" in reply.body
        assert (await running.ask("GET", path)).status == 404
        opened.set()


async def test_a_head_request_and_an_old_client_get_theirs(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    upstream.default = stream([response_frames(TEXT)])
    async with serving(config, tmp_path) as running:
        path = await begin(running)
        old = await running.raw(f"GET {path}/events HTTP/1.0\r\nAuthorization: Bearer {APP_KEY}\r\n\r\n".encode())
        assert old.rstrip().endswith(b"}")
        assert b"event: response.completed" in old
        assert b"Transfer-Encoding" not in old
        head = await running.ask("HEAD", f"{path}/events")
        assert (head.status, head.body) == (200, b"")
