"""Runs of one gateway, many at once: whatever ends them, nothing of them is left but what is kept."""

import asyncio
from pathlib import Path
from typing import Any

from tests.edge.inprocess import serving
from tests.support.behaviours import silence, stream
from tests.support.gateway import ADMIN_KEY, APP_KEY, Tree
from tests.support.providers import TEXT, response_frames
from tests.support.upstream import Upstream

MANY = 24
ASKED = {"model": "gpt-4o", "input": "hi"}


async def test_many_that_end_in_every_way_leave_no_task_and_no_connection(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["timeouts"] = {"first_byte": "50s", "total": "50s"}
    spoken = stream([response_frames(TEXT)])
    upstream.default = spoken
    async with serving(config, tmp_path) as running:
        assert (await running.ask("POST", "/runs", ASKED)).status == 202  # what is imported for the first is here
        await running.until(lambda: not running.gateway.active)
        await asyncio.sleep(0.1)
        before = len(asyncio.all_tasks())
        upstream.script(*[silence(), spoken] * (MANY // 2))
        made: list[Any] = [reply.json for reply in await asyncio.gather(*map(begin(running), range(MANY)))]
        followed = (made[0], made[-1])  # each has a thread of the test's, of which there are few
        readers = [asyncio.ensure_future(running.ask("GET", f"/runs/{run['id']}/events")) for run in followed]
        await asyncio.gather(*[running.ask("POST", f"/runs/{run['id']}/cancel") for run in made[: MANY // 2]])
        await asyncio.gather(*[running.ask("DELETE", f"/runs/{run['id']}") for run in made[MANY // 2 :]])
        for reply in await asyncio.gather(*readers):
            assert reply.status in {200, 404}
        await running.until(lambda: not running.gateway.active)
        full = running.gateway._edges[0].full
        assert full is not None
        runs = full.handler.runs._runs
        assert runs is not None
        await running.until(lambda: not runs._desk._live)
        await running.until(lambda: len(asyncio.all_tasks()) <= before)
        page: Any = (await running.ask("GET", "/runs?limit=100", key=ADMIN_KEY)).json
        assert len(page["data"]) == MANY // 2 + 1
        assert [str(run["error"]) for run in page["data"] if run["status"] not in {"cancelled", "completed"}] == []
        await running.until(lambda: all(each.finished or each.gone_at is not None for each in upstream.requests))


def begin(running: Any) -> Any:
    return lambda _: running.ask("POST", "/runs", ASKED, key=APP_KEY)
